/** Records on the wire: writing, reading, deleting. */
import { type Static, Type } from "@sinclair/typebox";
import { Clamped, Nullable, OneOf, OptionalNullable, Position, RawJson, Small } from "./schema.ts";
import { TopicConfigInput } from "./topics.ts";

export const RecordInput = Type.Object({
  data: RawJson,
  tag: OptionalNullable(Type.String()),
  node: OptionalNullable(Type.String()),
  meta: Type.Optional(RawJson),
});
export type RecordInput = Static<typeof RecordInput>;

export const Append = Type.Object({
  records: Type.Array(RecordInput),
  node: OptionalNullable(Type.String()),
  idempotency_key: OptionalNullable(Type.String()),
  create: OptionalNullable(Type.Boolean()),
  config: OptionalNullable(TopicConfigInput),
  disable_backpressure: Type.Optional(Type.Boolean()),
});
export type Append = Static<typeof Append>;

export const Appended = Type.Object({
  topic: Type.String(),
  epoch: Type.Integer(),
  first_seq: Type.Integer(),
  last_seq: Type.Integer(),
  seqs: Type.Optional(Type.Array(Type.Integer())),
  head_seq: Type.Integer(),
  count: Type.Integer(),
  created: Type.Boolean(),
  deduped: Type.Boolean(),
});
export type Appended = Static<typeof Appended>;

export const Diff = Type.Object({
  from_seq: Type.Optional(Position),
  limit: Type.Optional(Small),
  node: OptionalNullable(Type.Union([Type.String(), Type.Array(Type.String())])),
  include_tags: Type.Optional(Type.Boolean()),
  include_meta: Type.Optional(Type.Boolean()),
  wait_ms: Type.Optional(Small),
  max_batch_bytes: Type.Optional(Clamped),
  epoch: Type.Optional(Position),
});
export type Diff = Static<typeof Diff>;

export const RecordOutput = Type.Object({
  $seq: Type.Integer(),
  $ts: Type.Integer(),
  $node: Type.Optional(Type.String()),
  $tag: Type.Optional(Type.String()),
  data: RawJson,
  meta: Type.Optional(RawJson),
});

export const Tombstone = Type.Object({
  gap_from: Type.Integer(),
  gap_to: Type.Integer(),
  reason: Type.Union(
    (["cap", "ttl", "mixed", "source_trim", "recreated"] as const).map((reason) => Type.Literal(reason)),
  ),
  missed_estimate: Type.Integer(),
  earliest_seq: Type.Integer(),
  head_seq: Type.Integer(),
});
export type Tombstone = Static<typeof Tombstone>;

export const DiffPage = Type.Object({
  topic: Type.String(),
  epoch: Type.Integer(),
  records: Type.Array(RecordOutput),
  next_from_seq: Type.Integer(),
  head_seq: Type.Integer(),
  earliest_seq: Type.Integer(),
  caught_up: Type.Boolean(),
  tombstone: Nullable(Tombstone),
  lag: Type.Integer(),
});
export type DiffPage = Static<typeof DiffPage>;

/** A filter without shorthand, as it is answered. */
export const FullTagFilter = Type.Tuple([Type.Literal("tag"), OneOf("Eq", "Glob"), Type.String()]);
export type FullTagFilter = Static<typeof FullTagFilter>;

/** Selects records by tag: `["tag","Eq",s]`, `["tag","Glob","prefix*"]`, or the string shorthand of either. */
export const TagFilter = Type.Union([Type.String(), FullTagFilter]);
export type TagFilter = Static<typeof TagFilter>;

export const DeleteRecords = Type.Object({
  before_seq: OptionalNullable(Position),
  match: OptionalNullable(TagFilter),
});
export type DeleteRecords = Static<typeof DeleteRecords>;

export const RecordsDeleted = Type.Object({
  topic: Type.String(),
  deleted: Type.Integer(),
  earliest_seq: Type.Integer(),
  head_seq: Type.Integer(),
  count: Type.Integer(),
  bytes: Type.Integer(),
});
export type RecordsDeleted = Static<typeof RecordsDeleted>;
