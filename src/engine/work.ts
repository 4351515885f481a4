/** Leased jobs as clients get them: as JSON, and as frames of a stream of work. */
import { ApiError } from "../contract/errors.ts";
import type { WorkEnded } from "../contract/queues.ts";
import type { LeasedJob } from "./commands.ts";

/** What a stream of work says: jobs as JSON, or why it ends. */
export type WorkFrame =
  | { readonly event: "job"; readonly id: number; readonly data: string }
  | { readonly event: "error"; readonly data: WorkEnded };

/** A leased job as JSON: the stored texts under the names of the contract. `first` are members to begin with. */
export function encodeJob({ row, lease, deadline, deliveries }: LeasedJob, first = ""): string {
  const tag = row.tag === null ? "" : `,"$tag":${row.tag}`;
  const meta = row.meta === null ? "" : `,"meta":${row.meta}`;
  return (
    `{${first}"$seq":${row.seq},"lease_id":"lease_${lease}","deadline":${deadline},"$ts":${row.ts}${tag}` +
    `,"deliveries":${deliveries},"data":${row.data}${meta}}`
  );
}

export const frameOf = (topic: string, job: LeasedJob): WorkFrame => ({
  event: "job",
  id: job.row.seq,
  data: encodeJob(job, `"topic":${JSON.stringify(topic)},`),
});

export const ending = (topic: string, error: Error): WorkEnded =>
  error instanceof ApiError && error.code === "topic_not_found"
    ? { code: 409, error: "the topic is no longer a queue", topic }
    : { code: "internal", error: error instanceof ApiError ? error.message : "internal error", topic };

export const shuttingDown = (topic: string): WorkEnded => ({
  code: "server_shutting_down",
  error: "the server is shutting down; reconnect",
  topic,
});
