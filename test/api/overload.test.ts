/** More than the server can do at once: others are still heard, and what nobody takes is bounded and given up. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { connect as connectHttp2, constants } from "node:http2";
import { connect, type Socket } from "node:net";
import { answersIn, exchange, isAnswer, RawSocket } from "../support/rawsocket.ts";
import { startServer } from "../support/server.ts";
import { newTopic, type Sender, until } from "../support/topics.ts";

setDefaultTimeout(60_000);

const MIB = 1024 * 1024;
const PAGE_BYTES = 8 * MIB;

/** A topic whose first page is as large as a page may be. */
async function largeTopic(server: Sender) {
  const topic = await newTopic(server);
  const record = { data: "x".repeat(MIB - 100) };
  for (let i = 0; i < 4; i++) await topic.write({ records: [record, record] });
  return topic;
}

const page = JSON.stringify({ from_seq: 0, limit: 1000, max_batch_bytes: PAGE_BYTES });

async function metric(server: Sender, name: string): Promise<number> {
  const { text } = await server.send("GET", "/v0/metrics");
  const line = text.split("\n").find((line) => line.startsWith(`${name} `));
  return Number(line?.split(" ")[1] ?? 0);
}

/** A connection that asks for a page and takes nothing of it. */
async function unread(server: Sender, path: string, fields: readonly string[] = []): Promise<Socket> {
  const { hostname, port } = new URL(server.url);
  const { promise, resolve } = Promise.withResolvers<void>();
  const socket = connect({ host: hostname, port: Number(port) }, resolve);
  socket.on("error", () => {});
  await promise;
  socket.pause();
  const head = ["Host: test", "Content-Type: application/json", `Content-Length: ${page.length}`, ...fields];
  socket.write(`POST ${path}/diff HTTP/1.1\r\n${head.join("\r\n")}\r\n\r\n${page}`);
  return socket;
}

describe("many who read at once", () => {
  test("do not keep a probe waiting until all are served", async () => {
    await using server = await startServer();
    const topic = await largeTopic(server);
    let served = 0;
    const reads = Array.from({ length: 60 }, async () => {
      const response = await fetch(`${server.url}${topic.path}/diff`, {
        method: "POST",
        headers: { "content-type": "application/json", connection: "close" },
        body: page,
      });
      served++;
      await response.body?.cancel();
    });
    const servedBefore = await server.send("GET", "/v0/health").then(() => served);
    await Promise.all(reads);
    expect(served).toBe(60);
    expect(servedBefore).toBeLessThan(40);
  });

  test("and have left again are not served", async () => {
    await using server = await startServer();
    const topic = await largeTopic(server);
    const session = connectHttp2(server.url);
    session.on("error", () => {});
    for (let i = 0; i < 200; i++) {
      const request = session.request({
        ":method": "POST",
        ":path": `${topic.path}/diff`,
        "content-type": "application/json",
      });
      request.on("error", () => {});
      request.end(page);
      request.close(constants.NGHTTP2_CANCEL);
    }
    await until(
      () => metric(server, "topics_requests_in_flight"),
      (running) => running === 1,
      30_000,
    );
    session.destroy();
    expect(await metric(server, 'topics_http_responses_total{status="200"}')).toBeLessThan(100);
  });
});

describe("answers that nobody takes", () => {
  test("hold their requests' places among those of their key", async () => {
    await using server = await startServer({
      TOPICS_API_KEYS: "owner,reader",
      TOPICS_MAX_INFLIGHT_PER_KEY: "3",
    });
    const as = (key: string): Sender => ({
      url: server.url,
      send: (method, path, body) => server.send(method, path, body, { authorization: `Bearer ${key}` }),
    });
    const topic = await largeTopic(as("owner"));
    const sockets = [];
    for (let i = 0; i < 3; i++) {
      sockets.push(await unread(server, topic.path, ["Authorization: Bearer reader"]));
    }
    const state = () => as("reader").send("GET", topic.path);
    const refused = await until(state, ({ status }) => status === 429);
    expect(refused.body.error.detail).toEqual({ limit: "max_inflight_per_key", max: 3 });
    expect((await as("owner").send("GET", topic.path)).status).toBe(200);
    for (const socket of sockets) socket.destroy();
    expect((await until(state, ({ status }) => status === 200)).body.topic).toBe(topic.name);
  });

  test("are bounded together; those that hold most for longest are given up", async () => {
    const max = 3 * PAGE_BYTES;
    await using server = await startServer({ TOPICS_MAX_STREAM_BYTES: `${max}` });
    const topic = await largeTopic(server);
    const sockets = [];
    for (let i = 0; i < 12; i++) sockets.push(await unread(server, topic.path));
    // What is given up is not among those that run any more.
    await until(
      () => metric(server, "topics_requests_in_flight"),
      (running) => running > 1 && running < 12,
      20_000,
    );
    expect(await metric(server, "topics_stream_held_bytes")).toBeLessThanOrEqual(max);
    expect((await topic.diff({ from_seq: 0, limit: 1 })).status).toBe(200);
    for (const socket of sockets) socket.destroy();
    await until(
      () => metric(server, "topics_stream_held_bytes"),
      (bytes) => bytes === 0,
    );
  });

  test("are no reason to refuse one that is larger than all may be, but alone", async () => {
    await using server = await startServer({ TOPICS_MAX_STREAM_BYTES: `${MIB}` });
    const topic = await largeTopic(server);
    const { body } = await topic.diff({ from_seq: 0, limit: 1000, max_batch_bytes: PAGE_BYTES });
    expect(body.records.length).toBeGreaterThan(6);
  });

  test("come whole to who takes them, however large", async () => {
    await using server = await startServer();
    const topic = await largeTopic(server);
    const { body } = await topic.diff({ from_seq: 0, limit: 1000, max_batch_bytes: PAGE_BYTES });
    expect(body.records.map(({ data }: { data: string }) => data.length)).toEqual(
      Array.from({ length: body.records.length }, () => MIB - 100),
    );
    expect(body.records.length).toBeGreaterThan(6);
    const head = await server.send("HEAD", "/v0/topics");
    expect([head.status, head.text]).toEqual([200, ""]);
  });
});

describe("bodies", () => {
  const limits = { TOPICS_MAX_BODY_BYTES: `${MIB}` };
  const beyond = `${"10000".padStart(8, "0")}\r\n${" ".repeat(65_536)}\r\n`.repeat(20);

  test.each([
    ["an ordinary host", "HTTP/1.1", ["Host: localhost"]],
    ["a host of one letter", "HTTP/1.1", ["Host: t"]],
    ["an empty host", "HTTP/1.1", ["Host:"]],
    ["a host with a slash", "HTTP/1.1", ["Host: longenough/a"]],
  ])("beyond the limit are refused and hold nothing, with %s", async (_, version, host) => {
    await using server = await startServer(limits);
    using socket = new RawSocket(server.url);
    const head = [...host, "Content-Type: application/json", "Transfer-Encoding: chunked"];
    await socket.write(`POST /v0/topics/t ${version}\r\n${head.join("\r\n")}\r\n\r\n`);
    await socket.write(beyond);
    expect(answersIn(await socket.until(isAnswer))[0]!.status).toBe(413);
    await until(
      () => metric(server, "topics_request_body_bytes_in_flight"),
      (bytes) => bytes === 0,
    );
    expect(await metric(server, "topics_requests_in_flight")).toBe(1);
  });

  test("that are announced and do not come keep nobody out", async () => {
    await using server = await startServer();
    const topic = await newTopic(server);
    const head = ["Host: test", "Content-Type: application/json", "Content-Length: 67108864"];
    const sockets = Array.from({ length: 4 }, () => new RawSocket(server.url));
    for (const socket of sockets)
      await socket.write(`POST ${topic.path} HTTP/1.1\r\n${head.join("\r\n")}\r\n\r\n `);
    await until(
      () => metric(server, "topics_requests_in_flight"),
      (running) => running === 5,
    );
    expect((await topic.append("x".repeat(900_000))).status).toBe(200);
    for (const socket of sockets) socket[Symbol.dispose]();
  });

  test("with trailers are refused, and nothing of them is stored", async () => {
    await using server = await startServer();
    const topic = await newTopic(server);
    const body = '{"records":[{"data":1}]}';
    const chunks = `${body.length.toString(16)}\r\n${body}\r\n0\r\nX-Sum: 1\r\n\r\n`;
    const head = [
      "Host: test",
      "Connection: close",
      "Content-Type: application/json",
      "Transfer-Encoding: chunked",
    ];
    const request = [`POST ${topic.path} HTTP/1.1`, ...head, "Trailer: X-Sum"].join("\r\n");
    const [answer] = answersIn(await exchange(server.url, `${request}\r\n\r\n${chunks}`));
    expect(answer!.status).toBe(400);
    expect((await topic.state()).body.head_seq).toBe(0);
  });
});
