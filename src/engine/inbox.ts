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

  /** What was put in, when there is something; undefined when all has ended. */
  async take(): Promise<T | undefined> {
    if (this.#item === undefined && !this.#ended.aborted) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#wake = resolve;
      await promise;
    }
    const item = this.#item;
    this.#item = undefined;
    return item;
  }
}
