/** Whether the disk is full, so that it is told once when that begins and once when it is over. */

/** Small writes may still fit where large ones do not, so all must have worked for so long. */
const QUIET_MS = 2000;

export class Space {
  readonly #now: () => number;
  #refusedAt: number | undefined;

  constructor(now: () => number) {
    this.#now = now;
  }

  /** A write was refused: whether it is the first one. */
  refused(): boolean {
    const isFirst = this.#refusedAt === undefined;
    this.#refusedAt = this.#now();
    return isFirst;
  }

  /** A write has worked: whether it ends a time in which some were refused. */
  written(): boolean {
    if (this.#refusedAt === undefined || this.#now() - this.#refusedAt < QUIET_MS) return false;
    this.#refusedAt = undefined;
    return true;
  }
}
