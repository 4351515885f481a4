/**
 * Random graphs of topics and routers over HTTP: one change at a time against the plain model, and many writers at a
 * time, with kills in the middle, against what the stamps of the copies tell.
 */
import { expect, setDefaultTimeout, test } from "bun:test";
import fc from "fast-check";
import { payloads } from "../support/rawjson.ts";
import { routerPath } from "../support/router.ts";
import { until } from "../support/topics.ts";
import { Host, onFreshAfterFailure, PATIENCE_MS, runs } from "./host.ts";
import {
  type Edge,
  type Filter,
  HOPS_MAX,
  type Input,
  type Json,
  ModelGraph,
  type ModelTopic,
  passes,
  plainTopic,
  type RouterSettings,
  reaches,
  type TopicSettings,
} from "./routermodel.ts";

setDefaultTimeout(30_000);

const QUIET_MS = 5000;

const NAMES = ["a", "b", "c", "d", "e"];
const one = <T extends string>(value: T) => fc.constant(value);
const name = fc.constantFrom(...NAMES);
const routerName = fc.constantFrom("a->b", "r1", "r2", "r3", "r4", "r5");
const filter = fc.constantFrom<Filter>(null, null, null, "x*", "x", "*", ["tag", "Eq", "x*"]);
const record = fc.record<Input>({
  data: fc.constantFrom("1", '{"k": [1.0, -0]}', '"é"', "null"),
  tag: fc.constantFrom(undefined, "x", "xy", "x*", "z"),
  node: fc.constantFrom(undefined, "n1"),
  meta: fc.constantFrom<Json | undefined>(undefined, { k: "v" }, "m", [1], { _topics_router: 1 }),
});
const topicSettings = fc.record<TopicSettings>({
  type: one("log"),
  durability: fc.constantFrom("disk", "fsync"),
  cap_records: fc.constantFrom(0, 0, 2, 5),
  discard: fc.constantFrom("old", "reject", "reject"),
});
const routerSettings: fc.Arbitrary<RouterSettings> = fc
  .record({
    source: name,
    dest: name,
    filter,
    preserve_node: fc.boolean(),
    preserve_tag: fc.constantFrom(true, true, false),
    guarantee: fc.constantFrom("at_least_once", "exactly_once", "exactly_once"),
    allow_cycle: fc.constantFrom(true, true, false),
  })
  .filter(({ source, dest }) => source !== dest);

type Step =
  | { do: "write"; topic: string; records: Input[]; crash: boolean }
  | { do: "delete records"; topic: string; before: number | undefined; tag: string | undefined }
  | { do: "put topic"; topic: string; settings: TopicSettings }
  | { do: "delete topic"; topic: string }
  | { do: "put router"; router: string; settings: RouterSettings; keepsEnds: boolean }
  | { do: "delete router"; router: string }
  | { do: "clock" | "restart" | "crash" };

const write = fc.record({
  do: one("write"),
  topic: name,
  records: fc.array(record, { minLength: 1, maxLength: 6, size: "max" }),
  crash: fc.integer({ min: 0, max: 9 }).map((n) => n === 9),
});
const erase = fc
  .record({
    do: one("delete records"),
    topic: name,
    before: fc.option(fc.nat(20), { nil: undefined }),
    tag: fc.constantFrom(undefined, "x"),
  })
  .filter(({ before, tag }) => before !== undefined || tag !== undefined);
const putRouter = fc.record({
  do: one("put router"),
  router: routerName,
  settings: routerSettings,
  keepsEnds: fc.boolean(),
});
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 30, arbitrary: write },
  { weight: 8, arbitrary: erase },
  { weight: 4, arbitrary: fc.record({ do: one("put topic"), topic: name, settings: topicSettings }) },
  { weight: 1, arbitrary: fc.record({ do: one("delete topic"), topic: name }) },
  { weight: 5, arbitrary: putRouter },
  { weight: 1, arbitrary: fc.record({ do: one("delete router"), router: routerName }) },
  { weight: 3, arbitrary: fc.record({ do: one("clock") }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constantFrom("restart" as const, "crash" as const) }) },
);

/** Topics with limits and some routers between them, and what happens then. */
const history = fc
  .tuple(
    fc.tuple(...NAMES.map(() => topicSettings)),
    fc.array(putRouter, { minLength: 3, maxLength: 8, size: "max" }),
    fc.array(step, { minLength: 5, maxLength: 40, size: "max" }),
  )
  .map(([settings, routers, steps]): Step[] => [
    ...settings.map((settings, i): Step => ({ do: "put topic", topic: NAMES[i]!, settings })),
    ...routers,
    ...steps,
  ]);

let histories = 0;

/**
 * One graph and its model. Each step begins when all is quiet, so that there is one order of what follows: a topic
 * has one router into it, and one that evicts does not pass on what it gets from another.
 */
class History {
  readonly #host: Host;
  readonly #prefix = `g${++histories}.`;
  readonly #graph = new ModelGraph();

  constructor(host: Host) {
    this.#host = host;
  }

  async run(steps: readonly Step[]): Promise<void> {
    for (const step of steps) {
      await this.#take(step);
      this.#graph.settle(this.#host.now);
      await this.#quiet();
      if (step.do === "restart" || step.do === "crash") await this.#compareRecords();
    }
    await this.#compareRecords();
    // Asking for a router brings it up to date: there is nothing left to be forwarded.
    for (const { name } of this.#graph.all) await this.#host.send("GET", routerPath(name));
    await this.#quiet();
  }

  async #take(step: Step): Promise<void> {
    const { now } = this.#host;
    const name = this.#prefix + ("topic" in step ? step.topic : "router" in step ? step.router : "");
    const path = `/v0/topics/${name}`;
    switch (step.do) {
      case "write": {
        const reply = await this.#host.send("POST", path, bodyOf(step.records));
        expect(reply.status).toBe(this.#graph.write(name, step.records, now));
        // At least once may be twice for what is under way.
        const exactly = this.#graph.all.every(({ settings }) => settings.guarantee === "exactly_once");
        if (step.crash && exactly) await this.#host.crash();
        return;
      }
      case "delete records": {
        if (!this.#graph.topics.has(name)) return;
        const { before, tag } = step;
        const match = tag === undefined ? null : ["tag", "Eq", tag];
        const { body } = await this.#host.send("POST", `${path}/delete`, {
          before_seq: before ?? null,
          match,
        });
        expect(body.deleted).toBe(this.#graph.deleteRecords(name, before, tag));
        return;
      }
      case "put topic": {
        const middle = this.#graph.into(name).length > 0 && this.#graph.from(name).length > 0;
        if (middle && evicts(step.settings)) return;
        const { status } = await this.#host.send("PUT", path, step.settings);
        expect(status).toBe(this.#graph.putTopic(name, step.settings));
        return;
      }
      case "delete topic": {
        const { body } = await this.#host.send("DELETE", path);
        expect(body.routers_removed ?? []).toEqual(this.#graph.deleteTopic(name));
        return;
      }
      case "put router":
        return this.#putRouter(name, step.settings, step.keepsEnds);
      case "delete router": {
        const { body } = await this.#host.send("DELETE", routerPath(name));
        expect(body.deleted).toBe(this.#graph.routers.delete(name));
        return;
      }
      case "clock":
        this.#host.now += 1000;
        return;
      case "restart":
      case "crash":
        return this.#host[step.do]();
    }
  }

  async #putRouter(router: string, asked: RouterSettings, keepsEnds: boolean): Promise<void> {
    const known = this.#graph.routers.get(router)?.settings;
    const ends = { source: this.#prefix + asked.source, dest: this.#prefix + asked.dest };
    const { source, dest } = keepsEnds && known ? known : ends;
    const settings = { ...asked, source, dest };
    if (this.#hasManyOrders(router, settings)) return;
    const { status, body } = await this.#host.send("PUT", routerPath(router), settings);
    const answer = status < 300 ? status : (body.error.detail?.reason ?? body.error.code);
    expect(answer).toBe(this.#graph.putRouter(router, settings));
  }

  /** Whether copies could arrive in more than one order if there were this router. */
  #hasManyOrders(router: string, { source, dest }: RouterSettings): boolean {
    const isTwin = this.#graph.into(dest).some(({ name }) => name !== router);
    const ends = [
      [source, this.#graph.into(source)],
      [dest, this.#graph.from(dest)],
    ] as const;
    const isMiddle = ends.some(([topic, others]) => {
      const { settings = plainTopic } = this.#graph.topics.get(topic) ?? {};
      return evicts(settings) && others.some(({ name }) => name !== router);
    });
    return isMiddle || (isTwin && this.#graph.into(dest).some(({ settings }) => settings.source === source));
  }

  /** Waits until every topic and router has come as far as the model says. Lists do not push them. */
  async #quiet(): Promise<void> {
    const expected = {
      topics: [...this.#graph.topics.values()].sort(byName).map((topic) => {
        return { topic: topic.name, head_seq: topic.head, count: topic.live.length };
      }),
      routers: this.#graph.all.sort(byName).map(({ name, settings, forwarded }) => {
        const { source, dest, guarantee } = settings;
        return { router: name, source, dest, guarantee, forwarded_total: forwarded };
      }),
    };
    let listed: unknown;
    const isThere = async () => {
      listed = await this.#listed();
      return Bun.deepEquals(listed, expected);
    };
    await until(isThere, Boolean, QUIET_MS).catch(() => expect(listed).toEqual(expected));
    for (const topic of this.#graph.topics.values()) topic.epoch ||= await this.#epochOf(topic);
  }

  async #listed(): Promise<unknown> {
    const query = `?page_size=1000&prefix=${this.#prefix}`;
    const { body: topics } = await this.#host.send("GET", `/v0/topics${query}`);
    const { body: routers } = await this.#host.send("GET", `/v0/routers${query}`);
    const fields = (one: Record<string, unknown>) => {
      const { topic, head_seq, count } = one;
      return { topic, head_seq, count };
    };
    return { topics: topics.topics.map(fields), routers: routers.routers };
  }

  async #epochOf({ name }: ModelTopic): Promise<number> {
    return (await this.#host.send("GET", `/v0/topics/${name}`)).body.epoch;
  }

  async #compareRecords(): Promise<void> {
    for (const topic of this.#graph.topics.values()) {
      const { records, gaps } = await walk(this.#host, topic.name);
      const expected = topic.live.map(({ seq, ts, tag, node, data, meta }) => ({
        seq,
        ts,
        tag,
        node,
        data,
        meta,
      }));
      expect({ topic: topic.name, records }).toEqual({ topic: topic.name, records: expected });
      const told = (seq: number) => gaps.some(({ from, to }) => from <= seq && seq <= to);
      const all = topic.entries.map(({ seq, state }) => ({ seq, state, told: told(seq) }));
      expect(
        all.filter(({ state, told }) => (state === "hole" && !told) || (state === "live" && told)),
      ).toEqual([]);
      for (const { from, to, reason } of gaps) {
        const evicted = all.some(({ seq, state }) => state === "evicted" && from <= seq && seq <= to);
        expect({ topic: topic.name, from, to, reason }).toMatchObject({
          reason: evicted ? "cap" : "source_trim",
        });
      }
    }
  }
}

const byName = (a: { name: string }, b: { name: string }) => (a.name < b.name ? -1 : 1);
const evicts = ({ cap_records, discard }: TopicSettings) => cap_records > 0 && discard === "old";

function bodyOf(records: readonly Input[]): string {
  const texts = records.map(({ data, ...others }) => `{"data":${data},${JSON.stringify(others).slice(1)}`);
  return `{"records":[${texts.join(",").replaceAll(",}", "}")}]}`;
}

interface Copy extends Input {
  readonly seq: number;
  readonly ts: number;
}

/** All that a reader gets from the beginning on, and what it is told to have missed. */
async function walk(host: Host, topic: string) {
  const records: Copy[] = [];
  const gaps: { from: number; to: number; reason: string }[] = [];
  for (let from = 0, caughtUp = false; !caughtUp; ) {
    const request = { from_seq: from, limit: 1000, include_tags: true };
    const reply = await host.send("POST", `/v0/topics/${topic}/diff`, request);
    const { body } = reply;
    if (body.tombstone) {
      const { gap_from, gap_to, reason } = body.tombstone;
      gaps.push({ from: gap_from, to: gap_to, reason });
    }
    const data = payloads(reply, "data");
    for (const [i, { $seq: seq, $ts: ts, $tag: tag, $node: node, meta }] of body.records.entries()) {
      records.push({ seq, ts, tag, node, data: data[i]!, meta });
    }
    if (body.next_from_seq <= from && !body.caught_up) throw new Error(`${topic} is stuck at ${from}`);
    ({ next_from_seq: from, caught_up: caughtUp } = body);
  }
  return { records, gaps };
}

test(
  "once quiet, any graph of routers holds what the plain model says",
  async () => {
    await using host = await Host.open();
    await fc.assert(
      fc.asyncProperty(history, (steps) => onFreshAfterFailure(host, () => new History(host).run(steps))),
      runs(25),
    );
  },
  PATIENCE_MS,
);

/** Writes at the same time, and what happens while their copies are under way. */
interface Round {
  readonly batches: { readonly topic: string; readonly records: number; readonly tag: string | undefined }[];
  readonly next: "nothing" | "restart" | "crash" | "crash within";
  /** So many of the writes are answered before the crash. */
  readonly answered: number;
  /** A router that is deleted and created again before all this. */
  readonly renewed: number | undefined;
}

const tag = fc.constantFrom(undefined, "x", "z");
const batch = fc.record({ topic: name, records: fc.integer({ min: 1, max: 3 }), tag });
const round = fc.record<Round>({
  batches: fc.array(batch, { minLength: 1, maxLength: 8, size: "max" }),
  next: fc.constantFrom("nothing", "restart", "crash", "crash within", "crash within"),
  answered: fc.nat(8),
  renewed: fc.constantFrom(undefined, undefined, 0, 1, 2),
});
const link = fc.record({ source: name, dest: name, filter: fc.constantFrom(null, null, "x") });

interface Batch {
  readonly topic: string;
  readonly values: string[];
  readonly acknowledged: boolean;
}

/** A router, and the last seq its source had when it was made. */
interface Route extends Edge {
  readonly name: string;
  readonly filter: Filter;
  start: number;
}

interface Stamp {
  readonly router: string;
  readonly source_seq: number;
}

const stampOf = ({ meta }: Copy): Stamp | undefined =>
  (meta as { _topics_router?: Stamp } | undefined)?._topics_router;

/** Five topics and routers that copy exactly once, so that every copy tells by its stamp where it comes from. */
class Mesh {
  readonly #host: Host;
  readonly #prefix = `m${++histories}.`;
  readonly #topics = NAMES.map((name) => this.#prefix + name);
  readonly #routes: Route[] = [];
  readonly #batches: Batch[] = [];
  #written = 0;

  constructor(host: Host) {
    this.#host = host;
  }

  async run(durability: string, links: readonly (Edge & { filter: Filter })[], rounds: readonly Round[]) {
    for (const topic of this.#topics) await this.#host.send("PUT", `/v0/topics/${topic}`, { durability });
    for (const { source, dest, filter } of links) {
      const name = `${this.#prefix}r${this.#routes.length}`;
      const ends = { source: this.#prefix + source, dest: this.#prefix + dest };
      await this.#connect({ name, ...ends, filter, start: 0 });
    }
    for (const round of rounds) {
      await this.#round(round);
      let problems: string[] = [];
      const isQuiet = async () => {
        problems = await this.#problems();
        return problems.length === 0;
      };
      await until(isQuiet, Boolean, QUIET_MS).catch(() => expect(problems).toEqual([]));
    }
  }

  /** Makes a router, unless it is refused or would double what goes round in a circle. */
  async #connect(route: Route): Promise<void> {
    const routes = [...this.#routes, route];
    const isTwin = ({ source, dest }: Edge) =>
      routes.filter((other) => other.source === source && other.dest === dest).length > 1;
    if (routes.some((one) => isTwin(one) && reaches(one.dest, one.source, routes))) return;
    if ((await this.#put(route)) === 201) this.#routes.push(route);
  }

  async #put({ name, source, dest, filter }: Route): Promise<number> {
    const settings = { source, dest, filter, guarantee: "exactly_once", allow_cycle: true };
    return (await this.#host.send("PUT", routerPath(name), settings)).status;
  }

  async #round({ batches, next, answered, renewed }: Round): Promise<void> {
    const route = this.#routes[renewed ?? -1];
    if (route) {
      await this.#host.send("DELETE", routerPath(route.name));
      route.start = (await this.#host.send("GET", `/v0/topics/${route.source}`)).body.head_seq;
      expect(await this.#put(route)).toBe(201);
    }
    const writes = batches.map(({ topic, records, tag }) => this.#write(this.#prefix + topic, records, tag));
    if (next === "crash within") {
      await Promise.all(writes.slice(0, answered));
      await this.#host.crash();
    }
    this.#batches.push(...(await Promise.all(writes)));
    if (next === "crash" || next === "restart") await this.#host[next]();
  }

  async #write(topic: string, records: number, tag: string | undefined): Promise<Batch> {
    const values = Array.from({ length: records }, () => `"${topic}/${++this.#written}"`);
    const body = bodyOf(values.map((data) => ({ data, tag, node: undefined, meta: undefined })));
    const reply = await this.#host.attempt("POST", `/v0/topics/${topic}`, body);
    if (reply) expect(reply.status).toBe(200);
    return { topic, values, acknowledged: reply !== undefined };
  }

  /** Every law that does not hold, or not yet. */
  async #problems(): Promise<string[]> {
    const held = new Map<string, Copy[]>();
    const problems: string[] = [];
    for (const topic of this.#topics) {
      const { records, gaps } = await walk(this.#host, topic);
      held.set(topic, records);
      if (gaps.length > 0) problems.push(`${topic} tells of a loss: ${JSON.stringify(gaps)}`);
    }
    const { body } = await this.#host.send("GET", `/v0/routers?page_size=1000&prefix=${this.#prefix}`);
    const totals = new Map<string, number>(
      body.routers.map((one: { router: string; forwarded_total: number }) => [
        one.router,
        one.forwarded_total,
      ]),
    );
    for (const route of this.#routes) problems.push(...this.#unlike(route, held, totals.get(route.name)));
    for (const batch of this.#batches) {
      const written = held
        .get(batch.topic)!
        .filter((copy) => !stampOf(copy) && batch.values.includes(copy.data));
      const isWhole = Bun.deepEquals(
        written.map(({ data }) => data),
        batch.values,
      );
      const isAbsent = !batch.acknowledged && written.length === 0;
      if (!isWhole && !isAbsent) problems.push(`not written once and whole: ${JSON.stringify(batch)}`);
    }
    return problems;
  }

  /** What is wrong with the copies of one router. */
  #unlike(route: Route, held: ReadonlyMap<string, readonly Copy[]>, total: number | undefined): string[] {
    const { name, source, dest, filter, start } = route;
    const originals = held.get(source)!;
    const copies = held.get(dest)!.flatMap((copy) => {
      const stamp = stampOf(copy);
      return stamp?.router === name && stamp.source_seq > start ? { ...copy, from: stamp.source_seq } : [];
    });
    const due = originals.filter(
      (record) =>
        record.seq > start && passes(filter, record.tag) && this.#hops(source, record, held) < HOPS_MAX,
    );
    const problems: string[] = [];
    const [found, expected] = [copies.map(({ from }) => from), due.map(({ seq }) => seq)];
    if (!Bun.deepEquals(found, expected)) problems.push(`${name} copied ${found}, and ${expected} was due`);
    if (total !== due.length) problems.push(`${name} counts ${total}, and ${due.length} were due`);
    for (const { from, data, tag, seq } of copies) {
      const original = originals.find((record) => record.seq === from);
      if (original?.data !== data || original.tag !== tag)
        problems.push(`${dest} ${seq} is not ${source} ${from}`);
    }
    return problems;
  }

  /** How often a record was forwarded; infinity if what it is a copy of came after its topic was read. */
  #hops(topic: string, record: Copy, held: ReadonlyMap<string, readonly Copy[]>): number {
    let hops = 0;
    for (let [place, copy] = [topic, record]; ; hops++) {
      const stamp = stampOf(copy);
      if (stamp === undefined) return hops;
      place = this.#routes.find((route) => route.name === stamp.router && route.dest === place)!.source;
      const original = held.get(place)!.find(({ seq }) => seq === stamp.source_seq);
      if (original === undefined) return Number.POSITIVE_INFINITY;
      copy = original;
    }
  }
}

test(
  "every record is forwarded exactly once and in order, whoever writes and whenever the server is killed",
  async () => {
    await using host = await Host.open();
    const durability = fc.constantFrom("disk", "fsync");
    const links = fc.array(link, { minLength: 3, maxLength: 8, size: "max" });
    const rounds = fc.array(round, { minLength: 1, maxLength: 4, size: "max" });
    await fc.assert(
      fc.asyncProperty(durability, links, rounds, (durability, links, rounds) =>
        onFreshAfterFailure(host, () => new Mesh(host).run(durability, links, rounds)),
      ),
      runs(15),
    );
  },
  PATIENCE_MS,
);

test(
  "at least once is never less, and in order, when the server is killed between writes and copies",
  async () => {
    await using host = await Host.open();
    const writes = fc.array(fc.integer({ min: 1, max: 20 }), { minLength: 1, maxLength: 6, size: "max" });
    await fc.assert(
      fc.asyncProperty(writes, fc.nat(6), (batches, answered) =>
        onFreshAfterFailure(host, () => killedChain(host, batches, answered)),
      ),
      runs(8),
    );
  },
  PATIENCE_MS,
);

/** Writes to the first of three topics in a row, and kills the server while copies are under way. */
async function killedChain(host: Host, batches: readonly number[], answered: number): Promise<void> {
  const prefix = `c${++histories}.`;
  const [first, second, third] = ["a", "b", "c"].map((name) => prefix + name) as [string, string, string];
  for (const [source, dest] of [
    [first, second],
    [second, third],
  ]) {
    await host.send("PUT", routerPath(`${source}->${dest}`), { source, dest });
  }
  let written = 0;
  const writes = batches.map((records) => {
    const batch = Array.from({ length: records }, () => ({ data: ++written }));
    return host.attempt("POST", `/v0/topics/${first}`, { records: batch });
  });
  await Promise.all(writes.slice(0, answered));
  await host.crash();
  await Promise.all(writes);
  const texts = async (topic: string) => (await walk(host, topic)).records.map(({ data }) => data);
  const originals = await texts(first);
  for (const topic of [second, third]) {
    const firstCopies = async () => [...new Set(await texts(topic))];
    const isThere = (copies: string[]) => Bun.deepEquals(copies, originals);
    await until(firstCopies, isThere, QUIET_MS).catch(async () =>
      expect(await firstCopies()).toEqual(originals),
    );
  }
}
