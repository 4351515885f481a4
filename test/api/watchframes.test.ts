/** What a watch stream says: its bytes, its events, how records are put into frames, and which topic comes first. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { type EventStream, eventIn, type StreamEvent } from "../support/eventstream.ts";
import { elements, members } from "../support/rawjson.ts";
import { newTopic, sharedServer, type Topic, timed } from "../support/topics.ts";
import {
  appendFrom,
  cursorIn,
  cursorText,
  epochOf,
  eventsTo,
  eventsUntil,
  fill,
  filledTopic,
  namesIn,
  newSession,
  recordsIn,
  tell,
  textsIn,
  told,
  topicNamed,
  watch,
  watchLive,
} from "../support/watch.ts";

setDefaultTimeout(20_000);

const server = sharedServer();

const RETRY = "retry: 2000\n\n";
const BEAT = ": : hb\n\n";
const EVENT =
  /^id: [A-Za-z0-9_-]+\nevent: (record|tombstone|caught-up|topic-deleted)\n(data: [^\r\n]*\n)+\n$/;

/** `n` times the same value. */
const times = <T>(n: number, value: T): T[] => Array.from({ length: n }, () => value);

const filled = (n: number, config?: object): Promise<Topic> => filledTopic(server, n, config);

/** How many records each frame holds until the topic is caught up at `head`. */
async function sizes(stream: EventStream, topic: Topic, head: number): Promise<number[]> {
  const events = await eventsTo(stream, topic, head);
  const last = events.pop();
  expect(last?.body.head_seq).toBe(head);
  return events.map(({ body }) => body.records.length);
}

describe("the bytes", () => {
  test("05.15 has the headers of a stream", async () => {
    const { path } = await newSession(server, [await filled(1)]);
    const response = await fetch(server.url + path, { headers: { "accept-encoding": "gzip, br, zstd" } });
    await response.body?.cancel();
    expect(response.status).toBe(200);
    expect(response.headers.get("content-type")).toMatch(/^text\/event-stream(;|$)/);
    expect(response.headers.get("cache-control")).toBe("no-store");
    expect(response.headers.get("x-accel-buffering")).toBe("no");
    expect(response.headers.get("content-length")).toBeNull();
    expect(response.headers.get("content-encoding")).toBeNull();
  });

  test("05.16 says retry first and once, on every connection", async () => {
    const topic = await filled(1);
    const session = await newSession(server, [topic]);
    for (const said of [[`${topic.name} 1`, `${topic.name} at 1`], [`${topic.name} at 1`]]) {
      await using stream = await session.open();
      expect(await stream.block()).toBe(RETRY);
      expect(await tell(stream, said.length)).toEqual(said);
      await topic.erase({ before_seq: 1 });
      expect(stream.received.match(/retry/g)).toHaveLength(1);
    }
  });

  test("3.3 is retry, then events and heartbeats, and nothing else", async () => {
    const [boats, trams] = [await newTopic(server), await filled(1)];
    const node = { node: "n1", tag: "a", meta: { k: "v" } };
    await boats.write({ records: [{ data: { n: 1 }, ...node }, { data: 2 }] });
    const watched = { [boats.name]: { from_seq: 0 }, [trams.name]: { tail: true } };
    await using stream = await watch(server, watched, { include_tags: true, heartbeat_ms: 1000 });
    const blocks: string[] = [];
    /** Reads on, over heartbeats that come between, until so many other blocks have come. */
    const read = async (events: number) => {
      for (let left = events; left > 0; left -= blocks.at(-1) === BEAT ? 0 : 1)
        blocks.push(await stream.block());
    };
    await read(4);
    blocks.push(await stream.block());
    const quiet = blocks.at(-1);
    await trams.append({ a: 1 });
    await read(2);

    expect(blocks[0]).toBe(RETRY);
    expect(quiet).toBe(BEAT);
    const events = blocks.slice(1).filter((block) => block !== BEAT);
    for (const block of events) expect(block).toMatch(EVENT);
    expect(stream.received).toBe(blocks.join(""));
    expect(events.map((block) => told(eventIn(block)!))).toEqual([
      `${boats.name} 1 2`,
      `${boats.name} at 2`,
      `${trams.name} at 1`,
      `${trams.name} 2`,
      `${trams.name} at 2`,
    ]);
  });

  test("3.3 every event has exactly its members", async () => {
    const [topic, other] = [await filled(4, { cap_records: 3 }), await newTopic(server)];
    await using stream = await watch(server, [topic, other]);
    const [tombstone, record, caughtUp] = (await stream.events(4)) as [StreamEvent, StreamEvent, StreamEvent];
    await topic.drop();
    const deleted = await stream.event();

    expect([tombstone, record, caughtUp, deleted].map(({ event }) => event)).toEqual([
      "tombstone",
      "record",
      "caught-up",
      "topic-deleted",
    ]);
    expect(tombstone.body).toStrictEqual({
      topic: topic.name,
      reason: "from_seq_too_old",
      gap_from: 1,
      gap_to: 1,
      earliest_seq: 2,
      head_seq: 4,
    });
    expect(record.body).toStrictEqual({
      topic: topic.name,
      records: [2, 3, 4].map((n) => ({ $seq: n, $ts: expect.any(Number), data: n })),
      from_seq: 0,
      to_seq: 4,
      head_seq: 4,
    });
    expect(caughtUp.body).toStrictEqual({ topic: topic.name, head_seq: 4 });
    expect(deleted.body).toStrictEqual({ topic: topic.name, head_seq: 0, reason: "deleted" });
  });
});

describe("P1 a payload", () => {
  const texts = [
    "null",
    "true",
    '""',
    "-0",
    "1.0",
    "1E+2",
    "12345678901234567890123",
    "0.1000000000000000055511151231257827",
    "[ ]",
    '{ "b" : 1,"a":2 ,\t"b":[1 ,2] }',
    '"\\u00e9\\/\\ud83d\\ude00 é😀"',
    '"\\u0000\\u001f\u007f"',
    '"\u0085\u2028\u2029\ufeff"',
    '": : hb\\n\\nevent: error\\ndata: {}\\r\\n"',
    '{"$seq":7,"data":{"data":"]}"},"":[{},"\\\\"]}',
    "[".repeat(100) + "]".repeat(100),
    `"${"é".repeat(100_000)}"`,
  ];
  const body = (payloads: readonly string[]) =>
    `{"records":[${payloads.map((text) => `{"data":${text},"meta":[${text}]}`).join(",")}]}`;
  const metas = (payloads: readonly string[]) => payloads.map((text) => `[${text}]`);
  const small = texts.slice(0, -1);

  test("comes back byte for byte from the backlog", async () => {
    const topic = await newTopic(server);
    expect((await topic.write(body(small))).status).toBe(200);
    await using stream = await watch(server, [topic]);
    const event = await stream.event();
    expect(textsIn(event, "data")).toEqual(small);
    expect(textsIn(event, "meta")).toEqual(metas(small));
  });

  test("comes back byte for byte live", async () => {
    const topic = await newTopic(server);
    await using stream = await watchLive(server, [topic]);
    for (const text of small) {
      expect((await topic.write(body([text]))).status).toBe(200);
      const [event] = (await stream.events(2)) as [StreamEvent];
      expect(textsIn(event, "data")).toEqual([text]);
      expect(textsIn(event, "meta")).toEqual(metas([text]));
    }
  });

  test.each(["backlog", "live"])("of a megabyte comes back whole: %s", async (when) => {
    const topic = await newTopic(server);
    const data = `["${"x".repeat(400_000)}",\n"${"é\\n".repeat(150_000)}"]`;
    const write = async () =>
      expect((await topic.write(`{"records":[{"data":${data}},{"data":1}]}`)).status).toBe(200);
    if (when === "backlog") await write();
    await using stream = await (when === "live" ? watchLive(server, [topic]) : watch(server, [topic]));
    if (when === "live") await write();
    const records = (await eventsTo(stream, topic, 2)).slice(0, -1);
    expect(records.flatMap((event) => textsIn(event, "data"))).toEqual([data, "1"]);
  });

  const broken = [
    ["lines", '{\n  "a": [\n    1,\n    2\n  ]\n}', 5],
    ["CRLF", "[1,\r\n2]", 1],
    ["CR", "[1,\r2]", 1],
    ["empty lines", "[\n\n\n1\n]", 4],
    ["LF and CR", "[1,\n\r2]", 2],
    ["CR and CRLF", "[1,\r\r\n2]", 2],
    ["a line that starts with a colon", '{"a"\n:1}', 1],
    ["a line that starts with spaces", "[1,\n   2,\n\t3]", 2],
  ] as const;

  test.each(broken)("with %s between its tokens has a data line for each", async (_, text, breaks) => {
    const topic = await newTopic(server);
    expect((await topic.write(body([text]))).status).toBe(200);
    await using stream = await watch(server, [topic], { include_meta: false });
    await stream.block();
    const block = await stream.block();
    const event = eventIn(block)!;

    expect(block).toMatch(EVENT);
    expect(block.match(/^data: /gm)).toHaveLength(1 + breaks);
    expect(textsIn(event, "data")).toEqual([text.replace(/\r\n?/g, "\n")]);
  });

  test.each(broken)("with %s has them live and in meta, too", async (_, text) => {
    const topic = await newTopic(server);
    await using stream = await watchLive(server, [topic]);
    expect((await topic.write(body([text, "1"]))).status).toBe(200);
    const event = await stream.event();
    const received = text.replace(/\r\n?/g, "\n");
    expect(textsIn(event, "data")).toEqual([received, "1"]);
    expect(textsIn(event, "meta")).toEqual([`[${received}]`, "[1]"]);
  });
});

describe("a backlog", () => {
  test("05.19 is a record frame, then caught-up; both ids hold the whole map", async () => {
    const [boats, trams] = [await topicNamed(server, "boats"), await topicNamed(server, "trams")];
    await fill(boats, 2);
    await fill(trams, 1);
    const watched = { trams: { tail: true }, boats: { from_seq: 0 } };
    await using stream = await watch(server, watched);
    const [record, caughtUp, other] = (await stream.events(3)) as [StreamEvent, StreamEvent, StreamEvent];
    const epochs = { boats: await epochOf(boats), trams: await epochOf(trams) };

    expect(record.body).toMatchObject({ topic: "boats", from_seq: 0, to_seq: 2, head_seq: 2 });
    expect(recordsIn([record])).toMatchObject([
      { $seq: 1, data: 1 },
      { $seq: 2, data: 2 },
    ]);
    expect(told(caughtUp)).toBe("boats at 2");
    expect(told(other)).toBe("trams at 1");
    for (const { id } of [record, caughtUp, other]) {
      expect(id).toMatch(/^[A-Za-z0-9_-]+$/);
      expect(Buffer.from(id!, "base64url").toString()).toBe(cursorText(epochs, { boats: 2, trams: 1 }));
    }
  });

  test("05.19 from_seq, to_seq and id of each frame follow from the one before", async () => {
    const topic = await filled(7);
    await using stream = await watch(server, { [topic.name]: { from_seq: 1 } }, { limit: 2 });
    const events = await eventsTo(stream, topic, 7);
    expect(events.map(told)).toEqual(["2 3", "4 5", "6 7", "at 7"].map((said) => `${topic.name} ${said}`));
    const frames = events.slice(0, -1).map(({ body }) => [body.from_seq, body.to_seq, body.head_seq]);
    expect(frames).toEqual([
      [1, 3, 7],
      [3, 5, 7],
      [5, 7, 7],
    ]);
    expect(events.map((event) => cursorIn(event).seqs[topic.name])).toEqual([3, 5, 7, 7]);
  });

  test("05.20 that is empty is only caught-up, also of an empty topic", async () => {
    const [topic, empty] = [await filled(3), await newTopic(server)];
    const watched = { [topic.name]: { from_seq: 3 }, [empty.name]: {} };
    await using stream = await watch(server, watched);
    const said = await stream.events(2);
    expect(said.map(told).sort()).toEqual([`${topic.name} at 3`, `${empty.name} at 0`].sort());
    for (const event of said) expect(cursorIn(event).seqs).toEqual({ [topic.name]: 3, [empty.name]: 0 });
  });

  test("3.3 to_seq is the last seq examined: behind the last record where deleted ones follow", async () => {
    const topic = await newTopic(server);
    await topic.write({ records: ["a", "a", "b", "b"].map((tag, n) => ({ data: n, tag })) });
    await topic.erase({ match: "b" });
    await using stream = await watch(server, [topic]);
    const [record, caughtUp] = (await stream.events(2)) as [StreamEvent, StreamEvent];
    expect(record.body).toMatchObject({ records: [{ $seq: 1 }, { $seq: 2 }], to_seq: 4, head_seq: 4 });
    expect(cursorIn(record).seqs).toEqual({ [topic.name]: 4 });
    expect(told(caughtUp)).toBe(`${topic.name} at 4`);
  });
});

describe("live", () => {
  test("05.20 a batch comes whole, and behind each batch a fresh caught-up", async () => {
    const topic = await newTopic(server);
    await using stream = await watchLive(server, [topic]);
    await topic.append(1, 2, 3);
    expect(await tell(stream, 2)).toEqual([`${topic.name} 1 2 3`, `${topic.name} at 3`]);
    await topic.append(4);
    const [record, caughtUp] = (await stream.events(2)) as [StreamEvent, StreamEvent];
    expect(record.body).toMatchObject({ from_seq: 3, to_seq: 4, head_seq: 4, records: [{ data: 4 }] });
    expect(caughtUp.body).toEqual({ topic: topic.name, head_seq: 4 });
    expect([record, caughtUp].map((event) => cursorIn(event).seqs[topic.name])).toEqual([4, 4]);
  });

  test("3.5 every write comes at once, a heartbeat is not needed", async () => {
    const topic = await newTopic(server);
    await using stream = await watchLive(server, [topic], { heartbeat_ms: 60000 });
    for (let n = 1; n <= 100; n++) {
      await topic.append(n);
      expect(await tell(stream, 2)).toEqual([`${topic.name} ${n}`, `${topic.name} at ${n}`]);
    }
  });

  test("3.3 a topic that the session does not name is not heard of", async () => {
    const [topic, other] = [await newTopic(server), await newTopic(server)];
    await using stream = await watchLive(server, [topic]);
    await other.append(1);
    await topic.append(1);
    await other.append(2);
    await topic.append(2);
    const events = await eventsTo(stream, topic, 2);
    for (const event of events) {
      expect(event.body.topic).toBe(topic.name);
      expect(Object.keys(cursorIn(event).seqs)).toEqual([topic.name]);
    }
  });

  test("3.5 busy writers: every record once, in order, and caught up at the end", async () => {
    const topics = [await newTopic(server), await newTopic(server)] as const;
    await using stream = await watchLive(server, topics, { heartbeat_ms: 60000 });
    const writes = Array.from({ length: 400 }, (_, n) => topics[n % 2]!.append(n));
    await Promise.all(writes);
    const ends = new Set<string>();
    const events = await eventsUntil(stream, ({ event, body }) => {
      if (event === "caught-up" && body.head_seq === 200) ends.add(body.topic);
      return ends.size === 2;
    });
    for (const { name } of topics) {
      const records = recordsIn(events.filter(({ body }) => body.topic === name));
      expect(records.map(({ $seq }) => $seq)).toEqual(times(200, 0).map((_, i) => i + 1));
    }
  });
});

describe("a record", () => {
  const everything = { data: { n: 1 }, tag: "t", node: "n1", meta: { k: "v" } };
  const empty = { data: 0, tag: "", node: "", meta: {} };
  const bare = { data: null };
  const whole = { $node: "n1", $tag: "t", data: { n: 1 }, meta: { k: "v" } };
  const { $tag: _, ...untagged } = whole;
  const { meta: __, ...withoutMeta } = untagged;
  const { data: ___, ...withoutData } = untagged;

  test.each<[string, object, object[]]>([
    ["by default has no $tag", {}, [untagged, { $node: "", data: 0, meta: {} }, bare]],
    [
      "include_tags adds $tag",
      { include_tags: true },
      [whole, { $node: "", $tag: "", data: 0, meta: {} }, bare],
    ],
    [
      "include_meta:false takes meta away",
      { include_meta: false },
      [withoutMeta, { $node: "", data: 0 }, bare],
    ],
    [
      "include_data:false takes data away",
      { include_data: false },
      [withoutData, { $node: "", meta: {} }, {}],
    ],
    [
      "all flags together",
      { include_data: false, include_meta: false, include_tags: true },
      [{ $node: "n1", $tag: "t" }, { $node: "", $tag: "" }, {}],
    ],
  ])("05.21 %s", async (_, options, expected) => {
    const topic = await newTopic(server);
    await topic.write({ records: [everything, empty, bare] });
    const { records } = (await topic.diff()).body;
    await using stream = await watch(server, [topic], options);
    const backlog = recordsIn(await stream.events(2));
    await topic.write({ records: [everything, empty, bare] });
    const live = recordsIn(await stream.events(2));

    const $ts = records[0].$ts;
    expect(backlog).toStrictEqual(expected.map((members, i) => ({ $seq: i + 1, $ts, ...members })));
    expect(live).toStrictEqual(
      expected.map((members, i) => ({ $seq: i + 4, $ts: expect.any(Number), ...members })),
    );
  });

  test("05.21 no two streams of one topic spoil each other's view", async () => {
    const topic = await newTopic(server);
    const views = [{ include_tags: true }, { include_data: false }, { include_meta: false }, {}];
    const streams = await Promise.all(views.map((view) => watchLive(server, [topic], view)));
    await topic.write({ records: [everything] });
    const seen: string[][] = [];
    for (const stream of streams) {
      const { data } = await stream.event();
      const [record] = elements(members(data).get("records")!);
      seen.push(namesIn(record!).sort());
      await stream.close();
    }
    expect(seen).toEqual([
      ["$node", "$seq", "$tag", "$ts", "data", "meta"],
      ["$node", "$seq", "$ts", "meta"],
      ["$node", "$seq", "$ts", "data"],
      ["$node", "$seq", "$ts", "data", "meta"],
    ]);
  });
});

describe("the size of frames", () => {
  test.each([
    [{}, [...times(5, 256), 220]],
    [{ limit: 0 }, [...times(5, 256), 220]],
    [{ limit: 700 }, [700, 700, 100]],
    [{ limit: 1000 }, [1000, 500]],
    [{ limit: 5000 }, [1000, 500]],
    [{ limit: 4294967295 }, [1000, 500]],
    [{ limit: 1 }, times(1500, 1)],
  ])("05.22 1500 records with %j", async (options, expected) => {
    const topic = await filled(1500);
    await using stream = await watch(server, [topic], options);
    expect(await sizes(stream, topic, 1500)).toEqual(expected);
  });

  test("05.22 a live batch of 1500 is cut in the same way", async () => {
    const topic = await newTopic(server);
    await using stream = await watchLive(server, [topic], { limit: 700 });
    await fill(topic, 1500);
    expect(await sizes(stream, topic, 1500)).toEqual([700, 700, 100]);
  });

  const thousand = `"${"x".repeat(998)}"`;
  const wide = `"${"é".repeat(499)}"`;
  const spaced = `[${" ".repeat(998)}]`;

  test.each([
    ["2500", 2500, thousand, 2],
    ["2000, exactly two", 2000, thousand, 2],
    ["1999, one less", 1999, thousand, 1],
    ["1", 1, thousand, 1],
    ["2000 of UTF-8", 2000, wide, 2],
    ["2000 of white space", 2000, spaced, 2],
    ["1999 of UTF-8", 1999, wide, 1],
  ])("05.23 payloads of 1000 bytes with max_batch_bytes %s", async (_, max_batch_bytes, data, per) => {
    const topic = await newTopic(server);
    const write = () => topic.write(`{"records":[${times(6, `{"data":${data}}`)}]}`);
    expect((await write()).status).toBe(200);
    await using stream = await watch(server, [topic], { max_batch_bytes });
    expect(await sizes(stream, topic, 6)).toEqual(times(6 / per, per));
    await write();
    expect(await sizes(stream, topic, 12)).toEqual(times(6 / per, per));
  });

  test.each([
    [1500, 3],
    [1499, 2],
  ])("05.23 meta counts, tag and node do not: max_batch_bytes %i", async (max_batch_bytes, per) => {
    const topic = await newTopic(server);
    const record = {
      data: "x".repeat(248),
      meta: "y".repeat(248),
      tag: "t".repeat(200),
      node: "n".repeat(100),
    };
    await topic.write({ records: times(6, record) });
    await using stream = await watch(server, [topic], { max_batch_bytes });
    expect(await sizes(stream, topic, 6)).toEqual(times(6 / per, per));
  });

  test.each([
    ["256 KiB by default", {}, 100_000, 2],
    ["1 MiB for 0", { max_batch_bytes: 0 }, 100_000, 10],
  ])("05.23 %s", async (_, options, bytes, per) => {
    const topic = await newTopic(server);
    await topic.append(...times(2 * per, "x".repeat(bytes - 2)));
    await using stream = await watch(server, [topic], options);
    expect(await sizes(stream, topic, 2 * per)).toEqual([per, per]);
  });

  test("05.23 8 MiB at most", async () => {
    const topic = await newTopic(server);
    for (let n = 0; n < 9; n++) await topic.append("x".repeat(1_000_000));
    await using stream = await watch(server, [topic], { max_batch_bytes: 1_000_000_000 });
    expect(await sizes(stream, topic, 9)).toEqual([8, 1]);
  });
});

describe("05.28 the node filter", () => {
  test("takes own records out, and to_seq passes them", async () => {
    const topic = await newTopic(server);
    await appendFrom(topic, "own", null, "other", "own", "own");
    await using stream = await watch(server, [topic], { node: "own" });
    const [record, caughtUp] = (await stream.events(2)) as [StreamEvent, StreamEvent];
    expect(record.body).toMatchObject({ from_seq: 0, to_seq: 5, head_seq: 5 });
    expect(recordsIn([record]).map(({ $seq }) => $seq)).toEqual([2, 3]);
    expect(told(caughtUp)).toBe(`${topic.name} at 5`);
    expect(cursorIn(caughtUp).seqs).toEqual({ [topic.name]: 5 });
  });

  test("that leaves nothing gives only caught-up", async () => {
    const topic = await newTopic(server);
    await appendFrom(topic, "own", "own");
    await using stream = await watch(server, [topic], { node: "own" });
    const event = await stream.event();
    expect(told(event)).toBe(`${topic.name} at 2`);
    expect(cursorIn(event).seqs).toEqual({ [topic.name]: 2 });
  });

  test.each<[unknown, number[]]>([
    [null, [1, 2, 3, 4, 5]],
    [[], [1, 2, 3, 4, 5]],
    ["", [1, 2, 3, 5]],
    ["n1", [2, 3, 4, 5]],
    ["N1", [1, 2, 3, 4, 5]],
    ["n*", [1, 2, 3, 4, 5]],
    [
      ["n1", "é"],
      [3, 4, 5],
    ],
    [
      ["", "e\u0301", "n1"],
      [2, 3, 5],
    ],
  ])("%j leaves %j", async (node, left) => {
    const topic = await newTopic(server);
    await appendFrom(topic, "n1", "é", "other", "", null);
    await using stream = await watch(server, [topic], { node });
    const events = await eventsTo(stream, topic, 5);
    expect(recordsIn(events).map(({ $seq }) => $seq)).toEqual(left);
  });

  test("fills a frame across filtered records, but does not skip those behind the limit", async () => {
    const topic = await newTopic(server);
    await appendFrom(topic, "a", "own", "own", "b", "own", "c", "own");
    await using stream = await watch(server, [topic], { node: "own", limit: 2 });
    const events = await eventsTo(stream, topic, 7);
    expect(events.map(told)).toEqual(["1 4", "6", "at 7"].map((said) => `${topic.name} ${said}`));
    expect(events.map(({ body }) => [body.from_seq, body.to_seq])).toEqual([
      [0, 4],
      [4, 7],
      [undefined, undefined],
    ]);
  });

  test("05.29 has no effect on a topic with dedupe_node:false", async () => {
    const [deaf, plain] = [await newTopic(server, { dedupe_node: false }), await newTopic(server)];
    for (const topic of [deaf, plain]) await appendFrom(topic, "own", "other");
    await using stream = await watch(server, [deaf, plain], { node: ["own"] });
    const backlog = [...(await eventsTo(stream, deaf, 2)), ...(await eventsTo(stream, plain, 2))];
    await appendFrom(deaf, "own");
    const live = await eventsTo(stream, deaf, 3);
    expect(backlog.map(told)).toEqual([
      `${deaf.name} 1 2`,
      `${deaf.name} at 2`,
      `${plain.name} 2`,
      `${plain.name} at 2`,
    ]);
    expect(live.map(told)).toEqual([`${deaf.name} 3`, `${deaf.name} at 3`]);
  });

  test("05.31 an own record gives no frame live, and the next frame starts behind it", async () => {
    const [topic, other] = [await newTopic(server), await newTopic(server)];
    await using stream = await watchLive(server, [topic, other], { node: "own" });
    await appendFrom(topic, "other", "own");
    const [first] = (await stream.events(2)) as [StreamEvent];
    await appendFrom(topic, "own");
    // The id of another topic's frame tells when the stream has passed it.
    const events: StreamEvent[] = [];
    for (let n = 1; n < 100; n++) {
      await other.append(n);
      events.push(...(await eventsTo(stream, other, n)));
      if (cursorIn(events.at(-1)!).seqs[topic.name] === 3) break;
    }
    await appendFrom(topic, "other");
    const [next] = (await stream.events(2)) as [StreamEvent];

    expect(first.body).toMatchObject({ from_seq: 0, to_seq: 2, head_seq: 2 });
    for (const { body } of events) expect(body.topic).toBe(other.name);
    expect(cursorIn(events.at(-1)!).seqs[topic.name]).toBe(3);
    expect(next.body).toMatchObject({ from_seq: 3, to_seq: 4, head_seq: 4, records: [{ $seq: 4 }] });
  });
});

describe.concurrent("05.32 heartbeats", () => {
  /** A stream that is asked for a heartbeat every millisecond and gets one every second. */
  const beating = async () => {
    const topic = await topicNamed(server, `beats-${crypto.randomUUID()}`);
    return { topic, stream: await watchLive(server, [topic], { heartbeat_ms: 1 }) };
  };

  test("come about every second while nothing happens, and have no id", async () => {
    const { stream: opened } = await beating();
    await using stream = opened;
    for (let beat = 0; beat < 3; beat++) {
      const { ms, answer } = await timed(() => stream.block());
      expect(answer).toBe(BEAT);
      expect(ms).toBeGreaterThan(800);
      expect(ms).toBeLessThan(2000);
    }
  });

  test("do not come on a busy stream, and start again behind its last event", async () => {
    const { topic, stream: opened } = await beating();
    await using stream = opened;
    const end = performance.now() + 2500;
    let written = 0;
    while (performance.now() < end) {
      await topic.append(++written);
      await eventsTo(stream, topic, written);
      await Bun.sleep(300);
    }
    expect(stream.received).not.toContain("hb");
    expect(await stream.block()).toBe(BEAT);
  });

  test("do not come early where they are asked for less often", async () => {
    const topic = await topicNamed(server, "seldom-beats");
    await using stream = await watchLive(server, [topic], { heartbeat_ms: 2000 });
    const { ms, answer } = await timed(() => stream.block());
    expect(answer).toBe(BEAT);
    expect(ms).toBeGreaterThan(1800);
    expect(ms).toBeLessThan(3000);
  });

  test("come after own records, which give no frame", async () => {
    const topic = await topicNamed(server, "own-beats");
    await using stream = await watchLive(server, [topic], { heartbeat_ms: 1000, node: "own" });
    await appendFrom(topic, "own");
    expect(await stream.block()).toBe(BEAT);
    await appendFrom(topic, "other");
    expect(await tell(stream, 2)).toEqual([`${topic.name} 2`, `${topic.name} at 2`]);
  });
});

describe("the id", () => {
  test("3.4 has every topic of the session, in the order of their bytes, behind their epochs", async () => {
    const names = [
      "10",
      "9",
      "1",
      "a",
      "B",
      "a-b",
      "a.b",
      "a0",
      "a:b",
      "a_b",
      "ab",
      "constructor",
      "toString",
    ];
    for (const name of names) await fill(await topicNamed(server, name), 1);
    const session = await newSession(server, Object.fromEntries(names.map((name) => [name, {}])));
    await using stream = await session.open();
    const events = await stream.events(2 * names.length);
    const text = Buffer.from(events.at(-1)!.id!, "base64url").toString();
    const sorted = [
      "1",
      "10",
      "9",
      "B",
      "a",
      "a-b",
      "a.b",
      "a0",
      "a:b",
      "a_b",
      "ab",
      "constructor",
      "toString",
    ];
    const epochs = sorted.map((name) => `"${name}":${session.topics[name]!.epoch}`);
    const seqs = sorted.map((name) => `"${name}":1`);

    expect(text).toBe(`{"$epochs":{${epochs}},${seqs}}`);
    for (const event of events) expect(namesIn(textOf(event))).toEqual(["$epochs", ...sorted]);
  });

  const textOf = ({ id }: StreamEvent) => Buffer.from(id!, "base64url").toString();

  test("3.4 has a topic's new epoch once it was created again", async () => {
    const topic = await filled(2);
    const old = await epochOf(topic);
    const session = await newSession(server, [topic]);
    await topic.drop();
    await fill(topic, 1);
    await using stream = await session.open();
    const last = (await eventsTo(stream, topic, 1)).at(-1)!;
    const { epochs, seqs } = cursorIn(last);
    expect(epochs).toEqual({ [topic.name]: await epochOf(topic) });
    expect(epochs[topic.name]).not.toBe(old);
    expect(seqs).toEqual({ [topic.name]: 1 });
  });

  test("3.4 of a session with 256 topics has all of them", async () => {
    const names = Array.from({ length: 256 }, (_, i) => `many-${i}`);
    const topics = await Promise.all(names.map((name) => topicNamed(server, name)));
    await using stream = await watch(server, topics);
    const events = await stream.events(256);
    expect(events.map(({ body }) => body.topic)).toEqual([...names].sort());
    for (const event of [events[0]!, events.at(-1)!]) {
      const { epochs, seqs } = cursorIn(event);
      expect(Object.keys(seqs).sort()).toEqual([...names].sort());
      expect(Object.keys(epochs).sort()).toEqual([...names].sort());
    }
  });
});

describe("the order of topics", () => {
  test("3.5 is that of their names' bytes, whoever was written or read last", async () => {
    const names = ["o10", "o9", "oZ", "o-", "o.", "o:", "o_", "oa", "oA"];
    const topics = await Promise.all(names.map((name) => topicNamed(server, name)));
    for (const topic of topics) await fill(topic, 1);
    for (const topic of topics) await topic.diff();
    await using stream = await watch(server, topics);
    const sorted = ["o-", "o.", "o10", "o9", "o:", "oA", "oZ", "o_", "oa"];
    expect(await tell(stream, 18)).toEqual(sorted.flatMap((name) => [`${name} 1`, `${name} at 1`]));
  });

  test("is first that of their priority, where null is 0", async () => {
    const priorities: [string, number | null][] = [
      ["p-most", 2147483647],
      ["p-more", 1001],
      ["p-much", 1000],
      ["p-a", 1],
      ["p-null-a", null],
      ["p-null-b", 0],
      ["p-null-c", null],
      ["p-0", -1],
      ["p-1", -2147483648],
    ];
    for (const [name, priority] of priorities) await fill(await topicNamed(server, name, { priority }), 1);
    const watched = Object.fromEntries([...priorities].reverse().map(([name]) => [name, {}]));
    await using stream = await watch(server, watched);
    expect(await tell(stream, 18)).toEqual(priorities.flatMap(([name]) => [`${name} 1`, `${name} at 1`]));
  });

  test("gives the others a turn behind 16 frames of one topic", async () => {
    const [first, second] = [
      await topicNamed(server, "turn-z", { priority: 9 }),
      await topicNamed(server, "turn-a"),
    ];
    for (const topic of [first, second]) await fill(topic, 40);
    await using stream = await watch(server, [first, second], { limit: 1 });
    const events = await stream.events(82);
    const turns: [string, number][] = [];
    for (const { body } of events) {
      const turn = turns.at(-1);
      if (turn && turn[0] === body.topic) turn[1]++;
      else turns.push([body.topic, 1]);
    }

    expect(turns).toEqual([
      ["turn-z", 16],
      ["turn-a", 16],
      ["turn-z", 16],
      ["turn-a", 16],
      ["turn-z", 9],
      ["turn-a", 9],
    ]);
    for (const { name } of [first, second]) {
      const own = events.filter(({ body }) => body.topic === name);
      expect(recordsIn(own).map(({ $seq }) => $seq)).toEqual(times(40, 0).map((_, i) => i + 1));
      expect(told(own.at(-1)!)).toBe(`${name} at 40`);
    }
  });

  test("3.5 a topic that is flooded holds back no other one", async () => {
    const [flooded, quiet] = [await topicNamed(server, "flood-a"), await topicNamed(server, "flood-b")];
    await using stream = await watchLive(server, [flooded, quiet], { limit: 1, heartbeat_ms: 60000 });
    let flooding = true;
    const flood = (async () => {
      while (flooding) await flooded.append(...times(50, "x"));
    })();
    try {
      await quiet.append("here");
      const events = await eventsUntil(stream, ({ body }) => body.topic === quiet.name);
      expect(told(events.at(-1)!)).toBe(`${quiet.name} 1`);
    } finally {
      flooding = false;
      await flood;
    }
  });
});
