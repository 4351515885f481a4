/** Followers, crowds and tails: what nobody may miss, what is read from the store, and what waits for what. */
import { describe, expect, setDefaultTimeout, spyOn, test } from "bun:test";
import { Bell } from "../../src/engine/bell.ts";
import { Engine } from "../../src/engine/engine.ts";
import { Store } from "../../src/store/store.ts";
import { Dice } from "../support/dice.ts";
import { temporaryDirectory } from "../support/spawn.ts";
import { damages } from "./damage.ts";
import {
  type Client,
  countReads,
  seqsTold,
  sessionOf,
  short,
  socketOf,
  streamOf,
  subscribe,
} from "./followers.ts";
import { claim, WORKER } from "./queues.ts";
import {
  append,
  failTransaction,
  HeldSyncs,
  promptly,
  records,
  storeIn,
  TestEngine,
  turns,
} from "./setup.ts";

setDefaultTimeout(10_000);

const upTo = (n: number): number[] => Array.from({ length: n }, (_, i) => i + 1);

const tail = { tail: true };

/** An engine with a clock that the test sets. */
function openAt(clock: { now: number }) {
  const parts = new DisposableStack();
  const store = parts.use(new Store());
  const limits = { topicsMax: 0, routersMax: 0, totalBytesMax: 0, watchSessionsMax: 0, heartbeatMsMin: 1000 };
  const failures: unknown[] = [];
  const fail = (error: unknown) => failures.push(error);
  const feeds = { nodeSeed: "", networkId: "", strict: false };
  const options = { store, limits, feeds, now: () => clock.now, failed: fail, unexpected: fail };
  const engine = parts.use(new Engine(options));
  return { store, engine, failures, [Symbol.dispose]: () => parts.dispose() };
}

/** Holds back every reading of a topic that does not come from memory, until the test lets it go on. */
function heldReads({ topics }: Engine, name: string) {
  const gate = Promise.withResolvers<void>();
  let waiting = 0;
  const fresh = topics.fresh.bind(topics);
  topics.fresh = async (topic) => {
    if (topic === name) {
      waiting++;
      await gate.promise;
    }
    return fresh(topic);
  };
  return { waiting: () => waiting, release: () => gate.resolve() };
}

/** A stream at the head of its topic that has been told so. */
async function atHead(engine: Engine, topic: string): Promise<Client> {
  const client = await streamOf(engine, topic, tail);
  await client.take();
  return client;
}

describe("streams at the head of one topic", () => {
  test("miss nothing where one is busy and another asks between a commit and its delivery", async () => {
    using opened = new TestEngine();
    const { engine } = opened;
    await append(engine, "t", records(1));
    const busy = await atHead(engine, "t");
    const waiting = busy.ask();
    await append(engine, "t", records(1));
    await promptly(waiting);
    const other = await atHead(engine, "t");
    await append(engine, "t", records(1));
    // The commit is known, and nobody was served yet.
    const told = await other.take();
    const coming = other.ask();
    for (let i = 0; i < 3; i++) await append(engine, "t", records(1));
    told.push(...(await promptly(coming)).map(short));
    if (!told.includes("t at 6")) told.push(...(await other.takeTo("t at 6")));

    expect(seqsTold(told)).toEqual([3, 4, 5, 6]);
    expect(seqsTold(await busy.takeTo("t at 6"))).toEqual([3, 4, 5, 6]);
  });

  const draws = [1, 2, 3].flatMap((seed) => [
    { seed, durability: "disk" as const },
    { seed, durability: "fsync" as const },
  ]);

  test.each(draws)("get all of $durability once and in order, whenever they ask ($seed)", async (draw) => {
    const { seed, durability } = draw;
    using opened = new TestEngine();
    const { engine } = opened;
    const dice = new Dice(seed);
    const RECORDS = 60;
    await engine.topics.put("t", { durability });
    const opens = [
      () => streamOf(engine, "t"),
      () => sessionOf(engine, ["t"]),
      () => socketOf(engine, ["t"], { limit: 256 }),
      () => streamOf(engine, "t", { node: "me" }),
    ];
    const follow = async (i: number) => {
      const client = await opens[i % opens.length]!();
      const told: string[] = [];
      while (!told.includes(`t at ${RECORDS}`)) {
        told.push(...(await client.ask()).map(short));
        await turns(dice.below(5));
      }
      return seqsTold(told);
    };
    const following = Promise.all(upTo(8).map(follow));
    for (let i = 0; i < RECORDS; i++) {
      await append(engine, "t", records(1));
      await turns(dice.below(4));
    }
    expect(await promptly(following)).toEqual(Array(8).fill(upTo(RECORDS)));
  });

  test("read nothing from the store, also where the only one was busy", async () => {
    using opened = new TestEngine();
    const { engine, store } = opened;
    await append(engine, "t", records(1));
    const client = await atHead(engine, "t");
    const reads = countReads(store);
    const waiting = client.ask();
    await append(engine, "t", records(1));
    await promptly(waiting);
    for (let i = 0; i < 3; i++) {
      await append(engine, "t", records(1));
      await turns();
    }
    expect(seqsTold(await client.takeTo("t at 5"))).toEqual([3, 4, 5]);
    expect(reads.count).toBe(0);
  });

  test("with nodes of their own share the records of others and pass over theirs", async () => {
    using opened = new TestEngine();
    const { engine } = opened;
    await append(engine, "t", records(1));
    const clients = await Promise.all(["a", "b"].map((node) => streamOf(engine, "t", { ...tail, node })));
    for (const client of clients) await client.take();
    const write = (node: string) => engine.log.append("t", { node, records: records(1) }, null, false);
    const asked = clients.map((client) => client.ask());
    await write("other");
    const [first, second] = await promptly(Promise.all(asked));
    const [own, foreign] = clients.map((client) => client.ask());
    await write("a");
    const told = await promptly(foreign!);
    await turns();
    const silent = Bun.peek.status(own!);
    await write("other");

    expect(first!.map(short)).toEqual(["t 2", "t at 2"]);
    expect(first!.map((frame, i) => frame === second![i])).toEqual([true, true]);
    expect(told.map(short)).toEqual(["t 3", "t at 3"]);
    expect(silent).toBe("pending");
    expect((await promptly(own!)).map(short)).toEqual(["t 4", "t at 4"]);
  });

  test("of a topic with ttl_ms read nothing from the store while nothing that they wait for has expired", async () => {
    const clock = { now: 1_800_000_000_000 };
    using opened = openAt(clock);
    const { engine, store } = opened;
    await append(engine, "t", records(1), { ttl_ms: 1000 });
    const client = await atHead(engine, "t");
    const reads = countReads(store);
    for (let seq = 2; seq < 20; seq++) {
      clock.now += 300;
      await append(engine, "t", records(1));
      expect(await client.take()).toEqual([`t ${seq}`, `t at ${seq}`]);
    }
    const served = reads.count;
    await append(engine, "t", records(1));
    clock.now += 2000;

    expect(served).toBe(0);
    expect(await client.takeTo("t at 20")).toEqual(["t ttl 20-20", "t at 20"]);
  });
});

describe("records that are deleted between two reads of the same from memory", () => {
  const ways: [string, (engine: Engine) => Promise<unknown>, number[]][] = [
    ["by position", (engine) => engine.log.delete("t", { before_seq: 4 }), [4, 5]],
    ["by tag", (engine) => engine.log.delete("t", { match: "old" }), [3, 4, 5]],
    ["as the first jobs that are done", async (engine) => ack(engine, 2, 3), [4, 5]],
    ["as jobs that are done", async (engine) => ack(engine, 3, 4), [2, 5]],
  ];

  const ack = async (engine: Engine, ...seqs: number[]) => {
    await claim(engine, "t", 5);
    return engine.queues.ack("t", { node: WORKER, seqs });
  };

  test.each(ways)("%s are not told to the second reader", async (_, remove, left) => {
    using opened = new TestEngine();
    const { engine } = opened;
    await append(engine, "t", records(1), { type: "queue" });
    const first = await atHead(engine, "t");
    const second = await atHead(engine, "t");
    const asked = first.ask();
    await append(engine, "t", [...records(1, "old"), ...records(3, "new")]);
    const told = (await promptly(asked)).map(short);
    await remove(engine);

    expect(seqsTold(told)).toEqual([2, 3, 4, 5]);
    expect(seqsTold(await second.takeTo("t at 5"))).toEqual(left);
  });
});

describe("the newest records in memory", () => {
  test("of many topics stay below what they may take together", async () => {
    using opened = new TestEngine();
    const { engine, store } = opened;
    const BYTES = 900_000;
    const names = upTo(44).map((i) => `t${i}`);
    const large = records(1, null, JSON.stringify("x".repeat(BYTES)));
    const clients: Client[] = [];
    for (const name of names) {
      await append(engine, name, records(1));
      clients.push(await atHead(engine, name));
    }
    // What a topic keeps is small at first.
    for (const name of names) await append(engine, name, records(1));
    for (const name of names) await append(engine, name, large);
    const reads = countReads(store);
    let kept = 0;
    for (const client of clients) {
      const before = reads.count;
      await promptly(client.ask());
      if (reads.count === before) kept++;
    }
    expect(kept * BYTES).toBeLessThan(32 * 1024 * 1024);
    expect(kept).toBeGreaterThan(20);
  });
});

describe("a damaged record", () => {
  const [changed] = damages;
  const opens: [string, (engine: Engine) => Promise<Client>, string][] = [
    ["a stream", (engine) => streamOf(engine, "t"), "from_seq_too_old"],
    ["a stream of a session", (engine) => sessionOf(engine, ["t"]), "from_seq_too_old"],
    ["a socket", (engine) => socketOf(engine, ["t"]), "cap"],
  ];
  const each = opens.map(([who, open, reason]) => ({ who, open, reason }));

  /** An engine on a directory, where records can be damaged. */
  async function openInDirectory() {
    await using parts = new AsyncDisposableStack();
    const dir = parts.use(await temporaryDirectory());
    const { engine } = parts.use(new TestEngine(storeIn(dir.path)));
    const kept = parts.move();
    const damage = (seq: number, how: (typeof damages)[number] = changed) => how.damage(dir.path, "t", seq);
    return { engine, damage, [Symbol.asyncDispose]: () => kept.disposeAsync() };
  }

  const first = each.flatMap((one) => damages.map((how) => ({ ...one, what: how.what, how })));
  test.each(first)(
    "that $what and is the first is told once to $who, which goes on",
    async ({ open, how }) => {
      await using opened = await openInDirectory();
      const { engine, damage } = opened;
      await append(engine, "t", records(3));
      damage(1, how);
      const client = await open(engine);
      const told = await client.takeTo("t at 3");
      await append(engine, "t", records(1));

      expect(told).toEqual(["t internal 1", "t 2 3", "t at 3"]);
      expect(await client.takeTo("t at 4")).toEqual(["t 4", "t at 4"]);
    },
  );

  test.each(each)("between others is told once to $who", async ({ open }) => {
    await using opened = await openInDirectory();
    const { engine, damage } = opened;
    await append(engine, "t", records(4));
    damage(3);
    const client = await open(engine);
    expect(await client.takeTo("t at 4")).toEqual(["t 1 2", "t internal 3", "t 4", "t at 4"]);
  });

  test.each(each)("that is the last is told once to $who", async ({ open }) => {
    await using opened = await openInDirectory();
    const { engine, damage } = opened;
    await append(engine, "t", records(2));
    damage(2);
    const client = await open(engine);
    const told = await client.takeTo("t at 2");
    await append(engine, "t", records(1));

    expect(told).toEqual(["t 1", "t internal 2", "t at 2"]);
    expect(await client.takeTo("t at 3")).toEqual(["t 3", "t at 3"]);
  });

  test.each(each)("behind what the cap has dropped is told once to $who, after that", async (one) => {
    await using opened = await openInDirectory();
    const { engine, damage } = opened;
    await append(engine, "t", records(5), { cap_records: 3 });
    damage(3);
    const client = await one.open(engine);
    expect(await client.takeTo("t at 5")).toEqual([`t ${one.reason} 1-2`, "t internal 3", "t 4 5", "t at 5"]);
  });

  test("that is the first of a topic made again is told once, after the tombstone", async () => {
    await using opened = await openInDirectory();
    const { engine, damage } = opened;
    await append(engine, "t", records(2));
    const client = await streamOf(engine, "t");
    await client.takeTo("t at 2");
    await engine.topics.delete("t", false);
    await append(engine, "t", records(3));
    damage(1);
    const told = await client.takeTo("t at 3");
    await append(engine, "t", records(1));

    expect(told).toEqual(["t recreated 1-3", "t internal 1", "t 2 3", "t at 3"]);
    expect(await client.takeTo("t at 4")).toEqual(["t 4", "t at 4"]);
  });

  test("that is the first of another instance is told once to a socket, after the tombstone", async () => {
    await using opened = await openInDirectory();
    const { engine, damage } = opened;
    const { epoch } = await append(engine, "t", records(2));
    await engine.topics.delete("t", false);
    await append(engine, "t", records(3));
    damage(1);
    const client = await socketOf(engine, ["t"], { from_seq: 2, epoch });
    expect(await client.takeTo("t at 3")).toEqual(["t recreated 1-3", "t internal 1", "t 2 3", "t at 3"]);
  });
});

describe("a socket whose topic is deleted and made again at once", () => {
  const replace = (engine: Engine) =>
    Promise.all([engine.topics.delete("t", false), append(engine, "t", records(3))]);

  /** What comes up to the first word about another topic. */
  async function untilOther(engine: Engine, client: Client): Promise<string[]> {
    await turns();
    await append(engine, "other", records(1));
    await subscribe(engine, client, ["other"]);
    return client.takeTo("other at 1");
  }

  test.each([true, false])("hears only that it is gone (asking meanwhile: %p)", async (isAsking) => {
    using opened = new TestEngine();
    const { engine } = opened;
    await append(engine, "t", records(1));
    const client = await socketOf(engine, ["t"]);
    await client.takeTo("t at 1");
    const asked = isAsking ? client.ask() : undefined;
    await replace(engine);
    const told = await promptly(asked ?? client.ask());

    expect(told.map(short)).toEqual(["t deleted"]);
    expect(await untilOther(engine, client)).toEqual(["other 1", "other at 1"]);
  });

  test("while it is read from the store hears only that it is gone", async () => {
    using opened = new TestEngine();
    const { engine } = opened;
    await append(engine, "t", records(5));
    const client = await socketOf(engine, ["t"], { limit: 1 });
    const told = await client.take();
    const held = heldReads(engine, "t");
    const asked = client.ask();
    await replace(engine);
    held.release();
    told.push(...(await promptly(asked)).map(short));
    // One page may have been on its way before.
    if (!told.includes("t deleted")) told.push(...(await client.take()));

    expect(told.at(-1)).toBe("t deleted");
    expect(seqsTold(told)).toEqual(upTo(told.length - 1));
    expect(await untilOther(engine, client)).toEqual(["other 1", "other at 1"]);
  });
});

describe("a topic that cannot be read", () => {
  test.each([true, false])(
    "ends only its own subscription of a socket (read before: %p)",
    async (isKnown) => {
      const clock = { now: 1_800_000_000_000 };
      using opened = openAt(clock);
      const { engine, store, failures } = opened;
      await append(engine, "t", records(1), { ttl_ms: 1000 });
      await append(engine, "other", records(1));
      const client = await socketOf(engine, isKnown ? ["other", "t"] : ["other"]);
      await client.takeTo(isKnown ? "t at 1" : "other at 1");
      await append(engine, "t", records(1));
      if (!isKnown) await subscribe(engine, client, ["t"]);
      clock.now += 5000;
      // What has expired cannot be taken out.
      failTransaction(store);
      const told = await client.take();
      for (const topic of ["t", "other"]) await append(engine, topic, records(1));
      const others = await client.takeTo("other at 2");
      await turns();
      const coming = client.ask();
      await turns();
      const before = Bun.peek.status(coming);
      await subscribe(engine, client, ["t"]);
      const again = (await promptly(coming)).map(short);
      if (!again.includes("t at 3")) again.push(...(await client.takeTo("t at 3")));

      expect(failures).toHaveLength(1);
      expect(told).toEqual(["t internal"]);
      expect(others).toEqual(["other 2", "other at 2"]);
      expect(before).toBe("pending");
      expect(again).toEqual(["t ttl 1-2", "t 3", "t at 3"]);
    },
  );
});

describe("strong consistency", () => {
  test("of a disk topic waits for a sync that began behind the record, whatever else waits", async () => {
    using opened = new TestEngine();
    const { engine, store } = opened;
    await append(engine, "t", records(1), { durability: "disk" });
    const client = await streamOf(engine, "t", { ...tail, consistency: "strong" });
    await client.take();
    const syncs = new HeldSyncs(store);
    const configured = engine.topics.put("t", { ttl_ms: 1_000_000 });
    await turns();
    const older = syncs.count;
    const asked = client.ask();
    const appended = append(engine, "t", records(1));
    await turns();
    for (let i = 0; i < older; i++) syncs.finish();
    await promptly(Promise.all([configured, appended]));
    await turns();
    const before = Bun.peek.status(asked);
    while (syncs.count > 0) syncs.finish();

    expect(older).toBe(1);
    expect(before).toBe("pending");
    expect((await promptly(asked)).map(short)).toEqual(["t 2", "t at 2"]);
  });
});

describe("the end of a server", () => {
  const opens: [string, (engine: Engine, shutdown: AbortSignal) => Promise<Client>][] = [
    ["a stream", (engine, shutdown) => streamOf(engine, "t", {}, shutdown)],
    ["a stream of a session", (engine, shutdown) => sessionOf(engine, ["t"], {}, shutdown)],
  ];

  test.each(opens)("is told to %s that is opened when it has begun", async (_, open) => {
    using opened = new TestEngine();
    const { engine } = opened;
    await append(engine, "t", records(1));
    const client = await open(engine, AbortSignal.abort());
    expect(await client.take()).toEqual(["server_shutting_down"]);
    expect(await client.take()).toEqual([]);
  });
});

describe("a stream of several topics", () => {
  const opens: [string, (engine: Engine, topics: string[], shutdown: AbortSignal) => Promise<Client>][] = [
    ["a session", (engine, topics, shutdown) => sessionOf(engine, topics, { node: "me" }, shutdown)],
    ["a socket", (engine, topics) => socketOf(engine, topics, { node: "me" })],
  ];

  /** A client that knows all of `fast`, while what is next in `slow` waits for the device. */
  async function withPendingSync(open: (typeof opens)[number][1], shutdown = new AbortController()) {
    const opened = new TestEngine();
    const { engine, store } = opened;
    await append(engine, "fast", records(1));
    await append(engine, "slow", records(1), { durability: "fsync" });
    const client = await open(engine, ["fast", "slow"], shutdown.signal);
    const told: string[] = [];
    while (told.length < 4) told.push(...(await client.take()));
    const syncs = new HeldSyncs(store);
    const asked = client.ask();
    const written = append(engine, "slow", records(1));
    await turns();
    return Object.assign(opened, { client, asked, written, syncs });
  }

  /** The same, while a walk past many records of `slow` rests until the test goes on. */
  async function withRestingWalk(open: (typeof opens)[number][1], shutdown = new AbortController()) {
    const opened = new TestEngine();
    const { engine } = opened;
    await append(engine, "fast", records(1));
    await engine.log.append("slow", { node: "me", records: records(5000) }, null, false);
    const rest = Promise.withResolvers<void>();
    const sleep = spyOn(Bun, "sleep").mockImplementation(() => rest.promise);
    const client = await open(engine, ["fast", "slow"], shutdown.signal);
    const told = await client.takeTo("fast at 1");
    const asked = client.ask();
    await turns();
    const rests = sleep.mock.calls.length;
    const goOn = () => {
      sleep.mockRestore();
      rest.resolve();
    };
    return Object.assign(opened, { client, told, asked, rests, goOn });
  }

  test.each(opens)("tells %s of one while another waits for the device", async (_, open) => {
    using opened = await withPendingSync(open);
    const { engine, client, asked, written, syncs } = opened;
    await append(engine, "fast", records(1));
    const told = (await promptly(asked)).map(short);
    const late = client.ask();
    await turns();
    const before = Bun.peek.status(late);
    while (syncs.count > 0) syncs.finish();
    await promptly(written);

    expect(told).toEqual(["fast 2", "fast at 2"]);
    expect(before).toBe("pending");
    expect((await promptly(late)).map(short)).toEqual(["slow 2", "slow at 2"]);
  });

  test.each(opens)("tells %s of one while a walk through another rests", async (_, open) => {
    using opened = await withRestingWalk(open);
    const { engine, client, asked, rests, goOn } = opened;
    const before = Bun.peek.status(asked);
    await append(engine, "fast", records(1));
    const told = await promptly(asked)
      .then((frames) => frames.map(short))
      .finally(goOn);

    expect(rests).toBeGreaterThan(0);
    expect(before).toBe("pending");
    expect(told).toEqual(["fast 2", "fast at 2"]);
    expect(await client.takeTo("slow at 5000")).toEqual(["slow at 5000"]);
  });

  test("says its last words while one of them waits for the device", async () => {
    const shutdown = new AbortController();
    using opened = await withPendingSync(opens[0]![1], shutdown);
    const { asked, written, syncs } = opened;
    shutdown.abort();
    const told = (await promptly(asked)).map(short);
    const before = Bun.peek.status(written);
    while (syncs.count > 0) syncs.finish();
    await promptly(written);

    expect(told).toEqual(["server_shutting_down"]);
    expect(before).toBe("pending");
  });

  test("says its last words while a walk through one of them rests", async () => {
    const shutdown = new AbortController();
    using opened = await withRestingWalk(opens[0]![1], shutdown);
    const { asked, rests, goOn } = opened;
    shutdown.abort();
    const told = await promptly(asked)
      .then((frames) => frames.map(short))
      .finally(goOn);

    expect(rests).toBeGreaterThan(0);
    expect(told).toEqual(["server_shutting_down"]);
  });

  const backlogs: [string, (engine: Engine, topics: string[]) => Promise<Client>][] = [
    ["a session", (engine, topics) => sessionOf(engine, topics, { limit: 1 })],
    ["a socket", (engine, topics) => socketOf(engine, topics, { limit: 1 })],
  ];

  test.each(backlogs)("reads one page ahead of %s at most", async (_, open) => {
    using opened = new TestEngine();
    const { engine, store } = opened;
    const names = ["a", "b", "c", "d"];
    for (const name of names) await append(engine, name, records(100));
    const client = await open(engine, names);
    const reads = countReads(store);
    for (let pages = 1; pages <= 5; pages++) {
      await client.take();
      await turns();
      expect(reads.count).toBeLessThanOrEqual(pages + 1);
    }
  });

  test.each(backlogs)("tells %s of another one after 16 pages", async (_, open) => {
    using opened = new TestEngine();
    const { engine } = opened;
    for (const name of ["a", "b"]) await append(engine, name, records(40));
    const client = await open(engine, ["a", "b"]);
    const told: string[] = [];
    while (told.filter((frame) => frame.includes("at 40")).length < 2) told.push(...(await client.take()));
    const pages = told.filter((frame) => !frame.includes("at")).map((frame) => frame[0]);
    const turnsOf = pages.join("").match(/a+|b+/g)!;

    expect(turnsOf.map((turn) => `${turn[0]}${turn.length}`)).toEqual([
      "a16",
      "b16",
      "a16",
      "b16",
      "a8",
      "b8",
    ]);
    expect(["a", "b"].map((name) => seqsTold(told.filter((frame) => frame[0] === name)))).toEqual([
      upTo(40),
      upTo(40),
    ]);
  });

  test("serves those of a higher priority first, then by name", async () => {
    using opened = new TestEngine();
    const { engine } = opened;
    const priorities = { a: 1, b: null, c: 7, d: 1, e: -1 };
    for (const [name, priority] of Object.entries(priorities)) {
      await append(engine, name, records(2), priority === null ? {} : { priority });
    }
    const client = await sessionOf(engine, Object.keys(priorities));
    const told: string[] = [];
    while (told.length < 10) told.push(...(await client.take()));
    expect(told.filter((frame) => frame.includes("at")).map((frame) => frame[0])).toEqual([
      "c",
      "a",
      "d",
      "b",
      "e",
    ]);
  });

  test("hands out what is in memory in pieces of about 64 KiB", async () => {
    using opened = new TestEngine();
    const { engine } = opened;
    const TEXT = 10_000;
    const names = upTo(60).map((i) => `t${i}`);
    const large = records(1, null, JSON.stringify("x".repeat(TEXT)));
    for (const name of names) await append(engine, name, records(1));
    const client = await sessionOf(engine, names, tail);
    for (let left = names.length; left > 0; ) left -= (await client.take()).length;
    for (const name of names) await append(engine, name, large);
    const pieces: number[] = [];
    for (let left = 2 * names.length; left > 0; ) {
      const frames = await promptly(client.ask());
      pieces.push(frames.reduce((sum, { members }) => sum + members.length, 0));
      left -= frames.length;
    }
    expect(Math.max(...pieces)).toBeLessThan(64 * 1024 + 2 * TEXT);
    expect(pieces.length).toBeLessThan(20);
  });
});

describe("a follower that is left while its topic is being read", () => {
  /** Counts those who listen to any topic or name, until the test ends. */
  function countListeners() {
    const { listen } = Bell.prototype;
    const listeners = { count: 0, [Symbol.dispose]: () => bell.mockRestore() };
    const bell = spyOn(Bell.prototype, "listen").mockImplementation(function (this: Bell, ...to) {
      const stop = listen.apply(this, to);
      let isListening = true;
      listeners.count++;
      return () => {
        if (isListening) listeners.count--;
        isListening = false;
        stop();
      };
    });
    return listeners;
  }

  const ends: [string, (engine: Engine) => Promise<unknown>][] = [
    ["which is deleted", (engine) => engine.topics.delete("t", false)],
    [
      "which is made again",
      (engine) => Promise.all([engine.topics.delete("t", false), append(engine, "t", records(1))]),
    ],
  ];

  test.each(ends)("%s, leaves no listener behind", async (_, end) => {
    using opened = new TestEngine();
    using listeners = countListeners();
    const { engine } = opened;
    await append(engine, "t", records(1));
    const client = await atHead(engine, "t");
    const followed = listeners.count;
    const asked = client.ask();
    const held = heldReads(engine, "t");
    await end(engine);
    await turns();
    const waiting = held.waiting();
    client.follower.return();
    held.release();
    await promptly(asked);
    await turns();

    expect([followed, waiting]).toEqual([1, 1]);
    expect(listeners.count).toBe(0);
  });

  const opens: [string, (engine: Engine) => Promise<Client>][] = [
    ["a stream", (engine) => streamOf(engine, "t")],
    ["a socket", (engine) => socketOf(engine, ["t"])],
  ];

  test.each(opens)("for the first time leaves no listener behind: %s", async (_, open) => {
    using opened = new TestEngine();
    using listeners = countListeners();
    const { engine } = opened;
    await append(engine, "t", records(1));
    const client = await open(engine);
    const held = heldReads(engine, "t");
    const asked = client.ask();
    await turns();
    const waiting = held.waiting();
    client.follower.return();
    held.release();
    await promptly(asked);
    await turns();

    expect(waiting).toBe(1);
    expect(listeners.count).toBe(0);
  });
});
