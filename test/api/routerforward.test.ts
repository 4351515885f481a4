/**
 * Forwarding: which records a router copies, what a copy is, in which order copies come and whom they wake.
 *
 * A diff and a state of the dest bring it up to date, so a test that reads right behind a write waits for nothing.
 * Where a test is about the background, it looks at the list of topics, which brings nothing up to date.
 */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { members, payloads } from "../support/rawjson.ts";
import {
  eventually,
  listed,
  listedCount,
  newChain,
  newRoute,
  newRouter,
  range,
  read,
  values,
} from "../support/router.ts";
import {
  column,
  newTopic,
  seqs,
  sharedServer,
  type Topic,
  taggedTopic,
  timed,
  together,
  until,
} from "../support/topics.ts";

setDefaultTimeout(20_000);

const server = sharedServer();

/** Appends one record for each tag; `data` is the tag, null where there is none. */
const appendTags = (topic: Topic, ...tags: (string | null)[]) =>
  topic.write({ records: tags.map((tag) => ({ data: tag, tag })) });

describe("filters", () => {
  const tags = [null, "", "a", "a*", "a*b", "a*bc", "ab", "A", "b", "*", "*a", "a?", "\u00e9", "\u00e9x"];

  test.each<[unknown, unknown[]]>([
    [null, tags],
    ["*", tags.filter((tag) => tag !== null)],
    [["tag", "Glob", "*"], tags.filter((tag) => tag !== null)],
    ["", [""]],
    [["tag", "Eq", ""], [""]],
    ["a", ["a"]],
    [["tag", "Eq", "a*"], ["a*"]],
    [["tag", "Eq", "*"], ["*"]],
    ["a*", ["a", "a*", "a*b", "a*bc", "ab", "a?"]],
    [
      ["tag", "Glob", "a*b*"],
      ["a*b", "a*bc"],
    ],
    ["a*b*", ["a*b", "a*bc"]],
    ["a**", ["a*", "a*b", "a*bc"]],
    ["a*b", ["a*b"]],
    ["a?*", ["a?"]],
    ["a?", ["a?"]],
    ["*a", ["*a"]],
    ["**", ["*", "*a"]],
    ["\u00e9*", ["\u00e9", "\u00e9x"]],
    ["none*", []],
  ])("03.8 03.9 %j forwards %j", async (filter, forwarded) => {
    const { source, dest, router } = await newRoute(server, { filter });
    await appendTags(source, ...tags);
    const records = await read(dest);
    expect(records.map(({ data }) => data)).toEqual(forwarded);
    expect(records.map(({ $seq }) => $seq)).toEqual(range(1, forwarded.length));
    expect(await router.total()).toBe(forwarded.length);
  });

  test("03.10 is about the source's tag: it works with preserve_tag:false", async () => {
    const { source, dest } = await newRoute(server, { filter: "a*", preserve_tag: false });
    await appendTags(source, "a1", "b1", "a2", null);
    const records = await read(dest);
    expect(records.map(({ data }) => data)).toEqual(["a1", "a2"]);
    for (const record of records) expect(record).not.toHaveProperty("$tag");
  });

  test("03.10 in a chain, a copy without a tag matches no filter", async () => {
    const { source, dest } = await newRoute(server, { preserve_tag: false });
    const [tagged, all] = [await newTopic(server), await newTopic(server)];
    await newRouter(server, dest, tagged, { filter: "*" });
    await newRouter(server, dest, all);
    await appendTags(source, "a", "b");
    await eventually(() => values(all), ["a", "b"]);
    expect(await values(tagged)).toEqual([]);
  });

  test("03.20 a PUT without a filter clears it, from the next record on", async () => {
    const { source, dest, router } = await newRoute(server, { filter: "a" });
    await appendTags(source, "a", "b");
    expect(await values(dest)).toEqual(["a"]);
    await router.put({ source: source.name, dest: dest.name });
    await appendTags(source, "c", null);
    expect(await values(dest)).toEqual(["a", "c", null]);
  });
});

describe("a copy", () => {
  test("03.11 keeps the node, whether the record or the batch has it", async () => {
    const { source, dest } = await newRoute(server);
    await source.write({ node: "batch", records: [{ data: 1 }, { data: 2, node: "own" }] });
    await source.write({ records: [{ data: 3 }, { data: 4, node: "" }] });
    const nodes = (await read(dest)).map((record) => record.$node);
    expect(nodes).toEqual(["batch", "own", undefined, ""]);
  });

  test("03.11 has no node with preserve_node:false, and keeps its tag", async () => {
    const { source, dest } = await newRoute(server, { preserve_node: false });
    await source.write({
      node: "batch",
      records: [
        { data: 1, tag: "t" },
        { data: 2, node: "own" },
      ],
    });
    const records = await read(dest);
    expect(records.map(({ $tag }) => $tag)).toEqual(["t", undefined]);
    for (const record of records) expect(record).not.toHaveProperty("$node");
    expect((await dest.diff({ node: "batch" })).body.records).toHaveLength(2);
  });

  test("03.11 is what a reader's node is compared with", async () => {
    const { source, dest } = await newRoute(server);
    await source.write({ records: [{ data: 1, node: "me" }, { data: 2, node: "you" }, { data: 3 }] });
    const reply = await dest.diff({ node: "me" });
    expect(column(reply, "data")).toEqual([2, 3]);
  });

  test("03.12 has data and meta of any type, or no meta", async () => {
    const { source, dest } = await newRoute(server);
    const any = [null, "text", "", 0, -1.5, true, false, [], {}, [1, [2, null]], { a: { b: [] } }];
    const records = any.flatMap((value) => [{ data: value }, { data: 1, meta: value }]);
    await source.write({ records });
    const copies = (await read(dest)).map(({ $seq, $ts, ...payload }) => payload);
    const expected = records.map((record) =>
      "meta" in record && record.meta !== null ? record : { data: record.data },
    );
    expect(copies).toEqual(expected as typeof copies);
  });

  const spellings = [
    '{ "b" : 1 , "a" : [1, 2] }',
    '{"a":1,"a":2,"\\u0061":3}',
    '{"10":1,"9":2,"":3,"__proto__":{"x":1}}',
    "[1.0,-0,1E3,1e-400,100000000000000000000.0]",
    "12345678901234567890123456789012345678901234567890",
    "9007199254740993",
    '"\\u00e9\\/\\ud83d\\uDE00\\u0000"',
    '"\u00e9/\u{1f600}\u2028"',
    '{\n\t"a":\r\n [ ]\n}',
    '{"_topics_router":{"router":"none"},"$seq":7}',
    "-0.0",
    "null",
  ];

  test.each(spellings)("P1 03.12 is byte for byte what was sent, over three hops: %j", async (text) => {
    const { topics } = await newChain(server, 3);
    const meta = text === "null" ? '"null"' : text;
    await topics[0]!.write(`{"records":[{"data":${text},"meta":${meta},"tag":"t"},{"data":${text}}]}`);
    await eventually(() => listedCount(server, topics[3]!), 2);
    const reply = await topics[3]!.diff();
    expect(payloads(reply, "data")).toEqual([text, text]);
    expect(payloads(reply, "meta")).toEqual([meta, undefined]);
    const [source, dest] = [await topics[0]!.state(), await topics[3]!.state()];
    expect(dest.body.bytes).toBe(source.body.bytes);
    expect(dest.body.bytes).toBe(Buffer.byteLength(text) * 2 + Buffer.byteLength(meta));
  });

  test("03.12 may be as large as a record can be", async () => {
    const { source, dest } = await newRoute(server);
    const data = `"${"\u00e9".repeat(524_287)}"`;
    await source.write(`{"records":[{"data":${data}},{"data":2}]}`);
    const first = await dest.diff({ limit: 1 });
    expect(payloads(first, "data")[0] === data).toBe(true);
    expect(column(await dest.diff({ from_seq: 1 }), "data")).toEqual([2]);
  });

  test("03.12 may have the longest tag, node and meta", async () => {
    const { source, dest } = await newRoute(server);
    const record = {
      data: null,
      tag: "t".repeat(256),
      node: "\u00e9".repeat(64),
      meta: { m: "x".repeat(16384 - '{"m":""}'.length) },
    };
    expect((await source.write({ records: [record] })).status).toBe(200);
    const [copy] = await read(dest);
    expect(copy).toMatchObject({ $tag: record.tag, $node: record.node, data: null, meta: record.meta });
  });

  test("03.13 has the dest's next seq, and a time not before its source's", async () => {
    const { source, dest } = await newRoute(server);
    await dest.append("own 1", "own 2", "own 3");
    await source.append(1, 2);
    expect((await dest.diff({ from_seq: 3 })).body.records).toMatchObject([
      { $seq: 4, data: 1 },
      { $seq: 5, data: 2 },
    ]);
    await dest.append("own 4");
    await source.append(3);
    const records = await read(dest);
    expect(records.map(({ $seq }) => $seq)).toEqual(range(1, 7));
    expect(records.map(({ data }) => data)).toEqual(["own 1", "own 2", "own 3", 1, 2, "own 4", 3]);
    const sent = new Map((await read(source)).map(({ data, $ts }) => [data, $ts]));
    for (const { data, $ts } of records) expect($ts).toBeGreaterThanOrEqual(sent.get(data) ?? 0);
    const times = records.map(({ $ts }) => $ts);
    expect(times).toEqual(times.toSorted());
  });

  test("03.13 follows deleted records without a hole", async () => {
    const { source, dest } = await newRoute(server);
    await source.append(1, 2, 3);
    expect((await dest.state()).body.head_seq).toBe(3);
    await dest.erase({ before_seq: 4 });
    expect((await dest.diff()).body).toMatchObject({ records: [], head_seq: 3 });
    await source.append(4);
    expect((await dest.diff()).body.records).toMatchObject([{ $seq: 4, data: 4 }]);
  });

  test("03.13 counts in the dest as any record, and by its tag", async () => {
    const { source, dest } = await newRoute(server);
    await source.write({
      records: [
        { data: "aa", tag: "x" },
        { data: "b", meta: { m: 1 }, tag: "y" },
      ],
    });
    const state = (await dest.state()).body;
    expect(state).toMatchObject({ head_seq: 2, earliest_seq: 1, next_seq: 3, count: 2, bytes: 4 + 3 + 7 });
    expect(state.last_write_ts).toBe((await read(dest))[1]!.$ts);
    const reply = await dest.erase({ match: "x" });
    expect(reply.body).toMatchObject({ deleted: 1, count: 1, earliest_seq: 2 });
  });
});

describe("when", () => {
  test("03.28 records from before the router are not forwarded", async () => {
    const source = await taggedTopic(server, "old 1", "old 2");
    const dest = await newTopic(server);
    const router = await newRouter(server, source, dest);
    expect(await values(dest)).toEqual([]);
    await source.append("new");
    expect(await read(dest)).toMatchObject([{ $seq: 1, data: "new" }]);
    expect(await router.total()).toBe(1);
  });

  test("03.28 nor does a repeated PUT, with or without another filter, fetch them", async () => {
    const source = await taggedTopic(server, "a", "b");
    const dest = await newTopic(server);
    const router = await newRouter(server, source, dest, { filter: "b" });
    await appendTags(source, "a", "b");
    await router.put({ source: source.name, dest: dest.name });
    await router.put({ source: source.name, dest: dest.name, filter: "a" });
    await appendTags(source, "a", "b");
    expect(await values(dest)).toEqual(["b", "a"]);
    expect(await router.total()).toBe(2);
  });

  test("03.29 a diff of the dest right behind the write has the copy, every time", async () => {
    const { source, dest } = await newRoute(server);
    for (let i = 1; i <= 50; i++) {
      await source.append(i);
      expect(column(await dest.diff({ from_seq: i - 1 }), "data")).toEqual([i]);
    }
  });

  test("03.29 so has the state of the dest, and the router its total", async () => {
    const { source, dest, router } = await newRoute(server);
    for (let i = 1; i <= 30; i++) {
      await source.append(i, i);
      if (i % 2 === 0) expect((await dest.state()).body).toMatchObject({ head_seq: 2 * i, count: 2 * i });
      else expect(await router.total()).toBe(2 * i);
    }
  });

  test("03.29 forwarding is no read: it touches no clock of a reader", async () => {
    const { source, dest } = await newRoute(server);
    await source.append(1);
    await eventually(() => listedCount(server, dest), 1);
    const untouched = { last_read_ts: null, effective_priority: 0 };
    expect((await source.state()).body).toMatchObject(untouched);
    expect((await dest.state()).body).toMatchObject(untouched);
  });

  test("03.30 three routers carry a record to the end within a second, with nobody reading between", async () => {
    const { topics } = await newChain(server, 3);
    const { ms } = await timed(async () => {
      await topics[0]!.append("a");
      await until(
        () => topics[3]!.diff(),
        ({ body }) => body.head_seq === 1,
      );
    });
    expect(ms).toBeLessThan(1000);
  });

  test("03.30 nor at the end", async () => {
    const { topics } = await newChain(server, 3);
    await topics[0]!.append("a", "b");
    await eventually(() => listedCount(server, topics[3]!), 2, 1000);
    expect(await values(topics[3]!)).toEqual(["a", "b"]);
  });

  test("03.31 a copy wakes a long poll", async () => {
    const { source, dest } = await newRoute(server);
    await source.append(1);
    await eventually(() => listedCount(server, dest), 1);
    const poll = dest.diff({ from_seq: 1, wait_ms: 20_000 });
    await until(
      () => dest.state(),
      ({ body }) => body.last_read_ts !== null,
    );
    const { ms } = await timed(async () => {
      await source.append(2);
      await poll;
    });
    expect(column(await poll, "data")).toEqual([2]);
    expect((await poll).body).toMatchObject({ next_from_seq: 2, caught_up: true });
    expect(ms).toBeLessThan(1000);
  });

  test("03.31 a copy at the end of a chain wakes every long poll there", async () => {
    const { topics } = await newChain(server, 3);
    const last = topics[3]!;
    const polls = together(10, () => last.diff({ wait_ms: 20_000 }));
    await until(
      () => last.state(),
      ({ body }) => body.last_read_ts !== null,
    );
    await topics[0]!.append("a", "b", "c");
    for (const reply of await polls) expect(column(reply, "data")).toEqual(["a", "b", "c"]);
  });

  test("03.31 what the filter drops wakes nobody", async () => {
    const { source, dest } = await newRoute(server, { filter: "yes" });
    const poll = dest.diff({ wait_ms: 20_000 });
    await until(
      () => dest.state(),
      ({ body }) => body.last_read_ts !== null,
    );
    await appendTags(source, "no", "no", null);
    await appendTags(source, "yes");
    expect(column(await poll, "data")).toEqual(["yes"]);
  });
});

describe("order and number", () => {
  test("03.18 two names for the same topics: each record comes once for each, in order", async () => {
    const { source, dest, router } = await newRoute(server);
    const second = await newRouter(server, source, dest, { filter: "*" }, `${router.name}.2`);
    for (let i = 1; i <= 20; i++) await source.write({ records: [{ data: i, tag: "t" }] });
    const found = await values(dest);
    expect(found.toSorted((a, b) => Number(a) - Number(b))).toEqual(range(1, 20).flatMap((i) => [i, i]));
    const firsts = found.filter((value, i) => found.indexOf(value) === i);
    const seconds = found.filter((value, i) => found.indexOf(value) !== i);
    expect([firsts, seconds]).toEqual([range(1, 20), range(1, 20)]);
    expect([await router.total(), await second.total()]).toEqual([20, 20]);
  });

  test("03.21 PUTs between the writes lose nothing and repeat nothing", async () => {
    const { source, dest, router } = await newRoute(server);
    for (let i = 1; i <= 40; i++) {
      await source.append(i);
      const options = i % 2 === 0 ? { filter: null } : { guarantee: "exactly_once" };
      await router.put({ source: source.name, dest: dest.name, ...options });
    }
    expect(await values(dest)).toEqual(range(1, 40));
    expect(await router.total()).toBe(40);
  });

  test("03.21 nor do PUTs at the same time as the writes", async () => {
    const { source, dest, router } = await newRoute(server);
    let writing = true;
    const writes = (async () => {
      for (let i = 1; i <= 200; i++) await source.append(i);
      writing = false;
    })();
    let puts = 0;
    while (writing) {
      const reply = await router.put({ source: source.name, dest: dest.name });
      expect(reply.body.created).toBe(false);
      puts++;
    }
    await writes;
    expect(puts).toBeGreaterThan(0);
    expect(await values(dest)).toEqual(range(1, 200));
    expect(await router.total()).toBe(200);
  });

  test("03.32 one source to many dests: each has every record, in order", async () => {
    const source = await newTopic(server);
    const dests = await together(5, () => newTopic(server));
    const routers = [];
    for (const dest of dests) routers.push(await newRouter(server, source, dest));
    for (let i = 0; i < 25; i++) await source.append(...range(i * 100 + 1, i * 100 + 100));
    for (const dest of dests) await eventually(() => listedCount(server, dest), 2500);
    for (const dest of dests) expect(await values(dest)).toEqual(range(1, 2500));
    expect(await Promise.all(routers.map((router) => router.total()))).toEqual(Array(5).fill(2500));
  });

  test("03.32 a batch of ten thousand arrives whole", async () => {
    const { topics } = await newChain(server, 2);
    await topics[0]!.append(...range(1, 10_000));
    await eventually(() => listedCount(server, topics[2]!), 10_000);
    expect(await values(topics[2]!)).toEqual(range(1, 10_000));
  });

  test("03.32 dests with different filters share a source out between them", async () => {
    const source = await newTopic(server);
    const dests = await together(3, () => newTopic(server));
    for (const [i, dest] of dests.entries()) await newRouter(server, source, dest, { filter: `${i}:*` });
    await source.write({ records: range(0, 299).map((i) => ({ data: i, tag: `${i % 3}:${i}` })) });
    for (const [i, dest] of dests.entries())
      expect(await values(dest)).toEqual(range(0, 99).map((n) => 3 * n + i));
  });

  test("03.32 with many writers, copies are in the order of their seqs at the source", async () => {
    const { topics } = await newChain(server, 2);
    const [source, middle, last] = topics as [Topic, Topic, Topic];
    await together(8, async (writer) => {
      for (let i = 0; i < 25; i++) {
        await source.append(`${writer}.${i}.a`, `${writer}.${i}.b`);
        if (writer === 0) await middle.append(`own ${i}`);
      }
    });
    await eventually(() => listedCount(server, last), 425);
    const [first, second, third] = [await read(source), await read(middle), await read(last)];
    const copies = second.filter(({ data }) => !String(data).startsWith("own"));
    expect(copies.map(({ data }) => data)).toEqual(first.map(({ data }) => data));
    expect(third.map(({ data }) => data)).toEqual(second.map(({ data }) => data));
    expect(second.map(({ $seq }) => $seq)).toEqual(range(1, 425));
  });

  test("03.32 many routers at one topic, in and out, all get theirs", async () => {
    const { topics } = await newChain(server, 1);
    const leaves = await together(40, () => newTopic(server));
    for (const leaf of leaves) await newRouter(server, topics[1]!, leaf);
    await topics[0]!.append(1, 2, 3);
    for (const leaf of leaves) await eventually(() => listedCount(server, leaf), 3);
    expect(await Promise.all(leaves.map(values))).toEqual(Array(40).fill([1, 2, 3]));
  });

  test("03.21 a deduplicated retry is not forwarded again", async () => {
    const { source, dest, router } = await newRoute(server);
    const request = { idempotency_key: "k", records: [{ data: 1 }, { data: 2 }] };
    await source.write(request);
    expect((await source.write(request)).body.deduped).toBe(true);
    await source.append(3);
    expect(await values(dest)).toEqual([1, 2, 3]);
    expect(await router.total()).toBe(3);
  });

  test("03.21 a refused write is not forwarded", async () => {
    const { source, dest } = await newRoute(server, {}, { source: { cap_records: 2, discard: "reject" } });
    await source.append(1);
    expect((await source.write({ records: [{ data: 2 }, { data: 3 }] })).status).toBe(422);
    await source.append(4);
    expect(await values(dest)).toEqual([1, 4]);
  });
});

describe("deletes", () => {
  test("03.37 what was deleted in the source before its turn leaves no gap and no tombstone", async () => {
    const { source, dest, router } = await newRoute(
      server,
      {},
      { dest: { cap_records: 1, discard: "reject" } },
    );
    await appendTags(source, "first", "gone", "second", "gone", "third", "gone");
    expect(await values(dest)).toEqual(["first"]);
    await source.erase({ match: "gone" });
    await dest.put({});
    await eventually(() => listedCount(server, dest), 3);
    expect((await dest.diff()).body).toMatchObject({
      records: [
        { $seq: 1, data: "first" },
        { $seq: 2, data: "second" },
        { $seq: 3, data: "third" },
      ],
      tombstone: null,
      head_seq: 3,
    });
    expect(await router.total()).toBe(3);
  });

  test("03.37 the same for everything before a seq", async () => {
    const { source, dest, router } = await newRoute(
      server,
      {},
      { dest: { cap_records: 1, discard: "reject" } },
    );
    await source.append(1, 2, 3, 4);
    expect(await values(dest)).toEqual([1]);
    await source.erase({ before_seq: 5 });
    await source.append(5);
    await dest.put({});
    await eventually(() => listedCount(server, dest), 2);
    expect((await dest.diff()).body).toMatchObject({
      records: [
        { $seq: 1, data: 1 },
        { $seq: 2, data: 5 },
      ],
      tombstone: null,
    });
    expect(await router.total()).toBe(2);
  });

  test("03.38 deleting in the source leaves the copies", async () => {
    const { source, dest } = await newRoute(server);
    await appendTags(source, "a", "b", "c");
    expect((await dest.state()).body.count).toBe(3);
    await source.erase({ match: "b" });
    await source.erase({ before_seq: 9 });
    expect(await values(dest)).toEqual(["a", "b", "c"]);
    expect((await source.state()).body.count).toBe(0);
  });

  test("03.38 deleting copies leaves the source, and they do not come back", async () => {
    const { source, dest, router } = await newRoute(server, { guarantee: "exactly_once" });
    await appendTags(source, "a", "b", "c");
    expect((await dest.state()).body.count).toBe(3);
    await dest.erase({ match: "b" });
    await dest.erase({ before_seq: 2 });
    await router.put({ source: source.name, dest: dest.name });
    expect(await values(source)).toEqual(["a", "b", "c"]);
    expect(await values(dest)).toEqual(["c"]);
    await appendTags(source, "d");
    expect(await read(dest)).toMatchObject([
      { $seq: 3, data: "c" },
      { $seq: 4, data: "d" },
    ]);
  });

  test("03.38 the copies in a deleted dest are gone, the source and its other dests are not", async () => {
    const { source, dest } = await newRoute(server);
    const other = await newTopic(server);
    await newRouter(server, source, other);
    await source.append(1);
    await dest.drop();
    await source.append(2);
    expect([await values(source), await values(other)]).toEqual([
      [1, 2],
      [1, 2],
    ]);
    expect((await dest.state()).status).toBe(404);
  });
});

describe("queues", () => {
  const queue = { type: "queue", lease_ms: 30_000 };
  const claim = (topic: Topic, max = 100) => server.send("POST", `${topic.path}/claim`, { node: "w", max });

  test("03.47 a copy in a queue can be claimed at once", async () => {
    const { source, dest } = await newRoute(server, {}, { dest: queue });
    await source.write({
      records: [{ data: { job: 1 }, tag: "t", node: "n", meta: { m: [1] } }, { data: 2 }],
    });
    const { body } = await claim(dest);
    const job = { lease_id: expect.any(String), deadline: expect.any(Number), $ts: expect.any(Number) };
    expect(body.claimed).toEqual([
      { ...job, $seq: 1, $tag: "t", deliveries: 1, data: { job: 1 }, meta: { m: [1] } },
      { ...job, $seq: 2, deliveries: 1, data: 2 },
    ]);
  });

  test("03.47 every claim right behind a write has the job", async () => {
    const { source, dest } = await newRoute(server, {}, { dest: queue });
    for (let i = 1; i <= 30; i++) {
      await source.append(i);
      const { body } = await claim(dest);
      expect(body.claimed.map(({ data }: { data: number }) => data)).toEqual([i]);
    }
  });

  test("03.47 the job of an exactly_once router has the stamp", async () => {
    const { source, dest, router } = await newRoute(server, { guarantee: "exactly_once" }, { dest: queue });
    await source.write('{"records":[{"data":1.0,"meta":{"own": 1.50}}]}');
    const reply = await claim(dest);
    expect(reply.body.claimed[0].meta).toMatchObject({
      own: 1.5,
      _topics_router: { router: router.name, source_topic: source.name, source_seq: 1 },
    });
    expect(members(reply.text).get("claimed")).toContain('"own": 1.50');
  });

  test("03.47 jobs are forwarded whatever becomes of them; an ack is not", async () => {
    const { source, dest, router } = await newRoute(server, {}, { source: queue });
    await source.append(1, 2, 3);
    await claim(source);
    expect(await values(dest)).toEqual([1, 2, 3]);
    await server.send("POST", `${source.path}/ack`, { node: "w", seqs: [1] });
    await server.send("POST", `${source.path}/nack`, { node: "w", seqs: [2] });
    await claim(source);
    await source.append(4);
    expect(await values(dest)).toEqual([1, 2, 3, 4]);
    expect(await router.total()).toBe(4);
    expect((await source.state()).body.count).toBe(3);
  });

  test("03.47 a job acked before its turn is skipped", async () => {
    const { source, dest } = await newRoute(
      server,
      {},
      { source: queue, dest: { cap_records: 1, discard: "reject" } },
    );
    await source.append(1, 2, 3);
    expect(await values(dest)).toEqual([1]);
    await claim(source);
    await server.send("POST", `${source.path}/ack`, { node: "w", seqs: [1, 2] });
    await dest.put({});
    await eventually(() => listedCount(server, dest), 2);
    expect((await dest.diff()).body).toMatchObject({
      records: [{ data: 1 }, { $seq: 2, data: 3 }],
      tombstone: null,
    });
  });

  test("03.47 an ack in the dest leaves the source", async () => {
    const { source, dest } = await newRoute(server, {}, { source: queue, dest: queue });
    await source.append(1, 2);
    await claim(dest);
    await server.send("POST", `${dest.path}/ack`, { node: "w", seqs: [1, 2] });
    expect((await dest.state()).body).toMatchObject({ count: 0, queue: { ready: 0, in_flight: 0 } });
    expect((await source.state()).body).toMatchObject({ count: 2, queue: { ready: 2, in_flight: 0 } });
    expect(seqs(await source.diff())).toEqual([1, 2]);
  });

  test("03.47 a dead letter is an append, which routers forward", async () => {
    const { source: dead, dest } = await newRoute(server);
    const jobs = await newTopic(server, {
      type: "queue",
      lease_ms: 100,
      max_deliveries: 1,
      dead_letter: dead.name,
    });
    await jobs.append("poison");
    await claim(jobs);
    await server.send("POST", `${jobs.path}/nack`, { node: "w", seqs: [1] });
    expect((await claim(jobs)).body.count).toBe(0);
    await eventually(() => listedCount(server, dest), 1);
    const [copy] = await read(dest);
    expect(copy).toMatchObject({ $seq: 1, data: "poison", meta: { $dead_letter_from: jobs.name } });
  });

  test("03.47 copies into a queue in the background are counted as ready", async () => {
    const { source, dest } = await newRoute(server, {}, { dest: queue });
    await source.append(1, 2, 3);
    await eventually(async () => (await listed(server, dest)).head_seq, 3);
    expect((await dest.state()).body.queue).toMatchObject({ ready: 3, in_flight: 0 });
  });
});
