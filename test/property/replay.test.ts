/** The engine is a deterministic state machine: the same commands on an empty store give the same state. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { ApiError } from "../../src/contract/errors.ts";
import { Catalog } from "../../src/engine/catalog.ts";
import type { Command } from "../../src/engine/commands.ts";
import { Commits } from "../../src/engine/commit.ts";
import { Reclaimer } from "../../src/engine/reclaim.ts";
import { Store } from "../../src/store/store.ts";

const NAMES = ["a", "b", "c"];

/** A state machine on a store in memory, without clock, HTTP or anything else that could differ. */
class Machine implements Disposable {
  readonly #store = new Store();
  readonly #catalog = new Catalog(this.#store);
  readonly #commits: Commits;
  readonly #reclaimer: Reclaimer;

  constructor(reclaims: boolean) {
    this.#commits = new Commits(
      this.#store,
      this.#catalog,
      { topicsMax: 0, totalBytesMax: 4000 },
      {
        closing: (group) => reclaims && this.#reclaimer.closing(group),
        committed: (group) => reclaims && this.#reclaimer.committed(group),
        failed: (error) => {
          throw error;
        },
      },
    );
    this.#reclaimer = new Reclaimer(this.#store, this.#catalog, this.#commits);
  }

  /** Commands of one group are in flight together and share a transaction. */
  async run(groups: readonly (readonly Command[])[]): Promise<unknown[]> {
    const outcomes: unknown[] = [];
    for (const group of groups) {
      outcomes.push(...(await Promise.all(group.map((command) => this.#outcome(command)))));
    }
    return outcomes;
  }

  async #outcome(command: Command): Promise<unknown> {
    try {
      return (await this.#commits.submit(command)).outcome;
    } catch (error) {
      if (error instanceof ApiError && error.code !== "internal") return error.code;
      throw error;
    }
  }

  /** Everything a reader could ever see. */
  state(): unknown {
    return NAMES.map((name) => {
      const topic = this.#catalog.find(name);
      if (topic === undefined) return undefined;
      const { reclaimed: _, ...log } = topic.log;
      const rows = topic.shelf.records.range(topic.slot, log.earliest - 1, log.head, 1_000_000);
      const records = rows.filter((row) => !topic.isDeleted(row.seq, row.tag));
      return { epoch: topic.epoch, config: topic.config, log, records };
    });
  }

  get bytes(): number {
    return this.#catalog.census.bytes;
  }

  [Symbol.dispose](): void {
    this.#reclaimer[Symbol.dispose]();
    this.#store[Symbol.dispose]();
  }
}

const name = fc.constantFrom(...NAMES);
const now = fc.integer({ min: 1000, max: 3000 });
const config = fc.record(
  {
    ttl_ms: fc.constantFrom(0, 300),
    cap_records: fc.constantFrom(0, 5),
    cap_bytes: fc.constantFrom(0, 40),
    discard: fc.constantFrom<("old" | "reject")[]>("old", "reject"),
    durability: fc.constantFrom<("disk" | "fsync" | "ephemeral")[]>("disk", "fsync", "ephemeral"),
  },
  { requiredKeys: [] },
);
const record = fc
  .record({ data: fc.constantFrom("1", '"xyz"', "{}"), tag: fc.constantFrom('"p"', '"pq"', null) })
  .map(({ data, tag }) => ({ data, tag, node: null, meta: null, bytes: data.length }));
const range = fc.constantFrom({ text: '"p"', isPrefix: false }, { text: '"p', isPrefix: true });

const command: fc.Arbitrary<Command> = fc.oneof(
  fc.record({ kind: fc.constant("put_topic" as const), topic: name, config, now }),
  fc.record({ kind: fc.constant("delete_topic" as const), topic: name, ifEmpty: fc.boolean(), now }),
  fc.record({ kind: fc.constant("delete_before" as const), topic: name, before: fc.nat(30), now }),
  fc.record({
    kind: fc.constant("delete_tagged" as const),
    topic: name,
    epoch: fc.integer({ min: 1, max: 6 }),
    range,
    upTo: fc.nat(40),
    now,
  }),
  fc.record({ kind: fc.constant("sweep" as const), topic: name, now }),
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant("append" as const),
      topic: name,
      records: fc.array(record, { minLength: 1, maxLength: 6 }),
      key: fc.constantFrom(null, null, "k1", "k2"),
      create: fc.boolean(),
      config: fc.constant({}),
      now,
    }),
  },
);

test("the same commands give the same outcomes and the same state, whatever is reclaimed meanwhile", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.array(command, { maxLength: 5 }), { maxLength: 20 }), async (groups) => {
      using first = new Machine(true);
      using second = new Machine(false);
      const outcomes = await first.run(groups);
      expect(await second.run(groups)).toEqual(outcomes);
      expect(second.state()).toEqual(first.state());
      expect(second.bytes).toBe(first.bytes);
    }),
    { numRuns: Number(process.env.TEST_RUNS ?? 200) },
  );
}, 60_000);
