/**
 * Gives the space of dead records back, a slice at a time, so that no request ever waits for a large removal.
 *
 * Dead rows are invisible already. They lie below a log's first live record, are hidden by a delete by tag, or
 * belong to a deleted topic. What is left to do can always be found in the store again, also after a crash.
 */
import { type RecordSize, SEQ_MAX } from "../store/records.ts";
import type { Shelf, Store } from "../store/store.ts";
import type { TagDelete } from "../store/tagdeletes.ts";
import type { Catalog } from "./catalog.ts";
import type { Commits } from "./commit.ts";
import type { Group } from "./group.ts";
import { taggedRows } from "./live.ts";
import { Pace } from "./pace.ts";
import type { Topic } from "./topic.ts";

/** Nobody waits for space, so three quarters of the time are for others. */
const REST_PER_WORK = 3;
/** After a slice has failed, for example on a full disk. */
const RETRY_MS = 1000;
/** A topic that only loses a few records at a time is kept clean within its own commits. */
const IN_GROUP_ROWS = 200;

export class Reclaimer implements Disposable {
  readonly #store: Store;
  readonly #commits: Commits;
  /** Topics and dropped slots with dead rows. */
  readonly #topics = new Set<Topic>();
  readonly #dropped: Set<number>;
  readonly #pace = new Pace(REST_PER_WORK);
  /** Where the removal of a delete by tag has got to. */
  #walk: { readonly rule: TagDelete; readonly rows: Generator<RecordSize[], undefined> } | undefined;
  #timer: Timer | undefined;
  #closed = false;

  constructor(store: Store, catalog: Catalog, commits: Commits) {
    this.#store = store;
    this.#commits = commits;
    this.#dropped = new Set(store.topics.dropped());
    for (const slot of [...store.disk.logs.unreclaimed(), ...store.disk.tagDeletes.slots()]) {
      const topic = catalog.inSlot(slot);
      if (topic && !topic.damaged) this.#topics.add(topic);
    }
    this.#schedule(0);
  }

  /** Within a group: removes rows that its topics have just lost, if they are few. */
  closing(group: Group): void {
    for (const topic of group.touched) {
      if (topic.deleted || topic.log.reclaimed === topic.log.earliest - 1) continue;
      removeFront(topic, 2 * group.appendedTo(topic) + IN_GROUP_ROWS);
    }
  }

  /** Notes what the group has left behind. */
  committed(group: Group): void {
    for (const topic of group.touched) {
      if (topic.deleted) this.#dropped.add(topic.slot);
      else if (!isClean(topic)) this.#topics.add(topic);
    }
    this.#schedule(0);
  }

  #schedule(pauseMs: number): void {
    if (this.#closed || this.#timer !== undefined || this.#topics.size + this.#dropped.size === 0) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      const start = performance.now();
      let finish = () => {};
      const done = this.#commits.upkeep((group) => {
        finish = this.#slice(group);
      });
      const restMs = this.#pace.rest(performance.now() - start);
      if (done) finish();
      // What a failed slice had taken from the walk is still there.
      else this.#walk = undefined;
      this.#schedule(done ? restMs : RETRY_MS);
    }, pauseMs);
  }

  /** Removes some rows. What it gives is to be done once they are gone for good. */
  #slice(group: Group): () => void {
    for (const topic of this.#topics) {
      this.#topics.delete(topic);
      if (topic.deleted || isClean(topic)) continue;
      // To the end of the line, so that no topic keeps the others waiting.
      this.#topics.add(topic);
      group.find(topic.name);
      if (topic.log.reclaimed < topic.log.earliest - 1) removeFront(topic, this.#pace.rows);
      else this.#removeTagged(topic, topic.tagDeletes[0]!);
      return () => {};
    }
    for (const slot of this.#dropped) {
      if (!this.#empty(slot, this.#store.disk) || !this.#empty(slot, this.#store.memory)) break;
      if (this.#store.jobs.deleteSome(slot, this.#pace.rows) > 0) break;
      this.#store.jobs.setDeadLettered(slot, 0);
      this.#store.topics.free(slot);
      return () => this.#dropped.delete(slot);
    }
    return () => {};
  }

  #removeTagged(topic: Topic, rule: TagDelete): void {
    if (this.#walk?.rule !== rule) {
      this.#walk = { rule, rows: taggedRows(topic, rule, rule.upTo, () => this.#pace.rows) };
    }
    const rows = this.#walk.rows.next().value;
    if (rows) {
      for (const row of rows) if (row.seq <= rule.upTo) topic.shelf.records.delete(topic.slot, row.seq);
      return;
    }
    this.#walk = undefined;
    topic.shelf.tagDeletes.delete(rule.id);
    topic.tagDeletes = topic.tagDeletes.filter((other) => other !== rule);
  }

  /** Removes a slice of what a deleted topic has left. True if nothing is left. */
  #empty(slot: number, shelf: Shelf): boolean {
    const first = shelf.records.firstFrom(slot, 1, SEQ_MAX);
    if (first) {
      shelf.records.deleteRange(slot, first.seq - 1, first.seq - 1 + this.#pace.rows);
      return false;
    }
    if (shelf.blocks.deleteSome(slot, this.#pace.rows) + shelf.keys.deleteSome(slot, this.#pace.rows) > 0)
      return false;
    shelf.tagDeletes.deleteAll(slot);
    shelf.trims.deleteUpTo(slot, SEQ_MAX);
    return true;
  }

  [Symbol.dispose](): void {
    this.#closed = true;
    clearTimeout(this.#timer);
  }
}

const isClean = ({ log, tagDeletes }: Topic): boolean =>
  log.reclaimed === log.earliest - 1 && tagDeletes.length === 0;

function removeFront({ log, shelf, slot }: Topic, rows: number): void {
  const last = Math.min(log.earliest - 1, log.reclaimed + rows);
  shelf.records.deleteRange(slot, log.reclaimed, last);
  log.reclaimed = last;
}
