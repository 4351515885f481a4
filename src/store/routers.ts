/** What routers do, and how far they have come. */
import type { Database, Statement } from "bun:sqlite";

/** How far a router has come. */
export interface RouterProgress {
  /** The last seq of the source that is done with. */
  readonly position: number;
  /** Records before that which were gone before they could be copied, and have no holes in the destination yet. */
  readonly lost: number;
  /** Records that were forwarded, and holes for those that were lost. */
  readonly forwarded: number;
}

export interface RouterRow extends RouterProgress {
  readonly name: string;
  /** JSON. */
  readonly settings: string;
}

export class Routers {
  readonly #all: Statement;
  readonly #put: Statement;
  readonly #move: Statement;
  readonly #delete: Statement;

  constructor(db: Database) {
    this.#all = db.prepare("SELECT name, settings, position, lost, forwarded FROM routers");
    this.#put = db.prepare(
      "REPLACE INTO routers (name, settings, position, lost, forwarded) VALUES (?, ?, ?, ?, ?)",
    );
    this.#move = db.prepare("UPDATE routers SET position = ?2, lost = ?3, forwarded = ?4 WHERE name = ?1");
    this.#delete = db.prepare("DELETE FROM routers WHERE name = ?");
  }

  all(): RouterRow[] {
    const rows = this.#all.values() as [string, string, number, number, number][];
    return rows.map(([name, settings, position, lost, forwarded]) => ({
      name,
      settings,
      position,
      lost,
      forwarded,
    }));
  }

  put({ name, settings, position, lost, forwarded }: RouterRow): void {
    this.#put.run(name, settings, position, lost, forwarded);
  }

  /** Notes how far a router has come. */
  move(name: string, { position, lost, forwarded }: RouterProgress): void {
    this.#move.run(name, position, lost, forwarded);
  }

  delete(name: string): void {
    this.#delete.run(name);
  }
}
