/**
 * What a queue still knows after a restart: jobs, leases, delivery counters, delays and dead letters; and what it
 * does on a full disk.
 *
 * One restart serves many tests. Each tells a story about a queue of its own: what happens to it on the server
 * that is going to end, and what is found on the one that comes after it.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { EventStream } from "../support/eventstream.ts";
import {
  absentQueue,
  type Job,
  makeQueue,
  type Queue,
  range,
  reaches,
  redeliver,
  seqsOf,
} from "../support/queue.ts";
import type { Reply } from "../support/server.ts";
import { type Disk, obstacle, smallDisk } from "../support/smalldisk.ts";
import { type SpawnedServer, spawnServer, temporaryDirectory } from "../support/spawn.ts";
import { absentTopic, column, type Sender, seqs, until } from "../support/topics.ts";

setDefaultTimeout(60_000);

const signals = ["SIGKILL", "SIGTERM"] as const;
type Signal = (typeof signals)[number];

/** Longer than any test runs. */
const LONG_MS = 600_000;
/** About as long as a restart takes. */
const RESTART_MS = 4000;
/** The server is down for longer than this. */
const DOWN_MS = 1500;
/** The topic's own `lease_ms`, of every claim that says nothing else. */
const LEASE_MS = 30_000;

interface Story {
  readonly name: string;
  /** Gives what is to be done after the restart. */
  tell(server: Sender): Promise<(server: Sender, signal: Signal) => Promise<void>>;
}

function story<Told>(
  name: string,
  config: object,
  before: (queue: Queue, server: Sender) => Promise<Told>,
  after: (queue: Queue, told: Told, server: Sender, signal: Signal) => Promise<void>,
): Story {
  return {
    name,
    tell: async (first) => {
      const queue = await makeQueue(first, config);
      const told = await before(queue, first);
      return (second, signal) => after(absentQueue(second, queue.name), told, second, signal);
    },
  };
}

const durable = { leases_durable: true };
const waiting = (ready: number) => ({ count: ready, ready, in_flight: 0 });
const skippedAll = (...skipped: number[]) => ({ acked: 0, skipped });

/** Claims everything that can be claimed, and gives the seqs with their counters. */
const deliveries = async (queue: Queue) => (await queue.take(1000)).map((job) => [job.$seq, job.deliveries]);

async function work(queue: Queue, server: Sender, query = ""): Promise<EventStream> {
  const stream = await EventStream.open(server.url, `${queue.path}/work?node=worker${query}`);
  await stream.block();
  return stream;
}

/** Takes the only job, as soon as that is possible. */
async function takeSoon(queue: Queue): Promise<Job> {
  const found = await until(
    () => queue.take(),
    (taken) => taken.length === 1,
    20_000,
  );
  return found[0]!;
}

/** When a job was claimed for the topic's own lease. */
const claimedAt = (job: Job) => job.deadline - LEASE_MS;

/** Jobs 1 to 6: 1 is acked, 2 and 3 are leased, 4 is delayed, 5 given back, 6 untouched. Gives the tokens of 1 to 5. */
async function oneOfEach(queue: Queue): Promise<string[]> {
  await queue.produce(6);
  const claimed = await queue.take(5, { lease_ms: LONG_MS });
  expect((await queue.ack([1])).body.acked).toBe(1);
  expect((await queue.nack([4], { delay_ms: LONG_MS })).body.nacked).toBe(1);
  expect((await queue.nack([5])).body.nacked).toBe(1);
  return claimed.map(({ lease_id }) => lease_id);
}

/** Claims the only job of a queue for so long. */
async function leased(queue: Queue, lease_ms: number): Promise<Job> {
  await queue.produce(1);
  const [job] = await queue.take(1, { lease_ms });
  return job!;
}

/** Leaves jobs in every state, some of which end while the server is down. Gives how many jobs there are. */
async function allKinds(queue: Queue) {
  await queue.produce(120);
  for (const lease_ms of [LONG_MS, DOWN_MS, LONG_MS, DOWN_MS, LONG_MS]) await queue.take(20, { lease_ms });
  await queue.ack([1, 2, 21, 22, 41, 61, 81]);
  await queue.nack([3, 23, 43, 63, 83]);
  await queue.nack([4, 24, 44, 64, 84], { delay_ms: DOWN_MS });
  await queue.nack([5, 25, 45, 65, 85], { delay_ms: LONG_MS });
  await queue.extend([6, 26, 46, 66, 86], DOWN_MS);
  await queue.extend([7, 27, 47, 67, 87], LONG_MS);
  // Once more, while others of the same age are still leased.
  await queue.take(3, { lease_ms: LONG_MS });
  await queue.take(30, { lease_ms: DOWN_MS });
  return (await queue.counters()).count;
}

const forgetful = (durability: string) =>
  story(
    `04.58 06.23 06.25 a ${durability} queue has forgotten leases, counters and delays; acked jobs stay gone`,
    { durability },
    oneOfEach,
    async (queue, [, second]) => {
      expect(await queue.counters()).toMatchObject(waiting(5));
      // A former holder is too late, before and after the next one.
      expect((await queue.ack([2], { lease_ids: [second] })).body).toMatchObject(skippedAll(2));
      expect(await deliveries(queue)).toEqual([2, 3, 4, 5, 6].map((seq) => [seq, 1]));
      expect((await queue.ack([2], { lease_ids: [second] })).body).toMatchObject(skippedAll(2));
      expect((await queue.ack([1, 2])).body).toMatchObject({ acked: 1, skipped: [1] });
      expect(seqs(await queue.diff())).toEqual([3, 4, 5, 6]);
    },
  );

const mindful = (durability: string) =>
  story(
    `04.59 06.24 a ${durability} queue with leases_durable has forgotten nothing`,
    { durability, ...durable },
    oneOfEach,
    async (queue, [first, second, third]) => {
      expect(await queue.counters()).toMatchObject({ count: 5, ready: 2, in_flight: 2 });
      expect(await deliveries(queue)).toEqual([
        [5, 2],
        [6, 1],
      ]);
      expect((await queue.ack([2, 3], { node: "stranger" })).body).toMatchObject(skippedAll(2, 3));
      expect((await queue.ack([2], { lease_ids: [third] })).body).toMatchObject(skippedAll(2));
      const finished = await queue.ack([1, 2, 3], { lease_ids: [first, second, third] });
      expect(finished.body).toMatchObject({ acked: 2, skipped: [1] });
      expect(seqs(await queue.diff())).toEqual([4, 5, 6]);
    },
  );

const leases = [
  story(
    "04 section 10 a lease can be extended, and then ends when told",
    durable,
    (queue) => leased(queue, LONG_MS),
    async (queue, { lease_id }) => {
      const { body } = await queue.call("extend", {
        node: "worker",
        seqs: [1],
        lease_ms: 100,
        lease_ids: [lease_id],
      });
      expect(body.extended).toBe(1);
      const again = await takeSoon(queue);
      expect(claimedAt(again)).toBeGreaterThan(body.deadlines[1]);
      expect(again.deliveries).toBe(2);
    },
  ),
  story(
    "04 section 10 a lease can be given back",
    durable,
    (queue) => leased(queue, LONG_MS),
    async (queue, { lease_id }) => {
      expect((await queue.nack([1], { lease_ids: [lease_id] })).body).toMatchObject({ nacked: 1, ready: 1 });
      expect(await deliveries(queue)).toEqual([[1, 2]]);
    },
  ),
  story(
    "04 section 10 a lease whose deadline has passed meanwhile is over",
    durable,
    (queue) => leased(queue, DOWN_MS),
    async (queue, { deadline, lease_id }) => {
      expect(Date.now()).toBeGreaterThan(deadline);
      expect(await queue.counters()).toMatchObject(waiting(1));
      expect((await queue.ack([1], { lease_ids: [lease_id] })).body).toMatchObject(skippedAll(1));
      expect(await deliveries(queue)).toEqual([[1, 2]]);
    },
  ),
  story(
    "04 section 10 an extended lease has its new deadline",
    durable,
    async (queue) => {
      await leased(queue, DOWN_MS);
      await queue.extend([1], LONG_MS);
    },
    async (queue) => {
      expect(await queue.counters()).toMatchObject({ ready: 0, in_flight: 1 });
      expect((await queue.ack([1])).body.acked).toBe(1);
    },
  ),
  story(
    "04 section 10 a shortened lease has its new deadline",
    durable,
    async (queue) => {
      await leased(queue, LONG_MS);
      await queue.extend([1], DOWN_MS);
    },
    async (queue) => expect(await deliveries(queue)).toEqual([[1, 2]]),
  ),
  story(
    "04 section 10 counters go on, however the deliveries ended",
    durable,
    async (queue) => {
      await queue.produce(3);
      await redeliver(queue, 3);
      await queue.take(1, { lease_ms: DOWN_MS });
    },
    async (queue) =>
      expect(await deliveries(queue)).toEqual([
        [1, 5],
        [2, 4],
        [3, 4],
      ]),
  ),
  story(
    "04 section 4 given back jobs still come before fresh ones, lowest seq first",
    durable,
    async (queue) => {
      await queue.produce(5);
      await queue.take(4, { lease_ms: LONG_MS });
      await queue.nack([4, 3]);
    },
    async (queue) => {
      await queue.nack([1]);
      expect(seqsOf(await queue.take())).toEqual([1]);
      expect(seqsOf(await queue.take(2))).toEqual([3, 4]);
      expect(seqsOf(await queue.take(2))).toEqual([5]);
    },
  ),
  story(
    "04 section 10 a delay that has not passed goes on, one that has is over",
    durable,
    async (queue) => {
      await queue.produce(2);
      await queue.take(2);
      await queue.nack([1], { delay_ms: LONG_MS });
      await queue.nack([2], { delay_ms: DOWN_MS });
    },
    async (queue) => {
      expect(await queue.counters()).toMatchObject({ count: 2, ready: 1, in_flight: 0 });
      expect(await deliveries(queue)).toEqual([[2, 2]]);
    },
  ),
  story(
    "04 section 10 leases_durable that was switched on later holds for later leases",
    {},
    async (queue) => {
      await queue.produce(2);
      await queue.take(1, { lease_ms: LONG_MS });
      expect((await queue.put({ type: "queue", ...durable })).status).toBe(200);
      const [job] = await queue.take(1, { lease_ms: LONG_MS });
      return job!;
    },
    async (queue, { lease_id }) => {
      expect(seqsOf(await queue.take(2))).not.toContain(2);
      expect((await queue.ack([2], { lease_ids: [lease_id] })).body.acked).toBe(1);
    },
  ),
  story(
    "04 section 3 a lease_id is not given again",
    {},
    async (queue) => {
      await queue.produce(20);
      return (await queue.take(20)).map(({ lease_id }) => lease_id);
    },
    async (queue, before) => {
      const after = (await queue.take(20)).map(({ lease_id }) => lease_id);
      expect(new Set([...before, ...after]).size).toBe(40);
    },
  ),
];

const streams = [
  story(
    "04 section 10 a stream's durable lease is an ordinary one after a crash, released by a graceful stop",
    durable,
    async (queue, server) => {
      await queue.produce(2);
      const [claimed] = await queue.take(1, { lease_ms: LONG_MS });
      const stream = await work(queue, server, `&lease_ms=${LONG_MS}`);
      return { claimed: claimed!, streamed: (await stream.event()).body as Job };
    },
    async (queue, { claimed, streamed }, _, signal) => {
      const crashed = signal === "SIGKILL";
      expect(await queue.counters()).toMatchObject({ ready: crashed ? 0 : 1, in_flight: crashed ? 2 : 1 });
      const finished = await queue.ack([1, 2], { lease_ids: [claimed.lease_id, streamed.lease_id] });
      expect(finished.body).toMatchObject(crashed ? { acked: 2, skipped: [] } : { acked: 1, skipped: [2] });
      expect(await deliveries(queue)).toEqual(crashed ? [] : [[2, 2]]);
    },
  ),
  story(
    "04 section 10 a stream's lease that is not durable is forgotten",
    {},
    async (queue, server) => {
      await queue.produce(1);
      await (await work(queue, server, `&lease_ms=${LONG_MS}`)).event();
    },
    async (queue) => expect(await deliveries(queue)).toEqual([[1, 1]]),
  ),
  story(
    "04 section 10 a stream gets what was leased before only when that lease is over",
    durable,
    async (queue) => {
      const { deadline } = await leased(queue, RESTART_MS);
      await queue.append("free");
      return deadline;
    },
    async (queue, deadline, server) => {
      await using stream = await work(queue, server, `&max=2&lease_ms=${LONG_MS}`);
      const events = await stream.events(2);
      const last = events.find(({ body }) => body.$seq === 1)!.body;
      expect(last.deadline - LONG_MS).toBeGreaterThan(deadline);
      expect(last.deliveries).toBe(2);
    },
  ),
];

const deadLetters = [
  ...[{}, durable, { durability: "disk" }].map((config) =>
    story(
      `04 section 10 dead_lettered is kept, and each dead letter is there once: ${JSON.stringify(config)}`,
      {
        durability: "fsync",
        ...config,
        max_deliveries: 1,
        dead_letter: `dead-${JSON.stringify(config).length}`,
      },
      async (queue) => {
        await queue.produce(4);
        await queue.take(2);
        await queue.nack([1, 2]);
        expect(seqsOf(await queue.take())).toEqual([3]);
      },
      async (queue, _, server) => {
        expect(await queue.counters()).toMatchObject({ count: 2, dead_lettered: 2 });
        expect(seqs(await queue.diff())).toEqual([3, 4]);
        const letters = await absentTopic(server, `dead-${JSON.stringify(config).length}`).diff();
        expect(column(letters, "data")).toEqual([1, 2]);
      },
    ),
  ),
  story(
    "04 section 10 deliveries from before count against max_deliveries",
    { ...durable, max_deliveries: 2, dead_letter: "dead-counted" },
    async (queue) => {
      await queue.produce(1);
      await redeliver(queue, 1);
    },
    async (queue, _, server) => {
      expect(await deliveries(queue)).toEqual([[1, 2]]);
      await queue.nack([1]);
      expect(await deliveries(queue)).toEqual([]);
      expect(await queue.counters()).toMatchObject({ count: 0, dead_lettered: 1 });
      const { records } = (await absentTopic(server, "dead-counted").diff()).body;
      expect(records).toMatchObject([{ data: 1, meta: { $dead_letter: { seq: 1, deliveries: 2 } } }]);
    },
  ),
];

const others = [
  ...[{}, durable].map((config) =>
    story(
      `04.60 every job that is counted as ready can be claimed: ${JSON.stringify(config)}`,
      config,
      allKinds,
      async (queue, left) => {
        const { count, ready, in_flight } = await queue.counters();
        expect(count).toBe(left);
        const claimed = await queue.take(1000);
        expect(claimed).toHaveLength(ready);
        expect(new Set(seqsOf(claimed)).size).toBe(ready);
        expect(await queue.counters()).toMatchObject({ count, ready: 0, in_flight: ready + in_flight });
        const everything = await queue.ack(range(1, 120));
        expect(everything.body.acked).toBe(ready + in_flight);
      },
    ),
  ),
  story(
    "04 section 9 leases of a deleted instance do not come back with a new one",
    durable,
    async (queue) => {
      await queue.produce(3);
      await redeliver(queue, 2);
      const [old] = await queue.take(3, { lease_ms: LONG_MS });
      expect((await queue.drop()).status).toBe(200);
      await queue.put({ type: "queue", ...durable });
      await queue.produce(2);
      return old!;
    },
    async (queue, { lease_id }) => {
      expect(await queue.counters()).toMatchObject(waiting(2));
      expect((await queue.ack([1], { lease_ids: [lease_id] })).body).toMatchObject(skippedAll(1));
      expect(await deliveries(queue)).toEqual([
        [1, 1],
        [2, 1],
      ]);
    },
  ),
  story(
    "04 section 9 leased jobs that were deleted or evicted stay away with their leases",
    { ...durable, cap_records: 5 },
    async (queue) => {
      await queue.produce(4);
      await queue.take(3, { lease_ms: LONG_MS });
      await queue.erase({ before_seq: 2 });
      await queue.append("five", "six", "seven");
    },
    async (queue) => {
      // Seq 1 was deleted and seq 2 evicted; 3 is still leased.
      expect(await queue.counters()).toMatchObject({ count: 5, ready: 4, in_flight: 1 });
      expect(await deliveries(queue)).toEqual([4, 5, 6, 7].map((seq) => [seq, 1]));
      expect((await queue.ack([1, 2, 3])).body.acked).toBe(1);
    },
  ),
  story(
    "04 section 10 an ephemeral queue is empty and counts nothing",
    { durability: "ephemeral", ...durable },
    async (queue) => {
      await queue.produce(3);
      await queue.take(2, { lease_ms: LONG_MS });
    },
    async (queue, _, __, signal) => {
      expect(await queue.counters()).toMatchObject(waiting(0));
      expect(await deliveries(queue)).toEqual([]);
      const { first_seq } = (await queue.append("new")).body;
      if (signal === "SIGTERM") expect(first_seq).toBe(4);
      expect(await deliveries(queue)).toEqual([[first_seq, 1]]);
    },
  ),
  story(
    "04.62 a retry of an idempotent write after the ack is deduped and makes no job",
    {},
    async (queue) => {
      const reply = await queue.write({ idempotency_key: "once", records: [{ data: 1 }] });
      await queue.take();
      await queue.ack([1]);
      return reply.body.seqs;
    },
    async (queue, written) => {
      const again = await queue.write({ idempotency_key: "once", records: [{ data: 1 }] });
      expect(again.body).toMatchObject({ deduped: true, seqs: written });
      expect(await queue.counters()).toMatchObject(waiting(0));
    },
  ),
];

/** Those that wait for what was still to come before the restart. */
const late = [
  story(
    "04 section 10 a deadline is absolute: the time of the restart counts",
    durable,
    (queue) => leased(queue, RESTART_MS),
    async (queue, { deadline }) => {
      const start = Date.now();
      const again = await takeSoon(queue);
      expect(claimedAt(again)).toBeGreaterThan(deadline);
      expect(claimedAt(again)).toBeLessThan(Math.max(deadline, start) + 1500);
      expect(again.deliveries).toBe(2);
    },
  ),
  story(
    "04 section 10 so is the end of a delay",
    durable,
    async (queue) => {
      await queue.produce(1);
      await queue.take();
      const earliest = Date.now() + RESTART_MS;
      await queue.nack([1], { delay_ms: RESTART_MS });
      return { earliest, latest: Date.now() + RESTART_MS };
    },
    async (queue, { earliest, latest }) => {
      const start = Date.now();
      const again = await takeSoon(queue);
      expect(claimedAt(again)).toBeGreaterThanOrEqual(earliest);
      expect(claimedAt(again)).toBeLessThan(Math.max(latest, start) + 1500);
    },
  ),
];

const stories: Story[] = [
  ...["fsync", "disk", "memory"].map(forgetful),
  ...["fsync", "disk"].map(mindful),
  ...leases,
  ...deadLetters,
  ...others,
  ...streams,
  ...late,
];

describe.each(signals)("after %s", (signal) => {
  const parts = new AsyncDisposableStack();
  let server: SpawnedServer;
  let told: PromiseSettledResult<Awaited<ReturnType<Story["tell"]>>>[];

  beforeAll(async () => {
    const first = parts.use(await spawnServer());
    told = await Promise.allSettled(stories.map(({ tell }) => tell(first)));
    const down = Date.now();
    await first.stop(signal);
    await Bun.sleep(DOWN_MS + 1 - (Date.now() - down));
    server = parts.use(await spawnServer({ dir: first.dir }));
  });
  afterAll(() => parts.disposeAsync());

  test.each(stories.map(({ name }, i) => [name, i] as const))("%s", async (_, i) => {
    const result = told[i]!;
    if (result.status === "rejected") throw result.reason;
    await result.value(server, signal);
  });
});

test("04.59 04.60 06 row 6 leases outlast any number of restarts of either kind, and none is given twice", async () => {
  await using dir = await temporaryDirectory();
  const tokens: string[] = [];
  const held: Job[] = [];
  const restarts = [undefined, "SIGTERM", "SIGKILL", "SIGKILL", "SIGTERM", "SIGTERM"] as const;
  for (const [round, signal] of restarts.entries()) {
    await using server = await spawnServer({ dir: dir.path });
    const queue = absentQueue(server, "jobs");
    if (round === 0) await queue.put({ type: "queue", ...durable });
    expect(await queue.counters()).toMatchObject({ ready: 0, in_flight: held.length });
    expect((await queue.ack(seqsOf(held), { node: "stranger" })).body.acked).toBe(0);
    await queue.produce(2);
    const claimed = await queue.take(2, { lease_ms: LONG_MS });
    expect(claimed).toMatchObject([{ deliveries: 1 }, { deliveries: 1 }]);
    tokens.push(...claimed.map(({ lease_id }) => lease_id));
    held.push(...claimed);
    if (signal) {
      // The oldest one has outlasted every restart so far.
      const { $seq, lease_id } = held.shift()!;
      expect((await queue.ack([$seq], { lease_ids: [lease_id] })).body).toMatchObject({ acked: 1 });
    }
    await server.stop(restarts[round + 1] ?? "SIGKILL");
  }
  expect(new Set(tokens).size).toBe(tokens.length);
  for (const token of tokens) expect(token).toMatch(/^lease_[0-9a-f]{1,16}$/);
});

const skipped = await obstacle();
afterAll(() => {
  if (skipped !== undefined) console.warn(`skipped the tests on a full disk: ${skipped}`);
});

describe.skipIf(skipped !== undefined)("on a full disk", () => {
  const internal = { status: 500, body: { error: { code: "internal" } } };

  /**
   * Repeats the attempt, with no space left before each one, until it is refused. Between the attempts large
   * writes use up what room is left within the files, so that in the end not even a small change fits.
   */
  async function untilRefused(disk: Disk, server: Sender, attempt: (n: number) => Promise<Reply>) {
    for (let n = 1; n <= 1000; n++) {
      disk.fill();
      await absentTopic(server, "filler").write({ records: [{ data: "x".repeat(100_000) }] });
      disk.fill();
      const reply = await attempt(n);
      if (reply.status >= 300) return { reply, n };
    }
    throw new Error("1000 requests succeeded on a full disk");
  }

  const smallWrite = (server: Sender) => () =>
    absentTopic(server, "filler").write({ records: [{ data: "small" }] });

  test("06 section 8 claims, nacks, extends and streams go on with leases that are not durable", async () => {
    await using disk = await smallDisk();
    await using server = await spawnServer({ dir: disk.data });
    const queue = await makeQueue(server, { durability: "fsync" });
    await queue.produce(5);
    await untilRefused(disk, server, smallWrite(server));
    expect(await deliveries(queue)).toEqual(range(1, 5).map((seq) => [seq, 1]));
    expect((await queue.extend([1], LONG_MS)).body.extended).toBe(1);
    expect((await queue.nack([2, 3])).body).toMatchObject({ nacked: 2, ready: 2 });
    await using stream = await work(queue, server);
    expect((await stream.event()).body).toMatchObject({ $seq: 2, data: 2, deliveries: 2 });
    await stream.close();
    await reaches(queue, { ready: 2, in_flight: 3 });
    expect(seqs(await queue.diff())).toEqual(range(1, 5));
    // A log that has started over may have made room for a moment.
    expect((await untilRefused(disk, server, smallWrite(server))).reply).toMatchObject(internal);
  });

  test("06 section 6 a refused ack leaves its job to be claimed again, and no other job is lost", async () => {
    await using disk = await smallDisk();
    await using first = await spawnServer({ dir: disk.data });
    const queue = await makeQueue(first, { durability: "fsync" });
    await queue.produce(500);
    await queue.take(500, { lease_ms: LONG_MS });
    const { reply, n } = await untilRefused(disk, first, (seq) => queue.ack([seq]));
    expect(reply).toMatchObject(internal);
    expect((await queue.counters()).count).toBe(501 - n);
    disk.free();
    // Whether its lease goes on or not, its holder can give it back or finds it waiting.
    await queue.nack([n]);
    expect((await deliveries(queue)).map(([seq]) => seq)).toEqual([n]);
    expect((await queue.ack([n])).body.acked).toBe(1);

    await first.stop("SIGKILL");
    await using second = await spawnServer({ dir: disk.data });
    const found = absentQueue(second, queue.name);
    expect(await deliveries(found)).toEqual(range(n + 1, 500).map((seq) => [seq, 1]));
  });

  test("06 section 8 a refused claim of durable leases has leased nothing, now and after a kill", async () => {
    await using disk = await smallDisk();
    await using first = await spawnServer({ dir: disk.data });
    const queue = await makeQueue(first, { durability: "fsync", ...durable });
    await queue.produce(500);
    const { reply, n } = await untilRefused(disk, first, () => queue.claim({ lease_ms: LONG_MS }));
    expect(reply).toMatchObject(internal);
    const expected = { count: 500, ready: 501 - n, in_flight: n - 1 };
    expect(await queue.counters()).toMatchObject(expected);

    await first.stop("SIGKILL");
    disk.free();
    await using second = await spawnServer({ dir: disk.data });
    const found = absentQueue(second, queue.name);
    expect(await found.counters()).toMatchObject(expected);
    expect((await found.ack(range(1, n))).body).toMatchObject({ acked: n - 1, skipped: [n] });
    expect(await deliveries(found)).toEqual(range(n, 500).map((seq) => [seq, 1]));
  });
});
