/** Large deletes by tag while something else happens to their topic, and what they ask of the event loop. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import type { Durability } from "../../src/contract/topics.ts";
import type { Engine } from "../../src/engine/engine.ts";
import type { Records } from "../../src/store/records.ts";
import type { Shelf, Store } from "../../src/store/store.ts";
import { until } from "../support/topics.ts";
import { append, diff, records, TestEngine, turns } from "./setup.ts";

setDefaultTimeout(30_000);

/** More than one slice of counting. */
const MANY = 20_000;

async function appendMany(engine: Engine, topic: string, tag: string): Promise<void> {
  for (let done = 0; done < MANY; done += 10_000) await append(engine, topic, records(10_000, tag));
}

const reclaimed = ({ disk, memory }: Store) =>
  until(
    async () => [...disk.tagDeletes.slots(), ...memory.tagDeletes.slots()],
    (slots) => slots.length === 0,
    15_000,
  );

describe("a change of class", () => {
  const changes: [Durability, Durability][] = [
    ["disk", "ephemeral"],
    ["ephemeral", "disk"],
  ];

  /** A topic of that class with `MANY` records "x" and two others at each end. */
  async function filled({ engine }: TestEngine, durability: Durability): Promise<void> {
    await append(engine, "t", records(2, "keep"), { durability });
    await appendMany(engine, "t", "x");
    await append(engine, "t", records(2, "keep"));
  }

  const kept = [1, 2, MANY + 3, MANY + 4];
  /** The slot of the first topic of a client: the one before is the server's own. */
  const SLOT = 2;
  const rows = ({ records }: Shelf) => records.sizes(SLOT, 0, 2 * MANY, 2 * MANY).length;

  test.each(changes)("from %s to %s while a delete is counted changes no count", async (from, to) => {
    using open = new TestEngine();
    const { engine, store } = open;
    await filled(open, from);
    const removal = engine.log.delete("t", { match: "x" });
    await engine.topics.put("t", { durability: to });
    const meanwhile = Bun.peek.status(removal);
    const removed = await removal;

    expect(meanwhile).toBe("pending");
    expect(removed).toMatchObject({ deleted: MANY, count: 4, bytes: 4, earliest_seq: 1 });
    expect((await diff(engine, "t")).seqs).toEqual(kept);
    await reclaimed(store);
    expect((await diff(engine, "t")).seqs).toEqual(kept);
    expect(await engine.log.delete("t", { match: "*" })).toMatchObject({ deleted: 4, count: 0, bytes: 0 });
  });

  test.each(changes)("from %s to %s while rows are reclaimed keeps them dead", async (from, to) => {
    using open = new TestEngine();
    const { engine, store } = open;
    await filled(open, from);
    await engine.log.delete("t", { match: "x" });
    const shelf = from === "disk" ? store.disk : store.memory;
    while (rows(shelf) === MANY + 4) await turns(1);
    const left = rows(shelf);
    await engine.topics.put("t", { durability: to });
    const moved = await diff(engine, "t");
    await reclaimed(store);

    expect(left).toBeGreaterThan(4);
    expect(moved.seqs).toEqual(kept);
    expect((await diff(engine, "t")).seqs).toEqual(kept);
    expect(rows(store.disk) + rows(store.memory)).toBe(4);
    expect(await engine.topics.state("t", false)).toMatchObject({ count: 4, bytes: 4 });
  });
});

describe("a delete by tag from before its topic was deleted", () => {
  test.each([10, MANY])("and made again takes nothing from the new one (%d records)", async (count) => {
    using open = new TestEngine();
    const { engine } = open;
    if (count === MANY) await appendMany(engine, "t", "x");
    else await append(engine, "t", records(count, "x"));
    const removal = engine.log.delete("t", { match: "x" });
    const [, appended, removed] = await Promise.all([
      engine.topics.delete("t", false),
      append(engine, "t", records(10, "x")),
      removal,
    ]);
    expect(appended).toMatchObject({ created: true, first_seq: 1 });
    expect(removed).toMatchObject({ deleted: 0, count: 10, head_seq: 10 });
    expect((await diff(engine, "t")).seqs).toHaveLength(10);
  });

  test("finds no topic if it was not made again", async () => {
    using open = new TestEngine();
    const { engine } = open;
    await appendMany(engine, "t", "x");
    const removal = engine.log.delete("t", { match: "x" });
    const [, outcome] = await Promise.allSettled([engine.topics.delete("t", false), removal]);
    expect(outcome).toMatchObject({ status: "rejected", reason: { code: "topic_not_found" } });
  });
});

describe("a delete by tag that matches little", () => {
  const TAGS = 300_000;
  /** Far above what is looked at between two rests, far below the number of tags. */
  const ROWS_PER_TURN_MAX = 10_000;

  /** Counts the rows found by tag between two turns of the event loop. */
  class RowsPerTurn implements Disposable {
    most = 0;
    total = 0;
    #rows = 0;
    #ended = false;

    constructor(records: Records) {
      const tagged = records.tagged.bind(records);
      const taggedAfter = records.taggedAfter.bind(records);
      records.tagged = (...range) => this.#counted(tagged(...range));
      records.taggedAfter = (...range) => this.#counted(taggedAfter(...range));
      this.#turn();
    }

    #counted<T>(rows: T[]): T[] {
      this.#rows += rows.length;
      this.total += rows.length;
      this.most = Math.max(this.most, this.#rows);
      return rows;
    }

    #turn(): void {
      this.#rows = 0;
      if (!this.#ended) setImmediate(() => this.#turn());
    }

    [Symbol.dispose](): void {
      this.#ended = true;
    }
  }

  test("among many tags looks at few of them in one turn", async () => {
    using open = new TestEngine();
    const { engine, store } = open;
    for (let first = 0; first < TAGS; first += 10_000) {
      const batch = Array.from({ length: 10_000 }, (_, i) => ({ data: "1", tag: `tag-${first + i}` }));
      await append(engine, "t", batch);
    }
    using looked = new RowsPerTurn(store.disk.records);
    const removed = await engine.log.delete("t", { match: "tag-*", before_seq: 2 });
    await reclaimed(store);

    expect(removed).toMatchObject({ deleted: 1, count: TAGS - 1, earliest_seq: 2 });
    expect(looked.total).toBeGreaterThanOrEqual(TAGS);
    expect(looked.most).toBeLessThan(ROWS_PER_TURN_MAX);
  });
});
