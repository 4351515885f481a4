/**
 * Brings the write-ahead log to the device without blocking the event loop. One sync at a time; those asked for
 * while one runs share the next.
 */
import { closeSync, fstatSync, fsync, openSync } from "node:fs";
import { promisify } from "node:util";
import { SYNC_BUCKETS_US } from "../contract/limits.ts";

const syncFile = promisify(fsync);

export interface SyncFigures {
  readonly count: number;
  /** What all took together, in µs. */
  readonly micros: number;
  /** How many fell in each bucket. */
  readonly buckets: readonly number[];
}

const noneYet = (): { count: number; micros: number; buckets: number[] } => ({
  count: 0,
  micros: 0,
  buckets: Array<number>(SYNC_BUCKETS_US.length + 1).fill(0),
});

export const noSyncs: SyncFigures = noneYet();

export class Syncs implements Disposable {
  readonly #file: number;
  #running: Promise<void> | undefined;
  #next: Promise<void> | undefined;
  #closed = false;
  readonly #figures = noneYet();

  /** `path`: the log, which keeps its file as long as the database is open. */
  constructor(path: string) {
    this.#file = openSync(path, "r+");
  }

  get figures(): SyncFigures {
    return this.#figures;
  }

  get fileBytes(): number {
    return fstatSync(this.#file).size;
  }

  /** Resolves when a sync that started after this call is done. */
  sync(): Promise<void> {
    if (this.#running === undefined) return this.#start();
    this.#next ??= this.#startAfter(this.#running);
    return this.#next;
  }

  #start(): Promise<void> {
    const start = performance.now();
    this.#running = syncFile(this.#file)
      .then(() => this.#count((performance.now() - start) * 1000))
      .finally(() => {
        this.#running = undefined;
      });
    return this.#running;
  }

  #count(micros: number): void {
    this.#figures.count++;
    this.#figures.micros += micros;
    const bucket = SYNC_BUCKETS_US.findIndex((bound) => micros <= bound);
    this.#figures.buckets[bucket < 0 ? SYNC_BUCKETS_US.length : bucket]!++;
  }

  async #startAfter(running: Promise<void>): Promise<void> {
    await running;
    this.#next = undefined;
    if (!this.#closed) return this.#start();
  }

  /** After the last checkpoint, which has synced everything. */
  [Symbol.dispose](): void {
    this.#closed = true;
    const close = () => closeSync(this.#file);
    if (this.#running) this.#running.then(close, close);
    else close();
  }
}
