/** Who may make and open a watch session, how many sessions, streams and sockets there may be, and their gauges. */
import { describe, expect, test } from "bun:test";
import { attempt, EventStream } from "../support/eventstream.ts";
import { answersIn, isAnswer, type RawAnswer, RawSocket } from "../support/rawsocket.ts";
import { type Reply, startServer } from "../support/server.ts";
import { spawnServer } from "../support/spawn.ts";
import {
  absentTopic,
  newTopic,
  type Sender,
  sharedServer,
  type Topic,
  together,
  until,
} from "../support/topics.ts";

/** The server as the holder of a key sees it. */
const keyed = (server: Sender, key: string): Sender => ({
  get url() {
    return server.url;
  },
  send: (method, path, body, headers) =>
    server.send(method, path, body, { authorization: `Bearer ${key}`, ...headers }),
});

const bearer = (key: string) => ({ authorization: `Bearer ${key}` });

const watch = (at: Sender, names: string[], query = "", headers?: Record<string, string>) =>
  at.send(
    "POST",
    `/v0/watch${query}`,
    { topics: Object.fromEntries(names.map((name) => [name, {}])) },
    headers,
  );

/** The path of a new session's stream. */
async function session(at: Sender, ...topics: Topic[]): Promise<string> {
  const reply = await watch(
    at,
    topics.map(({ name }) => name),
  );
  if (reply.status !== 200) throw new Error(`refused with ${reply.status}: ${reply.text}`);
  return reply.body.stream_url;
}

/** A stream that has begun. */
async function open(at: Sender, path: string, headers?: Record<string, string>): Promise<EventStream> {
  const stream = await EventStream.open(at.url, path, headers);
  await stream.block();
  return stream;
}

/** Opens what is refused as long as there is no room for it. */
async function soon<T>(opening: () => Promise<T>): Promise<T> {
  const found = await until(
    () => opening().then(Array.of<T>, (error: Error) => error),
    (opened) => Array.isArray(opened),
    2000,
  );
  return (found as T[])[0]!;
}

/** The answer to a `GET` with exactly these fields; of a stream, only the head. */
async function rawGet(url: string, path: string, ...fields: string[]): Promise<RawAnswer> {
  using socket = new RawSocket(url);
  await socket.write([`GET ${path} HTTP/1.1`, "Host: test", ...fields, "", ""].join("\r\n"));
  const streamHead = /^HTTP\/1\.1 200 .*?\r\n\r\n/s;
  const said = await socket.until((text) => streamHead.test(text) || isAnswer(text));
  const opened = streamHead.exec(said)?.[0];
  return answersIn(opened ?? said, () => opened !== undefined)[0]!;
}

const handshake = [
  "Connection: Upgrade",
  "Upgrade: websocket",
  "Sec-WebSocket-Version: 13",
  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
];

/** A WebSocket that is open. */
async function webSocket(at: Sender, headers: Record<string, string> = {}) {
  const socket = new WebSocket(`${at.url.replace("http", "ws")}/v0/ws`, { headers });
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  socket.onopen = () => resolve();
  socket.onclose = socket.onerror = () => reject(new Error("the socket was refused"));
  await promise;
  return Object.assign(socket, {
    [Symbol.dispose]: () => socket.close(),
  });
}

const throttled = (limit: string, max: number) => ({
  status: 429,
  body: { error: { code: "throttled", detail: { limit, max } } },
});

function expectThrottled(reply: Reply, limit: string, max: number): void {
  expect(reply).toMatchObject(throttled(limit, max));
  expect(reply.headers.get("retry-after")).toBe("1");
  expect(reply.headers.get("content-type")).toBe("application/json");
}

/** Sessions, and open streams and sockets, as both forms of the metrics have it once nothing changes between them. */
async function gauges(at: Sender): Promise<{ sessions: number; streams: number }> {
  const both = async () => {
    const { text } = await at.send("GET", "/v0/metrics");
    const { body } = await at.send("GET", "/v0/metrics", undefined, { accept: "application/json" });
    const gauge = (name: string) => Number(new RegExp(`^topics_${name} (\\d+)$`, "m").exec(text)?.[1]);
    return {
      text: { sessions: gauge("watch_sessions"), streams: gauge("sse_connections") },
      json: { sessions: body.watch_sessions, streams: body.sse_connections },
    };
  };
  const { json } = await until(both, ({ text, json }) => Bun.deepEquals(text, json), 1000);
  return json;
}

const gaugesReach = (at: Sender, sessions: number, streams: number) =>
  until(
    () => gauges(at),
    (found) => Bun.deepEquals(found, { sessions, streams }),
    2000,
  );

const notFound = { status: 404, body: { error: { code: "not_found" } } };
const unauthorized = { status: 401, body: { error: { code: "unauthorized" } } };
const notAcceptable = { status: 406, body: { error: { code: "not_acceptable" } } };

describe("the stream of a session", () => {
  const server = sharedServer();

  test.each(["application/json", "text/*", "text/html", "Text/Event-Stream", "text/event-strea", "*"])(
    "05.17 with Accept %j is 406",
    async (accept) => {
      const path = await session(server, await newTopic(server));
      expect(await attempt(server.url, path, { accept })).toMatchObject(notAcceptable);
      expect((await server.send("HEAD", path, undefined, { accept })).status).toBe(406);
    },
  );

  test.each([
    "*/*",
    "text/event-stream",
    "application/json, text/event-stream;q=0.1",
    "text/html,*/*;q=0.1",
    "text/event-stream; charset=utf-8",
  ])("05.17 with Accept %j opens", async (accept) => {
    const path = await session(server, await newTopic(server));
    expect((await attempt(server.url, path, { accept })).status).toBe(200);
  });

  test.each([
    ["no Accept", []],
    ["an empty one", ["Accept:"]],
  ])("05.17 with %s opens", async (_, fields) => {
    const path = await session(server, await newTopic(server));
    const { status, headers } = await rawGet(server.url, path, ...fields);
    expect([status, headers.get("content-type")]).toEqual([200, "text/event-stream"]);
  });

  test("05.18 of an unknown wid is 404", async () => {
    const path = await session(server, await newTopic(server));
    const wid = path.slice("/v0/watch/".length);
    const swapped = wid.replace(/[a-z]/gi, (letter) =>
      letter === letter.toLowerCase() ? letter.toUpperCase() : letter.toLowerCase(),
    );
    const others = [
      "x",
      "wid_",
      `wid_${"A".repeat(22)}`,
      wid.slice(0, -1),
      `${wid}A`,
      wid.slice("wid_".length),
      swapped,
      `${wid}%20`,
      "__proto__",
    ];
    for (const other of others) {
      expect([other, await attempt(server.url, `/v0/watch/${other}`)]).toMatchObject([other, notFound]);
      const accept = "application/json";
      expect(await attempt(server.url, `/v0/watch/${other}`, { accept })).toMatchObject(notAcceptable);
      expect((await server.send("HEAD", `/v0/watch/${other}`)).status).toBe(404);
    }
  });

  test("05 section 3.1 a trailing slash is another path", async () => {
    const path = await session(server, await newTopic(server));
    for (const suffix of ["/", "/x", "//"]) {
      expect(await attempt(server.url, path + suffix)).toMatchObject(notFound);
    }
  });

  test("01 section 2 the wid may be percent-encoded", async () => {
    const path = await session(server, await newTopic(server));
    expect((await attempt(server.url, path.replace("_", "%5F"))).status).toBe(200);
  });

  test.each(["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])("05 section 3.1 %s is 405", async (method) => {
    const path = await session(server, await newTopic(server));
    for (const asked of [path, "/v0/watch/unknown"]) {
      const reply = await server.send(method, asked);
      expect(reply).toMatchObject({ status: 405, body: { error: { code: "method_not_allowed" } } });
      expect(reply.headers.get("allow")?.split(/, */).sort()).toEqual(["GET", "HEAD"]);
    }
  });

  test("05 section 3.1 HEAD gets the headers, and opens nothing", async () => {
    await using own = await startServer();
    const path = await session(own, await newTopic(own));
    const reply = await own.send("HEAD", path);
    expect([reply.status, reply.text]).toEqual([200, ""]);
    expect(Object.fromEntries(reply.headers)).toMatchObject({
      "content-type": "text/event-stream",
      "cache-control": "no-store",
      "x-accel-buffering": "no",
    });
    expect(await gauges(own)).toEqual({ sessions: 1, streams: 0 });
  });

  test.each([bearer("whatever"), { authorization: "Basic eDp5" }])(
    "01.40 without keys the wid alone opens it: %j",
    async (headers) => {
      const path = await session(server, await newTopic(server));
      expect((await attempt(server.url, path, headers)).status).toBe(200);
      expect((await attempt(server.url, `${path}?token=whatever`)).status).toBe(200);
    },
  );
});

describe("the key that makes a session", () => {
  const server = sharedServer({
    TOPICS_API_KEYS: "full,reader:r,writer:w,deleter:d,admin:a,worker:rw,tenant::t42:,pair:r:t42:|u7.",
    TOPICS_MAX_BODY_BYTES: "1000",
  });
  const full = keyed(server, "full");
  const forbidden = { status: 403, body: { error: { code: "forbidden" } } };
  let named = 0;
  const topicBelow = async (prefix: string) => {
    const topic = absentTopic(full, `${prefix}n${++named}`);
    await topic.put();
    return topic;
  };

  test.each(["", "Bearer", "Bearer stranger", "Bearer Full", "Basic ZnVsbDo="])(
    "05.41 must be known: %j is 401, whatever is asked",
    async (authorization) => {
      const { name } = await newTopic(full);
      const headers = { authorization };
      expect(await watch(server, [name], "", headers)).toMatchObject(unauthorized);
      expect(await watch(server, ["absent"], "", headers)).toMatchObject(unauthorized);
      expect(await server.send("POST", "/v0/watch", "{", { ...headers, "content-type": "" })).toMatchObject(
        unauthorized,
      );
      expect(await server.send("GET", "/v0/watch", undefined, headers)).toMatchObject(unauthorized);
    },
  );

  test("05.43 cannot be a `?token=`, there and for a WebSocket", async () => {
    const { name } = await newTopic(full);
    expect(await watch(server, [name], "?token=full")).toMatchObject(unauthorized);
    expect((await rawGet(server.url, "/v0/ws?token=full", ...handshake)).status).toBe(401);
    expect((await rawGet(server.url, "/v0/ws", ...handshake, "Authorization: Bearer stranger")).status).toBe(
      401,
    );
    // Both would work with the header.
    expect((await watch(full, [name])).status).toBe(200);
    using _ = await webSocket(server, bearer("full"));
  });

  test.each([
    ["full", 200],
    ["reader", 200],
    ["worker", 200],
    ["writer", 403],
    ["deleter", 403],
    ["admin", 403],
  ])("05.41 01.32 must be able to read: %s gets %d", async (key, status) => {
    const { name } = await newTopic(full);
    expect((await watch(keyed(server, key), [name])).status).toBe(status);
  });

  test("05 section 2.3 without `read` it is 403 before everything about the request", async () => {
    const writer = keyed(server, "writer");
    const requests: [string, string][] = [
      ["x".repeat(1001), "application/json"],
      ["{}", "text/plain"],
      ["{", "application/json"],
      ['{"topics":{}}', "application/json"],
      ['{"topics":{"absent":{}}}', "application/json"],
    ];
    for (const [body, type] of requests) {
      const reply = await writer.send("POST", "/v0/watch", body, { "content-type": type });
      expect(reply).toMatchObject(forbidden);
      expect(reply.body.error).not.toHaveProperty("detail");
    }
  });

  test("05.41 01.37 must be allowed every name, absent ones too", async () => {
    const [own, foreign] = [await topicBelow("t42:"), await newTopic(full)];
    const tenant = keyed(server, "tenant");
    const refused: [string[], string][] = [
      [[foreign.name], foreign.name],
      [["absent"], "absent"],
      [[own.name, foreign.name], foreign.name],
      [[foreign.name, own.name], foreign.name],
      // What is foreign comes before what is absent.
      [["t42:absent", foreign.name], foreign.name],
      [["t42:absent", "absent"], "absent"],
      [[""], ""],
      [["t42"], "t42"],
      [["T42:n"], "T42:n"],
    ];
    for (const [names, topic] of refused) {
      for (const query of ["", "?lenient=true"]) {
        const reply = await watch(tenant, names, query);
        expect([names, reply]).toMatchObject([
          names,
          { ...forbidden, body: { error: { detail: { topic } } } },
        ]);
      }
    }
    expect((await watch(tenant, [own.name])).status).toBe(200);
    expect((await watch(tenant, ["t42:absent"])).body.error.code).toBe("topic_not_found");
    expect((await watch(tenant, [own.name, "t42:absent"], "?lenient=1")).status).toBe(200);
  });

  test("05.41 may have several prefixes", async () => {
    const [one, two, three] = [await topicBelow("t42:"), await topicBelow("u7."), await topicBelow("u8.")];
    const pair = keyed(server, "pair");
    expect((await watch(pair, [one.name, two.name])).status).toBe(200);
    expect(await watch(pair, [one.name, three.name, two.name])).toMatchObject({
      ...forbidden,
      body: { error: { code: "forbidden", detail: { topic: three.name } } },
    });
  });

  test("05 section 2.3 of what is wrong with a body and its names, the body comes first", async () => {
    const tenant = keyed(server, "tenant");
    const status = async (body: unknown, type = "application/json") =>
      (await tenant.send("POST", "/v0/watch", body, { "content-type": type })).status;
    const foreign = { topics: { foreign: {} } };
    expect(await status(JSON.stringify(foreign).padEnd(1001))).toBe(413);
    expect(await status(foreign, "text/plain")).toBe(415);
    expect(await status({ topics: { foreign: { from_seq: -1 } } })).toBe(400);
    expect(await status({ ...foreign, limit: "1" })).toBe(400);
    expect(await status(foreign)).toBe(403);
  });

  test("05 section 2.3 too many topics are 400 before 403 and 404", async () => {
    await using own = await startServer({ TOPICS_API_KEYS: "tenant::t42:" });
    const names = Array.from({ length: 257 }, (_, i) => `foreign-${i}`);
    const tenant = keyed(own, "tenant");
    expect((await watch(tenant, names)).body.error.code).toBe("invalid_request");
    expect((await watch(tenant, names.slice(1))).body.error.code).toBe("forbidden");
  });
});

describe("the key that opens a session's stream", () => {
  const server = sharedServer({ TOPICS_API_KEYS: "full,other,reader:r,tenant:r:t42:,a b+c" });
  const full = keyed(server, "full");
  const statusOf = async (path: string, headers?: Record<string, string>) =>
    (await attempt(server.url, path, headers)).status;

  test("05.42 01.40 is the one that made it, by header or by token", async () => {
    const topic = await newTopic(full);
    const path = await session(full, topic);
    await using byHeader = await open(server, path, bearer("full"));
    await using byToken = await open(server, `${path}?token=full`);
    await using byBoth = await open(server, `${path}?token=full`, bearer("full"));
    await topic.append("a");
    for (const stream of [byHeader, byToken, byBoth]) {
      const found = async () => (await stream.event()).event;
      while ((await found()) !== "record");
    }
    expect((await full.send("HEAD", path)).status).toBe(200);
    expect((await server.send("HEAD", `${path}?token=full`)).status).toBe(200);
  });

  test.each([
    ["none", "", undefined],
    ["an unknown one", "", "Bearer stranger"],
    ["another one", "", "Bearer other"],
    ["another one that can read", "", "Bearer reader"],
    ["no token", "?token=", undefined],
    ["an unknown token", "?token=stranger", undefined],
    ["another token", "?token=other", undefined],
    ["a token of another name", "?Token=full", undefined],
    ["a wrong header, which no token makes good", "?token=full", "Bearer stranger"],
    ["another header, which no token makes good", "?token=full", "Bearer other"],
    ["another scheme", "", "Basic ZnVsbDo="],
    ["the right token, then a wrong one", "?token=full&token=stranger", undefined],
  ])("05.42 01.40 cannot be %s", async (_, query, authorization) => {
    const path = await session(full, await newTopic(full));
    const headers: Record<string, string> = authorization === undefined ? {} : { authorization };
    expect(await attempt(server.url, path + query, headers)).toMatchObject(unauthorized);
    expect((await server.send("HEAD", path + query, undefined, headers)).status).toBe(401);
  });

  test.each([
    ["a wrong token, then the right one", "?token=stranger&token=full", undefined],
    ["the right header, and a wrong token", "?token=stranger", "Bearer full"],
    ["blanks around it", "", "Bearer   full  "],
    ["another scheme, and the right token", "?token=full", "Basic eDp5"],
  ])("05.42 may come with %s", async (_, query, authorization) => {
    const path = await session(full, await newTopic(full));
    expect(await statusOf(path + query, authorization === undefined ? {} : { authorization })).toBe(200);
  });

  test.each([
    ["a%20b%2Bc", 200],
    ["a+b%2Bc", 200],
    ["a+b+c", 401],
    ["a%2520b%252Bc", 401],
  ])("05.42 is decoded from the token %s: %d", async (token, status) => {
    const path = await session(keyed(server, "a b+c"), await newTopic(full));
    expect(await statusOf(`${path}?token=${token}`)).toBe(status);
  });

  test("05 section 3.1 the most powerful key does not open another's session", async () => {
    const topic = absentTopic(full, "t42:x");
    await topic.put();
    const path = await session(keyed(server, "tenant"), topic);
    expect(await statusOf(path, bearer("full"))).toBe(401);
    expect(await statusOf(path, bearer("tenant"))).toBe(200);
  });

  test("05.18 01.40 an unknown wid is 404, with and without any key", async () => {
    const path = `/v0/watch/wid_${"A".repeat(22)}`;
    expect(await attempt(server.url, path)).toMatchObject(notFound);
    for (const key of ["full", "other", "stranger"]) {
      expect(await attempt(server.url, path, bearer(key))).toMatchObject(notFound);
      expect(await attempt(server.url, `${path}?token=${key}`)).toMatchObject(notFound);
    }
    expect((await server.send("HEAD", path)).status).toBe(404);
  });

  test("05 section 3.1 a bad Accept comes first, then the wid, then the key", async () => {
    const path = await session(full, await newTopic(full));
    const accept = { accept: "application/json" };
    expect(await statusOf(path, accept)).toBe(406);
    expect(await statusOf(path, { ...accept, ...bearer("other") })).toBe(406);
    expect(await statusOf(path, { ...accept, ...bearer("full") })).toBe(406);
    expect(await statusOf("/v0/watch/unknown", accept)).toBe(406);
    expect(await statusOf("/v0/watch/unknown")).toBe(404);
    expect(await statusOf(path)).toBe(401);
  });

  test("05 section 5 an open stream or socket is no request that is being handled", async () => {
    await using own = await startServer({ TOPICS_MAX_INFLIGHT_PER_KEY: "1", TOPICS_API_KEYS: "key" });
    const key = keyed(own, "key");
    const path = await session(key, await newTopic(key));
    await using stream = await open(own, path, bearer("key"));
    using _socket = await webSocket(own, bearer("key"));
    await using _token = await open(own, `${path}?token=key`);
    expect((await key.send("GET", "/v0/topics")).status).toBe(200);
    expect(stream.ended).toBe(false);
  });
});

describe("TOPICS_MAX_WATCH_SESSIONS", () => {
  test("05.44 01.43 refuses one more with 429, and a refused one leaves nothing", async () => {
    await using server = await startServer({ TOPICS_MAX_WATCH_SESSIONS: "2" });
    const topic = await newTopic(server);
    const [first] = [await session(server, topic), await session(server, topic)];
    for (let times = 0; times < 3; times++) {
      expectThrottled(await watch(server, [topic.name]), "max_watch_sessions", 2);
    }
    expect(await gauges(server)).toEqual({ sessions: 2, streams: 0 });
    expect((await attempt(server.url, first!)).status).toBe(200);
  });

  test("05 section 2.3 is asked last: 415, 400 and 404 come first", async () => {
    await using server = await startServer({
      TOPICS_MAX_WATCH_SESSIONS: "1",
      TOPICS_API_KEYS: "full,t::t42:",
    });
    const full = keyed(server, "full");
    const topic = await newTopic(full);
    await session(full, topic);
    expect((await watch(full, [topic.name], "", { "content-type": "text/plain" })).status).toBe(415);
    expect((await watch(full, [])).status).toBe(400);
    expect((await watch(full, ["absent"])).status).toBe(404);
    expect((await watch(keyed(server, "t"), [topic.name])).status).toBe(403);
    expect((await watch(server, [topic.name])).status).toBe(401);
    expectThrottled(await watch(full, [topic.name]), "max_watch_sessions", 1);
    expectThrottled(await watch(full, ["absent"], "?lenient=1"), "max_watch_sessions", 1);
  });

  test("05 section 2.3 holds however many ask at once", async () => {
    await using server = await startServer({ TOPICS_MAX_WATCH_SESSIONS: "5" });
    const topic = await newTopic(server);
    const replies = await together(40, () => watch(server, [topic.name]));
    expect(replies.filter(({ status }) => status === 200)).toHaveLength(5);
    expect(replies.filter(({ status }) => status === 429)).toHaveLength(35);
    expect((await gauges(server)).sessions).toBe(5);
  });

  test("05 section 3.7 counts sessions, open or idle: a closed stream frees none", async () => {
    await using server = await startServer({ TOPICS_MAX_WATCH_SESSIONS: "1" });
    const topic = await newTopic(server);
    const stream = await open(server, await session(server, topic));
    expect((await watch(server, [topic.name])).status).toBe(429);
    await stream.close();
    await gaugesReach(server, 1, 0);
    expect((await watch(server, [topic.name])).status).toBe(429);
    await topic.drop();
    await topic.put();
    expect((await watch(server, [topic.name])).status).toBe(429);
  });

  test("05 section 2.3 0 is no limit", async () => {
    await using server = await startServer({ TOPICS_MAX_WATCH_SESSIONS: "0" });
    const topic = await newTopic(server);
    const replies = await together(50, () => watch(server, [topic.name]));
    expect(replies.every(({ status }) => status === 200)).toBe(true);
    expect((await gauges(server)).sessions).toBe(50);
  });

  test("05 section 5 limits neither the streams of a session nor the streams of topics", async () => {
    await using server = await startServer({ TOPICS_MAX_WATCH_SESSIONS: "1" });
    const topic = await newTopic(server);
    const path = await session(server, topic);
    await using _first = await open(server, path);
    await using _second = await open(server, path);
    await using _third = await open(server, `${topic.path}/stream`);
    expect(await gauges(server)).toEqual({ sessions: 1, streams: 3 });
  });
});

describe("TOPICS_MAX_SSE_CONNECTIONS", () => {
  const limited = (max: number, env: Record<string, string> = {}) =>
    startServer({ TOPICS_MAX_SSE_CONNECTIONS: `${max}`, ...env });

  /** Every way to hold a connection open, each with an end of its own. */
  const kinds: [
    kind: string,
    open: (at: Sender, topic: Topic) => Promise<() => Promise<unknown> | unknown>,
  ][] = [
    [
      "a watch stream",
      async (at, topic) => {
        const stream = await open(at, await session(at, topic));
        return () => stream.close();
      },
    ],
    [
      "a work stream",
      async (at, topic) => {
        const stream = await open(at, `${topic.path}/work?node=w`);
        return () => stream.close();
      },
    ],
    [
      "a topic's stream",
      async (at, topic) => {
        const stream = await open(at, `${topic.path}/stream`);
        return () => stream.close();
      },
    ],
    [
      "a WebSocket",
      async (at) => {
        const socket = await webSocket(at);
        return () => socket.close();
      },
    ],
    [
      "a WebSocket that breaks off",
      async (at) => {
        const socket = await webSocket(at);
        return () => socket.terminate();
      },
    ],
  ];

  test.each(kinds)("05.44 01.44 %s takes the place of every other", async (_, hold) => {
    await using server = await limited(1);
    const topic = await newTopic(server, { type: "queue" });
    const path = await session(server, topic);
    expect((await gauges(server)).streams).toBe(0);
    const release = await hold(server, topic);
    expect((await gauges(server)).streams).toBe(1);
    for (const refused of [path, `${topic.path}/work?node=w`, `${topic.path}/stream`]) {
      expectThrottled(await attempt(server.url, refused), "max_sse_connections", 1);
    }
    const socket = await rawGet(server.url, "/v0/ws", ...handshake);
    expect([socket.status, socket.headers.get("retry-after")]).toEqual([429, "1"]);
    expect(JSON.parse(socket.body)).toMatchObject(throttled("max_sse_connections", 1).body);
    expect((await gauges(server)).streams).toBe(1);
    await release();
    await until(
      () => gauges(server),
      ({ streams }) => streams === 0,
    );
    // Whatever was open, its place can be taken by each of them.
    for (const [, again] of kinds) {
      const end = await soon(() => again(server, topic));
      expect((await gauges(server)).streams).toBe(1);
      await end();
    }
  });

  test("05 section 3.1 is asked last: 406, 404 and 401 come first", async () => {
    await using server = await limited(1, { TOPICS_API_KEYS: "key,other" });
    const key = keyed(server, "key");
    const path = await session(key, await newTopic(key));
    await using _only = await open(server, path, bearer("key"));
    const statusOf = async (asked: string, headers?: Record<string, string>) =>
      (await attempt(server.url, asked, headers)).status;
    expect(await statusOf(path, { accept: "text/html", ...bearer("key") })).toBe(406);
    expect(await statusOf("/v0/watch/unknown", bearer("key"))).toBe(404);
    expect(await statusOf(path, bearer("other"))).toBe(401);
    expect(await statusOf(path)).toBe(401);
    expect((await rawGet(server.url, "/v0/ws", ...handshake)).status).toBe(401);
    expectThrottled(await attempt(server.url, path, bearer("key")), "max_sse_connections", 1);
  });

  test("05.44 a refused stream moves no cursor: what it would have told is still told", async () => {
    await using server = await limited(1);
    const topic = await newTopic(server);
    const path = await session(server, topic);
    await topic.append("a");
    const held = await open(server, `${topic.path}/stream`);
    expect((await attempt(server.url, path)).status).toBe(429);
    await held.close();
    await using stream = await soon(() => open(server, path));
    expect((await stream.event()).body.records).toMatchObject([{ $seq: 1, data: "a" }]);
  });

  test("05.44 a place is free after a reset and after the end of the topic", async () => {
    await using server = await limited(1);
    const [topic, doomed] = [await newTopic(server), await newTopic(server)];
    const [path, doomedPath] = [await session(server, topic), await session(server, doomed)];
    using socket = new RawSocket(server.url);
    await socket.write(`GET ${path} HTTP/1.1\r\nHost: test\r\n\r\n`);
    await socket.until((received) => received.includes("retry: 2000\n\n"));
    expect((await attempt(server.url, doomedPath)).status).toBe(429);
    await socket.reset();
    await using ended = await soon(() => open(server, doomedPath));
    await doomed.drop();
    await ended.rest();
    await using _next = await soon(() => open(server, path));
    expect(await gauges(server)).toEqual({ sessions: 2, streams: 1 });
  });

  test("05 section 3.7 0 is no limit", async () => {
    await using server = await limited(0, {
      TOPICS_MAX_SSE_CONNECTIONS_PER_KEY: "0",
      TOPICS_API_KEYS: "key",
    });
    const key = keyed(server, "key");
    const path = await session(key, await newTopic(key));
    const streams = await together(20, () => open(server, path, bearer("key")));
    expect(await gauges(key)).toEqual({ sessions: 1, streams: 20 });
    for (const stream of streams) await stream.close();
  });
});

describe("TOPICS_MAX_SSE_CONNECTIONS_PER_KEY", () => {
  const env = { TOPICS_MAX_SSE_CONNECTIONS_PER_KEY: "1" };
  const limit = "max_sse_connections_per_key";

  test("05 section 3.1 counts the session's key, for streams and sockets alike", async () => {
    await using server = await startServer({ ...env, TOPICS_API_KEYS: "one,two" });
    const [one, two] = [keyed(server, "one"), keyed(server, "two")];
    const topic = await newTopic(one);
    const [path, other] = [await session(one, topic), await session(two, topic)];
    const stream = await open(server, `${path}?token=one`);
    expectThrottled(await attempt(server.url, path, bearer("one")), limit, 1);
    expectThrottled(await attempt(server.url, `${topic.path}/stream`, bearer("one")), limit, 1);
    const socket = await rawGet(server.url, "/v0/ws", ...handshake, "Authorization: Bearer one");
    expect([socket.status, socket.headers.get("retry-after")]).toEqual([429, "1"]);
    expect(JSON.parse(socket.body)).toMatchObject(throttled(limit, 1).body);
    using _other = await webSocket(server, bearer("two"));
    expectThrottled(await attempt(server.url, other, bearer("two")), limit, 1);
    await stream.close();
    using _again = await soon(() => webSocket(server, bearer("one")));
    expectThrottled(await attempt(server.url, path, bearer("one")), limit, 1);
  });

  test("01 section 7 does nothing without keys", async () => {
    await using server = await startServer(env);
    const path = await session(server, await newTopic(server));
    await using _first = await open(server, path);
    await using _second = await open(server, path);
    using _third = await webSocket(server);
    expect((await gauges(server)).streams).toBe(3);
  });
});

describe("the gauges", () => {
  test("01.44 05 section 3.7 follow sessions, streams and sockets", async () => {
    await using server = await startServer();
    const [topic, doomed] = [await newTopic(server), await newTopic(server)];
    expect(await gauges(server)).toEqual({ sessions: 0, streams: 0 });
    const [path, doomedPath] = [await session(server, topic, doomed), await session(server, doomed)];
    expect(await gauges(server)).toEqual({ sessions: 2, streams: 0 });
    const [first, second] = [await open(server, path), await open(server, path)];
    const ended = await open(server, doomedPath);
    const socket = await webSocket(server);
    expect(await gauges(server)).toEqual({ sessions: 2, streams: 4 });
    await attempt(server.url, path, { accept: "text/plain" });
    await attempt(server.url, "/v0/watch/unknown");
    expect(await gauges(server)).toEqual({ sessions: 2, streams: 4 });
    await doomed.drop();
    await ended.rest();
    // What is left of a session when its topics are gone is still a session.
    await gaugesReach(server, 2, 3);
    await first.close();
    await gaugesReach(server, 2, 2);
    socket.close();
    await gaugesReach(server, 2, 1);
    await second.close();
    await gaugesReach(server, 2, 0);
  });
});

describe("a restart", () => {
  test("05.46 05 section 1 forgets all sessions", async () => {
    await using first = await spawnServer();
    const topic = await newTopic(first);
    await topic.append("a");
    const [used, unused] = [await session(first, topic), await session(first, topic)];
    const stream = await open(first, used);
    await stream.events(2);
    expect(await first.stop()).toBe(0);
    await using second = await spawnServer({ dir: first.dir });
    for (const path of [used, unused]) expect(await attempt(second.url, path)).toMatchObject(notFound);
    expect(await gauges(second)).toEqual({ sessions: 0, streams: 0 });
    await using again = await open(second, await session(second, absentTopic(second, topic.name)));
    expect((await again.event()).body.records).toMatchObject([{ data: "a" }]);
  }, 20_000);
});
