/**
 * Readers that stop reading, that come and go by the thousands, and sessions that nobody asks for.
 *
 * Those that only wait are looked at side by side; those that load the machine have it to themselves. The sessions
 * need 300 s, so they begin first and are looked at last.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readdir } from "node:fs/promises";
import { connect, type Socket } from "node:net";
import { attempt, EventStream, eventIn } from "../support/eventstream.ts";
import { type SpawnedServer, spawnServer } from "../support/spawn.ts";
import { newTopic, type Sender, type Topic, timed, together, until } from "../support/topics.ts";

setDefaultTimeout(400_000);

const KIB = 1024;
const MIB = 1024 * KIB;

/** An event of a stream or a frame of a WebSocket. */
interface Told {
  readonly name: string;
  readonly id: string | undefined;
  // biome-ignore lint/suspicious/noExplicitAny: a test looks at whatever came.
  readonly body: any;
}

/** What the bytes begin with, and how many they are; undefined where it is not complete. */
type Parsed<T> = { readonly value: T; readonly length: number } | undefined;

/** A client that reads only while it wants to. */
abstract class Reader implements Disposable {
  readonly told: Told[] = [];
  /** Nothing more comes: the answer or the connection has ended. */
  ended = false;
  readonly path: string;
  /** The request is on its way. */
  readonly sent: Promise<unknown>;
  readonly #socket: Socket;
  #status: number | undefined;
  #bytes: Buffer = Buffer.alloc(0);
  #changed = Promise.withResolvers<void>();

  constructor(url: string, path: string, headers: readonly string[] = []) {
    this.path = path;
    this.#socket = connect(Number(new URL(url).port), "127.0.0.1");
    this.#socket.on("data", (chunk) => this.#read(chunk as Buffer));
    this.#socket.on("error", () => {});
    this.#socket.on("close", () => {
      this.ended = true;
      this.#change();
    });
    const sent = Promise.withResolvers<unknown>();
    this.sent = sent.promise;
    this.#socket.write(
      `${[`GET ${path} HTTP/1.1`, "Host: test", ...headers].join("\r\n")}\r\n\r\n`,
      sent.resolve,
    );
  }

  get last(): Told | undefined {
    return this.told.at(-1);
  }

  /** The status of the answer, once that has begun. */
  get status(): number | undefined {
    return this.#status;
  }

  /** All records. */
  get records(): { $seq: number; data: unknown }[] {
    return this.told.flatMap(({ name, body }) => (name === "record" ? body.records : []));
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  send(bytes: Uint8Array): void {
    this.#socket.write(bytes);
  }

  /** Waits until it fits; throws if that takes too long or the connection ends before. */
  async until(fits: () => boolean, deadlineMs = 30_000): Promise<void> {
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      this.#change();
    }, deadlineMs);
    while (!fits() && !late && !this.ended) await this.#changed.promise;
    clearTimeout(timer);
    if (fits()) return;
    const state = { status: this.#status, ended: this.ended, told: this.told.length };
    throw new Error(`not within ${deadlineMs} ms: ${JSON.stringify(state)}`);
  }

  /** Goes away without a word. */
  drop(how: "end" | "reset"): void {
    how === "reset" ? this.#socket.resetAndDestroy() : this.#socket.destroy();
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }

  protected abstract take(bytes: Buffer): Parsed<Told[]>;

  #read(chunk: Buffer): void {
    this.#bytes = Buffer.concat([this.#bytes, chunk]);
    if (this.#status === undefined) this.#begin();
    if (this.#status === 200 || this.#status === 101) {
      for (let parsed = this.take(this.#bytes); parsed; parsed = this.take(this.#bytes)) {
        this.told.push(...parsed.value);
        this.#bytes = this.#bytes.subarray(parsed.length);
      }
    }
    this.#change();
  }

  #begin(): void {
    const end = this.#bytes.indexOf("\r\n\r\n");
    if (end < 0) return;
    this.#status = Number(this.#bytes.toString("latin1", 9, 12));
    this.#bytes = this.#bytes.subarray(end + 4);
  }

  #change(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }
}

class EventReader extends Reader {
  #text = "";
  readonly #decoder = new TextDecoder();

  /** One chunk of the body, with the events that it completes. */
  protected override take(bytes: Buffer): Parsed<Told[]> {
    const line = bytes.indexOf("\r\n");
    if (line < 0) return undefined;
    const size = Number.parseInt(bytes.toString("latin1", 0, line), 16);
    const length = line + 2 + size + 2;
    if (bytes.length < length) return undefined;
    if (size === 0) this.ended = true;
    this.#text += this.#decoder.decode(bytes.subarray(line + 2, length - 2), { stream: true });
    const blocks = this.#text.split("\n\n");
    this.#text = blocks.pop()!;
    const events = blocks.map((block) => eventIn(`${block}\n\n`)).filter((event) => event !== undefined);
    return { value: events.map(({ event, id, body }) => ({ name: event, id, body })), length };
  }
}

class SocketReader extends Reader {
  constructor(url: string) {
    super(url, "/v0/ws", [
      "Connection: Upgrade",
      "Upgrade: websocket",
      "Sec-WebSocket-Version: 13",
      `Sec-WebSocket-Key: ${Buffer.alloc(16).toString("base64")}`,
    ]);
  }

  subscribe(topic: string): void {
    const text = Buffer.from(JSON.stringify({ op: "subscribe", topic }));
    // A final text frame, masked with zeros.
    this.send(Buffer.concat([Buffer.from([0x81, 0x80 | text.length, 0, 0, 0, 0]), text]));
  }

  /** One frame; all that this server sends are whole messages. */
  protected override take(bytes: Buffer): Parsed<Told[]> {
    if (bytes.length < 10 && bytes.length < 2 + (bytes[1] ?? 0)) return undefined;
    const short = bytes[1]!;
    const head = short === 127 ? 10 : short === 126 ? 4 : 2;
    const size =
      short === 127 ? Number(bytes.readBigUInt64BE(2)) : short === 126 ? bytes.readUInt16BE(2) : short;
    if (bytes.length < head + size) return undefined;
    const text = bytes.toString("utf8", head, head + size);
    if (bytes[0] !== 0x81) throw new Error(`no text frame: ${bytes[0]} ${text.slice(0, 200)}`);
    const body = JSON.parse(text);
    return { value: [{ name: body.op, id: undefined, body }], length: head + size };
  }
}

/** Opens a stream of one topic, from its start, and waits for the answer's head. */
type Open = (server: Sender, topic: string) => Promise<Reader>;

const begun = async <R extends Reader>(reader: R, status: number): Promise<R> => {
  await reader.until(() => reader.status !== undefined);
  expect(reader.status).toBe(status);
  return reader;
};

/** The path of a new watch, of this topic and of one where nothing happens. */
async function newWatch(server: Sender, topic: string): Promise<string> {
  await server.send("PUT", "/v0/topics/aside", {});
  const { status, body } = await server.send("POST", "/v0/watch", { topics: { aside: {}, [topic]: {} } });
  expect(status).toBe(200);
  return body.stream_url;
}

const openWatch: Open = async (server, topic) =>
  begun(new EventReader(server.url, await newWatch(server, topic)), 200);

const openStream: Open = (server, topic) =>
  begun(new EventReader(server.url, `/v0/topics/${topic}/stream`), 200);

const openSocket: Open = async (server, topic) => {
  const reader = await begun(new SocketReader(server.url), 101);
  reader.subscribe(topic);
  return reader;
};

const caughtUp = ({ last }: Reader) => last?.name === "caught-up" || last?.name === "caught_up";

/** What `JSON` metrics say of streams and sessions. */
async function open(server: Sender): Promise<{ streams: number; sessions: number }> {
  const { body } = await server.send("GET", "/v0/metrics", undefined, { accept: "application/json" });
  return { streams: body.sse_connections, sessions: body.watch_sessions };
}

const streamsOpen = (server: Sender, n: number, deadlineMs = 10_000) =>
  until(
    () => open(server),
    ({ streams }) => streams === n,
    deadlineMs,
  );

/** Payloads of a size, told apart by a number. */
const filled = (n: number, bytes: number) => ({ n, fill: "x".repeat(bytes) });

/** Appends so many payloads, about 1 MB at a time. `n` counts from the first one's. */
async function fill(topic: Topic, first: number, count: number, bytes: number): Promise<void> {
  const batch = Math.max(1, Math.floor(MIB / bytes));
  for (let at = 0; at < count; at += batch) {
    const size = Math.min(batch, count - at);
    await topic.append(...Array.from({ length: size }, (_, i) => filled(first + at + i, bytes)));
  }
}

/** Expects records 1 to `last`, each once and in order, with `n` = seq and whole payloads. */
function expectWhole(records: Reader["records"], last: number, bytes: number): void {
  const whole = "x".repeat(bytes);
  const broken = records
    .filter(({ $seq, data }, i) => {
      const { n, fill } = data as { n: number; fill: string };
      return $seq !== i + 1 || n !== $seq || fill !== whole;
    })
    .map(({ $seq }) => $seq);
  expect({ last: records.length, broken: broken.slice(0, 3) }).toEqual({ last, broken: [] });
}

let idle: ReturnType<typeof leaveSessions>;
const parts = new AsyncDisposableStack();
let server: SpawnedServer;

beforeAll(async () => {
  server = parts.use(await spawnServer());
  const left = parts.use(await spawnServer());
  idle = leaveSessions(left);
  idle.catch(() => {});
});
afterAll(() => parts.disposeAsync());

describe.concurrent("a reader that has stopped reading", () => {
  const BYTES = 10_000;
  /** More than any pair of socket buffers holds. */
  const COUNT = 2100;
  const BATCHES = 21;
  const STALL_MS = 40_000;

  test.concurrent.each([
    ["a watch", openWatch, STALL_MS],
    ["a stream of one request", openStream, STALL_MS],
    // Contract 05 section 4.6: no timeout.
    ["a WebSocket", openSocket, 75_000],
  ])("05.48 loses nothing and is not closed: %s", async (_, openReader, stallMs) => {
    const topic = await newTopic(server);
    using reader = await openReader(server, topic.name);
    await reader.until(() => caughtUp(reader));

    reader.pause();
    const resumeAt = performance.now() + stallMs;
    for (let batch = 0; batch < BATCHES; batch++) {
      await fill(topic, 1 + (batch * COUNT) / BATCHES, COUNT / BATCHES, BYTES);
      await Bun.sleep(STALL_MS / (BATCHES + 1));
    }
    await Bun.sleep(resumeAt - performance.now());
    expect(reader.records).toEqual([]);
    reader.resume();

    await reader.until(() => reader.last?.body.head_seq === COUNT && caughtUp(reader));
    expectWhole(reader.records, COUNT, BYTES);
    await topic.append(filled(COUNT + 1, BYTES));
    await reader.until(() => reader.records.length > COUNT && caughtUp(reader));
    expectWhole(reader.records, COUNT + 1, BYTES);
    const names = new Set(reader.told.map(({ name }) => name.replace("_", "-")));
    expect([...names].filter((name) => !["subscribed", "record", "caught-up"].includes(name))).toEqual([]);
  });

  test.concurrent.each([
    ["a watch", openWatch],
    ["a stream of one request", openStream],
  ])("is cut off after 60 s, and others notice nothing: %s", async (_, openReader) => {
    await using server = await spawnServer();
    const topic = await newTopic(server);
    await fill(topic, 1, COUNT, BYTES);
    using reader = await openReader(server, topic.name);
    reader.pause();
    const pausedAt = performance.now();
    using other = await openReader(server, topic.name);
    await other.until(() => caughtUp(other) && other.records.length === COUNT);

    // Once a second something new, which the other gets at once, until the reader is off.
    let head = COUNT;
    let slowest = 0;
    const offAfter = async () => {
      for (;;) {
        head += 1;
        const { ms } = await timed(async () => {
          await topic.append(filled(head, BYTES));
          await other.until(() =>
            other.told.some(({ name, body }) => name === "record" && body.to_seq === head),
          );
        });
        slowest = Math.max(slowest, ms);
        if ((await open(server)).streams < 2) return performance.now() - pausedAt;
        if (performance.now() - pausedAt > 90_000) throw new Error("still on after 90 s");
        await Bun.sleep(500);
      }
    };
    const off = await offAfter();
    expect(off).toBeGreaterThan(59_000);
    expect(slowest).toBeLessThan(1000);

    reader.resume();
    await reader.until(() => reader.ended);
    const got = reader.records;
    const ids = reader.told.map(({ id }) => id);
    expect(reader.last).toMatchObject({ name: "error", id: ids.at(-2), body: { code: "slow_consumer" } });
    expect(got.length).toBeLessThan(COUNT);

    using again = new EventReader(server.url, reader.path, [`Last-Event-ID: ${ids.at(-1)}`]);
    await again.until(() => caughtUp(again) && again.last?.body.head_seq === head);
    expectWhole([...got, ...again.records], head, BYTES);
    expectWhole(other.records, head, BYTES);
    expect(other.ended).toBe(false);
  });
});

/** Resident memory of a process. */
async function rss(pid: number): Promise<number> {
  const status = await Bun.file(`/proc/${pid}/status`).text();
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)![1]) * KIB;
}

const quantile = (sorted: readonly number[], q: number) => sorted[Math.floor(sorted.length * q)]!;
const ascending = (a: number, b: number) => a - b;
const median = (values: readonly number[]) => quantile([...values].sort(ascending), 0.5);

/** Between two appends, so that they do not load the machine themselves. */
const PAUSE_MS = 1;

/** The 99th percentiles of single appends, one after the other, for each of some slices of time. */
async function latencies(topic: Topic, slices: number, sliceMs: number): Promise<number[]> {
  const found: number[] = [];
  while (found.length < slices) {
    const taken: number[] = [];
    const end = performance.now() + sliceMs;
    while (performance.now() < end) {
      taken.push((await timed(() => topic.append("small"))).ms);
      await Bun.sleep(PAUSE_MS);
    }
    found.push(quantile(taken.sort(ascending), 0.99));
  }
  return found;
}

test("100 readers that read nothing cost a batch each, and writers do not notice them", async () => {
  const BYTES = 64 * KIB;
  const COUNT = 400;
  const SLICE_MS = 5000;
  const kinds: [Open, batchBytes: number][] = [
    [openWatch, 256 * KIB],
    [openStream, 256 * KIB],
    [openSocket, MIB],
  ];
  await using server = await spawnServer();
  const topic = await newTopic(server);
  await fill(topic, 1, COUNT, BYTES);
  const calm = await latencies(topic, 4, SLICE_MS);
  const memory = await rss(server.pid);

  // What the collector has not got to yet; all that they have not read would be some 2.5 GiB.
  let allowed = memory + 128 * MIB;
  using readers = new DisposableStack();
  const opened: Reader[] = [];
  for (let n = 0; n < 100; n++) {
    const [openReader, batchBytes] = kinds[n % kinds.length]!;
    const reader = readers.use(await openReader(server, topic.name));
    reader.pause();
    opened.push(reader);
    // One batch that was read, and what the socket has not taken of the one before.
    allowed += 2 * batchBytes;
  }
  let peak = 0;
  const looking = setInterval(async () => {
    peak = Math.max(peak, await rss(server.pid));
  }, 500);
  const stalled = await latencies(topic, 6, SLICE_MS).finally(() => clearInterval(looking));
  const figures = `${(memory / MIB).toFixed()} MiB, at most ${(peak / MIB).toFixed()} of ${(allowed / MIB).toFixed()} MiB`;
  console.info(
    `${figures}; p99 ${calm.map((ms) => ms.toFixed(1))} ms, then ${stalled.map((ms) => ms.toFixed(1))} ms`,
  );

  expect(await open(server)).toMatchObject({ streams: 100 });
  expect(peak).toBeLessThan(allowed);
  expect(median(stalled)).toBeLessThan(2 * median(calm) + 5);
  for (const reader of opened.slice(0, kinds.length)) {
    const { head_seq } = (await topic.state()).body;
    reader.resume();
    await reader.until(() => caughtUp(reader) && reader.last?.body.head_seq === head_seq);
    expectWhole(reader.records.slice(0, COUNT), COUNT, BYTES);
    expect(reader.records.map(({ $seq }) => $seq).filter((seq, i) => seq !== i + 1)).toEqual([]);
    expect(reader.records.length).toBe(head_seq);
  }
  readers.dispose();
  await streamsOpen(server, 0);
});

test("9,000 streams that are dropped leave neither memory nor connections behind", async () => {
  const WARM = 1000;
  const CYCLES = 9000;
  const AT_ONCE = 16;
  await using server = await spawnServer();
  const topic = await newTopic(server);
  await fill(topic, 1, 20, 1000);
  const watches = await together(10, () => newWatch(server, topic.name));

  /** One of each kind, dropped at each moment, in each way. */
  const cycle = async (n: number) => {
    const kind = n % 3;
    const moment = Math.floor(n / 3) % 3;
    const how = Math.floor(n / 9) % 2 === 0 ? "end" : "reset";
    const path = kind === 0 ? watches[n % watches.length]! : `${topic.path}/stream`;
    const reader = kind === 2 ? new SocketReader(server.url) : new EventReader(server.url, path);
    await reader.sent;
    if (moment > 0) await begun(reader, kind === 2 ? 101 : 200);
    if (moment > 0 && reader instanceof SocketReader) reader.subscribe(topic.name);
    if (moment > 1) await reader.until(() => caughtUp(reader));
    reader.drop(how);
    await reader.until(() => reader.ended);
  };
  let next = 0;
  const cyclesUpTo = (end: number) =>
    together(AT_ONCE, async () => {
      while (next < end) await cycle(next++);
    });
  const files = async () => (await readdir(`/proc/${server.pid}/fd`)).length;

  await cyclesUpTo(WARM);
  await streamsOpen(server, 0);
  const [memory, filesOpen] = [await rss(server.pid), await files()];
  await cyclesUpTo(CYCLES);
  await streamsOpen(server, 0);
  const grown = async () => (await rss(server.pid)) - memory;
  console.info(`grown by ${((await grown()) / MIB).toFixed(1)} MiB since ${(memory / MIB).toFixed()} MiB`);
  await until(grown, (bytes) => bytes < 30e6, 20_000);
  expect(await open(server)).toEqual({ streams: 0, sessions: watches.length });
  expect(await files()).toBeLessThan(filesOpen + AT_ONCE);
});

/**
 * Three sessions, and what becomes of them without another word to the server: one is never opened, one was open
 * for the first 60 s, one stays open. Gives when their number fell, and what the wids were worth then.
 */
async function leaveSessions(server: SpawnedServer) {
  const topic = await newTopic(server);
  const start = performance.now();
  const [never, early, stays] = await together(3, () => newWatch(server, topic.name));
  const stream = await EventStream.open(server.url, stays!);
  const first = await EventStream.open(server.url, early!);
  await Bun.sleep(60_000);
  await first.close();
  await until(
    () => open(server),
    ({ sessions }) => sessions !== 3,
    300_000,
  );
  const fellAfter = performance.now() - start;
  const after = await open(server);
  const gone = (await attempt(server.url, never!)).status;
  const kept = (await attempt(server.url, early!)).status;
  await topic.append("still served");
  const record = async () => {
    for (;;) {
      const event = await stream.event();
      if (event.event === "record") return event.body.records[0].data;
    }
  };
  const served = await record();
  await stream.close();
  return { fellAfter, after, gone, kept, served };
}

test("05.45 a session without a stream for 300 s frees its place by itself", async () => {
  const { fellAfter, ...found } = await idle;
  expect(found).toEqual({
    after: { streams: 1, sessions: 2 },
    gone: 404,
    kept: 200,
    served: "still served",
  });
  expect(fellAfter).toBeGreaterThan(299_000);
});
