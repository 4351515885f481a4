/** What else happens to jobs: reads, deletes, expiry and caps, and a queue that is deleted and made again. */
import { describe, expect, test } from "bun:test";
import {
  filledQueue,
  holderCalls,
  makeQueue,
  type Queue,
  range,
  reaches,
  seqsOf,
  WORKER,
} from "../support/queue.ts";
import { column, seqs, sharedServer, timed, together, until } from "../support/topics.ts";

const server = sharedServer();

const drained = { count: 0, ready: 0, in_flight: 0, dead_lettered: 0 };

/** A queue whose jobs carry these tags; `data` is the tag. */
async function tagged(tags: string[], config: object = {}): Promise<Queue> {
  const queue = await makeQueue(server, config);
  await queue.write({ records: tags.map((tag) => ({ data: tag, tag })) });
  return queue;
}

describe("reads", () => {
  test("04.54 diff shows waiting, leased and delayed jobs, and no acked ones", async () => {
    const queue = await filledQueue(server, 6);
    await queue.take(4);
    await queue.ack([2]);
    await queue.nack([3], { delay_ms: 60000 });
    const reply = await queue.diff();
    expect(seqs(reply)).toEqual([1, 3, 4, 5, 6]);
    expect(reply.body).toMatchObject({ tombstone: null, head_seq: 6, next_from_seq: 6, caught_up: true });
  });

  test("04.54 diff, state, list and metrics change no counter and no lease", async () => {
    const queue = await filledQueue(server, 5);
    const [job] = await queue.take(2);
    await queue.nack([2], { delay_ms: 60000 });
    for (let time = 0; time < 5; time++) {
      await queue.diff({ from_seq: 0, limit: 2 });
      await server.send("GET", queue.path);
      await server.send("GET", "/v0/topics?touch=true");
      await server.send("GET", "/v0/metrics");
    }
    expect(await queue.counters()).toEqual({ count: 5, ready: 3, in_flight: 1, dead_lettered: 0 });
    expect((await queue.ack([1], { lease_ids: [job!.lease_id] })).body.acked).toBe(1);
    expect(await queue.take(9)).toMatchObject([{ deliveries: 1 }, { deliveries: 1 }, { deliveries: 1 }]);
  });

  test("04.54 a record in diff says nothing of leases", async () => {
    const queue = await filledQueue(server, 1);
    const before = (await queue.diff()).body.records;
    await queue.take(1);
    expect((await queue.diff()).body.records).toStrictEqual(before);
    expect(Object.keys(before[0]).sort()).toEqual(["$seq", "$ts", "data"]);
  });

  test("9 the node filter of diff works as on a log", async () => {
    const queue = await makeQueue(server);
    await queue.write({ records: [{ data: 1, node: "a" }, { data: 2, node: "b" }, { data: 3 }] });
    await queue.take(3, { node: "a" });
    expect(seqs(await queue.diff({ node: "a" }))).toEqual([2, 3]);
    expect(seqs(await queue.diff({ node: ["a", "b"] }))).toEqual([3]);
  });

  test("04.54 02 6.5 claim, ack, nack and extend wake no reader", async () => {
    const queue = await filledQueue(server, 3);
    const poll = timed(() => queue.diff({ from_seq: 3, wait_ms: 700 }));
    await until(
      () => queue.state(),
      ({ body }) => body.last_read_ts !== null,
    );
    await queue.take(3);
    await queue.extend([1], 60000);
    await queue.nack([2]);
    await queue.ack([1]);
    const { ms, answer } = await poll;
    expect(ms).toBeGreaterThanOrEqual(680);
    expect(answer.body).toMatchObject({ records: [], caught_up: true, next_from_seq: 3 });
  });
});

describe("delete by selector", () => {
  test("04.55 by tag: leased, waiting and delayed jobs go, and the counters with them", async () => {
    const queue = await tagged(["x", "y", "x", "y", "x", "y"]);
    await queue.take(4);
    await queue.nack([3, 4], { delay_ms: 60000 });
    expect(await queue.counters()).toEqual({ count: 6, ready: 2, in_flight: 2, dead_lettered: 0 });
    expect((await queue.erase({ match: "x" })).body).toMatchObject({ deleted: 3, count: 3 });
    expect(await queue.counters()).toEqual({ count: 3, ready: 1, in_flight: 1, dead_lettered: 0 });
    expect(seqsOf(await queue.take(9))).toEqual([6]);
    expect(seqs(await queue.diff())).toEqual([2, 4, 6]);
  });

  test("04.55 by seq: what is below goes", async () => {
    const queue = await filledQueue(server, 6);
    await queue.take(4);
    await queue.nack([2]);
    expect((await queue.erase({ before_seq: 4 })).body).toMatchObject({ deleted: 3, earliest_seq: 4 });
    expect(await queue.counters()).toEqual({ count: 3, ready: 2, in_flight: 1, dead_lettered: 0 });
    expect(seqsOf(await queue.take(9))).toEqual([5, 6]);
  });

  test("04.55 a deleted job never comes again, neither after its lease nor after its delay", async () => {
    const queue = await tagged(["x", "x", "x"]);
    const claimed = await queue.take(2, { lease_ms: 100 });
    await queue.nack([2], { delay_ms: 100 });
    await queue.erase({ match: "x" });
    await until(
      async () => Date.now(),
      (now) => now > claimed[0]!.deadline + 150,
    );
    expect((await queue.claim({ max: 9 })).body).toMatchObject({ count: 0, ready: 0 });
    expect(await queue.counters()).toEqual(drained);
  });

  test("02.64 deleting a leased job: in_flight drops at once, and it is never claimed again", async () => {
    const queue = await tagged(["x", "y"]);
    await queue.take(1);
    await queue.erase({ match: "x" });
    expect(await queue.counters()).toEqual({ count: 1, ready: 1, in_flight: 0, dead_lettered: 0 });
    expect(seqsOf(await queue.take(9))).toEqual([2]);
  });

  test("02.64 the holder's ack of a deleted job counts once, without effect", async () => {
    const queue = await tagged(["x", "y"]);
    const [job] = await queue.take(1);
    await queue.erase({ match: "x" });
    const stranger = await queue.ack([1], { node: "other" });
    expect(stranger.body).toMatchObject({ acked: 0, skipped: [1] });
    const first = await queue.ack([1], { lease_ids: [job!.lease_id] });
    expect(first.body).toMatchObject({ acked: 1, skipped: [], ready: 1, in_flight: 0 });
    expect((await queue.ack([1])).body).toMatchObject({ acked: 0, skipped: [1], ready: 1, in_flight: 0 });
    expect((await queue.state()).body).toMatchObject({ count: 1, bytes: 3 });
  });

  test.each(holderCalls)(
    "02.64 the holder's %s of a deleted job counts, and brings nothing back",
    async (name, counted, fields) => {
      const queue = await tagged(["x", "x"]);
      await queue.take(2);
      await queue.erase({ match: "x" });
      const { body } = await queue.call(name, { node: WORKER, seqs: [1, 2], ...fields });
      expect(body).toMatchObject({ [counted]: 2, skipped: [] });
      expect(await queue.counters()).toEqual(drained);
      expect((await queue.claim({ max: 5 })).body).toMatchObject({ count: 0, ready: 0 });
      expect((await queue.diff()).body.records).toEqual([]);
    },
  );

  test.each(holderCalls)(
    "02.64 after the deadline the holder's %s of a deleted job is skipped",
    async (name, counted, fields) => {
      const queue = await tagged(["x"]);
      const [job] = await queue.take(1, { lease_ms: 150 });
      await queue.erase({ match: "x" });
      await until(
        async () => Date.now(),
        (now) => now > job!.deadline + 20,
      );
      const { body } = await queue.call(name, { node: WORKER, seqs: [1], ...fields });
      expect(body).toMatchObject({ [counted]: 0, skipped: [1] });
    },
  );
});

describe("ttl_ms", () => {
  /** Three jobs, the first leased for long, when all of them have expired. */
  async function expired(ttl_ms = 500) {
    const queue = await filledQueue(server, 3, { ttl_ms });
    const [job] = await queue.take(1, { lease_ms: 60000 });
    await Bun.sleep(ttl_ms + 50);
    return { queue, job: job! };
  }

  test("04.56 an expired job is not delivered; the counters are 0", async () => {
    const { queue } = await expired();
    expect((await queue.claim({ max: 9 })).body).toMatchObject({ count: 0, claimed: [], ready: 0 });
    expect(await queue.counters()).toEqual(drained);
  });

  test("04.56 the state alone shows it; diff shows the tombstone", async () => {
    const { queue } = await expired();
    expect(await queue.counters()).toEqual(drained);
    const { body } = await queue.diff();
    expect(body).toMatchObject({ records: [], earliest_seq: 4 });
    expect(body.tombstone).toMatchObject({ reason: "ttl", gap_from: 1, gap_to: 3 });
  });

  test("9 a running lease does not protect; the holder's ack still counts once", async () => {
    const { queue, job } = await expired();
    expect(await queue.counters()).toEqual(drained);
    const lease_ids = [job.lease_id];
    expect((await queue.ack([1], { lease_ids })).body).toMatchObject({ acked: 1, ready: 0, in_flight: 0 });
    expect((await queue.ack([1], { lease_ids })).body).toMatchObject({ acked: 0, skipped: [1] });
    expect(await queue.counters()).toEqual(drained);
  });

  test("9 a job that is given back after it expired is gone", async () => {
    const { queue } = await expired();
    await queue.nack([1]);
    expect((await queue.claim()).body).toMatchObject({ count: 0, ready: 0 });
    expect(await queue.counters()).toEqual(drained);
  });

  test("04.56 younger jobs are delivered", async () => {
    const { queue } = await expired();
    await queue.append("young");
    expect(await queue.take(9)).toMatchObject([{ $seq: 4, deliveries: 1, data: "young" }]);
    expect(await queue.counters()).toMatchObject({ count: 1, ready: 0, in_flight: 1 });
  });
});

describe("caps", () => {
  test.each([
    ["cap_records", { cap_records: 3 }],
    ["cap_bytes", { cap_bytes: 3 }],
  ])("9 %s with discard old evicts the oldest jobs, leased ones too", async (_, cap) => {
    const queue = await filledQueue(server, 3, cap);
    const claimed = await queue.take(2);
    await queue.append(4, 5);
    expect(await queue.counters()).toEqual({ count: 3, ready: 3, in_flight: 0, dead_lettered: 0 });
    const reply = await queue.diff();
    expect(seqs(reply)).toEqual([3, 4, 5]);
    expect(reply.body.tombstone).toMatchObject({ reason: "cap", gap_from: 1, gap_to: 2 });
    const lease_ids = claimed.map(({ lease_id }) => lease_id);
    expect((await queue.ack([1, 2], { lease_ids })).body).toMatchObject({ acked: 2, ready: 3, in_flight: 0 });
    expect((await queue.ack([1, 2], { lease_ids })).body).toMatchObject({ acked: 0, skipped: [1, 2] });
    expect(seqsOf(await queue.take(9))).toEqual([3, 4, 5]);
  });

  test.each([
    ["cap_records", { cap_records: 3 }],
    ["cap_bytes", { cap_bytes: 3 }],
  ])("04.56 %s with discard reject: only an ack or a delete makes room", async (_, cap) => {
    const queue = await filledQueue(server, 3, { discard: "reject", ...cap });
    const write = async () => (await queue.write({ records: [{ data: 4 }] })).status;
    expect(await write()).toBe(422);
    await queue.take(3);
    expect(await write()).toBe(422);
    await queue.nack([1]);
    expect(await write()).toBe(422);
    await queue.extend([2], 60000);
    expect(await write()).toBe(422);
    await queue.ack([2]);
    expect(await write()).toBe(200);
    expect(await write()).toBe(422);
    await queue.erase({ before_seq: 2 });
    expect(await write()).toBe(200);
    expect(seqs(await queue.diff())).toEqual([3, 4, 5]);
  });

  test("02 s9.2 P6 after an ack in the middle, the next write evicts nothing", async () => {
    const queue = await filledQueue(server, 5, { discard: "reject", cap_records: 5 });
    await queue.take(3);
    await queue.ack([2, 3]);
    await queue.append(6, 7);
    expect(seqs(await queue.diff())).toEqual([1, 4, 5, 6, 7]);
    expect(await queue.counters()).toMatchObject({ count: 5, ready: 4, in_flight: 1 });
    expect((await queue.write({ records: [{ data: 8 }] })).status).toBe(422);
  });

  test("P6 a cap with discard old counts live jobs: acked ones make room", async () => {
    const queue = await filledQueue(server, 3, { cap_records: 3 });
    await queue.take(3);
    await queue.ack([2]);
    await queue.append(4);
    expect(seqs(await queue.diff())).toEqual([1, 3, 4]);
    await queue.append(5);
    expect(seqs(await queue.diff())).toEqual([3, 4, 5]);
    expect(await queue.counters()).toMatchObject({ count: 3, ready: 2, in_flight: 1 });
  });

  test("P6 a cap that is lowered evicts leased jobs, but not from a queue that rejects", async () => {
    const old = await filledQueue(server, 4);
    const rejecting = await filledQueue(server, 4);
    for (const queue of [old, rejecting]) await queue.take(2);
    await old.put({ type: "queue", cap_records: 1 });
    await rejecting.put({ type: "queue", cap_records: 1, discard: "reject" });
    expect(await old.counters()).toEqual({ count: 1, ready: 1, in_flight: 0, dead_lettered: 0 });
    expect(await rejecting.counters()).toEqual({ count: 4, ready: 2, in_flight: 2, dead_lettered: 0 });
    expect(seqsOf(await old.take(9))).toEqual([4]);
    expect((await rejecting.ack([1, 2])).body.acked).toBe(2);
  });
});

describe("a queue that is deleted", () => {
  test("04.57 with a leased job if_empty refuses, once everything is acked it does not", async () => {
    const queue = await filledQueue(server, 2);
    await queue.take(2);
    await queue.ack([1]);
    const refused = await queue.drop("?if_empty=true");
    expect(refused).toMatchObject({ status: 409, body: { error: { code: "topic_not_empty" } } });
    expect(refused.body.error.detail).toStrictEqual({ topic: queue.name, count: 1 });
    expect((await queue.ack([2])).body.acked).toBe(1);
    expect((await queue.drop("?if_empty=true")).body.deleted).toBe(true);
  });

  test("04.57 with jobs of every state goes whole, and its calls are topic_not_found", async () => {
    const queue = await filledQueue(server, 4);
    await queue.take(3);
    await queue.nack([2], { delay_ms: 60000 });
    await queue.nack([3]);
    expect((await queue.drop()).body.deleted).toBe(true);
    const calls: [string, object][] = [
      ["claim", {}],
      ...holderCalls.map(([name, , fields]): [string, object] => [name, fields]),
    ];
    for (const [name, fields] of calls) {
      const reply = await queue.call(name, { node: WORKER, seqs: [1], ...fields });
      expect(reply).toMatchObject({ status: 404, body: { error: { code: "topic_not_found" } } });
    }
  });

  test("04.57 made again: counters 0, seqs and deliveries from 1, old leases void", async () => {
    const queue = await filledQueue(server, 3);
    await queue.nack(seqsOf(await queue.take(3)));
    const old = await queue.take(2);
    await queue.drop();
    await queue.put({ type: "queue" });
    expect(await queue.counters()).toEqual(drained);
    expect((await queue.claim()).body.count).toBe(0);
    expect((await queue.ack([1, 2])).body).toMatchObject({ acked: 0, skipped: [1, 2] });
    expect((await queue.append("new", "newer")).body.seqs).toEqual([1, 2]);
    expect(await queue.counters()).toEqual({ count: 2, ready: 2, in_flight: 0, dead_lettered: 0 });
    const claimed = await queue.take(9);
    expect(claimed).toMatchObject([
      { $seq: 1, deliveries: 1, data: "new" },
      { $seq: 2, deliveries: 1, data: "newer" },
    ]);
    const lease_ids = old.map(({ lease_id }) => lease_id);
    expect((await queue.ack([1, 2], { lease_ids })).body).toMatchObject({ acked: 0, skipped: [1, 2] });
    expect((await queue.extend([1, 2], 100, { lease_ids })).body).toMatchObject({ extended: 0 });
    expect((await queue.nack([1, 2], { lease_ids })).body).toMatchObject({ nacked: 0 });
    expect(await queue.counters()).toMatchObject({ count: 2, ready: 0, in_flight: 2 });
  });

  test("04.57 made again as a log it is no queue", async () => {
    const queue = await filledQueue(server, 2);
    await queue.take(1);
    await queue.drop();
    await queue.put();
    await queue.append("log");
    expect(await queue.ack([1])).toMatchObject({ status: 409, body: { error: { code: "not_a_queue" } } });
    expect((await queue.state()).body).not.toHaveProperty("queue");
    expect(column(await queue.diff(), "data")).toEqual(["log"]);
  });

  test("04.57 claims and writes beside DELETE and PUT belong to one of the lives, or are refused", async () => {
    const queue = await filledQueue(server, 5);
    const replies = await together(80, (i) => {
      if (i % 10 === 4) return queue.drop();
      if (i % 10 === 9) return queue.put({ type: "queue" });
      if (i % 2 === 0) return queue.write({ records: [{ data: i }, { data: i }], create: false });
      return queue.claim({ node: `w${i}`, max: 3 });
    });
    for (const { status } of replies) expect([200, 201, 404]).toContain(status);
    const tokens = replies.flatMap(({ body }) => body.claimed ?? []).map(({ lease_id }) => lease_id);
    expect(new Set(tokens).size).toBe(tokens.length);
    const { epoch } = (await queue.put({ type: "queue" })).body;
    const written = replies.filter(({ body }) => body.seqs && body.epoch === epoch).length * 2;
    const { count, ready, in_flight } = await queue.counters();
    expect({ count, sum: ready + in_flight }).toEqual({ count: written, sum: written });
    expect(await queue.take(1000)).toHaveLength(ready);
  });

  test("04.57 delays and leases of the old queue do not reach into the new one", async () => {
    const queue = await filledQueue(server, 3);
    await queue.take(1, { lease_ms: 150 });
    await queue.nack(seqsOf(await queue.take(1)), { delay_ms: 150 });
    await queue.drop();
    await queue.put({ type: "queue" });
    await queue.produce(3);
    const claimed = await queue.take(3);
    await Bun.sleep(250);
    expect(await queue.counters()).toEqual({ count: 3, ready: 0, in_flight: 3, dead_lettered: 0 });
    expect(seqsOf(claimed)).toEqual(range(1, 3));
    expect((await queue.ack([1, 2, 3])).body.acked).toBe(3);
    expect(await reaches(queue, { count: 0 })).toEqual(drained);
  });
});
