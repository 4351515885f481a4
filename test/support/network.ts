/**
 * Instances that gossip with each other, by name.
 *
 * A name keeps its port and its data directory for as long as the network lives, so an instance that was
 * stopped or killed comes back as the one it was. Words that prepare something throw on a refusal.
 */
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Cursor, Message, Row } from "./feeds.ts";
import { type Reply, send, startServer, type TestServer } from "./server.ts";
import { type SpawnedServer, temporaryDirectory } from "./spawn.ts";
import { until } from "./topics.ts";

/** Short, so that a test need not wait for what comes with the next interval. */
export const INTERVAL_MS = 200;

export const NETWORK = "net:tests";

/** Everything has to be there after this time, on a busy machine too. */
const DEADLINE_MS = 15_000;

const POSTS_AT_A_TIME = 16;

/** Between two looks at much, so that looking does not keep the instances busy. */
const LOOK_MS = 50;

type Environment = Record<string, string>;

export type Start = (env: Environment) => Promise<TestServer>;

/** The peers that each name lists, in this order: names, or URLs of something else. */
export type Links = Record<string, readonly string[]>;

export interface Lane {
  readonly feed_key: string;
  readonly scope_hint: string;
}

export interface PeerStatus {
  readonly url: string;
  readonly node_id: string | null;
  readonly connected: boolean;
  readonly out_seq: number;
  readonly last_ok_at: number | null;
  readonly last_error: string | null;
}

export interface Status {
  readonly node_id: string;
  readonly network_id: string;
  readonly log_id: string;
  readonly head_seq: number;
  readonly peers: PeerStatus[];
}

/** A lane that every instance of any test may use. */
export const lane = (feed_key: string, scope_hint = "group:crew"): Lane => ({ feed_key, scope_hint });

/** Neighbours list each other. */
export function chain(...names: string[]): Links {
  return Object.fromEntries(
    names.map((name, i) => [name, [names[i - 1], names[i + 1]].filter((peer) => peer !== undefined)]),
  );
}

/** A chain whose ends list each other, too. */
export function ring(...names: string[]): Links {
  const at = (i: number) => names[(i + names.length) % names.length]!;
  return Object.fromEntries(names.map((name, i) => [name, [at(i - 1), at(i + 1)]]));
}

/** The middle and each of the others list each other. */
export function star(middle: string, ...others: string[]): Links {
  return { [middle]: others, ...Object.fromEntries(others.map((name) => [name, [middle]])) };
}

/**
 * A port that stays free while nobody listens on it: it lies below those that the system gives to connections and
 * to listeners that ask for any.
 */
function keptPort(): number {
  for (;;) {
    const port = 10_000 + Math.floor(Math.random() * 20_000);
    try {
      Bun.listen({ hostname: "127.0.0.1", port, socket: { data() {} } }).stop(true);
      return port;
    } catch {
      // Somebody has it.
    }
  }
}

export class Network implements AsyncDisposable {
  readonly #start: Start;
  readonly #env: Environment;
  readonly #parts = new AsyncDisposableStack();
  readonly #ports = new Map<string, number>();
  readonly #instances = new Map<string, Instance>();
  #directory: string | undefined;

  /** `env` is for all of them. Instances that are to be killed need `spawnServer` as their start. */
  constructor(env: Environment = {}, start: Start = startServer) {
    this.#env = env;
    this.#start = start;
  }

  /** Instances with these links, running and connected. */
  static async of(links: Links, env: Environment = {}, start: Start = startServer): Promise<Network> {
    const network = new Network(env, start);
    try {
      await network.start(links);
      await network.connected();
    } catch (error) {
      await network[Symbol.asyncDispose]();
      throw error;
    }
    return network;
  }

  /** The base URL that a name has or is going to have. */
  url(name: string): string {
    const port = this.#ports.get(name) ?? keptPort();
    this.#ports.set(name, port);
    return `http://127.0.0.1:${port}`;
  }

  /** Something in front of an instance, to be listed instead of it. */
  gate(name: string): Gate {
    return this.#parts.use(new Gate(this.url(name)));
  }

  /** Starts one more instance for every name, all at once. `env` is for these alone. */
  async start(links: Links, env: Environment = {}): Promise<void> {
    const made = await Promise.all(
      Object.entries(links).map(([name, peers]) => this.#make(name, peers, env)),
    );
    await Promise.all(made.map((instance) => instance.start()));
  }

  async #make(name: string, peers: readonly string[], env: Environment): Promise<Instance> {
    const url = this.url(name);
    const instance = new Instance(name, url, join(await this.#root(), name), this.#start, {
      FEED_NETWORK_ID: NETWORK,
      FEED_SYNC_INTERVAL_MS: String(INTERVAL_MS),
      FEED_PEERS: peers.map((peer) => (peer.startsWith("http") ? peer : this.url(peer))).join(","),
      ...this.#env,
      ...env,
    });
    this.#instances.set(name, this.#parts.use(instance));
    return instance;
  }

  /** Waits until everybody has reached all of its peers: a first attempt may have come before the peer listened. */
  async connected(): Promise<void> {
    const reached = (count: number) => (status: Status) =>
      status.peers.filter(({ connected }) => connected).length === count;
    const wait = (each: Instance) => until(() => each.status(), reached(each.peers), DEADLINE_MS);
    await Promise.all(this.everyone.map(wait));
  }

  /** The instances with these names, in this order. */
  get<const N extends readonly string[]>(...names: N): { -readonly [K in keyof N]: Instance } {
    const found = names.map((name) => {
      const instance = this.#instances.get(name);
      if (instance === undefined) throw new Error(`there is no instance "${name}"`);
      return instance;
    });
    return found as { -readonly [K in keyof N]: Instance };
  }

  get everyone(): Instance[] {
    return [...this.#instances.values()];
  }

  async #root(): Promise<string> {
    this.#directory ??= this.#parts.use(await temporaryDirectory()).path;
    return this.#directory;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#parts.disposeAsync();
  }
}

export class Instance implements AsyncDisposable {
  readonly name: string;
  readonly url: string;
  readonly dir: string;
  readonly #start: Start;
  #env: Environment;
  #server: TestServer | undefined;

  constructor(name: string, url: string, dir: string, start: Start, env: Environment) {
    this.name = name;
    this.url = url;
    this.dir = dir;
    this.#start = start;
    this.#env = env;
  }

  /** Starts on its own port and directory; `env` stays for later starts. */
  async start(env: Environment = {}): Promise<void> {
    this.#env = { ...this.#env, ...env };
    await mkdir(this.dir, { recursive: true });
    this.#server = await this.#start({
      ...this.#env,
      TOPICS_PORT: new URL(this.url).port,
      TOPICS_DATA_DIR: join(this.dir, "data"),
    });
  }

  async stop(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    if (server === undefined) return;
    if ("stop" in server) await (server as SpawnedServer).stop();
    await server[Symbol.asyncDispose]();
  }

  /** Without a chance to finish anything. */
  async kill(): Promise<void> {
    const server = this.#server as SpawnedServer | undefined;
    if (!server?.stop) throw new Error(`"${this.name}" is no process of its own that runs`);
    this.#server = undefined;
    await server.stop("SIGKILL");
    await server[Symbol.asyncDispose]();
  }

  async restart(env: Environment = {}): Promise<void> {
    await this.stop();
    await this.start(env);
  }

  /** Loses everything that it has stored, and stops before. */
  async wipe(): Promise<void> {
    await this.stop();
    await rm(this.dir, { recursive: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    await server?.[Symbol.asyncDispose]();
  }

  send(method: string, path: string, body?: unknown, headers?: Record<string, string>): Promise<Reply> {
    return send(this.url, method, path, body, headers);
  }

  /** Posts one message and gives its id. */
  async post(to: Lane, content: unknown, more: object = {}): Promise<string> {
    const request = { ...to, content, ...more };
    return granted(await this.send("POST", "/api/topic/messages", request)).message_id;
  }

  /** Posts so many numbered messages, several at a time, and gives their ids. */
  async postMany(to: Lane, count: number, name = this.name): Promise<string[]> {
    const ids: string[] = Array(count);
    let next = 0;
    const worker = async () => {
      for (let i = next++; i < count; i = next++) ids[i] = await this.post(to, { from: name, i });
    };
    await Promise.all(Array.from({ length: Math.min(count, POSTS_AT_A_TIME) }, worker));
    return ids;
  }

  /** Gives the id of the event. */
  async subscribe(to: Lane, more: object = {}): Promise<string> {
    const request = { ...to, active: true, ...more };
    return granted(await this.send("POST", "/api/topic/subscriptions", request)).event_id;
  }

  unsubscribe(to: Lane, more: object = {}): Promise<string> {
    return this.subscribe(to, { active: false, ...more });
  }

  /** Every message of a lane, newest first, read page by page. */
  async messages(of: Lane): Promise<Message[]> {
    const messages: Message[] = [];
    let anchor: Record<string, string> | null = {};
    while (anchor !== null) {
      const query: URLSearchParams = new URLSearchParams({ ...of, limit: "200", ...anchor });
      const page = granted(await this.send("GET", `/api/topic/messages?${query}`));
      messages.push(...page.messages);
      anchor = page.next_anchor;
    }
    return messages;
  }

  async ids(of: Lane): Promise<string[]> {
    return (await this.messages(of)).map(({ message_id }) => message_id);
  }

  async cursor(feedKey: string, subscriber?: string): Promise<Cursor | null> {
    const named = subscriber === undefined ? {} : { subscriber_node_id: subscriber };
    const query = new URLSearchParams({ feed_key: feedKey, ...named });
    return granted(await this.send("GET", `/api/topic/cursor?${query}`)).cursor;
  }

  /** The rows of one feed, newest first. */
  async subscriptions(feedKey: string): Promise<Row[]> {
    const query = new URLSearchParams({ feed_key: feedKey });
    return granted(await this.send("GET", `/api/topic/subscriptions?${query}`)).subscriptions;
  }

  /** The row that a host has on this instance, if any. */
  async subscriptionOf(host: string, feedKey: string): Promise<Row | undefined> {
    return (await this.subscriptions(feedKey)).find(({ host_node_id }) => host_node_id === host);
  }

  /** So many peers it lists. */
  get peers(): number {
    const urls = this.#env.FEED_PEERS?.split(",").map((url) => url.trim().replace(/\/$/, "")) ?? [];
    return new Set(urls.filter((url) => url !== "")).size;
  }

  /** What a caller of the peer routes has to send. */
  get token(): Record<string, string> {
    const { FEED_PEER_TOKEN: token } = this.#env;
    return token === undefined ? {} : { authorization: `Bearer ${token}` };
  }

  async status(): Promise<Status> {
    return granted(await this.send("GET", "/api/peer/status", undefined, this.token));
  }

  async nodeId(): Promise<string> {
    return (await this.status()).node_id;
  }

  /** Waits until it lists a host's subscription as active (or as not). */
  async hearsOf(host: string, feedKey: string, active = true): Promise<void> {
    const row = () => this.subscriptionOf(host, feedKey);
    await until(row, (row) => row?.active === active, DEADLINE_MS);
  }

  /** Waits until it holds so many messages of a lane, and gives all of them, newest first. */
  async holds(of: Lane, count: number, deadlineMs = DEADLINE_MS): Promise<Message[]> {
    const end = performance.now() + deadlineMs;
    const left = () => Math.max(0, end - performance.now());
    // A look at the head is cheap; what it promises is then read in whole.
    await until(
      () => this.status(),
      ({ head_seq }) => head_seq >= count,
      left(),
    );
    let messages = await this.messages(of);
    while (messages.length < count) {
      if (left() === 0) {
        throw new Error(`"${this.name}" holds ${messages.length} of ${count} after ${deadlineMs} ms`);
      }
      await Bun.sleep(LOOK_MS);
      messages = await this.messages(of);
    }
    return messages;
  }
}

/** Waits until each of them holds so many messages of a lane, and gives each one's ids in its own order. */
export function heldBy(
  instances: Instance[],
  of: Lane,
  count: number,
  deadlineMs = DEADLINE_MS,
): Promise<string[][]> {
  const ids = async (instance: Instance) =>
    (await instance.holds(of, count, deadlineMs)).map(({ message_id }) => message_id);
  return Promise.all(instances.map(ids));
}

/** Looks until nothing has changed for a while, and gives what it then sees. */
export async function quiet<T>(
  look: () => Promise<T>,
  windowMs: number,
  deadlineMs = DEADLINE_MS,
): Promise<T> {
  const end = performance.now() + deadlineMs;
  let seen = await look();
  let since = performance.now();
  while (performance.now() - since < windowMs) {
    if (performance.now() > end) throw new Error(`not quiet after ${deadlineMs} ms: ${JSON.stringify(seen)}`);
    await Bun.sleep(LOOK_MS);
    const now = await look();
    if (!Bun.deepEquals(now, seen)) since = performance.now();
    seen = now;
  }
  return seen;
}

/** One request that came to a gate, and what it was answered. */
export interface Passage {
  readonly method: string;
  readonly path: string;
  readonly authorization: string | null;
  // biome-ignore lint/suspicious/noExplicitAny: whatever the peers say to each other.
  readonly request: any;
  // biome-ignore lint/suspicious/noExplicitAny: whatever the peers say to each other.
  answer: any;
}

/** Passes requests on to an instance, writes down what passes, and can be shut without stopping anybody. */
export class Gate implements AsyncDisposable {
  readonly url: string;
  readonly passages: Passage[] = [];
  /** Called for every request. Whoever sets it can hold a request, or the answer to it. */
  pass = (_: Passage, forward: () => Promise<Response>): Promise<Response> => forward();
  readonly #target: string;
  readonly #port: number;
  #server: Bun.Server<unknown> | undefined;

  constructor(target: string) {
    this.#target = target;
    this.#server = this.#listen(0);
    this.#port = this.#server.port!;
    this.url = `http://127.0.0.1:${this.#port}`;
  }

  get pushes(): Passage[] {
    return this.passages.filter(({ path }) => path === "/api/peer/events");
  }

  get backfills(): Passage[] {
    return this.passages.filter(({ path }) => path === "/api/peer/backfill");
  }

  /** Ids of everything that was pushed through it, also of what was refused, in this order. */
  get pushed(): string[] {
    return this.pushes.flatMap(({ request }) => eventIds(request.events));
  }

  /** Cuts what is open, and nobody gets through. */
  async shut(): Promise<void> {
    await this.#server?.stop(true);
    this.#server = undefined;
  }

  reopen(): void {
    this.#server ??= this.#listen(this.#port);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.shut();
  }

  #listen(port: number): Bun.Server<unknown> {
    return Bun.serve({
      hostname: "127.0.0.1",
      port,
      idleTimeout: 120,
      fetch: (request) => this.#take(request),
    });
  }

  async #take(request: Request): Promise<Response> {
    const { pathname, search } = new URL(request.url);
    const body = await request.text();
    const passage: Passage = {
      method: request.method,
      path: pathname,
      authorization: request.headers.get("authorization"),
      request: parsed(body),
      answer: undefined,
    };
    this.passages.push(passage);
    return this.pass(passage, async () => {
      const headers = new Headers(request.headers);
      for (const name of ["host", "connection", "content-length", "accept-encoding"]) headers.delete(name);
      const { method } = request;
      const reply = await fetch(this.#target + pathname + search, {
        method,
        headers,
        redirect: "manual",
        ...(method === "GET" ? {} : { body }),
      }).catch(() => new Response("nobody is there", { status: 502 }));
      const answer = await reply.text();
      passage.answer = parsed(answer);
      const type = reply.headers.get("content-type") ?? "text/plain";
      return new Response(answer, { status: reply.status, headers: { "content-type": type } });
    });
  }
}

const eventIds = (events: { readonly event: { readonly event_id: string } }[]): string[] =>
  events.map(({ event }) => event.event_id);

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

// biome-ignore lint/suspicious/noExplicitAny: the caller knows what it asked for.
function granted({ status, body, text }: Reply): any {
  if (status !== 200) throw new Error(`refused with ${status}: ${text}`);
  return body;
}
