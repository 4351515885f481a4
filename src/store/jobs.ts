/** Jobs that were leased at least once, of queues whose leases are durable; and what went to dead letters. */
import type { Database, Statement } from "bun:sqlite";
import { SEQ_BITS } from "./records.ts";

/** A job as stored. With a lease, `until` is its deadline; without one it is the end of a delay, or 0. */
export interface JobState {
  readonly deliveries: number;
  readonly lease: string | null;
  readonly node: string | null;
  readonly until: number;
}

/** With what its record says. */
export interface JobRow extends JobState {
  readonly seq: number;
  readonly tag: string | null;
  readonly bytes: number;
}

type Row = [number, number, string | null, string | null, number, string | null, number];

export class Jobs {
  readonly #put: Statement;
  readonly #delete: Statement;
  readonly #of: Statement;
  readonly #slots: Statement;
  readonly #deleteSome: Statement;
  readonly #setMoved: Statement;
  readonly #moved: Statement;
  readonly #forgetMoved: Statement;

  constructor(db: Database) {
    this.#put = db.prepare(
      "REPLACE INTO jobs (slot, seq, deliveries, lease, node, until) VALUES (?, ?, ?, ?, ?, ?)",
    );
    this.#delete = db.prepare("DELETE FROM jobs WHERE slot = ? AND seq = ?");
    this.#of = db.prepare(
      `SELECT seq, deliveries, lease, jobs.node, until, tag, octet_length(data) + ifnull(octet_length(meta), 0)
       FROM jobs JOIN records ON id = (slot << ${SEQ_BITS}) + seq WHERE slot = ? ORDER BY seq`,
    );
    this.#slots = db.prepare("SELECT DISTINCT slot FROM jobs");
    this.#deleteSome = db.prepare(
      "DELETE FROM jobs WHERE slot = ?1 AND seq IN (SELECT seq FROM jobs WHERE slot = ?1 LIMIT ?2)",
    );
    this.#setMoved = db.prepare("REPLACE INTO dead_letters (slot, moved) VALUES (?, ?)");
    this.#moved = db.prepare("SELECT moved FROM dead_letters WHERE slot = ?");
    this.#forgetMoved = db.prepare("DELETE FROM dead_letters WHERE slot = ?");
  }

  put(slot: number, seq: number, { deliveries, lease, node, until }: JobState): void {
    this.#put.run(slot, seq, deliveries, lease, node, until);
  }

  delete(slot: number, seq: number): void {
    this.#delete.run(slot, seq);
  }

  /** All jobs of a slot whose records are there, by seq. */
  of(slot: number): JobRow[] {
    return (this.#of.values(slot) as Row[]).map(([seq, deliveries, lease, node, until, tag, bytes]) => ({
      seq,
      deliveries,
      lease,
      node,
      until,
      tag,
      bytes,
    }));
  }

  /** Slots with jobs. */
  slots(): number[] {
    return (this.#slots.values() as [number][]).map(([slot]) => slot);
  }

  /** Removes up to `limit` rows of a slot; the number removed. */
  deleteSome(slot: number, limit: number): number {
    return this.#deleteSome.run(slot, limit).changes;
  }

  /** Notes how many jobs of a queue went to its dead letters. */
  setDeadLettered(slot: number, moved: number): void {
    if (moved === 0) this.#forgetMoved.run(slot);
    else this.#setMoved.run(slot, moved);
  }

  deadLettered(slot: number): number {
    const [row] = this.#moved.values(slot) as [number][];
    return row?.[0] ?? 0;
  }
}
