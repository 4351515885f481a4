/** One row per topic: where its log stands. */
import type { Database, Statement } from "bun:sqlite";
import type { Schema } from "./database.ts";

/** The state of a log. Floors are the highest seq each kind of removal has reached, 0 at first. */
export interface LogState {
  head: number;
  /** The first live record, or `head + 1`. Never decreases. */
  earliest: number;
  count: number;
  bytes: number;
  capFloor: number;
  ttlFloor: number;
  trimFloor: number;
  deleteFloor: number;
  /** Rows up to here are removed from storage. */
  reclaimed: number;
  /** `$ts` of the newest record ever written. */
  lastTs: number | null;
}

export const emptyLog = (): LogState => ({
  head: 0,
  earliest: 1,
  count: 0,
  bytes: 0,
  capFloor: 0,
  ttlFloor: 0,
  trimFloor: 0,
  deleteFloor: 0,
  reclaimed: 0,
  lastTs: null,
});

type Row = [number, number, number, number, number, number, number, number, number, number | null];

const columns =
  "head_seq, earliest_seq, count, bytes, cap_floor, ttl_floor, trim_floor, delete_floor, reclaimed_seq, last_ts";

export class Logs {
  readonly #put: Statement;
  readonly #get: Statement;
  readonly #delete: Statement;
  readonly #sums: Statement;
  readonly #unreclaimed: Statement;

  constructor(db: Database, schema: Schema) {
    const table = `${schema}.logs`;
    this.#put = db.prepare(`REPLACE INTO ${table} (slot, ${columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`);
    this.#get = db.prepare(`SELECT ${columns} FROM ${table} WHERE slot = ?`);
    this.#delete = db.prepare(`DELETE FROM ${table} WHERE slot = ?`);
    this.#sums = db.prepare(`SELECT ifnull(sum(bytes), 0) FROM ${table}`);
    this.#unreclaimed = db.prepare(`SELECT slot FROM ${table} WHERE reclaimed_seq < earliest_seq - 1`);
  }

  put(slot: number, log: LogState): void {
    this.#put.run(
      slot,
      log.head,
      log.earliest,
      log.count,
      log.bytes,
      log.capFloor,
      log.ttlFloor,
      log.trimFloor,
      log.deleteFloor,
      log.reclaimed,
      log.lastTs,
    );
  }

  get(slot: number): LogState | undefined {
    const [row] = this.#get.values(slot) as Row[];
    if (row === undefined) return undefined;
    const [head, earliest, count, bytes, capFloor, ttlFloor, trimFloor, deleteFloor, reclaimed, lastTs] = row;
    return { head, earliest, count, bytes, capFloor, ttlFloor, trimFloor, deleteFloor, reclaimed, lastTs };
  }

  delete(slot: number): void {
    this.#delete.run(slot);
  }

  /** Record bytes of all topics. */
  totalBytes(): number {
    const [[bytes]] = this.#sums.values() as [[number]];
    return bytes;
  }

  /** Slots that still hold rows below their first live record. */
  unreclaimed(): number[] {
    return (this.#unreclaimed.values() as [number][]).map(([slot]) => slot);
  }
}
