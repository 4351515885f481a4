/**
 * The cluster of NATS: a JetStream stream in files, and mirrors of it on servers that are linked as leaf nodes. This
 * version of NATS syncs its files every two minutes and has no setting for more.
 */
import { join } from "node:path";
import { freePort } from "../support/spawn.ts";
import type { Cluster } from "./cluster.ts";
import { type Line, openLine } from "./line.ts";
import type { Bench } from "./loads.ts";
import { type Nats, startNats } from "./nats.ts";
import { note } from "./writers.ts";

const INBOX = "_INBOX.bench";
const GREETING = `CONNECT {"verbose":false,"pedantic":false}\r\n`;
const HUB = "hub";

export async function startMirrors(bench: Bench, mirrors: number): Promise<Cluster> {
  await using parts = new AsyncDisposableStack();
  const meeting = `127.0.0.1:${freePort()}`;
  const open = async (domain: string, leafnodes: string): Promise<[Nats, Line]> => {
    const nats = parts.use(await startNats(bench.directory, settings(domain, leafnodes)));
    const line = await openRequests(nats.url, `${INBOX}.${domain}`);
    parts.defer(() => line.end());
    return [nats, line];
  };
  const [hub, hubLine] = await open(HUB, `listen: "${meeting}"`);
  const copies: [Nats, Line][] = [];
  while (copies.length < mirrors) {
    copies.push(await open(`leaf-${copies.length}`, `remotes: [{ url: "nats-leaf://${meeting}" }]`));
  }
  const count = async (lane: string, copy: number): Promise<number> => {
    const [, line] = copies[copy]!;
    const { state } = await request(line, `${INBOX}.leaf-${copy}`, `$JS.API.STREAM.INFO.${lane}`, {});
    return state?.messages ?? 0;
  };
  let opened = 0;
  const owned = parts.move();
  return {
    pid: hub.pid,
    copyPids: copies.map(([{ pid }]) => pid),
    begin: async (lane) => {
      const stream = { name: lane, subjects: [lane], storage: "file" };
      await must(hubLine, `${INBOX}.${HUB}`, `$JS.API.STREAM.CREATE.${lane}`, stream);
    },
    copy: async (lane) => {
      const mirror = { name: lane, external: { api: `$JS.${HUB}.API`, deliver: "" } };
      for (const [i, [, line]] of copies.entries()) {
        const stream = { name: lane, mirror, storage: "file" };
        await must(line, `${INBOX}.leaf-${i}`, `$JS.API.STREAM.CREATE.${lane}`, stream);
      }
    },
    writer: async (lane) => {
      const inbox = `${INBOX}.writer-${opened++}`;
      const line = await openRequests(hub.url, inbox);
      return {
        write: (number) => must(line, inbox, lane, note(number)),
        [Symbol.dispose]: () => line.end(),
      };
    },
    progress: count,
    count,
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

const settings = (domain: string, leafnodes: string) => (directory: string) =>
  `
  server_name: ${domain}
  jetstream { domain: ${domain}, store_dir: "${join(directory, "store")}" }
  leafnodes { ${leafnodes} }
`;

/** A connection on which answers come to an inbox of its own. */
async function openRequests(url: string, inbox: string): Promise<Line> {
  const line = await openLine(url);
  await line.ask(Buffer.from(`${GREETING}SUB ${inbox} 1\r\nPING\r\n`), "PONG");
  return line;
}

interface Answer {
  readonly error?: unknown;
  readonly state?: { readonly messages: number };
}

async function request(line: Line, inbox: string, subject: string, body: unknown): Promise<Answer> {
  const text = JSON.stringify(body);
  const heard = await line.ask(Buffer.from(`PUB ${subject} ${inbox} ${text.length}\r\n${text}\r\n`), "}\r\n");
  // A question whether we are alive may stand beside the answer.
  return JSON.parse(/^\{.*\}(?=\r\n)/m.exec(heard)![0]) as Answer;
}

/** A request that must succeed. */
async function must(line: Line, inbox: string, subject: string, body: unknown): Promise<void> {
  const { error } = await request(line, inbox, subject, body);
  if (error) throw new Error(`NATS answered ${JSON.stringify(error)} to ${subject}`);
}
