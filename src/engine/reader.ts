/** Reading a log from a position: a tombstone for what was lost, then the records, up to a limit and a budget. */
import {
  DIFF_BYTES_DEFAULT,
  DIFF_BYTES_MAX,
  DIFF_LIMIT_DEFAULT,
  DIFF_LIMIT_MAX,
} from "../contract/limits.ts";
import type { Tombstone } from "../contract/records.ts";
import { DamagedRecord, type RecordRow, type RecordSize } from "../store/records.ts";
import { isCorruption } from "../store/store.ts";
import { readRows } from "./gaps.ts";
import { firstCounted } from "./live.ts";
import { encodeRecord, PAGE_SEQS, type Page, type Pages, type View } from "./pages.ts";
import type { Topic } from "./topic.ts";

/** About so much is read from the store at once. */
const BYTES_PER_READ = 1024 * 1024;
/** So many rows are looked at to find one that is not hidden. */
const ROWS_AHEAD = 500;
/** A walk past many rows rests after so many, for as long as they took. */
const ROWS_PER_REST = 2000;

/** What one read may return. */
export interface Window {
  readonly fromSeq: number;
  readonly limit: number;
  readonly bytesMax: number;
  readonly view: View;
  /** Records of these nodes (JSON strings) are passed over. */
  readonly withoutNodes: ReadonlySet<string>;
  /** The instance of the topic that `fromSeq` belongs to, if the reader knows. */
  readonly epoch: number | undefined;
}

/** How much one read of records takes at most. Zeros stand for the defaults. */
export const sizeOf = (limit: number, bytes: number): Pick<Window, "limit" | "bytesMax"> => ({
  limit: Math.min(limit || DIFF_LIMIT_DEFAULT, DIFF_LIMIT_MAX),
  bytesMax: Math.min(bytes || DIFF_BYTES_DEFAULT, DIFF_BYTES_MAX),
});

/** A run of records, encoded and joined by commas, and the position behind it. */
export interface Run {
  readonly records: string;
  readonly count: number;
  readonly next: number;
  readonly head: number;
  readonly earliest: number;
  readonly tombstone: Tombstone | null;
  readonly scanned: number;
  /** The next record, if it cannot be read. The run ends behind it, and before one further on. */
  readonly damaged?: number;
}

/** Reads up to the present head. A walk past many records that are not delivered rests in between. */
export async function read(topic: Topic, window: Window, pages: Pages): Promise<Run> {
  const { head, earliest } = topic.log;
  const tombstone = tombstoneFor(topic, window);
  const batch = new Batch(window, startOf(topic, window, tombstone));
  const start = batch.next;
  // Whoever comes to a hole is told so, and reads on behind it.
  const hole = topic.trimBehind(start);
  for (let last = hole ? Math.min(head, hole.from - 1) : head; ; ) {
    try {
      await walk(topic, window, batch, last, pages);
      break;
    } catch (error) {
      const damaged = damagedSeq(error, batch.next + 1);
      if (damaged <= start + 1) {
        const next = Math.max(start, damaged);
        return { records: "", count: 0, next, head, earliest, tombstone, scanned: 0, damaged: next };
      }
      last = Math.min(damaged, last) - 1;
    }
  }
  const { records, count, next } = batch.found;
  // Lost during the walk, before anything was found, or a hole is next: the reader is told now.
  if (count === 0 && tombstone === null && topic.evictFloor > next) return read(topic, window, pages);
  if (count === 0 && tombstone === null && hole?.from === next + 1) {
    const run = await read(topic, { ...window, fromSeq: next }, pages);
    return { ...run, scanned: run.scanned + Math.max(0, next - start) };
  }
  return { records, count, next, head, earliest, tombstone, scanned: Math.max(0, next - start) };
}

/** The first seq that cannot be read, where `error` says so; `next` if it does not say which. */
function damagedSeq(error: unknown, next: number): number {
  if (error instanceof DamagedRecord) return error.seq;
  if (isCorruption(error)) return next;
  throw error;
}

/** Fills `batch` with what lies up to `last`. */
async function walk(topic: Topic, window: Window, batch: Batch, last: number, pages: Pages): Promise<void> {
  const { view, withoutNodes } = window;
  let rowsSinceRest = 0;
  let restedAt = performance.now();
  while (!batch.full && batch.next < last) {
    if (rowsSinceRest >= ROWS_PER_REST) {
      await Bun.sleep(Math.ceil(performance.now() - restedAt));
      rowsSinceRest = 0;
      restedAt = performance.now();
      // What was lost meanwhile is for the next read's tombstone to tell.
      if (topic.deleted || topic.evictFloor > batch.next) return;
    }
    const run = readable(topic, batch.next, last);
    rowsSinceRest += run.passed;
    batch.skipTo(run.after);
    if (run.rows === 0) continue;
    const filters = withoutNodes.size > 0;
    const limit = rowsWithin(
      topic,
      batch.next,
      last,
      Math.min(filters ? PAGE_SEQS : batch.room, PAGE_SEQS, run.rows),
    );
    const page =
      !filters && limit >= PAGE_SEQS / 2 ? pages.whole(topic, batch.next + 1, last, view) : undefined;
    if (page) {
      batch.addPage(page);
      rowsSinceRest += page.seqs.length;
      continue;
    }
    const rows = readRows(topic, batch.next, last, limit);
    for (const row of rows) {
      batch.offer(topic, row);
      if (batch.full) return;
    }
    rowsSinceRest += rows.length;
    if (rows.length < limit) batch.skipTo(last);
  }
}

/** Where to read on behind `next`: up to `rows` records after `after`. `passed` rows were looked at for that. */
function readable(topic: Topic, next: number, last: number): { after: number; rows: number; passed: number } {
  const { earliest } = topic.log;
  if (topic.tagDeletes.length === 0) {
    return { after: Math.min(last, Math.max(next, earliest - 1)), rows: PAGE_SEQS, passed: 0 };
  }
  // Hidden records are passed over without reading them, whole blocks of them without looking at them.
  const from = Math.min(last, firstCounted(topic, Math.max(next + 1, earliest)) - 1);
  const sizes = topic.shelf.records.sizes(topic.slot, from, last, ROWS_AHEAD);
  const isHidden = ({ seq, tag }: RecordSize) => topic.isDeleted(seq, tag);
  const first = sizes.findIndex((row) => !isHidden(row));
  if (first < 0) return { after: sizes.at(-1)?.seq ?? last, rows: 0, passed: sizes.length };
  const end = sizes.findIndex((row, i) => i > first && isHidden(row));
  return { after: sizes[first]!.seq - 1, rows: (end < 0 ? sizes.length : end) - first, passed: first };
}

/** How many of the next `rows` records to take from the store at once: few where they are large. */
export function rowsWithin({ slot, shelf, log }: Topic, next: number, last: number, rows: number): number {
  if (rows * log.largest <= BYTES_PER_READ) return rows;
  let bytes = 0;
  const sizes = shelf.records.sizes(slot, next, last, rows);
  const end = sizes.findIndex((row) => {
    bytes += row.bytes;
    return bytes > BYTES_PER_READ;
  });
  return end < 0 ? rows : Math.max(1, end);
}

/** Collects encoded records until a window is full. */
export class Batch {
  readonly #window: Window;
  #bytes = 0;
  readonly #texts: string[] = [];
  count = 0;
  full = false;
  /** The last seq examined. */
  next: number;

  constructor(window: Window, next: number) {
    this.#window = window;
    this.next = next;
  }

  get room(): number {
    return this.#window.limit - this.count;
  }

  skipTo(seq: number): void {
    this.next = Math.max(this.next, seq);
  }

  get found(): Pick<Run, "records" | "count" | "next"> {
    return { records: this.#texts.join(","), count: this.count, next: this.next };
  }

  /** Takes a record, unless it is deleted or of a node that is left out. */
  offer(topic: Topic, row: RecordRow): void {
    const { view, withoutNodes } = this.#window;
    const { seq, tag, node, bytes } = row;
    if (topic.isDeleted(seq, tag) || (node !== null && withoutNodes.has(node))) this.skipTo(seq);
    else if (this.#take(seq, bytes)) this.#texts.push(encodeRecord(row, view));
  }

  /** Adds what fits of the records behind `next`. */
  addPage({ last, text, seqs, ends, bytes }: Page): void {
    const before = this.next;
    const first = seqs.findIndex((seq) => seq > before);
    let end = first < 0 ? seqs.length : first;
    while (end < seqs.length && !this.full && this.#take(seqs[end]!, bytes[end]!)) end++;
    if (first >= 0 && end > first)
      this.#texts.push(text.slice(first === 0 ? 0 : ends[first - 1]! + 1, ends[end - 1]!));
    if (!this.full) this.next = last;
  }

  /** Counts a record in, unless it does not fit. */
  #take(seq: number, bytes: number): boolean {
    const fits = this.count === 0 || this.#bytes + bytes <= this.#window.bytesMax;
    if (fits) {
      this.count++;
      this.#bytes += bytes;
    }
    this.next = fits ? seq : seq - 1;
    this.full = !fits || this.count === this.#window.limit;
    return fits;
  }
}

/** What a reader from `fromSeq` has to be told before it gets records. */
function tombstoneFor(topic: Topic, { fromSeq, epoch }: Window): Tombstone | null {
  const { head, earliest, capFloor, ttlFloor } = topic.log;
  if (fromSeq > head || (epoch !== undefined && epoch !== topic.epoch)) {
    return {
      gap_from: 1,
      gap_to: head,
      reason: "recreated",
      missed_estimate: Math.max(head, 1),
      earliest_seq: earliest,
      head_seq: head,
    };
  }
  const floor = Math.max(topic.evictFloor, fromSeq);
  let end = floor;
  for (let hole = topic.trimBehind(end); hole && hole.from <= end + 1; hole = topic.trimBehind(end))
    end = hole.to;
  if (end === fromSeq) return null;
  const byCap = capFloor > fromSeq;
  const byTtl = ttlFloor > fromSeq;
  return {
    gap_from: fromSeq + 1,
    gap_to: end,
    reason: byCap && byTtl ? "mixed" : byCap ? "cap" : byTtl ? "ttl" : "source_trim",
    missed_estimate: end - fromSeq,
    earliest_seq: end + 1,
    head_seq: head,
  };
}

/** Where to read on behind what the tombstone tells. */
function startOf(topic: Topic, { fromSeq }: Window, tombstone: Tombstone | null): number {
  if (tombstone === null) return fromSeq;
  return tombstone.reason === "recreated" ? topic.log.earliest - 1 : tombstone.gap_to;
}
