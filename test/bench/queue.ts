/**
 * The table of the job queue: the same jobs through our queue, through BullMQ on Redis, and through a table
 * in PostgreSQL, with as many workers; and what a claim costs when very many jobs wait.
 */
import { join } from "node:path";
import { must } from "./client.ts";
import { medians } from "./figures.ts";
import { CLAIM_JOBS, type Client, type JobFigures, type Plan, QUEUE } from "./jobs.ts";
import type { Bench } from "./loads.ts";
import { startPostgres } from "./postgres.ts";
import { run } from "./process.ts";
import { startRedis } from "./redis.ts";
import { withServer } from "./server.ts";
import type { Tools } from "./tools.ts";

export type JobSystem = "topics" | "bullmq" | "postgres";
export type JobWork = "disk" | "fsync";

export interface JobRow {
  readonly system: JobSystem;
  /** How hard jobs and acknowledgements are kept: rows of different systems with equal work are compared. */
  readonly work: JobWork;
  readonly by: string;
  readonly jobs: number;
  readonly figures: JobFigures;
}

export interface JobRatio {
  readonly work: JobWork;
  readonly by: string;
  /** Our jobs per second by theirs. */
  readonly toBullmq: number | undefined;
  readonly toPostgres: number | undefined;
}

const claims = `claim ${CLAIM_JOBS}, ack`;
const streams = `work max=${CLAIM_JOBS}, ack`;

const ours = [
  { work: "disk", client: "claim", by: claims, durableLeases: false },
  { work: "fsync", client: "claim", by: claims, durableLeases: false },
  { work: "disk", client: "claim", by: `${claims}, durable leases`, durableLeases: true },
  { work: "fsync", client: "claim", by: `${claims}, durable leases`, durableLeases: true },
  { work: "disk", client: "work", by: streams, durableLeases: false },
  { work: "fsync", client: "work", by: streams, durableLeases: false },
] as const;

const bullmq = [
  { work: "disk", client: "bullmq", by: "1 worker, concurrency 50", appendfsync: "everysec" },
  { work: "fsync", client: "bullmq", by: "1 worker, concurrency 50", appendfsync: "always" },
  { work: "disk", client: "bullmq workers", by: "50 workers", appendfsync: "everysec" },
  { work: "fsync", client: "bullmq workers", by: "50 workers", appendfsync: "always" },
] as const;

const postgres = [
  { work: "disk", synchronousCommit: "off" },
  { work: "fsync", synchronousCommit: "on" },
] as const;

export async function measureQueue(bench: Bench, tools: Tools): Promise<JobRow[]> {
  const jobs = bench.quick ? 4000 : 20_000;
  const rows: JobRow[] = [];
  const row = async (system: JobSystem, work: JobWork, by: string, load: Load) => {
    rows.push({ system, work, by, jobs, figures: await generate({ ...load, jobs, times: bench.times }) });
  };
  for (const { work, client, by, durableLeases } of ours) {
    bench.say(`queue: topics, ${by}, ${work}`);
    await withServer(bench.binary, bench.directory, async ({ url, pid }) => {
      const config = { type: "queue", durability: work, leases_durable: durableLeases };
      await must(url, "PUT", `/v0/topics/${QUEUE}`, config);
      await row("topics", work, by, { client, url, pid });
      const { count, queue } = await must(url, "GET", `/v0/topics/${QUEUE}`);
      if (count > 0 || queue.ready > 0 || queue.in_flight > 0) {
        throw new Error(`All jobs are done, and the queue says ${JSON.stringify({ count, queue })}`);
      }
    });
  }
  for (const { work, client, by, appendfsync } of tools.redis ? bullmq : []) {
    bench.say(`queue: BullMQ, ${by}, ${work}`);
    await using redis = await startRedis(bench.directory, appendfsync);
    const url = `redis://127.0.0.1:${redis.port}`;
    await row("bullmq", work, `${by}, ${appendfsync}`, { client, url, pid: redis.pid });
  }
  for (const { work, synchronousCommit } of tools.postgres ? postgres : []) {
    bench.say(`queue: PostgreSQL, ${work}`);
    await using server = await startPostgres(bench.directory, synchronousCommit);
    const by = `SKIP LOCKED ${CLAIM_JOBS}, commit ${synchronousCommit}`;
    await row("postgres", work, by, { client: "postgres", url: server.url, pid: server.pid });
  }
  return rows;
}

/** Our figures by the best of the others, for the same work. */
export function jobRatios(rows: JobRow[]): JobRatio[] {
  const rate = (system: JobSystem, work: JobWork) => {
    const rates = rows.filter((row) => row.system === system && row.work === work);
    return Math.max(...rates.map(({ figures }) => figures.jobsPerSecond));
  };
  return rows
    .filter((row) => row.system === "topics")
    .map(({ work, by, figures }) => {
      const against = (system: JobSystem) => {
        const other = rate(system, work);
        return other > 0 ? figures.jobsPerSecond / other : undefined;
      };
      return { work, by, toBullmq: against("bullmq"), toPostgres: against("postgres") };
    });
}

type Load = Readonly<{ client: Client; url: string; pid: number }>;

async function generate(plan: Plan): Promise<JobFigures> {
  const program = join(import.meta.dir, "generator.ts");
  const { stdout } = await run([process.execPath, program, JSON.stringify(plan)]);
  return medians(JSON.parse(stdout) as JobFigures[]);
}
