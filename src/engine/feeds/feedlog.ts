/** The log that all of feeds is made of, and what of it is shown. */
import { ApiError } from "../../contract/errors.ts";
import { FEED_LOG } from "../../contract/limits.ts";
import { DamagedRecord } from "../../store/records.ts";
import { isCorruption } from "../../store/store.ts";
import type { Topic } from "../topic.ts";
import type { Topics } from "../topics.ts";
import type { FeedEvent } from "./event.ts";

/** So much is read before others get their turn. */
const BYTES_PER_TURN = 1024 * 1024;

export class FeedLog {
  /** The topic's instance. One whose records may be lost has another one, so that peers can tell. */
  readonly id: string;
  readonly #topics: Topics;
  readonly #listening = new Set<(events: readonly FeedEvent[]) => void>();

  constructor(topics: Topics, id: string) {
    this.#topics = topics;
    this.id = id;
  }

  /** Calls `hear` with what is new, once it is shown, until the function it returns is called. */
  listen(hear: (events: readonly FeedEvent[]) => void): () => void {
    this.#listening.add(hear);
    return () => this.#listening.delete(hear);
  }

  /** The log has grown by these. */
  grown(events: readonly FeedEvent[]): void {
    if (events.length === 0 || this.#listening.size === 0) return;
    const shown = this.topic.unsynced ?? Promise.resolve();
    shown.then(
      () => {
        for (const hear of this.#listening) hear(events);
      },
      // The commit that failed has told whoever runs the server.
      () => {},
    );
  }

  get topic(): Topic {
    return this.#topics.existing(FEED_LOG);
  }

  /** How many events there are, shown or not, damaged or not. */
  get events(): number {
    return this.#topics.find(FEED_LOG)?.log.head ?? 0;
  }

  /** The newest event that is shown: it is on the device. */
  get head(): number {
    return this.topic.shownHead;
  }

  /** The event as it was signed. Throws `internal` if it is damaged. */
  text(seq: number): string {
    const text = this.find(seq);
    if (text === undefined) throw new ApiError("internal", { topic: FEED_LOG, seq });
    return text;
  }

  /** The same, but undefined for one that is damaged. */
  find(seq: number): string | undefined {
    const { shelf, slot } = this.topic;
    try {
      return shelf.records.range(slot, seq - 1, seq, 1)[0]?.data;
    } catch (error) {
      if (error instanceof DamagedRecord || isCorruption(error)) return undefined;
      throw error;
    }
  }

  /**
   * What `encode` makes of events, in order: as many as `bytesMax` holds, but at least one. `count`: how many were
   * looked at for that. What is undefined is left out.
   */
  async encoded<Row>(
    rows: readonly Row[],
    encode: (row: Row) => string | undefined,
    bytesMax: number,
  ): Promise<{ texts: string[]; count: number }> {
    const texts: string[] = [];
    let bytes = 0;
    let turn = 0;
    for (const [index, row] of rows.entries()) {
      const text = encode(row);
      if (text === undefined) continue;
      bytes += Buffer.byteLength(text);
      if (bytes > bytesMax && texts.length > 0) return { texts, count: index };
      texts.push(text);
      turn += text.length;
      if (turn < BYTES_PER_TURN) continue;
      turn = 0;
      await Bun.sleep(0);
    }
    return { texts, count: rows.length };
  }
}
