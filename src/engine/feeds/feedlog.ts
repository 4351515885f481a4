/** The log that all of feeds is made of, and what of it is shown. */
import { ApiError } from "../../contract/errors.ts";
import { FEED_LOG } from "../../contract/limits.ts";
import type { EventRow } from "../../store/feeds/events.ts";
import { DamagedRecord } from "../../store/records.ts";
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
    const { shelf, slot } = this.topic;
    try {
      const [record] = shelf.records.range(slot, seq - 1, seq, 1);
      if (record) return record.data;
    } catch (error) {
      if (!(error instanceof DamagedRecord)) throw error;
    }
    throw new ApiError("internal", { topic: FEED_LOG, seq });
  }

  /** What `encode` makes of each event, as many as `bytesMax` hold but at least one. */
  async encoded(
    rows: readonly EventRow[],
    encode: (row: EventRow, text: string) => string,
    bytesMax = Number.POSITIVE_INFINITY,
  ): Promise<string[]> {
    const encoded: string[] = [];
    let bytes = 0;
    let turn = 0;
    for (const row of rows) {
      const text = encode(row, this.text(row.seq));
      bytes += Buffer.byteLength(text);
      if (bytes > bytesMax && encoded.length > 0) break;
      encoded.push(text);
      turn += text.length;
      if (turn < BYTES_PER_TURN) continue;
      turn = 0;
      await Bun.sleep(0);
    }
    return encoded;
  }
}
