/** The commands of those who hold jobs: finish them, give them back, keep them longer. */
import { ApiError } from "../contract/errors.ts";
import type { AckJobs, ExtendLeases, HeldJobs, JobsHeld, NackJobs, ReleaseStream } from "./commands.ts";
import { remove } from "./deletion.ts";
import type { Group } from "./group.ts";
import { type Job, type Jobs, returned } from "./jobs.ts";
import { expire } from "./retention.ts";
import type { Topic } from "./topic.ts";

/** A queue, about to change, after what time has done. Throws `topic_not_found`, `not_a_queue`. */
export function queueIn(group: Group, name: string, now: number): { topic: Topic; jobs: Jobs } {
  const topic = group.existing(name);
  const { jobs } = topic;
  if (jobs === undefined) throw new ApiError("not_a_queue", { topic: name });
  expire(group, topic, now);
  jobs.settle(now);
  return { topic, jobs };
}

/** Deletes the jobs. One whose record is gone already counts, too. */
export function ack(group: Group, command: AckJobs): JobsHeld {
  const rows: { seq: number; bytes: number }[] = [];
  const held = forHeld(group, command, (jobs, seq, job) => {
    if (!job.gone) rows.push({ seq, bytes: job.bytes });
    jobs.set(seq, undefined);
  });
  const topic = group.existing(command.topic);
  if (rows.length > 0) remove(topic, rows);
  return { ...held, ready: topic.ready };
}

export function nack(group: Group, command: NackJobs): JobsHeld {
  const until = command.delayMs === 0 ? 0 : command.now + command.delayMs;
  return forHeld(group, command, (jobs, seq, job) => giveBack(jobs, seq, job, until));
}

export function extend(group: Group, command: ExtendLeases): JobsHeld {
  const until = command.now + command.leaseMs;
  return forHeld(group, command, (jobs, seq, job) => jobs.set(seq, { ...job, until }));
}

export function release(group: Group, { topic: name, stream, now }: ReleaseStream): null {
  const jobs = group.find(name)?.jobs;
  if (jobs === undefined) return null;
  jobs.settle(now);
  for (const seq of [...jobs.heldOn(stream)]) giveBack(jobs, seq, jobs.get(seq)!, 0);
  return null;
}

function giveBack(jobs: Jobs, seq: number, job: Job, until: number): void {
  jobs.set(seq, job.gone ? undefined : returned(job, until));
}

/** Does `each` to every job that the node holds under the lease it names. */
function forHeld(
  group: Group,
  { topic: name, node, held, now }: HeldJobs,
  each: (jobs: Jobs, seq: number, job: Job) => void,
): JobsHeld {
  const { topic, jobs } = queueIn(group, name, now);
  const done: number[] = [];
  const skipped: number[] = [];
  for (const [i, { seq, lease }] of held.entries()) {
    const job = jobs.get(seq);
    const isHeld = job !== undefined && job.lease !== null && job.node === node;
    if (isHeld && (lease === null || lease === job.lease)) {
      each(jobs, seq, job);
      done.push(i);
    } else skipped.push(i);
  }
  return { done, skipped, ready: topic.ready, inFlight: jobs.inFlight };
}
