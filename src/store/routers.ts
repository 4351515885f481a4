/** What routers do, and how far they have come. */
import type { Database, Statement } from "bun:sqlite";

export interface RouterRow {
  readonly name: string;
  /** JSON. */
  readonly settings: string;
  /** The last seq of the source that is done with. */
  readonly position: number;
  readonly forwarded: number;
}

export class Routers {
  readonly #all: Statement;
  readonly #put: Statement;
  readonly #move: Statement;
  readonly #delete: Statement;

  constructor(db: Database) {
    this.#all = db.prepare("SELECT name, settings, position, forwarded FROM routers");
    this.#put = db.prepare("REPLACE INTO routers (name, settings, position, forwarded) VALUES (?, ?, ?, ?)");
    this.#move = db.prepare("UPDATE routers SET position = ?2, forwarded = ?3 WHERE name = ?1");
    this.#delete = db.prepare("DELETE FROM routers WHERE name = ?");
  }

  all(): RouterRow[] {
    const rows = this.#all.values() as [string, string, number, number][];
    return rows.map(([name, settings, position, forwarded]) => ({ name, settings, position, forwarded }));
  }

  put({ name, settings, position, forwarded }: RouterRow): void {
    this.#put.run(name, settings, position, forwarded);
  }

  /** Notes how far a router has come. */
  move(name: string, position: number, forwarded: number): void {
    this.#move.run(name, position, forwarded);
  }

  delete(name: string): void {
    this.#delete.run(name);
  }
}
