/** Routers where something is in the way: damage, a full disk, a slow device, full destinations, rings, their number. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import type { RouterInput } from "../../src/contract/routers.ts";
import type { Engine } from "../../src/engine/engine.ts";
import { Store } from "../../src/store/store.ts";
import { temporaryDirectory } from "../support/spawn.ts";
import { until } from "../support/topics.ts";
import { damages } from "./damage.ts";
import { claim, seqsOf, WORKER } from "./queues.ts";
import {
  append,
  diff,
  diskFull,
  failTransaction,
  HeldSyncs,
  malformed,
  promptly,
  records,
  storeIn,
  TestEngine,
  turns,
} from "./setup.ts";

setDefaultTimeout(20_000);

/** `n` records whose `data` is their number. */
const numbered = (n: number) => Array.from({ length: n }, (_, i) => ({ data: String(i + 1), tag: null }));

const route = (
  engine: Engine,
  router: string,
  source: string,
  dest: string,
  more: Partial<RouterInput> = {},
) => engine.routers.put(router, { source, dest, ...more });

const forwarded = async (engine: Engine, router: string) =>
  (await engine.routers.state(router)).forwarded_total;

const headOf = async (engine: Engine, topic: string) => (await engine.topics.state(topic, false)).head_seq;

/** Waits until it is so. */
const eventually = (ask: () => Promise<boolean>) => until(ask, (is) => is);

/** The values that a reader gets from the beginning to the end, with one `null` for each gap it is told of. */
async function story(engine: Engine, topic: string): Promise<unknown[]> {
  const told: unknown[] = [];
  for (let from_seq = 0; ; ) {
    const answer = await engine.log.diff(
      topic,
      { from_seq, limit: 1000 },
      () => new AbortController().signal,
    );
    const { tombstone, next_from_seq, caught_up } = answer.page;
    if (tombstone) told.push(null);
    told.push(...(JSON.parse(`[${answer.records}]`) as { data: unknown }[]).map(({ data }) => data));
    if (caught_up) return told;
    from_seq = next_from_seq;
  }
}

describe("a backlog", () => {
  const BACKLOG = 10;

  /** A router with ten records to copy, which its full destination keeps it from. */
  async function heldUp(engine: Engine): Promise<void> {
    await append(engine, "d", records(1, null, '"first"'), { discard: "reject", cap_records: 1 });
    await engine.topics.put("s", {});
    await route(engine, "r", "s", "d");
    await append(engine, "s", numbered(BACKLOG));
    expect(await forwarded(engine, "r")).toBe(0);
  }

  const release = (engine: Engine) => engine.topics.put("d", {});

  test.each(damages)("with a record that $what is copied, with one hole for it", async ({ damage }) => {
    await using dir = await temporaryDirectory();
    using open = new TestEngine(storeIn(dir.path));
    const { engine, failures } = open;
    await heldUp(engine);
    damage(dir.path, "s", 5);
    await release(engine);
    await eventually(async () => (await forwarded(engine, "r")) === BACKLOG);

    expect(await story(engine, "d")).toEqual(["first", 1, 2, 3, 4, null, 6, 7, 8, 9, 10]);
    expect(await headOf(engine, "d")).toBe(1 + BACKLOG);
    expect(failures).toEqual([]);
  });

  test("on a page that SQLite cannot read is passed over, and what is behind it is copied", async () => {
    using open = new TestEngine();
    const { engine, store, failures } = open;
    await heldUp(engine);
    const range = store.disk.records.range.bind(store.disk.records);
    const { slot } = store.topics.get("s")!;
    store.disk.records.range = (of, after, last, limit) => {
      if (of === slot && after < 5 && last >= 5) throw malformed();
      return range(of, after, last, limit);
    };
    await release(engine);
    await eventually(async () => (await forwarded(engine, "r")) === BACKLOG);

    expect((await story(engine, "d")).slice(-5)).toEqual([6, 7, 8, 9, 10]);
    expect(await headOf(engine, "d")).toBe(1 + BACKLOG);
    expect(failures).toEqual([]);
  });
});

test("a source that cannot be loaded stops neither the engine nor other routers", async () => {
  await using dir = await temporaryDirectory();
  {
    using open = new TestEngine(storeIn(dir.path));
    const { engine } = open;
    for (const [source, dest] of [
      ["bad", "of-bad"],
      ["good", "of-good"],
    ] as const) {
      await engine.topics.put(source, {});
      await route(engine, source, source, dest);
    }
    await append(engine, "bad", records(1));
  }
  const store = storeIn(dir.path);
  const { slot } = store.topics.get("bad")!;
  const of = store.disk.tagDeletes.of.bind(store.disk.tagDeletes);
  store.disk.tagDeletes.of = (asked) => {
    if (asked === slot) throw malformed();
    return of(asked);
  };
  using open = new TestEngine(store);
  const { engine } = open;
  await append(engine, "good", numbered(3));
  await eventually(async () => (await headOf(engine, "of-good")) === 3);
  expect(await story(engine, "of-good")).toEqual([1, 2, 3]);
});

describe("a DELETE and a PUT of one router with other ends", () => {
  test("rolled back, leave the router where it was", async () => {
    using open = new TestEngine();
    const { engine, store } = open;
    for (const topic of ["a", "b", "c", "d"]) await engine.topics.put(topic, {});
    await route(engine, "r", "a", "b");
    failTransaction(store);
    const outcomes = await Promise.allSettled([engine.routers.delete("r"), route(engine, "r", "c", "d")]);
    await append(engine, "a", numbered(3));
    await eventually(async () => (await headOf(engine, "b")) === 3);
    await append(engine, "c", numbered(2));

    expect(outcomes.map(({ status }) => status)).toEqual(["rejected", "rejected"]);
    expect(await engine.routers.state("r")).toMatchObject({ source: "a", dest: "b", forwarded_total: 3 });
    expect(await headOf(engine, "d")).toBe(0);
  });
});

describe("a slow device", () => {
  test("keeps readers of a source's destination waiting for nothing", async () => {
    using open = new TestEngine();
    const { engine, store } = open;
    await append(engine, "s", records(1), { durability: "fsync" });
    await route(engine, "r", "s", "d");
    await append(engine, "s", numbered(1));
    await eventually(async () => (await headOf(engine, "d")) === 1);
    const syncs = new HeldSyncs(store);
    const written = append(engine, "s", numbered(1));
    await turns();
    const meanwhile = [await promptly(headOf(engine, "d")), await promptly(diff(engine, "d"))];
    const before = Bun.peek.status(written);
    syncs.finish();
    await promptly(written);

    expect(before).toBe("pending");
    expect(meanwhile).toMatchObject([1, { seqs: [1] }]);
    expect(await headOf(engine, "d")).toBe(2);
  });

  test("lets nobody hear that a router is gone before that is safe", async () => {
    using open = new TestEngine();
    const { engine, store } = open;
    await route(engine, "r", "a", "b");
    const syncs = new HeldSyncs(store);
    const first = engine.routers.delete("r");
    await turns();
    const second = engine.routers.delete("r");
    await turns();
    const before = [Bun.peek.status(first), Bun.peek.status(second)];
    while (syncs.count > 0) syncs.finish();

    expect(before).toEqual(["pending", "pending"]);
    expect(await promptly(Promise.all([first, second]))).toMatchObject([
      { deleted: true },
      { deleted: false },
    ]);
  });
});

describe("a destination that is full", () => {
  test("takes from each of its routers in turn", async () => {
    using open = new TestEngine();
    const { engine } = open;
    const ROUNDS = 100;
    await engine.topics.put("d", { type: "queue", discard: "reject", cap_records: 1 });
    for (const router of ["r1", "r2", "r3"]) await route(engine, router, "s", "d");
    await append(engine, "s", records(ROUNDS));
    for (let i = 0; i < ROUNDS; i++) {
      const seqs = seqsOf(await claim(engine, "d"));
      if (seqs.length > 0) await engine.queues.ack("d", { node: WORKER, seqs });
      await turns();
    }
    const totals = await Promise.all(["r1", "r2", "r3"].map((router) => forwarded(engine, router)));

    expect(Math.min(...totals)).toBeGreaterThan(ROUNDS / 10);
  });
});

describe("a source whose records are not safe yet", () => {
  test("is not copied by a router that is made again while a step is under way", async () => {
    using open = new TestEngine();
    const { engine, store } = open;
    for (const topic of ["a", "b", "d"]) await engine.topics.put(topic, {});
    await engine.topics.put("c", { durability: "fsync" });
    await append(engine, "a", records(10));
    await route(engine, "r", "a", "b");
    await turns();
    const syncs = new HeldSyncs(store);
    append(engine, "a", records(1)).then(() => {
      // The step for this record begins in the same turn.
      engine.routers.delete("r");
      route(engine, "r", "c", "d");
      append(engine, "c", records(1));
    });
    await turns(50);
    const copies = (await diff(engine, "d")).seqs;
    while (syncs.count > 0) syncs.finish();

    expect(copies).toEqual([]);
  });

  test("shows what it showed before while it becomes fsync", async () => {
    using open = new TestEngine();
    const { engine, store } = open;
    await append(engine, "d", records(1), { discard: "reject", cap_records: 1 });
    await engine.topics.put("s", {});
    await route(engine, "r", "s", "d");
    await append(engine, "s", numbered(3));
    await turns();
    const syncs = new HeldSyncs(store);
    const put = engine.topics.put("s", { durability: "fsync" });
    await turns();
    await engine.log.delete("d", { before_seq: 2 });
    const copies = (await diff(engine, "d")).seqs;
    while (syncs.count > 0) syncs.finish();
    await put;

    expect(copies).toEqual([2]);
  });
});

test("routers that are held up go on when there is room, also behind many that were deleted meanwhile", async () => {
  using open = new TestEngine(new Store(), 6200);
  const { engine } = open;
  const large = (bytes: number) => records(1, null, JSON.stringify("x".repeat(bytes - 2)));
  for (const topic of ["s", "gone"]) await engine.topics.put(topic, {});
  await append(engine, "filler", large(3000));
  for (let i = 0; i < 100; i++) await route(engine, `x${i}`, "gone", `to-x${i}`);
  for (let i = 0; i < 3; i++) await route(engine, `r${i}`, "s", `to-r${i}`);
  await Promise.all([append(engine, "gone", large(700)), append(engine, "s", large(700))]);
  await turns(200);
  await Promise.all([engine.topics.delete("gone", false), append(engine, "filler", large(1100))]);
  await turns(200);
  await engine.topics.delete("filler", false);

  for (let i = 0; i < 3; i++) await eventually(async () => (await forwarded(engine, `r${i}`)) === 1);
});

describe("two hundred destinations that are full", () => {
  test("are not asked over and over", async () => {
    using open = new TestEngine();
    const { engine, store } = open;
    const names = Array.from({ length: 200 }, (_, i) => `r${i}`);
    for (const name of names) {
      await engine.topics.put(`to-${name}`, { discard: "reject", cap_records: 1 });
      await route(engine, name, "s", `to-${name}`);
    }
    await append(engine, "s", records(3));
    for (const name of names) await eventually(async () => (await forwarded(engine, name)) === 1);
    const transaction = store.transaction.bind(store);
    let transactions = 0;
    store.transaction = (work) => {
      transactions++;
      return transaction(work);
    };
    for (let i = 0; i < 300; i++) await new Promise((next) => setImmediate(next));
    expect(transactions).toBeLessThan(30);
  });
});

describe("a disk that is full", () => {
  test("refuses no write to a source in memory, also one that takes away what was not copied", async () => {
    using open = new TestEngine();
    const { engine, store } = open;
    await engine.topics.put("s", { durability: "ephemeral", cap_records: 2 });
    await route(engine, "r", "s", "d");
    const { insert } = store.disk.records;
    const { move } = store.routers;
    const full = () => {
      throw diskFull();
    };
    store.disk.records.insert = full;
    store.routers.move = full;
    const writes = Array.from({ length: 4 }, () => append(engine, "s", numbered(2)));
    const outcomes = await Promise.allSettled(writes);
    store.disk.records.insert = insert;
    store.routers.move = move;
    await eventually(async () => (await forwarded(engine, "r")) === 8);

    expect(outcomes.map(({ status }) => status)).toEqual(writes.map(() => "fulfilled"));
    expect(await story(engine, "d")).toEqual([null, 1, 2]);
    expect(await headOf(engine, "d")).toBe(8);
  });
});

describe("a ring of topics with caps", () => {
  /** Caps of the topics, and records of each batch. */
  const rings: [caps: number[], batch: number][] = [
    [[2, 2], 5],
    [[1, 1], 50],
    [[2, 1], 1000],
    [[3, 2], 9],
    [[1, 3], 500],
    [[5, 5], 40],
    [[1, 1, 1], 3],
    [[2, 1, 4], 300],
  ];

  const everything = {
    prefix: "",
    source: undefined,
    dest: undefined,
    cursor: "",
    pageSize: 100,
    isShown: () => true,
  };

  /** Waits until no router moves any more, with nobody reading. Fails if that takes too long. */
  async function settled({ routers }: Engine): Promise<void> {
    let totals: number[] = [];
    let still = 0;
    await eventually(async () => {
      await turns(5);
      const now = routers.list(everything).routers.map(({ forwarded_total }) => forwarded_total);
      still = Bun.deepEquals(now, totals) ? still + 1 : 0;
      totals = now;
      return still === 10;
    });
  }

  test.each(rings)("comes to its end: caps %p, %d records at a time", async (caps, batch) => {
    using open = new TestEngine();
    const { engine } = open;
    const topics = caps.map((_, i) => `t${i}`);
    for (const [i, cap_records] of caps.entries()) await engine.topics.put(topics[i]!, { cap_records });
    for (const [i, source] of topics.entries())
      await route(engine, `r${i}`, source, topics[(i + 1) % topics.length]!, { allow_cycle: true });
    for (let round = 0; round < 5; round++)
      await Promise.all(topics.map((topic) => append(engine, topic, numbered(batch))));
    await settled(engine);
    const heads = () => Promise.all(topics.map((topic) => headOf(engine, topic)));
    const before = await heads();
    await turns(50);

    expect(await heads()).toEqual(before);
    // Every record comes to every topic, or a hole for it does, and no record does so more than nine times.
    for (const head of before) {
      expect(head).toBeGreaterThanOrEqual(5 * batch);
      expect(head).toBeLessThanOrEqual(9 * 5 * batch * topics.length);
    }
  });
});

describe("ten thousand routers on one source", () => {
  const ROUTERS = 10_000;

  test("refuse no other write, and all get their copy", async () => {
    const store = new Store();
    const settings: Omit<RouterInput, "create_dest"> = {
      source: "s",
      dest: "d",
      preserve_node: true,
      preserve_tag: true,
      filter: null,
      allow_cycle: false,
      guarantee: "at_least_once",
    };
    store.transaction(() => {
      for (let i = 0; i < ROUTERS; i++) {
        const place = { position: 0, lost: 0, forwarded: 0 };
        store.routers.put({ name: `r${i}`, settings: JSON.stringify(settings), ...place });
      }
    });
    using open = new TestEngine(store);
    const { engine } = open;
    await engine.topics.put("d", {});
    await append(engine, "other", records(1));
    await append(engine, "s", records(1));
    let written = 0;
    let refused = 0;
    const copies = () => store.disk.records.sizes(store.topics.get("d")!.slot, 0, ROUTERS, ROUTERS).length;
    await until(
      async () => {
        const burst = Array.from({ length: 20 }, () => append(engine, "other", records(1)));
        const outcomes = await Promise.allSettled(burst);
        written += burst.length;
        refused += outcomes.filter(({ status }) => status === "rejected").length;
        return copies();
      },
      (n) => n === ROUTERS,
      15_000,
    );

    expect(refused).toBe(0);
    expect(written).toBeGreaterThan(0);
    expect(engine.figures.commits.refused).toBe(0);
    expect(await forwarded(engine, `r${ROUTERS - 1}`)).toBe(1);
  });
});
