/**
 * What goes to a peer next. The log is walked once for each: subscriptions go to everybody, messages to whom their
 * lane is wanted by; nothing goes back to who has written or brought it. When a lane becomes wanted, what is stored of
 * it goes out beside the walk.
 */
import type { FeedTables } from "../../store/feeds/feeds.ts";
import type { PeerRow } from "../../store/feeds/peers.ts";
import type { FeedLog } from "./feedlog.ts";

/** So much of the log, and of lanes, is looked at in one turn. */
const ROWS_PER_TURN = 5000;

/** A place in a lane. */
interface LaneSeq {
  readonly lane: number;
  readonly seq: number;
}

/** How far the walks for a peer have come: through the log, and through what is stored of lanes. */
export interface Progress {
  readonly outSeq: number;
  readonly lanes: readonly LaneSeq[];
}

/** Events for a peer: some that have come, and some of lanes that have become wanted. */
export class Batch {
  readonly seqs: readonly number[];
  /** Whether there is nothing behind it. */
  readonly isLast: boolean;
  readonly #due: readonly number[];
  readonly #stored: readonly LaneSeq[];
  readonly #end: Progress;

  /** `end`: how far the walks are with all of it. */
  constructor(due: readonly number[], stored: readonly LaneSeq[], end: Progress, isLast: boolean) {
    this.#due = due;
    this.#stored = stored;
    this.#end = end;
    this.seqs = [...due, ...stored.map(({ seq }) => seq)];
    this.isLast = isLast;
  }

  /** How far the walks are when the first `count` events are sent, or all. */
  progress(count: number): Progress {
    if (count === this.seqs.length) return this.#end;
    if (count < this.#due.length) return { outSeq: this.#due[count - 1]!, lanes: [] };
    const sent = this.#stored.slice(0, count - this.#due.length);
    const lanes = new Map(sent.map((item) => [item.lane, item]));
    return { outSeq: this.#end.outSeq, lanes: [...lanes.values()] };
  }
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
    return new Batch(due, stored.found, { outSeq: walked, lanes: stored.lanes }, isLast);
  }

  /** Stored events of lanes that have become wanted. */
  #stored(peer: PeerRow, limit: number) {
    const { events, peerLanes } = this.#tables;
    const found: LaneSeq[] = [];
    const lanes: LaneSeq[] = [];
    let rowsLeft = ROWS_PER_TURN;
    for (let after = 0; ; ) {
      const next = peerLanes.unsent(peer.link, after);
      if (next === undefined) return { found, lanes, isLast: true };
      const { lane, sentSeq, untilSeq } = next;
      const rows = Math.min(rowsLeft, ROWS_PER_TURN);
      const looked = rows > 0 ? events.stored(peer, lane, sentSeq, untilSeq, rows) : [];
      rowsLeft -= looked.length + 1;
      const room = limit - found.length;
      const foreign = looked.filter(({ isForeign }) => isForeign).slice(0, room);
      for (const { seq } of foreign) found.push({ lane, seq });
      const isFull = found.length === limit;
      if (isFull || rowsLeft <= 0) {
        const last = isFull ? foreign.at(-1)?.seq : looked.at(-1)?.seq;
        if (last !== undefined) lanes.push({ lane, seq: last });
        return { found, lanes, isLast: false };
      }
      lanes.push({ lane, seq: untilSeq });
      after = lane;
    }
  }
}
