/**
 * Redis Streams doing the same work, on a server of its own. `redis-benchmark` appends; for pages it
 * would be the bottleneck, as it builds an object of every entry, so a small client here counts bytes.
 */
import { join } from "node:path";
import type { Socket } from "bun";
import { freePort } from "../support/spawn.ts";
import { click } from "./client.ts";
import { type Generated, percentile } from "./figures.ts";
import { cpuSeconds, end, run, start, temporaryDirectory } from "./process.ts";

const CONNECTIONS = 16;
const STREAM = "events";
/** All ids have as many digits as this one, so all pages of one size have the same length. */
const FIRST_ID = 100_000_000;
/** A first run shorter than this says too little about the rate. */
const CALIBRATION_SECONDS = 0.3;

export interface Redis extends AsyncDisposable {
  readonly port: number;
  readonly pid: number;
}

/** Redis at its best for this work: no snapshots and no rewrites of its log while it is measured. */
export async function startRedis(
  parent: string,
  appendfsync: "everysec" | "always",
  more: Record<string, string | number> = {},
): Promise<Redis> {
  const directory = await temporaryDirectory(parent);
  const port = freePort();
  const settings = {
    port,
    bind: "127.0.0.1",
    dir: directory.path,
    appendonly: "yes",
    appendfsync,
    save: "",
    "auto-aof-rewrite-percentage": 0,
    ...more,
  };
  const args = Object.entries(settings).flatMap(([name, value]) => [`--${name}`, String(value)]);
  const child = start(["redis-server", ...args], {}, join(directory.path, "log"));
  const dispose = async () => {
    if (child.exitCode === null && child.signalCode === null) await end(child, "SIGKILL");
    await directory[Symbol.asyncDispose]();
  };
  while (!(await answers(port))) {
    if (child.exitCode !== null) {
      const log = await Bun.file(join(directory.path, "log")).text();
      await dispose();
      throw new Error(`redis-server ended before it listened:\n${log}`);
    }
    await Bun.sleep(5);
  }
  return { port, pid: child.pid, [Symbol.asyncDispose]: dispose };
}

/** Finds out how many appends fill the time, and warms the server up with them. */
export async function calibrateAppend(redis: Redis, pipeline: number): Promise<number> {
  for (let count = 2_000 * pipeline; ; count *= 4) {
    const { calls, seconds } = await append(redis, pipeline, count);
    if (seconds >= CALIBRATION_SECONDS) return calls / seconds;
  }
}

/** Appends `count` records to an emptied stream, one XADD each, `pipeline` of them on the way at once. */
export async function append(redis: Redis, pipeline: number, count: number): Promise<Generated> {
  await command(redis.port, ["DEL", STREAM]);
  const options = ["-c", CONNECTIONS, "-P", pipeline, "-n", Math.ceil(count), "--csv", "--precision", 3];
  const record = JSON.stringify(click(0));
  const output = await run([
    ...["redis-benchmark", "-p", redis.port, ...options].map(String),
    ...["XADD", STREAM, "*", "data", record],
  ]);
  // The first column is the command, with quotes of its own; the figures are the last seven columns.
  const columns = [
    ...output.stdout
      .trimEnd()
      .split("\n")
      .at(-1)!
      .matchAll(/"(\d+\.\d+)"/g),
  ].map((m) => Number(m[1]));
  const [rate, , , p50Ms, , p99Ms, maxMs] = columns.slice(-7) as [number, ...number[]];
  if (!(rate > 0)) throw new Error(`redis-benchmark gave no figures:\n${output.stdout}`);
  const stored = Number((await command(redis.port, ["XLEN", STREAM])).trim());
  if (stored < count) throw new Error(`Redis stored ${stored} of ${count} records`);
  return {
    calls: stored,
    seconds: stored / rate,
    p50Ms: p50Ms!,
    p99Ms: p99Ms!,
    maxMs: maxMs!,
    cpuSeconds: output.cpuSeconds,
  };
}

/** Stores `count` records under known ids. */
export async function fillStream(
  redis: Redis,
  count: number,
  recordOf: (i: number) => object = click,
): Promise<void> {
  const parts: string[] = [];
  for (let i = 0; i < count; i++) {
    parts.push(`XADD ${STREAM} ${FIRST_ID + i}-1 data '${JSON.stringify(recordOf(i))}'\n`);
  }
  const output = await run(["redis-cli", "-p", String(redis.port), "--pipe"], new Blob(parts));
  if (!output.stdout.includes("errors: 0")) throw new Error(`Cannot fill the stream:\n${output.stdout}`);
}

/** Reads pages of `limit` records with XRANGE: the same one, the last ones, or random ones. */
export async function readPages(
  redis: Redis,
  order: "hot" | "random" | "tail",
  stored: number,
  limit: number,
  seconds: number,
): Promise<Generated> {
  const last = stored - limit;
  const first = { hot: () => last >> 1, tail: () => last, random: () => Math.floor(Math.random() * last) }[
    order
  ];
  const request = () => `XRANGE ${STREAM} ${FIRST_ID + first()} + COUNT ${limit}\r\n`;
  return ask(redis, request, pageBytes(limit, click(0)), seconds);
}

/** Reads one page of `limit` records backwards, again and again, from the record `from` or else from the newest. */
export async function readBackwards(
  redis: Redis,
  from: number | undefined,
  limit: number,
  record: object,
  seconds: number,
): Promise<Generated> {
  const last = from === undefined ? "+" : `${FIRST_ID + from}-1`;
  const request = () => `XREVRANGE ${STREAM} ${last} - COUNT ${limit}\r\n`;
  return ask(redis, request, pageBytes(limit, record), seconds);
}

async function ask(
  redis: Redis,
  request: () => string,
  answerBytes: number,
  seconds: number,
): Promise<Generated> {
  const cpuBefore = await cpuSeconds(process.pid);
  const { latencies, elapsedSeconds } = await exchange(redis.port, request, answerBytes, seconds);
  return {
    calls: latencies.length,
    seconds: elapsedSeconds,
    p50Ms: percentile(latencies, 0.5),
    p99Ms: percentile(latencies, 0.99),
    maxMs: percentile(latencies, 1),
    cpuSeconds: (await cpuSeconds(process.pid)) - cpuBefore,
  };
}

/** The exact length of an answer with `limit` records of the stream, all as long as this one. */
function pageBytes(limit: number, record: object): number {
  const text = (value: string) => `$${value.length}\r\n${value}\r\n`;
  const entry = `*2\r\n${text(`${FIRST_ID}-1`)}*2\r\n${text("data")}${text(JSON.stringify(record))}`;
  return `*${limit}\r\n`.length + limit * entry.length;
}

/** One request at a time on each connection; an answer is complete when all its bytes are there. */
async function exchange(port: number, request: () => string, answerBytes: number, seconds: number) {
  const latencies: number[] = [];
  const startedAt = performance.now();
  const until = startedAt + seconds * 1000;
  const converse = () =>
    new Promise<void>((resolve, reject) => {
      let received = 0;
      let sentAt = 0;
      const ask = (socket: Socket) => {
        sentAt = performance.now();
        socket.write(request());
      };
      const data = (socket: Socket, chunk: Uint8Array) => {
        if (received === 0 && chunk[0] !== "*".charCodeAt(0)) return reject(new Error(String(chunk)));
        received += chunk.length;
        if (received < answerBytes) return;
        if (received > answerBytes) return reject(new Error("Redis answered more than was asked"));
        received = 0;
        const now = performance.now();
        latencies.push(now - sentAt);
        if (now < until) return ask(socket);
        resolve();
        socket.end();
      };
      const close = () => reject(new Error("Redis closed the connection"));
      Bun.connect({ hostname: "127.0.0.1", port, socket: { open: ask, data, close } }).catch(reject);
    });
  await Promise.all(Array.from({ length: CONNECTIONS }, converse));
  return { latencies, elapsedSeconds: (performance.now() - startedAt) / 1000 };
}

const command = async (port: number, words: string[]): Promise<string> =>
  (await run(["redis-cli", "-p", String(port), ...words])).stdout;

async function answers(port: number): Promise<boolean> {
  const reached = Promise.withResolvers<boolean>();
  const socket = {
    open: (socket: Socket) => void socket.write("PING\r\n"),
    data: (socket: Socket, chunk: Uint8Array) => {
      reached.resolve(String(new TextDecoder().decode(chunk)).startsWith("+PONG"));
      socket.end();
    },
    close: () => reached.resolve(false),
  };
  await Bun.connect({ hostname: "127.0.0.1", port, socket }).catch(() => reached.resolve(false));
  return reached.promise;
}
