/** `POST /api/peer/events`: which events of other nodes are taken in, which are not, and what they change. */
import { describe, expect, test } from "bun:test";
import {
  Author,
  capabilities,
  changed,
  contentRef,
  EVENT_BYTES_MAX,
  encoded,
  headSeq,
  item,
  type MessageParts,
  messageEvent,
  messagesLane,
  Peer,
  randomHex,
  type SignedEvent,
  type SubscriptionParts,
  seal,
  sizedMessage,
  subscriptionEvent,
  subscriptionsLane,
} from "../support/events.ts";
import { expectRefusal, type Feed, newFeed } from "../support/feeds.ts";
import { type Reply, startServer } from "../support/server.ts";
import { sharedServer, together } from "../support/topics.ts";

const network_id = "net";
const local = new Author();
const author = new Author();
const other = new Author();

const seed = randomHex(32);
const server = sharedServer({ FEED_NETWORK_ID: network_id, FEED_NODE_SEED: seed });
const own = new Author(seed);

type Parts<T> = Partial<Omit<T, "network_id" | "feed_key" | "scope">>;

const names = (feed: Feed) => ({ network_id, feed_key: feed.key, scope: feed.scope });
const message = (feed: Feed, parts: Parts<MessageParts> = {}, by = author) =>
  messageEvent(by, { ...names(feed), content: { id: randomHex(8) }, ...parts });
const subscription = (feed: Feed, parts: Parts<SubscriptionParts> = {}, by = author) =>
  subscriptionEvent(by, { ...names(feed), active: true, ...parts });

const newPeer = (by = new Author()) => new Peer(server, network_id, by);

/** What the answer to a push says about its events. */
const outcome = ({ status, body }: Reply) => ({
  status,
  accepted: body.accepted,
  duplicates: body.duplicates,
  rejected: body.rejected,
});
const taken = (accepted: number, duplicates = 0) => ({ status: 200, accepted, duplicates, rejected: [] });

const rejection = (event_id: unknown) => ({
  event_id,
  error: expect.stringMatching(/^invalid event: ./),
});

/** A push of this item between two good events: they are stored, it is not. */
async function expectRejected(feed: Feed, bad: SignedEvent | string, event_id: unknown) {
  const neighbours = [message(feed), message(feed)] as const;
  const head = await headSeq(server);
  const reply = await newPeer().push(neighbours[0], bad, neighbours[1]);
  expect(outcome(reply)).toEqual({ ...taken(2), rejected: [rejection(event_id)] });
  expect(reply.body.head_seq).toBe(head + 2);
  const { texts } = await newPeer().pages(messagesLane(feed.scope, feed.key));
  expect(texts).toEqual(neighbours.map(encoded));
}

/** A push of this event, sent as this item: it is stored as its author signed it. */
async function expectAccepted(event: SignedEvent, sent: string = item(event)) {
  const head = await headSeq(server);
  const reply = await newPeer().push(sent);
  expect(outcome(reply)).toEqual(taken(1));
  expect(reply.body.head_seq).toBe(head + 1);
  const { payload } = event.payload;
  const lane =
    event.event_kind === "TOPIC_MESSAGE_POSTED"
      ? messagesLane(event.swarm_scope, payload.feed_key as string)
      : subscriptionsLane;
  const { texts } = await newPeer().pages(lane);
  expect(texts.at(-1)).toBe(encoded(event));
}

const HOUR_MS = 3_600_000;
const ofPayload = (path: string) => `payload.payload.${path}`;
const fullEnvelope = {
  protocol: "acme/1",
  transport_profile: "t",
  source_agent_id: "s",
  target_agent_id: "t",
  source_node_id: "n",
  target_node_id: "m",
  capability: "c",
  source_agent_card: {
    agent_id: "a",
    node_id: "n",
    card_hash: "h",
    issued_at: 7,
    card: { z: 1 },
    signature: "x",
  },
  message_json: "{}",
  extensions_json: "[]",
  signature: "y",
};

describe("an event that was altered after it was signed", () => {
  test.each<[string, string, unknown]>([
    ["its content", ofPayload("local_content_cache"), { altered: true }],
    ["its digest", ofPayload("content_ref.digest"), `sha256:${"0".repeat(64)}`],
    ["its size", ofPayload("content_ref.size_bytes"), (size: number) => size + 1],
    ["its id", "event_id", "0".repeat(64)],
    ["its id's letters", "event_id", (id: string) => `${id.slice(0, 60)}ABCD`],
    ["its signature", "signature_hex", (hex: string) => hex.replace(/./, (c) => (c === "0" ? "1" : "0"))],
    ["a signature that is cut off", "signature_hex", (hex: string) => hex.slice(0, -2)],
    ["a signature that is no hex", "signature_hex", "z".repeat(128)],
    ["its author", "author_node_id", other.id],
    ["its time", "created_at", (time: number) => time - 1],
    ["its feed", ofPayload("feed_key"), "another"],
    ["its network", ofPayload("network_id"), "another"],
    ["its scope", "swarm_scope", "group:another"],
    ["how it spells its scope", ofPayload("scope_hint"), "GROUP:crew"],
    ["what it replies to", ofPayload("reply_to_message_id"), "another"],
    ["its envelope", ofPayload("agent_envelope"), { protocol: "p", message_json: "" }],
  ])("07.39 is rejected: %s", async (_, path, value) => {
    const feed = newFeed(server);
    const altered = changed(message(feed), path, value);
    await expectRejected(feed, altered, altered.event_id);
  });

  test("07.39 is rejected: a content and the reference to it", async () => {
    const feed = newFeed(server);
    const event = message(feed);
    const content = { altered: true };
    const ref = contentRef(author, content, event.created_at);
    const altered = changed(
      changed(event, ofPayload("local_content_cache"), content),
      ofPayload("content_ref"),
      ref,
    );
    await expectRejected(feed, altered, event.event_id);
  });

  test("07.39 is rejected: an active subscription that its author had ended", async () => {
    const feed = newFeed(server);
    const event = subscription(feed, { active: false });
    await expectRejected(feed, changed(event, ofPayload("active"), true), event.event_id);
    expect(await feed.rows()).toEqual([]);
  });

  test("07.39 is rejected, also if its id is a known one", async () => {
    const feed = newFeed(server);
    const event = message(feed);
    const altered = changed(event, ofPayload("local_content_cache"), { altered: true });
    const peer = newPeer();
    expect(outcome(await peer.push(event))).toEqual(taken(1));
    const head = await headSeq(server);
    const again = await peer.push(altered, event);
    expect(outcome(again)).toEqual({ ...taken(0, 1), rejected: [rejection(event.event_id)] });
    expect(again.body.head_seq).toBe(head);
    expect((await newPeer().pages(messagesLane(feed.scope, feed.key))).texts).toEqual([encoded(event)]);
  });
});

describe("a signature", () => {
  test.each<[string, (event: SignedEvent) => string]>([
    ["by another key", ({ event_id }) => other.sign(event_id)],
    ["over the 32 bytes of the id", ({ event_id }) => author.sign(Buffer.from(event_id, "hex"))],
    ["over the event", (event) => author.sign(encoded(event))],
    ["of another event", () => message(newFeed(server)).signature_hex],
    ["of zeros", () => "0".repeat(128)],
  ])("07.39 %s is rejected", async (_, signature) => {
    const feed = newFeed(server);
    const event = message(feed);
    await expectRejected(feed, { ...event, signature_hex: signature(event) }, event.event_id);
  });

  test("07.39 of another node under an author's name is rejected", async () => {
    const feed = newFeed(server);
    const forged = seal(other, message(feed));
    await expectRejected(feed, forged, forged.event_id);
  });

  test("07.39 covers the members that are known, not others that were hashed with them", async () => {
    const feed = newFeed(server);
    const plain = message(feed);
    const extended = { ...plain, extension: 1 };
    const signed = seal(author, extended, (value) => JSON.stringify(value));
    expect(signed.event_id).not.toBe(plain.event_id);
    await expectRejected(feed, JSON.stringify({ scope: feed.scope, event: signed }), signed.event_id);
  });
});

/** Rows that replace one member, signed anew: the event is consistent, and still not one of ours. */
const wrong: [string, unknown][] = [
  ["protocol_version", "0.2.0"],
  ["protocol_version", 1],
  ["event_kind", "TASK_CREATED"],
  ["event_kind", "topic_message_posted"],
  ["event_kind", "FEED_SUBSCRIPTION_UPDATED"],
  ["event_kind", 1],
  ["task_id", "task"],
  ["epoch", 2],
  ["epoch", 0],
  ["epoch", "1"],
  ["created_at", () => Date.now() + HOUR_MS],
  ["created_at", () => Date.now() + 310_000],
  ["created_at", Number.MAX_SAFE_INTEGER],
  ["created_at", -1],
  ["created_at", 1.5],
  ["created_at", "1700000000000"],
  ["created_at", null],
  ["created_at", () => BigInt("9007199254740992")],
  ["swarm_scope", "group:another"],
  ["swarm_scope", "GROUP:crew"],
  ["swarm_scope", 1],
  ["author_node_id", 1],
  ["author_node_id", "nobody"],
  ["author_node_id", author.id.toUpperCase()],
  ["payload", "text"],
  ["payload", []],
  ["payload.type", "FeedSubscriptionUpdated"],
  ["payload.type", "TaskCreated"],
  ["payload.type", 1],
  ["payload.payload", []],
  ["payload.payload", null],
  [ofPayload("network_id"), "another"],
  [ofPayload("network_id"), 1],
  [ofPayload("feed_key"), 1],
  [ofPayload("feed_key"), null],
  [ofPayload("scope_hint"), "group:another"],
  [ofPayload("scope_hint"), "group:Crew"],
  [ofPayload("scope_hint"), "local"],
  [ofPayload("scope_hint"), 1],
  [ofPayload("content_ref"), "text"],
  [ofPayload("content_ref.digest"), `sha256:${"0".repeat(64)}`],
  [ofPayload("content_ref.digest"), (digest: string) => digest.slice("sha256:".length)],
  [ofPayload("content_ref.digest"), 1],
  [ofPayload("content_ref.size_bytes"), (size: number) => size + 1],
  [ofPayload("content_ref.size_bytes"), (size: number) => size - 1],
  [ofPayload("content_ref.size_bytes"), (size: number) => `${size}`],
  [ofPayload("content_ref.created_at"), "now"],
  [ofPayload("content_ref.uri"), 1],
  [ofPayload("content_ref.mime"), 1],
  [ofPayload("content_ref.producer"), 1],
  [ofPayload("local_content_cache"), "another"],
  [ofPayload("reply_to_message_id"), 1],
  [ofPayload("agent_envelope"), "text"],
  [ofPayload("agent_envelope"), []],
  [ofPayload("agent_envelope.protocol"), 1],
  [ofPayload("agent_envelope.transport_profile"), {}],
  [ofPayload("agent_envelope.source_agent_id"), 1],
  [ofPayload("agent_envelope.target_agent_id"), 1],
  [ofPayload("agent_envelope.source_node_id"), 1],
  [ofPayload("agent_envelope.target_node_id"), 1],
  [ofPayload("agent_envelope.capability"), ["c"]],
  [ofPayload("agent_envelope.message_json"), {}],
  [ofPayload("agent_envelope.extensions_json"), {}],
  [ofPayload("agent_envelope.signature"), 1],
  [ofPayload("agent_envelope.source_agent_card"), "card"],
  [ofPayload("agent_envelope.source_agent_card.agent_id"), 1],
  [ofPayload("agent_envelope.source_agent_card.node_id"), 1],
  [ofPayload("agent_envelope.source_agent_card.card_hash"), 1],
  [ofPayload("agent_envelope.source_agent_card.issued_at"), 1.5],
  [ofPayload("agent_envelope.source_agent_card.issued_at"), "7"],
  [ofPayload("agent_envelope.source_agent_card.signature"), 1],
];

describe("a message that its author signed", () => {
  test.each(wrong)("07.39 is rejected with %s %p", async (path, value) => {
    const feed = newFeed(server);
    const bad = seal(author, changed(message(feed, { agent_envelope: fullEnvelope }), path, value));
    await expectRejected(feed, item(bad, feed.scope), bad.event_id);
  });

  const card = ofPayload("agent_envelope.source_agent_card");
  test.each([
    ...["protocol_version", "event_kind", "task_id", "swarm_scope", "epoch", "author_node_id", "created_at"],
    ...["payload", "payload.type", "payload.payload"],
    ...["network_id", "feed_key", "scope_hint", "content_ref", "local_content_cache"].map(ofPayload),
    ...["uri", "digest", "size_bytes", "mime", "created_at", "producer"].map((key) =>
      ofPayload(`content_ref.${key}`),
    ),
    ...["protocol", "message_json"].map((key) => ofPayload(`agent_envelope.${key}`)),
    ...["agent_id", "card_hash", "issued_at", "card"].map((key) => `${card}.${key}`),
  ])("07.39 is rejected without %s", async (path) => {
    const feed = newFeed(server);
    const bad = seal(author, changed(message(feed, { agent_envelope: fullEnvelope }), path, undefined));
    await expectRejected(feed, item(bad, feed.scope), bad.event_id);
  });

  test("07.39 is rejected without a signature", async () => {
    const feed = newFeed(server);
    const event = message(feed);
    await expectRejected(feed, changed(event, "signature_hex", undefined), event.event_id);
  });

  test.each<[string, unknown]>([
    ["without an id", undefined],
    ["with a number for an id", 7],
    ["with null for an id", null],
    ["with an object for an id", {}],
  ])("07 is listed with null %s", async (_, event_id) => {
    const feed = newFeed(server);
    await expectRejected(feed, changed(message(feed), "event_id", event_id), null);
  });

  test("07 is rejected with a content of null", async () => {
    const feed = newFeed(server);
    const bad = message(feed, { content: null });
    await expectRejected(feed, bad, bad.event_id);
  });

  test.each(["GROUP:crew", " group:crew", "group:another", "crew", "", "global", "node:crew"])(
    "07.39 is rejected below the scope %p",
    async (scope) => {
      const feed = newFeed(server);
      const event = message(feed);
      await expectRejected(feed, item(event, scope), event.event_id);
    },
  );

  test.each([
    ["local", "local"],
    ["banana", "banana"],
    ["global:x", "global:x"],
    ["group:", "group:"],
    ["group:a/b", "group:a/b"],
    ["region:a:b", "region:a:b"],
    ["dm:b:a", "dm:b:a"],
    ["dm:a:b:c", "dm:a:b:c"],
    ["local:x", "local:x"],
    ["GROUP:crew", "GROUP:crew"],
    ["", ""],
  ])("07.39 07.42 is rejected in the scope %p throughout", async (scope, scope_hint) => {
    const feed = newFeed(server);
    const bad = messageEvent(author, { ...names(feed), scope, scope_hint, content: 1 });
    await expectRejected(feed, bad, bad.event_id);
  });

  test("07 is rejected with one byte more than an event may have", async () => {
    const feed = newFeed(server);
    const bad = sizedMessage(author, names(feed), EVENT_BYTES_MAX + 1);
    expect(Buffer.byteLength(encoded(bad))).toBe(131_073);
    await expectRejected(feed, bad, bad.event_id);
  });

  test.each<[string, unknown]>([
    ["9007199254740992", { n: BigInt("9007199254740992") }],
    ["9007199254740993", { n: BigInt("9007199254740993") }],
    ["-9007199254740992", [BigInt("-9007199254740992")]],
    ["1e20", 1e20],
    ["18446744073709551615", [{ n: BigInt("18446744073709551615") }]],
    ["of 41 digits", { n: BigInt(`1${"0".repeat(40)}`) }],
  ])("P11 is rejected with the number %s in it", async (_, content) => {
    const feed = newFeed(server);
    const bad = message(feed, { content });
    await expectRejected(feed, bad, bad.event_id);
  });

  test("P11 is rejected with such a number in an agent's card", async () => {
    const feed = newFeed(server);
    const card = { ...fullEnvelope.source_agent_card, card: { n: 2 ** 53 } };
    const bad = message(feed, { agent_envelope: { ...fullEnvelope, source_agent_card: card } });
    await expectRejected(feed, bad, bad.event_id);
  });
});

describe("a subscription that its author signed", () => {
  test.each<[string, unknown]>([
    ["event_kind", "TOPIC_MESSAGE_POSTED"],
    ["payload.type", "TopicMessagePosted"],
    ["swarm_scope", "group:another"],
    ["created_at", () => Date.now() + HOUR_MS],
    [ofPayload("scope_hint"), "group:another"],
    [ofPayload("network_id"), "another"],
    [ofPayload("network_id"), undefined],
    [ofPayload("feed_key"), undefined],
    [ofPayload("feed_key"), 1],
    [ofPayload("scope_hint"), undefined],
    [ofPayload("subscriber_node_id"), undefined],
    [ofPayload("subscriber_node_id"), 1],
    [ofPayload("active"), undefined],
    [ofPayload("active"), "true"],
    [ofPayload("active"), 1],
    [ofPayload("gossip_kinds"), undefined],
    [ofPayload("gossip_kinds"), "messages"],
    [ofPayload("provider_capabilities"), "all"],
    [ofPayload("agent_envelope"), { message_json: "" }],
  ])("07.39 is rejected with %s %p", async (path, value) => {
    const feed = newFeed(server);
    const bad = seal(author, changed(subscription(feed), path, value));
    await expectRejected(feed, item(bad, feed.scope), bad.event_id);
    expect(await feed.rows()).toEqual([]);
  });

  test("07.42 is rejected in the scope local", async () => {
    const feed = newFeed(server);
    const bad = subscriptionEvent(author, { ...names(feed), scope: "local", active: true });
    await expectRejected(feed, bad, bad.event_id);
    expect(await feed.rows()).toEqual([]);
  });
});

/** An object whose members come in the opposite order, at every level. */
function reversed(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(reversed);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .toReversed()
      .map(([key, inner]) => [key, reversed(inner)]),
  );
}

const nested = (depth: number) => JSON.parse("[".repeat(depth) + "]".repeat(depth));

describe("an event is accepted", () => {
  test.each<[string, Parts<MessageParts>]>([
    ["of the first millisecond", { created_at: 0 }],
    ["of long ago", { created_at: 1_000_000_000_000 }],
    ["whose scope is spelled in another way", { scope_hint: "GROUP : crew" }],
    ["that replies to an unknown one", { reply_to_message_id: "unknown" }],
    ["with the least envelope", { agent_envelope: { protocol: "", message_json: "" } }],
    ["with a full envelope", { agent_envelope: fullEnvelope }],
    [
      "with a card that is a text",
      {
        agent_envelope: {
          ...fullEnvelope,
          source_agent_card: { ...fullEnvelope.source_agent_card, card: "card" },
        },
      },
    ],
    ["whose content is a text", { content: "text" }],
    ["whose content is empty", { content: "" }],
    ["whose content is false", { content: false }],
    ["whose content is 0", { content: 0 }],
    ["whose content is a list", { content: [] }],
    ["with the largest integers", { content: [Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER] }],
    [
      "with numbers that are printed with an exponent",
      { content: [1e21, -1e21, 1e300, Number.MAX_VALUE, 1e-7] },
    ],
    ["with fractions", { content: [0.1, -0.5, 9007199254740.5, 5e-324] }],
    ["whose content is 126 levels deep", { content: nested(126) }],
    [
      "whose card is 124 levels deep",
      {
        agent_envelope: {
          ...fullEnvelope,
          source_agent_card: { ...fullEnvelope.source_agent_card, card: nested(124) },
        },
      },
    ],
  ])("07.39 %s", async (_, parts) => {
    await expectAccepted(message(newFeed(server), parts));
  });

  test("07.39 299 s ahead of the clock", async () => {
    await expectAccepted(message(newFeed(server), { created_at: Date.now() + 299_000 }));
  });

  test.each([
    ["global", "global"],
    ["region:eu", "region:eu"],
    ["group:Crew-7", "group:Crew-7"],
    ["node:x", "node:x"],
    ["node:x", "Local : x"],
    ["network:main:net", "network:main:net"],
    ["dm:a:b", "dm:b:a"],
  ])("07 in the scope %s, spelled %s", async (scope, scope_hint) => {
    const feed = newFeed(server);
    const parts = { network_id, feed_key: feed.key, scope, scope_hint };
    await expectAccepted(messageEvent(author, { ...parts, content: 1 }));
    await expectAccepted(subscriptionEvent(author, { ...parts, active: true }));
    expect(await feed.list({ scope_hint })).toMatchObject([{ scope_hint: scope, content: 1 }]);
    expect(await feed.rows()).toMatchObject([{ scope_hint: scope, active: true }]);
  });

  test("07 that subscribes somebody else, or ends that", async () => {
    const feed = newFeed(server);
    await expectAccepted(subscription(feed, { subscriber_node_id: "agent-1", agent_envelope: fullEnvelope }));
    await expectAccepted(subscription(feed, { subscriber_node_id: "agent-1", active: false }));
  });

  test.each(["🙂/ü", "a\0b", "__proto__", "with spaces", "x".repeat(5000)])(
    "1 of the feed %p",
    async (feed_key) => {
      await expectAccepted(messageEvent(author, { network_id, feed_key, scope: "group:crew", content: 1 }));
    },
  );

  test("07 that the instance had signed itself and lost", async () => {
    const feed = newFeed(server);
    const event = message(feed, {}, own);
    await expectAccepted(event);
    expect(await feed.list()).toMatchObject([{ message_id: event.event_id, author_node_id: own.id }]);
  });

  test("07 as large as one may be, and larger in the way it is sent", async () => {
    const event = sizedMessage(author, names(newFeed(server)), EVENT_BYTES_MAX);
    expect(Buffer.byteLength(encoded(event))).toBe(131_072);
    const sent = item(event)
      .replace(/x{1000}/, "\\u0078".repeat(1000))
      .replace(/,"event":\{/, ',"event": {"unknown":"yes",  ');
    await expectAccepted(event, sent);
  });

  test("07 with its members in any order", async () => {
    const event = message(newFeed(server), {
      content: { b: [1, { d: 1, c: 2 }], a: 1 },
      agent_envelope: fullEnvelope,
    });
    const sent = JSON.stringify(reversed({ scope: event.swarm_scope, event }));
    expect(sent).toStartWith('{"event":{"signature_hex"');
    await expectAccepted(event, sent);
  });

  test.each([
    ["item", ""],
    ["event", "event"],
    ["payload", "event.payload"],
    ["inner payload", "event.payload.payload"],
    ["reference", "event.payload.payload.content_ref"],
    ["envelope", "event.payload.payload.agent_envelope"],
    ["card", "event.payload.payload.agent_envelope.source_agent_card"],
  ])("07 without the unknown members of its %s", async (_, path) => {
    const event = message(newFeed(server), { agent_envelope: fullEnvelope });
    const sent = structuredClone({ scope: event.swarm_scope, event });
    let place = sent as unknown as Record<string, unknown>;
    for (const key of path.split(".").filter(Boolean)) place = place[key] as Record<string, unknown>;
    Object.assign(place, {
      unknown: { deep: [1, 2 ** 60] },
      message: "alias",
      extensions: 1,
      gossip_kinds: 7,
    });
    await expectAccepted(event, JSON.stringify(sent));
  });

  test("07 without the unknown members of its capabilities", async () => {
    const event = subscription(newFeed(server));
    const path = ofPayload("provider_capabilities");
    await expectAccepted(
      event,
      item(JSON.stringify(changed(event, path, { new: 1, ...capabilities })), event.swarm_scope),
    );
  });

  test("07 beside unknown members of the request", async () => {
    const feed = newFeed(server);
    const event = message(feed);
    const body = {
      unknown: 1,
      events: [{ scope: feed.scope, event }],
      network_id,
      log_id: "x",
      from: author.id,
    };
    expect(outcome(await server.send("POST", "/api/peer/events", body))).toEqual(taken(1));
  });
});

describe("what is known", () => {
  test("07.40 the same batch twice: the second time all are duplicates and the log stands still", async () => {
    const feed = newFeed(server);
    const events = [message(feed), subscription(feed), message(feed, { reply_to_message_id: "x" })];
    const peer = newPeer();
    const first = await peer.push(...events);
    expect(outcome(first)).toEqual(taken(3));
    const messages = await feed.list();
    for (const again of [peer, newPeer()]) {
      const reply = await again.push(...events);
      expect(outcome(reply)).toEqual(taken(0, 3));
      expect(reply.body.head_seq).toBe(first.body.head_seq);
    }
    expect(await headSeq(server)).toBe(first.body.head_seq);
    expect(await feed.list()).toEqual(messages);
    expect(await feed.rows()).toHaveLength(1);
  });

  test("07 an event twice in one batch is accepted once", async () => {
    const feed = newFeed(server);
    const event = message(feed);
    const reply = await newPeer().push(event, message(feed), event);
    expect(outcome(reply)).toEqual(taken(2, 1));
    expect(await feed.list()).toHaveLength(2);
  });

  test("07 a duplicate may be spelled in another way", async () => {
    const feed = newFeed(server);
    const event = message(feed, { content: { b: 1, a: "é" } });
    const peer = newPeer();
    expect(outcome(await peer.push(event))).toEqual(taken(1));
    const sent = JSON.stringify(reversed({ scope: feed.scope, event: { ...event, unknown: 1 } }), null, 2);
    expect(outcome(await peer.push(sent.replaceAll("é", "\\u00e9")))).toEqual(taken(0, 1));
  });

  test("07 new, known and bad events in one batch are told apart", async () => {
    const feed = newFeed(server);
    const [known, fresh, late] = [message(feed), message(feed), message(feed, { created_at: 5 })];
    const bad = [changed(fresh, "epoch", 2), changed(late, "event_id", "x")];
    const peer = newPeer();
    await peer.push(known);
    const reply = await peer.push(bad[0]!, known, fresh, bad[1]!, late);
    expect(outcome(reply)).toEqual({
      ...taken(2, 1),
      rejected: [rejection(fresh.event_id), rejection("x")],
    });
    expect((await newPeer().pages(messagesLane(feed.scope, feed.key))).ids).toEqual(
      [known, fresh, late].map(({ event_id }) => event_id),
    );
  });

  test("07 what the instance signed and gets back is a duplicate", async () => {
    const feed = newFeed(server);
    await feed.post(1);
    await feed.subscribe();
    const lanes = [messagesLane(feed.scope, feed.key), subscriptionsLane];
    const texts = [];
    for (const lane of lanes) texts.push((await newPeer().pages(lane)).texts.at(-1)!);
    const reply = await newPeer().push(...texts.map((text) => item(text, feed.scope)));
    expect(outcome(reply)).toEqual(taken(0, 2));
  });

  test("07 of the same batch from many peers at once each event is accepted once", async () => {
    const feed = newFeed(server);
    const events = Array.from({ length: 10 }, () => message(feed));
    const replies = await together(8, () => newPeer().push(...events));
    const sum = (of: "accepted" | "duplicates") => replies.reduce((n, { body }) => n + body[of], 0);
    expect([sum("accepted"), sum("duplicates")]).toEqual([10, 70]);
    expect(await feed.list()).toHaveLength(10);
  });
});

describe("the answer", () => {
  test("07 names the instance and its log", async () => {
    const { body: status } = await server.send("GET", "/api/peer/status");
    const reply = await newPeer().push(message(newFeed(server)));
    expect([reply.status, reply.body]).toEqual([
      200,
      {
        ok: true,
        node_id: own.id,
        log_id: status.log_id,
        head_seq: status.head_seq + 1,
        accepted: 1,
        duplicates: 0,
        rejected: [],
        performance: { server_total_ms: expect.any(Number) },
      },
    ]);
  });

  test("07 events get their places in the order of the batch, whatever their times", async () => {
    const feed = newFeed(server);
    const times = [30, 10, 20, 10];
    const events = times.map((created_at) => message(feed, { created_at }));
    const { body } = await newPeer().push(...events);
    const messages = await feed.list();
    const places = Object.fromEntries(messages.map(({ message_id, event_seq }) => [message_id, event_seq]));
    expect(events.map(({ event_id }) => places[event_id])).toEqual(
      [3, 2, 1, 0].map((n) => body.head_seq - n),
    );
    const listed = events.toSorted(
      (a, b) => b.created_at - a.created_at || (a.event_id < b.event_id ? 1 : -1),
    );
    expect(messages.map(({ message_id }) => message_id)).toEqual(listed.map(({ event_id }) => event_id));
  });
});

describe("what an event changes", () => {
  test("07.39 a message is listed with all that its author signed", async () => {
    const feed = newFeed(server);
    const event = message(feed, {
      scope_hint: "GROUP: crew",
      content: { b: 1, a: [null] },
      created_at: 1_600_000_000_000,
      reply_to_message_id: "parent",
      agent_envelope: fullEnvelope,
    });
    const before = Date.now();
    const { body } = await newPeer().push(event);
    const [listed, ...more] = await feed.list();
    expect(more).toEqual([]);
    expect(listed).toEqual({
      message_id: event.event_id,
      network_id,
      feed_key: feed.key,
      scope_hint: "group:crew",
      author_node_id: author.id,
      agent_envelope: fullEnvelope,
      content_ref: contentRef(author, { b: 1, a: [null] }, 1_600_000_000_000),
      content: { b: 1, a: [null] },
      content_resolved_at: expect.any(Number),
      reply_to_message_id: "parent",
      created_at: 1_600_000_000_000,
      event_seq: body.head_seq,
    });
    expect(listed!.content_resolved_at!).toBeWithin(before, Date.now() + 1);
  });

  test("07 a subscription is listed under the node that hosts it", async () => {
    const feed = newFeed(server);
    const event = subscription(feed, { subscriber_node_id: "agent-1", created_at: 1_600_000_000_000 });
    await newPeer().push(event);
    expect(await feed.rows()).toEqual([
      {
        event_id: event.event_id,
        network_id,
        subscriber_node_id: "agent-1",
        host_node_id: author.id,
        feed_key: feed.key,
        scope_hint: feed.scope,
        gossip_kinds: ["messages"],
        provider_capabilities: capabilities,
        active: true,
        updated_at: 1_600_000_000_000,
      },
    ]);
  });

  test("07 a message that a peer brings moves the cursors of those who subscribed here to its lane", async () => {
    const feed = newFeed(server);
    await feed.subscribe();
    await feed.subscribe({ subscriber_node_id: "agent-1" });
    await newPeer().push(messageEvent(author, { ...names(feed), scope: "group:another", content: 0 }));
    expect(await feed.cursor()).toBeNull();
    const event = message(feed);
    const { body } = await newPeer().push(event);
    for (const subscriber of [{}, { subscriber_node_id: "agent-1" }])
      expect(await feed.cursor(subscriber)).toMatchObject({
        scope_hint: feed.scope,
        last_event_id: event.event_id,
        last_event_seq: body.head_seq,
      });
    await newPeer().push(event);
    expect(await feed.cursor()).toMatchObject({ last_event_seq: body.head_seq });
  });

  test("07 a subscription that another node hosts has no cursor here", async () => {
    const feed = newFeed(server);
    await newPeer().push(subscription(feed), subscription(feed, { subscriber_node_id: own.id }));
    await newPeer().push(message(feed));
    await feed.post(1);
    expect(await feed.cursor()).toBeNull();
    expect(await feed.cursor({ subscriber_node_id: author.id })).toBeNull();
  });
});

describe("subscriptions in any order", () => {
  const orders = [
    [0, 1, 2],
    [0, 2, 1],
    [1, 0, 2],
    [1, 2, 0],
    [2, 0, 1],
    [2, 1, 0],
  ];
  const T = 1_600_000_000_000;

  test.each(orders)("07.41 the newest counts when they arrive as %i, %i, %i", async (...order) => {
    const feed = newFeed(server);
    const events = [
      subscription(feed, { created_at: T }),
      subscription(feed, { created_at: T + 1, active: false }),
      subscriptionEvent(author, { ...names(feed), scope: "region:x", active: true, created_at: T + 2 }),
    ];
    for (const place of order) expect(outcome(await newPeer().push(events[place]!))).toEqual(taken(1));
    expect(await feed.rows()).toMatchObject([
      { scope_hint: "region:x", active: true, updated_at: T + 2, event_id: events[2]!.event_id },
    ]);
  });

  test.each(orders.map((order) => [order] as const))("07.41 so it is within one batch: %p", async (order) => {
    const feed = newFeed(server);
    const events = [
      subscription(feed, { created_at: T }),
      subscription(feed, { created_at: T + 1 }),
      subscription(feed, { created_at: T + 2, active: false }),
    ];
    expect(outcome(await newPeer().push(...order.map((place) => events[place]!)))).toEqual(taken(3));
    expect(await feed.rows()).toMatchObject([
      { active: false, updated_at: T + 2, event_id: events[2]!.event_id, provider_capabilities: null },
    ]);
  });

  test.each(["as they are", "reversed"])("07 at one time the larger id counts, %s", async (how) => {
    const feed = newFeed(server);
    const events = [true, false].map((active) => subscription(feed, { active, created_at: T }));
    events.sort((a, b) => (a.event_id < b.event_id ? -1 : 1));
    const winner = events.at(-1)!;
    if (how === "reversed") events.reverse();
    for (const event of events) await newPeer().push(event);
    expect(await feed.rows()).toMatchObject([
      { event_id: winner.event_id, active: winner.payload.payload.active },
    ]);
  });

  test("07 there is one row for each subscriber of each host", async () => {
    const feed = newFeed(server);
    const rows = [
      subscription(feed, { created_at: T }),
      subscription(feed, { created_at: T + 1, subscriber_node_id: other.id }),
      subscription(feed, { created_at: T + 2 }, other),
      subscription(feed, { created_at: T + 3, subscriber_node_id: "agent", active: false }, other),
    ];
    await newPeer().push(...rows);
    expect((await feed.rows()).map(({ event_id }) => event_id)).toEqual(
      rows.toReversed().map(({ event_id }) => event_id),
    );
  });
});

describe("links, as the subscriptions lane shows them", () => {
  const seenBy = async (peer: Peer, feed: Feed) => {
    const { texts } = await peer.pages(subscriptionsLane);
    const events = texts.map((text) => JSON.parse(text) as SignedEvent);
    return events
      .filter(({ payload }) => payload.payload.feed_key === feed.key)
      .map(({ event_id }) => event_id);
  };

  test("07 it leaves out what the caller authored or brought, new or known", async () => {
    const feed = newFeed(server);
    const event = subscription(feed);
    const [bringer, later, stranger, writer] = [newPeer(), newPeer(), newPeer(), newPeer(author)];
    await bringer.push(event);
    expect(await seenBy(bringer, feed)).toEqual([]);
    expect(await seenBy(writer, feed)).toEqual([]);
    expect(await seenBy(later, feed)).toEqual([event.event_id]);
    await later.push(event);
    expect(await seenBy(later, feed)).toEqual([]);
    expect(await seenBy(stranger, feed)).toEqual([event.event_id]);
  });

  test("07 a rejected event is no link", async () => {
    const feed = newFeed(server);
    const event = subscription(feed);
    const peer = newPeer();
    await newPeer().push(event);
    await peer.push({ ...event, signature_hex: other.sign(event.event_id) });
    await peer.push(item(event, "group:another"));
    expect(await seenBy(peer, feed)).toEqual([event.event_id]);
  });

  test("07 there is none for events of the instance itself", async () => {
    const feed = newFeed(server);
    const event_id = await feed.subscribe();
    const peer = newPeer();
    const { texts, ids } = await peer.pages(subscriptionsLane);
    const echo = await peer.push(item(texts[ids.indexOf(event_id)]!, feed.scope));
    expect(outcome(echo)).toEqual(taken(0, 1));
    expect(await seenBy(peer, feed)).toEqual([event_id]);
  });

  test("07 a peer whose log_id is a new one has brought nothing yet", async () => {
    const feed = newFeed(server);
    const event = subscription(feed);
    const [peer, bystander] = [newPeer(), newPeer()];
    await peer.push(event);
    await bystander.push(event);
    peer.logId = randomHex(16);
    await peer.push(message(newFeed(server)));
    expect(await seenBy(peer, feed)).toEqual([event.event_id]);
    expect(await seenBy(bystander, feed)).toEqual([]);
    await peer.push(event);
    expect(await seenBy(peer, feed)).toEqual([]);
  });

  test("07 what arrives with the new log_id is a link already", async () => {
    const feed = newFeed(server);
    const events = [subscription(feed), subscription(feed, { subscriber_node_id: "agent" })];
    const peer = newPeer();
    await peer.push(...events);
    peer.logId = randomHex(16);
    await peer.push(events[1]!);
    expect(await seenBy(peer, feed)).toEqual([events[0]!.event_id]);
  });
});

describe("a request that is refused as a whole", () => {
  const good = (feed: Feed) => ({
    from: author.id,
    network_id,
    log_id: "log",
    events: [{ scope: feed.scope, event: message(feed) }] as unknown[],
  });
  const send = (body: unknown, headers: Record<string, string> = {}) =>
    server.send("POST", "/api/peer/events", body, headers);

  test.each<[string, Record<string, unknown>]>([
    ["no from", { from: undefined }],
    ["from of another kind", { from: 1 }],
    ["from that is null", { from: null }],
    ["from that is no id", { from: "node" }],
    ["from in upper case", { from: "A".repeat(64) }],
    ["from of 63 digits", { from: "a".repeat(63) }],
    ["from of 65 digits", { from: "a".repeat(65) }],
    ["no network", { network_id: undefined }],
    ["a network of another kind", { network_id: 1 }],
    ["no log_id", { log_id: undefined }],
    ["a log_id of another kind", { log_id: 1 }],
    ["no events", { events: undefined }],
    ["events that are null", { events: null }],
    ["events that are an object", { events: {} }],
    ["events that are a text", { events: "[]" }],
    ["0 events", { events: [] }],
    ["257 events", { events: Array(257).fill({ scope: "group:crew", event: {} }) }],
  ])("07 400 for %s", async (_, members) => {
    const feed = newFeed(server);
    expectRefusal(await send({ ...good(feed), ...members }), 400);
    expect(await feed.list()).toEqual([]);
  });

  test.each([
    ["nothing", ""],
    ["a list", "[]"],
    ["a text", '"text"'],
    ["null", "null"],
    ["no JSON", "{"],
    ["a trailing comma", '{"from":1,}'],
    ["a BOM", "\ufeff{}"],
    ["an infinite number", '{"x":1e400}'],
    ["a lone surrogate", '{"x":"\\ud800"}'],
    [
      "a key twice",
      `{"from":"${author.id}","from":"${author.id}","network_id":"net","log_id":"l","events":[]}`,
    ],
  ])("07 400 for %s", async (_, body) => {
    expectRefusal(await send(body), 400);
  });

  test("07 400 for an infinite number or a lone surrogate in one of the events", async () => {
    const feed = newFeed(server);
    for (const spoiled of ['"content":1e400', '"content":"\\udc00"']) {
      const items = [item(message(feed)), `{"scope":"group:crew","event":{${spoiled}}}`];
      expectRefusal(await newPeer().push(...items), 400);
    }
    expect(await feed.list()).toEqual([]);
  });

  test("07 400 for text that is not UTF-8", async () => {
    const body = Buffer.from(JSON.stringify(good(newFeed(server))).replace("log", "l\xff"), "latin1");
    expectRefusal(await send(new Uint8Array(body)), 400);
  });

  test.each(["", "text/plain", "application/octet-stream", "application/xml"])(
    "1 415 for the type %p",
    async (type) => {
      const feed = newFeed(server);
      expectRefusal(await send(good(feed), { "content-type": type }), 415);
      expect(await feed.list()).toEqual([]);
    },
  );

  test.each(["application/json; charset=utf-8", "application/feed+json"])("07 %s will do", async (type) => {
    expect(outcome(await send(good(newFeed(server)), { "content-type": type }))).toEqual(taken(1));
  });

  test("07.38 409 for another network", async () => {
    const feed = newFeed(server);
    for (const network of ["another", "NET"])
      expectRefusal(await send({ ...good(feed), network_id: network }), 409, "network_id mismatch");
    expect(await feed.list()).toEqual([]);
  });

  test("07 the size comes before the type, that before the shape, that before the network", async () => {
    const huge = " ".repeat(8 * 1024 * 1024 + 65_537);
    const text = { "content-type": "text/plain" };
    expect((await send(huge, text)).status).toBe(413);
    expect((await send("{", text)).status).toBe(415);
    expect((await send({ ...good(newFeed(server)), network_id: "another", from: 1 })).status).toBe(400);
    expect((await send({ ...good(newFeed(server)), network_id: "another", events: [] })).status).toBe(400);
  });

  test.each(["GET", "PUT", "DELETE", "PATCH"])("07 405 for %s", async (method) => {
    const reply = await server.send(method, "/api/peer/events");
    expectRefusal(reply, 405);
    expect(reply.headers.get("allow")).toContain("POST");
  });

  test.each(["/api/peer", "/api/peer/", "/api/peer/events/", "/api/peer/event", "/api/peer/Events"])(
    "1 404 for %s",
    async (path) => {
      expectRefusal(await server.send("POST", path, good(newFeed(server))), 404);
    },
  );
});

describe("sizes", () => {
  const LIMIT = 8 * 1024 * 1024 + 64 * 1024;

  test("07 256 events are one batch", async () => {
    const feed = newFeed(server);
    const events = Array.from({ length: 256 }, (_, n) => message(feed, { content: n }));
    expect(outcome(await newPeer().push(...events))).toEqual(taken(256));
    expect((await newPeer().pages(messagesLane(feed.scope, feed.key))).texts).toEqual(events.map(encoded));
  });

  test("07 8 MiB of events fit", async () => {
    const feed = newFeed(server);
    const events = Array.from({ length: 64 }, (_, n) =>
      sizedMessage(author, { ...names(feed), created_at: n }, EVENT_BYTES_MAX),
    );
    expect(outcome(await newPeer().push(...events))).toEqual(taken(64));
  });

  test("07 413 with a byte more than 8 MiB and 64 KiB, and the connection ends", async () => {
    const feed = newFeed(server);
    const body = (bytes: number) => {
      const of = {
        from: author.id,
        network_id,
        log_id: "x",
        events: [{ scope: feed.scope, event: message(feed) }],
      };
      return JSON.stringify(of).padEnd(bytes);
    };
    const over = await server.send("POST", "/api/peer/events", body(LIMIT + 1));
    expectRefusal(over, 413);
    expect(over.headers.get("connection")).toBe("close");
    expect(await feed.list()).toEqual([]);
    expect(outcome(await server.send("POST", "/api/peer/events", body(LIMIT)))).toEqual(taken(1));
  });
});

describe("strict", () => {
  const strict = sharedServer({ FEED_STRICT: "1", FEED_NETWORK_ID: network_id });

  test.each<[string, (feed_key: string) => SignedEvent, boolean]>([
    [
      "a group",
      (feed_key) => messageEvent(author, { network_id, feed_key, scope: "group:a", content: 1 }),
      true,
    ],
    [
      "a region",
      (feed_key) => messageEvent(author, { network_id, feed_key, scope: "region:a", content: 1 }),
      true,
    ],
    [
      "a node",
      (feed_key) => messageEvent(author, { network_id, feed_key, scope: "node:a", content: 1 }),
      true,
    ],
    [
      "a network",
      (feed_key) => messageEvent(author, { network_id, feed_key, scope: "network:a", content: 1 }),
      false,
    ],
    [
      "a dm",
      (feed_key) => messageEvent(author, { network_id, feed_key, scope: "dm:a:b", content: 1 }),
      false,
    ],
    [
      "local",
      (feed_key) => messageEvent(author, { network_id, feed_key, scope: "local", content: 1 }),
      false,
    ],
    [
      "a subscription by its author",
      (feed_key) => subscriptionEvent(author, { network_id, feed_key, scope: "group:a", active: true }),
      true,
    ],
    [
      "a subscription to a network",
      (feed_key) => subscriptionEvent(author, { network_id, feed_key, scope: "network:a", active: true }),
      false,
    ],
    [
      "a subscription for another",
      (feed_key) =>
        subscriptionEvent(author, {
          network_id,
          feed_key,
          scope: "group:a",
          active: true,
          subscriber_node_id: other.id,
        }),
      false,
    ],
  ])("07 %s: taken %#", async (_, made, accepted) => {
    const event = made(newFeed(strict).key);
    const reply = await new Peer(strict, network_id).push(event);
    expect(outcome(reply)).toEqual(
      accepted ? taken(1) : { ...taken(0), rejected: [rejection(event.event_id)] },
    );
  });
});

describe("how many peers are remembered", () => {
  test("07 1024, and one more is 429", async () => {
    await using full = await startServer({ FEED_NETWORK_ID: network_id });
    const event = messageEvent(author, { network_id, feed_key: "f", scope: "group:a", content: 1 });
    const peers = Array.from({ length: 1024 }, () => new Peer(full, network_id, local));
    for (const [n, peer] of peers.entries()) Object.assign(peer, { id: n.toString(16).padStart(64, "0") });
    const accepted = [];
    for (let n = 0; n < peers.length; n += 8)
      accepted.push(...(await Promise.all(peers.slice(n, n + 8).map((peer) => peer.push(event)))));
    expect(new Set(accepted.map(({ status }) => status))).toEqual(new Set([200]));

    const fresh = messageEvent(author, { network_id, feed_key: "f", scope: "group:a", content: 2 });
    expectRefusal(await new Peer(full, network_id).push(fresh), 429);
    expect(await headSeq(full)).toBe(1);
    expect(outcome(await peers[0]!.push(fresh))).toEqual(taken(1));
  });
});
