/**
 * Signed feed events as a foreign node makes them, and the peer routes as such a node calls them.
 *
 * Written from the contract alone: what is encoded, hashed and signed here shares no code with the server, so the
 * two can only agree where both are right.
 */
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  type KeyObject,
  randomBytes,
  sign,
} from "node:crypto";
import { elements, members } from "./rawjson.ts";
import type { Reply } from "./server.ts";
import type { Sender } from "./topics.ts";

const sha256 = (text: string) => createHash("sha256").update(text).digest("hex");

/** `bytes` random bytes in hex. */
export const randomHex = (bytes: number) => randomBytes(bytes).toString("hex");

/** Who signs events. The seed decides the key, and the public key is the node's id. */
export class Author {
  readonly id: string;
  readonly #key: KeyObject;

  constructor(seed = randomHex(32)) {
    // The fixed head of a PKCS #8 document that holds an Ed25519 seed (RFC 8410).
    const document = Buffer.from(`302e020100300506032b657004220420${seed}`, "hex");
    this.#key = createPrivateKey({ key: document, format: "der", type: "pkcs8" });
    const { x } = createPublicKey(this.#key).export({ format: "jwk" });
    this.id = Buffer.from(x!, "base64url").toString("hex");
  }

  /** The signature over these bytes, or over the characters of a text, in hex. */
  sign(signed: string | Buffer): string {
    return sign(null, Buffer.from(signed as string), this.#key).toString("hex");
  }
}

/**
 * A free-form value as it is hashed: compact, keys sorted by their UTF-8 bytes. A bigint stands for a number that is
 * spelled with these digits.
 */
export function canonical(value: unknown): string {
  if (typeof value === "bigint") return String(value);
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  const fields = value as Record<string, unknown>;
  const keys = Object.keys(fields).sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  return `{${keys.map((key) => `${JSON.stringify(key)}:${canonical(fields[key])}`).join(",")}}`;
}

type Encode = (value: unknown) => string;

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** An object of these members in this order. Absent ones are left out, and so is every other. */
function shape(table: Record<string, Encode | undefined>): Encode {
  return (value) => {
    if (!isObject(value)) return canonical(value);
    const present = Object.entries(table).filter(([key]) => value[key] !== undefined);
    return `{${present.map(([key, encode]) => `"${key}":${(encode ?? canonical)(value[key])}`).join(",")}}`;
  };
}

/** Members that are a text, a number, a list or free-form. */
const plain = (...keys: string[]) => Object.fromEntries(keys.map((key) => [key, canonical]));

const envelope = shape({
  ...plain("protocol", "transport_profile", "source_agent_id", "target_agent_id"),
  ...plain("source_node_id", "target_node_id", "capability"),
  source_agent_card: shape(plain("agent_id", "node_id", "card_hash", "issued_at", "card", "signature")),
  ...plain("message_json", "extensions_json", "signature"),
});

const payloads: Record<string, Encode> = {
  TopicMessagePosted: shape({
    ...plain("network_id", "feed_key", "scope_hint"),
    content_ref: shape(plain("uri", "digest", "size_bytes", "mime", "created_at", "producer")),
    ...plain("local_content_cache", "reply_to_message_id"),
    agent_envelope: envelope,
  }),
  FeedSubscriptionUpdated: shape({
    ...plain("network_id", "subscriber_node_id", "feed_key", "scope_hint", "gossip_kinds"),
    provider_capabilities: shape(plain("live_gossip", "history_backfill", "local_store")),
    agent_envelope: envelope,
    ...plain("active"),
  }),
};

const unsigned = {
  ...plain(
    "protocol_version",
    "event_kind",
    "task_id",
    "swarm_scope",
    "epoch",
    "author_node_id",
    "created_at",
  ),
  payload: (value: unknown) =>
    shape({
      type: canonical,
      payload: payloads[isObject(value) ? String(value.type) : ""] ?? canonical,
    })(value),
};

const encodeUnsigned = shape(unsigned);
const encodeSigned = shape({ event_id: canonical, ...unsigned, signature_hex: canonical });

export interface UnsignedEvent {
  protocol_version: string;
  event_kind: string;
  task_id: null;
  swarm_scope: string;
  epoch: number;
  author_node_id: string;
  created_at: number;
  payload: { type: string; payload: Record<string, unknown> };
}

export interface SignedEvent extends UnsignedEvent {
  event_id: string;
  signature_hex: string;
}

/** The event's text, byte for byte as every node stores and sends it. */
export const encoded = (event: SignedEvent): string => encodeSigned(event);

/** Gives an event, also one that is altered, the id of its members and the author's signature. */
export function seal(author: Author, event: UnsignedEvent, encode: Encode = encodeUnsigned): SignedEvent {
  const { event_id: _, signature_hex: __, ...rest } = event as SignedEvent;
  const event_id = sha256(encode(rest));
  return { ...rest, event_id, signature_hex: author.sign(event_id) };
}

/** Id and signature that belong to the members of an event which was read somewhere. */
export const recomputed = (author: Author, event: SignedEvent) => {
  const { event_id, signature_hex } = seal(author, event);
  return { event_id, signature_hex };
};

/**
 * A copy of an event with the member at a path (`payload.payload.feed_key`) replaced; undefined leaves it out. A
 * function gets the old value.
 */
export function changed(event: SignedEvent, path: string, value: unknown): SignedEvent {
  const copy = structuredClone(event);
  const keys = path.split(".");
  const last = keys.pop()!;
  let place = copy as unknown as Record<string, unknown>;
  for (const key of keys) place = place[key] as Record<string, unknown>;
  const next = typeof value === "function" ? value(place[last]) : value;
  if (next === undefined) delete place[last];
  else place[last] = next;
  return copy;
}

export interface MessageParts {
  network_id: string;
  feed_key: string;
  /** The canonical scope. */
  scope: string;
  /** How the poster wrote the scope, where that is something else. */
  scope_hint?: string;
  content: unknown;
  created_at?: number;
  reply_to_message_id?: string;
  agent_envelope?: unknown;
}

/** The reference to a content that its author made at this time. */
export function contentRef(author: Author, content: unknown, created_at: number) {
  const text = canonical(content);
  const digest = `sha256:${sha256(text)}`;
  return {
    uri: `artifact://topic-message/${digest}`,
    digest,
    size_bytes: Buffer.byteLength(text),
    mime: "application/json",
    created_at,
    producer: author.id,
  };
}

/** A message as its author's node signs it. */
export function messageEvent(author: Author, parts: MessageParts): SignedEvent {
  const created_at = parts.created_at ?? Date.now();
  return seal(author, {
    ...head("TOPIC_MESSAGE_POSTED", author, parts.scope, created_at),
    payload: {
      type: "TopicMessagePosted",
      payload: {
        network_id: parts.network_id,
        feed_key: parts.feed_key,
        scope_hint: parts.scope_hint ?? parts.scope,
        content_ref: contentRef(author, parts.content, created_at),
        local_content_cache: parts.content,
        ...optional("reply_to_message_id", parts.reply_to_message_id),
        ...optional("agent_envelope", parts.agent_envelope),
      },
    },
  });
}

/** The most bytes that an encoded event may have. */
export const EVENT_BYTES_MAX = 131_072;

/** A message whose encoded event has this many bytes, or a few more than an empty one has. */
export function sizedMessage(
  author: Author,
  parts: Omit<MessageParts, "content">,
  bytes: number,
): SignedEvent {
  const created_at = parts.created_at ?? Date.now();
  const made = (fill: number) => messageEvent(author, { ...parts, created_at, content: "x".repeat(fill) });
  const missing = (event: SignedEvent) => bytes - Buffer.byteLength(encoded(event));
  // A longer content also has a longer `size_bytes`.
  const rough = made(Math.max(0, missing(made(0))));
  return made(Math.max(0, (rough.payload.payload.local_content_cache as string).length + missing(rough)));
}

export interface SubscriptionParts {
  network_id: string;
  feed_key: string;
  /** The canonical scope. */
  scope: string;
  scope_hint?: string;
  active: boolean;
  /** Default: the author. */
  subscriber_node_id?: string;
  created_at?: number;
  agent_envelope?: unknown;
}

/** What a node offers for a feed it subscribes to. */
export const capabilities = { live_gossip: true, history_backfill: true, local_store: true };

/** A subscription, or its end, as the subscriber's node signs it. */
export function subscriptionEvent(author: Author, parts: SubscriptionParts): SignedEvent {
  return seal(author, {
    ...head("FEED_SUBSCRIPTION_UPDATED", author, parts.scope, parts.created_at ?? Date.now()),
    payload: {
      type: "FeedSubscriptionUpdated",
      payload: {
        network_id: parts.network_id,
        subscriber_node_id: parts.subscriber_node_id ?? author.id,
        feed_key: parts.feed_key,
        scope_hint: parts.scope_hint ?? parts.scope,
        gossip_kinds: ["messages"],
        ...(parts.active ? { provider_capabilities: { ...capabilities } } : {}),
        ...optional("agent_envelope", parts.agent_envelope),
        active: parts.active,
      },
    },
  });
}

const head = (event_kind: string, author: Author, swarm_scope: string, created_at: number) => ({
  protocol_version: "0.1.0",
  event_kind,
  task_id: null,
  swarm_scope,
  epoch: 1,
  author_node_id: author.id,
  created_at,
});

const optional = (key: string, value: unknown) => (value === undefined ? {} : { [key]: value });

/** The text of one item of a push: an event, or any text in its place, under a scope. */
export function item(event: SignedEvent | string, scope?: string): string {
  const [text, of] = typeof event === "string" ? [event, ""] : [encoded(event), event.swarm_scope];
  return `{"scope":${JSON.stringify(scope ?? of)},"event":${text}}`;
}

export type Lane = { kind: "subscriptions" } | { kind: "messages"; scope: string; feed_key: string };

export const subscriptionsLane: Lane = { kind: "subscriptions" };
export const messagesLane = (scope: string, feed_key: string): Lane => ({
  kind: "messages",
  scope,
  feed_key,
});

/** A page of a lane in the bytes in which it came, and what surrounds it. */
export interface Pages {
  readonly texts: string[];
  readonly ids: string[];
  readonly replies: Reply[];
}

/** A foreign node on the peer routes: what carries events, which need not be who signed them. */
export class Peer {
  readonly id: string;
  readonly #server: Sender;
  readonly #network: string;
  readonly #headers: Record<string, string>;
  /** Another one means that the peer has lost its database. */
  logId = randomHex(16);

  constructor(server: Sender, network: string, author = new Author(), headers: Record<string, string> = {}) {
    this.id = author.id;
    this.#server = server;
    this.#network = network;
    this.#headers = headers;
  }

  /** Pushes events as one batch, in this order. A text is an item as it is. */
  push(...events: (SignedEvent | string)[]): Promise<Reply> {
    const items = events.map((event) => (typeof event === "string" ? event : item(event)));
    return this.pushRaw(`[${items.join(",")}]`);
  }

  /** Pushes whatever this text says the events are. */
  pushRaw(events: string): Promise<Reply> {
    const from = { from: this.id, network_id: this.#network, log_id: this.logId };
    const body = `${JSON.stringify(from).slice(0, -1)},"events":${events}}`;
    return this.#server.send("POST", "/api/peer/events", body, this.#headers);
  }

  /** Asks for one page of a lane. `request` may replace any member. */
  backfill(lane: unknown, request: Record<string, unknown> = {}): Promise<Reply> {
    const body = { from: this.id, network_id: this.#network, lane, from_event_seq: 0, ...request };
    return this.#server.send("POST", "/api/peer/backfill", body, this.#headers);
  }

  /** Asks for pages until there are no more, and puts them together. Throws on a refusal. */
  async pages(lane: Lane, request: Record<string, unknown> = {}): Promise<Pages> {
    const replies: Reply[] = [];
    for (let from_event_seq = 0; ; ) {
      const reply = await this.backfill(lane, { from_event_seq, ...request });
      if (reply.status !== 200) throw new Error(`refused with ${reply.status}: ${reply.text}`);
      replies.push(reply);
      const { more, next_from_event_seq } = reply.body;
      if (!more || next_from_event_seq <= from_event_seq) break;
      from_event_seq = next_from_event_seq;
    }
    const texts = replies.flatMap(eventTexts);
    return { texts, ids: texts.map((text) => JSON.parse(text).event_id), replies };
  }
}

/** The text of every event in the answer to a backfill. */
export const eventTexts = (reply: Reply): string[] =>
  elements(members(reply.text).get("events") ?? "[]").map((text) => members(text).get("event")!);

/** The ids of the events in the answer to a backfill. */
export const eventIds = (reply: Reply): string[] =>
  reply.body.events.map(({ event }: { event: SignedEvent }) => event.event_id);

/** `GET /api/peer/status` */
export const peerStatus = (server: Sender, headers: Record<string, string> = {}): Promise<Reply> =>
  server.send("GET", "/api/peer/status", undefined, headers);

/** The `head_seq` of the feed log. */
export const headSeq = async (server: Sender): Promise<number> => (await peerStatus(server)).body.head_seq;
