/** Something to wait for that may also have happened already. */
export class Nudge {
  #isDue = false;
  #wake: (() => void) | undefined;

  give(): void {
    this.#isDue = true;
    this.#wake?.();
  }

  /** Resolves when a nudge was given since the last time, or after so many ms. */
  async wait(ms = Number.POSITIVE_INFINITY): Promise<void> {
    if (!this.#isDue) {
      const { promise, resolve } = Promise.withResolvers<void>();
      const timer = Number.isFinite(ms) ? setTimeout(resolve, ms) : undefined;
      this.#wake = resolve;
      await promise;
      clearTimeout(timer);
      this.#wake = undefined;
    }
    this.#isDue = false;
  }
}
