/**
 * Topics for a test, and short words for the calls it makes on them.
 *
 * Every topic gets a name that no other test uses, so all tests of a file can share one server. A word that
 * prepares something (`newTopic`, `append`) throws on a refusal; the others return the reply as it is.
 */
import { afterAll, beforeAll } from "bun:test";
import { type Reply, startServer, type TestServer } from "./server.ts";

export type Sender = Pick<TestServer, "url" | "send">;

export interface Topic {
  readonly name: string;
  /** `/v0/topics/<name>` */
  readonly path: string;
  put(config?: unknown): Promise<Reply>;
  /** The state, read without a touch. */
  state(): Promise<Reply>;
  write(body: unknown, query?: string, headers?: Record<string, string>): Promise<Reply>;
  /** Writes one batch with these values as `data`. */
  append(...values: unknown[]): Promise<Reply>;
  diff(request?: unknown): Promise<Reply>;
  /** Deletes records, not the topic. */
  erase(request: unknown): Promise<Reply>;
  /** Deletes the topic. */
  drop(query?: string): Promise<Reply>;
}

/** What every topic's config holds when nothing was asked for. */
export const defaults = {
  type: "log",
  ttl_ms: 0,
  cap_records: 0,
  cap_bytes: 0,
  discard: "old",
  durable: false,
  durability: "disk",
  priority: null,
  auto_priority: true,
  auto_create: true,
  idempotency_window_ms: 120000,
  dedupe_node: true,
  lease_ms: 30000,
  claim_jitter_ms: 0,
  max_deliveries: 0,
  dead_letter: null,
  leases_durable: false,
};

/** One server for all tests of the calling file. */
export function sharedServer(env: Record<string, string> = {}): Sender {
  let server: TestServer;
  beforeAll(async () => {
    server = await startServer(env);
  });
  afterAll(() => server[Symbol.asyncDispose]());
  return {
    get url() {
      return server.url;
    },
    send: (...request) => server.send(...request),
  };
}

let named = 0;

/** A topic that does not exist yet. */
export function absentTopic(server: Sender, name = `topic-${++named}`): Topic {
  const path = `/v0/topics/${name}`;
  const write: Topic["write"] = (body, query = "", headers = {}) =>
    server.send("POST", path + query, body, headers);
  return {
    name,
    path,
    put: (config) => server.send("PUT", path, config),
    state: () => server.send("GET", `${path}?touch=false`),
    write,
    append: async (...values) => accepted(await write({ records: values.map((data) => ({ data })) })),
    diff: (request) => server.send("POST", `${path}/diff`, request),
    erase: (request) => server.send("POST", `${path}/delete`, request),
    drop: (query = "") => server.send("DELETE", path + query),
  };
}

/** A topic created by PUT. */
export async function newTopic(server: Sender, config: unknown = {}): Promise<Topic> {
  const topic = absentTopic(server);
  accepted(await topic.put(config));
  return topic;
}

/** A topic with one record for each tag; `data` is the tag. */
export async function taggedTopic(server: Sender, ...tags: (string | undefined)[]): Promise<Topic> {
  const topic = await newTopic(server);
  accepted(await topic.write({ records: tags.map((tag) => ({ data: tag ?? null, tag })) }));
  return topic;
}

/** The seqs of the records in a reply. */
export const seqs = (reply: Reply): number[] =>
  reply.body.records.map((record: { $seq: number }) => record.$seq);

/** The values of one member of the records in a reply. */
export const column = (reply: Reply, member: string): unknown[] =>
  reply.body.records.map((record: Record<string, unknown>) => record[member]);

/** `n` results of the same call, made at the same time. */
export const together = <T>(n: number, call: (i: number) => Promise<T>): Promise<T[]> =>
  Promise.all(Array.from({ length: n }, (_, i) => call(i)));

/** Asks again until the answer fits. Fails after `deadlineMs` with the last answer. */
export async function until<T>(
  ask: () => Promise<T>,
  fits: (answer: T) => boolean,
  deadlineMs = 5000,
): Promise<T> {
  const end = performance.now() + deadlineMs;
  for (;;) {
    const answer = await ask();
    if (fits(answer)) return answer;
    if (performance.now() > end)
      throw new Error(`still not after ${deadlineMs} ms: ${JSON.stringify(answer)}`);
    await Bun.sleep(10);
  }
}

/** Milliseconds until the call is answered, with the answer. */
export async function timed<T>(call: () => Promise<T>): Promise<{ ms: number; answer: T }> {
  const start = performance.now();
  const answer = await call();
  return { ms: performance.now() - start, answer };
}

function accepted(reply: Reply): Reply {
  if (reply.status >= 300) throw new Error(`refused with ${reply.status}: ${reply.text}`);
  return reply;
}
