/** Dead letters: when a job is moved, what its record holds, and what becomes of a move in trouble. */
import { describe, expect, test } from "bun:test";
import {
  absentQueue,
  filledQueue,
  jobs,
  makeQueue,
  type Queue,
  range,
  reaches,
  redeliver,
  seqsOf,
  WORKER,
} from "../support/queue.ts";
import { startServer } from "../support/server.ts";
import {
  absentTopic,
  column,
  defaults,
  newTopic,
  type Sender,
  seqs,
  sharedServer,
  type Topic,
  timed,
  until,
} from "../support/topics.ts";

const server = sharedServer();

let named = 0;

interface Pair {
  readonly queue: Queue;
  readonly dead: Queue;
}

/** A queue that moves its jobs after `max_deliveries`, and the topic they go to, which is not there yet. */
async function pair(config: object = {}, on: Sender = server): Promise<Pair> {
  const dead = absentQueue(on, `dead-${++named}`);
  return { queue: await makeQueue(on, { max_deliveries: 2, dead_letter: dead.name, ...config }), dead };
}

/** The same with one job, delivered so often that the next claim moves it. */
async function poisoned(record: object = { data: "bad" }, config: object = {}): Promise<Pair> {
  const made = await pair(config);
  await made.queue.write({ records: [record] });
  await redeliver(made.queue, 2);
  return made;
}

const letters = async (dead: Topic) => (await dead.diff({ include_tags: true, limit: 1000 })).body.records;

describe("the move", () => {
  test("04.30 the third claim returns nothing; the record is in the dead-letter topic", async () => {
    const { queue, dead } = await pair();
    await queue.append("bad");
    expect(await queue.take(1)).toMatchObject([{ deliveries: 1 }]);
    await queue.nack([1]);
    expect(await queue.take(1)).toMatchObject([{ deliveries: 2 }]);
    await queue.nack([1]);
    expect(await queue.counters()).toEqual({ count: 1, ready: 1, in_flight: 0, dead_lettered: 0 });
    const { status, body } = await queue.claim();
    expect(status).toBe(200);
    expect(body).toStrictEqual({
      topic: queue.name,
      claimed: [],
      count: 0,
      ready: 0,
      performance: { server_total_ms: expect.any(Number) },
    });
    expect(await queue.counters()).toEqual({ count: 0, ready: 0, in_flight: 0, dead_lettered: 1 });
    expect((await queue.state()).body).toMatchObject({ bytes: 0, head_seq: 1, earliest_seq: 2 });
    expect(column(await dead.diff(), "data")).toEqual(["bad"]);
  });

  test("04.30 in the queue it is as silent as an ack", async () => {
    const { queue } = await poisoned();
    await queue.append("good");
    await queue.take(1);
    expect((await queue.diff()).body).toMatchObject({ tombstone: null, earliest_seq: 2, head_seq: 2 });
    expect(seqs(await queue.diff())).toEqual([2]);
  });

  test("04.30 max_deliveries 1: the first delivery is the last", async () => {
    const { queue, dead } = await pair({ max_deliveries: 1 });
    await queue.append(1, 2);
    await redeliver(queue, 1);
    expect((await queue.claim({ max: 5 })).body).toMatchObject({ count: 0, ready: 0 });
    expect(await queue.counters()).toMatchObject({ count: 0, dead_lettered: 2 });
    expect(column(await dead.diff(), "data")).toEqual([1, 2]);
  });

  test("04.30 deliveries that expire count as those that are given back", async () => {
    const { queue } = await pair();
    await queue.append("bad");
    for (let time = 0; time < 2; time++) {
      await queue.take(1, { lease_ms: 100 });
      await reaches(queue, { ready: 1 });
    }
    expect((await queue.claim()).body.count).toBe(0);
    expect(await queue.counters()).toMatchObject({ count: 0, dead_lettered: 1 });
  });

  test("04.30 the last delivery can still be acked: nothing is moved", async () => {
    const { queue, dead } = await pair();
    await queue.append(1);
    await redeliver(queue, 1);
    await queue.take(1);
    expect((await queue.claim({ node: "other" })).body.count).toBe(0);
    expect((await queue.ack([1])).body.acked).toBe(1);
    expect(await queue.counters()).toEqual({ count: 0, ready: 0, in_flight: 0, dead_lettered: 0 });
    expect((await dead.state()).status).toBe(404);
  });

  test("04.30 a delayed job is moved only when its delay is over", async () => {
    const { queue } = await pair({ max_deliveries: 1 });
    await queue.append(1);
    await queue.take(1);
    await queue.nack([1], { delay_ms: 400 });
    await queue.claim();
    expect(await queue.counters()).toEqual({ count: 1, ready: 0, in_flight: 0, dead_lettered: 0 });
    await reaches(queue, { ready: 1 });
    expect((await queue.claim()).body.count).toBe(0);
    expect(await queue.counters()).toMatchObject({ count: 0, dead_lettered: 1 });
  });

  test("04.30 a moved job is nobody's", async () => {
    const { queue } = await pair({ max_deliveries: 1 });
    await queue.append(1);
    const [job] = await queue.take(1);
    await queue.nack([1]);
    await queue.claim();
    const lease_ids = [job!.lease_id];
    expect((await queue.ack([1], { lease_ids })).body).toMatchObject({ acked: 0, skipped: [1] });
    expect((await queue.nack([1])).body).toMatchObject({ nacked: 0, skipped: [1] });
  });

  test("04.32 one poison and one good job: max 1 returns the good one", async () => {
    const { queue } = await poisoned();
    await queue.append("good");
    const reply = await queue.claim({ max: 1 });
    expect(reply.body).toMatchObject({ count: 1, ready: 0 });
    expect(jobs(reply)).toMatchObject([{ $seq: 2, deliveries: 1, data: "good" }]);
    expect(await queue.counters()).toMatchObject({ count: 1, in_flight: 1, dead_lettered: 1 });
  });

  test("04.32 max 1 moves many poison jobs, in order, to reach the good one", async () => {
    const { queue, dead } = await pair();
    await queue.append(...range(1, 25));
    await redeliver(queue, 2);
    await queue.append("good");
    expect(await queue.take(1)).toMatchObject([{ $seq: 26, data: "good" }]);
    expect(await queue.counters()).toMatchObject({ count: 1, ready: 0, in_flight: 1, dead_lettered: 25 });
    expect(column(await dead.diff(), "data")).toEqual(range(1, 25));
  });

  test("6 a claim that is full before it reaches the poison job moves nothing", async () => {
    const { queue, dead } = await pair();
    await queue.append("good", "bad");
    await queue.take(1);
    for (let time = 0; time < 2; time++) await queue.nack(seqsOf(await queue.take(1)));
    await queue.nack([1]);
    expect(await queue.take(1)).toMatchObject([{ $seq: 1, deliveries: 2 }]);
    expect(await queue.counters()).toMatchObject({ count: 2, ready: 1, dead_lettered: 0 });
    expect((await dead.state()).status).toBe(404);
  });

  test("04.33 neither time, nor states, diffs, writes or metrics move anything", async () => {
    const { queue, dead } = await pair({ max_deliveries: 1 });
    await queue.append(1);
    await queue.take(1, { lease_ms: 100 });
    await reaches(queue, { ready: 1 });
    await Bun.sleep(300);
    await queue.diff();
    await queue.append(2);
    await server.send("GET", "/v0/metrics");
    await queue.ack([1]);
    expect(await queue.counters()).toEqual({ count: 2, ready: 2, in_flight: 0, dead_lettered: 0 });
    expect((await dead.state()).status).toBe(404);
    expect(seqsOf(await queue.take(5))).toEqual([2]);
    expect(await queue.counters()).toMatchObject({ count: 1, dead_lettered: 1 });
    expect((await dead.state()).body.count).toBe(1);
  });

  test("04.34 without dead_letter the deliveries go on", async () => {
    const queue = await filledQueue(server, 1, { max_deliveries: 2 });
    await redeliver(queue, 7);
    expect(await queue.take(1)).toMatchObject([{ $seq: 1, deliveries: 8 }]);
    expect(await queue.counters()).toMatchObject({ count: 1, dead_lettered: 0 });
  });

  test("04.34 without max_deliveries the dead_letter gets nothing", async () => {
    const { queue, dead } = await pair({ max_deliveries: 0 });
    await queue.append(1);
    await redeliver(queue, 7);
    expect(await queue.take(1)).toMatchObject([{ $seq: 1, deliveries: 8 }]);
    expect((await dead.state()).status).toBe(404);
  });

  test("3.1 dead_lettered counts the moves of one queue, and starts over with a new one", async () => {
    const { queue, dead } = await pair({ max_deliveries: 1 });
    const other = await makeQueue(server, { max_deliveries: 1, dead_letter: dead.name });
    await queue.append(1, 2, 3);
    await other.append(4);
    for (const one of [queue, other]) await redeliver(one, 2);
    expect((await queue.counters()).dead_lettered).toBe(3);
    expect((await other.counters()).dead_lettered).toBe(1);
    expect((await dead.state()).body.count).toBe(4);
    await queue.drop();
    await queue.put({ type: "queue" });
    expect((await queue.counters()).dead_lettered).toBe(0);
    expect((await dead.state()).body.count).toBe(4);
  });

  test("04.30 parallel claims move every poison job once", async () => {
    const { queue, dead } = await pair({ max_deliveries: 1 });
    await queue.append(...range(1, 50));
    await redeliver(queue, 1);
    await queue.append(...range(51, 70));
    const claims = await Promise.all(range(1, 10).map((i) => queue.take(3, { node: `w${i}` })));
    expect(claims.flatMap(seqsOf).toSorted((a, b) => a - b)).toEqual(range(51, 70));
    expect(column(await dead.diff({ limit: 1000 }), "data")).toEqual(range(1, 50));
    expect(await queue.counters()).toEqual({ count: 20, ready: 0, in_flight: 20, dead_lettered: 50 });
  });
});

describe("the record", () => {
  test("04.31 keeps $tag, $node, data and the own meta, and tells where it is from", async () => {
    const record = { data: { frame: 2 }, tag: "shot", node: "producer", meta: { pri: "hi", n: [1] } };
    const { queue, dead } = await poisoned(record);
    const { epoch, config } = (await queue.state()).body;
    const { $ts: written } = (await queue.diff()).body.records[0];
    const before = Date.now();
    await queue.claim();
    const [letter] = await letters(dead);
    expect(config.max_deliveries).toBe(2);
    expect(letter).toStrictEqual({
      $seq: 1,
      $ts: expect.any(Number),
      $node: "producer",
      $tag: "shot",
      data: { frame: 2 },
      meta: {
        pri: "hi",
        n: [1],
        $dead_letter_from: queue.name,
        $dead_letter_deliveries: "2",
        $dead_letter_src_seq: "1",
        $dead_letter: { topic: queue.name, epoch, seq: 1, ts: written, deliveries: 2 },
      },
    });
    expect(letter.$ts).toBeGreaterThanOrEqual(before - 1);
    expect(letter.$ts).toBeLessThanOrEqual(Date.now() + 1);
  });

  test("04.31 of a job with nothing but data has nothing but the marks", async () => {
    const { queue, dead } = await poisoned({ data: null });
    await queue.claim();
    const [letter] = await letters(dead);
    expect(Object.keys(letter).sort()).toEqual(["$seq", "$ts", "data", "meta"]);
    expect(letter.data).toBeNull();
    expect(Object.keys(letter.meta).sort()).toEqual([
      "$dead_letter",
      "$dead_letter_deliveries",
      "$dead_letter_from",
      "$dead_letter_src_seq",
    ]);
  });

  test("04.31 the source seq is that of the job, the own seq the next of the topic", async () => {
    const { queue, dead } = await pair({ max_deliveries: 1 });
    await dead.append("before");
    await queue.append(1, 2, 3, 4);
    await queue.take(4);
    await queue.ack([1, 3]);
    await queue.nack([2, 4]);
    await queue.claim();
    const moved = (await letters(dead)).slice(1);
    expect(moved.map(({ $seq }: { $seq: number }) => $seq)).toEqual([2, 3]);
    expect(moved).toMatchObject([
      { data: 2, meta: { $dead_letter_src_seq: "2", $dead_letter: { seq: 2 } } },
      { data: 4, meta: { $dead_letter_src_seq: "4", $dead_letter: { seq: 4 } } },
    ]);
  });

  test.each([["text"], [""], [7], [0], [true], [false], [[1, { a: 2 }]], [[]]])(
    "6 a meta of %j, which is no object, is kept inside $dead_letter",
    async (meta) => {
      const { queue, dead } = await poisoned({ data: 1, meta });
      await queue.claim();
      const [letter] = await letters(dead);
      expect(Object.keys(letter.meta)).toHaveLength(4);
      expect(letter.meta).toMatchObject({ $dead_letter_from: queue.name, $dead_letter: { seq: 1, meta } });
    },
  );

  test("6 a meta that is an object is not repeated inside $dead_letter", async () => {
    const { queue, dead } = await poisoned({ data: 1, meta: {} });
    await queue.claim();
    const [letter] = await letters(dead);
    expect(Object.keys(letter.meta)).toHaveLength(4);
    expect(letter.meta.$dead_letter).not.toHaveProperty("meta");
  });

  test("6 own keys of those names are replaced", async () => {
    const own = {
      $dead_letter: { topic: "mine", seq: 99, meta: "mine" },
      $dead_letter_from: "mine",
      $dead_letter_deliveries: 99,
      $dead_letter_src_seq: null,
      $dead_letter_other: "kept",
    };
    const { queue, dead } = await poisoned({ data: 1, meta: own });
    const { epoch } = (await queue.state()).body;
    const { $ts } = (await queue.diff()).body.records[0];
    await queue.claim();
    expect((await letters(dead))[0].meta).toStrictEqual({
      $dead_letter: { topic: queue.name, epoch, seq: 1, ts: $ts, deliveries: 2 },
      $dead_letter_from: queue.name,
      $dead_letter_deliveries: "2",
      $dead_letter_src_seq: "1",
      $dead_letter_other: "kept",
    });
  });

  test("6 $dead_letter_deliveries is the limit, $dead_letter has the true number", async () => {
    const { queue, dead } = await pair({ max_deliveries: 0 });
    await queue.append(1);
    await redeliver(queue, 5);
    await queue.put({ type: "queue", max_deliveries: 3, dead_letter: dead.name });
    await queue.claim();
    expect((await letters(dead))[0].meta).toMatchObject({
      $dead_letter_deliveries: "3",
      $dead_letter: { deliveries: 5 },
    });
  });

  test.each([
    ["64 keys", Object.fromEntries(range(1, 64).map((i) => [`k${i}`, i]))],
    ["16384 bytes", { k: "x".repeat(16376) }],
    ["16384 bytes of text", "x".repeat(16382)],
  ])("6 a meta of %s is no obstacle", async (_, meta) => {
    const { queue, dead } = await poisoned({ data: 1, meta });
    await queue.claim();
    const [letter] = await letters(dead);
    if (typeof meta === "string") expect(letter.meta.$dead_letter.meta).toBe(meta);
    else expect(letter.meta).toMatchObject(meta);
    expect(letter.meta.$dead_letter_src_seq).toBe("1");
  });

  test("6 a record at the size limit is no obstacle", async () => {
    const data = "x".repeat(1048574);
    const { queue, dead } = await poisoned({ data });
    await queue.claim();
    expect((await letters(dead))[0].data).toBe(data);
    expect(await queue.counters()).toMatchObject({ count: 0, dead_lettered: 1 });
  });
});

describe("the dead-letter topic", () => {
  test("6 that is missing is created as a log with all defaults", async () => {
    const { queue, dead } = await poisoned({ data: 1 }, { durability: "fsync", ttl_ms: 600000 });
    expect((await dead.state()).status).toBe(404);
    await queue.claim();
    const { body } = await dead.state();
    expect(body).toMatchObject({ type: "log", head_seq: 1, count: 1 });
    expect(body.config).toStrictEqual(defaults);
  });

  test("6 that was deleted is created again", async () => {
    const { queue, dead } = await pair({ max_deliveries: 1 });
    await queue.append(1);
    await redeliver(queue, 2);
    await dead.drop();
    await queue.append(2);
    await redeliver(queue, 2);
    expect(column(await dead.diff(), "data")).toEqual([2]);
    expect((await queue.counters()).dead_lettered).toBe(2);
  });

  test("6 that exists keeps its config and its records", async () => {
    const { queue, dead } = await pair({ max_deliveries: 1 });
    await dead.put({ ttl_ms: 600000, durability: "fsync" });
    await dead.append("older");
    await queue.append("job");
    await redeliver(queue, 2);
    expect(column(await dead.diff(), "data")).toEqual(["older", "job"]);
    expect((await dead.state()).body.config).toMatchObject({ ttl_ms: 600000, durability: "fsync" });
  });

  test.each(["ephemeral", "memory", "disk", "fsync"])("6 and a queue of class %s", async (durability) => {
    const { queue, dead } = await pair({ max_deliveries: 1, durability });
    await queue.append(1, 2);
    await redeliver(queue, 2);
    expect(column(await dead.diff(), "data")).toEqual([1, 2]);
    expect(await queue.counters()).toMatchObject({ count: 0, dead_lettered: 2 });
  });

  test("04.35 as a queue: the moved job is claimable there", async () => {
    const { queue, dead } = await pair();
    await dead.put({ type: "queue" });
    await queue.write({ records: [{ data: "bad", tag: "t", meta: { own: 1 } }] });
    await redeliver(queue, 3);
    expect(await dead.counters()).toEqual({ count: 1, ready: 1, in_flight: 0, dead_lettered: 0 });
    const [job] = await dead.take(5);
    expect(job).toMatchObject({
      $seq: 1,
      $tag: "t",
      deliveries: 1,
      data: "bad",
      meta: { own: 1, $dead_letter_from: queue.name, $dead_letter_src_seq: "1" },
    });
    expect((await dead.ack([1], { lease_ids: [job!.lease_id] })).body.acked).toBe(1);
    expect(await dead.counters()).toMatchObject({ count: 0 });
  });

  test("04.35 as a queue with its own dead-letter topic: the marks are those of the last move", async () => {
    const { queue, dead } = await pair({ max_deliveries: 1 });
    const last = absentTopic(server, `dead-${++named}`);
    await dead.put({ type: "queue", max_deliveries: 3, dead_letter: last.name });
    await queue.write({ records: [{ data: 0 }, { data: "bad", meta: { own: 1 } }] });
    await queue.take(1);
    await queue.ack([1]);
    await redeliver(queue, 2);
    await redeliver(dead, 4);
    const { epoch } = (await dead.state()).body;
    const ts = expect.any(Number);
    expect((await letters(last))[0]).toMatchObject({ data: "bad" });
    expect((await letters(last))[0].meta).toStrictEqual({
      own: 1,
      $dead_letter_from: dead.name,
      $dead_letter_deliveries: "3",
      $dead_letter_src_seq: "1",
      $dead_letter: { topic: dead.name, epoch, seq: 1, ts, deliveries: 3 },
    });
  });

  test("04.35 two queues that name each other: a job goes to and fro, and is never lost", async () => {
    const [one, other] = [absentQueue(server, `ring-${++named}`), absentQueue(server, `ring-${++named}`)];
    await one.put({ type: "queue", max_deliveries: 1, dead_letter: other.name });
    await other.put({ type: "queue", max_deliveries: 1, dead_letter: one.name });
    await one.append("ball");
    for (let turn = 0; turn < 3; turn++) {
      for (const queue of [one, other]) {
        expect(await queue.take(5)).toMatchObject([{ data: "ball", deliveries: 1 }]);
        await queue.nack([turn + 1]);
        expect((await queue.claim({ max: 5 })).body.count).toBe(0);
      }
    }
    expect(await one.counters()).toEqual({ count: 1, ready: 1, in_flight: 0, dead_lettered: 3 });
    expect(await other.counters()).toEqual({ count: 0, ready: 0, in_flight: 0, dead_lettered: 3 });
  });

  test("04.35 as a router's source: the moved job is forwarded", async () => {
    const { queue, dead } = await pair({ max_deliveries: 1 });
    const dest = await newTopic(server);
    await dead.put();
    const put = await server.send("PUT", `/v0/routers/r-${dead.name}`, {
      source: dead.name,
      dest: dest.name,
    });
    expect(put.status).toBe(201);
    await queue.write({ records: [{ data: "bad", tag: "t", node: "n" }] });
    await redeliver(queue, 2);
    const reply = await until(
      () => dest.diff({ include_tags: true }),
      ({ body }) => body.records.length > 0,
    );
    expect(reply.body.records).toMatchObject([
      { $seq: 1, $tag: "t", $node: "n", data: "bad", meta: { $dead_letter_from: queue.name } },
    ]);
  });

  test("6 wakes its readers", async () => {
    const { queue, dead } = await poisoned();
    await dead.put();
    const poll = timed(() => dead.diff({ wait_ms: 20000 }));
    await until(
      () => dead.state(),
      ({ body }) => body.last_read_ts !== null,
    );
    await queue.claim();
    const { ms, answer } = await poll;
    expect(column(answer, "data")).toEqual(["bad"]);
    expect(ms).toBeLessThan(10000);
  });

  test("6 with a cap and discard old evicts as for any append", async () => {
    const { queue, dead } = await pair({ max_deliveries: 1 });
    await dead.put({ cap_records: 2 });
    await queue.append(1, 2, 3);
    await redeliver(queue, 2);
    const reply = await dead.diff();
    expect(column(reply, "data")).toEqual([2, 3]);
    expect(reply.body.tombstone).toMatchObject({ reason: "cap", gap_from: 1, gap_to: 1 });
    expect((await queue.counters()).dead_lettered).toBe(3);
  });

  test.each([
    ["records", { cap_records: 2 }, 2],
    ["bytes", { cap_bytes: 3 }, 3],
    ["less bytes than a dead letter has", { cap_bytes: 1 }, 1],
  ])("6 that is full of %s and rejects: takes the job and loses nothing", async (_, cap, older) => {
    const { queue, dead } = await pair({ max_deliveries: 1 });
    await dead.put({ discard: "reject", ...cap });
    await dead.append(...range(1, older));
    const full = await dead.write({ records: [{ data: 0 }] });
    expect(full.status).toBe(422);
    await queue.append("one", "two");
    await redeliver(queue, 2);
    const reply = await dead.diff();
    expect(column(reply, "data")).toEqual([...range(1, older), "one", "two"]);
    expect(reply.body).toMatchObject({ tombstone: null, earliest_seq: 1 });
    expect(await queue.counters()).toMatchObject({ count: 0, dead_lettered: 2 });
    expect((await dead.write({ records: [{ data: 0 }] })).status).toBe(422);
    await dead.erase({ before_seq: older + 3 });
    expect((await dead.append(9)).status).toBe(200);
  });
});

describe("a dead-letter topic that cannot be created", () => {
  /** A server that holds `others` topics more, none of them the dead-letter topic of its one queue. */
  async function full(others: number) {
    const own = await startServer({ TOPICS_MAX_TOPICS: `${others + 1}` });
    for (let i = 0; i < others; i++) await own.send("PUT", `/v0/topics/other-${i}`);
    return { own, ...(await pair({}, own)) };
  }

  test("6 the claim is answered; the job stays waiting and keeps its counter", async () => {
    const { own, queue, dead } = await full(0);
    await using _ = own;
    await queue.append("bad", "good");
    await redeliver(queue, 2, 1);
    const reply = await queue.claim({ max: 5 });
    expect(reply).toMatchObject({ status: 200, body: { count: 1, ready: 1 } });
    expect(jobs(reply)).toMatchObject([{ $seq: 2, deliveries: 1, data: "good" }]);
    expect(await queue.counters()).toEqual({ count: 2, ready: 1, in_flight: 1, dead_lettered: 0 });
    expect((await dead.state()).status).toBe(404);
    for (let time = 0; time < 3; time++)
      expect((await queue.claim()).body).toMatchObject({ count: 0, ready: 1 });
    await queue.put({ type: "queue" });
    expect(await queue.take(1)).toMatchObject([{ $seq: 1, deliveries: 3 }]);
  });

  test("6 once there is room, the next claim moves the job", async () => {
    const { own, queue, dead } = await full(1);
    await using _ = own;
    await queue.append("bad");
    await redeliver(queue, 2);
    expect((await queue.claim()).body).toMatchObject({ count: 0, ready: 1 });
    await own.send("DELETE", "/v0/topics/other-0");
    expect((await queue.claim()).body).toMatchObject({ count: 0, ready: 0 });
    expect(await queue.counters()).toMatchObject({ count: 0, dead_lettered: 1 });
    expect((await letters(dead))[0]).toMatchObject({
      data: "bad",
      meta: { $dead_letter: { deliveries: 2 } },
    });
  });

  test("6 at the server's quota no job is lost", async () => {
    await using own = await startServer({ TOPICS_MAX_TOTAL_BYTES: "10" });
    const { queue, dead } = await pair({ max_deliveries: 1 }, own);
    await queue.append("12345678");
    await redeliver(queue, 1);
    expect((await queue.claim()).status).toBe(200);
    const { count, dead_lettered } = await queue.counters();
    const kept = (await dead.state()).body?.count ?? 0;
    expect(count + kept).toBe(1);
    expect(dead_lettered).toBe(kept);
  });
});

describe("a change of the config", () => {
  const config = (dead: Topic, max_deliveries: number) => ({
    type: "queue",
    max_deliveries,
    dead_letter: dead.name,
  });

  test("04.36 raising max_deliveries lets the next claim deliver", async () => {
    const { queue, dead } = await poisoned();
    await queue.put(config(dead, 3));
    expect(await queue.take(1)).toMatchObject([{ $seq: 1, deliveries: 3 }]);
    await queue.nack([1]);
    expect((await queue.claim()).body.count).toBe(0);
    expect(await queue.counters()).toMatchObject({ count: 0, dead_lettered: 1 });
  });

  test("04.36 setting it lets the next claim move what was delivered as often before", async () => {
    const { queue, dead } = await pair({ max_deliveries: 0 });
    await queue.append("often", "once");
    await redeliver(queue, 3, 1);
    await queue.put(config(dead, 3));
    expect(await queue.take(5)).toMatchObject([{ $seq: 2, deliveries: 1 }]);
    expect(column(await dead.diff(), "data")).toEqual(["often"]);
  });

  test("04.36 taking it or the dead_letter away lets the next claim deliver", async () => {
    for (const without of [{ max_deliveries: 2 }, { dead_letter: "x" }]) {
      const { queue } = await poisoned();
      await queue.put({ type: "queue", ...without });
      expect(await queue.take(1)).toMatchObject([{ $seq: 1, deliveries: 3 }]);
    }
  });

  test("04.36 a lease in force is left alone, and its job is moved at the claim after it", async () => {
    const { queue, dead } = await pair({ max_deliveries: 0 });
    await queue.append(1);
    const [job] = await queue.take(1);
    await queue.put(config(dead, 1));
    expect((await queue.claim({ node: "other" })).body.count).toBe(0);
    expect(await queue.counters()).toMatchObject({ in_flight: 1, dead_lettered: 0 });
    expect((await queue.nack([1], { lease_ids: [job!.lease_id] })).body.nacked).toBe(1);
    await queue.claim();
    expect(await queue.counters()).toMatchObject({ count: 0, dead_lettered: 1 });
  });

  test("04.36 the name that is set when the job moves is where it goes", async () => {
    const { queue, dead } = await poisoned();
    const other = absentTopic(server, `dead-${++named}`);
    await queue.put(config(other, 2));
    await queue.claim({ node: WORKER });
    expect((await dead.state()).status).toBe(404);
    expect(column(await other.diff(), "data")).toEqual(["bad"]);
  });
});
