/** Reads what peers have of the lanes that are wanted here, and what they know of subscriptions. */
import { LRUCache } from "lru-cache";
import { BACKFILL_EVENTS_DEFAULT, KNOWN_EVENTS_MAX } from "../../contract/limits.ts";
import type { LaneName as AskedLane, Backfilled } from "../../contract/peers.ts";
import type { FeedTables } from "../../store/feeds/feeds.ts";
import type { LaneName } from "../../store/feeds/lanes.ts";
import type { Exchange } from "./exchange.ts";
import type { FeedLog } from "./feedlog.ts";
import type { Peer } from "./peer.ts";
import { RemoteFailure } from "./remote.ts";
import type { Scopes } from "./scope.ts";

/** What a peer has sent us is looked for among so many of the newest events. */
const KNOWN_WITHIN = 100_000;
/** How often a URL that leads back here is asked again. */
const SELF_MS = 60_000;
/** Lanes that are looked up at once. */
const LANES_PER_LOOK = 256;
/** A lane is not read from its beginning again more often. */
const RESET_MS = 60_000;
const REMEMBERED_MAX = 10_000;
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
  readonly meet: (peer: Peer, nodeId: string, logId: string) => Promise<void>;
  /** Whether the peer is this instance itself, or one that another URL leads to. */
  readonly isIdle: (peer: Peer) => boolean;
}

export class Puller {
  readonly #options: PullerOptions;
  readonly #resetAt = new LRUCache<string, true>({ max: REMEMBERED_MAX, ttl: RESET_MS });
  readonly #rejected = new LRUCache<string, true>({ max: REMEMBERED_MAX, ttl: REJECTED_MS });

  constructor(options: PullerOptions) {
    this.#options = options;
  }

  /** Reads all lanes if that is due, else those that were asked for. Resolves with the ms until they are. */
  async step(peer: Peer): Promise<number | undefined> {
    const { intervalMs } = this.#options;
    if (performance.now() >= peer.pullDueAt) {
      // What comes up meanwhile is another reason.
      peer.pullDueAt = performance.now() + intervalMs;
      peer.lanesAsked.clear();
      try {
        await this.#readAll(peer);
        // Whether somebody else is there by now is seen soon enough.
        if (peer.nodeId === this.#options.nodeId)
          peer.pullDueAt = performance.now() + Math.max(intervalMs, SELF_MS);
      } catch (error) {
        peer.pullDueAt = 0;
        throw error;
      }
    }
    for (const lane of peer.lanesAsked) {
      peer.lanesAsked.delete(lane);
      await this.#readIfWanted(peer, lane);
    }
    return Math.max(1, peer.pullDueAt - performance.now());
  }

  async #readAll(peer: Peer): Promise<void> {
    const { networkId, nodeId, tables, isIdle } = this.#options;
    await this.#read(peer, { networkId, scope: "", feedKey: "" });
    for (let after = 0; !isIdle(peer); ) {
      const { link } = peer.met!;
      const lanes = tables.subscriptions.wantedBesides(
        nodeOf(tables, nodeId),
        link,
        networkId,
        after,
        LANES_PER_LOOK,
      );
      for (const lane of lanes) await this.#readLane(peer, lane);
      if (lanes.length < LANES_PER_LOOK) return;
      after = lanes.at(-1)!;
    }
  }

  async #readIfWanted(peer: Peer, lane: number): Promise<void> {
    const { networkId, nodeId, tables, isIdle } = this.#options;
    if (peer.met === undefined || isIdle(peer)) return;
    const [next] = tables.subscriptions.wantedBesides(
      nodeOf(tables, nodeId),
      peer.met.link,
      networkId,
      lane - 1,
      1,
    );
    if (next === lane) await this.#readLane(peer, lane);
  }

  async #readLane(peer: Peer, lane: number): Promise<void> {
    const { networkId, scope, feedKey } = this.#options.tables.lanes.get(lane);
    if (!this.#options.scopes.stays(scope)) await this.#read(peer, { networkId, scope, feedKey });
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
    let caught = Math.max(this.#positionOf(peer, name).caughtSeq, log.head - KNOWN_WITHIN);
    for (;;) {
      const { link, logId } = peer.met!;
      const { readSeq } = this.#positionOf(peer, name);
      const lane = tables.lanes.find(name) ?? 0;
      // What the peer has sent us since, so that it need not send it again.
      const known = tables.events.brought(link, lane, caught, KNOWN_EVENTS_MAX);
      const page = await this.#ask(peer, name, {
        from_event_seq: readSeq,
        known_event_ids: known.map(({ id }) => id),
      });
      caught = known.at(-1)?.seq ?? log.head;
      if (peer.met!.link !== link) return;
      const { next_from_event_seq: next, more, events } = page;
      if (next < readSeq) throw new RemoteFailure("the answer cannot be understood: its position goes back");
      const isStuck = events.length === 0 && this.#knowsMore(page) && next === readSeq;
      const seq = isStuck && this.#mayReset(link, lane) ? 0 : next;
      const read = { lane: name, seq, isAll: !more };
      const { rejected } = await exchange.take(events, { nodeId: peer.nodeId!, logId }, read);
      for (const { event_id } of rejected) if (event_id !== null) this.#rejected.set(event_id, true);
      if (seq === readSeq || (!more && seq !== 0)) return;
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
    asked: { head_only?: true; from_event_seq?: number; known_event_ids?: string[] },
  ): Promise<Backfilled> {
    const { nodeId: from, networkId: network_id, meet } = this.#options;
    const request = {
      from,
      network_id,
      lane: askedLane(name),
      from_event_seq: 0,
      limit: BACKFILL_EVENTS_DEFAULT,
      ...asked,
    };
    const answer = await peer.remote.backfill(request, peer.pullSignal);
    peer.pulls++;
    await meet(peer, answer.node_id, answer.log_id);
    peer.answered(peer.pulling);
    return answer;
  }
}

const askedLane = ({ scope, feedKey }: LaneName): AskedLane =>
  feedKey === "" ? { kind: "subscriptions" } : { kind: "messages", scope, feed_key: feedKey };

/** 0 before this instance has written anything. */
const nodeOf = (tables: FeedTables, nodeId: string): number => tables.nodes.find(nodeId) ?? 0;
