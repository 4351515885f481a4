/** Where the subscribers hosted here stand, without a write for each of them with each message. */
import type { Database, Statement } from "bun:sqlite";

export interface CursorKey {
  readonly networkId: string;
  readonly subscriber: string;
  readonly feedKey: string;
}

export class Cursors {
  readonly #follow: Statement;
  readonly #seq: Statement;

  constructor(db: Database) {
    this.#follow = db.prepare(
      `INSERT INTO feed_cursors (network_id, subscriber, feed_key, lane, since_seq, last_seq)
       VALUES (?1, ?2, ?3, ?4, ?5, ?6)
       ON CONFLICT DO UPDATE SET lane = ?4, since_seq = ?5, last_seq = ?6`,
    );
    this.#seq = db.prepare(
      `SELECT iif(l.last_seq > c.since_seq, l.last_seq, c.last_seq)
       FROM feed_cursors c LEFT JOIN feed_lanes l ON l.lane = c.lane
       WHERE c.network_id = ?1 AND c.subscriber = ?2 AND c.feed_key = ?3`,
    );
  }

  /** The last message that a subscriber has come to; undefined if there was none. */
  seqOf({ networkId, subscriber, feedKey }: CursorKey): number | undefined {
    const [row] = this.#seq.values(networkId, subscriber, feedKey) as [number | null][];
    return row?.[0] ?? undefined;
  }

  /** From `since` on the subscriber goes along with a lane; with null it stays where it is. */
  follow(key: CursorKey, lane: number | null, since: number): void {
    const { networkId, subscriber, feedKey } = key;
    this.#follow.run(networkId, subscriber, feedKey, lane, since, this.seqOf(key) ?? null);
  }
}
