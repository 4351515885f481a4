/**
 * The topics that exist. Each is loaded from the store when first named, so that start-up and memory do not grow
 * with topics nobody uses.
 */
import { ApiError } from "../contract/errors.ts";
import type { TopicConfig } from "../contract/topics.ts";
import { emptyLog, type LogState } from "../store/logs.ts";
import { DamagedRecord } from "../store/records.ts";
import { isCorruption, type Shelf, type Store } from "../store/store.ts";
import type { TopicRow } from "../store/topics.ts";
import { Census } from "./census.ts";
import { resolveConfig } from "./config.ts";
import { verifyBlock } from "./gaps.ts";
import { Jobs } from "./jobs.ts";
import { Topic } from "./topic.ts";

export class Catalog {
  readonly #store: Store;
  readonly #loaded = new Map<string, Topic>();
  readonly census: Census;

  constructor(store: Store) {
    this.#store = store;
    this.census = new Census(store);
  }

  /** The topic of that name, if it exists. */
  find(name: string): Topic | undefined {
    const loaded = this.#loaded.get(name);
    if (loaded) return loaded;
    const row = this.#store.topics.get(name);
    return row && this.#load(row);
  }

  /** The topic whose rows lie in `slot`, unless it was deleted. */
  inSlot(slot: number): Topic | undefined {
    const row = this.#store.topics.inSlot(slot);
    return row && this.find(row.name);
  }

  shelfOf(config: TopicConfig): Shelf {
    return config.durability === "ephemeral" ? this.#store.memory : this.#store.disk;
  }

  add(topic: Topic): void {
    this.#loaded.set(topic.name, topic);
  }

  remove(topic: Topic): void {
    if (this.#loaded.get(topic.name) === topic) this.#loaded.delete(topic.name);
  }

  /** The topic of that name, if it exists and has been named before. */
  loaded(name: string): Topic | undefined {
    return this.#loaded.get(name);
  }

  allLoaded(): Iterable<Topic> {
    return this.#loaded.values();
  }

  /** Settings and state of a topic, without loading it. */
  peek(name: string): { readonly config: TopicConfig; readonly log: LogState } | undefined {
    const loaded = this.#loaded.get(name);
    if (loaded) return loaded;
    const row = this.#store.topics.get(name);
    if (row === undefined) return undefined;
    const { config, log = emptyLog() } = this.#read(row);
    return { config, log };
  }

  #read(row: TopicRow): { config: TopicConfig; shelf: Shelf; log: LogState | undefined } {
    const config =
      row.config === undefined ? resolveConfig(row.name, {}) : (JSON.parse(row.config) as TopicConfig);
    const shelf = this.shelfOf(config);
    return { config, shelf, log: shelf.logs.get(row.slot) ?? this.#store.disk.logs.get(row.slot) };
  }

  #jobsOf(slot: number): Jobs {
    const { jobs } = this.#store;
    return new Jobs(jobs.of(slot), jobs.deadLettered(slot));
  }

  #load(row: TopicRow): Topic {
    const { config, shelf, log } = this.#read(row);
    const topic = new Topic(row, config, shelf, log ?? emptyLog(), {
      tagDeletes: shelf.tagDeletes.of(row.slot),
      jobs: config.type === "queue" ? this.#jobsOf(row.slot) : undefined,
    });
    if (row.config === undefined || !log || !isWhole(topic))
      topic.damaged = new ApiError("internal", { topic: row.name, seq: topic.log.head });
    this.#loaded.set(row.name, topic);
    return topic;
  }
}

/** Whether the newest records are there as they are counted. */
function isWhole(topic: Topic): boolean {
  try {
    verifyBlock(topic, topic.log.tailBlock, topic.log.head);
    return true;
  } catch (error) {
    if (!(error instanceof DamagedRecord) && !isCorruption(error)) throw error;
    return false;
  }
}

/** The log of an `ephemeral` topic after its records are gone: the head stays, the loss is silent. */
export const emptied = (log: LogState): LogState => ({
  ...emptyLog(),
  head: log.head,
  earliest: log.head + 1,
  reclaimed: log.head,
  lastTs: log.lastTs,
});
