/** Puts the engine together over a store. */
import type { Store } from "../store/store.ts";
import { Bell } from "./bell.ts";
import { Catalog, emptied } from "./catalog.ts";
import { Commits } from "./commit.ts";
import { type Figures, figuresOf, type TopicFigures } from "./figures.ts";
import type { EngineLimits, Group } from "./group.ts";
import { Log } from "./log.ts";
import { behindPrefix } from "./prefix.ts";
import { Reclaimer } from "./reclaim.ts";
import { Topics } from "./topics.ts";

export interface EngineOptions {
  readonly store: Store;
  readonly limits: EngineLimits;
  /** Ms since the Unix epoch. */
  readonly now: () => number;
  /** A transaction failed. `broken`: the medium did, and the process must end. */
  readonly failed: (error: unknown, broken: boolean) => void;
}

export class Engine implements Disposable {
  readonly topics: Topics;
  readonly log: Log;
  readonly #store: Store;
  readonly #catalog: Catalog;
  readonly #commits: Commits;
  readonly #reclaimer: Reclaimer;

  constructor({ store, limits, now, failed }: EngineOptions) {
    const bell = new Bell();
    this.#store = store;
    // Seqs may be given out again, so readers must be able to tell.
    if (store.acceptedLoss) store.transaction(() => store.topics.renewEpochs(now()));
    else if (store.crashed) store.transaction(() => store.topics.renewEphemeralEpochs());
    this.#catalog = new Catalog(store);
    this.#commits = new Commits(store, this.#catalog, limits, {
      closing: (group) => this.#reclaimer.closing(group),
      committed: (group) => {
        this.#reclaimer.committed(group);
        ring(bell, group);
      },
      failed,
    });
    this.#reclaimer = new Reclaimer(store, this.#catalog, this.#commits);
    this.topics = new Topics(store, this.#catalog, this.#commits, now);
    this.log = new Log(this.topics, this.#commits, bell, now);
  }

  get figures(): Figures {
    const { census } = this.#catalog;
    return { census, commits: this.#commits.figures, store: this.#store.figures };
  }

  /** The figures of the first `limit` topics by name. */
  topicFigures(limit: number): Promise<TopicFigures[]> {
    return figuresOf(this.#catalog, this.#store.topics.names("", "", behindPrefix(""), limit));
  }

  /** Carries out what is waiting, and notes where topics in memory stand. The store stays open. */
  [Symbol.dispose](): void {
    this.#reclaimer[Symbol.dispose]();
    this.#commits.close();
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
  for (const topic of group.appended) bell.ring(topic);
  for (const topic of group.deleted) bell.ring(topic);
}
