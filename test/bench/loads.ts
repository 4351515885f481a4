/** The loads that the tables share, each on a server that is already there. */
import { must } from "./client.ts";
import { type Figures, type Generated, measure, repeat } from "./figures.ts";
import type { Server } from "./server.ts";
import { appendLoad, diffLoad, flood, type PageOrder } from "./wrk.ts";

export const CONNECTIONS = 16;
/** Compiles the hot code of a fresh process and fills the caches; not measured. */
export const WARM_UP_SECONDS = 1;

/** What a run was asked to do. */
export interface Bench {
  readonly binary: string;
  /** Where stores are put while they are measured. */
  readonly directory: string;
  readonly seconds: number;
  readonly times: number;
  readonly quick: boolean;
  say(line: string): void;
}

/** Appends batches to a new topic, and checks that what was acknowledged is stored. */
export async function measureAppends(
  bench: Bench,
  server: Server,
  topic: string,
  durability: "disk" | "fsync",
  records: number,
): Promise<Figures> {
  await must(server.url, "PUT", `/v0/topics/${topic}`, { durability });
  const load = appendLoad(server.url, topic, records);
  let acknowledged = 0;
  const counted = async (seconds: number): Promise<Generated> => {
    const generated = await flood(load, CONNECTIONS, seconds);
    acknowledged += generated.calls * records;
    return generated;
  };
  await counted(WARM_UP_SECONDS);
  const figures = await repeat(bench.times, () => measure(server.pid, records, () => counted(bench.seconds)));
  const { head_seq } = await must(server.url, "GET", `/v0/topics/${topic}`);
  // wrk leaves at the end of its time, without the last answer on each connection.
  const unanswered = head_seq - acknowledged;
  if (unanswered < 0 || unanswered > CONNECTIONS * records * (bench.times + 1)) {
    throw new Error(`${acknowledged} records were acknowledged in ${topic}, and ${head_seq} are stored`);
  }
  return figures;
}

/** Reads pages of `limit` records of a topic that holds `stored` of them. */
export async function measureDiffs(
  bench: Bench,
  server: Server,
  topic: string,
  order: PageOrder,
  stored: number,
  limit: number,
): Promise<Figures> {
  const page = await must(server.url, "POST", `/v0/topics/${topic}/diff`, {
    from_seq: stored - limit,
    limit,
  });
  if (page.records.length !== limit)
    throw new Error(`A page has ${page.records.length} records, not ${limit}`);
  const load = diffLoad(server.url, topic, order, stored, limit);
  const run = (seconds: number) => flood(load, CONNECTIONS, seconds);
  await run(WARM_UP_SECONDS);
  return repeat(bench.times, () => measure(server.pid, limit, () => run(bench.seconds)));
}
