/**
 * Feeds of real processes that stop, are killed, or lose their data while they gossip.
 *
 * Where a kill has to come in the middle of something, a gate between two instances says when: it sees every
 * batch, so the moment is the same on every machine. In the end all hold each message once, in one order.
 */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { Author, messageEvent, Peer, randomHex, subscriptionEvent } from "../support/events.ts";
import {
  chain,
  type Gate,
  heldBy,
  INTERVAL_MS,
  type Instance,
  type Lane,
  type Links,
  lane,
  NETWORK,
  Network,
  type Passage,
  quiet,
  ring,
  type Start,
} from "../support/network.ts";
import { spawnServer } from "../support/spawn.ts";
import { timed, until } from "../support/topics.ts";

setDefaultTimeout(60_000);

/** Retries of a link that was away for a few seconds come within this time. */
const HEALING_MS = 25_000;

const chat = lane("chat");

const spawned: Start = (env) => spawnServer({ env });

const networkOf = (links: Links, env: Record<string, string> = {}) => Network.of(links, env, spawned);

const headSeq = async (instance: Instance) => (await instance.status()).head_seq;

/** Waits until each of them lists each one's subscription. */
async function allSubscribed(instances: Instance[], of: Lane): Promise<void> {
  await Promise.all(instances.map((each) => each.subscribe(of)));
  const hosts = await Promise.all(instances.map((each) => each.nodeId()));
  for (const each of instances) for (const host of hosts) await each.hearsOf(host, of.feed_key);
}

/** All hold exactly these, in one order, and keep to it. */
async function expectAgreement(instances: Instance[], of: Lane, posted: string[]): Promise<void> {
  const held = await heldBy(instances, of, posted.length, HEALING_MS);
  expect(held[0]!.toSorted()).toEqual(posted.toSorted());
  await quiet(() => Promise.all(instances.map(headSeq)), 3 * INTERVAL_MS);
  for (const instance of instances) expect(await instance.ids(of)).toEqual(held[0]!);
}

describe("a restart", () => {
  /** What an instance knows, without what only says how it is doing. */
  async function known(instance: Instance) {
    const { node_id, network_id, log_id, head_seq, peers } = await instance.status();
    return {
      ...{ node_id, network_id, log_id, head_seq },
      peers: peers.map(({ url, node_id, out_seq }) => ({ url, node_id, out_seq })),
      messages: await instance.messages(chat),
      inner: await instance.messages(lane("inner", "local")),
      subscriptions: [await instance.subscriptions("chat"), await instance.subscriptions("ended")],
      cursors: [
        await instance.cursor("chat"),
        await instance.cursor("chat", "robot"),
        await instance.cursor("ended"),
      ],
    };
  }

  test.each(["stop", "kill"] as const)(
    "07.29 after a %s keeps node_id, messages, subscriptions, cursors, peer positions",
    async (how) => {
      await using network = new Network({}, spawned);
      const gate = network.gate("b");
      await network.start({ a: [gate.url], b: ["a"] });
      await network.connected();
      const [a, b] = network.get("a", "b");
      await a.subscribe(chat, { subscriber_node_id: "robot" });
      await a.subscribe(lane("ended"));
      await allSubscribed([a, b], chat);
      const posted = (await Promise.all([a.postMany(chat, 20), b.postMany(chat, 20)])).flat();
      await a.post(lane("inner", "local"), "mine");
      await a.post(lane("ended"), "counts");
      await a.unsubscribe(lane("ended"));
      await a.post(lane("ended"), "does not count");
      await heldBy([a, b], chat, 40);
      const before = await quiet(() => known(a), 2 * INTERVAL_MS);
      expect(before.peers).toEqual([
        { url: gate.url, node_id: await b.nodeId(), out_seq: expect.any(Number) },
      ]);
      expect(before.peers[0]!.out_seq).toBeGreaterThan(0);
      expect(before.cursors).toMatchObject([
        { feed_key: "chat" },
        { feed_key: "chat" },
        { feed_key: "ended" },
      ]);

      // Alone, so that nothing can be learned again.
      await b.stop();
      await a[how]();
      await a.start();
      expect(await known(a)).toEqual(before);
      const pushes = gate.pushes.length;
      await b.start();
      posted.push(await a.post(chat, "after"));
      await expectAgreement([a, b], chat, posted);
      const again = gate.pushes.slice(pushes).flatMap(({ request }) => request.events);
      expect(again.map(({ event }: { event: { event_id: string } }) => event.event_id)).toEqual([
        ...new Array(again.length).fill(posted.at(-1)),
      ]);
    },
  );

  test("posts go on in created_at order, and cursors from where they were", async () => {
    await using network = await networkOf({ a: [] });
    const [a] = network.get("a");
    await a.subscribe(chat);
    const ids = [await a.post(chat, "same")];
    for (let round = 0; round < 2; round++) {
      await a.kill();
      await a.start();
      ids.unshift(await a.post(chat, "same"));
    }
    const messages = await a.messages(chat);
    expect(messages.map(({ message_id }) => message_id)).toEqual(ids);
    const times = messages.map(({ created_at }) => created_at);
    expect(times).toEqual(times.toSorted((x, y) => y - x));
    expect(await a.cursor("chat")).toMatchObject({
      ...{ last_event_id: ids[0], last_event_seq: messages[0]!.event_seq },
    });
  });
});

describe("an instance that is away", () => {
  test("07.33 killed before 500 posts it gets all of them on its return, and posts stay fast", async () => {
    await using network = await networkOf(chain("a", "b"));
    const [a, b] = network.get("a", "b");
    await b.subscribe(chat);
    await a.hearsOf(await b.nodeId(), "chat");
    const posted = [await a.post(chat, "before")];
    await b.holds(chat, 1);
    await b.kill();
    const times: number[] = [];
    for (let i = 0; i < 500; i++) {
      const { ms, answer } = await timed(() => a.post(chat, i));
      times.push(ms);
      posted.push(answer);
    }
    times.sort((x, y) => x - y);
    expect(times[250]).toBeLessThan(50);
    expect(times[499]).toBeLessThan(1500);
    await b.start();
    await expectAgreement([a, b], chat, posted);
  });

  test("07.33 listed by one side only, it gets them by the other's retries", async () => {
    await using network = await networkOf({ a: ["b"], b: [] });
    const [a, b] = network.get("a", "b");
    await b.subscribe(chat);
    await a.hearsOf(await b.nodeId(), "chat");
    await b.stop();
    const posted = await a.postMany(chat, 100);
    await until(
      () => a.status(),
      ({ peers }) => peers[0]?.connected === false,
    );
    await b.start();
    await expectAgreement([a, b], chat, posted);
  });

  test("07.36 in the middle of a chain: after its return both ends agree on what both have posted", async () => {
    await using network = await networkOf(chain("a", "b", "c"));
    const [a, b, c] = network.get("a", "b", "c");
    await Promise.all([a.subscribe(chat), c.subscribe(chat)]);
    await a.hearsOf(await c.nodeId(), "chat");
    await c.hearsOf(await a.nodeId(), "chat");
    const posted = [await a.post(chat, "before")];
    await c.holds(chat, 1);
    await b.stop();
    posted.push(...(await Promise.all([a.postMany(chat, 50), c.postMany(chat, 50)])).flat());
    expect([(await a.ids(chat)).length, (await c.ids(chat)).length]).toEqual([51, 51]);
    await b.start();
    await expectAgreement([a, b, c], chat, posted);
    expect(await b.cursor("chat")).toBeNull();
  });

  test("07.36 each in turn: what one says while the other is away is heard by it later", async () => {
    await using network = await networkOf(chain("a", "b"));
    const [a, b] = network.get("a", "b");
    await allSubscribed([a, b], chat);
    const posted: string[] = [];
    for (const [away, here] of [
      [a, b],
      [b, a],
    ] as const) {
      await away.kill();
      posted.push(...(await here.postMany(chat, 50)));
      await here.stop();
      await away.start();
      posted.push(...(await away.postMany(chat, 50)));
      await here.start();
    }
    await expectAgreement([a, b], chat, posted);
  });

  test("ring of three: each is killed once while all post, and all agree", async () => {
    await using network = await networkOf(ring("a", "b", "c"));
    const all = network.get("a", "b", "c");
    await allSubscribed(all, chat);
    const posted = (await Promise.all(all.map((each) => each.postMany(chat, 30)))).flat();
    for (const away of all) {
      await away.kill();
      const others = all.filter((each) => each !== away);
      posted.push(
        ...(await Promise.all(others.map((each) => each.postMany(chat, 20, `without ${away.name}`)))).flat(),
      );
      await away.start();
    }
    await expectAgreement(all, chat, posted);
  });

  test("chain of three: a subscription made while the poster is away brings all of 1,000 messages", async () => {
    await using network = await networkOf(chain("a", "b", "c"));
    const [a, b, c] = network.get("a", "b", "c");
    const posted = await a.postMany(chat, 1000);
    await a.stop();
    await c.subscribe(chat);
    await b.hearsOf(await c.nodeId(), "chat");
    await a.start();
    await expectAgreement([c, a, b], chat, posted);
    expect(await b.cursor("chat")).toBeNull();
    expect(await c.cursor("chat")).toMatchObject({ feed_key: "chat" });
  });
});

type EventsOf = (passage: Passage) => unknown[];

/**
 * Kills as soon as so many events have passed a gate. The answer with which they are that many goes on at the
 * same moment, or never if it is lost.
 */
function killAt(
  victim: Instance,
  gate: Gate,
  count: number,
  eventsOf: EventsOf,
  answer: "goes on" | "is lost",
) {
  const done = Promise.withResolvers<void>();
  let passed = 0;
  gate.pass = async (passage, forward) => {
    const reply = await forward();
    const before = passed;
    passed += eventsOf(passage).length;
    if (before >= count || passed < count) return reply;
    const killed = victim.kill();
    killed.then(done.resolve, done.reject);
    if (answer === "is lost") await killed;
    return reply;
  };
  return done.promise;
}

/** How many messages it has stored so far, seen while nothing more can come. */
async function storedSoFar(receiver: Instance, gate: Gate): Promise<number> {
  await gate.shut();
  gate.pass = (_, forward) => forward();
  await receiver.start();
  return (await receiver.ids(chat)).length;
}

const inPush = ({ path, request, answer }: Passage) =>
  path === "/api/peer/events" && answer?.ok === true ? request.events : [];

const inPage = ({ path, answer }: Passage) => (path === "/api/peer/backfill" ? (answer?.events ?? []) : []);

const count = 2000;

/** Brings so many messages of a stranger, which is faster than to post them one by one. */
async function told(instance: Instance, count: number): Promise<string[]> {
  const author = new Author();
  const events = Array.from({ length: count }, (_, i) =>
    messageEvent(author, {
      ...{ network_id: NETWORK, feed_key: "chat", scope: "group:crew", content: { i } },
      // Several share a time, so that ids decide about their order.
      created_at: Date.now() - Math.floor(i / 3),
    }),
  );
  const peer = new Peer(instance, NETWORK, author);
  for (let i = 0; i < count; i += 256) await peer.push(...events.slice(i, i + 256));
  return events.map(({ event_id }) => event_id);
}

/** Two instances with a gate in front of the one that is listed, and 2,000 messages on `a`. */
async function filled(listing: "a" | "b") {
  const network = new Network({}, spawned);
  const listed = listing === "a" ? "b" : "a";
  const gate = network.gate(listed);
  await network.start({ [listing]: [gate.url], [listed]: [] });
  await network.connected();
  const [a, b] = network.get("a", "b");
  const posted = await told(a, count);
  return { a, b, gate, posted, [Symbol.asyncDispose]: () => network[Symbol.asyncDispose]() };
}

describe("SIGKILL in the middle of 2,000 messages", () => {
  // The sender has no answer to what the receiver has stored, so it has to say some of it again.
  test("of the sender that pushes: each message is there once in the end", async () => {
    await using network = await filled("a");
    const { a, b, gate, posted } = network;
    for (const [round, part] of [300, 500, 500].entries()) {
      const killed = killAt(a, gate, part, inPush, "is lost");
      if (round === 0) await b.subscribe(chat);
      else await a.start();
      await killed;
      expect((await b.ids(chat)).length).toBeWithin(part, count);
    }
    gate.pass = (_, forward) => forward();
    await a.start();
    await expectAgreement([a, b], chat, posted);
    expect((await b.cursor("chat"))?.last_event_seq).toBe(await headSeq(b));
  });

  test.each<[string, "a" | "b", EventsOf]>([
    ["backfills", "b", inPage],
    ["is pushed to", "a", inPush],
  ])("of the receiver that %s: each message is there once in the end", async (_, listing, eventsOf) => {
    await using network = await filled(listing);
    const { a, b, gate, posted } = network;
    for (const [round, answer] of (["goes on", "is lost", "goes on"] as const).entries()) {
      const killed = killAt(b, gate, 300, eventsOf, answer);
      if (round === 0) await b.subscribe(chat);
      else await b.start();
      await killed;
    }
    expect(await storedSoFar(b, gate)).toBeWithin(1, count);
    gate.reopen();
    await expectAgreement([a, b], chat, posted);
    // It goes on from where it was: with each kill a page or two are asked for again, not everything.
    expect(gate.passages.flatMap(eventsOf).length).toBeLessThan(count + 3 * 512 + 1);
    expect((await b.cursor("chat"))?.last_event_seq).toBe(await headSeq(b));
  });

  test("of both, listing each other: all is there once in the end", async () => {
    await using network = await networkOf(chain("a", "b"));
    const [a, b] = network.get("a", "b");
    const posted = (await Promise.all([a.postMany(chat, count / 2), b.postMany(chat, count / 2)])).flat();
    await Promise.all([a.subscribe(chat), b.subscribe(chat)]);
    await until(
      () => headSeq(b),
      (head) => head > count / 2 + 100,
    );
    await Promise.all([a.kill(), b.kill()]);
    await Promise.all([a.start(), b.start()]);
    await expectAgreement([a, b], chat, posted);
  });
});

describe.concurrent("a wiped instance", () => {
  const seed = randomHex(32);

  test.each([
    ["the same seed", seed],
    ["a new seed", randomHex(32)],
  ])("07.44 with %s regains its lanes after subscribing, and goes on", async (_, next) => {
    await using network = new Network({}, spawned);
    await network.start({ a: ["b"] });
    await network.start({ b: ["a"] }, { FEED_NODE_SEED: seed });
    const [a, b] = network.get("a", "b");
    await allSubscribed([a, b], chat);
    const posted = (await Promise.all([a.postMany(chat, 150), b.postMany(chat, 150)])).flat();
    await expectAgreement([a, b], chat, posted);
    const { node_id, log_id } = await b.status();
    expect(node_id).toBe(new Author(seed).id);

    await b.wipe();
    posted.push(...(await a.postMany(chat, 20, "while it was away")));
    await b.start({ FEED_NODE_SEED: next });
    const reborn = await b.status();
    expect(reborn.node_id).toBe(new Author(next).id);
    expect(reborn.log_id).not.toBe(log_id);
    expect(await b.cursor("chat")).toBeNull();
    await b.subscribe(chat);
    await expectAgreement([a, b], chat, posted);
    posted.push(await a.post(chat, "from a"), await b.post(chat, "from b"));
    await expectAgreement([a, b], chat, posted);
    // What b has brought and asked for is no exchange of a's own, which may still be to come.
    await until(
      async () => (await a.status()).peers,
      ([peer]) => peer?.node_id === reborn.node_id && peer.connected,
    );
  });
});

describe.concurrent("clocks that differ", () => {
  const ahead = (ms: number, content: string, author: Author) =>
    messageEvent(author, {
      ...{ network_id: NETWORK, feed_key: "chat", scope: "group:crew", content },
      created_at: Date.now() + ms,
    });

  test("a peer's event up to 300 s ahead is accepted and passed on, a later one is not", async () => {
    await using network = await networkOf(chain("a", "b"));
    const [a, b] = network.get("a", "b");
    await allSubscribed([a, b], chat);
    const author = new Author();
    const [good, bad] = [ahead(290_000, "just so", author), ahead(310_000, "too late", author)];
    const old = messageEvent(author, {
      ...{ network_id: NETWORK, feed_key: "chat", scope: "group:crew", content: "old" },
      created_at: 1,
    });
    const reply = await new Peer(a, NETWORK).push(bad, good, old);
    expect(reply.body).toMatchObject({
      ...{ accepted: 2, duplicates: 0 },
      rejected: [{ event_id: bad.event_id, error: expect.stringMatching(/^invalid event: /) }],
    });
    const own = await a.post(chat, "now");
    const [atA, atB] = await heldBy([a, b], chat, 3);
    expect(atA).toEqual([good.event_id, own, old.event_id]);
    expect(atB).toEqual(atA!);
    expect((await a.messages(chat))[1]!.created_at).toBeWithin(Date.now() - 20_000, Date.now() + 1);
    expect((await b.cursor("chat"))!.updated_at).toBeLessThanOrEqual(Date.now());
  });

  test("a subscription from 290 s ahead stands until a later one, also after a restart", async () => {
    await using network = await networkOf({ a: [] });
    const [a] = network.get("a");
    const author = new Author();
    const update = (active: boolean, created_at: number) =>
      subscriptionEvent(author, {
        ...{ network_id: NETWORK, feed_key: "chat", scope: "group:crew", active, created_at },
      });
    const peer = new Peer(a, NETWORK, author);
    const end = update(false, Date.now() + 290_000);
    await peer.push(end, update(true, Date.now()));
    await a.kill();
    await a.start();
    await peer.push(update(true, Date.now() + 1000));
    expect(await a.subscriptions("chat")).toMatchObject([{ active: false, event_id: end.event_id }]);
    await peer.push(update(true, end.created_at + 1));
    expect(await a.subscriptions("chat")).toMatchObject([{ active: true }]);
  });
});
