/** What an answer cost: the block that every JSON answer carries. Times are ms with fractions. */
import { type TObject, Type } from "@sinclair/typebox";

export const Performance = Type.Object({
  server_total_ms: Type.Number(),
});

/** Of an append. A deduplicated one has only the total. */
export const AppendPerformance = Type.Object({
  server_total_ms: Type.Number(),
  wal_append_ms: Type.Optional(Type.Number()),
  fsync_ms: Type.Optional(Type.Number()),
});

/** Of an ack. A sync is told of where there was one. */
export const AckPerformance = Type.Object({
  server_total_ms: Type.Number(),
  fsync_ms: Type.Optional(Type.Number()),
});

/** Of a diff. The total leaves out what the client asked to wait. */
export const DiffPerformance = Type.Object({
  server_total_ms: Type.Number(),
  records_scanned: Type.Integer(),
});

/** An answer as it is sent. */
export const measured = (answer: TObject, performance: TObject): TObject =>
  Type.Object({ ...answer.properties, performance });
