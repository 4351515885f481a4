/** Who waits for jobs while a claim is under way, which takes as long as the device does, or fails. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import type { TopicConfigInput } from "../../src/contract/topics.ts";
import { until } from "../support/topics.ts";
import { claim, counters, seqsOf, Worker } from "./queues.ts";
import {
  append,
  failTransaction,
  HeldSyncs,
  malformed,
  promptly,
  records,
  TestEngine,
  turns,
} from "./setup.ts";

setDefaultTimeout(10_000);

/** Claims of such a queue are answered when their leases are on the device. */
const synced: TopicConfigInput = {
  type: "queue",
  durability: "fsync",
  leases_durable: true,
  lease_ms: 60_000,
};

/** Ends all syncs, also those that come while it does so, until the promise settles. */
async function finishing<T>(syncs: HeldSyncs, promise: Promise<T>): Promise<T> {
  while (Bun.peek.status(promise) === "pending") {
    while (syncs.count > 0) syncs.finish();
    await turns();
  }
  return promise;
}

const reached = (ask: () => unknown, expected: unknown) =>
  until(
    async () => ask(),
    (answer) => Bun.deepEquals(answer, expected),
  );

describe("a claim window that ends while the claim of the one before is under way", () => {
  const WINDOW_MS = 30;

  /** A stream with a claim under way for all its room, and a claim whose window has ended meanwhile. */
  async function overlapping({ engine, store }: TestEngine, jobs: number, depth: number) {
    await engine.topics.put("q", { ...synced, claim_jitter_ms: WINDOW_MS });
    const worker = new Worker(engine, "q", depth);
    await turns();
    await append(engine, "q", records(jobs));
    const syncs = new HeldSyncs(store);
    await reached(() => syncs.count, 1);
    const claimed = claim(engine, "q", 1, "other");
    // Its end cannot be seen: it must do nothing.
    await Bun.sleep(3 * WINDOW_MS);
    return { worker, syncs, claimed };
  }

  test("leases nothing that nobody is told of", async () => {
    using open = new TestEngine();
    const { engine } = open;
    const { worker, syncs, claimed } = await overlapping(open, 10, 2);
    const handed = seqsOf(await finishing(syncs, claimed));
    await turns();
    const { in_flight } = await finishing(syncs, counters(engine, "q"));
    worker[Symbol.dispose]();

    expect([worker.jobs, handed]).toEqual([[1, 2], [3]]);
    expect(in_flight).toBe(3);
  });

  test("is answered when that claim is done, although nothing is left", async () => {
    using open = new TestEngine();
    const { worker, syncs, claimed } = await overlapping(open, 2, 2);
    const handed = await promptly(finishing(syncs, claimed));
    worker[Symbol.dispose]();

    expect([worker.jobs, handed]).toEqual([[1, 2], []]);
  });
});

describe("a claim that fails", () => {
  test("ends its own stream only: one that waits beside it gets the job", async () => {
    using open = new TestEngine();
    const { engine, store } = open;
    await engine.topics.put("q", { type: "queue", leases_durable: true });
    await append(engine, "q", records(1));
    failTransaction(store);
    using unlucky = new Worker(engine, "q", 1, "unlucky");
    using waiting = new Worker(engine, "q", 1, "waiting");
    await promptly(unlucky.ended);
    await reached(() => waiting.jobs, [1]);

    expect(unlucky.frames).toMatchObject([{ event: "error", data: { code: "internal", topic: "q" } }]);
    expect(await counters(engine, "q")).toMatchObject({ ready: 0, in_flight: 1 });
  });

  test("of the first in line: the next one gets the job at once", async () => {
    using open = new TestEngine();
    const { engine, store } = open;
    await engine.topics.put("q", { type: "queue", leases_durable: true });
    using unlucky = new Worker(engine, "q", 1, "unlucky");
    using next = new Worker(engine, "q", 1, "next");
    await turns();
    await append(engine, "q", records(1));
    failTransaction(store);
    await promptly(unlucky.ended);
    await reached(() => next.jobs, [1]);

    expect(unlucky.events).toEqual(["error"]);
    expect(await counters(engine, "q")).toMatchObject({ ready: 0, in_flight: 1 });
  });

  test("of a window, too: streams that come behind it are served", async () => {
    using open = new TestEngine();
    const { engine, store } = open;
    await engine.topics.put("q", { type: "queue", leases_durable: true, claim_jitter_ms: 20 });
    await append(engine, "q", records(1));
    const { transaction } = store;
    let failing: Worker | undefined;
    store.transaction = () => {
      // Comes while the claim is under way.
      failing = new Worker(engine, "q", 1, "behind");
      store.transaction = transaction;
      throw malformed();
    };
    using unlucky = new Worker(engine, "q", 1, "unlucky");
    await promptly(unlucky.ended);
    using behind = failing!;
    await reached(() => behind.jobs, [1]);

    expect(unlucky.events).toEqual(["error"]);
  });
});

test("a stream without room gets the job whose lease has ended, though the commit that noticed it failed", async () => {
  using open = new TestEngine();
  const { engine, store } = open;
  await engine.topics.put("q", { type: "queue", lease_ms: 200 });
  await append(engine, "q", records(1));
  using worker = new Worker(engine, "q", 1);
  await reached(() => worker.jobs.length, 1);
  // Nobody else runs before the lease is over, so the ack comes first.
  for (const end = performance.now() + 250; performance.now() < end; );
  failTransaction(store);
  const ack = engine.queues.ack("q", { node: "other", seqs: [99] });

  await expect(ack).rejects.toThrow();
  await reached(() => worker.jobs.length >= 2, true);
});

describe("a stream on a queue that is deleted and made again", () => {
  test("gives back what a claim has got it of the new one", async () => {
    using open = new TestEngine();
    const { engine } = open;
    await append(engine, "q", records(1, null, '"old"'), { type: "queue" });
    const replaced = Promise.all([
      engine.topics.delete("q", false),
      append(engine, "q", records(1, null, '"new"'), { type: "queue" }),
    ]);
    using worker = new Worker(engine, "q", 2);
    await promptly(Promise.all([replaced, worker.ended]));

    expect(worker.frames).toMatchObject([{ event: "error", data: { code: 409 } }]);
    await until(
      () => counters(engine, "q"),
      ({ ready, in_flight }) => ready === 1 && in_flight === 0,
    );
    expect(await claim(engine, "q")).toMatchObject([{ $seq: 1, data: "new" }]);
  });
});
