/**
 * Keeps the write-ahead log short. A worker copies pages while requests go on; once it has nearly caught up, the
 * main connection finishes the small rest with RESTART, so that the log starts over at its beginning.
 */
import type { Database } from "bun:sqlite";
import type { Checkpointed } from "./checkpointer.ts";

const PAUSE_MS = 50;
/** After a checkpoint has failed, for example on a full disk. */
const RETRY_MS = 1000;
/** Shorter logs are left alone: starting over costs a sync. */
const RESTART_FRAMES_MIN = 2000;
/** So much may be left for the main connection to copy. */
const REST_FRAMES_MAX = 400;
/** A log this long is finished whatever is left, so that it stays bounded (256 MiB at 4 KiB a page). */
const FRAMES_MAX = 65536;

export interface CheckpointEvents {
  /** Checkpoints fail from now on, and are tried again. Nothing is lost: the log keeps everything. */
  readonly delayed: (reason: string) => void;
  /** No checkpoint will run any more: the process must end. */
  readonly ended: (reason: Error) => void;
}

export class Checkpoints implements Disposable {
  readonly #db: Database;
  readonly #path: string;
  readonly #worker: Worker;
  readonly #events: CheckpointEvents;
  #dirty = false;
  #busy = false;
  #timer: Timer | undefined;
  #closed = false;
  #failing = false;
  /** How often the log has started over. */
  restarts = 0;

  constructor(db: Database, path: string, script: URL, events: CheckpointEvents) {
    this.#db = db;
    this.#path = path;
    this.#events = events;
    this.#worker = new Worker(script);
    this.#worker.unref();
    this.#worker.onmessage = ({ data }: MessageEvent<Checkpointed>) => this.#done(data);
    this.#worker.onerror = (event) =>
      events.ended(new Error(`the checkpoint worker failed: ${event.message}`));
    this.#worker.addEventListener("close", () => {
      if (!this.#closed) events.ended(new Error("the checkpoint worker ended"));
    });
  }

  /** To be called after every commit. */
  committed(): void {
    this.#dirty = true;
    this.#schedule();
  }

  #schedule(pauseMs = PAUSE_MS): void {
    if (this.#busy || this.#timer !== undefined || this.#closed) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#dirty = false;
      this.#busy = true;
      this.#worker.postMessage(this.#path);
    }, pauseMs);
    this.#timer.unref();
  }

  #done(done: Checkpointed): void {
    this.#busy = false;
    if (this.#closed) return;
    if ("error" in done) {
      this.#failed(done.error);
      this.#schedule(RETRY_MS);
      return;
    }
    this.#failing = false;
    const rest = done.frames - done.copied;
    const long = done.frames >= FRAMES_MAX;
    if (done.frames >= RESTART_FRAMES_MIN && (rest <= REST_FRAMES_MAX || long)) this.#restart();
    if (this.#dirty) this.#schedule();
  }

  /** May come too early, while somebody reads; then the next round tries again. */
  #restart(): void {
    try {
      this.#db.run("PRAGMA wal_checkpoint(RESTART)");
      this.restarts++;
    } catch (error) {
      this.#failed(String(error));
      this.#dirty = true;
    }
  }

  #failed(reason: string): void {
    if (!this.#failing) this.#events.delayed(reason);
    this.#failing = true;
  }

  [Symbol.dispose](): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#worker.terminate();
  }
}
