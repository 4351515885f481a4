/** PUT of a router: what it takes, what it answers, what it makes, and what it refuses in which order. */
import { describe, expect, test } from "bun:test";
import { answersIn, exchange } from "../support/rawsocket.ts";
import {
  newRoute,
  newRouter,
  plain,
  putRouter,
  read,
  routerNamed,
  routerPath,
  values,
} from "../support/router.ts";
import { type Reply, startServer } from "../support/server.ts";
import { absentTopic, defaults, newTopic, sharedServer, type Topic, together } from "../support/topics.ts";

const server = sharedServer();

const invalid = { status: 400, body: { error: { code: "invalid_request" } } };
const performance = expect.objectContaining({ server_total_ms: expect.any(Number) });
const json = { "content-type": "application/json" };

/** Names that no other test uses, of a router and of two topics. None exists yet. */
function absentRoute() {
  const [source, dest] = [absentTopic(server), absentTopic(server)];
  const router = routerNamed(server, `${source.name}->${dest.name}`);
  return { source, dest, router, ends: { source: source.name, dest: dest.name } };
}

const statusOf = async (topic: Topic) => (await topic.state()).status;

/** That neither the router nor a topic was made. */
async function expectNothing({ source, dest, router }: ReturnType<typeof absentRoute>) {
  const replies = [await router.get(), await source.state(), await dest.state()];
  expect(replies.map(({ status }) => status)).toEqual([404, 404, 404]);
}

function expectInvalid(reply: Reply) {
  expect(reply).toMatchObject(invalid);
  expect(reply.body.error.detail).toBeUndefined();
}

describe("create and repeat", () => {
  test("03.1 the first PUT creates with the defaults, the second finds it", async () => {
    const { router, ends } = absentRoute();
    const answer = { router: router.name, ...ends, ...plain, performance };
    const first = await router.put(ends);
    expect([first.status, first.body]).toEqual([201, { ...answer, created: true }]);
    const second = await router.put(ends);
    expect([second.status, second.body]).toEqual([200, { ...answer, created: false }]);
  });

  test("03.1 GET has the same fields without created, and forwarded_total", async () => {
    const { router, ends } = absentRoute();
    const options = {
      preserve_node: false,
      preserve_tag: false,
      filter: ["tag", "Glob", "eu:*"],
      allow_cycle: true,
      guarantee: "exactly_once",
    };
    const put = await router.put({ ...ends, ...options, create_dest: true });
    const shown = { router: router.name, ...ends, ...options, performance };
    expect(put.body).toEqual({ ...shown, created: true });
    const { status, body } = await router.get();
    expect([status, body]).toEqual([200, { ...shown, forwarded_total: 0 }]);
  });

  test("03.1 of many PUTs of one new name at once, exactly one creates it", async () => {
    const { router, ends } = absentRoute();
    const replies = await together(12, () => router.put(ends));
    const created = replies.filter(({ status, body }) => status === 201 && body.created === true);
    const found = replies.filter(({ status, body }) => status === 200 && body.created === false);
    expect([created.length, found.length]).toEqual([1, 11]);
  });

  test("03.1 of PUTs of one new name with different ends at once, one wins and is what GET shows", async () => {
    const routes = Array.from({ length: 6 }, absentRoute);
    const router = routes[0]!.router;
    const replies = await together(6, (i) => router.put(routes[i]!.ends));
    const winner = replies.findIndex(({ status }) => status === 201);
    const statuses = replies.map(({ status }) => status).toSorted();
    expect(statuses).toEqual([201, 409, 409, 409, 409, 409]);
    expect((await router.get()).body).toMatchObject(routes[winner]!.ends);
  });

  test("03.1 a router takes a moment of milliseconds, told as a number", async () => {
    const { router, ends } = absentRoute();
    expect((await router.put(ends)).body.performance.server_total_ms).toBeNumber();
    expect((await router.get()).body.performance.server_total_ms).toBeNumber();
    expect((await router.drop()).body.performance.server_total_ms).toBeNumber();
  });
});

describe("fields", () => {
  const source = "some-source";
  const dest = "some-dest";

  test.each<[string, unknown]>([
    ["nothing", {}],
    ["no source", { dest }],
    ["no dest", { source }],
    ["a misspelt source", { Source: source, dest }],
    ["source null", { source: null, dest }],
    ["dest null", { source, dest: null }],
    ["a number as source", { source: 1, dest }],
    ["an array as dest", { source, dest: [dest] }],
    ["an object as dest", { source, dest: { topic: dest } }],
    ["preserve_node null", { source, dest, preserve_node: null }],
    ["preserve_tag null", { source, dest, preserve_tag: null }],
    ["create_dest null", { source, dest, create_dest: null }],
    ["allow_cycle null", { source, dest, allow_cycle: null }],
    ["guarantee null", { source, dest, guarantee: null }],
    ["preserve_node as text", { source, dest, preserve_node: "true" }],
    ["preserve_tag as a number", { source, dest, preserve_tag: 1 }],
    ["create_dest as a number", { source, dest, create_dest: 0 }],
    ["allow_cycle as text", { source, dest, allow_cycle: "false" }],
    ["an unknown guarantee", { source, dest, guarantee: "at_most_once" }],
    ["a guarantee in other letters", { source, dest, guarantee: "Exactly_Once" }],
    ["an empty guarantee", { source, dest, guarantee: "" }],
    ["a guarantee as true", { source, dest, guarantee: true }],
  ])("03.2 %s is refused", async (_, body) => {
    const route = absentRoute();
    const ends = Object.entries(body as object).map(([key, value]) => {
      if (value === source) return [key, route.source.name];
      return [key, value === dest ? route.dest.name : value];
    });
    expectInvalid(await route.router.put(Object.fromEntries(ends)));
    await expectNothing(route);
  });

  test.each([
    '"source":"x"',
    '"dest":"x"',
    '"preserve_node":true,"preserve_node":true',
    '"preserve_tag":true,"preserve_tag":true',
    '"create_dest":true,"create_dest":true',
    '"filter":null,"filter":null',
    '"allow_cycle":false,"allow_cycle":false',
    '"guarantee":"at_least_once","guarantee":"at_least_once"',
    '"filter":"a","f\\u0069lter":"a"',
  ])("03.2 a known field twice is refused: %s", async (twice) => {
    const route = absentRoute();
    const { source, dest } = route.ends;
    expectInvalid(await route.router.put(`{"source":"${source}","dest":"${dest}",${twice}}`));
    await expectNothing(route);
  });

  test("03.5 unknown fields are ignored, also twice and in other letters", async () => {
    const { router, ends } = absentRoute();
    const { source, dest } = ends;
    const unknown = '"nope":1,"nope":[2],"Filter":"x*","FILTER":7,"created":false,"forwarded_total":9';
    const reply = await router.put(`{"source":"${source}","dest":"${dest}",${unknown}}`);
    expect(reply).toMatchObject({ status: 201, body: { created: true, filter: null } });
    expect(await router.total()).toBe(0);
  });

  test("03.2 filter may be null, and escaped names are names", async () => {
    const { router, ends } = absentRoute();
    const escaped = JSON.stringify({ ...ends, filter: null }).replace('"source"', '"s\\u006furce"');
    expect(await router.put(escaped)).toMatchObject({ status: 201, body: { ...ends, filter: null } });
  });
});

describe("names", () => {
  const illegal: [string, string][] = [
    ["a leading underscore", "_a"],
    ["a blank", "a b"],
    ["a >", "a>"],
    ["nothing", ""],
    ["256 bytes", "x".repeat(256)],
    ["a slash", "a/b"],
    ["a letter beyond ASCII", "\u00e9"],
    ["a line end", "a\n"],
    ["a NUL", "a\u0000"],
  ];

  test.each(illegal)("03.3 a topic's name may not be %s", async (_, name) => {
    const [asSource, asDest] = [absentRoute(), absentRoute()];
    expectInvalid(await asSource.router.put({ ...asSource.ends, source: name }));
    expectInvalid(await asDest.router.put({ ...asDest.ends, dest: name }));
    await expectNothing(asSource);
    await expectNothing(asDest);
  });

  test("03.3 a source is not its own dest", async () => {
    const route = absentRoute();
    expectInvalid(await route.router.put({ ...route.ends, dest: route.source.name }));
    const topic = await newTopic(server);
    expectInvalid(await route.router.put({ source: topic.name, dest: topic.name, allow_cycle: true }));
    await expectNothing(route);
  });

  test("03.3 topic names of 255 bytes are fine", async () => {
    const { router } = absentRoute();
    const [source, dest] = ["s".repeat(255), "d".repeat(255)];
    expect(await router.put({ source, dest })).toMatchObject({ status: 201, body: { source, dest } });
  });

  test.each([
    ["_x", "_x"],
    [">x", "%3Ex"],
    ["-x", "-x"],
    [".x", ".x"],
    ["x y", "x%20y"],
    ["x+y", "x+y"],
    ["x/y", "x%2Fy"],
    ["x<y", "x%3Cy"],
    ["256 bytes", "x".repeat(256)],
    ["x and a letter beyond ASCII", "x%C3%A9"],
    ["x and a NUL", "x%00"],
    ["a name encoded twice", "x%253Ey"],
    ["no UTF-8", "x%ff"],
  ])("03.4 a router may not be called %s", async (_, segment) => {
    const route = absentRoute();
    expectInvalid(await server.send("PUT", `/v0/routers/${segment}`, route.ends));
    await expectNothing(route);
  });

  test.each(["x", "7", "a.b_c:d-e>f", "->".padStart(3, "a"), "a>>", "x".repeat(255), "r:1->r:2", "A-B"])(
    "03.4 a router may be called %s",
    async (name) => {
      const { ends } = absentRoute();
      const router = routerNamed(server, name);
      expect(await router.put(ends)).toMatchObject({ status: 201, body: { router: name } });
      expect(await router.get()).toMatchObject({ status: 200, body: { router: name } });
    },
  );

  test("03.4 names are compared byte by byte", async () => {
    const [one, other] = [absentRoute(), absentRoute()];
    await putRouter(server, one.ends.source, one.ends.dest, {}, "Case");
    const reply = await routerNamed(server, "case").put(other.ends);
    expect(reply).toMatchObject({ status: 201, body: { router: "case" } });
    expect((await routerNamed(server, "Case").get()).body).toMatchObject(one.ends);
  });

  test("03.4 01.11 every spelling in a path is the same router", async () => {
    const { ends } = absentRoute();
    const put = (segment: string) => server.send("PUT", `/v0/routers/${segment}`, ends);
    expect(await put("spelt-%3Eone")).toMatchObject({ status: 201, body: { router: "spelt->one" } });
    for (const segment of ["spelt-%3eone", "spelt%2D%3Eone", "%73pelt-%3Eone", "spelt->one"])
      expect(await put(segment)).toMatchObject({
        status: 200,
        body: { router: "spelt->one", created: false },
      });
    expect((await server.send("GET", "/v0/routers/spelt-%3eone")).body.router).toBe("spelt->one");
    expect((await server.send("DELETE", "/v0/routers/spelt-%3eone")).body).toMatchObject({
      router: "spelt->one",
      deleted: true,
    });
  });

  test("03.4 a raw > in the request target is the same router", async () => {
    const { ends } = absentRoute();
    await putRouter(server, ends.source, ends.dest, {}, "raw->one");
    const head = ["GET /v0/routers/raw->one HTTP/1.1", "Host: test", "Connection: close"];
    const [answer] = answersIn(await exchange(server.url, `${head.join("\r\n")}\r\n\r\n`));
    expect(answer!.status).toBe(200);
    expect(JSON.parse(answer!.body)).toMatchObject({ router: "raw->one", ...ends });
  });

  test.each([
    ["_x", "_x"],
    ["x y", "x%20y"],
    [">x", "%3Ex"],
    ["x".repeat(256), "x".repeat(256)],
    ["never-made", "never-made"],
  ])(
    "03.4 GET of %s says that there is no such router, DELETE that nothing was deleted",
    async (name, path) => {
      expect(await server.send("GET", `/v0/routers/${path}`)).toMatchObject({
        status: 404,
        body: { error: { code: "router_not_found", detail: { router: name } }, performance },
      });
      expect(await server.send("DELETE", `/v0/routers/${path}`)).toMatchObject({
        status: 200,
        body: { router: name, deleted: false, performance },
      });
    },
  );
});

describe("the body", () => {
  const unsupported = { status: 415, body: { error: { code: "unsupported_media_type" } } };
  const types = ["", "text/plain", "application/xml", "application/x-www-form-urlencoded"];

  test.each(types)("03.5 is not read with the content type %p", async (type) => {
    const route = absentRoute();
    expect(await route.router.put(route.ends, { "content-type": type })).toMatchObject(unsupported);
    expect(await route.router.put("", { "content-type": type })).toMatchObject(unsupported);
    expect(await route.router.put("{", { "content-type": type })).toMatchObject(unsupported);
    await expectNothing(route);
  });

  test("03.5 is not asked for in vain: no body and no content type", async () => {
    const { router } = absentRoute();
    expect(await server.send("PUT", router.path)).toMatchObject(unsupported);
  });

  test.each(["application/json", "application/json; charset=utf-8", "application/json;x=y"])(
    "03.5 is read with the content type %s",
    async (type) => {
      const { router, ends } = absentRoute();
      expect((await router.put(ends, { "content-type": type })).status).toBe(201);
    },
  );

  test.each<[string, string | Uint8Array]>([
    ["nothing", ""],
    ["blanks", " \n"],
    ["null", "null"],
    ["a string", '"x"'],
    ["a number", "5"],
    ["an open object", '{"source":"a","dest":"b"'],
    ["trailing characters", '{"source":"a","dest":"b"} x'],
    ["two objects", '{"source":"a","dest":"b"}{}'],
    ["a trailing comma", '{"source":"a","dest":"b",}'],
    ["a BOM", '\ufeff{"source":"a","dest":"b"}'],
    ["bad UTF-8", new Uint8Array([...Buffer.from('{"source":"a","dest":"b","filter":"'), 0xff, 0x22, 0x7d])],
    ["a lone surrogate", '{"source":"a","dest":"b","filter":"\\ud800"}'],
    ["a raw tab in a string", '{"source":"a","dest":"b","filter":"\t"}'],
  ])("03.5 %s is no router", async (_, body) => {
    const { router } = absentRoute();
    expectInvalid(await router.put(body, json));
    expect((await router.get()).status).toBe(404);
  });
});

describe("filters", () => {
  const tag = (operator: string, value: string) => ["tag", operator, value];

  test.each<[unknown, unknown]>([
    [null, null],
    ["p*", tag("Glob", "p*")],
    ["v", tag("Eq", "v")],
    ["", tag("Eq", "")],
    ["*", tag("Glob", "*")],
    ["**", tag("Glob", "**")],
    ["a*b", tag("Eq", "a*b")],
    ["a*b*", tag("Glob", "a*b*")],
    ["*a", tag("Eq", "*a")],
    ["tag", tag("Eq", "tag")],
    ['q"\\\u0000\u00e9\u{1f600}*', tag("Glob", 'q"\\\u0000\u00e9\u{1f600}*')],
    [tag("Eq", "v"), tag("Eq", "v")],
    [tag("Eq", ""), tag("Eq", "")],
    [tag("Eq", "a*"), tag("Eq", "a*")],
    [tag("Glob", "a*"), tag("Glob", "a*")],
    [tag("Glob", "*"), tag("Glob", "*")],
    [tag("Glob", "a*b*"), tag("Glob", "a*b*")],
  ])("03.6 %j is echoed as %j", async (filter, echo) => {
    const { router, ends } = absentRoute();
    expect((await router.put({ ...ends, filter })).body.filter).toEqual(echo);
    expect((await router.get()).body.filter).toEqual(echo);
  });

  test.each<[unknown]>([
    [[]],
    [["tag"]],
    [["tag", "Eq"]],
    [["tag", "Eq", "a", "b"]],
    [["node", "Eq", "a"]],
    [["Tag", "Eq", "a"]],
    [["", "Eq", "a"]],
    [["tag", "eq", "a"]],
    [["tag", "GLOB", "a*"]],
    [["tag", "Ne", "a"]],
    [["tag", "", "a"]],
    [["tag", "Glob", "a"]],
    [["tag", "Glob", ""]],
    [["tag", "Glob", "a*b"]],
    [["tag", "Eq", 1]],
    [["tag", "Eq", null]],
    [["tag", "Glob", ["a*"]]],
    [["tag", 1, "a"]],
    [["tag", null, "a"]],
    [[null, "Eq", "a"]],
    [[["tag", "Eq", "a"]]],
    [{}],
    [{ tag: "a" }],
    [{ 0: "tag", 1: "Eq", 2: "a" }],
    [0],
    [5],
    [true],
    [false],
  ])("03.7 %j is no filter", async (filter) => {
    const route = absentRoute();
    expectInvalid(await route.router.put({ ...route.ends, filter }));
    await expectNothing(route);
  });

  test("03.7 a refused change leaves the filter as it was", async () => {
    const { source, dest, router } = await newRoute(server, { filter: "a*" });
    expectInvalid(await router.put({ source: source.name, dest: dest.name, filter: ["tag", "eq", "a"] }));
    expect((await router.get()).body.filter).toEqual(["tag", "Glob", "a*"]);
  });
});

describe("the topics at the ends", () => {
  test("03.14 create_dest:false and no dest: nothing is made", async () => {
    const route = absentRoute();
    const reply = await route.router.put({ ...route.ends, create_dest: false });
    expect(reply).toMatchObject({
      status: 404,
      body: { error: { code: "topic_not_found", detail: { topic: route.dest.name } }, performance },
    });
    await expectNothing(route);
  });

  test("03.15 create_dest:false with a dest: a missing source is created", async () => {
    const route = absentRoute();
    await route.dest.put({ cap_records: 7 });
    const reply = await route.router.put({ ...route.ends, create_dest: false });
    expect(reply.status).toBe(201);
    expect(reply.body).not.toHaveProperty("create_dest");
    expect((await route.source.state()).body).toMatchObject({ type: "log", head_seq: 0, config: defaults });
    expect((await route.dest.state()).body.config.cap_records).toBe(7);
  });

  test("03.16 missing topics are created with the default config", async () => {
    const route = absentRoute();
    await route.router.put(route.ends);
    for (const topic of [route.source, route.dest]) {
      const { body } = await topic.state();
      expect(body).toMatchObject({ type: "log", head_seq: 0, count: 0, config: defaults });
    }
  });

  test("03.16 existing topics are not touched", async () => {
    const route = absentRoute();
    await route.source.put({ cap_records: 7, durability: "fsync" });
    await route.dest.put({ type: "queue", lease_ms: 5000 });
    await route.source.append("before");
    await route.dest.append("before");
    const stateOf = async (topic: Topic) => {
      const { performance: _, ...state } = (await topic.state()).body;
      return state;
    };
    const before = [await stateOf(route.source), await stateOf(route.dest)];
    await route.router.put(route.ends);
    expect([await stateOf(route.source), await stateOf(route.dest)]).toEqual(before);
  });

  test("03.16 a topic of the made ones works like any other", async () => {
    const route = absentRoute();
    await route.router.put(route.ends);
    await route.source.append("a");
    await route.dest.append("b");
    expect(await values(route.dest)).toEqual(["a", "b"]);
  });
});

describe("another source or dest", () => {
  test("03.17 a dest that has another source is refused, and the source is not created", async () => {
    const { source, dest } = await newRoute(server);
    const other = absentRoute();
    const reply = await other.router.put({ source: other.source.name, dest: dest.name });
    expect(reply).toMatchObject({
      status: 409,
      body: { error: { code: "topic_exists_incompatible" }, performance },
    });
    expect(reply.body.error.detail).toEqual({ topic: dest.name, reason: "router_dest_fan_in" });
    expect([await statusOf(other.source), (await other.router.get()).status]).toEqual([404, 404]);
    await source.append("still forwarded");
    expect(await values(dest)).toEqual(["still forwarded"]);
  });

  test.each(["source", "dest", "both"])("03.19 an existing router keeps its ends: %s", async (changed) => {
    const { source, dest, router } = await newRoute(server, { filter: "a*" });
    const other = absentRoute();
    const before = (await router.get()).body;
    const reply = await router.put({
      source: changed === "dest" ? source.name : other.source.name,
      dest: changed === "source" ? dest.name : other.dest.name,
    });
    expect(reply).toMatchObject({ status: 409, body: { error: { code: "topic_exists_incompatible" } } });
    expect(reply.body.error.detail).toEqual({
      router: router.name,
      reason: "router_repoint_forbidden",
      existing_source: source.name,
      existing_dest: dest.name,
    });
    expect((await router.get()).body).toEqual({ ...before, performance });
    expect([await statusOf(other.source), await statusOf(other.dest)]).toEqual([404, 404]);
  });

  test("03.19 deleted and created again, it may have other ends", async () => {
    const { router } = await newRoute(server);
    const other = absentRoute();
    await router.drop();
    expect(await router.put(other.ends)).toMatchObject({ status: 201, body: other.ends });
  });

  test("03.20 a PUT replaces all options", async () => {
    const { source, dest, router } = await newRoute(server, {
      preserve_node: false,
      preserve_tag: false,
      filter: "a*",
      allow_cycle: true,
      guarantee: "exactly_once",
    });
    const ends = { source: source.name, dest: dest.name };
    expect((await router.put({ ...ends, preserve_tag: false })).body).toMatchObject({
      ...plain,
      preserve_tag: false,
    });
    expect((await router.put(ends)).body).toMatchObject(plain);
    await source.write({ records: [{ data: 1, tag: "b", node: "n" }] });
    expect(await read(dest)).toMatchObject([{ $seq: 1, $tag: "b", $node: "n", data: 1 }]);
  });
});

describe("the order of the checks", () => {
  /** Every router of these tests, and their refusals by status and reason. */
  const refusal = ({ status, body }: Reply) => [
    status,
    body.error?.code,
    body.error?.detail?.reason ?? body.error?.detail?.limit,
  ];
  const broken = [400, "invalid_request", undefined];

  test("2.3 a wrong content type comes before bad JSON and an illegal name", async () => {
    const reply = await server.send("PUT", "/v0/routers/_x", "{", { "content-type": "text/plain" });
    expect(reply.status).toBe(415);
  });

  test.each<[string, string, object]>([
    ["an illegal router name", "_x", {}],
    ["an illegal source", "order-1", { source: "_a" }],
    ["an illegal dest", "order-1", { dest: "a b" }],
    ["a bad filter", "order-1", { filter: 7 }],
    ["one topic at both ends", "order-1", { source: "order-missing", dest: "order-missing" }],
  ])("2.3 %s comes before a missing dest", async (_, name, wrong) => {
    const body = { source: "order-a", dest: "order-missing", create_dest: false, ...wrong };
    expect(refusal(await server.send("PUT", routerPath(name), body))).toEqual(broken);
  });

  test("2.3 a bad field comes before the ends of an existing router", async () => {
    const { router } = await newRoute(server);
    expect(refusal(await router.put({ ...absentRoute().ends, preserve_tag: 1 }))).toEqual(broken);
  });

  test("2.3 a missing dest comes before re-pointing", async () => {
    const { source, router } = await newRoute(server);
    const { dest } = absentRoute();
    const reply = await router.put({ source: source.name, dest: dest.name, create_dest: false });
    expect(reply).toMatchObject({ status: 404, body: { error: { detail: { topic: dest.name } } } });
  });

  test("2.3 fan-in comes before re-pointing", async () => {
    const [one, other] = [await newRoute(server), await newRoute(server)];
    const reply = await one.router.put({ source: one.source.name, dest: other.dest.name });
    expect(refusal(reply)).toEqual([409, "topic_exists_incompatible", "router_dest_fan_in"]);
    expect(reply.body.error.detail.topic).toBe(other.dest.name);
  });

  test("2.3 fan-in, re-pointing and a missing dest come before the limit of routers, a cycle behind it", async () => {
    await using own = await startServer({ TOPICS_MAX_ROUTERS: "1" });
    await putRouter(own, "a", "b", {}, "r");
    const put = async (name: string, body: object) => refusal(await routerNamed(own, name).put(body));
    expect(await put("s", { source: "x", dest: "b" })).toEqual([
      409,
      "topic_exists_incompatible",
      "router_dest_fan_in",
    ]);
    expect(await put("r", { source: "a", dest: "c" })).toEqual([
      409,
      "topic_exists_incompatible",
      "router_repoint_forbidden",
    ]);
    const missing = { source: "a", dest: "c", create_dest: false };
    expect(await put("s", missing)).toEqual([404, "topic_not_found", undefined]);
    expect(await put("s", { source: "b", dest: "a" })).toEqual([429, "throttled", "max_routers"]);
    expect((await own.send("GET", "/v0/topics")).body.topics).toHaveLength(2);
  });

  test.each([
    ["neither fits", 1, ["there"], {}],
    ["only the source fits", 2, ["there"], {}],
    ["the dest does not fit", 2, ["there", "other"], { source: "there" }],
    ["the source does not fit", 2, ["there", "other"], { dest: "there" }],
  ])("2.3 beyond the limit of topics, %s: nothing is made", async (_, max, there, ends) => {
    await using own = await startServer({ TOPICS_MAX_TOPICS: `${max}` });
    for (const name of there) await absentTopic(own, name).put();
    const router = routerNamed(own, "r");
    const reply = await router.put({ source: "s", dest: "d", ...ends });
    expect(reply).toMatchObject({
      status: 429,
      body: { error: { code: "throttled", detail: { limit: "max_topics", max } } },
    });
    expect(reply.headers.get("retry-after")).toBe("1");
    expect((await router.get()).status).toBe(404);
    expect((await own.send("GET", "/v0/topics")).body.topics).toHaveLength(there.length);
  });

  test("2.3 at the limit of topics, a router between two that exist is fine", async () => {
    await using own = await startServer({ TOPICS_MAX_TOPICS: "2" });
    const [a, b] = [absentTopic(own, "a"), absentTopic(own, "b")];
    await a.put();
    await b.put();
    await newRouter(own, a, b);
    await a.append(1);
    expect(await values(b)).toEqual([1]);
  });
});

describe("methods and paths", () => {
  const allowed = (reply: Reply) => reply.headers.get("allow")?.split(/, */).toSorted();

  test.each(["POST", "PATCH", "OPTIONS"])("03.55 %s of a router is not allowed", async (method) => {
    const { router } = await newRoute(server);
    for (const path of [router.path, routerPath("never-made")]) {
      const reply = await server.send(method, path);
      expect(reply).toMatchObject({ status: 405, body: { error: { code: "method_not_allowed" } } });
      expect(allowed(reply)).toEqual(["DELETE", "GET", "HEAD", "PUT"]);
    }
  });

  test.each(["PUT", "POST", "PATCH", "DELETE", "OPTIONS"])(
    "03.55 %s of the list is not allowed",
    async (method) => {
      const reply = await server.send(method, "/v0/routers", method === "PUT" ? {} : undefined);
      expect(reply).toMatchObject({ status: 405, body: { error: { code: "method_not_allowed" } } });
      expect(allowed(reply)).toEqual(["GET", "HEAD"]);
    },
  );

  test.each([
    "/v0/routers/",
    "/v0/routers/x/",
    "/v0/routers/x/y",
    "/v0//routers",
    "/v0/Routers",
    "/v0/router",
  ])("03.55 there is no %s", async (path) => {
    for (const method of ["GET", "PUT", "DELETE"]) {
      const reply = await server.send(method, path, method === "PUT" ? {} : undefined);
      expect(reply).toMatchObject({ status: 404, body: { error: { code: "not_found" } } });
      expect(reply.body.error.detail).toBeUndefined();
    }
  });

  test("03.55 HEAD is GET without the body", async () => {
    const { router } = await newRoute(server);
    const headOf = async (path: string) => {
      const { status, text, headers } = await server.send("HEAD", path);
      return { status, text, type: headers.get("content-type") };
    };
    const json = { text: "", type: "application/json" };
    expect(await headOf(router.path)).toEqual({ status: 200, ...json });
    expect(await headOf("/v0/routers")).toEqual({ status: 200, ...json });
    expect(await headOf(routerPath("never-made"))).toEqual({ status: 404, ...json });
    expect((await router.get()).status).toBe(200);
  });
});
