/**
 * The command that lets a router take its next step: a slice of its source is read, and copies are appended to its
 * destination. Copies and the router's place are committed together, so nothing is copied twice or left out.
 */
import { HOPS_MAX } from "../contract/limits.ts";
import { DamagedRecord, type RecordRow, recordBytes, type StoredRecord } from "../store/records.ts";
import { isCorruption } from "../store/store.ts";
import type { Trim } from "../store/trims.ts";
import { add } from "./append.ts";
import type { Forward, Outcomes } from "./commands.ts";
import { readSoundRows, type SoundRows } from "./gaps.ts";
import type { Group } from "./group.ts";
import { isObject, othersThan, withMembers } from "./members.ts";
import { rowsWithin } from "./reader.ts";
import { expire } from "./retention.ts";
import type { Router } from "./routerset.ts";
import { inRange, tagRange } from "./tags.ts";
import type { Topic } from "./topic.ts";

/** Records of the source that are looked at in one step. */
const STEP_RECORDS = 1000;
/** So many at least, also where there is room for none: the next ones may be passed over. */
const STEP_RECORDS_MIN = 16;

export function forward(group: Group, { router: name, epoch, upTo, now }: Forward): Outcomes["forward"] {
  const router = group.routers.get(name);
  const source = router && group.find(router.source);
  const dest = router && group.find(router.dest);
  if (router === undefined) return { blocked: false };
  if (!source || !dest || source.damaged || dest.damaged) return { blocked: true };
  // The router or its source has been replaced: `upTo` says nothing of what there is now.
  if (epoch !== null && epoch !== source.epoch) return { blocked: false };
  expire(group, source, now);
  expire(group, dest, now);
  // Losing records may have moved the router.
  const moved = group.routers.get(name)!;
  const { position, lost, forwarded } = moved;
  if (lost > 0) {
    leaveHole(group, dest, lost, 1);
    group.moveRouter(moved, { lost: 0, forwarded: forwarded + lost });
    return { blocked: false };
  }
  const hole = source.trimBehind(position);
  if (hole && hole.from <= position + 1) {
    passOn(group, moved, hole, dest);
    return { blocked: false };
  }
  return copyNext(group, moved, source, dest, Math.min(upTo, source.log.head), now);
}

/** What a source never got, its own routers never copy. */
function passOn(group: Group, router: Router, hole: Trim, dest: Topic): void {
  const isPassedOn = hole.hops < HOPS_MAX;
  const count = isPassedOn ? hole.to - router.position : 0;
  if (isPassedOn) leaveHole(group, dest, count, hole.hops + 1);
  group.moveRouter(router, { position: hole.to, forwarded: router.forwarded + count });
}

/** Passes over `count` seqs for records that will never come. */
function leaveHole(group: Group, dest: Topic, count: number, hops: number): void {
  const { log, shelf, slot } = dest;
  shelf.trims.deleteUpTo(slot, dest.evictFloor);
  const last = dest.trimBehind(log.head - 1);
  const isLonger = last?.to === log.head && last.hops === hops;
  if (isLonger) shelf.trims.delete(slot, last);
  const hole = { from: isLonger ? last.from : log.head + 1, to: log.head + count, hops };
  shelf.trims.insert(slot, hole);
  log.head = hole.to;
  log.trimFloor = hole.to;
  if (log.count === 0) log.earliest = log.head + 1;
  group.grown(dest);
}

function copyNext(
  group: Group,
  router: Router,
  source: Topic,
  dest: Topic,
  upTo: number,
  now: number,
): Outcomes["forward"] {
  const { position, forwarded } = router;
  const hole = source.trimBehind(position);
  const last = hole ? Math.min(upTo, hole.from - 1) : upTo;
  // What was deleted is passed over, also where its row is still there.
  const after = Math.min(last, Math.max(position, source.log.earliest - 1));
  const room = new Room(group, dest);
  const wanted = router.filter ? STEP_RECORDS : Math.max(room.records, STEP_RECORDS_MIN);
  const found = readNext(source, after, last, Math.min(wanted, STEP_RECORDS));
  if (found === undefined) {
    // What is damaged cannot be copied, and must not keep the rest back for ever.
    leaveHole(group, dest, 1, 1);
    group.moveRouter(router, { position: after + 1, forwarded: forwarded + 1 });
    return { blocked: false };
  }
  const copies: StoredRecord[] = [];
  const copyOf = copier(router, source);
  let reached = found.looked;
  let blocked = false;
  for (const row of found.rows) {
    const copy = source.isDeleted(row.seq, row.tag) ? undefined : copyOf(row);
    if (copy === undefined) continue;
    if (!room.take(copy.bytes)) {
      blocked = true;
      reached = row.seq - 1;
      break;
    }
    copies.push(copy);
  }
  if (copies.length > 0) add(group, dest, copies, now);
  if (reached > position) {
    group.moveRouter(router, { position: reached, forwarded: forwarded + copies.length });
  }
  return { blocked };
}

/** The next records, up to the first one that is damaged. Undefined if that is the very next. */
function readNext(source: Topic, after: number, last: number, limit: number): SoundRows | undefined {
  try {
    return readSoundRows(source, after, last, rowsWithin(source, after, last, limit));
  } catch (error) {
    // What is corrupt does not say where, so one record at a time tells.
    if (isCorruption(error)) return limit > 1 ? readNext(source, after, last, 1) : undefined;
    if (error instanceof DamagedRecord) return undefined;
    throw error;
  }
}

/** What a destination and the quota have room for. */
class Room {
  records = Number.POSITIVE_INFINITY;
  #bytes = Number.POSITIVE_INFINITY;

  constructor(group: Group, { config, log }: Topic) {
    const { discard, cap_records, cap_bytes } = config;
    if (discard === "reject" && cap_records > 0) this.records = cap_records - log.count;
    if (discard === "reject" && cap_bytes > 0) this.#bytes = cap_bytes - log.bytes;
    this.#bytes = Math.min(this.#bytes, group.bytesLeft);
  }

  take(bytes: number): boolean {
    if (this.records < 1 || this.#bytes < bytes) return false;
    this.records--;
    this.#bytes -= bytes;
    return true;
  }
}

/** Makes copies; undefined for a record that the router passes over. */
function copier(router: Router, source: Topic): (row: RecordRow) => StoredRecord | undefined {
  const { filter, preserve_node, preserve_tag, guarantee } = router;
  const range = filter && tagRange(filter);
  return (row) => {
    const hops = (row.hops ?? 0) + 1;
    if (hops > HOPS_MAX || (range && (row.tag === null || !inRange(row.tag, range)))) return undefined;
    const { data } = row;
    const meta = guarantee === "exactly_once" ? stamped(row, router, source) : row.meta;
    const bytes = meta === row.meta ? row.bytes : recordBytes(data, meta);
    return {
      data,
      tag: preserve_tag ? row.tag : null,
      node: preserve_node ? row.node : null,
      meta,
      bytes,
      hops,
    };
  };
}

const STAMP = "_topics_router";
const ORIGINAL = "_topics_original_meta";
/** An object with more members has no place for the stamp. */
const OWN_MEMBERS_MAX = 63;

/** `meta` with a stamp that names the record this is a copy of. */
function stamped({ seq, meta }: RecordRow, { name }: Router, { name: topic, epoch }: Topic): string {
  const stamp = JSON.stringify({
    idempotency_key: `router:${name}:${epoch}:${epoch}:${seq}`,
    router: name,
    source_topic: topic,
    source_topic_id: epoch,
    source_epoch: epoch,
    source_seq: seq,
  });
  const fits = meta === null || (isObject(meta) && othersThan(STAMP, meta) <= OWN_MEMBERS_MAX);
  return withMembers(fits ? (meta ?? "{}") : withMembers("{}", { [ORIGINAL]: meta }), { [STAMP]: stamp });
}
