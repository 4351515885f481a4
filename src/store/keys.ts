/** The answers given to writes with an idempotency key. */
import type { Database, Statement } from "bun:sqlite";
import type { Schema } from "./database.ts";

export interface KeyedWrite {
  readonly ts: number;
  readonly firstSeq: number;
  readonly count: number;
  readonly head: number;
}

export class Keys {
  readonly #put: Statement;
  readonly #get: Statement;
  readonly #prune: Statement;
  readonly #deleteSome: Statement;

  constructor(db: Database, schema: Schema) {
    const table = `${schema}.idempotency_keys`;
    this.#put = db.prepare(
      `REPLACE INTO ${table} (slot, key, ts, first_seq, count, head_seq) VALUES (?, ?, ?, ?, ?, ?)`,
    );
    this.#get = db.prepare(`SELECT ts, first_seq, count, head_seq FROM ${table} WHERE slot = ? AND key = ?`);
    this.#prune = db.prepare(
      `DELETE FROM ${table} WHERE slot = ?1 AND key IN
       (SELECT key FROM ${table} WHERE slot = ?1 AND ts < ?2 ORDER BY ts LIMIT ?3)`,
    );
    this.#deleteSome = db.prepare(
      `DELETE FROM ${table} WHERE slot = ?1 AND key IN (SELECT key FROM ${table} WHERE slot = ?1 LIMIT ?2)`,
    );
  }

  put(slot: number, key: string, write: KeyedWrite): void {
    this.#put.run(slot, key, write.ts, write.firstSeq, write.count, write.head);
  }

  get(slot: number, key: string): KeyedWrite | undefined {
    const [row] = this.#get.values(slot, key) as [number, number, number, number][];
    return row && { ts: row[0], firstSeq: row[1], count: row[2], head: row[3] };
  }

  /** Forgets up to `limit` keys used before `ts`, oldest first. */
  prune(slot: number, ts: number, limit: number): void {
    this.#prune.run(slot, ts, limit);
  }

  /** Removes up to `limit` rows of a slot; the number removed. */
  deleteSome(slot: number, limit: number): number {
    return this.#deleteSome.run(slot, limit).changes;
  }
}
