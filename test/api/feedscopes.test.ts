/** scope_hint: its canonical forms, what is the same scope and what is not, and what only a write refuses. */
import { describe, expect, test } from "bun:test";
import {
  contentsOf,
  expectRefusal,
  type Feed,
  HEX,
  inOrder,
  newFeed,
  nodeOf,
  paths,
  subscribe,
} from "../support/feeds.ts";
import { sharedServer } from "../support/topics.ts";

const server = sharedServer();

/** The same feed under another spelling of its scope. */
const spelled = (feed: Feed, scope: string) => newFeed(server, scope, feed.key);

const canonical: [sent: string, canonical: string][] = [
  ["global", "global"],
  ["GLOBAL", "global"],
  [" Global\t", "global"],
  ["region:eu", "region:eu"],
  ["Region: eu-west", "region:eu-west"],
  ["group:a", "group:a"],
  ["GROUP : a", "group:a"],
  ["  gRoUp\t:\n a  ", "group:a"],
  ["group:A", "group:A"],
  ["group:a b", "group:a b"],
  ["group:global", "group:global"],
  ["group:dm-a-b", "group:dm-a-b"],
  ["group:Größe-😀", "group:Größe-😀"],
  ["group:__proto__", "group:__proto__"],
  ["node:x", "node:x"],
  ["NODE:X", "node:X"],
  ["local:x", "node:x"],
  ["Local : x", "node:x"],
  ["local", "local"],
  [" LOCAL ", "local"],
  ["network:mainnet", "network:mainnet"],
  ["Network: mainnet", "network:mainnet"],
  ["network:a:b:c", "network:a:b:c"],
  ["network:local:x", "network:local:x"],
  ["dm:a:b", "dm:a:b"],
  ["dm:b:a", "dm:a:b"],
  ["DM : b : a", "dm:a:b"],
  ["dm:a:B", "dm:B:a"],
  ["dm:10:9", "dm:10:9"],
  ["dm:9:10", "dm:10:9"],
  ["dm:ab:a", "dm:a:ab"],
  ["dm:é:z", "dm:z:é"],
  // Code units would put the first of these in front of the second, bytes do not.
  ["dm:😀:～", "dm:～:😀"],
];

describe("a scope", () => {
  test.each(canonical)("07.14 07.16 %j is listed as %s", async (sent, scope) => {
    const feed = newFeed(server, sent);
    const reply = await feed.send("posted");
    expect(reply.body).toMatchObject({ ok: true, scope_hint: sent.trim() });
    const found = { status: 200, body: { messages: [{ scope_hint: scope, content: "posted" }] } };
    expect(await feed.get()).toMatchObject({ ...found, body: { ...found.body, scope_hint: sent.trim() } });
    expect(await spelled(feed, scope).get()).toMatchObject(found);
  });

  test.each(canonical)("07.14 07.16 a subscription to %j is one to %s", async (sent, scope) => {
    const feed = newFeed(server, sent);
    const reply = await subscribe(server, { feed_key: feed.key, scope_hint: sent });
    expect(reply.body.scope_hint).toBe(sent.trim());
    expect(await feed.rows()).toMatchObject([{ scope_hint: scope, active: true }]);
    const id = await spelled(feed, scope).post("posted");
    expect(await feed.cursor()).toMatchObject({ scope_hint: scope, last_event_id: id });
  });

  test.each([
    ["group:a", "group:A"],
    ["group:a", "region:a"],
    ["group:a", "node:a"],
    ["group:a", "network:a"],
    ["group:a", "group:a b"],
    ["group:a b", "group:a  b"],
    ["group:caf\u00e9", "group:cafe\u0301"],
    ["group:global", "global"],
    ["local", "node:local"],
    ["local", "group:local"],
    ["network:a:b", "network:a"],
    ["dm:a:b", "dm:a:B"],
    ["dm:a:b", "group:a-b"],
    ["node:x", "node:X"],
  ])("07.14 %s is not %s", async (one, other) => {
    const feed = newFeed(server, one);
    await feed.post("one");
    await spelled(feed, other).post("other");
    expect(contentsOf(await feed.list())).toEqual(["one"]);
    expect(contentsOf(await spelled(feed, other).list())).toEqual(["other"]);
  });

  test("07.16 the two ids of dm have one history, whoever is named first", async () => {
    const feed = newFeed(server, "dm:b:a");
    await feed.post(1);
    await spelled(feed, "dm:a:b").post(2);
    expect(contentsOf(inOrder(await feed.list()))).toEqual([1, 2]);
    expect(contentsOf(inOrder(await spelled(feed, "dm:a:b").list()))).toEqual([1, 2]);
  });

  test("07 interop group:dm-* is a group as any other", async () => {
    const feed = newFeed(server, "group:dm-7f-9a");
    await feed.post("clear text");
    expect(contentsOf(await feed.list())).toEqual(["clear text"]);
  });
});

const unknown = [
  "banana",
  "group",
  "region",
  "node",
  "network",
  "dm",
  "group:",
  "group: ",
  "region:",
  "node:\t",
  "local:",
  "network:",
  "network: ",
  "global:",
  "global:x",
  ":",
  ":a",
  "group;a",
  "group/a",
  "groups:a",
  "gr oup:a",
  "*",
  "null",
  "dm:",
  "dm:a",
  "dm:a:",
  "dm::b",
  "dm: : b",
  "dm:a:b:c",
  "topic:a",
  "globa\u0131",
  "ｇｌｏｂａｌ",
];

const mismatched = [
  "group:a/b",
  "group:a:b",
  "group:/",
  "GROUP : a/b",
  "region:a/b",
  "region:eu:west",
  "node:a/b",
  "node:a:b",
  "local:a/b",
  "local:a:b",
];

const refused: [scope: string, message: string, subscription: string][] = [
  ...unknown.map((scope): [string, string, string] => [
    scope,
    "invalid event: topic message scope_hint invalid",
    "invalid event: feed subscription scope_hint invalid",
  ]),
  ...mismatched.map((scope): [string, string, string] => [
    scope,
    "invalid event: event swarm_scope mismatch",
    "invalid event: event swarm_scope mismatch",
  ]),
];

describe("no scope", () => {
  test.each(refused)("07.15 a post to %j is refused", async (scope, error) => {
    const feed = newFeed(server, scope);
    expectRefusal(await feed.send(1), 400, error);
    expectRefusal(await spelled(feed, ` ${scope}\n`).send(1), 400, error);
  });

  test.each(refused)("07.15 a subscription to %j is refused", async (scope, _, error) => {
    const feed = newFeed(server, scope);
    for (const active of [true, false]) {
      const body = { feed_key: feed.key, scope_hint: scope, active };
      expectRefusal(await server.send("POST", paths.subscriptions, body), 400, error);
    }
    expect(await feed.rows()).toEqual([]);
  });

  test.each(refused)("07.15 a read of %j is 200 and empty", async (scope) => {
    const reply = await newFeed(server, ` ${scope} `).get();
    expect(reply.status).toBe(200);
    expect(reply.body).toMatchObject({ ok: true, scope_hint: scope.trim(), messages: [], next_anchor: null });
  });
});

describe("order of the checks", () => {
  const wrong = { feed_key: " ", scope_hint: "\t", network_id: "othernet" };

  test("07 s1 feed_key, scope_hint, network_id, then what scope_hint says: a post", async () => {
    const feed = newFeed(server, "banana");
    const send = (more: object) => feed.send(1, more as Record<string, unknown>);
    expectRefusal(await send(wrong), 400, "feed_key is required");
    expectRefusal(await send({ ...wrong, feed_key: "k" }), 400, "scope_hint is required");
    expectRefusal(await send({ network_id: "othernet" }), 400, /network_id mismatch$/);
    expectRefusal(await send({}), 400, /scope_hint invalid$/);
  });

  test("07 s1 feed_key, scope_hint, network_id, then what scope_hint says: a subscription", async () => {
    const body = { ...wrong, active: true };
    const send = (more: object) => server.send("POST", paths.subscriptions, { ...body, ...more });
    expectRefusal(await send({}), 400, "feed_key is required");
    expectRefusal(await send({ feed_key: "k" }), 400, "scope_hint is required");
    expectRefusal(await send({ feed_key: "k", scope_hint: "banana" }), 400, /network_id mismatch$/);
    const own = { feed_key: "k", scope_hint: "banana", network_id: null };
    expectRefusal(await send(own), 400, /scope_hint invalid$/);
  });
});

test("07 s3 what is refused leaves no trace", async () => {
  const feed = newFeed(server, "group:trace");
  const sent = await feed.post("kept");
  for (const scope of ["banana", "group:a/b", "dm:a"]) await spelled(feed, scope).send("refused");
  const next = await feed.post("next");
  const [first, second] = inOrder(await feed.list());
  expect([first!.message_id, second!.message_id]).toEqual([sent, next]);
  expect(second!.event_seq - first!.event_seq).toBe(1);
  expect(next).toMatch(HEX);
  expect(await nodeOf(server)).toBe(second!.author_node_id);
});
