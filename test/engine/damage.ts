/** Ways in which a record is damaged in storage behind the server's back. */
import { Database } from "bun:sqlite";
import { join } from "node:path";

const change = (sql: string) => (dir: string, topic: string, seq: number) => {
  using db = new Database(join(dir, "topics.db"), { readwrite: true, strict: true });
  db.run("PRAGMA busy_timeout = 5000");
  const { changes } = db.run(`${sql} WHERE id = (SELECT (slot << 42) + ?2 FROM topics WHERE name = ?1)`, [
    topic,
    seq,
  ]);
  if (changes !== 1) throw new Error(`changed ${changes} rows instead of one`);
};

/** Each damages one record of a topic on disk. The engine may be open. */
export const damages = [
  { what: "has other bytes", damage: change("UPDATE records SET data = data || ' '"), isTold: true },
  // Beside deleted ones it cannot be told which one is missing.
  { what: "is not there", damage: change("DELETE FROM records"), isTold: false },
] as const;
