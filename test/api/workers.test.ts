/** Several workers on one queue: streams among themselves, streams beside claims, and what one does to the others. */
import { describe, expect, test } from "bun:test";
import { once } from "node:events";
import { type ClientHttp2Session, connect as connectHttp2 } from "node:http2";
import { connect } from "node:net";
import { EventStream } from "../support/eventstream.ts";
import { type Job, makeQueue, type Queue, range, reaches, seqsOf } from "../support/queue.ts";
import { sharedServer, type Topic, timed, together, until } from "../support/topics.ts";

const server = sharedServer();

const pathOf = (topic: Topic, node: string, max: number) => `${topic.path}/work?node=${node}&max=${max}`;

/** Waits at most the second that a closed stream's leases may take until the queue counts this. */
const released = (topic: Queue, expected: object) =>
  until(
    () => topic.counters(),
    (found) => Bun.deepMatch(expected, found),
    1000,
  );

/** A stream that has begun. */
async function work(topic: Topic, node: string, max: number): Promise<EventStream> {
  const stream = await EventStream.open(server.url, pathOf(topic, node, max));
  await stream.block();
  return stream;
}

/** The seqs that have come on a stream and were not taken yet. */
const arrived = async (stream: EventStream): Promise<number[]> =>
  (await stream.arrived()).map(({ body }) => body.$seq);

/** Waits until the streams have this many events together, and gives the seqs each one got. */
async function shares(streams: EventStream[], total: number): Promise<number[][]> {
  const found = streams.map((): number[] => []);
  await until(
    async () => {
      for (const [i, stream] of streams.entries()) found[i]!.push(...(await arrived(stream)));
      return found.flat().length;
    },
    (n) => n >= total,
  );
  return found;
}

/** Finishes jobs of a stream as they come, until there are no more of them. Gives what it got. */
async function finish(topic: Queue, node: string, stream: EventStream, jobs: Job[]): Promise<void> {
  for (;;) {
    const event = await stream.event(30_000).catch(() => undefined);
    if (!event) return;
    jobs.push(event.body);
    await topic.ack([event.body.$seq], { node });
  }
}

/** Claims and finishes until the queue holds nothing. */
async function poll(topic: Queue, node: string, jobs: Job[]): Promise<void> {
  while ((await topic.counters()).count > 0) {
    const claimed = await topic.take(8, { node });
    jobs.push(...claimed);
    await topic.ack(seqsOf(claimed), { node });
  }
}

const expectOnce = (jobs: Job[], count: number) => {
  expect(seqsOf(jobs).sort((a, b) => a - b)).toEqual(range(1, count));
  expect(new Set(jobs.map(({ lease_id }) => lease_id)).size).toBe(count);
  expect(jobs.every(({ deliveries }) => deliveries === 1)).toBe(true);
};

describe("without a claim window", () => {
  test.each([
    [2, 5, 0],
    [10, 1, 0],
    [3, 4, 3],
    [1, 100, 2],
  ])("04.53 %d streams of depth %d and %d pollers get each job once", async (streams, max, pollers) => {
    const topic = await makeQueue(server);
    const jobs: Job[] = [];
    const opened = await together(streams, (i) => work(topic, `stream-${i}`, max));
    const finished = opened.map((stream, i) => finish(topic, `stream-${i}`, stream, jobs));
    for (let n = 0; n < 10; n++) await topic.append(...range(1, 20));
    await together(pollers, (i) => poll(topic, `poller-${i}`, jobs));
    await until(
      () => topic.state(),
      ({ body }) => body.count === 0,
    );
    for (const stream of opened) await stream.close();
    await Promise.all(finished);
    expectOnce(jobs, 200);
    expect(await topic.counters()).toEqual({ count: 0, ready: 0, in_flight: 0, dead_lettered: 0 });
  });

  test("04 section 8.5 the stream that wakes first takes up to its depth, the next batch goes to the other", async () => {
    const topic = await makeQueue(server);
    await using a = await work(topic, "a", 10);
    await using b = await work(topic, "b", 10);
    await topic.append(...range(1, 10));
    const first = await shares([a, b], 10);
    expect(first.map(({ length }) => length).sort()).toEqual([0, 10]);
    await topic.append(...range(1, 10));
    const second = await shares([a, b], 10);
    expect(second.map(({ length }) => length)).toEqual([first[1]!.length, first[0]!.length]);
    expect([...first.flat(), ...second.flat()]).toEqual(range(1, 20));
  });

  test("04 section 8.5 with depth 1 and prompt acks work spreads evenly", async () => {
    const topic = await makeQueue(server);
    await using a = await work(topic, "a", 1);
    await using b = await work(topic, "b", 1);
    await topic.append(...range(1, 8));
    const got: number[] = [];
    for (let round = 0; round < 4; round++) {
      const [left, right] = [(await a.event(1000)).body.$seq, (await b.event(1000)).body.$seq];
      got.push(left, right);
      expect(await topic.counters()).toMatchObject({ ready: 6 - 2 * round, in_flight: 2 });
      await Promise.all([topic.ack([left], { node: "a" }), topic.ack([right], { node: "b" })]);
    }
    expect(got.sort((a, b) => a - b)).toEqual(range(1, 8));
  });

  test("04 section 8 a claim takes what streams leave, and a full stream takes nothing back", async () => {
    const topic = await makeQueue(server);
    await using stream = await work(topic, "s", 2);
    await topic.append(...range(1, 5));
    expect((await stream.events(2)).map(({ id }) => id)).toEqual(["1", "2"]);
    expect(seqsOf(await topic.take(10))).toEqual([3, 4, 5]);
    await topic.nack([4]);
    expect(await topic.counters()).toMatchObject({ ready: 1, in_flight: 4 });
    await topic.ack([1], { node: "s" });
    expect((await stream.event()).body).toMatchObject({ $seq: 4, deliveries: 2 });
  });

  test("04 section 8.3 what a claim gives back or lets expire comes on an idle stream", async () => {
    const topic = await makeQueue(server);
    await topic.append("nacked", "expiring");
    await topic.claim({ max: 2, lease_ms: 500 });
    await using stream = await work(topic, "s", 2);
    await topic.nack([1]);
    expect((await stream.event(1000)).body).toMatchObject({ $seq: 1, deliveries: 2 });
    expect((await stream.event()).body).toMatchObject({ $seq: 2, deliveries: 2 });
  });
});

describe("with a claim window", () => {
  const WINDOW_MS = 300;
  const windowed = () => makeQueue(server, { claim_jitter_ms: WINDOW_MS });
  /** Streams also wait a window when they open; after that they are idle. */
  const idle = () => Bun.sleep(WINDOW_MS + 100);

  test("04.53 a batch is split evenly among idle streams", async () => {
    const topic = await windowed();
    await using a = await work(topic, "a", 10);
    await using b = await work(topic, "b", 10);
    await idle();
    const { ms, answer: split } = await timed(async () => {
      await topic.append(...range(1, 10));
      return shares([a, b], 10);
    });
    expect(split.map((seqs) => seqs.length)).toEqual([5, 5]);
    expect(split.map((seqs) => seqs.map((seq) => seq % 2)).sort()).toEqual([
      [0, 0, 0, 0, 0],
      [1, 1, 1, 1, 1],
    ]);
    expect(ms).toBeGreaterThan(WINDOW_MS - 50);
  });

  test("04 section 8.5 polling claims are included", async () => {
    const topic = await windowed();
    await using a = await work(topic, "a", 10);
    await using b = await work(topic, "b", 10);
    await idle();
    const [claimed] = await Promise.all([topic.take(10), topic.append(...range(1, 9))]);
    const split = await shares([a, b], 6);
    expect([claimed.length, ...split.map((seqs) => seqs.length)]).toEqual([3, 3, 3]);
    expect([...seqsOf(claimed), ...split.flat()].sort()).toEqual(range(1, 9));
  });

  test("04 section 8.3 a stream joins with its free depth only", async () => {
    const topic = await windowed();
    await using stream = await work(topic, "s", 2);
    await idle();
    const [claimed] = await Promise.all([topic.take(10), topic.append(...range(1, 9))]);
    expect(claimed).toHaveLength(7);
    const [first] = await shares([stream], 2);
    await topic.ack([first![0]!], { node: "s" });
    await topic.append(10, 11);
    const [second] = await shares([stream], 1);
    expect(second).toEqual([10]);
    expect(await topic.counters()).toMatchObject({ ready: 1, in_flight: 9 });
  });

  test("04 section 7 a window whose opener is a stream that closes still ends for the others", async () => {
    const topic = await windowed();
    await topic.append(...range(1, 6));
    const opener = await work(topic, "opener", 10);
    const joined = topic.take(10, { node: "a" });
    await opener.close();
    const jobs = await joined;
    expect(jobs.length).toBeGreaterThanOrEqual(3);
    await reaches(topic, { ready: 6 - jobs.length, in_flight: jobs.length });
    if (jobs.length < 6) jobs.push(...(await topic.take(10, { node: "b" })));
    expect(seqsOf(jobs).sort()).toEqual(range(1, 6));
  });

  test("04 section 7 the share of a stream that joined and closed comes back at once", async () => {
    const topic = await windowed();
    await topic.append(...range(1, 6));
    const opened = topic.take(10, { node: "a" });
    const joiner = await work(topic, "joiner", 10);
    await joiner.close();
    const jobs = await opened;
    await released(topic, { ready: 6 - jobs.length, in_flight: jobs.length });
    await using next = await work(topic, "next", 10);
    const [rest] = await shares([next], 6 - jobs.length);
    expect([...seqsOf(jobs), ...rest!].sort()).toEqual(range(1, 6));
  });
});

describe("the same node on two streams", () => {
  test("04 section 8.5 has two depths", async () => {
    const topic = await makeQueue(server);
    await topic.append(...range(1, 7));
    await using a = await work(topic, "n", 2);
    await a.events(2);
    await using b = await work(topic, "n", 3);
    expect((await b.events(3)).map(({ id }) => id)).toEqual(["3", "4", "5"]);
    expect(await topic.counters()).toMatchObject({ ready: 2, in_flight: 5 });
    // One call of the node frees a slot on each.
    expect((await topic.ack([1, 5], { node: "n" })).body.acked).toBe(2);
    expect([(await a.event()).id, (await b.event()).id].sort()).toEqual(["6", "7"]);
  });

  test("04.46 closing one releases only its own leases", async () => {
    const topic = await makeQueue(server);
    await topic.append(...range(1, 4));
    const a = await work(topic, "n", 2);
    await a.events(2);
    await using b = await work(topic, "n", 2);
    const kept = await b.events(2);
    await a.close();
    await released(topic, { ready: 2, in_flight: 2 });
    expect(kept.map(({ id }) => id)).toEqual(["3", "4"]);
    expect((await topic.ack([3, 4], { node: "n" })).body.acked).toBe(2);
    expect((await b.events(2)).map(({ body }) => [body.$seq, body.deliveries])).toEqual([
      [1, 2],
      [2, 2],
    ]);
  });
});

describe("a reader that has stopped reading", () => {
  const DEPTH = 6;
  const JOBS = 12;

  /** Opens a stream that is never read, on a queue with more than the buffers on the way can take. */
  async function stalled(query = "") {
    const topic = await makeQueue(server);
    for (let n = 0; n < JOBS; n++) await topic.append("x".repeat(1_000_000));
    const socket = connect(Number(new URL(server.url).port), "127.0.0.1").pause();
    await once(socket, "connect");
    socket.write(`GET ${pathOf(topic, "stalled", DEPTH)}${query} HTTP/1.1\r\nHost: test\r\n\r\n`);
    await until(
      () => topic.counters(),
      ({ in_flight }) => in_flight > 0,
    );
    const close = () => void socket.destroy();
    return { topic, close, [Symbol.dispose]: close };
  }

  test("04 section 8.3 holds no more than its depth, and the others get the rest", async () => {
    const others: number[] = [];
    using reader = await stalled();
    const { topic } = reader;
    await using stream = await work(topic, "s", 2);
    for (const { body } of await stream.events(2)) others.push(body.$seq);
    for (let taken = [0]; taken.length > 0; others.push(...taken)) taken = seqsOf(await topic.take(3));
    expect(others.length).toBeGreaterThanOrEqual(JOBS - DEPTH);
    expect(new Set(others).size).toBe(others.length);
    expect(await topic.counters()).toMatchObject({ ready: 0, in_flight: JOBS });
    reader.close();
    await released(topic, { ready: JOBS - others.length, in_flight: others.length });
  });

  test("04 section 8.4 what it holds comes to the others when its leases are over", async () => {
    using reader = await stalled("&lease_ms=300");
    const { topic } = reader;
    await until(
      async () => {
        await topic.ack(seqsOf(await topic.take(JOBS)));
        return topic.counters();
      },
      ({ count }) => count === 0,
    );
  });
});

/** One connection that carries several streams. */
class Connection implements Disposable {
  readonly session: ClientHttp2Session = connectHttp2(server.url);

  async work(topic: Topic, node: string, max: number): Promise<EventStream> {
    const stream = await EventStream.openOver(this.session, pathOf(topic, node, max));
    expect(await stream.block()).toBe("retry: 2000\n\n");
    return stream;
  }

  [Symbol.dispose](): void {
    this.session.destroy();
  }
}

describe("over HTTP/2", () => {
  test("04 section 8.1 a stream has the same headers and blocks", async () => {
    const topic = await makeQueue(server);
    await topic.append("a");
    using connection = new Connection();
    await using stream = await connection.work(topic, "n", 1);
    expect(stream.headers.get("content-type")).toBe("text/event-stream");
    expect(stream.headers.get("cache-control")).toBe("no-store");
    expect(stream.headers.get("x-accel-buffering")).toBe("no");
    const block = await stream.block();
    expect(block).toMatch(/^id: 1\nevent: job\ndata: \{[^\n]*\}\n\n$/);
  });

  test("04.46 closing one of two streams on a connection releases its leases alone", async () => {
    const topic = await makeQueue(server);
    await topic.append(...range(1, 4));
    using connection = new Connection();
    const a = await connection.work(topic, "n", 2);
    await a.events(2);
    await using b = await connection.work(topic, "n", 1);
    await b.event();
    await a.close();
    await released(topic, { ready: 3, in_flight: 1 });
    await topic.ack([3], { node: "n" });
    expect((await b.event()).body).toMatchObject({ $seq: 1, deliveries: 2 });
  });

  test("04.46 the end of the connection releases the leases of all its streams", async () => {
    const topic = await makeQueue(server);
    await topic.append(...range(1, 4));
    using connection = new Connection();
    await using a = await connection.work(topic, "a", 2);
    await a.events(2);
    await using b = await connection.work(topic, "b", 1);
    await b.event();
    connection.session.destroy();
    await released(topic, { ready: 4, in_flight: 0 });
  });

  test("04.53 workers on one connection get each job once", async () => {
    const topic = await makeQueue(server);
    const jobs: Job[] = [];
    using connection = new Connection();
    const opened = await together(8, (i) => connection.work(topic, `h2-${i}`, 2));
    opened.push(await work(topic, "h1", 2));
    const finished = opened.map((stream, i) => finish(topic, i < 8 ? `h2-${i}` : "h1", stream, jobs));
    for (let n = 0; n < 10; n++) await topic.append(...range(1, 20));
    await until(
      () => topic.state(),
      ({ body }) => body.count === 0,
    );
    for (const stream of opened) await stream.close();
    await Promise.all(finished);
    expectOnce(jobs, 200);
  });
});
