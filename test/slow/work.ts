/**
 * `work` streams over long times: heartbeats in silence, and readers that never read.
 *
 * All of them are looked at side by side, so the file takes as long as the slowest.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { once } from "node:events";
import { connect as connectHttp2 } from "node:http2";
import { connect } from "node:net";
import { EventStream } from "../support/eventstream.ts";
import { makeQueue, type Queue } from "../support/queue.ts";
import { type SpawnedServer, spawnServer } from "../support/spawn.ts";
import { type Sender, timed } from "../support/topics.ts";

setDefaultTimeout(100_000);

const BEAT = ": : hb\n\n";
const BEAT_MS = 15_000;
/** How much earlier a beat may seem, because the block before it was late, and how much later it may be. */
const EARLY_MS = 500;
const LATE_MS = 2000;

let server: SpawnedServer;
beforeAll(async () => {
  server = await spawnServer();
});
afterAll(() => server[Symbol.asyncDispose]());

const pathOf = (queue: Queue, max = 1) => `${queue.path}/work?node=worker&max=${max}`;
let named = 0;
/** Tests that run side by side need names of their own. */
const newQueue = (at: Sender = server) => makeQueue(at, {}, `slow-${++named}`);

/** A stream that has begun. */
async function work(queue: Queue): Promise<EventStream> {
  const stream = await EventStream.open(server.url, pathOf(queue));
  expect(await stream.block()).toBe("retry: 2000\n\n");
  return stream;
}

/** Waits for the next block, which must be a heartbeat after 15 s of silence. */
async function expectBeat(stream: EventStream) {
  const { ms, answer } = await timed(() => stream.block(BEAT_MS + LATE_MS));
  expect(answer).toBe(BEAT);
  expect(ms).toBeGreaterThan(BEAT_MS - EARLY_MS);
}

describe.concurrent("a heartbeat", () => {
  test("04.49 comes after 15 s of silence and every 15 s, longer than any idle connection may last", async () => {
    const queue = await newQueue();
    await using stream = await work(queue);
    for (let beat = 0; beat < 5; beat++) await expectBeat(stream);
    await queue.append("still there");
    expect((await stream.event()).body).toMatchObject({ $seq: 1, data: "still there" });
  });

  test("04.49 comes over HTTP/2, too", async () => {
    const queue = await newQueue();
    const session = connectHttp2(server.url);
    session.on("error", () => {});
    try {
      await using stream = await EventStream.openOver(session, pathOf(queue));
      expect(await stream.block()).toBe("retry: 2000\n\n");
      for (let beat = 0; beat < 2; beat++) await expectBeat(stream);
    } finally {
      session.destroy();
    }
  });

  test("04.49 waits for 15 s behind a job", async () => {
    const queue = await newQueue();
    await using stream = await work(queue);
    await Bun.sleep(8000);
    await queue.append(1);
    expect(await stream.block()).toStartWith("id: 1\n");
    await queue.ack([1]);
    await expectBeat(stream);
    await expectBeat(stream);
  });

  test("04.49 comes while jobs are leased and others wait, whatever else is asked of the queue", async () => {
    const queue = await newQueue();
    await queue.append(1, 2);
    await using stream = await work(queue);
    expect(await stream.block()).toStartWith("id: 1\n");
    const asking = setInterval(() => void queue.extend([1], 30_000), 2000);
    try {
      await expectBeat(stream);
    } finally {
      clearInterval(asking);
    }
  });

  test("04.49 does not come into a stream that is busy", async () => {
    const queue = await newQueue();
    await using stream = await work(queue);
    const end = performance.now() + BEAT_MS + LATE_MS;
    for (let seq = 1; performance.now() < end; seq++) {
      await queue.append(seq);
      expect(await stream.block()).toStartWith(`id: ${seq}\n`);
      await queue.ack([seq]);
      await Bun.sleep(1000);
    }
    expect(stream.received).not.toContain(BEAT);
  });

  test("04.49 releases nothing: a lease lasts as long as its stream extends it", async () => {
    const queue = await newQueue();
    await queue.append("a");
    await using stream = await work(queue);
    const { lease_id } = (await stream.event()).body;
    await expectBeat(stream);
    await queue.extend([1], 60_000);
    await expectBeat(stream);
    expect(await queue.counters()).toMatchObject({ ready: 0, in_flight: 1 });
    expect((await queue.ack([1], { lease_ids: [lease_id] })).body.acked).toBe(1);
  });
});

describe.concurrent("a reader that has stopped reading", () => {
  test("01 section 10 does not hold up a stop for more than its 10 s", async () => {
    await using stopping = await spawnServer();
    const queue = await newQueue(stopping);
    for (let n = 0; n < 10; n++) await queue.append("x".repeat(1_000_000));
    const socket = connect(Number(new URL(stopping.url).port), "127.0.0.1").pause();
    socket.on("error", () => {});
    try {
      await once(socket, "connect");
      socket.write(`GET ${pathOf(queue, 10)} HTTP/1.1\r\nHost: test\r\n\r\n`);
      while ((await queue.counters()).in_flight === 0) await Bun.sleep(20);
      const { ms, answer } = await timed(() => stopping.stop());
      expect(answer).toBe(0);
      expect(ms).toBeLessThan(12_000);
    } finally {
      socket.destroy();
    }
  });
});
