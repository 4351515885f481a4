/** Random numbers that a seed repeats (mulberry32). */
export class Dice {
  #state: number;

  constructor(state: number) {
    this.#state = state;
  }

  /** A number in [0, 1). */
  roll(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let t = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }

  below = (end: number): number => Math.floor(this.roll() * end);
  between = (start: number, end: number): number => start + this.below(end - start);
  pick = <T>(list: readonly T[]): T => list[this.below(list.length)]!;
}
