/** Seqs of a topic that stand for records which a source had lost before a router could copy them. */
import type { Database, Statement } from "bun:sqlite";
import type { Schema } from "./database.ts";

/** Inclusive at both ends. */
export interface Trim {
  readonly from: number;
  readonly to: number;
  /** How many routers have passed it on. */
  readonly hops: number;
}

export class Trims {
  readonly #insert: Statement;
  readonly #behind: Statement;
  readonly #delete: Statement;
  readonly #deleteUpTo: Statement;

  constructor(db: Database, schema: Schema) {
    const table = `${schema}.trims`;
    this.#insert = db.prepare(`INSERT INTO ${table} (slot, from_seq, to_seq, hops) VALUES (?, ?, ?, ?)`);
    this.#behind = db.prepare(
      `SELECT from_seq, to_seq, hops FROM ${table} WHERE slot = ? AND to_seq > ? ORDER BY to_seq LIMIT 1`,
    );
    this.#delete = db.prepare(`DELETE FROM ${table} WHERE slot = ? AND to_seq = ?`);
    this.#deleteUpTo = db.prepare(`DELETE FROM ${table} WHERE slot = ? AND to_seq <= ?`);
  }

  insert(slot: number, { from, to, hops }: Trim): void {
    this.#insert.run(slot, from, to, hops);
  }

  /** The first one that ends behind `seq`. */
  behind(slot: number, seq: number): Trim | undefined {
    const [row] = this.#behind.values(slot, seq) as [number, number, number][];
    return row && { from: row[0], to: row[1], hops: row[2] };
  }

  delete(slot: number, { to }: Trim): void {
    this.#delete.run(slot, to);
  }

  /** Forgets those that end at `seq` or before. */
  deleteUpTo(slot: number, seq: number): void {
    this.#deleteUpTo.run(slot, seq);
  }
}
