/**
 * Walking and summing the live records of a topic without visiting more rows than a block holds.
 *
 * Live is what no floor and no delete has reached. Rows of dead records may still be in storage.
 */
import { BLOCK_SEQS, blockOf, firstOf, lastOf } from "../store/blocks.ts";
import type { RecordSize } from "../store/records.ts";
import type { TagRange } from "../store/tagdeletes.ts";
import { behindPrefix } from "./prefix.ts";
import type { Topic } from "./topic.ts";

const BLOCKS_PAGE = 256;
/** Most walks end at their first row. */
const ROWS_FIRST = 4;
const ROWS_PAGE_MAX = 256;

export interface Tally {
  count: number;
  bytes: number;
}

/** Live records with `after < seq <= last`, oldest first. */
export function* liveRows(topic: Topic, after: number, last: number): Generator<RecordSize> {
  let from = Math.max(after, topic.log.earliest - 1);
  for (let limit = ROWS_FIRST; ; limit = Math.min(4 * limit, ROWS_PAGE_MAX)) {
    const rows = topic.shelf.records.sizes(topic.slot, from, last, limit);
    for (const row of rows) if (!topic.isDeleted(row.seq, row.tag)) yield row;
    if (rows.length < limit) return;
    from = rows.at(-1)!.seq;
  }
}

/** A seq from `from` on below which there is no live one: the start of the next block that counts any. */
export function firstCounted({ slot, shelf, log }: Topic, from: number): number {
  const [next] = shelf.blocks.from(slot, blockOf(from), 1);
  const tail = log.tailCount > 0 ? log.tailBlock : Number.POSITIVE_INFINITY;
  const block = Math.min(next?.block ?? tail, tail);
  return Number.isFinite(block) ? Math.max(from, firstOf(block)) : log.head + 1;
}

/** The first live seq from `from` on, or `head + 1`. */
export function nextLive(topic: Topic, from: number): number {
  const { slot, shelf, log } = topic;
  topic.settle();
  for (let block = blockOf(from); ; ) {
    const [next] = shelf.blocks.from(slot, block, 1);
    if (next === undefined) return log.head + 1;
    for (const row of liveRows(topic, from - 1, lastOf(next.block))) return row.seq;
    block = next.block + 1;
  }
}

/** The last live seq up to `upTo`, or 0. */
export function lastLive(topic: Topic, upTo: number): number {
  const { slot, shelf } = topic;
  topic.settle();
  for (let block = shelf.blocks.lastUpTo(slot, blockOf(upTo)); block !== undefined; ) {
    const rows = shelf.records.sizesBack(slot, firstOf(block) - 1, Math.min(upTo, lastOf(block)), BLOCK_SEQS);
    const row = rows.find((row) => row.seq >= topic.log.earliest && !topic.isDeleted(row.seq, row.tag));
    if (row) return row.seq;
    block = block === 0 ? undefined : shelf.blocks.lastUpTo(slot, block - 1);
  }
  return 0;
}

/** Live records up to `upTo`. */
export function tallyUpTo(topic: Topic, upTo: number): Tally {
  topic.settle();
  const block = blockOf(upTo);
  const sum = topic.shelf.blocks.sumBelow(topic.slot, block);
  for (const row of liveRows(topic, firstOf(block) - 1, upTo)) {
    sum.count++;
    sum.bytes += row.bytes;
  }
  return sum;
}

/** The shortest run of oldest live records with at least `count` records and `bytes` bytes; `seq` is its end. */
export function oldest(topic: Topic, count: number, bytes: number): Tally & { seq: number } {
  topic.settle();
  const sum = { count: 0, bytes: 0 };
  const enough = () => sum.count >= count && sum.bytes >= bytes;
  for (let block = blockOf(topic.log.earliest); ; ) {
    const page = topic.shelf.blocks.from(topic.slot, block, BLOCKS_PAGE);
    for (const next of page) {
      if (sum.count + next.count < count || sum.bytes + next.bytes < bytes) {
        sum.count += next.count;
        sum.bytes += next.bytes;
        continue;
      }
      for (const row of liveRows(topic, firstOf(next.block) - 1, lastOf(next.block))) {
        sum.count++;
        sum.bytes += row.bytes;
        if (enough()) return { ...sum, seq: row.seq };
      }
    }
    const last = page.at(-1);
    if (last === undefined) return { ...sum, seq: lastLive(topic, topic.log.head) };
    block = last.block + 1;
  }
}

/**
 * The last seq whose record is older than `ts`, or 0: a binary search, since `$ts` never decreases along seqs.
 * The record found may be dead already.
 */
export function lastOlderThan(topic: Topic, ts: number): number {
  const { slot, shelf, log } = topic;
  const oldest = shelf.records.firstFrom(slot, log.earliest, log.head);
  if (oldest === undefined || oldest.ts >= ts) return 0;
  if (log.lastTs !== null && log.lastTs < ts) return log.head;
  let older = oldest.seq;
  let young = log.head + 1;
  while (young - older > 1) {
    const middle = Math.floor((older + young) / 2);
    const row = shelf.records.firstFrom(slot, middle, young - 1);
    if (row === undefined || row.ts >= ts) young = middle;
    else older = row.seq;
  }
  return older;
}

/** Those of `rows` that are live and have `seq <= upTo`. */
export function liveUpTo(topic: Topic, rows: readonly RecordSize[], upTo: number): RecordSize[] {
  return rows.filter(
    ({ seq, tag }) => seq <= upTo && seq >= topic.log.earliest && !topic.isDeleted(seq, tag),
  );
}

/**
 * Stored records with a tag in `range`, dead or alive, `size()` rows at a time. The walk may rest between two
 * steps: its place is a tag and a seq.
 */
export function* taggedRows(
  topic: Topic,
  range: TagRange,
  upTo: number,
  size: () => number,
): Generator<RecordSize[], undefined> {
  const { slot } = topic;
  const end = behindPrefix(range.text);
  // A prefix without its closing quote is no tag itself, so the walk may start there for both.
  let tag = range.text;
  let after = 0;
  for (;;) {
    const limit = size();
    const { records } = topic.shelf;
    const rows = records.tagged(slot, tag, after, upTo, limit);
    if (range.isPrefix && rows.length < limit) {
      rows.push(...records.taggedAfter(slot, tag, end, limit - rows.length));
    }
    const last = rows.at(-1);
    if (last === undefined) return;
    yield rows;
    tag = last.tag!;
    after = last.seq;
  }
}
