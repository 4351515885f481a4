/**
 * What goes to a peer next. The log is walked once for each: subscriptions go to everybody, messages to whom their
 * lane is wanted by; nothing goes back to who has written or brought it. When a lane becomes wanted, what is stored of
 * it goes out beside the walk.
 */
import type { FeedTables } from "../../store/feeds/feeds.ts";
import type { PeerRow } from "../../store/feeds/peers.ts";
import type { Exchange } from "./exchange.ts";
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

/** What is behind a batch: something, nothing, or only what the peer reads by itself for now. */
type Rest = "more" | "none" | "waiting";

/** What is stored of lanes for a peer, and how far the walks through them are with it. */
interface Stored {
  readonly found: readonly LaneSeq[];
  readonly lanes: readonly LaneSeq[];
  readonly rest: Rest;
}

/** Events for a peer: some that have come, and some of lanes that have become wanted. */
export class Batch {
  readonly seqs: readonly number[];
  readonly rest: Rest;
  readonly #due: readonly number[];
  readonly #stored: readonly LaneSeq[];
  readonly #end: Progress;

  /** `outSeq`: how far the walk through the log is with all of `due`. */
  constructor(due: readonly number[], outSeq: number, { found, lanes, rest }: Stored, isAtHead: boolean) {
    this.#due = due;
    this.#stored = found;
    this.#end = { outSeq, lanes };
    this.seqs = [...due, ...found.map(({ seq }) => seq)];
    this.rest = isAtHead ? rest : "more";
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
  readonly #isReading: Exchange["isReading"];

  constructor(tables: FeedTables, log: FeedLog, networkId: string, exchange: Exchange) {
    this.#tables = tables;
    this.#log = log;
    this.#networkId = networkId;
    this.#isReading = (link, lane) => exchange.isReading(link, lane);
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
    const stored = this.#stored(peer, head, limit - due.length);
    return new Batch(due, walked, stored, walked >= head);
  }

  /** Stored events of lanes that have become wanted, but for those that the peer reads by itself. */
  #stored(peer: PeerRow, head: number, limit: number): Stored {
    const { events, peerLanes } = this.#tables;
    const found: LaneSeq[] = [];
    const lanes: LaneSeq[] = [];
    let rest: Rest = "none";
    let rowsLeft = ROWS_PER_TURN;
    for (let after = 0; rowsLeft > 0; ) {
      const next = peerLanes.unsent(peer.link, after);
      if (next === undefined) return { found, lanes, rest };
      const { lane, sentSeq } = next;
      // What is not shown yet goes to nobody.
      const untilSeq = Math.min(next.untilSeq, head);
      after = lane;
      rowsLeft--;
      if (this.#isReading(peer.link, lane)) {
        rest = "waiting";
        continue;
      }
      if (rowsLeft === 0) break;
      const looked = events.stored(peer, lane, sentSeq, untilSeq, rowsLeft);
      const isCut = looked.length === rowsLeft;
      rowsLeft -= looked.length;
      const foreign = looked.filter(({ isForeign }) => isForeign).slice(0, limit - found.length);
      for (const { seq } of foreign) found.push({ lane, seq });
      const isFull = found.length === limit;
      if (!isFull && !isCut) {
        if (untilSeq > sentSeq) lanes.push({ lane, seq: untilSeq });
        continue;
      }
      const last = isFull ? foreign.at(-1) : looked.at(-1);
      if (last) lanes.push({ lane, seq: last.seq });
      return { found, lanes, rest: "more" };
    }
    return { found, lanes, rest: lanes.length > 0 ? "more" : rest };
  }
}
