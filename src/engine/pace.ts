/**
 * Paces long work on the event loop: slices short enough that no request notices one, with rests between
 * them.
 */
const SLICE_MS = 1.5;
const ROWS_FIRST = 200;
const ROWS_MIN = 20;
const ROWS_MAX = 4000;

export class Pace {
  readonly #restPerWork: number;
  /** How many rows the next slice should handle. */
  rows = ROWS_FIRST;

  /** `restPerWork`: how many times as long as a slice the rest behind it is. */
  constructor(restPerWork: number) {
    this.#restPerWork = restPerWork;
  }

  /** Notes a slice that has taken `ms`; gives the ms to rest before the next one. */
  rest(ms: number): number {
    const fitting = this.rows * (SLICE_MS / Math.max(ms, SLICE_MS / 2));
    this.rows = Math.round(Math.min(Math.max(fitting, ROWS_MIN), ROWS_MAX));
    return Math.ceil(ms * this.#restPerWork);
  }
}
