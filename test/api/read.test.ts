/** `POST /v0/topics/:topic/diff`: what a page holds and where the next one starts. */
import { describe, expect, test } from "bun:test";
import { absentTopic, column, newTopic, seqs, sharedServer } from "../support/topics.ts";

const server = sharedServer();

const numbers = (n: number) => Array.from({ length: n }, (_, i) => i + 1);

describe("a page", () => {
  test("6.3 the contract's example", async () => {
    const topic = await newTopic(server, { cap_records: 3 });
    await topic.write({
      node: "till-4",
      records: [
        { data: { sku: "mug", qty: 2 }, tag: "ord:81", meta: { trace: "t9" } },
        { data: "raw", tag: "ord:82", node: "till-9" },
        { data: null },
        { data: 4 },
      ],
    });
    const reply = await topic.diff({ from_seq: 0, include_tags: true, node: "till-9" });
    const $ts = reply.body.records[0]?.$ts;
    expect(reply.status).toBe(200);
    expect($ts).toStrictEqual(expect.any(Number));
    expect(reply.body).toStrictEqual({
      topic: topic.name,
      records: [
        { $seq: 3, $ts, $node: "till-4", data: null },
        { $seq: 4, $ts, $node: "till-4", data: 4 },
      ],
      next_from_seq: 4,
      head_seq: 4,
      earliest_seq: 2,
      caught_up: true,
      tombstone: { gap_from: 1, gap_to: 1, reason: "cap", missed_estimate: 1, earliest_seq: 2, head_seq: 4 },
      lag: 0,
      epoch: expect.any(Number),
      performance: { server_total_ms: expect.any(Number), records_scanned: expect.any(Number) },
    });
  });

  test("6.1 an absent topic is 404 and stays absent", async () => {
    const topic = absentTopic(server);
    for (const request of [undefined, {}, { from_seq: 5 }, { wait_ms: 5000 }]) {
      const reply = await topic.diff(request);
      expect(reply).toMatchObject({ status: 404, body: { error: { code: "topic_not_found" } } });
      expect(reply.body.error.detail).toStrictEqual({ topic: topic.name });
    }
    expect((await topic.put()).status).toBe(201);
  });

  test("6.3 from_seq is exclusive; a fresh topic and the head are caught up", async () => {
    const topic = await newTopic(server);
    expect((await topic.diff()).body).toMatchObject({
      records: [],
      next_from_seq: 0,
      head_seq: 0,
      earliest_seq: 1,
      caught_up: true,
      tombstone: null,
      lag: 0,
    });
    await topic.append("a", "b", "c");
    expect(seqs(await topic.diff({ from_seq: 1 }))).toStrictEqual([2, 3]);
    expect((await topic.diff({ from_seq: 3 })).body).toMatchObject({
      records: [],
      next_from_seq: 3,
      caught_up: true,
      tombstone: null,
      lag: 0,
    });
  });

  test("02.49 limit is 256 by default, also for 0, and at most 1000", async () => {
    const topic = await newTopic(server);
    await topic.append(...numbers(1001));
    const lengths: Record<string, number> = {};
    for (const limit of ["0", "1", "256", "257", "1000", "1001", "5000", "4294967295"]) {
      lengths[limit] = (await topic.diff(`{"limit":${limit}}`)).body.records.length;
    }
    expect(lengths).toStrictEqual({
      "0": 256,
      "1": 1,
      "256": 256,
      "257": 257,
      "1000": 1000,
      "1001": 1000,
      "5000": 1000,
      "4294967295": 1000,
    });
    expect((await topic.diff()).body).toMatchObject({ next_from_seq: 256, lag: 745, caught_up: false });
    expect(seqs(await topic.diff({ from_seq: 256, limit: 1000 }))).toStrictEqual(numbers(1001).slice(256));
  });

  test.each([
    ["from_seq", ["-1", "-0", "1.0", "1e0", "0.5", '"1"', "null", "true", "[]", "18446744073709551616"]],
    ["limit", ["-1", "1.0", '"1"', "null", "true", "4294967296"]],
    ["wait_ms", ["-1", "1.0", '"1"', "null", "true", "4294967296"]],
    ["max_batch_bytes", ["-1", "1.0", '"1"', "null", "true", "18446744073709551616"]],
    ["node", ["5", "true", "{}", "[1]", '["a",null]', '[["a"]]']],
    ["include_tags", ["1", '"true"', "null"]],
    ["include_meta", ["0", '"false"', "null"]],
  ])("02.49 %s refuses other kinds of values", async (field, values) => {
    const topic = await newTopic(server);
    const codes: Record<string, string> = {};
    for (const value of values) {
      const reply = await topic.diff(`{"${field}":${value}}`);
      codes[value] = `${reply.status} ${reply.body?.error?.code}`;
    }
    expect(codes).toStrictEqual(Object.fromEntries(values.map((value) => [value, "400 invalid_request"])));
  });

  test("02.51 the walk runs past filtered records to fill the page", async () => {
    const topic = await newTopic(server);
    await topic.write({ node: "me", records: numbers(5).map((data) => ({ data })) });
    await topic.append(6);
    const reply = await topic.diff({ node: "me", limit: 1 });
    expect(seqs(reply)).toStrictEqual([6]);
    expect(reply.body).toMatchObject({ next_from_seq: 6, caught_up: true });
    expect(reply.body.performance.records_scanned).toBeGreaterThanOrEqual(1);
  });

  test("6.3 it does not run past filtered records once the page is full", async () => {
    const topic = await newTopic(server);
    await topic.append(1);
    await topic.write({ node: "me", records: [{ data: 2 }, { data: 3 }] });
    const page = await topic.diff({ node: "me", limit: 1 });
    const rest = await topic.diff({ node: "me", limit: 1, from_seq: 1 });
    expect(page.body).toMatchObject({ next_from_seq: 1, caught_up: false, lag: 2 });
    expect(rest.body).toMatchObject({ records: [], next_from_seq: 3, caught_up: true, lag: 0 });
  });

  test("02.52 a full page in front of deleted records is not caught up; the next one is", async () => {
    const topic = await newTopic(server);
    await topic.write({ records: [{ data: 1 }, { data: 2, tag: "x" }, { data: 3, tag: "x" }] });
    await topic.erase({ match: "x" });
    const page = await topic.diff({ limit: 1 });
    const rest = await topic.diff({ limit: 1, from_seq: page.body.next_from_seq });
    expect(page.body).toMatchObject({ next_from_seq: 1, caught_up: false, lag: 2 });
    expect(seqs(page)).toStrictEqual([1]);
    expect(rest.body).toMatchObject({
      records: [],
      next_from_seq: 3,
      caught_up: true,
      lag: 0,
      tombstone: null,
    });
  });

  test("6.3 pages of any size put together are what was written", async () => {
    const topic = await newTopic(server);
    await topic.write({ records: numbers(20).map((data) => ({ data, tag: data % 3 === 0 ? "x" : "y" })) });
    await topic.erase({ match: "x" });
    const kept = numbers(20).filter((n) => n % 3 !== 0);
    for (const limit of [1, 2, 3, 7, 14, 15]) {
      const seen: unknown[] = [];
      for (let from_seq = 0, caughtUp = false; !caughtUp; ) {
        const { body } = await topic.diff({ from_seq, limit });
        seen.push(...body.records.map(({ data }: { data: number }) => data));
        expect(body.records.length).toBeLessThanOrEqual(limit);
        expect(body.lag).toBe(20 - body.next_from_seq);
        [from_seq, caughtUp] = [body.next_from_seq, body.caught_up];
      }
      expect(seen).toStrictEqual(kept);
    }
  });
});

describe("the node filter", () => {
  const written = [
    { data: 1, node: "a" },
    { data: 2, node: "b" },
    { data: 3, node: "" },
    { data: 4 },
    { data: 5, node: "A" },
    { data: 6, node: "*" },
    { data: 7, node: "a\0" },
  ];

  test.each([
    [undefined, [1, 2, 3, 4, 5, 6, 7]],
    [null, [1, 2, 3, 4, 5, 6, 7]],
    [[], [1, 2, 3, 4, 5, 6, 7]],
    ["a", [2, 3, 4, 5, 6, 7]],
    [["a"], [2, 3, 4, 5, 6, 7]],
    [
      ["a", "b"],
      [3, 4, 5, 6, 7],
    ],
    [
      ["a", "a", "nobody"],
      [2, 3, 4, 5, 6, 7],
    ],
    ["", [1, 2, 4, 5, 6, 7]],
    ["*", [1, 2, 3, 4, 5, 7]],
    ["nobody", [1, 2, 3, 4, 5, 6, 7]],
    [["a", "b", "", "A", "*", "a\0"], [4]],
  ])("02.50 node %j leaves %j", async (node, expected) => {
    const topic = await newTopic(server);
    await topic.write({ records: written });
    expect(column(await topic.diff({ node }), "data")).toStrictEqual(expected);
  });

  test.each(["me", ["me", "you"]])("02.50 everything filtered by %j: empty and at the head", async (node) => {
    const topic = await newTopic(server);
    await topic.write({ node: "me", records: [{ data: 1 }, { data: 2 }] });
    expect((await topic.diff({ node })).body).toMatchObject({
      records: [],
      next_from_seq: 2,
      caught_up: true,
      tombstone: null,
      lag: 0,
    });
  });

  test("02.53 dedupe_node:false switches it off, and a PUT switches it on again", async () => {
    const topic = await newTopic(server, { dedupe_node: false });
    await topic.write({ node: "me", records: [{ data: 1 }] });
    expect(column(await topic.diff({ node: "me" }), "$node")).toStrictEqual(["me"]);
    await topic.put({});
    expect(seqs(await topic.diff({ node: "me" }))).toStrictEqual([]);
  });
});

describe("members of a record", () => {
  const $ts = expect.any(Number);
  const bare = { $seq: 1, $ts, $node: "n", data: 1 };

  test.each([
    [{}, { ...bare, meta: { m: 1 } }],
    [
      { include_tags: false, include_meta: true },
      { ...bare, meta: { m: 1 } },
    ],
    [{ include_tags: true }, { ...bare, $tag: "t", meta: { m: 1 } }],
    [{ include_meta: false }, bare],
    [
      { include_tags: true, include_meta: false },
      { ...bare, $tag: "t" },
    ],
  ])("02.54 with %j", async (request, record) => {
    const topic = await newTopic(server);
    await topic.write({ records: [{ data: 1, tag: "t", node: "n", meta: { m: 1 } }] });
    expect((await topic.diff(request)).body.records).toStrictEqual([record]);
  });
});

describe("the byte budget", () => {
  const pages = async (topic: Awaited<ReturnType<typeof newTopic>>, request: object) => {
    const lengths: number[] = [];
    for (let from_seq = 0, caughtUp = false; !caughtUp; ) {
      const { body } = await topic.diff({ ...request, from_seq });
      lengths.push(body.records.length);
      [from_seq, caughtUp] = [body.next_from_seq, body.caught_up];
    }
    return lengths;
  };

  test("02.55 a page holds at least one record, whatever the budget", async () => {
    const topic = await newTopic(server);
    await topic.append("large", "larger", 1);
    expect(await pages(topic, { max_batch_bytes: 1 })).toStrictEqual([1, 1, 1]);
  });

  test("02.55 the budget may be reached, not passed; it counts data and meta as they were sent", async () => {
    const topic = await newTopic(server);
    await topic.write('{"records":[{"data":[1,  2],"meta":{ }},{"data":[1,  2],"meta":{ }},{"data":1}]}');
    expect(await pages(topic, { max_batch_bytes: 19 })).toStrictEqual([1, 2]);
    expect(await pages(topic, { max_batch_bytes: 20 })).toStrictEqual([2, 1]);
    expect(await pages(topic, { max_batch_bytes: 21 })).toStrictEqual([3]);
  });

  test("02.55 filtered records cost nothing", async () => {
    const topic = await newTopic(server);
    await topic.append(12);
    await topic.write({ node: "me", records: [{ data: "much too large" }] });
    await topic.append(34);
    expect(seqs(await topic.diff({ node: "me", max_batch_bytes: 4 }))).toStrictEqual([1, 3]);
  });

  test("02.55 1 MiB by default and for 0, at most 8 MiB", async () => {
    const topic = await newTopic(server);
    const quarter = "x".repeat(262142);
    for (const n of [20, 20]) await topic.append(...Array(n).fill(quarter));
    const lengths: Record<string, number> = {};
    for (const budget of ["0", "1048575", "1048576", "8388608", "8388609", "18446744073709551615"]) {
      lengths[budget] = (await topic.diff(`{"max_batch_bytes":${budget}}`)).body.records.length;
    }
    expect((await topic.diff()).body.records).toHaveLength(4);
    expect(lengths).toStrictEqual({
      "0": 4,
      "1048575": 3,
      "1048576": 4,
      "8388608": 32,
      "8388609": 32,
      "18446744073709551615": 32,
    });
  });

  test("02.55 nine records of 256 KiB are pages of four", async () => {
    const topic = await newTopic(server);
    await topic.append(...Array(9).fill("x".repeat(262142)));
    expect(await pages(topic, {})).toStrictEqual([4, 4, 1]);
  });
});
