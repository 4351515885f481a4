/**
 * Instances that gossip, in one process: real engines on real stores, joined by links that a test can cut, that lose
 * answers and that deliver twice. What HTTP would carry goes as text through the decoders that HTTP uses.
 *
 * The loops of the engines run by a clock that is many times faster than ours, so that retries and intervals of
 * seconds pass in milliseconds. No request is given up for taking too long.
 */
import { createHash } from "node:crypto";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { decoder } from "../../src/contract/decode.ts";
import { ApiError } from "../../src/contract/errors.ts";
import { AROUND_EVENTS_BYTES, PEER_BYTES_MAX, PEER_JSON_DEPTH_MAX } from "../../src/contract/limits.ts";
import { Backfill, Backfilled, EventsPushed, PushEvents } from "../../src/contract/peers.ts";
import { Engine } from "../../src/engine/engine.ts";
import { type Push, type Remote, RemoteFailure } from "../../src/engine/feeds/remote.ts";
import { Store } from "../../src/store/store.ts";
import { Author, encoded, recomputed, type SignedEvent } from "../support/events.ts";
import { elements, members } from "../support/rawjson.ts";
import { temporaryDirectory } from "../support/spawn.ts";

export const NETWORK = "net";
export const INTERVAL_MS = 2000;
const START = 1_700_000_000_000;
const checkpointer = new URL("../../src/store/checkpointer.ts", import.meta.url);
const limits = { topicsMax: 0, routersMax: 0, totalBytesMax: 0, watchSessionsMax: 0, heartbeatMsMin: 1000 };

const SPEED = 100;
/** Shorter waits are no pauses between tries. */
const SHORT_MS = 50;

/** Lets the clock of the process run faster, until what it returns is disposed of. */
export function fastClock(): Disposable {
  const { setTimeout: wait } = globalThis;
  const now = performance.now.bind(performance);
  const start = now();
  const faster = (work: () => void, ms = 0) => wait(work, ms > SHORT_MS ? ms / SPEED : ms);
  globalThis.setTimeout = faster as typeof setTimeout;
  performance.now = () => start + (now() - start) * SPEED;
  return {
    [Symbol.dispose]() {
      globalThis.setTimeout = wait;
      performance.now = now;
    },
  };
}

const readPush = decoder(PushEvents, PEER_JSON_DEPTH_MAX);
const readPushed = decoder(EventsPushed, PEER_JSON_DEPTH_MAX);
const readBackfill = decoder(Backfill, PEER_JSON_DEPTH_MAX);
const readBackfilled = decoder(Backfilled, PEER_JSON_DEPTH_MAX);

/** One instance lists another one by some URL. */
export interface Listing {
  readonly from: number;
  readonly to: number;
  /** Which of the URLs that lead there. */
  readonly alias: number;
}

export const urlOf = ({ to, alias }: Listing): string => `http://site${to}.test/${alias}`;

/** A listing in use: what it is going to do with requests, and what it has carried. */
export class Link {
  readonly listing: Listing;
  isCut = false;
  /** So many answers are to be lost, and so many requests to arrive twice. */
  losing = 0;
  doubling = 0;
  /** Answers wait for it. */
  held: Promise<void> | undefined;
  pushes = 0;
  pulls = 0;
  /** Pulls that asked for more than a digest. */
  pages = 0;

  constructor(listing: Listing) {
    this.listing = listing;
  }
}

/** From start to end of one engine. */
interface Run {
  readonly store: Store;
  readonly engine: Engine;
  readonly joined: AsyncDisposable;
  /** Requests that it is answering. */
  readonly answering: Set<Promise<unknown>>;
}

/** A subscription that a client has asked for. */
export interface Wish {
  readonly who: string | null;
  readonly feed: string;
  readonly scope: string;
  readonly active: boolean;
}

const begun = Date.now();

export class Site {
  readonly index: number;
  /** Its clock, the latest time that it has shown, and what it does not go back behind. */
  now = START;
  latest = START;
  earliest = 0;
  /** Which key and which data directory are used. */
  seed = 0;
  dir = "";
  run: Run | undefined;
  /** Events that a client was told of as kept in this data directory. */
  readonly told = new Set<string>();
  /** Where subscribers stood when they were last looked at: seq and time. */
  readonly seen = new Map<string, readonly [number, number]>();

  constructor(index: number) {
    this.index = index;
  }

  /** It goes on, too: who waits for it does not wait forever. */
  get time(): number {
    return this.now + Date.now() - begun;
  }

  tick(ms: number): void {
    this.now = Math.max(this.now + ms, this.earliest);
    this.latest = Math.max(this.latest, this.now);
  }

  get author(): Author {
    return authorOf(this.index, this.seed);
  }
}

export type Opened = (site: Site) => void;

const seedOf = (index: number, seed: number): string =>
  createHash("sha256").update(`${index}/${seed}`).digest("hex");

const authors = new Map<string, Author>();
const authorsById = new Map<string, Author>();

function authorOf(index: number, seed: number): Author {
  const hex = seedOf(index, seed);
  let author = authors.get(hex);
  if (author === undefined) {
    author = new Author(hex);
    authors.set(hex, author);
    authorsById.set(author.id, author);
  }
  return author;
}

/** An author whose events are known when they are looked at. */
export const newAuthor = (number: number): Author => authorOf(-1, number);

export class FeedNetwork implements AsyncDisposable {
  readonly sites: readonly Site[];
  readonly links: readonly Link[];
  /** What went wrong where nothing may. */
  readonly failures: unknown[] = [];
  /** Instances by node id whose events others may have that they themselves have lost. */
  readonly forgetful = new Set<string>();
  /** Called with each engine before it does anything. */
  readonly #opened: Opened;
  /** Feeds and scopes, as they are given, that somebody has ever asked for. */
  readonly asked = new Set<string>();
  readonly #base: string;
  readonly #parts: AsyncDisposableStack;
  readonly #posting = new Set<Promise<void>>();
  #content = 0;

  private constructor(
    base: string,
    parts: AsyncDisposableStack,
    count: number,
    listings: readonly Listing[],
    opened: Opened,
  ) {
    this.#opened = opened;
    this.#base = base;
    this.#parts = parts;
    this.sites = Array.from({ length: count }, (_, i) => new Site(i));
    this.links = listings.map((listing) => new Link(listing));
  }

  static async open(
    count: number,
    listings: readonly Listing[],
    opened: Opened = () => {},
  ): Promise<FeedNetwork> {
    await using parts = new AsyncDisposableStack();
    const { path } = parts.use(await temporaryDirectory());
    parts.use(fastClock());
    const network = new FeedNetwork(path, parts.move(), count, listings, opened);
    for (const site of network.sites) {
      site.dir = network.#newDirectory();
      network.#start(site);
    }
    return network;
  }

  #newDirectory(): string {
    return join(this.#base, `data-${crypto.randomUUID()}`);
  }

  #start(site: Site): void {
    const failed = (reason: unknown) => void this.failures.push(reason);
    const store = new Store({
      dir: site.dir,
      acceptLoss: false,
      checkpointer,
      checkpoints: { delayed: failed, ended: failed },
      lost: failed,
    });
    const engine = new Engine({
      store,
      limits,
      feeds: { nodeSeed: seedOf(site.index, site.seed), networkId: NETWORK, strict: false },
      now: () => site.time,
      failed,
      unexpected: failed,
    });
    this.#opened(site);
    if (engine.network.feeds.nodeId !== site.author.id)
      failed(new Error("another key than that of the seed"));
    const links = this.links.filter(({ listing }) => listing.from === site.index);
    const isCurrent = () => site.run?.engine === engine;
    const joined = engine.network.join({
      urls: links.map(({ listing }) => urlOf(listing)),
      intervalMs: INTERVAL_MS,
      remote: (url) => this.#remote(links.find(({ listing }) => urlOf(listing) === url)!, isCurrent),
      turned: () => {},
      leftOut: (_url, _seq, reason) => void failed(new Error(`a peer refuses an event: ${reason}`)),
    });
    site.run = { store, engine, joined, answering: new Set() };
    joined.start();
  }

  /** Ends an engine in order. `site` may have gone on without it. */
  async #end({ store, engine, joined, answering }: Run): Promise<void> {
    await joined[Symbol.asyncDispose]();
    await Promise.allSettled(answering);
    engine[Symbol.dispose]();
    store[Symbol.dispose]();
  }

  async restart(site: Site): Promise<void> {
    const { run } = site;
    site.run = undefined;
    if (run) await this.#end(run);
    this.#start(site);
  }

  /** Goes on with what SIGKILL would leave at this moment. */
  async crash(site: Site): Promise<void> {
    const copy = this.#newDirectory();
    await mkdir(copy);
    const { exitCode, stderr } = Bun.spawnSync(["cp", "-r", `${site.dir}/.`, copy]);
    if (exitCode !== 0) throw new Error(`cannot copy the data directory: ${stderr}`);
    const { run } = site;
    site.run = undefined;
    site.dir = copy;
    if (run) await this.#end(run);
    this.#start(site);
  }

  /** Starts with nothing, as the node it was or as another one. */
  async wipe(site: Site, keepsKey: boolean): Promise<void> {
    const { run } = site;
    site.run = undefined;
    if (run) await this.#end(run);
    site.dir = this.#newDirectory();
    site.told.clear();
    site.seen.clear();
    if (keepsKey) this.forgetful.add(site.author.id);
    else site.seed++;
    // Its last events may be ahead of its clock, and nobody would take older ones for news.
    site.tick(site.latest - site.now + 5000);
    site.earliest = site.now;
    this.#start(site);
  }

  #remote(link: Link, isCurrent: () => boolean): Remote {
    return {
      push: async ({ events, ...head }: Push, signal) => {
        const body = `${JSON.stringify(head).slice(0, -1)},"events":[${events.join(",")}]}`;
        const answer = await this.#carry(link, isCurrent, signal, async ({ network }) => {
          within(body, PEER_BYTES_MAX + AROUND_EVENTS_BYTES);
          link.pushes++;
          return JSON.stringify(await network.exchange.push(readPush(body)));
        });
        return readPushed(answer);
      },
      backfill: async (request, signal) => {
        const body = JSON.stringify(request);
        const answer = await this.#carry(link, isCurrent, signal, async ({ network }) => {
          within(body, AROUND_EVENTS_BYTES);
          link.pulls++;
          if (!request.head_only) link.pages++;
          const { head, events } = await network.exchange.backfill(readBackfill(body));
          return `${JSON.stringify(head).slice(0, -1)},"events":[${events.join(",")}]}`;
        });
        return readBackfilled(answer);
      },
    };
  }

  async #carry(
    link: Link,
    isCurrent: () => boolean,
    signal: AbortSignal,
    ask: (engine: Engine) => Promise<string>,
  ): Promise<string> {
    const site = this.sites[link.listing.to]!;
    await Bun.sleep(0);
    const { run } = site;
    if (signal.aborted || !isCurrent() || run === undefined || link.isCut) throw new RemoteFailure("no way");
    const doubled = link.doubling > 0;
    const lost = link.losing > 0;
    if (doubled) link.doubling--;
    if (lost) link.losing--;
    const asked = doubled ? Promise.all([ask(run.engine), ask(run.engine)]) : ask(run.engine);
    run.answering.add(asked);
    try {
      const answer = await asked;
      await link.held;
      if (lost || link.isCut || site.run !== run || !isCurrent()) throw new RemoteFailure("no answer");
      return Array.isArray(answer) ? answer[1]! : (answer as string);
    } catch (error) {
      if (error instanceof RemoteFailure) throw error;
      if (error instanceof ApiError && site.run !== run) throw new RemoteFailure(error.message, error.status);
      this.failures.push(error);
      throw new RemoteFailure(String(error), 500);
    } finally {
      run.answering.delete(asked);
    }
  }

  /** Posts messages at once. Whether they are kept is known when `settled` is. */
  post(site: Site, feed: string, scope: string, count: number, isSame: boolean): void {
    for (let i = 0; i < count; i++) {
      const content = isSame ? "1" : String(++this.#content);
      this.#do(site, async ({ network }) => {
        const { message_id } = await network.feeds.post({ feed_key: feed, scope_hint: scope, content });
        return message_id;
      });
    }
  }

  subscribe(site: Site, { who, feed, scope, active }: Wish): void {
    this.asked.add(JSON.stringify([feed, scope]));
    this.#do(site, async ({ network }) => {
      const request = { feed_key: feed, scope_hint: scope, active, subscriber_node_id: who };
      return (await network.feeds.subscribe(request)).event_id;
    });
  }

  #do(site: Site, work: (engine: Engine) => Promise<string>): void {
    const { run } = site;
    if (run === undefined) return;
    const done = work(run.engine).then(
      (id) => {
        // Nobody hears from a server that is gone.
        if (site.run !== run) return;
        if (site.told.has(id)) this.failures.push(new Error(`${id} was given out twice`));
        site.told.add(id);
      },
      (error) => {
        if (site.run === run) this.failures.push(error);
      },
    );
    run.answering.add(done);
    this.#posting.add(done);
    done.then(() => {
      run.answering.delete(done);
      this.#posting.delete(done);
    });
  }

  /** What clients have asked for is done. */
  async settled(): Promise<void> {
    await Promise.all(this.#posting);
  }

  /** Ends all engines in order. Their data stays where it is. */
  async end(): Promise<void> {
    for (const site of this.sites) {
      const { run } = site;
      site.run = undefined;
      if (run) await this.#end(run);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end();
    await this.#parts[Symbol.asyncDispose]();
  }
}

/** As HTTP refuses a body. */
function within(body: string, bytes: number): void {
  if (Buffer.byteLength(body) > bytes) throw new RemoteFailure("HTTP 413", 413);
}

/** A record of a feed log. */
export interface Logged {
  readonly seq: number;
  readonly ts: number;
  readonly text: string;
  readonly event: SignedEvent;
}

/** All of a feed log, as clients read it. */
export async function logOf(engine: Engine): Promise<Logged[]> {
  const logged: Logged[] = [];
  for (;;) {
    const request = { from_seq: logged.at(-1)?.seq ?? 0, limit: 1000 };
    const { records, page } = await engine.log.diff("_feeds", request, () => AbortSignal.abort());
    for (const record of elements(`[${records}]`)) {
      const { $seq: seq, $ts: ts, data: event } = JSON.parse(record);
      logged.push({ seq, ts, text: members(record).get("data")!, event });
    }
    if (page.caught_up) return logged;
  }
}

const verified = new Map<string, string>();

/** What is wrong with an event by itself. */
export function faultOf({ event, text }: Logged): string | undefined {
  if (encoded(event) !== text) return "another spelling than the one that was signed";
  const known = verified.get(event.event_id);
  if (known !== undefined) return known === text ? undefined : "two events of one id";
  const author = authorsById.get(event.author_node_id);
  if (author === undefined) return "an unknown author";
  const { event_id, signature_hex } = recomputed(author, event);
  if (event_id !== event.event_id || signature_hex !== event.signature_hex) return "a wrong id or signature";
  verified.set(event_id, text);
  return undefined;
}
