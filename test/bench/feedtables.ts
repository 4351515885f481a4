/** The tables of feeds as text. */
import { fraction, generatorShare, NONE, percent, section, table, times, whole } from "./cells.ts";
import type { System } from "./cluster.ts";
import type { ArrivalRow, Feeds, PagingRow, PostingRow } from "./feeds.ts";

const names: Record<System, [system: string, by: string]> = {
  topics: ["topics", "fsync, peers"],
  redis: ["redis", "stream, always, replicas"],
  nats: ["nats", "JetStream, mirrors"],
};

/** What the figures of the systems leave out. */
const UNLIKE = [
  "topics signs each post with Ed25519 and checks each signature on the other side; Redis and NATS sign nothing.",
  "topics and Redis answer when a record is on the device; NATS 2.9 syncs its files every two minutes.",
].join("\n");

export function describeFeeds({ posting, arrival, paging }: Feeds): string[] {
  return [
    section("Feeds: posts at full speed, and others who want them", describePosting(posting), posting.length),
    section("Feeds: until all are readable on the other side", describeArrival(arrival), arrival.length),
    section("Feeds: pages of 50, newest first", describePaging(paging), paging.length),
    posting.length === 0 ? "" : UNLIKE,
  ];
}

/** Nothing for Redis itself, and where it was left out. */
const toRedis = (system: System, ratio: number): string =>
  system === "redis" || Number.isNaN(ratio) ? NONE : times(ratio);

/** The column `of none` compares with the same system without others. */
function describePosting(rows: PostingRow[]): string {
  const rateOf = (system: System, copies: number) =>
    rows.find((row) => row.system === system && row.copies === copies)?.figures.postsPerSecond ?? Number.NaN;
  const columns = [
    "others",
    "posts/s",
    "of none",
    "to redis",
    "p50 ms",
    "p99 ms",
    "µs/post",
    "others' µs/post",
  ];
  return table(
    ["", "by", ...columns, "behind", "caught up ms", "load cpu"],
    rows.map(({ system, copies, figures }) => [
      ...names[system],
      whole(copies),
      whole(figures.postsPerSecond),
      times(figures.postsPerSecond / rateOf(system, 0)),
      toRedis(system, figures.postsPerSecond / rateOf("redis", copies)),
      fraction(figures.p50Ms, 2),
      fraction(figures.p99Ms, 2),
      fraction(figures.serverMicrosPerPost, 1),
      copies === 0 ? NONE : fraction(figures.copyMicrosPerPost, 1),
      copies === 0 ? NONE : whole(figures.behind),
      copies === 0 ? NONE : whole(figures.caughtUpMs),
      generatorShare(figures.generatorCpuShare),
    ]),
    2,
  );
}

function describeArrival(rows: ArrivalRow[]): string {
  const rateOf = (system: System, way: ArrivalRow["way"]) =>
    rows.find((row) => row.system === system && row.way === way)?.figures.perSecond ?? Number.NaN;
  const columns = ["records", "s", "events/s", "to redis", "posting s", "µs/event", "other's µs/event"];
  return table(
    ["", "by", "way", ...columns],
    rows.map(({ system, way, records, figures }) => [
      ...names[system],
      way,
      whole(records),
      fraction(figures.seconds, 2),
      whole(figures.perSecond),
      toRedis(system, figures.perSecond / rateOf("redis", way)),
      way === "live" ? fraction(figures.postingSeconds, 2) : NONE,
      fraction(figures.serverMicrosPerRecord, 1),
      fraction(figures.copyMicrosPerRecord, 1),
    ]),
    3,
  );
}

function describePaging(rows: PagingRow[]): string {
  const rateOf = (system: System, page: PagingRow["page"]) =>
    rows.find((row) => row.system === system && row.page === page)?.figures.callsPerSecond ?? Number.NaN;
  const by: Record<PagingRow["system"], string> = { topics: "GET messages", redis: "XREVRANGE" };
  const columns = ["stored", "pages/s", "of the first", "to redis", "p50 ms", "p99 ms", "µs/page"];
  return table(
    ["", "by", "page", ...columns, "cpu", "load cpu"],
    rows.map(({ system, stored, page, figures }) => [
      system,
      by[system],
      page,
      whole(stored),
      whole(figures.callsPerSecond),
      times(figures.callsPerSecond / rateOf(system, "first")),
      toRedis(system, figures.callsPerSecond / rateOf("redis", page)),
      fraction(figures.p50Ms, 3),
      fraction(figures.p99Ms, 3),
      fraction(figures.serverMicrosPerCall, 1),
      percent(figures.serverCpuShare),
      generatorShare(figures.generatorCpuShare),
    ]),
    3,
  );
}
