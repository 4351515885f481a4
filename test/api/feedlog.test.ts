/** `_feeds`, the log of all feeds, as a topic: how it is read, that nobody changes it, and that nothing counts it. */
import { describe, expect, test } from "bun:test";
import { EventStream } from "../support/eventstream.ts";
import { HEX, newFeed, nodeOf, paths, subscribe } from "../support/feeds.ts";
import { Metrics } from "../support/prometheus.ts";
import { members, payloads } from "../support/rawjson.ts";
import { startServer } from "../support/server.ts";
import { SocketClient } from "../support/socket.ts";
import { absentTopic, newTopic, type Sender, sharedServer, together } from "../support/topics.ts";
import { newSession } from "../support/watch.ts";

const NAME = "_feeds";
const logOf = (server: Sender) => absentTopic(server, NAME);

const server = sharedServer();
const log = logOf(server);

const headSeq = async (): Promise<number> => (await log.state()).body.head_seq;
const invalid = { status: 400, body: { error: { code: "invalid_request" } } };

/** The events behind a position, with their tags. */
const behind = async (from_seq: number) =>
  (await log.diff({ from_seq, include_tags: true, limit: 1000 })).body.records;

describe("the log of a new server", () => {
  test("07 log is there and empty", async () => {
    await using own = await startServer();
    const { status, body } = await logOf(own).state();
    expect(status).toBe(200);
    expect(body).toMatchObject({
      topic: NAME,
      type: "log",
      head_seq: 0,
      count: 0,
      config: { type: "log", durability: "fsync", durable: true, ttl_ms: 0, cap_records: 0, cap_bytes: 0 },
    });
    expect(await logOf(own).diff()).toMatchObject({ status: 200, body: { records: [], head_seq: 0 } });
  });
});

describe("an entry", () => {
  test("07 log a message is its signed event, under its position and its lane", async () => {
    const feed = newFeed(server, "GROUP : log");
    const before = await headSeq();
    const id = await feed.post({ text: "hi" }, { reply_to_message_id: "parent" });
    const [message] = await feed.list();
    const [record, ...others] = await behind(before);
    const node = await nodeOf(server);
    expect(others).toEqual([]);
    expect(record).toStrictEqual({
      $seq: message!.event_seq,
      $ts: expect.any(Number),
      $tag: `group:log/${feed.key}`,
      data: {
        event_id: id,
        protocol_version: "0.1.0",
        event_kind: "TOPIC_MESSAGE_POSTED",
        task_id: null,
        swarm_scope: "group:log",
        epoch: 1,
        author_node_id: node,
        created_at: message!.created_at,
        payload: {
          type: "TopicMessagePosted",
          payload: {
            network_id: `local:${node}`,
            feed_key: feed.key,
            scope_hint: "GROUP : log",
            content_ref: message!.content_ref,
            local_content_cache: { text: "hi" },
            reply_to_message_id: "parent",
          },
        },
        signature_hex: expect.stringMatching(/^[0-9a-f]{128}$/),
      },
    });
  });

  test.each([true, false])("07 log a subscription (active %p) is its signed event", async (active) => {
    const feed = newFeed(server, "group:log");
    const before = await headSeq();
    const id = await feed.subscribe({ active, subscriber_node_id: "agent" });
    const [record, ...others] = await behind(before);
    const node = await nodeOf(server);
    expect(others).toEqual([]);
    expect(record).toMatchObject({ $seq: before + 1, $tag: "subscriptions" });
    expect(record.data).toMatchObject({
      event_id: id,
      event_kind: "FEED_SUBSCRIPTION_UPDATED",
      swarm_scope: "group:log",
      author_node_id: node,
    });
    expect(record.data.payload).toStrictEqual({
      type: "FeedSubscriptionUpdated",
      payload: {
        network_id: `local:${node}`,
        subscriber_node_id: "agent",
        feed_key: feed.key,
        scope_hint: "group:log",
        gossip_kinds: ["messages"],
        ...(active
          ? { provider_capabilities: { live_gossip: true, history_backfill: true, local_store: true } }
          : {}),
        active,
      },
    });
  });

  test("07 log the id is the digest of what is signed, as it stands in the log", async () => {
    const before = await headSeq();
    await newFeed(server).post({ b: 1, a: [0.5, "é"] });
    const [text] = payloads(await log.diff({ from_seq: before }), "data");
    const found = members(text!);
    const unsigned = [...found].filter(([name]) => !["event_id", "signature_hex"].includes(name));
    const encoded = `{${unsigned.map(([name, value]) => `"${name}":${value}`).join(",")}}`;
    const digest = new Bun.CryptoHasher("sha256").update(encoded).digest("hex");
    expect(JSON.parse(found.get("event_id")!)).toBe(digest);
    expect(digest).toMatch(HEX);
  });

  test("07 log tags are shown where they are asked for", async () => {
    const before = await headSeq();
    await newFeed(server).post(1);
    const [record] = (await log.diff({ from_seq: before })).body.records;
    expect(record).not.toHaveProperty("$tag");
  });

  test.each([
    ["256 bytes", "k".repeat(256 - "group:t/".length), true],
    ["257 bytes", "k".repeat(257 - "group:t/".length), false],
    ["256 bytes in two-byte characters", "é".repeat(124), true],
    ["258 bytes in two-byte characters", "é".repeat(125), false],
    ["many bytes", "k".repeat(50_000), false],
  ])("07 log a tag of %s", async (_, key, shown) => {
    const before = await headSeq();
    await newFeed(server, "group:t", key).post(1);
    const [record] = await behind(before);
    expect(record.$tag).toBe(shown ? `group:t/${key}` : undefined);
    expect(record.data.payload.payload.feed_key).toBe(key);
  });

  test("07 log positions are dense, in the order of acceptance", async () => {
    const before = await headSeq();
    const feed = newFeed(server);
    await together(30, (n) => (n % 5 === 0 ? feed.subscribe({ subscriber_node_id: `s${n}` }) : feed.post(n)));
    const records = await behind(before);
    expect(records.map(({ $seq }: { $seq: number }) => $seq)).toEqual(
      Array.from({ length: 30 }, (_, i) => before + 1 + i),
    );
    const positions = new Map(
      records.map((record: { $seq: number; data: { event_id: string } }) => [
        record.data.event_id,
        record.$seq,
      ]),
    );
    const messages = await feed.list();
    expect(messages).toHaveLength(24);
    for (const { message_id, event_seq } of messages) expect(positions.get(message_id)).toBe(event_seq);
  });

  test("07 log holds nothing of what was refused", async () => {
    const before = await headSeq();
    await newFeed(server).send(null);
    await newFeed(server, "banana").send(1);
    await server.send("POST", paths.messages, "{");
    expect(await headSeq()).toBe(before);
  });
});

describe("reading", () => {
  test("07 log state: a position behind the last entry, its count and its bytes", async () => {
    await newFeed(server).post("x");
    const { body } = await log.state();
    expect(body).toMatchObject({ earliest_seq: 1, next_seq: body.head_seq + 1, count: body.head_seq });
    expect(body.bytes).toBeGreaterThan(body.count * 100);
    expect((await server.send("HEAD", log.path)).status).toBe(200);
  });

  test("07 log diff page by page", async () => {
    const feed = newFeed(server);
    const before = await headSeq();
    for (const n of [1, 2, 3]) await feed.post(n);
    const seen: unknown[] = [];
    let from = before;
    for (let pages = 0; pages < 3; pages++) {
      const { records, next_from_seq } = (await log.diff({ from_seq: from, limit: 1 })).body;
      seen.push(...records.map((record: { data: Event }) => contentOf(record.data)));
      from = next_from_seq;
    }
    expect(seen).toEqual([1, 2, 3]);
  });

  test("07 log a long poll ends with the next event", async () => {
    const before = await headSeq();
    const poll = log.diff({ from_seq: before, wait_ms: 20_000 });
    await newFeed(server).post("woken");
    const { records } = (await poll).body;
    expect(records.map(({ data }: { data: Event }) => contentOf(data))).toEqual(["woken"]);
  });

  test("07 log watch", async () => {
    const session = await newSession(server, { [NAME]: { tail: true } });
    await using stream = await session.open();
    expect((await stream.event()).event).toBe("caught-up");
    await newFeed(server).post("watched");
    const { event, body } = await stream.event();
    expect({ event, topic: body.topic }).toEqual({ event: "record", topic: NAME });
    expect(contentOf(body.records[0].data)).toBe("watched");
  });

  test("07 log stream", async () => {
    const before = await headSeq();
    await using stream = await EventStream.open(server.url, `${log.path}/stream?from_seq=${before}`);
    await newFeed(server).post("streamed");
    for (;;) {
      const { event, body } = await stream.event();
      if (event !== "record") continue;
      expect(body.records[0].$seq).toBe(before + 1);
      expect(contentOf(body.records[0].data)).toBe("streamed");
      break;
    }
  });

  test("07 log WebSocket subscribe", async () => {
    await using socket = await SocketClient.open(server.url);
    const subscribed = await socket.ask({ op: "subscribe", topic: NAME, tail: true, include_tags: true });
    expect(subscribed).toMatchObject({ op: "subscribed", topics: { [NAME]: { head_seq: await headSeq() } } });
    const feed = newFeed(server, "group:ws");
    await feed.post("heard");
    const { topic, records } = await socket.take("record");
    expect({ topic, $tag: records[0].$tag }).toEqual({ topic: NAME, $tag: `group:ws/${feed.key}` });
    expect(contentOf(records[0].data)).toBe("heard");
  });
});

interface Event {
  readonly payload: { readonly payload: { readonly local_content_cache: unknown } };
}

const contentOf = (event: Event) => event.payload.payload.local_content_cache;

describe("changes by clients", () => {
  const changes: [string, (at: Sender) => Promise<unknown>][] = [
    ["PUT", (at) => logOf(at).put({})],
    ["PUT of a queue", (at) => logOf(at).put({ type: "queue" })],
    ["PUT with its own config", (at) => logOf(at).put({ durability: "fsync" })],
    ["DELETE", (at) => logOf(at).drop()],
    ["DELETE if empty", (at) => logOf(at).drop("?if_empty=true")],
    ["an append", (at) => logOf(at).write({ records: [{ data: 1 }] })],
    ["an append that creates", (at) => logOf(at).write({ records: [{ data: 1 }], create: true, config: {} })],
    ["an append that does not create", (at) => logOf(at).write({ records: [{ data: 1 }], create: false })],
    ["deleting all records", (at) => logOf(at).erase({ match: "*" })],
    ["deleting records before a position", (at) => logOf(at).erase({ before_seq: 2 })],
    ["deleting records by tag", (at) => logOf(at).erase({ match: "subscriptions" })],
    ["a claim", (at) => at.send("POST", `${logOf(at).path}/claim`, { node: "n" })],
    ["an ack", (at) => at.send("POST", `${logOf(at).path}/ack`, { node: "n", seqs: [1] })],
    ["a nack", (at) => at.send("POST", `${logOf(at).path}/nack`, { node: "n", seqs: [1] })],
    [
      "an extension",
      (at) => at.send("POST", `${logOf(at).path}/extend`, { node: "n", seqs: [1], lease_ms: 1000 }),
    ],
    ["a work stream", (at) => at.send("GET", `${logOf(at).path}/work?node=n`)],
    ["a router from it", (at) => at.send("PUT", "/v0/routers/from", { source: NAME, dest: "copies" })],
    ["a router to it", (at) => at.send("PUT", "/v0/routers/to", { source: "plain", dest: NAME })],
    ["a dead_letter to it", (at) => at.send("PUT", "/v0/topics/jobs", { type: "queue", dead_letter: NAME })],
    [
      "a dead_letter to it by a creating write",
      (at) =>
        at.send("POST", "/v0/topics/jobs", {
          records: [{ data: 1 }],
          config: { type: "queue", dead_letter: NAME },
        }),
    ],
  ];

  test.each(changes)("07 log %s is 400, and nothing has changed", async (_, change) => {
    await using own = await startServer();
    await newTopic(own);
    await newFeed(own).post("kept");
    const before = (await logOf(own).state()).body;
    expect(await change(own)).toMatchObject(invalid);
    const { performance: _then, effective_priority: _p, ...expected } = before;
    expect((await logOf(own).state()).body).toMatchObject(expected);
    const { records } = (await logOf(own).diff()).body;
    expect(records.map(({ data }: { data: Event }) => contentOf(data))).toEqual(["kept"]);
    const listed = (await own.send("GET", "/v0/topics")).body.topics;
    expect(listed).toHaveLength(1);
    expect((await own.send("GET", "/v0/routers")).body.routers).toEqual([]);
  });

  test("07 log a WebSocket publish is invalid_request, and nothing has changed", async () => {
    await using own = await startServer();
    await newFeed(own).post("kept");
    await using socket = await SocketClient.open(own.url);
    const answer = await socket.ask({ op: "publish", topic: NAME, records: [{ data: 1 }] });
    expect(answer).toMatchObject({ op: "error", code: "invalid_request" });
    expect((await logOf(own).state()).body).toMatchObject({ head_seq: 1, count: 1 });
  });

  test("07 log a name like it is a name like any other illegal one", async () => {
    for (const name of ["_feed", "_Feeds", "_feeds2", "__feeds"]) {
      expect((await absentTopic(server, name).state()).status).toBe(404);
      expect(await absentTopic(server, name).put()).toMatchObject(invalid);
    }
    expect((await server.send("GET", "/v0/topics/%5Ffeeds")).status).toBe(200);
    expect(await server.send("DELETE", "/v0/topics/%5Ffeeds")).toMatchObject(invalid);
  });
});

describe("what counts topics", () => {
  /** A server with one topic of one record, and feeds with much more. */
  async function used(env: Record<string, string> = {}) {
    const own = await startServer(env);
    await absentTopic(own, "plain").append("x".repeat(98));
    const feed = newFeed(own);
    await subscribe(own, { feed_key: feed.key, scope_hint: feed.scope });
    for (let n = 0; n < 5; n++) await feed.post("y".repeat(1000));
    return own;
  }

  test("07 log lists do not show it", async () => {
    await using own = await used();
    const topics = async (query: string) =>
      (await own.send("GET", `/v0/topics${query}`)).body.topics.map(({ topic }: { topic: string }) => topic);
    expect(await topics("")).toEqual(["plain"]);
    expect(await topics("?page_size=1000")).toEqual(["plain"]);
    expect(await topics("?prefix=_")).toEqual([]);
    expect(await topics(`?prefix=${NAME}&touch=true`)).toEqual([]);
    const cursor = Buffer.from('{"after":"A"}').toString("base64url");
    expect(await topics(`?cursor=${cursor}`)).toEqual(["plain"]);
  });

  test("07 log readiness does not count it", async () => {
    await using own = await used();
    for (const path of ["/v0/ready", "/readyz"]) expect((await own.send("GET", path)).body.topics).toBe(1);
  });

  test("07 log metrics of topics do not count it", async () => {
    await using own = await used();
    const { text } = await own.send("GET", "/v0/metrics");
    const metrics = new Metrics(text);
    const figures = {
      topics: metrics.value("topics_topics"),
      fsync: metrics.value("topics_topics_by_class", { class: "fsync" }),
      disk: metrics.value("topics_topics_by_class", { class: "disk" }),
      records: metrics.value("topics_records_live"),
      bytes: metrics.value("topics_bytes_live"),
    };
    expect(figures).toEqual({ topics: 1, fsync: 0, disk: 1, records: 1, bytes: 100 });
    expect(text).not.toContain(`topic="${NAME}"`);
  });

  test("07 log JSON metrics do not count it", async () => {
    await using own = await used();
    const reply = await own.send("GET", "/v0/metrics", undefined, { accept: "application/json" });
    expect(reply.body).toMatchObject({
      topics: 1,
      topics_fsync: 0,
      topics_disk: 1,
      records_live: 1,
      bytes_live: 100,
    });
  });

  test("07 log TOPICS_MAX_TOPICS does not count it", async () => {
    await using own = await startServer({ TOPICS_MAX_TOPICS: "1" });
    await newFeed(own).post(1);
    expect((await own.send("PUT", "/v0/topics/one")).status).toBe(201);
    expect((await own.send("PUT", "/v0/topics/two")).status).toBe(429);
    expect((await newFeed(own).send(2)).status).toBe(200);
  });

  test("07 log TOPICS_MAX_TOTAL_BYTES does not count it, and does not stop it", async () => {
    await using own = await used({ TOPICS_MAX_TOTAL_BYTES: "300" });
    const plain = absentTopic(own, "plain");
    const write = (size: number) => plain.write({ records: [{ data: "x".repeat(size - 2) }] });
    expect((await write(200)).status).toBe(200);
    expect((await write(3)).status).toBe(429);
    expect((await newFeed(own).send("y".repeat(1000))).status).toBe(200);
  });
});
