/**
 * Random histories of queues over HTTP, with steps of the clock, restarts and crashes: one by one against the plain
 * model, and by several workers at a time against the laws that hold whatever the order.
 */
import { expect, setDefaultTimeout, test } from "bun:test";
import fc from "fast-check";
import { elements, members, payloads } from "../support/rawjson.ts";
import type { Reply } from "../support/request.ts";
import { Host, onFreshAfterFailure, PATIENCE_MS, runs } from "./host.ts";
import { broken, type Deed, type Grant, Witness } from "./queuelaws.ts";
import {
  type Claimed,
  comparable,
  comparableLike,
  type Pick as Fenced,
  type Job,
  letterOf,
  type ModelConfig,
  type ModelInput,
  ModelTopic,
  plainLog,
  tokenOf,
} from "./queuemodel.ts";

setDefaultTimeout(30_000);

type Which = "jobs" | "late";
type Target = "dead" | "other";
type Config = Omit<ModelConfig, "type" | "dead_letter"> & { readonly dead_letter: Target | null };

/** One entry of an ack, nack or extend, to be looked up when its turn comes. */
interface Choice {
  readonly of: "mine" | "any";
  readonly at: number;
  readonly token: "right" | "loud" | "stale" | "none";
}

type Step =
  | { do: "produce"; queue: Which; records: ModelInput[] }
  | { do: "claim"; queue: Which; node: string; max: number; lease_ms: number | undefined }
  | { do: "ack" | "nack" | "extend"; queue: Which; node: string; choices: Choice[]; ms: number }
  | { do: "delete"; queue: Which; before: number | undefined; tag: string | undefined }
  | { do: "configure" | "recreate"; queue: Which; config: Config }
  | { do: "turn"; queue: Which }
  | { do: "drop dead letters" }
  | { do: "clock"; ms: number }
  | { do: "restart" | "crash" };

const optional = <T>(value: fc.Arbitrary<T>) => fc.option(value, { nil: undefined });
const one = <T extends string>(value: T) => fc.constant(value);
const queue = fc.constantFrom<Which>("jobs", "jobs", "late");
const node = fc.constantFrom("n1", "n2");
const record = fc.record<ModelInput>({
  data: fc.constantFrom("1", "null", '{"k": [1.0, -0]}', '"é😀"', "[1,\n 2]"),
  tag: fc.constantFrom(undefined, "a", "b", "a*"),
  node: fc.constantFrom(undefined, "n1"),
  meta: fc.constantFrom(undefined, '{"k": 1.50}', "[1.0]", '"m"', '{"$dead_letter":1,"k":"v"}'),
});
const config = fc.record<Config>({
  durability: fc.constantFrom("disk", "disk", "fsync", "ephemeral"),
  ttl_ms: fc.constantFrom(0, 0, 0, 2000),
  cap_records: fc.constantFrom(0, 0, 0, 4),
  discard: fc.constantFrom("old", "reject"),
  lease_ms: fc.constantFrom(100, 300),
  max_deliveries: fc.constantFrom(0, 1, 2, 2),
  dead_letter: fc.constantFrom(null, "dead", "dead", "other"),
  leases_durable: fc.boolean(),
});
const choice = fc.record<Choice>({
  of: fc.constantFrom("mine", "mine", "mine", "mine", "any"),
  at: fc.nat(50),
  token: fc.constantFrom("right", "right", "right", "loud", "stale", "none"),
});
const settle = fc.record({
  do: fc.constantFrom("ack" as const, "nack" as const, "extend" as const),
  queue,
  node,
  choices: fc.array(choice, { maxLength: 4 }),
  ms: fc.constantFrom(0, 50, 100, 400, 5000),
});
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: one("produce"),
      queue,
      records: fc.array(record, { minLength: 1, maxLength: 4 }),
    }),
  },
  {
    weight: 8,
    arbitrary: fc.record({
      do: one("claim"),
      queue,
      node,
      max: fc.constantFrom(0, 1, 2, 3, 1000),
      lease_ms: fc.constantFrom(undefined, undefined, 1, 300),
    }),
  },
  { weight: 10, arbitrary: settle },
  {
    weight: 1,
    arbitrary: fc
      .record({
        do: one("delete"),
        queue,
        before: optional(fc.nat(12)),
        tag: fc.constantFrom(undefined, "a", "a*"),
      })
      .filter(({ before, tag }) => before !== undefined || tag !== undefined),
  },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constantFrom("configure" as const, "recreate" as const), queue, config }),
  },
  { weight: 2, arbitrary: fc.record({ do: one("turn"), queue }) },
  { weight: 1, arbitrary: fc.constant<Step>({ do: "drop dead letters" }) },
  // A lease holds at its deadline and is over 1 ms later; a delay is over when it is reached.
  {
    weight: 8,
    arbitrary: fc.record({ do: one("clock"), ms: fc.constantFrom(1, 49, 50, 100, 101, 301, 1000) }),
  },
  { weight: 2, arbitrary: fc.constantFrom<Step>({ do: "restart" }, { do: "crash" }) },
);

let histories = 0;

/** Three topics of one history: two queues, and a log for dead letters that comes and goes. */
class History {
  readonly #host: Host;
  readonly #prefix = `h${++histories}.`;
  readonly #topics = new Map<string, ModelTopic>();
  readonly #leaseIds: string[] = [];

  constructor(host: Host) {
    this.#host = host;
  }

  async run(configs: Record<Which, Config>, steps: readonly Step[]): Promise<void> {
    await this.#create("jobs", configs.jobs);
    await this.#create("late", configs.late);
    for (const step of steps) {
      await this.#take(step);
      await this.#compareStates();
    }
    for (const name of ["jobs", "late", "dead"]) await this.#compareRecords(this.#name(name));
    for (const queue of ["jobs", "late"] as const) await this.#drain(queue);
  }

  #name = (topic: string): string => this.#prefix + topic;
  #model = (queue: Which): ModelTopic => this.#topics.get(this.#name(queue))!;
  #post = (queue: Which, call: string, body: unknown): Promise<Reply> =>
    this.#host.send("POST", `/v0/topics/${this.#name(queue)}${call}`, body);

  #config(queue: Which, { dead_letter, ...rest }: Config): ModelConfig {
    const target = dead_letter === "other" ? (queue === "jobs" ? "late" : "jobs") : dead_letter;
    return { ...rest, type: "queue", dead_letter: target && this.#name(target) };
  }

  async #create(queue: Which, asked: Config): Promise<void> {
    const config = this.#config(queue, asked);
    const name = this.#name(queue);
    const { status, body } = await this.#host.send("PUT", `/v0/topics/${name}`, config);
    expect(status).toBe(201);
    this.#topics.set(name, new ModelTopic(name, config, body.epoch));
  }

  async #take(step: Step): Promise<void> {
    switch (step.do) {
      case "produce":
        return this.#produce(step.queue, step.records);
      case "claim":
        await this.#claim(step.queue, step);
        return;
      case "ack":
      case "nack":
      case "extend":
        return this.#settle(step);
      case "delete": {
        const { before, tag } = step;
        const match = tag === undefined ? null : ["tag", "Eq", tag];
        const { body } = await this.#post(step.queue, "/delete", { before_seq: before ?? null, match });
        expect(body.deleted).toBe(this.#model(step.queue).delete(before, tag, this.#host.now));
        return;
      }
      case "configure":
        return this.#configure(step.queue, this.#config(step.queue, step.config));
      case "turn": {
        const { config } = this.#model(step.queue);
        return this.#configure(step.queue, { ...config, leases_durable: !config.leases_durable });
      }
      case "recreate":
        await this.#host.send("DELETE", `/v0/topics/${this.#name(step.queue)}`);
        return this.#create(step.queue, step.config);
      case "drop dead letters":
        await this.#host.send("DELETE", `/v0/topics/${this.#name("dead")}`);
        this.#topics.delete(this.#name("dead"));
        return;
      case "clock":
        this.#host.now += step.ms;
        return;
      case "restart":
      case "crash":
        await this.#host[step.do]();
        for (const topic of this.#topics.values()) {
          const { body } = await this.#state(topic.name);
          topic.restart(step.do === "crash", body);
        }
        return;
    }
  }

  async #produce(queue: Which, inputs: readonly ModelInput[]): Promise<void> {
    const records = inputs.map(({ data, tag, node, meta }) => {
      const others = JSON.stringify({ tag, node }).slice(1, -1);
      return `{"data":${data}${meta === undefined ? "" : `,"meta":${meta}`}${others && `,${others}`}}`;
    });
    const { status, body } = await this.#post(queue, "", `{"records":[${records.join(",")}]}`);
    const code = this.#model(queue).produce(inputs, this.#host.now);
    expect(status === 200 ? undefined : body.error.code).toBe(code);
  }

  /** Compares a claim with the model's, and gives how many jobs it returned. */
  async #claim(
    queue: Which,
    asked: { node: string; max: number; lease_ms: number | undefined },
  ): Promise<number> {
    const { node, max, lease_ms } = asked;
    const model = this.#model(queue);
    const reply = await this.#post(queue, "/claim", { node, max, ...(lease_ms && { lease_ms }) });
    const { now } = this.#host;
    const expected = model.claim({ now, node, max, lease_ms }, (job) => this.#bury(job, model));
    const found = elements(members(reply.text).get("claimed")!).map(members);
    expect({ ...reply.body, claimed: undefined, performance: undefined }).toEqual({
      topic: model.name,
      count: expected.length,
      ready: model.counters(now).ready,
    });
    expect(found.map((entry, i) => claimedIn(entry, expected[i]))).toEqual(
      expected.map(({ meta, ...rest }) => ({ ...rest, meta: comparable(meta) })),
    );
    for (const entry of found) {
      const id = JSON.parse(entry.get("lease_id")!);
      expect(id).toMatch(/^lease_[0-9a-f]{1,16}$/);
      expect(this.#leaseIds).not.toContain(id);
      this.#leaseIds.push(id);
      model.note(Number(entry.get("$seq")), id);
    }
    return expected.length;
  }

  #bury(job: Job, from: ModelTopic): void {
    const name = from.config.dead_letter!;
    const target = this.#topics.get(name) ?? new ModelTopic(name, plainLog, 0);
    this.#topics.set(name, target);
    target.append([letterOf(job, from)], this.#host.now);
  }

  async #settle({ do: call, queue, node, choices, ms }: Extract<Step, { choices: unknown }>): Promise<void> {
    const model = this.#model(queue);
    const picks = choices
      .map((choice) => this.#pick(model, node, choice))
      .filter(({ seq }) => !model.job(seq)?.unsure);
    const fenced = picks.some(({ token }) => token !== undefined);
    const body = {
      node,
      seqs: picks.map(({ seq }) => seq),
      ...(fenced && { lease_ids: picks.map(({ id }) => id) }),
      ...(call === "nack" && { delay_ms: ms }),
      ...(call === "extend" && { lease_ms: ms }),
    };
    const reply = await this.#post(queue, `/${call}`, body);
    const { now } = this.#host;
    const expected = call === "ack" ? model.ack(node, picks, now) : model[call](node, picks, ms, now);
    const { performance: _, ...answer } = reply.body;
    expect({ body, answer }).toEqual({ body, answer: { topic: model.name, ...expected } });
  }

  #pick(model: ModelTopic, node: string, { of, at, token }: Choice): Fenced & { readonly id: string } {
    const mine = model.jobs.filter(({ lease }) => of === "mine" && lease?.node === node);
    const seq = mine.length > 0 ? mine[at % mine.length]!.seq : at % (model.head + 2);
    const current = model.job(seq)?.lease?.id ?? "lease_1";
    const digits = current.slice("lease_".length).toUpperCase().padStart(16, "0");
    const stale = this.#leaseIds[at % Math.max(this.#leaseIds.length, 1)] ?? "lease_0";
    const id = { right: current, loud: `lease_${digits}`, stale, none: "" }[token];
    return { seq, token: id === "" ? undefined : tokenOf(id), id };
  }

  async #configure(queue: Which, asked: ModelConfig): Promise<void> {
    const model = this.#model(queue);
    const config = { ...asked, durability: model.config.durability };
    const { status } = await this.#host.send("PUT", `/v0/topics/${model.name}`, config);
    expect(status).toBe(200);
    model.configure(config, this.#host.now);
  }

  #state = (name: string): Promise<Reply> => this.#host.send("GET", `/v0/topics/${name}?touch=false`);

  async #compareStates(): Promise<void> {
    for (const name of ["jobs", "late", "dead"].map(this.#name)) {
      const { status, body } = await this.#state(name);
      const model = this.#topics.get(name);
      expect(status).toBe(model ? 200 : 404);
      if (model === undefined) continue;
      if (model.epoch === 0) model.epoch = body.epoch;
      expect({ name, ...body }).toMatchObject({ name, ...model.state(this.#host.now) });
      expect(model.bytes ?? body.bytes).toBe(body.bytes);
    }
  }

  /** All that a reader gets; what is leased is among it. */
  async #compareRecords(name: string): Promise<void> {
    const model = this.#topics.get(name);
    if (model === undefined) return;
    const request = { from_seq: 0, limit: 1000, include_tags: true };
    const reply = await this.#host.send("POST", `/v0/topics/${name}/diff`, request);
    const [data, metas] = [payloads(reply, "data"), payloads(reply, "meta")];
    const { live } = model;
    const found = reply.body.records.map((record: Record<string, unknown>, i: number) => ({
      seq: record.$seq,
      ts: record.$ts,
      tag: record.$tag,
      node: record.$node,
      data: data[i],
      meta: comparableLike(live[i]?.meta, metas[i]),
    }));
    expect(found).toEqual(
      live.map(({ seq, ts, tag, node, data, meta }) => ({
        seq,
        ts,
        tag,
        node,
        data,
        meta: comparable(meta),
      })),
    );
  }

  /** Every job counted as ready is claimable, or moved to the dead letters by the same call. */
  async #drain(queue: Which): Promise<void> {
    const { name } = this.#model(queue);
    const before = (await this.#state(name)).body.queue;
    const claimed = await this.#claim(queue, { node: "n1", max: 1000, lease_ms: undefined });
    const after = (await this.#state(name)).body.queue;
    const moved = after.dead_lettered - before.dead_lettered;
    expect({ handed: claimed + moved, ready: after.ready }).toEqual({ handed: before.ready, ready: 0 });
  }
}

/** An entry of `claimed`, its payloads as text. A member that has no place there comes along. */
function claimedIn(entry: Map<string, string>, expected: Claimed | undefined) {
  const { $seq, $ts, $tag, data, meta, lease_id, ...rest } = Object.fromEntries(entry);
  const others = Object.fromEntries(Object.entries(rest).map(([key, text]) => [key, JSON.parse(text)]));
  const tag = $tag === undefined ? undefined : JSON.parse($tag);
  return {
    ...others,
    seq: Number($seq),
    ts: Number($ts),
    tag,
    data,
    meta: comparableLike(expected?.meta, meta),
  };
}

test(
  "any history of queues goes as the plain model says",
  async () => {
    await using host = await Host.open();
    const steps = fc.array(step, { minLength: 10, maxLength: 60, size: "max" });
    await fc.assert(
      fc.asyncProperty(fc.record({ jobs: config, late: config }), steps, (configs, steps) =>
        onFreshAfterFailure(host, () => new History(host).run(configs, steps)),
      ),
      runs(40),
    );
  },
  PATIENCE_MS,
);

type Request =
  | { do: "produce"; jobs: number }
  | { do: "claim"; node: string; max: number; lease_ms: number }
  | { do: "ack" | "nack"; node: string; share: number }
  | { do: "erase"; tag: string };

/** Requests at the same time, and what comes behind them or, for a crash, into them. */
interface Round {
  readonly requests: Request[];
  readonly next: "nothing" | "clock" | "sweep" | "restart" | "crash" | "crash within";
  readonly ms: number;
  /** So many of the requests are answered before the crash. */
  readonly answered: number;
}

type SharedConfig = Pick<ModelConfig, "durability" | "max_deliveries" | "leases_durable">;

const TAGS = ["red", "green", "blue"];
const workers = fc.constantFrom("w1", "w2", "w3");
const request: fc.Arbitrary<Request> = fc.oneof(
  { weight: 3, arbitrary: fc.record({ do: one("produce"), jobs: fc.integer({ min: 1, max: 5 }) }) },
  {
    weight: 6,
    arbitrary: fc.record({
      do: one("claim"),
      node: workers,
      max: fc.constantFrom(1, 2, 5),
      lease_ms: fc.constantFrom(100, 500),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constantFrom("ack" as const, "nack" as const),
      node: workers,
      share: fc.integer({ min: 1, max: 3 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: one("erase"), tag: fc.constantFrom(...TAGS) }) },
);
const round = fc.record<Round>({
  requests: fc.array(request, { minLength: 1, maxLength: 8, size: "max" }),
  next: fc.constantFrom(
    "nothing",
    "clock",
    "nothing",
    "clock",
    "nothing",
    "sweep",
    "restart",
    "crash",
    "crash within",
  ),
  ms: fc.constantFrom(50, 101, 600),
  answered: fc.nat(8),
});

/** Several workers on one queue that only know their own leases. */
class Crowd {
  readonly #host: Host;
  readonly #config: SharedConfig;
  readonly #name = `h${++histories}.crowd`;
  readonly #witness = new Witness();
  #produced = 0;

  constructor(host: Host, config: SharedConfig) {
    this.#host = host;
    this.#config = config;
  }

  get #letters(): string {
    return `${this.#name}.dead`;
  }

  async run(rounds: readonly Round[]): Promise<void> {
    const config = { ...this.#config, type: "queue", dead_letter: this.#letters };
    await this.#host.send("PUT", `/v0/topics/${this.#name}`, config);
    await this.#host.send("PUT", `/v0/topics/${this.#letters}`, { durability: config.durability });
    for (const round of rounds) await this.#round(round);
    await this.#finish();
  }

  async #round({ requests, next, ms, answered }: Round): Promise<void> {
    const { now } = this.#host;
    const deeds = requests.map((request) => this.#send(request));
    if (next === "crash within") {
      await Promise.all(deeds.slice(0, answered));
      await this.#host.crash();
    }
    this.#witness.saw(await Promise.all(deeds), now);
    if (next === "restart" || next === "crash") await this.#host[next]();
    if (next === "clock") this.#host.now += ms;
    if (next === "sweep") await this.#sweep();
    if (/restart|crash/.test(next)) this.#witness.restarted(this.#config.leases_durable);
  }

  #attempt = (call: string, body: unknown): Promise<Reply | undefined> =>
    this.#host.attempt("POST", `/v0/topics/${this.#name}${call}`, body);

  /** What is asked for is decided before anything is sent. */
  #send(request: Request): Promise<Deed> {
    switch (request.do) {
      case "produce":
        return this.#produce(request.jobs);
      case "claim":
        return this.#claim(request.node, request.max, request.lease_ms);
      case "ack":
      case "nack": {
        const held = this.#witness.heldBy(request.node).filter(({ job }) => job % request.share === 0);
        return this.#settle(request.do, request.node, held);
      }
      case "erase":
        return this.#erase(request.tag);
    }
  }

  async #produce(jobs: number): Promise<Deed> {
    const numbers = Array.from({ length: jobs }, () => ++this.#produced);
    const tags = new Map(numbers.map((number) => [number, TAGS[number % TAGS.length]!]));
    const records = numbers.map((number) => ({ data: number, tag: tags.get(number) }));
    const reply = await this.#attempt("", { records });
    return { call: "produce", tags, answered: reply !== undefined };
  }

  async #claim(node: string, max: number, lease_ms: number): Promise<Extract<Deed, { call: "claim" }>> {
    const reply = await this.#attempt("/claim", { node, max, lease_ms });
    const grants = (reply?.body.claimed ?? []).map(
      (entry: Record<string, number> & { lease_id: string }): Grant => ({
        job: entry.data!,
        seq: entry.$seq!,
        id: entry.lease_id,
        node,
        deadline: entry.deadline!,
        deliveries: entry.deliveries!,
      }),
    );
    return { call: "claim", grants, answered: reply !== undefined };
  }

  async #settle(call: "ack" | "nack", node: string, asked: readonly Grant[]): Promise<Deed> {
    const [seqs, lease_ids] = [asked.map(({ seq }) => seq), asked.map(({ id }) => id)];
    const reply = await this.#attempt(`/${call}`, { node, seqs, lease_ids });
    return { call, asked, skipped: reply?.body.skipped ?? [], answered: reply !== undefined };
  }

  async #erase(tag: string): Promise<Deed> {
    const reply = await this.#attempt("/delete", { match: ["tag", "Eq", tag] });
    return { call: "erase", tag, answered: reply !== undefined };
  }

  async #counters(): Promise<{ ready: number; in_flight: number; dead_lettered: number }> {
    return (await this.#host.send("GET", `/v0/topics/${this.#name}`)).body.queue;
  }

  /** Takes all that is ready, and gives it back. */
  async #sweep(): Promise<void> {
    const { now } = this.#host;
    const before = await this.#counters();
    const claim = await this.#claim("sweeper", 1000, 100);
    this.#witness.saw([claim], now);
    const after = await this.#counters();
    const handed = claim.grants.length + after.dead_lettered - before.dead_lettered;
    if (handed !== before.ready || after.ready !== 0) {
      broken(
        "ready",
        `${handed} were handed out of ${JSON.stringify(before)}, left ${JSON.stringify(after)}`,
      );
    }
    this.#witness.saw([await this.#settle("nack", "sweeper", claim.grants)], now);
  }

  /** Lets all leases end, does what is left, and counts. */
  async #finish(): Promise<void> {
    this.#host.now += 1_000_000;
    const { now } = this.#host;
    for (let left = true; left; ) {
      const claim = await this.#claim("last", 1000, 100_000);
      this.#witness.saw([claim], now);
      this.#witness.saw([await this.#settle("ack", "last", claim.grants)], now);
      left = claim.grants.length > 0;
    }
    const { body: letters } = await this.#host.send("POST", `/v0/topics/${this.#letters}/diff`, {
      limit: 1000,
    });
    const buried: number[] = letters.records.map(({ data }: { data: number }) => data);
    const counters = { ready: 0, in_flight: 0, dead_lettered: buried.length };
    expect(await this.#counters()).toEqual(counters);
    this.#witness.finished(buried);
  }
}

test(
  "the laws of a queue hold for workers that race each other, through restarts and crashes",
  async () => {
    await using host = await Host.open();
    const config = fc.record<SharedConfig>({
      durability: fc.constantFrom("disk", "fsync"),
      max_deliveries: fc.constantFrom(0, 2, 3),
      leases_durable: fc.boolean(),
    });
    const rounds = fc.array(round, { minLength: 5, maxLength: 20, size: "max" });
    await fc.assert(
      fc.asyncProperty(config, rounds, (config, rounds) =>
        onFreshAfterFailure(host, () => new Crowd(host, config).run(rounds)),
      ),
      runs(20),
    );
  },
  PATIENCE_MS,
);
