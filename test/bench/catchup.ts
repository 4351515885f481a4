/** Streams that begin at the first record of a long topic: how fast they come to its head. */
import { Audience } from "./audience.ts";
import { openSessions, TOPIC } from "./channels.ts";
import { cpuSeconds } from "./process.ts";

const DEADLINE_MS = 300_000;

export interface CatchUpPlan {
  readonly kind: "catch-up";
  readonly url: string;
  readonly pid: number;
  readonly streams: number;
  /** Records of the topic, which each stream gets. */
  readonly records: number;
  /** The most records of a frame. */
  readonly limit: number;
  readonly times: number;
}

export interface CatchUpFigures {
  /** Of all streams together. */
  readonly recordsPerSecond: number;
  readonly bytesPerSecond: number;
  readonly serverCpuSeconds: number;
  readonly serverMicrosPerRecord: number;
  readonly serverCpuShare: number;
  readonly generatorCpuShare: number;
}

/** The first run warms the server up and is not told. */
export async function catchUp(plan: CatchUpPlan): Promise<CatchUpFigures[]> {
  const runs: CatchUpFigures[] = [];
  for (let run = 0; run <= plan.times; run++) runs.push(await readAll(plan));
  return runs.slice(1);
}

async function readAll({ url, pid, streams, records, limit }: CatchUpPlan): Promise<CatchUpFigures> {
  const steps = await openSessions(url, streams, { topics: { [TOPIC]: { from_seq: 0 } }, limit }, "retry: ");
  using audience = await Audience.open(
    url,
    steps.map(() => []),
  );
  const serverBefore = await cpuSeconds(pid);
  const generatorBefore = process.cpuUsage();
  const startedAt = performance.now();
  const heard = audience.hear(streams * records, DEADLINE_MS);
  await Promise.all([heard, ...audience.listeners.map((listener, i) => listener.converse(steps[i]!))]);
  const seconds = (performance.now() - startedAt) / 1000;
  const generator = process.cpuUsage(generatorBefore);
  const serverCpuSeconds = (await cpuSeconds(pid)) - serverBefore;
  audience.check(records);
  return {
    recordsPerSecond: (streams * records) / seconds,
    bytesPerSecond: audience.bytes / seconds,
    serverCpuSeconds,
    serverMicrosPerRecord: (serverCpuSeconds * 1e6) / (streams * records),
    serverCpuShare: serverCpuSeconds / seconds,
    generatorCpuShare: (generator.user + generator.system) / 1e6 / seconds,
  };
}
