/** Tells those who wait for something to happen to a topic, or for a topic of a name. */
import type { Topic } from "./topic.ts";

export class Bell {
  readonly #listening = new Map<Topic | string, Set<() => void>>();

  ring(topic: Topic | string): void {
    for (const hear of this.#listening.get(topic) ?? []) hear();
  }

  /** Calls `hear` whenever the topic's bell rings, until the function it returns is called. */
  listen(topic: Topic | string, hear: () => void): () => void {
    const listening = this.#listening.get(topic) ?? new Set();
    this.#listening.set(topic, listening.add(hear));
    return () => {
      listening.delete(hear);
      if (listening.size === 0 && this.#listening.get(topic) === listening) this.#listening.delete(topic);
    };
  }

  /** Resolves true when the topic's bell rings, false after `timeoutMs` or when the signal aborts. */
  async wait(topic: Topic, timeoutMs: number, signal: AbortSignal): Promise<boolean> {
    if (signal.aborted) return false;
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const giveUp = () => resolve(false);
    const timer = setTimeout(giveUp, timeoutMs);
    signal.addEventListener("abort", giveUp);
    const stop = this.listen(topic, () => resolve(true));
    const rung = await promise;
    stop();
    clearTimeout(timer);
    signal.removeEventListener("abort", giveUp);
    return rung;
  }
}
