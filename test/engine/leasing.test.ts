/** Claims where something is in the way: jobs that cannot be moved, damage in storage, transactions that fail. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import type { TopicConfigInput } from "../../src/contract/topics.ts";
import { Engine } from "../../src/engine/engine.ts";
import { Store } from "../../src/store/store.ts";
import { Dice } from "../support/dice.ts";
import { temporaryDirectory } from "../support/spawn.ts";
import { until } from "../support/topics.ts";
import { damages } from "./damage.ts";
import { claim, counters, type Leased, redeliver, seqsOf, WORKER } from "./queues.ts";
import { append, failTransaction, malformed, records, storeIn, TestEngine } from "./setup.ts";

setDefaultTimeout(20_000);

const internal = { code: "internal" };

describe("a job that was delivered too often", () => {
  test.each([false, true])(
    "stays claimable when storage fails its move (leases_durable: %p)",
    async (leases_durable) => {
      using open = new TestEngine();
      const { engine, store } = open;
      await engine.topics.put("letters", {});
      await engine.topics.put("q", {
        type: "queue",
        leases_durable,
        max_deliveries: 1,
        dead_letter: "letters",
      });
      await append(engine, "q", records(1));
      await redeliver(engine, "q", 1);
      const insert = store.disk.records.insert;
      store.disk.records.insert = () => {
        throw malformed();
      };
      const failed = await claim(engine, "q").catch((error) => error);
      const meanwhile = await counters(engine, "q");
      store.disk.records.insert = insert;
      const jobs = await claim(engine, "q");

      expect(failed).toMatchObject(internal);
      expect(meanwhile).toEqual({ count: 1, ready: 1, in_flight: 0, dead_lettered: 0 });
      expect(jobs).toEqual([]);
      expect(await counters(engine, "q")).toEqual({ count: 0, ready: 0, in_flight: 0, dead_lettered: 1 });
      expect((await engine.topics.state("letters", false)).count).toBe(1);
    },
  );
});

describe("jobs that cannot be moved to the dead letters", () => {
  const POISONED = 300;
  const poisons: TopicConfigInput = { type: "queue", max_deliveries: 1, dead_letter: "letters" };

  /** A queue of jobs that were delivered too often and three others, and no room for the topic of dead letters. */
  async function stuck() {
    const opened = new DisposableStack();
    const store = opened.use(new Store());
    const feeds = { nodeSeed: "", networkId: "", strict: false };
    const limits = {
      topicsMax: 2,
      routersMax: 0,
      totalBytesMax: 0,
      watchSessionsMax: 0,
      heartbeatMsMin: 1000,
    };
    const failed = (error: unknown) => {
      throw error;
    };
    const engine = opened.use(
      new Engine({ store, limits, feeds, now: Date.now, failed, unexpected: failed }),
    );
    await engine.topics.put("other", {});
    await append(engine, "q", records(POISONED), { type: "queue" });
    await redeliver(engine, "q", POISONED);
    await engine.topics.put("q", poisons);
    await append(engine, "q", records(3, null, '"good"'));
    return { store, engine, [Symbol.dispose]: () => opened.dispose() };
  }

  test("hold up no claim behind the first one that meets them", async () => {
    using open = await stuck();
    const { engine, store } = open;
    const first = await claim(engine, "q");
    const range = store.disk.records.range.bind(store.disk.records);
    let reads = 0;
    store.disk.records.range = (...asked) => {
      reads++;
      return range(...asked);
    };
    const second = await claim(engine, "q");

    expect(seqsOf([...first, ...second])).toEqual([POISONED + 1, POISONED + 2]);
    expect(reads).toBeLessThan(10);
    expect(await counters(engine, "q")).toMatchObject({ ready: POISONED + 1, dead_lettered: 0 });
  });

  test("are moved as soon as they can be", async () => {
    using open = await stuck();
    const { engine } = open;
    await claim(engine, "q");
    await engine.topics.delete("other", false);
    const jobs = await claim(engine, "q");

    expect(seqsOf(jobs)).toEqual([POISONED + 2]);
    expect(await counters(engine, "q")).toMatchObject({ ready: 1, in_flight: 2, dead_lettered: POISONED });
    expect((await engine.topics.state("letters", false)).count).toBe(POISONED);
  });

  test("are delivered again, in order, when the settings no longer want them moved", async () => {
    using open = await stuck();
    const { engine } = open;
    await claim(engine, "q");
    await engine.topics.put("q", { ...poisons, max_deliveries: 2 });
    const jobs = await claim(engine, "q", 1000);

    const delivered = Array.from({ length: POISONED }, (_, i) => i + 1);
    expect(seqsOf(jobs)).toEqual([...delivered, POISONED + 2, POISONED + 3]);
    expect(await counters(engine, "q")).toMatchObject({ ready: 0, in_flight: POISONED + 3 });
  });
});

describe.each(damages)("a job whose record $what", ({ damage, isTold }) => {
  /** What a claim says that meets the damaged job. */
  const damaged = (seq: number) => ({ code: "internal", detail: { topic: "q", seq } });

  async function opened() {
    const parts = new AsyncDisposableStack();
    const dir = parts.use(await temporaryDirectory());
    const open = parts.use(new TestEngine(storeIn(dir.path)));
    return Object.assign(parts, { dir: dir.path, engine: open.engine, store: open.store });
  }

  test("is named behind those before it; once it is deleted, the others follow", async () => {
    await using open = await opened();
    const { engine, dir } = open;
    await append(engine, "q", records(6), { type: "queue" });
    damage(dir, "q", 4);
    const before = await claim(engine, "q", 1000);
    const named = [await claim(engine, "q", 1000).catch((e) => e), await claim(engine, "q").catch((e) => e)];
    await engine.queues.ack("q", { node: WORKER, seqs: seqsOf(before) });
    await engine.log.delete("q", { before_seq: 5 });

    expect(seqsOf(before)).toEqual([1, 2, 3]);
    expect(named).toMatchObject([damaged(4), damaged(4)]);
    expect(seqsOf(await claim(engine, "q", 1000))).toEqual([5, 6]);
  });

  test("is named, too, right behind a gap of deleted ones", async () => {
    await using open = await opened();
    const { engine, store, dir } = open;
    await append(engine, "q", [...records(3), ...records(3, "x"), ...records(3)], { type: "queue" });
    await engine.log.delete("q", { match: "x" });
    await until(
      async () => [...store.disk.tagDeletes.slots()],
      (slots) => slots.length === 0,
    );
    damage(dir, "q", 7);
    const before = await claim(engine, "q", 1000);
    const named = await claim(engine, "q", 1000).catch((error) => error);

    expect(seqsOf(before)).toEqual([1, 2, 3]);
    expect(named).toMatchObject(damaged(isTold ? 7 : 4));
    expect(await counters(engine, "q")).toMatchObject({ ready: 3, in_flight: 3 });
  });

  test("is named, too, when it was given back: those that come before it are not kept back", async () => {
    await using open = await opened();
    const { engine, dir } = open;
    await append(engine, "q", records(5), { type: "queue" });
    await redeliver(engine, "q", 5);
    damage(dir, "q", 3);
    const before = await claim(engine, "q", 1000);
    const named = [await claim(engine, "q", 1000).catch((e) => e), await claim(engine, "q").catch((e) => e)];
    await engine.queues.ack("q", { node: WORKER, seqs: seqsOf(before) });
    await engine.log.delete("q", { before_seq: 4 });

    expect(before).toMatchObject([
      { $seq: 1, deliveries: 2 },
      { $seq: 2, deliveries: 2 },
    ]);
    expect(named).toMatchObject([damaged(3), damaged(3)]);
    expect(seqsOf(await claim(engine, "q", 1000))).toEqual([4, 5]);
  });
});

describe("transactions that fail now and then", () => {
  const STEPS = 60;
  const HISTORIES = 24;

  /** `TEST_SEED` repeats the histories of a run; each test tells its own seed. */
  const SEED = Number(process.env.TEST_SEED ?? Math.floor(Math.random() * 1e6));
  const seeds = Array.from({ length: HISTORIES }, (_, i) => SEED + i);

  /** What one worker does to a queue, and which jobs it holds as far as it knows. */
  class History {
    readonly held = new Map<number, string>();
    readonly #engine: Engine;
    readonly #below: (n: number) => number;

    constructor(engine: Engine, below: (n: number) => number) {
      this.#engine = engine;
      this.#below = below;
    }

    step(): Promise<unknown> {
      const { queues, log } = this.#engine;
      const tag = this.#below(2) === 0 ? null : "t";
      switch (this.#below(6)) {
        case 0:
          return claim(this.#engine, "q", 1 + this.#below(5)).then((jobs) => this.#take(jobs));
        case 1:
          return this.#finish((request) => queues.ack("q", request));
        case 2:
          return this.#finish((request) => queues.nack("q", request));
        case 3:
          return log.delete("q", { match: "t" });
        default:
          return append(this.#engine, "q", records(1 + this.#below(4), tag));
      }
    }

    #take(jobs: readonly Leased[]): void {
      for (const { $seq, lease_id } of jobs) {
        if (this.held.has($seq)) throw new Error(`job ${$seq} was leased twice`);
        this.held.set($seq, lease_id);
      }
    }

    async #finish(
      call: (request: { node: string; seqs: number[]; lease_ids: string[] }) => Promise<unknown>,
    ): Promise<void> {
      const some = [...this.held].filter(() => this.#below(2) === 0);
      const seqs = some.map(([seq]) => seq);
      await call({ node: WORKER, seqs, lease_ids: some.map(([, lease]) => lease) });
      for (const seq of seqs) this.held.delete(seq);
    }
  }

  const isRefusal = (reason: unknown) => (reason as { code?: unknown }).code === "internal";

  test.each(seeds)("leave every job that is ready claimable, once (seed %d)", async (seed) => {
    const below = new Dice(seed).below;
    const config: TopicConfigInput = {
      type: "queue",
      lease_ms: 3_600_000,
      leases_durable: below(2) === 0,
      cap_records: below(4) === 0 ? 15 : 0,
    };
    const toDeadLetters = below(2) === 0 ? { max_deliveries: 2, dead_letter: "letters" } : {};
    await using dir = await temporaryDirectory();
    await using parts = new AsyncDisposableStack();
    const { engine, store, failures } = parts.use(new TestEngine(storeIn(dir.path)));
    await engine.topics.put("q", { ...config, ...toDeadLetters });
    const history = new History(engine, below);
    let failing = 0;
    for (let i = 0; i < STEPS; i++) {
      if (below(4) === 0) failTransaction(store);
      const steps = Array.from({ length: 1 + below(3) }, () => history.step());
      const outcomes = await Promise.allSettled(steps);
      for (const outcome of outcomes) {
        if (outcome.status === "fulfilled") continue;
        if (!isRefusal(outcome.reason)) throw outcome.reason;
        failing++;
      }
      Reflect.deleteProperty(store, "transaction");
    }
    // From here on nothing is too often.
    await engine.topics.put("q", { ...config, max_deliveries: 0 });
    const { ready } = await counters(engine, "q");
    const claimed = seqsOf(await claim(engine, "q", 1000, "last"));
    const after = await counters(engine, "q");

    expect(failing).toBeGreaterThan(0);
    expect(failures.length).toBeGreaterThan(0);
    expect(claimed).toHaveLength(ready);
    expect(new Set(claimed).size).toBe(ready);
    expect(claimed.filter((seq) => history.held.has(seq))).toEqual([]);
    expect(after.ready).toBe(0);
    await parts.disposeAsync();
    using again = new TestEngine(storeIn(dir.path));
    const expected = config.leases_durable ? after : { ...after, ready: after.in_flight, in_flight: 0 };
    expect(await counters(again.engine, "q")).toEqual(expected);
  });
});

test("dead_lettered is kept when a queue in memory moves to the disk, and over a restart", async () => {
  await using dir = await temporaryDirectory();
  const config: TopicConfigInput = { type: "queue", max_deliveries: 1, dead_letter: "letters" };
  {
    using open = new TestEngine(storeIn(dir.path));
    const { engine } = open;
    await append(engine, "q", records(3), { ...config, durability: "ephemeral" });
    await redeliver(engine, "q", 2);
    await claim(engine, "q");
    await engine.topics.put("q", { ...config, durability: "disk" });
    expect((await counters(engine, "q")).dead_lettered).toBe(2);
  }
  using open = new TestEngine(storeIn(dir.path));
  expect((await counters(open.engine, "q")).dead_lettered).toBe(2);
});
