/** The commands of the WebSocket: what each one answers, in which order, and what becomes of a wrong one. */
import { beforeAll, describe, expect, test } from "bun:test";
import { elements, members, payloads } from "../support/rawjson.ts";
import { startServer } from "../support/server.ts";
import { type Message, SocketClient } from "../support/socket.ts";
import {
  absentTopic,
  column,
  newTopic,
  seqs,
  sharedServer,
  type Topic,
  together,
  until,
} from "../support/topics.ts";

const server = sharedServer();
const open = () => SocketClient.open(server.url);

const records = (...values: unknown[]) => values.map((data) => ({ data }));
const publish = (topic: Topic, ...values: unknown[]) => ({
  op: "publish",
  topic: topic.name,
  records: records(...values),
});

/** The whole of an error; anything more or less in it fails. */
const error = (code: string, request_id: unknown = null) => ({
  op: "error",
  request_id,
  code,
  message: expect.stringMatching(/./),
});

/** For commands in raw text. Nothing is ever written to it. */
beforeAll(() => server.send("PUT", "/v0/topics/t"));

const head = async (topic: Topic) => (await topic.state()).body.head_seq;

/** A topic with records whose data is their seq. */
async function filled(n: number): Promise<Topic> {
  const topic = await newTopic(server);
  await topic.append(...Array.from({ length: n }, (_, i) => i + 1));
  return topic;
}

describe("subscribe", () => {
  test("05.50 without keys: says subscribed, then the records, then that it has caught up", async () => {
    await using socket = await open();
    const topic = await newTopic(server);
    await topic.write({
      node: "n1",
      records: [{ data: { n: 1 }, tag: "a", meta: { k: "v" } }, { data: null }],
    });
    const { epoch } = (await topic.state()).body;
    socket.say({ op: "subscribe", request_id: 7, topic: topic.name });
    const $ts = expect.any(Number);
    expect(await socket.bodies(3)).toStrictEqual([
      {
        op: "subscribed",
        request_id: 7,
        topics: { [topic.name]: { from_seq: 0, head_seq: 2, earliest_seq: 1, epoch } },
      },
      {
        op: "record",
        topic: topic.name,
        from_seq: 0,
        to_seq: 2,
        head_seq: 2,
        records: [
          { $seq: 1, $ts, $node: "n1", data: { n: 1 }, meta: { k: "v" } },
          { $seq: 2, $ts, $node: "n1", data: null },
        ],
      },
      { op: "caught_up", topic: topic.name, head_seq: 2 },
    ]);
    expect(epoch).toBeInteger();
  });

  test("05.50 goes on with what is written later", async () => {
    await using socket = await open();
    const topic = await newTopic(server);
    socket.say({ op: "subscribe", topic: topic.name });
    expect(await socket.bodies(2)).toMatchObject([
      { op: "subscribed", topics: { [topic.name]: { from_seq: 0, head_seq: 0, earliest_seq: 1 } } },
      { op: "caught_up", topic: topic.name, head_seq: 0 },
    ]);
    await topic.append("a", "b");
    expect(await socket.bodies(2)).toMatchObject([
      { op: "record", from_seq: 0, to_seq: 2, head_seq: 2, records: [{ data: "a" }, { data: "b" }] },
      { op: "caught_up", head_seq: 2 },
    ]);
  });

  test.each([
    ["from_seq", { from_seq: 1 }, 1, [2, 3]],
    ["tail", { tail: true }, 3, []],
    ["tail, which wins over from_seq", { tail: true, from_seq: 1 }, 3, []],
    ["tail:false and from_seq", { tail: false, from_seq: 2 }, 2, [3]],
  ])("05.50 begins where %s says, for topic and for topics", async (_, start, from_seq, expected) => {
    const topic = await filled(3);
    const commands = [{ topic: topic.name, ...start }, { topics: { [topic.name]: start } }];
    for (const command of commands) {
      await using socket = await open();
      const subscribed = await socket.ask({ op: "subscribe", ...command });
      expect(subscribed.topics[topic.name]).toMatchObject({ from_seq, head_seq: 3, earliest_seq: 1 });
      if (expected.length > 0) {
        const { records } = await socket.take("record");
        expect(records.map(({ data }: { data: number }) => data)).toEqual(expected);
      }
      expect(await socket.next()).toMatchObject({ body: { op: "caught_up", head_seq: 3 } });
      expect(await socket.arrived()).toEqual([]);
    }
  });

  test("05 section 4.2 takes topic and topics together, and the entry in topics wins", async () => {
    await using socket = await open();
    const [first, second] = [await filled(2), await filled(4)];
    const { topics } = await socket.ask({
      op: "subscribe",
      topic: first.name,
      from_seq: 0,
      topics: { [first.name]: { tail: true }, [second.name]: { from_seq: 3 } },
    });
    expect(topics).toMatchObject({ [first.name]: { from_seq: 2 }, [second.name]: { from_seq: 3 } });
    expect(Object.keys(topics)).toHaveLength(2);
    const { topics: both } = await socket.ask({
      op: "subscribe",
      topic: first.name,
      from_seq: 1,
      topics: { [second.name]: {} },
    });
    expect(both).toMatchObject({ [first.name]: { from_seq: 1 }, [second.name]: { from_seq: 0 } });
  });

  test.each(["9007199254740993", "18446744073709551615"])(
    "05 section 2.1 takes and repeats a from_seq of %s",
    async (from) => {
      await using socket = await open();
      const topic = await filled(2);
      socket.say(`{"op":"subscribe","topic":"${topic.name}","from_seq":${from}}`);
      const { text } = await socket.next();
      const entry = members(members(text).get("topics")!).get(topic.name)!;
      expect(members(entry).get("from_seq")).toBe(from);
      expect(await socket.next()).toMatchObject({ body: { op: "tombstone", reason: "recreated" } });
    },
  );

  test("05.56 one unknown topic refuses all", async () => {
    await using socket = await open();
    const [topic, absent] = [await filled(1), absentTopic(server)];
    const command = { op: "subscribe", request_id: "s", topics: { [topic.name]: {}, [absent.name]: {} } };
    expect(await socket.ask(command)).toStrictEqual(error("topic_not_found", "s"));
    await topic.append("unseen");
    expect(await socket.arrived()).toEqual([]);
    expect((await absent.state()).status).toBe(404);
  });

  test("05.56 a refusal leaves older subscriptions as they were", async () => {
    await using socket = await open();
    const [topic, absent] = [await newTopic(server), absentTopic(server)];
    await socket.ask({ op: "subscribe", topic: topic.name });
    await socket.take("caught_up");
    const command = { op: "subscribe", request_id: 1, topic: topic.name, topics: { [absent.name]: {} } };
    expect(await socket.ask(command)).toStrictEqual(error("topic_not_found", 1));
    await topic.append("a");
    expect(await socket.take("record")).toMatchObject({ from_seq: 0, to_seq: 1 });
  });

  test("05.56 lenient leaves unknown topics out", async () => {
    await using socket = await open();
    const [topic, absent] = [await filled(1), absentTopic(server)];
    const none = await socket.ask({ op: "subscribe", request_id: 1, lenient: true, topic: absent.name });
    expect(none).toStrictEqual({ op: "subscribed", request_id: 1, topics: {} });
    const topics = { [absent.name]: {}, [topic.name]: {}, "no name": {} };
    const one = await socket.ask({ op: "subscribe", lenient: true, topics });
    expect(Object.keys(one.topics)).toEqual([topic.name]);
    expect(await socket.take("record")).toMatchObject({ topic: topic.name });
    // Left out is left out: not followed later either.
    await absent.append("unseen");
    expect((await socket.arrived()).filter(({ topic }) => topic === absent.name)).toEqual([]);
  });

  test.each([
    ["a bad name", { topic: "no name" }, "topic_not_found"],
    ["a bad name in topics", { topics: { "": {} } }, "topic_not_found"],
    ["neither topic nor topics", {}, "invalid_request"],
    ["no topics", { topics: {} }, "invalid_request"],
  ])("05 section 4.4 %s is refused", async (_, command, code) => {
    await using socket = await open();
    expect(await socket.ask({ op: "subscribe", request_id: 5, ...command })).toStrictEqual(error(code, 5));
  });

  const absurd: [what: string, member: string][] = [
    ["a topic that is a number", '"topic":5'],
    ["topics as a text", '"topics":"t"'],
    ["options that are null", '"topics":{"t":null}'],
    ["options that are a number", '"topics":{"t":1}'],
    ["a negative from_seq", '"from_seq":-1'],
    ["a from_seq with a fraction", '"from_seq":1.5'],
    ["a from_seq of 1.0", '"from_seq":1.0'],
    ["a from_seq as text", '"from_seq":"1"'],
    ["a from_seq of null", '"from_seq":null'],
    ["a from_seq of 2^64", '"from_seq":18446744073709551616'],
    ["a from_seq in topics as text", '"topics":{"t":{"from_seq":"1"}}'],
    ["tail as text", '"tail":"true"'],
    ["tail of null", '"tail":null'],
    ["tail in topics as a number", '"topics":{"t":{"tail":1}}'],
    ["an epoch as text", '"epoch":"1"'],
    ["a negative epoch", '"epoch":-1'],
    ["an epoch in topics with a fraction", '"topics":{"t":{"epoch":1.5}}'],
    ["a node that is a number", '"node":1'],
    ["a node that is an object", '"node":{}'],
    ["nodes that are not all texts", '"node":["a",1]'],
    ["a negative limit", '"limit":-1'],
    ["a limit of 1.0", '"limit":1.0'],
    ["a limit as text", '"limit":"5"'],
    ["a limit of 2^32", '"limit":4294967296'],
    ["a negative max_batch_bytes", '"max_batch_bytes":-1'],
    ["max_batch_bytes as text", '"max_batch_bytes":"1"'],
    ["include_data of null", '"include_data":null'],
    ["include_tags as a number", '"include_tags":1'],
    ["include_meta as text", '"include_meta":"true"'],
    ["lenient as text", '"lenient":"true"'],
  ];
  test.each(absurd)("05.53 %s is invalid_json", async (_, member) => {
    await using socket = await open();
    const name = member.startsWith('"topic') ? "" : '"topic":"t",';
    socket.say(`{"op":"subscribe","request_id":1,${name}${member}}`);
    expect((await socket.next()).body).toStrictEqual(error("invalid_json"));
    expect(await socket.arrived()).toEqual([]);
  });

  test.each([
    ["limit", { limit: 4294967295 }],
    ["limit 0", { limit: 0 }],
    ["max_batch_bytes", { max_batch_bytes: Number.MAX_SAFE_INTEGER }],
    ["no node", { node: null }],
    ["no nodes", { node: [] }],
  ])("05 section 2.1 accepts %s", async (_, member) => {
    await using socket = await open();
    const topic = await newTopic(server);
    const subscribed = await socket.ask({ op: "subscribe", topic: topic.name, ...member });
    expect(subscribed.op).toBe("subscribed");
  });
});

describe("unsubscribe", () => {
  test("05.55 stops the delivery of the topics it names and of no others", async () => {
    await using socket = await open();
    const [first, second, third] = [await newTopic(server), await newTopic(server), await newTopic(server)];
    const topics = { [first.name]: {}, [second.name]: {}, [third.name]: {} };
    await socket.ask({ op: "subscribe", topics });
    for (const _ of [first, second, third]) await socket.take("caught_up");
    const answer = await socket.ask({
      op: "unsubscribe",
      request_id: "u",
      topic: first.name,
      topics: [second.name],
    });
    // Those in `topics` first.
    expect(answer).toStrictEqual({
      op: "unsubscribed",
      request_id: "u",
      topics: [second.name, first.name],
    });
    await first.append("unseen");
    await second.append("unseen");
    await third.append("seen");
    expect(await socket.bodies(2)).toMatchObject([
      { op: "record", topic: third.name, records: [{ data: "seen" }] },
      { op: "caught_up", topic: third.name },
    ]);
    expect(await socket.arrived()).toEqual([]);
  });

  test("05.55 lets no frame through behind its answer", async () => {
    await using socket = await open();
    const [topic, other] = [await filled(3000), await newTopic(server)];
    socket.say({ op: "subscribe", topic: topic.name, limit: 1 });
    await socket.take("record");
    socket.say({ op: "unsubscribe", topic: topic.name });
    socket.say({ op: "subscribe", topic: other.name });
    let body = (await socket.next()).body;
    while (body.op !== "unsubscribed") body = (await socket.next()).body;
    await topic.append("unseen");
    await other.append("seen");
    expect(await socket.take("record")).toMatchObject({ topic: other.name });
    expect((await socket.arrived()).filter(({ topic: name }) => name === topic.name)).toEqual([]);
  });

  test("05.55 of names that nobody knows succeeds", async () => {
    await using socket = await open();
    const absent = absentTopic(server);
    const topics = [absent.name, "no name", ""];
    const answer = await socket.ask({ op: "unsubscribe", request_id: 1, topics });
    expect(answer).toStrictEqual({ op: "unsubscribed", request_id: 1, topics });
    expect((await absent.state()).status).toBe(404);
  });

  test("05.55 can be taken back by a new subscribe, which begins where it says", async () => {
    await using socket = await open();
    const topic = await filled(2);
    await socket.ask({ op: "subscribe", topic: topic.name });
    await socket.take("caught_up");
    await socket.ask({ op: "unsubscribe", topic: topic.name });
    await topic.append(3);
    await socket.arrived();
    socket.say({ op: "subscribe", topic: topic.name, from_seq: 2 });
    expect(await socket.bodies(3)).toMatchObject([
      { op: "subscribed" },
      { op: "record", from_seq: 2, to_seq: 3, records: [{ data: 3 }] },
      { op: "caught_up", head_seq: 3 },
    ]);
  });

  test.each([
    ["no topic", {}, "invalid_request"],
    ["no topics", { topics: [] }, "invalid_request"],
    ["topics as an object", { topics: { t: {} } }, "invalid_json"],
    ["topics as a text", { topics: "t" }, "invalid_json"],
    ["topics that are not all texts", { topics: ["t", 1] }, "invalid_json"],
    ["a topic that is a number", { topic: 1 }, "invalid_json"],
  ])("05 section 4.4 naming %s is refused", async (_, command, code) => {
    await using socket = await open();
    socket.say({ op: "unsubscribe", request_id: 1, ...command });
    expect((await socket.next()).body).toStrictEqual(error(code, code === "invalid_json" ? null : 1));
  });
});

describe("publish", () => {
  const performance = expect.objectContaining({ server_total_ms: expect.any(Number) });

  test("05.51 is acknowledged with the seqs of its records", async () => {
    await using socket = await open();
    const topic = await filled(1);
    const { epoch } = (await topic.state()).body;
    expect(await socket.ask({ ...publish(topic, "a", "b"), request_id: "p" })).toStrictEqual({
      op: "ack",
      request_id: "p",
      topic: topic.name,
      first_seq: 2,
      last_seq: 3,
      seqs: [2, 3],
      head_seq: 3,
      count: 2,
      created: false,
      deduped: false,
      epoch,
      performance,
    });
    expect(column(await topic.diff(), "data")).toEqual([1, "a", "b"]);
  });

  test("05.51 return_seqs:false leaves null for the seqs", async () => {
    await using socket = await open();
    const topic = await newTopic(server);
    const ack = await socket.ask({ ...publish(topic, 1, 2), return_seqs: false });
    expect(ack).toMatchObject({ op: "ack", seqs: null, first_seq: 1, last_seq: 2, count: 2 });
    const whole = await socket.ask({ ...publish(topic, 3), return_seqs: true });
    expect(whole.seqs).toEqual([3]);
  });

  test("05.51 a repeated idempotency_key is deduplicated, whoever used it first", async () => {
    await using socket = await open();
    const topic = await newTopic(server);
    const command = { ...publish(topic, "a", "b"), idempotency_key: "k" };
    expect(await socket.ask(command)).toMatchObject({ deduped: false, seqs: [1, 2] });
    await topic.append("c");
    const again = { deduped: true, created: false, seqs: [1, 2], first_seq: 1, last_seq: 2, head_seq: 2 };
    expect(await socket.ask({ ...publish(topic, "other"), idempotency_key: "k" })).toMatchObject(again);
    const byHttp = await topic.write({ records: records("x"), idempotency_key: "k" });
    expect(byHttp.body).toMatchObject(again);
    await topic.write({ records: records("d"), idempotency_key: "http" });
    expect(await socket.ask({ ...command, idempotency_key: "http" })).toMatchObject({
      deduped: true,
      seqs: [4],
    });
    expect(column(await topic.diff(), "data")).toEqual(["a", "b", "c", "d"]);
  });

  test("05.51 a pipelined repetition is deduplicated, too", async () => {
    await using socket = await open();
    const topic = await newTopic(server, { durability: "fsync" });
    const command = { ...publish(topic, "a"), idempotency_key: "k" };
    socket.say(command);
    socket.say(command);
    expect(await socket.bodies(2)).toMatchObject([
      { deduped: false, seqs: [1] },
      { deduped: true, seqs: [1] },
    ]);
    expect(await head(topic)).toBe(1);
  });

  test("05.51 of many sockets with one key appends once", async () => {
    const topic = await newTopic(server);
    const acks = await together(12, async () => {
      await using socket = await open();
      return await socket.ask({ ...publish(topic, "a"), idempotency_key: "k" });
    });
    expect(acks.filter(({ deduped }) => !deduped)).toHaveLength(1);
    expect(acks.map(({ seqs }) => seqs)).toEqual(Array(12).fill([1]));
    expect(await head(topic)).toBe(1);
  });

  test("05 section 4.2 of 10000 records is one batch", async () => {
    await using socket = await open();
    const topic = await newTopic(server);
    const ack = await socket.ask(publish(topic, ...Array(10_000).fill(0)));
    expect(ack).toMatchObject({ op: "ack", count: 10_000, last_seq: 10_000 });
    expect(ack.seqs).toEqual(Array.from({ length: 10_000 }, (_, i) => i + 1));
  });

  test("05 section 4.2 has the effects of a write: readers wake, routers forward, queues have a job", async () => {
    await using socket = await open();
    const [source, queue] = [await newTopic(server), await newTopic(server, { type: "queue" })];
    const router = { source: source.name, dest: queue.name };
    expect((await server.send("PUT", `/v0/routers/r-${source.name}`, router)).status).toBe(201);
    const polled = source.diff({ wait_ms: 10_000 });
    await socket.ask(publish(source, "job"));
    expect(column(await polled, "data")).toEqual(["job"]);
    const claimed = await until(
      () => server.send("POST", `${queue.path}/claim`, { node: "w" }),
      ({ body }) => body.claimed.length > 0,
      1000,
    );
    expect(claimed.body.claimed).toMatchObject([{ data: "job" }]);
    expect((await source.state()).body.last_write_ts).toBeNumber();
  });

  test("05 section 4.2 creates the topic, with its config", async () => {
    await using socket = await open();
    const [plain, capped] = [absentTopic(server), absentTopic(server)];
    expect(await socket.ask(publish(plain, 1))).toMatchObject({ op: "ack", created: true, seqs: [1] });
    expect(await socket.ask(publish(plain, 2))).toMatchObject({ op: "ack", created: false });
    const config = { cap_records: 2, type: "log" };
    expect(await socket.ask({ ...publish(capped, 1, 2, 3), config })).toMatchObject({ created: true });
    expect((await capped.state()).body).toMatchObject({ count: 2, config: { cap_records: 2 } });
    expect((await plain.state()).body).toMatchObject({ count: 2, config: { cap_records: 0 } });
  });

  test("05 section 4.2 takes node, tag and meta as a write does", async () => {
    await using socket = await open();
    const topic = await newTopic(server);
    await socket.ask({
      op: "publish",
      topic: topic.name,
      node: "n1",
      records: [
        { data: 1, tag: "t", meta: { k: "v" } },
        { data: 2, node: "n2" },
      ],
    });
    expect((await topic.diff({ include_tags: true })).body.records).toMatchObject([
      { $seq: 1, $node: "n1", $tag: "t", data: 1, meta: { k: "v" } },
      { $seq: 2, $node: "n2", data: 2 },
    ]);
  });

  test("05 section 4.3 an ack of the fsync class comes after the sync", async () => {
    await using socket = await open();
    const topic = await newTopic(server, { durability: "fsync" });
    const ack = await socket.ask(publish(topic, 1));
    expect(ack.performance.fsync_ms).toBeGreaterThan(0);
  });

  const refusals: [what: string, command: object, code: string][] = [
    ["no records", { records: [] }, "invalid_request"],
    ["a tag of 257 bytes", { records: [{ data: 1, tag: "t".repeat(257) }] }, "invalid_request"],
    ["a node of 129 bytes", { node: "n".repeat(129) }, "invalid_request"],
    ["meta of 65 keys", { records: [{ data: 1, meta: keys(65) }] }, "invalid_request"],
    ["a key of 257 bytes", { idempotency_key: "k".repeat(257) }, "invalid_request"],
    ["10001 records", { records: Array(10001).fill({ data: 1 }) }, "batch_too_large"],
    ["a record of 1 MiB and a byte", { records: records("x".repeat(1048575)) }, "record_too_large"],
  ];
  function keys(n: number) {
    return Object.fromEntries(Array.from({ length: n }, (_, i) => [`k${i}`, i]));
  }
  test.each(refusals)("05 section 4.4 %s is refused as over HTTP", async (_, command, code) => {
    await using socket = await open();
    const topic = await newTopic(server);
    const whole = { ...publish(topic, 1), request_id: { n: 1 }, ...command };
    expect(await socket.ask(whole)).toStrictEqual(error(code, { n: 1 }));
    expect(await head(topic)).toBe(0);
  });

  test("05 section 4.4 one bad record refuses the batch", async () => {
    await using socket = await open();
    const topic = await newTopic(server);
    const command = { op: "publish", topic: topic.name, request_id: 1 };
    const bad = [{ data: 1 }, { data: 2, tag: "t".repeat(257) }];
    expect(await socket.ask({ ...command, records: bad })).toStrictEqual(error("invalid_request", 1));
    expect(await head(topic)).toBe(0);
    expect(await socket.ask(publish(topic, 1))).toMatchObject({ seqs: [1] });
  });

  test("05 section 4.4 a bad name, an absent topic and a full one are refused", async () => {
    await using socket = await open();
    const [absent, full] = [
      absentTopic(server),
      await newTopic(server, { cap_records: 1, discard: "reject" }),
    ];
    const ask = (topic: Topic, rest: object = {}) =>
      socket.ask({ ...publish(topic, 1), request_id: 1, ...rest });
    expect(await ask(absentTopic(server, "no name"))).toStrictEqual(error("invalid_request", 1));
    expect(await ask(absent, { create: false })).toStrictEqual(error("topic_not_found", 1));
    expect(await ask(absent, { config: { auto_create: false } })).toStrictEqual(error("topic_not_found", 1));
    expect((await absent.state()).status).toBe(404);
    expect(await ask(full)).toMatchObject({ op: "ack" });
    expect(await ask(full)).toStrictEqual(error("topic_full", 1));
    expect(await ask(full, { create: false, request_id: 2 })).toStrictEqual(error("topic_full", 2));
  });

  test("05 section 4.4 what passes the quota is throttled, and passes once there is room", async () => {
    await using small = await startServer({ TOPICS_MAX_TOTAL_BYTES: "10" });
    await using socket = await SocketClient.open(small.url);
    const topic = await newTopic(small);
    const command = { op: "publish", topic: topic.name, request_id: 1, disable_backpressure: true };
    expect(await socket.ask({ ...command, records: records("12345678") })).toMatchObject({ op: "ack" });
    expect(await socket.ask({ ...command, records: records(1) })).toStrictEqual(error("throttled", 1));
    await topic.erase({ before_seq: 2 });
    expect(await socket.ask({ ...command, records: records(1) })).toMatchObject({ op: "ack", seqs: [2] });
  });

  test.each([
    ["no topic", '"records":[{"data":1}]'],
    ["no records", '"topic":"t"'],
    ["a topic of null", '"topic":null,"records":[{"data":1}]'],
    ["records of null", '"topic":"t","records":null'],
    ["records as an object", '"topic":"t","records":{"data":1}'],
    ["a record that is a number", '"topic":"t","records":[1]'],
    ["a record of null", '"topic":"t","records":[null]'],
    ["a record without data", '"topic":"t","records":[{"data":1},{"tag":"t"}]'],
    ["a tag that is a number", '"topic":"t","records":[{"data":1,"tag":1}]'],
    ["a node that is an array", '"topic":"t","records":[{"data":1}],"node":["a"]'],
    ["a key that is a number", '"topic":"t","records":[{"data":1}],"idempotency_key":1'],
    ["create as text", '"topic":"t","records":[{"data":1}],"create":"true"'],
    ["a config that is a text", '"topic":"t","records":[{"data":1}],"config":"log"'],
    ["a negative cap", '"topic":"t","records":[{"data":1}],"config":{"cap_records":-1}'],
    ["return_seqs as a number", '"topic":"t","records":[{"data":1}],"return_seqs":1'],
    ["return_seqs of null", '"topic":"t","records":[{"data":1}],"return_seqs":null'],
    ["disable_backpressure as text", '"topic":"t","records":[{"data":1}],"disable_backpressure":"yes"'],
    ["data beyond every double", '"topic":"t","records":[{"data":1e400}]'],
    ["half a surrogate pair in data", String.raw`"topic":"t","records":[{"data":"\ud800"}]`],
    ["data twice", '"topic":"t","records":[{"data":1,"data":2}]'],
  ])("05.53 with %s is invalid_json", async (_, fields) => {
    await using socket = await open();
    socket.say(`{"op":"publish","request_id":1,${fields}}`);
    expect((await socket.next()).body).toStrictEqual(error("invalid_json"));
    expect(await socket.arrived()).toEqual([]);
    expect(await head(absentTopic(server, "t"))).toBe(0);
  });
});

describe("payload", () => {
  const texts = [
    '{ "b" : 1 , "a" : [1, 2] }',
    '{"a":1,"a":2}',
    "1.0",
    "-0",
    "1e3",
    "9007199254740993",
    "18446744073709551615",
    "123456789012345678901234567890.125",
    '"\\u00e9\\/\\u0000"',
    '"é😀\u2028"',
    "[1,\n\t2]",
    "[1,\r\n2]",
    '{"__proto__":{"x":1},"constructor":2}',
    `${"[".repeat(120)}${"]".repeat(120)}`,
    "null",
    '""',
  ];
  const metas = texts.map((text) => `{ "m":${text}}`).with(13, '{"deep":0}');

  test("05.51 P1 comes back byte for byte, on the socket and over HTTP, data and meta", async () => {
    await using socket = await open();
    await using reader = await open();
    const topic = await newTopic(server);
    await reader.ask({ op: "subscribe", topic: topic.name });
    await reader.take("caught_up");
    const list = texts.map((text, i) => `{"data": ${text} ,"meta":${metas[i]}}`).join(",\n");
    socket.say(`{"topic":"${topic.name}","records":[${list}],"op":"publish"}`);
    expect((await socket.next()).body).toMatchObject({ op: "ack", count: texts.length });
    const pushed = elements(members((await reader.next()).text).get("records")!).map(members);
    expect(pushed.map((record) => record.get("data"))).toEqual(texts);
    expect(pushed.map((record) => record.get("meta"))).toEqual(metas);
    const reply = await topic.diff();
    expect(payloads(reply, "data")).toEqual(texts);
    expect(payloads(reply, "meta")).toEqual(metas);
  });

  test("05.51 P6 counts the text as it was sent", async () => {
    await using socket = await open();
    const topic = await newTopic(server);
    socket.say(`{"op":"publish","topic":"${topic.name}","records":[{"data":[1,  2],"meta":{ "k":1}}]}`);
    await socket.take("ack");
    expect((await topic.state()).body.bytes).toBe("[1,  2]".length + '{ "k":1}'.length);
  });
});

describe("request_id", () => {
  test.each([
    ['{"a":[1,{"b":null}]}'],
    ['["x"]'],
    ['"text"'],
    ['""'],
    ["5"],
    ["-1.5"],
    ["false"],
    ["null"],
    ["18446744073709551615"],
  ])("05.52 %s is given back", async (id) => {
    await using socket = await open();
    const topic = await newTopic(server);
    const commands = [
      '"op":"ping"',
      `"op":"subscribe","topic":"${topic.name}","tail":true`,
      `"op":"unsubscribe","topic":"${topic.name}"`,
      `"op":"publish","topic":"${topic.name}","records":[{"data":1}]`,
      `"op":"publish","topic":"${topic.name}","records":[]`,
    ];
    const ops = ["pong", "subscribed", "unsubscribed", "ack", "error"];
    for (const [i, command] of commands.entries()) {
      socket.say(`{"request_id":${id},${command}}`);
      let found = await socket.next();
      while (found.body.op === "caught_up") found = await socket.next();
      expect([found.body.op, members(found.text).get("request_id")]).toEqual([ops[i], id]);
    }
  });

  test("05.52 absent is null", async () => {
    await using socket = await open();
    const topic = await newTopic(server);
    socket.say({ op: "ping" });
    expect((await socket.next()).body).toStrictEqual({ op: "pong", request_id: null });
    socket.say(publish(topic));
    expect((await socket.next()).body).toStrictEqual(error("invalid_request"));
    socket.say(publish(topic, 1));
    expect((await socket.next()).body).toMatchObject({ op: "ack", request_id: null });
    socket.say({ op: "unsubscribe", topic: topic.name });
    expect((await socket.next()).body).toStrictEqual({
      op: "unsubscribed",
      request_id: null,
      topics: [topic.name],
    });
    socket.say({ op: "subscribe", topic: topic.name });
    expect((await socket.next()).body).toMatchObject({ op: "subscribed", request_id: null });
  });
});

describe("a command", () => {
  test.each([
    ["no JSON", "not json"],
    ["an empty text", ""],
    ["only a space", " "],
    ["a number", "5"],
    ["a text", '"ping"'],
    ["null", "null"],
    ["an empty array", "[]"],
    ["no op", '{"request_id":1}'],
    ["an op of null", '{"op":null,"request_id":1}'],
    ["an op that is a number", '{"op":1,"request_id":1}'],
    ["an op in capitals", '{"op":"PING","request_id":1}'],
    ["an unknown op", '{"op":"list","request_id":1}'],
    ["op twice", '{"op":"ping","op":"ping","request_id":1}'],
    ["request_id twice", '{"op":"ping","request_id":1,"request_id":2}'],
    ["trailing text", '{"op":"ping","request_id":1}x'],
    ["two commands", '{"op":"ping"}{"op":"ping"}'],
    ["a byte order mark", '\ufeff{"op":"ping","request_id":1}'],
    ["half a surrogate pair", String.raw`{"op":"ping","request_id":"\udc00"}`],
    ["a raw control character", '{"op":"ping","request_id":"\u0001"}'],
    ["a number beyond every double", '{"op":"ping","request_id":1e999}'],
    ["nesting without end", `{"op":"ping","request_id":${"[".repeat(5000)}${"]".repeat(5000)}}`],
  ])("05.53 that is %s is invalid_json, and the socket goes on", async (_, text) => {
    await using socket = await open();
    socket.say(text);
    expect((await socket.next()).body).toStrictEqual(error("invalid_json"));
    expect(await socket.ask({ op: "ping" })).toMatchObject({ op: "pong" });
  });

  test("05.53 that is wrong harms no subscription", async () => {
    await using socket = await open();
    const topic = await newTopic(server);
    await socket.ask({ op: "subscribe", topic: topic.name });
    await socket.take("caught_up");
    for (const text of ["{", '{"op":"nothing"}', `{"op":"subscribe","topic":"${topic.name}","limit":-1}`]) {
      socket.say(text);
      await socket.take("error");
    }
    await topic.append("a");
    expect(await socket.bodies(2)).toMatchObject([{ op: "record", from_seq: 0 }, { op: "caught_up" }]);
  });

  test("05.54 in binary is unsupported, and the socket goes on", async () => {
    await using socket = await open();
    for (const bytes of [new TextEncoder().encode('{"op":"ping","request_id":1}'), new Uint8Array(0)]) {
      socket.sayBytes(bytes);
      const { body } = await socket.next();
      expect(body).toStrictEqual({
        op: "error",
        code: "unsupported_message",
        message: expect.stringMatching(/./),
      });
    }
    expect(await socket.arrived()).toEqual([]);
  });

  test("05 section 4.2 may have members that nobody knows", async () => {
    await using socket = await open();
    const topic = await newTopic(server);
    const more = { Op: 1, cursor: [1], a: { b: null } };
    expect((await socket.ask({ op: "ping", topic: 5, ...more })).op).toBe("pong");
    expect((await socket.ask({ ...publish(topic, 1), from_seq: "x", ...more })).op).toBe("ack");
    const odd = { [topic.name]: { from_seq: 1, tags: 1 } };
    expect((await socket.ask({ op: "subscribe", topics: odd, records: 1, ...more })).op).toBe("subscribed");
  });
});

describe("commands", () => {
  test("05 section 4.2 that are pipelined are executed and answered in their order", async () => {
    await using socket = await open();
    const [disk, synced] = [await newTopic(server), await newTopic(server, { durability: "fsync" })];
    const expected: unknown[][] = [];
    for (let i = 0; i < 300; i++) {
      const topic = i % 3 === 0 ? synced : disk;
      if (i % 7 === 5) {
        socket.say({ op: "ping", request_id: i });
        expected.push([i, "pong", undefined]);
      } else {
        socket.say({ ...publish(topic, i), request_id: i });
        expected.push([i, "ack", topic.name]);
      }
    }
    const answers = await socket.bodies(300, 10_000);
    expect(answers.map(({ request_id, op, topic }) => [request_id, op, topic])).toEqual(expected);
    for (const topic of [disk, synced]) {
      const acks = answers.filter(({ topic: name }) => name === topic.name);
      expect(acks.map(({ seqs }) => seqs)).toEqual(acks.map((_, i) => [i + 1]));
      const diff = await topic.diff({ limit: 1000 });
      expect(column(diff, "data")).toEqual(acks.map(({ request_id }) => request_id));
    }
  });

  test("05 section 4.2 may be thousands at a time, from a client that reads", async () => {
    await using socket = await open();
    const topic = await newTopic(server);
    const n = 9000;
    for (let i = 0; i < n; i++) socket.say({ ...publish(topic, i), request_id: i });
    const acks = await socket.bodies(n, 20_000);
    expect(acks.every(({ op, request_id }, i) => op === "ack" && request_id === i)).toBe(true);
    expect(acks.every(({ first_seq }, i) => first_seq === i + 1)).toBe(true);
    expect(await head(topic)).toBe(n);
  }, 20_000);

  test("05 section 4.2 each sees what those before it did", async () => {
    await using socket = await open();
    const topic = absentTopic(server);
    const name = topic.name;
    const commands = [
      { op: "subscribe", topic: name },
      { ...publish(topic, "a", "b"), config: { durability: "fsync" } },
      { op: "subscribe", topic: name, tail: true },
      publish(topic, "c"),
      { op: "unsubscribe", topic: name },
      publish(topic, "d"),
      { op: "subscribe", topic: name, from_seq: 3 },
    ];
    for (const [request_id, command] of commands.entries()) socket.say({ request_id, ...command });
    const all: Message["body"][] = [];
    while (all.at(-1)?.op !== "record" || all.at(-1)?.to_seq !== 4) all.push((await socket.next()).body);
    const answers = all.filter((body) => "request_id" in body);
    expect(answers).toMatchObject([
      { request_id: 0, op: "error", code: "topic_not_found" },
      { request_id: 1, op: "ack", created: true, seqs: [1, 2] },
      { request_id: 2, op: "subscribed", topics: { [name]: { from_seq: 2, head_seq: 2 } } },
      { request_id: 3, op: "ack", seqs: [3] },
      { request_id: 4, op: "unsubscribed" },
      { request_id: 5, op: "ack", seqs: [4] },
      { request_id: 6, op: "subscribed", topics: { [name]: { from_seq: 3, head_seq: 4 } } },
    ]);
    const at = (id: number) => all.findIndex(({ request_id }) => request_id === id);
    const between = (from: number, to: number) => all.slice(at(from) + 1, at(to));
    const isRecord = ({ op }: { op: string }) => op === "record";
    // The third record was published while subscribed; by the unsubscribe it may have been sent or not.
    for (const { records } of between(2, 4).filter(isRecord)) expect(records).toMatchObject([{ $seq: 3 }]);
    expect(between(4, 6).filter(isRecord)).toEqual([]);
    expect(all.slice(at(6)).filter(isRecord)).toMatchObject([{ from_seq: 3, records: [{ $seq: 4 }] }]);
  });

  test("05 section 4.2 a refused one does not stop those behind it", async () => {
    await using socket = await open();
    const topic = await newTopic(server);
    socket.say({ ...publish(topic, 1), request_id: 1 });
    socket.say({ ...publish(topic), request_id: 2 });
    socket.say("{");
    socket.say({ ...publish(topic, 2), request_id: 3 });
    expect(await socket.bodies(4)).toMatchObject([
      { op: "ack", request_id: 1, seqs: [1] },
      { op: "error", request_id: 2, code: "invalid_request" },
      { op: "error", request_id: null, code: "invalid_json" },
      { op: "ack", request_id: 3, seqs: [2] },
    ]);
  });

  test("05 section 4.2 of several sockets all take effect once", async () => {
    const topic = await newTopic(server);
    const acks = await together(4, async (n) => {
      await using socket = await open();
      for (let i = 0; i < 100; i++) socket.say({ ...publish(topic, `${n}.${i}`), request_id: i });
      return (await socket.bodies(100)).map((ack) => ({ ack, data: `${n}.${ack.request_id}` }));
    });
    for (const answers of acks) {
      expect(answers.map(({ ack }) => ack.request_id)).toEqual(answers.map((_, i) => i));
    }
    const written = acks.flat().sort((a, b) => a.ack.first_seq - b.ack.first_seq);
    const diff = await topic.diff({ limit: 1000 });
    expect(seqs(diff)).toEqual(written.map(({ ack }) => ack.first_seq));
    expect(column(diff, "data")).toEqual(written.map(({ data }) => data));
  });

  test("05 section 4.3 published by one socket arrive at another and at itself", async () => {
    await using writer = await open();
    await using reader = await open();
    const topic = await newTopic(server);
    for (const socket of [writer, reader]) {
      await socket.ask({ op: "subscribe", topic: topic.name });
      await socket.take("caught_up");
    }
    await writer.ask(publish(topic, "a"));
    for (const socket of [writer, reader]) {
      expect(await socket.take("record")).toMatchObject({ records: [{ $seq: 1, data: "a" }] });
    }
  });
});
