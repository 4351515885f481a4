/** Puts the engine together over a store. */
import type { RouterSettings } from "../contract/routers.ts";
import { isFull, type Store } from "../store/store.ts";
import { Bell } from "./bell.ts";
import { Catalog, emptied } from "./catalog.ts";
import { Commits } from "./commit.ts";
import { type FeedSettings, Network } from "./feeds/network.ts";
import { type Figures, figuresOf, type TopicFigures } from "./figures.ts";
import { Forwarder } from "./forwarder.ts";
import type { EngineLimits, Group } from "./group.ts";
import { Log } from "./log.ts";
import { behindPrefix } from "./prefix.ts";
import { Queues } from "./queues.ts";
import { Reading } from "./reading.ts";
import { Reclaimer } from "./reclaim.ts";
import { Routers } from "./routers.ts";
import { type Router, RouterSet } from "./routerset.ts";
import { Space } from "./space.ts";
import { Topics } from "./topics.ts";
import { Watch, type WatchLimits } from "./watch.ts";

export interface EngineOptions {
  readonly store: Store;
  readonly limits: EngineLimits & WatchLimits;
  readonly feeds: FeedSettings;
  /** Ms since the Unix epoch. */
  readonly now: () => number;
  /**
   * A transaction failed; on a full disk this is told of the first one only. `broken`: the medium did, and the process
   * must end.
   */
  readonly failed: (error: unknown, broken: boolean) => void;
  /** Writes work again on a disk that was full. */
  readonly freed?: () => void;
  /** Something that should not be has ended a stream. */
  readonly unexpected: (error: unknown) => void;
}

export class Engine implements Disposable {
  readonly topics: Topics;
  readonly log: Log;
  readonly queues: Queues;
  readonly routers: Routers;
  readonly watch: Watch;
  readonly network: Network;
  readonly #store: Store;
  readonly #catalog: Catalog;
  readonly #commits: Commits;
  readonly #reclaimer: Reclaimer;
  readonly #routerSet: RouterSet;
  readonly #forwarder: Forwarder;
  readonly #now: () => number;

  constructor({ store, limits, feeds, now, failed, freed, unexpected }: EngineOptions) {
    const bell = new Bell();
    const space = new Space(now);
    this.#store = store;
    // Seqs may be given out again, so readers must be able to tell.
    if (store.acceptedLoss) store.transaction(() => store.topics.renewEpochs(now()));
    else if (store.crashed) store.transaction(() => store.topics.renewEphemeralEpochs());
    this.#catalog = new Catalog(store);
    this.#routerSet = new RouterSet(routersIn(store, this.#catalog));
    this.#commits = new Commits(store, this.#catalog, this.#routerSet, limits, {
      closing: (group) => this.#reclaimer.closing(group),
      committed: (group) => {
        this.#reclaimer.committed(group);
        this.#forwarder.committed(group);
        this.queues.committed(group);
        this.watch.committed(group);
        this.network.committed(group);
        ring(bell, group);
      },
      stored: () => {
        if (space.written()) freed?.();
      },
      undone: (group) => this.queues.undone(group),
      failed: (error, broken) => {
        if (!isFull(error) || space.refused()) failed(error, broken);
      },
    });
    this.#now = now;
    this.#reclaimer = new Reclaimer(store, this.#catalog, this.#commits);
    this.#forwarder = new Forwarder(this.#catalog, this.#routerSet, this.#commits, now);
    this.topics = new Topics(store, this.#catalog, this.#commits, this.#forwarder, now);
    const reading = new Reading(this.topics, this.#commits, bell, unexpected, now);
    this.log = new Log(this.topics, this.#commits, reading, bell, now);
    this.queues = new Queues(this.topics, this.#commits, this.#forwarder, now);
    this.routers = new Routers(this.#routerSet, this.#commits, this.#forwarder);
    this.watch = new Watch(this.topics, reading, limits, now);
    this.network = new Network(store, this.topics, this.#commits, feeds, now);
    // Leases that have outlived a restart count from the start.
    for (const slot of store.jobs.slots()) this.#catalog.inSlot(slot);
  }

  get figures(): Figures {
    const { census } = this.#catalog;
    let leases = 0;
    for (const { jobs } of this.#catalog.allLoaded()) leases += jobs?.inFlight ?? 0;
    const routers = this.#routerSet.size;
    const { figures: commits } = this.#commits;
    return { census, routers, leases, commits, store: this.#store.figures, feeds: this.network.figures };
  }

  /** The figures of the first `limit` topics by name. */
  topicFigures(limit: number): Promise<TopicFigures[]> {
    return figuresOf(this.#catalog, this.#store.topics.names("", "", behindPrefix(""), limit));
  }

  /** Ends leases and delays that are over, so that the figures are those of now. */
  async settle(): Promise<void> {
    const now = this.#now();
    const due = [...this.#catalog.allLoaded()].filter(({ jobs }) => jobs?.hasDue(now));
    await Promise.allSettled(
      due.map(({ name }) => this.#commits.submit({ kind: "sweep", topic: name, now })),
    );
  }

  /** Carries out what is waiting, and notes where topics in memory stand. The store stays open. */
  [Symbol.dispose](): void {
    this.watch[Symbol.dispose]();
    this.network[Symbol.dispose]();
    this.#reclaimer[Symbol.dispose]();
    this.#forwarder[Symbol.dispose]();
    this.#commits.close();
    this.#forwarder.finish();
    const noted = this.#commits.upkeep(() => {
      for (const topic of this.#catalog.allLoaded()) {
        if (topic.config.durability === "ephemeral")
          this.#store.disk.logs.put(topic.slot, emptied(topic.log));
      }
    });
    if (noted) this.#store.inOrder();
  }
}

function ring(bell: Bell, group: Group): void {
  for (const topic of group.appended.keys()) bell.ring(topic);
  for (const topic of group.created) bell.ring(topic.name);
  for (const topic of group.deleted) bell.ring(topic);
}

/** Routers as stored, none of them beyond what its source still has after a crash. */
function routersIn(store: Store, catalog: Catalog): Router[] {
  return store.routers.all().map(({ settings: json, position, ...row }) => {
    const settings = JSON.parse(json) as RouterSettings;
    const head = catalog.peek(settings.source)?.log.head ?? 0;
    return { ...settings, ...row, position: Math.min(position, head) };
  });
}
