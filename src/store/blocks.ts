/** How many live records, and how many bytes of them, each run of 1024 seqs holds. */
import type { Database, Statement } from "bun:sqlite";
import type { Schema } from "./database.ts";

export const BLOCK_SEQS = 1024;

export const blockOf = (seq: number): number => Math.floor(seq / BLOCK_SEQS);

/** The first and the last seq of a block. */
export const firstOf = (block: number): number => block * BLOCK_SEQS;
export const lastOf = (block: number): number => firstOf(block + 1) - 1;

export interface Block {
  readonly block: number;
  readonly count: number;
  readonly bytes: number;
}

export class Blocks {
  readonly #add: Statement;
  readonly #after: Statement;
  readonly #one: Statement;
  readonly #before: Statement;
  readonly #sum: Statement;
  readonly #deleteBelow: Statement;
  readonly #deleteSome: Statement;

  constructor(db: Database, schema: Schema) {
    const table = `${schema}.blocks`;
    this.#add = db.prepare(
      `INSERT INTO ${table} VALUES (?1, ?2, ?3, ?4)
       ON CONFLICT DO UPDATE SET count = count + ?3, bytes = bytes + ?4`,
    );
    this.#after = db.prepare(
      `SELECT block, count, bytes FROM ${table} WHERE slot = ? AND block >= ? AND count > 0 ORDER BY block LIMIT ?`,
    );
    this.#one = db.prepare(`SELECT count FROM ${table} WHERE slot = ? AND block = ?`);
    this.#before = db.prepare(
      `SELECT block, count, bytes FROM ${table} WHERE slot = ? AND block <= ? AND count > 0 ORDER BY block DESC LIMIT 1`,
    );
    this.#sum = db.prepare(
      `SELECT count(*), ifnull(sum(count), 0), ifnull(sum(bytes), 0) FROM ${table} WHERE slot = ? AND block < ?`,
    );
    this.#deleteBelow = db.prepare(`DELETE FROM ${table} WHERE slot = ? AND block < ?`);
    this.#deleteSome = db.prepare(
      `DELETE FROM ${table} WHERE slot = ?1 AND block IN (SELECT block FROM ${table} WHERE slot = ?1 LIMIT ?2)`,
    );
  }

  /** Adds to a block's sums; negative numbers take away. */
  add(slot: number, block: number, count: number, bytes: number): void {
    this.#add.run(slot, block, count, bytes);
  }

  /** Blocks that hold live records, from `block` on. */
  from(slot: number, block: number, limit: number): Block[] {
    return (this.#after.values(slot, block, limit) as [number, number, number][]).map(
      ([block, count, bytes]) => ({ block, count, bytes }),
    );
  }

  countIn(slot: number, block: number): number {
    const [row] = this.#one.values(slot, block) as [number][];
    return row?.[0] ?? 0;
  }

  /** The last block that holds live records, up to `block`. */
  lastUpTo(slot: number, block: number): number | undefined {
    const [row] = this.#before.values(slot, block) as [number, number, number][];
    return row?.[0];
  }

  /** Sums of all blocks below `block`. */
  sumBelow(slot: number, block: number): { count: number; bytes: number } {
    const [[, count, bytes]] = this.#sum.values(slot, block) as [[number, number, number]];
    return { count, bytes };
  }

  deleteBelow(slot: number, block: number): void {
    this.#deleteBelow.run(slot, block);
  }

  /** Removes up to `limit` rows of a slot; the number removed. */
  deleteSome(slot: number, limit: number): number {
    return this.#deleteSome.run(slot, limit).changes;
  }
}
