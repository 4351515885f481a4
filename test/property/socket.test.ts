/**
 * Random commands on one socket, most of them pipelined, against the plainest model there is: for each topic the
 * list of its records.
 *
 * The answers come in the order of the commands and say what the model says. Between the `subscribed` that begins a
 * subscription and the answer that ends it, its frames bring every record once and in order, and nothing else.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import fc from "fast-check";
import { elements, members } from "../support/rawjson.ts";
import { startServer, type TestServer } from "../support/server.ts";
import { type Message, SocketClient } from "../support/socket.ts";
import { PATIENCE_MS, runs } from "./host.ts";

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
  { weight: 1, arbitrary: fc.constant<Step>({ do: "wait" }) },
);

interface Stored extends Input {
  readonly seq: number;
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
  readonly #all: readonly Stored[];
  readonly #options: Options;
  /** Everything up to here was delivered or is filtered. */
  #at: number;
  /** A tombstone has to come first. */
  #isAmiss: boolean;
  /** What the next frame says that it begins behind; undefined where anything goes. */
  #from: number | undefined;
  #isCaughtUp = false;

  constructor(all: readonly Stored[], from: number, head: number, options: Options) {
    this.#all = all;
    this.#options = options;
    this.#isAmiss = from > head;
    this.#at = this.#isAmiss ? 0 : from;
    this.#from = this.#isAmiss ? undefined : from;
  }

  get isDone(): boolean {
    return this.#isCaughtUp && this.#expected(this.#at, this.#all.length).length === 0;
  }

  take({ text, body }: Message): void {
    expect(body.op === "tombstone").toBe(this.#isAmiss);
    if (body.op === "tombstone") this.#takeTombstone(body);
    else if (body.op === "record") this.#takeRecords(text, body);
    else this.#takeCaughtUp(body);
  }

  #takeTombstone(body: Message["body"]): void {
    expect(body).toMatchObject({ reason: "recreated", gap_from: 1, gap_to: body.head_seq, earliest_seq: 1 });
    this.#isAmiss = false;
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
    expect(head_seq).toBeLessThanOrEqual(this.#all.length);
    expect(this.#expected(this.#at, head_seq)).toEqual([]);
    this.#at = head_seq;
    this.#isCaughtUp = true;
  }

  /** What belongs between two places. */
  #expected(after: number, to: number): Delivered[] {
    const { node: own, tags } = this.#options;
    return this.#all
      .slice(after, to)
      .filter(({ node }) => own === undefined || node !== own)
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
  readonly #topics = new Map<string, Stored[]>();
  readonly #keys = new Map<string, { first: number; count: number; head: number }>();
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
    for (const topic of TOPICS) {
      const name = history.#name(topic);
      await server.send("PUT", `/v0/topics/${name}`, { durability: topic === "c" ? "fsync" : "disk" });
      history.#topics.set(name, []);
    }
    return history;
  }

  async run(steps: readonly Step[]): Promise<void> {
    for (const step of steps) await this.#take(step);
    await this.#catchUp();
    expect(await this.#socket.arrived()).toEqual([]);
  }

  #name = (topic: string): string => this.#prefix + topic;

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
        const name = this.#name(step.topic);
        const inputs = step.records;
        // Known before it is written: the frame may be here before the answer.
        const { first } = this.#store(name, inputs);
        const body = `{"records":[${inputs.map(spelled).join()}]}`;
        const reply = await this.#server.send("POST", `/v0/topics/${name}`, body);
        expect(reply).toMatchObject({ status: 200, body: { first_seq: first } });
        return;
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
      const all = this.#topics.get(name)!;
      const head = all.length;
      const place = from === "tail" ? head : from === "beyond" ? head + 5 : from;
      return { name, all, head, place, spelled: from === "tail" ? { tail: true } : { from_seq: place } };
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
    const entries = starts.map(({ name, head, place }) => [
      name,
      { from_seq: place, head_seq: head, earliest_seq: 1, epoch: expect.any(Number) },
    ]);
    this.#say(command, { op: "subscribed", topics: Object.fromEntries(entries) }, () => {
      for (const { name, all, head, place } of starts)
        this.#following.set(name, new Following(all, place, head, options));
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
    const used = key === undefined ? undefined : this.#keys.get(`${name} ${key}`);
    const stored = used ?? this.#store(name, inputs);
    if (key !== undefined) this.#keys.set(`${name} ${key}`, stored);
    const { first, count, head } = stored;
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

  #store(name: string, inputs: readonly Input[]) {
    const all = this.#topics.get(name)!;
    const first = all.length + 1;
    for (const input of inputs) all.push({ ...input, seq: all.length + 1 });
    return { first, count: inputs.length, head: all.length };
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
