/** Moves a log between disk and memory, in the caller's transaction. */
import type { Database } from "bun:sqlite";
import type { Schema } from "./database.ts";
import { SEQ_MAX } from "./records.ts";

const idRange = `id BETWEEN ?1 * ${SEQ_MAX + 1} AND ?1 * ${SEQ_MAX + 1} + ${SEQ_MAX}`;

/** Which rows of each table belong to a slot, and what identifies them in the other schema too. */
const tables = [
  { table: "records", where: idRange, columns: "*" },
  { table: "blocks", where: "slot = ?1", columns: "*" },
  { table: "idempotency_keys", where: "slot = ?1", columns: "*" },
  { table: "trims", where: "slot = ?1", columns: "*" },
  { table: "tag_deletes", where: "slot = ?1", columns: "NULL, slot, tag, is_prefix, up_to_seq" },
];

export function moveRows(db: Database, slot: number, from: Schema, to: Schema): void {
  for (const { table, where, columns } of tables) {
    db.query(`DELETE FROM ${to}.${table} WHERE ${where}`).run(slot);
    db.query(`INSERT INTO ${to}.${table} SELECT ${columns} FROM ${from}.${table} WHERE ${where}`).run(slot);
    db.query(`DELETE FROM ${from}.${table} WHERE ${where}`).run(slot);
  }
}
