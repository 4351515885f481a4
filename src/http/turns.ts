/**
 * Reads take turns, so that however many come at once, everybody else is heard in between: what has arrived is
 * otherwise worked off before the event loop looks at its connections again, for clients that have left as well.
 */
import { ApiError } from "../contract/errors.ts";

/** So long reads may keep a turn of the event loop before the next one waits for another. */
const TURN_MS = 5;
/** So many of those that wait may go on in one turn, as long as they are quick. */
const RELEASED_MAX = 64;

export class Turns {
  #waiting: (() => void)[] = [];
  #startedAt: number | undefined;
  #released = 1;

  /** Undefined where there is time at once. Rejects when it is the turn of a client that has left meanwhile. */
  take(request: Request): Promise<void> | undefined {
    const now = performance.now();
    if (this.#startedAt === undefined) {
      this.#startedAt = now;
      setImmediate(this.#next);
    }
    if (this.#waiting.length === 0 && now - this.#startedAt < TURN_MS) return undefined;
    return this.#wait(request);
  }

  async #wait(request: Request): Promise<void> {
    await new Promise<void>((resolve) => this.#waiting.push(resolve));
    if (request.signal.aborted) throw new ApiError("request_timeout", {}, "the client has left");
  }

  readonly #next = (): void => {
    if (this.#waiting.length === 0) {
      this.#startedAt = undefined;
      return;
    }
    const now = performance.now();
    const isQuick = now - this.#startedAt! < TURN_MS;
    this.#released = isQuick ? Math.min(2 * this.#released, RELEASED_MAX) : Math.ceil(this.#released / 2);
    this.#startedAt = now;
    for (const go of this.#waiting.splice(0, this.#released)) go();
    setImmediate(this.#next);
  };
}
