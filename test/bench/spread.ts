/** One stream on many topics: what is written to any of them, and how soon the stream has it. */
import { Audience, numberAt } from "./audience.ts";
import { openSessions, recordBody } from "./channels.ts";
import { click } from "./client.ts";
import { Connection, post } from "./connection.ts";
import { percentile } from "./figures.ts";
import { cpuSeconds } from "./process.ts";

/** The most topics that a session may have. */
export const SPREAD_TOPICS = 256;
const DEADLINE_MS = 120_000;

export interface SpreadPlan {
  readonly kind: "spread";
  readonly url: string;
  readonly pid: number;
  /** Clients that write, one record at a time, to one topic after the other. */
  readonly writers: number;
  readonly writes: number;
  readonly times: number;
}

export interface SpreadFigures {
  readonly deliveriesPerSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly serverMicrosPerDelivery: number;
  readonly serverCpuShare: number;
  readonly generatorCpuShare: number;
}

export const spreadTopic = (i: number) => `topic-${i % SPREAD_TOPICS}`;

export async function spread(plan: SpreadPlan): Promise<SpreadFigures[]> {
  const topics = Array.from({ length: SPREAD_TOPICS }, (_, i) => [spreadTopic(i), { tail: true }]);
  const request = { topics: Object.fromEntries(topics) };
  const steps = await openSessions(plan.url, 1, request, "event: caught-up");
  using audience = await Audience.open(plan.url, steps);
  const writers = await Promise.all(Array.from({ length: plan.writers }, () => Connection.open(plan.url)));
  try {
    await write(plan, audience, writers);
    const runs: SpreadFigures[] = [];
    while (runs.length < plan.times) runs.push(await write(plan, audience, writers));
    audience.check(plan.writes * (plan.times + 1));
    return runs;
  } finally {
    for (const writer of writers) writer[Symbol.dispose]();
  }
}

async function write(plan: SpreadPlan, audience: Audience, writers: Connection[]): Promise<SpreadFigures> {
  const { pid, writes } = plan;
  const sentAt = new Map<number, number>();
  const latencies: number[] = [];
  audience.onMark = (bytes, at) => {
    const number = numberAt(bytes, at);
    latencies.push(performance.now() - (sentAt.get(number) ?? Number.NaN));
  };
  let next = 0;
  const writeOn = async (writer: Connection) => {
    while (next < writes) {
      const i = next++;
      const request = post(`/v0/topics/${spreadTopic(i)}`, recordBody(i));
      sentAt.set(click(i).id, performance.now());
      await writer.send(request);
    }
  };
  const serverBefore = await cpuSeconds(pid);
  const generatorBefore = process.cpuUsage();
  const startedAt = performance.now();
  await Promise.all([audience.hear(writes, DEADLINE_MS), ...writers.map(writeOn)]);
  const seconds = (performance.now() - startedAt) / 1000;
  const generator = process.cpuUsage(generatorBefore);
  const serverSeconds = (await cpuSeconds(pid)) - serverBefore;
  if (latencies.some(Number.isNaN)) throw new Error("The stream delivered what was not written");
  return {
    deliveriesPerSecond: writes / seconds,
    p50Ms: percentile(latencies, 0.5),
    p99Ms: percentile(latencies, 0.99),
    serverMicrosPerDelivery: (serverSeconds * 1e6) / writes,
    serverCpuShare: serverSeconds / seconds,
    generatorCpuShare: (generator.user + generator.system) / 1e6 / seconds,
  };
}
