/** The list of topics: order, page sizes and cursors. */
import { describe, expect, test } from "bun:test";
import { startServer, type TestServer } from "../support/server.ts";
import { sharedServer, together } from "../support/topics.ts";

const server = sharedServer();

/** Byte order is neither dictionary order nor the order of creation. */
const mixed = ["m:b", "m.a", "ma", "mA", "m0", "m_", "m-", "m", "mb", "m.b", "m:a", "m10", "m2"];

async function create(on: Pick<TestServer, "send">, names: string[]) {
  for (const name of names) await on.send("PUT", `/v0/topics/${name}`);
}

const namesOf = (body: { topics: { topic: string }[] }) => body.topics.map(({ topic }) => topic);

/** Every page of a listing, followed by its cursor. */
async function pages(on: Pick<TestServer, "send">, query: string): Promise<string[][]> {
  const found: string[][] = [];
  let cursor = "";
  do {
    const { body } = await on.send("GET", `/v0/topics?${query}&cursor=${encodeURIComponent(cursor)}`);
    found.push(namesOf(body));
    cursor = body.next_cursor ?? "";
  } while (cursor !== "" && found.length < 100);
  return found;
}

describe("page size", () => {
  test("01.28 names ascend byte by byte", async () => {
    await using own = await startServer();
    await create(own, mixed);
    const { body } = await own.send("GET", "/v0/topics");
    expect(namesOf(body)).toEqual(mixed.toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b))));
    expect(body.next_cursor).toBeUndefined();
  });

  test("01.28 is clamped to 1 to 1000 and 100 where it is no number", async () => {
    await using own = await startServer();
    await together(20, (k) =>
      create(
        own,
        Array.from({ length: 51 }, (_, i) => `t${k * 51 + i}`),
      ),
    );
    const count = async (query: string) => (await own.send("GET", `/v0/topics${query}`)).body.topics.length;
    const sizes = ["0", "1", "7", "1000", "1001", "5000", "abc", "", "-1", "1.5"];
    const counts = await Promise.all(sizes.map(async (size) => [size, await count(`?page_size=${size}`)]));
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
    expect(await count("")).toBe(100);
    expect(await count("?page_size=3&page_size=5")).toBe(5);
  });
});

describe("cursor", () => {
  test.each([1, 2, 5, 12, 13, 14])("01.29 pages of %d give each name once", async (size) => {
    await using own = await startServer();
    await create(own, mixed);
    const found = await pages(own, `page_size=${size}`);
    expect(found.flat()).toEqual(mixed.toSorted());
    expect(found).toHaveLength(Math.ceil(mixed.length / size));
  });

  test("01.29 keeps the prefix", async () => {
    await create(server, ["pre.a", "pre.b", "pre.c", "prf", "pr"]);
    expect(await pages(server, "prefix=pre.&page_size=2")).toEqual([["pre.a", "pre.b"], ["pre.c"]]);
    expect(await pages(server, "prefix=nothing&page_size=2")).toEqual([[]]);
  });

  test("01.29 survives the deletion of the name it stands on", async () => {
    await create(server, ["gone.a", "gone.b", "gone.c"]);
    const { body } = await server.send("GET", "/v0/topics?prefix=gone.&page_size=2");
    await server.send("DELETE", "/v0/topics/gone.b");
    const next = await server.send(
      "GET",
      `/v0/topics?prefix=gone.&page_size=2&cursor=${encodeURIComponent(body.next_cursor)}`,
    );
    expect(namesOf(next.body)).toEqual(["gone.c"]);
  });

  test.each(["!!!", "%C3%A9", "AAAA", "e30=x"])("01.29 the undecodable %s is refused", async (cursor) => {
    const reply = await server.send("GET", `/v0/topics?cursor=${cursor}`);
    expect(reply).toMatchObject({ status: 400, body: { error: { code: "invalid_request" } } });
  });

  test.each(["", "e30=", btoa('{"after":7}')])(
    "01.29 without a name to stand on, %p is the start",
    async (cursor) => {
      await create(server, ["start.a", "start.b"]);
      const reply = await server.send("GET", `/v0/topics?prefix=start.&cursor=${encodeURIComponent(cursor)}`);
      expect(namesOf(reply.body)).toEqual(["start.a", "start.b"]);
    },
  );
});
