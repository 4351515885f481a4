/**
 * What a topic's limits remove: records older than `ttl_ms`, and the oldest beyond `cap_records` and `cap_bytes`.
 * Removal raises a floor and takes effect at once; the rows are removed later (reclaim.ts).
 */
import { blockOf } from "../store/blocks.ts";
import type { Group } from "./group.ts";
import { lastLive, lastOlderThan, nextLive, oldest, type Tally, tallyUpTo } from "./live.ts";
import type { Topic } from "./topic.ts";

/** Whether `ttl_ms` has anything to remove. */
export function hasExpired(topic: Topic, now: number): boolean {
  const { ttl_ms } = topic.config;
  return ttl_ms > 0 && topic.log.count > 0 && lastOlderThan(topic, now - ttl_ms) > 0;
}

/** Removes what has expired at `now`. */
export function expire(group: Group, topic: Topic, now: number): void {
  const { log, config } = topic;
  if (config.ttl_ms === 0 || log.count === 0) return;
  const last = lastLive(topic, lastOlderThan(topic, now - config.ttl_ms));
  if (last < log.earliest) return;
  log.ttlFloor = Math.max(log.ttlFloor, last);
  lose(group, topic, last, tallyUpTo(topic, last));
}

/** Removes the oldest records beyond the caps. A `reject` topic only refuses: it keeps what it holds. */
export function evict(group: Group, topic: Topic): void {
  const { log, config } = topic;
  if (config.discard === "reject") return;
  const count = config.cap_records > 0 ? log.count - config.cap_records : 0;
  const bytes = config.cap_bytes > 0 ? log.bytes - config.cap_bytes : 0;
  if (count <= 0 && bytes <= 0) return;
  const { seq, ...removed } = oldest(topic, count, bytes);
  log.capFloor = Math.max(log.capFloor, seq);
  lose(group, topic, seq, removed);
}

/** Takes out live records that readers are told of, and so are routers that have not copied them. */
function lose(group: Group, topic: Topic, seq: number, removed: Tally): void {
  for (const router of group.routers.from(topic.name)) {
    const { position, lost } = router;
    if (position >= seq) continue;
    const copied = position < topic.log.earliest ? 0 : tallyUpTo(topic, position).count;
    const progress = { position: seq, lost: lost + removed.count - copied };
    if (topic.config.durability === "ephemeral") group.loseInMemory(router, progress);
    else group.moveRouter(router, progress);
  }
  removeUpTo(topic, seq, removed);
}

/** Takes all live records up to `seq`, which are `removed`, out of the log. */
export function removeUpTo(topic: Topic, seq: number, removed: Tally): void {
  const { log, slot, shelf } = topic;
  topic.settle();
  topic.jobs?.dropUpTo(seq);
  const edge = blockOf(seq);
  const below = shelf.blocks.sumBelow(slot, edge);
  shelf.blocks.deleteBelow(slot, edge);
  shelf.blocks.add(slot, edge, below.count - removed.count, below.bytes - removed.bytes);
  log.count -= removed.count;
  log.bytes -= removed.bytes;
  log.earliest = nextLive(topic, Math.max(log.earliest, seq + 1));
}
