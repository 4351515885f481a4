/**
 * The tables of feeds: what posts cost with peers that want them, how soon those have them, and what a page costs near
 * the head and far behind it. Beside them Redis Streams with replicas and NATS JetStream with mirrors do the same.
 */
import { arrived, type Cluster, copyNew, progressOf, type System, withWriters } from "./cluster.ts";
import { type Figures, measure, medians, repeat } from "./figures.ts";
import { type Anchor, openPoster, pageUrl, readPage, startInstances, walk } from "./instances.ts";
import { type Bench, CONNECTIONS, WARM_UP_SECONDS } from "./loads.ts";
import { startMirrors } from "./mirrors.ts";
import { cpuSeconds } from "./process.ts";
import { fillStream, readBackwards, startRedis } from "./redis.ts";
import { startReplicas } from "./replicas.ts";
import { atRest } from "./server.ts";
import type { Tools } from "./tools.ts";
import { note, write } from "./writers.ts";
import { flood, getLoad } from "./wrk.ts";

const LANE = "events";
const PAGE_MESSAGES = 50;
/** A store is filled faster when more posts share a sync. */
const FILL_WRITERS = 64;

export interface Feeds {
  readonly posting: PostingRow[];
  readonly arrival: ArrivalRow[];
  readonly paging: PagingRow[];
}

export const nothingFed: Feeds = { posting: [], arrival: [], paging: [] };

/** Posts at full speed to one server, while so many others want them. */
export interface PostingRow {
  readonly system: System;
  readonly copies: number;
  readonly figures: PostingFigures;
}

export interface PostingFigures {
  readonly postsPerSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** CPU time for each post, also what is left to do after the load: of the server, and of all others together. */
  readonly serverMicrosPerPost: number;
  readonly copyMicrosPerPost: number;
  readonly generatorCpuShare: number;
  /** Posts that the slowest of the others did not have when the load ended, and how much later it had the last. */
  readonly behind: number;
  readonly caughtUpMs: number;
}

/** Posts until all of them are readable on another server. */
export interface ArrivalRow {
  readonly system: System;
  /** `live`: from the first post. `backfill`: all are stored, from when the other asks for them. */
  readonly way: "live" | "backfill";
  readonly records: number;
  readonly figures: ArrivalFigures;
}

export interface ArrivalFigures {
  readonly seconds: number;
  readonly perSecond: number;
  /** The part of that time in which there were posts. */
  readonly postingSeconds: number;
  readonly serverMicrosPerRecord: number;
  readonly copyMicrosPerRecord: number;
}

export interface PagingRow {
  readonly system: Exclude<System, "nats">;
  readonly stored: number;
  readonly page: "first" | "last";
  readonly figures: Figures;
}

const starters = { topics: startInstances, redis: startReplicas, nats: startMirrors };

export async function measureFeeds(bench: Bench, tools: Tools, large: boolean): Promise<Feeds> {
  const systems = (Object.keys(starters) as System[]).filter(
    (system) => system === "topics" || tools[system],
  );
  const posting: PostingRow[] = [];
  for (const copies of [0, 1, 2]) {
    for (const system of systems) posting.push(await measurePosting(bench, system, copies));
  }
  const arrival: ArrivalRow[] = [];
  for (const way of ["live", "backfill"] as const) {
    for (const system of systems) arrival.push(await measureArrival(bench, system, way));
  }
  return { posting, arrival, paging: await measurePaging(bench, tools, large) };
}

async function measurePosting(bench: Bench, system: System, copies: number): Promise<PostingRow> {
  bench.say(`feeds: ${system}, full load, ${copies} that want it`);
  await using cluster = await starters[system](bench, copies);
  await copyNew(cluster, LANE, CONNECTIONS);
  const runs: PostingFigures[] = [];
  await withWriters(cluster, LANE, CONNECTIONS, async (writers) => {
    const run = (seconds: number) => postFor(cluster, () => write(writers, { seconds }));
    await run(WARM_UP_SECONDS);
    while (runs.length < bench.times) runs.push(await run(bench.seconds));
  });
  return { system, copies, figures: medians(runs) };
}

async function postFor(cluster: Cluster, load: () => ReturnType<typeof write>): Promise<PostingFigures> {
  const before = await progressOf(cluster, LANE);
  const cpuBefore = await cpuOf(cluster);
  const { calls, seconds, p50Ms, p99Ms, cpuSeconds } = await load();
  const endedAt = performance.now();
  const there = await progressOf(cluster, LANE);
  await arrived(cluster, LANE, before, calls);
  const behind = Math.max(0, ...there.map((count, copy) => before[copy]! + calls - count));
  const caughtUpMs = behind > 0 ? performance.now() - endedAt : 0;
  const cpu = await cpuOf(cluster);
  return {
    postsPerSecond: calls / seconds,
    p50Ms,
    p99Ms,
    serverMicrosPerPost: ((cpu.server - cpuBefore.server) * 1e6) / calls,
    copyMicrosPerPost: ((cpu.copies - cpuBefore.copies) * 1e6) / calls,
    generatorCpuShare: cpuSeconds / seconds,
    behind,
    caughtUpMs,
  };
}

async function measureArrival(bench: Bench, system: System, way: ArrivalRow["way"]): Promise<ArrivalRow> {
  const records = bench.quick ? 1000 : 10_000;
  bench.say(`feeds: ${system}, ${records} until they are on the other side, ${way}`);
  await using cluster = await starters[system](bench, 1);
  // The link is up and both sides are warm when it counts.
  await copyNew(cluster, "warm-up", CONNECTIONS);
  const runs: ArrivalFigures[] = [];
  for (let run = 0; run <= bench.times; run++) {
    const lane = `${way}-${run}`;
    runs.push(await (way === "live" ? postLive : backfill)(cluster, lane, records));
  }
  return { system, way, records, figures: medians(runs.slice(1)) };
}

async function postLive(cluster: Cluster, lane: string, records: number): Promise<ArrivalFigures> {
  await copyNew(cluster, lane, CONNECTIONS);
  return withWriters(cluster, lane, CONNECTIONS, (writers) =>
    timeArrival(cluster, lane, records, CONNECTIONS, async () => {
      const { seconds } = await write(writers, { records });
      return seconds;
    }),
  );
}

async function backfill(cluster: Cluster, lane: string, records: number): Promise<ArrivalFigures> {
  await cluster.begin(lane);
  await withWriters(cluster, lane, CONNECTIONS, (writers) => write(writers, { records }));
  return timeArrival(cluster, lane, records, 0, async () => {
    await cluster.copy(lane);
    return 0;
  });
}

/** `act` brings records to the other side, where there are some already; it gives the seconds of its posts. */
async function timeArrival(
  cluster: Cluster,
  lane: string,
  records: number,
  already: number,
  act: () => Promise<number>,
): Promise<ArrivalFigures> {
  const before = await progressOf(cluster, lane);
  const cpuBefore = await cpuOf(cluster);
  const startedAt = performance.now();
  const postingSeconds = await act();
  await arrived(cluster, lane, before, records);
  const seconds = (performance.now() - startedAt) / 1000;
  const cpu = await cpuOf(cluster);
  const count = await cluster.count(lane, 0);
  if (count !== already + records)
    throw new Error(`${already + records} records were sent, ${count} are there`);
  return {
    seconds,
    perSecond: records / seconds,
    postingSeconds,
    serverMicrosPerRecord: ((cpu.server - cpuBefore.server) * 1e6) / records,
    copyMicrosPerRecord: ((cpu.copies - cpuBefore.copies) * 1e6) / records,
  };
}

/** CPU seconds so far, of the server that is written to and of all others. */
async function cpuOf({ pid, copyPids }: Cluster): Promise<{ server: number; copies: number }> {
  const [server, ...copies] = await Promise.all([pid, ...copyPids].map(cpuSeconds));
  return { server: server!, copies: copies.reduce((sum, one) => sum + one, 0) };
}

async function measurePaging(bench: Bench, tools: Tools, large: boolean): Promise<PagingRow[]> {
  const stored = large ? 1_000_000 : bench.quick ? 10_000 : 100_000;
  const rows = await pageMessages(bench, stored);
  if (tools.redis) rows.push(...(await pageStream(bench, stored)));
  return rows;
}

async function pageMessages(bench: Bench, stored: number): Promise<PagingRow[]> {
  bench.say(`feeds: topics, pages of ${stored} messages`);
  await using cluster = await startInstances(bench, 0);
  const url = cluster.urls[0]!;
  using opened = new DisposableStack();
  const fillers = await Promise.all(Array.from({ length: FILL_WRITERS }, () => openPoster(url, LANE)));
  for (const filler of fillers) opened.use(filler);
  await write(fillers, { records: stored });
  await atRest(cluster.pid);
  const rows: PagingRow[] = [];
  for (const [page, anchor] of [
    ["first", null],
    ["last", await lastPage(url, stored)],
  ] as const) {
    const { ids } = await readPage(url, LANE, PAGE_MESSAGES, anchor);
    if (ids.length !== PAGE_MESSAGES) throw new Error(`The ${page} page has ${ids.length} messages`);
    const load = getLoad(pageUrl(url, LANE, PAGE_MESSAGES, anchor));
    const figures = await pages(bench, cluster.pid, (seconds) => flood(load, CONNECTIONS, seconds));
    rows.push({ system: "topics", stored, page, figures });
  }
  return rows;
}

/** Where the last page begins. Each message has to be on one page. */
async function lastPage(url: string, stored: number): Promise<Anchor> {
  const seen = new Set<string>();
  const anchors: Anchor[] = [];
  for await (const { ids, next } of walk(url, LANE, PAGE_MESSAGES)) {
    for (const id of ids) seen.add(id);
    if (next) anchors.push(next);
  }
  if (seen.size !== stored) throw new Error(`${stored} messages are stored, ${seen.size} are on the pages`);
  return anchors.at(-1)!;
}

async function pageStream(bench: Bench, stored: number): Promise<PagingRow[]> {
  bench.say(`feeds: redis, pages of ${stored} records`);
  await using redis = await startRedis(bench.directory, "everysec");
  await fillStream(redis, stored, note);
  const rows: PagingRow[] = [];
  for (const [page, from] of [
    ["first", undefined],
    ["last", PAGE_MESSAGES - 1],
  ] as const) {
    const figures = await pages(bench, redis.pid, (seconds) =>
      readBackwards(redis, from, PAGE_MESSAGES, note(0), seconds),
    );
    rows.push({ system: "redis", stored, page, figures });
  }
  return rows;
}

async function pages(
  bench: Bench,
  pid: number,
  read: (seconds: number) => ReturnType<typeof flood>,
): Promise<Figures> {
  await read(WARM_UP_SECONDS);
  return repeat(bench.times, () => measure(pid, PAGE_MESSAGES, () => read(bench.seconds)));
}
