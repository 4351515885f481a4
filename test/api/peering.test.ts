/**
 * Feeds between live instances: who gets what, and what an instance does with a peer that misbehaves.
 *
 * "Nothing comes" is shown by something that was posted later on a lane that is wanted and has come: a log is
 * walked in order. Where nothing at all may come, a few sync intervals are watched.
 */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { Author, messageEvent, Peer, type SignedEvent, subscriptionEvent } from "../support/events.ts";
import type { Message } from "../support/feeds.ts";
import {
  chain,
  heldBy,
  INTERVAL_MS,
  type Instance,
  type Lane,
  type Links,
  lane,
  NETWORK,
  Network,
  quiet,
  ring,
  star,
} from "../support/network.ts";
import { timed, until } from "../support/topics.ts";

setDefaultTimeout(40_000);

/** Some intervals, in which whatever could happen has happened. */
const WINDOW_MS = 5 * INTERVAL_MS;

const TOKEN = "correct horse battery staple";

const chat = lane("chat");

/** What every instance must agree on; the rest of a message is a reader's own view. */
const shared = ({ content_resolved_at, event_seq, ...rest }: Message) => rest;

/** Waits for a message that was posted after everything that must not come. */
async function expectOnly(at: Instance, of: Lane, ids: string[], barrier: { lane: Lane; id: string }) {
  await until(
    () => at.ids(barrier.lane),
    (found) => found.includes(barrier.id),
  );
  expect((await at.ids(of)).sort()).toEqual(ids.toSorted());
}

describe("two instances", () => {
  test("07.30 a post reaches a subscriber within 2 s, with the same id, author, time and content", async () => {
    await using network = await Network.of(chain("a", "b"));
    const [a, b] = network.get("a", "b");
    await b.subscribe(chat);
    await a.hearsOf(await b.nodeId(), "chat");

    const content = { kind: "note", "10": 1, "9": [2.5, null, "é\u{1f600}\n"], deep: { z: {}, a: [] } };
    const parent = "f".repeat(64);
    const envelope = { protocol: "a2a", message: { hello: "b" } };
    const id = await a.post(chat, content, { reply_to_message_id: parent, agent_envelope: envelope });
    const [received] = await b.holds(chat, 1, 2000);
    const [posted] = await a.messages(chat);

    expect(posted).toMatchObject({ message_id: id, author_node_id: await a.nodeId(), content });
    expect(shared(received!)).toEqual(shared(posted!));
    expect(received).toMatchObject({ reply_to_message_id: parent, network_id: NETWORK });
    expect(received!.content_resolved_at).toBeGreaterThanOrEqual(posted!.created_at);
  });

  test("07.30 posts of both sides are one history, whoever reads it", async () => {
    await using network = await Network.of(chain("a", "b"));
    const [a, b] = network.get("a", "b");
    await Promise.all([a.subscribe(chat), b.subscribe(chat)]);
    const posted = (await Promise.all([a.postMany(chat, 40), b.postMany(chat, 40)])).flat();
    const [atA, atB] = await heldBy([a, b], chat, 80);
    expect(atA!.toSorted()).toEqual(posted.toSorted());
    expect(atB).toEqual(atA!);
  });

  test("07.31 a subscription is listed by the peer, and nothing is pushed after its end", async () => {
    await using network = new Network();
    const gate = network.gate("b");
    await network.start({ a: [gate.url], b: ["a"] });
    const [a, b] = network.get("a", "b");
    const host = await b.nodeId();
    const other = lane("other");
    const event = await b.subscribe(chat);
    await b.subscribe(other);
    await a.hearsOf(host, "chat");
    const provider = { live_gossip: true, history_backfill: true, local_store: true };
    const row = await a.subscriptionOf(host, "chat");
    expect(row).toEqual(await b.subscriptionOf(host, "chat"));
    expect(row).toMatchObject({
      ...{ network_id: NETWORK, subscriber_node_id: host, host_node_id: host, ...chat, active: true },
      ...{ gossip_kinds: ["messages"], provider_capabilities: provider, event_id: event },
    });
    const before = await a.post(chat, "before");
    await b.holds(chat, 1);

    await b.unsubscribe(chat);
    await a.hearsOf(host, "chat", false);
    const during = await a.post(chat, "during");
    await expectOnly(b, chat, [before], { lane: other, id: await a.post(other, "later") });
    expect(gate.pushed).not.toContain(during);

    await b.subscribe(chat);
    const [atB] = await heldBy([b], chat, 2);
    expect(atB).toEqual([during, before]);
  });

  test("07.31 the end of one subscriber's subscription is not the end for another of the same host", async () => {
    await using network = await Network.of({ a: ["b"], b: [] });
    const [a, b] = network.get("a", "b");
    await b.subscribe(chat);
    await b.subscribe(chat, { subscriber_node_id: "robot" });
    await until(
      () => a.subscriptions("chat"),
      (rows) => rows.length === 2,
    );
    await b.unsubscribe(chat);
    await until(
      () => a.subscriptions("chat"),
      (rows) => rows.some(({ active }) => !active),
    );
    const id = await a.post(chat, "still wanted");
    expect((await b.holds(chat, 1))[0]!.message_id).toBe(id);
    expect(await b.cursor("chat")).toBeNull();
    expect(await b.cursor("chat", "robot")).toMatchObject({ last_event_id: id });
  });

  test.each<[string, Links]>([
    ["both list each other", chain("a", "b")],
    ["only the poster lists the subscriber", { a: ["b"], b: [] }],
    ["only the subscriber lists the poster", { a: [], b: ["a"] }],
  ])("07.32 a subscription after 1,000 posts gets all of them once each: %s", async (_, links) => {
    await using network = await Network.of(links);
    const [a, b] = network.get("a", "b");
    const posted = await a.postMany(chat, 1000);
    await b.subscribe(chat);
    const [atA, atB] = await heldBy([a, b], chat, 1000);
    expect(new Set(atA!)).toEqual(new Set(posted));
    expect(atB).toEqual(atA!);
    await quiet(() => b.status().then(({ head_seq }) => head_seq), 2 * INTERVAL_MS);
    expect(await b.ids(chat)).toEqual(atA!);
  });

  test("07.37 only one lists the other: messages, old and new, flow both ways within two intervals", async () => {
    const interval = 1000;
    await using network = await Network.of({ a: ["b"], b: [] }, { FEED_SYNC_INTERVAL_MS: `${interval}` });
    const [a, b] = network.get("a", "b");
    const old = [await a.post(chat, "old of a"), await b.post(chat, "old of b")];
    // Time to answer requests on a busy machine comes on top.
    const deadline = 2 * interval + 750;
    await Promise.all([a.subscribe(chat), b.subscribe(chat)]);
    await heldBy([a, b], chat, 2, deadline);

    const recent = await Promise.all([a.post(chat, "new of a"), b.post(chat, "new of b")]);
    const [atA, atB] = await heldBy([a, b], chat, 4, deadline);
    expect(atA!.toSorted()).toEqual([...old, ...recent].sort());
    expect(atB).toEqual(atA!);
  });

  test("07.42 what has the scope `local` never appears on a peer", async () => {
    await using network = new Network();
    const gates = { a: network.gate("a"), b: network.gate("b") };
    await network.start({ a: [gates.b.url], b: [gates.a.url] });
    const [a, b] = network.get("a", "b");
    const [inner, open] = [lane("inner", "local"), lane("inner2", "group:crew")];
    await Promise.all([a, b].flatMap((each) => [each.subscribe(inner), each.subscribe(open)]));
    const [first, second] = await Promise.all([a.post(inner, "secret of a"), b.post(inner, "secret of b")]);
    // The barrier comes from a second subscription, so that those to `local` have had their turn, too.
    const barriers = await Promise.all([a.post(open, "open a"), b.post(open, "open b")]);
    await heldBy([a, b], open, 2);
    await expectOnly(a, inner, [first], { lane: open, id: barriers[1] });
    await expectOnly(b, inner, [second], { lane: open, id: barriers[0] });
    expect([await a.subscriptions("inner"), await b.subscriptions("inner")]).toMatchObject([
      [{ host_node_id: await a.nodeId(), scope_hint: "local" }],
      [{ host_node_id: await b.nodeId(), scope_hint: "local" }],
    ]);
    const said = JSON.stringify([...gates.a.passages, ...gates.b.passages]);
    expect(said).toContain("open a");
    expect(said).not.toContain("secret");
    expect(said).not.toContain('"scope":"local"');
  });

  test.each([
    ["without a seed", {}],
    ["with its seed", { FEED_NODE_SEED: "5eed".repeat(16) }],
  ])("07.44 wiped and subscribed again, an instance %s regains its lanes", async (_, env) => {
    await using network = new Network();
    await network.start({ a: ["b"] });
    await network.start({ b: ["a"] }, env as Record<string, string>);
    const [a, b] = network.get("a", "b");
    const lanes = [lane("chat"), lane("news", "region:eu")];
    for (const each of lanes) await Promise.all([a.subscribe(each), b.subscribe(each)]);
    for (const each of lanes) await Promise.all([a.postMany(each, 20), b.postMany(each, 20)]);
    const before = await Promise.all(lanes.map((each) => heldBy([a, b], each, 40)));
    const { log_id, node_id } = await b.status();

    await b.wipe();
    await b.start();
    expect((await b.status()).log_id).not.toBe(log_id);
    expect((await b.nodeId()) === node_id).toBe("FEED_NODE_SEED" in env);
    for (const each of lanes) await b.subscribe(each);
    const after = await Promise.all(lanes.map((each) => heldBy([a, b], each, 40)));
    expect(after).toEqual(before);

    const recent = [await a.post(lanes[0]!, "from a"), await b.post(lanes[0]!, "from b")];
    const [atA, atB] = await heldBy([a, b], lanes[0]!, 42);
    expect(atA!.slice(0, 2).sort()).toEqual(recent.sort());
    expect(atB).toEqual(atA!);
  });

  test.each([
    ["", "local", {}],
    ["in strict mode ", "global", { FEED_STRICT: "1" }],
  ])("P11 %smoving a subscription to scope `%s` ends the old lane at the peers", async (_, scope, env) => {
    await using network = new Network(env as Record<string, string>);
    const gate = network.gate("b");
    await network.start({ a: [gate.url], b: ["a"] });
    const [a, b] = network.get("a", "b");
    const host = await b.nodeId();
    const other = lane("other");
    await Promise.all([b.subscribe(chat), b.subscribe(other)]);
    await a.hearsOf(host, "chat");

    const event = await b.subscribe(lane("chat", scope));
    await a.hearsOf(host, "chat", false);
    expect(await a.subscriptionOf(host, "chat")).toMatchObject({ ...chat, active: false });
    expect(await b.subscriptionOf(host, "chat")).toMatchObject({
      ...{ scope_hint: scope, active: true, event_id: event },
    });
    const late = await a.post(chat, "nobody wants it");
    await expectOnly(b, chat, [], { lane: other, id: await a.post(other, "later") });
    expect(gate.pushed).not.toContain(late);
    expect(gate.pushed).not.toContain(event);
  });

  test("moving a subscription between scopes that travel moves what is pushed", async () => {
    await using network = await Network.of({ a: ["b"], b: [] });
    const [a, b] = network.get("a", "b");
    const host = await b.nodeId();
    const [crew, team] = [lane("chat", "group:crew"), lane("chat", "group:team")];
    await b.subscribe(crew);
    await a.hearsOf(host, "chat");
    await b.subscribe(team);
    await until(
      () => a.subscriptionOf(host, "chat"),
      (row) => row?.scope_hint === "group:team",
    );
    await a.post(crew, "nobody wants it");
    await expectOnly(b, crew, [], { lane: team, id: await a.post(team, "wanted") });
  });

  test("scope `global` is routed like any other", async () => {
    await using network = await Network.of(chain("a", "b"));
    const [a, b] = network.get("a", "b");
    const world = lane("world", "global");
    const old = await a.post(world, "old");
    await b.subscribe(world);
    await b.holds(world, 1);
    const recent = await a.post(world, "new");
    expect((await heldBy([b], world, 2))[0]).toEqual([recent, old]);
  });

  test("scope `global` stays at home in strict mode", async () => {
    await using network = await Network.of(chain("a", "b"), { FEED_STRICT: "1" });
    const [a, b] = network.get("a", "b");
    const [world, open] = [lane("world", "global"), lane("open")];
    await Promise.all([b.subscribe(world), b.subscribe(open)]);
    await a.hearsOf(await b.nodeId(), "open");
    const id = await a.post(world, "mine");
    await expectOnly(b, world, [], { lane: open, id: await a.post(open, "ours") });
    expect(await a.ids(world)).toEqual([id]);
    expect(await a.subscriptions("world")).toEqual([]);
  });

  test("a link that was cut heals, and both hold what was posted meanwhile", async () => {
    await using network = new Network();
    const gates = { a: network.gate("a"), b: network.gate("b") };
    await network.start({ a: [gates.b.url], b: [gates.a.url] });
    const [a, b] = network.get("a", "b");
    await Promise.all([a.subscribe(chat), b.subscribe(chat)]);
    await a.post(chat, "before");
    await b.holds(chat, 1);
    await Promise.all([gates.a.shut(), gates.b.shut()]);
    await Promise.all([a.postMany(chat, 30), b.postMany(chat, 30)]);
    const broken = ({ peers }: { peers: { connected: boolean; last_error: string | null }[] }) =>
      peers.every(({ connected, last_error }) => !connected && typeof last_error === "string");
    await until(() => a.status(), broken);
    await until(() => b.status(), broken);
    expect([(await a.ids(chat)).length, (await b.ids(chat)).length]).toEqual([31, 31]);

    gates.a.reopen();
    gates.b.reopen();
    const [atA, atB] = await heldBy([a, b], chat, 61);
    expect(atB).toEqual(atA!);
    await network.connected();
    expect((await a.status()).peers).toMatchObject([{ connected: true, last_error: null }]);
  });
});

describe("three and more instances", () => {
  test("07.34 chain, only the end subscribed: posts reach it, and the one in between has no cursor", async () => {
    await using network = await Network.of(chain("a", "b", "c"));
    const [a, b, c] = network.get("a", "b", "c");
    const old = await a.post(chat, "before anybody asks");
    await c.subscribe(chat);
    await a.hearsOf(await c.nodeId(), "chat");
    const recent = await a.post(chat, "after");
    const held = await heldBy([a, b, c], chat, 2);
    expect(held).toEqual(Array(3).fill([recent, old]));
    const author = await a.nodeId();
    expect((await c.messages(chat)).map(({ author_node_id }) => author_node_id)).toEqual([author, author]);
    expect(await b.cursor("chat")).toBeNull();
    expect(await a.cursor("chat")).toBeNull();
    expect((await c.cursor("chat"))?.last_event_id).toBeString();
    expect(await b.subscriptions("chat")).toMatchObject([{ host_node_id: await c.nodeId() }]);
  });

  test("chain, one end subscribed: posts of the other end and of the middle reach it, no further", async () => {
    await using network = await Network.of(chain("a", "b", "c", "d"));
    const [a, b, c, d] = network.get("a", "b", "c", "d");
    const other = lane("other");
    await Promise.all([a.subscribe(chat), d.subscribe(other)]);
    await c.hearsOf(await a.nodeId(), "chat");
    await a.hearsOf(await d.nodeId(), "other");
    const fromC = await c.post(chat, "c");
    const fromB = await b.post(chat, "b");
    expect((await heldBy([a], chat, 2))[0]!.toSorted()).toEqual([fromB, fromC].sort());
    await expectOnly(d, chat, [], { lane: other, id: await a.post(other, "later") });
    expect([await b.cursor("chat"), await c.cursor("chat")]).toEqual([null, null]);
    expect((await a.cursor("chat"))?.last_event_id).toBeString();
  });

  test("star: what one asked for is not brought to the others", async () => {
    await using network = await Network.of(star("m", "a", "b", "c"));
    const [m, a, b, c] = network.get("m", "a", "b", "c");
    const other = lane("other");
    await Promise.all([b.subscribe(chat), b.subscribe(other), c.subscribe(other)]);
    await a.hearsOf(await b.nodeId(), "chat");
    await a.hearsOf(await c.nodeId(), "other");
    const id = await a.post(chat, "for b");
    const later = await a.post(other, "for both");
    await expectOnly(c, chat, [], { lane: other, id: later });
    await expectOnly(b, chat, [id], { lane: other, id: later });
    expect(await m.ids(chat)).toEqual([id]);
  });

  test("star: everybody posts at once, and all agree in the end", async () => {
    await using network = await Network.of(star("m", "a", "b"));
    await Promise.all(network.everyone.map((each) => each.subscribe(chat)));
    const posted = (await Promise.all(network.everyone.map((each) => each.postMany(chat, 30)))).flat();
    const [first, ...others] = await heldBy(network.everyone, chat, 90);
    expect(first!.toSorted()).toEqual(posted.toSorted());
    expect(others).toEqual([first!, first!]);
  });

  test("07.35 ring: one post is stored once each, then pushes stop", async () => {
    await using network = new Network();
    const gates = { a: network.gate("a"), b: network.gate("b"), c: network.gate("c") };
    const { a: toA, b: toB, c: toC } = { a: gates.a.url, b: gates.b.url, c: gates.c.url };
    await network.start({ a: [toC, toB], b: [toA, toC], c: [toB, toA] });
    await Promise.all(network.everyone.map((each) => each.subscribe(chat)));
    const pushes = () => Object.values(gates).flatMap((gate) => gate.pushed);
    const look = async () => ({
      heads: (await Promise.all(network.everyone.map((each) => each.status()))).map(
        ({ head_seq, peers }) => ({
          head_seq,
          out_seqs: peers.map(({ out_seq }) => out_seq),
        }),
      ),
      pushes: pushes().length,
    });
    const before = await quiet(look, WINDOW_MS);
    expect(before.heads.map(({ head_seq }) => head_seq)).toEqual([3, 3, 3]);

    const id = await network.get("a")[0].post(chat, "round and round");
    const held = await heldBy(network.everyone, chat, 1);
    const after = await quiet(look, WINDOW_MS);
    expect(held).toEqual([[id], [id], [id]]);
    expect(after.heads.map(({ head_seq }) => head_seq)).toEqual([4, 4, 4]);
    // Each link carries it at most once in each direction.
    expect(pushes().filter((pushed) => pushed === id).length).toBeLessThanOrEqual(6);
    expect(await Promise.all(network.everyone.map((each) => each.ids(chat)))).toEqual(held);
  });

  test("ring: with one link cut, a post reaches the only subscriber the other way round", async () => {
    await using network = new Network();
    const gates = { a: network.gate("a"), c: network.gate("c") };
    await network.start({ a: [gates.c.url, "b"], b: ["a", "c"], c: ["b", gates.a.url] });
    const [a, b, c] = network.get("a", "b", "c");
    await c.subscribe(chat);
    await a.hearsOf(await c.nodeId(), "chat");
    await b.hearsOf(await c.nodeId(), "chat");
    await Promise.all([gates.a.shut(), gates.c.shut()]);
    const id = await a.post(chat, "the long way");
    expect(await heldBy([a, b, c], chat, 1)).toEqual([[id], [id], [id]]);
  });

  test("ring: what nobody has subscribed to stays where it was posted", async () => {
    await using network = await Network.of(ring("a", "b", "c"));
    const [a, b, c] = network.get("a", "b", "c");
    const other = lane("other");
    await Promise.all([b.subscribe(other), c.subscribe(other)]);
    await a.hearsOf(await b.nodeId(), "other");
    await a.hearsOf(await c.nodeId(), "other");
    await a.post(chat, "nobody asked");
    const later = await a.post(other, "wanted");
    await expectOnly(b, chat, [], { lane: other, id: later });
    await expectOnly(c, chat, [], { lane: other, id: later });
  });
});

describe("peers that are configured oddly", () => {
  test("a URL that leads back to the instance itself is harmless", async () => {
    await using network = new Network();
    const gate = network.gate("a");
    await network.start({ a: [network.url("a"), gate.url, "b"], b: ["a"] });
    const [a, b] = network.get("a", "b");
    await Promise.all([a.subscribe(chat), b.subscribe(chat)]);
    await a.hearsOf(await b.nodeId(), "chat");
    const ids = [await a.post(chat, 1), await b.post(chat, 2)];
    const held = await heldBy([a, b], chat, 2);
    expect(held.map((each) => each.toSorted())).toEqual([ids.toSorted(), ids.toSorted()]);

    await network.connected();
    const status = await a.status();
    const itself = { node_id: status.node_id, connected: true, last_error: null };
    expect(status.peers).toMatchObject([
      { url: network.url("a"), ...itself },
      { url: gate.url, ...itself },
      { url: network.url("b"), node_id: await b.nodeId() },
    ]);
    expect(gate.pushes).toEqual([]);
    // The first answer may be what shows who is there.
    expect(gate.backfills.length).toBeLessThan(2);
    await quiet(() => a.status().then(({ head_seq }) => head_seq), WINDOW_MS);
    expect((await a.status()).head_seq).toBe(4);
  });

  test("two URLs of one peer are listed, and every message is there once", async () => {
    await using network = new Network();
    const gate = network.gate("b");
    const direct = network.url("b");
    await network.start({ b: ["a"] });
    await network.start({ a: [] }, { FEED_PEERS: `${direct}/, ${gate.url} ,, ${direct},` });
    const [a, b] = network.get("a", "b");
    await Promise.all([a.subscribe(chat), b.subscribe(chat)]);
    await a.hearsOf(await b.nodeId(), "chat");
    await Promise.all([a.postMany(chat, 20), b.postMany(chat, 20)]);
    const [atA, atB] = await heldBy([a, b], chat, 40);
    expect(atB).toEqual(atA!);
    await network.connected();
    const { peers } = await a.status();
    const node_id = await b.nodeId();
    expect(peers).toMatchObject([
      { url: direct, node_id, connected: true },
      { url: gate.url, node_id, connected: true },
    ]);
    const look = async () => [(await a.status()).head_seq, (await b.status()).head_seq, gate.pushes.length];
    expect((await quiet(look, WINDOW_MS)).slice(0, 2)).toEqual([42, 42]);
  });

  test("a wrong token on one side stops both ways, until it is right", async () => {
    await using network = new Network({ FEED_PEER_TOKEN: TOKEN });
    await network.start({ a: ["b"] });
    await network.start({ b: ["a"] }, { FEED_PEER_TOKEN: "wrong" });
    const [a, b] = network.get("a", "b");
    await Promise.all([a.subscribe(chat), b.subscribe(chat)]);
    const ids = [await a.post(chat, "a"), await b.post(chat, "b")];
    for (const instance of [a, b]) {
      const { peers, head_seq } = await until(
        () => instance.status(),
        ({ peers }) => typeof peers[0]?.last_error === "string",
      );
      expect(peers).toMatchObject([{ connected: false, last_error: expect.any(String), last_ok_at: null }]);
      expect(JSON.stringify(peers)).not.toContain(TOKEN);
      expect(head_seq).toBe(2);
    }
    expect([await a.ids(chat), await b.ids(chat)]).toEqual([[ids[0]!], [ids[1]!]]);

    await b.restart({ FEED_PEER_TOKEN: TOKEN });
    await until(
      () => Promise.all([a.ids(chat), b.ids(chat)]),
      (held) => held.every(({ length }) => length === 2),
    );
    expect((await a.ids(chat)).toSorted()).toEqual(ids.toSorted());
    expect(await b.ids(chat)).toEqual(await a.ids(chat));
  });

  test("instances of different networks do not exchange anything", async () => {
    await using network = new Network();
    await network.start({ a: ["b", "c"], c: ["a"] });
    await network.start({ b: ["a"] }, { FEED_NETWORK_ID: "net:others" });
    const [a, b, c] = network.get("a", "b", "c");
    await Promise.all([a, b, c].map((each) => each.subscribe(chat)));
    const [fromA, fromB] = [await a.post(chat, "a"), await b.post(chat, "b")];
    for (const [instance, url] of [
      [a, b.url],
      [b, a.url],
    ] as const) {
      await until(
        () => instance.status(),
        ({ peers }) => typeof peers.find((peer) => peer.url === url)?.last_error === "string",
      );
    }
    expect(await heldBy([c], chat, 1)).toEqual([[fromA]]);
    await Bun.sleep(WINDOW_MS);
    expect([await a.ids(chat), await b.ids(chat)]).toEqual([[fromA], [fromB]]);
    expect((await b.subscriptions("chat")).map(({ host_node_id }) => host_node_id)).toEqual([
      await b.nodeId(),
    ]);
    expect((await b.status()).head_seq).toBe(2);
  });
});

/** One request that a fake peer got. */
interface Seen {
  readonly at: number;
  readonly method: string;
  readonly path: string;
  readonly authorization: string | null;
  readonly bytes: number;
  // biome-ignore lint/suspicious/noExplicitAny: what an instance sends is what these tests look at.
  readonly body: any;
  readonly signal: AbortSignal;
}

type Answer = Response | Promise<Response>;

/** An event on its way, with the scope that it goes under. */
interface Carried {
  readonly scope: string;
  readonly event: SignedEvent;
}

interface Served extends Carried {
  readonly seq: number;
}

const carried = (event: SignedEvent): Carried => ({ scope: event.swarm_scope, event });

const message = (author: Author, of: Lane, content: unknown) =>
  messageEvent(author, { network_id: NETWORK, feed_key: of.feed_key, scope: of.scope_hint, content });

const subscription = (author: Author, of: Lane, active = true) =>
  subscriptionEvent(author, { network_id: NETWORK, feed_key: of.feed_key, scope: of.scope_hint, active });

/** A peer of a few lines that keeps to the contract until a test says otherwise. */
class FakePeer implements AsyncDisposable {
  readonly author = new Author();
  readonly requests: Seen[] = [];
  readonly #server: Bun.Server<unknown>;
  readonly #accepted = new Set<string>();
  logId = crypto.randomUUID();
  /** What it serves, by the lane's kind or feed_key. */
  readonly rows: Record<string, Served[]> = { subscriptions: [] };
  /** In place of the regular answer, which it may ask for. */
  onPush = (_: Seen, regular: () => Response): Answer => regular();
  onBackfill = (_: Seen, regular: () => Response): Answer => regular();
  onStatus = (_: Seen, regular: () => Response): Answer => regular();

  constructor() {
    this.#server = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      idleTimeout: 120,
      development: false,
      fetch: (request) => this.#take(request),
    });
  }

  get url(): string {
    return `http://127.0.0.1:${this.#server.port}`;
  }

  get pushes(): Seen[] {
    return this.requests.filter(({ path }) => path === "/api/peer/events");
  }

  get backfills(): Seen[] {
    return this.requests.filter(({ path }) => path === "/api/peer/backfill");
  }

  /** Ids in each push, refused or not. */
  get pushed(): string[][] {
    return this.pushes.map(({ body }) => eventIds(body.events));
  }

  /** Waits until an event has been pushed to it. */
  async gets(id: string, deadlineMs = 5000): Promise<void> {
    await until(
      async () => this.pushed.flat().includes(id),
      (some) => some,
      deadlineMs,
    );
  }

  /** Wants a lane from now on, or no more; the instance learns it when it asks. */
  wants(of: Lane, active = true): void {
    this.serve("subscriptions", subscription(this.author, of, active));
  }

  serve(kind: string, event: SignedEvent, seq?: number): void {
    this.rows[kind] ??= [];
    const rows = this.rows[kind];
    rows.push({ seq: seq ?? (rows.at(-1)?.seq ?? 0) + 1, ...carried(event) });
    rows.sort((a, b) => a.seq - b.seq);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.stop(true);
  }

  get #self() {
    return { ok: true, node_id: this.author.id, log_id: this.logId };
  }

  async #take(request: Request): Promise<Response> {
    const text = await request.text();
    const seen: Seen = {
      at: performance.now(),
      method: request.method,
      path: new URL(request.url).pathname,
      authorization: request.headers.get("authorization"),
      bytes: Buffer.byteLength(text),
      body: text === "" ? undefined : JSON.parse(text),
      signal: request.signal,
    };
    this.requests.push(seen);
    if (seen.path === "/api/peer/status") return this.onStatus(seen, () => this.#status());
    if (seen.path === "/api/peer/events") return this.onPush(seen, () => this.#accept(seen.body.events));
    if (seen.path === "/api/peer/backfill") return this.onBackfill(seen, () => this.#serve(seen.body));
    return new Response("not found", { status: 404 });
  }

  #status(): Response {
    const head_seq = Object.values(this.rows).flat().length;
    return Response.json({ ...this.#self, network_id: NETWORK, head_seq, peers: [] });
  }

  #accept(events: Carried[]): Response {
    const ids = eventIds(events);
    const fresh = ids.filter((id) => !this.#accepted.has(id));
    for (const id of fresh) this.#accepted.add(id);
    const counts = { accepted: fresh.length, duplicates: ids.length - fresh.length };
    return Response.json({ ...this.#self, head_seq: this.#accepted.size, ...counts, rejected: [] });
  }

  #serve({ lane, from_event_seq, limit = 256, head_only = false, known_event_ids = [] }: Seen["body"]) {
    const rows = this.rows[lane.kind === "subscriptions" ? "subscriptions" : lane.feed_key] ?? [];
    const scanned = head_only ? [] : rows.filter(({ seq }) => seq > from_event_seq).slice(0, limit);
    const next = head_only ? (rows.at(-1)?.seq ?? 0) : (scanned.at(-1)?.seq ?? from_event_seq);
    return Response.json({
      ...this.#self,
      lane,
      next_from_event_seq: next,
      head_only,
      head_event_ids: eventIds(rows.slice(-8).reverse()),
      events: scanned
        .filter(({ event }) => !known_event_ids.includes(event.event_id))
        .map(({ scope, event }) => ({ scope, event })),
      more: !head_only && rows.some(({ seq }) => seq > next),
    });
  }
}

const eventIds = (events: readonly Carried[]): string[] => events.map(({ event }) => event.event_id);

/**
 * An instance with these peers, each of which wants the lane `chat`, as the instance has heard and has told the
 * others.
 */
async function facing(peers: FakePeer[], env: Record<string, string> = {}) {
  const network = await Network.of({ a: peers.map(({ url }) => url) }, env);
  const [a] = network.get("a");
  for (const peer of peers) peer.wants(chat);
  for (const peer of peers) await a.hearsOf(peer.author.id, "chat");
  await until(
    async () => peers.map(({ pushed }) => new Set(pushed.flat()).size),
    (counts) => counts.every((count) => count === peers.length - 1),
  );
  return { a, [Symbol.asyncDispose]: () => network[Symbol.asyncDispose]() };
}

/** A peer for each of these names. */
function fakes<N extends string>(names: N[]) {
  const all = names.map((name) => ({ name, peer: new FakePeer() }));
  const end = () => Promise.all(all.map(({ peer }) => peer[Symbol.asyncDispose]()));
  return { all, peers: all.map(({ peer }) => peer), [Symbol.asyncDispose]: async () => void (await end()) };
}

const refusal = (status: number) => () =>
  Response.json({ ok: false, error: `answered ${status}` }, { status });

/** Milliseconds between the pushes that carried an event. */
function gapsOf(peer: FakePeer, id: string): number[] {
  const times = peer.pushes.filter(({ body }) => eventIds(body.events).includes(id)).map(({ at }) => at);
  return times.slice(1).map((at, i) => at - times[i]!);
}

describe.concurrent("a peer that fails", () => {
  const failures: Record<string, () => Response> = {
    "500": refusal(500),
    "503": refusal(503),
    "429": refusal(429),
    "200 with garbage": () => new Response("<html>welcome</html>"),
    "200 with half of a JSON": () => new Response('{"ok":true,', { headers: json }),
    "200 of another shape": () => Response.json({ ok: true, events: "none" }),
    "200 with nothing": () => new Response(null, { status: 200 }),
  };

  test(`is asked again after 1 s, then after 2 s: ${Object.keys(failures).join(", ")}`, async () => {
    await using failing = fakes(Object.keys(failures));
    await using network = await facing(failing.peers);
    for (const { name, peer } of failing.all) {
      let left = 2;
      peer.onPush = (_, regular) => (left-- > 0 ? failures[name]!() : regular());
    }
    const id = await network.a.post(chat, "again and again");
    const gaps = await until(
      async () => failing.all.map(({ name, peer }) => ({ name, gaps: gapsOf(peer, id) })),
      (found) => found.every(({ gaps }) => gaps.length >= 2),
      10_000,
    );
    // A quarter of jitter, and a second more on a busy machine.
    const fits = ([first, second]: number[]) =>
      first! >= 700 && first! < 2250 && second! >= 1450 && second! < 3500;
    expect(gaps.filter(({ gaps }) => !fits(gaps))).toEqual([]);

    const next = await network.a.post(chat, "now it is well");
    await Promise.all(failing.peers.map((peer) => peer.gets(next)));
    expect(failing.all.map(({ name, peer }) => ({ name, times: gapsOf(peer, id).length + 1 }))).toEqual(
      failing.all.map(({ name }) => ({ name, times: 3 })),
    );
  });

  test("with a refusal is left alone for a minute: 401, 403, 404, 409, 415, 422", async () => {
    await using refusing = fakes(["401", "403", "404", "409", "415", "422"]);
    await using network = await facing(refusing.peers);
    const before = refusing.peers.map(({ pushes }) => pushes.length);
    const since = () => refusing.peers.map(({ pushes }, i) => pushes.length - before[i]!);
    for (const { name, peer } of refusing.all) peer.onPush = refusal(Number(name));
    await network.a.post(chat, 1);
    await until(
      async () => since(),
      (counts) => counts.every((count) => count > 0),
    );
    await network.a.post(chat, 2);
    // Twice as long as the first retry of another failure would take.
    await Bun.sleep(2500);
    expect(since()).toEqual([1, 1, 1, 1, 1, 1]);
  });

  test("with a redirect is not followed: 301, 302, 303, 307, 308", async () => {
    await using other = new FakePeer();
    await using moved = fakes(["301", "302", "303", "307", "308"]);
    await using network = await facing(moved.peers, { FEED_PEER_TOKEN: TOKEN });
    for (const { name, peer } of moved.all) {
      peer.onStatus = ({ path }) =>
        new Response(null, { status: Number(name), headers: { location: `${other.url}${path}` } });
      peer.onPush = peer.onBackfill = peer.onStatus;
      peer.requests.length = 0;
    }
    await network.a.post(chat, "follow me");
    const { peers } = await until(
      () => network.a.status(),
      ({ peers }) => peers.every(({ connected }) => !connected),
    );
    expect(peers.filter(({ last_error }) => typeof last_error !== "string")).toEqual([]);
    await Bun.sleep(2500);
    expect(other.requests).toEqual([]);
    // One of each kind at most: the next one is due in a minute.
    expect(moved.peers.filter(({ requests }) => requests.length === 0 || requests.length > 4)).toEqual([]);
    expect(moved.peers.filter(({ pushes }) => pushes.length > 1)).toEqual([]);
  });

  test("with 500 for everything is shown as not connected, and an interval is no reason to ask", async () => {
    await using peer = new FakePeer();
    peer.onStatus = peer.onBackfill = peer.onPush = refusal(500);
    await using network = new Network();
    await network.start({ a: [peer.url] });
    const [a] = network.get("a");
    expect((await a.status()).peers).toMatchObject([{ url: peer.url, connected: false }]);
    const down = await until(
      () => a.status(),
      ({ peers }) => typeof peers[0]?.last_error === "string",
    );
    expect(down.peers).toMatchObject([
      { url: peer.url, node_id: null, connected: false, last_ok_at: null, last_error: expect.any(String) },
    ]);
    const before = peer.requests.length;
    await Bun.sleep(2500);
    // Retries after 1 s and 2 s, of each kind of request at most; the interval of 200 ms would make 12.
    expect(peer.requests.length - before).toBeWithin(1, 10);

    peer.onStatus = peer.onBackfill = peer.onPush = (_, regular) => regular();
    const started = Date.now();
    const up = await until(
      () => a.status(),
      ({ peers }) => peers[0]?.connected === true,
      10_000,
    );
    expect(up.peers).toMatchObject([{ node_id: peer.author.id, last_error: null }]);
    expect(up.peers[0]!.last_ok_at).toBeGreaterThanOrEqual(started - 1000);
  });

  test("with no answer at all holds up neither posts nor other peers, and is given up after 10 s", async () => {
    await using stuck = new FakePeer();
    await using well = new FakePeer();
    await using network = await facing([stuck, well]);
    const held = Promise.withResolvers<void>();
    const hang = () => held.promise.then(() => new Response());
    stuck.onPush = stuck.onBackfill = stuck.onStatus = hang;
    const first = await network.a.post(chat, "first");
    const carrying = (peer: FakePeer, id: string) =>
      peer.pushes.filter(({ body }) => eventIds(body.events).includes(id));
    const [push] = await until(
      async () => carrying(stuck, first),
      ({ length }) => length > 0,
    );
    const times: number[] = [];
    let last = first;
    for (let i = 0; i < 50; i++) {
      const { ms, answer } = await timed(() => network.a.post(chat, i));
      times.push(ms);
      last = answer;
    }
    await until(
      async () => carrying(well, last).length,
      (count) => count > 0,
      2000,
    );
    times.sort((a, b) => a - b);
    expect(times[25]).toBeLessThan(200);
    expect(times[49]).toBeLessThan(1500);
    expect(carrying(stuck, last)).toEqual([]);

    await until(
      async () => push!.signal.aborted,
      (aborted) => aborted,
      12_000,
    );
    expect(performance.now() - push!.at).toBeWithin(8000, 12_500);
    stuck.onPush = stuck.onBackfill = stuck.onStatus = (_, regular) => regular();
    await until(
      async () => carrying(stuck, last).length,
      (count) => count > 0,
      10_000,
    );
    held.resolve();
  });
});

const json = { "content-type": "application/json" };

/** Events come from the peer of their own accord. */
function pushed(a: Instance, peer: FakePeer, events: SignedEvent[]) {
  const caller = new Peer(a, NETWORK, peer.author, a.token);
  caller.logId = peer.logId;
  return caller.push(...events);
}

/** Ten messages that a peer then asks for, so that they come to it as one batch. */
async function tenFor(peer: FakePeer) {
  const network = await Network.of({ a: [peer.url] });
  const [a] = network.get("a");
  const ids: string[] = [];
  for (let i = 0; i < 10; i++) ids.push(await a.post(chat, i));
  peer.wants(chat);
  return { a, ids, [Symbol.asyncDispose]: () => network[Symbol.asyncDispose]() };
}

describe.concurrent("a peer that refuses a push", () => {
  test.each([413, 400])("with %i for more than one event gets them in halves", async (status) => {
    await using peer = new FakePeer();
    const accepted: string[] = [];
    peer.onPush = ({ body }, regular) => {
      if (body.events.length > 1) return refusal(status)();
      accepted.push(...eventIds(body.events));
      return regular();
    };
    await using network = await tenFor(peer);
    await until(
      async () => accepted.length,
      (count) => count >= 10,
      15_000,
    );
    expect(accepted).toEqual(network.ids);
    const sizes = peer.pushed.map(({ length }) => length);
    expect(sizes[0]).toBeGreaterThan(1);
    const next = sizes.slice(1);
    expect(next.filter((size, i) => sizes[i]! > 1 && size > Math.ceil(sizes[i]! / 2))).toEqual([]);
  });

  test.each([413, 400])("with %i for one event gets all the others, and that one no more", async (status) => {
    await using peer = new FakePeer();
    const accepted: string[] = [];
    let bad = "";
    peer.onPush = ({ body }, regular) => {
      const ids = eventIds(body.events);
      bad ||= ids[6]!;
      if (ids.includes(bad)) return refusal(status)();
      accepted.push(...ids);
      return regular();
    };
    await using network = await tenFor(peer);
    await until(
      async () => accepted.length,
      (count) => count >= 9,
      15_000,
    );
    expect(accepted).toEqual(network.ids.filter((id) => id !== bad));
    expect(peer.pushed.filter((ids) => ids.includes(bad)).at(-1)).toEqual([bad]);

    const before = peer.pushed.flat().filter((id) => id === bad).length;
    const last = await network.a.post(chat, "and on");
    await until(
      async () => accepted,
      (ids) => ids.includes(last),
    );
    await Bun.sleep(WINDOW_MS);
    expect(peer.pushed.flat().filter((id) => id === bad)).toHaveLength(before);
    expect(await network.a.ids(chat)).toContain(bad);
  });

  test("in part is not sent the rejected events again", async () => {
    await using peer = new FakePeer();
    peer.onPush = async ({ body }, regular) => {
      const [first, ...others] = eventIds(body.events);
      const rejected = [{ event_id: first, error: "invalid event: not to my taste" }];
      const answer = (await regular().json()) as object;
      return Response.json({ ...answer, accepted: others.length, rejected });
    };
    await using network = await tenFor(peer);
    await until(
      async () => new Set(peer.pushed.flat()).size,
      (count) => count >= 10,
    );
    const last = await network.a.post(chat, "and on");
    await peer.gets(last);
    await Bun.sleep(WINDOW_MS);
    expect(peer.pushed.flat()).toEqual([...network.ids, last]);
  });
});

describe.concurrent("what a peer is sent", () => {
  test("never goes without the token, with one", async () => {
    await using peer = new FakePeer();
    await using network = await Network.of({ a: [peer.url] }, { FEED_PEER_TOKEN: TOKEN });
    const [a] = network.get("a");
    expect(await pushed(a, peer, [subscription(peer.author, chat)])).toMatchObject({ status: 200 });
    peer.serve("chat", message(peer.author, chat, "theirs"));
    await a.subscribe(chat);
    const id = await a.post(chat, "ours");
    await peer.gets(id);
    await until(
      () => a.ids(chat),
      (ids) => ids.length === 2,
    );
    peer.onPush = refusal(500);
    await a.post(chat, "and a retry");
    await Bun.sleep(1500);
    const paths = new Set(peer.requests.map(({ path }) => path));
    expect(paths).toContain("/api/peer/backfill");
    expect(peer.requests.filter(({ authorization }) => authorization !== a.token.authorization)).toEqual([]);
  });

  test("keeps to the limits and the log's order, each event once", async () => {
    await using peer = new FakePeer();
    await using network = await Network.of({ a: [peer.url] });
    const [a] = network.get("a");
    await a.postMany(chat, 600);
    peer.wants(chat);
    await until(
      async () => peer.pushed.flat().length,
      (count) => count >= 600,
      15_000,
    );
    const bySeq = (await a.messages(chat)).toSorted((x, y) => x.event_seq - y.event_seq);
    expect(peer.pushed.flat()).toEqual(bySeq.map(({ message_id }) => message_id));
    expect(peer.pushes.filter(({ bytes }) => bytes > 8 * 1024 * 1024)).toEqual([]);
    expect(peer.pushed.filter(({ length }) => length === 0 || length > 256)).toEqual([]);
    const { node_id, log_id } = await a.status();
    const wrong = peer.pushes.filter(
      ({ body }) => body.from !== node_id || body.log_id !== log_id || body.network_id !== NETWORK,
    );
    expect(wrong).toEqual([]);
  });

  test("is at most 8 MiB at a time", async () => {
    await using peer = new FakePeer();
    await using network = await Network.of({ a: [peer.url] });
    const [a] = network.get("a");
    const large = "x".repeat(120_000);
    for (let i = 0; i < 80; i++) await a.post(chat, `${i} ${large}`);
    peer.wants(chat);
    await until(
      async () => peer.pushed.flat().length,
      (count) => count >= 80,
      15_000,
    );
    const surroundings = 64 * 1024;
    expect(peer.pushes.filter(({ bytes }) => bytes > 8 * 1024 * 1024 + surroundings)).toEqual([]);
    expect(new Set(peer.pushed.flat()).size).toBe(80);
  });

  test("leaves out what has come from it", async () => {
    await using peer = new FakePeer();
    await using network = await facing([peer]);
    const stranger = new Author();
    const theirs = [
      message(stranger, chat, "pushed by the peer"),
      subscription(stranger, chat),
      message(peer.author, chat, "the peer's own"),
    ];
    expect((await pushed(network.a, peer, theirs)).body).toMatchObject({ accepted: 3, rejected: [] });
    await network.a.holds(chat, 2);
    const id = await network.a.post(chat, "ours");
    await peer.gets(id);
    expect(peer.pushed.flat()).toEqual([id]);
  });

  test("is every message that a subscription asks for, on each link that has brought it", async () => {
    await using one = new FakePeer();
    await using two = new FakePeer();
    await using network = await Network.of({ a: [one.url, two.url] });
    const [a] = network.get("a");
    const wanted = subscription(new Author(), chat);
    expect((await pushed(a, one, [wanted])).body).toMatchObject({ accepted: 1, duplicates: 0 });
    expect((await pushed(a, two, [wanted])).body).toMatchObject({ accepted: 0, duplicates: 1 });
    const id = await a.post(chat, "for a stranger");
    await one.gets(id);
    await two.gets(id);
  });

  test("is nothing of a lane after a new log_id, until the peer subscribes again", async () => {
    await using peer = new FakePeer();
    await using network = await facing([peer]);
    const other = lane("other");
    const first = await network.a.post(chat, "before");
    await peer.gets(first);
    peer.rows.subscriptions = [];
    peer.logId = crypto.randomUUID();
    const seen = peer.backfills.length;
    // The second one is asked for when the first has been looked at.
    await until(
      async () => peer.backfills.length,
      (count) => count >= seen + 2,
    );
    const second = await network.a.post(chat, "meanwhile");
    peer.wants(other);
    await until(
      () => network.a.subscriptions("other"),
      (rows) => rows.length === 1,
    );
    const barrier = await network.a.post(other, "later");
    await peer.gets(barrier);
    expect(peer.pushed.flat()).toEqual([first, barrier]);

    peer.wants(chat);
    await peer.gets(second);
    expect(peer.pushed.flat().slice(2)).toEqual([first, second]);
  });
});

describe.concurrent("what a peer serves", () => {
  test("is taken from each page, and bad events do not hide the good ones", async () => {
    await using peer = new FakePeer();
    await using network = await Network.of({ a: [peer.url] });
    const [a] = network.get("a");
    const good = Array.from({ length: 600 }, (_, i) => message(peer.author, chat, i));
    for (const [i, event] of good.entries()) {
      peer.serve("chat", event);
      if (i % 100 === 50) peer.serve("chat", { ...event, signature_hex: "0".repeat(128) });
    }
    await a.subscribe(chat);
    const ids = (await a.holds(chat, 600)).map(({ message_id }) => message_id);
    expect(ids.toSorted()).toEqual(good.map(({ event_id }) => event_id).sort());
    expect((await a.status()).head_seq).toBe(601);
  });

  test("is found when it lies before the position, once a minute", async () => {
    await using peer = new FakePeer();
    await using network = await Network.of({ a: [peer.url] });
    const [a] = network.get("a");
    const [one, two, three] = [1, 2, 3].map((content) => message(peer.author, chat, content));
    peer.serve("chat", one!, 10);
    await a.subscribe(chat);
    await a.holds(chat, 1);
    peer.serve("chat", two!, 5);
    expect((await a.holds(chat, 2)).map(({ message_id }) => message_id)).toContain(two!.event_id);
    peer.serve("chat", three!, 3);
    await Bun.sleep(WINDOW_MS);
    expect((await a.ids(chat)).sort()).toEqual([one!.event_id, two!.event_id].sort());
  });

  test.each([
    ["the position stands still", (from: number) => from],
    ["the position goes to and fro", (from: number) => (from === 5 ? 3 : 5)],
  ])("is not asked for without end when there is always more and %s", async (_, position) => {
    await using peer = new FakePeer();
    await using network = await Network.of({ a: [peer.url] });
    const [a] = network.get("a");
    const unknown = message(peer.author, chat, "never served");
    peer.onBackfill = async ({ body }, regular) => {
      const answer = (await regular().json()) as object;
      if (body.lane.kind !== "messages") return Response.json(answer);
      const next_from_event_seq = body.head_only ? 99 : position(body.from_event_seq);
      const more = !body.head_only;
      return Response.json({ ...answer, next_from_event_seq, more, head_event_ids: [unknown.event_id] });
    };
    await a.subscribe(chat);
    await Bun.sleep(2000);
    // Ten intervals, two lanes, a digest and a few pages for each.
    expect(peer.backfills.length).toBeWithin(2, 80);
    // A post that waited for its end would never be answered.
    expect((await timed(() => a.post(chat, "still here"))).ms).toBeLessThan(10_000);
  });

  test("does no harm when it is garbage, of another shape or no object", async () => {
    const answers: Record<string, () => Answer> = {
      garbage: () => new Response("<html>"),
      shape: () => Response.json({ ok: true, events: [{}], more: "yes" }),
      none: () => Response.json(null),
    };
    await using bad = fakes(Object.keys(answers));
    await using well = new FakePeer();
    await using network = await Network.of({ a: [...bad.peers, well].map(({ url }) => url) });
    const [a] = network.get("a");
    for (const { name, peer } of bad.all) peer.onBackfill = answers[name]!;
    well.serve("chat", message(well.author, chat, "from the other one"));
    await a.subscribe(chat);
    const [received] = await a.holds(chat, 1);
    expect(received).toMatchObject({ content: "from the other one" });
    const { peers } = await until(
      () => a.status(),
      ({ peers }) => peers.every(({ connected }, i) => connected === (i === 3)),
    );
    const failed = { last_error: expect.any(String) };
    expect(peers).toMatchObject([failed, failed, failed, { last_error: null }]);
    expect((await timed(() => a.post(chat, "still here"))).ms).toBeLessThan(1000);
  });

  test("is asked for in requests that keep to the limits", async () => {
    await using peer = new FakePeer();
    await using network = await Network.of({ a: [peer.url] });
    const [a] = network.get("a");
    for (let i = 0; i < 300; i++) peer.serve("chat", message(peer.author, chat, i));
    await a.subscribe(chat);
    await a.holds(chat, 300);
    const node_id = await a.nodeId();
    const asked = peer.backfills.map(({ body }) => body);
    const wrong = asked.filter(
      ({ from, network_id, lane, from_event_seq, limit = 256, known_event_ids = [], head_only = false }) =>
        from !== node_id ||
        network_id !== NETWORK ||
        !Number.isSafeInteger(from_event_seq) ||
        !(limit >= 1 && limit <= 512) ||
        known_event_ids.length > 256 ||
        typeof head_only !== "boolean" ||
        !(lane.kind === "subscriptions" || (lane.kind === "messages" && lane.scope === "group:crew")),
    );
    expect(asked.length).toBeGreaterThan(1);
    expect(wrong).toEqual([]);
  });
});
