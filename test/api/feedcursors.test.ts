/** `GET /api/topic/cursor`: who has one, what moves it, and what leaves it alone. */
import { describe, expect, test } from "bun:test";
import {
  ask,
  contentsOf,
  expectRefusal,
  type Feed,
  inOrder,
  type Message,
  newFeed,
  nodeOf,
  paths,
  queryOf,
} from "../support/feeds.ts";
import { sharedServer, together, until } from "../support/topics.ts";

const server = sharedServer();

/** The cursor, which must be there. */
async function cursorOf(feed: Feed, subscriber?: string) {
  const cursor = await feed.cursor({ subscriber_node_id: subscriber });
  if (cursor === null) throw new Error(`${feed.key} has no cursor`);
  return cursor;
}

/** The message that was accepted last. */
const newest = async (feed: Feed): Promise<Message> => inOrder(await feed.list({ limit: 200 })).at(-1)!;

/** The same feed in another scope. */
const elsewhere = (feed: Feed, scope: string) => newFeed(server, scope, feed.key);

/** A feed with a subscription and one message. */
async function followed(scope?: string): Promise<Feed> {
  const feed = newFeed(server, scope);
  await feed.subscribe();
  await feed.post("first");
  return feed;
}

describe("a cursor", () => {
  test("07.24 is null for a feed nobody has used", async () => {
    const { body, status } = await ask(server, paths.cursor, { feed_key: " never-used " });
    const { performance, ...answer } = body;
    const node = await nodeOf(server);
    expect(status).toBe(200);
    expect(answer).toStrictEqual({
      ok: true,
      network_id: `local:${node}`,
      subscriber_node_id: node,
      feed_key: "never-used",
      cursor: null,
    });
    expect(performance.server_total_ms).toBeNumber();
  });

  test("07.24 is null before subscribing, also after posts", async () => {
    const feed = newFeed(server);
    await feed.post(1);
    expect(await feed.cursor()).toBeNull();
  });

  test("07.24 is null after subscribing, until a message comes", async () => {
    const feed = newFeed(server);
    await feed.post("before");
    await feed.subscribe();
    expect(await feed.cursor()).toBeNull();
    const id = await feed.post("after");
    expect((await cursorOf(feed)).last_event_id).toBe(id);
  });

  test("07.25 has exactly these members", async () => {
    const feed = newFeed(server, "GROUP : crew");
    const before = Date.now();
    await feed.subscribe();
    const id = await feed.post(1);
    const { performance, ...answer } = (await ask(server, paths.cursor, { feed_key: feed.key })).body;
    const node = await nodeOf(server);
    const names = { network_id: `local:${node}`, subscriber_node_id: node, feed_key: feed.key };
    expect(answer).toStrictEqual({
      ok: true,
      ...names,
      cursor: {
        ...names,
        scope_hint: "group:crew",
        last_event_seq: (await newest(feed)).event_seq,
        last_event_id: id,
        updated_at: expect.any(Number),
      },
    });
    expect(Number.isSafeInteger(answer.cursor.updated_at)).toBe(true);
    expect(Math.abs(answer.cursor.updated_at - before)).toBeLessThan(2000);
  });

  test("07.25 follows each post at once", async () => {
    const feed = await followed();
    for (let n = 0; n < 5; n++) {
      const before = await cursorOf(feed);
      const id = await feed.post(n);
      const after = await cursorOf(feed);
      expect(after.last_event_id).toBe(id);
      expect(after.last_event_seq).toBeGreaterThan(before.last_event_seq);
      expect(after.updated_at).toBeGreaterThanOrEqual(before.updated_at);
    }
    expect((await cursorOf(feed)).last_event_seq).toBe((await newest(feed)).event_seq);
  });

  test("07.25 ends at the last of many posts at once, and never goes back", async () => {
    const feed = await followed();
    const seen: number[] = [];
    const posts = together(40, (n) => feed.post(n));
    let done = false;
    void posts.then(() => {
      done = true;
    });
    while (!done) seen.push((await cursorOf(feed)).last_event_seq);
    await posts;
    const last = await newest(feed);
    expect(await cursorOf(feed)).toMatchObject({
      last_event_seq: last.event_seq,
      last_event_id: last.message_id,
    });
    expect(seen).toEqual(seen.toSorted((a, b) => a - b));
  });

  test("07.25 does not wait for a reader: reads of all kinds leave it alone", async () => {
    const feed = await followed();
    await feed.post("second");
    const before = await cursorOf(feed);
    await feed.list();
    await feed.list({ limit: 1, before_created_at: 2 ** 53 - 1 });
    await feed.rows();
    await server.send("POST", "/v0/topics/_feeds/diff", {});
    expect(await cursorOf(feed)).toEqual(before);
  });
});

describe("what leaves a cursor alone", () => {
  test("07.26 reads", async () => {
    const feed = await followed();
    const before = await cursorOf(feed);
    for (let n = 0; n < 3; n++) await feed.list({ limit: 1 });
    expect(await cursorOf(feed)).toEqual(before);
  });

  test.each(["group:other", "group:Crew", "region:crew", "node:crew", "global", "local", "network:crew"])(
    "07.26 a post to %s",
    async (scope) => {
      const feed = await followed("group:crew");
      const before = await cursorOf(feed);
      await elsewhere(feed, scope).post("elsewhere");
      expect(await cursorOf(feed)).toEqual(before);
    },
  );

  test("07.26 a post to another feed in the same scope", async () => {
    const feed = await followed();
    const before = await cursorOf(feed);
    const other = await followed();
    await other.post("other");
    expect(await cursorOf(feed)).toEqual(before);
    expect((await cursorOf(other)).last_event_seq).toBe((await newest(other)).event_seq);
  });

  test("07.26 a post that is refused", async () => {
    const feed = await followed();
    const before = await cursorOf(feed);
    for (const content of [null, undefined, "x".repeat(140_000)]) await feed.send(content);
    await feed.send(1, { network_id: "othernet" });
    expect(await cursorOf(feed)).toEqual(before);
  });

  test("07 s7 subscribing again", async () => {
    const feed = await followed();
    const before = await cursorOf(feed);
    await feed.subscribe();
    expect(await cursorOf(feed)).toEqual(before);
  });
});

describe("spellings of a scope", () => {
  test.each([
    ["group:a", "GROUP : a"],
    ["node:x", "local:x"],
    ["dm:b:a", "dm:a:b"],
    ["local", " LOCAL "],
    ["global", "Global"],
  ])("07.14 07.25 a subscription to %s is moved by a post to %j", async (scope, spelling) => {
    const feed = newFeed(server, scope);
    await feed.subscribe();
    const id = await elsewhere(feed, spelling).post(1);
    expect((await cursorOf(feed)).last_event_id).toBe(id);
  });
});

describe("unsubscribing", () => {
  test("07.27 freezes the cursor; history is listed, posting works", async () => {
    const feed = await followed();
    const before = await cursorOf(feed);
    await feed.subscribe({ active: false });
    const id = await feed.post("after");
    expect(await cursorOf(feed)).toEqual(before);
    expect(contentsOf(inOrder(await feed.list()))).toEqual(["first", "after"]);
    expect((await newest(feed)).message_id).toBe(id);
  });

  test("07 s7 subscribing again continues the cursor with the next message", async () => {
    const feed = await followed();
    await feed.subscribe({ active: false });
    const frozen = await cursorOf(feed);
    await feed.post("missed");
    await feed.subscribe();
    expect(await cursorOf(feed)).toEqual(frozen);
    const id = await feed.post("seen");
    expect(await cursorOf(feed)).toMatchObject({
      last_event_id: id,
      last_event_seq: (await newest(feed)).event_seq,
    });
  });

  test("07 s7 without ever having subscribed makes no cursor", async () => {
    const feed = newFeed(server);
    await feed.subscribe({ active: false });
    await feed.post(1);
    expect(await feed.cursor()).toBeNull();
  });
});

describe("another scope", () => {
  test("07 s8 a second subscription replaces the first, and the cursor goes on", async () => {
    const feed = await followed("group:one");
    const first = await cursorOf(feed);
    const other = elsewhere(feed, "group:two");
    await other.subscribe();
    expect((await cursorOf(feed)).last_event_id).toBe(first.last_event_id);
    await feed.post("to the old scope");
    expect((await cursorOf(feed)).last_event_id).toBe(first.last_event_id);
    const id = await other.post("to the new scope");
    const moved = await cursorOf(feed);
    expect(moved).toMatchObject({ last_event_id: id, scope_hint: "group:two" });
    expect(moved.last_event_seq).toBeGreaterThan(first.last_event_seq);
  });

  test("07.26 on the query is no parameter of a cursor", async () => {
    const feed = await followed("group:one");
    const expected = await cursorOf(feed);
    for (const scope of ["group:two", "banana", ""])
      expect(await feed.cursor({ scope_hint: scope })).toEqual(expected);
    const twice = `${queryOf({ feed_key: feed.key })}&scope_hint=a&scope_hint=b&limit=x`;
    expect((await server.send("GET", `${paths.cursor}?${twice}`)).body.cursor).toEqual(expected);
  });
});

describe("a named subscriber", () => {
  test("07.28 has a cursor of its own", async () => {
    const feed = newFeed(server);
    await feed.subscribe({ subscriber_node_id: " agent-1 " });
    const id = await feed.post(1);
    expect(await feed.cursor()).toBeNull();
    expect(await feed.cursor({ subscriber_node_id: "agent-2" })).toBeNull();
    expect(await cursorOf(feed, "agent-1")).toMatchObject({
      subscriber_node_id: "agent-1",
      last_event_id: id,
      last_event_seq: (await newest(feed)).event_seq,
    });
    const reply = await ask(server, paths.cursor, { feed_key: feed.key, subscriber_node_id: " agent-1\t" });
    expect(reply.body).toMatchObject({ subscriber_node_id: "agent-1", cursor: { last_event_id: id } });
  });

  test("07.28 each follows its own scope and its own end", async () => {
    const feed = newFeed(server, "group:one");
    const other = elsewhere(feed, "group:two");
    await feed.subscribe({ subscriber_node_id: "a" });
    await feed.subscribe({ subscriber_node_id: "b" });
    await other.subscribe({ subscriber_node_id: "c" });
    const first = await feed.post(1);
    const second = await other.post(2);
    await feed.subscribe({ subscriber_node_id: "b", active: false });
    const third = await feed.post(3);
    const ends = [];
    for (const name of ["a", "b", "c"]) ends.push((await cursorOf(feed, name)).last_event_id);
    expect(ends).toEqual([third, first, second]);
  });

  test.each(["Agent", "agent ", "a/b?c&d", "é😀", "__proto__", "0".repeat(64), "*"])(
    "07.28 may have any name: %j",
    async (name) => {
      const feed = newFeed(server);
      await feed.subscribe({ subscriber_node_id: name });
      const id = await feed.post(1);
      expect(await cursorOf(feed, name)).toMatchObject({
        subscriber_node_id: name.trim(),
        last_event_id: id,
      });
      expect(await feed.cursor({ subscriber_node_id: `${name.trim()}x` })).toBeNull();
    },
  );

  test("07.28 the own node named is the default", async () => {
    const feed = newFeed(server);
    const node = await nodeOf(server);
    await feed.subscribe({ subscriber_node_id: node });
    const id = await feed.post(1);
    expect(await cursorOf(feed, node)).toEqual(await cursorOf(feed));
    expect((await cursorOf(feed)).last_event_id).toBe(id);
  });
});

describe("a query", () => {
  const at = (query: string) => server.send("GET", `${paths.cursor}?${query}`);

  test.each(["", "feed_key", "subscriber_node_id=a", "scope_hint=group:a", "Feed_Key=a"])(
    "07.10 %j names no feed: 400",
    async (query) => {
      expectRefusal(await at(query), 400);
    },
  );

  test.each(["", " ", "\t\n", "\u3000"])("07.10 07.28 the blank %j is refused", async (blank) => {
    const read = (query: Record<string, unknown>) => ask(server, paths.cursor, { feed_key: "k", ...query });
    expectRefusal(await read({ feed_key: blank }), 400, "feed_key is required");
    expectRefusal(await read({ subscriber_node_id: blank }), 400, "subscriber_node_id cannot be empty");
    expectRefusal(await read({ feed_key: blank, subscriber_node_id: blank }), 400, "feed_key is required");
    expect((await read({ network_id: blank })).body).toMatchObject({
      ok: true,
      network_id: `local:${await nodeOf(server)}`,
    });
  });

  test.each(["feed_key", "network_id", "subscriber_node_id"])("07 s1 %s twice is refused", async (name) => {
    const query = queryOf({ feed_key: "k", network_id: "n", subscriber_node_id: "s" });
    expect((await at(query)).status).toBe(200);
    expectRefusal(await at(`${query}&${name}=x`), 400);
    expectRefusal(await at(`${name}=&${query}`), 400);
  });

  test.each(["feed_key=%ff", "feed_key=k&subscriber_node_id=%c3", "feed_key=k&network_id=%ed%a0%80"])(
    "07 s1 %s is no UTF-8: 400",
    async (query) => {
      expectRefusal(await at(query), 400);
    },
  );

  test("07.9 an unknown network has no cursors: 200, echoed", async () => {
    const feed = await followed();
    const reply = await ask(server, paths.cursor, { feed_key: feed.key, network_id: " othernet " });
    expect(reply.status).toBe(200);
    expect(reply.body).toMatchObject({ ok: true, network_id: "othernet", cursor: null });
    const own = `local:${await nodeOf(server)}`;
    expect(await feed.cursor({ network_id: own })).toEqual(await cursorOf(feed));
  });
});

test("07 s7 updated_at is the server's time of acceptance", async () => {
  const feed = await followed();
  const first = await cursorOf(feed);
  const later = await until(
    async () => {
      await feed.post("tick");
      return cursorOf(feed);
    },
    ({ updated_at }) => updated_at > first.updated_at,
  );
  expect(Math.abs(later.updated_at - (await newest(feed)).created_at)).toBeLessThan(2000);
});
