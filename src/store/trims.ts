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
  readonly #put: Statement;
  readonly #of: Statement;
  readonly #deleteUpTo: Statement;

  constructor(db: Database, schema: Schema) {
    const table = `${schema}.trims`;
    this.#put = db.prepare(`REPLACE INTO ${table} (slot, from_seq, to_seq, hops) VALUES (?, ?, ?, ?)`);
    this.#of = db.prepare(`SELECT from_seq, to_seq, hops FROM ${table} WHERE slot = ? ORDER BY from_seq`);
    this.#deleteUpTo = db.prepare(`DELETE FROM ${table} WHERE slot = ? AND to_seq <= ?`);
  }

  /** Stores one, in place of one that starts at the same seq. */
  put(slot: number, { from, to, hops }: Trim): void {
    this.#put.run(slot, from, to, hops);
  }

  of(slot: number): Trim[] {
    const rows = this.#of.values(slot) as [number, number, number][];
    return rows.map(([from, to, hops]) => ({ from, to, hops }));
  }

  /** Forgets those that end at `seq` or before. */
  deleteUpTo(slot: number, seq: number): void {
    this.#deleteUpTo.run(slot, seq);
  }
}
