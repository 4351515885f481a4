/**
 * One process per data directory. The lock is an exclusive transaction on a tiny database of its own, so it
 * works wherever SQLite does, ends with the process, and leaves the main file open to readers and backups.
 *
 * The same file remembers how the last owner ended, which tells a lost write-ahead log from one that was never
 * needed, and damage from what a power cut may do.
 */
import { Database } from "bun:sqlite";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

export class DirectoryLock implements Disposable {
  readonly #db: Database;
  /** The end of the process that used the directory before; undefined for a new directory. */
  readonly lastEnd: "in order" | "crash" | "reboot" | undefined;

  /** Throws if another process holds `dir`. */
  constructor(dir: string) {
    this.#db = new Database(join(dir, ".topics.lock"), { create: true, strict: true });
    try {
      this.#db.run("PRAGMA locking_mode = EXCLUSIVE");
      this.#db.run("BEGIN EXCLUSIVE");
      this.#db.run(
        "CREATE TABLE IF NOT EXISTS owner (pid INTEGER NOT NULL, boot TEXT NOT NULL, in_order INTEGER NOT NULL) STRICT",
      );
      using read = this.#db.prepare("SELECT boot, in_order FROM owner");
      const [row] = read.values() as [string, number][];
      if (row) this.lastEnd = row[1] === 1 ? "in order" : row[0] === bootId() ? "crash" : "reboot";
      // In exclusive mode the file stays locked after the commit.
      this.#db.run("COMMIT");
    } catch (error) {
      this.#db.close();
      if ((error as { code?: string }).code !== "SQLITE_BUSY") throw error;
      throw new Error(`Cannot use the data directory ${dir}: another server is running on it`);
    }
  }

  /** From now on, an end without `markStopped` counts as a crash. */
  markRunning(): void {
    this.#mark(0);
  }

  /** Everything is in the main file. */
  markStopped(): void {
    this.#mark(1);
  }

  #mark(inOrder: 0 | 1): void {
    const values = [process.pid, bootId(), inOrder];
    this.#db.run("REPLACE INTO owner (rowid, pid, boot, in_order) VALUES (1, ?, ?, ?)", values);
  }

  [Symbol.dispose](): void {
    // An open statement would keep the connection, and so the lock, alive.
    this.#db.close(true);
  }
}

/** Names the running of the machine since it was started, where the system tells. */
function bootId(): string {
  const path = "/proc/sys/kernel/random/boot_id";
  return existsSync(path) ? readFileSync(path, "utf8").trim() : "";
}
