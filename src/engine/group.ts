/**
 * What the commands of one transaction share: the topics and routers they have touched, and the way back.
 *
 * A command says `find` before it changes a topic. If the transaction fails, `undo` restores every touched
 * topic, so that memory never says more than the store.
 */
import { ApiError, invalid } from "../contract/errors.ts";
import { TOPIC_NAME } from "../contract/limits.ts";
import type { TopicConfig } from "../contract/topics.ts";
import { emptyLog, type LogState, sameLog } from "../store/logs.ts";
import { SEQ_MAX, type StoredRecord } from "../store/records.ts";
import type { RouterProgress } from "../store/routers.ts";
import type { Store } from "../store/store.ts";
import type { Catalog } from "./catalog.ts";
import { keepsLeases } from "./config.ts";
import type { FeedEvent } from "./feeds/event.ts";
import { Jobs } from "./jobs.ts";
import type { Router, RouterSet } from "./routerset.ts";
import { Topic } from "./topic.ts";

/** 0 is no limit. */
export interface EngineLimits {
  readonly topicsMax: number;
  readonly routersMax: number;
  readonly totalBytesMax: number;
}

/** How a topic was before the transaction. */
interface Before {
  readonly state: Pick<Topic, "config" | "shelf" | "tagDeletes" | "log">;
  readonly jobChanges: number;
}

/** How a topic was before the command. */
interface Used {
  readonly log: LogState;
  readonly leases: number;
}

/** Records that were appended together, from `firstSeq` on. */
export interface Appendix {
  readonly firstSeq: number;
  readonly ts: number;
  readonly records: readonly StoredRecord[];
}

export class Group {
  readonly catalog: Catalog;
  readonly routers: RouterSet;
  readonly store: Store;
  readonly #limits: EngineLimits;
  readonly #touched = new Map<Topic, Before>();
  readonly #created = new Set<Topic>();
  readonly #deleted = new Set<Topic>();
  readonly #routersBefore = new Map<string, Router | undefined>();
  /** Topics that have grown, for those who wait for that, and the records they have got. */
  readonly appended = new Map<Topic, Appendix[]>();
  /** Events that are new in the feed log. */
  readonly accepted: FeedEvent[] = [];
  /** Whether there is more to be forgotten of peers. */
  hasRetired = false;
  readonly #used = new Map<Topic, Used>();
  #settingsChanged = false;

  constructor(catalog: Catalog, routers: RouterSet, store: Store, limits: EngineLimits) {
    this.catalog = catalog;
    this.routers = routers;
    this.store = store;
    this.#limits = limits;
  }

  /** A command begins. */
  begin(): void {
    this.#used.clear();
    this.#settingsChanged = false;
  }

  /** What the command has changed that must be on the device before anybody hears of it. */
  get toSync(): { readonly settings: boolean; readonly topics: readonly Topic[] } {
    const topics = [...this.#used].filter(([topic, before]) => {
      const { config, log, jobs } = topic;
      if (this.#settingsChanged && this.#created.has(topic)) return true;
      if (config.durability !== "fsync") return false;
      return !sameLog(log, before.log) || (keepsLeases(config) && jobs?.storedChanges !== before.leases);
    });
    return { settings: this.#settingsChanged, topics: topics.map(([topic]) => topic) };
  }

  get deleted(): ReadonlySet<Topic> {
    return this.#deleted;
  }

  get created(): ReadonlySet<Topic> {
    return this.#created;
  }

  get touched(): Iterable<Topic> {
    return this.#touched.keys();
  }

  /** Topics whose records, leases or settings are no longer what they were. */
  get changed(): Topic[] {
    const isChanged = ([{ log, jobs, config }, { state, jobChanges }]: [Topic, Before]) =>
      !sameLog(log, state.log) || (jobs?.changes ?? 0) !== jobChanges || config !== state.config;
    return [...this.#touched].filter(isChanged).map(([topic]) => topic);
  }

  /** Notes that a topic has grown by records, or by a hole. */
  grown(topic: Topic, appendix?: Appendix): void {
    const appended = this.appended.get(topic) ?? [];
    if (appendix) appended.push(appendix);
    this.appended.set(topic, appended);
  }

  /** How many records the group has appended to `topic`. */
  appendedTo(topic: Topic): number {
    return topic.log.head - this.#touched.get(topic)!.state.log.head;
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
    if (topic === undefined) return undefined;
    const { config, shelf, tagDeletes, log, jobs } = topic;
    if (!this.#touched.has(topic)) {
      const state = { config, shelf, tagDeletes, log: { ...log } };
      this.#touched.set(topic, { state, jobChanges: jobs?.changes ?? 0 });
      jobs?.begin();
    }
    if (!this.#used.has(topic)) this.#used.set(topic, { log: { ...log }, leases: jobs?.storedChanges ?? 0 });
    return topic;
  }

  /** Throws `invalid_request` if no topic can have that name. */
  allowName(name: string): void {
    if (TOPIC_NAME.test(name)) return;
    throw invalid("a topic name is 1 to 255 of A-Z a-z 0-9 . _ : - and starts with a letter or a digit");
  }

  /** Throws `throttled` if there is no room for so many more topics. */
  allowTopics(more: number): void {
    const { topicsMax: max } = this.#limits;
    const topics = this.catalog.census.topics + this.#created.size - this.#deleted.size;
    if (max > 0 && more > 0 && topics + more > max) {
      throw new ApiError("throttled", { limit: "max_topics", max });
    }
  }

  /** Throws `throttled` if there is no room for another router. */
  allowRouter(): void {
    const { routersMax: max } = this.#limits;
    if (max > 0 && this.routers.size >= max) throw new ApiError("throttled", { limit: "max_routers", max });
  }

  /** Throws `throttled` if `bytes` more would pass the quota of all topics. */
  allowBytes(bytes: number): void {
    if (bytes <= this.bytesLeft) return;
    throw new ApiError("throttled", { limit: "max_total_bytes", max: this.#limits.totalBytesMax });
  }

  /** What the quota of all topics leaves. */
  get bytesLeft(): number {
    const { totalBytesMax: max } = this.#limits;
    return max > 0 ? max - this.#totalBytes() : Number.POSITIVE_INFINITY;
  }

  create(givenName: string, givenConfig: TopicConfig): Topic {
    // Parts of a request's text would keep all of it in memory.
    const { name, config } = structuredClone({ name: givenName, config: givenConfig });
    const row = this.store.topics.insert(name, JSON.stringify(config));
    const topic = new Topic(row, config, this.catalog.shelfOf(config), emptyLog(), {
      tagDeletes: [],
      jobs: config.type === "queue" ? new Jobs() : undefined,
    });
    this.store.disk.logs.put(row.slot, topic.log);
    if (!topic.isReserved) this.store.topics.count(config, 1);
    this.catalog.add(topic);
    this.#created.add(topic);
    this.#settingsChanged = true;
    this.find(name);
    return topic;
  }

  configure(topic: Topic, config: TopicConfig): void {
    this.store.topics.configure(topic.slot, topic.name, JSON.stringify(config));
    this.store.topics.count(topic.config, -1);
    this.store.topics.count(config, 1);
    const keptLeases = keepsLeases(topic.config);
    // What was shown so far is shown also while the change is on its way to the device.
    if (topic.config.durability !== "fsync") topic.syncedHead = this.#touched.get(topic)!.state.log.head;
    topic.config = config;
    if (topic.jobs) this.#saveDeadLettered(topic, topic.jobs);
    this.#settingsChanged = true;
    if (keepsLeases(config) && !keptLeases) topic.jobs?.storeAll();
    else if (keptLeases && !keepsLeases(config)) this.store.jobs.deleteSome(topic.slot, SEQ_MAX);
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
    this.#settingsChanged = true;
  }

  /** Adds, replaces or, with undefined, removes a router. */
  setRouter(name: string, router: Router | undefined): void {
    if (router === undefined) this.store.routers.delete(name);
    else {
      const { position, lost, forwarded, name: _, ...settings } = router;
      this.store.routers.put({ name, settings: JSON.stringify(settings), position, lost, forwarded });
    }
    this.#replaceRouter(name, router);
    this.#settingsChanged = true;
  }

  /** Notes how far a router has come. */
  moveRouter(router: Router, progress: Partial<RouterProgress>): void {
    const moved = { ...router, ...progress };
    this.store.routers.move(router.name, moved);
    this.#replaceRouter(router.name, moved);
  }

  /** Notes what a router has lost of a source in memory. After a crash it would not be there, so it is not stored. */
  loseInMemory(router: Router, progress: Partial<RouterProgress>): void {
    this.#replaceRouter(router.name, { ...router, ...progress });
  }

  /** Routers that are new, have other settings, have moved or are gone. */
  get movedRouters(): Iterable<string> {
    return this.#routersBefore.keys();
  }

  #replaceRouter(name: string, router: Router | undefined): void {
    if (!this.#routersBefore.has(name)) this.#routersBefore.set(name, this.routers.get(name));
    this.routers.set(name, router);
  }

  /** Writes down every topic that has changed. The last step before the commit. */
  save(): void {
    for (const [topic, { state }] of this.#touched) {
      if (topic.deleted) continue;
      if (!sameLog(topic.log, state.log) || topic.shelf !== state.shelf)
        topic.shelf.logs.put(topic.slot, topic.log);
      if (topic.jobs) this.#saveJobs(topic, topic.jobs);
    }
  }

  #saveDeadLettered({ slot, config }: Topic, { deadLettered }: Jobs): void {
    this.store.jobs.setDeadLettered(slot, config.durability === "ephemeral" ? 0 : deadLettered);
  }

  #saveJobs(topic: Topic, jobs: Jobs): void {
    const { slot, config } = topic;
    if (jobs.deadLetteredChanged) this.#saveDeadLettered(topic, jobs);
    if (!keepsLeases(config)) return;
    for (const [seq, job] of jobs.changed()) {
      if (job) this.store.jobs.put(slot, seq, job);
      else this.store.jobs.delete(slot, seq);
    }
  }

  /** The transaction is committed. */
  done(): void {
    const { census } = this.catalog;
    if ([...this.#deleted].some((topic) => topic.damaged)) {
      census.recount(this.store);
      return;
    }
    for (const [topic, { state }] of this.#touched) {
      if (topic.isReserved) continue;
      if (!this.#created.has(topic)) census.leave(state.config, state.log);
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
    for (const [topic, { state }] of this.#touched) {
      Object.assign(topic, state);
      topic.isEarliestKnown = true;
      topic.jobs?.undo();
    }
    for (const [name, router] of this.#routersBefore) this.routers.set(name, router);
  }

  #totalBytes(): number {
    let { bytes } = this.catalog.census;
    for (const [topic, { state }] of this.#touched)
      if (!topic.isReserved) bytes += bytesOf(topic) - state.log.bytes;
    return bytes;
  }
}

const bytesOf = (topic: { deleted: boolean; log: LogState }): number => (topic.deleted ? 0 : topic.log.bytes);
