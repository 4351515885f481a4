/** Wakes those who wait for something to happen to a topic. */
import type { Topic } from "./topic.ts";

export class Bell {
  readonly #waiting = new Map<Topic, Set<() => void>>();

  ring(topic: Topic): void {
    const waiting = this.#waiting.get(topic);
    this.#waiting.delete(topic);
    for (const wake of waiting ?? []) wake();
  }

  /** Resolves true when the topic's bell rings, false after `timeoutMs` or when the signal aborts. */
  wait(topic: Topic, timeoutMs: number, signal: AbortSignal): Promise<boolean> {
    if (signal.aborted) return Promise.resolve(false);
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const wake = () => end(true);
    const giveUp = () => end(false);
    const timer = setTimeout(giveUp, timeoutMs);
    signal.addEventListener("abort", giveUp);
    const waiting = this.#waiting.get(topic) ?? new Set();
    this.#waiting.set(topic, waiting.add(wake));
    const end = (rung: boolean) => {
      clearTimeout(timer);
      signal.removeEventListener("abort", giveUp);
      waiting.delete(wake);
      if (waiting.size === 0 && this.#waiting.get(topic) === waiting) this.#waiting.delete(topic);
      resolve(rung);
    };
    return promise;
  }
}
