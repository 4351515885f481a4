/** Topics on the wire: configuration, state, lists. */
import { type Static, Type } from "@sinclair/typebox";
import { Clamped, Int32, Nullable, OneOf, OptionalNullable, Setting } from "./schema.ts";

export const TopicType = OneOf("log", "queue");
export type TopicType = Static<typeof TopicType>;

/** How hard an acknowledged write is kept: `fsync` survives power loss, `disk` and `memory` a crash of the process. */
export const Durability = OneOf("ephemeral", "memory", "disk", "fsync");
export type Durability = Static<typeof Durability>;

export const Discard = OneOf("old", "reject");

/** Configuration as sent: what is left out has its default. */
export const TopicConfigInput = Type.Object({
  type: Type.Optional(TopicType),
  ttl_ms: Type.Optional(Setting),
  cap_records: Type.Optional(Setting),
  cap_bytes: Type.Optional(Setting),
  discard: Type.Optional(Discard),
  durable: Type.Optional(Type.Boolean()),
  durability: OptionalNullable(Durability),
  priority: OptionalNullable(Int32),
  auto_priority: Type.Optional(Type.Boolean()),
  auto_create: Type.Optional(Type.Boolean()),
  idempotency_window_ms: Type.Optional(Setting),
  dedupe_node: Type.Optional(Type.Boolean()),
  lease_ms: Type.Optional(Clamped),
  claim_jitter_ms: Type.Optional(Clamped),
  max_deliveries: Type.Optional(Setting),
  dead_letter: OptionalNullable(Type.String()),
  leases_durable: Type.Optional(Type.Boolean()),
});
export type TopicConfigInput = Static<typeof TopicConfigInput>;

/** Configuration as answered: every field present. */
export const TopicConfig = Type.Object({
  type: TopicType,
  ttl_ms: Type.Integer(),
  cap_records: Type.Integer(),
  cap_bytes: Type.Integer(),
  discard: Discard,
  durable: Type.Boolean(),
  durability: Durability,
  priority: Nullable(Type.Integer()),
  auto_priority: Type.Boolean(),
  auto_create: Type.Boolean(),
  idempotency_window_ms: Type.Integer(),
  dedupe_node: Type.Boolean(),
  lease_ms: Type.Integer(),
  claim_jitter_ms: Type.Integer(),
  max_deliveries: Type.Integer(),
  dead_letter: Nullable(Type.String()),
  leases_durable: Type.Boolean(),
});
export type TopicConfig = Static<typeof TopicConfig>;

/** Answer of `PUT /v0/topics/:topic`. `epoch` changes with every new instance of a name. */
export const TopicPut = Type.Object({
  topic: Type.String(),
  epoch: Type.Integer(),
  created: Type.Boolean(),
  config: TopicConfig,
});
export type TopicPut = Static<typeof TopicPut>;

/** The jobs of a queue: those that could be claimed, those that are leased, and how many went to dead letters. */
export const QueueState = Type.Object({
  ready: Type.Integer(),
  in_flight: Type.Integer(),
  dead_lettered: Type.Integer(),
});

/** Answer of `GET /v0/topics/:topic`. Times are ms since the Unix epoch. */
export const TopicState = Type.Object({
  topic: Type.String(),
  type: TopicType,
  epoch: Type.Integer(),
  head_seq: Type.Integer(),
  earliest_seq: Type.Integer(),
  next_seq: Type.Integer(),
  count: Type.Integer(),
  bytes: Type.Integer(),
  config: TopicConfig,
  effective_priority: Type.Integer(),
  last_write_ts: Nullable(Type.Integer()),
  last_read_ts: Nullable(Type.Integer()),
  queue: Type.Optional(QueueState),
});
export type TopicState = Static<typeof TopicState>;

export const TopicSummary = Type.Object({
  topic: Type.String(),
  head_seq: Type.Integer(),
  earliest_seq: Type.Integer(),
  count: Type.Integer(),
  bytes: Type.Integer(),
  durable: Type.Boolean(),
  effective_priority: Type.Integer(),
});

export const TopicList = Type.Object({
  topics: Type.Array(TopicSummary),
  next_cursor: Type.Optional(Type.String()),
});
export type TopicList = Static<typeof TopicList>;

export const TopicDeleted = Type.Object({
  topic: Type.String(),
  deleted: Type.Boolean(),
  routers_removed: Type.Array(Type.String()),
});
export type TopicDeleted = Static<typeof TopicDeleted>;
