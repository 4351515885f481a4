/** Leases: when they end by themselves, what a former holder can still do, and how `extend` moves the end. */
import { describe, expect, test } from "bun:test";
import { filledQueue, holderCalls, type Queue, reaches, seqsOf, WORKER } from "../support/queue.ts";
import { sharedServer, until } from "../support/topics.ts";

const server = sharedServer();

const invalid = { status: 400, body: { error: { code: "invalid_request" } } };

/** Waits until the server's clock, which is this machine's, has passed a deadline. */
const passed = (deadline: number) =>
  until(
    async () => Date.now(),
    (now) => now > deadline + 20,
  );

describe("the end of a lease", () => {
  test("04.26 the state shows the job as ready, without any claim and not before the deadline", async () => {
    const queue = await filledQueue(server, 2);
    const [job] = await queue.take(1, { lease_ms: 100 });
    expect(await reaches(queue, { ready: 2 })).toEqual({
      count: 2,
      ready: 2,
      in_flight: 0,
      dead_lettered: 0,
    });
    const seen = Date.now();
    expect(seen).toBeGreaterThan(job!.deadline);
    expect(seen).toBeLessThan(job!.deadline + 500);
  });

  test("04.26 until the deadline the job is leased", async () => {
    const queue = await filledQueue(server, 1);
    const [job] = await queue.take(1, { lease_ms: 300 });
    const seen: [number, number][] = [];
    while (seen.at(-1)?.[1] !== 1 && Date.now() <= job!.deadline + 2000) {
      const { body } = await queue.claim({ node: "other", lease_ms: 60000 });
      seen.push([Date.now(), body.count]);
    }
    expect((await queue.claim({ node: "another" })).body.count).toBe(0);
    for (const [at, count] of seen.filter(([at]) => at <= job!.deadline))
      expect([at, count]).toEqual([at, 0]);
    expect(seen.filter(([, count]) => count === 1)).toHaveLength(1);
  });

  test.each(holderCalls)(
    "04.26 a late %s is skipped, though nobody took the job",
    async (name, counted, fields) => {
      const queue = await filledQueue(server, 1);
      const [job] = await queue.take(1, { lease_ms: 100 });
      await passed(job!.deadline);
      const late = (more: object) => queue.call(name, { node: WORKER, seqs: [1], ...fields, ...more });
      expect(await late({ lease_ids: [job!.lease_id] })).toMatchObject({
        status: 200,
        body: { [counted]: 0, skipped: [1] },
      });
      expect((await late({})).body).toMatchObject({ [counted]: 0, skipped: [1] });
      expect(await queue.counters()).toEqual({ count: 1, ready: 1, in_flight: 0, dead_lettered: 0 });
    },
  );

  test("04.27 another worker gets the job, with deliveries 2", async () => {
    const queue = await filledQueue(server, 1);
    const [first] = await queue.take(1, { lease_ms: 100 });
    await passed(first!.deadline);
    const [second] = await queue.take(1, { node: "other" });
    expect(second).toMatchObject({ $seq: 1, deliveries: 2, data: first!.data });
    expect(second!.lease_id).not.toBe(first!.lease_id);
  });

  test.each(holderCalls)(
    "04.27 then a late %s of the former holder does nothing",
    async (name, counted, fields) => {
      const queue = await filledQueue(server, 1);
      const [first] = await queue.take(1, { lease_ms: 100 });
      await passed(first!.deadline);
      const [second] = await queue.take(1, { node: "other" });
      const late = (more: object) => queue.call(name, { node: WORKER, seqs: [1], ...fields, ...more });
      expect((await late({})).body).toMatchObject({ [counted]: 0, skipped: [1] });
      expect((await late({ lease_ids: [first!.lease_id] })).body).toMatchObject({
        [counted]: 0,
        skipped: [1],
      });
      expect((await late({ lease_ids: [second!.lease_id] })).body).toMatchObject({
        [counted]: 0,
        skipped: [1],
      });
      expect((await queue.ack([1], { node: "other", lease_ids: [second!.lease_id] })).body.acked).toBe(1);
    },
  );

  test("04.27 the same node can take it again; then only the new token counts", async () => {
    const queue = await filledQueue(server, 1);
    const [first] = await queue.take(1, { lease_ms: 100 });
    await passed(first!.deadline);
    const [second] = await queue.take(1);
    expect((await queue.ack([1], { lease_ids: [first!.lease_id] })).body.skipped).toEqual([1]);
    expect((await queue.ack([1], { lease_ids: [second!.lease_id] })).body.acked).toBe(1);
  });

  test("04.26 each job of a queue has its own deadline", async () => {
    const queue = await filledQueue(server, 4);
    await queue.take(4);
    for (const seq of [3, 1, 4]) {
      await queue.extend([seq], 100);
      expect(await reaches(queue, { ready: 1 })).toMatchObject({ in_flight: 3 });
      expect(seqsOf(await queue.take(9))).toEqual([seq]);
    }
    expect((await queue.ack([1, 2, 3, 4])).body.acked).toBe(4);
  });

  test("04.26 the reply of ack and nack counts without the expired", async () => {
    const queue = await filledQueue(server, 4);
    await queue.take(4);
    const { deadlines } = (await queue.extend([1, 2], 100)).body;
    await passed(deadlines["1"]);
    expect((await queue.ack([3])).body).toMatchObject({ acked: 1, ready: 2, in_flight: 1 });
    expect((await queue.nack([4], { delay_ms: 60000 })).body).toMatchObject({
      nacked: 1,
      ready: 2,
      in_flight: 0,
    });
  });

  test("2 a change of lease_ms leaves running leases alone and counts for the next", async () => {
    const queue = await filledQueue(server, 2, { lease_ms: 60000 });
    const [long] = await queue.take(1);
    await queue.put({ type: "queue", lease_ms: 100 });
    const before = Date.now();
    const [short] = await queue.take(1);
    expect(short!.deadline - before).toBeLessThan(1000);
    await passed(short!.deadline);
    expect(await queue.counters()).toMatchObject({ ready: 1, in_flight: 1 });
    expect((await queue.ack([1], { lease_ids: [long!.lease_id] })).body.acked).toBe(1);
  });
});

describe("extend", () => {
  test("5.5 the reply has exactly these members", async () => {
    const queue = await filledQueue(server, 3);
    await queue.take(2);
    const before = Date.now();
    const { status, body } = await queue.extend([1, 3], 60000);
    const after = Date.now();
    expect(status).toBe(200);
    expect(body).toStrictEqual({
      topic: queue.name,
      extended: 1,
      skipped: [3],
      deadlines: { "1": expect.any(Number) },
      performance: { server_total_ms: expect.any(Number) },
    });
    expect(body.deadlines["1"] - 60000).toBeGreaterThanOrEqual(before - 1);
    expect(body.deadlines["1"] - 60000).toBeLessThanOrEqual(after + 1);
  });

  test("04.29 deadlines has each extended seq once, and none of the skipped", async () => {
    const queue = await filledQueue(server, 12);
    await queue.take(11);
    const { body } = await queue.extend([11, 2, 2, 12, 99], 60000);
    expect(body).toMatchObject({ extended: 3, skipped: [12, 99] });
    expect(Object.keys(body.deadlines).sort()).toEqual(["11", "2"]);
    expect(body.deadlines["11"]).toBe(body.deadlines["2"]);
    expect((await queue.extend([12], 60000)).body.deadlines).toStrictEqual({});
  });

  test.each([
    ["0", 100],
    ["1", 100],
    ["100", 100],
    ["12345", 12345],
    ["99999999999", 86400000],
    ["9007199254740993", 86400000],
    ["18446744073709551615", 86400000],
  ])("5.5 lease_ms %s is %d from now", async (lease_ms, effective) => {
    const queue = await filledQueue(server, 1);
    await queue.take(1);
    const before = Date.now();
    const body = `{"node":"${WORKER}","seqs":[1],"lease_ms":${lease_ms}}`;
    const deadline = (await queue.call("extend", body)).body.deadlines["1"];
    const after = Date.now();
    expect(deadline - effective).toBeGreaterThanOrEqual(before - 1);
    expect(deadline - effective).toBeLessThanOrEqual(after + 1);
  });

  test.each([
    "",
    ',"lease_ms":null',
    ',"lease_ms":-1',
    ',"lease_ms":1.5',
    ',"lease_ms":"60000"',
    ',"lease_ms":true',
  ])("04.29 the request with %j is refused", async (field) => {
    const queue = await filledQueue(server, 1);
    await queue.take(1, { lease_ms: 60000 });
    expect(await queue.call("extend", `{"node":"${WORKER}","seqs":[1]${field}}`)).toMatchObject(invalid);
    expect(await queue.counters()).toMatchObject({ in_flight: 1 });
  });

  test("04.29 lease_ms is missed before the topic is", async () => {
    const reply = await server.send("POST", "/v0/topics/nowhere/extend", { node: WORKER, seqs: [1] });
    expect(reply).toMatchObject(invalid);
  });

  /** Nobody but the holder gets the job, and the holder can ack it. */
  async function stillHeld(queue: Queue, lease_id: string) {
    expect(await queue.counters()).toMatchObject({ ready: 0, in_flight: 1 });
    expect((await queue.claim({ node: "other" })).body.count).toBe(0);
    expect((await queue.ack([1], { lease_ids: [lease_id] })).body.acked).toBe(1);
  }

  test("04.28 past the old deadline it prevents the expiry", async () => {
    const queue = await filledQueue(server, 1);
    const [job] = await queue.take(1, { lease_ms: 500 });
    expect((await queue.extend([1], 60000)).body.extended).toBe(1);
    await passed(job!.deadline);
    await stillHeld(queue, job!.lease_id);
  });

  test("04.28 again and again it keeps a short lease alive", async () => {
    const queue = await filledQueue(server, 1);
    const [job] = await queue.take(1, { lease_ms: 600 });
    const end = job!.deadline + 600;
    while (Date.now() < end) {
      expect((await queue.extend([1], 600)).body.extended).toBe(1);
      await Bun.sleep(100);
    }
    await stillHeld(queue, job!.lease_id);
  });

  test("04.28 to a shorter lease it makes the job expire earlier", async () => {
    const queue = await filledQueue(server, 1);
    const [job] = await queue.take(1, { lease_ms: 60000 });
    const { deadlines } = (await queue.extend([1], 100)).body;
    expect(deadlines["1"]).toBeLessThan(job!.deadline);
    await reaches(queue, { ready: 1 });
    expect(Date.now()).toBeGreaterThan(deadlines["1"]);
    expect((await queue.ack([1], { lease_ids: [job!.lease_id] })).body).toMatchObject({
      acked: 0,
      skipped: [1],
    });
    expect(await queue.take(1)).toMatchObject([{ $seq: 1, deliveries: 2 }]);
  });

  test("04.28 it changes neither the counter of deliveries nor those of the queue", async () => {
    const queue = await filledQueue(server, 2);
    await queue.take(1);
    for (let time = 0; time < 5; time++) await queue.extend([1], 60000);
    expect(await queue.counters()).toEqual({ count: 2, ready: 1, in_flight: 1, dead_lettered: 0 });
    await queue.nack([1]);
    expect(await queue.take(1)).toMatchObject([{ $seq: 1, deliveries: 2 }]);
  });
});
