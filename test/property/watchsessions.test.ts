/**
 * How long watch sessions live, on a clock that the test sets: examples, and random histories against a plain model.
 *
 * A session is told to be gone when it is asked for; its place is free at the latest when the next one is made.
 */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import fc from "fast-check";
import { configFrom } from "../../src/config.ts";
import { createLogger } from "../../src/log.ts";
import { startServer } from "../../src/server.ts";
import { attempt, EventStream } from "../support/eventstream.ts";
import { type Reply, send } from "../support/request.ts";
import { temporaryDirectory } from "../support/spawn.ts";
import { until } from "../support/topics.ts";
import { PATIENCE_MS, runs } from "./host.ts";

setDefaultTimeout(30_000);

const START = 1_700_000_000_000;
const IDLE_MS = 300_000;
const SESSIONS_MAX = 3;
const STREAMS_MAX = 2;
const OWNER = { authorization: "Bearer owner" };

const NAMES = ["a", "b"] as const;
type Name = (typeof NAMES)[number];

/** Why an open is refused. */
type Refusal = "a bad Accept" | "no key" | "another key";

const refusals: Record<Refusal, { status: number; headers: Record<string, string> }> = {
  "a bad Accept": { status: 406, headers: { ...OWNER, accept: "application/json" } },
  "no key": { status: 401, headers: {} },
  "another key": { status: 401, headers: { authorization: "Bearer other" } },
};

/** A server in this process that takes `now` for the time, with both topics. */
class Clocked implements AsyncDisposable {
  now = START;
  readonly #parts: AsyncDisposableStack;
  #url = "";

  private constructor(parts: AsyncDisposableStack) {
    this.#parts = parts;
  }

  static async open(): Promise<Clocked> {
    await using parts = new AsyncDisposableStack();
    const { path } = parts.use(await temporaryDirectory());
    const config = configFrom({
      TOPICS_DATA_DIR: join(path, "data"),
      TOPICS_PORT: "0",
      RUST_LOG: "error",
      TOPICS_API_KEYS: "owner,other",
      TOPICS_MAX_WATCH_SESSIONS: `${SESSIONS_MAX}`,
      TOPICS_MAX_SSE_CONNECTIONS: `${STREAMS_MAX}`,
    });
    const clock = { now: () => START };
    const broken = (reason: unknown) => {
      throw reason;
    };
    const server = parts.use(
      await startServer(config, createLogger(config.logLevel), broken, () => clock.now()),
    );
    const clocked = new Clocked(parts.move());
    clock.now = () => clocked.now;
    clocked.#url = `http://${server.address}`;
    for (const name of NAMES) await clocked.send("PUT", `/v0/topics/${name}`, {});
    return clocked;
  }

  send = (method: string, path: string, body?: unknown): Promise<Reply> =>
    send(this.#url, method, path, body, OWNER);

  watch = (...names: Name[]): Promise<Reply> =>
    this.send("POST", "/v0/watch", { topics: Object.fromEntries(names.map((name) => [name, {}])) });

  /** The path of a new session's stream. */
  async session(...names: Name[]): Promise<string> {
    const reply = await this.watch(...names);
    if (reply.status !== 200) throw new Error(`refused with ${reply.status}: ${reply.text}`);
    return reply.body.stream_url;
  }

  stream = (path: string): Promise<EventStream> => EventStream.open(this.#url, path, OWNER);

  /** The status of an open that is to be refused. One that is not is closed again. */
  refused = async (path: string, headers: Record<string, string> = OWNER): Promise<number> =>
    (await attempt(this.#url, path, headers)).status;

  /** Sessions and open streams, as the metrics have it. */
  async gauges(): Promise<{ sessions: number; streams: number }> {
    const metrics = await send(this.#url, "GET", "/v0/metrics", undefined, {
      ...OWNER,
      accept: "application/json",
    });
    return { sessions: metrics.body.watch_sessions, streams: metrics.body.sse_connections };
  }

  /** Waits until the server knows that so many streams are open. */
  settled = (streams: number): Promise<unknown> =>
    until(
      () => this.gauges(),
      (found) => found.streams === streams,
    );

  [Symbol.asyncDispose](): Promise<void> {
    return this.#parts.disposeAsync();
  }
}

describe("a session", () => {
  test("05.45 lives for 300 s, and not a millisecond longer", async () => {
    await using server = await Clocked.open();
    const [kept, lost] = [await server.session("a"), await server.session("a")];
    server.now += IDLE_MS;
    const stream = await server.stream(kept);
    server.now += 1;
    expect(await server.refused(lost)).toBe(404);
    await stream.close();
  });

  test("05.45 is gone when another one is made, and its place is free", async () => {
    await using server = await Clocked.open();
    const first = await server.session("a");
    server.now += 1;
    for (let n = 1; n < SESSIONS_MAX; n++) await server.session("a");
    server.now += IDLE_MS - 1;
    expect((await server.watch("a")).status).toBe(429);
    server.now += 1;
    const next = await server.watch("a");
    expect(next.status).toBe(200);
    expect((await server.watch("a")).status).toBe(429);
    expect((await server.gauges()).sessions).toBe(SESSIONS_MAX);
    expect(await server.refused(first)).toBe(404);
  });

  test("05.45 with an open stream never expires, and lives for 300 s more when it closes", async () => {
    await using server = await Clocked.open();
    const [path, idle] = [await server.session("a"), await server.session("b")];
    const stream = await server.stream(path);
    server.now += 50 * IDLE_MS;
    expect((await server.watch("b")).status).toBe(200);
    expect((await server.gauges()).sessions).toBe(2);
    expect(await server.refused(idle)).toBe(404);
    await server.send("POST", "/v0/topics/a", { records: [{ data: "live" }] });
    while ((await stream.event()).event !== "record");
    await stream.close();
    await server.settled(0);
    server.now += IDLE_MS;
    const again = await server.stream(path);
    await again.close();
    await server.settled(0);
    server.now += IDLE_MS + 1;
    expect(await server.refused(path)).toBe(404);
  });

  test("05.45 lives while the last of its streams does", async () => {
    await using server = await Clocked.open();
    const path = await server.session("a");
    const [first, second] = [await server.stream(path), await server.stream(path)];
    await first.close();
    await server.settled(1);
    server.now += 3 * IDLE_MS;
    const third = await server.stream(path);
    for (const stream of [second, third]) await stream.close();
    await server.settled(0);
    server.now += IDLE_MS + 1;
    expect(await server.refused(path)).toBe(404);
  });

  test.each(Object.entries(refusals))("05 section 3.7 an open refused for %s is none", async (_, refusal) => {
    await using server = await Clocked.open();
    const path = await server.session("a");
    server.now += IDLE_MS;
    expect(await server.refused(path, refusal.headers)).toBe(refusal.status);
    server.now += 1;
    expect(await server.refused(path)).toBe(404);
  });

  test("05 section 3.7 an open refused for want of room is none", async () => {
    await using server = await Clocked.open();
    const [path, busy] = [await server.session("a"), await server.session("a")];
    const streams = [await server.stream(busy), await server.stream(busy)];
    server.now += IDLE_MS;
    expect(await server.refused(path)).toBe(429);
    server.now += 1;
    for (const stream of streams) await stream.close();
    await server.settled(0);
    expect(await server.refused(path)).toBe(404);
  });

  test("05 section 3.7 outlives its topics, and expires as every other", async () => {
    await using server = await Clocked.open();
    const path = await server.session("a");
    const stream = await server.stream(path);
    await server.send("DELETE", "/v0/topics/a");
    await stream.rest();
    await server.settled(0);
    server.now += IDLE_MS;
    const again = await server.stream(path);
    expect((await again.event()).event).toBe("topic-deleted");
    await again.rest();
    await server.settled(0);
    server.now += IDLE_MS + 1;
    expect(await server.refused(path)).toBe(404);
  });
});

type Step =
  | { readonly do: "watch"; readonly names: readonly Name[] }
  | { readonly do: "open" | "close"; readonly nth: number }
  | { readonly do: "refuse"; readonly nth: number; readonly refusal: Refusal }
  | { readonly do: "pass"; readonly ms: number }
  | { readonly do: "delete" | "create"; readonly name: Name };

interface Session {
  readonly path: string;
  readonly names: readonly Name[];
  /** When it was made, or a stream of it was opened or closed. */
  touched: number;
}

interface Open {
  readonly session: Session;
  readonly stream: EventStream;
  /** Topics that it still tells of. */
  readonly names: Set<Name>;
}

/** The laws, step by step beside a server. */
class History implements AsyncDisposable {
  readonly #server: Clocked;
  readonly #topics = new Set<Name>(NAMES);
  /** All that ever were, the newest first. */
  readonly #sessions: Session[] = [];
  #open: Open[] = [];

  constructor(server: Clocked) {
    this.#server = server;
  }

  async take(step: Step): Promise<void> {
    switch (step.do) {
      case "watch":
        await this.#watch(step.names);
        break;
      case "open":
        if (this.#sessions.length > 0) await this.#openStream(this.#nth(step.nth));
        break;
      case "close":
        if (this.#open.length > 0) await this.#close(this.#open[step.nth % this.#open.length]!);
        break;
      case "refuse":
        if (this.#sessions.length > 0) await this.#refuse(this.#nth(step.nth), step.refusal);
        break;
      case "pass":
        this.#server.now += step.ms;
        break;
      case "delete":
        await this.#delete(step.name);
        break;
      case "create":
        await this.#server.send("PUT", `/v0/topics/${step.name}`, {});
        this.#topics.add(step.name);
        break;
    }
    await this.#server.settled(this.#open.length);
    const { sessions } = await this.#server.gauges();
    expect(sessions).toBeGreaterThanOrEqual(this.#alive);
    expect(sessions).toBeLessThanOrEqual(SESSIONS_MAX);
  }

  get #alive(): number {
    return this.#sessions.filter((session) => this.#lives(session)).length;
  }

  /** An open stream keeps a session; without one it lives for 300 s. */
  #lives(session: Session): boolean {
    const isOpen = this.#open.some((open) => open.session === session);
    return isOpen || this.#server.now - session.touched <= IDLE_MS;
  }

  #nth(nth: number): Session {
    return this.#sessions[nth % this.#sessions.length]!;
  }

  async #watch(names: readonly Name[]): Promise<void> {
    const alive = this.#alive;
    const isKnown = names.every((name) => this.#topics.has(name));
    const { status, body } = await this.#server.watch(...names);
    expect(status).toBe(!isKnown ? 404 : alive < SESSIONS_MAX ? 200 : 429);
    if (status === 404) return;
    if (status === 200) {
      this.#sessions.unshift({ path: body.stream_url, names, touched: this.#server.now });
    }
    // What is gone takes no place any more.
    expect((await this.#server.gauges()).sessions).toBe(this.#alive);
  }

  async #openStream(session: Session): Promise<void> {
    const { path, names } = session;
    if (!this.#lives(session)) return expect(await this.#server.refused(path)).toBe(404);
    if (this.#open.length === STREAMS_MAX) return expect(await this.#server.refused(path)).toBe(429);
    const open = { session, stream: await this.#server.stream(path), names: new Set(names) };
    this.#open.push(open);
    session.touched = this.#server.now;
    for (let told = 0; told < names.length; ) {
      const { event, body } = await open.stream.event();
      if (event === "topic-deleted") open.names.delete(body.topic);
      if (event === "topic-deleted" || event === "caught-up") told++;
    }
    expect([...open.names]).toEqual(names.filter((name) => this.#topics.has(name)));
    if (open.names.size === 0) await this.#ends(open);
  }

  async #refuse(session: Session, refusal: Refusal): Promise<void> {
    const { status, headers } = refusals[refusal];
    const expected = status === 406 || this.#lives(session) ? status : 404;
    expect(await this.#server.refused(session.path, headers)).toBe(expected);
  }

  async #close(open: Open): Promise<void> {
    await open.stream.close();
    this.#forget(open);
  }

  async #delete(name: Name): Promise<void> {
    await this.#server.send("DELETE", `/v0/topics/${name}`);
    this.#topics.delete(name);
    for (const open of this.#open.filter(({ names }) => names.has(name))) {
      const { event, body } = await open.stream.event();
      expect([event, body.topic]).toEqual(["topic-deleted", name]);
      open.names.delete(name);
      if (open.names.size === 0) await this.#ends(open);
    }
  }

  /** The server ends it, as it has nothing more to tell. */
  async #ends(open: Open): Promise<void> {
    expect(await open.stream.rest()).toBe("");
    this.#forget(open);
  }

  #forget(open: Open): void {
    this.#open = this.#open.filter((other) => other !== open);
    open.session.touched = this.#server.now;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { stream } of this.#open) await stream.close();
  }
}

const nth = fc.nat(5);
const name = fc.constantFrom(...NAMES);
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({
      do: fc.constant("watch" as const),
      names: fc.subarray([...NAMES], { minLength: 1 }),
    }),
  },
  { weight: 6, arbitrary: fc.record({ do: fc.constant("open" as const), nth }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant("close" as const), nth }) },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant("refuse" as const),
      nth,
      refusal: fc.constantFrom(...(Object.keys(refusals) as Refusal[])),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant("pass" as const),
      ms: fc.constantFrom(1, 1, IDLE_MS / 3, IDLE_MS / 2, IDLE_MS - 1, IDLE_MS, IDLE_MS + 1),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("delete" as const), name }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("create" as const), name }) },
);

test(
  "05.45 sessions live as long as a stream or 300 s, whatever was refused, deleted or closed",
  async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 40, size: "max" }), async (steps) => {
        await using server = await Clocked.open();
        await using history = new History(server);
        for (const step of steps) await history.take(step);
      }),
      runs(30),
    );
  },
  PATIENCE_MS,
);
