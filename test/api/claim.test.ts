/** `POST /v0/topics/:topic/claim`: which jobs a worker gets, in what order and shape, and what is refused. */
import { describe, expect, test } from "bun:test";
import {
  absentQueue,
  claimedTexts,
  filledQueue,
  jobs,
  makeQueue,
  type Queue,
  range,
  reaches,
  seqsOf,
  WORKER,
} from "../support/queue.ts";
import type { Reply } from "../support/server.ts";
import { newTopic, sharedServer, timed, together } from "../support/topics.ts";

const server = sharedServer();

const invalid = { status: 400, body: { error: { code: "invalid_request" } } };
const LEASE = /^lease_[0-9a-f]{1,16}$/;

/** What a refused claim must not have done. */
const nothingLeased = async (queue: Queue) => expect((await queue.counters()).in_flight).toBe(0);

describe("what a claim hands out", () => {
  test("04.6 four of ten: the first ones, each with a lease of its own", async () => {
    const queue = await filledQueue(server, 10);
    const reply = await queue.claim({ max: 4 });
    const claimed = jobs(reply);
    expect(reply).toMatchObject({ status: 200, body: { count: 4, ready: 6 } });
    expect(seqsOf(claimed)).toEqual([1, 2, 3, 4]);
    expect(claimed.map(({ deliveries }) => deliveries)).toEqual([1, 1, 1, 1]);
    expect(new Set(claimed.map(({ lease_id }) => lease_id)).size).toBe(4);
    for (const { lease_id } of claimed) expect(lease_id).toMatch(LEASE);
    expect(await queue.counters()).toEqual({ count: 10, ready: 6, in_flight: 4, dead_lettered: 0 });
    expect(seqsOf(await queue.take(10))).toEqual(range(5, 10));
  });

  test("4 the reply and its jobs have exactly these members", async () => {
    const queue = await makeQueue(server, { lease_ms: 20000 });
    await queue.write({
      records: [
        { data: { frame: 1 }, tag: "shot-a", node: "producer", meta: { pri: "hi" } },
        { data: { frame: 2 } },
      ],
    });
    const stored = (await queue.diff()).body.records;
    const { body } = await queue.claim({ max: 5 });
    const lease = { lease_id: expect.stringMatching(LEASE), deadline: expect.any(Number), deliveries: 1 };
    expect(body).toStrictEqual({
      topic: queue.name,
      claimed: [
        { $seq: 1, $ts: stored[0].$ts, $tag: "shot-a", data: { frame: 1 }, meta: { pri: "hi" }, ...lease },
        { $seq: 2, $ts: stored[1].$ts, data: { frame: 2 }, ...lease },
      ],
      count: 2,
      ready: 0,
      performance: { server_total_ms: expect.any(Number) },
    });
  });

  test.each([
    ["no lease_ms", "", 20000],
    ["lease_ms null", ',"lease_ms":null', 20000],
    ["lease_ms 0", ',"lease_ms":0', 100],
    ["lease_ms 1", ',"lease_ms":1', 100],
    ["lease_ms 101", ',"lease_ms":101', 101],
    ["lease_ms 60000", ',"lease_ms":60000', 60000],
    ["lease_ms 99999999999", ',"lease_ms":99999999999', 86400000],
    ["lease_ms 2^53+1", ',"lease_ms":9007199254740993', 86400000],
    ["lease_ms 2^64-1", ',"lease_ms":18446744073709551615', 86400000],
  ])("04.7 the deadline with %s is the time of the claim plus %s ms", async (_, field, lease) => {
    const queue = await filledQueue(server, 2, { lease_ms: 20000 });
    const before = Date.now();
    const claimed = jobs(await queue.call("claim", `{"node":"w","max":2${field}}`));
    const after = Date.now();
    expect(claimed).toHaveLength(2);
    for (const { deadline } of claimed) {
      expect(Number.isInteger(deadline)).toBe(true);
      expect(deadline - lease).toBeGreaterThanOrEqual(before - 1);
      expect(deadline - lease).toBeLessThanOrEqual(after + 1);
    }
  });

  test.each(["-1", "1.5", '"5"', "true", "[]", "18446744073709551616"])(
    "04.7 lease_ms %s is refused",
    async (lease_ms) => {
      const queue = await filledQueue(server, 1);
      expect(await queue.call("claim", `{"node":"w","lease_ms":${lease_ms}}`)).toMatchObject(invalid);
      await nothingLeased(queue);
    },
  );

  test.each([
    ["no max", "", 1],
    ["max 0", ',"max":0', 1],
    ["max 1", ',"max":1', 1],
    ["max 999", ',"max":999', 999],
    ["max 1000", ',"max":1000', 1000],
    ["max 1001", ',"max":1001', 1000],
    ["max 2^32-1", ',"max":4294967295', 1000],
  ])("04.8 %s gives at most so many", async (_, field, count) => {
    const queue = await filledQueue(server, 1003);
    const reply = await queue.call("claim", `{"node":"w"${field}}`);
    expect(reply).toMatchObject({ status: 200, body: { count, ready: 1003 - count } });
    expect(seqsOf(jobs(reply))).toEqual(range(1, count));
  });

  test("4 max 1000 on 1000 jobs empties the queue, each job with its own lease", async () => {
    const queue = await filledQueue(server, 1000);
    const reply = await queue.claim({ max: 1000 });
    expect(reply.body).toMatchObject({ count: 1000, ready: 0 });
    expect(jobs(reply).map(({ data }) => data)).toEqual(range(1, 1000));
    expect(new Set(jobs(reply).map(({ lease_id }) => lease_id)).size).toBe(1000);
    expect(await queue.counters()).toMatchObject({ count: 1000, ready: 0, in_flight: 1000 });
  });

  test.each(["-1", "1.5", "1.0", "1e1", '"2"', "null", "true", "[1]", "4294967296"])(
    "04.8 max %s is refused",
    async (max) => {
      const queue = await filledQueue(server, 2);
      expect(await queue.call("claim", `{"node":"w","max":${max}}`)).toMatchObject(invalid);
      await nothingLeased(queue);
    },
  );

  test("04.11 of an empty queue: nothing, at once, and no error", async () => {
    const queue = await makeQueue(server);
    const { ms, answer } = await timed(() => queue.claim({ max: 10, wait_ms: 5000 }));
    expect(answer.status).toBe(200);
    expect(answer.body).toStrictEqual({
      topic: queue.name,
      claimed: [],
      count: 0,
      ready: 0,
      performance: { server_total_ms: expect.any(Number) },
    });
    expect(ms).toBeLessThan(1000);
  });

  test("04.11 of a queue whose jobs are all leased: nothing, at once", async () => {
    const queue = await filledQueue(server, 3);
    await queue.take(3);
    expect((await queue.claim({ node: "other" })).body).toMatchObject({ claimed: [], count: 0, ready: 0 });
  });

  test("04.12 $tag and meta only where written, $node never, null as null", async () => {
    const queue = await makeQueue(server);
    await queue.write({
      node: "producer",
      records: [
        { data: null },
        { data: 1, tag: "" },
        { data: 2, meta: [1] },
        { data: 3, tag: null, meta: null, node: "own" },
      ],
    });
    const reply = await queue.claim({ max: 4 });
    const kept = jobs(reply).map(({ $tag, data, meta }) => ({ $tag, data, meta }));
    expect(kept).toEqual([
      { $tag: undefined, data: null, meta: undefined },
      { $tag: "", data: 1, meta: undefined },
      { $tag: undefined, data: 2, meta: [1] },
      { $tag: undefined, data: 3, meta: undefined },
    ]);
    expect(claimedTexts(reply, "data")).toEqual(["null", "1", "2", "3"]);
    expect(jobs(reply).map((job) => Object.keys(job).includes("$tag"))).toEqual([false, true, false, false]);
    expect(jobs(reply).map((job) => Object.keys(job).includes("meta"))).toEqual([false, false, true, false]);
    expect(reply.text).not.toContain("$node");
  });

  test("4 node filters nothing: a worker gets the jobs it wrote", async () => {
    const queue = await makeQueue(server);
    await queue.write({ node: WORKER, records: [{ data: 1 }, { data: 2, node: "other" }] });
    expect(seqsOf(await queue.take(5))).toEqual([1, 2]);
  });

  test("4 a deleted job is not handed out, the others are", async () => {
    const queue = await makeQueue(server);
    await queue.write({ records: ["a", "b", "a", "b", "a"].map((tag) => ({ data: tag, tag })) });
    await queue.erase({ match: "b" });
    expect((await queue.claim({ max: 2 })).body).toMatchObject({ count: 2, ready: 1 });
    expect(seqsOf(await queue.take(5))).toEqual([5]);
  });

  test("4 jobs written later are handed out too", async () => {
    const queue = await filledQueue(server, 1);
    await queue.take(1);
    expect((await queue.claim()).body.count).toBe(0);
    await queue.append("later");
    expect(await queue.take()).toMatchObject([{ $seq: 2, data: "later", deliveries: 1 }]);
  });

  test("1 two queues side by side have their own seqs, leases and counters", async () => {
    const [left, right] = await Promise.all([filledQueue(server, 3), filledQueue(server, 2)]);
    const [[one], [other]] = [await left.take(1), await right.take(1)];
    expect([one!.$seq, other!.$seq]).toEqual([1, 1]);
    expect((await right.ack([1], { lease_ids: [one!.lease_id] })).body).toMatchObject({
      acked: 0,
      skipped: [1],
    });
    expect((await left.ack([1])).body).toMatchObject({ acked: 1, ready: 2, in_flight: 0 });
    expect(await left.counters()).toMatchObject({ count: 2, ready: 2, in_flight: 0 });
    expect(await right.counters()).toMatchObject({ count: 2, ready: 1, in_flight: 1 });
    expect(seqsOf(await left.take(9))).toEqual([2, 3]);
    expect(seqsOf(await right.take(9))).toEqual([2]);
  });

  test("4 a claim of many bytes is bounded, and the rest waits for the next", async () => {
    const MIB = 1024 * 1024;
    const queue = await makeQueue(server);
    await queue.append(...Array.from({ length: 20 }, (_, i) => `${i}`.padEnd(MIB - 2, "x")));
    const given: number[] = [];
    while (given.length < 20) {
      const reply = await queue.claim({ max: 20 });
      const bytes = jobs(reply).reduce((sum, { data }) => sum + (data as string).length + 2, 0);
      expect(reply.body.count).toBeGreaterThanOrEqual(1);
      expect(bytes).toBeLessThanOrEqual(9 * MIB);
      given.push(...seqsOf(jobs(reply)));
      expect(reply.body.ready).toBe(20 - given.length);
    }
    expect(given).toEqual(range(1, 20));
  });
});

describe("the order", () => {
  test("04.25 returned jobs come before fresh ones, lowest seq first", async () => {
    const queue = await filledQueue(server, 6);
    await queue.take(4);
    await queue.nack([3]);
    await queue.nack([1]);
    expect(seqsOf(await queue.take(1))).toEqual([1]);
    expect(await queue.take(3)).toMatchObject([
      { $seq: 3, deliveries: 2 },
      { $seq: 5, deliveries: 1 },
      { $seq: 6, deliveries: 1 },
    ]);
  });

  test("04.25 given back, expired or delayed makes no difference", async () => {
    const queue = await filledQueue(server, 5);
    await queue.take(3);
    await queue.extend([1], 100);
    await queue.nack([2]);
    await queue.nack([3], { delay_ms: 100 });
    await reaches(queue, { ready: 5 });
    const claimed = await queue.take(4);
    expect(seqsOf(claimed)).toEqual([1, 2, 3, 4]);
    expect(claimed.map(({ deliveries }) => deliveries)).toEqual([2, 2, 2, 1]);
  });

  test("04.25 a job that came back late is still ahead of fresh ones", async () => {
    const queue = await filledQueue(server, 3);
    await queue.take(1);
    await queue.append(4, 5);
    await queue.nack([1]);
    expect(seqsOf(await queue.take(2))).toEqual([1, 2]);
  });

  test("3 the delivery counter rises at every lease and at nothing else", async () => {
    const queue = await filledQueue(server, 1);
    const deliveries = async () => (await queue.take(1))[0]?.deliveries;
    expect(await deliveries()).toBe(1);
    await queue.extend([1], 50000);
    await queue.nack([1]);
    expect(await deliveries()).toBe(2);
    await queue.extend([1], 100);
    await reaches(queue, { ready: 1 });
    await queue.nack([1]);
    expect(await deliveries()).toBe(3);
    await queue.nack([1], { delay_ms: 50 });
    await reaches(queue, { ready: 1 });
    expect(await deliveries()).toBe(4);
  });
});

describe("lease ids", () => {
  test("P8 are random and never come again, not for a job, nor for a name", async () => {
    const queue = await makeQueue(server);
    const given: string[] = [];
    for (let life = 0; life < 3; life++) {
      await queue.put({ type: "queue" });
      await queue.produce(20);
      for (let time = 0; time < 3; time++) {
        const claimed = await queue.take(20);
        given.push(...claimed.map(({ lease_id }) => lease_id));
        await queue.nack(seqsOf(claimed));
      }
      await queue.drop();
    }
    expect(given).toHaveLength(180);
    expect(new Set(given).size).toBe(180);
    for (const id of given) expect(id).toMatch(LEASE);
    // Of 180 random numbers of 64 bits, next to none is below 2^32, and no two are neighbours.
    const numbers = given.map((id) => BigInt(`0x${id.slice("lease_".length)}`));
    expect(numbers.filter((number) => number < 2n ** 32n)).toEqual([]);
    const near = (one: bigint, other: bigint) => one - other < 1000n && other - one < 1000n;
    expect(numbers.filter((number, i) => i > 0 && near(number, numbers[i - 1]!))).toEqual([]);
  });
});

describe("node", () => {
  test.each([
    ["none", "{}"],
    ["null", '{"node":null}'],
    ["a number", '{"node":7}'],
    ["a list", '{"node":["w"]}'],
    ["an object", '{"node":{}}'],
    ["true", '{"node":true}'],
    ["empty", '{"node":""}'],
    ["129 bytes", `{"node":"${"x".repeat(129)}"}`],
    ["130 bytes in 65 characters", `{"node":"${"é".repeat(65)}"}`],
    ["132 bytes in 33 emoji", `{"node":"${"😀".repeat(33)}"}`],
    ["129 bytes, the last escaped", `{"node":"${"x".repeat(128)}\\u0000"}`],
  ])("04.9 %s is refused", async (_, body) => {
    const queue = await filledQueue(server, 1);
    expect(await queue.call("claim", body)).toMatchObject(invalid);
    await nothingLeased(queue);
  });

  test.each([
    ["1 byte", "x"],
    ["128 bytes", "x".repeat(128)],
    ["128 bytes in 64 characters", "é".repeat(64)],
    ["128 bytes in 32 emoji", "😀".repeat(32)],
    ["blanks", "  "],
    ["control characters", "\0\n\u001f"],
    ["quotes and brackets", '"}],\\'],
    ["a name of Object", "__proto__"],
  ])("04.9 %s can lease and ack", async (_, node) => {
    const queue = await filledQueue(server, 1);
    expect(await queue.take(1, { node })).toHaveLength(1);
    expect((await queue.ack([1])).body.skipped).toEqual([1]);
    expect((await queue.ack([1], { node })).body.acked).toBe(1);
  });
});

describe("the request", () => {
  const JSON_TYPE = { "content-type": "application/json" };

  test("04.10 an empty body is 400, with and without a content type", async () => {
    const queue = await filledQueue(server, 1);
    expect(await queue.call("claim")).toMatchObject(invalid);
    expect(await queue.call("claim", "", JSON_TYPE)).toMatchObject(invalid);
    expect(await queue.call("claim", "", { "content-type": "text/plain" })).toMatchObject(invalid);
    await nothingLeased(queue);
  });

  test.each(["", "text/plain", "application/xml", "application/x-www-form-urlencoded"])(
    "04.10 the content type %j is 415",
    async (type) => {
      const queue = await filledQueue(server, 1);
      const reply = await queue.call("claim", new TextEncoder().encode('{"node":"w"}'), {
        "content-type": type,
      });
      expect(reply).toMatchObject({ status: 415, body: { error: { code: "unsupported_media_type" } } });
      await nothingLeased(queue);
    },
  );

  test("04.10 parameters of the content type do not matter", async () => {
    const queue = await filledQueue(server, 1);
    const reply = await queue.call(
      "claim",
      { node: "w" },
      { "content-type": "application/json; charset=utf-8" },
    );
    expect(reply).toMatchObject({ status: 200, body: { count: 1 } });
  });

  test("04.10 unknown fields are ignored, also repeated ones and unsuitable ones", async () => {
    const queue = await filledQueue(server, 2);
    const body = '{"node":"w","wait_ms":-1,"seqs":"x","Max":"y","x":1,"x":2,"delay_ms":null}';
    expect((await queue.call("claim", body)).body).toMatchObject({ count: 1, ready: 1 });
  });

  test.each([
    "{",
    "null",
    "[]",
    '"w"',
    "7",
    "  ",
    '{"node":"w"}{}',
    '{"node":"w",}',
    '\ufeff{"node":"w"}',
    '{"node":"w","node":"w"}',
    '{"node":"w","max":1,"max":1}',
    '{"node":"\\ud800"}',
    '{"node":"\t"}',
  ])("01.15 the body %j is refused", async (body) => {
    const queue = await filledQueue(server, 1);
    expect(await queue.call("claim", body)).toMatchObject(invalid);
    await nothingLeased(queue);
  });

  const ordered: [string, string | undefined, Record<string, string>, number, number][] = [
    ["an empty body", undefined, {}, 400, 400],
    ["an empty body of another type", "", { "content-type": "text/plain" }, 400, 400],
    ["another type, and bad JSON", "{", { "content-type": "text/plain" }, 415, 415],
    ["bad JSON", "{", {}, 400, 400],
    ["a bad max", '{"node":"w","max":-1}', {}, 400, 400],
    ["a bad lease_ms", '{"node":"w","lease_ms":"x"}', {}, 400, 400],
    ["an empty node", '{"node":""}', {}, 404, 409],
    ["a long node", `{"node":"${"x".repeat(129)}"}`, {}, 404, 409],
  ];

  test.each(ordered)("4 %s on a missing topic and on a log", async (_, body, headers, onMissing, onLog) => {
    const log = await newTopic(server);
    const statuses = [absentQueue(server), absentQueue(server, log.name)].map(
      async (queue) => (await queue.call("claim", body, headers)).status,
    );
    expect(await Promise.all(statuses)).toEqual([onMissing, onLog]);
  });
});

describe("many workers", () => {
  test("04.13 parallel claims never hand out a job twice", async () => {
    const queue = await filledQueue(server, 200);
    const replies = await together(40, (i) => queue.claim({ node: `w${i}`, max: 7 }));
    const given = replies.flatMap((reply) => seqsOf(jobs(reply)));
    expect(given.toSorted((a, b) => a - b)).toEqual(range(1, 200));
    expect(replies.reduce((sum, { body }) => sum + body.count, 0)).toBe(200);
    for (const reply of replies) {
      expect(seqsOf(jobs(reply))).toEqual(seqsOf(jobs(reply)).toSorted((a, b) => a - b));
    }
    expect(await queue.counters()).toMatchObject({ count: 200, ready: 0, in_flight: 200 });
  });

  test("04.13 claims beside writes and nacks: a job has one holder at a time", async () => {
    const queue = await filledQueue(server, 30);
    const holders = new Map<number, string>();
    const conflicts: string[] = [];
    const work = async (node: string) => {
      for (let round = 0; round < 15; round++) {
        const claimed = await queue.take(4, { node });
        for (const { $seq } of claimed) {
          const holder = holders.get($seq);
          if (holder !== undefined) conflicts.push(`${$seq} is held by ${holder} and ${node}`);
          holders.set($seq, node);
        }
        await queue.append(round);
        // From here on others may get them again.
        for (const { $seq } of claimed) holders.delete($seq);
        const { nacked } = (await queue.nack(seqsOf(claimed), { node })).body;
        if (nacked !== claimed.length) conflicts.push(`${node} lost a lease`);
      }
    };
    await together(6, (i) => work(`w${i}`));
    expect(conflicts).toEqual([]);
    expect(await queue.counters()).toEqual({ count: 120, ready: 120, in_flight: 0, dead_lettered: 0 });
  });

  test("04.13 workers that ack what they get work every job exactly once", async () => {
    const queue = await filledQueue(server, 400);
    const done: number[] = [];
    const work = async (node: string) => {
      for (;;) {
        const claimed = await queue.take(8, { node });
        if (claimed.length === 0) return;
        expect(claimed.every(({ deliveries }) => deliveries === 1)).toBe(true);
        const lease_ids = claimed.map(({ lease_id }) => lease_id);
        expect((await queue.ack(seqsOf(claimed), { node, lease_ids })).body.acked).toBe(claimed.length);
        done.push(...seqsOf(claimed));
      }
    };
    await together(10, (i) => work(`w${i}`));
    expect(done.toSorted((a, b) => a - b)).toEqual(range(1, 400));
    expect(await queue.counters()).toEqual({ count: 0, ready: 0, in_flight: 0, dead_lettered: 0 });
  });

  test("3.1 ready + in_flight + delayed is the count, at every moment", async () => {
    const queue = await filledQueue(server, 60);
    const work = async (node: string) => {
      for (let round = 0; round < 8; round++) {
        const given = seqsOf(await queue.take(5, { node }));
        await queue.ack(given.slice(0, 1), { node });
        await queue.nack(given.slice(1), { node });
      }
    };
    const working = together(5, (i) => work(`w${i}`));
    const seen = await together(40, () => queue.counters());
    await working;
    for (const { count, ready, in_flight } of seen) expect(ready + in_flight).toBe(count);
    expect(await queue.counters()).toEqual({ count: 20, ready: 20, in_flight: 0, dead_lettered: 0 });
  });
});

describe("a queue that a router feeds", () => {
  const route = async (source: string, dest: string) => {
    const reply = await server.send("PUT", `/v0/routers/${source}-to-${dest}`, { source, dest });
    expect(reply.status).toBe(201);
  };

  test("4 a claim right after the write to the source gets the copy", async () => {
    const source = await newTopic(server);
    const queue = await makeQueue(server);
    await route(source.name, queue.name);
    const taken: Reply[] = [];
    for (let i = 0; i < 10; i++) {
      await source.write({ records: [{ data: i, tag: `t${i}`, meta: { i } }] });
      taken.push(await queue.claim({ max: 5 }));
    }
    expect(taken.map(({ body }) => body.count)).toEqual(Array(10).fill(1));
    expect(taken.map((reply) => jobs(reply)[0])).toMatchObject(
      range(0, 9).map((i) => ({ $seq: i + 1, deliveries: 1, data: i, $tag: `t${i}`, meta: { i } })),
    );
  });

  test("4 the source may be a queue as well; its jobs are its own", async () => {
    const source = await makeQueue(server);
    const queue = await makeQueue(server);
    await route(source.name, queue.name);
    await source.produce(2);
    expect(seqsOf(await queue.take(5))).toEqual([1, 2]);
    expect((await queue.ack([1, 2])).body.acked).toBe(2);
    expect(await source.counters()).toMatchObject({ count: 2, ready: 2, in_flight: 0 });
    expect(seqsOf(await source.take(5))).toEqual([1, 2]);
  });

  test("4 a claim on a log that a router feeds is not_a_queue", async () => {
    const [source, dest] = [await newTopic(server), await newTopic(server)];
    await route(source.name, dest.name);
    await source.append(1);
    expect((await absentQueue(server, dest.name).claim()).status).toBe(409);
  });
});
