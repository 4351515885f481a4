/** A stop with open streams and sockets: each is told, each ends in order, and none of them holds up the exit. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { once } from "node:events";
import { connect } from "node:http2";
import { connect as connectRaw } from "node:net";
import { EventStream, eventIn } from "../support/eventstream.ts";
import { frame, opcodes, RawWebSocket, SocketClient } from "../support/socket.ts";
import { type SpawnedServer, spawnServer } from "../support/spawn.ts";
import { absentTopic, column, newTopic, seqs, type Topic, timed, until } from "../support/topics.ts";

setDefaultTimeout(30_000);

const STOP_MS = 2000;

const message = expect.stringMatching(/./);
const farewell = { op: "error", code: "server_shutting_down", message };

async function watch(server: SpawnedServer, topics: Record<string, object>): Promise<EventStream> {
  const { body } = await server.send("POST", "/v0/watch", { topics });
  const stream = await EventStream.open(server.url, body.stream_url);
  await stream.block();
  return stream;
}

/** The stream has said goodbye, as the last of all, and has ended in order. */
async function expectFarewell(stream: EventStream, id: object): Promise<void> {
  const blocks = (await stream.rest()).split(/(?<=\n\n)/);
  const event = eventIn(blocks.at(-1)!)!;
  expect(event.event).toBe("error");
  expect(event.body).toStrictEqual({ code: "server_shutting_down", message });
  expect(JSON.parse(Buffer.from(event.id!, "base64url").toString())).toMatchObject(id);
  expect(blocks.filter((block) => block.includes("event: error"))).toHaveLength(1);
}

/** The socket has said goodbye, as the last of all, and was closed with 1001. */
async function expectClosed(socket: SocketClient): Promise<void> {
  const { messages, ending } = await socket.ended();
  expect(messages.map(({ body }) => body)).toStrictEqual([farewell]);
  expect(ending.code).toBe(1001);
}

/** More than the buffers on the way to a client can take. */
async function flood(topic: Topic): Promise<void> {
  for (let n = 0; n < 3; n++) await topic.append(...Array(10).fill("x".repeat(1_000_000)));
}

async function subscribed(server: SpawnedServer, ...topics: Topic[]): Promise<SocketClient> {
  const socket = await SocketClient.open(server.url);
  for (const { name } of topics) {
    await socket.ask({ op: "subscribe", topic: name });
    await socket.take("caught_up");
  }
  return socket;
}

describe("sockets", () => {
  test.each(["SIGTERM", "SIGINT"] as const)(
    "05.61 06.33 on %s all of them are told, also those without a subscription",
    async (signal) => {
      await using server = await spawnServer();
      const topic = await newTopic(server);
      const used = await subscribed(server);
      await used.ask({ op: "ping" });
      const left = await subscribed(server, topic);
      await left.ask({ op: "unsubscribe", topic: topic.name });
      const sockets = [await subscribed(server), used, await subscribed(server, topic), left];
      const { ms, answer: code } = await timed(() => server.stop(signal));
      for (const socket of sockets) await expectClosed(socket);
      expect(code).toBe(0);
      expect(ms).toBeLessThan(STOP_MS);
    },
  );

  test("05.61 a client that does not answer the close does not hold up the exit", async () => {
    await using server = await spawnServer();
    using socket = await RawWebSocket.open(server.url);
    const { ms, answer: code } = await timed(() => server.stop());
    const frames = await socket.rest();
    expect(frames.map(({ opcode }) => opcode)).toEqual([opcodes.text, opcodes.close]);
    expect(JSON.parse(frames[0]!.payload.toString())).toStrictEqual(farewell);
    expect(frames[1]!.payload.readUInt16BE(0)).toBe(1001);
    expect(code).toBe(0);
    expect(ms).toBeLessThan(STOP_MS);
  });

  test("05.61 nor does one that does not read, or is in the middle of a message", async () => {
    await using server = await spawnServer();
    const topic = await newTopic(server);
    using stalled = await RawWebSocket.open(server.url);
    stalled.say({ op: "subscribe", topic: topic.name });
    expect((await stalled.body()).op).toBe("subscribed");
    stalled.pause();
    await flood(topic);
    using half = await RawWebSocket.open(server.url);
    half.write(frame(opcodes.text, '{"op":', { fin: false }));
    await using other = await subscribed(server);
    const { ms, answer: code } = await timed(() => server.stop());
    await expectClosed(other);
    expect(code).toBe(0);
    expect(ms).toBeLessThan(STOP_MS);
  });

  test("05.61 what was acknowledged is there after the stop, and nothing else of the rest is twice", async () => {
    await using server = await spawnServer();
    const topic = await newTopic(server, { durability: "fsync" });
    const socket = await subscribed(server);
    for (let n = 1; n <= 2000; n++) {
      socket.say({ op: "publish", request_id: n, topic: topic.name, records: [{ data: n }] });
    }
    expect(await socket.take("ack")).toMatchObject({ request_id: 1 });
    expect(await server.stop()).toBe(0);
    const { messages } = await socket.ended();
    const bodies = messages.map(({ body }) => body);
    const acks = bodies.filter(({ op }) => op === "ack").map(({ request_id, seqs }) => [request_id, ...seqs]);
    expect(acks).toEqual(acks.map((_, i) => [i + 2, i + 2]));
    expect(bodies.filter(({ code }) => code === "server_shutting_down")).toHaveLength(1);
    await using next = await spawnServer({ dir: server.dir });
    const again = absentTopic(next, topic.name);
    const { head_seq } = (await again.state()).body;
    expect(head_seq).toBeGreaterThanOrEqual(acks.length + 1);
    const found: unknown[] = [];
    while (found.length < head_seq) {
      found.push(...column(await again.diff({ from_seq: found.length, limit: 1000 }), "data"));
    }
    expect(found).toEqual(found.map((_, i) => i + 1));
  });
});

describe("watch streams", () => {
  test.each(["SIGTERM", "SIGINT"] as const)(
    "05.47 06.33 on %s all of them are told and end",
    async (signal) => {
      await using server = await spawnServer();
      const [first, second] = [await newTopic(server), await newTopic(server)];
      await first.append("a", "b");
      const session = connect(server.url);
      session.on("error", () => {});
      const both = await watch(server, { [first.name]: {}, [second.name]: {} });
      const idle = await watch(server, { [second.name]: {} });
      const single = await EventStream.open(server.url, `${first.path}/stream?tail=true`);
      await single.block();
      const { body } = await server.send("POST", "/v0/watch", { topics: { [first.name]: { tail: true } } });
      const over = await EventStream.openOver(session, body.stream_url);
      await over.block();
      await both.events(3);
      const { ms, answer: code } = await timed(() => server.stop(signal));
      await expectFarewell(both, { [first.name]: 2, [second.name]: 0 });
      await expectFarewell(idle, { [second.name]: 0 });
      await expectFarewell(single, { [first.name]: 2 });
      await expectFarewell(over, { [first.name]: 2 });
      expect(code).toBe(0);
      expect(ms).toBeLessThan(STOP_MS);
      session.destroy();
    },
  );

  test("05.47 the last id is where a stream goes on after the restart", async () => {
    await using server = await spawnServer();
    const topic = await newTopic(server);
    const stream = await watch(server, { [topic.name]: {} });
    await topic.append("a", "b");
    await until(
      async () => stream.received,
      (received) => received.includes('"to_seq":2'),
    );
    expect(await server.stop()).toBe(0);
    const { id } = eventIn((await stream.rest()).split(/(?<=\n\n)/).at(-1)!)!;
    await using next = await spawnServer({ dir: server.dir });
    const again = absentTopic(next, topic.name);
    await again.append("c");
    await using resumed = await EventStream.open(next.url, `${again.path}/stream`, { "last-event-id": id! });
    expect((await resumed.event()).body).toMatchObject({ from_seq: 2, records: [{ $seq: 3, data: "c" }] });
  });

  test("05 section 3.9 one that does not read does not hold up the exit for more than 10 s", async () => {
    await using server = await spawnServer();
    const topic = await newTopic(server);
    const socket = connectRaw(Number(new URL(server.url).port), "127.0.0.1").pause();
    socket.on("error", () => {});
    await once(socket, "connect");
    socket.write(`GET ${topic.path}/stream HTTP/1.1\r\nHost: test\r\n\r\n`);
    // A stream is a reader from its first byte on.
    await until(topic.state, ({ body }) => body.last_read_ts !== null);
    await flood(topic);
    const { ms, answer: code } = await timed(() => server.stop());
    socket.destroy();
    expect(code).toBe(0);
    expect(ms).toBeLessThan(12_000);
  });
});

describe("everything at once", () => {
  test("01.57 06.33 watch, work, socket and long poll: all are told or answered, and the exit is quick", async () => {
    await using server = await spawnServer();
    const [topic, queue] = [await newTopic(server), await newTopic(server, { type: "queue" })];
    await queue.append("job");
    const stream = await watch(server, { [topic.name]: {} });
    const work = await EventStream.open(server.url, `${queue.path}/work?node=w`);
    await work.event();
    const socket = await subscribed(server, topic);
    const polled = topic.diff({ wait_ms: 1000 });
    // By the time these are answered the poll has arrived.
    await until(
      () => server.send("GET", "/v0/metrics", undefined, { accept: "application/json" }),
      ({ body }) => body.sse_connections === 3,
    );
    const { ms, answer: code } = await timed(() => server.stop());
    await expectFarewell(stream, { [topic.name]: 0 });
    const last = eventIn((await work.rest()).split(/(?<=\n\n)/).at(-1)!)!;
    expect(last.body).toMatchObject({ code: "server_shutting_down", topic: queue.name });
    await expectClosed(socket);
    expect(seqs(await polled)).toEqual([]);
    expect(code).toBe(0);
    expect(ms).toBeLessThan(STOP_MS);
    await using next = await spawnServer({ dir: server.dir });
    expect((await absentTopic(next, queue.name).state()).body.queue).toMatchObject({
      ready: 1,
      in_flight: 0,
    });
    expect((await next.send("GET", "/v0/watch/wid_AAAAAAAAAAAAAAAAAAAAAA")).status).toBe(404);
  });
});
