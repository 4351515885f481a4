/** Whose turn it is: in rounds, by priority and then by name. Who comes meanwhile has a turn in the next round. */
export class Turns<T extends { readonly name: string }> {
  readonly #priorityOf: (one: T) => number;
  readonly #waiting = new Set<T>();
  /** This round, the first one last. */
  #round: T[] = [];

  constructor(priorityOf: (one: T) => number) {
    this.#priorityOf = priorityOf;
  }

  add(one: T): void {
    this.#waiting.add(one);
  }

  /** Adds one that comes before all others of this round. */
  first(one: T): void {
    this.#waiting.add(one);
    this.#round.push(one);
  }

  delete(one: T): void {
    this.#waiting.delete(one);
  }

  /** The next one, which then waits no more. */
  take(): T | undefined {
    while (this.#waiting.size > 0) {
      if (this.#round.length === 0) this.#round = this.#begin();
      const next = this.#round.pop()!;
      if (this.#waiting.delete(next)) return next;
    }
    return undefined;
  }

  #begin(): T[] {
    const round = [...this.#waiting];
    if (round.length === 1) return round;
    const priorities = new Map(round.map((one) => [one, this.#priorityOf(one)]));
    return round.sort((a, b) => {
      const byPriority = priorities.get(a)! - priorities.get(b)!;
      return byPriority === 0 ? (a.name < b.name ? 1 : -1) : byPriority;
    });
  }
}
