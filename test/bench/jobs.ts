/**
 * A job queue as the loads see it, whatever system it is in: producers add jobs, then workers take and
 * finish them until none is left. `generator.ts` does so in a process of its own.
 */
import { percentile } from "./figures.ts";
import { familyCpuSeconds } from "./process.ts";

export const PRODUCERS = 16;
export const BATCH_JOBS = 100;
export const WORKERS = 50;
/** The most jobs that a worker holds at a time. */
export const CLAIM_JOBS = 8;
/** The queue, where it has a name. */
export const QUEUE = "jobs";

/** How to reach a queue: claims or streams of ours, one worker or many of BullMQ, PostgreSQL. */
export type Client = "claim" | "work" | "bullmq" | "bullmq workers" | "postgres";

/** What a generator is asked to do. */
export interface Plan {
  readonly client: Client;
  readonly url: string;
  /** The server's process, whose CPU time is measured. */
  readonly pid: number;
  readonly jobs: number;
  readonly times: number;
}

/** Figures of one run. `null` is what the system does not tell. */
export interface JobFigures {
  readonly producedPerSecond: number;
  readonly jobsPerSecond: number;
  /** From asking for jobs until they are there. */
  readonly claimP50Ms: number | null;
  readonly claimP99Ms: number | null;
  /** Jobs of the worker that did the fewest, and of the one that did the most. */
  readonly fewest: number | null;
  readonly most: number | null;
  readonly serverMicrosPerJob: number;
  readonly serverCpuShare: number;
  readonly generatorCpuShare: number;
}

export interface JobQueue extends AsyncDisposable {
  /** Adds `count` jobs, from `PRODUCERS` connections in batches. */
  produce(count: number): Promise<void>;
  /** Workers that are connected and have not yet asked for anything. */
  hire(): Promise<Workers>;
}

export interface Workers extends AsyncDisposable {
  /** Takes and finishes all `count` jobs that are there. */
  finish(count: number): Promise<Finished>;
}

export interface Finished {
  readonly claimsMs: number[];
  readonly jobsOfWorkers: number[];
}

/** One run. Of the producing one learns the rate; the rest is about the workers. */
export async function runJobs(queue: JobQueue, pid: number, jobs: number): Promise<JobFigures> {
  const producingAt = performance.now();
  await queue.produce(jobs);
  const producedPerSecond = jobs / ((performance.now() - producingAt) / 1000);
  await using workers = await queue.hire();
  const serverBefore = await familyCpuSeconds(pid);
  const generatorBefore = process.cpuUsage();
  const startedAt = performance.now();
  const { claimsMs, jobsOfWorkers } = await workers.finish(jobs);
  const seconds = (performance.now() - startedAt) / 1000;
  const generator = process.cpuUsage(generatorBefore);
  const serverSeconds = (await familyCpuSeconds(pid)) - serverBefore;
  const done = jobsOfWorkers.reduce((sum, one) => sum + one, 0);
  if (done !== jobs) throw new Error(`${done} jobs were done, and ${jobs} were there`);
  const several = jobsOfWorkers.length > 1;
  return {
    producedPerSecond,
    jobsPerSecond: jobs / seconds,
    claimP50Ms: claimsMs.length > 0 ? percentile(claimsMs, 0.5) : null,
    claimP99Ms: claimsMs.length > 0 ? percentile(claimsMs, 0.99) : null,
    fewest: several ? Math.min(...jobsOfWorkers) : null,
    most: several ? Math.max(...jobsOfWorkers) : null,
    serverMicrosPerJob: (serverSeconds * 1e6) / jobs,
    serverCpuShare: serverSeconds / seconds,
    generatorCpuShare: (generator.user + generator.system) / 1e6 / seconds,
  };
}

/** Lets `PRODUCERS` senders share `count` jobs in batches; each gets the number of its batch's first job. */
export async function inBatches<P>(
  producers: P[],
  count: number,
  send: (producer: P, first: number) => Promise<unknown>,
): Promise<void> {
  let next = 0;
  const produce = async (producer: P) => {
    while (next < count) {
      const first = next;
      next += BATCH_JOBS;
      await send(producer, first);
    }
  };
  await Promise.all(producers.map(produce));
}
