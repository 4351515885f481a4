/** Holds what was sent to somebody until it is taken. */
export class Inbox<T> {
  readonly #ended: AbortSignal;
  #item: T | undefined;
  #wake = () => {};

  constructor(ended: AbortSignal) {
    this.#ended = ended;
    ended.addEventListener("abort", this.#end);
  }

  readonly #end = (): void => this.#wake();

  /** Nobody waits any more. A signal that somebody listens to would stay with the one that it follows. */
  close(): void {
    this.#ended.removeEventListener("abort", this.#end);
  }

  put(item: T): void {
    this.#item = item;
    this.#wake();
  }

  /** What was put in, when there is something; undefined after `timeoutMs`, or when all has ended. */
  async take(timeoutMs: number): Promise<T | undefined> {
    if (this.#item === undefined && !this.#ended.aborted) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#wake = resolve;
      const timer = setTimeout(resolve, timeoutMs);
      await promise;
      clearTimeout(timer);
    }
    const item = this.#item;
    this.#item = undefined;
    return item;
  }
}
