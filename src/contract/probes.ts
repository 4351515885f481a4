/** What probes and scripts are told of the server: health, readiness, metrics. */
import { type Static, Type } from "@sinclair/typebox";

/** Answer of `GET /v0/health`. */
export const Health = Type.Object({
  status: Type.Literal("ok"),
  version: Type.String(),
  uptime_ms: Type.Integer(),
});
export type Health = Static<typeof Health>;

/** Answer of `GET /v0/ready`. */
export const Ready = Type.Object({
  status: Type.Literal("ready"),
  wal_replay_complete: Type.Literal(true),
  topics: Type.Integer(),
});
export type Ready = Static<typeof Ready>;

/** What the storage did since the start. */
export const WalFigures = Type.Object({
  batches: Type.Integer(),
  bytes_written: Type.Integer(),
  frames: Type.Integer(),
  fsync_count: Type.Integer(),
  fsync_micros_total: Type.Integer(),
  fsyncs: Type.Integer(),
  queue_depth: Type.Integer(),
  queue_depth_peak: Type.Integer(),
  read_only: Type.Integer(),
  rotations: Type.Integer(),
  submit_full_total: Type.Integer(),
});

/** What is there of feeds, and what has become of events since the start. */
export const FeedTotals = Type.Object({
  events: Type.Integer(),
  records: Type.Integer(),
  bytes: Type.Integer(),
  subscriptions: Type.Integer(),
  posted: Type.Integer(),
  accepted: Type.Integer(),
  duplicates: Type.Integer(),
  rejected: Type.Integer(),
});

/** Answer of `GET /v0/metrics` as JSON. */
export const ServerFigures = Type.Object({
  bytes_live: Type.Integer(),
  feeds: FeedTotals,
  queue_leases_in_flight: Type.Integer(),
  queue_topics: Type.Integer(),
  ready: Type.Boolean(),
  records_live: Type.Integer(),
  replay_progress: Type.Number(),
  routers: Type.Integer(),
  sse_connections: Type.Integer(),
  topics: Type.Integer(),
  topics_disk: Type.Integer(),
  topics_ephemeral: Type.Integer(),
  topics_fsync: Type.Integer(),
  topics_memory: Type.Integer(),
  uptime_ms: Type.Integer(),
  wal: WalFigures,
  watch_sessions: Type.Integer(),
});
export type ServerFigures = Static<typeof ServerFigures>;
