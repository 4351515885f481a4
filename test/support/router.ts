/**
 * Routers for a test, and short words for what it asks of them and of the topics at their ends.
 *
 * As with topics: a word that prepares something (`newRouter`, `newRoute`, `putRouter`) throws on a refusal, the
 * others return the reply as it is. Reading a topic brings its copies up to date; `listed` looks without that.
 */
import { expect } from "bun:test";
import type { Reply } from "./server.ts";
import { absentTopic, newTopic, type Sender, type Topic, together } from "./topics.ts";

export interface Router {
  readonly name: string;
  /** `/v0/routers/<name>`, percent-encoded. */
  readonly path: string;
  put(body: unknown, headers?: Record<string, string>): Promise<Reply>;
  get(): Promise<Reply>;
  drop(): Promise<Reply>;
  /** `forwarded_total` after the router was brought up to date. */
  total(): Promise<number>;
}

/** Two topics and the router between them. */
export interface Route {
  readonly source: Topic;
  readonly dest: Topic;
  readonly router: Router;
}

/** A record as it is read. */
export interface Entry {
  readonly $seq: number;
  readonly $ts: number;
  readonly $node?: string;
  readonly $tag?: string;
  readonly data: unknown;
  // biome-ignore lint/suspicious/noExplicitAny: a stamp is looked at member by member.
  readonly meta?: any;
}

/** What a router's answers hold when nothing but the ends was asked for. */
export const plain = {
  preserve_node: true,
  preserve_tag: true,
  filter: null,
  allow_cycle: false,
  guarantee: "at_least_once",
};

export const routerPath = (name: string) => `/v0/routers/${encodeURIComponent(name)}`;

/** A router that need not exist. */
export function routerNamed(server: Sender, name: string): Router {
  const path = routerPath(name);
  return {
    name,
    path,
    put: (body, headers = {}) => server.send("PUT", path, body, headers),
    get: () => server.send("GET", path),
    drop: () => server.send("DELETE", path),
    total: async () => accepted(await server.send("GET", path)).body.forwarded_total,
  };
}

/** Creates or changes a router between two topics. Its name is `<source>-><dest>` unless given. */
export async function putRouter(
  server: Sender,
  source: string,
  dest: string,
  options: object = {},
  name = `${source}->${dest}`,
): Promise<Router> {
  const router = routerNamed(server, name);
  accepted(await router.put({ source, dest, ...options }));
  return router;
}

/** A router between two topics that does not exist yet. */
export async function newRouter(
  server: Sender,
  source: Topic,
  dest: Topic,
  options: object = {},
  name = `${source.name}->${dest.name}`,
): Promise<Router> {
  const router = routerNamed(server, name);
  const reply = accepted(await router.put({ source: source.name, dest: dest.name, ...options }));
  if (reply.status !== 201) throw new Error(`router ${name} was already there`);
  return router;
}

/** Two new topics with a new router between them. */
export async function newRoute(
  server: Sender,
  options: object = {},
  configs: { readonly source?: object; readonly dest?: object } = {},
): Promise<Route> {
  const source = await newTopic(server, configs.source);
  const dest = await newTopic(server, configs.dest);
  return { source, dest, router: await newRouter(server, source, dest, options) };
}

/** Topics in a row with a router from each to the next. */
export async function newChain(
  server: Sender,
  hops: number,
  options: object = {},
): Promise<{ topics: Topic[]; routers: Router[] }> {
  const topics = await together(hops + 1, () => newTopic(server));
  const routers: Router[] = [];
  for (let i = 0; i < hops; i++) routers.push(await newRouter(server, topics[i]!, topics[i + 1]!, options));
  return { topics, routers };
}

/** All records of a topic, read page by page. A tombstone throws: `walk` is for topics that lost something. */
export async function read(topic: Topic): Promise<Entry[]> {
  const steps = await walk(topic);
  return steps.map((step) => {
    if ("gap_from" in step) throw new Error(`${topic.name} has a tombstone: ${JSON.stringify(step)}`);
    return step;
  });
}

export interface Tombstone {
  readonly gap_from: number;
  readonly gap_to: number;
  readonly reason: string;
  readonly missed_estimate: number;
  readonly earliest_seq: number;
  readonly head_seq: number;
}

/** What a reader comes across from `from_seq` to the head: records, and tombstones where it is told of a loss. */
export async function walk(topic: Topic, request: object = {}): Promise<(Entry | Tombstone)[]> {
  const steps: (Entry | Tombstone)[] = [];
  let from: number | undefined;
  for (let caughtUp = false, pages = 0; !caughtUp; pages++) {
    const cursor = from === undefined ? {} : { from_seq: from };
    const { body } = accepted(await topic.diff({ limit: 1000, include_tags: true, ...request, ...cursor }));
    if (body.tombstone) steps.push(body.tombstone);
    steps.push(...body.records);
    if (from === body.next_from_seq && !body.caught_up) throw new Error(`${topic.name} is stuck at ${from}`);
    if (pages > 5000) throw new Error(`${topic.name} has no end`);
    ({ next_from_seq: from, caught_up: caughtUp } = body);
  }
  return steps;
}

/** A walk in short: `data` of the records, `<reason> <from>-<to>` for the tombstones. */
export async function story(topic: Topic, request: object = {}): Promise<unknown[]> {
  const steps = await walk(topic, request);
  return steps.map((step) =>
    "gap_from" in step ? `${step.reason} ${step.gap_from}-${step.gap_to}` : step.data,
  );
}

/** `data` of all records. */
export const values = async (topic: Topic): Promise<unknown[]> => (await read(topic)).map(({ data }) => data);

export interface Listed {
  readonly head_seq: number;
  readonly earliest_seq: number;
  readonly count: number;
  readonly bytes: number;
}

/** The topic's entry in the list of topics, which brings no copies up to date. */
export async function listed(server: Sender, topic: Topic): Promise<Listed> {
  const { body } = accepted(await server.send("GET", `/v0/topics?prefix=${topic.name}&page_size=1000`));
  const entry = body.topics.find((one: { topic: string }) => one.topic === topic.name);
  if (entry === undefined) throw new Error(`${topic.name} is not in the list`);
  return entry;
}

/** The topic's `count` in that list. */
export const listedCount = async (server: Sender, topic: Topic): Promise<number> =>
  (await listed(server, topic)).count;

/** Asks again until the answer is this one. Fails after `deadlineMs` and shows what it was instead. */
export async function eventually<T>(ask: () => Promise<T>, expected: T, deadlineMs = 5000): Promise<void> {
  const end = performance.now() + deadlineMs;
  let answer = await ask();
  while (!Bun.deepEquals(answer, expected) && performance.now() < end) {
    await Bun.sleep(5);
    answer = await ask();
  }
  expect<unknown>(answer).toEqual(expected);
}

/** `first` to `last`. */
export const range = (first: number, last: number): number[] =>
  Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => first + i);

/** The topics with these names, to be made or there already. */
export const topicsNamed = (server: Sender, ...names: string[]): Topic[] =>
  names.map((name) => absentTopic(server, name));

function accepted(reply: Reply): Reply {
  if (reply.status >= 300) throw new Error(`refused with ${reply.status}: ${reply.text}`);
  return reply;
}
