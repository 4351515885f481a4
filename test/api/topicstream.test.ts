/** `GET /v0/topics/:topic/stream`: one topic as a stream, asked for with one request and no session. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { connect } from "node:http2";
import { attempt, EventStream, eventIn, type StreamEvent } from "../support/eventstream.ts";
import { elements, members } from "../support/rawjson.ts";
import { isAnswer, RawSocket } from "../support/rawsocket.ts";
import { startServer } from "../support/server.ts";
import { spawnServer } from "../support/spawn.ts";
import {
  absentTopic,
  newTopic,
  type Sender,
  sharedServer,
  type Topic,
  timed,
  until,
} from "../support/topics.ts";

setDefaultTimeout(30_000);

const server = sharedServer();

const U64_MAX = "18446744073709551615";
const U64_OVER = "18446744073709551616";

const pathOf = (topic: Topic, query = "") => `${topic.path}/stream${query === "" ? "" : `?${query}`}`;

/** A stream that has begun. */
async function open(
  topic: Topic,
  query = "",
  headers: Record<string, string> = {},
  at: Sender = server,
): Promise<EventStream> {
  const stream = await EventStream.open(at.url, pathOf(topic, query), headers);
  expect(await stream.block()).toBe("retry: 2000\n\n");
  return stream;
}

/** A stream that goes on behind an id. */
const resume = (topic: Topic, id: string, query = "") => open(topic, query, { "last-event-id": id });

async function filled(n: number, config: object = {}): Promise<Topic> {
  const topic = await newTopic(server, config);
  await topic.append(...Array.from({ length: n }, (_, i) => i + 1));
  return topic;
}

/** What comes up to the next `caught-up`, and with it. */
async function untilCaughtUp(stream: EventStream): Promise<StreamEvent[]> {
  const found: StreamEvent[] = [];
  for (;;) {
    const event = await stream.event();
    found.push(event);
    if (event.event === "caught-up") return found;
  }
}

/** The events that a new stream begins with, up to its first `caught-up`. */
async function beginning(topic: Topic, query = "", headers: Record<string, string> = {}) {
  await using stream = await open(topic, query, headers);
  // Awaited here: the stream is closed with this call.
  return await untilCaughtUp(stream);
}

const names = (events: StreamEvent[]) => events.map(({ event }) => event);

/** The records of all frames. */
const recordsIn = (events: StreamEvent[]): Record<string, unknown>[] =>
  events.filter(({ event }) => event === "record").flatMap(({ body }) => body.records);

const seqsIn = (events: StreamEvent[]) => recordsIn(events).map(({ $seq }) => $seq);
const dataIn = (events: StreamEvent[]) => recordsIn(events).map(({ data }) => data);

/** How many records each frame has. */
const sizes = (events: StreamEvent[]): number[] =>
  events.filter(({ event }) => event === "record").map(({ body }) => body.records.length);

const encoded = (value: unknown) =>
  Buffer.from(typeof value === "string" ? value : JSON.stringify(value)).toString("base64url");
const decoded = (id: string | undefined) => JSON.parse(Buffer.from(id!, "base64url").toString());

const epochOf = async (topic: Topic): Promise<number> => (await topic.state()).body.epoch;

const tagged = (n: number) => Array.from({ length: n }, (_, i) => i + 1);

const error = (status: number, code: string) => ({ status, body: { error: { code } } });
const invalid = error(400, "invalid_request");

const expired = (topic: Topic) =>
  until(
    () => topic.state(),
    ({ body }) => body.count === 0,
  );

describe("the stream", () => {
  test("05.15 05.16 begins with these headers and `retry`", async () => {
    const topic = await newTopic(server);
    await using stream = await EventStream.open(server.url, pathOf(topic), {
      "accept-encoding": "gzip, br, deflate",
    });
    expect(stream.headers.get("content-type")).toBe("text/event-stream");
    expect(stream.headers.get("cache-control")).toBe("no-store");
    expect(stream.headers.get("x-accel-buffering")).toBe("no");
    expect(stream.headers.get("content-encoding")).toBeNull();
    expect(await stream.block()).toBe("retry: 2000\n\n");
  });

  test("05.19 tells the backlog, then that it is at the head", async () => {
    const topic = await newTopic(server);
    await topic.write({
      records: [{ data: { n: 1 }, tag: "a", node: "n1", meta: { k: "v" } }, { data: 2 }],
    });
    await using stream = await open(topic);
    const [record, caughtUp] = [await stream.block(), await stream.block()];
    const id = encoded(`{"$epochs":{"${topic.name}":${await epochOf(topic)}},"${topic.name}":2}`);
    expect(record).toMatch(/^id: [^\n]+\nevent: record\ndata: \{[^\n]+\}\n\n$/);
    const { topic: _, ...body } = eventIn(record)!.body;
    expect(body).toStrictEqual({
      from_seq: 0,
      to_seq: 2,
      head_seq: 2,
      records: [
        { $seq: 1, $ts: expect.any(Number), $node: "n1", data: { n: 1 }, meta: { k: "v" } },
        { $seq: 2, $ts: expect.any(Number), data: 2 },
      ],
    });
    expect(eventIn(record)!.id).toBe(id);
    expect(caughtUp).toMatch(/^id: [^\n]+\nevent: caught-up\ndata: \{[^\n]+\}\n\n$/);
    expect(eventIn(caughtUp)).toMatchObject({ id, event: "caught-up" });
    expect(eventIn(caughtUp)!.body).toStrictEqual({ topic: topic.name, head_seq: 2 });
  });

  test("05.20 of an empty topic says that it is at the head", async () => {
    const topic = await newTopic(server);
    const [caughtUp, ...more] = await beginning(topic);
    expect(more).toEqual([]);
    expect(caughtUp!.body).toStrictEqual({ topic: topic.name, head_seq: 0 });
    expect(decoded(caughtUp!.id)).toStrictEqual({
      $epochs: { [topic.name]: await epochOf(topic) },
      [topic.name]: 0,
    });
  });

  test("05.20 goes on with what is written, each time to the head", async () => {
    const topic = await filled(1);
    await using stream = await open(topic);
    await untilCaughtUp(stream);
    for (const values of [["a"], ["b", "c"], ["d"]]) {
      const { first_seq, last_seq } = (await topic.append(...values)).body;
      const [record, caughtUp] = await stream.events(2);
      expect(record!.body).toMatchObject({
        topic: topic.name,
        from_seq: first_seq - 1,
        to_seq: last_seq,
        head_seq: last_seq,
      });
      expect(dataIn([record!])).toEqual(values);
      expect(caughtUp).toMatchObject({ id: record!.id, event: "caught-up", body: { head_seq: last_seq } });
      expect(decoded(record!.id)[topic.name]).toBe(last_seq);
    }
  });

  test("05 section 3.5 loses and repeats nothing while others write", async () => {
    const topic = await newTopic(server);
    const writing = (async () => {
      for (let n = 0; n < 100; n++) await topic.append(n, n, n);
    })();
    await using stream = await open(topic);
    const seqs: unknown[] = [];
    while (seqs.length < 300) seqs.push(...seqsIn([await stream.event()]));
    await writing;
    expect(seqs).toEqual(tagged(300));
  });

  test("05 section 3.6 of two each gets everything", async () => {
    const topic = await filled(2);
    await using first = await open(topic);
    await using second = await open(topic, "from_seq=1");
    expect(seqsIn(await untilCaughtUp(first))).toEqual([1, 2]);
    expect(seqsIn(await untilCaughtUp(second))).toEqual([2]);
    await topic.append("live");
    for (const stream of [first, second]) expect(seqsIn(await untilCaughtUp(stream))).toEqual([3]);
  });

  test("05 section 1 is a read: it sets `last_read_ts`", async () => {
    const topic = await newTopic(server);
    expect((await topic.state()).body.last_read_ts).toBeNull();
    await beginning(topic);
    expect((await topic.state()).body.last_read_ts).toBeNumber();
  });

  test("05.49 of a queue shows the jobs that are not done, and leases none", async () => {
    const topic = await filled(3, { type: "queue" });
    await server.send("POST", `${topic.path}/claim`, { node: "w", max: 2 });
    await server.send("POST", `${topic.path}/ack`, { node: "w", seqs: [1] });
    const events = await beginning(topic);
    expect(names(events)).toEqual(["record", "caught-up"]);
    expect(seqsIn(events)).toEqual([2, 3]);
    expect((await topic.state()).body.queue).toMatchObject({ ready: 1, in_flight: 1 });
  });

  test("P1 keeps a payload byte for byte, also over several lines", async () => {
    const topic = await newTopic(server);
    const data = '{ "b" : 1.0,\n\t"a":[ 1e3 , -0,12345678901234567890123 ],\n\n "b":"\\u00e9" }';
    const meta = '{ "k":\n 1.10 }';
    await topic.write(`{"records":[{"data":${data},"meta":${meta}}]}`);
    await using stream = await open(topic);
    const record = await stream.event();
    const [written] = elements(members(record.data).get("records")!);
    expect(members(written!).get("data")).toBe(data);
    expect(members(written!).get("meta")).toBe(meta);
  });

  test("01 section 1 shares an HTTP/2 connection", async () => {
    const topic = await filled(1);
    const connection = connect(server.url);
    try {
      const [first, second] = [
        await EventStream.openOver(connection, pathOf(topic)),
        await EventStream.openOver(connection, pathOf(topic, "tail=1")),
      ];
      expect(names(await untilCaughtUp(first))).toEqual(["record", "caught-up"]);
      expect(names(await untilCaughtUp(second))).toEqual(["caught-up"]);
      await topic.append("live");
      for (const stream of [first, second]) expect(dataIn(await untilCaughtUp(stream))).toEqual(["live"]);
    } finally {
      connection.destroy();
    }
  });

  test("01 section 2 finds its topic by the decoded name", async () => {
    const topic = absentTopic(server, "stream.of:one");
    await topic.append("a");
    await using stream = await EventStream.open(server.url, "/v0/topics/%73tream%2Eof%3Aone/stream");
    expect((await stream.event()).body).toMatchObject({ topic: "stream.of:one", records: [{ data: "a" }] });
  });
});

describe("where it begins", () => {
  test.each([
    ["", [1, 2, 3]],
    ["from_seq=0", [1, 2, 3]],
    ["from_seq=2", [3]],
    ["from_seq=3", []],
    ["from_seq=1&from_seq=2", [3]],
    ["from_seq=%31", [2, 3]],
    ["tail=true", []],
    ["tail=1", []],
    ["tail=true&from_seq=1", []],
    ["tail=true&from_seq=99", []],
    ["tail=false&from_seq=1", [2, 3]],
    ["tail=0", [1, 2, 3]],
  ])("05.02 %j", async (query, expected) => {
    const topic = await filled(3);
    const events = await beginning(topic, query);
    expect(seqsIn(events)).toEqual(expected);
    expect(names(events)).toEqual(expected.length > 0 ? ["record", "caught-up"] : ["caught-up"]);
    expect(decoded(events.at(-1)!.id)[topic.name]).toBe(3);
  });

  test("05.02 at the tail, with what comes after it was opened", async () => {
    const topic = await filled(3);
    await using stream = await open(topic, "tail=1");
    await untilCaughtUp(stream);
    await topic.append("live");
    expect((await stream.event()).body).toMatchObject({ from_seq: 3, records: [{ $seq: 4, data: "live" }] });
  });

  test.each(["4", "9007199254740993", U64_MAX])("05.26 above the head, at %s: all again", async (from) => {
    const topic = await filled(3);
    const [tombstone, ...events] = await beginning(topic, `from_seq=${from}`);
    expect(tombstone!.event).toBe("tombstone");
    expect(tombstone!.body).toStrictEqual({
      topic: topic.name,
      reason: "from_seq_too_old",
      gap_from: 1,
      gap_to: 3,
      earliest_seq: 1,
      head_seq: 3,
    });
    expect(seqsIn(events)).toEqual([1, 2, 3]);
    expect(decoded(events[0]!.id)).toEqual({
      $epochs: { [topic.name]: await epochOf(topic) },
      [topic.name]: 3,
    });
  });

  test("05 section 3.3 above the head of an empty topic", async () => {
    const topic = await newTopic(server);
    const [tombstone, caughtUp] = await beginning(topic, "from_seq=5");
    expect(tombstone!.body).toMatchObject({
      reason: "from_seq_too_old",
      gap_from: 1,
      gap_to: 0,
      head_seq: 0,
    });
    expect(caughtUp!.body).toStrictEqual({ topic: topic.name, head_seq: 0 });
  });

  test("05.24 below the floor of a cap: a tombstone, then what is left", async () => {
    const topic = await filled(5, { cap_records: 2 });
    const [tombstone, record, caughtUp] = await beginning(topic, "from_seq=1");
    expect(tombstone!.body).toStrictEqual({
      topic: topic.name,
      reason: "from_seq_too_old",
      gap_from: 2,
      gap_to: 3,
      earliest_seq: 4,
      head_seq: 5,
    });
    expect(decoded(tombstone!.id)[topic.name]).toBe(3);
    expect(record!.body).toMatchObject({ to_seq: 5, records: [{ $seq: 4 }, { $seq: 5 }] });
    expect(caughtUp!.event).toBe("caught-up");
    for (const query of ["from_seq=3", "from_seq=5", "tail=1"]) {
      expect(names(await beginning(topic, query))).not.toContain("tombstone");
    }
  });

  test("05.30 where all is expired: a tombstone and no record", async () => {
    const topic = await filled(2, { ttl_ms: 1 });
    await expired(topic);
    const events = await beginning(topic);
    expect(names(events)).toEqual(["tombstone", "caught-up"]);
    expect(events[0]!.body).toMatchObject({ gap_from: 1, gap_to: 2, earliest_seq: 3, head_seq: 2 });
  });

  test("05.27 below what was deleted: no tombstone, only what survives", async () => {
    const topic = await filled(4);
    await topic.erase({ before_seq: 3 });
    const events = await beginning(topic);
    expect(names(events)).toEqual(["record", "caught-up"]);
    expect(seqsIn(events)).toEqual([3, 4]);
  });

  test("P5 with the epoch that is live, as ever", async () => {
    const topic = await filled(3);
    const events = await beginning(topic, `from_seq=2&epoch=${await epochOf(topic)}`);
    expect(names(events)).toEqual(["record", "caught-up"]);
    expect(seqsIn(events)).toEqual([3]);
  });

  test.each([
    ["fewer records than", ["a"]],
    ["as many records as", ["a", "b", "c"]],
    ["more records than", ["a", "b", "c", "d"]],
  ])("P5 with the epoch of an earlier life with %s the cursor", async (_, values) => {
    const topic = await filled(3);
    const old = await epochOf(topic);
    await topic.drop();
    await topic.append(...values);
    const [tombstone, ...events] = await beginning(topic, `from_seq=3&epoch=${old}`);
    expect(tombstone).toMatchObject({
      event: "tombstone",
      body: { reason: "from_seq_too_old", gap_from: 1, gap_to: values.length, head_seq: values.length },
    });
    expect(dataIn(events)).toEqual(values);
  });

  test.each(["0", "9007199254740993", U64_MAX])("P5 with the epoch %s that never was", async (epoch) => {
    const topic = await filled(2);
    const events = await beginning(topic, `from_seq=1&epoch=${epoch}`);
    expect(names(events)).toEqual(["tombstone", "record", "caught-up"]);
    expect(seqsIn(events)).toEqual([1, 2]);
  });
});

describe("frames", () => {
  test.each([
    ["", 600, [256, 256, 88]],
    ["limit=0", 300, [256, 44]],
    ["limit=700", 1500, [700, 700, 100]],
    ["limit=5000", 1100, [1000, 100]],
    ["limit=4294967295", 1100, [1000, 100]],
    ["limit=1", 3, [1, 1, 1]],
    ["limit=3&limit=2", 3, [2, 1]],
  ])("05.22 with %j have so many records", async (query, n, expected) => {
    const topic = await filled(n);
    const events = await beginning(topic, query);
    expect(sizes(events)).toEqual(expected);
    expect(seqsIn(events)).toEqual(tagged(n));
    const ends = events.filter(({ event }) => event === "record").map(({ body }) => body);
    let from = 0;
    for (const { from_seq, to_seq, records, head_seq } of ends) {
      expect([from_seq, to_seq, head_seq]).toEqual([from, records.at(-1).$seq, n]);
      from = to_seq;
    }
  });

  /** A topic with `n` records whose payload is of so many bytes. */
  async function heavy(n: number, bytes: number): Promise<Topic> {
    const topic = await newTopic(server);
    for (let i = 0; i < n; i++) await topic.append("x".repeat(bytes - 2));
    return topic;
  }

  test.each([
    ["max_batch_bytes=2500", 5, 1000, [2, 2, 1]],
    ["max_batch_bytes=2000", 5, 1000, [2, 2, 1]],
    ["max_batch_bytes=1999", 2, 1000, [1, 1]],
    ["max_batch_bytes=1", 3, 1000, [1, 1, 1]],
    ["max_batch_bytes=5000&limit=2", 5, 1000, [2, 2, 1]],
    ["", 5, 100_000, [2, 2, 1]],
    ["max_batch_bytes=0", 12, 100_000, [10, 2]],
    [`max_batch_bytes=${U64_MAX}`, 9, 1_048_576, [8, 1]],
  ])("05.23 with %j: %d records of %d bytes", async (query, n, bytes, expected) => {
    const topic = await heavy(n, bytes);
    expect(sizes(await beginning(topic, query))).toEqual(expected);
  });

  test("05.23 count data and meta, as they were sent", async () => {
    const topic = await newTopic(server);
    // 19 bytes each, of which a compact form would leave 12.
    const record = '{"data":[ 1,   2 ],"meta":{"k" : 1}}';
    await topic.write(`{"records":[${[record, record, record].join()}]}`);
    expect((await topic.state()).body.bytes).toBe(3 * 19);
    expect(sizes(await beginning(topic, "max_batch_bytes=38"))).toEqual([2, 1]);
    expect(sizes(await beginning(topic, "max_batch_bytes=37"))).toEqual([1, 1, 1]);
  });

  test("05.25 an overflow while live: a tombstone with `cap`", async () => {
    const topic = await filled(2, { cap_records: 3 });
    await using stream = await open(topic);
    await untilCaughtUp(stream);
    await topic.append("a", "b", "c", "d", "e");
    const [tombstone, record, caughtUp] = await stream.events(3);
    expect(tombstone!.event).toBe("tombstone");
    expect(tombstone!.body).toStrictEqual({
      topic: topic.name,
      reason: "cap",
      gap_from: 3,
      gap_to: 4,
      earliest_seq: 5,
      head_seq: 7,
    });
    expect(decoded(tombstone!.id)).toEqual({
      $epochs: { [topic.name]: await epochOf(topic) },
      [topic.name]: 4,
    });
    // The cursor before the batch, as if nothing had been lost.
    expect(record!.body).toMatchObject({ from_seq: 2, to_seq: 7, head_seq: 7 });
    expect(dataIn([record!])).toEqual(["c", "d", "e"]);
    expect(caughtUp!.event).toBe("caught-up");
  });
});

describe("what records show", () => {
  async function dressed(): Promise<Topic> {
    const topic = await newTopic(server);
    await topic.write({ records: [{ data: 1, tag: "t", node: "n", meta: { k: 1 } }, { data: 2 }] });
    return topic;
  }

  const shown = { $tag: "t", data: 1, meta: { k: 1 } };
  const { $tag: _tag, ...withoutTag } = shown;
  const { meta: _meta, ...withoutMeta } = withoutTag;
  const { data: _data, ...withoutData } = withoutTag;

  test.each([
    ["", withoutTag],
    ["include_tags=true", shown],
    ["include_tags=1", shown],
    ["include_tags=false", withoutTag],
    ["include_tags=0", withoutTag],
    ["include_meta=true", withoutTag],
    ["include_meta=1", withoutTag],
    ["include_meta=false", withoutMeta],
    ["include_meta=0", withoutMeta],
    ["include_data=true", withoutTag],
    ["include_data=1", withoutTag],
    ["include_data=false", withoutData],
    ["include_data=0", withoutData],
    ["include_data=false&include_meta=0&include_tags=1", { $tag: "t" }],
    ["include_tags=0&include_tags=1", shown],
  ])("05.21 with %j", async (query, members) => {
    const [first, second] = recordsIn(await beginning(await dressed(), query));
    expect(first).toStrictEqual({ $seq: 1, $ts: expect.any(Number), $node: "n", ...members });
    const data = "data" in members ? { data: 2 } : {};
    expect(second).toStrictEqual({ $seq: 2, $ts: expect.any(Number), ...data });
  });

  /** Records of the nodes n1, n2, none, n1, n1. */
  async function mixed(config: object = {}): Promise<Topic> {
    const topic = await newTopic(server, config);
    const nodes = ["n1", "n2", undefined, "n1", "n1"];
    await topic.write({ records: nodes.map((node) => ({ data: node ?? null, node })) });
    return topic;
  }

  test.each([
    ["", [1, 2, 3, 4, 5]],
    ["node=n1", [2, 3]],
    ["node=n2", [1, 3, 4, 5]],
    ["node=n1&node=n2", [3]],
    ["node=n2&node=n9", [1, 3, 4, 5]],
    ["node=N1", [1, 2, 3, 4, 5]],
    ["node=n%31", [2, 3]],
    ["node=", [1, 2, 3, 4, 5]],
    ["Node=n1", [1, 2, 3, 4, 5]],
  ])("05.28 with %j", async (query, expected) => {
    const events = await beginning(await mixed(), query);
    expect(seqsIn(events)).toEqual(expected);
    // What is filtered is passed all the same.
    expect(events[0]!.body).toMatchObject({ from_seq: 0, to_seq: 5, head_seq: 5 });
  });

  test("05.28 all of one's own: only that it is at the head", async () => {
    const topic = await newTopic(server);
    await topic.write({ node: "me", records: [{ data: 1 }, { data: 2 }] });
    const events = await beginning(topic, "node=me");
    expect(names(events)).toEqual(["caught-up"]);
    expect(decoded(events[0]!.id)[topic.name]).toBe(2);
  });

  test("05.29 on a topic with `dedupe_node: false` nothing is filtered", async () => {
    const events = await beginning(await mixed({ dedupe_node: false }), "node=n1&node=n2");
    expect(seqsIn(events)).toEqual([1, 2, 3, 4, 5]);
  });

  test("05.31 one's own while live: no frame, and the next one begins behind them", async () => {
    const topic = await newTopic(server);
    await using stream = await open(topic, "node=me");
    await using witness = await open(topic);
    for (const each of [stream, witness]) await untilCaughtUp(each);
    await topic.write({ node: "me", records: [{ data: "own" }, { data: "own" }] });
    await untilCaughtUp(witness);
    await topic.append("foreign");
    const [record, caughtUp] = await stream.events(2);
    expect(dataIn([record!])).toEqual(["foreign"]);
    expect(record!.body).toMatchObject({ from_seq: 2, to_seq: 3, head_seq: 3 });
    expect(caughtUp!.event).toBe("caught-up");
  });
});

describe("consistency", () => {
  test.each(["eventual", "strong"])("05.07 %s", async (consistency) => {
    for (const durability of ["fsync", "disk", "memory", "ephemeral"]) {
      const topic = await filled(2, { durability });
      await using stream = await open(topic, `consistency=${consistency}`);
      expect(seqsIn(await untilCaughtUp(stream))).toEqual([1, 2]);
      await topic.append("live");
      expect(dataIn(await untilCaughtUp(stream))).toEqual(["live"]);
    }
  });
});

describe("signs of life", () => {
  test("05.32 come when nothing else does, a second apart at least, and carry no id", async () => {
    const topic = await newTopic(server);
    await using stream = await open(topic, "heartbeat_ms=1");
    await untilCaughtUp(stream);
    for (let times = 0; times < 2; times++) {
      const { ms, answer } = await timed(() => stream.block());
      expect(answer).toBe(": : hb\n\n");
      expect(ms).toBeGreaterThan(850);
      expect(ms).toBeLessThan(1500);
    }
  });

  test("05.32 do not come while events do, and not sooner than asked for", async () => {
    const topic = await newTopic(server);
    await using busy = await open(topic, "heartbeat_ms=1000");
    await using slow = await open(topic, "heartbeat_ms=60000");
    await using usual = await open(topic, "");
    const end = performance.now() + 1800;
    for (let n = 0; performance.now() < end; n++) {
      await topic.append(n);
      await Bun.sleep(200);
    }
    for (const stream of [busy, slow, usual]) {
      await stream.arrived();
      expect(stream.received).not.toContain("hb");
    }
    // Only now the one that is to be told so is told that there is nothing.
    const { ms, answer } = await timed(async () => {
      for (;;) {
        const block = await busy.block();
        if (!block.startsWith("id: ")) return block;
      }
    });
    expect(answer).toBe(": : hb\n\n");
    expect(ms).toBeGreaterThan(500);
  });
});

describe("what cannot be understood", () => {
  const noIntegers = ["-1", "1.5", "1.0", "1e3", "abc", "0x1", "%2B1", "1%20", "", "null", "1,2"];
  const noFlags = ["TRUE", "True", "yes", "no", "2", "", "null", "-1"];
  const integers = ["from_seq", "epoch", "limit", "max_batch_bytes", "heartbeat_ms"];
  const flags = ["tail", "include_meta", "include_tags", "include_data"];
  const cases = [
    ...integers.flatMap((name) => noIntegers.map((value) => `${name}=${value}`)),
    ...integers.map((name) => `${name}=${U64_OVER}`),
    "limit=4294967296",
    ...flags.flatMap((name) => noFlags.map((value) => `${name}=${value}`)),
    ...["STRONG", "Eventual", "weak", "", "true"].map((value) => `consistency=${value}`),
  ];

  test.each(cases)("stream: %s is 400", async (query) => {
    const topic = await newTopic(server);
    const reply = await attempt(server.url, pathOf(topic, query));
    expect(reply).toMatchObject(invalid);
    expect(Object.keys(reply.body.error).sort()).toEqual(["code", "message"]);
    expect(reply.body.performance.server_total_ms).toBeNumber();
  });

  test("stream: one such value is enough, and its HEAD is refused, too", async () => {
    const topic = await newTopic(server);
    expect(await attempt(server.url, pathOf(topic, "tail=1&from_seq=-1"))).toMatchObject(invalid);
    expect(await attempt(server.url, pathOf(topic, "limit=5&tail=1&include_data=x"))).toMatchObject(invalid);
    expect((await server.send("HEAD", pathOf(topic, "limit=x"))).status).toBe(400);
  });

  test.each([
    `max_batch_bytes=${U64_MAX}`,
    `heartbeat_ms=${U64_MAX}`,
    "heartbeat_ms=0",
    "cursor=zzz&last_event_id=zzz&FROM_SEQ=-1&Tail=x&lenient=x&max=-1",
  ])("stream: %s is understood, or not asked", async (query) => {
    const topic = await filled(2);
    expect(seqsIn(await beginning(topic, query))).toEqual([1, 2]);
  });
});

describe("refusals", () => {
  test.each(["application/json", "text/*", "text/html", "Text/Event-Stream"])(
    "05.17 with Accept %j is 406",
    async (accept) => {
      const topic = await newTopic(server);
      expect(await attempt(server.url, pathOf(topic), { accept })).toMatchObject(
        error(406, "not_acceptable"),
      );
      expect((await server.send("HEAD", pathOf(topic), undefined, { accept })).status).toBe(406);
    },
  );

  test.each(["*/*", "text/event-stream", "application/json, text/event-stream;q=0.1", "text/html,*/*;q=0.1"])(
    "05.17 with Accept %j opens",
    async (accept) => {
      const topic = await newTopic(server);
      expect((await attempt(server.url, pathOf(topic), { accept })).status).toBe(200);
    },
  );

  test.each([
    ["no Accept", ""],
    ["an empty one", "Accept:\r\n"],
  ])("05.17 with %s opens", async (_, field) => {
    const topic = await filled(1);
    using socket = new RawSocket(server.url);
    await socket.write(`GET ${pathOf(topic)} HTTP/1.1\r\nHost: test\r\n${field}\r\n`);
    const said = await socket.until((text) => text.includes("event: caught-up") || isAnswer(text));
    expect(said).toStartWith("HTTP/1.1 200 ");
    expect(said).toContain("retry: 2000\n\n");
  });

  test.each(["absent", "-", "a%20b", "%2F", "__proto__"])("stream: of the topic %s is 404", async (name) => {
    const reply = await attempt(server.url, `/v0/topics/${name}/stream`);
    expect(reply).toMatchObject(error(404, "topic_not_found"));
    expect(reply.body.error.detail).toEqual({ topic: decodeURIComponent(name) });
    expect((await server.send("HEAD", `/v0/topics/${name}/stream`)).status).toBe(404);
  });

  test("stream: creates no topic", async () => {
    const topic = absentTopic(server);
    await attempt(server.url, pathOf(topic));
    expect((await topic.state()).status).toBe(404);
  });

  test.each(["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])("01.03 %s is 405", async (method) => {
    const topic = await newTopic(server);
    const reply = await server.send(method, pathOf(topic));
    expect(reply).toMatchObject(error(405, "method_not_allowed"));
    expect(reply.headers.get("allow")?.split(/, */).sort()).toEqual(["GET", "HEAD"]);
  });

  test.each(["/stream/", "/stream/x", "/Stream", "/streams", "//stream"])(
    "01.02 the path %s is 404",
    async (suffix) => {
      const topic = await newTopic(server);
      expect(await attempt(server.url, topic.path + suffix)).toMatchObject(error(404, "not_found"));
    },
  );

  test("stream: are 406, 400, 404, 429 in this order", async () => {
    await using own = await startServer({ TOPICS_MAX_SSE_CONNECTIONS: "1" });
    const topic = await newTopic(own);
    await using _only = await open(topic, "", {}, own);
    const absent = absentTopic(own);
    const statusOf = async (path: string, headers?: Record<string, string>) =>
      (await attempt(own.url, path, headers)).status;
    expect(await statusOf(pathOf(absent, "limit=x"), { accept: "text/html" })).toBe(406);
    expect(await statusOf(pathOf(absent, "limit=x"))).toBe(400);
    expect(await statusOf(pathOf(absent))).toBe(404);
    const full = await attempt(own.url, pathOf(topic));
    expect(full).toMatchObject({
      status: 429,
      body: { error: { code: "throttled", detail: { limit: "max_sse_connections", max: 1 } } },
    });
    expect(full.headers.get("retry-after")).toBe("1");
  });

  test("stream: HEAD gets the headers, opens nothing and reads nothing", async () => {
    await using own = await startServer();
    const topic = await newTopic(own);
    const reply = await own.send("HEAD", pathOf(topic));
    expect([reply.status, reply.text]).toEqual([200, ""]);
    expect(Object.fromEntries(reply.headers)).toMatchObject({
      "content-type": "text/event-stream",
      "cache-control": "no-store",
      "x-accel-buffering": "no",
    });
    const { body } = await own.send("GET", "/v0/metrics", undefined, { accept: "application/json" });
    expect([body.sse_connections, body.watch_sessions]).toEqual([0, 0]);
  });
});

describe("Last-Event-ID", () => {
  test("stream: goes on behind each frame, without a gap and without a repetition", async () => {
    const topic = await filled(5);
    await using stream = await open(topic, "limit=2");
    const events = await untilCaughtUp(stream);
    let seen = 0;
    for (const { id, event, body } of events) {
      if (event === "record") seen = body.to_seq;
      await using next = await resume(topic, id!);
      expect(seqsIn(await untilCaughtUp(next))).toEqual(tagged(5).slice(seen));
    }
    expect(seen).toBe(5);
  });

  test("stream: goes on with what was written meanwhile", async () => {
    const topic = await filled(2);
    const { id } = (await beginning(topic)).at(-1)!;
    await topic.append("a", "b");
    const events = await beginning(topic, "", { "last-event-id": id! });
    expect(events[0]!.body).toMatchObject({ from_seq: 2, to_seq: 4 });
    expect(dataIn(events)).toEqual(["a", "b"]);
  });

  test.each(["from_seq=0", "from_seq=3", "from_seq=99", "tail=true", "epoch=0", "tail=1&epoch=0&from_seq=1"])(
    "stream: wins over %s",
    async (query) => {
      const topic = await filled(3);
      const epoch = await epochOf(topic);
      for (const id of [{ [topic.name]: 1 }, { $epochs: { [topic.name]: epoch }, [topic.name]: 1 }]) {
        await using stream = await resume(topic, encoded(id), query);
        const events = await untilCaughtUp(stream);
        expect(names(events)).toEqual(["record", "caught-up"]);
        expect(seqsIn(events)).toEqual([2, 3]);
      }
    },
  );

  test("stream: is no excuse for a bad query", async () => {
    const topic = await newTopic(server);
    const id = encoded({ [topic.name]: 1 });
    expect(await attempt(server.url, pathOf(topic, "from_seq=x"), { "last-event-id": id })).toMatchObject(
      invalid,
    );
  });

  const undecodable: [what: string, id: (name: string) => string][] = [
    ["empty", () => ""],
    ["garbage", () => "!!!"],
    ["no base64", (name) => `{"${name}":1}`],
    ["a plain seq", () => "1"],
    ["padded", (name) => Buffer.from(`{"${name}":1}`.padEnd(31)).toString("base64")],
    [
      "of the other alphabet",
      (name) => Buffer.from(`{"${name}":1,"???>>>???>>>":1}`).toString("base64").replace(/=+$/, ""),
    ],
    ["no JSON", (name) => encoded(`{"${name}":1`)],
    ["an array", () => encoded([1])],
    ["null", () => encoded("null")],
    ["a number", () => encoded("1")],
    ["a string", () => encoded('"x"')],
    ["negative", (name) => encoded({ [name]: -1 })],
    ["a fraction", (name) => encoded({ [name]: 1.5 })],
    ["a double", (name) => encoded(`{"${name}":1.0}`)],
    ["a string as seq", (name) => encoded({ [name]: "1" })],
    ["null as seq", (name) => encoded({ [name]: null })],
    ["above u64", (name) => encoded(`{"${name}":${U64_OVER}}`)],
    ["bad for another topic", (name) => encoded({ [name]: 1, other: -1 })],
    ["with a string as $epochs", (name) => encoded({ $epochs: "x", [name]: 1 })],
    ["with an array as $epochs", (name) => encoded({ $epochs: [1], [name]: 1 })],
    ["with null as $epochs", (name) => encoded({ $epochs: null, [name]: 1 })],
    ["with a string as epoch", (name) => encoded({ $epochs: { [name]: "1" }, [name]: 1 })],
    ["with a fraction as epoch", (name) => encoded({ $epochs: { [name]: 1.5 }, [name]: 1 })],
  ];

  test.each(undecodable)("05.34 that is %s counts as absent", async (_, id) => {
    const topic = await filled(3);
    await using stream = await resume(topic, id(topic.name), "from_seq=2");
    const events = await untilCaughtUp(stream);
    expect(names(events)).toEqual(["record", "caught-up"]);
    expect(seqsIn(events)).toEqual([3]);
  });

  test("05.35 that names other topics only counts as absent", async () => {
    const topic = await filled(3);
    for (const id of [{}, { other: 1 }, { $epochs: { other: 1 }, other: 1 }, { $epochs: {} }]) {
      await using stream = await resume(topic, encoded(id), "from_seq=2");
      expect(seqsIn(await untilCaughtUp(stream))).toEqual([3]);
    }
  });

  test("05.35 may name others, and hold what begins with a dollar", async () => {
    const topic = await filled(3);
    const id = { $x: "whatever", $y: [-1], other: 9, another: 1, [topic.name]: 1 };
    await using stream = await resume(topic, encoded(id), "from_seq=2");
    expect(seqsIn(await untilCaughtUp(stream))).toEqual([2, 3]);
  });

  test("05.36 may lie below the start that was asked for, down to 0", async () => {
    const topic = await filled(3);
    await using stream = await resume(topic, encoded({ [topic.name]: 0 }), "tail=1");
    expect(seqsIn(await untilCaughtUp(stream))).toEqual([1, 2, 3]);
  });

  test("05 section 3.6 below the floor gets a tombstone", async () => {
    const topic = await filled(5, { cap_records: 2 });
    await using stream = await resume(topic, encoded({ [topic.name]: 1 }));
    const [tombstone, record] = await untilCaughtUp(stream);
    expect(tombstone!.body).toMatchObject({ reason: "from_seq_too_old", gap_from: 2, gap_to: 3 });
    expect(record!.body).toMatchObject({ from_seq: 1, records: [{ $seq: 4 }, { $seq: 5 }] });
  });

  test.each(["9", U64_MAX])("05.26 above the head, at %s, gets all again", async (seq) => {
    const topic = await filled(2);
    await using stream = await resume(topic, encoded(`{"${topic.name}":${seq}}`));
    const events = await untilCaughtUp(stream);
    expect(events[0]!.body).toMatchObject({ reason: "from_seq_too_old", gap_from: 1, gap_to: 2 });
    expect(seqsIn(events)).toEqual([1, 2]);
  });

  test.each([
    ["fewer", ["a"]],
    ["as many", ["a", "b"]],
    ["more", ["a", "b", "c"]],
  ])("05.39 P5 of an earlier life, the new one with %s records: all of them", async (_, values) => {
    const topic = await filled(2);
    const { id } = (await beginning(topic)).at(-1)!;
    await topic.drop();
    await topic.append(...values);
    await using stream = await resume(topic, id!);
    const events = await untilCaughtUp(stream);
    expect(names(events)).toEqual(["tombstone", "record", "caught-up"]);
    expect(events[0]!.body).toMatchObject({
      reason: "from_seq_too_old",
      gap_from: 1,
      gap_to: values.length,
      head_seq: values.length,
    });
    expect(dataIn(events)).toEqual(values);
  });

  test("P5 of such a tombstone gets it and all records again", async () => {
    const topic = await filled(2);
    for (const headers of [
      { "last-event-id": encoded({ $epochs: { [topic.name]: 0 }, [topic.name]: 1 }) },
      { "last-event-id": encoded({ [topic.name]: 9 }) },
    ]) {
      let again: Record<string, string> = headers;
      // However often it is cut off right behind the tombstone.
      for (let times = 0; times < 3; times++) {
        const events = await beginning(topic, "", again);
        expect(names(events)).toEqual(["tombstone", "record", "caught-up"]);
        expect(seqsIn(events)).toEqual([1, 2]);
        expect(decoded(events[0]!.id)).toStrictEqual({ $epochs: { [topic.name]: 0 }, [topic.name]: 2 });
        expect(decoded(events[1]!.id).$epochs[topic.name]).toBe(await epochOf(topic));
        again = { "last-event-id": events[0]!.id! };
      }
    }
  });

  test("05.24 of the tombstone of a cap goes on behind the gap", async () => {
    const topic = await filled(5, { cap_records: 2 });
    const [tombstone] = await beginning(topic);
    const events = await beginning(topic, "", { "last-event-id": tombstone!.id! });
    expect(names(events)).toEqual(["record", "caught-up"]);
    expect(seqsIn(events)).toEqual([4, 5]);
  });
});

describe("the end of the topic", () => {
  test("05.37 05.38 is told promptly, and ends the stream", async () => {
    const topic = await filled(2);
    await using stream = await open(topic, "heartbeat_ms=60000");
    const { id } = (await untilCaughtUp(stream)).at(-1)!;
    const { ms } = await timed(async () => {
      await topic.drop();
      const deleted = await stream.event();
      expect(deleted).toMatchObject({ id, event: "topic-deleted" });
      expect(deleted.body).toStrictEqual({ topic: topic.name, head_seq: 0, reason: "deleted" });
    });
    expect(ms).toBeLessThan(1000);
    expect(await stream.rest(1000)).toBe("");
  });

  test("05.40 after it the stream is 404, until the topic is there again", async () => {
    const topic = await filled(2);
    await using stream = await open(topic);
    await untilCaughtUp(stream);
    await topic.drop();
    const { id } = await stream.event();
    const again = { "last-event-id": id! };
    expect(await attempt(server.url, pathOf(topic), again)).toMatchObject(error(404, "topic_not_found"));
    await topic.append("a", "b");
    const events = await beginning(topic, "", again);
    expect(names(events)).toEqual(["tombstone", "record", "caught-up"]);
    expect(dataIn(events)).toEqual(["a", "b"]);
  });

  test.each([
    ["fewer", ["a"]],
    ["as many", ["a", "b"]],
    ["more", ["a", "b", "c"]],
  ])("05.39 and a new one at once, with %s records: a tombstone, then all of them", async (_, values) => {
    const topic = await filled(2);
    await using stream = await open(topic, "heartbeat_ms=60000");
    await untilCaughtUp(stream);
    await topic.drop();
    await topic.append(...values);
    const events = await untilCaughtUp(stream);
    expect(names(events)).toEqual(["tombstone", "record", "caught-up"]);
    expect(events[0]!.body).toMatchObject({ topic: topic.name, reason: "recreated", gap_from: 1 });
    expect(decoded(events[0]!.id)).toMatchObject({ $epochs: { [topic.name]: 0 } });
    expect(dataIn(events)).toEqual(values);
    expect(decoded(events.at(-1)!.id)).toEqual({
      $epochs: { [topic.name]: await epochOf(topic) },
      [topic.name]: values.length,
    });
    await topic.append("live");
    expect(dataIn(await untilCaughtUp(stream))).toEqual(["live"]);
  });

  test("05.38 that loses its records only, is none", async () => {
    const topic = await filled(3);
    await using stream = await open(topic);
    await untilCaughtUp(stream);
    expect((await topic.drop("?if_empty=true")).status).toBe(409);
    await topic.erase({ before_seq: 4 });
    await topic.append("next");
    const events = await untilCaughtUp(stream);
    expect(names(events)).toEqual(["record", "caught-up"]);
    expect(dataIn(events)).toEqual(["next"]);
  });
});

describe("the end of the server", () => {
  test("05.47 is told with `server_shutting_down`, and ends the stream in order", async () => {
    await using spawned = await spawnServer();
    const topic = await newTopic(spawned);
    await topic.append("a");
    const stream = await open(topic, "", {}, spawned);
    const { id } = (await untilCaughtUp(stream)).at(-1)!;
    const stopped = spawned.stop();
    const event = await stream.event();
    expect(event).toMatchObject({ id, event: "error" });
    expect(event.body).toStrictEqual({ code: "server_shutting_down", message: expect.stringMatching(/./) });
    expect(await stream.rest()).toBe("");
    expect(await stopped).toBe(0);
  }, 20_000);
});

describe("keys", () => {
  const guarded = sharedServer({
    TOPICS_API_KEYS: "full,reader:r,writer:w,worker:rw,deleter:d,admin:a,tenant:r:t42:,a b+c:r",
  });
  const full: Sender = {
    get url() {
      return guarded.url;
    },
    send: (method, path, body, headers) =>
      guarded.send(method, path, body, { authorization: "Bearer full", ...headers }),
  };
  const bearer = (key: string) => ({ authorization: `Bearer ${key}` });
  const statusOf = async (path: string, headers?: Record<string, string>) =>
    (await attempt(guarded.url, path, headers)).status;

  test.each([
    ["full", 200],
    ["reader", 200],
    ["worker", 200],
    ["writer", 403],
    ["deleter", 403],
    ["admin", 403],
    ["stranger", 401],
    ["", 401],
  ])("01.39 the key %j gets %d, as a bearer and as a token", async (key, status) => {
    const topic = await newTopic(full);
    const code = { 401: "unauthorized", 403: "forbidden" }[status];
    const replies = [
      await attempt(guarded.url, pathOf(topic), bearer(key)),
      await attempt(guarded.url, pathOf(topic, `token=${key}`)),
    ];
    for (const reply of replies) {
      expect(reply.status).toBe(status);
      if (code) expect(reply.body.error.code).toBe(code);
    }
    expect((await guarded.send("HEAD", pathOf(topic), undefined, bearer(key))).status).toBe(status);
    expect((await guarded.send("HEAD", pathOf(topic, `token=${key}`))).status).toBe(status);
  });

  test("01.30 no key is 401, before everything else", async () => {
    const topic = await newTopic(full);
    for (const path of [pathOf(topic), pathOf(topic, "limit=x"), "/v0/topics/absent/stream"]) {
      expect(await statusOf(path)).toBe(401);
      expect(await statusOf(path, { accept: "application/json" })).toBe(401);
    }
  });

  test("01.36 a missing scope and a foreign name are 403, before everything else", async () => {
    const accept = { accept: "application/json" };
    const topic = await newTopic(full);
    expect(await statusOf(pathOf(topic, "limit=x"), { ...accept, ...bearer("writer") })).toBe(403);
    expect(await statusOf("/v0/topics/absent/stream?limit=x", { ...accept, ...bearer("tenant") })).toBe(403);
    const reply = await attempt(guarded.url, pathOf(topic), bearer("tenant"));
    expect(reply).toMatchObject(error(403, "forbidden"));
    expect(reply.body.error).not.toHaveProperty("detail");
  });

  test("01.36 a name below the prefix is allowed, however it is spelled", async () => {
    const own = absentTopic(full, "t42:x");
    await own.put();
    for (const name of ["t42:x", "t42%3Ax", "%7442:x"]) {
      expect([name, await statusOf(`/v0/topics/${name}/stream`, bearer("tenant"))]).toEqual([name, 200]);
    }
    expect(await statusOf("/v0/topics/t42:absent/stream", bearer("tenant"))).toBe(404);
    for (const name of ["t42", "T42:x", "t4%32", "xt42:"]) {
      expect([name, await statusOf(`/v0/topics/${name}/stream`, bearer("tenant"))]).toEqual([name, 403]);
    }
  });

  test.each([
    ["a wrong bearer is not rescued by a token", "Bearer stranger", "full", 401],
    ["nor is one without the scope", "Bearer writer", "full", 403],
    ["a right bearer is not spoilt by a token", "Bearer full", "stranger", 200],
    ["another scheme counts as none", "Basic eDp5", "full", 200],
    ["a token is decoded", "Basic eDp5", "a%20b%2Bc", 200],
    ["a token is decoded as forms are", "Basic eDp5", "a+b%2Bc", 200],
    ["a token is decoded once", "Basic eDp5", "a%2520b%252Bc", 401],
  ])("01.39 %s", async (_, authorization, token, status) => {
    const topic = await newTopic(full);
    expect(await statusOf(pathOf(topic, `token=${token}`), { authorization })).toBe(status);
  });

  test("01 section 7 the limit of a key counts its streams, and an open one is no request", async () => {
    await using own = await startServer({
      TOPICS_MAX_SSE_CONNECTIONS_PER_KEY: "2",
      TOPICS_MAX_INFLIGHT_PER_KEY: "1",
      TOPICS_API_KEYS: "one,two",
    });
    const one = (method: string, path: string, body?: unknown) => own.send(method, path, body, bearer("one"));
    const topic = await newTopic({ url: own.url, send: one });
    await using first = await open(topic, "", bearer("one"), own);
    await using _second = await open(topic, "token=one", {}, own);
    const refused = await attempt(own.url, pathOf(topic), bearer("one"));
    expect(refused).toMatchObject({
      status: 429,
      body: { error: { code: "throttled", detail: { limit: "max_sse_connections_per_key", max: 2 } } },
    });
    expect(refused.headers.get("retry-after")).toBe("1");
    expect((await one("GET", "/v0/topics")).status).toBe(200);
    await using _other = await open(topic, "", bearer("two"), own);
    await first.close();
    await until(
      async () => (await attempt(own.url, pathOf(topic), bearer("one"))).status,
      (status) => status === 200,
    );
  });
});

describe("the gauges", () => {
  test("01.44 count it as a stream, and not as a session", async () => {
    await using own = await startServer();
    const [topic, doomed] = [await newTopic(own), await newTopic(own)];
    const gauges = async () => {
      const { body } = await own.send("GET", "/v0/metrics", undefined, { accept: "application/json" });
      const { text } = await own.send("GET", "/v0/metrics");
      const [, said] = /^topics_sse_connections (\d+)$/m.exec(text) ?? [];
      return [Number(said), body.sse_connections, body.watch_sessions];
    };
    const reaches = (n: number) => until(gauges, (found) => Bun.deepEquals(found, [n, n, 0]));
    expect(await gauges()).toEqual([0, 0, 0]);
    const stream = await open(topic, "", {}, own);
    await using ended = await open(doomed, "", {}, own);
    expect(await gauges()).toEqual([2, 2, 0]);
    await attempt(own.url, pathOf(topic, "limit=x"));
    expect(await gauges()).toEqual([2, 2, 0]);
    await doomed.drop();
    await ended.rest();
    await reaches(1);
    await stream.close();
    await reaches(0);
  });

  test("01.44 fall when a client breaks off", async () => {
    await using own = await startServer({ TOPICS_MAX_SSE_CONNECTIONS: "1" });
    const topic = await newTopic(own);
    using socket = new RawSocket(own.url);
    await socket.write(`GET ${pathOf(topic)} HTTP/1.1\r\nHost: test\r\n\r\n`);
    await socket.until((received) => received.includes("retry: 2000\n\n"));
    expect((await attempt(own.url, pathOf(topic))).status).toBe(429);
    await socket.reset();
    await until(
      async () => (await attempt(own.url, pathOf(topic))).status,
      (status) => status === 200,
    );
  });
});
