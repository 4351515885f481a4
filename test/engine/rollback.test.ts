/** What a failed transaction leaves behind: nothing. And whom a failed command takes along: nobody. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import type { Engine } from "../../src/engine/engine.ts";
import type { Shelf } from "../../src/store/store.ts";
import { append, diff, failTransaction, malformed, promptly, records, TestEngine, turns } from "./setup.ts";

setDefaultTimeout(10_000);

describe("a group that deletes a topic and makes it again", () => {
  type Step = (engine: Engine) => Promise<unknown>;
  const drop: Step = (engine) => engine.topics.delete("t", false);
  const put: Step = (engine) => engine.topics.put("t", { cap_records: 1 });
  const write: Step = (engine) => append(engine, "t", records(1, "new"));
  const groups: [string, Step[]][] = [
    ["DELETE, PUT", [drop, put]],
    ["DELETE, write", [drop, write]],
    ["write, DELETE, PUT, write", [write, drop, put, write]],
    ["DELETE, PUT, DELETE, PUT", [drop, put, drop, put]],
  ];

  /** Runs the steps in one transaction that fails. */
  async function rolledBack({ engine, store, failures }: TestEngine, steps: Step[]): Promise<void> {
    failTransaction(store);
    const outcomes = await Promise.allSettled(steps.map((step) => step(engine)));
    expect(outcomes.map(({ status }) => status)).toEqual(steps.map(() => "rejected"));
    expect(failures).toHaveLength(1);
  }

  test.each(groups)("%s: rolled back, it leaves the topic as it was", async (_, steps) => {
    using open = new TestEngine();
    const { engine } = open;
    await append(engine, "t", records(3, "a"));
    await append(engine, "other", records(1));
    const seen = async () => ({
      state: await engine.topics.state("t", false),
      list: await engine.topics.list({ pageSize: 100, touch: false }),
      page: await diff(engine, "t"),
      topics: engine.topics.count,
    });
    await diff(engine, "t");
    const before = await seen();
    await rolledBack(open, steps);
    const after = await seen();
    expect({ ...after, state: { ...after.state, last_read_ts: null } }).toEqual({
      ...before,
      state: { ...before.state, last_read_ts: null },
    });
    expect(await append(engine, "t", records(1))).toMatchObject({ first_seq: 4, epoch: before.state.epoch });
  });

  test.each(groups)("%s: rolled back, it leaves readers waiting for the next record", async (_, steps) => {
    using open = new TestEngine();
    const { engine } = open;
    await append(engine, "t", records(3, "a"));
    const poll = diff(engine, "t", { from_seq: 3, wait_ms: 20_000 });
    await turns();
    await rolledBack(open, steps);
    await turns();
    const meanwhile = Bun.peek.status(poll);
    await append(engine, "t", records(1, "b"));
    expect(meanwhile).toBe("pending");
    expect(await promptly(poll)).toMatchObject({ seqs: [4], tags: ["b"] });
  });

  test.each(groups)("%s: rolled back, it brings no deleted record back", async (_, steps) => {
    using open = new TestEngine();
    const { engine } = open;
    await append(engine, "t", [...records(200, "keep"), ...records(50, "secret"), ...records(50, "keep")]);
    // A page that is read again is kept encoded.
    for (let i = 0; i < 3; i++) await diff(engine, "t", { limit: 256 });
    await engine.log.delete("t", { match: "secret" });
    await rolledBack(open, steps);
    const read = [await diff(engine, "t", { limit: 256 }), await diff(engine, "t", { limit: 256 })];
    expect(read.flatMap(({ tags }) => tags)).not.toContain("secret");
    expect(read.map(({ seqs }) => seqs.length)).toEqual([250, 250]);
  });
});

describe("a command that storage fails", () => {
  /** Fails every insert of a record with that tag, as a damaged page fails whatever touches it. */
  function breakInserts({ records }: Shelf, tag: string): void {
    const insert = records.insert.bind(records);
    records.insert = (slot, firstSeq, ts, inserted) => {
      if (inserted.some((record) => record.tag === JSON.stringify(tag))) throw malformed();
      insert(slot, firstSeq, ts, inserted);
    };
  }

  test("fails alone: the others of its group are committed, in their order", async () => {
    using open = new TestEngine();
    const { engine, store } = open;
    await append(engine, "good", records(1));
    await append(engine, "bad", records(1));
    breakInserts(store.disk, "bad");
    const outcomes = await Promise.allSettled([
      append(engine, "good", records(1, "first")),
      append(engine, "bad", records(1, "bad")),
      append(engine, "bad", records(1, "fine")),
      append(engine, "good", records(1, "second")),
      engine.topics.put("made", {}),
    ]);
    expect(outcomes.map(({ status }) => status)).toEqual([
      "fulfilled",
      "rejected",
      "fulfilled",
      "fulfilled",
      "fulfilled",
    ]);
    expect(outcomes[1]).toMatchObject({ reason: { code: "internal" } });
    expect(await diff(engine, "good")).toMatchObject({
      seqs: [1, 2, 3],
      tags: [undefined, "first", "second"],
    });
    expect(await diff(engine, "bad")).toMatchObject({ seqs: [1, 2], tags: [undefined, "fine"] });
    expect(await engine.topics.state("made", false)).toMatchObject({ head_seq: 0 });
  });

  test("leaves no topic behind that it was to create", async () => {
    using open = new TestEngine();
    const { engine, store } = open;
    breakInserts(store.disk, "bad");
    const [good, bad] = await Promise.allSettled([
      append(engine, "good", records(1)),
      append(engine, "bad", records(1, "bad")),
    ]);
    expect(good.status).toBe("fulfilled");
    expect(bad).toMatchObject({ status: "rejected", reason: { code: "internal" } });
    expect(engine.topics.count).toBe(1);
    await expect(engine.topics.state("bad", false)).rejects.toMatchObject({ code: "topic_not_found" });
    expect(await append(engine, "bad", records(1))).toMatchObject({ created: true, first_seq: 1 });
  });

  test.each([1, 2])("fails alone, too, when look-ups of its topic fail from number %d on", async (number) => {
    using open = new TestEngine();
    const { engine, store } = open;
    const get = store.topics.get.bind(store.topics);
    let lookups = 0;
    store.topics.get = (name) => {
      if (name === "bad" && ++lookups >= number) throw malformed();
      return get(name);
    };
    const [good, bad] = await promptly(
      Promise.allSettled([append(engine, "good", records(1)), append(engine, "bad", records(1))]),
    );
    store.topics.get = get;
    expect(good).toMatchObject({ status: "fulfilled", value: { head_seq: 1 } });
    expect(bad.status).toBe("rejected");
    await expect(engine.topics.state("bad", false)).rejects.toMatchObject({ code: "topic_not_found" });
  });
});
