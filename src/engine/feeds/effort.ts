/** Something that is done over and over, with longer and longer pauses while it fails. */
import { Nudge } from "./nudge.ts";

const FIRST_PAUSE_MS = 1000;
const LONGEST_PAUSE_MS = 60_000;
/** Part of a pause that chance adds or takes away, so that not all try at once. */
const JITTER = 0.25;

export interface EffortEvents {
  /** One step. Resolves with the ms after which the next one is due; undefined if only a nudge makes it so. */
  readonly step: () => Promise<number | undefined>;
  readonly failed: (error: unknown) => void;
  /** Whether a failure passes by itself. Otherwise somebody has to change something, and it is tried rarely. */
  readonly isPassing: (error: unknown) => boolean;
}

export class Effort {
  readonly #nudge = new Nudge();
  readonly #resume = new Nudge();
  readonly #events: EffortEvents;
  /** Steps that have failed since one has not. */
  #failures = 0;
  #isFailing = false;

  constructor(events: EffortEvents) {
    this.#events = events;
  }

  get isFailing(): boolean {
    return this.#isFailing;
  }

  /** What it is for has worked. True if it had failed before. */
  worked(): boolean {
    const hadFailed = this.#isFailing;
    this.#isFailing = false;
    return hadFailed;
  }

  /** It has got somewhere: should it fail now, the pauses begin anew. */
  progressed(): void {
    this.#failures = 0;
  }

  /** There is something to do. A pause after a failure is not cut short. */
  nudge(): void {
    this.#nudge.give();
  }

  /** There is reason to believe that it will not fail any more. */
  resume(): void {
    if (this.isFailing) this.#resume.give();
  }

  /** Goes on until `signal`. */
  async run(signal: AbortSignal): Promise<void> {
    signal.addEventListener("abort", () => {
      this.#nudge.give();
      this.#resume.give();
    });
    while (!signal.aborted) {
      try {
        const dueMs = await this.#events.step();
        this.progressed();
        if (dueMs !== 0) await this.#nudge.wait(dueMs);
      } catch (error) {
        if (signal.aborted) return;
        this.#failures++;
        this.#isFailing = true;
        this.#events.failed(error);
        await this.#resume.wait(this.#pauseMs(error));
      }
    }
  }

  #pauseMs(error: unknown): number {
    const longer = Math.min(FIRST_PAUSE_MS * 2 ** (this.#failures - 1), LONGEST_PAUSE_MS);
    const ms = this.#events.isPassing(error) ? longer : LONGEST_PAUSE_MS;
    return ms * (1 + JITTER * (2 * Math.random() - 1));
  }
}
