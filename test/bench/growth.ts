/** The second table: the same work on stores of different size, so that one sees what grows with them. */
import { join } from "node:path";
import { fill, fillTopics } from "./client.ts";
import { type Figures, median } from "./figures.ts";
import { type Bench, measureAppends, measureDiffs } from "./loads.ts";
import { type Memory, memory, temporaryDirectory } from "./process.ts";
import { diskBytes, type Server, startServer } from "./server.ts";

/** Appends make a store grow while it is measured, so these rows are short. */
const SECONDS_MAX = 2;
const STARTS = 3;
const PAGE_RECORDS = 1000;
/** Records of the topic that is read where the store has no large one. */
const READ_RECORDS = 100_000;

export interface Store {
  readonly name: string;
  /** From a clean stop, with a warm page cache: median of several starts. */
  readonly startMs: number;
  readonly diskBytes: number;
  readonly memoryAtStart: Memory;
  readonly memoryAfter: Memory;
  readonly rows: readonly { readonly work: string; readonly figures: Figures }[];
}

interface Content {
  readonly name: string;
  readonly read: { readonly topic: string; readonly records: number };
  fill(url: string): Promise<void>;
}

export async function measureGrowth(bench: Bench): Promise<Store[]> {
  const records = bench.quick ? 1_000_000 : 10_000_000;
  const topics = bench.quick ? 10_000 : 100_000;
  const beside = { topic: "read", records: READ_RECORDS };
  const contents: Content[] = [
    { name: "empty", read: beside, fill: async () => {} },
    {
      name: `${records.toLocaleString("en")} records`,
      read: { topic: "large", records },
      fill: (url) => fill(url, "large", records),
    },
    { name: `${topics.toLocaleString("en")} topics`, read: beside, fill: (url) => fillTopics(url, topics) },
  ];
  const short = { ...bench, seconds: Math.min(bench.seconds, SECONDS_MAX) };
  const stores: Store[] = [];
  for (const content of contents) stores.push(await measureStore(short, content));
  return stores;
}

async function measureStore(bench: Bench, content: Content): Promise<Store> {
  await using directory = await temporaryDirectory(bench.directory);
  const data = join(directory.path, "data");
  bench.say(`growth: filling a store with ${content.name}`);
  {
    await using server = await startServer(bench.binary, data);
    await content.fill(server.url);
    await server.stop();
  }
  const bytes = await diskBytes(data);
  bench.say(`growth: starting with ${content.name}`);
  const starts: number[] = [];
  for (let i = 1; i < STARTS; i++) {
    await using server = await startServer(bench.binary, data);
    starts.push(server.startMs);
    await server.stop();
  }
  await using server = await startServer(bench.binary, data);
  starts.push(server.startMs);
  const memoryAtStart = await memory(server.pid);
  const rows = await measureRows(bench, server, content);
  const memoryAfter = await memory(server.pid);
  return { name: content.name, startMs: median(starts), diskBytes: bytes, memoryAtStart, memoryAfter, rows };
}

/** Reads first, then the appends from the small to the large: what is written disturbs the rest least. */
async function measureRows(bench: Bench, server: Server, content: Content): Promise<Store["rows"]> {
  const { topic, records } = content.read;
  if (topic === "read") await fill(server.url, topic, records);
  const rows: { work: string; figures: Figures }[] = [];
  const row = async (work: string, figures: () => Promise<Figures>) => {
    bench.say(`growth: ${work} with ${content.name}`);
    rows.push({ work, figures: await figures() });
  };
  for (const order of ["hot", "random"] as const) {
    const run = () => measureDiffs(bench, server, topic, order, records, PAGE_RECORDS);
    await row(`diff ${PAGE_RECORDS}, ${order}`, run);
  }
  for (const batch of [1, 100]) {
    const run = () => measureAppends(bench, server, `append-${batch}`, "disk", batch);
    await row(`append ${batch}, disk`, run);
  }
  return rows;
}
