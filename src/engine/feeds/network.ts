/** Puts together what feeds are made of: who we are, the log, what clients do, and what peers do. */
import { FEED_LOG } from "../../contract/limits.ts";
import type { Store } from "../../store/store.ts";
import type { Commits } from "../commit.ts";
import { resolveConfig } from "../config.ts";
import type { Group } from "../group.ts";
import type { Topics } from "../topics.ts";
import { Exchange, type ExchangeFigures } from "./exchange.ts";
import { FeedLog } from "./feedlog.ts";
import { Feeds } from "./feeds.ts";
import { Forgetter } from "./forgetter.ts";
import { Identity } from "./identity.ts";
import { type PeerFigures, Peering, type PeeringOptions, type PeeringSettings } from "./peering.ts";
import { Scopes } from "./scope.ts";

export interface FeedSettings {
  /** 64 hexadecimal digits; empty for one that is made and kept. */
  readonly nodeSeed: string;
  /** Empty for a network of our own. */
  readonly networkId: string;
  /** As a reference node behaves. */
  readonly strict: boolean;
}

/** Counts are since the start. */
export interface FeedFigures extends ExchangeFigures {
  /** All that were ever in the log. */
  readonly events: number;
  /** What of the log is there. */
  readonly records: number;
  readonly bytes: number;
  /** Those in force, here and elsewhere. */
  readonly subscriptions: number;
  /** Events that clients have brought about. */
  readonly posted: number;
  readonly peers: readonly PeerFigures[];
}

/** The names of what is kept secret, or at least by itself. */
const SEED = "feed seed";
const LOG_ID = "feed log";
const LOG_ID_BYTES = 16;

export class Network implements Disposable {
  readonly feeds: Feeds;
  readonly exchange: Exchange;
  readonly log: FeedLog;
  readonly #forgetter: Forgetter;
  readonly #options: PeeringOptions;
  #peering: Peering | undefined;

  constructor(store: Store, topics: Topics, commits: Commits, settings: FeedSettings, now: () => number) {
    const { nodeSeed, strict } = settings;
    // A log that may give out seqs again is another one.
    if (store.acceptedLoss) store.transaction(() => store.forgetSecret(LOG_ID));
    const identity = new Identity(nodeSeed === "" ? store.secret(SEED) : Buffer.from(nodeSeed, "hex"));
    const { nodeId } = identity;
    const networkId = settings.networkId || `local:${nodeId}`;
    commits.upkeep(createLog);
    const logId = Buffer.from(store.secret(LOG_ID)).toString("hex", 0, LOG_ID_BYTES);
    this.log = new FeedLog(topics, logId);
    const common = {
      tables: store.feeds,
      log: this.log,
      commits,
      scopes: new Scopes(strict),
      networkId,
      now,
    };
    this.feeds = new Feeds({ ...common, identity, strict });
    this.exchange = new Exchange({ ...common, nodeId, strict });
    this.#forgetter = new Forgetter(store.feeds.peers, this.log, commits);
    this.#options = { ...common, nodeId, exchange: this.exchange };
  }

  committed(group: Group): void {
    this.log.grown(group.accepted);
    this.#forgetter.committed(group);
  }

  /** Keeps up with peers, once that is started, until what it returns is disposed of. */
  join(settings: PeeringSettings): Peering {
    this.#peering = new Peering(this.#options, settings);
    return this.#peering;
  }

  get figures(): FeedFigures {
    return {
      events: this.log.events,
      ...this.log.live,
      subscriptions: this.#options.tables.subscriptions.active,
      posted: this.feeds.posted,
      ...this.exchange.figures,
      peers: this.peers,
    };
  }

  /** How it goes with the configured peers. */
  get peers(): readonly PeerFigures[] {
    return this.#peering?.figures ?? [];
  }

  [Symbol.dispose](): void {
    this.#forgetter[Symbol.dispose]();
  }
}

/** The log is there from the first start. */
function createLog(group: Group): void {
  if (group.find(FEED_LOG)) return;
  group.create(FEED_LOG, resolveConfig(FEED_LOG, { durability: "fsync" }));
}
