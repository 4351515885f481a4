/**
 * One process per data directory. The lock is an exclusive transaction on a tiny database of its own, so it
 * works wherever SQLite does, ends with the process, and leaves the main file open to readers and backups.
 *
 * The same file remembers whether the last owner stopped in order, which tells a lost write-ahead log from one
 * that was never needed.
 */
import { Database } from "bun:sqlite";
import { join } from "node:path";

export class DirectoryLock implements Disposable {
  readonly #db: Database;
  /** Whether a server has opened the data here before. */
  readonly usedBefore: boolean;
  /** Whether the last owner stopped in order. True for a new directory. */
  readonly stoppedInOrder: boolean;

  /** Throws if another process holds `dir`. */
  constructor(dir: string) {
    this.#db = new Database(join(dir, ".topics.lock"), { create: true, strict: true });
    try {
      this.#db.run("PRAGMA locking_mode = EXCLUSIVE");
      this.#db.run("BEGIN EXCLUSIVE");
      this.#db.run(
        "CREATE TABLE IF NOT EXISTS owner (pid INTEGER NOT NULL, in_order INTEGER NOT NULL) STRICT",
      );
      using read = this.#db.prepare("SELECT in_order FROM owner");
      const [row] = read.values() as [number][];
      this.stoppedInOrder = row === undefined || row[0] === 1;
      this.usedBefore = row !== undefined;
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
    this.#db.run("REPLACE INTO owner (rowid, pid, in_order) VALUES (1, ?, ?)", [process.pid, inOrder]);
  }

  [Symbol.dispose](): void {
    // An open statement would keep the connection, and so the lock, alive.
    this.#db.close(true);
  }
}
