/** Topics, seqs and keys across restarts of every kind, also many of them and in the middle of a start. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { command, type SpawnedServer, spawnServer, temporaryDirectory } from "../support/spawn.ts";
import { absentTopic, column, defaults, seqs, type Topic, together, until } from "../support/topics.ts";

setDefaultTimeout(30_000);

const classes = ["ephemeral", "memory", "disk", "fsync"];
const signals = ["SIGKILL", "SIGTERM"] as const;
const stored = ["fsync", "disk"];

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
    for (const durability of classes) {
      await absentTopic(first, durability).put({ durability });
      await absentTopic(first, durability).append(1);
    }
    await together(4, (i) => absentTopic(first, classes[i]!).drop());
    await using second = await restart(first, "SIGKILL");
    expect((await second.send("GET", "/v0/topics")).body.topics).toEqual([]);
    expect((await absentTopic(second, "fsync").state()).status).toBe(404);
  });

  test("06.15 new ones of every class survive an immediate kill, however they were made", async () => {
    await using dir = await temporaryDirectory();
    await using first = await spawnServer({ dir: dir.path });
    const configs = classes.map((durability) => ({ durability, cap_records: 9 }));
    const replies = await together(8, (i) => {
      const config = configs[i % 4]!;
      const topic = absentTopic(first, `${i < 4 ? "put" : "written"}-${config.durability}`);
      return i < 4 ? topic.put(config) : topic.write({ records: [{ data: 1 }], config });
    });
    await first.stop("SIGKILL");
    expect(replies.map(({ status }) => status)).toEqual(Array(8).fill(201));

    await using second = await spawnServer({ dir: dir.path });
    for (const config of configs) {
      const expected = { ...defaults, ...config, durable: config.durability === "fsync" };
      for (const how of ["put", "written"]) {
        const { body } = await absentTopic(second, `${how}-${config.durability}`).state();
        expect(body.config).toEqual(expected);
      }
    }
  });

  test("06.15 changed configs of every class survive an immediate kill", async () => {
    await using dir = await temporaryDirectory();
    await using first = await spawnServer({ dir: dir.path });
    for (const durability of classes) await absentTopic(first, durability).put({ durability, priority: 1 });
    const changed = await together(4, (i) =>
      absentTopic(first, classes[i]!).put({ durability: classes[i], ttl_ms: 5000, discard: "reject" }),
    );
    await using second = await restart(first, "SIGKILL");
    for (const { body } of changed) {
      expect((await absentTopic(second, body.topic).state()).body.config).toEqual(body.config);
      expect(body.config).toMatchObject({ priority: null, ttl_ms: 5000, discard: "reject" });
    }
  });

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

  test.each(signals)(
    "06 row 11: deleted and made again, they hold their new records after %s",
    async (signal) => {
      await using dir = await temporaryDirectory();
      await using first = await spawnServer({ dir: dir.path });
      for (const durability of stored) {
        const topic = absentTopic(first, durability);
        await topic.put({ durability, cap_records: 2 });
        await topic.write({
          records: [{ data: "old" }, { data: "old" }, { data: "old" }],
          idempotency_key: "k",
        });
        await topic.drop();
        await topic.put({ durability });
        const again = await topic.write({ records: [{ data: "new" }], idempotency_key: "k" });
        expect(again.body).toMatchObject({ first_seq: 1, deduped: false });
      }
      const before = await seenAll(first, stored);

      await using second = await restart(first, signal);
      expect(await seenAll(second, stored)).toEqual(before);
      for (const { read } of before) {
        expect(read).toMatchObject({ records: [{ $seq: 1, data: "new" }], tombstone: null });
      }
    },
  );
});

describe("seqs", () => {
  test("06.20 06 row 4: only grow, over kills and clean stops", async () => {
    await using dir = await temporaryDirectory();
    const written: { $seq: number; data: string }[] = [];
    for (const [round, signal] of (
      ["SIGKILL", "SIGTERM", "SIGKILL", "SIGKILL", "SIGTERM"] as const
    ).entries()) {
      await using server = await spawnServer({ dir: dir.path });
      const data = ["a", "b", "c"].map((letter) => `${round}${letter}`);
      for (const durability of stored) {
        const topic = absentTopic(server, durability);
        if (round === 0) await topic.put({ durability });
        expect((await topic.diff()).body.records).toMatchObject(written);
        expect((await topic.append(...data)).body.seqs).toEqual([1, 2, 3].map((i) => written.length + i));
      }
      const head = written.length;
      written.push(...data.map((text, i) => ({ $seq: head + i + 1, data: text })));
      await server.stop(signal);
    }
    await using last = await spawnServer({ dir: dir.path });
    for (const name of stored) {
      const { body } = await absentTopic(last, name).diff();
      expect(body).toMatchObject({ records: written, head_seq: 15, earliest_seq: 1 });
    }
  });

  test("06 row 10: of records that were acked between kills are all there", async () => {
    await using dir = await temporaryDirectory();
    for (let round = 0; round < 4; round++) {
      await using server = await spawnServer({ dir: dir.path });
      for (const durability of stored) {
        if (round === 0) await absentTopic(server, durability).put({ durability });
        await together(50, () => absentTopic(server, durability).append(round, round));
      }
      await server.stop("SIGKILL");
    }
    await using last = await spawnServer({ dir: dir.path });
    for (const name of stored) {
      const reply = await absentTopic(last, name).diff({ limit: 1000 });
      expect(seqs(reply)).toEqual(Array.from({ length: 400 }, (_, i) => i + 1));
      expect(column(reply, "data")).toEqual(Array.from({ length: 400 }, (_, i) => Math.floor(i / 100)));
    }
  });

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
  test.each([
    ["SIGKILL", ["fsync", "disk"]],
    ["SIGTERM", ["fsync", "disk", "memory"]],
  ] as const)("06.22 survive %s on topics of class %j", async (signal, names) => {
    await using dir = await temporaryDirectory();
    await using first = await spawnServer({ dir: dir.path });
    const keyed = (server: SpawnedServer, name: string, data: string) =>
      absentTopic(server, name).write({ records: [{ data }, { data }], idempotency_key: "k" });
    const originals = new Map<string, object>();
    for (const durability of names) {
      await absentTopic(first, durability).put({ durability });
      const { performance, ...original } = (await keyed(first, durability, "once")).body;
      originals.set(durability, { ...original, deduped: true, created: false });
      await absentTopic(first, durability).append("between");
    }

    await using second = await restart(first, signal);
    for (const [name, original] of originals) {
      const { performance, ...answer } = (await keyed(second, name, "twice")).body;
      expect(answer).toEqual(original);
    }
    await using third = await restart(second, signal);
    for (const name of names) {
      expect((await keyed(third, name, "thrice")).body).toMatchObject({
        deduped: true,
        seqs: [1, 2],
        head_seq: 2,
      });
      expect((await absentTopic(third, name).state()).body).toMatchObject({ head_seq: 3, count: 3 });
    }
  });

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
