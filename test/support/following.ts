/**
 * The story of a client that follows topics while records are appended the whole time.
 *
 * On the way its connection is cut in the middle, or the server restarts. In the end it has every record once, in
 * order, with the text that was written.
 */
import { expect } from "bun:test";
import { join } from "node:path";
import { Dice } from "./dice.ts";
import { TcpProxy } from "./proxy.ts";
import { elements, members } from "./rawjson.ts";
import { send } from "./request.ts";
import { freePort, type SpawnedServer, spawnServer, temporaryDirectory } from "./spawn.ts";
import { until } from "./topics.ts";

/** `TEST_SEED` repeats payloads and cuts. */
const seed = Number(process.env.TEST_SEED ?? crypto.getRandomValues(new Uint32Array(1))[0]);
console.info(`TEST_SEED=${seed}`);

/** From one batch to the next. */
const PAUSE_MS = 15;
const BATCH_MAX = 4;
/** A client comes back after 2 s, and once more if the server was not there yet. */
const DEADLINE_MS = 15_000;

export type Trouble = "cuts" | "restarts";

export interface Followed {
  /** Where the client opens its streams. */
  readonly streams: string;
  /** The server itself. */
  readonly api: string;
  readonly topics: readonly string[];
  /** To be called with every event that the client gets, a command's name on a WebSocket. */
  told(event: string, data: string): void;
}

export type Client = (followed: Followed) => AsyncDisposable | Promise<AsyncDisposable>;

export interface Story {
  readonly topics: readonly string[];
  readonly client: Client;
  readonly env?: Record<string, string>;
  /** Of those who write. */
  readonly headers?: Record<string, string>;
  /** How often the cuts are gone through. */
  readonly rounds?: number;
}

/** Where a stream of these topics begins. */
export type Places = Record<string, { readonly from_seq: number; readonly epoch?: number }>;

/** Where a client stands that was given this id last; at the start if it was given none. */
export function placesIn(id: string | undefined, topics: readonly string[]): Places {
  const { $epochs, ...seqs } = id ? JSON.parse(Buffer.from(id, "base64url").toString()) : { $epochs: {} };
  return Object.fromEntries(
    topics.map((topic) => {
      const from = { from_seq: seqs[topic] ?? 0 };
      return [topic, topic in $epochs ? { ...from, epoch: $epochs[topic] } : from];
    }),
  );
}

/** Makes a watch and gives the path of its stream, however often the server has to be asked. */
export async function watchFrom(
  api: string,
  places: Places,
  headers: Record<string, string> = {},
): Promise<string> {
  for (;;) {
    const reply = await send(api, "POST", "/v0/watch", { topics: places }, headers).catch(() => undefined);
    if (reply?.status === 200) return reply.body.stream_url;
    if (reply && reply.status !== 503) throw new Error(`refused with ${reply.status}: ${reply.text}`);
    await Bun.sleep(50);
  }
}

let stories = 0;

/** Tells the story and expects its end. */
export async function expectEverything(trouble: Trouble, story: Story): Promise<void> {
  const { topics, client, env, headers, rounds = 1 } = story;
  await using parts = new AsyncDisposableStack();
  const dice = new Dice(seed + 1000 * stories++);
  const host = parts.use(await Host.start(env));
  const proxy = parts.use(await TcpProxy.open(host.url));
  const account = new Account();
  const writer = parts.use(await Writer.start(host.url, topics, dice, headers));
  const followed = { streams: proxy.url, api: host.url, topics, told: account.take };
  parts.use(await client(followed));
  const expectCaughtUp = () => account.untilAt(writer.heads());

  await expectCaughtUp();
  await (trouble === "cuts" ? cuts(proxy, dice, rounds) : restarts(host, expectCaughtUp));
  await expectCaughtUp();
  await writer.stop();
  await expectCaughtUp();
  expect({ seed, wrong: account.complaints.slice(0, 5) }).toEqual({ seed, wrong: [] });
  expect({ seed, differs: firstDifference(account, writer) }).toEqual({ seed, differs: undefined });
}

/** While the client is up to date, among the first bytes of an answer, and twice in what came meanwhile. */
async function cuts(proxy: TcpProxy, dice: Dice, rounds: number): Promise<void> {
  for (let round = 0; round < rounds; round++) {
    for (const end of [20_000, 400, 100_000, 20_000]) {
      await proxy.cutAfter(dice.below(end), dice.pick(["end", "reset"]));
    }
  }
}

async function restarts(host: Host, expectCaughtUp: () => Promise<void>): Promise<void> {
  await host.restart("SIGTERM");
  await expectCaughtUp();
  await host.restart("SIGKILL");
}

/** A server that keeps its port and its data from one process to the next. */
class Host implements AsyncDisposable {
  readonly #parts = new AsyncDisposableStack();
  readonly #start: () => Promise<SpawnedServer>;
  #server!: SpawnedServer;

  private constructor(start: () => Promise<SpawnedServer>) {
    this.#start = start;
  }

  static async start(env: Record<string, string> = {}): Promise<Host> {
    const dir = await temporaryDirectory();
    const settings = { dir: join(dir.path, "data"), env: { ...env, TOPICS_PORT: `${freePort()}` } };
    const host = new Host(() => spawnServer(settings));
    host.#parts.use(dir);
    host.#server = await host.#start();
    return host;
  }

  get url(): string {
    return this.#server.url;
  }

  async restart(signal: NodeJS.Signals): Promise<void> {
    await this.#server.stop(signal);
    this.#server = await this.#start();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server[Symbol.asyncDispose]();
    await this.#parts.disposeAsync();
  }
}

/** The texts of a record. */
interface Payload {
  readonly data: string | undefined;
  readonly meta: string | undefined;
}

/** What a stream could get wrong: line breaks, what looks like a field, names twice, numbers, escapes. */
const shapes: ((n: number) => string)[] = [
  (n) => `{"n":${n}}`,
  (n) => `[${n}, 1.0, -0, 1e3, 12345678901234567890, 0.1000]`,
  (n) => `{"twice":${n},"b":null,"a":true,"twice":"again"}`,
  (n) => `{\n  "n": ${n},\n\n  "lines":\t[\n"id: 1",\n"event: record",\n"data: x"\n]\n}`,
  (n) => `"${n} \\r\\n\\n \\u0000 \\ud83d\\ude00 \\/ data: x"`,
  (n) => JSON.stringify(`${n} é 漢 😀 \u2028 \u2029 \ufeff \u0085`),
];
/** One in so many is longer than any buffer on its way. */
const LONG_EVERY = 50;
const longShape = (n: number) => `{"n":${n},"long":"${"0123456789".repeat(10_000)}"}`;

/** Appends to all topics in turn, without an end. A batch that got no answer is sent again. */
class Writer implements AsyncDisposable {
  /** What was acknowledged, by topic; the seqs count from 1. */
  readonly written: ReadonlyMap<string, Payload[]>;
  readonly #send: (path: string, body?: string, method?: string) => ReturnType<typeof send>;
  readonly #dice: Dice;
  #records = 0;
  #ending = false;
  #ended!: Promise<void>;

  private constructor(url: string, topics: readonly string[], dice: Dice, headers: Record<string, string>) {
    this.#send = (path, body, method = "POST") => send(url, method, path, body, headers);
    this.#dice = dice;
    this.written = new Map(topics.map((topic) => [topic, []]));
  }

  /** Makes the topics and begins. */
  static async start(
    url: string,
    topics: readonly string[],
    dice: Dice,
    headers: Record<string, string> = {},
  ): Promise<Writer> {
    const writer = new Writer(url, topics, dice, headers);
    for (const topic of topics) await writer.#send(`/v0/topics/${topic}`, "{}", "PUT");
    writer.#ended = writer.#run();
    writer.#ended.catch(() => {});
    return writer;
  }

  /** The last seqs, by topic. */
  heads = (): Map<string, number> =>
    new Map([...this.written].map(([topic, payloads]) => [topic, payloads.length]));

  /** Ends behind the batch that is under way; throws if one was refused. */
  async stop(): Promise<void> {
    this.#ending = true;
    await this.#ended;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop().catch(() => {});
  }

  async #run(): Promise<void> {
    for (let batch = 0; ; batch++) {
      for (const [topic, payloads] of this.written) {
        if (this.#ending) return;
        const added = Array.from({ length: 1 + this.#dice.below(BATCH_MAX) }, () => this.#payload());
        const body = `{"idempotency_key":"b${batch}","records":[${added.map(textOf).join()}]}`;
        const first = await this.#append(topic, body);
        if (first !== payloads.length + 1) throw new Error(`seq ${first} behind ${payloads.length}`);
        payloads.push(...added);
      }
      await Bun.sleep(PAUSE_MS);
    }
  }

  #payload(): Payload {
    const n = ++this.#records;
    const shape = n % LONG_EVERY === 0 ? longShape : this.#dice.pick(shapes);
    return { data: shape(n), meta: n % 3 === 0 ? `{"n": ${n}}` : undefined };
  }

  async #append(topic: string, body: string): Promise<number> {
    for (;;) {
      const reply = await this.#send(`/v0/topics/${topic}`, body).catch(() => undefined);
      if (reply?.status === 200) return reply.body.first_seq;
      if (reply && reply.status !== 503) throw new Error(`refused with ${reply.status}: ${reply.text}`);
      if (this.#ending) throw new Error("a batch was never answered");
      await Bun.sleep(PAUSE_MS);
    }
  }
}

const textOf = ({ data, meta }: Payload) => `{"data":${data}${meta === undefined ? "" : `,"meta":${meta}`}}`;

/** What a client was told. */
class Account {
  readonly complaints: string[] = [];
  readonly seen = new Map<string, Payload[]>();
  /** The heads of the last `caught-up`, by topic. */
  readonly #caughtUp = new Map<string, number>();

  take = (event: string, data: string): void => {
    const fields = members(data);
    const number = (name: string) => Number(fields.get(name));
    const topic = JSON.parse(fields.get("topic") ?? "null");
    const payloads = this.seen.get(topic) ?? [];
    this.seen.set(topic, payloads);
    const complain = () => this.complaints.push(`behind ${payloads.length}: ${event} ${data.slice(0, 300)}`);
    if (event === "record") {
      if (number("from_seq") !== payloads.length) complain();
      for (const record of elements(fields.get("records")!).map(members)) {
        if (Number(record.get("$seq")) !== payloads.length + 1) complain();
        payloads.push({ data: record.get("data"), meta: record.get("meta") });
      }
      if (number("to_seq") !== payloads.length) complain();
    } else if (event === "caught-up" || event === "caught_up") {
      if (number("head_seq") !== payloads.length) complain();
      this.#caughtUp.set(topic, number("head_seq"));
    } else if (event !== "subscribed" && fields.get("code") !== '"server_shutting_down"') {
      complain();
    }
  };

  /** Waits until it has heard of these heads or later ones, and that nothing is missing before them. */
  async untilAt(heads: ReadonlyMap<string, number>): Promise<void> {
    const state = async () => ({
      behind: [...heads].filter(([topic, head]) => (this.#caughtUp.get(topic) ?? -1) < head),
      wrong: this.complaints.slice(0, 5),
    });
    await until(state, ({ behind }) => behind.length === 0, DEADLINE_MS);
  }
}

/** The first record that is not as it was written, with as much of both as tells them apart. */
function firstDifference(account: Account, writer: Writer) {
  for (const [topic, payloads] of writer.written) {
    const seen = account.seen.get(topic) ?? [];
    for (let i = 0; i < Math.max(seen.length, payloads.length); i++) {
      const [got, wrote] = [seen[i], payloads[i]].map((payload) => payload && textOf(payload));
      if (got !== wrote) return { topic, seq: i + 1, got: got?.slice(0, 300), wrote: wrote?.slice(0, 300) };
    }
  }
  return undefined;
}
