/**
 * Random commands on one socket, most of them pipelined, against the plainest model there is: for each topic the
 * list of all its records.
 *
 * The answers come in the order of the commands and say what the model says. Between the `subscribed` that begins a
 * subscription and what ends it, its frames bring every record once and in order, and nothing else. What the cap
 * took away before it could be sent is named by a tombstone.
 */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import fc from "fast-check";
import { elements, members } from "../support/rawjson.ts";
import { startServer, type TestServer } from "../support/server.ts";
import { type Message, SocketClient } from "../support/socket.ts";
import { PATIENCE_MS, runs } from "./host.ts";

setDefaultTimeout(30_000);

const CAP_RECORDS = 25;
/** The topics of a history, each with its config. */
const CONFIGS = {
  a: {},
  b: { cap_records: CAP_RECORDS },
  c: { durability: "fsync" },
};
const TOPICS = ["a", "b", "c"] as const;
const ABSENT = "absent";
type Name = (typeof TOPICS)[number];

interface Input {
  /** Its text. */
  readonly data: string;
  readonly tag: string | undefined;
  readonly node: string | undefined;
}

/** Where to begin: behind a seq, at the tail, or beyond the head. */
type Start = number | "tail" | "beyond";

interface Options {
  readonly limit: number;
  readonly node: string | undefined;
  readonly tags: boolean;
}

type Step =
  | {
      do: "subscribe";
      topics: Partial<Record<Name, Start>>;
      options: Options;
      unknown: "none" | "strict" | "lenient";
    }
  | { do: "unsubscribe"; topics: Name[] }
  | { do: "publish"; topic: Name; records: Input[]; times: number; key: string | undefined }
  | { do: "ping" }
  | { do: "wrong"; command: string }
  /** Somebody else writes, when all answers to the commands before are here. */
  | { do: "write"; topic: Name; records: Input[] }
  /** Deletes records that all subscriptions have got. */
  | { do: "erase"; topic: "a" | "c"; before: number }
  | { do: "recreate"; topic: Name }
  | { do: "wait" };

const optional = <T>(value: fc.Arbitrary<T>) => fc.option(value, { nil: undefined });
const topic = fc.constantFrom(...TOPICS);
const records = fc.array(
  fc.record<Input>({
    data: fc.constantFrom("1", "1.0", '{"k": [1,\n-0]}', '"é😀\\u0000"', `"${"x".repeat(5000)}"`, "null"),
    tag: fc.constantFrom(undefined, "t", ""),
    node: fc.constantFrom(undefined, "n1", "n2"),
  }),
  { minLength: 1, maxLength: 5 },
);
const start = fc.oneof(fc.nat(30), fc.constantFrom<Start>("tail", "beyond"));
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant("subscribe" as const),
      topics: fc
        .dictionary(topic, start, { minKeys: 1 })
        .map((chosen) => ({ ...chosen }) as Partial<Record<Name, Start>>),
      options: fc.record({
        limit: fc.constantFrom(1, 2, 7, 1000),
        node: optional(fc.constantFrom("n1", "n2")),
        tags: fc.boolean(),
      }),
      unknown: fc.constantFrom("none", "none", "none", "strict", "lenient"),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant("unsubscribe" as const),
      topics: fc.uniqueArray(topic, { minLength: 1 }),
    }),
  },
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constant("publish" as const),
      topic,
      records,
      times: fc.constantFrom(1, 1, 1, 20),
      key: optional(fc.constantFrom("k1", "k2")),
    }),
  },
  { weight: 2, arbitrary: fc.constant<Step>({ do: "ping" }) },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant("wrong" as const),
      command: fc.constantFrom("{", '{"op":"publish"}', '{"op":"subscribe","limit":"1"}', "[]"),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("write" as const), topic, records }) },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant("erase" as const),
      topic: fc.constantFrom("a" as const, "c" as const),
      before: fc.nat(40),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("recreate" as const), topic }) },
  { weight: 1, arbitrary: fc.constant<Step>({ do: "wait" }) },
);

interface Stored extends Input {
  readonly seq: number;
  isErased: boolean;
}

/** One life of a topic. */
class Life {
  readonly epoch: number;
  readonly records: Stored[] = [];
  readonly keys = new Map<string, { first: number; count: number; head: number }>();
  readonly #cap: number | undefined;

  constructor(epoch: number, cap: number | undefined) {
    this.epoch = epoch;
    this.#cap = cap;
  }

  get head(): number {
    return this.records.length;
  }

  /** The cap has taken everything up to here. */
  get floor(): number {
    return Math.max(0, this.head - (this.#cap ?? this.head));
  }

  get earliest(): number {
    const live = this.records.find(({ seq, isErased }) => seq > this.floor && !isErased);
    return live?.seq ?? this.head + 1;
  }

  store(inputs: readonly Input[], key?: string) {
    const first = this.head + 1;
    for (const input of inputs) this.records.push({ ...input, seq: this.head + 1, isErased: false });
    const stored = { first, count: inputs.length, head: this.head };
    if (key !== undefined) this.keys.set(key, stored);
    return stored;
  }
}

/** What a frame says of one record. */
interface Delivered {
  readonly seq: number;
  readonly data: string;
  readonly tag: string | undefined;
  readonly node: string | undefined;
}

/** One subscription, from its `subscribed` to its end. */
class Following {
  /** The topic is deleted: any of the rest may come, then the word of it. */
  isDoomed = false;
  isOver = false;
  readonly #topic: Life;
  readonly #options: Options;
  /** Everything up to here was delivered, is filtered or was named by a tombstone. */
  #at: number;
  /** A tombstone has to come first. */
  #isAmiss: boolean;
  /** What the next frame begins behind, or later; undefined where anything goes. */
  #from: number | undefined;
  #isCaughtUp = false;

  constructor(topic: Life, from: number, head: number, options: Options) {
    this.#topic = topic;
    this.#options = options;
    this.#isAmiss = from > head;
    this.#at = from;
    this.#from = from;
  }

  get isDone(): boolean {
    if (this.isDoomed) return false;
    return this.#isCaughtUp && this.#expected(this.#at, this.#topic.head).length === 0;
  }

  take({ text, body }: Message): void {
    if (body.op === "topic_deleted") {
      expect(body).toMatchObject({ head_seq: 0, reason: "deleted" });
      expect(this.isDoomed).toBe(true);
      this.isOver = true;
    } else if (body.op === "tombstone") {
      if (this.#isAmiss) this.#takeRecreated(body);
      else this.#takeCap(body);
      this.#from = undefined;
      this.#isCaughtUp = false;
    } else {
      expect(this.#isAmiss).toBe(false);
      if (body.op === "record") this.#takeRecords(text, body);
      else this.#takeCaughtUp(body);
    }
  }

  #takeRecreated(body: Message["body"]): void {
    const { head_seq, earliest_seq } = body;
    expect(body).toMatchObject({ reason: "recreated", gap_from: 1, gap_to: head_seq });
    // The cap may have taken more by now.
    expect(earliest_seq).toBeLessThanOrEqual(this.#topic.earliest);
    this.#isAmiss = false;
    this.#at = earliest_seq - 1;
  }

  #takeCap(body: Message["body"]): void {
    const { gap_from, gap_to } = body;
    expect(body).toMatchObject({ reason: "cap", earliest_seq: gap_to + 1 });
    expect(gap_from).toBeGreaterThan(this.#at);
    expect(this.#expected(this.#at, gap_from - 1)).toEqual([]);
    expect(gap_to).toBeGreaterThanOrEqual(gap_from);
    expect(gap_to).toBeLessThanOrEqual(this.#topic.floor);
    this.#at = gap_to;
  }

  #takeRecords(text: string, { from_seq, to_seq, head_seq }: Message["body"]): void {
    const found = elements(members(text).get("records")!).map(deliveredIn);
    expect(found.length).toBeGreaterThan(0);
    expect(found.length).toBeLessThanOrEqual(this.#options.limit);
    expect(found).toEqual(this.#expected(this.#at, to_seq));
    expect(to_seq).toBeGreaterThanOrEqual(found.at(-1)!.seq);
    expect(head_seq).toBeGreaterThanOrEqual(to_seq);
    if (this.#from !== undefined) {
      // It may have moved on without a word over records that are filtered.
      expect(from_seq).toBeGreaterThanOrEqual(this.#from);
      expect(from_seq).toBeLessThan(found[0]!.seq);
    }
    this.#from = to_seq;
    this.#at = to_seq;
    this.#isCaughtUp = false;
  }

  #takeCaughtUp({ op, head_seq }: Message["body"]): void {
    expect(op).toBe("caught_up");
    // Once for each change from behind to at head.
    expect(this.#isCaughtUp).toBe(false);
    expect(head_seq).toBeGreaterThanOrEqual(this.#at);
    expect(head_seq).toBeLessThanOrEqual(this.#topic.head);
    expect(this.#expected(this.#at, head_seq)).toEqual([]);
    this.#at = head_seq;
    this.#isCaughtUp = true;
  }

  /** What belongs between two places. */
  #expected(after: number, to: number): Delivered[] {
    const { node: own, tags } = this.#options;
    return this.#topic.records
      .slice(after, to)
      .filter(({ node, isErased }) => !isErased && (own === undefined || node !== own))
      .map(({ seq, data, tag, node }) => ({ seq, data, tag: tags ? tag : undefined, node }));
  }
}

function deliveredIn(record: string): Delivered {
  const fields = members(record);
  const parsed = (name: string) => (fields.has(name) ? JSON.parse(fields.get(name)!) : undefined);
  return { seq: parsed("$seq"), data: fields.get("data")!, tag: parsed("$tag"), node: parsed("$node") };
}

let histories = 0;

class History implements AsyncDisposable {
  readonly #server: TestServer;
  readonly #socket: SocketClient;
  readonly #prefix = `h${++histories}.`;
  readonly #topics = new Map<string, Life>();
  readonly #following = new Map<string, Following>();
  /** What the answers that are due must be, and what changes when each has come. */
  readonly #due: { answer: object; apply?: () => void }[] = [];
  #commands = 0;

  private constructor(server: TestServer, socket: SocketClient) {
    this.#server = server;
    this.#socket = socket;
  }

  static async open(server: TestServer): Promise<History> {
    const history = new History(server, await SocketClient.open(server.url));
    for (const topic of TOPICS) await history.#create(topic);
    return history;
  }

  async run(steps: readonly Step[]): Promise<void> {
    for (const step of steps) await this.#take(step);
    await this.#catchUp();
    // Whatever still comes must be right, too.
    await this.#take({ do: "ping" });
    await this.#answered();
  }

  async #create(topic: Name): Promise<void> {
    const { status, body } = await this.#server.send("PUT", this.#path(topic), CONFIGS[topic]);
    expect(status).toBe(201);
    this.#topics.set(this.#name(topic), new Life(body.epoch, body.config.cap_records || undefined));
  }

  #name = (topic: string): string => this.#prefix + topic;
  #path = (topic: Name): string => `/v0/topics/${this.#name(topic)}`;
  #life = (topic: Name): Life => this.#topics.get(this.#name(topic))!;

  async #take(step: Step): Promise<void> {
    switch (step.do) {
      case "subscribe":
        return this.#subscribe(step);
      case "unsubscribe": {
        const topics = step.topics.map(this.#name);
        return this.#say({ op: "unsubscribe", topics }, { op: "unsubscribed", topics }, () => {
          for (const name of topics) this.#following.delete(name);
        });
      }
      case "publish":
        return this.#publish(step);
      case "ping":
        return this.#say({ op: "ping" }, { op: "pong" });
      case "wrong":
        this.#socket.say(step.command);
        this.#due.push({ answer: { op: "error", request_id: null, code: "invalid_json" } });
        return;
      case "write": {
        await this.#answered();
        // Known before it is written: the frame may be here before the answer.
        const { first } = this.#life(step.topic).store(step.records);
        const body = `{"records":[${step.records.map(spelled).join()}]}`;
        const reply = await this.#server.send("POST", this.#path(step.topic), body);
        expect(reply).toMatchObject({ status: 200, body: { first_seq: first } });
        return;
      }
      case "erase": {
        await this.#catchUp();
        const { topic, before } = step;
        const reply = await this.#server.send("POST", `${this.#path(topic)}/delete`, { before_seq: before });
        const life = this.#life(topic);
        for (const record of life.records) record.isErased ||= record.seq < before;
        expect(reply.body.earliest_seq).toBe(life.earliest);
        return;
      }
      case "recreate": {
        await this.#answered();
        const following = this.#following.get(this.#name(step.topic));
        if (following) following.isDoomed = true;
        await this.#server.send("DELETE", this.#path(step.topic));
        return this.#create(step.topic);
      }
      case "wait":
        return this.#catchUp();
    }
  }

  #say(command: object, answer: object, apply = () => {}): void {
    const request_id = ++this.#commands;
    this.#socket.say({ ...command, request_id });
    this.#due.push({ answer: { ...answer, request_id }, apply });
  }

  #subscribe({ topics, options, unknown }: Extract<Step, { do: "subscribe" }>): void {
    const starts = Object.entries(topics).map(([topic, from]) => {
      const name = this.#name(topic);
      const life = this.#topics.get(name)!;
      const { head, earliest, epoch } = life;
      const place = from === "tail" ? head : from === "beyond" ? head + 5 : from;
      const spelled = from === "tail" ? { tail: true } : { from_seq: place };
      const entry = { from_seq: place, head_seq: head, earliest_seq: earliest, epoch };
      return { name, life, head, place, spelled, entry };
    });
    const asked = Object.fromEntries(starts.map(({ name, spelled }) => [name, spelled]));
    const { limit, node, tags } = options;
    const command = {
      op: "subscribe",
      topics: unknown === "none" ? asked : { ...asked, [this.#name(ABSENT)]: {} },
      limit,
      include_tags: tags,
      ...(node === undefined ? {} : { node }),
      ...(unknown === "lenient" ? { lenient: true } : {}),
    };
    if (unknown === "strict") {
      this.#say(command, { op: "error", code: "topic_not_found" });
      return;
    }
    const entries = Object.fromEntries(starts.map(({ name, entry }) => [name, entry]));
    this.#say(command, { op: "subscribed", topics: entries }, () => {
      for (const { name, life, head, place } of starts) {
        this.#following.set(name, new Following(life, place, head, options));
      }
    });
  }

  #publish({ topic, records, times, key }: Extract<Step, { do: "publish" }>): void {
    const request_id = ++this.#commands;
    const name = this.#name(topic);
    const inputs = Array.from({ length: times }, () => records).flat();
    const idempotency = key === undefined ? "" : `,"idempotency_key":"${key}"`;
    const list = inputs.map(spelled).join(", ");
    this.#socket.say(
      `{"op":"publish","request_id":${request_id},"topic":"${name}"${idempotency},"records":[${list}]}`,
    );
    const life = this.#life(topic);
    const used = key === undefined ? undefined : life.keys.get(key);
    const { first, count, head } = used ?? life.store(inputs, key);
    const answer = {
      op: "ack",
      request_id,
      topic: name,
      first_seq: first,
      last_seq: first + count - 1,
      seqs: Array.from({ length: count }, (_, i) => first + i),
      head_seq: head,
      count,
      created: false,
      deduped: used !== undefined,
    };
    this.#due.push({ answer });
  }

  /** Takes messages until every command is answered. */
  async #answered(): Promise<void> {
    while (this.#due.length > 0) await this.#takeMessage();
  }

  /** Takes messages until every command is answered and every subscription has all it must get. */
  async #catchUp(): Promise<void> {
    await this.#answered();
    while (![...this.#following.values()].every(({ isDone }) => isDone)) await this.#takeMessage();
  }

  async #takeMessage(): Promise<void> {
    const message = await this.#socket.next();
    const { body } = message;
    if ("request_id" in body) {
      const { answer, apply } = this.#due.shift()!;
      expect(body).toMatchObject(answer);
      apply?.();
    } else {
      const following = this.#following.get(body.topic);
      // Nothing comes of a topic that is not followed.
      expect([body.op, body.topic, following !== undefined]).toEqual([body.op, body.topic, true]);
      following!.take(message);
      if (following!.isOver) this.#following.delete(body.topic);
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#socket.close();
  }
}

function spelled({ data, tag, node }: Input): string {
  const rest = JSON.stringify({ tag, node }).slice(1);
  return `{"data": ${data}${rest === "}" ? "" : ","}${rest}`;
}

let server: TestServer;
beforeAll(async () => {
  server = await startServer();
});
afterAll(() => server[Symbol.asyncDispose]());

test(
  "05.51 05.55 whatever is asked of a socket, answers are in order and each subscription gets every record once",
  async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 40 }), async (steps) => {
        await using history = await History.open(server);
        await history.run(steps);
      }),
      runs(60),
    );
  },
  PATIENCE_MS,
);
