/** Streams that are only held open: the memory they take, and the CPU time of their heartbeats. */
import { readFile } from "node:fs/promises";
import { Audience, CLICK } from "./audience.ts";
import { openSessions, recordBody, TOPIC } from "./channels.ts";
import { must } from "./client.ts";
import { cpuSeconds, memory } from "./process.ts";

const HEARTBEAT = Buffer.from(": : hb");
/** Opened and closed before, so that memory for code and the like is not put down to the streams. */
const WARM_UP_STREAMS = 100;
const SETTLE_MS = 1000;
/** Files and sockets of a process beside the streams. */
const OTHER_FILES = 100;
const DELIVERY_DEADLINE_MS = 20_000;

export interface HeldPlan {
  readonly kind: "held";
  readonly url: string;
  readonly pid: number;
  readonly streams: number;
  readonly seconds: number;
  readonly heartbeatMs: number;
}

export interface HeldFigures {
  readonly openMs: number;
  /** Streams that were open at the end and got the record that was written then. */
  readonly alive: number;
  /** The fewest heartbeats that a stream has got, which all must have. */
  readonly fewestBeats: number;
  /** Until the last stream had that record. */
  readonly deliveredMs: number;
  readonly memoryBytes: number;
  readonly memoryPerStream: number;
  /** CPU time of the server while the streams were held. */
  readonly serverCpuSeconds: number;
  readonly generatorCpuSeconds: number;
}

/** A sentence instead of figures: what the machine does not allow. */
export type Held = HeldFigures | string;

export async function hold(plan: HeldPlan): Promise<Held> {
  const refusal = await refusalOf(plan);
  if (refusal) return refusal;
  const { url, pid, streams, seconds, heartbeatMs } = plan;
  const request = { topics: { [TOPIC]: { tail: true } }, heartbeat_ms: heartbeatMs };
  const open = async (count: number) =>
    Audience.open(url, await openSessions(url, count, request, "event: caught-up"));
  {
    using _ = await open(WARM_UP_STREAMS);
  }
  await Bun.sleep(SETTLE_MS);
  const memoryBefore = await memory(pid);
  const openingAt = performance.now();
  using audience = await open(streams);
  const openMs = performance.now() - openingAt;
  audience.mark = HEARTBEAT;
  await Bun.sleep(SETTLE_MS);
  const serverBefore = await cpuSeconds(pid);
  const generatorBefore = process.cpuUsage();
  await Bun.sleep(seconds * 1000);
  const generator = process.cpuUsage(generatorBefore);
  const serverCpuSeconds = (await cpuSeconds(pid)) - serverBefore;
  const memoryBytes = (await memory(pid)).current;
  const fewestBeats = Math.min(...audience.listeners.map(({ heard }) => heard));
  const { alive, deliveredMs } = await deliver(url, audience);
  return {
    openMs,
    alive,
    fewestBeats,
    deliveredMs,
    memoryBytes,
    memoryPerStream: (memoryBytes - memoryBefore.current) / streams,
    serverCpuSeconds,
    generatorCpuSeconds: (generator.user + generator.system) / 1e6,
  };
}

/** Writes one record and counts the streams that get it. */
async function deliver(url: string, audience: Audience): Promise<{ alive: number; deliveredMs: number }> {
  audience.mark = CLICK;
  const open = audience.listeners.filter(({ isOpen }) => isOpen);
  const heardBefore = open.map(({ heard }) => heard);
  const writtenAt = performance.now();
  const heard = audience.hear(open.length, DELIVERY_DEADLINE_MS);
  // Streams that get nothing are counted below.
  const [, outcome] = await Promise.allSettled([
    must(url, "POST", `/v0/topics/${TOPIC}`, JSON.parse(recordBody(0))),
    heard,
  ]);
  const deliveredMs = outcome.status === "fulfilled" ? performance.now() - writtenAt : Number.NaN;
  return { alive: open.filter(({ heard }, i) => heard > heardBefore[i]!).length, deliveredMs };
}

/** Both sides need a file descriptor for each stream. */
async function refusalOf({ pid, streams }: HeldPlan): Promise<string | undefined> {
  for (const [side, id] of [
    ["server", pid],
    ["load generator", process.pid],
  ] as const) {
    const limits = await readFile(`/proc/${id}/limits`, "utf8");
    const files = Number(/^Max open files +(\d+)/m.exec(limits)?.[1] ?? Number.POSITIVE_INFINITY);
    if (files < streams + OTHER_FILES) return `ulimit -n is ${files} for the ${side}, too low`;
  }
  return undefined;
}
