/** `FEED_STRICT`: where a reference node behaves otherwise than the published page, it is followed. */
import { describe, expect, test } from "bun:test";
import {
  ask,
  contentsOf,
  expectRefusal,
  idsOf,
  inOrder,
  type More,
  newFeed,
  nodeOf,
  paths,
  subscribe,
} from "../support/feeds.ts";
import { startServer } from "../support/server.ts";
import { absentTopic, sharedServer } from "../support/topics.ts";

const server = sharedServer({ FEED_STRICT: "1" });
const log = absentTopic(server, "_feeds");
const headSeq = async (): Promise<number> => (await log.state()).body.head_seq;

describe("scopes", () => {
  test.each([
    ["network:mainnet"],
    ["network:a:b"],
    ["local"],
    [" LOCAL "],
    ["dm:a:b"],
    ["dm:b:a"],
    ["banana"],
    ["group:"],
  ])("07.16 %j is refused by writes; reads are 200 and empty", async (scope) => {
    const feed = newFeed(server, scope);
    const before = await headSeq();
    expectRefusal(await feed.send(1), 400, "invalid event: topic message scope_hint invalid");
    for (const active of [true, false]) {
      const body = { feed_key: feed.key, scope_hint: scope, active };
      expectRefusal(
        await server.send("POST", paths.subscriptions, body),
        400,
        "invalid event: feed subscription scope_hint invalid",
      );
    }
    expect(await headSeq()).toBe(before);
    const reply = await feed.get();
    expect(reply.status).toBe(200);
    expect(reply.body).toMatchObject({ scope_hint: scope.trim(), messages: [], next_anchor: null });
  });

  test.each([
    ["global", "global"],
    ["GLOBAL", "global"],
    ["region:eu", "region:eu"],
    ["GROUP : a", "group:a"],
    ["node:x", "node:x"],
    ["local:x", "node:x"],
    ["group:dm-a", "group:dm-a"],
  ])("07.16 %j works as before, as %s", async (scope, canonical) => {
    const feed = newFeed(server, scope);
    await feed.subscribe();
    const id = await feed.post("posted");
    expect(await feed.list()).toMatchObject([{ message_id: id, scope_hint: canonical }]);
    expect(await feed.cursor()).toMatchObject({ last_event_id: id, scope_hint: canonical });
  });

  test.each(["group:a/b", "region:a:b", "node:a/b"])("07.15 %s is refused as before", async (scope) => {
    expectRefusal(await newFeed(server, scope).send(1), 400, "invalid event: event swarm_scope mismatch");
  });
});

describe("subscribers", () => {
  test.each(["agent", "0".repeat(64), "*"])("07.28 another one (%s) is refused", async (subscriber) => {
    const feed = newFeed(server);
    const before = await headSeq();
    for (const active of [true, false]) {
      const body = { feed_key: feed.key, scope_hint: feed.scope, subscriber_node_id: subscriber, active };
      const reply = await server.send("POST", paths.subscriptions, body);
      expectRefusal(reply, 400, "unauthorized: claimer author mismatch");
    }
    expect(await headSeq()).toBe(before);
    expect(await feed.rows()).toEqual([]);
    expect(await feed.cursor({ subscriber_node_id: subscriber })).toBeNull();
  });

  test("07.28 the local node may be named, or nobody", async () => {
    const node = await nodeOf(server);
    for (const subscriber of [node, ` ${node} `, undefined, null, " "]) {
      const feed = newFeed(server);
      await feed.subscribe({ subscriber_node_id: subscriber });
      const id = await feed.post(1);
      expect(await feed.cursor()).toMatchObject({ subscriber_node_id: node, last_event_id: id });
    }
  });

  test("07.28 a blank one on a cursor is refused as before", async () => {
    const reply = await ask(server, paths.cursor, { feed_key: "k", subscriber_node_id: " " });
    expectRefusal(reply, 400, "subscriber_node_id cannot be empty");
  });
});

describe("next_anchor", () => {
  test("07.7 is null for an empty page only", async () => {
    const feed = newFeed(server);
    expect((await feed.get()).body).toMatchObject({ messages: [], next_anchor: null });
    for (let n = 0; n < 5; n++) await feed.post(n);
    const all = await feed.list();
    for (const limit of [1, 4, 5, 6, 50]) {
      const { messages, next_anchor } = (await feed.get({ limit })).body;
      expect(idsOf(messages)).toEqual(idsOf(all.slice(0, limit)));
      expect(next_anchor).toEqual({
        before_created_at: messages.at(-1).created_at,
        before_message_id: messages.at(-1).message_id,
      });
    }
  });

  test("07.7 leads over every message once and ends with an empty page", async () => {
    const feed = newFeed(server);
    for (let n = 0; n < 6; n++) await feed.post(n);
    const sizes: number[] = [];
    const seen: string[] = [];
    let anchor: More | null = {};
    while (anchor !== null) {
      const { body } = await feed.get({ limit: 3, ...anchor });
      sizes.push(body.messages.length);
      seen.push(...idsOf(body.messages));
      anchor = body.next_anchor;
    }
    expect(sizes).toEqual([3, 3, 0]);
    expect(seen).toEqual(idsOf(await feed.list()));
  });
});

describe("what is as without it", () => {
  test("07.12 content of any kind, not null", async () => {
    const feed = newFeed(server);
    const contents = [{}, [], "text", 1, false];
    for (const content of contents) await feed.post(content);
    expect(contentsOf(inOrder(await feed.list()))).toEqual(contents);
    expectRefusal(await feed.send(null), 400, "content must not be null");
  });

  test("07.9 an unknown network on a read is 200 and empty, on a write 400", async () => {
    const feed = newFeed(server);
    await feed.post(1);
    expect((await feed.get({ network_id: "othernet" })).body).toMatchObject({
      network_id: "othernet",
      messages: [],
      next_anchor: null,
    });
    expectRefusal(await feed.send(1, { network_id: "othernet" }), 400, /network_id mismatch$/);
  });

  test("07.23 a subscription's answer and row", async () => {
    const feed = newFeed(server);
    const { body } = await subscribe(server, { feed_key: feed.key, scope_hint: feed.scope });
    expect(body).toMatchObject({ gossip_kinds: ["messages"], active: true, private_hive_key_share: null });
    expect(await feed.rows()).toMatchObject([
      { event_id: body.event_id, scope_hint: feed.scope, active: true },
    ]);
  });
});

describe("moving a subscription to a scope that stays here", () => {
  test.each([
    ["group:a", "global", ["group:a false", "global true"]],
    ["node:x", " GLOBAL ", ["node:x false", "global true"]],
    ["group:a", "group:b", ["group:b true"]],
    ["global", "group:a", ["group:a true"]],
    ["global", "global", ["global true"]],
  ])("07 P11 from %s to %j tells peers that a lane of theirs has ended: %j", async (from, to, expected) => {
    const feed = newFeed(server, from);
    await feed.subscribe();
    const before = await headSeq();
    const id = await feed.subscribe({ scope_hint: to });
    const { records } = (await log.diff({ from_seq: before })).body;
    const told = records.map(
      ({ data }: { data: { swarm_scope: string; payload: { payload: { active: boolean } } } }) =>
        `${data.swarm_scope} ${data.payload.payload.active}`,
    );
    expect(told).toEqual(expected);
    expect(records.at(-1).data.event_id).toBe(id);
    expect(await feed.rows()).toMatchObject([
      { event_id: id, scope_hint: to.trim().toLowerCase(), active: true },
    ]);
  });
});

describe("the switch", () => {
  test.each([
    ["1", 400],
    ["true", 400],
    ["0", 200],
    ["false", 200],
    ["", 200],
    ["yes", 200],
    ["TRUE", 200],
  ])("07 configuration FEED_STRICT=%j: a post to `local` is %d", async (value, status) => {
    await using own = await startServer({ FEED_STRICT: value });
    expect((await newFeed(own, "local").send(1)).status).toBe(status);
  });
});
