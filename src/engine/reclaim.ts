/**
 * Gives the space of dead records back, a slice at a time, so that no request ever waits for a large removal.
 *
 * Dead rows are invisible already. They lie below a log's first live record, are hidden by a delete by tag, or
 * belong to a deleted topic. What is left to do can always be found in the store again, also after a crash.
 */
import type { Shelf, Store } from "../store/store.ts";
import { SEQ_MAX } from "../store/records.ts";
import type { Catalog } from "./catalog.ts";
import type { Commits } from "./commit.ts";
import type { Group } from "./group.ts";
import { SLICE_ROWS, taggedRows } from "./live.ts";
import type { Topic } from "./topic.ts";

/** The pause between two slices, in which requests run. */
const PAUSE_MS = 1;
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
  #timer: Timer | undefined;
  #closed = false;

  constructor(store: Store, catalog: Catalog, commits: Commits) {
    this.#store = store;
    this.#commits = commits;
    this.#dropped = new Set(store.topics.dropped());
    for (const slot of [...store.disk.logs.unreclaimed(), ...store.disk.tagDeletes.slots()]) {
      const topic = catalog.inSlot(slot);
      if (topic) this.#topics.add(topic);
    }
    this.#schedule(PAUSE_MS);
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
    this.#schedule(PAUSE_MS);
  }

  #schedule(pauseMs: number): void {
    if (this.#closed || this.#timer !== undefined || this.#topics.size + this.#dropped.size === 0) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      const done = this.#commits.upkeep((group) => this.#slice(group));
      this.#schedule(done ? PAUSE_MS : RETRY_MS);
    }, pauseMs);
  }

  #slice(group: Group): void {
    for (const topic of this.#topics) {
      if (topic.deleted || isClean(topic)) {
        this.#topics.delete(topic);
        continue;
      }
      group.find(topic.name);
      if (topic.log.reclaimed < topic.log.earliest - 1) removeFront(topic, SLICE_ROWS);
      else removeTagged(topic);
      return;
    }
    for (const slot of this.#dropped) {
      if (this.#empty(slot, this.#store.disk) && this.#empty(slot, this.#store.memory)) {
        this.#store.topics.free(slot);
        this.#dropped.delete(slot);
      }
      return;
    }
  }

  /** Removes a slice of what a deleted topic has left. True if nothing is left. */
  #empty(slot: number, shelf: Shelf): boolean {
    const first = shelf.records.firstFrom(slot, 1, SEQ_MAX);
    if (first) {
      shelf.records.deleteRange(slot, first.seq - 1, first.seq - 1 + SLICE_ROWS);
      return false;
    }
    if (shelf.blocks.deleteSome(slot, SLICE_ROWS) + shelf.keys.deleteSome(slot, SLICE_ROWS) > 0) return false;
    shelf.tagDeletes.deleteAll(slot);
    shelf.logs.delete(slot);
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

function removeTagged(topic: Topic): void {
  const [rule, ...others] = topic.tagDeletes;
  for (const rows of taggedRows(topic, rule!, rule!.upTo)) {
    for (const row of rows) if (row.seq <= rule!.upTo) topic.shelf.records.delete(topic.slot, row.seq);
    return;
  }
  topic.shelf.tagDeletes.delete(rule!.id);
  topic.tagDeletes = others;
}
