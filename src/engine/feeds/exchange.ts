/** What other instances ask of this one: to take events, and to give those it has. */
import { LRUCache } from "lru-cache";
import { ApiError, invalid } from "../../contract/errors.ts";
import {
  BACKFILL_EVENTS_DEFAULT,
  BACKFILL_EVENTS_MAX,
  FEED_LOG,
  HEAD_EVENTS_MAX,
  LOG_ID_LENGTH_MAX,
  PEER_BYTES_MAX,
} from "../../contract/limits.ts";
import type { Backfill, EventsPushed, PushEvents, RejectedEvent } from "../../contract/peers.ts";
import type { EventRow } from "../../store/feeds/events.ts";
import type { FeedTables } from "../../store/feeds/feeds.ts";
import type { LaneName } from "../../store/feeds/lanes.ts";
import type { AcceptEvents, EventsAccepted, PeerLog } from "../commands.ts";
import type { Commits } from "../commit.ts";
import { carried, type FeedEvent } from "./event.ts";
import type { FeedLog } from "./feedlog.ts";
import { isId } from "./identity.ts";
import { inspect, isRejected } from "./inspect.ts";
import type { Scopes } from "./scope.ts";

/** So many events are checked side by side, before others get their turn. */
const CHECKED_AT_ONCE = 16;
/** Who has not asked for the next page of a lane for so long has stopped reading it. */
const READING_MS = 2000;
const READING_MAX = 10_000;
/** So many rows of a lane are looked at for one page. */
const ROWS_PER_PAGE = 4 * BACKFILL_EVENTS_MAX;

/** What names a log, whoever has made it up. */
export const isLogId = (text: string): boolean => text.trim() !== "" && text.length <= LOG_ID_LENGTH_MAX;

function mustBeLogId(text: string): void {
  if (!isLogId(text)) throw invalid(`log_id: 1 to ${LOG_ID_LENGTH_MAX} characters`);
}

export interface ExchangeOptions {
  readonly tables: FeedTables;
  readonly log: FeedLog;
  readonly commits: Commits;
  readonly nodeId: string;
  readonly networkId: string;
  readonly strict: boolean;
  readonly scopes: Scopes;
  readonly now: () => number;
}

/** A page of a lane: what is told of it, and its events, each encoded as it is carried. */
export interface LanePage {
  readonly head: {
    readonly ok: true;
    readonly node_id: string;
    readonly log_id: string;
    readonly lane: object;
    readonly next_from_event_seq: number;
    readonly head_only: boolean;
    readonly head_event_ids: readonly string[];
    readonly more: boolean;
  };
  readonly events: readonly string[];
}

/** What became of events that somebody brought. */
export interface Taken extends EventsAccepted {
  readonly rejected: readonly RejectedEvent[];
}

/** Notes that only save work: whoever cannot write can still give. */
async function unlessFull(note: Promise<void>): Promise<void> {
  try {
    await note;
  } catch (error) {
    if (!(error instanceof ApiError) || error.code === "invalid_request") throw error;
  }
}

/** Since the start. */
export interface ExchangeFigures {
  accepted: number;
  duplicates: number;
  rejected: number;
}

export class Exchange {
  readonly figures: ExchangeFigures = { accepted: 0, duplicates: 0, rejected: 0 };
  readonly #options: ExchangeOptions;
  /** Lanes that peers are reading right now, by link and lane. */
  readonly #reading = new LRUCache<string, true>({ max: READING_MAX, ttl: READING_MS });

  constructor(options: ExchangeOptions) {
    this.#options = options;
  }

  /** Takes what a peer sends. Throws `invalid_request`, `network_mismatch`, `throttled`. */
  async push({ from, network_id, log_id, events }: PushEvents): Promise<EventsPushed> {
    mustBeLogId(log_id);
    if (events.length === 0) throw invalid("events: at least one is needed");
    this.#allow(from, network_id);
    const { accepted, duplicates, head, rejected } = await this.take(events, { nodeId: from, logId: log_id });
    const { nodeId: node_id, log } = this.#options;
    return {
      ok: true,
      node_id,
      log_id: log.id,
      head_seq: head,
      accepted,
      duplicates,
      rejected: [...rejected],
    };
  }

  /** Takes events that a peer has brought, in whichever way, each as it was carried. `read`: up to where its lane is read with them. */
  async take(events: readonly string[], from: PeerLog, read?: AcceptEvents["read"]): Promise<Taken> {
    const { networkId, strict, scopes, now, tables, log } = this.#options;
    // What is here already was checked when it came.
    const isStored = ({ id, text }: Pick<FeedEvent, "id" | "text">) => {
      const seq = tables.events.find(id);
      return seq !== undefined && log.texts([seq])[0] === text;
    };
    const good: FeedEvent[] = [];
    const rejected: RejectedEvent[] = [];
    for (let i = 0; i < events.length; i += CHECKED_AT_ONCE) {
      const some = events.slice(i, i + CHECKED_AT_ONCE);
      const expected = { networkId, strict, scopes, now: now(), isStored };
      for (const event of await Promise.all(some.map((event) => inspect(event, expected)))) {
        if (isRejected(event)) rejected.push(event);
        else good.push(event);
      }
    }
    this.figures.rejected += rejected.length;
    // Nobody is remembered for what is not kept.
    if (good.length === 0 && read === undefined)
      return { accepted: 0, duplicates: 0, head: log.head, rejected };
    const outcome = await this.#accept(good, from, read);
    this.figures.accepted += outcome.accepted;
    this.figures.duplicates += outcome.duplicates;
    return { ...outcome, rejected };
  }

  async #accept(
    events: readonly FeedEvent[],
    from: PeerLog,
    read?: AcceptEvents["read"],
  ): Promise<EventsAccepted> {
    const { nodeId: self, now, commits } = this.#options;
    const { outcome } = await commits.submit({
      kind: "accept_events",
      topic: FEED_LOG,
      events,
      self,
      // What leads back here is nobody's.
      from: from.nodeId === self ? undefined : from,
      read,
      now: now(),
    });
    return outcome;
  }

  /** A page of a lane for a peer. Throws `invalid_request`, `network_mismatch`. */
  async backfill(request: Backfill): Promise<LanePage> {
    const { from, network_id, lane: asked, from_event_seq: after, head_only = false } = request;
    const { limit = BACKFILL_EVENTS_DEFAULT, known_event_ids: known = [] } = request;
    const name = this.#laneOf(asked);
    if (limit < 1 || limit > BACKFILL_EVENTS_MAX) throw invalid(`limit: 1 to ${BACKFILL_EVENTS_MAX}`);
    this.#allow(from, network_id);
    if (request.log_id !== undefined) await unlessFull(this.#recognize(from, request.log_id));
    const { tables, log, nodeId: node_id } = this.#options;
    const lane = tables.lanes.find(name);
    const told = { ok: true, node_id, log_id: log.id, lane: asked, head_only } as const;
    if (lane === undefined) {
      return {
        head: { ...told, next_from_event_seq: head_only ? 0 : after, head_event_ids: [], more: false },
        events: [],
      };
    }
    const head = log.head;
    const isForeign = this.#foreignTo(from, name);
    const newest = tables.events.newest(lane, head, name.feedKey === "" ? ROWS_PER_PAGE : HEAD_EVENTS_MAX);
    const head_event_ids: string[] = [];
    for (const row of newest) {
      if (head_event_ids.length === HEAD_EVENTS_MAX) break;
      if (isForeign(row)) head_event_ids.push(row.id);
    }
    if (head_only) {
      const next_from_event_seq = newest[0]?.seq ?? 0;
      return { head: { ...told, next_from_event_seq, head_event_ids, more: false }, events: [] };
    }
    if (name.feedKey !== "") await unlessFull(this.#noteRead(from, lane, after));
    const isKnown = new Set(known);
    const page: EventRow[] = [];
    let last = after;
    for (const row of tables.events.after(lane, after, head, ROWS_PER_PAGE)) {
      if (page.length === limit) break;
      last = row.seq;
      if (!isKnown.has(row.id) && isForeign(row)) page.push(row);
    }
    // What is damaged here may be whole elsewhere.
    const encode = (_: EventRow, text: string | undefined) => text && carried(text);
    const { encoded: events, count } = await log.encoded(page, encode, PEER_BYTES_MAX);
    const next_from_event_seq = count < page.length ? page[count - 1]!.seq : last;
    const more = tables.events.after(lane, next_from_event_seq, head, 1).length > 0;
    return { head: { ...told, next_from_event_seq, head_event_ids, more }, events };
  }

  /** A peer whose log has begun anew has nothing of what was exchanged with the old one. */
  async #recognize(nodeId: string, logId: string): Promise<void> {
    mustBeLogId(logId);
    const peer = this.#options.tables.peerOf(nodeId);
    if (peer && peer.logId !== logId) await this.#accept([], { nodeId, logId });
  }

  /** Whether a peer reads a lane by itself, so that nothing that is stored need be sent to it meanwhile. */
  isReading(link: number, lane: number): boolean {
    return this.#reading.has(`${link}/${lane}`);
  }

  /** A peer that asks for what is behind a place has what is before it. */
  async #noteRead(from: string, lane: number, after: number): Promise<void> {
    const { tables, commits } = this.#options;
    const peer = tables.peerOf(from);
    if (peer === undefined) return;
    const { link } = peer;
    this.#reading.set(`${link}/${lane}`, true);
    const { wishes, sentSeq, untilSeq } = tables.peerLanes.wishOf(link, lane);
    const seq = Math.min(after, untilSeq);
    if (wishes > 0 && seq > sentSeq)
      await commits.submit({ kind: "note_sent", link, lanes: [{ lane, seq }] });
  }

  /** Whether an event is told to a peer: of subscriptions it has neither written nor brought. */
  #foreignTo(from: string, { feedKey }: LaneName): (row: EventRow) => boolean {
    if (feedKey !== "") return () => true;
    const { tables } = this.#options;
    const node = tables.nodes.find(from);
    const peer = tables.peerOf(from);
    return ({ author, seq }) => author !== node && !(peer && tables.links.has(peer.link, seq));
  }

  /** What is asked for. A scope that stays here looks like a lane without events. */
  #laneOf({ kind, scope, feed_key }: Backfill["lane"]): LaneName {
    const { networkId, scopes } = this.#options;
    if (kind === "subscriptions") return { networkId, scope: "", feedKey: "" };
    if (kind !== "messages") throw invalid('lane.kind: expected "subscriptions" or "messages"');
    if (!scope?.trim() || !feed_key?.trim()) throw invalid("lane: scope and feed_key are required");
    const canonical = scopes.readable(scope.trim());
    return { networkId, scope: scopes.stays(canonical) ? "" : canonical, feedKey: feed_key.trim() };
  }

  #allow(from: string, networkId: string): void {
    if (!isId(from)) throw invalid("from must be 64 hexadecimal digits");
    if (networkId !== this.#options.networkId) throw new ApiError("network_mismatch", {});
  }
}
