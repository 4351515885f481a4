/** Who may open a `work` stream, and how many: keys and tokens, connection limits, and the gauge that counts them. */
import { describe, expect, test } from "bun:test";
import { attempt, EventStream } from "../support/eventstream.ts";
import { RawSocket } from "../support/rawsocket.ts";
import { startServer } from "../support/server.ts";
import { spawnServer } from "../support/spawn.ts";
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
const queue = (server: Sender) => newTopic(server, { type: "queue" });
const pathOf = (topic: Topic, query = "") => `${topic.path}/work?node=w${query}`;
const queueBlock = async (topic: Topic) => (await topic.state()).body.queue;

/** A stream that has begun. */
async function work(server: Sender, topic: Topic, headers?: Record<string, string>): Promise<EventStream> {
  const stream = await EventStream.open(server.url, pathOf(topic), headers);
  await stream.block();
  return stream;
}

/** Opens a stream as soon as there is room for it, which must be soon. */
async function workSoon(
  server: Sender,
  topic: Topic,
  headers?: Record<string, string>,
): Promise<EventStream> {
  const found = await until(
    () => work(server, topic, headers).catch((error: Error) => error),
    (opened) => opened instanceof EventStream,
    1000,
  );
  if (found instanceof Error) throw found;
  return found;
}

const throttled = (limit: string, max: number) => ({
  status: 429,
  body: { error: { code: "throttled", detail: { limit, max } } },
});

describe("TOPICS_MAX_SSE_CONNECTIONS", () => {
  const limited = (max: number) => startServer({ TOPICS_MAX_SSE_CONNECTIONS: `${max}` });
  const full = throttled("max_sse_connections", 1);

  test("04.52 01.44 refuses one more with 429, leases nothing for it, and frees a place with each close", async () => {
    await using server = await limited(2);
    const topic = await queue(server);
    await topic.append(1, 2, 3);
    const first = await work(server, topic);
    await using _second = await work(server, topic);
    for (let times = 0; times < 3; times++) {
      const refused = await attempt(server.url, pathOf(topic));
      expect(refused).toMatchObject(throttled("max_sse_connections", 2));
      expect(refused.headers.get("retry-after")).toBe("1");
      expect(refused.headers.get("content-type")).toBe("application/json");
    }
    expect(await queueBlock(topic)).toMatchObject({ ready: 1, in_flight: 2 });
    await first.close();
    await using _third = await workSoon(server, topic);
    expect((await attempt(server.url, pathOf(topic))).status).toBe(429);
  });

  test("04 section 8.1 is asked last: 406, 400, 404 and 409 come first", async () => {
    await using server = await limited(1);
    const [topic, log] = [await queue(server), await newTopic(server)];
    await using _only = await work(server, topic);
    const status = async (path: string, accept?: string) =>
      (await attempt(server.url, path, accept === undefined ? {} : { accept })).status;
    expect(await status(pathOf(topic), "application/json")).toBe(406);
    expect(await status(`${topic.path}/work`)).toBe(400);
    expect(await status("/v0/topics/absent/work?node=w")).toBe(404);
    expect(await status(pathOf(log))).toBe(409);
    expect(await status(pathOf(topic))).toBe(429);
  });

  test("04.52 a place is free after a reset, after the end of the topic, and after a refusal", async () => {
    await using server = await limited(1);
    const [topic, doomed] = [await queue(server), await queue(server)];
    using socket = new RawSocket(server.url);
    await socket.write(`GET ${pathOf(topic)} HTTP/1.1\r\nHost: test\r\n\r\n`);
    await socket.until((received) => received.includes("retry: 2000\n\n"));
    expect(await attempt(server.url, pathOf(doomed))).toMatchObject(full);
    await socket.reset();
    await using ended = await workSoon(server, doomed);
    expect(await attempt(server.url, pathOf(topic))).toMatchObject(full);
    await doomed.drop();
    await ended.rest(1000);
    expect((await attempt(server.url, pathOf(doomed))).status).toBe(404);
    await using _last = await workSoon(server, topic);
    expect(await attempt(server.url, pathOf(topic))).toMatchObject(full);
  });

  test("04 section 8.1 limits streams only", async () => {
    await using server = await limited(1);
    const topic = await queue(server);
    await using _only = await work(server, topic);
    expect((await topic.append(1)).status).toBe(200);
    expect((await topic.diff({})).body.records).toHaveLength(1);
    expect((await server.send("GET", "/v0/ready")).status).toBe(200);
  });

  test("04 section 8.1 0 is no limit", async () => {
    await using server = await startServer({
      TOPICS_MAX_SSE_CONNECTIONS: "0",
      TOPICS_MAX_SSE_CONNECTIONS_PER_KEY: "0",
      TOPICS_API_KEYS: "key",
    });
    const topic = await queue(keyed(server, "key"));
    const streams = [];
    for (let n = 0; n < 20; n++) streams.push(await work(server, topic, bearer("key")));
    expect(streams.every(({ ended }) => !ended)).toBe(true);
    for (const stream of streams) await stream.close();
  });
});

describe("TOPICS_MAX_SSE_CONNECTIONS_PER_KEY", () => {
  const env = { TOPICS_MAX_SSE_CONNECTIONS_PER_KEY: "1" };

  test("04 section 8.1 counts each key by itself", async () => {
    await using server = await startServer({ ...env, TOPICS_API_KEYS: "one,two" });
    const topic = await queue(keyed(server, "one"));
    const first = await work(server, topic, bearer("one"));
    const refused = await attempt(server.url, pathOf(topic), bearer("one"));
    expect(refused).toMatchObject(throttled("max_sse_connections_per_key", 1));
    expect(refused.headers.get("retry-after")).toBe("1");
    // A token is the same key.
    expect((await attempt(server.url, pathOf(topic, "&token=one"))).status).toBe(429);
    await using _other = await work(server, topic, bearer("two"));
    await first.close();
    await using _again = await workSoon(server, topic, bearer("one"));
    expect((await attempt(server.url, pathOf(topic), bearer("two"))).status).toBe(429);
  });

  test("01 section 7 does nothing without keys", async () => {
    await using server = await startServer(env);
    const topic = await queue(server);
    await using _first = await work(server, topic);
    await using second = await work(server, topic);
    expect(second.ended).toBe(false);
  });

  test("01 section 7 an open stream is no request that is being handled", async () => {
    await using server = await startServer({ TOPICS_MAX_INFLIGHT_PER_KEY: "1", TOPICS_API_KEYS: "key" });
    const key = keyed(server, "key");
    const topic = await queue(key);
    await using first = await work(server, topic, bearer("key"));
    await using _second = await work(server, topic, bearer("key"));
    await topic.append("a");
    expect((await key.send("GET", "/v0/topics")).status).toBe(200);
    expect(first.ended).toBe(false);
  });
});

describe("keys", () => {
  const server = sharedServer({
    TOPICS_API_KEYS: "full,reader:r,writer:w,worker:rw,deleter:d,admin:a,tenant:rw:t42:,a b+c",
  });
  const full = keyed(server, "full");
  const anonymous = (topic: Topic) => absentTopic(server, topic.name);

  test.each([
    ["full", 200],
    ["worker", 200],
    ["reader", 403],
    ["writer", 403],
    ["deleter", 403],
    ["admin", 403],
    ["stranger", 401],
    ["", 401],
  ])("04.61 01.39 the key %j gets %d, as a bearer and as a token", async (key, status) => {
    const topic = await queue(full);
    const code = { 401: "unauthorized", 403: "forbidden" }[status];
    const replies = [
      await attempt(server.url, pathOf(topic), bearer(key)),
      await attempt(server.url, pathOf(topic, `&token=${key}`)),
    ];
    for (const reply of replies) {
      expect(reply.status).toBe(status);
      if (code) expect(reply.body.error.code).toBe(code);
    }
  });

  test("01.30 no key is 401, before everything else", async () => {
    const log = await newTopic(full);
    for (const path of [`${log.path}/work`, "/v0/topics/absent/work"]) {
      const reply = await attempt(server.url, path, { accept: "application/json" });
      expect(reply).toMatchObject({ status: 401, body: { error: { code: "unauthorized" } } });
    }
  });

  test("01.36 a foreign name is 403, before everything else", async () => {
    const foreign = await attempt(server.url, "/v0/topics/other/work", {
      accept: "application/json",
      ...bearer("tenant"),
    });
    expect(foreign).toMatchObject({ status: 403, body: { error: { code: "forbidden" } } });
    const own = absentTopic(full, "t42:jobs");
    await own.put({ type: "queue" });
    for (const path of [pathOf(own), "/v0/topics/t42%3Ajobs/work?node=w"]) {
      expect((await attempt(server.url, path, bearer("tenant"))).status).toBe(200);
    }
  });

  test("01.39 a stream opened by token works like any other", async () => {
    const topic = await queue(full);
    await using stream = await EventStream.open(server.url, pathOf(topic, "&token=worker"));
    await topic.append("a");
    expect((await stream.event()).body.data).toBe("a");
  });

  test.each([
    ["%20 and %2B", "a%20b%2Bc", 200],
    ["a plus for a space", "a+b%2Bc", 200],
    ["not decoded twice", "a%2520b%252Bc", 401],
  ])("01 section 6 a token is percent-decoded: %s", async (_, token, status) => {
    const topic = await queue(full);
    expect((await attempt(server.url, pathOf(topic, `&token=${token}`))).status).toBe(status);
  });

  test.each([
    ["a wrong bearer is not rescued by a token", "stranger", "&token=full", 401],
    ["nor is one without the scopes", "reader", "&token=full", 403],
    ["a right bearer is not spoilt by a token", "full", "&token=stranger", 200],
  ])("01.39 %s", async (_, key, query, status) => {
    const topic = await queue(full);
    expect((await attempt(server.url, pathOf(topic, query), bearer(key))).status).toBe(status);
  });

  test.each([
    ["&token=full&token=stranger", 200],
    ["&token=stranger&token=full", 401],
    ["&token=&token=full", 401],
    ["&Token=full", 401],
  ])("01 section 6 of several tokens the first counts: %s", async (query, status) => {
    const topic = await queue(full);
    expect((await attempt(server.url, pathOf(topic, query))).status).toBe(status);
  });

  test("01.39 04.61 a token opens nothing but the stream", async () => {
    const topic = anonymous(await queue(full));
    const others: [string, string, unknown][] = [
      ["POST", "/claim", { node: "w" }],
      ["POST", "/ack", { node: "w", seqs: [1] }],
      ["POST", "/nack", { node: "w", seqs: [1] }],
      ["POST", "/extend", { node: "w", seqs: [1], lease_ms: 1000 }],
      ["POST", "/work", {}],
      ["GET", "", undefined],
      ["POST", "", { records: [{ data: 1 }] }],
      ["POST", "/diff", {}],
    ];
    for (const [method, suffix, body] of others) {
      const reply = await server.send(method, `${topic.path}${suffix}?node=w&token=full`, body);
      expect([method, suffix, reply.status]).toEqual([method, suffix, 401]);
    }
    expect((await server.send("GET", "/v0/topics?token=full")).status).toBe(401);
    expect((await server.send("GET", "/v0/metrics?token=full")).status).toBe(401);
  });

  test("01.59 the log holds no token", async () => {
    await using spawned = await spawnServer({ env: { TOPICS_API_KEYS: "secret-token", RUST_LOG: "trace" } });
    const topic = await queue(keyed(spawned, "secret-token"));
    await using stream = await EventStream.open(spawned.url, pathOf(topic, "&token=secret-token"));
    await stream.block();
    expect((await attempt(spawned.url, pathOf(topic, "&token=secret-tokem"))).status).toBe(401);
    expect(await spawned.stop()).toBe(0);
    expect(spawned.output()).not.toContain("secret-toke");
    expect(spawned.output()).not.toBe("");
  }, 20_000);
});

describe("the gauge", () => {
  /** What the metrics say of open streams, in both forms. */
  async function open(server: Sender): Promise<number[]> {
    const { text } = await server.send("GET", "/v0/metrics");
    const [, value] = /^topics_sse_connections (\d+)$/m.exec(text) ?? [];
    const json = await server.send("GET", "/v0/metrics", undefined, { accept: "application/json" });
    return [Number(value), json.body.sse_connections];
  }

  const opens = (server: Sender, n: number) =>
    until(
      () => open(server),
      (found) => found.every((value) => value === n),
      1000,
    );

  test("01.44 topics_sse_connections rises and falls with the streams", async () => {
    await using server = await startServer();
    const [topic, doomed] = [await queue(server), await queue(server)];
    expect(await open(server)).toEqual([0, 0]);
    const [first, second] = [await work(server, topic), await work(server, doomed)];
    expect(await open(server)).toEqual([2, 2]);
    await server.send("HEAD", pathOf(topic));
    await attempt(server.url, pathOf(topic), { accept: "text/plain" });
    expect(await open(server)).toEqual([2, 2]);
    await doomed.drop();
    await second.rest(1000);
    await opens(server, 1);
    await first.close();
    await opens(server, 0);
  });

  test("04 section 11 the leases of a stream are in flight until it closes", async () => {
    await using server = await startServer();
    const topic = await queue(server);
    await topic.append(1, 2);
    const stream = await work(server, topic);
    await stream.event();
    const gauges = async () => {
      const { text } = await server.send("GET", "/v0/metrics");
      return [
        /^topics_queue_leases_in_flight (\d+)$/m.exec(text)?.[1],
        new RegExp(`^topics_topic_queue_in_flight\\{topic="${topic.name}"\\} (\\d+)$`, "m").exec(text)?.[1],
        new RegExp(`^topics_topic_queue_ready\\{topic="${topic.name}"\\} (\\d+)$`, "m").exec(text)?.[1],
      ];
    };
    expect(await gauges()).toEqual(["1", "1", "1"]);
    await stream.close();
    await until(gauges, (found) => Bun.deepEquals(found, ["0", "0", "2"]), 1000);
  });
});
