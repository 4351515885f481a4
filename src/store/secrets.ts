/** Random bytes that stay the same for a data directory. */
import type { Database } from "bun:sqlite";

const BYTES = 32;

/** The secret of that name, made when it is first asked for. */
export function secretOf(db: Database, name: string): Uint8Array {
  const made = crypto.getRandomValues(new Uint8Array(BYTES));
  db.prepare("INSERT OR IGNORE INTO main.secrets (name, bytes) VALUES (?1, ?2)").run(name, made);
  const [[bytes]] = db.prepare("SELECT bytes FROM main.secrets WHERE name = ?1").values(name) as [
    [Uint8Array],
  ];
  return bytes;
}

export function forgetSecret(db: Database, name: string): void {
  db.prepare("DELETE FROM main.secrets WHERE name = ?1").run(name);
}
