/** Moving a job that was delivered too often to the queue's dead letters. */
import { ApiError } from "../contract/errors.ts";
import { type RecordRow, recordBytes } from "../store/records.ts";
import { add } from "./append.ts";
import { resolveConfig } from "./config.ts";
import { remove } from "./deletion.ts";
import type { Group } from "./group.ts";
import type { Job } from "./jobs.ts";
import { isObject, withMembers } from "./members.ts";
import { expire } from "./retention.ts";
import type { Topic } from "./topic.ts";

/** Whether the queue's settings want the job elsewhere instead of delivered again. */
export const isPoison = ({ config }: Topic, { deliveries }: Job): boolean =>
  config.max_deliveries > 0 && config.dead_letter !== null && deliveries >= config.max_deliveries;

/**
 * Moves a job. The dead letters are never in the way, so that none is lost: a full topic that rejects takes it all
 * the same. False if their topic cannot be there.
 */
export function moveToDeadLetters(
  group: Group,
  queue: Topic,
  row: RecordRow,
  job: Job,
  now: number,
): boolean {
  const dest = deadLettersOf(group, queue.config.dead_letter!);
  if (dest === undefined || queue.jobs === undefined) return false;
  expire(group, dest, now);
  const { data, tag, node } = row;
  const meta = metaOf(queue, row, job);
  add(group, dest, [{ data, tag, node, meta, bytes: recordBytes(data, meta) }], now);
  queue.jobs.set(row.seq, undefined);
  queue.jobs.deadLettered++;
  remove(queue, [row]);
  return true;
}

function deadLettersOf(group: Group, name: string): Topic | undefined {
  const topic = group.find(name);
  if (topic) return topic.damaged ? undefined : topic;
  try {
    group.allowTopics(1);
  } catch (error) {
    if (error instanceof ApiError) return undefined;
    throw error;
  }
  return group.create(name, resolveConfig(name, {}));
}

/** The job's own members, and where it comes from. */
function metaOf({ name, epoch, config }: Topic, { seq, ts, meta }: RecordRow, { deliveries }: Job): string {
  const origin = JSON.stringify({ topic: name, epoch, seq, ts, deliveries });
  const hasMembers = meta !== null && isObject(meta);
  return withMembers(hasMembers ? meta : "{}", {
    $dead_letter_deliveries: JSON.stringify(String(config.max_deliveries)),
    $dead_letter_from: JSON.stringify(name),
    $dead_letter_src_seq: JSON.stringify(String(seq)),
    $dead_letter: hasMembers || meta === null ? origin : withMembers(origin, { meta }),
  });
}
