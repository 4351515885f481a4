/**
 * Telling a seq that was deleted from one whose row was lost behind the server's back.
 *
 * Seqs are dense when written, so a missing one must have been deleted, and then its block counts fewer records.
 */
import { BLOCK_SEQS, blockOf, firstOf, lastOf } from "../store/blocks.ts";
import { DamagedRecord, type RecordRow } from "../store/records.ts";
import type { Topic } from "./topic.ts";

/**
 * The first `limit` rows with `after < seq <= last`, dead or alive, where `after` is not below the floors.
 * Throws `DamagedRecord` for the first one that is damaged or lost.
 */
export function readRows(topic: Topic, after: number, last: number, limit: number): RecordRow[] {
  const rows = topic.shelf.records.range(topic.slot, after, last, limit);
  verifyGaps(topic, after, rows.length < limit ? last : rows.at(-1)!.seq, rows);
  return rows;
}

export interface SoundRows {
  readonly rows: RecordRow[];
  /** The last seq that they say something of. */
  readonly looked: number;
}

/** The next rows, up to the first one that is damaged. Throws `DamagedRecord` if that is the very next. */
export function readSoundRows(topic: Topic, after: number, last: number, limit: number): SoundRows {
  try {
    const rows = readRows(topic, after, last, limit);
    return { rows, looked: rows.length < limit ? last : rows.at(-1)!.seq };
  } catch (error) {
    if (!(error instanceof DamagedRecord) || error.seq <= after + 1) throw error;
    return readSoundRows(topic, after, error.seq - 1, limit);
  }
}

function verifyGaps(topic: Topic, after: number, last: number, rows: readonly RecordRow[]): void {
  if (last - after === rows.length) return;
  let expected = after + 1;
  let verified = -1;
  const verify = (missing: number) => {
    const block = blockOf(missing);
    if (block === verified) return;
    verifyBlock(topic, block, missing);
    verified = block;
  };
  for (const seq of [...rows.map((row) => row.seq), last + 1]) {
    if (seq > expected) {
      verify(expected);
      verifyEmpty(topic, blockOf(expected) + 1, blockOf(seq) - 1);
      verify(seq - 1);
    }
    expected = seq + 1;
  }
}

/** Throws `DamagedRecord` for `missing` if the block holds fewer live records than it counts. */
export function verifyBlock(topic: Topic, block: number, missing: number): void {
  const { slot, shelf, log } = topic;
  const counted = shelf.blocks.countIn(slot, block) + (block === log.tailBlock ? log.tailCount : 0);
  if (counted === 0) return;
  const after = Math.max(firstOf(block), log.earliest) - 1;
  const live = shelf.records
    .sizes(slot, after, lastOf(block), BLOCK_SEQS)
    .filter((row) => !topic.isDeleted(row.seq, row.tag));
  // A damaged key can make one seq appear twice.
  const stored = new Set(live.map((row) => row.seq)).size;
  if (stored < counted) throw new DamagedRecord(missing);
}

/** Throws `DamagedRecord` if a block from `first` to `last`, of which no row was read, counts live records. */
function verifyEmpty(topic: Topic, first: number, last: number): void {
  if (first > last) return;
  const [block] = topic.shelf.blocks.from(topic.slot, first, 1);
  if (block && block.block <= last) throw new DamagedRecord(firstOf(block.block));
}
