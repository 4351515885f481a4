/**
 * The tables of watching: what a record to many listeners costs, beside Redis and NATS; one stream on many
 * topics; what streams cost that are only held; and how fast streams come from the first record to the head.
 */
import { chmod } from "node:fs/promises";
import { join, resolve } from "node:path";
import type { CatchUpFigures, CatchUpPlan } from "./catchup.ts";
import { type System, TOPIC } from "./channels.ts";
import { fill, must } from "./client.ts";
import type { FanOutFigures, FanOutPlan } from "./fanout.ts";
import { medians } from "./figures.ts";
import type { Held, HeldFigures, HeldPlan } from "./held.ts";
import type { Bench } from "./loads.ts";
import { startNats } from "./nats.ts";
import { memory, run, temporaryDirectory } from "./process.ts";
import { startRedis } from "./redis.ts";
import { atRest, withServer } from "./server.ts";
import { SPREAD_TOPICS, type SpreadFigures, type SpreadPlan, spreadTopic } from "./spread.ts";
import type { Tools } from "./tools.ts";

export interface Watch {
  readonly fanOut: FanOutRow[];
  readonly ratios: FanOutRatio[];
  readonly spread: SpreadRow[];
  readonly held: HeldRow[];
  readonly catchUp: CatchUpRow[];
}

export const nothingWatched: Watch = { fanOut: [], ratios: [], spread: [], held: [], catchUp: [] };

export interface FanOutRow {
  readonly system: System;
  readonly watchers: number;
  readonly rounds: number;
  readonly figures: FanOutFigures;
}

/** Our figures by theirs, with the most watchers. */
export interface FanOutRatio {
  readonly system: System;
  readonly to: System;
  readonly serverCpu: number;
  readonly p50: number;
}

export interface SpreadRow {
  readonly topics: number;
  readonly writers: number;
  readonly figures: SpreadFigures;
}

export interface HeldRow {
  readonly streams: number;
  readonly seconds: number;
  readonly figures: Held;
}

export interface CatchUpRow {
  readonly streams: number;
  readonly records: number;
  readonly limit: number;
  readonly figures: CatchUpFigures;
  readonly peakBytes: number;
}

const ours: readonly System[] = ["sse", "websocket"];
const HEARTBEAT_MS = 15_000;

export async function measureWatch(bench: Bench, tools: Tools): Promise<Watch> {
  const fanOut = await measureFanOut(bench, tools);
  return {
    fanOut,
    ratios: fanOutRatios(fanOut),
    spread: await measureSpread(bench),
    held: await measureHeld(bench),
    catchUp: await measureCatchUp(bench),
  };
}

async function measureFanOut(bench: Bench, tools: Tools): Promise<FanOutRow[]> {
  const [sizes, rounds] = bench.quick ? [[1, 100], 33] : [[1, 10, 100, 1000], 111];
  const systems: System[] = [...ours];
  if (tools.redis) systems.push("pubsub", "streams");
  if (tools.nats) systems.push("nats");
  const rows: FanOutRow[] = [];
  for (const watchers of sizes) {
    for (const system of systems) {
      bench.say(`watch: one record to ${watchers}, ${system}`);
      const runs = await withSystem(bench, system, (url, pid) =>
        generate<FanOutPlan, FanOutFigures[]>({
          ...{ kind: "fan-out", system, url, pid },
          ...{ watchers, rounds, times: bench.times },
        }),
      );
      rows.push({ system, watchers, rounds, figures: medians(runs) });
    }
  }
  return rows;
}

/** A new server of the system; ours has the topic. */
async function withSystem<T>(
  bench: Bench,
  system: System,
  work: (url: string, pid: number) => Promise<T>,
): Promise<T> {
  if (system === "nats") {
    await using nats = await startNats(bench.directory);
    return await work(nats.url, nats.pid);
  }
  if (system === "pubsub" || system === "streams") {
    await using redis = await startRedis(bench.directory, "everysec");
    return await work(`redis://127.0.0.1:${redis.port}`, redis.pid);
  }
  return withServer(bench.binary, bench.directory, async ({ url, pid }) => {
    await must(url, "PUT", `/v0/topics/${TOPIC}`, { durability: "disk" });
    return work(url, pid);
  });
}

function fanOutRatios(rows: FanOutRow[]): FanOutRatio[] {
  const most = rows.filter(({ watchers }) => watchers === Math.max(...rows.map((row) => row.watchers)));
  const isOurs = ({ system }: FanOutRow) => ours.includes(system);
  const others = most.filter((row) => !isOurs(row));
  return most.filter(isOurs).flatMap(({ system, figures }) =>
    others.map((other) => ({
      system,
      to: other.system,
      serverCpu: figures.serverCpuSeconds / other.figures.serverCpuSeconds,
      p50: figures.p50Ms / other.figures.p50Ms,
    })),
  );
}

async function measureSpread(bench: Bench): Promise<SpreadRow[]> {
  const unit = bench.quick ? 512 : 2560;
  const rows: SpreadRow[] = [];
  for (const { writers, writes } of [
    { writers: 1, writes: unit },
    { writers: 16, writes: 4 * unit },
  ]) {
    bench.say(`watch: one stream on ${SPREAD_TOPICS} topics, ${writers} writers`);
    const runs = await withServer(bench.binary, bench.directory, async ({ url, pid }) => {
      for (let i = 0; i < SPREAD_TOPICS; i++) {
        await must(url, "PUT", `/v0/topics/${spreadTopic(i)}`, { durability: "disk" });
      }
      const { times } = bench;
      return generate<SpreadPlan, SpreadFigures[]>({ kind: "spread", url, pid, writers, writes, times });
    });
    rows.push({ topics: SPREAD_TOPICS, writers, figures: medians(runs) });
  }
  return rows;
}

async function measureHeld(bench: Bench): Promise<HeldRow[]> {
  const sizes = bench.quick
    ? [{ streams: 100, seconds: 2, heartbeatMs: 1000 }]
    : [
        { streams: 1000, seconds: 30, heartbeatMs: HEARTBEAT_MS },
        { streams: 10_000, seconds: 60, heartbeatMs: HEARTBEAT_MS },
      ];
  await using directory = await temporaryDirectory(bench.directory);
  const unlimited = await withoutLimits(bench.binary, directory.path);
  const rows: HeldRow[] = [];
  for (const { streams, seconds, heartbeatMs } of sizes) {
    const runs: HeldFigures[] = [];
    let refusal: string | undefined;
    while (runs.length < bench.times && !refusal) {
      bench.say(`watch: ${streams} streams held for ${seconds} s, run ${runs.length + 1}`);
      // Each run has a server of its own, whose memory nothing else has grown.
      const held = await withServer(unlimited, bench.directory, async ({ url, pid }) => {
        await must(url, "PUT", `/v0/topics/${TOPIC}`, { durability: "disk" });
        return generate<HeldPlan, Held>({ kind: "held", url, pid, streams, seconds, heartbeatMs });
      });
      if (typeof held === "string") refusal = held;
      else runs.push(held);
    }
    rows.push({ streams, seconds, figures: refusal ?? medians(runs) });
  }
  return rows;
}

/** A program that becomes the server, with as many streams as may come. */
async function withoutLimits(binary: string, directory: string): Promise<string> {
  const program = join(directory, "unlimited");
  const limits = "TOPICS_MAX_SSE_CONNECTIONS=0 TOPICS_MAX_WATCH_SESSIONS=0";
  await Bun.write(program, `#!/bin/sh\n${limits} exec '${resolve(binary)}'\n`);
  await chmod(program, 0o700);
  return program;
}

async function measureCatchUp(bench: Bench): Promise<CatchUpRow[]> {
  const most = bench.quick ? 100_000 : 1_000_000;
  const loads = [
    { streams: 1, records: most, limit: 256 },
    { streams: 1, records: most, limit: 1000 },
    { streams: bench.quick ? 10 : 100, records: most / 10, limit: 256 },
  ];
  const rows: CatchUpRow[] = [];
  for (const { streams, records, limit } of loads) {
    bench.say(`watch: ${streams} streams read ${records} records from the start, limit ${limit}`);
    await withServer(bench.binary, bench.directory, async ({ url, pid }) => {
      await fill(url, TOPIC, records);
      await atRest(pid);
      const { times } = bench;
      const plan: CatchUpPlan = { kind: "catch-up", url, pid, streams, records, limit, times };
      const runs = await generate<CatchUpPlan, CatchUpFigures[]>(plan);
      const { peak } = await memory(pid);
      rows.push({ streams, records, limit, figures: medians(runs), peakBytes: peak });
    });
  }
  return rows;
}

async function generate<P, F>(plan: P): Promise<F> {
  const program = join(import.meta.dir, "watchers.ts");
  const { stdout } = await run([process.execPath, program, JSON.stringify(plan)]);
  return JSON.parse(stdout) as F;
}
