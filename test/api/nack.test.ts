/** `nack`: a job is given back, at once or after a delay. */
import { describe, expect, test } from "bun:test";
import { filledQueue, reaches, seqsOf, WORKER } from "../support/queue.ts";
import { seqs, sharedServer } from "../support/topics.ts";

const server = sharedServer();

const invalid = { status: 400, body: { error: { code: "invalid_request" } } };

describe("given back at once", () => {
  test("5.4 the reply has exactly these members", async () => {
    const queue = await filledQueue(server, 4);
    await queue.take(3);
    const { status, body } = await queue.nack([2, 9], { delay_ms: 0 });
    expect(status).toBe(200);
    expect(body).toStrictEqual({
      topic: queue.name,
      nacked: 1,
      skipped: [9],
      ready: 2,
      in_flight: 2,
      performance: { server_total_ms: expect.any(Number) },
    });
  });

  test("04.22 the job is ready again, and its next delivery is the second", async () => {
    const queue = await filledQueue(server, 3);
    const [first] = await queue.take(2);
    expect((await queue.nack([1])).body).toMatchObject({ nacked: 1, ready: 2, in_flight: 1 });
    expect(await queue.counters()).toEqual({ count: 3, ready: 2, in_flight: 1, dead_lettered: 0 });
    const [second] = await queue.take(1, { node: "other" });
    expect(second).toMatchObject({ $seq: 1, deliveries: 2, data: first!.data, $ts: first!.$ts });
    expect(second!.lease_id).not.toBe(first!.lease_id);
  });

  test("04.22 many times: the counter goes on, the job stays as it is", async () => {
    const queue = await filledQueue(server, 1);
    const deliveries: number[] = [];
    for (let time = 0; time < 12; time++) {
      deliveries.push((await queue.take(1))[0]!.deliveries);
      await queue.nack([1]);
    }
    expect(deliveries).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    expect((await queue.state()).body).toMatchObject({ count: 1, head_seq: 1, bytes: 1 });
  });

  test("04.22 the stored record and its readers notice nothing", async () => {
    const queue = await filledQueue(server, 2);
    const before = (await queue.diff()).body.records;
    await queue.take(2);
    await queue.nack([1, 2]);
    expect((await queue.diff()).body.records).toEqual(before);
  });
});

describe("delay_ms", () => {
  test("04.23 the job is in neither counter and not claimable, then it is again", async () => {
    const queue = await filledQueue(server, 2);
    await queue.take(1);
    const before = Date.now();
    const reply = await queue.nack([1], { delay_ms: 500 });
    const after = Date.now();
    expect(reply.body).toMatchObject({ nacked: 1, skipped: [], ready: 1, in_flight: 0 });
    expect(await queue.counters()).toEqual({ count: 2, ready: 1, in_flight: 0, dead_lettered: 0 });
    expect(seqsOf(await queue.take(5))).toEqual([2]);
    expect(await reaches(queue, { ready: 1 })).toMatchObject({ count: 2, ready: 1, in_flight: 1 });
    expect(Date.now()).toBeGreaterThanOrEqual(before + 500);
    expect(Date.now()).toBeLessThan(after + 500 + 1000);
    expect(await queue.take(5)).toMatchObject([{ $seq: 1, deliveries: 2 }]);
  });

  test("04.23 a claim alone finds it when the delay is over", async () => {
    const queue = await filledQueue(server, 1);
    await queue.take(1);
    await queue.nack([1], { delay_ms: 400 });
    expect((await queue.claim()).body).toMatchObject({ count: 0, ready: 0 });
    await Bun.sleep(450);
    expect((await queue.claim()).body).toMatchObject({ count: 1, ready: 0 });
  });

  test("3.1 ready + in_flight + delayed is the count", async () => {
    const queue = await filledQueue(server, 10);
    await queue.take(7);
    await queue.ack([1, 5]);
    await queue.nack([2]);
    const reply = await queue.nack([3, 4, 5], { delay_ms: 60000 });
    expect(reply.body).toMatchObject({ nacked: 2, skipped: [5], ready: 4, in_flight: 2 });
    expect(await queue.counters()).toEqual({ count: 8, ready: 4, in_flight: 2, dead_lettered: 0 });
    expect((await queue.claim({ max: 9 })).body).toMatchObject({ count: 4, ready: 0 });
    expect(await queue.counters()).toEqual({ count: 8, ready: 0, in_flight: 6, dead_lettered: 0 });
  });

  test("04.23 jobs given back with different delays come back one after the other", async () => {
    const queue = await filledQueue(server, 3);
    await queue.take(3);
    const start = Date.now();
    await queue.nack([1], { delay_ms: 800 });
    await queue.nack([3], { delay_ms: 200 });
    await queue.nack([2], { delay_ms: 500 });
    const order: number[] = [];
    while (order.length < 3 && Date.now() < start + 5000) {
      order.push(...seqsOf(await queue.take(1)));
      await Bun.sleep(5);
    }
    expect(order).toEqual([3, 2, 1]);
  });

  test("04.23 a delayed job is still in the topic, and can be deleted", async () => {
    const queue = await filledQueue(server, 2);
    await queue.take(1);
    await queue.nack([1], { delay_ms: 60000 });
    expect(seqs(await queue.diff())).toEqual([1, 2]);
    expect((await queue.erase({ before_seq: 2 })).body).toMatchObject({ deleted: 1, count: 1 });
    expect(await queue.counters()).toEqual({ count: 1, ready: 1, in_flight: 0, dead_lettered: 0 });
  });

  test.each(["86400000", "86400001", "99999999999", "9007199254740993", "18446744073709551615"])(
    "5.4 %s is at most a day: accepted, and not over at once",
    async (delay) => {
      const queue = await filledQueue(server, 1);
      await queue.take(1);
      const reply = await queue.call("nack", `{"node":"${WORKER}","seqs":[1],"delay_ms":${delay}}`);
      expect(reply).toMatchObject({ status: 200, body: { nacked: 1, ready: 0, in_flight: 0 } });
      expect((await queue.claim()).body.count).toBe(0);
    },
  );

  test.each(["-1", '"400"', "null", "1.5", "true", "[]", "18446744073709551616"])(
    "04.24 %s is refused, and the lease goes on",
    async (delay) => {
      const queue = await filledQueue(server, 1);
      await queue.take(1);
      const reply = await queue.call("nack", `{"node":"${WORKER}","seqs":[1],"delay_ms":${delay}}`);
      expect(reply).toMatchObject(invalid);
      expect(await queue.counters()).toMatchObject({ ready: 0, in_flight: 1 });
      expect((await queue.ack([1])).body.acked).toBe(1);
    },
  );
});
