/** What the feed log holds, by id, by lane and by age. The events themselves are the log's records. */
import type { Database, Statement } from "bun:sqlite";

export interface EventRow {
  readonly seq: number;
  readonly id: string;
  readonly lane: number;
  /** The author's number. */
  readonly author: number;
  /** The author's clock, and ours when it was accepted. Ms since the Unix epoch. */
  readonly createdAt: number;
  readonly acceptedAt: number;
}

/** Whom an event is for: what that peer has written or brought is left out. */
export interface Reader {
  readonly node: number;
  readonly link: number;
}

export interface StoredSeq {
  readonly seq: number;
  readonly isForeign: boolean;
}

type Row = [number, string, number, number, number, number];

const columns = "seq, event_id, lane, author, created_at, accepted_at";
const toRow = ([seq, id, lane, author, createdAt, acceptedAt]: Row): EventRow => ({
  seq,
  id,
  lane,
  author,
  createdAt,
  acceptedAt,
});

export class Events {
  readonly #insert: Statement;
  readonly #find: Statement;
  readonly #get: Statement;
  readonly #after: Statement;
  readonly #newest: Statement;
  readonly #older: Statement;
  readonly #due: Statement;
  readonly #stored: Statement;

  constructor(db: Database) {
    this.#insert = db.prepare(`INSERT INTO feed_events (${columns}) VALUES (?, ?, ?, ?, ?, ?)`);
    this.#find = db.prepare("SELECT seq FROM feed_events WHERE event_id = ?");
    this.#get = db.prepare(`SELECT ${columns} FROM feed_events WHERE seq = ?`);
    this.#after = db.prepare(
      `SELECT ${columns} FROM feed_events WHERE lane = ?1 AND seq > ?2 AND seq <= ?3 ORDER BY seq LIMIT ?4`,
    );
    this.#newest = db.prepare(
      `SELECT ${columns} FROM feed_events WHERE lane = ?1 AND seq <= ?2 ORDER BY seq DESC LIMIT ?3`,
    );
    this.#older = db.prepare(
      `SELECT ${columns} FROM feed_events WHERE lane = ?1 AND (created_at, event_id) < (?2, ?3) AND seq <= ?4
       ORDER BY created_at DESC, event_id DESC LIMIT ?5`,
    );
    // For a peer: nothing of its own, and nothing that it has brought.
    const foreign =
      "e.author <> ?1 AND NOT EXISTS (SELECT 1 FROM feed_links l WHERE l.link = ?2 AND l.seq = e.seq)";
    this.#due = db.prepare(
      `SELECT e.seq FROM feed_events e
       WHERE e.seq > ?3 AND e.seq <= ?4 AND ${foreign}
         AND (e.lane = ?5 OR EXISTS (
           SELECT 1 FROM feed_peer_lanes w
           WHERE w.link = ?2 AND w.lane = e.lane AND w.wishes > 0 AND w.until_seq < e.seq))
       ORDER BY e.seq LIMIT ?6`,
    );
    this.#stored = db.prepare(
      `SELECT e.seq, ${foreign} FROM feed_events e
       WHERE e.lane = ?5 AND e.seq > ?3 AND e.seq <= ?4 ORDER BY e.seq LIMIT ?6`,
    );
  }

  insert({ seq, id, lane, author, createdAt, acceptedAt }: EventRow): void {
    this.#insert.run(seq, id, lane, author, createdAt, acceptedAt);
  }

  /** The seq of an event. */
  find(id: string): number | undefined {
    const [row] = this.#find.values(id) as [number][];
    return row?.[0];
  }

  get(seq: number): EventRow | undefined {
    const [row] = this.#get.values(seq) as Row[];
    return row && toRow(row);
  }

  /** Events of a lane with `after < seq <= upTo`, as they were accepted. */
  after(lane: number, after: number, upTo: number, limit: number): EventRow[] {
    return (this.#after.values(lane, after, upTo, limit) as Row[]).map(toRow);
  }

  /** The last that were accepted of a lane, up to `upTo`, newest first. */
  newest(lane: number, upTo: number, limit: number): EventRow[] {
    return (this.#newest.values(lane, upTo, limit) as Row[]).map(toRow);
  }

  /** Events of a lane before (`createdAt`, `id`) by their authors' clocks, newest first, among those up to `upTo`. */
  older(lane: number, createdAt: number, id: string, upTo: number, limit: number): EventRow[] {
    return (this.#older.values(lane, createdAt, id, upTo, limit) as Row[]).map(toRow);
  }

  /** Seqs with `after < seq <= upTo` that a peer is to get as they come; `subscriptions` is the lane of those. */
  due({ node, link }: Reader, after: number, upTo: number, subscriptions: number, limit: number): number[] {
    const rows = this.#due.values(node, link, after, upTo, subscriptions, limit) as [number][];
    return rows.map(([seq]) => seq);
  }

  /** The next events of a lane with `after < seq <= upTo`, and whether a peer has neither written nor brought them. */
  stored({ node, link }: Reader, lane: number, after: number, upTo: number, limit: number): StoredSeq[] {
    const rows = this.#stored.values(node, link, after, upTo, lane, limit) as [number, number][];
    return rows.map(([seq, isForeign]) => ({ seq, isForeign: isForeign === 1 }));
  }
}
