/** One server that is written to, and others that have copies of what was written: in all systems the same words. */
import { type Writer, write } from "./writers.ts";

export type System = "topics" | "redis" | "nats";

export interface Cluster extends AsyncDisposable {
  /** The process that is written to, and those with copies. */
  readonly pid: number;
  readonly copyPids: readonly number[];
  /** Makes a lane that nobody has a copy of. */
  begin(lane: string): Promise<void>;
  /** Lets all the others ask for the lane: what it holds, and what it gets. */
  copy(lane: string): Promise<void>;
  writer(lane: string): Promise<Writer>;
  /** What another one has, at little cost: it grows by one with each record of the lane. */
  progress(lane: string, copy: number): Promise<number>;
  /** How many different records of the lane another one has. */
  count(lane: string, copy: number): Promise<number>;
}

const POLL_MS = 5;
const DEADLINE_MS = 120_000;

/** Opens so many writers, which are gone after the work. */
export async function withWriters<T>(
  cluster: Cluster,
  lane: string,
  count: number,
  work: (writers: readonly Writer[]) => Promise<T>,
): Promise<T> {
  using opened = new DisposableStack();
  const writers: Writer[] = [];
  while (writers.length < count) writers.push(opened.use(await cluster.writer(lane)));
  return await work(writers);
}

/** What each of the others has of a lane. */
export const progressOf = (cluster: Cluster, lane: string): Promise<number[]> =>
  Promise.all(cluster.copyPids.map((_, copy) => cluster.progress(lane, copy)));

/** Waits until each of the others has so many records more than before. */
export async function arrived(
  cluster: Cluster,
  lane: string,
  before: readonly number[],
  records: number,
): Promise<void> {
  const deadline = performance.now() + DEADLINE_MS;
  for (;;) {
    const now = await progressOf(cluster, lane);
    const missing = now.map((count, copy) => before[copy]! + records - count);
    if (missing.every((count) => count <= 0)) return;
    if (performance.now() > deadline) throw new Error(`${missing} of ${records} records do not arrive`);
    await Bun.sleep(POLL_MS);
  }
}

/** Lets all the others ask for a new lane, and waits until it has brought some records there. */
export async function copyNew(cluster: Cluster, lane: string, writers: number): Promise<void> {
  await cluster.begin(lane);
  const before = await progressOf(cluster, lane);
  await cluster.copy(lane);
  const { calls } = await withWriters(cluster, lane, writers, (all) => write(all, { records: writers }));
  await arrived(cluster, lane, before, calls);
}
