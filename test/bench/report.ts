/** The tables of a run as text. */
import { fraction, generatorShare, gib, mib, NONE, percent, section, table, times, whole } from "./cells.ts";
import type { Depth } from "./depth.ts";
import type { Feeds } from "./feeds.ts";
import { describeFeeds } from "./feedtables.ts";
import type { Figures } from "./figures.ts";
import type { Store } from "./growth.ts";
import type { Machine } from "./machine.ts";
import type { JobRatio, JobRow } from "./queue.ts";
import type { Forwarding, Visibility } from "./router.ts";
import type { Ratio, Row } from "./throughput.ts";
import type { Watch } from "./watch.ts";
import { describeWatch } from "./watchtables.ts";
import type { Latencies, Operation } from "./work.ts";

/** All that a run found out. */
export interface Report {
  readonly machine: Machine;
  readonly settings: { readonly seconds: number; readonly times: number; readonly quick: boolean };
  readonly server: { readonly binary: string; readonly version: string } | undefined;
  readonly throughput: Row[];
  readonly ratios: Ratio[];
  readonly growth: Store[];
  readonly work: Operation[];
  readonly queue: JobRow[];
  readonly jobRatios: JobRatio[];
  readonly depths: Depth[];
  readonly visibility: Visibility[];
  readonly forwarding: Forwarding[];
  readonly watch: Watch;
  readonly feeds: Feeds;
  /** What was left out, in sentences. */
  readonly omitted: string[];
}

export function describe(report: Report): string {
  const sections = [
    describeMachine(report),
    section("Throughput", describeThroughput(report.throughput), report.throughput.length),
    section("Ratios of calls/s", describeRatios(report.ratios), report.ratios.length),
    section("How cost grows: memory and start", describeStores(report.growth), report.growth.length),
    section("How cost grows: the same work", describeStoreRows(report.growth), report.growth.length),
    section("Work that grows, and what others notice (ms)", describeWork(report.work), report.work.length),
    ...report.work.flatMap(({ name, inexact }) => inexact.map((text) => `NOT EXACT: ${name}: ${text}`)),
    section("Queue: jobs by 50 workers", describeJobs(report.queue), report.queue.length),
    section("Ratios of jobs/s", describeJobRatios(report.jobRatios), report.jobRatios.length),
    section("Queue: one client's claims, by depth", describeDepths(report.depths), report.depths.length),
    section(
      "Routers: from write to visible",
      describeVisibility(report.visibility),
      report.visibility.length,
    ),
    section("Routers: full write load", describeForwarding(report.forwarding), report.forwarding.length),
    ...describeWatch(report.watch),
    ...describeFeeds(report.feeds),
    report.omitted.join("\n"),
  ];
  return `${sections.filter((text) => text !== "").join("\n\n")}\n`;
}

function describeMachine({ machine, settings, server }: Report): string {
  const { cpu, cores, memoryBytes, kernel, bun, fileSystem, date, loadAverage } = machine;
  const { redis, bullmq, postgres, nats, wrk } = machine;
  return [
    `${cpu}, ${cores} cores (shared by server and load), ${gib(memoryBytes)}, Linux ${kernel}, ${fileSystem}`,
    `Bun ${bun}, wrk ${wrk}, Redis ${redis}, BullMQ ${bullmq}, PostgreSQL ${postgres}, NATS ${nats}, topics ${server?.version ?? NONE}`,
    `${date}, load average ${fraction(loadAverage, 2)} before`,
    "cpu: share of a core; load cpu: that of the load generator, and with ! it may be what limits the row",
    `${settings.seconds} s a row, median of ${settings.times}${settings.quick ? ", --quick sizes" : ""}`,
  ].join("\n");
}

const figureColumns = ["calls/s", "records/s", "p50 ms", "p99 ms", "µs/record", "µs/call", "cpu", "load cpu"];

const figureCells = (figures: Figures): string[] => [
  whole(figures.callsPerSecond),
  whole(figures.recordsPerSecond),
  fraction(figures.p50Ms, 3),
  fraction(figures.p99Ms, 3),
  fraction(figures.serverMicrosPerRecord, 2),
  fraction(figures.serverMicrosPerCall, 1),
  percent(figures.serverCpuShare),
  generatorShare(figures.generatorCpuShare),
];

function describeThroughput(rows: Row[]): string {
  return table(
    ["", "work", "by", ...figureColumns, "peak RSS"],
    rows.map((row) => [row.system, row.work, row.by, ...figureCells(row.figures), mib(row.peakBytes)]),
    3,
  );
}

function describeRatios(all: Ratio[]): string {
  return table(
    ["work", "topics / redis", "topics / bare"],
    all.map(({ work, toRedis, toBare }) => [work, times(toRedis), times(toBare)]),
    1,
  );
}

function describeStores(stores: Store[]): string {
  return table(
    ["store", "on disk", "start ms", "RSS at start", "RSS after the rows", "peak RSS"],
    stores.map((store) => [
      store.name,
      mib(store.diskBytes),
      fraction(store.startMs, 0),
      mib(store.memoryAtStart.current),
      mib(store.memoryAfter.current),
      mib(store.memoryAfter.peak),
    ]),
    1,
  );
}

/** Work by work, so that the stores stand below each other; the last column compares with the first store. */
function describeStoreRows(stores: Store[]): string {
  const works = stores[0]?.rows.map((row) => row.work) ?? [];
  const figuresOf = (store: Store | undefined, work: string) =>
    store?.rows.find((row) => row.work === work)?.figures;
  const rows = works.flatMap((work) => {
    const base = figuresOf(stores[0], work)!;
    return stores.map((store) => {
      const figures = figuresOf(store, work)!;
      const change = `${(figures.callsPerSecond / base.callsPerSecond).toFixed(2)} x`;
      return [work, store.name, ...figureCells(figures), change];
    });
  });
  return table(["work", "store", ...figureColumns, `of ${stores[0]?.name}`], rows, 2);
}

function describeWork(operations: Operation[]): string {
  const cells = ({ requests, p50Ms, p99Ms, maxMs }: Latencies) =>
    requests === 0
      ? ["0", NONE, NONE, NONE]
      : [whole(requests), ...[p50Ms, p99Ms, maxMs].map((ms) => fraction(ms, 2))];
  const rows = operations.flatMap(({ name, inexact, stretches }) =>
    stretches.map((stretch, i) => [
      ...(i === 0 ? [name, inexact.length === 0 ? "exact" : "NO"] : ["", ""]),
      stretch.name,
      fraction(stretch.lengthMs, 1),
      ...cells(stretch.appends),
      ...cells(stretch.diffs),
    ]),
  );
  const latencyColumns = ["p50", "p99", "max"];
  const columns = ["long", "appends", ...latencyColumns, "diffs", ...latencyColumns];
  return table(["work", "answer", "others", ...columns], rows, 3);
}

/** The columns `fewest` and `most` are the jobs of single workers. */
function describeJobs(rows: JobRow[]): string {
  const known = (figure: number | null, text: (figure: number) => string) =>
    figure === null ? NONE : text(figure);
  const ms = (figure: number) => fraction(figure, 2);
  const columns = ["jobs", "produced/s", "jobs/s", "claim p50 ms", "p99 ms", "fewest", "most"];
  return table(
    ["", "work", "by", ...columns, "µs/job", "cpu", "load cpu"],
    rows.map(({ system, work, by, jobs, figures }) => [
      system,
      work,
      by,
      whole(jobs),
      whole(figures.producedPerSecond),
      whole(figures.jobsPerSecond),
      known(figures.claimP50Ms, ms),
      known(figures.claimP99Ms, ms),
      known(figures.fewest, whole),
      known(figures.most, whole),
      fraction(figures.serverMicrosPerJob, 1),
      percent(figures.serverCpuShare),
      generatorShare(figures.generatorCpuShare),
    ]),
    3,
  );
}

function describeJobRatios(all: JobRatio[]): string {
  return table(
    ["work", "by", "topics / bullmq", "topics / postgres"],
    all.map(({ work, by, toBullmq, toPostgres }) => [work, by, times(toBullmq), times(toPostgres)]),
    2,
  );
}

function describeDepths(depths: Depth[]): string {
  const base = depths[0]?.figures.p50Ms ?? Number.NaN;
  return table(
    ["ready", "in flight", "claim p50 ms", "p99 ms", "ack p50 ms", "p50 of the first"],
    depths.map(({ ready, inFlight, figures }) => [
      whole(ready),
      whole(inFlight),
      ...[figures.p50Ms, figures.p99Ms, figures.ackP50Ms].map((ms) => fraction(ms, 3)),
      times(figures.p50Ms / base),
    ]),
    0,
  );
}

function describeVisibility(all: Visibility[]): string {
  const source = all.find(({ topic }) => topic === "source")?.figures.p50Ms ?? Number.NaN;
  return table(
    ["long poll of", "p50 ms", "p99 ms", "p50 added ms"],
    all.map(({ topic, figures }) => [
      topic,
      fraction(figures.p50Ms, 3),
      fraction(figures.p99Ms, 3),
      topic === "destination" ? fraction(figures.p50Ms - source, 3) : NONE,
    ]),
    1,
  );
}

function describeForwarding(all: Forwarding[]): string {
  const base = all[0]?.writer.recordsPerSecond ?? Number.NaN;
  const columns = [
    "written/s",
    "of none",
    "p50 ms",
    "p99 ms",
    "copied/s",
    "behind",
    "caught up ms",
    "µs/record",
  ];
  return table(
    ["routers", ...columns, "cpu", "load cpu"],
    all.map(({ routers, writer, copies }) => [
      whole(routers),
      whole(writer.recordsPerSecond),
      times(writer.recordsPerSecond / base),
      fraction(writer.p50Ms, 3),
      fraction(writer.p99Ms, 3),
      whole(copies.perSecond),
      whole(copies.behind),
      fraction(copies.caughtUpMs, 0),
      fraction(copies.serverMicrosPerRecord, 2),
      percent(writer.serverCpuShare),
      generatorShare(writer.generatorCpuShare),
    ]),
    0,
  );
}
