/**
 * Random histories of watched topics, with steps of the clock. Clients open streams, lose them and come back, while
 * records are appended, deleted, evicted, expired and copied by a router, and while topics go and come again.
 *
 * The law: what a client was told of one life of a topic, put together, is what was appended, in order and once
 * unless it asked for it again. Whatever it was not told of is in a tombstone, was deleted, or is its own.
 */
import { expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import fc from "fast-check";
import { configFrom } from "../../src/config.ts";
import { createLogger } from "../../src/log.ts";
import { startServer } from "../../src/server.ts";
import type { EventStream, StreamEvent } from "../support/eventstream.ts";
import { payloads } from "../support/rawjson.ts";
import { type Reply, send } from "../support/request.ts";
import { routerPath } from "../support/router.ts";
import { temporaryDirectory } from "../support/spawn.ts";
import type { Sender } from "../support/topics.ts";
import { cursorIn, newSession, type Session, textsIn } from "../support/watch.ts";
import { PATIENCE_MS, runs } from "./host.ts";
import { type ModelConfig, type ModelInput, ModelTopic } from "./model.ts";

setDefaultTimeout(30_000);

const START = 1_700_000_000_000;
const QUIET_MS = 5000;
const POLL_MS = 2;

/** `copies` is filled by a router from `source`, and by nothing else. It keeps all it has. */
const WRITTEN = ["a", "b", "source"] as const;
const TOPICS = [...WRITTEN, "copies"] as const;
const ROUTER = "router";

type Written = (typeof WRITTEN)[number];
type Name = (typeof TOPICS)[number];

interface Config extends ModelConfig {
  readonly durability: string;
  readonly dedupe_node: boolean;
}

interface View {
  readonly node: string | string[] | null;
  readonly limit: number;
  readonly max_batch_bytes: number;
  readonly consistency: string;
  readonly include_tags: true;
}

/** How a stream is opened: behind the last event, behind an older one, or with no header. */
interface Opening {
  readonly client: number;
  readonly from: "last" | "older" | "session";
  /** Which of the older ones. */
  readonly back: number;
}

type Input = Omit<ModelInput, "data">;

interface Append {
  readonly do: "append";
  readonly topic: Written;
  readonly writes: Input[][];
  readonly times: number;
  /** For a topic that is not there. */
  readonly config: Config;
  /** A stream that is opened at the same time. */
  readonly meanwhile?: Opening | undefined;
}

interface Erase {
  readonly do: "erase";
  readonly topic: Written;
  readonly before: number | undefined;
  readonly match: string | undefined;
}

interface Drop {
  readonly do: "drop";
  readonly topic: Name;
  /** Creates it again at once. */
  readonly again: boolean;
  readonly config: Config;
}

interface Renewal {
  readonly do: "session";
  readonly client: number;
  readonly view: View;
  readonly starts: Record<Name, object>;
}

/** When the client has everything; at any time; and at any time without waiting for the server to notice. */
type Closing = "settled" | "noticed" | "rough";

type Step =
  | Append
  | Erase
  | Drop
  | Renewal
  | ({ do: "open" } & Opening)
  | { do: "close"; client: number; how: Closing }
  | { do: "connect" }
  | { do: "clock" | "turn"; ms: number };

const CLIENTS = 2;
const one = <T extends string>(value: T) => fc.constant(value);
const optional = <T>(value: fc.Arbitrary<T>) => fc.option(value, { nil: undefined });
const client = fc.nat(CLIENTS - 1);
const written = fc.constantFrom<Written>("a", "a", "b", "source");
const input = fc.record<Input>({
  tag: fc.constantFrom(undefined, "x", "y"),
  node: fc.constantFrom(undefined, undefined, "n1", "n2"),
});
const config = fc.record<Config>({
  ttl_ms: fc.constantFrom(0, 0, 0, 500),
  cap_records: fc.constantFrom(0, 0, 0, 3, 40),
  cap_bytes: fc.constantFrom(0, 0, 0, 100),
  discard: one("old"),
  durability: fc.constantFrom("ephemeral", "memory", "disk", "disk", "fsync"),
  dedupe_node: fc.constantFrom(true, true, true, false),
});
const plain: Config = {
  ttl_ms: 0,
  cap_records: 0,
  cap_bytes: 0,
  discard: "old",
  durability: "disk",
  dedupe_node: true,
};
const opening = fc.record<Opening>({
  client,
  from: fc.constantFrom("last", "last", "session", "session", "older"),
  back: fc.nat(30),
});
const start = fc.constantFrom({}, {}, { from_seq: 0 }, { tail: true }, { from_seq: 3 }, { from_seq: 60 });
const session = fc.record<Renewal>({
  do: one("session"),
  client,
  view: fc.record<View>({
    node: fc.constantFrom<View["node"]>(null, null, "n1", ["n1", "n2"]),
    limit: fc.constantFrom(1, 3, 256),
    max_batch_bytes: fc.constantFrom(1, 60, 262_144),
    consistency: fc.constantFrom("eventual", "eventual", "strong"),
    include_tags: fc.constant(true),
  }),
  starts: fc.record<Record<Name, object>>({ a: start, b: start, source: start, copies: start }),
});
const append = fc.record<Append>({
  do: one("append"),
  topic: written,
  writes: fc.array(fc.array(input, { minLength: 1, maxLength: 4 }), { minLength: 1, maxLength: 3 }),
  times: fc.constantFrom(1, 1, 1, 12),
  config,
});
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 8, arbitrary: append },
  {
    weight: 5,
    arbitrary: fc.tuple(append, opening).map(([step, meanwhile]): Append => ({ ...step, meanwhile })),
  },
  {
    weight: 2,
    arbitrary: fc
      .record({
        do: one("erase"),
        topic: written,
        before: optional(fc.nat(40)),
        match: fc.constantFrom(undefined, "x", "*"),
      })
      .filter(({ before, match }) => before !== undefined || match !== undefined),
  },
  {
    weight: 3,
    arbitrary: fc.record({ do: one("drop"), topic: fc.constantFrom(...TOPICS), again: fc.boolean(), config }),
  },
  { weight: 2, arbitrary: fc.record({ do: one("connect") }) },
  { weight: 2, arbitrary: fc.record({ do: one("clock"), ms: fc.constantFrom(100, 501) }) },
  { weight: 1, arbitrary: session },
  { weight: 6, arbitrary: opening.map((opening): Step => ({ do: "open", ...opening })) },
  {
    weight: 5,
    arbitrary: fc.record({
      do: one("close"),
      client,
      how: fc.constantFrom<Closing>("settled", "settled", "noticed", "rough"),
    }),
  },
  { weight: 3, arbitrary: fc.record({ do: one("turn"), ms: fc.constantFrom(0, 1, 5) }) },
);

/** A server in this process with a clock that the test sets. */
class Clocked implements AsyncDisposable, Sender {
  now = START;
  url = "";
  readonly #parts = new AsyncDisposableStack();
  #failure: unknown;

  static async start(): Promise<Clocked> {
    const clocked = new Clocked();
    const dir = clocked.#parts.use(await temporaryDirectory());
    const env = { TOPICS_DATA_DIR: join(dir.path, "data"), TOPICS_PORT: "0", RUST_LOG: "error" };
    const config = configFrom(env);
    const broken = (reason: unknown) => {
      clocked.#failure ??= reason;
    };
    const log = createLogger(config.logLevel);
    const server = clocked.#parts.use(await startServer(config, log, broken, () => clocked.now));
    clocked.url = `http://${server.address}`;
    return clocked;
  }

  send: Sender["send"] = (method, path, body) =>
    send(this.url, method, path, body, { accept: "application/json" });

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#parts.disposeAsync();
    if (this.#failure) throw this.#failure;
  }
}

/** What is known of one record. */
interface Fact extends ModelInput {
  readonly alive: boolean;
}

/** One life of a topic: from its creation to its deletion. */
interface Life {
  readonly epoch: number;
  /** Whether readers do not get their own records. */
  readonly filters: boolean;
  readonly head: number;
  ended: boolean;
  /** Undefined where there never was a record: a hole of a router. "unknown" where nobody has looked. */
  fact(seq: number): Fact | undefined | "unknown";
  isErased(seq: number): boolean;
}

/** The life of a topic that only this test writes to. */
class WrittenLife implements Life {
  readonly epoch: number;
  readonly filters: boolean;
  readonly model: ModelTopic;
  ended = false;
  readonly #erased = new Set<number>();

  constructor(epoch: number, config: Config) {
    this.epoch = epoch;
    this.filters = config.dedupe_node;
    this.model = new ModelTopic(config);
  }

  get head(): number {
    return this.model.head;
  }

  get dead(): Set<number> {
    return new Set(this.model.records.filter(({ alive }) => !alive).map(({ seq }) => seq));
  }

  /** Gives the number of records deleted. */
  erase(before: number | undefined, match: string | undefined, now: number): number {
    this.model.expire(now);
    const { live } = this.model;
    const matches = match === undefined ? undefined : (tag: string) => match === "*" || tag === match;
    const deleted = this.model.delete(before, matches, now);
    for (const { seq, alive } of live) if (!alive) this.#erased.add(seq);
    return deleted;
  }

  fact(seq: number): Fact | undefined {
    return this.model.records[seq - 1];
  }

  isErased(seq: number): boolean {
    return this.#erased.has(seq);
  }
}

/** The life of the router's dest, as far as it was read. */
class CopiedLife implements Life {
  readonly epoch: number;
  readonly filters = true;
  head = 0;
  ended = false;
  readonly #facts = new Map<number, Fact>();

  constructor(epoch: number) {
    this.epoch = epoch;
  }

  async learn(server: Sender): Promise<void> {
    for (let caughtUp = false; !caughtUp; ) {
      const request = { from_seq: this.head, limit: 1000, include_tags: true };
      const reply = await server.send("POST", `${path("copies")}/diff`, request);
      const texts = payloads(reply, "data");
      for (const [i, { $seq, $tag, $node }] of reply.body.records.entries()) {
        this.#facts.set($seq, { data: texts[i]!, tag: $tag, node: $node, alive: true });
      }
      ({ next_from_seq: this.head, caught_up: caughtUp } = reply.body);
    }
  }

  fact(seq: number): Fact | undefined | "unknown" {
    return seq > this.head ? "unknown" : this.#facts.get(seq);
  }

  isErased(): boolean {
    return false;
  }
}

/** Everything that there ever was, the latest life of a topic last. */
type Lives = ReadonlyMap<Name, Life[]>;

/** One stream of a client. */
interface Connection {
  readonly stream: EventStream;
  readonly events: StreamEvent[];
  /** The id that it was opened with. */
  readonly id: string | undefined;
  /** An earlier stream may have been open still, as the server saw it. */
  readonly hasGhost: boolean;
  /** It has no header, and nobody knows how far the stream before it had come. */
  readonly isUncertain: boolean;
  /** What was gone before it opened. */
  readonly dead: ReadonlyMap<Life, "all" | ReadonlySet<number>>;
}

class Client {
  readonly session: Session;
  readonly view: View;
  readonly connections: Connection[] = [];
  open: Connection | undefined;
  /** The latest stream was closed when its client had everything. */
  isSettled = true;
  /** A stream was closed and the server may not know it yet. */
  hasGhost = false;

  constructor(session: Session, view: View) {
    this.session = session;
    this.view = view;
  }

  get topics(): Name[] {
    return Object.keys(this.session.topics) as Name[];
  }

  /** The ids that the latest stream came from and went to, the last one first. */
  get ids(): string[] {
    const { id, events } = this.connections.at(-1) ?? { events: [] };
    return [...(id === undefined ? [] : [id]), ...events.map(({ id }) => id!)].reverse();
  }

  async take(): Promise<void> {
    if (this.open) this.open.events.push(...(await this.open.stream.arrived()));
  }

  isOwn({ node }: Fact, life: Life): boolean {
    return life.filters && node !== undefined && [this.view.node].flat().includes(node);
  }
}

class History implements AsyncDisposable {
  readonly #server: Clocked;
  readonly #lives: Lives = new Map(TOPICS.map((name) => [name, []]));
  readonly #clients: Client[] = [];
  /** Clients whose session has been given up. */
  readonly #former: Client[] = [];
  #isRouted = false;
  #written = 0;

  constructor(server: Clocked) {
    this.#server = server;
  }

  async run(steps: readonly Step[]): Promise<void> {
    for (const step of steps) await this.#take(step);
    for (const i of this.#clients.keys()) await this.#open({ client: i, from: "last", back: 0 });
    await this.#settle(this.#clients);
    await this.#learn();
    for (const client of this.#former) expect(new Account(client, this.#lives).complaints).toEqual([]);
    for (const client of this.#clients) {
      const account = new Account(client, this.#lives);
      account.expectWhole();
      expect(account.complaints).toEqual([]);
    }
  }

  async #take(step: Step): Promise<void> {
    switch (step.do) {
      case "append":
        await Promise.all([step.meanwhile && this.#open(step.meanwhile), this.#append(step)]);
        return;
      case "erase":
        return this.#erase(step);
      case "drop":
        return this.#drop(step);
      case "connect":
        return this.#connect();
      case "clock":
        this.#server.now += step.ms;
        for (const name of WRITTEN) this.#own(name)?.model.expire(this.#server.now);
        return;
      case "session":
        return this.#renew(step);
      case "open":
        return this.#open(step);
      case "close":
        return this.#close(this.#clients[step.client], step.how);
      case "turn":
        await Bun.sleep(step.ms);
        for (const client of this.#clients) await client.take();
        return;
    }
  }

  /** All writes at the same time; the answers tell their order. Creates the topic if it is not there. */
  async #append({ topic, writes, times, config }: Omit<Append, "do">): Promise<string[]> {
    const batches = writes.map((inputs) =>
      Array.from({ length: times }, () => inputs)
        .flat()
        .map((input): ModelInput => ({ ...input, data: `{"n": ${++this.#written},"x":[1.0,-0]}` })),
    );
    const bodies = batches.map((batch) => bodyOf(batch, config));
    const replies = await Promise.all(bodies.map((body) => this.#ask("POST", path(topic), body)));
    const inOrder = replies
      .map(({ body }, i) => ({ ...body, batch: batches[i]! }))
      .sort((a, b) => a.first_seq - b.first_seq);
    for (const { epoch, first_seq, batch } of inOrder) {
      const life = this.#own(topic) ?? this.#begin(topic, new WrittenLife(epoch, config));
      expect({ epoch, first_seq }).toEqual({ epoch: life.epoch, first_seq: life.head + 1 });
      life.model.append(batch, this.#server.now);
    }
    return batches.flat().map(({ data }) => data);
  }

  async #erase({ topic, before, match }: Erase): Promise<void> {
    const life = this.#own(topic);
    if (!life) return;
    const request = { before_seq: before ?? null, match: match ?? null };
    const { body } = await this.#ask("POST", `${path(topic)}/delete`, request);
    expect(body.deleted).toBe(life.erase(before, match, this.#server.now));
  }

  async #drop({ topic, again, config }: Drop): Promise<void> {
    if (topic === "copies") await this.#learn();
    await this.#ask("DELETE", path(topic));
    const life = this.#live(topic);
    if (life) life.ended = true;
    if (topic === "copies" || topic === "source") this.#isRouted = false;
    if (!again) return;
    if (topic === "copies") await this.#connect();
    else await this.#create(topic, config);
  }

  async #create(topic: Written, config: Config): Promise<void> {
    const { body } = await this.#ask("PUT", path(topic), config);
    this.#begin(topic, new WrittenLife(body.epoch, config));
  }

  /** Makes the router, and its ends if they are not there. */
  async #connect(): Promise<void> {
    if (!this.#live("source")) await this.#create("source", plain);
    if (!this.#live("copies")) {
      const { body } = await this.#ask("PUT", path("copies"), {});
      this.#begin("copies", new CopiedLife(body.epoch));
    }
    await this.#ask("PUT", routerPath(ROUTER), { source: "source", dest: "copies" });
    this.#isRouted = true;
  }

  /** Gives the client a new session of all topics that are there. */
  async #renew({ client: i, view, starts }: Renewal): Promise<void> {
    const former = this.#clients[i];
    await this.#close(former, "rough");
    const live = TOPICS.filter((name) => this.#live(name)).map((name) => [name, starts[name]]);
    if (live.length === 0) return;
    if (former) this.#former.push(former);
    const session = await newSession(this.#server, Object.fromEntries(live), view);
    this.#clients[i] = new Client(session, view);
  }

  async #open({ client: i, from, back }: Opening): Promise<void> {
    const client = this.#clients[i]!;
    await this.#close(client, "rough");
    const { ids, hasGhost } = client;
    const id = from === "session" ? undefined : ids[from === "last" ? 0 : Math.min(back, ids.length - 1)];
    const last = client.connections.at(-1);
    const isUncertain = id === undefined && last !== undefined && (!client.isSettled || last.hasGhost);
    const dead = this.#dead;
    const stream = await client.session.open(id);
    client.open = { stream, events: [], id, hasGhost, isUncertain, dead };
    client.connections.push(client.open);
    client.isSettled = false;
  }

  async #close(client: Client | undefined, how: Closing): Promise<void> {
    if (!client?.open) return;
    if (how === "settled") await this.#settle([client]);
    await client.take();
    await client.open.stream.close();
    client.open = undefined;
    client.hasGhost = true;
    client.isSettled = how === "settled";
    if (how !== "rough") await this.#waitForGhosts();
  }

  /** Until the server has noticed whatever was closed. */
  async #waitForGhosts(): Promise<void> {
    const open = () => this.#clients.filter((client) => client.open && !client.open.stream.ended).length;
    const counted = async () => (await this.#ask("GET", "/v0/metrics")).body.sse_connections;
    await quiet(async () => (await counted()) === open());
    expect(await counted()).toBe(open());
    for (const client of this.#clients) if (!client.open) client.hasGhost = false;
  }

  /** Appends to every topic and waits until the clients have come to that, or know that the topic is gone. */
  async #settle(clients: readonly Client[]): Promise<void> {
    const marks = new Map<Name, string>();
    for (const topic of WRITTEN) {
      if (!this.#live(topic)) continue;
      const writes = [[{ tag: undefined, node: undefined }]];
      const [mark] = await this.#append({ topic, writes, times: 1, config: plain });
      marks.set(topic, mark!);
    }
    if (this.#isRouted) marks.set("copies", marks.get("source")!);
    // What was copied while there was a router.
    const copied = await this.#server.send("GET", path("copies"));
    for (const client of clients) {
      if (!client.open) continue;
      const { events, stream } = client.open;
      const isTold = (topic: Name) => {
        const own = events.filter(({ body }) => body.topic === topic);
        if (own.some(({ event }) => event === "topic-deleted")) return true;
        const mark = marks.get(topic);
        if (mark === undefined) {
          return own.some(
            ({ event, body }) => event === "caught-up" && body.head_seq === copied.body.head_seq,
          );
        }
        return own.some((event) => event.event === "record" && textsIn(event, "data").includes(mark));
      };
      const untold = () => client.topics.filter((topic) => !isTold(topic));
      await quiet(async () => {
        const { ended } = stream;
        await client.take();
        return ended || untold().length === 0;
      });
      expect({ untold: untold(), said: stream.received.slice(-300) }).toMatchObject({ untold: [] });
    }
  }

  /** Looks what the router has copied, as long as it can be seen. */
  async #learn(): Promise<void> {
    const life = this.#live("copies");
    if (life instanceof CopiedLife) await life.learn(this.#server);
  }

  get #dead(): Connection["dead"] {
    const lives = [...this.#lives.values()].flat();
    return new Map(
      lives.map((life) => [life, life.ended ? "all" : life instanceof WrittenLife ? life.dead : new Set()]),
    );
  }

  #live(topic: Name): Life | undefined {
    const life = this.#lives.get(topic)!.at(-1);
    return life?.ended ? undefined : life;
  }

  #own(topic: Written): WrittenLife | undefined {
    return this.#live(topic) as WrittenLife | undefined;
  }

  #begin<L extends Life>(topic: Name, life: L): L {
    this.#lives.get(topic)!.push(life);
    return life;
  }

  async #ask(method: string, path: string, body?: unknown): Promise<Reply> {
    const reply = await this.#server.send(method, path, body);
    if (reply.status >= 300) throw new Error(`${method} ${path} was refused: ${reply.text}`);
    return reply;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of this.#clients) await client.open?.stream.close();
  }
}

/** Where a stream stands in a topic. */
interface Standing {
  /** Undefined where nobody knows, and between a tombstone of a recreation and what follows it. */
  epoch: number | undefined;
  seq: number;
  /** What was told of the topic last. */
  last: string | undefined;
  isGone: boolean;
  /** From where the topic was started over, and the end of the gap that this was told with. */
  restart: { readonly epoch: number | undefined; readonly seq: number; readonly to: number } | undefined;
}

/** Goes through everything that a client was told, and notes what should not be so. */
class Account {
  readonly complaints: string[] = [];
  readonly #client: Client;
  readonly #lives: Lives;
  readonly #seen = new Map<Life, Set<number>>();
  readonly #restarted = new Set<Life>();
  #standings = new Map<string, Standing>();
  #connection: Connection | undefined;

  constructor(client: Client, lives: Lives) {
    this.#client = client;
    this.#lives = lives;
    for (const [topic, { epoch, from_seq: seq, head_seq }] of Object.entries(client.session.topics)) {
      // Who is beyond the head is in no life of the topic.
      this.#standings.set(topic, standingAt(seq > head_seq ? 0 : epoch, seq));
    }
    for (const connection of client.connections) {
      this.#connection = connection;
      this.#standings = this.#startOf(connection);
      for (const event of connection.events) this.#tell(event);
    }
  }

  /** In the end the client has everything that lives and is meant for it. */
  expectWhole(): void {
    for (const [topic, standing] of this.#standings) {
      const life = this.#lives.get(topic as Name)!.at(-1)!;
      const at = life.ended ? "gone" : `${standing.epoch} at ${standing.seq}`;
      const end = standing.isGone ? "gone" : `${life.epoch} at ${life.head}`;
      if (at !== end) this.#complain(topic, `ends as ${at} and not as ${end}`);
      if (life.ended || this.#client.connections.some(({ isUncertain }) => isUncertain)) continue;
      const asked = this.#client.session.topics[topic]!;
      const isOther = asked.epoch !== life.epoch || asked.from_seq > asked.head_seq;
      const start = isOther || this.#restarted.has(life) ? 0 : asked.from_seq;
      for (let seq = start + 1; seq <= life.head; seq++) {
        const fact = life.fact(seq) as Fact | undefined;
        if (!fact?.alive || this.#client.isOwn(fact, life) || this.#seen.get(life)?.has(seq)) continue;
        this.#complain(topic, `never gave ${seq}`);
      }
    }
  }

  #startOf({ id, isUncertain }: Connection): Map<string, Standing> {
    const told = id === undefined ? undefined : cursorIn({ id });
    return new Map(
      Array.from(this.#standings, ([topic, { epoch, seq }]) => {
        if (told) return [topic, standingAt(told.epochs[topic], told.seqs[topic]!)];
        return [topic, standingAt(isUncertain ? undefined : epoch, seq)];
      }),
    );
  }

  #tell(event: StreamEvent): void {
    const { body } = event;
    const topic: string = body.topic;
    const at = this.#standings.get(topic);
    if (!at) {
      this.#complain(topic, "is not watched");
      return;
    }
    const { epochs, seqs } = cursorIn(event);
    for (const [other, standing] of this.#standings) {
      if (other !== topic) this.#move(other, standing, epochs[other]!, seqs[other]!);
    }
    if (at.isGone) this.#complain(topic, `goes on with ${event.event} after its end`);
    const to = { epoch: epochs[topic]!, seq: seqs[topic]! };
    if (event.event === "tombstone") this.#tombstone(topic, at, body, to);
    else if (event.event === "record") this.#record(topic, at, event, to);
    else if (event.event === "caught-up") this.#caughtUp(topic, at, body, to);
    else if (event.event === "topic-deleted") this.#deleted(topic, at);
    else this.#complain(topic, `says ${event.event}`);
    at.last = event.event;
  }

  /** What the id of another topic's event tells: records may be passed without a word, if nothing is owed. */
  #move(topic: string, at: Standing, epoch: number, seq: number): void {
    if (at.isGone || at.epoch === undefined) return;
    if (epoch !== at.epoch) this.#complain(topic, `moved from ${at.epoch} to ${epoch} without a word`);
    else if (seq < at.seq) this.#complain(topic, `went back from ${at.seq} to ${seq}`);
    else this.#pass(topic, at, seq);
  }

  // biome-ignore lint/suspicious/noExplicitAny: a body is looked at member by member.
  #tombstone(topic: string, at: Standing, body: any, to: { epoch: number; seq: number }): void {
    const { reason, gap_from, gap_to, head_seq, earliest_seq } = body;
    const isFirst = at.last === undefined;
    if (isFirst !== (reason === "from_seq_too_old"))
      this.#complain(topic, `gives ${reason} after ${at.last}`);
    if (to.seq !== gap_to) this.#complain(topic, `has the id ${to.seq} for a gap to ${gap_to}`);
    if (to.epoch === 0) {
      const isWhole = gap_from === 1 && gap_to === head_seq && (isFirst || reason === "recreated");
      if (!isWhole) this.#complain(topic, `starts over with ${JSON.stringify(body)}`);
      at.restart = { epoch: at.epoch, seq: at.seq, to: gap_to };
      at.epoch = undefined;
      at.seq = 0;
      return;
    }
    if (reason === "recreated") this.#complain(topic, `is recreated with the id of ${to.epoch}`);
    if (at.epoch === undefined && !at.restart) at.seq = gap_from - 1;
    const life = this.#enter(topic, at, to.epoch);
    if (gap_from <= at.seq) this.#complain(topic, `has a gap from ${gap_from} at ${at.seq}`);
    if (earliest_seq !== gap_to + 1) this.#complain(topic, `begins at ${earliest_seq} behind ${gap_to}`);
    this.#pass(topic, at, gap_from - 1);
    for (let seq = gap_from; seq <= gap_to; seq++) {
      const fact = life?.fact(seq);
      if (fact !== "unknown" && fact?.alive) this.#complain(topic, `says that ${seq} is lost, and it lives`);
    }
    at.seq = gap_to;
  }

  #record(topic: string, at: Standing, event: StreamEvent, to: { epoch: number; seq: number }): void {
    const { records, from_seq, to_seq, head_seq } = event.body;
    const isKnown = at.epoch !== undefined || at.restart !== undefined;
    if (!isKnown) at.seq = from_seq;
    const life = this.#enter(topic, at, to.epoch);
    // Behind a tombstone it is the place before that.
    if (at.last !== "tombstone" && from_seq < at.seq)
      this.#complain(topic, `${from_seq} comes after ${at.seq}`);
    const given: number[] = records.map(({ $seq }: { $seq: number }) => $seq);
    const bounds = [at.seq, ...given, to_seq + 1, head_seq + 2];
    if (given.length === 0 || bounds.some((seq, i) => i > 0 && seq <= bounds[i - 1]!)) {
      this.#complain(topic, `gives ${given} from ${at.seq} to ${to_seq} of ${head_seq}`);
    }
    if (to.seq !== to_seq) this.#complain(topic, `has the id ${to.seq} at ${to_seq}`);
    const texts = textsIn(event, "data");
    for (const [i, record] of records.entries()) this.#take(topic, life, record, texts[i]!);
    this.#checkSize(topic, texts as string[]);
    this.#pass(topic, at, to_seq, new Set(given));
  }

  #take(topic: string, life: Life | undefined, record: Record<string, unknown>, text: string): void {
    const seq = record.$seq as number;
    const fact = life?.fact(seq);
    if (!life || fact === "unknown") return;
    const { data, node, tag } = fact ?? {};
    if (!Bun.deepEquals([data, node, tag], [text, record.$node, record.$tag])) {
      this.#complain(topic, `gives ${JSON.stringify(record)} for ${JSON.stringify(fact)}`);
    }
    if (fact && this.#client.isOwn(fact, life)) this.#complain(topic, `gives ${seq} to who has written it`);
    const dead = this.#connection!.dead.get(life);
    if (dead === "all" || dead?.has(seq)) this.#complain(topic, `gives ${seq}, which was gone`);
    const seen = this.#seen.get(life) ?? new Set();
    this.#seen.set(life, seen.add(seq));
  }

  #checkSize(topic: string, texts: readonly string[]): void {
    const { limit, max_batch_bytes } = this.#client.view;
    const bytes = texts.reduce((sum, text) => sum + Buffer.byteLength(text), 0);
    if (texts.length > limit) this.#complain(topic, `gives ${texts.length} records at once`);
    if (texts.length > 1 && bytes > max_batch_bytes) this.#complain(topic, `gives ${bytes} bytes at once`);
  }

  #caughtUp(topic: string, at: Standing, body: { head_seq: number }, to: { epoch: number; seq: number }) {
    if (at.epoch === undefined && !at.restart) at.seq = body.head_seq;
    this.#enter(topic, at, to.epoch);
    if (to.seq !== body.head_seq) this.#complain(topic, `has the id ${to.seq} at its head ${body.head_seq}`);
    if (body.head_seq < at.seq) this.#complain(topic, `is at ${body.head_seq} behind ${at.seq}`);
    this.#pass(topic, at, body.head_seq);
  }

  #deleted(topic: string, at: Standing): void {
    at.isGone = true;
    if (!this.#lives.get(topic as Name)!.some((life) => life.ended))
      this.#complain(topic, "was never deleted");
  }

  /** Goes into a life, which is the one that the stream is in unless it was started over. */
  #enter(topic: string, at: Standing, epoch: number): Life | undefined {
    const life = this.#lives.get(topic as Name)!.find((life) => life.epoch === epoch);
    if (!life) this.#complain(topic, `never had the epoch ${epoch}`);
    else if (at.epoch !== undefined && at.epoch !== epoch) {
      this.#complain(topic, `goes from ${at.epoch} to ${epoch} without a tombstone`);
    } else if (at.epoch === undefined && at.restart) {
      const { restart } = at;
      if (restart.epoch === epoch && restart.seq <= restart.to) {
        this.#complain(topic, `starts over at ${restart.seq} for nothing`);
      }
      this.#restarted.add(life);
    }
    at.epoch = epoch;
    return life;
  }

  /** Moves on. Each record on the way that was not given must be accounted for. */
  #pass(topic: string, at: Standing, to: number, given: ReadonlySet<number> = new Set()): void {
    const life = this.#lives.get(topic as Name)!.find(({ epoch }) => epoch === at.epoch);
    for (let seq = at.seq + 1; life && seq <= to; seq++) {
      const fact = life.fact(seq);
      if (given.has(seq) || life.isErased(seq)) continue;
      if (fact === "unknown" && life.ended) continue;
      if (fact === "unknown") this.#complain(topic, `passes ${seq}, which never was`);
      else if (fact && this.#client.isOwn(fact, life)) continue;
      else if (at.restart && seq <= at.restart.to && !fact?.alive) continue;
      else this.#complain(topic, `passes ${seq} without a word`);
    }
    at.seq = Math.max(at.seq, to);
  }

  #complain(topic: string, what: string): void {
    const { connections } = this.#client;
    const where = connections.indexOf(this.#connection!) + 1;
    this.complaints.push(`stream ${where} of ${connections.length}: ${topic} ${what}`);
  }
}

const standingAt = (epoch: number | undefined, seq: number): Standing => ({
  epoch,
  seq,
  last: undefined,
  isGone: false,
  restart: undefined,
});

const path = (topic: Name) => `/v0/topics/${topic}`;

function bodyOf(records: readonly ModelInput[], config: Config): string {
  const texts = records.map(
    ({ data, tag = null, node = null }) => `{"data":${data},${JSON.stringify({ tag, node }).slice(1)}`,
  );
  return `{"config":${JSON.stringify(config)},"records":[${texts}]}`;
}

async function quiet(isQuiet: () => Promise<boolean>): Promise<void> {
  const end = performance.now() + QUIET_MS;
  while (!(await isQuiet()) && performance.now() < end) await Bun.sleep(POLL_MS);
}

test(
  "what a client was told, put together, is what was appended and lived, or is accounted for",
  async () => {
    const history = fc
      .tuple(
        fc.tuple(config, config, config),
        fc.tuple(session, session),
        fc.array(step, { minLength: 5, maxLength: 40, size: "max" }),
      )
      .map(([configs, sessions, steps]): Step[] => [
        ...WRITTEN.map((topic, i): Step => ({ do: "drop", topic, again: true, config: configs[i]! })),
        { do: "connect" },
        ...sessions.map((session, client) => ({ ...session, client })),
        ...steps,
      ]);
    await fc.assert(
      fc.asyncProperty(history, async (steps) => {
        await using server = await Clocked.start();
        await using history = new History(server);
        await history.run(steps);
      }),
      runs(30),
    );
  },
  PATIENCE_MS,
);
