/**
 * Opens the SQLite file, brings its schema up to date, and attaches the same tables in memory as `memory`.
 *
 * This process owns the data directory (lock.ts), and only this connection writes. So synchronous calls are
 * enough, with no pool and no retry; the checkpoint worker only copies.
 */
import { constants, Database } from "bun:sqlite";
import init from "./migrations/0001_init.sql" with { type: "text" };
import kinds from "./migrations/0002_kinds.sql" with { type: "text" };
import queuesAndRouters from "./migrations/0003_queues_and_routers.sql" with { type: "text" };
import secrets from "./migrations/0004_secrets.sql" with { type: "text" };
import feeds from "./migrations/0005_feeds.sql" with { type: "text" };
import feedTotals from "./migrations/0006_feed_totals.sql" with { type: "text" };

/** Older versions can corrupt a database whose checkpoints run on another connection. */
const SQLITE_VERSION_MIN = "3.51.3";

/** Schema steps, oldest first. A released step never changes; add the next one. */
const migrations = [init, kinds, queuesAndRouters, secrets, feeds, feedTotals];

const CACHE_KIB = 32 * 1024;
const WAL_BYTES_KEPT = 64 * 1024 * 1024;

/** The schemas a log can live in: on disk, or in memory for `ephemeral` topics. */
export type Schema = "main" | "memory";

/** The tables that exist in both schemas. */
const logTables = ["logs", "records", "blocks", "tag_deletes", "idempotency_keys", "trims"];

export function openDatabase(path: string): Database {
  const db = new Database(path, { create: true, strict: true });
  const [[version]] = db.prepare("SELECT sqlite_version()").values() as [[string]];
  if (Bun.semver.order(version, SQLITE_VERSION_MIN) < 0) {
    throw new Error(`SQLite ${version} is too old: ${SQLITE_VERSION_MIN} or later is needed`);
  }
  const pragmas = [
    "journal_mode = WAL",
    "wal_autocheckpoint = 0",
    // Commits do not wait for the device; whoever needs that asks for a sync (syncs.ts).
    "synchronous = NORMAL",
    "checkpoint_fullfsync = ON",
    `cache_size = -${CACHE_KIB}`,
    `journal_size_limit = ${WAL_BYTES_KEPT}`,
  ];
  for (const pragma of pragmas) db.run(`PRAGMA ${pragma}`);
  keepWal(db);
  migrate(db, path);
  attachMemory(db);
  return db;
}

/**
 * SQLite would remove an empty write-ahead log with its last connection, also when a process ends by itself. Kept,
 * its absence after a crash means that somebody else has removed it.
 */
export function keepWal(db: Database): void {
  db.fileControl(constants.SQLITE_FCNTL_PERSIST_WAL, 1);
}

function migrate(db: Database, path: string): void {
  const [[current]] = db.prepare("PRAGMA user_version").values() as [[number]];
  if (current > migrations.length) {
    throw new Error(`Cannot open ${path}: schema ${current}, and this build stops at ${migrations.length}`);
  }
  const step = db.transaction((sql: string, version: number) => {
    db.run(sql);
    db.run(`PRAGMA user_version = ${version}`);
  });
  migrations.slice(current).forEach((sql, i) => {
    step.immediate(sql, current + i + 1);
  });
}

function attachMemory(db: Database): void {
  db.run("ATTACH ':memory:' AS memory");
  const definitions = db
    .prepare(
      "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND tbl_name IN (SELECT value FROM json_each(?))",
    )
    .values(JSON.stringify(logTables)) as [string][];
  for (const [sql] of definitions) db.run(sql.replace(/^CREATE (TABLE|INDEX) /, "CREATE $1 memory."));
}
