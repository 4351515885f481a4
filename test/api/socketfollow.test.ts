/** What a subscription delivers: frames, filters, gaps, the end of a topic, and the order among topics. */
import { describe, expect, test } from "bun:test";
import { makeQueue, range } from "../support/queue.ts";
import { type Message, SocketClient } from "../support/socket.ts";
import { absentTopic, newTopic, sharedServer, type Topic, together, until } from "../support/topics.ts";

type Body = Message["body"];

const server = sharedServer();
const open = () => SocketClient.open(server.url);

const seqsOf = ({ records }: Body): number[] => records.map(({ $seq }: { $seq: number }) => $seq);
const numbered = (n: number, from = 1) => range(from, from + n - 1);
const ofNode = (node: string, ...values: unknown[]) => ({ node, records: values.map((data) => ({ data })) });

/** Subscribes and takes everything up to the head: all but `subscribed`. */
async function followed(socket: SocketClient, topic: Topic, options: object = {}): Promise<Body[]> {
  await socket.ask({ op: "subscribe", topic: topic.name, ...options });
  return untilCaughtUp(socket);
}

async function untilCaughtUp(socket: SocketClient): Promise<Body[]> {
  const bodies: Body[] = [];
  while (bodies.at(-1)?.op !== "caught_up") bodies.push((await socket.next()).body);
  return bodies;
}

/** Takes record frames until one reaches the seq. */
async function untilSeq(socket: SocketClient, topic: Topic, seq: number): Promise<Body[]> {
  const frames: Body[] = [];
  while (!(frames.at(-1)?.to_seq >= seq)) {
    const { body } = await socket.next(10_000);
    if (body.op === "record" && body.topic === topic.name) frames.push(body);
  }
  return frames;
}

const opsOf = (bodies: Body[]) => bodies.map(({ op }) => op);

const dropped = (topic: Topic) => ({
  op: "topic_deleted",
  topic: topic.name,
  head_seq: 0,
  reason: "deleted",
});

describe("a frame", () => {
  test.each([
    [{}, [1000, 500]],
    [{ limit: 0 }, [...Array(5).fill(256), 220]],
    [{ limit: 700 }, [700, 700, 100]],
    [{ limit: 1000 }, [1000, 500]],
    [{ limit: 5000 }, [1000, 500]],
  ])("05.22 section 4.2 of a subscription with %j has at most so many records", async (options, sizes) => {
    await using socket = await open();
    const topic = await newTopic(server);
    await topic.append(...numbered(1500));
    const bodies = await followed(socket, topic, options);
    const frames = bodies.slice(0, -1);
    expect(frames.map(({ records }) => records.length)).toEqual(sizes);
    expect(frames.flatMap(seqsOf)).toEqual(numbered(1500));
    let from = 0;
    for (const { from_seq, to_seq, head_seq, records } of frames) {
      expect({ from_seq, to_seq, head_seq }).toEqual({
        from_seq: from,
        to_seq: from + records.length,
        head_seq: 1500,
      });
      from = to_seq;
    }
    expect(bodies.at(-1)).toEqual({ op: "caught_up", topic: topic.name, head_seq: 1500 });
  });

  test("05.22 with limit 1 has one record", async () => {
    await using socket = await open();
    const topic = await newTopic(server);
    await topic.append(...numbered(50));
    const bodies = await followed(socket, topic, { limit: 1 });
    expect(opsOf(bodies)).toEqual([...Array(50).fill("record"), "caught_up"]);
    expect(bodies.slice(0, -1).map(seqsOf)).toEqual(numbered(50).map((seq) => [seq]));
  });

  test.each([
    [1, [1, 1, 1, 1, 1]],
    [2500, [2, 2, 1]],
    [3006, [3, 2]],
    [3005, [2, 2, 1]],
    [0, [5]],
  ])("05.23 of max_batch_bytes %d ends before the record that would pass it", async (bytes, sizes) => {
    await using socket = await open();
    const topic = await newTopic(server);
    // 1002 bytes with the quotes; the tag counts nothing.
    const records = Array.from({ length: 5 }, () => ({ data: "x".repeat(1000), tag: "t".repeat(200) }));
    await topic.write({ records });
    const bodies = await followed(socket, topic, { max_batch_bytes: bytes });
    expect(bodies.slice(0, -1).map(({ records }) => records.length)).toEqual(sizes);
  });

  test.each([
    [{}, [4, 4, 1]],
    [{ max_batch_bytes: 0 }, [4, 4, 1]],
    [{ max_batch_bytes: 2 ** 40, limit: 1000 }, [9]],
  ])("05.23 section 4.2 has 1 MiB of payload unless %j says otherwise", async (options, sizes) => {
    await using socket = await open();
    const topic = await newTopic(server);
    await topic.append(...Array(9).fill("x".repeat(262_142)));
    const bodies = await followed(socket, topic, options);
    expect(bodies.slice(0, -1).map(({ records }) => records.length)).toEqual(sizes);
  });

  test("05 section 2.1 has 8 MiB of payload at most", async () => {
    await using socket = await open();
    const topic = await newTopic(server);
    await topic.append(...Array(9).fill("x".repeat(1_048_574)));
    const bodies = await followed(socket, topic, { max_batch_bytes: 9_000_000 });
    expect(bodies.slice(0, -1).map(({ records }) => records.length)).toEqual([8, 1]);
  });

  test.each([
    [{}, ["data", "meta"]],
    [{ include_tags: true }, ["$tag", "data", "meta"]],
    [{ include_meta: false }, ["data"]],
    [{ include_data: false }, ["meta"]],
    [{ include_data: false, include_meta: false, include_tags: true }, ["$tag"]],
  ])("05.21 with %j has these members in its records", async (options, present) => {
    await using socket = await open();
    const topic = await newTopic(server);
    const whole = { data: { a: 1 }, tag: "t", meta: { k: "v" }, node: "n" };
    await topic.write({ records: [whole] });
    const [backlog] = await followed(socket, topic, options);
    await topic.write({ records: [whole, { data: null }] });
    const live = await socket.take("record");
    const members = ["$seq", "$ts", "$node", ...present].sort();
    expect(Object.keys(backlog.records[0]).sort()).toEqual(members);
    expect(Object.keys(live.records[0]).sort()).toEqual(members);
    const always = ["$seq", "$ts", ...present.filter((name) => name === "data")].sort();
    expect(Object.keys(live.records[1]).sort()).toEqual(always);
  });

  test("05.21 options hold for each subscribe by itself", async () => {
    await using socket = await open();
    const [tagged, plain] = [await newTopic(server), await newTopic(server)];
    await socket.ask({ op: "subscribe", topic: tagged.name, include_tags: true, include_data: false });
    await socket.ask({ op: "subscribe", topic: plain.name });
    for (const topic of [tagged, plain]) await topic.write({ records: [{ data: 1, tag: "t" }] });
    const frames = [await socket.take("record"), await socket.take("record")];
    const of = (topic: Topic) => frames.find((frame) => frame.topic === topic.name).records[0];
    expect([of(tagged).$tag, of(tagged).data]).toEqual(["t", undefined]);
    expect([of(plain).$tag, of(plain).data]).toEqual([undefined, 1]);
  });

  test("05.21 each socket has its own view of the same records, live and from the store", async () => {
    const topic = await newTopic(server);
    await topic.append("first");
    const views = [
      {},
      { include_tags: true },
      { include_meta: false },
      { include_data: false },
      { node: "n", limit: 1 },
      { include_tags: true, max_batch_bytes: 1 },
    ];
    const sockets = await together(views.length, open);
    for (const [i, socket] of sockets.entries()) await followed(socket, topic, views[i]);
    const record = { data: 1, tag: "t", meta: { k: 1 } };
    await topic.write({ records: [{ ...record, node: "n" }, record, record] });
    const live = await together(views.length, (i) => untilCaughtUp(sockets[i]!));
    const stored = await together(views.length, (i) =>
      followed(sockets[i]!, topic, { ...views[i], from_seq: 1 }),
    );
    const number = expect.any(Number);
    const values: Record<string, unknown> = { $seq: number, $ts: number, $tag: "t", data: 1, meta: { k: 1 } };
    const shown = (...names: string[]) =>
      Object.fromEntries(["$seq", "$ts", ...names].map((name) => [name, values[name]]));
    // The last record of each view, and how many records its frames have.
    const expected = [
      { last: shown("data", "meta"), sizes: [3] },
      { last: shown("$tag", "data", "meta"), sizes: [3] },
      { last: shown("data"), sizes: [3] },
      { last: shown("meta"), sizes: [3] },
      { last: shown("data", "meta"), sizes: [1, 1] },
      { last: shown("$tag", "data", "meta"), sizes: [1, 1, 1] },
    ];
    for (const bodies of [live, stored]) {
      const found = bodies.map((frames) => frames.slice(0, -1).map(({ records }) => records));
      expect(
        found.map((frames) => ({
          last: frames.at(-1).at(-1),
          sizes: frames.map(({ length }) => length),
        })),
      ).toStrictEqual(expected);
    }
    for (const socket of sockets) await socket.close();
  });

  test("05 section 4.3 brings the text of a payload with its line breaks", async () => {
    await using socket = await open();
    const topic = await newTopic(server);
    await followed(socket, topic);
    await topic.write('{"records":[{"data":{\n"a": 1.0\r\n}}]}');
    expect((await socket.next()).text).toContain('{\n"a": 1.0\r\n}');
  });
});

describe("caught_up", () => {
  test("05.20 comes once at the start and once behind each batch", async () => {
    await using socket = await open();
    const topic = await newTopic(server);
    await topic.append("a");
    expect(opsOf(await followed(socket, topic))).toEqual(["record", "caught_up"]);
    for (const head_seq of [3, 5, 7]) {
      await topic.append("b", "c");
      expect(await socket.bodies(2)).toMatchObject([
        { op: "record", from_seq: head_seq - 2, to_seq: head_seq, head_seq },
        { op: "caught_up", head_seq },
      ]);
    }
    expect(await socket.arrived()).toEqual([]);
  });

  test("05.28 alone comes where the filter leaves nothing", async () => {
    await using socket = await open();
    const topic = await newTopic(server);
    await topic.write(ofNode("me", 1, 2, 3));
    const bodies = await followed(socket, topic, { node: "me" });
    expect(bodies).toEqual([{ op: "caught_up", topic: topic.name, head_seq: 3 }]);
  });

  test("05 section 3.3 does not come again for what is filtered, deleted or configured", async () => {
    await using socket = await open();
    const topic = await newTopic(server);
    await topic.append(1, 2, 3);
    await followed(socket, topic, { node: "me" });
    await topic.write(ofNode("me", "own"));
    await topic.erase({ before_seq: 2 });
    await topic.put({ ttl_ms: 600_000 });
    await topic.append("foreign");
    expect(await socket.bodies(2)).toMatchObject([
      { op: "record", to_seq: 5, records: [{ data: "foreign" }] },
      { op: "caught_up", head_seq: 5 },
    ]);
    expect(await socket.arrived()).toEqual([]);
  });
});

describe("node", () => {
  test.each([
    ["a text", "me", [2, 3, 4]],
    ["an array", ["me", "n3"], [2, 4]],
    ["an empty array", [], [1, 2, 3, 4]],
    ["null", null, [1, 2, 3, 4]],
    ["another case", "ME", [1, 2, 3, 4]],
    ["the empty text", "", [1, 2, 3, 4]],
  ])("05.28 as %s leaves out the records of these nodes", async (_, node, expected) => {
    await using socket = await open();
    const topic = await newTopic(server);
    const nodes = ["me", "n2", "n3", undefined];
    await topic.write({ records: nodes.map((node, i) => ({ data: i, node })) });
    const [frame] = await followed(socket, topic, { node });
    expect(seqsOf(frame)).toEqual(expected);
    expect(frame).toMatchObject({ from_seq: 0, to_seq: 4, head_seq: 4 });
  });

  test("05.28 to_seq passes what is filtered behind the last record", async () => {
    await using socket = await open();
    const topic = await newTopic(server);
    await topic.write(ofNode("n2", 1));
    await topic.write(ofNode("me", 2, 3));
    const bodies = await followed(socket, topic, { node: "me" });
    expect(bodies).toMatchObject([
      { op: "record", from_seq: 0, to_seq: 3, head_seq: 3, records: [{ $seq: 1 }] },
      { op: "caught_up", head_seq: 3 },
    ]);
  });

  test("05.29 does nothing where dedupe_node is false", async () => {
    await using socket = await open();
    const topic = await newTopic(server, { dedupe_node: false });
    await topic.write(ofNode("me", 1, 2));
    const [frame] = await followed(socket, topic, { node: "me" });
    expect(seqsOf(frame)).toEqual([1, 2]);
  });

  test("05.31 an own record moves the cursor without a frame", async () => {
    await using socket = await open();
    const [topic, witness] = [await newTopic(server), await newTopic(server)];
    await followed(socket, topic, { node: "me" });
    await followed(socket, witness);
    await topic.write(ofNode("me", "own", "own"));
    await witness.append("behind it");
    expect((await untilCaughtUp(socket)).map(({ topic: name }) => name)).toEqual(Array(2).fill(witness.name));
    await topic.write(ofNode("n2", "foreign"));
    expect(await socket.next()).toMatchObject({
      body: { op: "record", from_seq: 2, to_seq: 3, head_seq: 3, records: [{ $seq: 3 }] },
    });
  });

  test("05.28 of a publish on the same socket is filtered like any other", async () => {
    await using socket = await open();
    const topic = await newTopic(server);
    await followed(socket, topic, { node: "me" });
    const command = { op: "publish", topic: topic.name };
    await socket.ask({ ...command, ...ofNode("me", "own") });
    await socket.ask({ ...command, ...ofNode("n2", "foreign") });
    expect(await socket.take("record")).toMatchObject({ records: [{ $seq: 2, data: "foreign" }] });
  });
});

describe("a subscription", () => {
  test("05.55 made again begins anew at the cursor it names", async () => {
    await using socket = await open();
    const topic = await newTopic(server);
    await topic.append(...numbered(5));
    await followed(socket, topic);
    const again = await socket.ask({ op: "subscribe", topic: topic.name, from_seq: 2 });
    expect(again.topics[topic.name]).toMatchObject({ from_seq: 2, head_seq: 5 });
    expect((await untilCaughtUp(socket)).slice(0, -1).flatMap(seqsOf)).toEqual([3, 4, 5]);
    await socket.ask({ op: "subscribe", topic: topic.name, tail: true });
    expect(opsOf(await untilCaughtUp(socket))).toEqual(["caught_up"]);
    await topic.append("once");
    expect(await socket.bodies(2)).toMatchObject([{ op: "record", from_seq: 5 }, { op: "caught_up" }]);
    expect(await socket.arrived()).toEqual([]);
  });

  test("05.55 made again has the new options and none of the old", async () => {
    await using socket = await open();
    const topic = await newTopic(server);
    await topic.write({ node: "me", records: [{ data: 1, tag: "t" }] });
    expect(opsOf(await followed(socket, topic, { node: "me", include_tags: true }))).toEqual(["caught_up"]);
    const [frame] = await followed(socket, topic);
    expect(Object.keys(frame.records[0]).sort()).toEqual(["$node", "$seq", "$ts", "data"]);
  });

  test("05.55 made again while its backlog is delivered leaves nothing of the old one behind", async () => {
    await using socket = await open();
    const topic = await newTopic(server);
    await topic.append(...numbered(3000));
    socket.say({ op: "subscribe", request_id: 1, topic: topic.name, limit: 1 });
    await socket.take("record");
    socket.say({ op: "subscribe", request_id: 2, topic: topic.name, from_seq: 2990, limit: 5 });
    let { body } = await socket.next();
    while (body.request_id !== 2) body = (await socket.next()).body;
    const frames = await untilSeq(socket, topic, 3000);
    expect(frames.map(seqsOf)).toEqual([range(2991, 2995), range(2996, 3000)]);
  });

  test("05 section 4.2 counts as a read of the topic", async () => {
    await using socket = await open();
    const topic = await newTopic(server);
    expect((await topic.state()).body.last_read_ts).toBeNull();
    await followed(socket, topic);
    expect((await topic.state()).body.last_read_ts).toBeNumber();
  });

  test.each(["ephemeral", "memory", "disk", "fsync"])(
    "06 section 1 of a topic of the class %s is like any other",
    async (durability) => {
      await using socket = await open();
      const topic = await newTopic(server, { durability });
      await topic.append(1, 2);
      const bodies = await followed(socket, topic, { from_seq: 1 });
      expect(bodies).toMatchObject([{ from_seq: 1, records: [{ data: 2 }] }, { op: "caught_up" }]);
      await socket.ask({ op: "publish", topic: topic.name, records: [{ data: 3 }] });
      expect(await socket.take("record")).toMatchObject({ from_seq: 2, records: [{ data: 3 }] });
    },
  );

  test("05.49 of a queue shows its jobs and takes none", async () => {
    await using socket = await open();
    const queue = await makeQueue(server);
    await queue.produce(3);
    const [job] = await queue.take(1);
    const [frame] = await followed(socket, queue);
    expect(seqsOf(frame)).toEqual([1, 2, 3]);
    expect(await queue.counters()).toMatchObject({ ready: 2, in_flight: 1 });
    await queue.ack([job!.$seq]);
    await using later = await open();
    const [rest] = await followed(later, queue);
    expect(seqsOf(rest)).toEqual([2, 3]);
    expect(await queue.counters()).toMatchObject({ ready: 2, in_flight: 0 });
  });

  test("05 section 3.5 of a router's destination gets the copies at once", async () => {
    await using socket = await open();
    const [source, dest] = [await newTopic(server), await newTopic(server)];
    const path = `/v0/routers/r-${dest.name}`;
    const made = await server.send("PUT", path, { source: source.name, dest: dest.name });
    expect(made.status).toBe(201);
    await followed(socket, dest);
    await source.append("a");
    expect((await socket.next(1000)).body).toMatchObject({ op: "record", records: [{ data: "a" }] });
  });

  test("05 section 3.5 misses no wake-up and repeats nothing while many write", async () => {
    const topic = await newTopic(server);
    const sockets = await together(3, open);
    for (const [i, socket] of sockets.entries()) {
      await socket.ask({ op: "subscribe", topic: topic.name, limit: [1, 7, 1000][i] });
    }
    const writers = together(4, async (n) => {
      for (let i = 0; i < 50; i++) await topic.append(`${n}.${i}`);
    });
    // One that joins in the middle finds the rest, and no gap where its backlog ends.
    await using late = await open();
    await late.ask({ op: "subscribe", topic: topic.name });
    await writers;
    for (const socket of [...sockets, late]) {
      const frames = await untilSeq(socket, topic, 200);
      expect(frames.flatMap(seqsOf)).toEqual(numbered(200));
      frames.slice(1).forEach(({ from_seq }, i) => {
        expect(from_seq).toBe(frames[i].to_seq);
      });
    }
    for (const socket of sockets) await socket.close();
  });

  test("05.60 of 300 topics at once works", async () => {
    await using socket = await open();
    const topics = await together(300, async (i) => {
      const topic = absentTopic(server, `many-${i}`);
      await topic.append(`first ${i}`);
      return topic;
    });
    const names = Object.fromEntries(topics.map(({ name }) => [name, {}]));
    const answer = await socket.ask({ op: "subscribe", topics: names });
    expect(Object.keys(answer.topics).sort()).toEqual(Object.keys(names).sort());
    const found = new Map<string, unknown>();
    while (found.size < 300) {
      const { topic, records } = await socket.take("record");
      expect([found.has(topic), records.length]).toEqual([false, 1]);
      found.set(topic, records[0].data);
    }
    expect(found).toEqual(new Map(topics.map(({ name }, i) => [name, `first ${i}`])));
    await topics[299]!.append("live");
    expect(await socket.take("record")).toMatchObject({ topic: "many-299", from_seq: 1 });
  });
});

describe("order among topics", () => {
  /** The topics in the order in which their first records came. */
  async function order(topics: Topic[]): Promise<string[]> {
    await using socket = await open();
    await socket.ask({
      op: "subscribe",
      topics: Object.fromEntries(topics.map(({ name }) => [name, {}])),
    });
    const names = new Set<string>();
    while (names.size < topics.length) names.add((await socket.take("record")).topic);
    return [...names];
  }

  async function prioritised(name: string, priority: number | null, n = 1): Promise<Topic> {
    const topic = absentTopic(server, name);
    expect((await topic.put({ priority })).status).toBe(201);
    await topic.append(...numbered(n));
    return topic;
  }

  test("by priority, then by the bytes of their names", async () => {
    const topics = [
      await prioritised("p-b", null),
      await prioritised("p-last", -5),
      await prioritised("p-a", 0),
      await prioritised("p-Z", null),
      await prioritised("p-first", 5000),
      await prioritised("p-second", 1),
    ];
    const expected = ["p-first", "p-second", "p-Z", "p-a", "p-b", "p-last"];
    expect(await order(topics)).toEqual(expected);
  });

  test("after 16 frames of one topic the others have a turn", async () => {
    await using socket = await open();
    await prioritised("q-high", 10, 100);
    await prioritised("q-low", null, 2);
    await socket.ask({ op: "subscribe", topics: { "q-high": {}, "q-low": {} }, limit: 1 });
    const names: string[] = [];
    while (!names.includes("q-low")) names.push((await socket.take("record")).topic);
    expect(names).toEqual([...Array(16).fill("q-high"), "q-low"]);
    const rest = [];
    while (rest.at(-1)?.to_seq !== 100) rest.push(await socket.take("record"));
    expect(rest.filter(({ topic }) => topic === "q-high").flatMap(seqsOf)).toEqual(range(17, 100));
  });
});

describe("a gap", () => {
  test("05.58 a cursor above the head gets a tombstone of everything, then everything", async () => {
    await using socket = await open();
    const topic = await newTopic(server);
    await topic.append("a", "b");
    const bodies = await followed(socket, topic, { from_seq: 9 });
    expect(bodies[0]).toStrictEqual({
      op: "tombstone",
      topic: topic.name,
      reason: "recreated",
      gap_from: 1,
      gap_to: 2,
      earliest_seq: 1,
      head_seq: 2,
    });
    expect(bodies.slice(1)).toMatchObject([
      { op: "record", to_seq: 2, head_seq: 2, records: [{ $seq: 1 }, { $seq: 2 }] },
      { op: "caught_up", head_seq: 2 },
    ]);
  });

  test("05.58 a cursor above the head of an empty topic gets a tombstone and has caught up", async () => {
    await using socket = await open();
    const topic = await newTopic(server);
    expect(await followed(socket, topic, { from_seq: 1 })).toMatchObject([
      { op: "tombstone", reason: "recreated", gap_from: 1, gap_to: 0, earliest_seq: 1, head_seq: 0 },
      { op: "caught_up", head_seq: 0 },
    ]);
    await topic.append("a");
    expect((await socket.next()).body).toMatchObject({ op: "record", to_seq: 1, records: [{ $seq: 1 }] });
  });

  test("05.58 a cursor below the cap floor gets a tombstone with cap", async () => {
    await using socket = await open();
    const topic = await newTopic(server, { cap_records: 3 });
    await topic.append(...numbered(10));
    expect(await followed(socket, topic, { from_seq: 1 })).toStrictEqual([
      {
        op: "tombstone",
        topic: topic.name,
        reason: "cap",
        gap_from: 2,
        gap_to: 7,
        earliest_seq: 8,
        head_seq: 10,
      },
      {
        op: "record",
        topic: topic.name,
        from_seq: 1,
        to_seq: 10,
        head_seq: 10,
        records: [8, 9, 10].map((n) => ({ $seq: n, $ts: expect.any(Number), data: n })),
      },
      { op: "caught_up", topic: topic.name, head_seq: 10 },
    ]);
    // At the floor there is no gap.
    expect(opsOf(await followed(socket, topic, { from_seq: 7 }))).toEqual(["record", "caught_up"]);
  });

  test("05.30 05.58 expired records leave a tombstone with ttl and no record", async () => {
    await using socket = await open();
    const topic = await newTopic(server, { ttl_ms: 20 });
    await topic.append("a", "b");
    await until(topic.state, ({ body }) => body.count === 0);
    expect(await followed(socket, topic)).toMatchObject([
      { op: "tombstone", reason: "ttl", gap_from: 1, gap_to: 2, earliest_seq: 3, head_seq: 2 },
      { op: "caught_up", head_seq: 2 },
    ]);
  });

  test("05.58 records lost to the cap and to time leave a tombstone with mixed", async () => {
    await using socket = await open();
    const topic = await newTopic(server, { cap_records: 2 });
    await topic.append(1, 2, 3);
    await topic.put({ cap_records: 2, ttl_ms: 20 });
    await until(topic.state, ({ body }) => body.count === 0);
    expect((await followed(socket, topic))[0]).toMatchObject({ reason: "mixed", gap_from: 1, gap_to: 3 });
  });

  test("05.25 a batch beyond the cap leaves a tombstone with cap on a live subscription", async () => {
    await using socket = await open();
    const topic = await newTopic(server, { cap_records: 3 });
    await topic.append(1);
    await followed(socket, topic);
    await topic.append(...numbered(10, 2));
    expect(await untilCaughtUp(socket)).toMatchObject([
      { op: "tombstone", reason: "cap", gap_from: 2, gap_to: 8, earliest_seq: 9, head_seq: 11 },
      { op: "record", from_seq: 1, to_seq: 11, records: [{ $seq: 9 }, { $seq: 10 }, { $seq: 11 }] },
      { op: "caught_up", head_seq: 11 },
    ]);
    expect(await socket.arrived()).toEqual([]);
  });

  test("05.27 deleted records leave no tombstone", async () => {
    await using socket = await open();
    const topic = await newTopic(server);
    await topic.write({ records: numbered(6).map((data) => ({ data, tag: data === 5 ? "gone" : "kept" })) });
    await topic.erase({ before_seq: 3 });
    await topic.erase({ match: "gone" });
    expect(await followed(socket, topic)).toMatchObject([
      { op: "record", from_seq: 0, to_seq: 6, records: [{ $seq: 3 }, { $seq: 4 }, { $seq: 6 }] },
      { op: "caught_up", head_seq: 6 },
    ]);
  });

  test.each([
    ["beside topic", (name: string, epoch: number) => ({ topic: name, from_seq: 2, epoch })],
    ["in topics", (name: string, epoch: number) => ({ topics: { [name]: { from_seq: 2, epoch } } })],
  ])("P5 an epoch %s that is not the live one gets a tombstone and every record", async (_, command) => {
    await using socket = await open();
    const topic = await newTopic(server);
    await topic.append(...numbered(3));
    const { epoch } = (await topic.state()).body;
    const subscribed = await socket.ask({ op: "subscribe", ...command(topic.name, epoch) });
    expect(subscribed.topics[topic.name]).toMatchObject({ from_seq: 2, epoch });
    expect((await untilCaughtUp(socket))[0]).toMatchObject({ op: "record", records: [{ $seq: 3 }] });
    await topic.drop();
    await socket.take("topic_deleted");
    await topic.append(...numbered(4));
    const recreated = await socket.ask({ op: "subscribe", ...command(topic.name, epoch) });
    expect(recreated.topics[topic.name].epoch).not.toBe(epoch);
    expect(await untilCaughtUp(socket)).toMatchObject([
      { op: "tombstone", reason: "recreated", gap_from: 1, gap_to: 4, earliest_seq: 1, head_seq: 4 },
      { op: "record", to_seq: 4, records: numbered(4).map(($seq) => ({ $seq })) },
      { op: "caught_up", head_seq: 4 },
    ]);
  });
});

describe("a deleted topic", () => {
  test("05.59 is told promptly, and its next life only after a new subscribe", async () => {
    await using socket = await open();
    const [topic, other] = [await newTopic(server), await newTopic(server)];
    await topic.append(1, 2, 3);
    await socket.ask({ op: "subscribe", topics: { [topic.name]: { tail: true }, [other.name]: {} } });
    await socket.take("caught_up");
    await socket.take("caught_up");
    await topic.drop();
    expect((await socket.next(1000)).body).toStrictEqual(dropped(topic));
    await topic.append(...numbered(5));
    await other.append("a");
    expect(await socket.bodies(2)).toMatchObject([
      { op: "record", topic: other.name, records: [{ data: "a" }] },
      { op: "caught_up", topic: other.name },
    ]);
    expect(await socket.arrived()).toEqual([]);
    const bodies = await followed(socket, topic);
    expect(bodies).toMatchObject([
      { op: "record", topic: topic.name, from_seq: 0, to_seq: 5 },
      { op: "caught_up", head_seq: 5 },
    ]);
    await topic.append(6);
    expect(await socket.next()).toMatchObject({ body: { topic: topic.name, records: [{ $seq: 6 }] } });
  });

  test.each([
    ["fewer", 1],
    ["as many", 3],
    ["more", 5],
    ["no", 0],
  ])("05.59 created again at once with %s records is told, and not followed", async (_, n) => {
    await using socket = await open();
    const topic = await newTopic(server);
    await topic.append(1, 2, 3);
    await followed(socket, topic);
    await topic.drop();
    await (n > 0 ? topic.append(...numbered(n)) : topic.put());
    expect((await socket.next(1000)).body).toStrictEqual(dropped(topic));
    await topic.append("unseen");
    expect(await socket.arrived()).toEqual([]);
    const bodies = await followed(socket, topic);
    expect(bodies).toMatchObject([
      { op: "record", from_seq: 0, to_seq: n + 1, head_seq: n + 1 },
      { op: "caught_up" },
    ]);
  });

  test("05.59 is told on every socket that follows it, each once", async () => {
    const topic = await newTopic(server);
    const sockets = await together(3, open);
    for (const socket of sockets) await followed(socket, topic);
    await topic.drop();
    for (const socket of sockets) {
      expect((await socket.next(1000)).body).toStrictEqual(dropped(topic));
      expect(await socket.arrived()).toEqual([]);
      await socket.close();
    }
  });

  test("05.59 that was unsubscribed before is not told", async () => {
    await using socket = await open();
    const [topic, witness] = [await newTopic(server), await newTopic(server)];
    await followed(socket, topic);
    await followed(socket, witness);
    await socket.ask({ op: "unsubscribe", topic: topic.name });
    await topic.drop();
    await witness.drop();
    expect((await socket.next(1000)).body).toStrictEqual(dropped(witness));
    expect(await socket.arrived()).toEqual([]);
  });

  test("05.59 in the middle of its backlog ends the subscription behind what was sent", async () => {
    await using socket = await open();
    const topic = await newTopic(server);
    await topic.append(...numbered(5000));
    await socket.ask({ op: "subscribe", topic: topic.name, limit: 1 });
    await socket.take("record");
    await topic.drop();
    const bodies: Body[] = [];
    while (bodies.at(-1)?.op !== "topic_deleted") bodies.push((await socket.next()).body);
    const frames = bodies.filter(({ op }) => op === "record");
    expect(frames.flatMap(seqsOf)).toEqual(range(2, frames.length + 1));
    expect(await socket.arrived()).toEqual([]);
  });

  test("05.59 is gone for a subscribe, and again there when a publish creates it", async () => {
    await using socket = await open();
    const topic = await newTopic(server);
    await followed(socket, topic);
    await topic.drop();
    await socket.take("topic_deleted");
    const again = await socket.ask({ op: "subscribe", topic: topic.name });
    expect(again).toMatchObject({ op: "error", code: "topic_not_found" });
    const ack = await socket.ask({ op: "publish", topic: topic.name, records: [{ data: 1 }] });
    expect(ack).toMatchObject({ op: "ack", created: true, first_seq: 1 });
    expect(await socket.arrived()).toEqual([]);
    expect(opsOf(await followed(socket, topic))).toEqual(["record", "caught_up"]);
  });
});
