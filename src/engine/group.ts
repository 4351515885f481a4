/**
 * What the commands of one transaction share: the topics they have touched, and the way back.
 *
 * A command says `touch` before it changes a topic. If the transaction fails, `undo` restores every touched
 * topic, so that memory never says more than the store.
 */
import { ApiError, invalid } from "../contract/errors.ts";
import { TOPIC_NAME } from "../contract/limits.ts";
import type { TopicConfig } from "../contract/topics.ts";
import { emptyLog, type LogState, sameLog } from "../store/logs.ts";
import type { Store } from "../store/store.ts";
import type { Catalog } from "./catalog.ts";
import { Topic } from "./topic.ts";

/** 0 is no limit. */
export interface EngineLimits {
  readonly topicsMax: number;
  readonly totalBytesMax: number;
}

type Before = Pick<Topic, "config" | "shelf" | "tagDeletes" | "log">;

export class Group {
  readonly catalog: Catalog;
  readonly store: Store;
  readonly #limits: EngineLimits;
  readonly #touched = new Map<Topic, Before>();
  readonly #created = new Set<Topic>();
  readonly #deleted = new Set<Topic>();
  /** Topics with new records, and topics that are gone: for those who wait. */
  readonly appended = new Set<Topic>();

  constructor(catalog: Catalog, store: Store, limits: EngineLimits) {
    this.catalog = catalog;
    this.store = store;
    this.#limits = limits;
  }

  get deleted(): ReadonlySet<Topic> {
    return this.#deleted;
  }

  get touched(): Iterable<Topic> {
    return this.#touched.keys();
  }

  /** How many records the group has appended to `topic`. */
  appendedTo(topic: Topic): number {
    return topic.log.head - this.#touched.get(topic)!.log.head;
  }

  /** The topic of that name, about to change. Throws `topic_not_found`. */
  existing(name: string): Topic {
    const topic = this.find(name);
    if (topic === undefined) throw new ApiError("topic_not_found", { topic: name });
    return topic;
  }

  /** The topic of that name, about to change. */
  find(name: string): Topic | undefined {
    const topic = this.catalog.find(name);
    if (topic && !this.#touched.has(topic)) {
      const { config, shelf, tagDeletes, log } = topic;
      this.#touched.set(topic, { config, shelf, tagDeletes, log: { ...log } });
    }
    return topic;
  }

  /** Throws `invalid_request` if no topic can have that name. */
  allowName(name: string): void {
    if (TOPIC_NAME.test(name)) return;
    throw invalid("a topic name is 1 to 255 of A-Z a-z 0-9 . _ : - and starts with a letter or a digit");
  }

  /** Throws `throttled` if there is no room for another topic. */
  allowTopic(): void {
    const { topicsMax } = this.#limits;
    const topics = this.catalog.census.topics + this.#created.size - this.#deleted.size;
    if (topicsMax > 0 && topics >= topicsMax) {
      throw new ApiError("throttled", { limit: "max_topics", max: topicsMax });
    }
  }

  /** Throws `throttled` if `bytes` more would pass the quota of all topics. */
  allowBytes(bytes: number): void {
    const { totalBytesMax } = this.#limits;
    if (totalBytesMax > 0 && this.#totalBytes() + bytes > totalBytesMax) {
      throw new ApiError("throttled", { limit: "max_total_bytes", max: totalBytesMax });
    }
  }

  create(name: string, config: TopicConfig): Topic {
    const row = this.store.topics.insert(name, JSON.stringify(config));
    const topic = new Topic(row, config, this.catalog.shelfOf(config), emptyLog(), []);
    this.store.disk.logs.put(row.slot, topic.log);
    this.store.topics.count(config, 1);
    this.catalog.add(topic);
    this.#created.add(topic);
    this.find(name);
    return topic;
  }

  configure(topic: Topic, config: TopicConfig): void {
    this.store.topics.configure(topic.slot, topic.name, JSON.stringify(config));
    this.store.topics.count(topic.config, -1);
    this.store.topics.count(config, 1);
    topic.config = config;
  }

  delete(topic: Topic): void {
    this.store.topics.drop(topic.slot);
    // What is damaged may have been counted as something else.
    if (topic.damaged) this.store.topics.recount();
    else this.store.topics.count(topic.config, -1);
    for (const shelf of [this.store.disk, this.store.memory]) shelf.logs.delete(topic.slot);
    this.catalog.remove(topic);
    topic.deleted = true;
    this.#deleted.add(topic);
  }

  /** Writes down every topic that has changed. The last step before the commit. */
  save(): void {
    for (const [topic, before] of this.#touched) {
      if (topic.deleted || (sameLog(topic.log, before.log) && topic.shelf === before.shelf)) continue;
      topic.shelf.logs.put(topic.slot, topic.log);
    }
  }

  /** The transaction is committed. */
  done(): void {
    const { census } = this.catalog;
    if ([...this.#deleted].some((topic) => topic.damaged)) {
      census.recount(this.store);
      return;
    }
    for (const [topic, before] of this.#touched) {
      if (!this.#created.has(topic)) census.leave(before.config, before.log);
      if (!topic.deleted) census.enter(topic.config, topic.log);
    }
  }

  /** The transaction was rolled back. */
  undo(): void {
    // A name that was deleted and created again is taken from the new topic first.
    for (const topic of this.#created) if (!topic.deleted) this.catalog.remove(topic);
    for (const topic of this.#deleted) {
      topic.deleted = this.#created.has(topic);
      if (!topic.deleted) this.catalog.add(topic);
    }
    for (const [topic, before] of this.#touched) {
      Object.assign(topic, before);
    }
  }

  #totalBytes(): number {
    let { bytes } = this.catalog.census;
    for (const [topic, before] of this.#touched) bytes += bytesOf(topic) - before.log.bytes;
    return bytes;
  }
}

const bytesOf = (topic: { deleted: boolean; log: LogState }): number => (topic.deleted ? 0 : topic.log.bytes);
