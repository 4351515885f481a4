/**
 * The commands that delete records.
 *
 * A delete holds for every reader from its commit on, however large it is. A small delete by tag removes its
 * rows at once. A large one is stored as a rule that hides them, and the reclaimer removes the rows.
 */
import { blockOf, lastOf } from "../store/blocks.ts";
import type { RecordSize } from "../store/records.ts";
import type { Counted, DeleteBefore, DeleteTagged, RecordsRemoved } from "./commands.ts";
import type { Group } from "./group.ts";
import { liveRows, liveUpTo, nextLive, type Tally, taggedRows, tallyUpTo } from "./live.ts";
import { expire, removeUpTo } from "./retention.ts";
import { inRange } from "./tags.ts";
import type { Topic } from "./topic.ts";

/** A larger delete by tag is stored as a rule. */
export const DELETE_AT_ONCE_MAX = 1000;

export function deleteBefore(group: Group, { topic: name, before, now }: DeleteBefore): RecordsRemoved {
  const topic = group.existing(name);
  expire(group, topic, now);
  const { log } = topic;
  const last = Math.min(before, log.head + 1) - 1;
  // Also of jobs whose records have been lost.
  topic.jobs?.dropUpTo(last);
  if (last < log.earliest) return removal(topic, 0);
  const removed = tallyUpTo(topic, last);
  removeUpTo(topic, last, removed);
  return removal(topic, removed.count);
}

export function deleteTagged(group: Group, command: DeleteTagged): RecordsRemoved {
  const topic = group.existing(command.topic);
  expire(group, topic, command.now);
  if (topic.epoch !== command.epoch) return removal(topic, 0);
  if (command.counted) return hide(topic, command, withoutGone(topic, command, command.counted));
  const rows: RecordSize[] = [];
  for (const slice of taggedRows(topic, command.range, command.upTo, () => DELETE_AT_ONCE_MAX)) {
    rows.push(...liveUpTo(topic, slice, command.upTo));
  }
  if (rows.length > DELETE_AT_ONCE_MAX) {
    const blocks = new Map<number, Tally>();
    addByBlock(blocks, rows);
    return hide(topic, command, blocks);
  }
  remove(topic, rows);
  return removal(topic, rows.length);
}

/** Deletes live records, which are `rows`, one by one. The first live one is found at the end of the group. */
export function remove(
  topic: Topic,
  rows: readonly { readonly seq: number; readonly bytes: number }[],
): void {
  const blocks = new Map<number, Tally>();
  addByBlock(blocks, rows);
  for (const { seq } of rows) {
    topic.shelf.records.delete(topic.slot, seq);
    topic.jobs?.drop(seq);
  }
  takeOut(topic, blocks);
  topic.isEarliestKnown &&= !rows.some(({ seq }) => seq === topic.log.earliest);
}

/** Adds the sizes of `rows` to the sums of their blocks. */
export function addByBlock(
  blocks: Map<number, Tally>,
  rows: readonly { readonly seq: number; readonly bytes: number }[],
): void {
  for (const { seq, bytes } of rows) {
    const block = blockOf(seq);
    const sum = blocks.get(block);
    if (sum === undefined) blocks.set(block, { count: 1, bytes });
    else {
      sum.count++;
      sum.bytes += bytes;
    }
  }
}

/** Leaves out what fell below the topic's first live record since it was counted. */
function withoutGone(topic: Topic, { range, upTo }: DeleteTagged, counted: Counted): Map<number, Tally> {
  const edge = blockOf(topic.log.earliest);
  const blocks = new Map([...counted].filter(([block]) => block > edge));
  const last = Math.min(upTo, lastOf(edge));
  for (const row of liveRows(topic, topic.log.earliest - 1, last)) {
    if (row.tag !== null && inRange(row.tag, range)) addByBlock(blocks, [row]);
  }
  return blocks;
}

function hide(
  topic: Topic,
  { range, upTo }: DeleteTagged,
  blocks: ReadonlyMap<number, Tally>,
): RecordsRemoved {
  if (blocks.size > 0) {
    const rule = topic.shelf.tagDeletes.insert(topic.slot, range, upTo);
    topic.tagDeletes = [...topic.tagDeletes, rule];
    topic.jobs?.dropWhere((seq, tag) => topic.isDeleted(seq, tag));
  }
  const deleted = takeOut(topic, blocks);
  topic.isEarliestKnown &&= deleted === 0;
  return removal(topic, deleted);
}

/** Takes records that are no longer live out of the sums; how many that were. */
function takeOut(topic: Topic, blocks: ReadonlyMap<number, Tally>): number {
  const { log, slot, shelf } = topic;
  topic.settle();
  topic.version++;
  let deleted = 0;
  for (const [block, { count, bytes }] of blocks) {
    shelf.blocks.add(slot, block, -count, -bytes);
    log.count -= count;
    log.bytes -= bytes;
    deleted += count;
  }
  return deleted;
}

/** Finds the first live record, if it is not known. */
export function findEarliest(topic: Topic): void {
  if (topic.isEarliestKnown) return;
  topic.log.earliest = nextLive(topic, topic.log.earliest);
  topic.isEarliestKnown = true;
}

function removal(topic: Topic, deleted: number): RecordsRemoved {
  findEarliest(topic);
  const { earliest, head, count, bytes } = topic.log;
  return { deleted, earliest, head, count, bytes };
}
