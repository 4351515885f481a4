/** The tables of watching as text. */
import { fraction, generatorShare, mib, NONE, percent, section, table, times, whole } from "./cells.ts";
import type { System } from "./channels.ts";
import type { CatchUpRow, FanOutRatio, FanOutRow, HeldRow, SpreadRow, Watch } from "./watch.ts";

/** What we want to be able to do. */
const GOAL = { watchers: 1000, deliveries: 111_000, serverCpuSeconds: 1.2 };

const names: Record<System, [system: string, by: string]> = {
  sse: ["topics", "SSE"],
  websocket: ["topics", "WebSocket"],
  pubsub: ["redis", "Pub/Sub"],
  streams: ["redis", "XREAD BLOCK"],
  nats: ["nats", "core"],
};

export function describeWatch({ fanOut, ratios, spread, held, catchUp }: Watch): string[] {
  return [
    section("Watch: one record to all watchers, round by round", describeFanOut(fanOut), fanOut.length),
    describeGoal(fanOut),
    section(
      `Ratios, ${whole(fanOut.at(-1)?.watchers ?? 0)} watchers (less is better)`,
      describeRatios(ratios),
      ratios.length,
    ),
    section("Watch: one stream on many topics", describeSpread(spread), spread.length),
    section("Watch: streams that are only held", describeHeld(held), held.length),
    section("Watch: from the first record to the head", describeCatchUp(catchUp), catchUp.length),
  ];
}

function describeFanOut(rows: FanOutRow[]): string {
  const columns = ["watchers", "deliveries", "deliveries/s", "p50 ms", "p99 ms", "cpu s", "µs/delivery"];
  return table(
    ["", "by", ...columns, "cpu", "load cpu"],
    rows.map(({ system, watchers, rounds, figures }) => [
      ...names[system],
      whole(watchers),
      whole(watchers * rounds),
      whole(figures.deliveriesPerSecond),
      fraction(figures.p50Ms, 3),
      fraction(figures.p99Ms, 3),
      fraction(figures.serverCpuSeconds, 2),
      fraction(figures.serverMicrosPerDelivery, 1),
      percent(figures.serverCpuShare),
      generatorShare(figures.generatorCpuShare),
    ]),
    2,
  );
}

/** Nothing if the run was too small for it. */
function describeGoal(rows: FanOutRow[]): string {
  const { watchers, deliveries, serverCpuSeconds } = GOAL;
  const outcomes = rows
    .filter((row) => names[row.system][0] === "topics" && row.watchers === watchers)
    .filter((row) => row.watchers * row.rounds === deliveries)
    .map(({ system, figures }) => {
      const outcome = figures.serverCpuSeconds <= serverCpuSeconds ? "met" : "MISSED";
      return `${names[system][1]} ${fraction(figures.serverCpuSeconds, 2)} s, ${outcome}`;
    });
  if (outcomes.length === 0) return "";
  const goal = `Goal: ${whole(deliveries)} deliveries to ${whole(watchers)} watchers`;
  return `${goal} in at most ${serverCpuSeconds} s of CPU: ${outcomes.join("; ")}`;
}

function describeRatios(all: FanOutRatio[]): string {
  return table(
    ["by", "to", "cpu", "p50"],
    all.map(({ system, to, serverCpu, p50 }) => [
      names[system].join(" "),
      names[to].join(" "),
      times(serverCpu),
      times(p50),
    ]),
    2,
  );
}

function describeSpread(rows: SpreadRow[]): string {
  return table(
    ["topics", "writers", "deliveries/s", "p50 ms", "p99 ms", "µs/delivery", "cpu", "load cpu"],
    rows.map(({ topics, writers, figures }) => [
      whole(topics),
      whole(writers),
      whole(figures.deliveriesPerSecond),
      fraction(figures.p50Ms, 3),
      fraction(figures.p99Ms, 3),
      fraction(figures.serverMicrosPerDelivery, 1),
      percent(figures.serverCpuShare),
      generatorShare(figures.generatorCpuShare),
    ]),
    0,
  );
}

/** The column `record to all` is a record that is written at the end. */
function describeHeld(rows: HeldRow[]): string {
  const columns = ["opened ms", "alive at the end", "fewest beats", "RSS", "KiB/stream", "cpu s"];
  return table(
    ["streams", "held s", ...columns, "load cpu s", "record to all ms"],
    rows.map(({ streams, seconds, figures }) => {
      const cells = [whole(streams), whole(seconds)];
      if (typeof figures === "string") return [...cells, NONE, figures, ...Array(6).fill(NONE)];
      return [
        ...cells,
        whole(figures.openMs),
        whole(figures.alive),
        whole(figures.fewestBeats),
        mib(figures.memoryBytes),
        fraction(figures.memoryPerStream / 1024, 1),
        fraction(figures.serverCpuSeconds, 2),
        fraction(figures.generatorCpuSeconds, 2),
        fraction(figures.deliveredMs, 1),
      ];
    }),
    0,
  );
}

function describeCatchUp(rows: CatchUpRow[]): string {
  const columns = ["streams", "records each", "limit", "records/s", "MiB/s", "cpu s", "µs/record"];
  return table(
    [...columns, "cpu", "load cpu", "peak RSS"],
    rows.map(({ streams, records, limit, figures, peakBytes }) => [
      whole(streams),
      whole(records),
      whole(limit),
      whole(figures.recordsPerSecond),
      whole(figures.bytesPerSecond / 2 ** 20),
      fraction(figures.serverCpuSeconds, 2),
      fraction(figures.serverMicrosPerRecord, 2),
      percent(figures.serverCpuShare),
      generatorShare(figures.generatorCpuShare),
      mib(peakBytes),
    ]),
    0,
  );
}
