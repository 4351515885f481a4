/**
 * One process per data directory. The lock is an exclusive transaction on a tiny database of its own, so it
 * works wherever SQLite does, ends with the process, and leaves the main file open to readers and backups.
 *
 * The same file remembers how the last owner ended, which tells a lost write-ahead log from one that was never
 * needed, and damage from what a power cut may do.
 */
import { Database } from "bun:sqlite";
import { closeSync, existsSync, openSync, readFileSync, readSync, rmSync } from "node:fs";
import { join } from "node:path";

/** What every database begins with. */
const MAGIC = "SQLite format 3\0";

export class DirectoryLock implements Disposable {
  readonly #db: Database;
  /** The end of the process that used the directory before; undefined for a new directory. */
  readonly lastEnd: "in order" | "crash" | "reboot" | undefined;

  /** Throws if another process holds `dir`. */
  constructor(dir: string) {
    const path = join(dir, ".topics.lock");
    removeForeign(path);
    this.#db = new Database(path, { create: true, strict: true });
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

/**
 * Removes what is no lock of ours, such as a number that another program has left. Of servers that start at the same
 * time, one does so: whoever sees such a file looks again while it holds a lock of its own for that.
 */
function removeForeign(path: string): void {
  if (!isForeign(path)) return;
  const guard = `${path}.new`;
  const db = new Database(guard, { create: true });
  try {
    db.run("PRAGMA busy_timeout = 5000");
    db.run("BEGIN EXCLUSIVE");
    if (isForeign(path)) rmSync(path);
    rmSync(guard, { force: true });
    db.run("ROLLBACK");
  } catch (error) {
    // Somebody else was quicker, and has removed the guard as well.
    if (isForeign(path)) throw error;
  } finally {
    db.close(true);
  }
}

function isForeign(path: string): boolean {
  if (!existsSync(path)) return false;
  const file = openSync(path, "r");
  try {
    const start = Buffer.alloc(MAGIC.length);
    const length = readSync(file, start);
    return length > 0 && start.toString("latin1", 0, length) !== MAGIC;
  } finally {
    closeSync(file);
  }
}

/** Names the running of the machine since it was started, where the system tells. */
function bootId(): string {
  const path = "/proc/sys/kernel/random/boot_id";
  return existsSync(path) ? readFileSync(path, "utf8").trim() : "";
}
