/**
 * Feeds for a test, and short words for the calls it makes on them.
 *
 * Every feed gets a key that no other test uses, so all tests of a file can share one server. `send`, `get` and
 * `ask` return the reply as it is; the other words throw on a refusal.
 */
import { expect } from "bun:test";
import type { Reply } from "./server.ts";
import { type Sender, until } from "./topics.ts";

export const paths = {
  messages: "/api/topic/messages",
  cursor: "/api/topic/cursor",
  subscriptions: "/api/topic/subscriptions",
};

/** Members of a body or a query beside those that every call has, or in their place; undefined leaves one out. */
export type More = Record<string, unknown>;

export interface Message {
  readonly message_id: string;
  readonly network_id: string;
  readonly feed_key: string;
  readonly scope_hint: string;
  readonly author_node_id: string;
  // biome-ignore lint/suspicious/noExplicitAny: a test looks at whatever came back.
  readonly agent_envelope: any;
  readonly content_ref: Record<string, unknown>;
  readonly content: unknown;
  readonly content_resolved_at: number | null;
  readonly reply_to_message_id: string | null;
  readonly created_at: number;
  readonly event_seq: number;
}

export interface Cursor {
  readonly network_id: string;
  readonly subscriber_node_id: string;
  readonly feed_key: string;
  readonly scope_hint: string;
  readonly last_event_seq: number;
  readonly last_event_id: string;
  readonly updated_at: number;
}

export interface Row {
  readonly event_id: string;
  readonly network_id: string;
  readonly subscriber_node_id: string;
  readonly host_node_id: string;
  readonly feed_key: string;
  readonly scope_hint: string;
  readonly gossip_kinds: readonly string[];
  readonly provider_capabilities: object | null;
  readonly active: boolean;
  readonly updated_at: number;
}

export interface Feed {
  readonly key: string;
  readonly scope: string;
  send(content: unknown, more?: More): Promise<Reply>;
  /** Posts and gives the message's id. */
  post(content: unknown, more?: More): Promise<string>;
  get(more?: More): Promise<Reply>;
  /** The first page of messages, newest first. */
  list(more?: More): Promise<Message[]>;
  /** Subscribes and gives the event's id. `{ active: false }` ends it. */
  subscribe(more?: More): Promise<string>;
  cursor(more?: More): Promise<Cursor | null>;
  /** The rows of this feed in the list of subscriptions. */
  rows(more?: More): Promise<Row[]>;
}

let named = 0;

/** A feed that nobody has used. */
export function newFeed(server: Sender, scope = "group:crew", key = `feed-${++named}`): Feed {
  const names = { feed_key: key, scope_hint: scope };
  const send: Feed["send"] = (content, more = {}) =>
    server.send("POST", paths.messages, { ...names, content, ...more });
  const get: Feed["get"] = (more = {}) => ask(server, paths.messages, { ...names, ...more });
  return {
    key,
    scope,
    send,
    get,
    post: async (content, more) => accepted(await send(content, more)).body.message_id,
    list: async (more) => accepted(await get(more)).body.messages,
    subscribe: async (more = {}) => (await subscribe(server, { ...names, ...more })).body.event_id,
    cursor: async (more = {}) =>
      accepted(await ask(server, paths.cursor, { feed_key: key, ...more })).body.cursor,
    rows: async (more = {}) =>
      accepted(await ask(server, paths.subscriptions, { feed_key: key, ...more })).body.subscriptions,
  };
}

/** Asks with these query parameters. */
export const ask = (server: Sender, path: string, query: More = {}): Promise<Reply> =>
  server.send("GET", `${path}?${queryOf(query)}`);

export function queryOf(query: More): string {
  const given = Object.entries(query).filter(([, value]) => value !== undefined);
  return new URLSearchParams(given.map(([name, value]): [string, string] => [name, `${value}`])).toString();
}

/** A subscription that is made, with its whole answer. */
export const subscribe = async (server: Sender, body: More): Promise<Reply> =>
  accepted(await server.send("POST", paths.subscriptions, { active: true, ...body }));

/** The instance's own id. */
export const nodeOf = async (server: Sender): Promise<string> =>
  accepted(await ask(server, paths.cursor, { feed_key: "any" })).body.subscriber_node_id;

export const idsOf = (messages: readonly Message[]): string[] => messages.map(({ message_id }) => message_id);
export const contentsOf = (messages: readonly Message[]): unknown[] => messages.map(({ content }) => content);

/** Messages as they were accepted, oldest first. Those of one millisecond are listed by their ids. */
export const inOrder = (messages: readonly Message[]): Message[] =>
  messages.toSorted((a, b) => a.event_seq - b.event_seq);

/** Waits for the next millisecond: what follows has a later time than all before. */
export async function tick(): Promise<void> {
  const now = Date.now();
  await until(
    async () => Date.now(),
    (later) => later > now,
  );
}

/** 64 lower-case hex digits. */
export const HEX = /^[0-9a-f]{64}$/;

/** A refusal with this status; its text is not empty, or this one. */
export const refusal = (status: number, error: string | RegExp = /\S/) => ({
  status,
  body: { ok: false, error: typeof error === "string" ? error : expect.stringMatching(error) },
});

/** The answer is this refusal and has exactly the members of one. */
export function expectRefusal(reply: Reply, status: number, error?: string | RegExp): void {
  expect(reply).toMatchObject(refusal(status, error));
  expect(Object.keys(reply.body).sort()).toEqual(["error", "ok", "performance"]);
  expect(reply.body.performance.server_total_ms).toBeNumber();
  expect(reply.headers.get("content-type")).toStartWith("application/json");
}

function accepted(reply: Reply): Reply {
  if (reply.status !== 200 || reply.body?.ok !== true)
    throw new Error(`refused with ${reply.status}: ${reply.text}`);
  return reply;
}
