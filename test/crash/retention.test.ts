/** Deletes, caps and expiry across a restart: what is gone stays gone, what was kept is still there. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import type { Reply } from "../support/server.ts";
import { type SpawnedServer, spawnServer, temporaryDirectory } from "../support/spawn.ts";
import { absentTopic, type Topic, until } from "../support/topics.ts";

setDefaultTimeout(30_000);

const signals = ["SIGKILL", "SIGTERM"] as const;
const stored = ["fsync", "disk"];
const everyWay = stored.flatMap((durability) => signals.map((signal) => [durability, signal] as const));

/** All that a reader from the start and a look at the state can tell, without the traces of reading. */
async function seen(topic: Topic) {
  const { performance: _, ...read } = (await topic.diff({ limit: 1000, include_tags: true })).body;
  const { performance, last_read_ts, effective_priority, ...state } = (await topic.state()).body;
  return { read, state };
}

const tagged = (...tags: string[]) => ({ records: tags.map((tag, i) => ({ data: i, tag })) });

/** Waits until all records of the topic are past their time to live. */
const expired = (topic: Topic) =>
  until(
    () => topic.diff(),
    ({ body }) => body.records.length === 0,
  );

interface Life {
  readonly config: object;
  /** What happens to the topic before the process ends. `config` is its config. */
  prepare(topic: Topic, config: object): Promise<unknown>;
}

const lives = {
  holes: {
    config: {},
    prepare: async (topic) => {
      await topic.write(tagged("a", "a", "b", "c", "b", "a", "b", "c"));
      await topic.erase({ before_seq: 3 });
      await topic.erase({ match: ["tag", "Eq", "b"] });
    },
  },
  emptied: {
    config: {},
    prepare: async (topic) => {
      await topic.append(1, 2, 3);
      await topic.erase({ before_seq: 99 });
    },
  },
  tags: { config: {}, prepare: (topic) => topic.write(tagged("x:1", "y:1", "x:2", "y:2")) },
  capped: {
    config: { cap_records: 5 },
    prepare: async (topic) => {
      await topic.append(1, 2, 3, 4);
      await topic.append(5, 6, 7, 8);
    },
  },
  cappedBytes: {
    config: { cap_bytes: 30 },
    prepare: async (topic) => {
      for (let i = 0; i < 5; i++) await topic.append("12345678");
    },
  },
  cappedHoles: {
    config: { cap_records: 6 },
    prepare: async (topic) => {
      await topic.write(tagged("a", "b", "a", "b", "a", "b", "a", "b"));
      await topic.erase({ before_seq: 5 });
      await topic.erase({ match: ["tag", "Eq", "b"] });
    },
  },
  full: { config: { cap_records: 4, discard: "reject" }, prepare: (topic) => topic.append(1, 2, 3, 4) },
  expired: {
    config: { ttl_ms: 50 },
    prepare: async (topic) => {
      await topic.append(1, 2, 3);
      await expired(topic);
    },
  },
  partlyExpired: {
    config: { ttl_ms: 50 },
    prepare: async (topic, config) => {
      await topic.append("old", "old", "old");
      await expired(topic);
      await topic.put({ ...config, ttl_ms: 3_600_000 });
      await topic.append("new", "new");
    },
  },
} satisfies Record<string, Life>;

interface Left {
  readonly before: Awaited<ReturnType<typeof seen>>;
  /** After the first and after the second restart. */
  readonly after: Awaited<ReturnType<typeof seen>>[];
  /** Answers of the last server. */
  readonly next: Reply;
  readonly erased: Reply;
}

/** Leads all lives on one server, ends it twice by the signal, and gives what is left of each. */
async function leftAfter(signal: NodeJS.Signals): Promise<Map<string, Left>> {
  await using dir = await temporaryDirectory();
  const all = Object.entries<Life>(lives).flatMap(([name, life]) =>
    stored.map((durability) => ({
      name: `${name}-${durability}`,
      life,
      config: { durability, ...life.config },
    })),
  );
  const look = (server: SpawnedServer) => Promise.all(all.map(({ name }) => seen(absentTopic(server, name))));
  await using first = await spawnServer({ dir: dir.path });
  await Promise.all(
    all.map(async ({ name, life, config }) => {
      const topic = absentTopic(first, name);
      await topic.put(config);
      await life.prepare(topic, config);
    }),
  );
  const before = await look(first);
  await first.stop(signal);
  await using second = await spawnServer({ dir: dir.path });
  const once = await look(second);
  await second.stop(signal);
  await using third = await spawnServer({ dir: dir.path });
  const twice = await look(third);
  const left = all.map(async ({ name }, i): Promise<[string, Left]> => {
    const topic = absentTopic(third, name);
    const erased = await topic.erase({ match: "x:*" });
    const next = await topic.write({ records: [{ data: "next" }] });
    return [name, { before: before[i]!, after: [once[i]!, twice[i]!], next, erased }];
  });
  return new Map(await Promise.all(left));
}

const runs = new Map<string, Promise<Map<string, Left>>>();

/** What is left of one life. The lives of a signal are led together, when the first of them is asked for. */
async function leftOf(life: keyof typeof lives, durability: string, signal: NodeJS.Signals) {
  if (!runs.has(signal)) runs.set(signal, leftAfter(signal));
  const { before, after, next, erased } = (await runs.get(signal)!).get(`${life}-${durability}`)!;
  expect(after).toEqual([before, before]);
  const { read, state } = before;
  const kept: number[] = read.records.map(({ $seq }: { $seq: number }) => $seq);
  return { read, state, kept, next: next.body, erased: erased.body };
}

describe("deletes", () => {
  test.each(everyWay)("06.13 02.69 02.70 on a %s topic stay after %s", async (durability, signal) => {
    const left = await leftOf("holes", durability, signal);
    expect(left.kept).toEqual([4, 6, 8]);
    expect(left.read.tombstone).toBeNull();
    expect(left.state).toMatchObject({ head_seq: 8, earliest_seq: 4, count: 3, bytes: 3 });
    expect(left.next.first_seq).toBe(9);
  });

  test.each(everyWay)("06.13 of a whole %s topic's records stay after %s", async (durability, signal) => {
    const left = await leftOf("emptied", durability, signal);
    expect(left.state).toMatchObject({ head_seq: 3, earliest_seq: 4, count: 0, bytes: 0 });
    expect(left.read).toMatchObject({ records: [], tombstone: null, caught_up: true });
    expect(left.next.first_seq).toBe(4);
  });

  test.each(everyWay)("06.13 still find the tags of a %s topic after %s", async (durability, signal) => {
    const left = await leftOf("tags", durability, signal);
    expect(left.kept).toEqual([1, 2, 3, 4]);
    expect(left.erased).toMatchObject({ deleted: 2, count: 2, earliest_seq: 2 });
  });

  test.each(stored)(
    "06.48 racing writes of the tag on a %s topic spare what came later",
    async (durability) => {
      await using dir = await temporaryDirectory();
      await using first = await spawnServer({ dir: dir.path });
      const topic = absentTopic(first, "t");
      await topic.put({ durability });
      const write = async (): Promise<number[]> => (await topic.write(tagged("x", "x"))).body.seqs;
      const many = (n: number) => Promise.all(Array.from({ length: n }, write)).then((each) => each.flat());

      const earlier = await many(8);
      const racing = many(8);
      expect((await topic.erase({ match: ["tag", "Eq", "x"] })).status).toBe(200);
      const later = await many(8);
      await racing;
      const before = await seen(topic);

      await first.stop("SIGKILL");
      await using second = await spawnServer({ dir: dir.path });
      const after = await seen(absentTopic(second, "t"));
      expect(after).toEqual(before);
      const kept = new Set(after.read.records.map(({ $seq }: { $seq: number }) => $seq));
      expect(earlier.filter((seq) => kept.has(seq))).toEqual([]);
      expect(later.filter((seq) => !kept.has(seq))).toEqual([]);
    },
  );
});

describe("caps", () => {
  test.each(everyWay)(
    "06.16 06 row 1: cap_records of a %s topic keeps its records after %s",
    async (durability, signal) => {
      const left = await leftOf("capped", durability, signal);
      expect(left.kept).toEqual([4, 5, 6, 7, 8]);
      expect(left.read.tombstone).toMatchObject({ reason: "cap", gap_from: 1, gap_to: 3, head_seq: 8 });
      expect(left.next.first_seq).toBe(9);
    },
  );

  test.each(everyWay)(
    "06.17 06 row 2: cap_bytes of a %s topic keeps its records after %s",
    async (durability, signal) => {
      const left = await leftOf("cappedBytes", durability, signal);
      expect(left.kept).toEqual([3, 4, 5]);
      expect(left.state).toMatchObject({ count: 3, bytes: 30 });
      expect(left.read.tombstone).toMatchObject({ reason: "cap", gap_from: 1, gap_to: 2 });
      expect(left.next.first_seq).toBe(6);
    },
  );

  test.each(everyWay)(
    "06.16 deletes above the cap floor of a %s topic stay after %s",
    async (durability, signal) => {
      const left = await leftOf("cappedHoles", durability, signal);
      expect(left.kept).toEqual([5, 7]);
      expect(left.read.tombstone).toMatchObject({ reason: "cap", gap_from: 1, gap_to: 2 });
    },
  );

  test.each(everyWay)(
    "06.18 06 row 1: a full reject topic of class %s is full after %s",
    async (durability, signal) => {
      const left = await leftOf("full", durability, signal);
      expect(left.kept).toEqual([1, 2, 3, 4]);
      expect(left.read.tombstone).toBeNull();
      expect(left.next.error).toMatchObject({ code: "topic_full", detail: { head_seq: 4, earliest_seq: 1 } });
    },
  );
});

describe("expiry", () => {
  test.each(everyWay)("06.19 of a %s topic's records is not undone by %s", async (durability, signal) => {
    const left = await leftOf("expired", durability, signal);
    expect(left.read).toMatchObject({ records: [], tombstone: { reason: "ttl", gap_from: 1, gap_to: 3 } });
    expect(left.state).toMatchObject({ count: 0, bytes: 0, head_seq: 3, earliest_seq: 4 });
    expect(left.next.first_seq).toBe(4);
  });

  test.each(everyWay)(
    "06.19 06 row 12: leaves right sums on a %s topic after %s",
    async (durability, signal) => {
      const left = await leftOf("partlyExpired", durability, signal);
      expect(left.kept).toEqual([4, 5]);
      expect(left.read.tombstone).toMatchObject({ reason: "ttl", gap_from: 1, gap_to: 3 });
      expect(left.state).toMatchObject({ count: 2, bytes: 10 });
    },
  );

  test("06.19 goes on while the process is down", async () => {
    await using dir = await temporaryDirectory();
    await using first = await spawnServer({ dir: dir.path });
    await absentTopic(first, "t").put({ ttl_ms: 100 });
    await absentTopic(first, "t").append(1, 2);
    const written = Date.now();
    await first.stop("SIGKILL");
    await Bun.sleep(Math.max(0, written + 110 - Date.now()));

    await using second = await spawnServer({ dir: dir.path });
    const { read, state } = await seen(absentTopic(second, "t"));
    expect(read).toMatchObject({ records: [], tombstone: { reason: "ttl", gap_to: 2 } });
    expect(state).toMatchObject({ count: 0, bytes: 0, earliest_seq: 3 });
  });
});
