/**
 * The law of feeds: whatever happens to instances and to the links between them, in the end all subscribers of a lane
 * that can hear each other hold the same messages, each once and in one order, and nothing is sent any more.
 */
import { expect, setDefaultTimeout, test } from "bun:test";
import fc from "fast-check";
import { item, messageEvent, subscriptionEvent } from "../support/events.ts";
import { feeds, type History, history, mend, perform, renew, subscribers } from "./feedhistory.ts";
import { components, faultsBetween, faultsWithin } from "./feedlaws.ts";
import { FeedNetwork, type Link, type Listing, NETWORK, newAuthor, type Site } from "./feednetwork.ts";
import { PATIENCE_MS, runs } from "./host.ts";

setDefaultTimeout(30_000);

/** So long instances may take to agree, and after that to fall silent, by our clock. */
const AGREE_MS = 10_000;
const SILENT_MS = 10_000;
const LOOK_MS = 15;
/** An interval has passed so often while nothing was sent. */
const SILENT_PULLS = 3;

/** Looks at where subscribers stand, who never go back. */
async function watchCursors(site: Site): Promise<void> {
  const { run } = site;
  if (run === undefined) return;
  for (const feedKey of feeds) {
    for (const who of subscribers) {
      const subscriber = who ?? undefined;
      const { cursor } = await run.engine.network.feeds.cursor({ feedKey, networkId: undefined, subscriber });
      const key = JSON.stringify([feedKey, who]);
      const [seq, time] = site.seen.get(key) ?? [0, 0];
      if (cursor === null) expect(seq).toBe(0);
      else {
        expect(cursor.last_event_seq).toBeGreaterThanOrEqual(seq);
        expect(cursor.updated_at).toBeGreaterThanOrEqual(time);
        site.seen.set(key, [cursor.last_event_seq, cursor.updated_at]);
      }
    }
  }
}

async function faultsOf(network: FeedNetwork): Promise<string[]> {
  const faults: string[] = [];
  for (const group of components(network)) faults.push(...(await faultsBetween(network, group)));
  return faults;
}

/** Waits until instances agree. */
async function agree(network: FeedNetwork): Promise<void> {
  for (const deadline = Date.now() + AGREE_MS; ; await Bun.sleep(LOOK_MS)) {
    const faults = await faultsOf(network);
    if (faults.length === 0) return;
    if (Date.now() > deadline) expect(faults).toEqual([]);
  }
}

/** Waits until all have looked at each other several times and nothing was sent. */
async function fallSilent({ links, sites }: FeedNetwork): Promise<void> {
  // Who leads back to itself is asked rarely.
  const live = links.filter(({ isCut, listing: { from, to } }) => !isCut && from !== to);
  const sent = () => [
    ...links.map(({ pushes, pages }) => `${pushes} ${pages}`),
    ...sites.map(({ run }) => run!.engine.network.log.head),
  ];
  const pulls = () => live.map((link) => link.pulls);
  let before = sent();
  let since = pulls();
  for (const deadline = Date.now() + SILENT_MS; ; await Bun.sleep(LOOK_MS)) {
    const now = sent();
    if (now.join() !== before.join()) {
      before = now;
      since = pulls();
    }
    if (pulls().every((count, i) => count >= since[i]! + SILENT_PULLS)) return;
    if (Date.now() > deadline)
      throw new Error(`they go on sending: ${before} -> ${sent()}, pulls ${since} -> ${pulls()}`);
  }
}

async function check({ count, listings, steps, cut, last, skews }: History): Promise<void> {
  await using network = await FeedNetwork.open(count, listings);
  for (const [i, site] of network.sites.entries()) site.tick(skews[i]!);
  for (const step of steps) {
    await perform(network, step);
    if (step.kind === "settle") for (const site of network.sites) await watchCursors(site);
  }
  mend(network, cut);
  for (const step of last) await perform(network, step);
  await network.settled();
  if (steps.some(({ kind }) => kind === "wipe")) await renew(network);
  await agree(network);
  await fallSilent(network);
  for (const site of network.sites) {
    await watchCursors(site);
    expect(await faultsWithin(network, site, subscribers)).toEqual([]);
  }
  expect(await faultsOf(network)).toEqual([]);
  expect(network.failures).toEqual([]);
}

/** Waits until an instance holds so many events. */
async function hold(site: Site, count: number): Promise<void> {
  for (
    const deadline = Date.now() + AGREE_MS;
    site.run!.engine.network.log.head < count;
    await Bun.sleep(5)
  ) {
    if (Date.now() > deadline) expect(site.run!.engine.network.log.head).toBeGreaterThanOrEqual(count);
  }
}

const listing = (from: number, to: number, alias = 0): Listing => ({ from, to, alias });
const feed = fc.constantFrom(...feeds);
const peerIds = ["1", "2", "3"].map((digit) => digit.repeat(64));
const wish = { who: null, feed: "a", scope: "group:g", active: true };

test(
  "subscribers that can hear each other come to hold the same messages, and then nothing is sent any more",
  async () => {
    await fc.assert(fc.asyncProperty(history, check), { ...runs(50), markInterruptAsFailure: true });
  },
  PATIENCE_MS,
);

test("a post goes out by a peer's other URL at once when the first one stops working", async () => {
  await using network = await FeedNetwork.open(2, [listing(0, 1), listing(0, 1, 1)]);
  const [sender, receiver] = network.sites as [Site, Site];
  network.subscribe(receiver, wish);
  await hold(sender, 1);
  network.post(sender, "a", "group:g", 1, false);
  await hold(receiver, 2);
  await fallSilent(network);
  network.links[0]!.isCut = true;
  network.post(sender, "a", "group:g", 1, false);
  await hold(receiver, 3);
}, 30_000);

test("an instance that has lost its data learns of subscriptions that only it has brought to its peer", async () => {
  const listings = [listing(0, 1), listing(0, 2), listing(2, 1), listing(2, 3)];
  await using network = await FeedNetwork.open(4, listings);
  const [subscriber, peer, relay, sender] = network.sites as [Site, Site, Site, Site];
  const [direct, through] = network.links as [Link, Link];
  direct.isCut = true;
  network.subscribe(subscriber, wish);
  await hold(peer, 1);
  direct.isCut = false;
  through.isCut = true;
  await network.wipe(relay, true);
  network.post(sender, "a", "group:g", 1, false);
  await network.settled();
  await agree(network);
}, 30_000);

test("a subscription to a feed with a long key does not keep others from being read", async () => {
  await using network = await FeedNetwork.open(2, [listing(0, 1)]);
  const [reader, sender] = network.sites as [Site, Site];
  network.subscribe(reader, { ...wish, feed: "x".repeat(66_000) });
  await hold(sender, 1);
  network.subscribe(reader, wish);
  network.post(sender, "a", "group:g", 1, false);
  await network.settled();
  await agree(network);
}, 30_000);

test("a clock that is set back holds up no post", async () => {
  await using network = await FeedNetwork.open(1, []);
  const [site] = network.sites as [Site];
  network.post(site, "a", "group:g", 1, false);
  await network.settled();
  site.tick(-5000);
  network.post(site, "a", "group:g", 1, false);
  const start = Date.now();
  await network.settled();
  expect(Date.now() - start).toBeLessThan(2000);
}, 30_000);

test("what is not on the device yet goes to nobody, also if its lane becomes wanted", async () => {
  await using network = await FeedNetwork.open(2, [listing(0, 1), listing(1, 0)]);
  const [sender, receiver] = network.sites as [Site, Site];
  const [link, back] = network.links as [Link, Link];
  network.subscribe(receiver, wish);
  await hold(sender, 1);
  await fallSilent(network);
  const answer = Promise.withResolvers<void>();
  link.held = answer.promise;
  network.post(sender, "a", "group:g", 1, false);
  await hold(receiver, 2);
  const { store, engine } = sender.run!;
  const disk = Promise.withResolvers<void>();
  const { sync } = store;
  store.sync = () => disk.promise.then(() => sync.call(store));
  try {
    network.post(sender, "b", "group:g", 1, false);
    for (; engine.network.log.topic.log.head < 3; ) await Bun.sleep(1);
    network.subscribe(receiver, { ...wish, feed: "b" });
    for (; engine.network.log.topic.log.head < 4; ) await Bun.sleep(1);
    answer.resolve();
    // Its own change is the third event there.
    for (const start = back.pulls; back.pulls < start + SILENT_PULLS; ) await Bun.sleep(1);
    expect([engine.network.log.head, receiver.run!.engine.network.log.head]).toEqual([2, 3]);
  } finally {
    disk.resolve();
  }
  await hold(receiver, 4);
}, 30_000);

/** Events of two foreign instances, in some order, by some of three peers, so many at a time. */
const arrivals = fc
  .array(
    fc.record({
      author: fc.nat(1),
      isMessage: fc.boolean(),
      feed,
      scope: fc.constantFrom("group:g", "global"),
      who: fc.constantFrom("s", "t"),
      active: fc.boolean(),
      createdAt: fc.integer({ min: 1, max: 6 }),
    }),
    { minLength: 1, maxLength: 30, size: "max" },
  )
  .chain((parts) => {
    const delivery = fc.record({ peer: fc.nat(2), size: fc.integer({ min: 1, max: 5 }) });
    const order = fc.array(fc.nat(1000), { minLength: parts.length, maxLength: parts.length });
    const deliveries = fc.array(delivery, { minLength: parts.length, maxLength: parts.length });
    return fc.record({ parts: fc.constant(parts), order, deliveries });
  });

test(
  "07.41 events that arrive in any order, from any peers, twice or once, come to the same",
  async () => {
    const authors = [newAuthor(0), newAuthor(1)];
    await fc.assert(
      fc.asyncProperty(arrivals, async ({ parts, order, deliveries }) => {
        await using network = await FeedNetwork.open(1, []);
        const [site] = network.sites as [Site];
        site.tick(1000);
        const made = parts.map((part, n) => {
          const { feed: feed_key, scope, createdAt: created_at, who, active } = part;
          const common = { network_id: NETWORK, feed_key, scope, created_at };
          const author = authors[part.author]!;
          return part.isMessage
            ? messageEvent(author, { ...common, content: n % 3 })
            : subscriptionEvent(author, { ...common, subscriber_node_id: who, active });
        });
        const shuffled = made
          .map((event, i) => ({ event, rank: order[i]! }))
          .toSorted((a, b) => a.rank - b.rank)
          .map(({ event }) => event);
        const { exchange } = site.run!.engine.network;
        for (let i = 0, n = 0; i < shuffled.length; n++) {
          const { peer, size } = deliveries[n]!;
          const events = shuffled.slice(i, i + size).map((event) => item(event));
          const from = peerIds[peer]!;
          const push = { from, network_id: NETWORK, log_id: `log ${peer}`, events };
          expect(await exchange.push(push)).toMatchObject({ rejected: [] });
          i += size;
        }
        expect(site.run!.engine.network.log.head).toBe(new Set(made.map(({ event_id }) => event_id)).size);
        expect(await faultsWithin(network, site, subscribers)).toEqual([]);
      }),
      runs(40),
    );
  },
  PATIENCE_MS,
);
