/** What streams tell of topics, in the shapes of the contract. */
import { ApiError } from "../contract/errors.ts";
import type { Tombstone } from "../contract/records.ts";
import type { FrameData, FrameEvent } from "../contract/watch.ts";
import { NO_EPOCH, type Place } from "./places.ts";
import type { Topic } from "./topic.ts";

/** Frames of records are shared by all streams that want the same. */
export interface Frame {
  readonly event: FrameEvent | "error";
  /** The topic it tells of, and where a reader stands behind it. */
  readonly topic?: string;
  readonly place?: Place;
  /** Its data: the members of a JSON object, without the braces. */
  readonly members: string;
}

const membersOf = (data: object): string => JSON.stringify(data).slice(1, -1);

function frame<E extends FrameEvent>(event: E, place: Place, data: FrameData<E>): Frame {
  return { event, topic: data.topic, place, members: membersOf(data) };
}

/** `records` is JSON, joined by commas. */
export function recordFrame(
  { name, epoch }: Topic,
  fromSeq: number,
  toSeq: number,
  head: number,
  records: string,
): Frame {
  const said = membersOf({ topic: name, from_seq: fromSeq, to_seq: toSeq, head_seq: head });
  return {
    event: "record",
    topic: name,
    place: { epoch, seq: toSeq },
    members: `${said},"records":[${records}]`,
  };
}

export const caughtUp = ({ name, epoch }: Topic, head: number): Frame =>
  frame("caught-up", { epoch, seq: head }, { topic: name, head_seq: head });

/** `reason` stands for the tombstone's own. */
export function tombstoneFrame(
  { name, epoch }: Topic,
  { missed_estimate: _, ...tombstone }: Tombstone,
  reason: FrameData<"tombstone">["reason"] = tombstone.reason,
): Frame {
  // Whoever is cut off behind it has seen nothing of the new instance, and must be told once more.
  const isOfOther = tombstone.reason === "recreated";
  const place = { epoch: isOfOther ? NO_EPOCH : epoch, seq: tombstone.gap_to };
  return frame("tombstone", place, { topic: name, ...tombstone, reason });
}

export const topicDeleted = (topic: string, place: Place): Frame =>
  frame("topic-deleted", place, { topic, head_seq: 0, reason: "deleted" });

/** A record that cannot be read, which the stream passes over. */
export function damagedRecord({ name, epoch }: Topic, seq: number): Frame {
  const { code, message } = new ApiError("internal", { topic: name, seq });
  const members = membersOf({ code, message, topic: name, seq });
  return { event: "error", topic: name, place: { epoch, seq }, members };
}

/** A topic that cannot be read, and is followed no more. */
export const failed = (topic: string, code: string, message: string): Frame => ({
  event: "error",
  topic,
  members: membersOf({ code, message, topic }),
});

/** Why a stream ends. */
export const ending = (code: string, message: string): Frame => ({
  event: "error",
  members: membersOf({ code, message }),
});
