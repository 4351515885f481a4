/** Deletes, caps and expiry across a restart: what is gone stays gone, what was kept is still there. */
import { describe, expect, test } from "bun:test";
import { type SpawnedServer, spawnServer, temporaryDirectory } from "../support/spawn.ts";
import { absentTopic, seqs, type Topic, until } from "../support/topics.ts";

type Signal = "SIGKILL" | "SIGTERM";

const signals: Signal[] = ["SIGKILL", "SIGTERM"];
const stored = ["fsync", "disk"];
const everyWay = stored.flatMap((durability) => signals.map((signal) => [durability, signal] as const));

async function restart(server: SpawnedServer, signal: Signal): Promise<SpawnedServer> {
  await server.stop(signal);
  return spawnServer({ dir: server.dir });
}

/** All that a reader from the start and a look at the state can tell, without the traces of reading. */
async function seen(topic: Topic) {
  const { performance: _, ...read } = (await topic.diff({ limit: 1000, include_tags: true })).body;
  const { performance, last_read_ts, effective_priority, ...state } = (await topic.state()).body;
  return { read, state };
}

/** Prepares a topic, then restarts twice: after each restart it must look as it did before the first one. */
async function staysAsItWas(signal: Signal, config: object, prepare: (topic: Topic) => Promise<unknown>) {
  await using dir = await temporaryDirectory();
  await using first = await spawnServer({ dir: dir.path });
  const topic = absentTopic(first, "t");
  await topic.put(config);
  await prepare(topic);
  const before = await seen(topic);
  await using second = await restart(first, signal);
  expect(await seen(absentTopic(second, "t"))).toEqual(before);
  await using third = await restart(second, signal);
  expect(await seen(absentTopic(third, "t"))).toEqual(before);
  const next = (await absentTopic(third, "t").write({ records: [{ data: "next" }] })).body;
  const left: number[] = before.read.records.map(({ $seq }: { $seq: number }) => $seq);
  return { ...before, seqs: left, next };
}

const tagged = (...tags: string[]) => ({ records: tags.map((tag, i) => ({ data: i, tag })) });

describe("deletes", () => {
  test.each(everyWay)("06.13 02.69 02.70 on a %s topic stay after %s", async (durability, signal) => {
    const left = await staysAsItWas(signal, { durability }, async (topic) => {
      await topic.write(tagged("a", "a", "b", "c", "b", "a", "b", "c"));
      await topic.erase({ before_seq: 3 });
      await topic.erase({ match: ["tag", "Eq", "b"] });
    });
    expect(left.seqs).toEqual([4, 6, 8]);
    expect(left.read.tombstone).toBeNull();
    expect(left.state).toMatchObject({ head_seq: 8, earliest_seq: 4, count: 3, bytes: 3 });
    expect(left.next.first_seq).toBe(9);
  });

  test.each(everyWay)("06.13 of a whole %s topic's records stay after %s", async (durability, signal) => {
    const left = await staysAsItWas(signal, { durability }, async (topic) => {
      await topic.append(1, 2, 3);
      await topic.erase({ before_seq: 99 });
    });
    expect(left.state).toMatchObject({ head_seq: 3, earliest_seq: 4, count: 0, bytes: 0 });
    expect(left.read).toMatchObject({ records: [], tombstone: null, caught_up: true });
    expect(left.next.first_seq).toBe(4);
  });

  test("06.13 match later deletes by tags that were written before the kill", async () => {
    await using dir = await temporaryDirectory();
    await using first = await spawnServer({ dir: dir.path });
    await absentTopic(first, "t").write(tagged("x:1", "y:1", "x:2", "y:2"));
    await using second = await restart(first, "SIGKILL");
    const topic = absentTopic(second, "t");
    expect((await topic.erase({ match: "x:*" })).body).toMatchObject({ deleted: 2, count: 2 });
    expect(seqs(await topic.diff())).toEqual([2, 4]);
  });

  test.each(stored)(
    "06.48 racing writes of the tag on a %s topic spare what came later",
    async (durability) => {
      await using dir = await temporaryDirectory();
      await using first = await spawnServer({ dir: dir.path });
      const topic = absentTopic(first, "t");
      await topic.put({ durability });
      const write = async () => (await topic.write(tagged("x", "x"))).body.seqs as number[];
      const many = (n: number) => Promise.all(Array.from({ length: n }, write)).then((each) => each.flat());

      const earlier = await many(8);
      const racing = many(8);
      expect((await topic.erase({ match: ["tag", "Eq", "x"] })).status).toBe(200);
      const later = await many(8);
      await racing;
      const before = await seen(topic);

      await using second = await restart(first, "SIGKILL");
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
    "06.16 cap_records of a %s topic keeps its records after %s",
    async (durability, signal) => {
      const left = await staysAsItWas(signal, { durability, cap_records: 5 }, async (topic) => {
        await topic.append(1, 2, 3, 4);
        await topic.append(5, 6, 7, 8);
      });
      expect(left.seqs).toEqual([4, 5, 6, 7, 8]);
      expect(left.read.tombstone).toMatchObject({ reason: "cap", gap_from: 1, gap_to: 3, head_seq: 8 });
      expect(left.next.first_seq).toBe(9);
    },
  );

  test.each(everyWay)(
    "06.17 cap_bytes of a %s topic keeps its records after %s",
    async (durability, signal) => {
      const left = await staysAsItWas(signal, { durability, cap_bytes: 30 }, async (topic) => {
        for (let i = 0; i < 5; i++) await topic.append("12345678");
      });
      expect(left.seqs).toEqual([3, 4, 5]);
      expect(left.state).toMatchObject({ count: 3, bytes: 30 });
      expect(left.read.tombstone).toMatchObject({ reason: "cap", gap_from: 1, gap_to: 2 });
      expect(left.next.first_seq).toBe(6);
    },
  );

  test.each(everyWay)(
    "06.16 deletes above the cap floor of a %s topic stay after %s",
    async (durability, signal) => {
      const left = await staysAsItWas(signal, { durability, cap_records: 6 }, async (topic) => {
        await topic.write(tagged("a", "b", "a", "b", "a", "b", "a", "b"));
        await topic.erase({ before_seq: 5 });
        await topic.erase({ match: ["tag", "Eq", "b"] });
      });
      expect(left.seqs).toEqual([5, 7]);
      expect(left.read.tombstone).toMatchObject({ reason: "cap", gap_from: 1, gap_to: 2 });
    },
  );

  test.each(everyWay)(
    "06.18 a full reject topic of class %s is full after %s",
    async (durability, signal) => {
      const config = { durability, cap_records: 4, discard: "reject" };
      const left = await staysAsItWas(signal, config, async (topic) => {
        await topic.append(1, 2, 3, 4);
        expect((await topic.write({ records: [{ data: 5 }] })).status).toBe(422);
      });
      expect(left.seqs).toEqual([1, 2, 3, 4]);
      expect(left.read.tombstone).toBeNull();
      expect(left.next.error).toMatchObject({ code: "topic_full", detail: { head_seq: 4, earliest_seq: 1 } });
    },
  );
});

/** Waits until all records of the topic are past their time to live. */
const expired = (topic: Topic) =>
  until(
    () => topic.diff(),
    ({ body }) => body.records.length === 0,
  );

describe("expiry", () => {
  test.each(everyWay)("06.19 of a %s topic's records is not undone by %s", async (durability, signal) => {
    const left = await staysAsItWas(signal, { durability, ttl_ms: 50 }, async (topic) => {
      await topic.append(1, 2, 3);
      await expired(topic);
    });
    expect(left.read).toMatchObject({ records: [], tombstone: { reason: "ttl", gap_from: 1, gap_to: 3 } });
    expect(left.state).toMatchObject({ count: 0, bytes: 0, head_seq: 3, earliest_seq: 4 });
    expect(left.next.first_seq).toBe(4);
  });

  test.each(everyWay)("06.19 leaves right sums on a %s topic after %s", async (durability, signal) => {
    const left = await staysAsItWas(signal, { durability, ttl_ms: 50 }, async (topic) => {
      await topic.append("old", "old", "old");
      await expired(topic);
      await topic.put({ durability, ttl_ms: 3_600_000 });
      await topic.append("new", "new");
    });
    expect(left.seqs).toEqual([4, 5]);
    expect(left.read.tombstone).toMatchObject({ reason: "ttl", gap_from: 1, gap_to: 3 });
    expect(left.state).toMatchObject({ count: 2, bytes: 10 });
  });

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
