/** What a measurement gives, and how several of them become one. */
import { cpuSeconds } from "./process.ts";

/** One run of a load generator. */
export interface Generated {
  readonly calls: number;
  readonly seconds: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
  /** CPU time that the generator itself used. */
  readonly cpuSeconds: number;
}

export interface Figures {
  readonly callsPerSecond: number;
  readonly recordsPerSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly serverMicrosPerCall: number;
  readonly serverMicrosPerRecord: number;
  /** CPU time by wall time: 1 is one core, all the time. */
  readonly serverCpuShare: number;
  readonly generatorCpuShare: number;
}

/** Lets a generator run against the process `pid` and puts both sides together. */
export async function measure(
  pid: number,
  recordsPerCall: number,
  generate: () => Promise<Generated>,
): Promise<Figures> {
  const before = await cpuSeconds(pid);
  const { calls, seconds, p50Ms, p99Ms, cpuSeconds: generatorSeconds } = await generate();
  const serverSeconds = (await cpuSeconds(pid)) - before;
  return {
    callsPerSecond: calls / seconds,
    recordsPerSecond: (calls * recordsPerCall) / seconds,
    p50Ms,
    p99Ms,
    serverMicrosPerCall: (serverSeconds * 1e6) / calls,
    serverMicrosPerRecord: (serverSeconds * 1e6) / (calls * recordsPerCall),
    serverCpuShare: serverSeconds / seconds,
    generatorCpuShare: generatorSeconds / seconds,
  };
}

/** Measures `times` times and takes the median of each figure. */
export async function repeat(times: number, once: () => Promise<Figures>): Promise<Figures> {
  const all: Figures[] = [];
  while (all.length < times) all.push(await once());
  return medians(all);
}

/** The median of each figure. What the runs do not tell stays `null`. */
export function medians<T extends { readonly [name in keyof T]: number | null }>(all: T[]): T {
  const names = Object.keys(all[0]!) as (keyof T)[];
  const medianOf = (name: keyof T) => {
    const told = all.map((one) => one[name]).filter((figure) => figure !== null);
    return told.length > 0 ? median(told) : null;
  };
  return Object.fromEntries(names.map((name) => [name, medianOf(name)])) as T;
}

export const median = (numbers: number[]): number => percentile(numbers, 0.5);

/** The smallest number that at least `share` of the numbers do not exceed. NaN if there are none. */
export function percentile(numbers: number[], share: number): number {
  const sorted = numbers.toSorted((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)] ?? Number.NaN;
}
