/**
 * The records of one schema: raw JSON text by (slot, seq), each with a checksum that is verified whenever the
 * text is read. Reads see what is stored; which of it is live is for the engine to know.
 */
import type { Database, Statement } from "bun:sqlite";
import type { Schema } from "./database.ts";

/** Bits of a row's id that hold the seq; the slot lies above them. */
export const SEQ_BITS = 42;
export const SEQ_MAX = 2 ** SEQ_BITS - 1;
export const SLOT_MAX = 2 ** (63 - SEQ_BITS) - 1;

/** Rows put in by one statement, largest first. Fixed sizes keep the SQL text, and so SQLite's memory, constant. */
const INSERT_SIZES = [100, 50, 20, 10, 5, 2, 1];
/** What is bound to a statement is in memory once more. */
const INSERT_BYTES_MAX = 2 * 1024 * 1024;

/** A record as stored. `tag` and `node` are JSON strings with their quotes. */
export interface StoredRecord {
  readonly data: string;
  readonly tag: string | null;
  readonly node: string | null;
  readonly meta: string | null;
  /** How many routers have passed it on; absent where it was written directly. */
  readonly hops?: number;
  /** What it counts for: the UTF-8 bytes of `data` and `meta`. */
  readonly bytes: number;
}

export interface RecordRow extends StoredRecord {
  readonly seq: number;
  readonly ts: number;
}

/** What a walk needs of a record that it does not deliver. */
export interface RecordSize {
  readonly seq: number;
  readonly tag: string | null;
  readonly bytes: number;
}

/** What a record counts for: the UTF-8 bytes of its texts. */
export const recordBytes = (data: string, meta: string | null): number =>
  Buffer.byteLength(data) + (meta === null ? 0 : Buffer.byteLength(meta));

/** The stored bytes of a record are not the ones that were written. */
export class DamagedRecord extends Error {
  readonly seq: number;

  constructor(seq: number) {
    super(`record ${seq} is damaged in storage`);
    this.seq = seq;
  }
}

type Row = [number, number, number, string, string | null, string | null, string | null, number | null];
type SizeRow = [number, string | null, number];

export class Records {
  readonly #inserts: ReadonlyMap<number, Statement>;
  readonly #plainInserts: ReadonlyMap<number, Statement>;
  readonly #range: Statement;
  readonly #some: Statement;
  readonly #sizes: Statement;
  readonly #sizesBack: Statement;
  readonly #tagged: Statement;
  readonly #taggedNext: Statement;
  readonly #firstAtOrAfter: Statement;
  readonly #deleteOne: Statement;
  readonly #deleteRange: Statement;

  constructor(db: Database, schema: Schema) {
    const table = `${schema}.records`;
    const seq = `id & ${SEQ_MAX}`;
    const after = `id > (?1 << ${SEQ_BITS}) + ?2 AND id <= (?1 << ${SEQ_BITS}) + ?3`;
    const bytes = "octet_length(data) + ifnull(octet_length(meta), 0)";
    const insert = (columns: string, own: number) => (size: number) => {
      const values = Array.from({ length: size }, (_, i) => {
        const parameters = Array.from({ length: own }, (_, p) => `?${5 + i * own + p}`);
        return `((?1 << ${SEQ_BITS}) + ?2 + ${i}, ?3, ?4, ${parameters})`;
      });
      return [size, db.prepare(`INSERT INTO ${table} (id, ts, hops, ${columns}) VALUES ${values}`)] as const;
    };
    this.#inserts = new Map(INSERT_SIZES.map(insert("checksum, data, tag, node, meta, tagged_bytes", 6)));
    this.#plainInserts = new Map(INSERT_SIZES.map(insert("checksum, data", 2)));
    const columns = `${seq}, ts, checksum, data, tag, node, meta, hops`;
    this.#range = db.prepare(`SELECT ${columns} FROM ${table} WHERE ${after} ORDER BY id LIMIT ?4`);
    this.#some = db.prepare(
      `SELECT ${columns} FROM ${table} WHERE id IN (SELECT (?1 << ${SEQ_BITS}) + value FROM json_each(?2))`,
    );
    this.#sizes = db.prepare(
      `SELECT ${seq}, tag, ${bytes} FROM ${table} WHERE ${after} ORDER BY id LIMIT ?4`,
    );
    this.#sizesBack = db.prepare(
      `SELECT ${seq}, tag, ${bytes} FROM ${table} WHERE ${after} ORDER BY id DESC LIMIT ?4`,
    );
    this.#tagged = db.prepare(
      `SELECT ${seq}, tag, tagged_bytes FROM ${table}
       WHERE id >> ${SEQ_BITS} = ?1 AND tag = ?4 AND ${after} ORDER BY id LIMIT ?5`,
    );
    this.#taggedNext = db.prepare(
      `SELECT ${seq}, tag, tagged_bytes FROM ${table} INDEXED BY records_by_tag
       WHERE id >> ${SEQ_BITS} = ?1 AND tag > ?2 AND tag < ?3 ORDER BY tag, id LIMIT ?4`,
    );
    this.#firstAtOrAfter = db.prepare(`SELECT ${seq}, ts FROM ${table} WHERE ${after} ORDER BY id LIMIT 1`);
    this.#deleteOne = db.prepare(`DELETE FROM ${table} WHERE id = (?1 << ${SEQ_BITS}) + ?2`);
    this.#deleteRange = db.prepare(`DELETE FROM ${table} WHERE ${after}`);
  }

  /** Stores `records` under `firstSeq`, `firstSeq + 1`, … */
  insert(slot: number, firstSeq: number, ts: number, records: readonly StoredRecord[]): void {
    const [first] = records;
    const hops = first?.hops ?? null;
    const end = records.findIndex((record) => record.hops !== first?.hops);
    if (end > 0) {
      // One statement tells the hops of all its rows.
      this.insert(slot, firstSeq, ts, records.slice(0, end));
      this.insert(slot, firstSeq + end, ts, records.slice(end));
      return;
    }
    const plain = records.every(({ tag, node, meta }) => tag === null && node === null && meta === null);
    const statements = plain ? this.#plainInserts : this.#inserts;
    let done = 0;
    for (const size of INSERT_SIZES) {
      while (records.length - done >= size && (size === 1 || isSmall(records, done, size))) {
        const parameters: (string | number | null)[] = [slot, firstSeq + done, ts, hops];
        for (let i = done; i < done + size; i++) {
          const record = records[i]!;
          const { data, tag, node, meta } = record;
          const sum = checksum(slot, firstSeq + i, ts, data, tag, node, meta, hops);
          if (plain) parameters.push(sum, data);
          else parameters.push(sum, data, tag, node, meta, tag === null ? null : record.bytes);
        }
        statements.get(size)!.run(...parameters);
        done += size;
      }
    }
  }

  /** Records with `after < seq <= last`, oldest first, verified. Throws `DamagedRecord` for the first bad one. */
  range(slot: number, after: number, last: number, limit: number): RecordRow[] {
    const rows = this.#range.values(slot, after, last, limit) as Row[];
    return rows.map((row) => {
      const record = verified(slot, row);
      if (record === undefined) throw new DamagedRecord(row[0]);
      return record;
    });
  }

  /** The records of these seqs, by seq, without those that are not there or damaged. */
  some(slot: number, seqs: readonly number[]): Map<number, RecordRow> {
    const rows = this.#some.values(slot, JSON.stringify(seqs)) as Row[];
    const records = rows.flatMap((row) => verified(slot, row) ?? []);
    return new Map(records.map((record) => [record.seq, record]));
  }

  /** Sizes of records with `after < seq <= last`, oldest first. */
  sizes(slot: number, after: number, last: number, limit: number): RecordSize[] {
    return (this.#sizes.values(slot, after, last, limit) as SizeRow[]).map(size);
  }

  /** Sizes of records with `after < seq <= last`, newest first. */
  sizesBack(slot: number, after: number, last: number, limit: number): RecordSize[] {
    return (this.#sizesBack.values(slot, after, last, limit) as SizeRow[]).map(size);
  }

  /** Records of exactly `tag` with `after < seq <= last`, oldest first. */
  tagged(slot: number, tag: string, after: number, last: number, limit: number): RecordSize[] {
    return (this.#tagged.values(slot, after, last, tag, limit) as SizeRow[]).map(size);
  }

  /** Records of tags greater than `tag` and below `end`, by tag and then seq. */
  taggedAfter(slot: number, tag: string, end: string, limit: number): RecordSize[] {
    return (this.#taggedNext.values(slot, tag, end, limit) as SizeRow[]).map(size);
  }

  /** The first record with `seq >= from`, up to `last`. */
  firstFrom(slot: number, from: number, last: number): { seq: number; ts: number } | undefined {
    const [row] = this.#firstAtOrAfter.values(slot, from - 1, last) as [number, number][];
    return row && { seq: row[0], ts: row[1] };
  }

  delete(slot: number, seq: number): void {
    this.#deleteOne.run(slot, seq);
  }

  /** Removes records with `after < seq <= last`. */
  deleteRange(slot: number, after: number, last: number): void {
    this.#deleteRange.run(slot, after, last);
  }
}

/** A record as it was written; undefined if it is not any more. */
function verified(slot: number, [seq, ts, sum, data, tag, node, meta, hops]: Row): RecordRow | undefined {
  // One bit can make a text a blob of the same bytes, which have the same sum.
  const areTexts = typeof data === "string" && isText(tag) && isText(node) && isText(meta);
  if (!areTexts || sum !== checksum(slot, seq, ts, data, tag, node, meta, hops)) return undefined;
  const row = { seq, ts, data, tag, node, meta, bytes: recordBytes(data, meta) };
  return hops === null ? row : { ...row, hops };
}

const isText = (value: string | null): boolean => value === null || typeof value === "string";

const size = ([seq, tag, bytes]: SizeRow): RecordSize => ({ seq, tag, bytes });

/** xxHash32 over everything a reader gets, seeded by the record's place so that a misplaced row is noticed too. */
function checksum(
  slot: number,
  seq: number,
  ts: number,
  data: string,
  tag: string | null,
  node: string | null,
  meta: string | null,
  hops: number | null,
): number {
  const place = folded(seq) + Math.imul(slot, 0x9e3779b1) + Math.imul(folded(ts), 0x85ebca6b);
  let sum = Bun.hash.xxHash32(data, place >>> 0);
  if (tag !== null) sum = Bun.hash.xxHash32(tag, sum ^ 1);
  if (node !== null) sum = Bun.hash.xxHash32(node, sum ^ 2);
  if (meta !== null) sum = Bun.hash.xxHash32(meta, sum ^ 3);
  if (hops !== null) sum = Bun.hash.xxHash32(String(hops), sum ^ 4);
  return sum;
}

/** All bits of a number above 2^32 in 32 bits, so that none can change unnoticed. */
const folded = (value: number): number => value ^ Math.floor(value / 2 ** 32);

function isSmall(records: readonly StoredRecord[], start: number, count: number): boolean {
  let bytes = 0;
  for (let i = start; i < start + count; i++) bytes += records[i]!.bytes;
  return bytes <= INSERT_BYTES_MAX;
}
