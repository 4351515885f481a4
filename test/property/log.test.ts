/** Random histories of one topic, with restarts and steps of the clock, against the plain model. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import fc from "fast-check";
import { ApiError } from "../../src/contract/errors.ts";
import { type Clock, OpenEngine } from "../support/engine.ts";
import { temporaryDirectory } from "../support/spawn.ts";
import { type ModelConfig, type ModelInput, ModelTopic } from "./model.ts";

setDefaultTimeout(30_000);

const START = 1_700_000_000_000;
const TOPIC = "t";

type Step =
  | { do: "append"; records: ModelInput[]; times: number }
  | { do: "delete"; before: number | undefined; match: string | undefined }
  | { do: "configure"; config: ModelConfig }
  | { do: "clock"; ms: number }
  | { do: "restart" }
  | { do: "read"; from: number; limit: number; bytes: number; withoutNode: string | undefined };

const tag = fc.constantFrom("a", "ab", "b", "", "é😀", "a*", '"');
const record = fc.record({
  data: fc.constantFrom("1", '"é"', '{"k": [1.0, -0]}', `"${"x".repeat(300)}"`, "null"),
  tag: fc.option(tag, { nil: undefined }),
  node: fc.constantFrom(undefined, "n1", "n2"),
});
const optional = <T>(value: fc.Arbitrary<T>) => fc.option(value, { nil: undefined });
const config = fc.record<ModelConfig>({
  ttl_ms: fc.constantFrom(0, 0, 50, 500),
  cap_records: fc.constantFrom(0, 0, 3, 40, 900),
  cap_bytes: fc.constantFrom(0, 0, 10, 2000, 100_000),
  discard: fc.constantFrom("old", "old", "old", "reject"),
});
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant("append" as const),
      records: fc.array(record, { minLength: 1, maxLength: 12 }),
      times: fc.constantFrom(1, 1, 1, 30, 200),
    }),
  },
  {
    weight: 3,
    arbitrary: fc
      .record({
        do: fc.constant("delete" as const),
        before: optional(fc.nat(3000)),
        match: fc.constantFrom(undefined, "a", "a*", "*", "b", "é*", ""),
      })
      .filter(({ before, match }) => before !== undefined || match !== undefined),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("configure" as const), config }) },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constant("clock" as const), ms: fc.constantFrom(-200, 10, 60, 600) }),
  },
  { weight: 1, arbitrary: fc.constant({ do: "restart" as const }) },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant("read" as const),
      from: fc.nat(4000),
      limit: fc.constantFrom(1, 7, 256, 1000),
      bytes: fc.constantFrom(1, 5000, 8_388_608),
      withoutNode: fc.constantFrom(undefined, "n1"),
    }),
  },
);

class History implements Disposable {
  readonly #dir: string;
  readonly #clock: Clock = { now: START };
  readonly #model: ModelTopic;
  #open: OpenEngine;

  constructor(dir: string, config: ModelConfig) {
    this.#dir = dir;
    this.#model = new ModelTopic(config);
    this.#open = new OpenEngine(dir, this.#clock);
  }

  async run(steps: readonly Step[]): Promise<void> {
    await this.#open.engine.topics.put(TOPIC, this.#model.config);
    for (const step of steps) {
      await this.#take(step);
      await this.#compareState();
    }
    await this.#read({ do: "read", from: 0, limit: 1000, bytes: 8_388_608, withoutNode: undefined });
  }

  async #take(step: Step): Promise<void> {
    const model = this.#model;
    const { engine } = this.#open;
    const { now } = this.#clock;
    switch (step.do) {
      case "append": {
        const inputs = Array.from({ length: step.times }, () => step.records).flat();
        const records = inputs.map(({ data, tag, node }) => ({ data, tag: tag ?? null, node: node ?? null }));
        const code = await codeOf(engine.log.append(TOPIC, { records }, null, false));
        expect(code).toBe(model.append(inputs, now));
        return;
      }
      case "delete": {
        const { before, match } = step;
        const done = await engine.log.delete(TOPIC, { before_seq: before ?? null, match: match ?? null });
        expect(done.deleted).toBe(
          model.delete(before, match === undefined ? undefined : matcher(match), now),
        );
        return;
      }
      case "configure":
        await engine.topics.put(TOPIC, step.config);
        model.configure(step.config, now);
        return;
      case "clock":
        this.#clock.now += step.ms;
        return;
      case "restart":
        this.#open[Symbol.dispose]();
        this.#open = new OpenEngine(this.#dir, this.#clock);
        return;
      case "read":
        return this.#read(step);
    }
  }

  async #compareState(): Promise<void> {
    this.#model.expire(this.#clock.now);
    const { head_seq, earliest_seq, count, bytes } = await this.#open.engine.topics.state(TOPIC, false);
    expect({ head_seq, earliest_seq, count, bytes }).toEqual(this.#model.state);
  }

  async #read({ from, limit, bytes, withoutNode }: Extract<Step, { do: "read" }>): Promise<void> {
    const model = this.#model;
    model.expire(this.#clock.now);
    const read: unknown[] = [];
    let next = from;
    for (let first = true; ; first = false) {
      const request = {
        from_seq: next,
        limit,
        max_batch_bytes: bytes,
        include_tags: true,
        ...(withoutNode ? { node: withoutNode } : {}),
      };
      const { records, page } = await this.#open.engine.log.diff(
        TOPIC,
        request,
        () => new AbortController().signal,
      );
      expect(page.tombstone).toEqual(first ? model.tombstone(from) : null);
      read.push(...parseRecords(records));
      expect(page.next_from_seq).toBeGreaterThanOrEqual(first ? 0 : next);
      next = page.next_from_seq;
      if (page.caught_up) break;
    }
    expect(read).toEqual(model.after(from, withoutNode));
  }

  [Symbol.dispose](): void {
    this.#open[Symbol.dispose]();
  }
}

/** The text of `data` is found by its place, not parsed: it must be the one that was sent. */
function parseRecords(records: string): unknown[] {
  const parsed = JSON.parse(`[${records}]`, (key, value, context?: { source?: string }) =>
    key === "" || typeof value !== "number" ? value : { source: context?.source },
  ) as Record<string, { source: string }>[];
  const texts = records === "" ? [] : records.split('{"$seq":').slice(1);
  return parsed.map((record, i) => ({
    seq: Number(record.$seq?.source),
    ts: Number(record.$ts?.source),
    data: /"data":(.*)\},?$/s.exec(texts[i]!)![1],
    tag: record.$tag,
  }));
}

function matcher(match: string): (tag: string) => boolean {
  return match.endsWith("*") ? (tag) => tag.startsWith(match.slice(0, -1)) : (tag) => tag === match;
}

async function codeOf(promise: Promise<unknown>): Promise<string | undefined> {
  try {
    await promise;
    return undefined;
  } catch (error) {
    if (error instanceof ApiError) return error.code;
    throw error;
  }
}

test("any history of a topic reads as the plain model says", async () => {
  await fc.assert(
    fc.asyncProperty(config, fc.array(step, { minLength: 5, maxLength: 40 }), async (config, steps) => {
      await using dir = await temporaryDirectory();
      using history = new History(join(dir.path, "data"), config);
      await history.run(steps);
    }),
    { numRuns: Number(process.env.TEST_RUNS ?? 60) },
  );
}, 120_000);
