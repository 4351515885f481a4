/**
 * Everything kept: one SQLite file in a data directory, and the same tables in memory for `ephemeral` topics.
 * The store knows bytes and places, no rules.
 */
import type { Database, Statement } from "bun:sqlite";
import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readSync,
  statSync,
} from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { Blocks } from "./blocks.ts";
import { type CheckpointEvents, Checkpoints } from "./checkpoints.ts";
import { openDatabase, type Schema } from "./database.ts";
import { type Descriptors, descriptors } from "./descriptors.ts";
import { FeedTables } from "./feeds/feeds.ts";
import { Jobs } from "./jobs.ts";
import { Keys } from "./keys.ts";
import { DirectoryLock } from "./lock.ts";
import { Logs } from "./logs.ts";
import { moveRows } from "./move.ts";
import { Records } from "./records.ts";
import { Routers } from "./routers.ts";
import { forgetSecret, secretOf } from "./secrets.ts";
import { noSyncs, type SyncFigures, Syncs } from "./syncs.ts";
import { TagDeletes } from "./tagdeletes.ts";
import { Topics } from "./topics.ts";
import { Trims } from "./trims.ts";
import { walDamage } from "./wal.ts";

/** So long, and so often, the last checkpoint is tried while another one or a reader is in its way. */
const LAST_CHECKPOINT_MS = 10_000;
const LAST_CHECKPOINT_RETRY_MS = 5;

/** Where a file says in which version of the format it is written, and what one without a log says. */
const VERSION_AT = 18;
const VERSION_WITHOUT_LOG = 1;

/** How the write-ahead log is doing, since the start. */
export interface StoreFigures {
  readonly syncs: SyncFigures;
  /** The size of its file. */
  readonly walBytes: number;
  /** How often it has started over. */
  readonly walRestarts: number;
  /** Of the whole process. */
  readonly descriptors: Descriptors | undefined;
}

/** The tables that logs of one schema live in. */
export class Shelf {
  readonly schema: Schema;
  readonly logs: Logs;
  readonly records: Records;
  readonly blocks: Blocks;
  readonly keys: Keys;
  readonly tagDeletes: TagDeletes;
  readonly trims: Trims;

  constructor(db: Database, schema: Schema) {
    this.schema = schema;
    this.logs = new Logs(db, schema);
    this.records = new Records(db, schema);
    this.blocks = new Blocks(db, schema);
    this.keys = new Keys(db, schema);
    this.tagDeletes = new TagDeletes(db, schema);
    this.trims = new Trims(db, schema);
  }
}

export interface StoreOptions {
  /** The data directory; created if absent. */
  readonly dir: string;
  /** Open although acknowledged records are known to be lost. */
  readonly acceptLoss: boolean;
  /** The script of the checkpoint worker. */
  readonly checkpointer: URL;
  readonly checkpoints: CheckpointEvents;
  /** Told what is missing from the data that is opened all the same. */
  readonly lost: (damage: string) => void;
  /** Told that the data is a backup: what was written behind it is missing. */
  readonly restored?: () => void;
}

export class Store implements Disposable {
  readonly topics: Topics;
  readonly routers: Routers;
  readonly jobs: Jobs;
  readonly feeds: FeedTables;
  readonly disk: Shelf;
  readonly memory: Shelf;
  readonly #db: Database;
  readonly #lock: DirectoryLock | undefined;
  readonly #checkpoints: Checkpoints | undefined;
  /** Whether records that were there once may be missing. */
  readonly acceptedLoss: boolean;
  /** Whether the process that used the data before did not stop in order. */
  readonly crashed: boolean;
  #inOrder = false;
  readonly #begin: Statement;
  readonly #commit: Statement;
  readonly #rollback: Statement;
  readonly #syncs: Syncs | undefined;

  /** Without options everything is kept in memory. */
  constructor(options?: StoreOptions) {
    using opened = new DisposableStack();
    const dir = options && resolve(options.dir);
    if (dir !== undefined) createDirectory(dir);
    const path = dir === undefined ? ":memory:" : join(dir, "topics.db");
    if (dir !== undefined) mustBeWritable(dir, path);
    this.#lock = dir === undefined ? undefined : opened.use(new DirectoryLock(dir));
    this.acceptedLoss = options !== undefined && acceptsLoss(path, this.#lock?.lastEnd, options);
    const db = openDatabase(path);
    opened.defer(() => db.close());
    this.#db = db;
    this.topics = new Topics(db);
    this.routers = new Routers(db);
    this.jobs = new Jobs(db);
    this.feeds = new FeedTables(db);
    this.disk = new Shelf(db, "main");
    this.memory = new Shelf(db, "memory");
    this.#begin = db.prepare("BEGIN IMMEDIATE");
    this.#commit = db.prepare("COMMIT");
    this.#rollback = db.prepare("ROLLBACK");
    this.crashed = this.#lock?.lastEnd === "crash" || this.#lock?.lastEnd === "reboot";
    if (this.#lock && options) {
      // The first commit makes the log that a later start will look for.
      db.run("UPDATE last_given SET epoch = epoch");
      this.#lock.markRunning();
      this.#syncs = opened.use(new Syncs(`${path}-wal`));
      this.#checkpoints = opened.use(new Checkpoints(db, path, options.checkpointer, options.checkpoints));
    }
    opened.move();
  }

  /**
   * Runs `work` in one transaction and returns once the operating system has it. If `work` or the commit throws,
   * nothing is changed.
   */
  transaction<T>(work: () => T): T {
    this.#begin.run();
    try {
      const result = work();
      this.#commit.run();
      this.#checkpoints?.committed();
      return result;
    } catch (error) {
      if (this.#db.inTransaction) this.#rollback.run();
      throw error;
    }
  }

  /** Resolves when everything committed before is on the device. */
  sync(): Promise<void> {
    return this.#syncs?.sync() ?? Promise.resolve();
  }

  /** Random bytes of that name, which stay the same for this data directory. */
  secret(name: string): Uint8Array {
    return this.transaction(() => secretOf(this.#db, name));
  }

  /** The next time other bytes are made of that name. */
  forgetSecret(name: string): void {
    forgetSecret(this.#db, name);
  }

  get figures(): StoreFigures {
    return {
      syncs: this.#syncs?.figures ?? noSyncs,
      walBytes: this.#syncs?.fileBytes ?? 0,
      walRestarts: this.#checkpoints?.restarts ?? 0,
      descriptors: descriptors(),
    };
  }

  /** Moves all rows of a slot from one schema to the other. */
  moveLog(slot: number, from: Shelf, to: Shelf): void {
    moveRows(this.#db, slot, from.schema, to.schema);
  }

  /** Nothing is left to be noted: the next start need not look for losses. */
  inOrder(): void {
    this.#inOrder = true;
  }

  /** Moves the whole log into the main file. The worker may be in the middle of its last checkpoint. */
  #emptyLog(): boolean {
    const checkpoint = this.#db.prepare("PRAGMA main.wal_checkpoint(TRUNCATE)");
    for (const deadline = performance.now() + LAST_CHECKPOINT_MS; performance.now() < deadline; ) {
      const [[busy]] = checkpoint.values() as [[number]];
      if (busy === 0) return true;
      Bun.sleepSync(LAST_CHECKPOINT_RETRY_MS);
    }
    return false;
  }

  /** Moves everything into the main file and closes it. */
  [Symbol.dispose](): void {
    this.#checkpoints?.[Symbol.dispose]();
    try {
      if (this.#emptyLog() && this.#inOrder) this.#lock?.markStopped();
    } finally {
      this.#syncs?.[Symbol.dispose]();
      this.#db.close();
      this.#lock?.[Symbol.dispose]();
    }
  }
}

/** There is no space left to write to. Nothing is lost. */
export const isFull = (error: unknown): boolean => (error as { code?: unknown }).code === "SQLITE_FULL";

/** The medium failed, as opposed to being full: what was written last is unknown. */
export const isIoError = (error: unknown): boolean =>
  String((error as { code?: unknown }).code ?? "").startsWith("SQLITE_IOERR");

/** What is stored contradicts itself. */
export const isCorruption = (error: unknown): boolean =>
  String((error as { code?: unknown }).code ?? "").startsWith("SQLITE_CORRUPT");

function createDirectory(dir: string): void {
  if (existsSync(dir)) return;
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  const parent = openSync(dirname(dir), "r");
  fsyncSync(parent);
  closeSync(parent);
}

/** Throws with the name of what may not be written, which SQLite would keep to itself. */
function mustBeWritable(dir: string, path: string): void {
  accessSync(dir, constants.R_OK | constants.W_OK | constants.X_OK);
  const files = [join(dir, ".topics.lock"), path, `${path}-wal`, `${path}-shm`].filter((file) =>
    existsSync(file),
  );
  for (const file of files) accessSync(file, constants.R_OK | constants.W_OK);
}

/**
 * Refuses to open data that acknowledged records are missing from, unless that is accepted. True if some may be.
 *
 * After a power cut the newest writes that were not synced may be gone in any pattern; that is no damage.
 */
function acceptsLoss(path: string, lastEnd: DirectoryLock["lastEnd"], options: StoreOptions): boolean {
  if (isBackup(path)) {
    mustBeAlone(path);
    options.restored?.();
    return true;
  }
  const missing = missingFile(path, lastEnd);
  const damage = missing ?? walDamage(`${path}-wal`);
  if (damage === undefined) return false;
  if (options.acceptLoss || (missing === undefined && lastEnd === "reboot")) {
    options.lost(damage);
    return options.acceptLoss;
  }
  throw new Error(
    `Cannot open the data: ${damage}. Acknowledged records are lost, unless a tool such as sqlite3 has put the ` +
      `log into the main file. Put a backup as ${basename(path)} into an empty directory, or start once with ` +
      "--accept-loss to go on with what is there",
  );
}

/** Whether the file was made by `VACUUM INTO`: what we have opened once says in its header that it has a log. */
function isBackup(path: string): boolean {
  if (!existsSync(path)) return false;
  const file = openSync(path, "r");
  try {
    const header = Buffer.alloc(VERSION_AT + 1);
    return readSync(file, header) === header.length && header[VERSION_AT] === VERSION_WITHOUT_LOG;
  } finally {
    closeSync(file);
  }
}

/** SQLite would apply the log of another database to the backup. */
function mustBeAlone(path: string): void {
  const wal = `${path}-wal`;
  if (!existsSync(wal) || statSync(wal).size === 0) return;
  throw new Error(
    `Cannot open the data: ${path} is a backup, and ${wal} belongs to what was there before. Put the backup into ` +
      `an empty directory, or remove ${wal} and ${path}-shm`,
  );
}

/** A file that must be there and is not. */
function missingFile(path: string, lastEnd: DirectoryLock["lastEnd"]): string | undefined {
  if (lastEnd !== undefined && !existsSync(path)) return `${path} is missing, and this directory was in use`;
  const wal = `${path}-wal`;
  const mayBeEmpty = lastEnd === undefined || lastEnd === "in order";
  return mayBeEmpty || existsSync(wal) ? undefined : `${wal} is missing, and the last stop was not in order`;
}
