/**
 * The newest records of topics that are followed, as they were appended, so that readers at the head need no
 * storage; and the frames made of them, so that a record is encoded once for all who want the same of it.
 */
import { LRUCache } from "lru-cache";
import type { Tombstone } from "../contract/records.ts";
import type { RecordRow } from "../store/records.ts";
import { caughtUp, damagedRecord, type Frame, recordFrame } from "./frames.ts";
import type { Appendix } from "./group.ts";
import { nameOf } from "./pages.ts";
import { Batch, type Run, type Window } from "./reader.ts";
import type { Topic } from "./topic.ts";

/** Payload bytes of all tails together, and of one; a record counts for some more. */
const BYTES_MAX = 32 * 1024 * 1024;
const TAIL_BYTES_MAX = 1024 * 1024;
const TAIL_RECORDS_MAX = 1000;
const RECORD_OVERHEAD = 200;
/** So many different steps of a tail are kept to be shared. */
const MADE_MAX = 8;

/** What one read has come to: a loss to be told of first, the frames of what was found, and the position behind it. */
export interface Step {
  readonly tombstone: Tombstone | null;
  readonly frames: readonly Frame[];
  readonly next: number;
  readonly head: number;
}

/** A step and who may share it. */
interface Made {
  readonly window: Window;
  readonly step: Step;
}

class Tail {
  readonly version: number;
  readonly rows: RecordRow[] = [];
  /** Of the records as they are now, from `earliest` on. */
  made: Made[] = [];
  earliest = 0;
  bytes = 0;

  constructor(version: number) {
    this.version = version;
  }

  get first(): number {
    return this.rows[0]?.seq ?? 0;
  }

  get last(): number {
    return this.rows.at(-1)?.seq ?? 0;
  }

  add({ firstSeq, ts, records }: Appendix): void {
    this.made = [];
    const added = records.reduce((sum, { bytes }) => sum + bytes, 0);
    // Of a large write the newest records alone would keep all of its text in memory.
    if (firstSeq !== this.last + 1 || added > TAIL_BYTES_MAX) {
      this.rows.length = 0;
      this.bytes = 0;
    }
    if (added > TAIL_BYTES_MAX) return;
    records.forEach((record, i) => {
      this.rows.push({ ...record, seq: firstSeq + i, ts });
      this.bytes += record.bytes + RECORD_OVERHEAD;
    });
    let surplus = 0;
    for (; this.rows.length - surplus > TAIL_RECORDS_MAX || this.bytes > TAIL_BYTES_MAX; surplus++)
      this.bytes -= this.rows[surplus]!.bytes + RECORD_OVERHEAD;
    this.rows.splice(0, surplus);
  }
}

export class Tails {
  readonly #tails = new LRUCache<Topic, Tail>({
    maxSize: BYTES_MAX,
    sizeCalculation: ({ bytes }) => bytes + RECORD_OVERHEAD,
  });

  /** A topic that is followed has grown. */
  append(topic: Topic, appended: readonly Appendix[]): void {
    const known = this.#tails.peek(topic);
    const tail = known?.version === topic.version ? known : new Tail(topic.version);
    for (const appendix of appended) tail.add(appendix);
    // What is set again would keep the size it had.
    this.#tails.delete(topic);
    this.#tails.set(topic, tail);
  }

  /** Nobody follows the topic any more. */
  forget(topic: Topic): void {
    this.#tails.delete(topic);
  }

  /** What lies behind `window.fromSeq`, or undefined if that cannot be told from here alone. */
  read(topic: Topic, window: Window, now: number): Step | undefined {
    const tail = this.#tails.get(topic);
    if (tail === undefined || !reaches(tail, topic, window, now)) return undefined;
    if (tail.earliest !== topic.log.earliest) {
      tail.made = [];
      tail.earliest = topic.log.earliest;
    }
    if (passesAny(tail, window)) return stepIn(tail, topic, window);
    const made = tail.made.find((made) => isSame(made.window, window));
    if (made) return made.step;
    const step = stepIn(tail, topic, window);
    tail.made.push({ window, step });
    if (tail.made.length > MADE_MAX) tail.made.shift();
    return step;
  }
}

/** Whether the reader passes over records that others get. */
function passesAny({ rows, first }: Tail, { fromSeq, withoutNodes }: Window): boolean {
  if (withoutNodes.size === 0) return false;
  return rows.slice(fromSeq + 1 - first).some(({ node }) => node !== null && withoutNodes.has(node));
}

/** Whether all that the reader is to be told of lies in the tail. */
function reaches(tail: Tail, topic: Topic, { fromSeq, epoch }: Window, now: number): boolean {
  const { log, config } = topic;
  if (tail.version !== topic.version || tail.last !== log.head || epoch !== topic.epoch) return false;
  if (fromSeq + 1 < tail.first || fromSeq > log.head || fromSeq < topic.evictFloor) return false;
  if (topic.trimBehind(fromSeq)) return false;
  const next = tail.rows[fromSeq + 1 - tail.first];
  return config.ttl_ms === 0 || next === undefined || next.ts >= now - config.ttl_ms;
}

function isSame(a: Window, b: Window): boolean {
  return (
    a.fromSeq === b.fromSeq &&
    a.limit === b.limit &&
    a.bytesMax === b.bytesMax &&
    nameOf(a.view) === nameOf(b.view)
  );
}

function stepIn(tail: Tail, topic: Topic, window: Window): Step {
  const { head } = topic.log;
  const batch = new Batch(window, Math.max(window.fromSeq, topic.log.earliest - 1));
  for (let i = batch.next + 1 - tail.first; i < tail.rows.length && !batch.full; i++) {
    batch.offer(topic, tail.rows[i]!);
  }
  return stepOf(topic, window, { ...batch.found, head, tombstone: null });
}

/** A run of records in frames. */
export function stepOf(topic: Topic, { fromSeq }: Window, run: Omit<Run, "earliest" | "scanned">): Step {
  const { records, count, next, head, tombstone, damaged } = run;
  const frames = count > 0 ? [recordFrame(topic, fromSeq, next, head, records)] : [];
  if (damaged !== undefined) frames.push(damagedRecord(topic, damaged));
  if (next === head && (frames.length > 0 || tombstone)) frames.push(caughtUp(topic, head));
  return { tombstone, frames, next, head };
}
