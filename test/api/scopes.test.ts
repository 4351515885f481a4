/** What a key may do: the scope each route needs, the names a key is bound to, and what is open to all. */
import { describe, expect, test } from "bun:test";
import { exchange } from "../support/rawsocket.ts";
import { type Reply, startServer } from "../support/server.ts";
import { absentTopic, newTopic, type Sender, sharedServer } from "../support/topics.ts";

/** The server as the holder of a key sees it. */
const keyed = (server: Sender, key: string): Sender => ({
  get url() {
    return server.url;
  },
  send: (method, path, body, headers) =>
    server.send(method, path, body, { authorization: `Bearer ${key}`, ...headers }),
});

const BODY_BYTES_MAX = 1000;
const server = sharedServer({
  TOPICS_API_KEYS: [
    "full",
    "reader:r",
    "writer:w",
    "deleter:d",
    "admin:a",
    "reader-writer:rw",
    "writer-admin:w+a",
    "tenant::t42:",
    "tenants::t42:|u7.",
    "tenant-reader:r:t42:",
    "tenant-writer:w:t42:",
    "lister:r:list:|more:",
  ].join(","),
  TOPICS_MAX_BODY_BYTES: `${BODY_BYTES_MAX}`,
});
const full = keyed(server, "full");
const reader = keyed(server, "reader");
const writer = keyed(server, "writer");
const tenant = keyed(server, "tenant");

const one = { records: [{ data: 1 }] };
let named = 0;
/** A name below the prefix that no other test uses. */
const nameBelow = (prefix: string) => `${prefix}n${++named}`;

/** Every topic route, on an existing topic. `suffix` is undefined where no topic is named. */
const routes: [route: string, method: string, suffix: string | undefined, body: unknown, scope: string][] = [
  ["list", "GET", undefined, undefined, "read"],
  ["list", "HEAD", undefined, undefined, "read"],
  ["state", "GET", "", undefined, "read"],
  ["state", "HEAD", "", undefined, "read"],
  ["diff", "POST", "/diff", {}, "read"],
  ["write", "POST", "", one, "write"],
  ["delete-records", "POST", "/delete", { before_seq: 1 }, "delete"],
  ["DELETE", "DELETE", "", undefined, "delete"],
  ["PUT", "PUT", "", {}, "admin"],
];
const onTopics = routes.filter(([, , suffix]) => suffix !== undefined) as [
  string,
  string,
  string,
  unknown,
  string,
][];

/** No other top-level key, no detail: a refusal for the route or for the path's name. */
function expectForbidden(reply: Reply): void {
  expect(reply).toMatchObject({ status: 403, body: { error: { code: "forbidden" } } });
  expect(Object.keys(reply.body).sort()).toEqual(["error", "performance"]);
  expect(Object.keys(reply.body.error).sort()).toEqual(["code", "message"]);
}

const forbiddenName = (topic: string) => ({
  status: 403,
  body: { error: { code: "forbidden", detail: { topic } } },
});

describe("the scope of a route", () => {
  const holders: [key: string, scopes: string[]][] = [
    ["reader", ["read"]],
    ["writer", ["write"]],
    ["deleter", ["delete"]],
    ["admin", ["admin"]],
    ["reader-writer", ["read", "write"]],
    ["full", ["read", "write", "delete", "admin"]],
  ];

  test.each(routes)(
    "01.32 01.33 01.34 %s (%s) needs its own scope",
    async (_, method, suffix, body, scope) => {
      const statuses: Record<string, number> = {};
      for (const [key] of holders) {
        const topic = await newTopic(full);
        const path = suffix === undefined ? "/v0/topics" : topic.path + suffix;
        statuses[key] = (await keyed(server, key).send(method, path, body)).status;
      }
      expect(statuses).toEqual(
        Object.fromEntries(holders.map(([key, scopes]) => [key, scopes.includes(scope) ? 200 : 403])),
      );
    },
  );

  test.each(["GET", "HEAD"])("01.32 %s metrics needs read", async (method) => {
    const statuses: Record<string, number> = {};
    for (const [key] of holders)
      statuses[key] = (await keyed(server, key).send(method, "/v0/metrics")).status;
    expect(statuses).toEqual({
      reader: 200,
      writer: 403,
      deleter: 403,
      admin: 403,
      "reader-writer": 200,
      full: 200,
    });
  });

  test.each(onTopics.filter(([, method]) => method !== "HEAD"))(
    "01.22 the 403 of %s (%s) has no detail",
    async (_, method, suffix, body, scope) => {
      const { path } = await newTopic(full);
      expectForbidden(
        await keyed(server, scope === "read" ? "writer" : "reader").send(method, path + suffix, body),
      );
    },
  );

  test("01.32 a refused request changes nothing", async () => {
    const topic = await newTopic(full, { cap_records: 7 });
    await topic.append("kept");
    const held = absentTopic(reader, topic.name);
    await held.write(one);
    await held.put({});
    await held.erase({ match: "*" });
    await held.drop();
    const { body } = await topic.state();
    expect(body).toMatchObject({ head_seq: 1, count: 1, config: { cap_records: 7 } });
  });

  test("01.32 a refused read is no read", async () => {
    const topic = await newTopic(full);
    const held = absentTopic(writer, topic.name);
    await held.diff();
    await writer.send("GET", held.path);
    expect((await topic.state()).body.last_read_ts).toBeNull();
  });

  test("01.04 the 403 of HEAD has no body", async () => {
    const { path } = await newTopic(full);
    const { status, text } = await writer.send("HEAD", path);
    expect({ status, text }).toEqual({ status: 403, text: "" });
  });
});

describe("a creating write", () => {
  test("01.33 02.18 with defaults needs only write", async () => {
    const topic = absentTopic(writer);
    expect((await topic.append(1)).status).toBe(201);
    expect((await topic.append(2)).status).toBe(200);
  });

  test.each([
    ["an empty config", { ...one, config: {} }],
    ["a config", { ...one, config: { cap_records: 5 } }],
    ["a config and create:true", { ...one, config: {}, create: true }],
    ["a config and create:false", { ...one, config: {}, create: false }],
    ["a config that does not create", { ...one, config: { auto_create: false } }],
    ["a config and no record", { records: [], config: {} }],
  ])("01.33 02.68 %s needs admin too", async (_, body) => {
    const topic = absentTopic(writer);
    expect(await topic.write(body)).toMatchObject(forbiddenName(topic.name));
    expect((await absentTopic(full, topic.name).state()).status).toBe(404);
  });

  test("01.33 the 403 for a config comes after bad JSON and bad types, before an illegal name", async () => {
    const topic = absentTopic(writer);
    const statuses = async (path: string, ...bodies: unknown[]) => {
      const found = [];
      for (const body of bodies) found.push((await writer.send("POST", path, body)).status);
      return found;
    };
    expect(
      await statuses(topic.path, '{"records":[{"data":1}],"config":{}', {
        ...one,
        config: { ttl_ms: "5" },
      }),
    ).toEqual([400, 400]);
    const wrongType = await topic.write({ ...one, config: {} }, "", { "content-type": "text/plain" });
    expect(wrongType.status).toBe(415);
    expect(await writer.send("POST", "/v0/topics/_x", { ...one, config: {} })).toMatchObject(
      forbiddenName("_x"),
    );
  });

  test("01.33 config:null is no config", async () => {
    expect((await absentTopic(writer).write({ ...one, config: null })).status).toBe(201);
  });

  test("01.33 a config on an existing topic is ignored and needs no admin", async () => {
    const topic = await newTopic(full, { cap_records: 7 });
    const reply = await absentTopic(writer, topic.name).write({ ...one, config: { cap_records: 1 } });
    expect(reply.status).toBe(200);
    expect((await topic.state()).body.config.cap_records).toBe(7);
  });

  test("01.33 write and admin together create with a config", async () => {
    const topic = absentTopic(keyed(server, "writer-admin"));
    expect((await topic.write({ ...one, config: { cap_records: 5 } })).status).toBe(201);
    expect((await absentTopic(full, topic.name).state()).body.config.cap_records).toBe(5);
  });

  test("01.33 admin alone does not write", async () => {
    expectForbidden(await absentTopic(keyed(server, "admin")).write({ ...one, config: {} }));
  });
});

/** Requests that are wrong in another way, too: what they are without auth, and how they are made so. */
const wrongs: [what: string, status: number, body: unknown, headers: Record<string, string>][] = [
  ["an absent topic", 404, { create: false, ...one }, {}],
  ["a wrong content type", 415, "{}", { "content-type": "text/plain" }],
  ["no content type", 415, "{}", { "content-type": "" }],
  ["bad JSON", 400, "{", {}],
  ["a wrong field", 400, { records: 5 }, {}],
  ["no records", 400, { records: [] }, {}],
  ["a body beyond the limit", 413, "x".repeat(BODY_BYTES_MAX + 1), {}],
];

describe("precedence", () => {
  test.each(wrongs)("01 s4 with full access, %s is %d", async (_, status, body, headers) => {
    expect((await absentTopic(full).write(body, "", headers)).status).toBe(status);
  });

  test.each(wrongs)("01 s4 401 comes before %s (%d)", async (_, __, body, headers) => {
    expect((await absentTopic(server).write(body, "", headers)).status).toBe(401);
    expect((await absentTopic(keyed(server, "wrong")).write(body, "", headers)).status).toBe(401);
  });

  test.each(wrongs)("01 s4 403 for the scope comes before %s (%d)", async (_, __, body, headers) => {
    expectForbidden(await absentTopic(reader).write(body, "", headers));
  });

  test.each(wrongs)("01.36 403 for the path's name comes before %s (%d)", async (_, __, body, headers) => {
    expectForbidden(await absentTopic(tenant).write(body, "", headers));
  });

  test.each([
    ["GET", "/v0/nope", 404],
    ["POST", "/v1/health", 404],
    ["GET", "/", 404],
    ["GET", "/metrics", 404],
    ["GET", "/v0/topics/a/nope", 404],
    ["GET", "/v0/topics/", 404],
    ["PATCH", "/v0/topics", 405],
    ["DELETE", "/v0/topics", 405],
    ["OPTIONS", "/v0/topics/a", 405],
    ["PATCH", "/v0/topics/a", 405],
    ["GET", "/v0/topics/a/diff", 405],
    ["POST", "/v0/metrics", 405],
    ["PUT", "/v0/topics/a%ff", 400],
  ])("01.31 %s %s is 401 without a key, %d with one", async (method, path, status) => {
    expect((await server.send(method, path)).status).toBe(401);
    expect((await keyed(server, "wrong").send(method, path)).status).toBe(401);
    expect((await full.send(method, path)).status).toBe(status);
  });

  test.each(["reader", "writer", "deleter", "admin", "tenant"])(
    "01.31 an unknown path is 404 for the key %s",
    async (key) => {
      const reply = await keyed(server, key).send("GET", "/v0/nope");
      expect(reply).toMatchObject({ status: 404, body: { error: { code: "not_found" } } });
    },
  );

  test.each(["/v0/health", "/v0/ready", "/healthz", "/readyz"])(
    "01.31 a wrong method on %s is 405 without a key",
    async (path) => {
      const reply = await server.send("POST", path);
      expect(reply).toMatchObject({ status: 405, body: { error: { code: "method_not_allowed" } } });
      expect(reply.headers.get("allow")).toMatch(/GET/);
    },
  );

  test("01 s4 403 for the scope comes before an undecodable name", async () => {
    expectForbidden(await reader.send("PUT", "/v0/topics/a%ff"));
  });
});

describe("the name in a path", () => {
  test.each(onTopics)("01.36 %s (%s) works on a name of the key's", async (_, method, suffix, body) => {
    const { path } = absentTopic(full, nameBelow("t42:"));
    await full.send("PUT", path);
    expect((await tenant.send(method, path + suffix, body)).status).toBe(200);
  });

  test.each(onTopics)(
    "01.36 %s (%s) does not reach a foreign name, there or not",
    async (_, method, suffix, body) => {
      const existing = await newTopic(full);
      for (const { path } of [existing, absentTopic(full)]) {
        const reply = await tenant.send(method, path + suffix, body);
        if (method === "HEAD") expect([reply.status, reply.text]).toEqual([403, ""]);
        else expectForbidden(reply);
      }
      expect((await existing.state()).body).toMatchObject({ head_seq: 0, last_read_ts: null });
    },
  );

  test("01.36 a foreign name is not created", async () => {
    const topic = absentTopic(tenant);
    await topic.write(one);
    await topic.put();
    expect((await absentTopic(full, topic.name).state()).status).toBe(404);
  });

  test("01 s6 an absent topic inside the prefixes behaves as without prefixes", async () => {
    const topic = absentTopic(tenant, nameBelow("t42:"));
    expect(await topic.state()).toMatchObject({
      status: 404,
      body: { error: { code: "topic_not_found", detail: { topic: topic.name } } },
    });
    expect((await topic.diff()).status).toBe(404);
    expect(await topic.drop()).toMatchObject({ status: 200, body: { deleted: false } });
    expect((await topic.append(1)).status).toBe(201);
  });

  test("01 s6 scope and prefix must both fit", async () => {
    const own = absentTopic(full, nameBelow("t42:"));
    await own.put();
    const held = (key: string, name: string) => absentTopic(keyed(server, key), name);
    const foreign = await newTopic(full);
    const statuses = async (key: string) => [
      (await held(key, own.name).state()).status,
      (await held(key, own.name).write(one)).status,
      (await held(key, foreign.name).state()).status,
      (await held(key, foreign.name).write(one)).status,
    ];
    expect(await statuses("tenant-reader")).toEqual([200, 403, 403, 403]);
    expect(await statuses("tenant-writer")).toEqual([403, 200, 403, 403]);
  });

  test.each([
    ["t42%3A", "an encoded colon"],
    ["t42%3a", "an encoded colon in lower case"],
    ["%7442:", "an encoded letter"],
    ["%74%34%32%3A", "everything encoded"],
  ])("01 s6 the decoded name counts: %s is allowed", async (prefix) => {
    const name = nameBelow("");
    const put = await tenant.send("PUT", `/v0/topics/${prefix}${name}`);
    expect(put).toMatchObject({ status: 201, body: { topic: `t42:${name}` } });
    expect((await tenant.send("GET", `/v0/topics/${prefix}${name}`)).status).toBe(200);
    expect((await full.send("GET", `/v0/topics/t42:${name}`)).status).toBe(200);
  });

  test.each(["%6Fther", "t42", "t42.x", "t42%253Ax", "other%2F..%2Ft42:x", "T42%3Ax"])(
    "01 s6 the decoded name counts: %s is not",
    async (segment) => {
      expectForbidden(await tenant.send("POST", `/v0/topics/${segment}`, one));
    },
  );

  test.each([
    ["/v0/topics/t42:x/../secret-one", "test"],
    ["/v0/topics/t42:x/%2e%2e/secret-one", "test"],
    ["/v0/topics/t42:/./../secret-one", "test"],
    ["/v0/topics/t42:x\\..\\secret-one", "test"],
    ["http://test/v0/topics/secret-one", "test"],
    ["http://t42:/v0/topics/secret-one", "t42:"],
    ["/v0/topics/secret-one", "a"],
    ["/v0/topics/secret-one", "t42:"],
    ["/v0/topics/t42:/../secret-one", "a"],
    ["////v0/topics/secret-one", "a"],
    ["/t42:/v0/topics/secret-one", ""],
    ["///////////v0/topics/secret-one", ""],
  ])("01 s6 %s for host %j does not lead out of the prefix", async (target, host) => {
    await absentTopic(full, "secret-one").put({ cap_records: 77 });
    const [status, answer] = await rawGet(target, host, "Authorization: Bearer tenant");
    expect([status >= 400 && status < 500, answer.includes('"cap_records":77')]).toEqual([true, false]);
  });
});

/** Sends a request that no client library would spell so. Gives its status and the whole answer. */
async function rawGet(target: string, host: string, ...fields: string[]): Promise<[number, string]> {
  const head = [`GET ${target} HTTP/1.1`, `Host: ${host}`, "Connection: close", ...fields];
  const answer = await exchange(server.url, `${head.join("\r\n")}\r\n\r\n`);
  return [Number(/^HTTP\/1\.1 (\d+)/.exec(answer)?.[1]), answer];
}

describe("the target of a request", () => {
  const hosts = ["test", "a", "ab", "abc", "a:1", "", "x?", "x#", "x/swagger/", "[::1]"];
  const open = ["/swagger", "/v0/health", "/v0/ready", "/healthz", "/readyz"];
  const targets = [
    ...open.flatMap((path) => [
      `${path}/v0/topics`,
      `${path}//v0/topics`,
      `${path}/../v0/topics`,
      `${path}/../topics`,
      `${path}/%2e%2e/v0/topics`,
      `${path}%2f..%2fv0/topics`,
      `${path}\\..\\v0\\topics`,
      `${path};/v0/topics`,
      `http://a${path}/v0/topics`,
      `http://test${path}/../v0/topics`,
      `http://a?${path}/v0/topics`,
    ]),
    "/v0/topics",
    "/v0/topics?/swagger/",
    "/v0/topics#/swagger/",
    "//v0/topics",
    "//a/swagger/v0/topics",
    "///////////v0/topics",
    "http://a/v0/topics",
    "/v0/watch/v0/topics?token=full",
    "/v0/watch/../topics?token=full",
    "/v0/watch/x/../../topics?token=full",
    "/v0/topics/../../v0/topics/work?token=full",
    "/swagger/v0/metrics",
    "/swagger/../v0/metrics",
  ];

  test.each(hosts)("01 s6 none shows a topic without a key, host %j", async (host) => {
    await absentTopic(full, "secret-one").put();
    for (const target of targets) {
      const [status, answer] = await rawGet(target, host);
      expect([target, status >= 400 && status < 500, answer.includes("secret-one")]).toEqual([
        target,
        true,
        false,
      ]);
    }
  });

  test.each(["a", "ab", "abc", "a:1", "test", "[::1]"])("01 s1 the host may be %s", async (host) => {
    await absentTopic(full, "secret-one").put();
    const statuses = [];
    for (const target of ["/v0/topics", "/v0/topics/secret-one", "/v0/metrics", "/v0/nope"]) {
      statuses.push((await rawGet(target, host, "Authorization: Bearer full"))[0]);
    }
    expect(statuses).toEqual([200, 200, 200, 404]);
  });
});

describe("the list", () => {
  const lister = keyed(server, "lister");
  const own = ["list:a", "list:b", "list:c", "more:a"];
  const create = async () => {
    for (const name of [...own, "list", "list.a", "lisu", "mord", "more", "most", "zoo", "zoo2"]) {
      await absentTopic(full, name).put();
    }
  };
  const names = (reply: Reply): string[] => reply.body.topics.map(({ topic }: { topic: string }) => topic);

  test("01.36 shows only names of the key's", async () => {
    await create();
    const reply = await lister.send("GET", "/v0/topics");
    expect(names(reply)).toEqual(own);
    expect(reply.body.next_cursor).toBeUndefined();
  });

  test.each([1, 2, 3, 4, 5])("01.36 pages of %d give each of them once", async (size) => {
    await create();
    const pages: string[][] = [];
    for (let cursor: string | undefined = ""; cursor !== undefined; ) {
      const query = `page_size=${size}&cursor=${encodeURIComponent(cursor)}`;
      const reply: Reply = await lister.send("GET", `/v0/topics?${query}`);
      pages.push(names(reply));
      cursor = reply.body.next_cursor;
    }
    expect(pages.flat()).toEqual(own);
    expect(pages.map((page) => page.length).slice(0, -1)).toEqual(Array(pages.length - 1).fill(size));
    expect(pages.length).toBe(Math.ceil(own.length / size));
  });

  test.each([
    ["list", ["list:a", "list:b", "list:c"]],
    ["list:", ["list:a", "list:b", "list:c"]],
    ["list:b", ["list:b"]],
    ["more", ["more:a"]],
    ["zoo", []],
    ["list.", []],
  ])("01 s5 prefix=%s filters what the key sees", async (prefix, expected) => {
    await create();
    const reply = await lister.send("GET", `/v0/topics?prefix=${encodeURIComponent(prefix)}`);
    expect(names(reply)).toEqual(expected);
  });

  test("01 s5 an empty page has no cursor", async () => {
    await create();
    const reply = await lister.send("GET", "/v0/topics?prefix=zoo&page_size=1");
    expect(reply.body).not.toHaveProperty("next_cursor");
  });

  test("01.36 a list that touches does not touch foreign topics", async () => {
    await create();
    const priority = async (name: string) =>
      (await absentTopic(full, name).state()).body.effective_priority as number;
    await lister.send("GET", "/v0/topics?touch=true");
    expect(await priority("list:a")).toBeGreaterThan(0);
    expect(await priority("zoo")).toBe(0);
  });
});

describe("dead_letter", () => {
  const queue = (dead_letter: string) => ({ type: "queue", dead_letter });

  test.each(["other", "t42", "T42:x", "t43:x"])("01.37 the foreign %s is refused by PUT", async (name) => {
    const topic = absentTopic(tenant, nameBelow("t42:"));
    expect(await topic.put(queue(name))).toMatchObject(forbiddenName(name));
    expect((await topic.state()).status).toBe(404);
  });

  test("01.37 a log is treated as a queue is", async () => {
    const topic = absentTopic(tenant, nameBelow("t42:"));
    expect(await topic.put({ dead_letter: "other" })).toMatchObject(forbiddenName("other"));
  });

  test("01.37 a foreign one is refused in a creating write", async () => {
    const topic = absentTopic(tenant, nameBelow("t42:"));
    const reply = await topic.write({ ...one, config: queue("other") });
    expect(reply).toMatchObject(forbiddenName("other"));
    expect((await topic.state()).status).toBe(404);
  });

  test("01.37 a refused change leaves the old config", async () => {
    const topic = absentTopic(tenant, nameBelow("t42:"));
    await topic.put({ ...queue("t42:dead"), cap_records: 7 });
    expect((await topic.put({ ...queue("other"), cap_records: 1 })).status).toBe(403);
    expect((await topic.state()).body.config).toMatchObject({ dead_letter: "t42:dead", cap_records: 7 });
  });

  test("01.37 an own one passes", async () => {
    for (const name of ["t42:dead", "u7.dead"]) {
      const topic = absentTopic(keyed(server, "tenants"), nameBelow("t42:"));
      expect(await topic.put(queue(name))).toMatchObject({
        status: 201,
        body: { config: { dead_letter: name } },
      });
    }
    expect((await absentTopic(tenant, nameBelow("t42:")).put({ dead_letter: null })).status).toBe(201);
  });

  test("01.37 a key without prefixes may name any", async () => {
    const topic = absentTopic(keyed(server, "admin"), nameBelow("t42:"));
    expect((await topic.put(queue("anywhere"))).status).toBe(201);
  });

  test("01.37 in the ignored config of a write to an existing topic it does not matter", async () => {
    const topic = absentTopic(tenant, nameBelow("t42:"));
    await topic.put();
    expect((await topic.write({ ...one, config: queue("other") })).status).toBe(200);
    expect((await topic.state()).body.config.dead_letter).toBeNull();
  });
});

describe("metrics", () => {
  test("01.41 are not open", async () => {
    expect((await server.send("GET", "/v0/metrics")).status).toBe(401);
    expect((await server.send("HEAD", "/v0/metrics")).status).toBe(401);
  });

  test("01 s6 show all topics to a key with prefixes", async () => {
    const { name } = await newTopic(full);
    const { text } = await keyed(server, "tenant-reader").send("GET", "/v0/metrics");
    expect(text).toContain(`topics_topic_head_seq{topic="${name}"}`);
  });
});

describe("probes and pages", () => {
  const probes = ["/v0/health", "/v0/ready", "/healthz", "/readyz"];
  const statuses = async (sender: Sender, method = "GET") => {
    const found = [];
    for (const path of probes) found.push((await sender.send(method, path)).status);
    return found;
  };
  const all = (status: number) => Array(probes.length).fill(status);

  test("01.41 are open by default, whatever is presented", async () => {
    expect(await statuses(server)).toEqual(all(200));
    expect(await statuses(server, "HEAD")).toEqual(all(200));
    expect(await statuses(keyed(server, "wrong"))).toEqual(all(200));
    expect(await statuses(keyed(server, "deleter"))).toEqual(all(200));
  });

  test.each(["1", "true"])(
    "01.41 TOPICS_PROBE_AUTH=%s asks for a key, any key",
    async (TOPICS_PROBE_AUTH) => {
      await using own = await startServer({
        TOPICS_PROBE_AUTH,
        TOPICS_API_KEYS: "full,r:r,w:w,d:d,a:a,tenant::t42:",
      });
      for (const method of ["GET", "HEAD"]) {
        expect(await statuses(own, method)).toEqual(all(401));
        expect(await statuses(keyed(own, "wrong"), method)).toEqual(all(401));
        for (const key of ["full", "r", "w", "d", "a", "tenant"]) {
          expect([key, await statuses(keyed(own, key), method)]).toEqual([key, all(200)]);
        }
      }
      expect(await statuses(own, "POST")).toEqual(all(401));
      expect(await statuses(keyed(own, "full"), "POST")).toEqual(all(405));
      expect((await own.send("GET", "/v0/health?token=full")).status).toBe(401);
    },
  );

  test.each(["yes", "0", "TRUE", "on", ""])(
    "01.41 TOPICS_PROBE_AUTH=%s is off",
    async (TOPICS_PROBE_AUTH) => {
      await using own = await startServer({ TOPICS_PROBE_AUTH, TOPICS_API_KEYS: "full" });
      expect(await statuses(own)).toEqual(all(200));
    },
  );

  test("01.41 TOPICS_PROBE_AUTH without keys has no effect", async () => {
    await using own = await startServer({ TOPICS_PROBE_AUTH: "1" });
    expect(await statuses(own)).toEqual(all(200));
  });

  test.each(["/swagger", "/swagger/json"])("%s is open without a key", async (path) => {
    expect((await server.send("GET", path)).status).toBe(200);
  });
});

describe("?token=", () => {
  const own = sharedServer({ TOPICS_API_KEYS: "good,with space,a+b" });
  const streams = ["/v0/topics/t/stream?", "/v0/topics/t/work?node=n&"];

  test.each([
    ["GET", "/v0/topics", undefined],
    ["HEAD", "/v0/topics", undefined],
    ["GET", "/v0/topics/t", undefined],
    ["PUT", "/v0/topics/t", {}],
    ["POST", "/v0/topics/t", one],
    ["POST", "/v0/topics/t/diff", {}],
    ["POST", "/v0/topics/t/delete", { before_seq: 1 }],
    ["POST", "/v0/topics/t/claim", { node: "n" }],
    ["DELETE", "/v0/topics/t", undefined],
    ["GET", "/v0/metrics", undefined],
    ["GET", "/v0/ws", undefined],
    ["POST", "/v0/watch", { topics: { t: 0 } }],
    ["GET", "/v0/nope", undefined],
  ])("01.39 is ignored on %s %s", async (method, path, body) => {
    expect((await own.send(method, `${path}?token=good`, body)).status).toBe(401);
  });

  test("01.39 does not spoil a good header", async () => {
    expect((await keyed(own, "good").send("GET", "/v0/topics?token=wrong")).status).toBe(200);
  });

  test.each(streams)("01.39 counts on GET %s", async (path) => {
    expect((await own.send("GET", `${path}token=good`)).status).not.toBe(401);
  });

  test.each(streams)("01.39 is decoded on GET %s", async (path) => {
    for (const token of ["with%20space", "with+space", "a%2Bb", "%67ood"]) {
      expect([token, (await own.send("GET", `${path}token=${token}`)).status]).not.toEqual([token, 401]);
    }
  });

  test.each(streams)("01.39 must be good on GET %s", async (path) => {
    for (const query of [
      "",
      "token=",
      "token=wrong",
      "token=Good",
      "token=a+b",
      "Token=good",
      "token=go%20od",
    ]) {
      expect([query, (await own.send("GET", path + query)).status]).toEqual([query, 401]);
    }
  });

  test.each(streams)("01.39 a Bearer header decides alone on GET %s", async (path) => {
    const status = async (authorization: string, token: string) =>
      (await own.send("GET", `${path}token=${token}`, undefined, { authorization })).status;
    expect(await status("Bearer wrong", "good")).toBe(401);
    expect(await status("Bearer good", "wrong")).not.toBe(401);
    expect(await status("Basic eDp5", "good")).not.toBe(401);
    expect(await status("Basic eDp5", "wrong")).toBe(401);
  });

  test("01 s6 repeated: the watch uses the last, work the first", async () => {
    const topic = absentTopic(keyed(own, "good"));
    await topic.put();
    const body = { topics: { [topic.name]: {} } };
    const started = await keyed(own, "good").send("POST", "/v0/watch", body);
    const status = async (path: string, query: string) => (await own.send("HEAD", path + query)).status;
    const watch = `${started.body.stream_url}?`;
    const work = "/v0/topics/t/work?node=n&";
    expect(await status(watch, "token=wrong&token=good")).not.toBe(401);
    expect(await status(watch, "token=good&token=wrong")).toBe(401);
    expect(await status(work, "token=good&token=wrong")).not.toBe(401);
    expect(await status(work, "token=wrong&token=good")).toBe(401);
  });

  test.each(["POST", "PUT", "DELETE"])("01.39 is ignored on %s of a watch", async (method) => {
    expect((await own.send(method, "/v0/watch/x?token=good")).status).toBe(401);
  });
});
