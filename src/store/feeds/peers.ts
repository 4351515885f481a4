/** Other instances: how far our log is done with for them, what they have brought, and how their lanes are read. */
import type { Database, Statement } from "bun:sqlite";

/** An instance that events went to or came from. */
export interface PeerRow {
  /** Its number, and that of what was exchanged with its log. */
  readonly node: number;
  readonly link: number;
  /** Its log; "" before it has told. */
  readonly logId: string;
  /** Up to where our log is done with for it. */
  readonly outSeq: number;
}

/** How far a peer's lane is read, and how far our log had come when there was nothing more. */
export interface LaneRead {
  readonly readSeq: number;
  readonly caughtSeq: number;
}

/** What of a lane a peer wants: what is stored between two seqs, and all that comes. */
export interface LaneWish {
  readonly wanted: boolean;
  readonly sentSeq: number;
  readonly untilSeq: number;
}

type Row = [number, number, string, number];

const toRow = ([node, link, logId, outSeq]: Row): PeerRow => ({ node, link, logId, outSeq });

export class Peers {
  readonly #get: Statement;
  readonly #wanting: Statement;
  readonly #count: Statement;
  readonly #nextLink: Statement;
  readonly #put: Statement;
  readonly #move: Statement;
  readonly #retire: Statement;
  readonly #retired: Statement;
  readonly #forgetLinks: Statement;
  readonly #forgetLanes: Statement;
  readonly #forgotten: Statement;
  readonly #addressed: Statement;
  readonly #address: Statement;

  constructor(db: Database) {
    const columns = "node, link, log_id, out_seq";
    this.#get = db.prepare(`SELECT ${columns} FROM feed_peers WHERE node = ?`);
    this.#wanting = db.prepare(
      `SELECT p.node, p.link, p.log_id, p.out_seq FROM feed_peer_lanes w JOIN feed_peers p USING (link)
       WHERE w.lane = ? AND w.wanted`,
    );
    this.#count = db.prepare("SELECT count(*) FROM feed_peers");
    this.#nextLink = db.prepare(
      `SELECT 1 + ifnull(max(link), 0)
       FROM (SELECT link FROM feed_peers UNION ALL SELECT link FROM feed_retired)`,
    );
    this.#put = db.prepare(`REPLACE INTO feed_peers (${columns}) VALUES (?, ?, ?, ?)`);
    this.#move = db.prepare("UPDATE feed_peers SET out_seq = ?2 WHERE link = ?1");
    this.#retire = db.prepare("INSERT INTO feed_retired VALUES (?)");
    this.#retired = db.prepare("SELECT link FROM feed_retired");
    const some = (table: string, key: string) =>
      `DELETE FROM ${table} WHERE link = ?1 AND ${key} IN
       (SELECT ${key} FROM ${table} WHERE link = ?1 LIMIT ?2)`;
    this.#forgetLinks = db.prepare(some("feed_links", "seq"));
    this.#forgetLanes = db.prepare(some("feed_peer_lanes", "lane"));
    this.#forgotten = db.prepare("DELETE FROM feed_retired WHERE link = ?");
    this.#addressed = db.prepare(
      `SELECT ${columns} FROM feed_addresses JOIN feed_peers USING (node) WHERE url = ?`,
    );
    this.#address = db.prepare("REPLACE INTO feed_addresses (url, node) VALUES (?, ?)");
  }

  get(node: number): PeerRow | undefined {
    const [row] = this.#get.values(node) as Row[];
    return row && toRow(row);
  }

  /** The peers that want a lane. */
  wanting(lane: number): PeerRow[] {
    return (this.#wanting.values(lane) as Row[]).map(toRow);
  }

  get count(): number {
    const [[count]] = this.#count.values() as [[number]];
    return count;
  }

  /** The peer that a URL led to last. */
  at(url: string): PeerRow | undefined {
    const [row] = this.#addressed.values(url) as Row[];
    return row && toRow(row);
  }

  setAddress(url: string, node: number): void {
    this.#address.run(url, node);
  }

  /** Another link for a peer that is new or whose log has begun anew. */
  link(node: number, logId: string): PeerRow {
    const [[link]] = this.#nextLink.values() as [[number]];
    this.#put.run(node, link, logId, 0);
    return { node, link, logId, outSeq: 0 };
  }

  /** A peer has told what log it has. */
  name({ node, link, outSeq }: PeerRow, logId: string): void {
    this.#put.run(node, link, logId, outSeq);
  }

  move(link: number, outSeq: number): void {
    this.#move.run(link, outSeq);
  }

  retire(link: number): void {
    this.#retire.run(link);
  }

  retired(): number[] {
    return (this.#retired.values() as [number][]).map(([link]) => link);
  }

  /** Removes some of what a retired link holds. False if nothing was left. */
  forget(link: number, rows: number): boolean {
    const { changes } = this.#forgetLinks.run(link, rows);
    if (changes > 0 || this.#forgetLanes.run(link, rows).changes > 0) return true;
    this.#forgotten.run(link);
    return false;
  }
}

/** Which peers have brought an event. */
export class Links {
  readonly #add: Statement;
  readonly #has: Statement;

  constructor(db: Database) {
    this.#add = db.prepare("INSERT OR IGNORE INTO feed_links (link, seq) VALUES (?, ?)");
    this.#has = db.prepare("SELECT 1 FROM feed_links WHERE link = ? AND seq = ?");
  }

  /** False if it was known. */
  add(link: number, seq: number): boolean {
    return this.#add.run(link, seq).changes > 0;
  }

  has(link: number, seq: number): boolean {
    return this.#has.values(link, seq).length > 0;
  }
}

const READ_NOTHING: LaneRead = { readSeq: 0, caughtSeq: 0 };
const WANTS_NOTHING: LaneWish = { wanted: false, sentSeq: 0, untilSeq: 0 };

/** How it goes with each lane and peer. */
export class PeerLanes {
  readonly #read: Statement;
  readonly #setRead: Statement;
  readonly #wish: Statement;
  readonly #setWish: Statement;
  readonly #send: Statement;
  readonly #unsent: Statement;

  constructor(db: Database) {
    const here = "FROM feed_peer_lanes WHERE link = ?1 AND lane = ?2";
    this.#read = db.prepare(`SELECT read_seq, caught_seq ${here}`);
    this.#setRead = db.prepare(
      `INSERT INTO feed_peer_lanes (link, lane, read_seq, caught_seq) VALUES (?1, ?2, ?3, ?4)
       ON CONFLICT DO UPDATE SET read_seq = ?3, caught_seq = ?4`,
    );
    this.#wish = db.prepare(`SELECT wanted, sent_seq, until_seq ${here}`);
    this.#setWish = db.prepare(
      `INSERT INTO feed_peer_lanes (link, lane, wanted, sent_seq, until_seq) VALUES (?1, ?2, ?3, ?4, ?5)
       ON CONFLICT DO UPDATE SET wanted = ?3, sent_seq = ?4, until_seq = ?5`,
    );
    this.#send = db.prepare("UPDATE feed_peer_lanes SET sent_seq = ?3 WHERE link = ?1 AND lane = ?2");
    this.#unsent = db.prepare(
      `SELECT lane, sent_seq, until_seq FROM feed_peer_lanes
       WHERE link = ?1 AND lane > ?2 AND wanted AND sent_seq < until_seq ORDER BY lane LIMIT 1`,
    );
  }

  readOf(link: number, lane: number): LaneRead {
    const [row] = this.#read.values(link, lane) as [number, number][];
    return row ? { readSeq: row[0], caughtSeq: row[1] } : READ_NOTHING;
  }

  setRead(link: number, lane: number, { readSeq, caughtSeq }: LaneRead): void {
    this.#setRead.run(link, lane, readSeq, caughtSeq);
  }

  wishOf(link: number, lane: number): LaneWish {
    const [row] = this.#wish.values(link, lane) as [number, number, number][];
    return row ? { wanted: row[0] === 1, sentSeq: row[1], untilSeq: row[2] } : WANTS_NOTHING;
  }

  setWish(link: number, lane: number, { wanted, sentSeq, untilSeq }: LaneWish): void {
    this.#setWish.run(link, lane, Number(wanted), sentSeq, untilSeq);
  }

  /** What is stored of a lane is sent up to there. */
  sent(link: number, lane: number, seq: number): void {
    this.#send.run(link, lane, seq);
  }

  /** The first lane above `after` of which something stored is still to be sent. */
  unsent(link: number, after: number): { lane: number; sentSeq: number; untilSeq: number } | undefined {
    const [row] = this.#unsent.values(link, after) as [number, number, number][];
    return row && { lane: row[0], sentSeq: row[1], untilSeq: row[2] };
  }
}
