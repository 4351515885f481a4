/**
 * What passes between an instance and its peers, where HTTP would only be in the way: links that are replaced, peers
 * by the thousand, lanes that many want, slow and failing peers, and records that are damaged in storage.
 */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import type { Backfill, Backfilled } from "../../src/contract/peers.ts";
import type { Peering } from "../../src/engine/feeds/peering.ts";
import { type Push, type Remote, RemoteFailure } from "../../src/engine/feeds/remote.ts";
import { Store } from "../../src/store/store.ts";
import { Author, item, messageEvent, type SignedEvent, subscriptionEvent } from "../support/events.ts";
import { temporaryDirectory } from "../support/spawn.ts";
import { timed, until } from "../support/topics.ts";
import { damages } from "./damage.ts";
import { storeIn, TestEngine } from "./setup.ts";

setDefaultTimeout(30_000);

const SCOPE = "group:crew";

/** Much more than it takes, and much less than what costs more with everything that is stored. */
const GAP_MS_MAX = 1000;

/** Short, so that a test sees many. */
const INTERVAL_MS = 100;
/** Nothing comes by itself. */
const NEVER_MS = 600_000;

/** An instance that a test speaks to without HTTP. */
class Instance implements AsyncDisposable {
  readonly opened: TestEngine;
  /** What peers refused, and what was damaged. */
  readonly refused: string[] = [];
  /** Whether the link to a peer came up, each time that it came up or went down. */
  readonly turns: boolean[] = [];
  #peering: Peering | undefined;

  constructor(store = new Store()) {
    this.opened = new TestEngine(store);
  }

  get network() {
    return this.opened.engine.network;
  }

  get networkId(): string {
    return this.network.feeds.networkId;
  }

  /** From now on it keeps up with the nodes. A node that is named twice has two URLs. */
  join(nodes: readonly Node[], intervalMs = INTERVAL_MS): void {
    const remotes = new Map(nodes.map((node, i) => [`http://peer${i}.test`, node.remote(i)]));
    this.#peering = this.network.join({
      urls: [...remotes.keys()],
      intervalMs,
      remote: (url) => remotes.get(url)!,
      turned: (_url, _nodeId, reason) => this.turns.push(reason === null),
      leftOut: (_url, _events, reason) => this.refused.push(reason),
    });
    this.#peering.start();
  }

  /** Waits until all peers have answered. */
  connected(): Promise<unknown> {
    return until(
      async () => this.network.peers.map(({ state }) => state),
      (peers) => peers.every(({ connected }) => connected),
    );
  }

  push(from: string, log_id: string, events: readonly SignedEvent[]) {
    const items = events.map((event) => item(event));
    return this.network.exchange.push({ from, network_id: this.networkId, log_id, events: items });
  }

  async post(feed_key: string, content: unknown): Promise<string> {
    const request = { feed_key, scope_hint: SCOPE, content: JSON.stringify(content) };
    return (await this.network.feeds.post(request)).message_id;
  }

  async subscribe(feed_key: string): Promise<void> {
    await this.network.feeds.subscribe({ feed_key, scope_hint: SCOPE, active: true });
  }

  message(author: Author, feed_key: string, content: unknown): SignedEvent {
    return messageEvent(author, { network_id: this.networkId, feed_key, scope: SCOPE, content });
  }

  subscription(author: Author, feed_key: string, subscriber = author.id): SignedEvent {
    const names = { network_id: this.networkId, feed_key, subscriber_node_id: subscriber };
    return subscriptionEvent(author, { ...names, scope: SCOPE, active: true });
  }

  /** So many subscriptions of one author, each to a feed of its own. */
  subscriptions(author: Author, count: number): SignedEvent[] {
    return Array.from({ length: count }, (_, i) => this.subscription(author, `lane ${i}`));
  }

  /** Ids of the newest messages of a feed. */
  async ids(feedKey: string): Promise<string[]> {
    const all = { networkId: undefined, beforeCreatedAt: undefined, beforeMessageId: undefined };
    const { messages } = await this.network.feeds.messages({
      ...all,
      feedKey,
      scopeHint: SCOPE,
      limit: 200,
    });
    return messages.map((text) => JSON.parse(text).message_id);
  }

  holds(feedKey: string, count: number, deadlineMs = 5000): Promise<string[]> {
    return until(
      () => this.ids(feedKey),
      ({ length }) => length === count,
      deadlineMs,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#peering?.[Symbol.asyncDispose]();
    this.opened[Symbol.dispose]();
    expect(this.opened.failures).toEqual([]);
  }
}

/** A request that came by one of the URLs of a node. */
interface Came<Request> {
  readonly at: number;
  readonly url: number;
  readonly request: Request;
}

/** A peer that keeps to the contract until a test says otherwise. */
class Node {
  readonly author = new Author();
  readonly pushes: Came<Push>[] = [];
  readonly backfills: Came<Backfill>[] = [];
  logId = "first log";
  /** What it has, by feed key; under "" its subscriptions. */
  readonly lanes: Record<string, SignedEvent[]> = {};
  /** Awaited before a request is answered. What it throws is the answer. */
  beforePush = async (_: Came<Push>): Promise<void> => {};
  beforeBackfill = async (_: Came<Backfill>): Promise<void> => {};
  /** Says more than the regular answer. */
  changed = (_: Backfill, answer: Backfilled): Backfilled => answer;

  /** Ids of what was pushed to it, in this order, also of what it did not take. */
  get pushed(): string[] {
    return this.pushes.flatMap(({ request }) => idsIn(request.events));
  }

  gets(id: string, deadlineMs = 5000): Promise<unknown> {
    return until(
      async () => this.pushed,
      (ids) => ids.includes(id),
      deadlineMs,
    );
  }

  /** Backfills of one feed that asked for more than a digest. */
  pagesOf(feedKey: string): Backfill[] {
    return this.backfills
      .map(({ request }) => request)
      .filter(({ lane, head_only }) => lane.feed_key === feedKey && !head_only);
  }

  remote(url: number): Remote {
    return {
      push: async (request, signal) => {
        const came = { at: performance.now(), url, request };
        this.pushes.push(came);
        await this.beforePush(came);
        signal.throwIfAborted();
        const { length: accepted } = request.events;
        return { ...this.#self, head_seq: 1, accepted, duplicates: 0, rejected: [] };
      },
      backfill: async (request, signal) => {
        const came = { at: performance.now(), url, request };
        this.backfills.push(came);
        // Whoever speaks over a network does not answer in the same turn.
        await Bun.sleep(0);
        await this.beforeBackfill(came);
        signal.throwIfAborted();
        return this.changed(request, this.#page(request));
      },
    };
  }

  get #self() {
    return { ok: true, node_id: this.author.id, log_id: this.logId };
  }

  #page({ lane, from_event_seq: after, limit = 256, head_only = false }: Backfill): Backfilled {
    const events = this.lanes[lane.feed_key ?? ""] ?? [];
    const page = head_only ? [] : events.slice(after, after + limit);
    const next = head_only ? events.length : Math.max(after, Math.min(after + limit, events.length));
    return {
      ...this.#self,
      lane,
      next_from_event_seq: next,
      head_only,
      head_event_ids: events
        .slice(-8)
        .reverse()
        .map(({ event_id }) => event_id),
      events: page.map((event) => item(event)),
      more: !head_only && next < events.length,
    };
  }
}

const idsIn = (events: readonly string[]): string[] => events.map((text) => JSON.parse(text).event.event_id);

const bytesOf = ({ events }: Push): number => Buffer.byteLength(events.join(","));

/** The longest time in which nothing else could run while `work` did. */
async function longestGap(work: () => Promise<unknown>): Promise<number> {
  let longest = 0;
  let last = performance.now();
  const look = () => {
    longest = Math.max(longest, performance.now() - last);
    last = performance.now();
  };
  const timer = setInterval(look, 1);
  try {
    await work();
    await Bun.sleep(5);
  } finally {
    clearInterval(timer);
  }
  return longest;
}

async function pushAll(to: Instance, from: Author, logId: string, events: readonly SignedEvent[]) {
  for (let i = 0; i < events.length; i += 250) await to.push(from.id, logId, events.slice(i, i + 250));
}

describe("a peer whose log is replaced twice by its own pushes", () => {
  test.each([
    ["one after the other", false],
    ["at once", true],
  ])("is noticed: its wish is met, and a lane is read once; %s", async (_, isAtOnce) => {
    await using instance = new Instance();
    const node = new Node();
    const { author } = node;
    node.lanes.feed = Array.from({ length: 150 }, (_, i) => instance.message(author, "feed", i));
    instance.join([node]);
    await instance.connected();

    const other = () => instance.push(author.id, "another log", [instance.subscription(author, "aside")]);
    const first = () => instance.push(author.id, "first log", [instance.subscription(author, "wanted")]);
    if (isAtOnce) await Promise.all([other(), first()]);
    else await other().then(first);
    await node.gets(await instance.post("wanted", "hello"));

    await instance.subscribe("feed");
    await instance.holds("feed", 150);
    await Bun.sleep(5 * INTERVAL_MS);
    // The wish told the peer of nothing new, so a digest was all that was asked for later.
    expect(node.pagesOf("feed").length).toBeWithin(1, 4);
  });

  test("while a page of it is on its way", async () => {
    await using instance = new Instance();
    const node = new Node();
    const { author } = node;
    node.lanes.feed = Array.from({ length: 150 }, (_, i) => instance.message(author, "feed", i));
    let left = 1;
    node.beforeBackfill = async ({ request: { lane, head_only } }) => {
      if (lane.feed_key !== "feed" || head_only || left-- <= 0) return;
      await instance.push(author.id, "another log", [instance.subscription(author, "aside")]);
      await instance.push(author.id, "first log", [instance.subscription(author, "wanted")]);
    };
    instance.join([node]);
    await instance.subscribe("feed");
    await instance.holds("feed", 150);
    await node.gets(await instance.post("wanted", "hello"));
    await Bun.sleep(5 * INTERVAL_MS);
    expect(node.pagesOf("feed").length).toBeWithin(1, 5);
  });
});

describe("nobody waits", () => {
  test("for 256 subscriptions to a lane that 5,000 want already", async () => {
    await using instance = new Instance();
    const [first, second] = [new Author(), new Author()];
    const many = (author: Author, count: number) =>
      Array.from({ length: count }, (_, i) => instance.subscription(author, "popular", `robot ${i}`));
    await pushAll(instance, first, "log", many(first, 5000));
    const more = many(second, 256);
    const gap = await longestGap(() => instance.push(second.id, "log", more));
    expect(gap).toBeLessThan(GAP_MS_MAX);
  });

  test("for a subscription after a peer has brought 5,000, where 300 others are known", async () => {
    await using instance = new Instance();
    const node = new Node();
    const common = instance.subscription(new Author(), "wanted by many");
    for (let i = 0; i < 300; i++) await instance.push(new Author().id, "log", [common]);
    instance.join([node]);
    await instance.connected();
    const events = instance.subscriptions(node.author, 5000);
    const gap = await longestGap(async () => {
      await pushAll(instance, node.author, node.logId, events);
      await instance.subscribe("own");
      await until(
        async () => node.backfills,
        (asked) => asked.some(({ request }) => request.lane.feed_key === "own"),
      );
    });
    expect(gap).toBeLessThan(GAP_MS_MAX);
  });
});

describe("peers by the thousand", () => {
  const PEERS = 1024;

  test("do not keep one out that is configured", async () => {
    await using instance = new Instance();
    const event = instance.subscription(new Author(), "wanted by many");
    for (let i = 0; i < PEERS; i++) await instance.push(new Author().id, "log", [event]);
    await expect(instance.push(new Author().id, "log", [event])).rejects.toMatchObject({ code: "throttled" });

    const node = new Node();
    node.lanes["wanted by many"] = [instance.message(node.author, "wanted by many", "here it is")];
    instance.join([node]);
    await instance.connected();
    await instance.holds("wanted by many", 1);
    // It is remembered now.
    const wish = instance.subscription(node.author, "own");
    expect(await instance.push(node.author.id, node.logId, [wish])).toMatchObject({ accepted: 1 });
    await node.gets(await instance.post("own", "hello"));
  });
});

describe("a peer that refuses lanes", () => {
  test.each([400, 413])("with %i: others are read, and it counts as connected", async (status) => {
    await using instance = new Instance();
    const node = new Node();
    node.lanes.good = [instance.message(node.author, "good", "here it is")];
    node.beforeBackfill = async ({ request }) => {
      if (request.lane.feed_key === "bad") throw new RemoteFailure("not this one", status);
    };
    await instance.subscribe("bad");
    await instance.subscribe("good");
    instance.join([node]);
    await instance.holds("good", 1);
    expect(instance.refused).toContain("not this one");
    const [peer] = instance.network.peers;
    expect(peer!.state).toMatchObject({ connected: true, last_error: null });

    // Also those that somebody subscribes to later.
    node.lanes.late = [instance.message(node.author, "late", "here it is")];
    await instance.subscribe("late");
    await instance.holds("late", 1);
  });
});

describe("a peer that has always more and nothing new", () => {
  test("is read of its other lanes, too, and not without end", async () => {
    await using instance = new Instance();
    const node = new Node();
    node.lanes.good = [instance.message(node.author, "good", "here it is")];
    node.changed = ({ lane, from_event_seq, head_only }, answer) =>
      lane.feed_key === "endless"
        ? { ...answer, next_from_event_seq: head_only ? 1e15 : from_event_seq + 1, more: !head_only }
        : answer;
    await instance.subscribe("endless");
    await instance.subscribe("good");
    instance.join([node], NEVER_MS);
    await instance.holds("good", 1);
    const { length } = node.pagesOf("endless");
    expect(length).toBeWithin(1, 200);
    await Bun.sleep(500);
    expect(node.pagesOf("endless").length).toBe(length);
  });

  test("in the lane of subscriptions: lanes are read all the same", async () => {
    await using instance = new Instance();
    const node = new Node();
    node.lanes.good = [instance.message(node.author, "good", "here it is")];
    node.changed = ({ lane, from_event_seq, head_only }, answer) =>
      lane.kind === "subscriptions"
        ? { ...answer, next_from_event_seq: head_only ? 1e15 : from_event_seq + 1, more: !head_only }
        : answer;
    await instance.subscribe("good");
    instance.join([node], NEVER_MS);
    await instance.holds("good", 1);
  });
});

describe.each(damages)("a record of the feed log $what", ({ damage }) => {
  /** An instance with ten messages in a lane, of which the fifth is damaged, and three in another one. */
  async function damaged() {
    await using parts = new AsyncDisposableStack();
    const { path } = parts.use(await temporaryDirectory());
    const instance = parts.use(new Instance(storeIn(path)));
    const hurt: string[] = [];
    for (let i = 0; i < 10; i++) hurt.push(await instance.post("hurt", i));
    const whole = [await instance.post("whole", 1), await instance.post("whole", 2)];
    damage(path, "_feeds", 5);
    const [lost] = hurt.splice(4, 1);
    const kept = parts.move();
    return { instance, hurt, lost, whole, [Symbol.asyncDispose]: () => kept.disposeAsync() };
  }

  test("pushes go on with the others", async () => {
    await using parts = await damaged();
    const { instance, hurt, lost, whole } = parts;
    const node = new Node();
    node.lanes[""] = ["hurt", "whole"].map((key) => instance.subscription(node.author, key));
    instance.join([node]);
    for (const id of [...hurt, ...whole]) await node.gets(id);
    expect(node.pushed).not.toContain(lost!);
    await node.gets(await instance.post("hurt", "later"));
    expect(instance.refused).toEqual([expect.stringMatching(/\b5\b.*damaged/)]);
  });

  test("backfills go on with the others", async () => {
    await using parts = await damaged();
    const { instance, hurt } = parts;
    const asked = { from: new Author().id, network_id: instance.networkId };
    const lane = { kind: "messages", scope: SCOPE, feed_key: "hurt" };
    const given: string[] = [];
    for (let from_event_seq = 0; ; ) {
      const { head, events } = await instance.network.exchange.backfill({
        ...asked,
        ...{ lane, from_event_seq, limit: 2 },
      });
      given.push(...idsIn(events));
      expect(head.next_from_event_seq > from_event_seq || !head.more).toBe(true);
      from_event_seq = head.next_from_event_seq;
      if (!head.more) break;
    }
    expect(given).toEqual(hurt);
  });

  test("a page of messages that holds it says which it is", async () => {
    await using parts = await damaged();
    const { instance, whole } = parts;
    await expect(instance.ids("hurt")).rejects.toMatchObject({
      code: "internal",
      detail: { topic: "_feeds", seq: 5 },
    });
    expect((await instance.ids("whole")).sort()).toEqual(whole.toSorted());
  });
});

describe.concurrent("a peer that takes too long", () => {
  test("is sent fewer events at a time, and more again when it is fast", async () => {
    await using instance = new Instance();
    const node = new Node();
    let slow = true;
    node.beforePush = async ({ request: { events } }) => {
      if (slow && events.length > 128) throw new RemoteFailure("no answer in time", undefined, true);
    };
    node.lanes[""] = [instance.subscription(node.author, "feed")];
    const ids = await Promise.all(Array.from({ length: 600 }, (_, i) => instance.post("feed", i)));
    instance.join([node], NEVER_MS);
    const sizes = async () => node.pushes.map(({ request }) => request.events.length);
    await until(sizes, (sizes) => sizes.includes(128));
    slow = false;
    await until(
      async () => new Set(node.pushed),
      ({ size }) => size === ids.length,
    );
    const [first, second, third] = await sizes();
    expect([first, second]).toEqual([256, 128]);
    expect(third).toBeGreaterThan(128);
  });

  test("is asked for fewer events at a time", async () => {
    await using instance = new Instance();
    const node = new Node();
    node.lanes.feed = Array.from({ length: 200 }, (_, i) => instance.message(node.author, "feed", i));
    node.beforeBackfill = async ({ request: { limit = 256, head_only } }) => {
      if (!head_only && limit > 64) throw new RemoteFailure("no answer in time", undefined, true);
    };
    await instance.subscribe("feed");
    instance.join([node], INTERVAL_MS);
    await instance.holds("feed", 200, 8000);
  });
});

describe("two URLs of one peer", () => {
  test("when the first one dies the other takes over by itself", async () => {
    await using instance = new Instance();
    const node = new Node();
    node.lanes[""] = [instance.subscription(node.author, "feed")];
    const dead = new Set<number>();
    const answer = async ({ url }: { url: number }) => {
      if (dead.has(url)) throw new RemoteFailure("nobody is there");
    };
    node.beforePush = node.beforeBackfill = answer;
    instance.join([node, node], NEVER_MS);
    await instance.connected();
    await node.gets(await instance.post("feed", 1));

    dead.add(0);
    const id = await instance.post("feed", 2);
    const taken = async () => node.pushes.filter(({ url }) => !dead.has(url));
    await until(taken, (pushes) => pushes.some(({ request }) => idsIn(request.events).includes(id)));
  });
});

describe.concurrent("a peer that takes nothing, but gives", () => {
  test("is not pushed to more often than the pauses say", async () => {
    await using instance = new Instance();
    const node = new Node();
    let isDown = false;
    node.beforeBackfill = async () => {
      if (isDown) throw new RemoteFailure("nobody is there");
    };
    node.beforePush = async () => {
      throw new RemoteFailure("no room", 503);
    };
    for (let i = 0; i < 50; i++) await instance.subscribe(`lane ${i}`);
    instance.join([node]);
    await until(
      async () => node.pushes,
      ({ length }) => length === 1,
    );
    // It is away once, and so is whatever reads from it; that it is back says nothing of pushes but once.
    isDown = true;
    await until(
      async () => instance.network.peers[0]!.failures,
      (failures) => failures >= 2,
    );
    isDown = false;
    await Bun.sleep(4000);
    // After about 1, 3 and 7 s; some of it has passed; and once when it was back.
    expect(node.pushes.length).toBeWithin(2, 6);
    expect(node.backfills.length).toBeGreaterThan(100);
  });
});

describe.concurrent("a peer that gives digests, but no pages", () => {
  test("is asked less and less often, and counts as one that fails", async () => {
    await using instance = new Instance();
    const node = new Node();
    node.lanes.feed = [instance.message(node.author, "feed", "never given")];
    node.beforeBackfill = async ({ request: { lane, head_only } }) => {
      if (lane.feed_key === "feed" && !head_only) throw new RemoteFailure("HTTP 500", 500);
    };
    await instance.subscribe("feed");
    instance.join([node], NEVER_MS);
    const start = performance.now();
    await until(
      async () => node.pagesOf("feed").length,
      (asked) => asked === 3,
      20_000,
    );
    // At the start, after 1 s, and after 2 s more.
    expect(performance.now() - start).toBeGreaterThan(2500);
    expect(instance.turns.length).toBeLessThan(8);
  });
});

describe("a push", () => {
  test("of texts that are longer in bytes than in characters is at most 8 MiB", async () => {
    await using instance = new Instance();
    const node = new Node();
    node.lanes[""] = [instance.subscription(node.author, "feed")];
    const long = "漢".repeat(40_000);
    const ids = await Promise.all(
      Array.from({ length: 150 }, (_, i) => instance.post("feed", `${i}${long}`)),
    );
    instance.join([node]);
    for (const id of ids) await node.gets(id, 15_000);
    const sizes = node.pushes.map(({ request }) => bytesOf(request));
    expect(Math.max(...sizes)).toBeLessThanOrEqual(8 * 1024 * 1024);
    // Nothing was sent only to be told that it is too much.
    expect(node.pushed.length).toBe(ids.length);
  });
});

describe("a round over many lanes of a slow peer", () => {
  test("does not keep a new subscription waiting", async () => {
    await using instance = new Instance();
    const node = new Node();
    for (let i = 0; i < 500; i++) await instance.subscribe(`lane ${i}`);
    node.lanes.late = [instance.message(node.author, "late", "here it is")];
    node.beforeBackfill = () => Bun.sleep(20);
    instance.join([node], NEVER_MS);
    await until(
      async () => node.backfills,
      ({ length }) => length > 10,
    );
    await instance.subscribe("late");
    const { ms } = await timed(() => instance.holds("late", 1));
    expect(ms).toBeLessThan(2000);
    // The round was still under way.
    expect(node.backfills.length).toBeLessThan(400);
  });
});

describe("many posts that are the same", () => {
  test("do not push the author's time far ahead of the clock", async () => {
    await using instance = new Instance();
    let ahead = 0;
    const { log } = instance.network;
    const post = async () => {
      await instance.post("beat", "same");
      ahead = Math.max(ahead, log.topic.log.lastTs! - Date.now());
    };
    await Promise.all(Array.from({ length: 3000 }, post));
    expect(ahead).toBeLessThan(1500);
    expect(log.head).toBe(3000);
  });
});
