/** Our own cluster: instances that list each other as peers, the others around the one that is posted to. */
import { join } from "node:path";
import { freePort } from "../support/spawn.ts";
import { must } from "./client.ts";
import type { Cluster } from "./cluster.ts";
import { Connection, post } from "./connection.ts";
import type { Bench } from "./loads.ts";
import { temporaryDirectory } from "./process.ts";
import { startServer } from "./server.ts";
import { note, type Writer } from "./writers.ts";

const SCOPE = "group:bench";
const MESSAGES = "/api/topic/messages";
/** The most messages that one page may hold. */
const PAGE_MESSAGES_MAX = 200;

/** Where a page ends. */
export interface Anchor {
  readonly before_created_at: number;
  readonly before_message_id: string;
}

interface Page {
  readonly ids: string[];
  readonly next: Anchor | null;
}

export interface Instances extends Cluster {
  readonly urls: readonly string[];
}

/** Starts one instance and so many others; each of them and the first list each other. */
export async function startInstances(bench: Bench, others: number): Promise<Instances> {
  await using parts = new AsyncDisposableStack();
  const { path } = parts.use(await temporaryDirectory(bench.directory));
  const ports = Array.from({ length: 1 + others }, freePort);
  const urls = ports.map((port) => `http://127.0.0.1:${port}`);
  const servers = await Promise.all(
    ports.map((port, i) =>
      startServer(bench.binary, join(path, `data-${i}`), {
        TOPICS_PORT: String(port),
        FEED_NETWORK_ID: "bench",
        FEED_PEERS: (i === 0 ? urls.slice(1) : urls.slice(0, 1)).join(","),
      }),
    ),
  );
  for (const server of servers) parts.use(server);
  const [first, ...copies] = servers;
  const owned = parts.move();
  return {
    urls,
    pid: first!.pid,
    copyPids: copies.map(({ pid }) => pid),
    begin: async () => {},
    copy: async (lane) => {
      const subscription = { feed_key: lane, scope_hint: SCOPE, active: true };
      await Promise.all(copies.map(({ url }) => must(url, "POST", "/api/topic/subscriptions", subscription)));
    },
    writer: (lane) => openPoster(first!.url, lane),
    progress: (_, copy) => messagesIn(copies[copy]!.url),
    count: (lane, copy) => countMessages(copies[copy]!.url, lane),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

export async function openPoster(url: string, lane: string): Promise<Writer> {
  const connection = await Connection.open(url);
  const request = (number: number) => ({ feed_key: lane, scope_hint: SCOPE, content: note(number) });
  return {
    write: (number) => connection.send(post(MESSAGES, JSON.stringify(request(number)))),
    [Symbol.dispose]: () => connection[Symbol.dispose](),
  };
}

/** Messages of all lanes: what the log holds beside one event for each subscription. */
async function messagesIn(url: string): Promise<number> {
  const { head_seq } = await must(url, "GET", "/api/peer/status");
  const { subscriptions } = await must(url, "GET", "/api/topic/subscriptions");
  return head_seq - subscriptions.length;
}

export function pageUrl(url: string, lane: string, limit: number, anchor: Anchor | null): string {
  const query = { feed_key: lane, scope_hint: SCOPE, limit: String(limit) };
  const from = anchor && { ...anchor, before_created_at: String(anchor.before_created_at) };
  return `${url}${MESSAGES}?${new URLSearchParams({ ...query, ...from })}`;
}

export async function readPage(
  url: string,
  lane: string,
  limit: number,
  anchor: Anchor | null,
): Promise<Page> {
  const page = await must(pageUrl(url, lane, limit, anchor), "GET", "");
  const ids = (page.messages as { message_id: string }[]).map(({ message_id }) => message_id);
  return { ids, next: page.next_anchor };
}

/** Every page from the newest message to the oldest. */
export async function* walk(url: string, lane: string, limit = PAGE_MESSAGES_MAX): AsyncGenerator<Page> {
  for (let anchor: Anchor | null = null; ; ) {
    const page = await readPage(url, lane, limit, anchor);
    yield page;
    if (page.next === null) return;
    anchor = page.next;
  }
}

async function countMessages(url: string, lane: string): Promise<number> {
  const seen = new Set<string>();
  for await (const { ids } of walk(url, lane)) for (const id of ids) seen.add(id);
  return seen.size;
}
