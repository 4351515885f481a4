/**
 * The first table: appends and reads at full speed, and beside them Redis Streams and a bare server in
 * the same run. Each append row has a server process of its own, so that its peak memory is the row's;
 * the rows that read share one, and its peak is that of the rows so far.
 */

import { startBare } from "./ceiling.ts";
import { call, fill } from "./client.ts";
import { type Figures, measure, repeat } from "./figures.ts";
import { type Bench, CONNECTIONS, measureAppends, measureDiffs, WARM_UP_SECONDS } from "./loads.ts";
import { memory } from "./process.ts";
import { append, calibrateAppend, fillStream, readPages, startRedis } from "./redis.ts";
import { withServer } from "./server.ts";
import type { Tools } from "./tools.ts";
import { appendLoad, diffLoad, flood, type Load, type PageOrder } from "./wrk.ts";

const BATCH_RECORDS = 100;
const PAGE_RECORDS = 1000;
const TAIL_RECORDS = 10;

export type System = "topics" | "redis" | "bare";

export interface Row {
  readonly system: System;
  /** What is done, in the words of our API: rows of different systems with equal work are compared. */
  readonly work: string;
  /** How this system does it. */
  readonly by: string;
  readonly figures: Figures;
  readonly peakBytes: number;
}

export interface Ratio {
  readonly work: string;
  /** Our calls per second by theirs. */
  readonly toRedis: number | undefined;
  readonly toBare: number | undefined;
}

const appends = [
  { records: BATCH_RECORDS, durability: "disk", appendfsync: "everysec" },
  { records: BATCH_RECORDS, durability: "fsync", appendfsync: "always" },
  { records: 1, durability: "disk", appendfsync: "everysec" },
  { records: 1, durability: "fsync", appendfsync: "always" },
] as const;

const reads = [
  { order: "hot", limit: PAGE_RECORDS },
  { order: "walk", limit: PAGE_RECORDS },
  { order: "random", limit: PAGE_RECORDS },
  { order: "tail", limit: TAIL_RECORDS },
] as const;

const appendWork = (records: number, durability: string) => `append ${records}, ${durability}`;
const readWork = (order: PageOrder, limit: number) => `diff ${limit}, ${order}`;

export async function measureThroughput(bench: Bench, tools: Tools): Promise<Row[]> {
  const stored = bench.quick ? 100_000 : 1_000_000;
  const rows: Row[] = [];
  if (tools.wrk) rows.push(...(await measureServer(bench, stored)));
  if (tools.redis) rows.push(...(await measureRedis(bench, stored)));
  if (tools.wrk) rows.push(...(await measureBare(bench)));
  return rows;
}

/** Our figures by those of the others, for each work that both did. */
export function ratios(rows: Row[]): Ratio[] {
  const rate = (system: System, work: string) =>
    rows.find((row) => row.system === system && row.work === work)?.figures.callsPerSecond;
  return rows
    .filter((row) => row.system === "topics")
    .map(({ work, figures }) => {
      const against = (other: number | undefined) => (other ? figures.callsPerSecond / other : undefined);
      return { work, toRedis: against(rate("redis", work)), toBare: against(rate("bare", bareWork(work))) };
    });
}

/** A bare server does not know about syncs and orders. */
const bareWork = (work: string) => work.replace(/,.*/, "");

async function measureServer(bench: Bench, stored: number): Promise<Row[]> {
  const rows: Row[] = [];
  for (const { records, durability } of appends) {
    const work = appendWork(records, durability);
    bench.say(`topics: ${work}`);
    await withServer(bench.binary, bench.directory, async (server) => {
      const figures = await measureAppends(bench, server, "events", durability, records);
      rows.push({ system: "topics", work, by: "POST", figures, peakBytes: (await memory(server.pid)).peak });
    });
  }
  await withServer(bench.binary, bench.directory, async (server) => {
    await fill(server.url, "events", stored);
    for (const { order, limit } of reads) {
      const work = readWork(order, limit);
      bench.say(`topics: ${work}`);
      const figures = await measureDiffs(bench, server, "events", order, stored, limit);
      rows.push({
        system: "topics",
        work,
        by: "POST diff",
        figures,
        peakBytes: (await memory(server.pid)).peak,
      });
    }
  });
  return rows;
}

async function measureRedis(bench: Bench, stored: number): Promise<Row[]> {
  const rows: Row[] = [];
  for (const { records, durability, appendfsync } of appends) {
    const work = appendWork(records, durability);
    bench.say(`redis: ${work}`);
    await using redis = await startRedis(bench.directory, appendfsync);
    const count = (await calibrateAppend(redis, records)) * bench.seconds;
    const perRecord = await repeat(bench.times, () =>
      measure(redis.pid, 1, () => append(redis, records, count)),
    );
    const by = `XADD, ${appendfsync}, pipeline ${records}`;
    const figures = inCalls(perRecord, records);
    rows.push({ system: "redis", work, by, figures, peakBytes: (await memory(redis.pid)).peak });
  }
  await using redis = await startRedis(bench.directory, "everysec");
  await fillStream(redis, stored);
  for (const { order, limit } of reads) {
    if (order === "walk") continue;
    const work = readWork(order, limit);
    bench.say(`redis: ${work}`);
    const read = (seconds: number) => readPages(redis, order, stored, limit, seconds);
    await read(WARM_UP_SECONDS);
    const figures = await repeat(bench.times, () => measure(redis.pid, limit, () => read(bench.seconds)));
    const by = `XRANGE COUNT ${limit}`;
    rows.push({ system: "redis", work, by, figures, peakBytes: (await memory(redis.pid)).peak });
  }
  return rows;
}

/** A pipeline of `records` commands stands for one call. */
function inCalls(figures: Figures, records: number): Figures {
  return {
    ...figures,
    callsPerSecond: figures.callsPerSecond / records,
    serverMicrosPerCall: figures.serverMicrosPerCall * records,
  };
}

async function measureBare(bench: Bench): Promise<Row[]> {
  const rows: Row[] = [];
  const row = async (
    work: string,
    by: string,
    records: number,
    load: (url: string) => Load,
    page: string,
  ) => {
    bench.say(`bare server: ${work}`);
    await using bare = await startBare(page);
    const run = (seconds: number) => flood(load(bare.url), CONNECTIONS, seconds);
    await run(WARM_UP_SECONDS);
    const figures = await repeat(bench.times, () => measure(bare.pid, records, () => run(bench.seconds)));
    rows.push({ system: "bare", work, by, figures, peakBytes: (await memory(bare.pid)).peak });
  };
  for (const records of [BATCH_RECORDS, 1]) {
    await row(`append ${records}`, "JSON.parse", records, (url) => appendLoad(url, "events", records), "");
  }
  for (const limit of [PAGE_RECORDS, TAIL_RECORDS]) {
    const page = await samplePage(bench, limit);
    const load = (url: string) => diffLoad(url, "events", "hot", limit, limit);
    await row(`diff ${limit}`, "constant page", limit, load, page);
  }
  return rows;
}

/** A page as our server sends it. */
async function samplePage(bench: Bench, limit: number): Promise<string> {
  return withServer(bench.binary, bench.directory, async (server) => {
    await fill(server.url, "events", limit);
    return JSON.stringify((await call(server.url, "POST", "/v0/topics/events/diff", { limit })).body);
  });
}
