/**
 * What peers, and clients of feeds, cannot do to an instance: keep lanes from being read, pass off an answer as a good
 * one, keep the server busy, or bring back what was sent to them.
 */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { damages } from "../engine/damage.ts";
import {
  Author,
  canonical,
  changed,
  encoded,
  item,
  messageEvent,
  Peer,
  randomHex,
  type SignedEvent,
  seal,
  subscriptionEvent,
} from "../support/events.ts";
import { heldBy, INTERVAL_MS, lane, NETWORK, Network, quiet } from "../support/network.ts";
import { Metrics } from "../support/prometheus.ts";
import { runToEnd, temporaryDirectory } from "../support/spawn.ts";
import { timed, until } from "../support/topics.ts";

setDefaultTimeout(40_000);

/** Much more than it takes, also on a busy machine. */
const QUICK_MS = 1000;

const MIB = 1024 * 1024;

const chat = lane("chat");

const message = (author: Author, feed_key: string, content: unknown) =>
  messageEvent(author, { network_id: NETWORK, feed_key, scope: "group:crew", content });

/** What a peer is asked for or is sent. */
interface Asked {
  readonly lane?: { readonly kind: string; readonly feed_key?: string };
  readonly head_only?: boolean;
  readonly events?: { readonly event: SignedEvent }[];
}

/** What a peer answers, before it is made JSON. */
type Answer = Record<string, unknown>;

/** A peer with a message in each of some lanes, that may want one itself. */
class FakePeer implements AsyncDisposable {
  readonly author = new Author();
  readonly url: string;
  readonly pulls: Asked[] = [];
  readonly pushes: Asked[] = [];
  /** Instead of the regular answers. */
  onPull = (_: Asked, regular: Answer): Response => Response.json(regular);
  onPush = (_: Asked, regular: Answer): Response => Response.json(regular);
  readonly #lanes: Record<string, SignedEvent> = {};
  readonly #server: Bun.Server<unknown>;

  constructor(feedKeys: readonly string[], wants?: string) {
    for (const key of feedKeys) this.#lanes[key] = message(this.author, key, `in ${key}`);
    const names = { network_id: NETWORK, feed_key: wants!, scope: "group:crew", active: true };
    if (wants !== undefined) this.#lanes[""] = subscriptionEvent(this.author, names);
    this.#server = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: (request) => this.#take(request) });
    this.url = `http://127.0.0.1:${this.#server.port}`;
  }

  /** How often an event was pushed to it. */
  times(id: string): number {
    const ids = this.pushes.flatMap(({ events }) => events!.map(({ event }) => event.event_id));
    return ids.filter((pushed) => pushed === id).length;
  }

  async #take(request: Request): Promise<Response> {
    const asked = (await request.json()) as Asked;
    const self = { ok: true, node_id: this.author.id, log_id: "log" };
    if (asked.events) {
      this.pushes.push(asked);
      const counts = { head_seq: 1, accepted: asked.events.length, duplicates: 0, rejected: [] };
      return this.onPush(asked, { ...self, ...counts });
    }
    this.pulls.push(asked);
    const { head_only = false, lane } = asked;
    const event = this.#lanes[lane?.feed_key ?? ""];
    return this.onPull(asked, {
      ...self,
      ...{ lane, head_only, next_from_event_seq: event ? 1 : 0, more: false },
      head_event_ids: event ? [event.event_id] : [],
      events: event && !head_only ? [{ scope: event.swarm_scope, event }] : [],
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.stop(true);
  }
}

describe("a lane that cannot be read", () => {
  test.each([400, 413])("of a peer that answers %i keeps no other from being read", async (status) => {
    await using peer = new FakePeer(["bad", "good", "late"]);
    peer.onPull = ({ lane }, regular) =>
      lane!.feed_key === "bad"
        ? Response.json({ ok: false, error: "not this one" }, { status })
        : Response.json(regular);
    await using network = await Network.of({ a: [peer.url] });
    const [a] = network.get("a");
    await a.subscribe(lane("bad"));
    await a.subscribe(lane("good"));
    await a.holds(lane("good"), 1);
    await a.subscribe(lane("late"));
    await a.holds(lane("late"), 1);
    await Bun.sleep(3 * INTERVAL_MS);
    expect(await a.ids(lane("bad"))).toEqual([]);
    expect((await a.status()).peers).toMatchObject([{ connected: true, last_error: null }]);
  });

  test.each([
    ["70,000 characters", "k".repeat(70_000)],
    ["20,000 that are escaped", "\u0001".repeat(20_000)],
  ])("is not that of a feed_key of %s", async (_, feed_key) => {
    await using network = await Network.of({ a: ["b"], b: [] });
    const [a, b] = network.get("a", "b");
    const [long, short] = [lane(feed_key), lane("short")];
    await a.subscribe(long);
    await a.subscribe(short);
    await b.post(long, "in the long one");
    await b.post(short, "in the short one");
    await a.holds(short, 1);
    // Its own two subscriptions, and both messages.
    await until(
      () => a.status(),
      ({ head_seq, peers }) => head_seq === 4 && peers[0]!.connected,
    );
  });
});

describe.concurrent("an answer of a peer", () => {
  const answers: Record<string, Answer> = {
    "ok: false": { ok: false },
    "a node_id that is no id": { node_id: "not hex <script>" },
    "a node_id in upper case": { node_id: "AB".repeat(32) },
    "a log_id of 3 MB": { log_id: "L".repeat(3_000_000) },
    "a blank log_id": { log_id: " " },
    "100,000 events": { events: Array(100_000).fill(0) },
    "100,000 heads": { head_event_ids: Array(100_000).fill(randomHex(32)) },
  };

  test.each(Object.entries(answers))("to a pull with %s is none", async (_, wrong) => {
    await using peer = new FakePeer(["chat"], "chat");
    await using well = new FakePeer(["chat"]);
    peer.onPull = (_, regular) => Response.json({ ...regular, ...wrong });
    await using network = new Network();
    await network.start({ a: [peer.url, well.url] });
    const [a] = network.get("a");
    await a.subscribe(chat);
    await a.holds(chat, 1);
    await Bun.sleep(2000);
    const [state] = (await a.status()).peers;
    expect(state).toMatchObject({ node_id: null, connected: false, last_ok_at: null });
    expect(state!.last_error!.length).toBeWithin(1, 1000);
    // At the start, after 1 s, and after 2 s more.
    expect(peer.pulls.length).toBeWithin(1, 4);
    expect(peer.pushes).toEqual([]);
  });

  test.each(Object.entries(answers).slice(0, 5))("to a push with %s is none", async (_, wrong) => {
    await using peer = new FakePeer([], "chat");
    let isWrong = true;
    peer.onPush = (_, regular) => Response.json(isWrong ? { ...regular, ...wrong } : regular);
    await using network = await Network.of({ a: [peer.url] });
    const [a] = network.get("a");
    await a.hearsOf(peer.author.id, "chat");
    const id = await a.post(chat, "again");
    await until(
      async () => peer.times(id),
      (times) => times === 2,
    );
    const [state] = (await a.status()).peers;
    expect(state).toMatchObject({ node_id: peer.author.id, connected: false });
    expect(state!.last_error!.length).toBeWithin(1, 1000);
    isWrong = false;
    await until(
      async () => peer.times(id),
      (times) => times === 3,
    );
    await until(
      () => a.status(),
      ({ peers }) => peers[0]!.connected,
    );
  });
});

describe("many small values", () => {
  const contents = {
    arrays: `[${"[],".repeat(690_000)}[]]`,
    members: `{${Array.from({ length: 150_000 }, (_, i) => `"${(i * 7919) % 1_000_003}":1e21`).join(",")}}`,
  };

  test.each(Object.entries(contents))("in a post of 2 MB are refused quickly: %s", async (_, content) => {
    await using network = await Network.of({ a: [] });
    const [a] = network.get("a");
    const body = `{"feed_key":"chat","scope_hint":"group:crew","content":${content}}`;
    let quickest = Number.POSITIVE_INFINITY;
    let bare = Number.POSITIVE_INFINITY;
    for (let i = 0; i < 5; i++) {
      const { ms, answer } = await timed(() => a.send("POST", "/api/topic/messages", body));
      expect(answer).toMatchObject({ status: 400, body: { ok: false } });
      quickest = Math.min(quickest, ms);
      bare = Math.min(bare, (await timed(async () => JSON.parse(body))).ms);
    }
    // What takes the square of their number would take many times as long, whatever the machine.
    expect(quickest).toBeLessThan(20 * bare + QUICK_MS);
  });

  const large = {
    arrays: `[${"[],".repeat(2_600_000)}[]]`,
    members: `{${Array.from({ length: 600_000 }, (_, i) => `"${(i * 7919) % 1_000_003}":1e21`).join(",")}}`,
  };

  test.each(Object.entries(large))("in an event of 8 MB are a rejected event: %s", async (_, content) => {
    await using network = await Network.of({ a: [] });
    const [a] = network.get("a");
    const author = new Author();
    const event = message(author, "chat", "filled in");
    const text = encoded(event).replace(
      '"local_content_cache":"filled in"',
      `"local_content_cache":${content}`,
    );
    expect(text.length).toBeWithin(7 * MIB, 8 * MIB);
    const good = message(author, "chat", "beside it");
    const peer = new Peer(a, NETWORK, author);
    const { ms, answer } = await timed(() => peer.push(item(text, "group:crew"), good));
    const error = expect.stringMatching(/^invalid event: /);
    expect(answer).toMatchObject({ status: 200, body: { accepted: 1, rejected: [{ error }] } });
    expect(answer.body.rejected).toHaveLength(1);
    const { ms: bare } = await timed(async () => JSON.parse(text));
    expect(ms).toBeLessThan(20 * bare + 2 * QUICK_MS);
  });
});

describe("a message", () => {
  test.each(damages)("whose record $what: its page answers 500 and names it", async ({ damage }) => {
    await using network = await Network.of({ a: [] });
    const [a] = network.get("a");
    for (let i = 0; i < 6; i++) await a.post(chat, i);
    const other = await a.post(lane("other"), "whole");
    damage(join(a.dir, "data"), "_feeds", 4);
    const reply = await a.send("GET", "/api/topic/messages?feed_key=chat&scope_hint=group:crew");
    expect(reply).toMatchObject({
      status: 500,
      body: { ok: false, error: expect.stringMatching(/\b4\b/) },
    });
    expect(await a.ids(lane("other"))).toEqual([other]);
  });

  const digest = (text: string) => `sha256:${new Bun.CryptoHasher("sha256").update(text).digest("hex")}`;

  test.each([
    ["that of another content", `artifact://topic-message/${digest(canonical("another"))}`],
    ["of another kind", `artifact://blob/${digest(canonical("content"))}`],
    ["in upper case", `ARTIFACT://topic-message/${digest(canonical("content"))}`],
    ["with something behind it", `artifact://topic-message/${digest(canonical("content"))}?x`],
    ["elsewhere", "https://example.com/content"],
    ["empty", ""],
  ])("whose uri is %s is rejected", async (_, uri) => {
    await using network = await Network.of({ a: [] });
    const [a] = network.get("a");
    const author = new Author();
    const event = message(author, "chat", "content");
    const wrong = seal(author, changed(event, "payload.payload.content_ref.uri", uri));
    const { status, body } = await new Peer(a, NETWORK, author).push(wrong, event);
    const error = expect.stringMatching(/^invalid event: /);
    const rejected = [{ event_id: wrong.event_id, error }];
    expect({ status, body }).toMatchObject({ status: 200, body: { accepted: 1, rejected } });
  });
});

test("what was posted here and sent to a peer does not come back from it", async () => {
  await using network = await Network.of({ a: ["b"], b: ["a"] });
  const [a, b] = network.get("a", "b");
  await Promise.all([a.subscribe(chat), b.subscribe(chat)]);
  await a.hearsOf(await b.nodeId(), "chat");
  await a.postMany(chat, 2000);
  await heldBy([a, b], chat, 2000);
  await quiet(async () => (await a.status()).head_seq, 5 * INTERVAL_MS);
  const text = (await a.send("GET", "/v0/metrics")).text;
  const { samples } = new Metrics(text).family("topics_feed_received_total");
  const came = samples.find(({ labels }) => labels.result === "duplicates");
  // A few may be on their way when a pull asks.
  expect(came!.value).toBeLessThan(100);
});

test("an instance that becomes strict keeps `global` to itself, also what was on its way", async () => {
  await using network = new Network();
  const gate = network.gate("b");
  await network.start({ a: [gate.url], b: [] });
  const [a, b] = network.get("a", "b");
  const [world, open] = [lane("world", "global"), lane("open")];
  await Promise.all([b.subscribe(world), b.subscribe(open)]);
  await Promise.all(["world", "open"].map(async (key) => a.hearsOf(await b.nodeId(), key)));
  const before = await a.post(world, "before");
  await b.holds(world, 1);

  await gate.shut();
  await a.post(world, "on its way");
  await a.restart({ FEED_STRICT: "1" });
  gate.reopen();
  await a.post(world, "strict");
  const barrier = await a.post(open, "later");
  await b.holds(open, 1);
  expect(await b.ids(open)).toEqual([barrier]);
  expect(await b.ids(world)).toEqual([before]);
  const answer = await new Peer(a, NETWORK).backfill({
    kind: "messages",
    scope: "global",
    feed_key: "world",
  });
  expect(answer).toMatchObject({ status: 200, body: { events: [], head_event_ids: [] } });
});

test.each(["geheim-ä", "schlüssel-漢", "bell\u0007", "line\nbreak"])(
  "a peer token that no header can hold refuses to start: %j",
  async (token) => {
    await using dir = await temporaryDirectory();
    const env = { TOPICS_DATA_DIR: join(dir.path, "data"), TOPICS_PORT: "0", FEED_PEER_TOKEN: token };
    const { exitCode, stdout, stderr } = await runToEnd([], env);
    expect(exitCode).toBe(1);
    expect(stderr.trim()).toMatch(/^[^\n]*FEED_PEER_TOKEN[^\n]*$/);
    expect(stdout + stderr).not.toContain(token);
  },
  10_000,
);
