/**
 * What goes to a peer next. The log is walked once for each: subscriptions go to everybody, messages to whom their
 * lane is wanted by; nothing goes back to who has written or brought it. When a lane becomes wanted, what is stored of
 * it goes out beside the walk.
 */
import type { FeedTables } from "../../store/feeds/feeds.ts";
import type { PeerRow } from "../../store/feeds/peers.ts";
import type { FeedLog } from "./feedlog.ts";

/** So much of the log is looked at in one turn. */
const ROWS_PER_TURN = 5000;

/** Events for a peer, and how far its walks have come with them. */
export interface Batch {
  readonly seqs: readonly number[];
  readonly outSeq: number;
  readonly lanes: readonly { readonly lane: number; readonly seq: number }[];
  /** Whether there is nothing behind it. */
  readonly isLast: boolean;
}

export class Outbox {
  readonly #tables: FeedTables;
  readonly #log: FeedLog;
  readonly #networkId: string;

  constructor(tables: FeedTables, log: FeedLog, networkId: string) {
    this.#tables = tables;
    this.#log = log;
    this.#networkId = networkId;
  }

  get head(): number {
    return this.#log.head;
  }

  /** At most `limit` events for a peer, of which our log is done with up to `outSeq`. */
  next(peer: PeerRow, outSeq: number, limit: number): Batch {
    const { lanes, events, peerLanes } = this.#tables;
    const head = this.#log.head;
    // What comes in and what is stored share the way, so neither waits for the other.
    const isShared = limit > 1 && peerLanes.unsent(peer.link, 0) !== undefined;
    const room = isShared ? Math.ceil(limit / 2) : limit;
    const subscriptions = lanes.find({ networkId: this.#networkId, scope: "", feedKey: "" }) ?? 0;
    const upTo = Math.min(head, outSeq + ROWS_PER_TURN);
    const due = events.due(peer, outSeq, upTo, subscriptions, room);
    const walked = due.length === room ? due.at(-1)! : Math.max(upTo, outSeq);
    const stored = this.#stored(peer, limit - due.length);
    const isLast = walked >= head && stored.isLast;
    return { seqs: [...due, ...stored.seqs], outSeq: walked, lanes: stored.lanes, isLast };
  }

  /** Stored events of lanes that have become wanted. */
  #stored(peer: PeerRow, limit: number): Omit<Batch, "outSeq"> {
    const { events, peerLanes } = this.#tables;
    const seqs: number[] = [];
    const lanes: { lane: number; seq: number }[] = [];
    for (let after = 0; ; ) {
      const next = peerLanes.unsent(peer.link, after);
      if (next === undefined) return { seqs, lanes, isLast: true };
      const room = limit - seqs.length;
      if (room === 0) return { seqs, lanes, isLast: false };
      const found = events.foreign(peer, next.lane, next.sentSeq, next.untilSeq, room);
      seqs.push(...found);
      const isFull = found.length === room;
      lanes.push({ lane: next.lane, seq: isFull ? found.at(-1)! : next.untilSeq });
      if (isFull) return { seqs, lanes, isLast: false };
      after = next.lane;
    }
  }
}
