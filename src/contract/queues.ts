/** Queues on the wire: claiming jobs, finishing them, giving them back. */
import { type Static, Type } from "@sinclair/typebox";
import { AnySeq, Clamped, OneOf, OptionalNullable, RawJson, Small } from "./schema.ts";

export const Claim = Type.Object({
  node: Type.String(),
  max: Type.Optional(Small),
  lease_ms: OptionalNullable(Clamped),
});
export type Claim = Static<typeof Claim>;

/** A leased job. Times are ms since the Unix epoch. */
export const ClaimedJob = Type.Object({
  $seq: Type.Integer(),
  lease_id: Type.String(),
  deadline: Type.Integer(),
  $ts: Type.Integer(),
  $tag: Type.Optional(Type.String()),
  deliveries: Type.Integer(),
  data: RawJson,
  meta: Type.Optional(RawJson),
});

export const JobsClaimed = Type.Object({
  topic: Type.String(),
  claimed: Type.Array(ClaimedJob),
  count: Type.Integer(),
  ready: Type.Integer(),
});
export type JobsClaimed = Static<typeof JobsClaimed>;

/** Jobs that a holder names: by seq and, to be sure that it is still its lease, by lease id. */
const held = {
  node: Type.String(),
  seqs: Type.Array(AnySeq),
  lease_ids: Type.Optional(Type.Array(Type.String())),
};

export const Ack = Type.Object(held);
export type Ack = Static<typeof Ack>;

export const Nack = Type.Object({ ...held, delay_ms: Type.Optional(Clamped) });
export type Nack = Static<typeof Nack>;

export const Extend = Type.Object({ ...held, lease_ms: Clamped });
export type Extend = Static<typeof Extend>;

/** What was not held, and the queue after it. */
const left = {
  skipped: Type.Array(AnySeq),
  ready: Type.Integer(),
  in_flight: Type.Integer(),
};

export const Acked = Type.Object({ topic: Type.String(), acked: Type.Integer(), ...left });
export type Acked = Static<typeof Acked>;

export const Nacked = Type.Object({ topic: Type.String(), nacked: Type.Integer(), ...left });
export type Nacked = Static<typeof Nacked>;

export const Extended = Type.Object({
  topic: Type.String(),
  extended: Type.Integer(),
  skipped: left.skipped,
  /** By seq. */
  deadlines: Type.Record(Type.String(), Type.Integer()),
});
export type Extended = Static<typeof Extended>;

/** A job as a stream of work tells it. */
export const PushedJob = Type.Object({ topic: Type.String(), ...ClaimedJob.properties });

/** What a stream of work says last. */
export const WorkEnded = Type.Object({
  code: Type.Union([
    Type.Literal(409),
    ...OneOf("server_shutting_down", "slow_consumer", "unauthorized", "internal").anyOf,
  ]),
  error: Type.String(),
  topic: Type.String(),
});
export type WorkEnded = Static<typeof WorkEnded>;
