/** The tables of a run as text. */
import type { Figures } from "./figures.ts";
import type { Store } from "./growth.ts";
import type { Machine } from "./machine.ts";
import type { Ratio, Row } from "./throughput.ts";
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
  /** What was left out, in sentences. */
  readonly omitted: string[];
}

const NONE = "-";
/** A generator that uses more of a core than this may be what limits the row. */
const GENERATOR_SHARE_MAX = 0.9;

export function describe(report: Report): string {
  const sections = [
    describeMachine(report),
    section("Throughput", describeThroughput(report.throughput), report.throughput.length),
    section("Ratios of calls/s", describeRatios(report.ratios), report.ratios.length),
    section("How cost grows: memory and start", describeStores(report.growth), report.growth.length),
    section("How cost grows: the same work", describeStoreRows(report.growth), report.growth.length),
    section("Work that grows, and what others notice (ms)", describeWork(report.work), report.work.length),
    ...report.work.flatMap(({ name, inexact }) => inexact.map((text) => `NOT EXACT: ${name}: ${text}`)),
    report.omitted.join("\n"),
  ];
  return `${sections.filter((text) => text !== "").join("\n\n")}\n`;
}

function describeMachine({ machine, settings, server }: Report): string {
  const { cpu, cores, memoryBytes, kernel, bun, fileSystem, redis, wrk, date, loadAverage } = machine;
  return [
    `${cpu}, ${cores} cores (shared by server and load), ${gib(memoryBytes)}, Linux ${kernel}, ${fileSystem}`,
    `Bun ${bun}, wrk ${wrk}, Redis ${redis}, topics ${server?.version ?? NONE}, ${date}, load average ${fraction(loadAverage, 2)} before`,
    "cpu: share of a core; load cpu: that of the load generator, and with ! it may be what limits the row",
    `${settings.seconds} s a row, median of ${settings.times}${settings.quick ? ", --quick sizes" : ""}`,
  ].join("\n");
}

const section = (title: string, text: string, length: number) => (length === 0 ? "" : `${title}\n\n${text}`);

const figureColumns = ["calls/s", "records/s", "p50 ms", "p99 ms", "µs/record", "µs/call", "cpu", "load cpu"];

const figureCells = (figures: Figures): string[] => [
  whole(figures.callsPerSecond),
  whole(figures.recordsPerSecond),
  fraction(figures.p50Ms, 3),
  fraction(figures.p99Ms, 3),
  fraction(figures.serverMicrosPerRecord, 2),
  fraction(figures.serverMicrosPerCall, 1),
  percent(figures.serverCpuShare),
  percent(figures.generatorCpuShare) + (figures.generatorCpuShare > GENERATOR_SHARE_MAX ? " !" : ""),
];

function describeThroughput(rows: Row[]): string {
  return table(
    ["", "work", "by", ...figureColumns, "peak RSS"],
    rows.map((row) => [row.system, row.work, row.by, ...figureCells(row.figures), mib(row.peakBytes)]),
    3,
  );
}

function describeRatios(all: Ratio[]): string {
  const times = (ratio: number | undefined) => (ratio === undefined ? NONE : `${ratio.toFixed(2)} x`);
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

/** Columns as wide as their widest cell; the first `leftColumns` hold words, the others numbers. */
function table(head: string[], rows: string[][], leftColumns: number): string {
  const widths = head.map((title, i) => Math.max(title.length, ...rows.map((row) => row[i]!.length)));
  const line = (cells: string[]) =>
    cells
      .map((cell, i) => (i < leftColumns ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)))
      .join("  ");
  return [head, widths.map((width) => "-".repeat(width)), ...rows]
    .map((cells) => line(cells).trimEnd())
    .join("\n");
}

const whole = (value: number) => Math.round(value).toLocaleString("en");
const fraction = (value: number, digits: number) =>
  value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
const percent = (share: number) => `${Math.round(share * 100)} %`;
const mib = (bytes: number) => `${whole(bytes / 2 ** 20)} MiB`;
const gib = (bytes: number) => `${whole(bytes / 2 ** 30)} GiB`;
