/**
 * One topic instance in memory: its settings and where its log stands, which are stored with every commit, and
 * beside that what only this process needs to know.
 */
import type { ApiError } from "../contract/errors.ts";
import type { TopicConfig } from "../contract/topics.ts";
import { blockOf } from "../store/blocks.ts";
import type { LogState } from "../store/logs.ts";
import type { Shelf } from "../store/store.ts";
import type { TagDelete } from "../store/tagdeletes.ts";
import type { Trim } from "../store/trims.ts";
import type { Jobs } from "./jobs.ts";
import { inRange } from "./tags.ts";

/** What belongs to a log beside its records. */
export interface Attached {
  /** Deletes by tag that hold for records still in storage. */
  readonly tagDeletes: readonly TagDelete[];
  /** The jobs that were leased at least once, of a queue. */
  readonly jobs: Jobs | undefined;
}

export class Topic {
  readonly name: string;
  readonly epoch: number;
  readonly slot: number;
  config: TopicConfig;
  shelf: Shelf;
  log: LogState;
  tagDeletes: Attached["tagDeletes"];
  readonly jobs: Attached["jobs"];
  /** What every use gets to hear but a delete, if records are known to be lost. */
  damaged: ApiError | undefined;
  /** Set when the instance is deleted. */
  deleted = false;
  /** The sync that the latest changes wait for. Nothing of the topic is shown before it is done. */
  unsynced: Promise<void> | undefined;
  /** The head when the last sync that is done began. */
  syncedHead: number;
  /** Whether `log.earliest` is the first live record, and not one before it: so it always is between groups. */
  isEarliestKnown = true;
  /** Changes when records other than the oldest ones go, so that encoded pages are not used again. */
  version = 0;
  /** Clocks of readers, ms since the Unix epoch. Not kept over a restart. */
  lastReadTs: number | null = null;
  consumedTs: number | null = null;
  constructor(
    row: { name: string; epoch: number; slot: number },
    config: TopicConfig,
    shelf: Shelf,
    log: LogState,
    attached: Attached,
  ) {
    this.name = row.name;
    this.epoch = row.epoch;
    this.slot = row.slot;
    this.config = config;
    this.shelf = shelf;
    this.log = log;
    this.syncedHead = log.head;
    this.tagDeletes = attached.tagDeletes;
    this.jobs = attached.jobs;
  }

  /** Whether it belongs to the server: nobody else can change it, and no sum counts it. */
  get isReserved(): boolean {
    return this.name.startsWith("_");
  }

  /** The highest seq lost against the readers' will: below it they get a tombstone. */
  get evictFloor(): number {
    return Math.max(this.log.capFloor, this.log.ttlFloor);
  }

  /** The newest seq that is shown. */
  get shownHead(): number {
    return this.unsynced ? this.syncedHead : this.log.head;
  }

  /** The first hole that ends behind `seq`. Those below what the topic itself has lost may be missing. */
  trimBehind(seq: number): Trim | undefined {
    return seq < this.log.trimFloor ? this.shelf.trims.behind(this.slot, seq) : undefined;
  }

  /** Live records that are neither leased nor held back. */
  get ready(): number {
    return this.log.count - (this.jobs?.inFlight ?? 0) - (this.jobs?.delayed ?? 0);
  }

  isDeleted(seq: number, tag: string | null): boolean {
    return tag !== null && this.tagDeletes.some((done) => seq <= done.upTo && inRange(tag, done));
  }

  /** Counts one appended record in its block. */
  countRecord(seq: number, bytes: number): void {
    const { log } = this;
    const block = blockOf(seq);
    if (block !== log.tailBlock) {
      this.settle();
      log.tailBlock = block;
    }
    log.tailCount++;
    log.tailBytes += bytes;
  }

  /** Moves the tail's sums to the blocks table. Needed before that is read. */
  settle(): void {
    const { log } = this;
    if (log.tailCount > 0) this.shelf.blocks.add(this.slot, log.tailBlock, log.tailCount, log.tailBytes);
    log.tailCount = 0;
    log.tailBytes = 0;
  }
}
