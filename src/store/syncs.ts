/**
 * Brings the write-ahead log to the device without blocking the event loop. One sync at a time; those asked for
 * while one runs share the next.
 */
import { closeSync, fsync, openSync } from "node:fs";
import { promisify } from "node:util";

const syncFile = promisify(fsync);

export class Syncs implements Disposable {
  readonly #file: number;
  #running: Promise<void> | undefined;
  #next: Promise<void> | undefined;

  /** `path`: the log, which keeps its file as long as the database is open. */
  constructor(path: string) {
    this.#file = openSync(path, "r+");
  }

  /** Resolves when a sync that started after this call is done. */
  sync(): Promise<void> {
    if (this.#running === undefined) return this.#start();
    this.#next ??= this.#startAfter(this.#running);
    return this.#next;
  }

  #start(): Promise<void> {
    this.#running = syncFile(this.#file).finally(() => {
      this.#running = undefined;
    });
    return this.#running;
  }

  async #startAfter(running: Promise<void>): Promise<void> {
    await running;
    this.#next = undefined;
    return this.#start();
  }

  [Symbol.dispose](): void {
    const close = () => closeSync(this.#file);
    if (this.#running) this.#running.then(close, close);
    else close();
  }
}
