/**
 * The checkpoint worker: copies committed pages from the write-ahead log into the main file on a connection of
 * its own, so that no request waits for that. Runs one PASSIVE checkpoint per message.
 */
import { Database } from "bun:sqlite";
import { keepWal } from "./database.ts";

declare const self: Worker;

/** Frames in the log and how many of them are copied, or why the checkpoint failed. */
export type Checkpointed = { readonly frames: number; readonly copied: number } | { readonly error: string };

let db: Database | undefined;

function open(path: string): Database {
  const db = new Database(path, { readwrite: true, strict: true });
  keepWal(db);
  return db;
}

function checkpoint(path: string): Checkpointed {
  try {
    db ??= open(path);
    const [[, frames, copied]] = db.prepare("PRAGMA wal_checkpoint(PASSIVE)").values() as [
      [number, number, number],
    ];
    return { frames, copied };
  } catch (error) {
    return { error: String(error) };
  }
}

self.onmessage = ({ data: path }: MessageEvent<string>) => self.postMessage(checkpoint(path));
