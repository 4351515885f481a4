/** The list of routers, their deletion, alone or with a topic, and their number in the metrics. */
import { describe, expect, test } from "bun:test";
import { newRoute, newRouter, putRouter, range, read, routerNamed, values } from "../support/router.ts";
import { startServer } from "../support/server.ts";
import { absentTopic, newTopic, type Sender, sharedServer, together } from "../support/topics.ts";

const server = sharedServer();

const performance = expect.objectContaining({ server_total_ms: expect.any(Number) });

const list = (on: Sender, query = "") => on.send("GET", `/v0/routers${query}`);

async function names(on: Sender, query = ""): Promise<string[]> {
  const { status, body } = await list(on, query);
  expect(status).toBe(200);
  return body.routers.map(({ router }: { router: string }) => router);
}

/** Every page of a listing, followed by its cursor. */
async function pages(on: Sender, query: string): Promise<string[][]> {
  const found: string[][] = [];
  let cursor: string | undefined = "";
  while (cursor !== undefined && found.length < 100) {
    const { body } = await list(on, `?${query}&cursor=${encodeURIComponent(cursor)}`);
    found.push(body.routers.map(({ router }: { router: string }) => router));
    cursor = body.next_cursor;
  }
  return found;
}

/** Byte order is neither dictionary order nor the order of creation. */
const mixed = ["m:b", "m.a", "ma", "mA", "m>a", "m->a", "m0", "m_", "m-", "m", "mb", "m.b", "m10", "m2", "Z"];
const sorted = mixed.toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));

/** A server with a router of each of these names, all from `source`. */
async function serverWith(routers: string[]) {
  const own = await startServer();
  await absentTopic(own, "source").put();
  await together(Math.min(20, routers.length), async (k) => {
    for (let i = k; i < routers.length; i += 20) await putRouter(own, "source", `dest-${i}`, {}, routers[i]);
  });
  return own;
}

describe("the list", () => {
  test("03.42 is empty at first", async () => {
    await using own = await startServer();
    const { status, body } = await list(own);
    expect([status, body]).toEqual([200, { routers: [], performance }]);
  });

  test("03.42 has five fields for each router", async () => {
    await using own = await startServer();
    await putRouter(own, "a", "b", { filter: "x*", guarantee: "exactly_once" });
    await putRouter(own, "b", "c", { preserve_node: false, preserve_tag: false });
    await absentTopic(own, "a").write({ records: [{ data: 1, tag: "x" }, { data: 2 }] });
    await routerNamed(own, "a->b").get();
    await routerNamed(own, "b->c").get();
    expect((await list(own)).body).toEqual({
      routers: [
        { router: "a->b", source: "a", dest: "b", guarantee: "exactly_once", forwarded_total: 1 },
        { router: "b->c", source: "b", dest: "c", guarantee: "at_least_once", forwarded_total: 1 },
      ],
      performance,
    });
  });

  test("03.42 is sorted byte by byte", async () => {
    await using own = await serverWith(mixed);
    expect(await names(own)).toEqual(sorted);
    expect((await list(own)).body).not.toHaveProperty("next_cursor");
  });

  test("03.42 filters by prefix, source and dest, and by all of them together", async () => {
    await using own = await startServer();
    await putRouter(own, "s1", "d1", {}, "x.1");
    await putRouter(own, "s1", "d2", {}, "x.2");
    await putRouter(own, "s2", "d3", {}, "x.3");
    await putRouter(own, "s2", "d4", {}, "y->4");
    await putRouter(own, "s2", "d4", {}, "y->5");
    const found: Record<string, string[]> = {};
    const queries = [
      "",
      "?prefix=",
      "?prefix=x",
      "?prefix=x.2",
      "?prefix=y-%3E",
      "?prefix=y->",
      "?prefix=X",
      "?source=s1",
      "?source=s",
      "?source=",
      "?source=d1",
      "?dest=d4",
      "?dest=",
      "?dest=s1",
      "?source=s2&dest=d3",
      "?source=s1&dest=d3",
      "?prefix=x&source=s2",
      "?prefix=y&source=s2&dest=d4",
      "?prefix=x&dest=d4",
      "?source=s1&source=s2",
      "?prefix=x&prefix=y",
      "?nope=x&Source=s1",
    ];
    for (const query of queries) found[query] = (await names(own, query)).map((name) => name.at(-1)!);
    expect(found).toEqual({
      "": ["1", "2", "3", "4", "5"],
      "?prefix=": ["1", "2", "3", "4", "5"],
      "?prefix=x": ["1", "2", "3"],
      "?prefix=x.2": ["2"],
      "?prefix=y-%3E": ["4", "5"],
      "?prefix=y->": ["4", "5"],
      "?prefix=X": [],
      "?source=s1": ["1", "2"],
      "?source=s": [],
      "?source=": [],
      "?source=d1": [],
      "?dest=d4": ["4", "5"],
      "?dest=": [],
      "?dest=s1": [],
      "?source=s2&dest=d3": ["3"],
      "?source=s1&dest=d3": [],
      "?prefix=x&source=s2": ["3"],
      "?prefix=y&source=s2&dest=d4": ["4", "5"],
      "?prefix=x&dest=d4": [],
      "?source=s1&source=s2": ["3", "4", "5"],
      "?prefix=x&prefix=y": ["4", "5"],
      "?nope=x&Source=s1": ["1", "2", "3", "4", "5"],
    });
  });

  test("03.42 pages of any size put together are the list", async () => {
    await using own = await serverWith(mixed);
    for (const size of [1, 2, 4, 5, 14, 15, 16]) {
      const found = await pages(own, `page_size=${size}`);
      expect(found.flat()).toEqual(sorted);
      expect(found).toHaveLength(Math.ceil(mixed.length / size));
    }
  });

  test("03.42 pages keep their filters", async () => {
    await using own = await startServer();
    for (const i of range(1, 5)) await putRouter(own, i % 2 ? "odd" : "even", `d${i}`, {}, `r${i}`);
    expect(await pages(own, "source=odd&page_size=2")).toEqual([["r1", "r3"], ["r5"]]);
    expect(await pages(own, "prefix=r&source=even&page_size=1")).toEqual([["r2"], ["r4"]]);
    expect(await pages(own, "source=none&page_size=1")).toEqual([[]]);
  });

  test("03.42 a cursor means behind its name, also when that is gone or new ones have come", async () => {
    await using own = await serverWith(["a", "b", "c", "d"]);
    const { next_cursor } = (await list(own, "?page_size=2")).body;
    await routerNamed(own, "b").drop();
    await putRouter(own, "source", "dest-new", {}, "bb");
    await putRouter(own, "source", "dest-newer", {}, "aa");
    expect(await names(own, `?cursor=${encodeURIComponent(next_cursor)}`)).toEqual(["bb", "c", "d"]);
  });

  test("03.43 page_size is clamped to 1 to 1000, and 100 where it is no number", async () => {
    const routers = range(0, 1000).map((i) => `r${i}`);
    await using own = await serverWith(routers);
    const sizes = ["0", "1", "7", "1000", "1001", "5000", "abc", "", "-1", "1.5"];
    const counts: [string, number][] = [];
    for (const size of sizes) counts.push([size, (await names(own, `?page_size=${size}`)).length]);
    expect(counts).toEqual([
      ["0", 1],
      ["1", 1],
      ["7", 7],
      ["1000", 1000],
      ["1001", 1000],
      ["5000", 1000],
      ["abc", 100],
      ["", 100],
      ["-1", 100],
      ["1.5", 100],
    ]);
    expect(await names(own)).toHaveLength(100);
    expect((await pages(own, "page_size=1000")).map((page) => page.length)).toEqual([1000, 1]);
  }, 20_000);

  test.each(["!!!", "%C3%A9", "AAAA", "e30=x"])("03.43 the corrupt cursor %s is refused", async (cursor) => {
    expect(await list(server, `?cursor=${cursor}`)).toMatchObject({
      status: 400,
      body: { error: { code: "invalid_request" } },
    });
  });

  test.each(["", "e30=", btoa('{"after":7}')])("03.43 the cursor %p is the start", async (cursor) => {
    const { router } = await newRoute(server);
    const found = await names(server, `?prefix=${router.name}&cursor=${encodeURIComponent(cursor)}`);
    expect(found).toEqual([router.name]);
  });
});

describe("DELETE", () => {
  test("03.39 removes it once, and GET and the list know it no more", async () => {
    const { router } = await newRoute(server);
    const first = await router.drop();
    expect([first.status, first.body]).toEqual([200, { router: router.name, deleted: true, performance }]);
    const second = await router.drop();
    expect([second.status, second.body]).toEqual([200, { router: router.name, deleted: false, performance }]);
    const reply = await router.get();
    expect(reply).toMatchObject({ status: 404, body: { error: { code: "router_not_found" } } });
    expect(reply.body.error.detail).toEqual({ router: router.name });
    expect(await names(server, `?prefix=${router.name}`)).toEqual([]);
  });

  test("03.39 ends forwarding at once; the copies and both topics stay", async () => {
    const { source, dest, router } = await newRoute(server);
    const witness = await newTopic(server);
    await newRouter(server, source, witness);
    await source.append(1, 2);
    expect(await values(dest)).toEqual([1, 2]);
    await router.drop();
    await source.append(3);
    expect(await values(witness)).toEqual([1, 2, 3]);
    expect(await values(dest)).toEqual([1, 2]);
    await dest.append("own");
    expect(await read(dest)).toMatchObject([{}, {}, { $seq: 3, data: "own" }]);
  });

  test("03.39 of one of two between the same topics leaves the other", async () => {
    const { source, dest, router } = await newRoute(server);
    const second = await newRouter(server, source, dest, {}, `${router.name}.2`);
    await router.drop();
    await source.append(1);
    expect(await values(dest)).toEqual([1]);
    expect(await second.total()).toBe(1);
  });

  test.each<[string, unknown]>([
    ["an object", { source: "x" }],
    ["no JSON", "{"],
  ])("03.39 ignores its body: %s", async (_, body) => {
    const { router } = await newRoute(server);
    const reply = await server.send("DELETE", router.path, body, { "content-type": "text/plain" });
    expect(reply).toMatchObject({ status: 200, body: { deleted: true } });
  });

  test("03.39 of one router many times at once removes it once", async () => {
    const { router } = await newRoute(server);
    const replies = await together(8, () => router.drop());
    expect(replies.filter(({ body }) => body.deleted)).toHaveLength(1);
    expect(replies.map(({ status }) => status)).toEqual(Array(8).fill(200));
  });

  test("03.40 created again under its name, it starts at the head with a total of 0", async () => {
    const { source, dest, router } = await newRoute(server, { filter: "x" });
    await source.write({ records: [{ data: 1, tag: "x" }] });
    expect(await router.total()).toBe(1);
    await router.drop();
    await source.append(2);
    const again = await router.put({ source: source.name, dest: dest.name });
    expect(again).toMatchObject({ status: 201, body: { created: true, filter: null } });
    expect(await router.total()).toBe(0);
    await source.append(3);
    expect(await values(dest)).toEqual([1, 3]);
    expect(await router.total()).toBe(1);
  });
});

describe("DELETE of a topic", () => {
  test("03.41 02.16 lists all routers that touched it, sorted, and removes them", async () => {
    await using own = await startServer();
    await putRouter(own, "up", "hub", {}, "z1");
    await putRouter(own, "up", "hub", {}, "Z1");
    await putRouter(own, "hub", "down", {}, "a1");
    await putRouter(own, "hub", "other", {}, "m->1");
    await putRouter(own, "up", "elsewhere", {}, "b1");
    const reply = await absentTopic(own, "hub").drop();
    expect(reply).toMatchObject({ status: 200, body: { topic: "hub", deleted: true } });
    expect(reply.body.routers_removed).toEqual(["Z1", "a1", "m->1", "z1"]);
    expect(await names(own)).toEqual(["b1"]);
    for (const name of ["Z1", "a1", "m->1", "z1"])
      expect((await routerNamed(own, name).get()).status).toBe(404);
    const again = await absentTopic(own, "hub").drop();
    expect(again.body).toMatchObject({ deleted: false, routers_removed: [] });
  });

  test("03.41 the topics at the other ends stay, with their copies", async () => {
    const { source, dest } = await newRoute(server);
    await source.append(1, 2);
    expect(await values(dest)).toEqual([1, 2]);
    await source.drop();
    expect(await values(dest)).toEqual([1, 2]);
    await dest.append(3);
    expect(await values(dest)).toEqual([1, 2, 3]);
  });

  test("03.41 created again, it has no routers", async () => {
    const { source, dest, router } = await newRoute(server);
    await source.drop();
    await source.append("another source");
    expect(await values(dest)).toEqual([]);
    expect((await router.get()).status).toBe(404);
    const other = await newRoute(server);
    await other.dest.drop();
    await other.dest.put();
    await other.source.append(1);
    expect(await values(other.dest)).toEqual([]);
  });

  test("03.41 02.16 refused by if_empty, it removes no router", async () => {
    const { source, dest, router } = await newRoute(server);
    await source.append(1);
    expect(await values(dest)).toEqual([1]);
    expect((await dest.drop("?if_empty=true")).status).toBe(409);
    await source.append(2);
    expect(await values(dest)).toEqual([1, 2]);
    await dest.erase({ before_seq: 3 });
    expect((await dest.drop("?if_empty=true")).body.routers_removed).toEqual([router.name]);
  });
});

describe("metrics", () => {
  test("topics_routers follows", async () => {
    await using own = await startServer();
    const counted = async () => {
      const { text } = await own.send("GET", "/v0/metrics");
      const { body } = await own.send("GET", "/v0/metrics", undefined, { accept: "application/json" });
      return [Number(/^topics_routers (\d+)$/m.exec(text)?.[1]), body.routers];
    };
    const seen = [await counted()];
    await putRouter(own, "a", "b");
    await putRouter(own, "a", "b", { filter: "x" });
    await putRouter(own, "a", "c");
    await putRouter(own, "a", "d");
    await routerNamed(own, "e->a").put({ source: "a", dest: "a" });
    seen.push(await counted());
    await routerNamed(own, "a->b").drop();
    seen.push(await counted());
    await absentTopic(own, "a").drop();
    seen.push(await counted());
    expect(seen).toEqual([
      [0, 0],
      [3, 3],
      [2, 2],
      [0, 0],
    ]);
  });

  test("copies are counted as live records and bytes", async () => {
    await using own = await startServer();
    await putRouter(own, "a", "b");
    await absentTopic(own, "a").append("xx", "yy");
    await absentTopic(own, "b").state();
    const { body } = await own.send("GET", "/v0/metrics", undefined, { accept: "application/json" });
    expect(body).toMatchObject({ records_live: 4, bytes_live: 16, topics: 2, routers: 1 });
  });
});
