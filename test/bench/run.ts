/**
 * The benchmark: `bun run bench`. Measures the built executable against Redis Streams and a bare server,
 * how its cost grows with the store, what large operations do to other clients, its queue against BullMQ
 * and PostgreSQL, its routers, its watch streams against Redis and NATS, and its feeds against both with copies.
 *
 * The report goes to standard output, as tables or with `--json` as one document; progress goes to
 * standard error. The load generators share the machine with the servers, so their CPU time is shown
 * beside it: near 100 % means that a row says more about the generator than about the server.
 */
import { tmpdir } from "node:os";
import { parseArgs } from "node:util";
import { measureDepths } from "./depth.ts";
import { measureFeeds, nothingFed } from "./feeds.ts";
import { measureGrowth } from "./growth.ts";
import type { Bench } from "./loads.ts";
import { describeMachine } from "./machine.ts";
import { askedToEnd, endEverything } from "./process.ts";
import { jobRatios, measureQueue } from "./queue.ts";
import { describe, type Report } from "./report.ts";
import { measureForwarding, measureVisibility } from "./router.ts";
import { findBinary, withServer } from "./server.ts";
import { measureThroughput, ratios } from "./throughput.ts";
import { findTools, type Tool } from "./tools.ts";
import { measureWatch, nothingWatched } from "./watch.ts";
import { measureWork } from "./work.ts";

const usage = `bun run bench [options]

  --quick          1 s a row, small stores
  --json           print the report as JSON
  --only <part>    throughput, growth, work, queue, router, watch or feeds; may be repeated (default: all)
  --large          feeds: pages of 1,000,000 messages instead of 100,000
  --seconds <n>    seconds a row (default 5)
  --times <n>      runs of a row, of which the median is taken (default 3)
  --binary <path>  the executable to measure (default dist/topics, built if absent)
  --dir <path>     where to put the stores (default: the system's temporary directory)
`;

const parts = ["throughput", "growth", "work", "queue", "router", "watch", "feeds"] as const;
type Part = (typeof parts)[number];

const options = {
  quick: { type: "boolean", default: false },
  large: { type: "boolean", default: false },
  json: { type: "boolean", default: false },
  only: { type: "string", multiple: true, default: [...parts] as string[] },
  seconds: { type: "string" },
  times: { type: "string", default: "3" },
  binary: { type: "string" },
  dir: { type: "string", default: tmpdir() },
  help: { type: "boolean", default: false },
} as const;

const flags = readFlags();
let asked = false;
askedToEnd().then(async () => {
  asked = true;
  await endEverything();
  process.exit(130);
});
try {
  const report = await measureAll();
  process.stdout.write(flags.json ? `${JSON.stringify(report, null, 2)}\n` : describe(report));
  if (report.work.some(({ inexact }) => inexact.length > 0)) process.exitCode = 1;
} catch (error) {
  // Once the run is asked to end, its children die under it; that is no error to report.
  if (!asked) throw error;
} finally {
  await endEverything();
}

async function measureAll(): Promise<Report> {
  const say = (line: string) => void process.stderr.write(`${line}\n`);
  const { seconds, times, quick, wanted, directory } = flags;
  const needed: Tool[] = ["wrk", "redis"];
  if (wanted("queue")) needed.push("postgres");
  if (wanted("watch") || wanted("feeds")) needed.push("nats");
  const tools = await findTools(needed, say);
  for (const line of tools.omitted) say(line);
  const machine = await describeMachine(directory);
  const binary = tools.wrk || wanted("queue") || wanted("watch") ? await findBinary(flags.binary) : "";
  const bench: Bench = { binary, directory, seconds, times, quick, say };
  const versionOf = () => withServer(binary, directory, async (server) => server.version);
  const server = binary ? { binary, version: await versionOf() } : undefined;
  const throughput = wanted("throughput") ? await measureThroughput(bench, tools) : [];
  const growth = tools.wrk && wanted("growth") ? await measureGrowth(bench) : [];
  const work = tools.wrk && wanted("work") ? await measureWork(bench) : [];
  const queue = wanted("queue") ? await measureQueue(bench, tools) : [];
  const depths = wanted("queue") ? await measureDepths(bench) : [];
  const visibility = tools.wrk && wanted("router") ? await measureVisibility(bench) : [];
  const forwarding = tools.wrk && wanted("router") ? await measureForwarding(bench) : [];
  const watch = wanted("watch") ? await measureWatch(bench, tools) : nothingWatched;
  const feeds = tools.wrk && wanted("feeds") ? await measureFeeds(bench, tools, flags.large) : nothingFed;
  return {
    machine,
    settings: { seconds, times, quick },
    server,
    throughput,
    ratios: ratios(throughput),
    growth,
    work,
    queue,
    jobRatios: jobRatios(queue),
    depths,
    visibility,
    forwarding,
    watch,
    feeds,
    omitted: tools.omitted,
  };
}

function readFlags() {
  try {
    const { values } = parseArgs({ options });
    if (values.help) {
      process.stdout.write(usage);
      process.exit(0);
    }
    const unknown = values.only.filter((part) => !parts.includes(part as Part));
    if (unknown.length > 0) throw new Error(`--only knows ${parts.join(", ")}, not ${unknown.join(", ")}`);
    return {
      quick: values.quick,
      large: values.large,
      json: values.json,
      seconds: positive("--seconds", values.seconds ?? (values.quick ? "1" : "5")),
      times: positive("--times", values.times),
      binary: values.binary,
      directory: values.dir,
      wanted: (part: Part) => values.only.includes(part),
    };
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n\n${usage}`);
    process.exit(2);
  }
}

function positive(name: string, text: string): number {
  const number = Number(text);
  if (Number.isInteger(number) && number > 0) return number;
  throw new Error(`${name} must be a positive whole number, not ${text}`);
}
