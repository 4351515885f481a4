/**
 * One record at a time to everybody who listens: the next one is written when the last listener has heard
 * the one before. `watchers.ts` does so in a process of its own.
 */
import { Audience } from "./audience.ts";
import { openChannel, type System } from "./channels.ts";
import { percentile } from "./figures.ts";
import { cpuSeconds } from "./process.ts";

/** Compiles the hot code on both sides; not measured. */
const WARM_UP_MS = 1000;
const ROUND_DEADLINE_MS = 20_000;
/** What a server puts off until after the last delivery is part of its work. */
const SETTLE_MS = 100;

export interface FanOutPlan {
  readonly kind: "fan-out";
  readonly system: System;
  readonly url: string;
  /** The server's process, whose CPU time is measured. */
  readonly pid: number;
  readonly watchers: number;
  readonly rounds: number;
  readonly times: number;
}

export interface FanOutFigures {
  readonly deliveriesPerSecond: number;
  /** From sending the write until a listener has the record, over all deliveries. */
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** CPU time of the server for all rounds. */
  readonly serverCpuSeconds: number;
  readonly serverMicrosPerDelivery: number;
  readonly serverCpuShare: number;
  readonly generatorCpuShare: number;
}

export async function fanOut(plan: FanOutPlan): Promise<FanOutFigures[]> {
  using channel = await openChannel(plan.system, plan.url);
  using audience = await Audience.open(plan.url, await channel.subscriptions(plan.watchers));
  let rounds = 0;
  const round = async (latencies: number[]) => {
    rounds += 1;
    audience.reply = channel.reply?.(rounds);
    const sentAt = performance.now();
    const heard = audience.hear(plan.watchers, ROUND_DEADLINE_MS, (marks) => {
      const latency = performance.now() - sentAt;
      for (let i = 0; i < marks; i++) latencies.push(latency);
    });
    await Promise.all([channel.publish(rounds), heard]);
  };
  const warmAt = performance.now() + WARM_UP_MS;
  while (performance.now() < warmAt) await round([]);
  const runs: FanOutFigures[] = [];
  while (runs.length < plan.times) runs.push(await measureRounds(plan, round));
  audience.check(rounds);
  return runs;
}

async function measureRounds(
  { pid, watchers, rounds }: FanOutPlan,
  round: (latencies: number[]) => Promise<void>,
): Promise<FanOutFigures> {
  const latencies: number[] = [];
  await Bun.sleep(SETTLE_MS);
  const serverBefore = await cpuSeconds(pid);
  const generatorBefore = process.cpuUsage();
  const startedAt = performance.now();
  for (let i = 0; i < rounds; i++) await round(latencies);
  const seconds = (performance.now() - startedAt) / 1000;
  const generator = process.cpuUsage(generatorBefore);
  await Bun.sleep(SETTLE_MS);
  const serverCpuSeconds = (await cpuSeconds(pid)) - serverBefore;
  const deliveries = watchers * rounds;
  return {
    deliveriesPerSecond: deliveries / seconds,
    p50Ms: percentile(latencies, 0.5),
    p99Ms: percentile(latencies, 0.99),
    serverCpuSeconds,
    serverMicrosPerDelivery: (serverCpuSeconds * 1e6) / deliveries,
    serverCpuShare: serverCpuSeconds / seconds,
    generatorCpuShare: (generator.user + generator.system) / 1e6 / seconds,
  };
}
