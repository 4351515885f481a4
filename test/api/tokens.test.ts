/**
 * `POST /v0/tokens`: a token stands for its key for a while, for fewer names and scopes, in the one place where a
 * browser cannot send a header: the URL of a stream.
 */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { createHash } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { attempt, EventStream } from "../support/eventstream.ts";
import { type Reply, startServer } from "../support/server.ts";
import { spawnServer, temporaryDirectory } from "../support/spawn.ts";
import { absentTopic, newTopic, type Sender, sharedServer, type Topic, until } from "../support/topics.ts";

setDefaultTimeout(30_000);

/** The server as the holder of a key sees it. */
const keyed = (server: Sender, key: string): Sender => ({
  get url() {
    return server.url;
  },
  send: (method, path, body, headers) =>
    server.send(method, path, body, { authorization: `Bearer ${key}`, ...headers }),
});

const bearer = (key: string) => ({ authorization: `Bearer ${key}` });

const keys = [
  "full",
  "other",
  "reader:r",
  "writer:w",
  "worker:rw",
  "deleter:d",
  "admin:a",
  "tenant::t42:",
  "pair:r:t42:|u7.",
];
const server = sharedServer({ TOPICS_API_KEYS: keys.join(",") });
const full = keyed(server, "full");

const ask = (at: Sender, body: unknown, headers?: Record<string, string>) =>
  at.send("POST", "/v0/tokens", body, headers);

/** A new token. */
async function token(at: Sender, topics: (string | Topic)[], more: object = {}): Promise<string> {
  const names = topics.map((topic) => (typeof topic === "string" ? topic : topic.name));
  const reply = await ask(at, { topics: names, ...more });
  if (reply.status !== 200) throw new Error(`refused with ${reply.status}: ${reply.text}`);
  return reply.body.token;
}

const queue = (at: Sender = full) => newTopic(at, { type: "queue" });

const query = (token: string) => `token=${encodeURIComponent(token)}`;
const streamOf = ({ path }: Topic, token: string) => `${path}/stream?${query(token)}`;
const workOf = ({ path }: Topic, token: string) => `${path}/work?node=w&${query(token)}`;

async function session(at: Sender, ...topics: Topic[]): Promise<string> {
  const request = { topics: Object.fromEntries(topics.map(({ name }) => [name, {}])) };
  return (await at.send("POST", "/v0/watch", request)).body.stream_url;
}

const statusOf = async (path: string, headers?: Record<string, string>, at: Sender = server) =>
  (await attempt(at.url, path, headers)).status;

/** A stream that has begun. */
async function open(at: Sender, path: string, headers?: Record<string, string>): Promise<EventStream> {
  const stream = await EventStream.open(at.url, path, headers);
  await stream.block();
  return stream;
}

const READ_WRITE = { scopes: ["read", "write"] };
const unauthorized = { status: 401, body: { error: { code: "unauthorized" } } };
const forbidden = { status: 403, body: { error: { code: "forbidden" } } };

function expectInvalid(reply: Reply): void {
  expect(reply).toMatchObject({ status: 400, body: { error: { code: "invalid_request" } } });
  expect(reply.body.performance.server_total_ms).toBeNumber();
}

describe("the answer", () => {
  test("tokens: is the token, its end, and what it is good for", async () => {
    const before = Date.now();
    const reply = await ask(full, { topics: ["boats", "orders.*"], scopes: ["read"], ttl_ms: 60000 });
    const after = Date.now();
    expect(reply.status).toBe(200);
    expect(reply.headers.get("content-type")).toBe("application/json");
    expect(reply.body).toStrictEqual({
      token: expect.stringMatching(/./),
      expires_at: expect.any(Number),
      topics: ["boats", "orders.*"],
      scopes: ["read"],
      performance: { server_total_ms: expect.any(Number) },
    });
    expect(Number.isInteger(reply.body.expires_at)).toBe(true);
    expect(reply.body.expires_at).toBeGreaterThanOrEqual(before + 60000);
    expect(reply.body.expires_at).toBeLessThanOrEqual(after + 60000);
  });

  test("tokens: reads for five minutes unless told otherwise", async () => {
    const before = Date.now();
    const { body } = await ask(full, { topics: ["boats"] });
    expect(body.scopes).toEqual(["read"]);
    expect(body.expires_at).toBeGreaterThanOrEqual(before + 300000);
    expect(body.expires_at).toBeLessThanOrEqual(Date.now() + 300000);
  });

  test("tokens: never holds the key", async () => {
    const { text, body } = await ask(keyed(server, "tenant"), { topics: ["t42:x"] });
    const parts = (body.token as string).split(".").map((part) => Buffer.from(part, "base64url").toString());
    for (const said of [text, ...parts]) expect(said).not.toContain("tenant");
  });

  test("tokens: tells nothing by which a key could be guessed", async () => {
    const { body } = await ask(keyed(server, "tenant"), { topics: ["t42:x"] });
    const { sub } = JSON.parse(Buffer.from(body.token.split(".")[1], "base64url").toString());
    const sha256 = (bytes: string | Buffer) => createHash("sha256").update(bytes).digest();
    const once = sha256("tenant");
    const known = [once, sha256(once), sha256(once.toString("hex"))];
    const spellings = known.flatMap((digest) => [digest.toString("hex"), digest.toString("base64url")]);
    expect(sub.length).toBeGreaterThan(20);
    expect(spellings).not.toContain(sub);
  });
});

describe("the request", () => {
  const names = (n: number) => Array.from({ length: n }, (_, i) => `t${i}`);

  test.each([
    ["a name", ["boats"]],
    ["a name of every kind of character", ["0.a_B:c-d"]],
    ["a name of 255 characters", ["x".repeat(255)]],
    ["a prefix", ["orders.*"]],
    ["all", ["*"]],
    ["256 entries", names(256)],
  ])("tokens: topics may be %s", async (_, topics) => {
    const reply = await ask(full, { topics });
    expect([reply.status, reply.body.topics]).toEqual([200, topics]);
  });

  test.each([
    ["missing", "{}"],
    ["null", '{"topics":null}'],
    ["a string", '{"topics":"boats"}'],
    ["an object", '{"topics":{"boats":{}}}'],
    ["empty", '{"topics":[]}'],
    ["257 entries", JSON.stringify({ topics: names(257) })],
    ["a number", '{"topics":[1]}'],
    ["with null", '{"topics":["boats",null]}'],
    ["an empty name", '{"topics":[""]}'],
    ["an illegal name", '{"topics":["-boats"]}'],
    ["a name with a blank", '{"topics":["boats","a b"]}'],
    ["a name of 256 characters", JSON.stringify({ topics: ["x".repeat(256)] })],
    ["a star in the middle", '{"topics":["a*b"]}'],
    ["a star in front", '{"topics":["*a"]}'],
    ["twice", '{"topics":["a"],"topics":["b"]}'],
  ])("tokens: topics may not be %s", async (_, body) => {
    expectInvalid(await ask(full, body));
  });

  test.each([[["read"]], [["write"]], [["read", "write"]], [["write", "read"]]])(
    "tokens: scopes may be %j",
    async (scopes) => {
      const reply = await ask(full, { topics: ["boats"], scopes });
      expect([reply.status, [...reply.body.scopes].sort()]).toEqual([200, [...scopes].sort()]);
    },
  );

  test.each([
    "[]",
    '["delete"]',
    '["admin"]',
    '["read","admin"]',
    '["READ"]',
    '["r"]',
    '["rw"]',
    '[""]',
    "[1]",
    "[null]",
    '"read"',
    "{}",
    "true",
  ])("tokens: scopes may not be %s", async (scopes) => {
    expectInvalid(await ask(full, `{"topics":["boats"],"scopes":${scopes}}`));
  });

  test.each([1000, 1001, 86399999, 86400000])("tokens: ttl_ms may be %d", async (ttl_ms) => {
    const before = Date.now();
    const { status, body } = await ask(full, { topics: ["boats"], ttl_ms });
    expect(status).toBe(200);
    expect(body.expires_at).toBeGreaterThanOrEqual(before + ttl_ms);
    expect(body.expires_at).toBeLessThanOrEqual(Date.now() + ttl_ms);
  });

  test.each([
    "0",
    "999",
    "86400001",
    "18446744073709551615",
    "-1",
    "-1000",
    "1000.5",
    "2000.0",
    "1e4",
    '"5000"',
    "true",
    "[]",
  ])("tokens: ttl_ms may not be %s", async (ttl) => {
    expectInvalid(await ask(full, `{"topics":["boats"],"ttl_ms":${ttl}}`));
  });

  test("tokens: unknown members are ignored", async () => {
    const body = '{"topics":["boats"],"x":1,"x":2,"TTL_MS":"1","scope":["admin"],"expires_at":0}';
    const reply = await ask(full, body);
    expect([reply.status, reply.body.scopes]).toEqual([200, ["read"]]);
  });

  test.each(["null", '"x"', "[]", "{", "{}{}", "", " "])("tokens: the body %j is refused", async (body) => {
    expectInvalid(await ask(full, new TextEncoder().encode(body)));
  });

  test.each(["", "text/plain"])("tokens: the content type %j is refused", async (type) => {
    const body = new TextEncoder().encode('{"topics":["boats"]}');
    const reply = await ask(full, body, { "content-type": type });
    expect(reply).toMatchObject({ status: 415, body: { error: { code: "unsupported_media_type" } } });
  });

  test.each(["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"])("tokens: %s is 405", async (method) => {
    const reply = await full.send(method, "/v0/tokens");
    expect([reply.status, reply.headers.get("allow")]).toEqual([405, "POST"]);
  });

  test.each(["/v0/tokens/", "/v0/tokens/x", "/v0/token", "/v0/Tokens"])("tokens: %s is 404", async (path) => {
    const reply = await full.send("POST", path, { topics: ["boats"] });
    expect(reply).toMatchObject({ status: 404, body: { error: { code: "not_found" } } });
  });
});

describe("who may ask", () => {
  test.each(["", "Bearer stranger", "Basic ZnVsbDo="])("tokens: %j is 401", async (authorization) => {
    for (const body of ['{"topics":["boats"]}', "{"]) {
      expect(await ask(server, body, { authorization })).toMatchObject(unauthorized);
    }
  });

  test.each([
    ["full", ["read"], 200],
    ["full", ["read", "write"], 200],
    ["reader", ["read"], 200],
    ["reader", ["write"], 403],
    ["reader", ["read", "write"], 403],
    ["writer", ["write"], 200],
    ["writer", ["read"], 403],
    ["worker", ["read", "write"], 200],
    ["deleter", ["read"], 403],
    ["admin", ["read"], 403],
    ["admin", ["write"], 403],
  ])("tokens: the key %s for %j gets %d", async (key, scopes, status) => {
    const reply = await ask(keyed(server, key), { topics: ["boats"], scopes });
    expect(reply.status).toBe(status);
    if (status === 403) expect(reply).toMatchObject(forbidden);
  });

  test("tokens: a key without `read` must say what it wants", async () => {
    expect(await ask(keyed(server, "writer"), { topics: ["boats"] })).toMatchObject(forbidden);
  });

  test.each([
    ["tenant", ["t42:x"], undefined],
    ["tenant", ["t42:*"], undefined],
    ["tenant", ["t42:x*", "t42:y"], undefined],
    ["pair", ["t42:*", "u7.*", "u7.a"], undefined],
    ["tenant", ["other"], "other"],
    ["tenant", ["t42:x", "other"], "other"],
    ["tenant", ["*"], "*"],
    ["tenant", ["t42*"], "t42*"],
    ["tenant", ["t42"], "t42"],
    ["tenant", ["T42:x"], "T42:x"],
    ["tenant", ["t4*", "t42:*"], "t4*"],
    ["pair", ["t42:x", "u8.*", "u7.a"], "u8.*"],
    ["pair", ["u*"], "u*"],
  ])("tokens: %s for %j is refused at %p", async (key, topics, foreign) => {
    const reply = await ask(keyed(server, key), { topics });
    if (foreign === undefined) expect(reply.status).toBe(200);
    else
      expect(reply).toMatchObject({
        ...forbidden,
        body: { error: { code: "forbidden", detail: { topic: foreign } } },
      });
  });

  test("tokens: are got for topics that do not exist yet", async () => {
    const topic = absentTopic(full);
    const ahead = await token(full, [topic]);
    expect(await attempt(server.url, streamOf(topic, ahead))).toMatchObject({
      status: 404,
      body: { error: { code: "topic_not_found", detail: { topic: topic.name } } },
    });
    await topic.put();
    expect(await statusOf(streamOf(topic, ahead))).toBe(200);
  });
});

describe("a token opens", () => {
  test("tokens: a topic's stream", async () => {
    const topic = await newTopic(full);
    await topic.append("a");
    await using stream = await open(server, streamOf(topic, await token(keyed(server, "reader"), [topic])));
    expect((await stream.event()).body.records).toMatchObject([{ data: "a" }]);
    await topic.append("b");
    await stream.event();
    expect((await stream.event()).body.records).toMatchObject([{ data: "b" }]);
  });

  test("tokens: a queue's work stream", async () => {
    const topic = await queue();
    await topic.append("a");
    const made = await token(keyed(server, "worker"), [topic], READ_WRITE);
    await using stream = await open(server, workOf(topic, made));
    expect((await stream.event()).body).toMatchObject({ data: "a", deliveries: 1 });
  });

  test("tokens: the stream of a session", async () => {
    const topic = await newTopic(full);
    await topic.append("a");
    const path = await session(full, topic);
    await using stream = await open(server, `${path}?${query(await token(full, [topic]))}`);
    expect((await stream.event()).body.records).toMatchObject([{ data: "a" }]);
  });

  test("tokens: the same stream again and again", async () => {
    const topic = await newTopic(full);
    const path = streamOf(topic, await token(full, [topic]));
    for (let times = 0; times < 3; times++) expect(await statusOf(path)).toBe(200);
    expect((await server.send("HEAD", path)).status).toBe(200);
  });

  test.each([
    ["its name", (name: string) => [name], 200],
    ["a prefix of its name", (name: string) => [`${name.slice(0, -1)}*`], 200],
    ["its whole name and more", (name: string) => [`${name}*`], 200],
    ["all", () => ["*"], 200],
    ["one of several", (name: string) => ["boats", "orders.*", name], 200],
    ["another name", () => ["boats"], 403],
    ["a part of its name", (name: string) => [name.slice(0, -1)], 403],
    ["its name, continued", (name: string) => [`${name}x`], 403],
    ["another prefix", (name: string) => [`${name}x*`, "orders.*"], 403],
    ["another case", (name: string) => [name.toUpperCase()], 403],
  ])("tokens: topics by %s", async (_, entries, status) => {
    const topic = await queue();
    const made = await token(full, entries(topic.name), READ_WRITE);
    const path = await session(full, topic);
    expect(await statusOf(streamOf(topic, made))).toBe(status);
    expect(await statusOf(workOf(topic, made))).toBe(status);
    expect(await statusOf(`${path}?${query(made)}`)).toBe(status === 200 ? 200 : 401);
    expect((await server.send("HEAD", streamOf(topic, made))).status).toBe(status);
  });

  test("tokens: names are decoded before they are compared", async () => {
    const topic = absentTopic(full, "encoded:x");
    await topic.put();
    const made = await token(full, ["encoded:*"]);
    expect(await statusOf(`/v0/topics/encoded%3Ax/stream?${query(made)}`)).toBe(200);
    expect(await statusOf(`/v0/topics/%65ncoded:x/stream?${query(made)}`)).toBe(200);
    expect(await statusOf(`/v0/topics/encoded/stream?${query(made)}`)).toBe(403);
  });

  test.each([
    [["read"], { stream: 200, work: 403, watch: 200 }],
    [["write"], { stream: 403, work: 403, watch: 401 }],
    [["read", "write"], { stream: 200, work: 200, watch: 200 }],
  ])("tokens: what %j is enough for", async (scopes, expected) => {
    const topic = await queue();
    const made = await token(full, [topic], { scopes });
    const path = await session(full, topic);
    const replies = {
      stream: await attempt(server.url, streamOf(topic, made)),
      work: await attempt(server.url, workOf(topic, made)),
      watch: await attempt(server.url, `${path}?${query(made)}`),
    };
    for (const [kind, reply] of Object.entries(replies)) {
      const status = expected[kind as keyof typeof expected];
      expect([kind, reply.status]).toEqual([kind, status]);
      if (status === 403) expect(reply).toMatchObject(forbidden);
      if (status === 401) expect(reply).toMatchObject(unauthorized);
    }
  });

  test("tokens: a session of its own key only", async () => {
    const topic = await newTopic(full);
    const path = await session(full, topic);
    const others = await token(keyed(server, "other"), ["*"], READ_WRITE);
    expect(await attempt(server.url, `${path}?${query(others)}`)).toMatchObject(unauthorized);
    expect(await statusOf(`${path}?${query(await token(full, ["*"]))}`)).toBe(200);
  });

  test("tokens: a session only if it covers all topics", async () => {
    const [one, two] = [await newTopic(full), await newTopic(full)];
    const path = await session(full, one, two);
    const status = async (entries: (string | Topic)[]) =>
      statusOf(`${path}?${query(await token(full, entries))}`);
    expect(await status([one])).toBe(401);
    expect(await status([two, "boats"])).toBe(401);
    expect(await status([two, one])).toBe(200);
    expect(await status(["boats", `${one.name}*`, `${two.name}*`])).toBe(200);
  });

  test("tokens: an unknown session is 404 still", async () => {
    const made = await token(full, ["*"]);
    expect(await statusOf(`/v0/watch/unknown?${query(made)}`)).toBe(404);
  });

  test("tokens: with a header, which decides alone", async () => {
    const topic = await queue();
    const path = await session(full, topic);
    const made = await token(full, [topic], READ_WRITE);
    for (const asked of [streamOf(topic, made), workOf(topic, made), `${path}?${query(made)}`]) {
      expect(await statusOf(asked, bearer("full"))).toBe(200);
      expect(await statusOf(asked, bearer("stranger"))).toBe(401);
      expect(await statusOf(asked, { authorization: "Basic eDp5" })).toBe(200);
    }
    const useless = await token(full, ["boats"], { scopes: ["write"] });
    for (const asked of [streamOf(topic, useless), workOf(topic, useless), `${path}?${query(useless)}`]) {
      expect(await statusOf(asked, bearer("full"))).toBe(200);
    }
    expect(await statusOf(streamOf(topic, made), bearer("writer"))).toBe(403);
  });

  test("tokens: the stream as the key itself does", async () => {
    const topic = await newTopic(full);
    expect(await statusOf(streamOf(topic, "full"))).toBe(200);
    expect(await statusOf(streamOf(topic, "reader"))).toBe(200);
    expect(await statusOf(streamOf(topic, "writer"))).toBe(403);
    expect(await statusOf(streamOf(topic, "stranger"))).toBe(401);
  });
});

describe("a token opens nothing else", () => {
  // Each row in full, as a parameter that is left over would be the callback that ends a test.
  const routes: [method: string, suffix: string, body: unknown][] = [
    ["GET", "", undefined],
    ["PUT", "", {}],
    ["POST", "", { records: [{ data: 1 }] }],
    ["DELETE", "", undefined],
    ["POST", "/diff", {}],
    ["POST", "/delete", { before_seq: 1 }],
    ["POST", "/claim", { node: "n" }],
    ["POST", "/ack", { node: "n", seqs: [1] }],
    ["POST", "/stream", {}],
    ["POST", "/work", {}],
  ];

  test.each(routes)("tokens: not %s %j of its topic", async (method, suffix, body) => {
    const topic = await queue();
    const made = await token(full, [topic], READ_WRITE);
    const path = topic.path + suffix;
    expect(await server.send(method, `${path}?${query(made)}`, body)).toMatchObject(unauthorized);
    expect(await server.send(method, path, body, bearer(made))).toMatchObject(unauthorized);
    expect((await topic.state()).body.head_seq).toBe(0);
  });

  const others: [method: string, path: string, body: unknown][] = [
    ["GET", "/v0/topics", undefined],
    ["GET", "/v0/routers", undefined],
    ["GET", "/v0/metrics", undefined],
    ["GET", "/v0/ws", undefined],
    ["GET", "/v0/nope", undefined],
    ["POST", "/v0/watch", { topics: { boats: {} } }],
    ["POST", "/v0/tokens", { topics: ["boats"] }],
  ];

  test.each(others)("tokens: not %s %s", async (method, path, body) => {
    const made = await token(full, ["*"], READ_WRITE);
    expect(await server.send(method, `${path}?${query(made)}`, body)).toMatchObject(unauthorized);
    expect(await server.send(method, path, body, bearer(made))).toMatchObject(unauthorized);
  });

  test("tokens: not as the bearer of a stream", async () => {
    const topic = await queue();
    const path = await session(full, topic);
    const made = await token(full, [topic], READ_WRITE);
    for (const asked of [`${topic.path}/stream`, `${topic.path}/work?node=w`, path]) {
      expect(await attempt(server.url, asked, bearer(made))).toMatchObject(unauthorized);
      // Nor does it count beside itself.
      const twice = `${asked}${asked.includes("?") ? "&" : "?"}${query(made)}`;
      expect(await attempt(server.url, twice, bearer(made))).toMatchObject(unauthorized);
    }
  });
});

describe("a token that was altered", () => {
  const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

  /** Another character there; in base64 one that differs in the first bit, as the last bits may mean nothing. */
  const changed = (text: string, at: number) => {
    const value = ALPHABET.indexOf(text[at]!);
    return text.slice(0, at) + (value < 0 ? "A" : ALPHABET[value ^ 32]!) + text.slice(at + 1);
  };

  async function expectRefused(topic: Topic, tokens: string[]): Promise<void> {
    const statuses = await Promise.all(tokens.map((altered) => statusOf(streamOf(topic, altered))));
    expect(tokens.filter((_, i) => statuses[i] !== 401)).toEqual([]);
  }

  test("tokens: at any place is 401", async () => {
    const topic = await newTopic(full);
    const made = await token(full, [topic]);
    expect(await statusOf(streamOf(topic, made))).toBe(200);
    await expectRefused(
      topic,
      Array.from(made, (_, at) => changed(made, at)),
    );
  });

  test("tokens: by cutting, adding or repeating is 401", async () => {
    const topic = await newTopic(full);
    const made = await token(full, [topic]);
    const cuts = Array.from(made, (_, at) => made.slice(0, at));
    await expectRefused(topic, [
      ...cuts,
      `${made}A`,
      `${made}.`,
      `A${made}`,
      `.${made}`,
      made + made,
      ` ${made}x`,
    ]);
  });

  test("tokens: by putting two together is 401", async () => {
    const [topic, other] = [await newTopic(full), await newTopic(full)];
    const made = await token(full, [topic], { ttl_ms: 2000 });
    const others = await token(full, [other, "*"], { ttl_ms: 86400000 });
    const mixed = Array.from(made, (_, at) => [
      made.slice(0, at) + others.slice(at),
      others.slice(0, at) + made.slice(at),
    ]).flat();
    await expectRefused(
      topic,
      mixed.filter((text) => text !== made && text !== others),
    );
  });

  test("tokens: of another server with the same keys is 401", async () => {
    const topic = await newTopic(full);
    await using stranger = await startServer({ TOPICS_API_KEYS: keys.join(",") });
    await expectRefused(topic, [await token(keyed(stranger, "full"), [topic])]);
  });
});

describe("the end of a token", () => {
  test("tokens: ends what it has opened with `unauthorized`, and opens nothing more", async () => {
    const [topic, jobs] = [await newTopic(full), await queue()];
    await topic.append("a");
    const path = await session(full, topic);
    const before = Date.now();
    const { body } = await ask(full, { topics: [topic.name, jobs.name], ttl_ms: 1000, ...READ_WRITE });
    const paths = {
      stream: streamOf(topic, body.token),
      work: workOf(jobs, body.token),
      watch: `${path}?${query(body.token)}`,
    };
    const streams = {
      stream: await open(server, paths.stream),
      work: await open(server, paths.work),
      watch: await open(server, paths.watch),
    };
    await using spared = await open(server, paths.stream, bearer("full"));
    for (const [kind, stream] of Object.entries(streams)) {
      const text = await stream.rest();
      const [id, json] =
        /(?:^|\n\n)(id: [^\n]+\n)?event: error\ndata: (\{[^\n]*\})\n\n$/.exec(text)?.slice(1) ?? [];
      expect([kind, JSON.parse(json ?? "null")]).toMatchObject([kind, { code: "unauthorized" }]);
      if (kind === "work") continue;
      expect(JSON.parse(json!)).toStrictEqual({
        code: "unauthorized",
        message: expect.stringMatching(/./),
      });
      // As on every event of such a stream.
      expect([kind, id]).toEqual([kind, expect.stringMatching(/^id: [A-Za-z0-9_-]+\n$/)]);
    }
    // Not before it is over, and not much later.
    expect(Date.now()).toBeGreaterThanOrEqual(body.expires_at);
    expect(Date.now()).toBeLessThan(before + 1000 + 1500);
    for (const asked of Object.values(paths)) {
      expect(await attempt(server.url, asked)).toMatchObject(unauthorized);
    }
    // What the key itself has opened goes on.
    await topic.append("b");
    const found = async (): Promise<unknown> => {
      const event = await spared.event();
      return event.event === "record" ? event.body.records.at(-1).data : found();
    };
    expect(await found()).toBe("a");
    expect(await found()).toBe("b");
  });

  test("tokens: gives the jobs of a work stream back", async () => {
    const topic = await queue();
    await topic.append("a");
    const made = await token(full, [topic], { ttl_ms: 1000, ...READ_WRITE });
    const stream = await open(server, workOf(topic, made));
    expect((await stream.event()).body.data).toBe("a");
    await stream.rest();
    await until(
      async () => (await topic.state()).body.queue,
      ({ ready, in_flight }) => ready === 1 && in_flight === 0,
    );
  });
});

describe("limits", () => {
  test("tokens: count as their key", async () => {
    await using own = await startServer({
      TOPICS_MAX_SSE_CONNECTIONS_PER_KEY: "1",
      TOPICS_API_KEYS: "one,two",
    });
    const [one, two] = [keyed(own, "one"), keyed(own, "two")];
    const topic = await queue(one);
    const path = await session(one, topic);
    const [made, again] = [await token(one, ["*"], READ_WRITE), await token(one, ["*"], READ_WRITE)];
    await using stream = await open(own, streamOf(topic, made));
    const full = {
      status: 429,
      body: { error: { code: "throttled", detail: { limit: "max_sse_connections_per_key", max: 1 } } },
    };
    for (const secret of [made, again, "one"]) {
      for (const asked of [streamOf(topic, secret), workOf(topic, secret), `${path}?${query(secret)}`]) {
        const reply = await attempt(own.url, asked);
        expect(reply).toMatchObject(full);
        expect(reply.headers.get("retry-after")).toBe("1");
      }
    }
    await using _other = await open(own, streamOf(topic, await token(two, ["*"])));
    await stream.close();
    await until(
      () => statusOf(streamOf(topic, again), undefined, own),
      (status) => status === 200,
    );
  });
});

describe("without keys", () => {
  test("tokens: are made all the same, and ignored as every token is", async () => {
    await using open = await startServer();
    const topic = await newTopic(open);
    const path = await session(open, topic);
    const { status, body } = await ask(open, { topics: ["boats"], scopes: ["write"], ttl_ms: 1000 });
    expect(status).toBe(200);
    expect(body).toMatchObject({ token: expect.stringMatching(/./), topics: ["boats"], scopes: ["write"] });
    expectInvalid(await ask(open, { topics: [] }));
    for (const secret of [body.token, "whatever", ""]) {
      expect(await statusOf(streamOf(topic, secret), undefined, open)).toBe(200);
      expect(await statusOf(`${path}?${query(secret)}`, undefined, open)).toBe(200);
    }
  });
});

describe("restarts and other keys", () => {
  test("tokens: live as long as their key, over restarts, and no log holds them", async () => {
    const env = { TOPICS_API_KEYS: "one,two", RUST_LOG: "trace" };
    await using first = await spawnServer({ env });
    const topic = await newTopic(keyed(first, "one"));
    const [ofOne, ofTwo] = [
      await token(keyed(first, "one"), ["*"]),
      await token(keyed(first, "two"), [topic]),
    ];
    expect(await statusOf(streamOf(topic, ofOne), undefined, first)).toBe(200);
    expect(await first.stop()).toBe(0);
    await using second = await spawnServer({ dir: first.dir, env });
    for (const made of [ofOne, ofTwo])
      expect(await statusOf(streamOf(topic, made), undefined, second)).toBe(200);
    expect(await second.stop("SIGKILL")).toBe(137);
    await using third = await spawnServer({ dir: first.dir, env: { ...env, TOPICS_API_KEYS: "two,three" } });
    expect(await statusOf(streamOf(topic, ofOne), undefined, third)).toBe(401);
    expect(await statusOf(streamOf(topic, ofTwo), undefined, third)).toBe(200);
    await third.stop();
    for (const spawned of [first, second, third]) {
      expect(spawned.output()).not.toBe("");
      for (const made of [ofOne, ofTwo]) expect(spawned.output()).not.toContain(made);
    }
  }, 30_000);

  test("tokens: die when their key is taken out of the file", async () => {
    await using dir = await temporaryDirectory();
    const file = join(dir.path, "keys");
    await writeFile(file, "one\ntwo\n");
    await using spawned = await spawnServer({ env: { TOPICS_API_KEYS_FILE: file } });
    const topic = await newTopic(keyed(spawned, "one"));
    const [ofOne, ofTwo] = [
      await token(keyed(spawned, "one"), ["*"]),
      await token(keyed(spawned, "two"), ["*"]),
    ];
    const path = await session(keyed(spawned, "one"), topic);
    const status = (made: string) => statusOf(streamOf(topic, made), undefined, spawned);
    expect([await status(ofOne), await status(ofTwo)]).toEqual([200, 200]);
    await writeFile(file, "two\n");
    process.kill(spawned.pid, "SIGHUP");
    await until(
      () => status(ofOne),
      (found) => found === 401,
    );
    expect(await status(ofTwo)).toBe(200);
    expect(await statusOf(`${path}?${query(ofOne)}`, undefined, spawned)).toBe(401);
    expect(await statusOf(path, bearer("one"), spawned)).toBe(401);
    // A name that stays does not lend its sessions either.
    expect(await statusOf(`${path}?${query(ofTwo)}`, undefined, spawned)).toBe(401);
  }, 20_000);
});
