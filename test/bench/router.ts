/**
 * The tables of routers: how much later a record is to be seen behind one, how many copies routers make
 * while their source is written at full speed, and what that costs the writer.
 */
import { click, must } from "./client.ts";
import { Connection, post } from "./connection.ts";
import { type Figures, measure, medians, percentile } from "./figures.ts";
import { type Bench, CONNECTIONS, WARM_UP_SECONDS } from "./loads.ts";
import { cpuSeconds } from "./process.ts";
import { type Server, withServer } from "./server.ts";
import { appendLoad, flood } from "./wrk.ts";

const BATCH_RECORDS = 100;
/** The copies come on top of what is written, so these rows are short. */
const SECONDS_MAX = 2;
const WAIT_MS = 10_000;
/** Time for a long poll to arrive, so that it waits when the write comes. */
const PARK_MS = 3;
const WARM_UP_WRITES = 50;
const CATCH_UP_POLL_MS = 5;
const CATCH_UP_DEADLINE_MS = 120_000;

/** Where single writes are waited for with a long poll. The source has one router, to the destination. */
export interface Visibility {
  readonly topic: "plain" | "source" | "destination";
  /** From sending the write until the poll is answered. */
  readonly figures: { readonly p50Ms: number; readonly p99Ms: number };
}

/** One source under full write load, and its routers, each to a destination of its own. */
export interface Forwarding {
  readonly routers: number;
  readonly writer: Figures;
  readonly copies: Copies;
}

export interface Copies {
  /** Copies of all routers, until the last one is there. */
  readonly perSecond: number;
  /** Copies that were missing when the load ended, and how much later the last of them was there. */
  readonly behind: number;
  readonly caughtUpMs: number;
  /** CPU time of the server for a record and all its copies. */
  readonly serverMicrosPerRecord: number;
}

const views = [
  { topic: "plain", written: "plain" },
  { topic: "source", written: "source" },
  { topic: "destination", written: "source" },
] as const;

export async function measureVisibility(bench: Bench): Promise<Visibility[]> {
  const writes = bench.quick ? 100 : 500;
  bench.say("router: from write to visible");
  return withServer(bench.binary, bench.directory, async ({ url }) => {
    for (const topic of ["plain", "source"]) await must(url, "PUT", `/v0/topics/${topic}`, {});
    await must(url, "PUT", "/v0/routers/r", { source: "source", dest: "destination" });
    using writer = await Connection.open(url);
    using reader = await Connection.open(url);
    const waitTimes = async ({ topic, written }: (typeof views)[number], count: number) => {
      const { head_seq } = await must(url, "GET", `/v0/topics/${topic}`);
      const times: number[] = [];
      while (times.length < count) {
        times.push(await waitFor(writer, written, reader, topic, head_seq + times.length));
      }
      return { p50Ms: percentile(times, 0.5), p99Ms: percentile(times, 0.99) };
    };
    for (const view of views) await waitTimes(view, WARM_UP_WRITES);
    const runs = views.map(() => [] as Visibility["figures"][]);
    // In turn, so that all see the same moods of the machine.
    for (let run = 0; run < bench.times; run++) {
      for (const [i, view] of views.entries()) runs[i]!.push(await waitTimes(view, writes));
    }
    return views.map(({ topic }, i) => ({ topic, figures: medians(runs[i]!) }));
  });
}

/** Milliseconds from a write into `written` until a poll of `topic` behind `head` is answered. */
async function waitFor(
  writer: Connection,
  written: string,
  reader: Connection,
  topic: string,
  head: number,
): Promise<number> {
  const append = post(`/v0/topics/${written}`, JSON.stringify({ records: [{ data: click(0) }] }));
  const poll = post(`/v0/topics/${topic}/diff`, JSON.stringify({ from_seq: head, wait_ms: WAIT_MS }));
  let waits = true;
  const seen = reader.send(poll).finally(() => {
    waits = false;
  });
  await Bun.sleep(PARK_MS);
  if (!waits) throw new Error(`A poll from ${head} was answered before the write: ${await seen}`);
  const sentAt = performance.now();
  const appended = writer.send(append);
  const page = await seen;
  const waitedMs = performance.now() - sentAt;
  if (!page.includes(`"head_seq":${head + 1},`)) throw new Error(`The write behind ${head} gave ${page}`);
  await appended;
  return waitedMs;
}

export async function measureForwarding(bench: Bench): Promise<Forwarding[]> {
  const seconds = Math.min(bench.seconds, SECONDS_MAX);
  const measured: Forwarding[] = [];
  for (const routers of [0, 1, 10]) {
    bench.say(`router: full write load on the source of ${routers}`);
    measured.push(
      await withServer(bench.binary, bench.directory, async (server) => {
        await must(server.url, "PUT", "/v0/topics/source", { durability: "disk" });
        for (let i = 0; i < routers; i++) {
          await must(server.url, "PUT", `/v0/routers/r-${i}`, { source: "source", dest: `destination-${i}` });
        }
        await load(server, routers, WARM_UP_SECONDS);
        const runs: { writer: Figures; copies: Copies }[] = [];
        while (runs.length < bench.times) runs.push(await load(server, routers, seconds));
        const writer = medians(runs.map((one) => one.writer));
        return { routers, writer, copies: medians(runs.map((one) => one.copies)) };
      }),
    );
  }
  return measured;
}

async function load(
  { url, pid }: Server,
  routers: number,
  seconds: number,
): Promise<{ writer: Figures; copies: Copies }> {
  const headOf = async (topic: string) => (await must(url, "GET", `/v0/topics/${topic}`)).head_seq as number;
  const headBefore = await headOf("source");
  const cpuBefore = await cpuSeconds(pid);
  const startedAt = performance.now();
  const appends = () => flood(appendLoad(url, "source", BATCH_RECORDS), CONNECTIONS, seconds);
  const writer = await measure(pid, BATCH_RECORDS, appends);
  const endedAt = performance.now();
  const missing = async () => routers * (await headOf("source")) - (await forwarded(url));
  const behind = await missing();
  while ((await missing()) > 0) {
    if (performance.now() > endedAt + CATCH_UP_DEADLINE_MS) throw new Error("The routers do not catch up");
    await Bun.sleep(CATCH_UP_POLL_MS);
  }
  const caughtUpAt = performance.now();
  // wrk leaves without its last answers; what they were about is stored by now.
  const head = await headOf("source");
  for (let i = 0; i < routers; i++) {
    const copies = await headOf(`destination-${i}`);
    if (copies !== head) throw new Error(`${head} records were written, and a destination has ${copies}`);
  }
  const records = head - headBefore;
  const caughtUpMs = behind > 0 ? caughtUpAt - endedAt : 0;
  const perSecond = (routers * records) / ((endedAt - startedAt + caughtUpMs) / 1000);
  const serverMicrosPerRecord = (((await cpuSeconds(pid)) - cpuBefore) * 1e6) / records;
  return { writer, copies: { perSecond, behind, caughtUpMs, serverMicrosPerRecord } };
}

/** The list of routers is the one view of them that does not bring them up to date. */
async function forwarded(url: string): Promise<number> {
  const { routers } = await must(url, "GET", "/v0/routers");
  return (routers as { forwarded_total: number }[]).reduce((sum, one) => sum + one.forwarded_total, 0);
}
