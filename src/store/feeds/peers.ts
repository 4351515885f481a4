/** Other instances: how far our log is done with for them, what they have brought, and how their lanes are read. */
import type { Database, Statement } from "bun:sqlite";

/** An instance that events went to or came from. */
export interface PeerRow {
  /** Its number, and that of what was exchanged with its log. */
  readonly node: number;
  readonly link: number;
  /** Its log. */
  readonly logId: string;
  /** Up to where our log is done with for it. */
  readonly outSeq: number;
}

/** How far a peer's lane is read, and how far our log had come when there was nothing more. */
export interface LaneRead {
  readonly readSeq: number;
  readonly caughtSeq: number;
}

/** What of a lane a peer wants, if there are wishes: what is stored between two seqs, and all that comes. */
export interface LaneWish {
  readonly wishes: number;
  readonly sentSeq: number;
  readonly untilSeq: number;
}

type Row = [number, number, string, number];

const toRow = ([node, link, logId, outSeq]: Row): PeerRow => ({ node, link, logId, outSeq });

export class Peers {
  readonly #get: Statement;
  readonly #count: Statement;
  readonly #nextLink: Statement;
  readonly #put: Statement;
  readonly #move: Statement;
  readonly #byLink: Statement;
  readonly #unnamed: Statement;
  readonly #remove: Statement;
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
    this.#count = db.prepare("SELECT count(*) FROM feed_peers");
    this.#nextLink = db.prepare(
      `SELECT 1 + ifnull(max(link), 0)
       FROM (SELECT link FROM feed_peers UNION ALL SELECT link FROM feed_retired)`,
    );
    this.#put = db.prepare(`REPLACE INTO feed_peers (${columns}) VALUES (?, ?, ?, ?)`);
    this.#move = db.prepare("UPDATE feed_peers SET out_seq = ?2 WHERE link = ?1");
    this.#byLink = db.prepare(`SELECT ${columns} FROM feed_peers WHERE link = ?`);
    this.#unnamed = db.prepare(
      `SELECT ${columns} FROM feed_peers WHERE node NOT IN (SELECT node FROM feed_addresses) ORDER BY link LIMIT 1`,
    );
    this.#remove = db.prepare("DELETE FROM feed_peers WHERE link = ?");
    this.#retire = db.prepare("REPLACE INTO feed_retired VALUES (?, ?)");
    this.#retired = db.prepare("SELECT link, seq FROM feed_retired LIMIT 1");
    this.#forgetLinks = db.prepare("DELETE FROM feed_links WHERE seq > ?2 AND seq <= ?3 AND link = ?1");
    this.#forgetLanes = db.prepare(
      `DELETE FROM feed_peer_lanes WHERE link = ?1 AND lane IN
       (SELECT lane FROM feed_peer_lanes WHERE link = ?1 LIMIT ?2)`,
    );
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

  /** The peer whose log a link stands for, unless it is not used any more. */
  byLink(link: number): PeerRow | undefined {
    const [row] = this.#byLink.values(link) as Row[];
    return row && toRow(row);
  }

  /** The peer that has been known for longest, among those that no URL leads to. */
  get oldestUnnamed(): PeerRow | undefined {
    const [row] = this.#unnamed.values() as Row[];
    return row && toRow(row);
  }

  move(link: number, outSeq: number): void {
    this.#move.run(link, outSeq);
  }

  /** A link is not used any more. */
  retire(link: number): void {
    this.#remove.run(link);
    this.#retire.run(link, 0);
  }

  /** A link that holds something still, and up to where it is looked for. */
  get retired(): { link: number; seq: number } | undefined {
    const [row] = this.#retired.values() as [number, number][];
    return row && { link: row[0], seq: row[1] };
  }

  /** Removes some of what a retired link holds: of so many events behind `seq`, and then of as many lanes. */
  forget({ link, seq }: { link: number; seq: number }, head: number, rows: number): void {
    if (seq < head) {
      this.#forgetLinks.run(link, seq, seq + rows);
      this.#retire.run(link, seq + rows);
    } else if (this.#forgetLanes.run(link, rows).changes === 0) this.#forgotten.run(link);
  }
}

/** Which peers have brought an event. */
export class Links {
  readonly #add: Statement;
  readonly #has: Statement;
  readonly #of: Statement;

  constructor(db: Database) {
    this.#add = db.prepare("INSERT OR IGNORE INTO feed_links (link, seq) VALUES (?, ?)");
    this.#has = db.prepare("SELECT 1 FROM feed_links WHERE link = ? AND seq = ?");
    this.#of = db.prepare("SELECT link FROM feed_links WHERE seq = ?");
  }

  /** False if it was known. */
  add(link: number, seq: number): boolean {
    return this.#add.run(link, seq).changes > 0;
  }

  has(link: number, seq: number): boolean {
    return this.#has.values(link, seq).length > 0;
  }

  /** All that have brought an event, also those that are not used any more. */
  of(seq: number): number[] {
    return (this.#of.values(seq) as [number][]).map(([link]) => link);
  }
}

const READ_NOTHING: LaneRead = { readSeq: 0, caughtSeq: 0 };
const WANTS_NOTHING: LaneWish = { wishes: 0, sentSeq: 0, untilSeq: 0 };

/** The link that stands for this instance. */
export const OWN_LINK = 0;

/** How it goes with each lane and peer. */
export class PeerLanes {
  readonly #read: Statement;
  readonly #setRead: Statement;
  readonly #wish: Statement;
  readonly #setWish: Statement;
  readonly #send: Statement;
  readonly #unsent: Statement;
  readonly #wanted: Statement;
  readonly #wanting: Statement;

  constructor(db: Database) {
    const here = "FROM feed_peer_lanes WHERE link = ?1 AND lane = ?2";
    this.#read = db.prepare(`SELECT read_seq, caught_seq ${here}`);
    this.#setRead = db.prepare(
      `INSERT INTO feed_peer_lanes (link, lane, read_seq, caught_seq) VALUES (?1, ?2, ?3, ?4)
       ON CONFLICT DO UPDATE SET read_seq = ?3, caught_seq = ?4`,
    );
    this.#wish = db.prepare(`SELECT wishes, sent_seq, until_seq ${here}`);
    this.#setWish = db.prepare(
      `INSERT INTO feed_peer_lanes (link, lane, wishes, sent_seq, until_seq) VALUES (?1, ?2, ?3, ?4, ?5)
       ON CONFLICT DO UPDATE SET wishes = ?3, sent_seq = ?4, until_seq = ?5`,
    );
    this.#send = db.prepare(
      "UPDATE feed_peer_lanes SET sent_seq = max(sent_seq, ?3) WHERE link = ?1 AND lane = ?2",
    );
    // Links that are not used any more want nothing.
    this.#wanted = db.prepare(
      `SELECT lane, link FROM feed_peer_lanes
       WHERE wishes > 0 AND lane >= ?1 AND link NOT IN (SELECT link FROM feed_retired)
       ORDER BY lane LIMIT ?2`,
    );
    this.#wanting = db.prepare(
      `SELECT link FROM feed_peer_lanes
       WHERE lane = ? AND wishes > 0 AND link NOT IN (SELECT link FROM feed_retired)`,
    );
    this.#unsent = db.prepare(
      `SELECT lane, sent_seq, until_seq FROM feed_peer_lanes INDEXED BY feed_peer_lanes_unsent
       WHERE link = ?1 AND lane > ?2 AND wishes > 0 AND sent_seq < until_seq ORDER BY lane LIMIT 1`,
    );
  }

  /** Who wants which lane, from lane `from` on: links by lane. */
  wanted(from: number, limit: number): { lane: number; link: number }[] {
    const rows = this.#wanted.values(from, limit) as [number, number][];
    return rows.map(([lane, link]) => ({ lane, link }));
  }

  /** The links that want a lane. */
  wanting(lane: number): number[] {
    return (this.#wanting.values(lane) as [number][]).map(([link]) => link);
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
    return row ? { wishes: row[0], sentSeq: row[1], untilSeq: row[2] } : WANTS_NOTHING;
  }

  setWish(link: number, lane: number, { wishes, sentSeq, untilSeq }: LaneWish): void {
    this.#setWish.run(link, lane, wishes, sentSeq, untilSeq);
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
