/** Topics, seqs and keys across restarts of every kind, also many of them and in the middle of a start. */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { command, type SpawnedServer, spawnServer, temporaryDirectory } from "../support/spawn.ts";
import { absentTopic, defaults, seqs, type Topic, together, until } from "../support/topics.ts";

const signals = ["SIGKILL", "SIGTERM"] as const;
const stored = ["fsync", "disk"];
const everyWay = stored.flatMap((durability) => signals.map((signal) => [durability, signal] as const));

async function restart(server: SpawnedServer, signal: NodeJS.Signals, env: Record<string, string> = {}) {
  await server.stop(signal);
  return spawnServer({ dir: server.dir, env });
}

/** All that a reader from the start and a look at the state can tell, without the traces of reading. */
async function seen(topic: Topic) {
  const { performance: _, ...read } = (await topic.diff({ limit: 1000, include_tags: true })).body;
  const { performance, last_read_ts, effective_priority, ...state } = (await topic.state()).body;
  return { read, state };
}

const seenAll = (server: SpawnedServer, names: string[]) =>
  Promise.all(names.map((name) => seen(absentTopic(server, name))));

/** Topics of many kinds, with deletes, evictions and keys. Gives their names. */
async function populate(server: SpawnedServer): Promise<string[]> {
  const configs = {
    plain: {},
    synced: { durability: "fsync" },
    capped: { cap_records: 3 },
    full: { cap_bytes: 6, discard: "reject" },
    empty: { ttl_ms: 3_600_000, priority: -5 },
  };
  for (const [name, config] of Object.entries(configs)) {
    const topic = absentTopic(server, name);
    await topic.put(config);
    if (name === "empty") continue;
    for (let i = 0; i < 6; i++) {
      await topic.write({ records: [{ data: i, tag: `t${i % 2}` }], idempotency_key: `k${i}` });
    }
  }
  await absentTopic(server, "synced").erase({ match: "t1" });
  await absentTopic(server, "plain").erase({ before_seq: 3 });
  return Object.keys(configs);
}

describe("topics", () => {
  test("06.14 a deleted one stays gone after an immediate kill", async () => {
    await using dir = await temporaryDirectory();
    await using first = await spawnServer({ dir: dir.path });
    for (const durability of ["fsync", "disk", "memory", "ephemeral"]) {
      await absentTopic(first, durability).put({ durability });
      await absentTopic(first, durability).append(1);
    }
    await together(4, (i) => absentTopic(first, ["fsync", "disk", "memory", "ephemeral"][i]!).drop());
    await using second = await restart(first, "SIGKILL");
    expect((await second.send("GET", "/v0/topics")).body.topics).toEqual([]);
    expect((await absentTopic(second, "fsync").state()).status).toBe(404);
  });

  test.each(["ephemeral", "memory", "disk", "fsync"])(
    "06.15 a new %s one survives an immediate kill, however it was made",
    async (durability) => {
      await using dir = await temporaryDirectory();
      const config = { durability, cap_records: 9 };
      const makings = [
        (topic: Topic) => topic.put(config),
        (topic: Topic) => topic.write({ records: [{ data: 1 }], config }),
      ];
      for (const [i, make] of makings.entries()) {
        await using server = await spawnServer({ dir: dir.path });
        expect((await make(absentTopic(server, `t${i}`))).status).toBe(201);
        await server.stop("SIGKILL");
      }
      await using last = await spawnServer({ dir: dir.path });
      const expected = { ...defaults, ...config, durable: durability === "fsync" };
      for (const name of ["t0", "t1"]) {
        expect((await absentTopic(last, name).state()).body.config).toEqual(expected);
      }
    },
  );

  test.each(["ephemeral", "memory", "disk", "fsync"])(
    "06.15 the changed config of a %s one survives an immediate kill",
    async (durability) => {
      await using dir = await temporaryDirectory();
      await using first = await spawnServer({ dir: dir.path });
      await absentTopic(first, "t").put({ durability, priority: 1 });
      const { config } = (await absentTopic(first, "t").put({ durability, ttl_ms: 5000, discard: "reject" }))
        .body;
      await using second = await restart(first, "SIGKILL");
      expect((await absentTopic(second, "t").state()).body.config).toEqual(config);
      expect(config).toMatchObject({ priority: null, ttl_ms: 5000, discard: "reject" });
    },
  );

  test("06.47 created by several at once, there is one after a kill", async () => {
    await using dir = await temporaryDirectory();
    await using first = await spawnServer({ dir: dir.path });
    const replies = await together(12, (i) => absentTopic(first, "t").put({ ttl_ms: 1000 * (i + 1) }));
    expect(replies.map(({ status }) => status).sort()).toEqual([...Array(11).fill(200), 201]);
    const { config } = (await absentTopic(first, "t").state()).body;
    await using second = await restart(first, "SIGKILL");
    const { topics } = (await second.send("GET", "/v0/topics")).body;
    expect(topics.map(({ topic }: { topic: string }) => topic)).toEqual(["t"]);
    expect((await absentTopic(second, "t").state()).body.config).toEqual(config);
  });

  test.each(everyWay)(
    "deleted and made again as %s, one holds its new record after %s",
    async (durability, signal) => {
      await using dir = await temporaryDirectory();
      await using first = await spawnServer({ dir: dir.path });
      const topic = absentTopic(first, "t");
      await topic.put({ durability, cap_records: 2 });
      await topic.write({
        records: [{ data: "old" }, { data: "old" }, { data: "old" }],
        idempotency_key: "k",
      });
      await topic.drop();
      await topic.put({ durability });
      const again = await topic.write({ records: [{ data: "new" }], idempotency_key: "k" });
      expect(again.body).toMatchObject({ first_seq: 1, deduped: false });
      const before = await seen(topic);

      await using second = await restart(first, signal);
      expect(await seen(absentTopic(second, "t"))).toEqual(before);
      expect(before.read).toMatchObject({ records: [{ $seq: 1, data: "new" }], tombstone: null });
    },
  );
});

describe("seqs", () => {
  test.each(stored)(
    "06.20 06 row 4: of a %s topic only grow, over kills and a clean stop",
    async (durability) => {
      await using dir = await temporaryDirectory();
      const written: [number, string][] = [];
      for (const [round, signal] of (
        ["SIGKILL", "SIGTERM", "SIGKILL", "SIGKILL", "SIGTERM"] as const
      ).entries()) {
        await using server = await spawnServer({ dir: dir.path });
        const topic = absentTopic(server, "t");
        if (round === 0) await topic.put({ durability });
        const { body } = await topic.diff();
        expect(body.records.map(({ $seq, data }: { $seq: number; data: string }) => [$seq, data])).toEqual(
          written,
        );
        const reply = await topic.append(`${round}a`, `${round}b`, `${round}c`);
        expect(reply.body.seqs).toEqual([1, 2, 3].map((i) => written.length + i));
        reply.body.seqs.forEach((seq: number, i: number) => {
          written.push([seq, `${round}${"abc"[i]}`]);
        });
        await server.stop(signal);
      }
      await using last = await spawnServer({ dir: dir.path });
      expect((await absentTopic(last, "t").state()).body).toMatchObject({
        head_seq: 15,
        count: 15,
        earliest_seq: 1,
      });
    },
  );

  test.each(stored)(
    "06 row 10: records of a %s topic acked between kills are all there",
    async (durability) => {
      await using dir = await temporaryDirectory();
      for (let round = 0; round < 4; round++) {
        await using server = await spawnServer({ dir: dir.path });
        const topic = absentTopic(server, "t");
        if (round === 0) await topic.put({ durability });
        await together(50, () => topic.append(round, round));
        await server.stop("SIGKILL");
      }
      await using last = await spawnServer({ dir: dir.path });
      const reply = await absentTopic(last, "t").diff({ limit: 1000 });
      expect(seqs(reply)).toEqual(Array.from({ length: 400 }, (_, i) => i + 1));
      const rounds = reply.body.records.map(({ data }: { data: number }) => data);
      expect(rounds).toEqual(Array.from({ length: 400 }, (_, i) => Math.floor(i / 100)));
    },
  );

  test.each(stored)(
    "06.21 06 row 5: records written after a change from ephemeral to %s survive",
    async (durability) => {
      await using dir = await temporaryDirectory();
      await using first = await spawnServer({ dir: dir.path });
      const topic = absentTopic(first, "t");
      await topic.put({ durability: "ephemeral" });
      await topic.append("e1", "e2", "e3");
      await topic.put({ durability });
      const { first_seq } = (await topic.append("d1", "d2")).body;
      expect(first_seq).toBe(4);
      const before = (await topic.diff()).body.records;

      await using second = await restart(first, "SIGKILL");
      const after = (await absentTopic(second, "t").diff()).body;
      expect(after.head_seq).toBe(5);
      expect(after.records.slice(-2)).toEqual(before.slice(-2));
      // The older ones may have stayed ephemeral, but none may come back changed.
      expect(before).toEqual(expect.arrayContaining(after.records));
      expect((await absentTopic(second, "t").append("d3")).body.first_seq).toBe(6);
    },
  );
});

describe("idempotency keys", () => {
  test.each([...everyWay, ["memory", "SIGTERM"] as const])(
    "06.22 on a %s topic survive %s",
    async (durability, signal) => {
      await using dir = await temporaryDirectory();
      await using first = await spawnServer({ dir: dir.path });
      await absentTopic(first, "t").put({ durability });
      const keyed = (server: SpawnedServer, data: string) =>
        absentTopic(server, "t").write({ records: [{ data }, { data }], idempotency_key: "k" });
      const { body: original } = await keyed(first, "once");
      await absentTopic(first, "t").append("between");

      await using second = await restart(first, signal);
      const { performance: _, ...answer } = (await keyed(second, "twice")).body;
      const { performance, ...expected } = original;
      expect(answer).toEqual({ ...expected, deduped: true, created: false });
      await using third = await restart(second, signal);
      expect((await keyed(third, "thrice")).body).toMatchObject({ deduped: true, seqs: [1, 2], head_seq: 2 });
      expect((await absentTopic(third, "t").state()).body).toMatchObject({ head_seq: 3, count: 3 });
    },
  );

  test("06.22 are forgotten after a restart once their window is over", async () => {
    await using dir = await temporaryDirectory();
    await using first = await spawnServer({ dir: dir.path });
    const windowMs = 300;
    await absentTopic(first, "t").put({ idempotency_window_ms: windowMs });
    const keyed = (server: SpawnedServer) =>
      absentTopic(server, "t").write({ records: [{ data: 1 }], idempotency_key: "k" });
    await keyed(first);
    const answered = Date.now();
    await using second = await restart(first, "SIGKILL");
    await Bun.sleep(Math.max(0, answered + windowMs + 10 - Date.now()));
    expect((await keyed(second)).body).toMatchObject({ deduped: false, first_seq: 2 });
  });
});

describe("starting again", () => {
  test.each(signals)("06.43 twice without traffic changes nothing after %s", async (signal) => {
    await using dir = await temporaryDirectory();
    await using first = await spawnServer({ dir: dir.path });
    const names = await populate(first);
    const before = await seenAll(first, names);
    await using second = await restart(first, signal);
    expect(await seenAll(second, names)).toEqual(before);
    await using third = await restart(second, signal);
    expect(await seenAll(third, names)).toEqual(before);
    expect(before.map(({ state }) => state.count)).toEqual([4, 3, 3, 6, 0]);
  });

  test("06 row 8: keeps the time of the last write and forgets that of the last read", async () => {
    await using dir = await temporaryDirectory();
    await using first = await spawnServer({ dir: dir.path });
    await absentTopic(first, "t").append(1);
    const { records } = (await absentTopic(first, "t").diff()).body;
    await using second = await restart(first, "SIGTERM");
    const state = (await absentTopic(second, "t").state()).body;
    expect(state).toMatchObject({ last_write_ts: records[0].$ts, last_read_ts: null, effective_priority: 0 });
  });

  test("06.44 killed at any moment of its start, the server has everything at the next", async () => {
    await using dir = await temporaryDirectory();
    await using first = await spawnServer({ dir: dir.path });
    const names = await populate(first);
    const before = await seenAll(first, names);
    await first.stop("SIGKILL");
    // Moments spread over the time that one whole start took just now.
    const began = performance.now();
    await (await spawnServer({ dir: dir.path })).stop("SIGKILL");
    const startMs = performance.now() - began;
    for (let moment = 1; moment <= 12; moment++) {
      const child = Bun.spawn(command, {
        env: { PATH: process.env.PATH ?? "", TOPICS_PORT: "0", TOPICS_DATA_DIR: dir.path },
        stdout: "ignore",
        stderr: "ignore",
      });
      await Bun.sleep((startMs * moment) / 12);
      child.kill("SIGKILL");
      await child.exited;
    }
    await using last = await spawnServer({ dir: dir.path });
    expect(await seenAll(last, names)).toEqual(before);
  });

  test("06.45 storage settings that are only accepted make no difference", async () => {
    await using dir = await temporaryDirectory();
    const tuning = (value: string) => ({
      TOPICS_WAL_SHARDS: value,
      TOPICS_COLD_DIR: join(dir.path, `cold-${value}`),
      TOPICS_SEGMENT_MAX_EVENTS: value,
      TOPICS_SEGMENT_MAX_BYTES: value,
      TOPICS_SEGMENT_MAX_AGE_MS: value,
      TOPICS_HOT_RETAIN_SEGMENTS: value,
      TOPICS_HOT_RETAIN_BYTES: value,
    });
    await using first = await spawnServer({ dir: join(dir.path, "data"), env: tuning("1") });
    const names = await populate(first);
    const before = await seenAll(first, names);
    await using second = await restart(first, "SIGKILL", tuning("4"));
    expect(await seenAll(second, names)).toEqual(before);
    await using third = await restart(second, "SIGTERM", tuning("no number"));
    expect(await seenAll(third, names)).toEqual(before);
  });

  test("06.32 answers nothing from half-recovered state", async () => {
    await using dir = await temporaryDirectory();
    await using first = await spawnServer({ dir: dir.path });
    const records = Array.from({ length: 10_000 }, (_, i) => ({ data: `record ${i}` }));
    for (let i = 0; i < 3; i++) await absentTopic(first, "t").write({ records }, "?return_seqs=false");
    await absentTopic(first, "u").put();
    await first.stop("SIGKILL");

    const { port } = new URL(first.url);
    const starting = spawnServer({ dir: dir.path, env: { TOPICS_PORT: port } });
    const early: object[] = [];
    const ask = async () => {
      const ready = await first.send("GET", "/v0/ready").catch(() => undefined);
      if (ready?.status !== 503) {
        const state = await absentTopic(first, "t")
          .state()
          .catch(() => undefined);
        if (state && state.status !== 503) early.push({ status: state.status, head: state.body.head_seq });
      } else expect(ready.body.error.code).toBe("not_ready");
      return ready;
    };
    const asked = until(ask, (reply) => reply?.status === 200, 20_000);
    await using second = await starting;
    const ready = await asked;
    expect(ready?.body).toMatchObject({ status: "ready", wal_replay_complete: true, topics: 2 });
    expect(early.length).toBeGreaterThan(0);
    expect(new Set(early.map((answer) => JSON.stringify(answer)))).toEqual(
      new Set([JSON.stringify({ status: 200, head: 30_000 })]),
    );
    expect((await absentTopic(second, "t").diff({ from_seq: 29_999 })).body.records).toMatchObject([
      { data: "record 9999" },
    ]);
  });
});
