/** `POST /api/peer/backfill`: pages of a lane for another node, their ends, and what a lane leaves out. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import {
  Author,
  EVENT_BYTES_MAX,
  encoded,
  eventIds,
  eventTexts,
  headSeq,
  type Lane,
  messageEvent,
  messagesLane,
  Peer,
  randomHex,
  type SignedEvent,
  sizedMessage,
  subscriptionEvent,
  subscriptionsLane,
} from "../support/events.ts";
import { expectRefusal, type Feed, newFeed, subscribe } from "../support/feeds.ts";
import { answersIn, isAnswer, RawSocket } from "../support/rawsocket.ts";
import { startServer } from "../support/server.ts";
import { type Sender, sharedServer, together, until } from "../support/topics.ts";

setDefaultTimeout(30_000);

const network_id = "net";
const author = new Author();
const server = sharedServer({ FEED_NETWORK_ID: network_id });

const newPeer = () => new Peer(server, network_id);
const laneOf = (feed: Feed) => messagesLane(feed.scope, feed.key);
const idOf = ({ event_id }: SignedEvent) => event_id;

/** A feed with `n` messages from elsewhere, and the place of the first in the log. */
async function filled(n: number) {
  const feed = newFeed(server);
  const names = { network_id, feed_key: feed.key, scope: feed.scope };
  const events = Array.from({ length: n }, (_, content) => messageEvent(author, { ...names, content }));
  let end = await headSeq(server);
  for (let at = 0; at < n; at += 256) {
    const reply = await newPeer().push(...events.slice(at, at + 256));
    expect(reply.body.rejected).toEqual([]);
    end = reply.body.head_seq;
  }
  const seqs = events.map((_, i) => end - n + 1 + i);
  return { feed, events, ids: events.map(idOf), lane: laneOf(feed), seqs, last: seqs.at(-1) ?? 0 };
}

/** A server of its own, where a test is about everything in its log. */
const startNode = (env: Record<string, string> = {}) => startServer({ FEED_NETWORK_ID: network_id, ...env });

describe("a page", () => {
  test("07 holds a lane's events in the order of the log, as their authors signed them", async () => {
    const { lane, events, ids, last, feed } = await filled(3);
    const { body: status } = await server.send("GET", "/api/peer/status");
    const reply = await newPeer().backfill(lane);
    expect([reply.status, reply.body]).toEqual([
      200,
      {
        ok: true,
        node_id: status.node_id,
        log_id: status.log_id,
        lane,
        next_from_event_seq: last,
        head_only: false,
        head_event_ids: ids.toReversed(),
        events: events.map((event) => ({ scope: feed.scope, event })),
        more: false,
        performance: { server_total_ms: expect.any(Number) },
      },
    ]);
    expect(eventTexts(reply)).toEqual(events.map(encoded));
  });

  test("07 of a lane that nobody has used is empty", async () => {
    const lane = laneOf(newFeed(server));
    for (const from_event_seq of [0, 5, 1_000_000])
      expect((await newPeer().backfill(lane, { from_event_seq })).body).toMatchObject({
        lane,
        next_from_event_seq: from_event_seq,
        head_event_ids: [],
        events: [],
        more: false,
      });
  });

  test("07 starts after from_event_seq", async () => {
    const { lane, ids, seqs } = await filled(4);
    for (const n of [0, 1, 2, 3, 4]) {
      const from_event_seq = n === 0 ? seqs[0]! - 1 : seqs[n - 1]!;
      const reply = await newPeer().backfill(lane, { from_event_seq });
      expect(eventIds(reply)).toEqual(ids.slice(n));
      expect(reply.body).toMatchObject({ next_from_event_seq: seqs[3]!, more: false });
    }
  });

  test("07 behind the lane's end is empty and stands still, with its heads", async () => {
    const { lane, ids, last } = await filled(2);
    await filled(3);
    for (const from_event_seq of [last, last + 1, last + 1000]) {
      const reply = await newPeer().backfill(lane, { from_event_seq });
      expect(reply.body).toMatchObject({
        next_from_event_seq: from_event_seq,
        head_event_ids: ids.toReversed(),
        events: [],
        more: false,
      });
    }
  });

  test("07 a position beyond every log is one behind the end", async () => {
    const { lane } = await filled(1);
    const reply = await newPeer().backfill(lane, { from_event_seq: Number.MAX_SAFE_INTEGER });
    expect(reply.body).toMatchObject({
      events: [],
      more: false,
      next_from_event_seq: Number.MAX_SAFE_INTEGER,
    });
  });

  test("07 holds nothing of other lanes", async () => {
    const feed = newFeed(server);
    const names = { network_id, feed_key: feed.key, scope: feed.scope };
    const events = [
      messageEvent(author, { ...names, content: 1 }),
      messageEvent(author, { ...names, content: 2, scope: "group:Crew" }),
      messageEvent(author, { ...names, content: 3, scope: "region:crew" }),
      messageEvent(author, { ...names, content: 4, feed_key: feed.key.toUpperCase() }),
      subscriptionEvent(author, { ...names, active: true }),
      messageEvent(author, { ...names, content: 5 }),
    ];
    await newPeer().push(...events);
    expect((await newPeer().pages(laneOf(feed))).ids).toEqual([events[0]!, events[5]!].map(idOf));
  });

  test.each([
    ["of 100,000 bytes", "k".repeat(100_000)],
    ["that is escaped to six times its length", "\u0001".repeat(20_000)],
    ["that looks like a path", "a/../b?c#d%2F"],
    ["with a zero character", "a\0b"],
  ])("07 of a feed with a key %s is served, as every stored lane is", async (_, feed_key) => {
    const event = messageEvent(author, { network_id, feed_key, scope: "group:crew", content: 1 });
    expect((await newPeer().push(event)).body).toMatchObject({ accepted: 1 });
    const reply = await newPeer().backfill(messagesLane("group:crew", feed_key));
    expect(reply.status).toBe(200);
    expect(eventTexts(reply)).toEqual([encoded(event)]);
  });

  test.each([" padded", "padded ", "\tpadded\n"])(
    "07 of a feed with the key %j is served, if such a message is taken at all",
    async (feed_key) => {
      const event = messageEvent(author, { network_id, feed_key, scope: "group:crew", content: 1 });
      const { body } = await newPeer().push(event);
      const reply = await newPeer().backfill(messagesLane("group:crew", feed_key));
      expect(eventTexts(reply)).toEqual(body.accepted === 1 ? [encoded(event)] : []);
    },
  );

  test("07 is there for every lane, whoever wrote and whoever asks", async () => {
    const feed = newFeed(server);
    const event = messageEvent(author, { network_id, feed_key: feed.key, scope: feed.scope, content: 1 });
    const bringer = newPeer();
    await bringer.push(event);
    const own = await feed.post(2);
    for (const peer of [bringer, new Peer(server, network_id, author), newPeer()])
      expect((await peer.pages(laneOf(feed))).ids).toEqual([event.event_id, own]);
  });
});

describe("pages", () => {
  test.each([1, 2, 3, 7, 10, 11, 512])("07 of %i together are the lane, once", async (limit) => {
    const { lane, ids, seqs } = await filled(10);
    const { ids: found, replies } = await newPeer().pages(lane, { limit });
    expect(found).toEqual(ids);
    for (const [n, { body }] of replies.entries()) {
      const end = Math.min((n + 1) * limit, 10);
      const more = end < 10;
      if (more) expect(body.events).toHaveLength(limit);
      expect(body).toMatchObject({ more, next_from_event_seq: seqs[end - 1]! });
    }
  });

  test("07 hold 256 events unless asked otherwise, and at most 512", async () => {
    const { lane, ids, seqs } = await filled(520);
    const plain = await newPeer().backfill(lane);
    const largest = await newPeer().backfill(lane, { limit: 512 });
    expect(eventIds(plain)).toEqual(ids.slice(0, 256));
    expect(plain.body).toMatchObject({ more: true, next_from_event_seq: seqs[255]! });
    expect(eventIds(largest)).toEqual(ids.slice(0, 512));
    expect(largest.body).toMatchObject({ more: true, next_from_event_seq: seqs[511]! });
    expect((await newPeer().pages(lane)).ids).toEqual(ids);
  });

  test("07 end although other lanes go on between and behind their events", async () => {
    const feeds = [newFeed(server), newFeed(server)] as const;
    const of = (feed: Feed, content: number) =>
      messageEvent(author, { network_id, feed_key: feed.key, scope: feed.scope, content });
    const events = Array.from({ length: 20 }, (_, n) => of(feeds[n % 2]!, n));
    await newPeer().push(...events);
    for (const half of [0, 1])
      expect((await newPeer().pages(laneOf(feeds[half]!), { limit: 3 })).ids).toEqual(
        events.filter((_, n) => n % 2 === half).map(idOf),
      );
  });

  test("07 have room for 8 MiB of events", async () => {
    const feed = newFeed(server);
    const events = Array.from({ length: 70 }, (_, created_at) =>
      sizedMessage(
        author,
        { network_id, feed_key: feed.key, scope: feed.scope, created_at },
        EVENT_BYTES_MAX,
      ),
    );
    for (const half of [events.slice(0, 35), events.slice(35)]) await newPeer().push(...half);
    const { ids, replies } = await newPeer().pages(laneOf(feed), { limit: 512 });
    expect(ids).toEqual(events.map(idOf));
    expect(replies[0]!.body.more).toBe(true);
    for (const reply of replies) {
      const bytes = eventTexts(reply).reduce((sum, text) => sum + Buffer.byteLength(text), 0);
      expect(bytes).toBeLessThanOrEqual(8 * 1024 * 1024);
    }
    // Not needlessly small either.
    expect(replies).toHaveLength(2);
  });
});

describe("known events", () => {
  test("07 are left out and not counted", async () => {
    const { lane, ids, seqs } = await filled(6);
    const known_event_ids = [ids[0]!, ids[2]!];
    const reply = await newPeer().backfill(lane, { known_event_ids, limit: 3 });
    expect(eventIds(reply)).toEqual([ids[1]!, ids[3]!, ids[4]!]);
    expect(reply.body).toMatchObject({ more: true, next_from_event_seq: seqs[4]! });
    const rest = await newPeer().backfill(lane, { known_event_ids, limit: 3, from_event_seq: seqs[4]! });
    expect(eventIds(rest)).toEqual([ids[5]!]);
    expect(rest.body).toMatchObject({ more: false, next_from_event_seq: seqs[5]! });
  });

  test("07 the position moves past them even where all are known", async () => {
    const { lane, ids, last } = await filled(5);
    const reply = await newPeer().backfill(lane, { known_event_ids: ids });
    expect(reply.body).toMatchObject({
      events: [],
      more: false,
      next_from_event_seq: last,
      head_event_ids: ids.toReversed(),
    });
  });

  test("07 pages with known events together are the rest", async () => {
    const { lane, ids } = await filled(9);
    for (const known_event_ids of [ids.slice(0, 4), ids.slice(5), [ids[4]!], ids.slice(1, 8)])
      for (const limit of [1, 2, 4])
        expect((await newPeer().pages(lane, { limit, known_event_ids })).ids).toEqual(
          ids.filter((id) => !known_event_ids.includes(id)),
        );
  });

  test("07 may be 256, and unknown ones too", async () => {
    const { lane, ids } = await filled(3);
    const known_event_ids = [ids[1]!, ...Array.from({ length: 255 }, () => randomHex(32))];
    const reply = await newPeer().backfill(lane, { known_event_ids });
    expect(eventIds(reply)).toEqual([ids[0]!, ids[2]!]);
  });
});

describe("heads", () => {
  test("07.43 head_only gives no events, at most 8 heads, newest first, and the lane's end", async () => {
    const { lane, ids, last } = await filled(11);
    await filled(1);
    for (const from_event_seq of [0, last, last + 100]) {
      const reply = await newPeer().backfill(lane, { head_only: true, from_event_seq });
      expect([reply.status, reply.body]).toMatchObject([
        200,
        {
          head_only: true,
          lane,
          events: [],
          head_event_ids: ids.slice(3).toReversed(),
          next_from_event_seq: last,
        },
      ]);
    }
  });

  test("07.43 of an empty lane there are none, and its end is 0", async () => {
    const lane = laneOf(newFeed(server));
    const reply = await newPeer().backfill(lane, { head_only: true, from_event_seq: 7 });
    expect(reply.body).toMatchObject({
      head_only: true,
      events: [],
      head_event_ids: [],
      next_from_event_seq: 0,
      more: false,
    });
  });

  test("07 they are the newest in the log, not by their authors' clocks, and on every page", async () => {
    const feed = newFeed(server);
    const events = [9, 3, 7, 1, 8, 2, 6, 4, 5, 0].map((created_at) =>
      messageEvent(author, { network_id, feed_key: feed.key, scope: feed.scope, content: 1, created_at }),
    );
    await newPeer().push(...events);
    const heads = events.slice(2).toReversed().map(idOf);
    const { replies } = await newPeer().pages(laneOf(feed), { limit: 4 });
    expect(replies).toHaveLength(3);
    expect(replies.map(({ body }) => body.head_event_ids)).toEqual([heads, heads, heads]);
  });

  test("07 known events stay among the heads", async () => {
    const { lane, ids } = await filled(3);
    const reply = await newPeer().backfill(lane, { known_event_ids: ids, head_only: true });
    expect(reply.body.head_event_ids).toEqual(ids.toReversed());
  });
});

describe("the subscriptions lane", () => {
  test("07 holds the subscriptions of all feeds and scopes and no messages", async () => {
    await using own = await startNode();
    const peer = new Peer(own, network_id);
    await newFeed(own).post(1);
    const made: string[] = [];
    for (const [feed_key, scope_hint] of [
      ["f", "group:crew"],
      ["g", "GLOBAL"],
      ["f", "dm:b:a"],
      ["f", "network:x"],
    ])
      made.push((await subscribe(own, { feed_key, scope_hint })).body.event_id);
    made.push(
      (await subscribe(own, { feed_key: "f", scope_hint: "group:crew", active: false })).body.event_id,
    );
    const { ids, replies } = await peer.pages(subscriptionsLane, { limit: 2 });
    expect(ids).toEqual(made);
    expect(replies[0]!.body.lane).toEqual(subscriptionsLane);
    const scopes = replies.flatMap(({ body }) => body.events.map(({ scope }: { scope: string }) => scope));
    expect(new Set(scopes)).toEqual(new Set(["group:crew", "global", "dm:a:b", "network:x"]));
    const heads = await peer.backfill(subscriptionsLane, { head_only: true });
    expect(heads.body).toMatchObject({
      events: [],
      head_event_ids: ids.slice(-8).toReversed(),
      next_from_event_seq: await headSeq(own),
    });
  });

  test("07 leaves out what the caller authored or brought, from events and from heads", async () => {
    await using own = await startNode();
    const names = { network_id, scope: "group:crew", active: true };
    const [brought, authored] = [
      subscriptionEvent(author, { ...names, feed_key: "a" }),
      subscriptionEvent(author, { ...names, feed_key: "b" }),
    ];
    const [bringer, writer, stranger] = [
      new Peer(own, network_id),
      new Peer(own, network_id, author),
      new Peer(own, network_id),
    ];
    await bringer.push(brought);
    await new Peer(own, network_id).push(authored);
    const seen = async (peer: Peer) => {
      const [page, heads] = [
        await peer.backfill(subscriptionsLane),
        await peer.backfill(subscriptionsLane, { head_only: true }),
      ];
      return [eventIds(page), heads.body.head_event_ids];
    };
    expect(await seen(bringer)).toEqual([[authored.event_id], [authored.event_id]]);
    expect(await seen(writer)).toEqual([[], []]);
    expect(await seen(stranger)).toEqual([
      [brought.event_id, authored.event_id],
      [authored.event_id, brought.event_id],
    ]);
  });

  test("07 what is left out is not counted, and pages go past it", async () => {
    await using own = await startNode();
    const bringer = new Peer(own, network_id);
    const events = Array.from({ length: 12 }, (_, n) =>
      subscriptionEvent(author, { network_id, scope: "group:crew", feed_key: `f${n}`, active: true }),
    );
    const brought = (n: number) => n < 5 || n === 8;
    for (const [n, event] of events.entries())
      await (brought(n) ? bringer : new Peer(own, network_id)).push(event);
    const expected = events.filter((_, n) => !brought(n)).map(idOf);
    for (const limit of [1, 2, 3, 512])
      expect((await bringer.pages(subscriptionsLane, { limit })).ids).toEqual(expected);
  });
});

describe("the scope local", () => {
  const empty = { status: 200, body: { events: [], head_event_ids: [], more: false } };

  test("07.42 looks like an empty lane", async () => {
    const feed = newFeed(server, "local");
    await feed.post(1);
    await feed.post(2);
    expect(await feed.list()).toHaveLength(2);
    const lane = messagesLane("local", feed.key);
    expect(await newPeer().backfill(lane)).toMatchObject({ ...empty, body: { next_from_event_seq: 0 } });
    const heads = await newPeer().backfill(lane, { head_only: true, from_event_seq: 3 });
    expect(heads).toMatchObject({ ...empty, body: { ...empty.body, next_from_event_seq: 0 } });
    const page = await newPeer().backfill(lane, { from_event_seq: 3 });
    expect(page).toMatchObject({ ...empty, body: { ...empty.body, next_from_event_seq: 3 } });
  });

  test("07.42 is in no subscription that leaves the instance", async () => {
    await using own = await startNode();
    const peer = new Peer(own, network_id);
    await subscribe(own, { feed_key: "f", scope_hint: "local" });
    await subscribe(own, { feed_key: "f", scope_hint: "local", active: false });
    expect((await peer.backfill(subscriptionsLane)).body).toMatchObject({ ...empty.body });
    const heads = await peer.backfill(subscriptionsLane, { head_only: true });
    expect(heads.body).toMatchObject(empty.body);
  });

  test("P11 a subscription that moves to it ends its old lane for the peers", async () => {
    await using own = await startNode();
    const peer = new Peer(own, network_id);
    const first = await subscribe(own, { feed_key: "f", scope_hint: "group:crew" });
    const moved = await subscribe(own, { feed_key: "f", scope_hint: "local" });
    const { texts } = await peer.pages(subscriptionsLane);
    const events = texts.map((text) => JSON.parse(text) as SignedEvent);
    expect(events.map(({ swarm_scope, payload }) => [swarm_scope, payload.payload.active])).toEqual([
      ["group:crew", true],
      ["group:crew", false],
    ]);
    expect(events[0]!.event_id).toBe(first.body.event_id);
    expect(moved.body).toMatchObject({ scope_hint: "local", active: true });
    expect(events.map(idOf)).not.toContain(moved.body.event_id);
    expect(events[1]!.created_at).toBeGreaterThan(events[0]!.created_at);
  });

  test.each([
    ["global", true],
    ["group:crew", false],
  ])("07 strict keeps %s here: %p", async (scope, stays) => {
    await using own = await startNode({ FEED_STRICT: "1" });
    const feed = newFeed(own, scope);
    await feed.post(1);
    await feed.subscribe();
    expect(await feed.list()).toHaveLength(1);
    const peer = new Peer(own, network_id);
    const lanes: Lane[] = [messagesLane(scope, feed.key), subscriptionsLane];
    for (const lane of lanes) {
      expect((await peer.pages(lane)).ids).toHaveLength(stays ? 0 : 1);
      const { body } = await peer.backfill(lane, { head_only: true });
      expect(body.head_event_ids).toHaveLength(stays ? 0 : 1);
    }
  });
});

describe("a request that is refused", () => {
  const lane = messagesLane("group:crew", "f");
  const good = { from: author.id, network_id, lane, from_event_seq: 0 };
  const send = (body: unknown, headers: Record<string, string> = {}) =>
    server.send("POST", "/api/peer/backfill", body, headers);

  test.each<[string, Record<string, unknown>]>([
    ["no from", { from: undefined }],
    ["from of another kind", { from: 1 }],
    ["from that is no id", { from: "node" }],
    ["from in upper case", { from: "A".repeat(64) }],
    ["from of 63 digits", { from: "a".repeat(63) }],
    ["no network", { network_id: undefined }],
    ["a network of another kind", { network_id: 1 }],
    ["no lane", { lane: undefined }],
    ["a lane that is null", { lane: null }],
    ["a lane that is a text", { lane: "subscriptions" }],
    ["a lane that is a list", { lane: ["subscriptions"] }],
    ["a lane without kind", { lane: {} }],
    ["a lane of an unknown kind", { lane: { kind: "tasks" } }],
    ["a lane of a kind in upper case", { lane: { kind: "SUBSCRIPTIONS" } }],
    ["a lane whose kind is a number", { lane: { kind: 1 } }],
    ["a messages lane with nothing else", { lane: { kind: "messages" } }],
    ["a messages lane without scope", { lane: { kind: "messages", feed_key: "f" } }],
    ["a messages lane without feed", { lane: { kind: "messages", scope: "group:crew" } }],
    ["a scope of another kind", { lane: { ...lane, scope: 1 } }],
    ["a feed of another kind", { lane: { ...lane, feed_key: null } }],
    ["no position", { from_event_seq: undefined }],
    ["a position below 0", { from_event_seq: -1 }],
    ["a position that is a fraction", { from_event_seq: 0.5 }],
    ["a position that is a text", { from_event_seq: "0" }],
    ["a position that is null", { from_event_seq: null }],
    ["limit 0", { limit: 0 }],
    ["limit -1", { limit: -1 }],
    ["a limit that is a fraction", { limit: 1.5 }],
    ["a limit that is a text", { limit: "5" }],
    ["head_only as a text", { head_only: "true" }],
    ["head_only as a number", { head_only: 1 }],
    ["known ids that are a text", { known_event_ids: "x" }],
    ["known ids that are numbers", { known_event_ids: [1] }],
    ["257 known ids", { known_event_ids: Array(257).fill("0".repeat(64)) }],
  ])("07 400 for %s", async (_, members) => {
    expect((await send(good)).status).toBe(200);
    expectRefusal(await send({ ...good, ...members }), 400);
  });

  test.each([513, 514, 1000, 1e9, Number.MAX_SAFE_INTEGER])("07.43 400 for limit %i", async (limit) => {
    expectRefusal(await send({ ...good, limit }), 400);
  });

  test.each(["", "[]", "null", "{", '{"x":1e400}', '{"x":"\\ud800"}', "\ufeff{}"])(
    "1 400 for %p",
    async (body) => {
      expectRefusal(await send(body), 400);
    },
  );

  test("07.38 409 for another network", async () => {
    for (const of of [lane, subscriptionsLane])
      expectRefusal(await send({ ...good, lane: of, network_id: "another" }), 409, "network_id mismatch");
  });

  test("07 the size comes before the type, that before the shape, that before the network", async () => {
    const huge = " ".repeat(8 * 1024 * 1024 + 65_537);
    expectRefusal(await send(huge, { "content-type": "text/plain" }), 413);
    expectRefusal(await send("{", { "content-type": "text/plain" }), 415);
    expectRefusal(await send(good, { "content-type": "" }), 415);
    expectRefusal(await send({ ...good, network_id: "another", limit: 513 }), 400);
  });

  test("07 unknown members are ignored", async () => {
    const reply = await send({ ...good, more: 1, lane: { ...lane, more: 1 }, log_id: "x" });
    expect([reply.status, reply.body]).toMatchObject([200, { events: [], more: false }]);
  });

  test("07 405 for another method, with Allow", async () => {
    const reply = await server.send("GET", "/api/peer/backfill");
    expectRefusal(reply, 405);
    expect(reply.headers.get("allow")).toContain("POST");
  });
});

describe("many at once", () => {
  /** A request for a page whose last byte is still to come. */
  async function beginBackfill(own: Sender) {
    const body = JSON.stringify({ from: author.id, network_id, lane: subscriptionsLane, from_event_seq: 0 });
    const socket = new RawSocket(own.url);
    await socket.write(
      "POST /api/peer/backfill HTTP/1.1\r\nHost: node\r\nContent-Type: application/json\r\n" +
        `Content-Length: ${body.length}\r\n\r\n${body.slice(0, -1)}`,
    );
    const finish = async () => {
      await socket.write("}");
      return answersIn(await socket.until(isAnswer))[0]!.status;
    };
    return { finish, [Symbol.dispose]: () => socket[Symbol.dispose]() };
  }

  test("07 beyond 16 it is 503, which says when to come again, until one of them is done", async () => {
    await using own = await startNode();
    using begun = new DisposableStack();
    const all = [];
    for (let n = 0; n < 16; n += 1) all.push(begun.use(await beginBackfill(own)));
    const page = () => new Peer(own, network_id).backfill(subscriptionsLane);
    const busy = await until(page, ({ status }) => status !== 200);
    expectRefusal(busy, 503, "control_busy");
    expect(Number(busy.headers.get("retry-after"))).toBeGreaterThan(0);

    expect(await all[0]!.finish()).toBe(200);
    expect((await page()).status).toBe(200);
    for (const one of all.slice(1)) expect(await one.finish()).toBe(200);
    expect((await page()).status).toBe(200);
  });

  test("07 16 callers at once are all served", async () => {
    const { lane, ids } = await filled(50);
    const replies = await together(16, () => newPeer().backfill(lane));
    for (const reply of replies) expect(eventIds(reply)).toEqual(ids);
  });

  test("07 of 100 at once each is served or told to come again, and then all is well", async () => {
    const { lane, ids } = await filled(50);
    const replies = await together(100, () => newPeer().backfill(lane));
    const served = replies.filter(({ status }) => status === 200);
    for (const reply of served) expect(eventIds(reply)).toEqual(ids);
    for (const reply of replies.filter(({ status }) => status !== 200))
      expectRefusal(reply, 503, "control_busy");
    expect(served.length).toBeGreaterThanOrEqual(16);
    expect((await newPeer().backfill(lane)).status).toBe(200);
  });
});
