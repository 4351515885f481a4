/**
 * What a claim costs when very many jobs wait or are leased: one client, one request at a time. Each
 * claimed job is done and replaced by a new one, so that as many wait for the next claim.
 */
import { click, fill, must } from "./client.ts";
import { Connection, post } from "./connection.ts";
import { medians, percentile } from "./figures.ts";
import { CLAIM_JOBS, QUEUE } from "./jobs.ts";
import { acknowledge, seqsOf } from "./leases.ts";
import type { Bench } from "./loads.ts";
import { atRest, type Server, withServer } from "./server.ts";

const NODE = "worker-0";
/** The most jobs that one claim hands out. */
const CLAIM_JOBS_MAX = 1000;
const HELD_MS = 3_600_000;
/** Enough for a fresh server to reach its pace, or else the first depth would look the slowest. */
const WARM_UP_CLAIMS = 2000;

export interface Depth {
  readonly ready: number;
  readonly inFlight: number;
  readonly figures: ClaimFigures;
}

export interface ClaimFigures {
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly ackP50Ms: number;
}

/** From the smallest queue to the largest, since it only grows. */
export async function measureDepths(bench: Bench): Promise<Depth[]> {
  const [unit, claims] = bench.quick ? [100, 200] : [1000, 1000];
  const depths = [
    { ready: unit, inFlight: 0 },
    { ready: 100 * unit, inFlight: 0 },
    { ready: 1000 * unit, inFlight: 0 },
    { ready: 1000 * unit, inFlight: 100 * unit },
  ];
  return withServer(bench.binary, bench.directory, async (server) => {
    await must(server.url, "PUT", `/v0/topics/${QUEUE}`, { type: "queue", durability: "disk" });
    using connection = await Connection.open(server.url);
    const measured: Depth[] = [];
    for (const { ready, inFlight } of depths) {
      bench.say(`queue: claims with ${ready} ready, ${inFlight} in flight`);
      await bring(server, ready, inFlight);
      await atRest(server.pid);
      await claimTimes(connection, WARM_UP_CLAIMS);
      const runs: ClaimFigures[] = [];
      while (runs.length < bench.times) runs.push(await claimTimes(connection, claims));
      measured.push({ ready, inFlight, figures: medians(runs) });
    }
    return measured;
  });
}

/** Adds and leases jobs until as many as asked for are ready and in flight. */
async function bring({ url }: Server, ready: number, inFlight: number): Promise<void> {
  const state = async () => (await must(url, "GET", `/v0/topics/${QUEUE}`)).queue;
  const before = await state();
  await fill(url, QUEUE, ready + inFlight - before.ready - before.in_flight);
  for (let missing = inFlight - before.in_flight; missing > 0; missing -= CLAIM_JOBS_MAX) {
    const max = Math.min(missing, CLAIM_JOBS_MAX);
    await must(url, "POST", `/v0/topics/${QUEUE}/claim`, { node: "holder", max, lease_ms: HELD_MS });
  }
  const now = await state();
  if (now.ready !== ready || now.in_flight !== inFlight) {
    throw new Error(`${ready} jobs ready and ${inFlight} in flight are wanted, not ${JSON.stringify(now)}`);
  }
}

async function claimTimes(connection: Connection, claims: number): Promise<ClaimFigures> {
  const claim = post(`/v0/topics/${QUEUE}/claim`, JSON.stringify({ node: NODE, max: CLAIM_JOBS }));
  const records = Array.from({ length: CLAIM_JOBS }, (_, i) => ({ data: click(i) }));
  const replace = post(`/v0/topics/${QUEUE}`, JSON.stringify({ records }));
  const claimsMs: number[] = [];
  const acksMs: number[] = [];
  while (claimsMs.length < claims) {
    const askedAt = performance.now();
    const seqs = seqsOf(await connection.send(claim));
    const claimedAt = performance.now();
    await acknowledge(connection, NODE, seqs);
    claimsMs.push(claimedAt - askedAt);
    acksMs.push(performance.now() - claimedAt);
    if (seqs.length !== CLAIM_JOBS) throw new Error(`${seqs.length} jobs were claimed, not ${CLAIM_JOBS}`);
    await connection.send(replace);
  }
  return {
    p50Ms: percentile(claimsMs, 0.5),
    p99Ms: percentile(claimsMs, 0.99),
    ackP50Ms: percentile(acksMs, 0.5),
  };
}
