/** Who writes one record after the other, and what that gives; for systems of all kinds. */
import { type Generated, percentile } from "./figures.ts";

export interface Writer extends Disposable {
  /** Resolves when the server has taken the record with this number. */
  write(number: number): Promise<unknown>;
}

const NOTE_TEXT = "the quick brown fox jumps over the lazy dog 12 times";

/** A payload of about 100 bytes; all have the same length. */
export const note = (number: number) => ({
  id: 100_000 + (number % 900_000),
  kind: "note",
  text: NOTE_TEXT,
  v: 1,
});

/** Ends after so many records or seconds, whichever comes first. Each writer waits for its last answer. */
export async function write(
  writers: readonly Writer[],
  { records = Number.POSITIVE_INFINITY, seconds = Number.POSITIVE_INFINITY },
): Promise<Generated> {
  const latencies: number[] = [];
  let begun = 0;
  const before = process.cpuUsage();
  const startedAt = performance.now();
  const endsAt = startedAt + seconds * 1000;
  const work = async (writer: Writer) => {
    while (begun < records && performance.now() < endsAt) {
      const sentAt = performance.now();
      await writer.write(begun++);
      latencies.push(performance.now() - sentAt);
    }
  };
  await Promise.all(writers.map(work));
  const used = process.cpuUsage(before);
  return {
    calls: latencies.length,
    seconds: (performance.now() - startedAt) / 1000,
    p50Ms: percentile(latencies, 0.5),
    p99Ms: percentile(latencies, 0.99),
    maxMs: percentile(latencies, 1),
    cpuSeconds: (used.user + used.system) / 1e6,
  };
}
