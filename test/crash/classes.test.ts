/** The durability classes: what each of them still holds after a kill and after a clean stop. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { type SpawnedServer, spawnServer, temporaryDirectory } from "../support/spawn.ts";
import { absentTopic, defaults, type Topic } from "../support/topics.ts";

setDefaultTimeout(30_000);

interface Entry {
  readonly $seq: number;
  readonly $ts: number;
  readonly $tag?: string;
  readonly $node?: string;
  readonly data: unknown;
  readonly meta?: unknown;
}

/** Ends the server the given way and starts another one over its directory. */
async function restart(server: SpawnedServer, signal: NodeJS.Signals): Promise<SpawnedServer> {
  await server.stop(signal);
  return spawnServer({ dir: server.dir });
}

async function readAll(topic: Topic): Promise<Entry[]> {
  const records: Entry[] = [];
  for (let from = 0, caughtUp = false; !caughtUp; ) {
    const { body } = await topic.diff({ from_seq: from, limit: 1000, include_tags: true });
    records.push(...body.records);
    ({ next_from_seq: from, caught_up: caughtUp } = body);
  }
  return records;
}

/** The state without the traces of reading. */
async function stateOf(topic: Topic) {
  const { performance, last_read_ts, effective_priority, ...state } = (await topic.state()).body;
  return state;
}

const input = (i: number) => ({
  data: [null, i, `text ${i} \u00e9\u{1f600}\u0000`, { i, list: [1, [i]] }][i % 4],
  ...(i % 3 === 0 ? {} : { tag: `tag-${i % 7}` }),
  ...(i % 5 === 0 ? {} : { node: `node-${i % 2}` }),
  ...(i % 2 === 0 ? {} : { meta: { i, even: false } }),
});

/** Appends records 1 to `total` in batches of many sizes. */
async function fill(topic: Topic, total: number) {
  for (let first = 1, size = 1; first <= total; first += size, size = (size * 3 + 1) % 29) {
    const count = Math.min(size, total - first + 1);
    const records = Array.from({ length: count }, (_, i) => input(first + i));
    expect(await topic.write({ records })).toMatchObject({ status: 200, body: { first_seq: first } });
  }
}

const sent = (record: Entry) => {
  const { data, $tag, $node, meta } = record;
  const optional = { tag: $tag, node: $node, meta };
  return { data, ...Object.fromEntries(Object.entries(optional).filter(([, value]) => value !== undefined)) };
};

describe("a fresh start", () => {
  test.each(["", "below/some/parents"])(
    '06.01 over an empty directory "%s" is ready and empty',
    async (path) => {
      await using dir = await temporaryDirectory();
      await using server = await spawnServer({ dir: join(dir.path, path) });
      expect(await server.send("GET", "/v0/ready")).toMatchObject({ status: 200, body: { topics: 0 } });
      expect((await server.send("GET", "/v0/topics")).body.topics).toEqual([]);
    },
  );

  test("06.02 each class reports whether it is durable", async () => {
    await using server = await spawnServer();
    const reported = [];
    for (const durability of ["ephemeral", "memory", "disk", "fsync"]) {
      const topic = absentTopic(server, durability);
      const { config } = (await topic.put({ durability })).body;
      expect((await topic.state()).body.config).toEqual(config);
      reported.push([config.durability, config.durable]);
    }
    expect(reported).toEqual([
      ["ephemeral", false],
      ["memory", false],
      ["disk", false],
      ["fsync", true],
    ]);
  });
});

describe("after a kill", () => {
  test.each([
    ["06.04", "fsync"],
    ["06.05", "disk"],
  ])("%s every record of an %s topic is as it was, and seqs go on", async (_, durability) => {
    await using dir = await temporaryDirectory();
    await using first = await spawnServer({ dir: dir.path });
    const before = absentTopic(first, "t");
    await before.put({ durability });
    await fill(before, 300);
    const [records, state] = [await readAll(before), await stateOf(before)];
    expect(records.map(sent)).toEqual(Array.from({ length: 300 }, (_, i) => input(i + 1)));

    await using second = await restart(first, "SIGKILL");
    const after = absentTopic(second, "t");
    expect(await readAll(after)).toEqual(records);
    expect(await stateOf(after)).toEqual(state);
    expect(state).toMatchObject({ head_seq: 300, count: 300, last_write_ts: records.at(-1)!.$ts });
    expect((await after.append("next")).body.first_seq).toBe(301);
  });

  test("06.06 a memory topic keeps its config and nothing that was not written", async () => {
    await using dir = await temporaryDirectory();
    await using first = await spawnServer({ dir: dir.path });
    const before = absentTopic(first, "t");
    await before.put({ durability: "memory", ttl_ms: 3_600_000 });
    await fill(before, 60);
    const records = await readAll(before);

    await using second = await restart(first, "SIGKILL");
    const after = absentTopic(second, "t");
    const kept = await readAll(after);
    expect(kept).toEqual(records.slice(0, kept.length));
    const state = await stateOf(after);
    expect(state.config).toEqual({ ...defaults, durability: "memory", ttl_ms: 3_600_000 });
    expect(state.count).toBe(kept.length);
    expect((await after.append("next")).body.first_seq).toBe(state.head_seq + 1);
  });

  test("06.08 a cursor beyond an ephemeral topic's head is told so", async () => {
    await using dir = await temporaryDirectory();
    await using first = await spawnServer({ dir: dir.path });
    await absentTopic(first, "t").put({ durability: "ephemeral", priority: 7 });
    await absentTopic(first, "t").append(1, 2, 3);

    await using second = await restart(first, "SIGKILL");
    const after = absentTopic(second, "t");
    const { head_seq: head, ...state } = await stateOf(after);
    expect(state).toMatchObject({ count: 0, bytes: 0, earliest_seq: head + 1, config: { priority: 7 } });
    expect([0, 3]).toContain(head);
    expect((await after.diff({ from_seq: head + 1 })).body).toMatchObject({
      records: [],
      next_from_seq: head,
      caught_up: true,
      tombstone: {
        gap_from: 1,
        gap_to: head,
        reason: "recreated",
        missed_estimate: Math.max(head, 1),
        earliest_seq: head + 1,
        head_seq: head,
      },
    });
  });

  test.each([
    ["06.10 06.12", "fsync"],
    ["06.11 06.12", "disk"],
  ])(
    "%s a burst on a %s topic left whole batches, all acknowledged ones among them",
    async (_, durability) => {
      await using dir = await temporaryDirectory();
      await using first = await spawnServer({ dir: dir.path });
      await absentTopic(first, "t").put({ durability });
      const { acked, submitted } = await killedBurst(first, "t");

      await using second = await spawnServer({ dir: dir.path });
      const after = absentTopic(second, "t");
      const records = await readAll(after);
      expect(records.map(({ $seq }) => $seq)).toEqual(records.map((_, i) => i + 1));
      expect((await after.state()).body).toMatchObject({ head_seq: records.length, count: records.length });
      const batches = Map.groupBy(records, ({ data }) => (data as { batch: string }).batch);
      for (const [batch, members] of batches) {
        const first = members[0]!.$seq;
        const whole = Array.from({ length: submitted.get(batch)! }, (_, i) => [first + i, { batch, i }]);
        expect(members.map(({ $seq, data }) => [$seq, data])).toEqual(whole);
      }
      const survived = new Map([...batches].map(([batch, members]) => [batch, members[0]!.$seq]));
      const lost = [...acked].filter(([batch, seq]) => survived.get(batch) !== seq);
      expect(lost).toEqual([]);
      // Six writers had one request each under way when the process died.
      expect(survived.size).toBeLessThanOrEqual(acked.size + 6);
    },
  );
});

/** Six writers at once, until the server is killed in the middle of it. Batches by name: size, first seq. */
async function killedBurst(server: SpawnedServer, name: string) {
  const submitted = new Map<string, number>();
  const acked = new Map<string, number>();
  let killed: Promise<number> | undefined;
  const write = async (writer: number) => {
    for (let n = 0; !killed; n++) {
      const batch = `${writer}.${n}`;
      const size = 1 + ((writer * 7 + n * 13) % 40);
      submitted.set(batch, size);
      const records = Array.from({ length: size }, (_, i) => ({ data: { batch, i } }));
      const reply = await absentTopic(server, name)
        .write({ records })
        .catch(() => undefined);
      if (!reply) break;
      expect(reply.status).toBe(200);
      acked.set(batch, reply.body.first_seq);
      if (acked.size === 150) killed = server.stop("SIGKILL");
    }
  };
  await Promise.all(Array.from({ length: 6 }, (_, writer) => write(writer)));
  await killed;
  return { submitted, acked };
}

describe("after a clean stop", () => {
  test.each(["SIGTERM", "SIGINT"] as const)("06.09 %s loses nothing and exits with 0", async (signal) => {
    await using dir = await temporaryDirectory();
    await using first = await spawnServer({ dir: dir.path });
    const classes = ["memory", "disk", "fsync"];
    const seen = async (server: SpawnedServer) =>
      Promise.all(
        classes.map(async (name) => {
          const topic = absentTopic(server, name);
          return { records: await readAll(topic), state: await stateOf(topic) };
        }),
      );
    for (const durability of classes) {
      await absentTopic(first, durability).put({ durability });
      await fill(absentTopic(first, durability), 100);
    }
    const before = await seen(first);
    expect(before.map(({ records }) => records.length)).toEqual([100, 100, 100]);
    expect(await first.stop(signal)).toBe(0);

    await using second = await spawnServer({ dir: dir.path });
    expect(await seen(second)).toEqual(before);
  });

  test("06.07 02.69 an ephemeral topic is empty and keeps its head", async () => {
    await using dir = await temporaryDirectory();
    await using first = await spawnServer({ dir: dir.path });
    await absentTopic(first, "t").put({ durability: "ephemeral", priority: 7 });
    await absentTopic(first, "t").append(1, 2, 3);

    await using second = await restart(first, "SIGTERM");
    const after = absentTopic(second, "t");
    const emptied = { count: 0, bytes: 0, head_seq: 3, earliest_seq: 4, config: { priority: 7 } };
    expect(await stateOf(after)).toMatchObject(emptied);
    expect((await after.diff()).body).toMatchObject({
      records: [],
      tombstone: null,
      caught_up: true,
      next_from_seq: 3,
    });
    expect((await after.append("next")).body.first_seq).toBe(4);
  });
});
