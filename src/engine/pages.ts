/**
 * Records encoded for the wire, in pages of 256 seqs.
 *
 * Whole pages are kept in memory up to a budget, so that a record many readers want is read, verified and
 * encoded once. A page below the head only changes by deletes, which give the topic a new version.
 */
import { LRUCache } from "lru-cache";
import type { RecordRow } from "../store/records.ts";
import { readRows } from "./gaps.ts";
import type { Topic } from "./topic.ts";

export const PAGE_SEQS = 256;

const CACHE_BYTES_MAX = 32 * 1024 * 1024;
/** About what a page and one of its records cost beside their text. */
const PAGE_OVERHEAD = 500;
const RECORD_OVERHEAD = 24;

/** Which parts of a record a reader wants. */
export interface View {
  readonly tags: boolean;
  readonly meta: boolean;
}

/** Encoded records, joined by commas. */
export interface Page {
  /** The page covers the seqs up to here. */
  readonly last: number;
  readonly text: string;
  readonly seqs: readonly number[];
  /** The place in `text` behind each record. */
  readonly ends: readonly number[];
  /** What each record counts for. */
  readonly bytes: readonly number[];
}

export class Pages {
  readonly #cache = new LRUCache<string, Page>({
    maxSize: CACHE_BYTES_MAX,
    sizeCalculation: ({ text, seqs }) => text.length + PAGE_OVERHEAD + RECORD_OVERHEAD * seqs.length,
  });

  /** The live records of the page that holds `seq`, or undefined if the page reaches beyond `upTo`. */
  whole(topic: Topic, seq: number, upTo: number, view: View): Page | undefined {
    const number = Math.ceil(seq / PAGE_SEQS);
    const last = number * PAGE_SEQS;
    if (last > upTo) return undefined;
    const key = `${topic.epoch} ${topic.version} ${number} ${view.tags} ${view.meta}`;
    let page = this.#cache.get(key);
    if (page === undefined) {
      const after = Math.max(last - PAGE_SEQS, topic.log.earliest - 1);
      const rows = readRows(topic, after, last, PAGE_SEQS);
      const live = rows.filter((row) => !topic.isDeleted(row.seq, row.tag));
      page = encodePage(live, last, view);
      this.#cache.set(key, page);
    }
    return page;
  }
}

function encodePage(rows: readonly RecordRow[], last: number, view: View): Page {
  let text = "";
  const ends = rows.map((row) => {
    text += (text === "" ? "" : ",") + encodeRecord(row, view);
    return text.length;
  });
  return { last, text, seqs: rows.map((row) => row.seq), ends, bytes: rows.map((row) => row.bytes) };
}

/** One record as JSON: the stored texts under the names of the contract. */
export function encodeRecord({ seq, ts, node, tag, data, meta }: RecordRow, view: View): string {
  let text = `{"$seq":${seq},"$ts":${ts}`;
  if (node !== null) text += `,"$node":${node}`;
  if (tag !== null && view.tags) text += `,"$tag":${tag}`;
  text += `,"data":${data}`;
  if (meta !== null && view.meta) text += `,"meta":${meta}`;
  return `${text}}`;
}
