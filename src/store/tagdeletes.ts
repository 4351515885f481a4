/** Large deletes by tag whose rows are not all removed yet. */
import type { Database, Statement } from "bun:sqlite";
import type { Schema } from "./database.ts";

/** A set of tags: one tag, or all that start with the same text. `text` is a JSON string, as a prefix without its closing quote. */
export interface TagRange {
  readonly text: string;
  readonly isPrefix: boolean;
}

/** Dead are the records with a tag in the range and `seq <= upTo`. */
export interface TagDelete extends TagRange {
  readonly id: number;
  readonly upTo: number;
}

export class TagDeletes {
  readonly #insert: Statement;
  readonly #of: Statement;
  readonly #delete: Statement;
  readonly #deleteAll: Statement;
  readonly #slots: Statement;

  constructor(db: Database, schema: Schema) {
    const table = `${schema}.tag_deletes`;
    this.#insert = db.prepare(
      `INSERT INTO ${table} (slot, tag, is_prefix, up_to_seq) VALUES (?, ?, ?, ?) RETURNING id`,
    );
    this.#of = db.prepare(`SELECT id, tag, is_prefix, up_to_seq FROM ${table} WHERE slot = ? ORDER BY id`);
    this.#delete = db.prepare(`DELETE FROM ${table} WHERE id = ?`);
    this.#deleteAll = db.prepare(`DELETE FROM ${table} WHERE slot = ?`);
    this.#slots = db.prepare(`SELECT DISTINCT slot FROM ${table}`);
  }

  insert(slot: number, { text, isPrefix }: TagRange, upTo: number): TagDelete {
    const [[id]] = this.#insert.values(slot, text, Number(isPrefix), upTo) as [[number]];
    return { id, text, isPrefix, upTo };
  }

  of(slot: number): TagDelete[] {
    const rows = this.#of.values(slot) as [number, string, number, number][];
    return rows.map(([id, text, isPrefix, upTo]) => ({ id, text, isPrefix: isPrefix === 1, upTo }));
  }

  delete(id: number): void {
    this.#delete.run(id);
  }

  deleteAll(slot: number): void {
    this.#deleteAll.run(slot);
  }

  /** Slots with deletes to finish. */
  slots(): number[] {
    return (this.#slots.values() as [number][]).map(([slot]) => slot);
  }
}
