/**
 * Keeps up with the configured peers: sends each what it is to get, and reads what it has. All of this happens beside
 * the posts, which know nothing of it.
 */
import type { PeerState } from "../../contract/peers.ts";
import type { FeedTables } from "../../store/feeds/feeds.ts";
import type { Commits } from "../commit.ts";
import type { FeedEvent } from "./event.ts";
import type { Exchange } from "./exchange.ts";
import type { FeedLog } from "./feedlog.ts";
import { Outbox } from "./outbox.ts";
import { Peer } from "./peer.ts";
import { Puller } from "./puller.ts";
import { Pusher } from "./pusher.ts";
import type { Remote } from "./remote.ts";
import type { Scopes } from "./scope.ts";

export interface PeeringOptions {
  readonly tables: FeedTables;
  readonly log: FeedLog;
  readonly commits: Commits;
  readonly exchange: Exchange;
  readonly scopes: Scopes;
  readonly nodeId: string;
  readonly networkId: string;
  readonly now: () => number;
}

/** Whom to keep up with, how, and who hears of it. */
export interface PeeringSettings {
  readonly urls: readonly string[];
  readonly intervalMs: number;
  readonly remote: (url: string) => Remote;
  /** The link to a peer has come up, or gone down with that reason. */
  readonly turned: (url: string, nodeId: string | null, reason: string | null) => void;
  /** Something is left out of what is exchanged: events that a peer does not take, or a lane that it does not give. */
  readonly leftOut: (url: string, count: number, reason: string) => void;
}

/** How it goes with a peer, and how often it was spoken to. */
export interface PeerFigures {
  readonly state: PeerState;
  readonly pushes: number;
  readonly pulls: number;
  readonly failures: number;
}

export class Peering implements AsyncDisposable {
  readonly #options: PeeringOptions;
  readonly #peers: readonly Peer[];
  readonly #deaf: () => void;

  constructor(options: PeeringOptions, settings: PeeringSettings) {
    const { tables, log, commits, exchange, scopes, nodeId, networkId, now } = options;
    this.#options = options;
    const meet = (peer: Peer, id: string, logId: string) => this.#meet(peer, id, logId);
    const isIdle = (peer: Peer) => this.#isIdle(peer);
    const outbox = new Outbox(tables, log, networkId, exchange);
    const leftOut = ({ url }: Peer, count: number, reason: string) => settings.leftOut(url, count, reason);
    const { intervalMs } = settings;
    const common = { log, scopes, nodeId, networkId, leftOut, meet };
    const pusher = new Pusher({ ...common, outbox, commits });
    const puller = new Puller({ ...common, tables, exchange, intervalMs, isIdle });
    const events = {
      push: async (peer: Peer) => {
        this.#recall(peer);
        return isIdle(peer) ? undefined : pusher.step(peer);
      },
      pull: (peer: Peer) => {
        this.#recall(peer);
        return puller.step(peer);
      },
      turned: (peer: Peer, reason: string | null) => {
        this.#wakeAll(peer);
        settings.turned(peer.url, peer.nodeId, reason);
      },
      now,
    };
    this.#peers = settings.urls.map((url) => new Peer(url, settings.remote(url), events));
    for (const peer of this.#peers) this.#recall(peer);
    this.#deaf = log.listen((accepted) => this.#grown(accepted));
  }

  /** From now on peers are spoken to. */
  start(): void {
    for (const peer of this.#peers) peer.start();
  }

  get figures(): PeerFigures[] {
    return this.#peers.map(({ state, pushes, pulls, failures }) => ({ state, pushes, pulls, failures }));
  }

  /** What is known of who answers at a URL: it may have told of another log by itself. */
  #recall(peer: Peer): void {
    const { peers, nodes } = this.#options.tables;
    const met = peers.at(peer.url);
    if (met === undefined) return;
    if (met.link === peer.met?.link) {
      // Another URL of the same instance may have gone on.
      peer.walkedSeq = Math.max(peer.walkedSeq, met.outSeq);
      return;
    }
    peer.met = met;
    peer.nodeId = nodes.idOf(met.node);
    peer.walkedSeq = met.outSeq;
  }

  /** Somebody has answered at a peer's URL. */
  async #meet(peer: Peer, nodeId: string, logId: string): Promise<void> {
    this.#recall(peer);
    if (peer.nodeId === nodeId && peer.met?.logId === logId) return;
    peer.nodeId = nodeId;
    if (nodeId === this.#options.nodeId) return;
    await this.#options.commits.submit({ kind: "meet_peer", url: peer.url, nodeId, logId });
    this.#recall(peer);
    peer.pushing.nudge();
  }

  /** Whether nothing is exchanged with a peer: it is this instance, or another URL leads to it already. */
  #isIdle(peer: Peer): boolean {
    if (peer.nodeId === this.#options.nodeId) return true;
    const same = ({ nodeId, isConnected }: Peer) => nodeId === peer.nodeId && isConnected;
    const first = this.#peers.find((other) => other === peer || same(other));
    return first !== peer;
  }

  /** A link has come up or gone down: it goes on, or another URL of the same instance takes over. */
  #wakeAll(turned: Peer): void {
    for (const peer of this.#peers) {
      if (peer !== turned && (peer.nodeId === null || peer.nodeId !== turned.nodeId)) continue;
      if (peer !== turned) peer.pullDueAt = 0;
      peer.pulling.nudge();
      peer.pushing.nudge();
    }
  }

  #grown(accepted: readonly FeedEvent[]): void {
    const lanes = this.#lanesAskedFor(accepted);
    for (const peer of this.#peers) {
      for (const lane of lanes) peer.lanesAsked.add(lane);
      if (lanes.length > 0) peer.pulling.nudge();
      peer.pushing.nudge();
    }
  }

  /** Lanes that somebody has subscribed to. */
  #lanesAskedFor(accepted: readonly FeedEvent[]): number[] {
    const { lanes } = this.#options.tables;
    const asked = accepted.filter(({ subscription }) => subscription?.active);
    return asked.flatMap((event) => lanes.find(event) ?? []);
  }

  /** Ends what is under way with all peers. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#deaf();
    await Promise.all(this.#peers.map((peer) => peer.end()));
    for (const { met, walkedSeq: outSeq } of this.#peers) {
      if (met === undefined || met.outSeq === outSeq) continue;
      const note = { kind: "note_sent", link: met.link, outSeq, lanes: [] } as const;
      await this.#options.commits.submit(note).catch(() => {});
    }
  }
}
