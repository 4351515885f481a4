/** Who may use the feeds, which paths and methods there are, and how a refusal looks whatever its status. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import {
  ask,
  contentsOf,
  expectRefusal,
  type More,
  newFeed,
  paths,
  queryOf,
  type Row,
  refusal,
  subscribe,
} from "../support/feeds.ts";
import { answersIn, exchange } from "../support/rawsocket.ts";
import { type Reply, startServer } from "../support/server.ts";
import { runToEnd, temporaryDirectory } from "../support/spawn.ts";
import { absentTopic, type Sender, sharedServer, until } from "../support/topics.ts";

setDefaultTimeout(30_000);

/** The server as the holder of a key sees it. */
const keyed = (server: Sender, key: string): Sender => ({
  get url() {
    return server.url;
  },
  send: (method, path, body, headers) =>
    server.send(method, path, body, { authorization: `Bearer ${key}`, ...headers }),
});

const names = { feed_key: "team.one", scope_hint: "group:access" };
const query = queryOf(names);

/** Every operation, with the scope that it needs. */
const operations: [operation: string, method: string, path: string, body: More | undefined, scope: string][] =
  [
    ["GET messages", "GET", `${paths.messages}?${query}`, undefined, "read"],
    ["HEAD messages", "HEAD", `${paths.messages}?${query}`, undefined, "read"],
    ["POST messages", "POST", paths.messages, { ...names, content: 1 }, "write"],
    ["GET cursor", "GET", `${paths.cursor}?feed_key=${names.feed_key}`, undefined, "read"],
    ["HEAD cursor", "HEAD", `${paths.cursor}?feed_key=${names.feed_key}`, undefined, "read"],
    ["GET subscriptions", "GET", `${paths.subscriptions}?feed_key=${names.feed_key}`, undefined, "read"],
    ["HEAD subscriptions", "HEAD", `${paths.subscriptions}?feed_key=${names.feed_key}`, undefined, "read"],
    ["POST subscriptions", "POST", paths.subscriptions, { ...names, active: true }, "write"],
  ];
const withBody = operations.filter(([, method]) => method !== "HEAD");

const KEYS = [
  "full",
  "reader:r",
  "writer:w",
  "deleter:d",
  "admin:a",
  "both:rw",
  "team::team.",
  "team-reader:r:team.|crew.",
  "team-writer:w:team.",
].join(",");

describe("keys", () => {
  const server = sharedServer({ TOPICS_API_KEYS: KEYS });
  const full = keyed(server, "full");
  const head = async () => (await absentTopic(full, "_feeds").state()).body.head_seq;

  const holders: [key: string, scopes: string[]][] = [
    ["full", ["read", "write"]],
    ["reader", ["read"]],
    ["writer", ["write"]],
    ["both", ["read", "write"]],
    ["deleter", []],
    ["admin", []],
    ["team", ["read", "write"]],
    ["team-reader", ["read"]],
    ["team-writer", ["write"]],
  ];

  test.each(operations)("07 P10 %s needs its scope", async (_, method, path, body, scope) => {
    const statuses: Record<string, number> = {};
    for (const [key] of holders) statuses[key] = (await keyed(server, key).send(method, path, body)).status;
    expect(statuses).toEqual(
      Object.fromEntries(holders.map(([key, scopes]) => [key, scopes.includes(scope) ? 200 : 403])),
    );
  });

  test.each(withBody)("07 P10 %s without its scope is told so", async (_, method, path, body, scope) => {
    const before = await head();
    const key = scope === "read" ? "writer" : "reader";
    expectRefusal(await keyed(server, key).send(method, path, body), 403);
    expectRefusal(await keyed(server, "admin").send(method, path, body), 403);
    expect(await head()).toBe(before);
  });

  test.each(withBody)("07 P10 %s without a key is 401", async (_, method, path, body) => {
    const before = await head();
    for (const authorization of [
      "",
      "Bearer wrong",
      "Bearer ful",
      "Bearer fulll",
      "Basic full",
      "Bearer",
      "full",
    ]) {
      const reply = await server.send(method, path, body, { authorization });
      expectRefusal(reply, 401);
      expect(reply.headers.get("www-authenticate")).toStartWith("Bearer");
    }
    expect(await head()).toBe(before);
  });

  test("07 P10 a key in the query is no key", async () => {
    expectRefusal(await server.send("GET", `${paths.messages}?${query}&token=full`), 401);
  });

  const large = "x".repeat(2_200_000);
  test.each<[string, string | undefined, Record<string, string>]>([
    ["413", large, {}],
    ["415", "{}", { "content-type": "text/plain" }],
    ["400 for JSON", "{", {}],
    ["422", "{}", {}],
    ["400 for what is said", JSON.stringify({ feed_key: "", scope_hint: "", content: null }), {}],
  ])("07 s1 401 and 403 come before %s", async (_, body, headers) => {
    expectRefusal(await server.send("POST", paths.messages, body, headers), 401);
    expectRefusal(await keyed(server, "reader").send("POST", paths.messages, body, headers), 403);
    expectRefusal(await server.send("POST", paths.subscriptions, body, headers), 401);
    expectRefusal(await keyed(server, "reader").send("POST", paths.subscriptions, body, headers), 403);
  });

  test("07 s1 401 and 403 come before a query that is refused", async () => {
    for (const path of [paths.messages, `${paths.cursor}?feed_key=`, `${paths.subscriptions}?limit=x`]) {
      expectRefusal(await server.send("GET", path), 401);
      expectRefusal(await keyed(server, "writer").send("GET", path), 403);
      expectRefusal(await full.send("GET", path), 400);
    }
  });

  test("07 P10 01.31 unknown paths and methods are 401 without a key, 404 and 405 with one", async () => {
    expectRefusal(await server.send("GET", "/api/topic/nope"), 401);
    expectRefusal(await server.send("PATCH", paths.messages), 401);
    expectRefusal(await full.send("GET", "/api/topic/nope"), 404);
    expectRefusal(await full.send("PATCH", paths.messages), 405);
  });

  describe("with prefixes", () => {
    const team = keyed(server, "team");
    const reader = keyed(server, "team-reader");

    test.each([
      ["team.one", true],
      ["team.", true],
      ["team.two/more", true],
      [" team.one ", true],
      ["team", false],
      ["Team.one", false],
      ["steam.one", false],
      ["other", false],
      ["crew.one", false],
    ])("07 P10 of `team.` may use the feed %j: %p", async (feed_key, allowed) => {
      const status = allowed ? 200 : 403;
      const replies = [
        await team.send("POST", paths.messages, { ...names, feed_key, content: 1 }),
        await team.send("POST", paths.subscriptions, { ...names, feed_key, active: true }),
        await ask(team, paths.messages, { ...names, feed_key }),
        await ask(team, paths.cursor, { feed_key }),
      ];
      expect(replies.map((reply) => reply.status)).toEqual([status, status, status, status]);
      if (!allowed) for (const reply of replies) expectRefusal(reply, 403);
    });

    test("07 P10 what is refused is not stored", async () => {
      const before = await head();
      await team.send("POST", paths.messages, { ...names, feed_key: "hidden", content: 1 });
      await team.send("POST", paths.subscriptions, { ...names, feed_key: "hidden", active: true });
      expect(await head()).toBe(before);
      expect(contentsOf(await newFeed(full, names.scope_hint, "hidden").list())).toEqual([]);
    });

    test("07 s1 07 P10 a foreign feed_key is 403 before what else is said", async () => {
      const foreign = { ...names, feed_key: "other" };
      const wrong = [{ scope_hint: " " }, { scope_hint: "banana" }, { network_id: "othernet" }];
      for (const more of wrong) {
        const sent = { ...foreign, ...more };
        expectRefusal(await team.send("POST", paths.messages, { ...sent, content: null }), 403);
        expectRefusal(await team.send("POST", paths.subscriptions, { ...sent, active: true }), 403);
        expectRefusal(await ask(team, paths.messages, sent), 403);
      }
      const blank = { feed_key: "other", subscriber_node_id: "" };
      expectRefusal(await ask(team, paths.cursor, blank), 403);
    });

    test("07 P10 the key's prefixes are compared with the decoded name", async () => {
      const path = `${paths.messages}?feed_key=%74eam.one&scope_hint=group:access`;
      expect((await team.send("GET", path)).status).toBe(200);
      const escaped = '{"feed_key":"\\u0074eam.one","scope_hint":"group:access","content":1}';
      expect((await team.send("POST", paths.messages, escaped)).status).toBe(200);
    });

    test("07 P10 the list of subscriptions has the rows it may see, also page by page", async () => {
      await using own = await startServer({ TOPICS_API_KEYS: KEYS });
      const [all, some] = [keyed(own, "full"), keyed(own, "team-reader")];
      for (let n = 0; n < 12; n++) {
        const feed_key = `${["team.", "other.", "crew.", "te"][n % 4]}${n}`;
        await subscribe(all, { feed_key, scope_hint: "group:a" });
      }
      const keysOf = (reply: Reply) => reply.body.subscriptions.map((row: Row) => row.feed_key);
      const visible = keysOf(await ask(all, paths.subscriptions)).filter((key: string) =>
        /^(team|crew)\./.test(key),
      );
      expect(visible).toHaveLength(6);
      expect(keysOf(await ask(some, paths.subscriptions))).toEqual(visible);
      const found: string[] = [];
      let anchor: More | null = {};
      for (let pages = 0; anchor !== null; pages++) {
        if (pages > 12) throw new Error("the anchors lead nowhere");
        const reply = await ask(some, paths.subscriptions, { limit: 2, ...anchor });
        found.push(...keysOf(reply));
        anchor = reply.body.next_anchor;
        if (anchor !== null) expect(keysOf(reply)).toHaveLength(2);
      }
      expect(found).toEqual(visible);
    });

    test("07 P10 the list for a foreign feed shows nothing", async () => {
      await subscribe(full, { feed_key: "other.feed", scope_hint: "group:a" });
      const reply = await ask(reader, paths.subscriptions, { feed_key: "other.feed" });
      expect([200, 403]).toContain(reply.status);
      expect(reply.body.subscriptions ?? []).toEqual([]);
    });

    test("07 P10 the log of all feeds is no feed of theirs", async () => {
      await newFeed(full, "group:a", "other.secret").post("secret");
      const replies = [
        await reader.send("GET", "/v0/topics/_feeds"),
        await reader.send("POST", "/v0/topics/_feeds/diff", {}),
        await reader.send("POST", "/v0/watch", { topics: { _feeds: {} } }),
      ];
      expect(replies.map(({ status }) => status)).toEqual([403, 403, 403]);
      expect((await keyed(server, "reader").send("POST", "/v0/topics/_feeds/diff", {})).status).toBe(200);
      expect((await keyed(server, "writer").send("POST", "/v0/topics/_feeds/diff", {})).status).toBe(403);
    });
  });

  test("01.45 429 of a key looks the same here", async () => {
    await using own = await startServer({ TOPICS_API_KEYS: "busy,spare", TOPICS_MAX_INFLIGHT_PER_KEY: "1" });
    const [busy, spare] = [keyed(own, "busy"), keyed(own, "spare")];
    const topic = absentTopic(spare, "t");
    await topic.put();
    const poll = absentTopic(busy, "t").diff({ wait_ms: 30_000 });
    await until(
      () => topic.state(),
      ({ body }) => body.last_read_ts !== null,
    );
    for (const [, method, path, body] of withBody) {
      const reply = await busy.send(method, path, body);
      expectRefusal(reply, 429);
      expect(reply.headers.get("retry-after")).toBe("1");
      expect((await spare.send(method, path, body)).status).toBe(200);
    }
    await topic.append("wake");
    expect((await poll).status).toBe(200);
  });
});

describe("FEED_PUBLIC", () => {
  /** The four operations of the published page. */
  const published = withBody.filter(([operation]) => operation !== "GET subscriptions");

  test.each(["1", "true"])("07 P10 set to %s opens the operations to everybody", async (value) => {
    await using own = await startServer({ TOPICS_API_KEYS: KEYS, FEED_PUBLIC: value });
    for (const [, method, path, body] of published) {
      expect((await own.send(method, path, body)).status).toBe(200);
      for (const key of ["full", "wrong", "reader", "writer", "deleter"])
        expect((await keyed(own, key).send(method, path, body)).status).toBe(200);
    }
    const found = await ask(own, paths.messages, names);
    expect(found.body.messages).toHaveLength(6);
  });

  test("07 P10 opens nothing else", async () => {
    await using own = await startServer({ TOPICS_API_KEYS: KEYS, FEED_PUBLIC: "1" });
    for (const [method, path, body] of [
      ["GET", "/v0/topics", undefined],
      ["GET", "/v0/topics/_feeds", undefined],
      ["POST", "/v0/topics/_feeds/diff", {}],
      ["POST", "/v0/topics/t", { records: [{ data: 1 }] }],
      ["GET", "/v0/metrics", undefined],
    ] as const)
      expect((await own.send(method, path, body)).status).toBe(401);
  });

  test.each([undefined, "0", "false", "", "yes", "TRUE", "2"])("07 P10 set to %p is off", async (value) => {
    await using own = await startServer({
      TOPICS_API_KEYS: KEYS,
      ...(value === undefined ? {} : { FEED_PUBLIC: value }),
    });
    for (const [, method, path, body] of published)
      expect((await own.send(method, path, body)).status).toBe(401);
  });
});

describe("without keys", () => {
  const server = sharedServer();

  test.each(operations)("07 s1 %s is open, whatever the header says", async (_, method, path, body) => {
    for (const authorization of ["", "Bearer x", "Basic x", "Bearer"])
      expect((await server.send(method, path, body, { authorization })).status).toBe(200);
  });

  test.each([
    "/api/",
    "/api/topic",
    "/api/topic/",
    "/api/topic/messages/",
    "/api/topic/cursor/",
    "/api/topic/subscriptions/",
    "/api//topic/messages",
    "/api/topic//messages",
    "/api/topic/Messages",
    "/api/Topic/messages",
    "/api/topics/messages",
    "/api/topic/message",
    "/api/topic/messages/x",
    "/api/topic/cursors",
    "/api/v0/topic/messages",
    "/api/peer",
    "/api/peer/",
    "/api/topic/messages%2F",
    "/api/topic%2Fmessages",
  ])("07 s1 the path %s is 404", async (path) => {
    for (const method of ["GET", "POST", "DELETE"])
      expectRefusal(await server.send(method, `${path}?${query}`), 404);
  });

  test.each(["/API/topic/messages", "/topic/messages", "/v0/topic/messages", "/v0/api/topic/messages"])(
    "07 s1 the path %s is not one of these: 404",
    async (path) => {
      expect((await server.send("GET", `${path}?${query}`)).status).toBe(404);
    },
  );

  test.each([
    [paths.messages, ["GET", "HEAD", "POST"]],
    [paths.cursor, ["GET", "HEAD"]],
    [paths.subscriptions, ["GET", "HEAD", "POST"]],
  ])("07 s1 %s takes %j; others are 405", async (path, methods) => {
    for (const method of ["OPTIONS", "PUT", "PATCH", "DELETE", "POST"].filter(
      (one) => !methods.includes(one),
    )) {
      const reply = await server.send(method, `${path}?${query}`, method === "POST" ? {} : undefined);
      expectRefusal(reply, 405);
      const allow = reply.headers
        .get("allow")!
        .split(",")
        .map((one) => one.trim());
      expect(allow.sort()).toEqual(methods);
    }
  });

  test("07 s1 405 comes before what the query or the body says", async () => {
    expectRefusal(await server.send("DELETE", paths.messages), 405);
    expectRefusal(await server.send("PUT", paths.messages, "{", { "content-type": "text/plain" }), 405);
    expectRefusal(await server.send("POST", paths.cursor, "x".repeat(10)), 405);
  });

  test.each([
    ["messages", `${paths.messages}?${query}`, 200],
    ["a cursor", `${paths.cursor}?feed_key=k`, 200],
    ["subscriptions", paths.subscriptions, 200],
    ["a query that is refused", paths.messages, 400],
    ["a blank subscriber", `${paths.cursor}?feed_key=k&subscriber_node_id=`, 400],
    ["an unknown path", "/api/topic/nope", 404],
  ])("07 s1 01.04 HEAD of %s has the headers of GET and no body", async (_, path, status) => {
    const [get, head] = [await server.send("GET", path), await server.send("HEAD", path)];
    expect([get.status, head.status]).toEqual([status, status]);
    expect(head.text).toBe("");
    expect(head.headers.get("content-type")).toBe(get.headers.get("content-type"));
  });

  test("07 s1 HEAD changes nothing", async () => {
    const feed = newFeed(server);
    await feed.subscribe();
    await feed.post(1);
    const before = await feed.cursor();
    await server.send("HEAD", `${paths.messages}?${queryOf({ feed_key: feed.key, scope_hint: feed.scope })}`);
    expect(await feed.cursor()).toEqual(before);
  });

  test("07 s1 a body on GET is ignored", async () => {
    const feed = newFeed(server);
    await feed.post("listed");
    const path = `${paths.messages}?${queryOf({ feed_key: feed.key, scope_hint: feed.scope })}`;
    const fields = "Host: test\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: 1\r\n";
    const [answer] = answersIn(await exchange(server.url, `GET ${path} HTTP/1.1\r\n${fields}\r\n{`));
    expect(answer!.status).toBe(200);
    expect(JSON.parse(answer!.body).messages).toMatchObject([{ content: "listed" }]);
  });

  test.each<[number, string, string, unknown, Record<string, string>]>([
    [400, "GET", paths.messages, undefined, {}],
    [400, "POST", paths.messages, "{", {}],
    [400, "POST", paths.messages, { feed_key: "k", scope_hint: "banana", content: 1 }, {}],
    [404, "GET", "/api/nope", undefined, {}],
    [405, "DELETE", paths.messages, undefined, {}],
    [413, "POST", paths.messages, "x".repeat(2_097_153), {}],
    [415, "POST", paths.messages, {}, { "content-type": "text/plain" }],
    [422, "POST", paths.messages, {}, {}],
    [422, "POST", paths.subscriptions, [], {}],
  ])(
    "07 s1 a refusal with %d (%s %s) is one text and its time",
    async (status, method, path, body, headers) => {
      const reply = await server.send(method, path, body, headers);
      expectRefusal(reply, status);
      expect(reply.headers.get("content-type")).toBe("application/json");
      expect(Object.values(reply.body.performance).every((ms) => typeof ms === "number" && ms >= 0)).toBe(
        true,
      );
    },
  );

  test("07 s1 a refusal tells no secrets and no stack", async () => {
    const { body } = await server.send("POST", paths.messages, { feed_key: 1, scope_hint: "s", content: 1 });
    expect(body.error).not.toMatch(/\bat .*:\d+:\d+|node_modules|\.ts\b|SQLITE/);
  });
});

describe("settings", () => {
  const SEED = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";

  test.concurrent.each([
    ["FEED_NODE_SEED", "x"],
    ["FEED_NODE_SEED", SEED.slice(1)],
    ["FEED_NODE_SEED", `${SEED}0`],
    ["FEED_NODE_SEED", `0x${SEED.slice(2)}`],
    ["FEED_NODE_SEED", SEED.replace("9", "g")],
    ["FEED_PEERS", "peer"],
    ["FEED_PEERS", "127.0.0.1:4000"],
    ["FEED_PEERS", "http://127.0.0.1:4001,ftp://127.0.0.1"],
    ["FEED_PEERS", "http://"],
    ["FEED_PEERS", "user:hush-4711@127.0.0.1:4001"],
    ["FEED_PEERS", "http://user:hush-4711@127.0.0.1:4001"],
    ["FEED_PEERS", "http://127.0.0.1:4001/?token=hush-4711"],
    ["FEED_PEERS", "ws://127.0.0.1:4001"],
    ["FEED_PEERS", "file:///etc/passwd"],
  ])(
    "07 configuration a server with %s=%s does not start",
    async (name, value) => {
      await using dir = await temporaryDirectory();
      const env = { TOPICS_PORT: "0", TOPICS_DATA_DIR: join(dir.path, "data"), [name]: value };
      const { stdout, stderr, exitCode } = await runToEnd([], env);
      expect(exitCode).toBe(1);
      expect(stderr.trim().split("\n")).toEqual([expect.stringContaining(name)]);
      if (name === "FEED_NODE_SEED" && value.length > 8) expect(stdout + stderr).not.toContain(value);
      expect(stdout + stderr).not.toContain("hush-4711");
    },
    20_000,
  );

  test.concurrent("07 configuration `topics config` shows neither the seed nor the peers' token", async () => {
    const env = { FEED_NODE_SEED: SEED, FEED_PEER_TOKEN: "the-peers-secret", FEED_NETWORK_ID: "mainnet" };
    const { stdout, stderr, exitCode } = await runToEnd(["config"], env);
    expect(exitCode).toBe(0);
    expect(stdout).toContain("mainnet");
    expect(stdout + stderr).not.toContain(SEED);
    expect(stdout + stderr).not.toContain("the-peers-secret");
  }, 20_000);
});

test("07 s1 the shape of a refusal is not the one of /v0", async () => {
  await using own = await startServer();
  expect(await own.send("GET", "/v0/nope")).toMatchObject({
    status: 404,
    body: { error: { code: "not_found" } },
  });
  expect(await own.send("GET", "/api/nope")).toMatchObject(refusal(404));
});
