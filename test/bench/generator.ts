/**
 * The load generator of the queue rows, a program of its own so that its CPU time is its own:
 * `bun generator.ts <plan as JSON>` prints the figures of each run as JSON.
 */
import { type JobFigures, type JobQueue, type Plan, runJobs } from "./jobs.ts";

/** Compiles the hot code on both sides, which takes some ten thousand requests; not measured. */
const WARM_UP_MS = 2000;

const plan = JSON.parse(process.argv[2]!) as Plan;
const runs: JobFigures[] = [];
{
  await using queue = await open(plan);
  const warmAt = performance.now() + WARM_UP_MS;
  while (performance.now() < warmAt) await runJobs(queue, plan.pid, plan.jobs);
  while (runs.length < plan.times) runs.push(await runJobs(queue, plan.pid, plan.jobs));
}
console.info(JSON.stringify(runs));

/** Loads only the client that is asked for. */
async function open({ client, url }: Plan): Promise<JobQueue> {
  switch (client) {
    case "claim":
      return (await import("./leases.ts")).openClaims(url);
    case "work":
      return (await import("./leases.ts")).openStreams(url);
    case "bullmq":
      return (await import("./bullmq.ts")).openBullmq(url, "one worker");
    case "bullmq workers":
      return (await import("./bullmq.ts")).openBullmq(url, "many workers");
    case "postgres":
      return (await import("./skiplocked.ts")).openTable(url);
  }
}
