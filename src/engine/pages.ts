/**
 * Records encoded for the wire, in pages of 256 seqs.
 *
 * Whole pages that are wanted again are kept in memory up to a budget, so that a record many readers want is
 * read, verified and encoded once. One walk through old records passes the cache by. A page below the head only
 * changes by deletes, which give the topic a new version.
 */
import { LRUCache } from "lru-cache";
import type { RecordRow } from "../store/records.ts";
import { readRows } from "./gaps.ts";
import type { Topic } from "./topic.ts";

export const PAGE_SEQS = 256;

const CACHE_BYTES_MAX = 16 * 1024 * 1024;
/** So many pages are remembered as wanted once. */
const WANTED_MAX = 10_000;
/** About what a page and one of its records cost beside their text. */
const PAGE_OVERHEAD = 500;
const RECORD_OVERHEAD = 24;

/** Which parts of a record a reader wants. */
export interface View {
  readonly tags: boolean;
  readonly meta: boolean;
  readonly data: boolean;
}

/** A short name for a view. */
export const nameOf = ({ tags, meta, data }: View): number =>
  Number(tags) + 2 * Number(meta) + 4 * Number(data);

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

  readonly #wanted = new LRUCache<string, true>({ max: WANTED_MAX });

  /**
   * The live records of the page that holds `seq`. Undefined if the page reaches beyond `upTo`, or if nobody
   * has wanted it before.
   */
  whole(topic: Topic, seq: number, upTo: number, view: View): Page | undefined {
    const number = Math.ceil(seq / PAGE_SEQS);
    const last = number * PAGE_SEQS;
    if (last > upTo) return undefined;
    const key = `${topic.epoch} ${topic.version} ${number} ${nameOf(view)}`;
    const known = this.#cache.get(key);
    if (known) return known;
    if (!this.#wanted.has(key)) {
      this.#wanted.set(key, true);
      return undefined;
    }
    const after = Math.max(last - PAGE_SEQS, topic.log.earliest - 1);
    const rows = readRows(topic, after, last, PAGE_SEQS);
    const live = rows.filter((row) => !topic.isDeleted(row.seq, row.tag));
    const page = encodePage(live, last, view);
    this.#cache.set(key, page);
    return page;
  }
}

function encodePage(rows: readonly RecordRow[], last: number, view: View): Page {
  const texts = rows.map((row) => encodeRecord(row, view));
  let end = -1;
  const ends = texts.map((text) => (end += 1 + text.length));
  return {
    last,
    text: texts.join(","),
    seqs: rows.map((row) => row.seq),
    ends,
    bytes: rows.map((row) => row.bytes),
  };
}

/** One record as JSON: the stored texts under the names of the contract. */
export function encodeRecord(row: RecordRow, view: View): string {
  const node = row.node === null ? "" : `,"$node":${row.node}`;
  const tag = row.tag === null || !view.tags ? "" : `,"$tag":${row.tag}`;
  const meta = row.meta === null || !view.meta ? "" : `,"meta":${row.meta}`;
  const data = view.data ? `,"data":${row.data}` : "";
  return `{"$seq":${row.seq},"$ts":${row.ts}${node}${tag}${data}${meta}}`;
}
