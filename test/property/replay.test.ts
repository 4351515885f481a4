/** The engine is a deterministic state machine: the same commands on an empty store give the same state. */
import { expect, setDefaultTimeout, test } from "bun:test";
import fc from "fast-check";
import { ApiError } from "../../src/contract/errors.ts";
import type { RouterSettings } from "../../src/contract/routers.ts";
import type { TopicConfigInput } from "../../src/contract/topics.ts";
import { Catalog } from "../../src/engine/catalog.ts";
import type { Command } from "../../src/engine/commands.ts";
import { Commits } from "../../src/engine/commit.ts";
import { Reclaimer } from "../../src/engine/reclaim.ts";
import { RouterSet } from "../../src/engine/routerset.ts";
import type { Topic } from "../../src/engine/topic.ts";
import { Store } from "../../src/store/store.ts";
import type { Trim } from "../../src/store/trims.ts";

setDefaultTimeout(30_000);

/** Topics and what they are, whenever they are created. */
const TYPES = { a: "log", b: "queue", c: "queue" } as const;
const NAMES = Object.keys(TYPES) as (keyof typeof TYPES)[];
const ROUTERS = ["r1", "r2", "r3"];
const limits = { topicsMax: 0, routersMax: 0, totalBytesMax: 4000 };

/** A state machine on a store in memory, without clock, HTTP or anything else that could differ. */
class Machine implements Disposable {
  readonly #store = new Store();
  readonly #catalog = new Catalog(this.#store);
  readonly #routers = new RouterSet([]);
  readonly #commits: Commits;
  readonly #reclaimer: Reclaimer;

  constructor(reclaims: boolean) {
    this.#commits = new Commits(this.#store, this.#catalog, this.#routers, limits, {
      closing: (group) => reclaims && this.#reclaimer.closing(group),
      committed: (group) => reclaims && this.#reclaimer.committed(group),
      undone: () => {},
      failed: (error) => {
        throw error;
      },
    });
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

  /** Everything a reader, a worker or a router could ever see. */
  state(): unknown {
    const topics = NAMES.map((name) => {
      const topic = this.#catalog.find(name);
      if (topic === undefined) return undefined;
      const { reclaimed: _, ...log } = topic.log;
      const rows = topic.shelf.records.range(topic.slot, log.earliest - 1, log.head, 1_000_000);
      const records = rows.filter((row) => !topic.isDeleted(row.seq, row.tag));
      const holes = holesOf(topic);
      return { epoch: topic.epoch, config: topic.config, log, records, holes, queue: queueOf(topic) };
    });
    return { topics, routers: [...this.#routers.all()] };
  }

  get bytes(): number {
    return this.#catalog.census.bytes;
  }

  [Symbol.dispose](): void {
    this.#reclaimer[Symbol.dispose]();
    this.#store[Symbol.dispose]();
  }
}

/** What is known of the jobs of a queue, also of those that were deleted under their lease. */
/** Holes that readers are told of. */
function holesOf(topic: Topic): Trim[] {
  const holes: Trim[] = [];
  for (let hole = topic.trimBehind(topic.evictFloor); hole; hole = topic.trimBehind(hole.to))
    holes.push(hole);
  return holes;
}

function queueOf({ jobs, ready, log }: Topic): unknown {
  if (jobs === undefined) return undefined;
  const { inFlight, delayed, leasedUpTo, deadLettered } = jobs;
  const known = Array.from({ length: log.head }, (_, i) => jobs.get(i + 1));
  return { ready, inFlight, delayed, leasedUpTo, deadLettered, known };
}

const name = fc.constantFrom(...NAMES);
const now = fc.oneof(fc.constantFrom(1000, 1001, 1100), fc.integer({ min: 1000, max: 3000 }));
const config = fc.record(
  {
    ttl_ms: fc.constantFrom(0, 0, 0, 300),
    cap_records: fc.constantFrom(0, 0, 0, 5),
    cap_bytes: fc.constantFrom(0, 0, 0, 40),
    discard: fc.constantFrom<("old" | "reject")[]>("old", "reject"),
    durability: fc.constantFrom<("disk" | "fsync" | "ephemeral")[]>("disk", "fsync", "ephemeral"),
    max_deliveries: fc.constantFrom(0, 1, 1, 2),
    dead_letter: fc.constantFrom(null, "a", "a", "a", "c"),
    leases_durable: fc.boolean(),
  },
  { requiredKeys: [] },
);
const record = fc
  .record({ data: fc.constantFrom("1", '"xyz"', "{}"), tag: fc.constantFrom('"p"', '"pq"', null) })
  .map(({ data, tag }) => ({ data, tag, node: null, meta: null, bytes: data.length }));
const range = fc.constantFrom({ text: '"p"', isPrefix: false }, { text: '"p', isPrefix: true });

/** Leases get ids from here, so that others can name them. */
const RANDOM = ["1", "a", "1f"].map((digits) => digits.padStart(16, "0")).join("");
const node = fc.constantFrom("n1", "n1", "n2");
const claimant = fc.record({
  node,
  max: fc.integer({ min: 1, max: 3 }),
  leaseMs: fc.constantFrom(null, null, 100, 700),
  stream: fc.constantFrom(null, null, 1, 2),
  random: fc.constant(RANDOM),
});
const queue = fc.constantFrom("b", "b", "c", "a");
const held = {
  topic: queue,
  node,
  held: fc.array(fc.record({ seq: fc.nat(5), lease: fc.constantFrom(null, null, null, "1", "a", "1f") }), {
    maxLength: 6,
    size: "max",
  }),
  now,
};
const settings = fc.record({
  source: name,
  dest: name,
  preserve_node: fc.boolean(),
  preserve_tag: fc.boolean(),
  filter: fc.constantFrom(null, ["tag", "Eq", "p"] as const, ["tag", "Glob", "p*"] as const),
  allow_cycle: fc.boolean(),
  guarantee: fc.constantFrom("at_least_once" as const, "exactly_once" as const),
}) as fc.Arbitrary<RouterSettings>;
const router = fc.constantFrom(...ROUTERS);

const queueCommand: fc.Arbitrary<Command> = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant("claim" as const),
      topic: queue,
      claimants: fc.array(claimant, { minLength: 1, maxLength: 3 }),
      evenly: fc.boolean(),
      now,
    }),
  },
  fc.record({ kind: fc.constant("ack" as const), ...held }),
  fc.record({ kind: fc.constant("nack" as const), ...held, delayMs: fc.constantFrom(0, 0, 300) }),
  fc.record({ kind: fc.constant("extend" as const), ...held, leaseMs: fc.constantFrom(100, 900) }),
  fc.record({ kind: fc.constant("release" as const), topic: name, stream: fc.constantFrom(1, 2), now }),
);

const routerCommand: fc.Arbitrary<Command> = fc.oneof(
  fc.record({ kind: fc.constant("put_router" as const), router, settings, createDest: fc.boolean() }),
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant("forward" as const),
      router,
      epoch: fc.constant(null),
      upTo: fc.nat(40),
      now,
    }),
  },
  fc.record({ kind: fc.constant("delete_router" as const), router }),
);

const typed = (topic: keyof typeof TYPES, config: TopicConfigInput) => ({ ...config, type: TYPES[topic] });
const putTopic: fc.Arbitrary<Command> = fc
  .record({ kind: fc.constant("put_topic" as const), topic: name, config, now })
  .map((command) => ({ ...command, config: typed(command.topic, command.config) }));

const command: fc.Arbitrary<Command> = fc.oneof(
  { weight: 16, arbitrary: queueCommand },
  { weight: 4, arbitrary: routerCommand },
  putTopic,
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
    weight: 8,
    arbitrary: fc
      .record({
        kind: fc.constant("append" as const),
        topic: name,
        records: fc.array(record, { minLength: 1, maxLength: 6 }),
        key: fc.constantFrom(null, null, "k1", "k2"),
        create: fc.boolean(),
        now,
      })
      .map((command) => ({ ...command, config: typed(command.topic, {}) })),
  },
);

/** Groups of commands, on topics that are there and one router. */
const groups = fc
  .tuple(
    fc.tuple(...NAMES.map((topic) => config.map((config) => typed(topic, config)))),
    settings,
    fc.array(fc.array(command, { maxLength: 6, size: "max" }), { maxLength: 25, size: "max" }),
  )
  .map(([configs, settings, groups]): readonly (readonly Command[])[] => [
    configs.map((config, i) => ({ kind: "put_topic", topic: NAMES[i]!, config, now: 1000 })),
    [{ kind: "put_router", router: "r1", settings, createDest: true }],
    ...groups,
  ]);

test("the same commands give the same outcomes and the same state, whatever is reclaimed meanwhile", async () => {
  await fc.assert(
    fc.asyncProperty(groups, async (groups) => {
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
