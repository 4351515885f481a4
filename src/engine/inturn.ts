/** Work on one thing after another, and on different things side by side. */
export class InTurn {
  readonly #last = new Map<string, Promise<unknown>>();

  /** Does `work` when all that was to be done before it with `name` is over. */
  async run<T>(name: string, work: () => Promise<T>): Promise<T> {
    const turn = (this.#last.get(name) ?? Promise.resolve()).then(work, work);
    this.#last.set(name, turn);
    try {
      return await turn;
    } finally {
      if (this.#last.get(name) === turn) this.#last.delete(name);
    }
  }
}
