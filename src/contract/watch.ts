/** Watching on the wire: sessions, what a stream says, and the messages of a WebSocket. */
import { type Static, Type } from "@sinclair/typebox";
import { AppendPerformance } from "./performance.ts";
import { Append, Appended, RecordOutput, Tombstone } from "./records.ts";
import {
  AnySeq,
  Clamped,
  MapOf,
  Nullable,
  OneOf,
  OptionalNullable,
  Position,
  RawJson,
  Small,
} from "./schema.ts";

/** Where to begin in a topic: behind `from_seq`, or with `tail` at its head. */
export const WatchFrom = Type.Object({
  from_seq: Type.Optional(AnySeq),
  tail: Type.Optional(Type.Boolean()),
  epoch: Type.Optional(Position),
});
export type WatchFrom = Static<typeof WatchFrom>;

/** What a reader wants of the records. */
const selection = {
  node: OptionalNullable(Type.Union([Type.String(), Type.Array(Type.String())])),
  limit: Type.Optional(Small),
  max_batch_bytes: Type.Optional(Clamped),
  include_meta: Type.Optional(Type.Boolean()),
  include_tags: Type.Optional(Type.Boolean()),
  include_data: Type.Optional(Type.Boolean()),
};
export const Selection = Type.Object(selection);
export type Selection = Static<typeof Selection>;

export const Consistency = OneOf("eventual", "strong");

export const Watch = Type.Object({
  topics: MapOf(WatchFrom),
  ...selection,
  heartbeat_ms: Type.Optional(Clamped),
  consistency: Type.Optional(Consistency),
});
export type Watch = Static<typeof Watch>;

export const Watched = Type.Object({
  epoch: Type.Integer(),
  from_seq: AnySeq,
  head_seq: Type.Integer(),
  earliest_seq: Type.Integer(),
});
export type Watched = Static<typeof Watched>;

export const WatchStarted = Type.Object({
  wid: Type.String(),
  stream_url: Type.String(),
  session_ttl_ms: Type.Integer(),
  topics: Type.Record(Type.String(), Watched),
});

/** A record as streams tell it: without `data` for who has asked for none. */
export const FollowedRecord = Type.Object({ ...RecordOutput.properties, data: Type.Optional(RawJson) });

/** What streams say of topics, under the name of its event. */
export const frames = {
  record: Type.Object({
    topic: Type.String(),
    from_seq: Type.Integer(),
    to_seq: Type.Integer(),
    head_seq: Type.Integer(),
    records: Type.Array(FollowedRecord),
  }),
  tombstone: Type.Object({
    topic: Type.String(),
    reason: Type.Union([...Tombstone.properties.reason.anyOf, Type.Literal("from_seq_too_old")]),
    gap_from: Type.Integer(),
    gap_to: Type.Integer(),
    earliest_seq: Type.Integer(),
    head_seq: Type.Integer(),
  }),
  "caught-up": Type.Object({ topic: Type.String(), head_seq: Type.Integer() }),
  "topic-deleted": Type.Object({
    topic: Type.String(),
    head_seq: Type.Literal(0),
    reason: Type.Literal("deleted"),
  }),
};
/** What goes wrong with a stream: of one topic or one of its records, or its end. */
export const StreamFailure = Type.Object({
  code: OneOf("server_shutting_down", "slow_consumer", "unauthorized", "throttled", "internal"),
  message: Type.String(),
  topic: Type.Optional(Type.String()),
  seq: Type.Optional(Type.Integer()),
});

export type FrameEvent = keyof typeof frames;
export type FrameData<E extends FrameEvent> = Static<(typeof frames)[E]>;

/** Every message over a WebSocket. */
export const SocketMessage = Type.Object({ op: Type.String(), request_id: Type.Optional(RawJson) });

/** The members of each message, by its `op`. */
export const socketCommands = {
  subscribe: Type.Object({
    topic: Type.Optional(Type.String()),
    topics: Type.Optional(MapOf(WatchFrom)),
    ...WatchFrom.properties,
    ...selection,
    lenient: Type.Optional(Type.Boolean()),
  }),
  unsubscribe: Type.Object({
    topic: Type.Optional(Type.String()),
    topics: Type.Optional(Type.Array(Type.String())),
  }),
  publish: Type.Object({
    topic: Type.String(),
    ...Append.properties,
    return_seqs: Type.Optional(Type.Boolean()),
  }),
  ping: Type.Object({}),
};
export type SocketOp = keyof typeof socketCommands;
export type SocketCommand<O extends SocketOp> = Static<(typeof socketCommands)[O]>;

/** The members of each answer to a command, by its `op`. */
export const socketAnswers = {
  subscribed: Type.Object({ topics: Type.Record(Type.String(), Watched) }),
  unsubscribed: Type.Object({ topics: Type.Array(Type.String()) }),
  ack: Type.Object({
    ...Appended.properties,
    seqs: Nullable(Type.Array(Type.Integer())),
    performance: AppendPerformance,
  }),
  pong: Type.Object({}),
};

/** A command that failed, has the `request_id` it came with; other failures, as those of a stream, have none. */
export const SocketFailure = Type.Object({
  request_id: Type.Optional(RawJson),
  ...StreamFailure.properties,
  code: OneOf(
    "invalid_json",
    "unsupported_message",
    "invalid_request",
    "batch_too_large",
    "record_too_large",
    "unauthorized",
    "forbidden",
    "topic_not_found",
    "topic_full",
    "throttled",
    "internal",
    "server_shutting_down",
  ),
});
