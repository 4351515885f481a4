/** Writes that change nothing write nothing, and one damaged topic leaves the others alone. */
import { Database } from "bun:sqlite";
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { TopicConfigInput } from "../../src/contract/topics.ts";
import { type Clock, OpenEngine } from "../support/engine.ts";
import { temporaryDirectory } from "../support/spawn.ts";
import { append, diff, records } from "./setup.ts";

setDefaultTimeout(20_000);

const clock: Clock = { now: 1_700_000_000_000 };

describe("nothing is stored by", () => {
  const full: [string, TopicConfigInput][] = [
    ["records, class disk", { discard: "reject", cap_records: 3, durability: "disk" }],
    ["records, class fsync", { discard: "reject", cap_records: 3, durability: "fsync" }],
    ["bytes", { discard: "reject", cap_bytes: 3 }],
  ];

  /** The log that every commit is written to. */
  const logOf = (dir: string) => readFile(join(dir, "topics.db-wal"));

  test.each(full)("a write refused by a topic full of %s", async (_, config) => {
    await using dir = await temporaryDirectory();
    using open = new OpenEngine(dir.path, clock);
    await append(open.engine, "t", records(3), config);
    const before = await logOf(dir.path);
    const refused = await append(open.engine, "t", records(1)).catch((error) => error);
    const keyed = { records: records(2), idempotency_key: "k" };
    const refusedToo = await open.engine.log.append("t", keyed, null, false).catch((error) => error);
    const after = await logOf(dir.path);

    expect([refused, refusedToo]).toMatchObject([{ status: 422 }, { status: 422 }]);
    expect(after.equals(before)).toBe(true);
  });

  test.each(["disk", "fsync"] as const)("a write that is known already, class %s", async (durability) => {
    await using dir = await temporaryDirectory();
    using open = new OpenEngine(dir.path, clock);
    const write = () => {
      const keyed = { records: records(2), idempotency_key: "k", config: { durability } };
      return open.engine.log.append("t", keyed, null, false);
    };
    const { appended } = await write();
    const before = await logOf(dir.path);
    const again = await Promise.all([write(), write()]);
    const after = await logOf(dir.path);

    const known = { ...appended, created: false, deduped: true };
    expect(again.map(({ appended }) => appended)).toEqual([known, known]);
    expect(after.equals(before)).toBe(true);
  });
});

describe("a topic that has lost its newest row", () => {
  /** Removes the newest row of a topic behind the server's back. */
  function loseNewest(dir: string, topic: string): void {
    using db = new Database(join(dir, "topics.db"), { readwrite: true, strict: true });
    // The checkpoint worker may still be on its way out.
    db.run("PRAGMA busy_timeout = 5000");
    const { changes } = db.run(
      "DELETE FROM records WHERE id = (SELECT (slot << 42) + head_seq FROM topics JOIN logs USING (slot) WHERE name = ?)",
      [topic],
    );
    if (changes !== 1) throw new Error(`removed ${changes} rows instead of one`);
  }

  const lost = { code: "internal", detail: { topic: "bad", seq: 20_000 } };

  /** Leaves rows of "bad" behind that are yet to be reclaimed, in one of the ways they come about. */
  const pending = [
    ["below a deleted position", { before_seq: 19_000 }],
    ["hidden by a delete by tag", { match: "x" }],
  ] as const;

  test.each(pending)("does not keep the engine from starting with rows %s", async (_, removal) => {
    await using dir = await temporaryDirectory();
    {
      using first = new OpenEngine(dir.path, clock);
      await append(first.engine, "bad", records(10_000, "x"));
      await append(first.engine, "bad", records(5000, "x"));
      await append(first.engine, "bad", records(5000, "y"));
      await append(first.engine, "good", records(3));
      await first.engine.log.delete("bad", removal);
    }
    loseNewest(dir.path, "bad");
    using second = new OpenEngine(dir.path, clock);
    const { engine } = second;

    expect(await diff(engine, "good")).toMatchObject({ seqs: [1, 2, 3] });
    await expect(diff(engine, "bad")).rejects.toMatchObject(lost);
    await expect(append(engine, "bad", records(1))).rejects.toMatchObject(lost);
    expect(await engine.topics.delete("bad", false)).toMatchObject({ deleted: true });
    expect(await append(engine, "bad", records(1))).toMatchObject({ created: true, first_seq: 1 });
  });
});

test.each(["data", "tag", "node", "meta"])(
  "a %s that has become a blob of the same bytes is damage",
  async (column) => {
    await using dir = await temporaryDirectory();
    const whole = [{ data: '"d"', tag: "t", node: "n", meta: '{"m":1}' }];
    {
      using first = new OpenEngine(dir.path, clock);
      await append(first.engine, "t", whole);
    }
    {
      using db = new Database(join(dir.path, "topics.db"), { readwrite: true, strict: true });
      db.run("PRAGMA busy_timeout = 5000");
      db.run(`UPDATE records SET ${column} = CAST(${column} AS BLOB)`);
    }
    using second = new OpenEngine(dir.path, clock);
    await expect(diff(second.engine, "t")).rejects.toMatchObject({
      code: "internal",
      detail: { topic: "t", seq: 1 },
    });
  },
);

test("deleting damaged topics leaves right figures, also for the next start", async () => {
  await using dir = await temporaryDirectory();
  {
    using first = new OpenEngine(dir.path, clock);
    await append(first.engine, "queue", records(3), { type: "queue", durability: "fsync" });
    await append(first.engine, "log", records(3), { durability: "memory" });
    await append(first.engine, "whole", records(2));
    await append(first.engine, "passing", records(4), { durability: "ephemeral" });
  }
  {
    using db = new Database(join(dir.path, "topics.db"), { readwrite: true, strict: true });
    db.run("PRAGMA busy_timeout = 5000");
    db.run("UPDATE topics SET checksum = checksum + 1 WHERE name = 'queue'");
    db.run(
      "UPDATE logs SET checksum = checksum + 1 WHERE slot = (SELECT slot FROM topics WHERE name = 'log')",
    );
  }
  const left = { topics: 2, queues: 0, byDurability: { ephemeral: 1, memory: 0, disk: 1, fsync: 0 } };
  {
    using second = new OpenEngine(dir.path, clock);
    await append(second.engine, "passing", records(1));
    await second.engine.topics.delete("queue", false);
    await second.engine.topics.delete("log", false);
    expect(second.engine.figures.census).toMatchObject({ ...left, records: 3, bytes: 3 });
  }
  using third = new OpenEngine(dir.path, clock);
  expect(third.engine.figures.census).toMatchObject({ ...left, records: 2, bytes: 2 });
});

test("writes that are refused or known already are not counted as entries of the log", async () => {
  await using dir = await temporaryDirectory();
  using open = new OpenEngine(dir.path, clock);
  await append(open.engine, "t", records(2), { cap_records: 2, discard: "reject" });
  const keyed = () => open.engine.log.append("u", { records: records(1), idempotency_key: "k" }, null, false);
  await keyed();
  const before = open.engine.figures.commits;

  await append(open.engine, "t", records(1)).catch(() => {});
  await keyed();
  await Promise.all([
    keyed(),
    append(open.engine, "t", records(1)).catch(() => {}),
    append(open.engine, "u", records(1)),
  ]);
  const { entries, bytes } = open.engine.figures.commits;
  expect([entries - before.entries, bytes - before.bytes]).toEqual([1, 1]);
});
