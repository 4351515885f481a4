/** Reads what peers have of the lanes that are wanted here, and what they know of subscriptions. */
import { LRUCache } from "lru-cache";
import { BACKFILL_EVENTS_DEFAULT, KNOWN_EVENTS_MAX, SAFE_INTEGER_MAX } from "../../contract/limits.ts";
import type { LaneName as AskedLane, Backfill, Backfilled } from "../../contract/peers.ts";
import type { FeedTables } from "../../store/feeds/feeds.ts";
import type { LaneName } from "../../store/feeds/lanes.ts";
import type { Exchange } from "./exchange.ts";
import type { FeedLog } from "./feedlog.ts";
import type { Peer } from "./peer.ts";
import { RemoteFailure } from "./remote.ts";
import type { Scopes } from "./scope.ts";

/** How often a URL that leads back here is asked again. */
const SELF_MS = 60_000;
const TIMEOUT_MS = 30_000;
/** So much of who wants which lane is looked at in one turn; more than all peers can say of one lane. */
const WISHES_PER_TURN = 5000;
const LOOKS_PER_TURN = 500;
/** After one that came in time, a page may hold so many more. */
const GROWTH = 8;
/** Events of a page while more are known than can be named. */
const UNNAMED_MAX = 8;
/** So many pages without anything new are read of a lane at a time. */
const IDLE_PAGES_MAX = 64;
/** A lane is not read from its beginning again more often. */
const RESET_MS = 60_000;
const REMEMBERED_MAX = 10_000;
const REFUSED_MS = 3_600_000;
/** An event that was rejected is not asked for again so soon. */
const REJECTED_MS = 600_000;

export interface PullerOptions {
  readonly tables: FeedTables;
  readonly log: FeedLog;
  readonly exchange: Exchange;
  readonly scopes: Scopes;
  readonly nodeId: string;
  readonly networkId: string;
  readonly intervalMs: number;
  /** A peer does not let a lane be read. */
  readonly leftOut: (peer: Peer, lanes: number, reason: string) => void;
  readonly meet: (peer: Peer, nodeId: string, logId: string) => Promise<void>;
  /** Whether the peer is this instance itself, or one that another URL leads to. */
  readonly isIdle: (peer: Peer) => boolean;
}

export class Puller {
  readonly #options: PullerOptions;
  readonly #resetAt = new LRUCache<string, true>({ max: REMEMBERED_MAX, ttl: RESET_MS });
  /** How many events a page may hold: fewer for a peer that takes too long. */
  readonly #limits = new WeakMap<Peer, number>();
  /** Lanes that cannot be read, which is told from time to time. */
  readonly #refused = new LRUCache<string, true>({ max: REMEMBERED_MAX, ttl: REFUSED_MS });
  readonly #rejected = new LRUCache<string, true>({ max: REMEMBERED_MAX, ttl: REJECTED_MS });

  constructor(options: PullerOptions) {
    this.#options = options;
  }

  /** Reads all lanes if that is due, and those that were asked for. Resolves with the ms until all are due again. */
  async step(peer: Peer): Promise<number | undefined> {
    try {
      if (performance.now() >= peer.pullDueAt) await this.#readRound(peer);
      await this.#readAsked(peer);
    } catch (error) {
      peer.pullDueAt = 0;
      throw error;
    }
    return Math.max(1, peer.pullDueAt - performance.now());
  }

  async #readRound(peer: Peer): Promise<void> {
    const { intervalMs, nodeId } = this.#options;
    // Whoever is up again in between begins anew.
    peer.pullDueAt = Number.POSITIVE_INFINITY;
    peer.lanesAsked.clear();
    await this.#readAll(peer);
    // Whether somebody else is at that URL by now is seen soon enough.
    const restMs = peer.nodeId === nodeId ? Math.max(intervalMs, SELF_MS) : intervalMs;
    peer.pullDueAt = Math.min(peer.pullDueAt, performance.now() + restMs);
  }

  async #readAll(peer: Peer): Promise<void> {
    const { networkId, isIdle } = this.#options;
    await this.#read(peer, { networkId, scope: "", feedKey: "" });
    let bad: RemoteFailure | undefined;
    for (let from = 0; !isIdle(peer); ) {
      const { lanes, next } = this.#wanted(peer, from);
      for (const lane of lanes) {
        // One lane that fails does not keep the others from being read.
        bad = (await this.#readLane(peer, lane)) ?? bad;
        // Who has just subscribed does not wait for the others.
        await this.#readAsked(peer);
      }
      if (next === undefined) break;
      from = next;
      await Bun.sleep(0);
    }
    if (bad) throw bad;
  }

  /** Lanes from `from` on that somebody else than the peer wants, and where to look on. */
  #wanted(peer: Peer, from: number): { lanes: Iterable<number>; next: number | undefined } {
    const wishes = this.#options.tables.peerLanes.wanted(from, WISHES_PER_TURN);
    // The last one may go on behind that.
    const next = wishes.length < WISHES_PER_TURN ? undefined : wishes.at(-1)!.lane;
    const others = wishes.filter(({ link, lane }) => link !== peer.met!.link && lane !== next);
    return { lanes: new Set(others.map(({ lane }) => lane)), next };
  }

  async #readAsked(peer: Peer): Promise<void> {
    const { isIdle, tables } = this.#options;
    let looks = 0;
    for (const lane of peer.lanesAsked) {
      peer.lanesAsked.delete(lane);
      if (peer.met === undefined || isIdle(peer)) continue;
      const { link } = peer.met;
      if (tables.peerLanes.wanting(lane).some((other) => other !== link)) {
        const bad = await this.#readLane(peer, lane);
        if (bad) throw bad;
      } else if (++looks % LOOKS_PER_TURN === 0) await Bun.sleep(0);
    }
  }

  /** Gives what was wrong with an answer that is about this lane only. */
  async #readLane(peer: Peer, lane: number): Promise<RemoteFailure | undefined> {
    const { tables, scopes, networkId, leftOut } = this.#options;
    const name = tables.lanes.get(lane);
    if (name.networkId !== networkId || scopes.stays(name.scope)) return undefined;
    try {
      await this.#read(peer, { networkId, scope: name.scope, feedKey: name.feedKey });
    } catch (error) {
      if (!(error instanceof RemoteFailure) || !error.isOfRequest) throw error;
      if (!error.isOfContent) return error;
      const told = `${peer.url} ${lane}`;
      if (!this.#refused.has(told)) leftOut(peer, 1, error.message);
      this.#refused.set(told, true);
    }
    return undefined;
  }

  /** Asks for the digest of a lane first, and for its events only if there is something new. */
  async #read(peer: Peer, name: LaneName): Promise<void> {
    const digest = await this.#ask(peer, name, { head_only: true });
    if (this.#options.isIdle(peer)) return;
    const from = this.#positionOf(peer, name).readSeq;
    if (digest.next_from_event_seq > from || this.#knowsMore(digest)) await this.#readPages(peer, name);
  }

  async #readPages(peer: Peer, name: LaneName): Promise<void> {
    const { exchange, tables, log } = this.#options;
    let caught = this.#positionOf(peer, name).caughtSeq;
    for (let idlePages = 0; idlePages < IDLE_PAGES_MAX; ) {
      const { link, logId } = peer.met!;
      const { readSeq } = this.#positionOf(peer, name);
      const lane = tables.lanes.find(name) ?? 0;
      // Messages that have come here since, by whichever way, need not be sent again. Who knows of a subscription counts.
      const { head } = log;
      const known = name.feedKey === "" ? [] : tables.events.after(lane, caught, head, KNOWN_EVENTS_MAX);
      const known_event_ids = known.map(({ id }) => id);
      // What is still on its way there has its place behind this page.
      const isSent = tables.peerLanes.wishOf(link, lane).wishes === 0 || peer.walkedSeq >= head;
      const caughtSeq = isSent ? SAFE_INTEGER_MAX : peer.walkedSeq;
      // Behind what can be named there is more that is known: little is asked for until that is past.
      const most = known.length === KNOWN_EVENTS_MAX ? { limit: UNNAMED_MAX } : {};
      const page = await this.#ask(peer, name, { from_event_seq: readSeq, known_event_ids, ...most });
      caught = known.at(-1)?.seq ?? caught;
      if (peer.met!.link !== link) return;
      const { next_from_event_seq: next, more, events } = page;
      if (next < readSeq)
        throw new RemoteFailure("the answer cannot be understood: its position goes back", 200);
      const isStuck = events.length === 0 && this.#knowsMore(page) && next === readSeq;
      const isReset = isStuck && this.#mayReset(link, lane);
      const read = { lane: name, seq: isReset ? 0 : next, caughtSeq: more ? undefined : caughtSeq };
      const { accepted, rejected } = await exchange.take(events, { nodeId: peer.nodeId!, logId }, read);
      for (const { event_id } of rejected) if (event_id !== null) this.#rejected.set(event_id, true);
      // Somebody else may have brought word of another log meanwhile.
      const hasMoved = this.#positionOf(peer, name).readSeq !== readSeq;
      if (!hasMoved || (!more && !isReset)) return;
      if (accepted > 0) peer.pulling.progressed();
      idlePages = accepted > 0 ? 0 : idlePages + 1;
    }
  }

  #positionOf(peer: Peer, name: LaneName) {
    const { tables } = this.#options;
    return tables.peerLanes.readOf(peer.met!.link, tables.lanes.find(name) ?? 0);
  }

  /** Whether the newest events of a peer's lane are not all known here. */
  #knowsMore({ head_event_ids }: Backfilled): boolean {
    const { events } = this.#options.tables;
    return head_event_ids.some((id) => events.find(id) === undefined && !this.#rejected.has(id));
  }

  #mayReset(link: number, lane: number): boolean {
    const key = `${link}/${lane}`;
    if (this.#resetAt.has(key)) return false;
    this.#resetAt.set(key, true);
    return true;
  }

  async #ask(
    peer: Peer,
    name: LaneName,
    asked: Partial<Pick<Backfill, "head_only" | "from_event_seq" | "known_event_ids" | "limit">>,
  ): Promise<Backfilled> {
    const { nodeId: from, networkId: network_id, log, meet } = this.#options;
    const limit = this.#limits.get(peer) ?? BACKFILL_EVENTS_DEFAULT;
    const request = {
      from,
      network_id,
      log_id: log.id,
      lane: askedLane(name),
      from_event_seq: 0,
      limit,
      ...asked,
    };
    using deadline = peer.deadline(TIMEOUT_MS);
    try {
      const answer = await peer.remote.backfill(request, deadline.signal);
      peer.pulls++;
      await meet(peer, answer.node_id, answer.log_id);
      peer.answered(peer.pulling);
      if (!asked.head_only) this.#limits.set(peer, Math.min(limit + GROWTH, BACKFILL_EVENTS_DEFAULT));
      return answer;
    } catch (error) {
      // Fewer may come in time.
      if (error instanceof RemoteFailure && error.isLate) this.#limits.set(peer, Math.ceil(limit / 2));
      throw error;
    }
  }
}

const askedLane = ({ scope, feedKey }: LaneName): AskedLane =>
  feedKey === "" ? { kind: "subscriptions" } : { kind: "messages", scope, feed_key: feedKey };
