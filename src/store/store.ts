/**
 * Everything kept: one SQLite file in a data directory, and the same tables in memory for `ephemeral` topics.
 * The store knows bytes and places, no rules.
 */
import type { Database, Statement } from "bun:sqlite";
import { closeSync, existsSync, fsyncSync, mkdirSync, openSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { Blocks } from "./blocks.ts";
import { type CheckpointEvents, Checkpoints } from "./checkpoints.ts";
import { openDatabase, type Schema } from "./database.ts";
import { Keys } from "./keys.ts";
import { DirectoryLock } from "./lock.ts";
import { Logs } from "./logs.ts";
import { moveRows } from "./move.ts";
import { Records } from "./records.ts";
import { Syncs } from "./syncs.ts";
import { TagDeletes } from "./tagdeletes.ts";
import { Topics } from "./topics.ts";
import { walDamage } from "./wal.ts";

/** The tables that logs of one schema live in. */
export class Shelf {
  readonly schema: Schema;
  readonly logs: Logs;
  readonly records: Records;
  readonly blocks: Blocks;
  readonly keys: Keys;
  readonly tagDeletes: TagDeletes;

  constructor(db: Database, schema: Schema) {
    this.schema = schema;
    this.logs = new Logs(db, schema);
    this.records = new Records(db, schema);
    this.blocks = new Blocks(db, schema);
    this.keys = new Keys(db, schema);
    this.tagDeletes = new TagDeletes(db, schema);
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
}

export class Store implements Disposable {
  readonly topics: Topics;
  readonly disk: Shelf;
  readonly memory: Shelf;
  readonly #db: Database;
  readonly #lock: DirectoryLock | undefined;
  readonly #checkpoints: Checkpoints | undefined;
  /** Whether the process that used the data before did not stop in order. */
  readonly crashed: boolean;
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
    this.#lock = dir === undefined ? undefined : opened.use(new DirectoryLock(dir));
    if (this.#lock && !options?.acceptLoss) refuseDamage(path, this.#lock);
    const db = openDatabase(path);
    opened.defer(() => db.close());
    this.#db = db;
    this.topics = new Topics(db);
    this.disk = new Shelf(db, "main");
    this.memory = new Shelf(db, "memory");
    this.#begin = db.prepare("BEGIN IMMEDIATE");
    this.#commit = db.prepare("COMMIT");
    this.#rollback = db.prepare("ROLLBACK");
    this.crashed = this.#lock?.stoppedInOrder === false;
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

  /** Moves all rows of a slot from one schema to the other. */
  moveLog(slot: number, from: Shelf, to: Shelf): void {
    moveRows(this.#db, slot, from.schema, to.schema);
  }

  /** Moves everything into the main file and closes it. */
  [Symbol.dispose](): void {
    this.#checkpoints?.[Symbol.dispose]();
    try {
      this.#db.run("PRAGMA main.wal_checkpoint(TRUNCATE)");
      this.#lock?.markStopped();
    } finally {
      this.#syncs?.[Symbol.dispose]();
      this.#db.close();
      this.#lock?.[Symbol.dispose]();
    }
  }
}

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

/** Throws if acknowledged records are known to be missing from what is there. */
function refuseDamage(path: string, lock: DirectoryLock): void {
  const damage = existsSync(path)
    ? walDamage(`${path}-wal`, !lock.stoppedInOrder)
    : lock.usedBefore && `${path} is missing, and this directory was in use`;
  if (!damage) return;
  throw new Error(
    `Cannot open the data: ${damage}. Acknowledged records are lost. Restore a backup, or start once with ` +
      "--accept-loss to go on with what is left",
  );
}
