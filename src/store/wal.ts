/**
 * Looks for damage in a write-ahead log before SQLite opens it.
 *
 * SQLite ends a damaged log silently at the first bad frame, as it must after a torn last write. A bad frame
 * followed by later commits of the same log is no torn write: acknowledged records would be gone without a word.
 * Format: https://www.sqlite.org/fileformat2.html#the_write_ahead_log
 */
import { existsSync, readFileSync } from "node:fs";

const HEADER_BYTES = 32;
const FRAME_HEADER_BYTES = 24;
const MAGIC_LITTLE_ENDIAN = 0x377f0682;
const MAGIC_BIG_ENDIAN = 0x377f0683;
/** So many commits behind a bad frame prove that it was not the last write. */
const LATER_COMMITS_MIN = 2;

/** What is wrong with the log at `path`, if it is there. */
export function walDamage(path: string): string | undefined {
  if (!existsSync(path)) return undefined;
  const file = readFileSync(path);
  if (file.length <= HEADER_BYTES) return undefined;
  const view = new DataView(file.buffer, file.byteOffset, file.length);
  const magic = view.getUint32(0);
  const pageSize = view.getUint32(8);
  const sum = new Sum(view, magic === MAGIC_LITTLE_ENDIAN);
  sum.add(0, 24);
  const known = magic === MAGIC_LITTLE_ENDIAN || magic === MAGIC_BIG_ENDIAN;
  if (!known || !sum.equals(24)) return `the header of ${path} is damaged`;

  const frameBytes = FRAME_HEADER_BYTES + pageSize;
  const sameLog = (at: number) =>
    view.getUint32(at + 8) === view.getUint32(16) && view.getUint32(at + 12) === view.getUint32(20);
  let at = HEADER_BYTES;
  for (; at + frameBytes <= file.length; at += frameBytes) {
    sum.add(at, 8);
    sum.add(at + FRAME_HEADER_BYTES, pageSize);
    if (!sameLog(at) || !sum.equals(at + 16)) break;
  }
  let laterCommits = 0;
  for (let later = at + frameBytes; later + frameBytes <= file.length; later += frameBytes) {
    if (sameLog(later) && view.getUint32(later + 4) !== 0) laterCommits++;
  }
  if (laterCommits < LATER_COMMITS_MIN) return undefined;
  return `${path} is damaged at byte ${at}, with ${laterCommits} later commits behind the damage`;
}

/** The running checksum of the format: two sums over pairs of 32-bit words. */
class Sum {
  readonly #view: DataView;
  readonly #littleEndian: boolean;
  #a = 0;
  #b = 0;

  constructor(view: DataView, littleEndian: boolean) {
    this.#view = view;
    this.#littleEndian = littleEndian;
  }

  add(at: number, bytes: number): void {
    let a = this.#a;
    let b = this.#b;
    for (let i = at; i < at + bytes; i += 8) {
      a = (a + this.#view.getUint32(i, this.#littleEndian) + b) >>> 0;
      b = (b + this.#view.getUint32(i + 4, this.#littleEndian) + a) >>> 0;
    }
    this.#a = a;
    this.#b = b;
  }

  /** Stored checksums are big-endian. */
  equals(at: number): boolean {
    return this.#view.getUint32(at) === this.#a && this.#view.getUint32(at + 4) === this.#b;
  }
}
