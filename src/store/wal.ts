/**
 * Looks for damage in a write-ahead log before SQLite opens it.
 *
 * SQLite ends a damaged log silently at the first bad frame, as it must after a torn last write. A bad frame
 * followed by later commits of the same log is no torn write: acknowledged records would be gone without a word.
 * Format: https://www.sqlite.org/fileformat2.html#the_write_ahead_log
 */
import { closeSync, existsSync, fstatSync, openSync, readSync } from "node:fs";

const HEADER_BYTES = 32;
const FRAME_HEADER_BYTES = 24;
const MAGIC_LITTLE_ENDIAN = 0x377f0682;
const MAGIC_BIG_ENDIAN = 0x377f0683;
/** So many commits behind a bad frame prove that it was not the last write. */
const LATER_COMMITS_MIN = 2;
/** So much is read at a time: a log may be larger than memory. */
const CHUNK_BYTES = 4 * 1024 * 1024;

/** What is wrong with the log at `path`, if it is there. */
export function walDamage(path: string): string | undefined {
  if (!existsSync(path)) return undefined;
  const file = openSync(path, "r");
  try {
    return damageIn(file, path);
  } finally {
    closeSync(file);
  }
}

function damageIn(file: number, path: string): string | undefined {
  if (fstatSync(file).size <= HEADER_BYTES) return undefined;
  const header = viewOf(file, 0, HEADER_BYTES);
  const magic = header.getUint32(0);
  const sum = new Sum(magic === MAGIC_LITTLE_ENDIAN);
  sum.add(header, 0, 24);
  const known = magic === MAGIC_LITTLE_ENDIAN || magic === MAGIC_BIG_ENDIAN;
  if (!known || !sum.equals(header, 24)) return `the header of ${path} is damaged`;

  const pageSize = header.getUint32(8);
  const [salt1, salt2] = [header.getUint32(16), header.getUint32(20)];
  let damagedAt: number | undefined;
  let laterCommits = 0;
  for (const { view, start, at } of framesIn(file, FRAME_HEADER_BYTES + pageSize)) {
    const sameLog = view.getUint32(start + 8) === salt1 && view.getUint32(start + 12) === salt2;
    if (damagedAt !== undefined) {
      if (sameLog && view.getUint32(start + 4) !== 0) laterCommits++;
      continue;
    }
    sum.add(view, start, 8);
    sum.add(view, start + FRAME_HEADER_BYTES, pageSize);
    if (!sameLog || !sum.equals(view, start + 16)) damagedAt = at;
  }
  if (laterCommits < LATER_COMMITS_MIN) return undefined;
  return `${path} is damaged at byte ${damagedAt}, with ${laterCommits} later commits behind the damage`;
}

/** All whole frames: at `start` of a view, and at `at` of the file. A view holds its bytes until the next is asked for. */
function* framesIn(file: number, frameBytes: number) {
  const bytes = Math.max(1, Math.floor(CHUNK_BYTES / frameBytes)) * frameBytes;
  const chunk = new Uint8Array(bytes);
  for (let from = HEADER_BYTES; ; from += bytes) {
    const view = viewOf(file, from, bytes, chunk);
    for (let start = 0; start + frameBytes <= view.byteLength; start += frameBytes) {
      yield { view, start, at: from + start };
    }
    if (view.byteLength < bytes) return;
  }
}

/** Up to so many bytes of a file: fewer only at its end. */
function viewOf(file: number, from: number, bytes: number, into = new Uint8Array(bytes)): DataView {
  let filled = 0;
  while (filled < bytes) {
    const read = readSync(file, into, filled, bytes - filled, from + filled);
    if (read === 0) break;
    filled += read;
  }
  return new DataView(into.buffer, 0, filled);
}

/** The running checksum of the format: two sums over pairs of 32-bit words. */
class Sum {
  readonly #littleEndian: boolean;
  #a = 0;
  #b = 0;

  constructor(littleEndian: boolean) {
    this.#littleEndian = littleEndian;
  }

  add(view: DataView, at: number, bytes: number): void {
    let a = this.#a;
    let b = this.#b;
    for (let i = at; i < at + bytes; i += 8) {
      a = (a + view.getUint32(i, this.#littleEndian) + b) >>> 0;
      b = (b + view.getUint32(i + 4, this.#littleEndian) + a) >>> 0;
    }
    this.#a = a;
    this.#b = b;
  }

  /** Stored checksums are big-endian. */
  equals(view: DataView, at: number): boolean {
    return view.getUint32(at) === this.#a && view.getUint32(at + 4) === this.#b;
  }
}
