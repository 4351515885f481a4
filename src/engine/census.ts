/** Sums over all topics, kept up to date with every commit so that nobody has to count. */
import type { Durability, TopicConfig, TopicType } from "../contract/topics.ts";
import type { LogState } from "../store/logs.ts";
import type { Store } from "../store/store.ts";

const none = (): Record<Durability, number> => ({ ephemeral: 0, memory: 0, disk: 0, fsync: 0 });

export class Census {
  topics = 0;
  queues = 0;
  /** Live records, and what they count for. */
  records = 0;
  bytes = 0;
  byDurability: Record<Durability, number> = none();

  constructor(store: Store) {
    this.recount(store);
  }

  /** Counts what is stored. */
  recount(store: Store): void {
    const [disk, memory] = [store.disk.logs.sums(), store.memory.logs.sums()];
    this.topics = 0;
    this.queues = 0;
    this.records = disk.count + memory.count;
    this.bytes = disk.bytes + memory.bytes;
    this.byDurability = none();
    for (const { type, durability, topics } of store.topics.kinds()) this.#add(type, durability, topics);
  }

  enter(config: TopicConfig, log: LogState): void {
    this.#add(config.type, config.durability, 1);
    this.records += log.count;
    this.bytes += log.bytes;
  }

  leave(config: TopicConfig, log: LogState): void {
    this.#add(config.type, config.durability, -1);
    this.records -= log.count;
    this.bytes -= log.bytes;
  }

  #add(type: TopicType, durability: Durability, topics: number): void {
    this.topics += topics;
    this.byDurability[durability] += topics;
    if (type === "queue") this.queues += topics;
  }
}
