/** What holds for each subscription now. */
import type { Database, Statement } from "bun:sqlite";

/** Whose subscription to what. `host` is the number of the instance that has signed it. */
export interface SubscriptionKey {
  readonly networkId: string;
  readonly host: number;
  readonly subscriber: string;
  readonly feedKey: string;
}

/** What its newest event says. */
export interface SubscriptionRow extends SubscriptionKey {
  readonly lane: number;
  readonly active: boolean;
  readonly seq: number;
  readonly createdAt: number;
  readonly eventId: string;
}

/** Which subscriptions are asked for. Undefined is any. */
export interface SubscriptionFilter {
  readonly networkId: string | undefined;
  readonly feedKey: string | undefined;
  readonly active: boolean | undefined;
  /** What feed keys must begin with one of; none for any. */
  readonly within: readonly string[];
}

type Row = [string, number, string, string, number, number, number, number, string];

const columns = "network_id, host, subscriber, feed_key, lane, active, seq, created_at, event_id";
const toRow = ([networkId, host, subscriber, feedKey, lane, active, seq, createdAt, eventId]: Row) => ({
  networkId,
  host,
  subscriber,
  feedKey,
  lane,
  active: active === 1,
  seq,
  createdAt,
  eventId,
});

export class Subscriptions {
  readonly #put: Statement;
  readonly #get: Statement;
  readonly #bySeq: Statement;
  readonly #older: Statement;
  readonly #olderOf: Statement;
  readonly #olderIn: Statement;
  readonly #count: Statement;
  readonly #recount: Statement;

  constructor(db: Database) {
    this.#put = db.prepare(`REPLACE INTO feed_subscriptions (${columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`);
    const key = "network_id = ? AND host = ? AND subscriber = ? AND feed_key = ?";
    this.#get = db.prepare(`SELECT ${columns} FROM feed_subscriptions WHERE ${key}`);
    this.#bySeq = db.prepare(
      `SELECT s.lane FROM feed_subscriptions s JOIN feed_events e ON e.event_id = s.event_id
       WHERE e.seq = ?1 AND s.created_at = e.created_at AND s.active`,
    );
    // Those of a feed or in a state are found by an index, which an optional condition could not use.
    const older = (condition: string) => `
      SELECT ${columns} FROM feed_subscriptions
      WHERE ${condition} AND (created_at, event_id) < (?1, ?2) AND (?3 IS NULL OR network_id = ?3)
        AND (?5 IS NULL OR active = ?5)
        AND (?6 = '[]' OR EXISTS (
          SELECT 1 FROM json_each(?6) WHERE substr(feed_key, 1, length(value)) = value))
      ORDER BY created_at DESC, event_id DESC LIMIT ?7`;
    this.#older = db.prepare(older("?4 IS NULL"));
    this.#olderOf = db.prepare(older("feed_key = ?4"));
    this.#olderIn = db.prepare(older("?4 IS NULL AND active = ?5"));
    this.#count = db.prepare("SELECT active_subscriptions FROM feed_totals");
    this.#recount = db.prepare("UPDATE feed_totals SET active_subscriptions = active_subscriptions + ?");
  }

  put(row: SubscriptionRow): void {
    const { networkId, host, subscriber, feedKey, lane, active, seq, createdAt, eventId } = row;
    const more = Number(active) - Number(this.get(row)?.active ?? false);
    if (more !== 0) this.#recount.run(more);
    this.#put.run(networkId, host, subscriber, feedKey, lane, Number(active), seq, createdAt, eventId);
  }

  get({ networkId, host, subscriber, feedKey }: SubscriptionKey): SubscriptionRow | undefined {
    const [row] = this.#get.values(networkId, host, subscriber, feedKey) as Row[];
    return row && toRow(row);
  }

  /** Those before (`createdAt`, `eventId`), newest first. */
  older(createdAt: number, eventId: string, filter: SubscriptionFilter, limit: number): SubscriptionRow[] {
    const { networkId = null, feedKey = null, active, within } = filter;
    const isActive = active === undefined ? null : Number(active);
    const prefixes = JSON.stringify(within);
    const older = feedKey !== null ? this.#olderOf : active === undefined ? this.#older : this.#olderIn;
    const rows = older.values(createdAt, eventId, networkId, feedKey, isActive, prefixes, limit);
    return (rows as Row[]).map(toRow);
  }

  /** The lane that the event in force with that seq asks for. */
  laneAskedBy(seq: number): number | undefined {
    const [row] = this.#bySeq.values(seq) as [number][];
    return row?.[0];
  }

  /** How many are active. */
  get active(): number {
    const [[count]] = this.#count.values() as [[number]];
    return count;
  }
}
