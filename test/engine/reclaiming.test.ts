/** Giving space back: what a failed slice leaves behind, and what counts as used meanwhile. */
import { describe, expect, setDefaultTimeout, spyOn, test } from "bun:test";
import { temporaryDirectory } from "../support/spawn.ts";
import { until } from "../support/topics.ts";
import { append, diff, failTransaction, records, storeIn, TestEngine } from "./setup.ts";

setDefaultTimeout(20_000);

describe("a slice that fails", () => {
  test.each([1, 3])("as number %d resurrects nothing and leaves the counts right", async (number) => {
    using open = new TestEngine();
    const { engine, store, failures } = open;
    await append(engine, "t", records(1, "keep"));
    await append(engine, "t", records(5000, "x"));
    await append(engine, "t", records(1, "keep"));
    const removed = await engine.log.delete("t", { match: "x" });
    let slices = 0;
    failTransaction(store, () => ++slices === number);
    await until(
      async () => store.disk.tagDeletes.slots(),
      (slots) => slots.length === 0,
    );

    expect(failures).toHaveLength(1);
    expect(removed).toMatchObject({ deleted: 5000, count: 2 });
    expect((await diff(engine, "t")).seqs).toEqual([1, 5002]);
    expect(await engine.log.delete("t", { match: "x" })).toMatchObject({ deleted: 0, count: 2 });
    expect(await engine.log.delete("t", { match: "*" })).toMatchObject({ deleted: 2, count: 0, bytes: 0 });
  });

  test("is made up for by a later one that frees the slot of a deleted topic", async () => {
    using open = new TestEngine();
    const { engine, store, failures } = open;
    await append(engine, "t", records(10));
    const free = spyOn(store.topics, "free");
    failTransaction(store, () => free.mock.calls.length > 0);
    await engine.topics.delete("t", false);
    await until(
      async () => failures.length,
      (count) => count > 0,
    );
    await until(
      async () => store.topics.dropped(),
      (slots) => slots.length === 0,
    );
    expect(failures).toHaveLength(1);
  });
});

describe("the quota of all topics", () => {
  const QUOTA = 100_000;
  const large = records(5000, null, `"${"x".repeat(100)}"`);

  test("does not count a topic from its delete on", async () => {
    using open = new TestEngine(undefined, QUOTA);
    const { engine } = open;
    const fitting = large.slice(0, 900);
    for (let i = 0; i < 3; i++) {
      await append(engine, "large", fitting);
      await engine.topics.delete("large", false);
    }
    expect(await append(engine, "t", fitting)).toMatchObject({ count: 900 });
  });

  test("does not count deleted topics after a restart, though their rows are still there", async () => {
    await using dir = await temporaryDirectory();
    {
      using first = new TestEngine(storeIn(dir.path));
      await append(first.engine, "large", large);
      await first.engine.topics.delete("large", false);
    }
    using second = new TestEngine(storeIn(dir.path), QUOTA);
    const left = second.store.topics.dropped();
    const appended = await append(second.engine, "t", records(1));
    expect(left).toHaveLength(1);
    expect(appended).toMatchObject({ count: 1 });
  });
});
