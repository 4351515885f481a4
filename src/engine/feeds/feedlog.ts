/** The log that all of feeds is made of, and what of it is shown. */
import { ApiError } from "../../contract/errors.ts";
import { FEED_LOG } from "../../contract/limits.ts";
import { isCorruption } from "../../store/store.ts";
import type { Topic } from "../topic.ts";
import type { Topics } from "../topics.ts";
import type { FeedEvent } from "./event.ts";

/** So many events are read at once; if they are large, others get their turn then. */
const EVENTS_PER_READ = 32;
const LENGTH_PER_TURN = 256 * 1024;

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

  /** What of the log is there. */
  get live(): { readonly records: number; readonly bytes: number } {
    const { count: records = 0, bytes = 0 } = this.#topics.find(FEED_LOG)?.log ?? {};
    return { records, bytes };
  }

  /** The newest event that is shown: it is on the device. */
  get head(): number {
    return this.topic.shownHead;
  }

  /** Events as they were signed, in order; undefined for one that is damaged. */
  texts(seqs: readonly number[]): (string | undefined)[] {
    const { shelf, slot } = this.topic;
    try {
      const records = shelf.records.some(slot, seqs);
      return seqs.map((seq) => records.get(seq)?.data);
    } catch (error) {
      if (!isCorruption(error)) throw error;
      return seqs.length === 1 ? [undefined] : seqs.flatMap((seq) => this.texts([seq]));
    }
  }

  /**
   * What `encode` makes of events, in order: as many as `bytesMax` holds, but at least one. `count`: how many were
   * looked at for that. What is undefined is left out.
   */
  async encoded<Row extends { readonly seq: number }>(
    rows: readonly Row[],
    encode: (row: Row, text: string | undefined) => string | undefined,
    bytesMax: number,
  ): Promise<{ encoded: string[]; count: number }> {
    const encoded: string[] = [];
    let bytes = 0;
    let count = 0;
    for await (const some of this.read(rows)) {
      for (const { row, text } of some) {
        const made = encode(row, text);
        if (made !== undefined) {
          bytes += Buffer.byteLength(made);
          if (bytes > bytesMax && encoded.length > 0) return { encoded, count };
          encoded.push(made);
        }
        count++;
      }
    }
    return { encoded, count };
  }

  /** Events with their texts, a few at a time. Where they are large, others get their turn in between. */
  async *read<Row extends { readonly seq: number }>(
    rows: readonly Row[],
  ): AsyncGenerator<{ row: Row; text: string | undefined }[]> {
    for (let start = 0; start < rows.length; start += EVENTS_PER_READ) {
      const some = rows.slice(start, start + EVENTS_PER_READ);
      const texts = this.texts(some.map(({ seq }) => seq));
      yield some.map((row, i) => ({ row, text: texts[i] }));
      if (lengthOf(texts) > LENGTH_PER_TURN) await Bun.sleep(0);
    }
  }
}

/** What is said of one that is damaged. */
export const damaged = (seq: number): ApiError => new ApiError("internal", { topic: FEED_LOG, seq });

const lengthOf = (texts: readonly (string | undefined)[]): number =>
  texts.reduce((length, text = "") => length + text.length, 0);
