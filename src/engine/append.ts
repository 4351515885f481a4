/** The command that adds records to a topic. */
import { ApiError } from "../contract/errors.ts";
import type { TopicConfig } from "../contract/topics.ts";
import { emptyLog, type LogState } from "../store/logs.ts";
import { SEQ_MAX, type StoredRecord } from "../store/records.ts";
import type { AppendRecords, RecordsAppended } from "./commands.ts";
import { resolveConfig } from "./config.ts";
import type { Group } from "./group.ts";
import { evict, expire } from "./retention.ts";
import type { Topic } from "./topic.ts";

/** Stale idempotency keys forgotten with each keyed write. */
const PRUNED_KEYS_MAX = 100;

/** Appends all records or none, or answers an earlier write under the same idempotency key again. */
export function append(group: Group, command: AppendRecords): RecordsAppended {
  const { topic: name, records, key, now } = command;
  const topic = group.find(name);
  if (topic === undefined) return appendToNew(group, command);
  const earlier = key === null ? undefined : earlierWrite(topic, key, now);
  if (earlier) return earlier;
  expire(group, topic, now);
  allowRecords(group, name, topic.config, topic.log, records);
  return appendTo(group, topic, command, false);
}

function appendToNew(group: Group, command: AppendRecords): RecordsAppended {
  const { topic: name, records } = command;
  if (!command.create) throw new ApiError("topic_not_found", { topic: name });
  group.allowName(name);
  const config = resolveConfig(name, command.config);
  group.allowTopics(1);
  allowRecords(group, name, config, emptyLog(), records);
  return appendTo(group, group.create(name, config), command, true);
}

function earlierWrite(topic: Topic, key: string, now: number): RecordsAppended | undefined {
  const earlier = topic.shelf.keys.get(topic.slot, key);
  if (earlier === undefined || now - earlier.ts > topic.config.idempotency_window_ms) return undefined;
  const { firstSeq, count, head } = earlier;
  return { epoch: topic.epoch, firstSeq, count, head, created: false, deduped: true };
}

/** Throws if a full `reject` topic or the quota has no room for `records`. */
function allowRecords(
  group: Group,
  topic: string,
  { cap_records, cap_bytes, discard }: TopicConfig,
  log: LogState,
  records: readonly StoredRecord[],
): void {
  let bytes = 0;
  for (const record of records) bytes += record.bytes;
  if (discard === "reject") {
    const exceeds = (count: number, bytes: number) =>
      (cap_records > 0 && count > cap_records) || (cap_bytes > 0 && bytes > cap_bytes);
    if (exceeds(records.length, bytes)) {
      throw new ApiError("record_too_large", {}, `this write alone exceeds the caps of topic "${topic}"`);
    }
    if (exceeds(log.count + records.length, log.bytes + bytes)) {
      const { head: head_seq, earliest: earliest_seq } = log;
      throw new ApiError("topic_full", { topic, cap_records, cap_bytes, head_seq, earliest_seq });
    }
  }
  group.allowBytes(bytes);
  if (log.head + records.length > SEQ_MAX) throw new Error(`topic "${topic}" has used all of its seqs`);
}

function appendTo(
  group: Group,
  topic: Topic,
  { records, key, now }: AppendRecords,
  created: boolean,
): RecordsAppended {
  const { slot, shelf, config, epoch } = topic;
  const count = records.length;
  const firstSeq = topic.log.head + 1;
  const head = topic.log.head + count;
  add(group, topic, records, now);
  if (key !== null) {
    shelf.keys.prune(slot, now - config.idempotency_window_ms, PRUNED_KEYS_MAX);
    shelf.keys.put(slot, key, { ts: now, firstSeq, count, head });
  }
  return { epoch, firstSeq, count, head, created, deduped: false };
}

/** Adds records at the head, whether there is room or not. */
export function add(group: Group, topic: Topic, records: readonly StoredRecord[], now: number): void {
  const { log, slot, shelf } = topic;
  const firstSeq = log.head + 1;
  const ts = Math.max(now, log.lastTs ?? 0);
  shelf.records.insert(slot, firstSeq, ts, records);
  for (let i = 0; i < records.length; i++) {
    const { bytes } = records[i]!;
    topic.countRecord(firstSeq + i, bytes);
    log.bytes += bytes;
    log.largest = Math.max(log.largest, bytes);
  }
  log.head += records.length;
  log.count += records.length;
  log.lastTs = ts;
  evict(group, topic);
  group.grown(topic, { firstSeq, ts, records });
}
