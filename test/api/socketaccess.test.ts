/** Who may open a WebSocket and with which handshake, how many there may be, and what a key may do on one. */
import { describe, expect, test } from "bun:test";
import { writeFile } from "node:fs/promises";
import { connect } from "node:http2";
import { join } from "node:path";
import { newCertificate } from "../support/certificate.ts";
import { attempt, EventStream } from "../support/eventstream.ts";
import { answersIn, isAnswer, type RawAnswer, RawSocket } from "../support/rawsocket.ts";
import { startServer } from "../support/server.ts";
import { OPENING_ACCEPT, opening, SocketClient } from "../support/socket.ts";
import { temporaryDirectory } from "../support/spawn.ts";
import { absentTopic, newTopic, type Sender, sharedServer, type Topic, until } from "../support/topics.ts";

/** The server as the holder of a key sees it. */
const keyed = (server: Sender, key: string): Sender => ({
  get url() {
    return server.url;
  },
  send: (method, path, body, headers) =>
    server.send(method, path, body, { authorization: `Bearer ${key}`, ...headers }),
});

const bearer = (key: string) => ({ authorization: `Bearer ${key}` });
const openAs = (server: Sender, key: string) => SocketClient.open(server.url, bearer(key));

/** The answer to a handshake on a connection of its own. */
async function handshake(
  server: Sender,
  headers?: Record<string, string | undefined>,
  target?: string,
): Promise<RawAnswer> {
  using socket = new RawSocket(server.url);
  await socket.write(opening(headers, target));
  return answersIn(await socket.until(isAnswer))[0]!;
}

function expectRefusal(answer: RawAnswer, status: number, code: string, detail?: object): void {
  expect(answer.status).toBe(status);
  expect(answer.headers.get("content-type")).toBe("application/json");
  const { error, performance } = JSON.parse(answer.body);
  expect(error).toStrictEqual({ code, message: expect.stringMatching(/./), ...(detail && { detail }) });
  expect(performance).toMatchObject({ server_total_ms: expect.any(Number) });
}

describe("the handshake", () => {
  const server = sharedServer();

  test("05.50 is answered with 101 and the digest of the key", async () => {
    const { status, headers, body } = await handshake(server);
    expect(status).toBe(101);
    expect(headers.get("connection")?.toLowerCase()).toBe("upgrade");
    expect(headers.get("upgrade")?.toLowerCase()).toBe("websocket");
    expect(headers.get("sec-websocket-accept")).toBe(OPENING_ACCEPT);
    expect(body).toBe("");
  });

  test.each([
    ["names in any case", { Connection: "upgrade", Upgrade: "WebSocket" }],
    ["a list in Connection", { Connection: "keep-alive, Upgrade" }],
    ["a foreign Origin", { Origin: "https://elsewhere.example" }],
    ["a key where none is needed", { Authorization: "Bearer x" }],
    ["an Accept that names no stream", { Accept: "application/json" }],
  ])("05 section 4.1 may have %s", async (_, headers) => {
    expect((await handshake(server, headers)).status).toBe(101);
  });

  test("05 section 4.1 selects no subprotocol and no extension", async () => {
    const { status, headers } = await handshake(server, {
      "Sec-WebSocket-Protocol": "chat, superchat",
      "Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits",
    });
    expect(status).toBe(101);
    expect(headers.has("sec-websocket-protocol")).toBe(false);
    expect(headers.has("sec-websocket-extensions")).toBe(false);
  });

  test("05 section 4.1 may have a query, which does nothing", async () => {
    expect((await handshake(server, {}, "/v0/ws?token=x&a=b")).status).toBe(101);
  });

  const none = undefined;
  test.each<[string, Record<string, string | undefined>]>([
    ["no Connection", { Connection: none }],
    ["another Connection", { Connection: "keep-alive" }],
    ["no Upgrade", { Upgrade: none }],
    ["another Upgrade", { Upgrade: "h2c" }],
    ["no version", { "Sec-WebSocket-Version": none }],
    ["version 8", { "Sec-WebSocket-Version": "8" }],
    ["version 14", { "Sec-WebSocket-Version": "14" }],
    ["no key", { "Sec-WebSocket-Key": none }],
    ["an empty key", { "Sec-WebSocket-Key": "" }],
    ["a key of 8 bytes", { "Sec-WebSocket-Key": "AAAAAAAAAAA=" }],
    ["a key that is not base64", { "Sec-WebSocket-Key": "not base64 at all, it is" }],
    [
      "nothing of it",
      {
        Connection: none,
        Upgrade: none,
        "Sec-WebSocket-Version": none,
        "Sec-WebSocket-Key": none,
      },
    ],
  ])("05 section 4.1 with %s is 400", async (_, headers) => {
    expectRefusal(await handshake(server, headers), 400, "invalid_request");
  });

  test.each(["POST", "PUT", "DELETE", "PATCH"])("05 section 4.1 by %s is 405", async (method) => {
    const body = method === "DELETE" ? undefined : {};
    const reply = await server.send(method, "/v0/ws", body);
    expect(reply).toMatchObject({ status: 405, body: { error: { code: "method_not_allowed" } } });
    expect(reply.headers.get("allow")?.split(/, ?/)).toContain("GET");
  });

  test("01 section 1 by HEAD is 405, also with a whole handshake", async () => {
    using socket = new RawSocket(server.url);
    await socket.write(opening().replace("GET", "HEAD"));
    const [answer] = answersIn(await socket.until((text) => text.includes("\r\n\r\n")), () => true);
    expect(answer?.status).toBe(405);
    expect((await server.send("HEAD", "/v0/ws")).status).toBe(405);
  });

  test("01 section 1 over HTTP/2 is refused", async () => {
    const session = connect(server.url);
    try {
      const stream = session.request({ ":method": "GET", ":path": "/v0/ws" });
      stream.end();
      const { promise, resolve, reject } = Promise.withResolvers<[status: unknown, text: string]>();
      let text = "";
      let status: unknown;
      stream.on("response", (headers) => {
        status = headers[":status"];
      });
      stream.on("data", (chunk) => {
        text += chunk;
      });
      stream.on("end", () => resolve([status, text]));
      stream.on("error", reject);
      const [found, body] = await promise;
      expect([400, 405]).toContain(Number(found));
      expect(JSON.parse(body).error.code).toBeOneOf(["invalid_request", "method_not_allowed"]);
    } finally {
      session.destroy();
    }
  });

  test("01 section 1 works over TLS", async () => {
    const { cert, key } = await newCertificate();
    await using dir = await temporaryDirectory();
    const [certFile, keyFile] = [join(dir.path, "cert.pem"), join(dir.path, "key.pem")];
    await Promise.all([writeFile(certFile, cert), writeFile(keyFile, key)]);
    await using secure = await startServer({
      TOPICS_TLS_CERT_FILE: certFile,
      TOPICS_TLS_KEY_FILE: keyFile,
    });
    const url = secure.url.replace("http:", "https:");
    await using socket = await SocketClient.open(url, {}, { ca: cert });
    const publish = { op: "publish", topic: "t", records: [{ data: "x".repeat(100_000) }] };
    expect(await socket.ask(publish)).toMatchObject({ op: "ack", created: true });
    await socket.ask({ op: "subscribe", topic: "t" });
    expect((await socket.take("record")).records[0].data).toHaveLength(100_000);
  });

  test.each(["/v0/ws/", "/v0/WS", "/v0//ws"])("01 section 1 at %s is 404", async (path) => {
    expectRefusal(await handshake(server, {}, path), 404, "not_found");
  });
});

describe("keys", () => {
  const server = sharedServer({
    TOPICS_API_KEYS: [
      "full",
      "reader:r",
      "writer:w",
      "deleter:d",
      "writer-admin:w+a",
      "tenant::t42:",
      "tenant-writer:w:t42:|u7:",
    ].join(","),
  });
  const full = keyed(server, "full");
  const publish = (topic: Topic, rest: object = {}) => ({
    op: "publish",
    topic: topic.name,
    records: [{ data: 1 }],
    request_id: "id",
    ...rest,
  });
  const subscribe = (topic: Topic, rest: object = {}) => ({
    op: "subscribe",
    topic: topic.name,
    request_id: "id",
    ...rest,
  });
  const forbidden = {
    op: "error",
    request_id: "id",
    code: "forbidden",
    message: expect.stringMatching(/./),
  };
  /** Inside or outside the tenant's prefix, and not existing yet. */
  let named = 0;
  const absent = (prefix = "s") => absentTopic(full, `${prefix}n${++named}`);
  async function existing(prefix?: string): Promise<Topic> {
    const topic = absent(prefix);
    await topic.put();
    return topic;
  }

  test.each([
    ["no key", {}],
    ["an unknown key", bearer("stranger")],
    ["an empty key", { authorization: "Bearer " }],
    ["another scheme", { authorization: "Basic full" }],
  ])("05.43 %s is 401, before everything else", async (_, headers) => {
    expectRefusal(await handshake(server, headers), 401, "unauthorized");
    const broken = { ...headers, "Sec-WebSocket-Version": "8" };
    expectRefusal(await handshake(server, broken), 401, "unauthorized");
    expect((await server.send("POST", "/v0/ws", {}, headers as Record<string, string>)).status).toBe(401);
  });

  test("05.43 01.39 a token in the query is no key", async () => {
    for (const target of ["/v0/ws?token=full", "/v0/ws?access_token=full&token=reader"]) {
      expectRefusal(await handshake(server, {}, target), 401, "unauthorized");
    }
    expect((await handshake(server, bearer("full"), "/v0/ws?token=stranger")).status).toBe(101);
    expectRefusal(await handshake(server, bearer("stranger"), "/v0/ws?token=full"), 401, "unauthorized");
  });

  test("05 section 4.1 a token that was made for a stream opens no socket", async () => {
    const topic = await existing();
    const made = await full.send("POST", "/v0/tokens", { topics: [topic.name], scopes: ["read", "write"] });
    expect(made.status).toBe(200);
    const { token } = made.body;
    expectRefusal(await handshake(server, bearer(token)), 401, "unauthorized");
    expectRefusal(await handshake(server, {}, `/v0/ws?token=${token}`), 401, "unauthorized");
  });

  test("05 section 4.1 any known key opens a socket, and ping and unsubscribe need no scope", async () => {
    for (const key of ["full", "reader", "writer", "deleter", "writer-admin", "tenant", "tenant-writer"]) {
      await using socket = await openAs(server, key);
      expect(await socket.ask({ op: "ping" })).toMatchObject({ op: "pong" });
      expect(await socket.ask({ op: "unsubscribe", topic: "foreign" })).toMatchObject({ op: "unsubscribed" });
    }
  });

  test.each([
    ["full", "ack", "ack", "subscribed"],
    ["reader", "error", "error", "subscribed"],
    ["writer", "ack", "error", "error"],
    ["deleter", "error", "error", "error"],
    ["writer-admin", "ack", "ack", "error"],
  ])("05.57 the scopes of %s decide each command", async (key, plain, withConfig, subscribed) => {
    await using socket = await openAs(server, key);
    // Whether the topic exists or not.
    for (const prepare of [existing, async () => absent()]) {
      const asked = async (command: (topic: Topic) => object, op: string) => {
        const topic = await prepare();
        const answer = await socket.ask(command(topic));
        if (op === "error") expect(answer).toStrictEqual(forbidden);
        else expect([key, answer.op, answer.code]).toEqual([key, op, undefined]);
        const { status } = await topic.state();
        if (prepare !== existing) expect(status).toBe(op === "ack" ? 200 : 404);
      };
      await asked((topic) => publish(topic), plain);
      await asked((topic) => publish(topic, { config: null }), plain);
      await asked((topic) => publish(topic, { config: {} }), withConfig);
      await asked((topic) => publish(topic, { config: { cap_records: 1 } }), withConfig);
      if (prepare === existing || subscribed === "error")
        await asked((topic) => subscribe(topic), subscribed);
    }
  });

  test("05 section 4.5 a refused publish writes nothing", async () => {
    await using socket = await openAs(server, "reader");
    const topic = await existing();
    expect(await socket.ask(publish(topic))).toStrictEqual(forbidden);
    expect((await topic.state()).body.head_seq).toBe(0);
  });

  test("05.57 a name outside the prefixes is forbidden, whether it exists or not", async () => {
    await using socket = await openAs(server, "tenant");
    for (const foreign of [await existing("other"), absent("other"), await existing("t42"), absent("t42")]) {
      for (const command of [
        subscribe(foreign),
        subscribe(foreign, { lenient: true }),
        publish(foreign),
        publish(foreign, { create: false }),
        publish(foreign, { config: {} }),
      ]) {
        expect(await socket.ask(command)).toStrictEqual(forbidden);
      }
    }
    expect(await socket.ask(subscribe(absentTopic(full, "")))).toStrictEqual(forbidden);
  });

  test("05.57 a name inside the prefixes is like any other", async () => {
    await using socket = await openAs(server, "tenant");
    const [topic, missing] = [absent("t42:"), absent("t42:")];
    expect(await socket.ask(publish(topic, { config: {} }))).toMatchObject({ op: "ack", created: true });
    expect(await socket.ask(subscribe(topic))).toMatchObject({ op: "subscribed" });
    expect(await socket.take("record")).toMatchObject({ topic: topic.name });
    expect(await socket.ask(subscribe(missing))).toMatchObject({ code: "topic_not_found" });
    await using writer = await openAs(server, "tenant-writer");
    expect(await writer.ask(publish(absent("u7:")))).toMatchObject({ op: "ack", created: true });
    expect(await writer.ask(publish(absent("u7")))).toStrictEqual(forbidden);
  });

  test("05.57 one foreign name among many refuses all of them", async () => {
    await using socket = await openAs(server, "tenant");
    const [own, foreign] = [await existing("t42:"), await existing("other")];
    const topics = { [own.name]: {}, [foreign.name]: {} };
    expect(await socket.ask({ op: "subscribe", request_id: "id", topics })).toStrictEqual(forbidden);
    expect(await socket.ask(subscribe(own, { topics: { [foreign.name]: {} } }))).toStrictEqual(forbidden);
    await own.append("unseen");
    expect(await socket.arrived()).toEqual([]);
  });

  test("05 section 4.5 unsubscribe checks no name", async () => {
    await using socket = await openAs(server, "tenant");
    const answer = await socket.ask({ op: "unsubscribe", topics: ["other", "t42:x"] });
    expect(answer).toMatchObject({ op: "unsubscribed", topics: ["other", "t42:x"] });
  });

  test("05.57 a forbidden command leaves the socket usable", async () => {
    await using socket = await openAs(server, "reader");
    const topic = await existing();
    await socket.ask(subscribe(topic));
    await socket.take("caught_up");
    expect(await socket.ask(publish(topic))).toStrictEqual(forbidden);
    await topic.append("a");
    expect(await socket.take("record")).toMatchObject({ records: [{ data: "a" }] });
  });
});

describe("limits", () => {
  const socketsOf = async (server: Sender, headers?: Record<string, string>): Promise<number> => {
    const accept = { accept: "application/json", ...headers };
    return (await server.send("GET", "/v0/metrics", undefined, accept)).body.sse_connections;
  };
  const opened = (server: Sender, n: number, headers?: Record<string, string>) =>
    until(
      () => socketsOf(server, headers),
      (found) => found === n,
      1000,
    );

  /** A queue, and a watch session of it, with the paths of their streams. */
  async function streams(server: Sender): Promise<string[]> {
    const queue = await newTopic(server, { type: "queue" });
    const session = await server.send("POST", "/v0/watch", { topics: { [queue.name]: {} } });
    return [`${queue.path}/work?node=w`, session.body.stream_url, `${queue.path}/stream`];
  }

  const refused = { limit: "max_sse_connections", max: 1 };

  test("01.44 05.44 TOPICS_MAX_SSE_CONNECTIONS counts sockets and streams together", async () => {
    await using server = await startServer({ TOPICS_MAX_SSE_CONNECTIONS: "1" });
    const paths = await streams(server);
    const socket = await SocketClient.open(server.url);
    const answer = await handshake(server);
    expectRefusal(answer, 429, "throttled", refused);
    expect(answer.headers.get("retry-after")).toBe("1");
    for (const path of paths) {
      const reply = await attempt(server.url, path);
      expect(reply).toMatchObject({ status: 429, body: { error: { code: "throttled", detail: refused } } });
    }
    expect(await socketsOf(server)).toBe(1);
    await socket.close();
    for (const path of paths) {
      await opened(server, 0);
      const stream = await EventStream.open(server.url, path);
      await stream.block();
      expectRefusal(await handshake(server), 429, "throttled", refused);
      await stream.close();
    }
    await opened(server, 0);
    await using again = await SocketClient.open(server.url);
    expect(await again.ask({ op: "ping" })).toMatchObject({ op: "pong" });
  });

  test("01.44 a refused or broken handshake takes no place", async () => {
    await using server = await startServer({ TOPICS_MAX_SSE_CONNECTIONS: "1", TOPICS_API_KEYS: "key" });
    for (let times = 0; times < 3; times++) {
      expect((await handshake(server)).status).toBe(401);
      expect((await handshake(server, { ...bearer("key"), "Sec-WebSocket-Version": "8" })).status).toBe(400);
      expect((await handshake(server, { ...bearer("key"), Upgrade: undefined })).status).toBe(400);
    }
    await using _only = await openAs(server, "key");
    expect((await handshake(server, bearer("key"))).status).toBe(429);
  });

  test("01 section 7 TOPICS_MAX_SSE_CONNECTIONS_PER_KEY counts each key by itself", async () => {
    const env = { TOPICS_MAX_SSE_CONNECTIONS_PER_KEY: "1", TOPICS_API_KEYS: "one,two" };
    await using server = await startServer(env);
    const [work] = await streams(keyed(server, "one"));
    const first = await openAs(server, "one");
    const limit = { limit: "max_sse_connections_per_key", max: 1 };
    const answer = await handshake(server, bearer("one"));
    expectRefusal(answer, 429, "throttled", limit);
    expect(answer.headers.get("retry-after")).toBe("1");
    expect((await attempt(server.url, work!, bearer("one"))).status).toBe(429);
    await using _other = await openAs(server, "two");
    await first.close();
    await opened(server, 1, bearer("one"));
    await using stream = await EventStream.open(server.url, work!, bearer("one"));
    await stream.block();
    expectRefusal(await handshake(server, bearer("one")), 429, "throttled", limit);
  });

  test("01 section 7 the limit per key does nothing without keys, and 0 is no limit", async () => {
    const env = { TOPICS_MAX_SSE_CONNECTIONS_PER_KEY: "1", TOPICS_MAX_SSE_CONNECTIONS: "0" };
    await using server = await startServer(env);
    const sockets = [];
    for (let n = 0; n < 10; n++) sockets.push(await SocketClient.open(server.url));
    for (const socket of sockets) expect(await socket.ask({ op: "ping" })).toMatchObject({ op: "pong" });
    expect(await socketsOf(server)).toBe(10);
    for (const socket of sockets) await socket.close();
    await opened(server, 0);
  });

  test("05 section 5 an open socket is no request that is being handled", async () => {
    await using server = await startServer({ TOPICS_MAX_INFLIGHT_PER_KEY: "1", TOPICS_API_KEYS: "key" });
    const topic = await newTopic(keyed(server, "key"));
    await using first = await openAs(server, "key");
    await using second = await openAs(server, "key");
    for (const socket of [first, second]) await socket.ask({ op: "subscribe", topic: topic.name });
    expect((await topic.append(1)).status).toBe(200);
    for (const socket of [first, second]) expect(await socket.take("record")).toMatchObject({ to_seq: 1 });
  });
});
