/** One row per topic: where its log stands. */
import type { Database, Statement } from "bun:sqlite";
import type { Schema } from "./database.ts";
import { isReserved } from "./topics.ts";

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
  /** Rows up to here are removed from storage. */
  reclaimed: number;
  /** `$ts` of the newest record ever written. */
  lastTs: number | null;
  /** Sums of the newest records, of one block, that the blocks table does not have yet. */
  tailBlock: number;
  tailCount: number;
  tailBytes: number;
  /** Bytes of the largest record ever written. */
  largest: number;
}

export const emptyLog = (): LogState => ({
  head: 0,
  earliest: 1,
  count: 0,
  bytes: 0,
  capFloor: 0,
  ttlFloor: 0,
  trimFloor: 0,
  reclaimed: 0,
  lastTs: null,
  tailBlock: 0,
  tailCount: 0,
  tailBytes: 0,
  largest: 0,
});

/** The columns behind the fields of `LogState`, in one order for reading and writing. */
const fields = [
  ["head", "head_seq"],
  ["earliest", "earliest_seq"],
  ["count", "count"],
  ["bytes", "bytes"],
  ["capFloor", "cap_floor"],
  ["ttlFloor", "ttl_floor"],
  ["trimFloor", "trim_floor"],
  ["reclaimed", "reclaimed_seq"],
  ["lastTs", "last_ts"],
  ["tailBlock", "tail_block"],
  ["tailCount", "tail_count"],
  ["tailBytes", "tail_bytes"],
  ["largest", "largest_bytes"],
] as const satisfies readonly (readonly [keyof LogState, string])[];

const columns = fields.map(([, column]) => column).join(", ");

export const sameLog = (a: LogState, b: LogState): boolean =>
  fields.every(([field]) => a[field] === b[field]);

export class Logs {
  readonly #put: Statement;
  readonly #get: Statement;
  readonly #delete: Statement;
  readonly #sums: Statement;
  readonly #unreclaimed: Statement;

  constructor(db: Database, schema: Schema) {
    const table = `${schema}.logs`;
    this.#put = db.prepare(
      `REPLACE INTO ${table} (slot, checksum, ${columns}) VALUES (?, ?${", ?".repeat(fields.length)})`,
    );
    this.#get = db.prepare(`SELECT checksum, ${columns} FROM ${table} WHERE slot = ?`);
    this.#delete = db.prepare(`DELETE FROM ${table} WHERE slot = ?`);
    this.#sums = db.prepare(
      `SELECT ifnull(sum(count), 0), ifnull(sum(bytes), 0) FROM ${table}
       WHERE slot NOT IN (SELECT slot FROM main.topics WHERE ${isReserved})`,
    );
    this.#unreclaimed = db.prepare(`SELECT slot FROM ${table} WHERE reclaimed_seq < earliest_seq - 1`);
  }

  put(slot: number, log: LogState): void {
    const values = fields.map(([field]) => log[field]);
    this.#put.run(slot, checksum(slot, values), ...values);
  }

  /** Undefined if there is none, or if what is stored is damaged. */
  get(slot: number): LogState | undefined {
    const [row] = this.#get.values(slot) as [number, ...number[]][];
    if (row === undefined) return undefined;
    const [sum, ...values] = row;
    if (sum !== checksum(slot, values)) return undefined;
    return Object.fromEntries(fields.map(([field], i) => [field, values[i]])) as unknown as LogState;
  }

  delete(slot: number): void {
    this.#delete.run(slot);
  }

  /** Live records of all topics that are not reserved, and what they count for. */
  sums(): { count: number; bytes: number } {
    const [[count, bytes]] = this.#sums.values() as [[number, number]];
    return { count, bytes };
  }

  /** Slots that still hold rows below their first live record. */
  unreclaimed(): number[] {
    return (this.#unreclaimed.values() as [number][]).map(([slot]) => slot);
  }
}

const checksum = (slot: number, values: readonly (number | null)[]): number =>
  Bun.hash.xxHash32(values.join(), slot);
