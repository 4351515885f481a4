/** `GET /v0/topics`: order, prefix and pages. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { startServer, type TestServer } from "../support/server.ts";
import { newTopic, sharedServer, together, until } from "../support/topics.ts";

const names = (reply: { body: { topics: { topic: string }[] } }) =>
  reply.body.topics.map(({ topic }) => topic);

const cursorAfter = (name: string) => encodeURIComponent(btoa(JSON.stringify({ after: name })));

describe("a few topics", () => {
  const server = sharedServer();
  const byteOrder = ["A", "Z", "a", "a-1", "a.1", "a0", "a:1", "aB", "a_1", "ab", "s1", "s2", "s3"];

  beforeAll(() =>
    together(byteOrder.length, (i) => server.send("PUT", `/v0/topics/${byteOrder.toReversed()[i]}`)),
  );

  const list = (query = "") => server.send("GET", `/v0/topics${query}`);

  test("02.14 names come in byte order", async () => {
    const reply = await list();
    expect(reply.status).toBe(200);
    expect(names(reply)).toStrictEqual(byteOrder);
    expect(reply.body).not.toHaveProperty("next_cursor");
  });

  test.each([
    ["a", ["a", "a-1", "a.1", "a0", "a:1", "aB", "a_1", "ab"]],
    ["a:", ["a:1"]],
    ["a.", ["a.1"]],
    ["a_", ["a_1"]],
    ["%61%3A", ["a:1"]],
    ["s", ["s1", "s2", "s3"]],
    ["s1", ["s1"]],
    ["S", []],
    ["%25", []],
    ["*", []],
    ["", byteOrder],
  ])("02.14 prefix=%s filters", async (prefix, expected) => {
    expect(names(await list(`?prefix=${prefix}`))).toStrictEqual(expected);
  });

  test.each([1, 2, 3, 4, 12, 13])("02.14 pages of %d give each name once", async (size) => {
    const seen: string[] = [];
    let cursor: string | undefined = "";
    while (cursor !== undefined) {
      const reply = await list(`?page_size=${size}&cursor=${encodeURIComponent(cursor)}`);
      const page = names(reply);
      seen.push(...page);
      cursor = reply.body.next_cursor;
      expect(page.length).toBe(Math.min(size, byteOrder.length - seen.length + page.length));
    }
    expect(seen).toStrictEqual(byteOrder);
  });

  test("02.14 a prefix and pages combine", async () => {
    const first = await list("?prefix=s&page_size=2");
    expect(names(first)).toStrictEqual(["s1", "s2"]);
    const rest = await list(`?prefix=s&page_size=2&cursor=${encodeURIComponent(first.body.next_cursor)}`);
    expect(names(rest)).toStrictEqual(["s3"]);
    expect(rest.body).not.toHaveProperty("next_cursor");
  });

  test("02.14 a page that ends at the last name has no cursor", async () => {
    expect((await list("?prefix=s&page_size=3")).body).not.toHaveProperty("next_cursor");
  });

  test("02.14 a cursor stands between names, whether its own exists or not", async () => {
    expect(names(await list(`?cursor=${cursorAfter("s1")}`))).toStrictEqual(["s2", "s3"]);
    expect(names(await list(`?cursor=${cursorAfter("s1x")}`))).toStrictEqual(["s2", "s3"]);
    expect(names(await list(`?cursor=${cursorAfter("zzz")}`))).toStrictEqual([]);
  });

  test.each(["!!!", "aGVsbG8%3D", "%C3%A9"])("02.15 the cursor %s is refused", async (cursor) => {
    expect(await list(`?cursor=${cursor}`)).toMatchObject({
      status: 400,
      body: { error: { code: "invalid_request" } },
    });
  });

  test.each(["{}", '{"after":5}', "[]"])("02.15 a cursor of %s is the start", async (json) => {
    const reply = await list(`?cursor=${encodeURIComponent(btoa(json))}`);
    expect(names(reply)).toStrictEqual(byteOrder);
  });

  test("02.14 an item shows the topic's state", async () => {
    await using own = await startServer();
    const topic = await newTopic(own, { cap_records: 2, priority: 10, durable: true });
    await topic.append("a", "bb", "ccc");
    const reply = await own.send("GET", "/v0/topics");
    expect(reply.body).toStrictEqual({
      topics: [
        expect.objectContaining({ topic: topic.name, head_seq: 3, earliest_seq: 2, count: 2, bytes: 9 }),
      ],
      performance: { server_total_ms: expect.any(Number) },
    });
    expect(reply.body.topics[0]).toMatchObject({ durable: true, effective_priority: 10 });
  });

  test("02.14 a list shows no expired record", async () => {
    await using own = await startServer();
    const topic = await newTopic(own, { ttl_ms: 30 });
    await topic.append(1, 2);
    const swept = await until(
      () => own.send("GET", "/v0/topics"),
      ({ body }) => body.topics[0].count === 0,
    );
    expect(swept.body.topics[0]).toMatchObject({ head_seq: 2, earliest_seq: 3, bytes: 0 });
  });
});

describe("1002 topics", () => {
  let server: TestServer;
  const name = (i: number) => `t${String(i).padStart(4, "0")}`;

  beforeAll(async () => {
    server = await startServer();
    for (let from = 0; from < 1002; from += 167) {
      await together(167, (i) => server.send("PUT", `/v0/topics/${name(from + i)}`));
    }
  }, 60000);
  afterAll(() => server[Symbol.asyncDispose]());

  test.each([
    ["page_size=0", 1],
    ["page_size=1", 1],
    ["", 100],
    ["page_size=", 100],
    ["page_size=abc", 100],
    ["page_size=-1", 100],
    ["page_size=1.5", 100],
    ["page_size=1000", 1000],
    ["page_size=1001", 1000],
    ["page_size=5000", 1000],
    ["page_size=5&page_size=7", 7],
  ])("02.15 ?%s lists %d", async (query, length) => {
    const reply = await server.send("GET", `/v0/topics?${query}`);
    expect(reply.status).toBe(200);
    expect(names(reply)).toStrictEqual(Array.from({ length }, (_, i) => name(i)));
    expect(reply.body.next_cursor).toStrictEqual(expect.any(String));
  });

  test("02.14 a cursor outlives its topic", async () => {
    const first = await server.send("GET", "/v0/topics?page_size=10&prefix=t0");
    await server.send("DELETE", `/v0/topics/${name(9)}`);
    const next = await server.send(
      "GET",
      `/v0/topics?page_size=2&prefix=t0&cursor=${encodeURIComponent(first.body.next_cursor)}`,
    );
    await server.send("PUT", `/v0/topics/${name(9)}`);
    expect(names(next)).toStrictEqual([name(10), name(11)]);
  });
});
