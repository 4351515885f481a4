/** BullMQ as the loads use it, as its documentation shows: jobs are removed when they are completed. */
import { type ConnectionOptions, Queue, Worker } from "bullmq";
import { click } from "./client.ts";
import {
  BATCH_JOBS,
  type Finished,
  inBatches,
  type JobQueue,
  PRODUCERS,
  QUEUE,
  WORKERS,
  type Workers,
} from "./jobs.ts";

/** One worker that works on many jobs at a time is faster; many workers show how evenly jobs are shared. */
export async function openBullmq(url: string, by: "one worker" | "many workers"): Promise<JobQueue> {
  const { hostname, port } = new URL(url);
  const connection = { host: hostname, port: Number(port) };
  const queues = Array.from({ length: PRODUCERS }, () => new Queue(QUEUE, { connection }));
  await Promise.all(queues.map((queue) => queue.waitUntilReady()));
  return {
    produce: (count) => inBatches(queues, count, (queue, first) => queue.addBulk(batch(first))),
    hire: () => (by === "one worker" ? hire(connection, 1, WORKERS) : hire(connection, WORKERS, 1)),
    [Symbol.asyncDispose]: async () => {
      await Promise.all(queues.map((queue) => queue.close()));
    },
  };
}

const batch = (first: number) =>
  Array.from({ length: BATCH_JOBS }, (_, i) => ({
    name: "click",
    data: click(first + i),
    opts: { removeOnComplete: true },
  }));

async function hire(connection: ConnectionOptions, length: number, concurrency: number): Promise<Workers> {
  const all = Array.from({ length }, () => new CountingWorker(connection, concurrency));
  await Promise.all(all.map(({ worker }) => worker.waitUntilReady()));
  return {
    finish: (count) => finish(all, count),
    [Symbol.asyncDispose]: async () => {
      await Promise.all(all.map(({ worker }) => worker.close(true)));
    },
  };
}

async function finish(all: CountingWorker[], count: number): Promise<Finished> {
  const finished = Promise.withResolvers<void>();
  let left = count;
  const completed = () => {
    left -= 1;
    if (left === 0) finished.resolve();
  };
  for (const { worker } of all) {
    worker.on("completed", completed);
    worker.on("error", finished.reject);
    worker.run().catch(finished.reject);
  }
  await finished.promise;
  return { claimsMs: all.flatMap(({ claimsMs }) => claimsMs), jobsOfWorkers: all.map(({ done }) => done) };
}

/**
 * Where one job is done at a time, the time between two of them is that of one exchange with Redis, which
 * finishes a job and takes the next.
 */
class CountingWorker {
  readonly worker: Worker;
  readonly claimsMs: number[] = [];
  done = 0;
  #doneAt: number | undefined;

  constructor(connection: ConnectionOptions, concurrency: number) {
    const work = async () => {
      const now = performance.now();
      if (concurrency === 1 && this.#doneAt !== undefined) this.claimsMs.push(now - this.#doneAt);
      this.#doneAt = now;
      this.done += 1;
    };
    this.worker = new Worker(QUEUE, work, { connection, concurrency, autorun: false });
  }
}
