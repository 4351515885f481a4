/** Caps and TTL: what a write evicts, what a full topic refuses, and the bytes of all topics together. */
import { describe, expect, test } from "bun:test";
import { startServer } from "../support/server.ts";
import { absentTopic, column, newTopic, seqs, sharedServer, together, until } from "../support/topics.ts";

const server = sharedServer();

const one = { records: [{ data: 1 }] };
const full = { status: 422, body: { error: { code: "topic_full" } } };
const tooLarge = { status: 400, body: { error: { code: "record_too_large" } } };

describe('discard "old"', () => {
  test("02.39 a batch beyond cap_records keeps its newest part", async () => {
    const topic = await newTopic(server, { cap_records: 2 });
    const reply = await topic.append("a", "b", "c", "d", "e");
    const { body } = await topic.state();
    expect(reply.body).toMatchObject({ seqs: [1, 2, 3, 4, 5], count: 5, head_seq: 5 });
    expect(body).toMatchObject({ count: 2, bytes: 6, earliest_seq: 4, head_seq: 5 });
    expect(column(await topic.diff(), "data")).toStrictEqual(["d", "e"]);
  });

  test("5.4 cap_records keeps the newest over many writes", async () => {
    const topic = await newTopic(server, { cap_records: 3 });
    for (let i = 1; i <= 7; i++) await topic.append(i);
    expect(column(await topic.diff(), "data")).toStrictEqual([5, 6, 7]);
  });

  test("02.40 cap_bytes holds exactly its bytes, and a record too large for it is gone at once", async () => {
    const topic = await newTopic(server, { cap_bytes: 10 });
    await topic.append("a", "b", "c");
    expect((await topic.state()).body).toMatchObject({ count: 3, bytes: 9, earliest_seq: 1 });
    const large = await topic.append("d".repeat(12));
    expect(large).toMatchObject({ status: 200, body: { seqs: [4], head_seq: 4, count: 1 } });
    expect((await topic.state()).body).toMatchObject({ count: 0, bytes: 0, earliest_seq: 5, head_seq: 4 });
    expect((await topic.diff({ from_seq: 3 })).body).toMatchObject({
      records: [],
      next_from_seq: 4,
      tombstone: { gap_from: 4, gap_to: 4, reason: "cap" },
    });
  });

  test("02.40 cap_bytes evicts no more than it must", async () => {
    const topic = await newTopic(server, { cap_bytes: 10 });
    await topic.append("a", "bbbb", 1);
    expect((await topic.state()).body).toMatchObject({ count: 3, bytes: 10 });
    await topic.append(2);
    expect((await topic.state()).body).toMatchObject({ count: 3, bytes: 8, earliest_seq: 2 });
    await topic.append("cc");
    expect((await topic.state()).body).toMatchObject({ count: 3, bytes: 6, earliest_seq: 3 });
  });

  test("02.40 cap_bytes counts data and meta as they were sent", async () => {
    const topic = await newTopic(server, { cap_bytes: 20 });
    await topic.write('{"records":[{"data":[1,  2],"meta":{ }},{"data":[1,  2],"meta":{ }}]}');
    expect((await topic.state()).body).toMatchObject({ count: 2, bytes: 20 });
    await topic.write(one);
    expect((await topic.state()).body).toMatchObject({ count: 2, bytes: 11 });
  });

  test("P6 cap_records counts live records: a deleted one makes room", async () => {
    const topic = await newTopic(server, { cap_records: 3 });
    await topic.write({ records: [{ data: 1 }, { data: 2, tag: "x" }, { data: 3 }] });
    await topic.erase({ match: "x" });
    await topic.append(4);
    expect(seqs(await topic.diff())).toStrictEqual([1, 3, 4]);
    expect((await topic.state()).body).toMatchObject({ count: 3, earliest_seq: 1 });
    await topic.append(5);
    const reply = await topic.diff();
    expect(seqs(reply)).toStrictEqual([3, 4, 5]);
    expect(reply.body).toMatchObject({
      earliest_seq: 3,
      tombstone: { gap_from: 1, gap_to: 1, reason: "cap" },
    });
  });

  test("P6 lowering cap_records over holes keeps that many live records", async () => {
    const topic = await newTopic(server);
    await topic.write({
      records: [1, 2, 3, 4, 5, 6].map((data) => ({ data, tag: data % 2 ? "odd" : "even" })),
    });
    await topic.erase({ match: "even" });
    await topic.put({ cap_records: 2 });
    expect(seqs(await topic.diff())).toStrictEqual([3, 5]);
  });

  test("02 section 9.3: both caps in one batch evict what each needs, not more", async () => {
    const topic = await newTopic(server, { cap_records: 3, cap_bytes: 10 });
    await topic.append("a", "b", "c", "d", "e");
    expect((await topic.state()).body).toMatchObject({ count: 3, bytes: 9, earliest_seq: 3 });
  });

  test("02 section 9.3: the tighter of both caps counts", async () => {
    const topic = await newTopic(server, { cap_records: 3, cap_bytes: 10 });
    await topic.append("a", "b", "ccccccc");
    expect((await topic.state()).body).toMatchObject({ count: 1, bytes: 9, earliest_seq: 3 });
    await topic.append(1, 2, 3);
    expect((await topic.state()).body).toMatchObject({ count: 3, bytes: 3, earliest_seq: 4 });
  });

  test("6.2 earliest_seq never falls", async () => {
    const topic = await newTopic(server, { cap_records: 2 });
    const steps: (() => Promise<unknown>)[] = [
      () => topic.append(1, 2, 3),
      () => topic.erase({ before_seq: 3 }),
      () => topic.put({}),
      () => topic.append(4),
      () => topic.erase({ before_seq: 99 }),
      () => topic.put({ cap_bytes: 1 }),
      () => topic.append("large"),
      () => topic.put({}),
      () => topic.append(5),
    ];
    const seen: number[] = [];
    for (const step of steps) {
      await step();
      seen.push((await topic.state()).body.earliest_seq);
    }
    expect(seen).toStrictEqual([2, 3, 3, 3, 5, 5, 6, 6, 6]);
  });
});

describe('discard "reject"', () => {
  test("02.37 a full topic refuses and changes nothing, until there is room", async () => {
    const topic = await newTopic(server, { cap_records: 3, discard: "reject" });
    await topic.append(1);
    await topic.append(2, 3);
    const reply = await topic.write(one);
    expect(reply).toMatchObject(full);
    expect(reply.body.error.detail).toStrictEqual({
      topic: topic.name,
      cap_records: 3,
      cap_bytes: 0,
      head_seq: 3,
      earliest_seq: 1,
    });
    expect((await topic.state()).body).toMatchObject({ head_seq: 3, count: 3 });
    await topic.erase({ before_seq: 2 });
    expect((await topic.write({ records: [{ data: 4 }, { data: 5 }] })).status).toBe(422);
    expect((await topic.write(one)).body.first_seq).toBe(4);
    expect((await topic.write(one)).status).toBe(422);
  });

  test("02.37 cap_bytes may be reached, not passed", async () => {
    const topic = await newTopic(server, { cap_bytes: 10, discard: "reject" });
    await topic.append("a", "bb");
    expect(await topic.write({ records: [{ data: "cc" }] })).toMatchObject(full);
    expect((await topic.write({ records: [{ data: "c" }] })).status).toBe(200);
    expect((await topic.state()).body).toMatchObject({ count: 3, bytes: 10 });
    expect((await topic.write(one)).body.error.detail).toMatchObject({ cap_records: 0, cap_bytes: 10 });
  });

  test.each([
    [{ cap_records: 3 }, [1, 2, 3, 4], [1, 2, 3]],
    [{ cap_bytes: 4 }, ["aaa"], ["aa"]],
    [{ cap_bytes: 4 }, [12, 345], [12, 34]],
    [{ cap_records: 9, cap_bytes: 4 }, [1, 2, 3, 4, 5], [1, 2, 3, 4]],
  ])("02.38 with %j the batch %j can never fit", async (caps, batch, fitting) => {
    const topic = await newTopic(server, { ...caps, discard: "reject" });
    const reply = await topic.write({ records: batch.map((data) => ({ data })) });
    expect(reply).toMatchObject(tooLarge);
    expect(reply.body.error.detail).toBeUndefined();
    expect((await topic.append(...fitting)).body.first_seq).toBe(1);
    expect(await topic.write({ records: batch.map((data) => ({ data })) })).toMatchObject(tooLarge);
  });

  test("5.4 expiry makes room", async () => {
    const topic = await newTopic(server, { cap_records: 2, discard: "reject", ttl_ms: 500 });
    await topic.append(1, 2);
    expect((await topic.write(one)).status).toBe(422);
    const reply = await until(
      () => topic.write(one),
      ({ status }) => status === 200,
    );
    expect(reply.body.seqs).toStrictEqual([3]);
    expect((await topic.diff()).body).toMatchObject({ tombstone: { reason: "ttl", gap_to: 2 } });
  });

  test("5.4 a write that is refused after a sweep leaves the sweep's result", async () => {
    const topic = await newTopic(server, { cap_records: 2, discard: "reject", ttl_ms: 150 });
    await topic.append(1, 2);
    await Bun.sleep(200);
    expect(await topic.write({ records: [{ data: 1 }, { data: 2 }, { data: 3 }] })).toMatchObject(tooLarge);
    expect((await topic.append(3, 4)).body.seqs).toStrictEqual([3, 4]);
    expect((await topic.state()).body).toMatchObject({ count: 2, bytes: 2, earliest_seq: 3 });
    expect((await topic.diff()).body).toMatchObject({
      tombstone: { reason: "ttl", gap_to: 2 },
      earliest_seq: 3,
    });
  });

  test("02 section 9.2: accepting a write never evicts, with holes neither", async () => {
    const topic = await newTopic(server, { cap_records: 3, discard: "reject" });
    await topic.write({ records: [{ data: 1 }, { data: 2, tag: "x" }, { data: 3 }] });
    await topic.erase({ match: "x" });
    await topic.append(4);
    expect(seqs(await topic.diff())).toStrictEqual([1, 3, 4]);
    expect(await topic.write(one)).toMatchObject(full);
    expect((await topic.diff()).body.tombstone).toBeNull();
  });

  test("P6 a lowered cap keeps what is there", async () => {
    const topic = await newTopic(server, { discard: "reject" });
    await topic.append(1, 2, 3, 4, 5);
    await topic.put({ discard: "reject", cap_records: 3, cap_bytes: 2 });
    await topic.put({ discard: "reject", cap_records: 3 });
    expect((await topic.state()).body).toMatchObject({ count: 5, bytes: 5, earliest_seq: 1 });
    expect(seqs(await topic.diff())).toStrictEqual([1, 2, 3, 4, 5]);
    expect(await topic.write(one)).toMatchObject(full);
    await topic.erase({ before_seq: 4 });
    expect((await topic.write(one)).body.first_seq).toBe(6);
    expect(seqs(await topic.diff())).toStrictEqual([4, 5, 6]);
  });

  test('4.1 a change to "old" evicts what is beyond the cap', async () => {
    const topic = await newTopic(server, { discard: "reject", cap_records: 3 });
    await topic.append(1, 2, 3);
    await topic.put({ discard: "reject", cap_records: 1 });
    await topic.put({ discard: "old", cap_records: 1 });
    expect((await topic.state()).body).toMatchObject({ count: 1, earliest_seq: 3 });
  });

  test.each([
    ["cap_records", { cap_records: 20 }],
    ["cap_bytes", { cap_bytes: 20 }],
  ])("02 section 9.8: concurrent writers do not pass %s", async (_, cap) => {
    const topic = await newTopic(server, { ...cap, discard: "reject" });
    const replies = await together(50, () => topic.write(one));
    expect(replies.filter(({ status }) => status === 200)).toHaveLength(20);
    expect(replies.filter(({ status }) => status === 422)).toHaveLength(30);
    expect((await topic.state()).body).toMatchObject({ count: 20, head_seq: 20, earliest_seq: 1 });
  });

  test("02 section 9.6: a creating write that is refused leaves no topic", async () => {
    const topic = absentTopic(server);
    const config = { cap_records: 1, discard: "reject" };
    expect(await topic.write({ records: [{ data: 1 }, { data: 2 }], config })).toMatchObject(tooLarge);
    expect((await topic.state()).status).toBe(404);
    expect(await topic.write(one)).toMatchObject({ status: 201, body: { created: true, first_seq: 1 } });
    expect((await topic.state()).body.config.cap_records).toBe(0);
  });
});

describe("the quota of all topics", () => {
  const over = { status: 429, body: { error: { code: "throttled" } } };
  const sized = (bytes: number, more = {}) => ({ records: [{ data: "x".repeat(bytes - 2) }], ...more });

  test("02.67 it may be reached and not passed, also with disable_backpressure", async () => {
    await using limited = await startServer({ TOPICS_MAX_TOTAL_BYTES: "300" });
    const first = await newTopic(limited);
    const second = await newTopic(limited);
    await first.write(sized(100));
    await first.write(sized(100));
    expect(await second.write(sized(101))).toMatchObject(over);
    expect((await second.write(sized(100))).status).toBe(200);
    for (const more of [{}, { disable_backpressure: true }]) {
      const reply = await first.write({ ...one, ...more });
      expect(reply).toMatchObject(over);
      expect(reply.headers.get("retry-after")).toBe("1");
      expect(reply.body.error.detail).toStrictEqual({ limit: "max_total_bytes", max: 300 });
    }
    expect((await first.state()).body.head_seq).toBe(2);
    await first.erase({ before_seq: 2 });
    expect((await second.write(sized(100))).status).toBe(200);
    expect(await second.write(one)).toMatchObject(over);
  });

  test("02.67 the text as sent is what counts", async () => {
    await using limited = await startServer({ TOPICS_MAX_TOTAL_BYTES: "10" });
    const topic = await newTopic(limited);
    expect(await topic.write('{"records":[{"data":[1,      2]}]}')).toMatchObject(over);
    expect((await topic.write('{"records":[{"data":[1,  2],"meta":{ }}]}')).status).toBe(200);
    expect(await topic.write(one)).toMatchObject(over);
  });

  test("5.4 it is checked before eviction", async () => {
    await using limited = await startServer({ TOPICS_MAX_TOTAL_BYTES: "10" });
    const topic = await newTopic(limited, { cap_bytes: 10 });
    await topic.write(sized(10));
    expect(await topic.write(one)).toMatchObject(over);
    expect((await topic.state()).body).toMatchObject({ count: 1, bytes: 10, head_seq: 1 });
  });

  test("5.4 a full topic is full before it is over the quota", async () => {
    await using limited = await startServer({ TOPICS_MAX_TOTAL_BYTES: "10" });
    const topic = await newTopic(limited, { cap_records: 1, discard: "reject" });
    await topic.write(sized(10));
    expect(await topic.write(one)).toMatchObject(full);
  });

  test("5.4 every way to lose records releases their bytes", async () => {
    await using limited = await startServer({ TOPICS_MAX_TOTAL_BYTES: "10" });
    const releases: [object, (topic: Awaited<ReturnType<typeof newTopic>>) => Promise<unknown>][] = [
      [{}, (topic) => topic.erase({ before_seq: 3 })],
      [{}, (topic) => topic.drop()],
      [{}, (topic) => topic.put({ cap_bytes: 1 })],
      [
        { ttl_ms: 500 },
        (topic) =>
          until(
            () => topic.state(),
            ({ body }) => body.count === 0,
          ),
      ],
    ];
    for (const [config, release] of releases) {
      const topic = await newTopic(limited, config);
      await topic.append("xxx", "xxx");
      expect((await topic.write(one)).status).toBe(429);
      await release(topic);
      expect((await absentTopic(limited).write(one)).status).toBe(201);
      for (const { topic } of (await limited.send("GET", "/v0/topics")).body.topics) {
        await limited.send("DELETE", `/v0/topics/${topic}`);
      }
    }
  });

  test("5.4 eviction by a write releases bytes too", async () => {
    await using limited = await startServer({ TOPICS_MAX_TOTAL_BYTES: "10" });
    const topic = await newTopic(limited, { cap_records: 1 });
    for (let i = 0; i < 5; i++) expect((await topic.write(sized(5))).status).toBe(200);
    expect((await newTopic(limited).then((other) => other.write(sized(5)))).status).toBe(200);
  });

  test("02 section 9.6: a creating write over the quota leaves no topic", async () => {
    await using limited = await startServer({ TOPICS_MAX_TOTAL_BYTES: "10" });
    const topic = absentTopic(limited);
    expect(await topic.write(sized(11))).toMatchObject(over);
    expect((await topic.state()).status).toBe(404);
    expect((await limited.send("GET", "/v0/topics")).body.topics).toStrictEqual([]);
  });

  test("02 section 9.8: concurrent writers do not pass it", async () => {
    await using limited = await startServer({ TOPICS_MAX_TOTAL_BYTES: "20" });
    const topics = [await newTopic(limited), await newTopic(limited)];
    const replies = await together(50, (i) => topics[i % 2]!.write(one));
    expect(replies.filter(({ status }) => status === 200)).toHaveLength(20);
    expect(replies.filter(({ status }) => status === 429)).toHaveLength(30);
  });

  test("02.67 0 is no quota", async () => {
    await using unlimited = await startServer({ TOPICS_MAX_TOTAL_BYTES: "0" });
    expect((await absentTopic(unlimited).write(sized(1000))).status).toBe(201);
  });
});
