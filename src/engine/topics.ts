/** What clients do with topics: create, configure, look at, list, delete. */
import { ApiError } from "../contract/errors.ts";
import { PAGE_SIZE_MAX } from "../contract/limits.ts";
import type { TopicConfigInput, TopicDeleted, TopicList, TopicPut, TopicState } from "../contract/topics.ts";
import type { Store } from "../store/store.ts";
import type { Catalog } from "./catalog.ts";
import type { Commits } from "./commit.ts";
import { clamp } from "./config.ts";
import { decodeCursor, encodeCursor } from "./cursor.ts";
import type { Forwarder } from "./forwarder.ts";
import { behindPrefix, narrowed } from "./prefix.ts";
import { effectivePriority } from "./priority.ts";
import { hasExpired } from "./retention.ts";
import type { Topic } from "./topic.ts";

/** What a list is asked for. `within`: the prefixes that names must have one of; none for any name. */
export interface TopicQuery {
  readonly prefix?: string;
  readonly within?: readonly string[];
  readonly cursor?: string;
  readonly pageSize: number;
  readonly touch: boolean;
}

export class Topics {
  readonly #store: Store;
  readonly #catalog: Catalog;
  readonly #commits: Commits;
  readonly #forwarder: Forwarder;
  readonly #now: () => number;

  constructor(store: Store, catalog: Catalog, commits: Commits, forwarder: Forwarder, now: () => number) {
    this.#store = store;
    this.#catalog = catalog;
    this.#commits = commits;
    this.#forwarder = forwarder;
    this.#now = now;
  }

  get count(): number {
    return this.#catalog.census.topics;
  }

  has(name: string): boolean {
    return this.find(name) !== undefined;
  }

  find(name: string): Topic | undefined {
    return this.#catalog.find(name);
  }

  /** Throws `topic_not_found`, or `internal` for a topic that is known to have lost records. */
  existing(name: string): Topic {
    const topic = this.#catalog.find(name);
    if (topic === undefined) throw new ApiError("topic_not_found", { topic: name });
    if (topic.damaged) throw topic.damaged;
    return topic;
  }

  /** The topic, with what its routers have for it, after what has expired is gone. Throws `topic_not_found`. */
  async fresh(name: string): Promise<Topic> {
    this.existing(name);
    await this.#forwarder.catchUp(name);
    await this.#expire(this.existing(name));
    return this.existing(name);
  }

  async #expire(topic: Topic): Promise<void> {
    const now = this.#now();
    const isDue = hasExpired(topic, now) || (topic.jobs?.hasDue(now) ?? false);
    if (isDue) await this.#commits.submit({ kind: "sweep", topic: topic.name, now });
  }

  /** Notes that somebody has read the topic. */
  consumed(topic: Topic): void {
    topic.consumedTs = this.#now();
    topic.lastReadTs = topic.consumedTs;
  }

  /** Throws `invalid_request`, `topic_exists_incompatible`, `throttled`. */
  async put(topic: string, config: TopicConfigInput): Promise<TopicPut> {
    const { outcome } = await this.#commits.submit({ kind: "put_topic", topic, config, now: this.#now() });
    return { topic, ...outcome };
  }

  /** Throws `topic_not_found`. */
  async state(name: string, touch: boolean): Promise<TopicState> {
    const topic = await this.fresh(name);
    if (touch) this.consumed(topic);
    const { config, epoch, log, jobs } = topic;
    const state: TopicState = {
      topic: name,
      type: config.type,
      epoch,
      head_seq: log.head,
      earliest_seq: log.earliest,
      next_seq: log.head + 1,
      count: log.count,
      bytes: log.bytes,
      config,
      effective_priority: effectivePriority(config, topic.consumedTs, this.#now()),
      last_write_ts: log.lastTs,
      last_read_ts: topic.lastReadTs,
    };
    if (jobs) {
      const { inFlight: in_flight, deadLettered: dead_lettered } = jobs;
      state.queue = { ready: topic.ready, in_flight, dead_lettered };
    }
    await topic.unsynced;
    return state;
  }

  /** One page of topics in byte order of their names. Throws `invalid_request` for a malformed cursor. */
  async list({ prefix = "", within = [], cursor = "", pageSize, touch }: TopicQuery): Promise<TopicList> {
    const size = clamp(pageSize, 1, PAGE_SIZE_MAX);
    const after = decodeCursor(cursor);
    const names: string[] = [];
    for (const start of narrowed(prefix, within)) {
      names.push(...this.#store.topics.names(after, start, behindPrefix(start), size + 1 - names.length));
    }
    const page = names.slice(0, size);
    const topics = await Promise.all(page.map((name) => this.#summary(name, touch)));
    const list: TopicList = { topics: topics.filter((topic) => topic !== undefined) };
    const last = page.at(-1);
    if (names.length > size && last !== undefined) list.next_cursor = encodeCursor(last);
    return list;
  }

  /** Undefined if the topic is gone by now. */
  async #summary(name: string, touch: boolean): Promise<TopicList["topics"][number] | undefined> {
    const topic = this.#catalog.find(name);
    if (topic && !topic.damaged) await this.#expire(topic);
    if (topic === undefined || topic.deleted) return undefined;
    if (touch) topic.consumedTs = this.#now();
    const { config, log } = topic;
    const summary = {
      topic: name,
      head_seq: log.head,
      earliest_seq: log.earliest,
      count: log.count,
      bytes: log.bytes,
      durable: config.durable,
      effective_priority: effectivePriority(config, topic.consumedTs, this.#now()),
    };
    await topic.unsynced;
    return summary;
  }

  /** Deleting an absent topic is no error. Throws `topic_not_empty` if `ifEmpty` and it holds live records. */
  async delete(topic: string, ifEmpty: boolean): Promise<TopicDeleted> {
    const { outcome } = await this.#commits.submit({
      kind: "delete_topic",
      topic,
      ifEmpty,
      now: this.#now(),
    });
    return { topic, deleted: outcome.deleted, routers_removed: [...outcome.routers] };
  }
}
