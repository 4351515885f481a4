/** `POST /v0/topics/:topic`: creation on first write, what a batch may hold, and the reply. */
import { describe, expect, test } from "bun:test";
import { absentTopic, column, defaults, newTopic, seqs, sharedServer, together } from "../support/topics.ts";

const server = sharedServer();

const one = { records: [{ data: 1 }] };
const invalid = { status: 400, body: { error: { code: "invalid_request" } } };

describe("creation", () => {
  test("02.18 the first write creates the topic, the second appends", async () => {
    const topic = absentTopic(server);
    const first = await topic.write({ records: [{ data: 1 }, { data: 2 }] });
    const second = await topic.write(one);
    expect(first.status).toBe(201);
    expect(first.body).toStrictEqual({
      topic: topic.name,
      first_seq: 1,
      last_seq: 2,
      seqs: [1, 2],
      head_seq: 2,
      count: 2,
      created: true,
      deduped: false,
      epoch: expect.any(Number),
      performance: expect.anything(),
    });
    expect(second.status).toBe(200);
    expect(second.body).toMatchObject({
      first_seq: 3,
      last_seq: 3,
      seqs: [3],
      head_seq: 3,
      count: 1,
      created: false,
    });
    expect((await topic.state()).body.config).toStrictEqual(defaults);
  });

  test("02.19 create:false does not create", async () => {
    const topic = absentTopic(server);
    const reply = await topic.write({ ...one, create: false });
    expect(reply).toMatchObject({ status: 404, body: { error: { code: "topic_not_found" } } });
    expect(reply.body.error.detail).toStrictEqual({ topic: topic.name });
    expect((await topic.state()).status).toBe(404);
    await topic.put();
    expect((await topic.write({ ...one, create: false })).status).toBe(200);
  });

  test("02.20 an inline config is applied by the creating write", async () => {
    const topic = absentTopic(server);
    const reply = await topic.write({ ...one, config: { cap_records: 3, lease_ms: 1, durable: true } });
    const { config } = (await topic.state()).body;
    expect(reply).toMatchObject({ status: 201, body: { created: true } });
    expect(config).toStrictEqual({
      ...defaults,
      cap_records: 3,
      lease_ms: 100,
      durable: true,
      durability: "fsync",
    });
  });

  test.each([{ cap_records: 1 }, { type: "queue" }, { auto_create: false }, { dead_letter: "_x" }, null])(
    "02.20 on an existing topic the inline config %j changes nothing",
    async (config) => {
      const topic = await newTopic(server, { priority: 3 });
      await topic.append(1);
      expect(await topic.write({ ...one, config })).toMatchObject({ status: 200, body: { created: false } });
      expect((await topic.state()).body).toMatchObject({ count: 2, config: { ...defaults, priority: 3 } });
    },
  );

  test.each([
    [{ config: { auto_create: false } }, 404],
    [{ config: { auto_create: false }, create: null }, 404],
    [{ config: { auto_create: false }, create: true }, 201],
    [{ config: { auto_create: true }, create: false }, 404],
    [{ config: {}, create: null }, 201],
    [{ config: null, create: true }, 201],
    [{ config: null }, 201],
  ])("02.20 %j on an absent topic is %d", async (options, status) => {
    const topic = absentTopic(server);
    expect((await topic.write({ ...one, ...options })).status).toBe(status);
    expect((await topic.state()).status).toBe(status === 201 ? 200 : 404);
  });

  test("02.21 a stored auto_create:false does not block writes", async () => {
    const topic = await newTopic(server, { auto_create: false });
    expect((await topic.write(one)).status).toBe(200);
  });

  test.each([{ dead_letter: "_x" }, { type: "queue", dead_letter: "" }])(
    "5.1 the config %j creates no topic",
    async (config) => {
      const topic = absentTopic(server);
      const reply = await topic.write({ ...one, config });
      expect(reply).toMatchObject(invalid);
      expect(reply.body.error.detail).toStrictEqual({ dead_letter: config.dead_letter });
      expect((await topic.state()).status).toBe(404);
    },
  );

  test.each(['{"ttl_ms":"5"}', '{"discard":"x"}', '{"type":null}', "5", "[]", '"x"', "true"])(
    "5.1 the config %s is refused, used or not",
    async (config) => {
      const body = `{"records":[{"data":1}],"config":${config}}`;
      const absent = absentTopic(server);
      expect(await absent.write(body)).toMatchObject(invalid);
      expect(await (await newTopic(server)).write(body)).toMatchObject(invalid);
      expect((await absent.state()).status).toBe(404);
    },
  );
});

describe("all or nothing", () => {
  const badRecords: [string, string][] = [
    ["no data", "{}"],
    ["only a tag", '{"tag":"x"}'],
    ["a numeric tag", '{"data":1,"tag":7}'],
    ["a boolean node", '{"data":1,"node":true}'],
    ["a list as tag", '{"data":1,"tag":["a"]}'],
    ["a long tag", `{"data":1,"tag":"${"x".repeat(257)}"}`],
    ["a record that is null", "null"],
    ["a record that is a number", "1"],
    ["a record that is a list", "[1]"],
    ["a record that is a string", '"x"'],
  ];

  test.each(badRecords)("02.22 %s refuses the whole batch", async (_, record) => {
    const topic = await newTopic(server);
    await topic.append(0);
    expect(await topic.write(`{"records":[{"data":1},${record},{"data":2}]}`)).toMatchObject(invalid);
    expect((await topic.state()).body).toMatchObject({ head_seq: 1, count: 1, bytes: 1 });
    expect((await topic.append(1)).body.first_seq).toBe(2);
  });

  test("02.22 a bad record creates no topic", async () => {
    const topic = absentTopic(server);
    expect(await topic.write({ records: [{}] })).toMatchObject(invalid);
    expect((await topic.state()).status).toBe(404);
  });

  const badBodies: [string, unknown][] = [
    ["no records", {}],
    ["records null", { records: null }],
    ["records an object", { records: { data: 1 } }],
    ["records a string", { records: "x" }],
    ["a numeric node", { ...one, node: 5 }],
    ["a list of nodes", { ...one, node: ["a"] }],
    ["a numeric key", { ...one, idempotency_key: 5 }],
    ["a string create", { ...one, create: "true" }],
    ["a numeric create", { ...one, create: 1 }],
    ["a numeric disable_backpressure", { ...one, disable_backpressure: 1 }],
    ["a null disable_backpressure", { ...one, disable_backpressure: null }],
  ];

  test.each(badBodies)("5.1 %s is refused", async (_, body) => {
    const topic = absentTopic(server);
    expect(await topic.write(body)).toMatchObject(invalid);
    expect((await topic.state()).status).toBe(404);
  });

  test("5.2 readers see all of a batch or nothing, and batches in order", async () => {
    const topic = await newTopic(server);
    const writes = together(20, (batch) => topic.append(...Array.from({ length: 5 }, (_, i) => [batch, i])));
    const reads = await together(40, () => topic.diff());
    const replies = await writes;
    for (const read of reads) expect(read.body.records.length % 5).toBe(0);
    const records = column(await topic.diff(), "data");
    for (const [batch, { body }] of replies.entries()) {
      expect(body.seqs).toStrictEqual([0, 1, 2, 3, 4].map((i) => body.first_seq + i));
      expect(records.slice(body.first_seq - 1, body.last_seq)).toStrictEqual(
        [0, 1, 2, 3, 4].map((i) => [batch, i]),
      );
    }
  });
});

describe("records as stored", () => {
  test("02.26 null is data", async () => {
    const topic = await newTopic(server);
    await topic.append(null);
    expect(column(await topic.diff(), "data")).toStrictEqual([null]);
  });

  test("2 only the record's own fields are kept, and absent ones stay absent", async () => {
    const topic = await newTopic(server);
    await topic.write({
      records: [
        { data: 1, $seq: 99, $ts: 5, $node: "x", $tag: "y", $type: "z", other: true },
        { data: 2, tag: null, node: null, meta: null },
        { data: 3, tag: "t", node: "n", meta: { m: 1 } },
      ],
    });
    const { body } = await topic.diff({ include_tags: true });
    const $ts = expect.any(Number);
    expect(body.records).toStrictEqual([
      { $seq: 1, $ts, data: 1 },
      { $seq: 2, $ts, data: 2 },
      { $seq: 3, $ts, $tag: "t", $node: "n", data: 3, meta: { m: 1 } },
    ]);
  });

  test("2 a record's node wins over the batch's; null takes the batch's; an empty node is one", async () => {
    const topic = await newTopic(server);
    const records = [{ data: 1 }, { data: 2, node: "own" }, { data: 3, node: null }, { data: 4, node: "" }];
    await topic.write({ node: "batch", records });
    await topic.write({ node: "", records: [{ data: 5 }] });
    await topic.write({ node: null, records: [{ data: 6 }] });
    const nodes = column(await topic.diff(), "$node");
    expect(nodes).toStrictEqual(["batch", "own", "batch", "", "", undefined]);
  });

  test("2 tags and nodes keep every character", async () => {
    const topic = await newTopic(server);
    const texts = ["", " ", "a\0b", '\u001f\n\t"\\/', "é", "😀", "\u2028", "\uffff", "\uE000", "*", "%_?["];
    await topic.write({ records: texts.map((text) => ({ data: 0, tag: text, node: text })) });
    const reply = await topic.diff({ include_tags: true });
    expect(column(reply, "$tag")).toStrictEqual(texts);
    expect(column(reply, "$node")).toStrictEqual(texts);
  });

  test("02.30 one $ts for a batch, taken from the server's clock", async () => {
    const topic = await newTopic(server);
    const before = Date.now();
    await topic.append(1, 2, 3);
    const stamps = column(await topic.diff(), "$ts") as number[];
    expect(new Set(stamps).size).toBe(1);
    expect(Number.isInteger(stamps[0])).toBe(true);
    expect(stamps[0]).toBeGreaterThanOrEqual(before - 1);
    expect(stamps[0]).toBeLessThanOrEqual(Date.now() + 1);
  });

  test("02.30 P3 $ts never decreases along $seq, with many writers", async () => {
    const topic = await newTopic(server);
    for (let round = 0; round < 5; round++) await together(40, (i) => topic.append(i));
    const stamps = column(await topic.diff({ limit: 1000 }), "$ts") as number[];
    expect(stamps).toHaveLength(200);
    expect(stamps).toStrictEqual(stamps.toSorted((a, b) => a - b));
  });

  test("P6 seqs are dense: refused writes use none", async () => {
    const topic = await newTopic(server);
    const replies = await together(30, (i) =>
      topic.write({ records: i % 3 === 0 ? [{ data: i }, {}] : [{ data: i }, { data: i }] }),
    );
    expect(replies.filter(({ status }) => status === 400)).toHaveLength(10);
    expect(seqs(await topic.diff())).toStrictEqual(Array.from({ length: 40 }, (_, i) => i + 1));
  });
});

describe("return_seqs", () => {
  test.each([
    ["?return_seqs=false", false],
    ["?return_seqs=0", false],
    ["?return_seqs=true&return_seqs=false", false],
    ["?return_seqs=true", true],
    ["?return_seqs=1", true],
    ["?return_seqs=no", true],
    ["?return_seqs=", true],
    ["?return_seqs=0&return_seqs=1", true],
  ])("02.27 %s", async (query, shown) => {
    const topic = await newTopic(server);
    const { body } = await topic.write({ records: [{ data: 1 }, { data: 2 }] }, query);
    expect(body).toMatchObject({
      first_seq: 1,
      last_seq: 2,
      head_seq: 2,
      count: 2,
      created: false,
      deduped: false,
    });
    expect(body.seqs).toStrictEqual(shown ? [1, 2] : undefined);
    expect(Object.keys(body).includes("seqs")).toBe(shown);
  });
});
