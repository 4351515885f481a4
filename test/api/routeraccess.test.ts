/** Who may do what with routers: scopes, names a key is bound to, and how many routers there may be. */
import { describe, expect, test } from "bun:test";
import { putRouter, range, routerNamed, routerPath, values } from "../support/router.ts";
import { type Reply, startServer } from "../support/server.ts";
import { absentTopic, newTopic, type Sender, sharedServer, together } from "../support/topics.ts";

/** The server as the holder of a key sees it. */
const keyed = (on: Sender, key: string): Sender => ({
  get url() {
    return on.url;
  },
  send: (method, path, body, headers) =>
    on.send(method, path, body, { authorization: `Bearer ${key}`, ...headers }),
});

const server = sharedServer({
  TOPICS_API_KEYS: [
    "full",
    "reader:r",
    "writer:w",
    "deleter:d",
    "admin:a",
    "reader-writer:rw",
    "tenant::t1:",
    "tenants::t1:|u7.",
    "tenant-reader:r:t1:",
    "tenant-remover:d:t1:",
    "lister:r:list:|more:",
  ].join(","),
});
const full = keyed(server, "full");
const tenant = keyed(server, "tenant");

let named = 0;
/** A name below the prefix that no other test uses. */
const nameBelow = (prefix: string) => `${prefix}n${++named}`;

const exists = async (topic: string) => (await absentTopic(full, topic).state()).status === 200;

/** No detail: a refusal for the route or for the path's name. */
function expectForbidden(reply: Reply): void {
  expect(reply).toMatchObject({ status: 403, body: { error: { code: "forbidden" } } });
  expect(Object.keys(reply.body.error).sort()).toEqual(["code", "message"]);
}

function expectForbiddenName(reply: Reply, topic: string): void {
  expect(reply).toMatchObject({ status: 403, body: { error: { code: "forbidden" } } });
  expect(reply.body.error.detail).toEqual({ topic });
}

describe("the scope of a route", () => {
  const holders: [key: string, scopes: string[]][] = [
    ["reader", ["read"]],
    ["writer", ["write"]],
    ["deleter", ["delete"]],
    ["admin", ["admin"]],
    ["reader-writer", ["read", "write"]],
    ["full", ["read", "write", "delete", "admin"]],
  ];

  test.each([
    ["PUT", true, "admin"],
    ["GET", true, "read"],
    ["HEAD", true, "read"],
    ["DELETE", true, "delete"],
    ["GET", false, "read"],
    ["HEAD", false, "read"],
  ])("03.48 %s (of one router: %p) needs %s", async (method, ofOne, scope) => {
    const statuses: Record<string, number> = {};
    for (const [key] of holders) {
      const ends = { source: nameBelow("s"), dest: nameBelow("d") };
      const router = await putRouter(full, ends.source, ends.dest);
      const path = ofOne ? router.path : "/v0/routers";
      const body = method === "PUT" ? ends : undefined;
      statuses[key] = (await keyed(server, key).send(method, path, body)).status;
    }
    expect(statuses).toEqual(
      Object.fromEntries(holders.map(([key, scopes]) => [key, scopes.includes(scope) ? 200 : 403])),
    );
  });

  test("03.48 admin alone creates a router, and the topics at its ends", async () => {
    const [source, dest] = [nameBelow("s"), nameBelow("d")];
    expect((await routerNamed(keyed(server, "admin"), nameBelow("r")).put({ source, dest })).status).toBe(
      201,
    );
    expect([await exists(source), await exists(dest)]).toEqual([true, true]);
  });

  test("03.48 a refused call changes nothing, and its 403 has no detail", async () => {
    const router = await putRouter(full, nameBelow("s"), nameBelow("d"), { filter: "x" });
    const held = routerNamed(keyed(server, "reader-writer"), router.name);
    const ends = { source: nameBelow("s"), dest: nameBelow("d") };
    expectForbidden(await held.put(ends));
    expectForbidden(await held.drop());
    expectForbidden(await routerNamed(keyed(server, "deleter"), router.name).get());
    expectForbidden(await keyed(server, "admin").send("GET", "/v0/routers"));
    expect((await router.get()).body.filter).toEqual(["tag", "Eq", "x"]);
    expect(await exists(ends.source)).toBe(false);
  });

  test.each([
    ["PUT", "/v0/routers/x", {}],
    ["GET", "/v0/routers/x", undefined],
    ["DELETE", "/v0/routers/x", undefined],
    ["GET", "/v0/routers", undefined],
    ["POST", "/v0/routers/x", undefined],
    ["POST", "/v0/routers", undefined],
    ["GET", "/v0/routers/", undefined],
    ["GET", "/v0/routers?token=full", undefined],
  ])("03.48 %s %s is 401 without a key and with a wrong one", async (method, path, body) => {
    for (const holder of [server, keyed(server, "wrong")]) {
      const reply = await holder.send(method, path, body);
      expect(reply).toMatchObject({ status: 401, body: { error: { code: "unauthorized" } } });
    }
  });

  test.each<[string, unknown, Record<string, string>]>([
    ["a wrong content type", "{}", { "content-type": "text/plain" }],
    ["no content type", "{}", { "content-type": "" }],
    ["bad JSON", "{", {}],
    ["no source", {}, {}],
  ])("03.48 403 comes before %s", async (_, body, headers) => {
    expectForbidden(await routerNamed(keyed(server, "reader"), nameBelow("r")).put(body, headers));
    expectForbidden(await routerNamed(tenant, nameBelow("r")).put(body, headers));
  });

  test("03.48 405 and 404 are for who may ask at all", async () => {
    expect((await full.send("POST", "/v0/routers/x")).status).toBe(405);
    expect((await full.send("POST", "/v0/routers")).status).toBe(405);
    expect((await full.send("GET", "/v0/routers/")).status).toBe(404);
  });

  test("03.48 01.33 routers copy for whoever writes", async () => {
    const [source, dest] = [nameBelow("s"), nameBelow("d")];
    await putRouter(full, source, dest);
    await absentTopic(keyed(server, "writer"), source).append(1);
    expect(await values(absentTopic(keyed(server, "reader"), dest))).toEqual([1]);
  });
});

describe("PUT with a key that is bound to prefixes", () => {
  test("03.49 works with all three names below them", async () => {
    const [source, dest] = [nameBelow("t1:"), nameBelow("t1:")];
    const router = routerNamed(tenant, nameBelow("t1:"));
    expect((await router.put({ source, dest })).status).toBe(201);
    expect((await router.put({ source, dest })).status).toBe(200);
    const mixed = routerNamed(keyed(server, "tenants"), nameBelow("u7."));
    expect((await mixed.put({ source, dest: nameBelow("u7.") })).status).toBe(201);
  });

  test.each([
    ["source", "s", "t1:"],
    ["dest", "t1:", "d"],
    ["source, though dest too,", "s", "d"],
  ])("03.49 01.37 refuses a foreign %s by its name and makes nothing", async (which, from, to) => {
    const ends = { source: nameBelow(from), dest: nameBelow(to) };
    const router = routerNamed(tenant, nameBelow("t1:"));
    expectForbiddenName(await router.put(ends), which === "dest" ? ends.dest : ends.source);
    expect([await exists(ends.source), await exists(ends.dest)]).toEqual([false, false]);
    expect((await router.get()).status).toBe(404);
  });

  test("03.49 01.37 refuses foreign topics that exist, too", async () => {
    const foreign = await newTopic(full);
    const router = routerNamed(tenant, nameBelow("t1:"));
    const own = nameBelow("t1:");
    expectForbiddenName(await router.put({ source: foreign.name, dest: own }), foreign.name);
    expectForbiddenName(await router.put({ source: own, dest: foreign.name }), foreign.name);
    expectForbiddenName(
      await router.put({ source: own, dest: foreign.name, create_dest: false }),
      foreign.name,
    );
    expect(await exists(own)).toBe(false);
  });

  test("03.49 refuses a foreign router name without a detail, whatever the ends", async () => {
    const router = routerNamed(tenant, nameBelow("r"));
    expectForbidden(await router.put({ source: nameBelow("t1:"), dest: nameBelow("t1:") }));
    expectForbidden(await router.put({ source: nameBelow("s"), dest: nameBelow("t1:") }));
  });

  test.each([
    ["t1%3A", "an encoded colon"],
    ["t1%3a", "an encoded colon in lower case"],
    ["%741:", "an encoded letter"],
  ])("03.49 compares the decoded name: %s is below t1:", async (prefix) => {
    const name = nameBelow("");
    const ends = { source: nameBelow("t1:"), dest: nameBelow("t1:") };
    const reply = await tenant.send("PUT", `/v0/routers/${prefix}${name}-%3Ex`, ends);
    expect(reply).toMatchObject({ status: 201, body: { router: `t1:${name}->x` } });
    expect((await tenant.send("GET", `/v0/routers/${prefix}${name}-%3ex`)).status).toBe(200);
    expect((await tenant.send("DELETE", `/v0/routers/${prefix}${name}-%3Ex`)).body.deleted).toBe(true);
  });

  test.each(["t1", "t1%253Ax", "T1%3Ax", "x%2F..%2Ft1:x"])("03.49 %s is not", async (segment) => {
    const ends = { source: nameBelow("t1:"), dest: nameBelow("t1:") };
    expectForbidden(await tenant.send("PUT", `/v0/routers/${segment}`, ends));
  });

  test("2.3 content type, JSON and filter come before the names in the body, those before all else", async () => {
    const router = routerNamed(tenant, nameBelow("t1:"));
    const foreign = { source: nameBelow("s"), dest: nameBelow("d") };
    const status = async (body: unknown, headers = {}) => (await router.put(body, headers)).status;
    expect(await status(foreign, { "content-type": "text/plain" })).toBe(415);
    expect(await status(`${JSON.stringify(foreign)}}`)).toBe(400);
    expect(await status({ ...foreign, preserve_tag: 1 })).toBe(400);
    expect(await status({ ...foreign, filter: ["tag", "eq", "x"] })).toBe(400);
    const illegal = routerNamed(tenant, `${nameBelow("t1:")} illegal`);
    expectForbiddenName(await illegal.put(foreign), foreign.source);
    expect((await illegal.put({ source: nameBelow("t1:"), dest: nameBelow("t1:") })).status).toBe(400);
    expectForbiddenName(await router.put({ source: "same", dest: "same" }), "same");
    expectForbiddenName(await router.put({ source: "_illegal", dest: nameBelow("t1:") }), "_illegal");
  });

  test("2.3 the names in the body come before what exists: fan-in, re-pointing, a cycle", async () => {
    const [a, b, foreign] = [nameBelow("t1:"), nameBelow("t1:"), nameBelow("f")];
    const router = await putRouter(tenant, a, b, {}, nameBelow("t1:"));
    expectForbiddenName(await router.put({ source: foreign, dest: b }), foreign);
    const other = routerNamed(tenant, nameBelow("t1:"));
    expectForbiddenName(await other.put({ source: foreign, dest: b }), foreign);
    expect((await other.put({ source: b, dest: a })).status).toBe(409);
  });
});

describe("names that a restricted key must not know of are not told", () => {
  test("in a cycle that leads through them", async () => {
    const [a, b, foreign] = [nameBelow("t1:"), nameBelow("t1:"), nameBelow("acme")];
    await putRouter(full, b, foreign, {}, nameBelow("r"));
    await putRouter(full, foreign, a, {}, nameBelow("r"));
    const router = { source: a, dest: b };
    const reply = await routerNamed(tenant, nameBelow("t1:")).put(router);
    expect(reply).toMatchObject({ status: 409, body: { error: { code: "router_cycle" } } });
    expect(reply.body.error.detail).toEqual({ cycle: [a, b, a] });
    expect(reply.text).not.toContain(foreign);
    const told = (await routerNamed(full, nameBelow("r")).put(router)).body.error.detail;
    expect(told).toEqual({ cycle: [a, b, foreign, a] });
  });

  test("in the routers that go with a topic", async () => {
    const remover = keyed(server, "tenant-remover");
    const topics = [nameBelow("t1:"), nameBelow("t1:")] as const;
    const [own, hidden] = [nameBelow("t1:"), nameBelow("acme-hidden")];
    await putRouter(full, topics[0], topics[1], {}, own);
    await putRouter(full, nameBelow("acme"), topics[0], {}, hidden);
    const reply = await remover.send("DELETE", `/v0/topics/${topics[0]}`);
    expect(reply.body).toMatchObject({ deleted: true, routers_removed: [own] });
    expect(reply.text).not.toContain("acme");
    expect((await full.send("GET", `/v0/routers/${hidden}`)).status).toBe(404);
  });
});

describe("GET, DELETE and the list with a key that is bound to prefixes", () => {
  /** A router made by others, with its name and ends below these prefixes. */
  async function made(name: string, from: string, to: string) {
    const [source, dest] = [nameBelow(from), nameBelow(to)];
    const router = await putRouter(full, source, dest, {}, nameBelow(name));
    return { router, source, dest, held: routerNamed(tenant, router.name) };
  }

  test("03.49 01.38 a router whose names are all below them is theirs", async () => {
    const { held } = await made("t1:", "t1:", "t1:");
    expect((await held.get()).status).toBe(200);
    expect((await tenant.send("HEAD", held.path)).status).toBe(200);
    expect((await held.drop()).body.deleted).toBe(true);
    expect((await held.get()).status).toBe(404);
  });

  test.each([
    ["source", "s", "t1:"],
    ["dest", "t1:", "d"],
  ] as const)(
    "03.49 01.38 a foreign %s is refused by its name, and the router stays",
    async (end, from, to) => {
      const route = await made("t1:", from, to);
      expectForbiddenName(await route.held.get(), route[end]);
      expectForbiddenName(await route.held.drop(), route[end]);
      const head = await tenant.send("HEAD", route.held.path);
      expect([head.status, head.text]).toEqual([403, ""]);
      await absentTopic(full, route.source).append(1);
      expect(await values(absentTopic(full, route.dest))).toEqual([1]);
    },
  );

  test("03.49 a foreign router name is refused without a detail, there or not", async () => {
    const { held } = await made("r", "t1:", "t1:");
    for (const router of [held, routerNamed(tenant, nameBelow("r"))]) {
      expectForbidden(await router.get());
      expectForbidden(await router.drop());
    }
  });

  test("03.49 an absent router below them is absent", async () => {
    const router = routerNamed(tenant, nameBelow("t1:"));
    expect(await router.get()).toMatchObject({
      status: 404,
      body: { error: { code: "router_not_found", detail: { router: router.name } } },
    });
    expect(await router.drop()).toMatchObject({ status: 200, body: { deleted: false } });
  });

  test("03.49 scope and prefix must both fit", async () => {
    const { router } = await made("t1:", "t1:", "t1:");
    const held = routerNamed(keyed(server, "tenant-reader"), router.name);
    expect((await held.get()).status).toBe(200);
    expectForbidden(await held.drop());
  });

  test("03.49 01.38 the list hides what is not all theirs, also across pages", async () => {
    const routes: [string, string, string, string][] = [
      ["list:1", "list:a", "list:b", "visible"],
      ["list:2", "list:a", "foreign-b", "foreign dest"],
      ["list:3", "foreign-a", "list:c", "foreign source"],
      ["foreign-4", "list:a", "list:d", "foreign name"],
      ["more:5", "list:d", "more:e", "visible"],
      ["more:6", "more:e", "list:f", "visible"],
      ["other:7", "foreign-a", "foreign-c", "nothing of theirs"],
    ];
    for (const [name, source, dest] of routes) await putRouter(full, source, dest, {}, name);
    const lister = keyed(server, "lister");
    const listed = async (query: string) => {
      const { body } = await lister.send("GET", `/v0/routers${query}`);
      return [body.routers.map(({ router }: { router: string }) => router), body.next_cursor];
    };
    expect(await listed("")).toEqual([["list:1", "more:5", "more:6"], undefined]);
    expect(await listed("?prefix=list:")).toEqual([["list:1"], undefined]);
    expect(await listed("?source=list:a")).toEqual([["list:1"], undefined]);
    expect(await listed("?source=foreign-a")).toEqual([[], undefined]);
    expect(await listed("?page_size=3")).toEqual([["list:1", "more:5", "more:6"], undefined]);
    const [first, cursor] = await listed("?page_size=2");
    expect(first).toEqual(["list:1", "more:5"]);
    expect(await listed(`?page_size=2&cursor=${encodeURIComponent(cursor)}`)).toEqual([
      ["more:6"],
      undefined,
    ]);
    expect(await listed("?page_size=1&prefix=list:")).toEqual([["list:1"], undefined]);
  });
});

describe("TOPICS_MAX_ROUTERS", () => {
  const throttled = (max: number) => ({
    status: 429,
    body: { error: { code: "throttled", detail: { limit: "max_routers", max } } },
  });

  test("03.50 01.43 the one above is refused, makes no topic, and is not there", async () => {
    await using own = await startServer({ TOPICS_MAX_ROUTERS: "1" });
    const first = await putRouter(own, "a", "b");
    const second = routerNamed(own, "c->d");
    const reply = await second.put({ source: "c", dest: "d" });
    expect(reply).toMatchObject(throttled(1));
    expect(reply.body.error.detail).toEqual({ limit: "max_routers", max: 1 });
    expect(reply.headers.get("retry-after")).toBe("1");
    expect((await second.get()).status).toBe(404);
    expect((await own.send("GET", "/v0/topics")).body.topics).toHaveLength(2);
    expect((await own.send("GET", "/v0/ready")).body.topics).toBe(2);
    const again = await first.put({ source: "a", dest: "b", filter: "x" });
    expect(again).toMatchObject({ status: 200, body: { filter: ["tag", "Eq", "x"] } });
  });

  test("03.50 a deleted one makes room, by itself or with its topic", async () => {
    await using own = await startServer({ TOPICS_MAX_ROUTERS: "2" });
    const first = await putRouter(own, "a", "b");
    await putRouter(own, "a", "c");
    const next = routerNamed(own, "next");
    expect(await next.put({ source: "a", dest: "d" })).toMatchObject(throttled(2));
    await first.drop();
    expect((await next.put({ source: "a", dest: "d" })).status).toBe(201);
    expect(await first.put({ source: "a", dest: "b" })).toMatchObject(throttled(2));
    await absentTopic(own, "a").drop();
    expect((await first.put({ source: "a", dest: "b" })).status).toBe(201);
  });

  test("03.50 of many at once, not one too many gets in", async () => {
    await using own = await startServer({ TOPICS_MAX_ROUTERS: "5" });
    const replies = await together(20, (i) => routerNamed(own, `r${i}`).put({ source: "a", dest: `d${i}` }));
    const statuses = replies.map(({ status }) => status).toSorted();
    expect(statuses).toEqual([...Array(5).fill(201), ...Array(15).fill(429)]);
    expect((await own.send("GET", "/v0/routers")).body.routers).toHaveLength(5);
    expect((await own.send("GET", "/v0/topics")).body.topics).toHaveLength(6);
  });

  test("03.50 0 is no limit", async () => {
    await using own = await startServer({ TOPICS_MAX_ROUTERS: "0" });
    for (const i of range(1, 30))
      expect((await own.send("PUT", routerPath(`r${i}`), { source: "a", dest: `d${i}` })).status).toBe(201);
  });
});
