/**
 * Signed events: how one is written, named and signed. Whoever has the same members in hand comes to the same bytes,
 * so an id covers author, time and content.
 */
import { CONTENT_TYPE, MESSAGES, PROTOCOL_VERSION } from "../../contract/events.ts";
import type { ContentRef, ProviderCapabilities } from "../../contract/feeds.ts";
import { EVENT_BYTES_MAX } from "../../contract/limits.ts";
import { object, sha256, tooManyBytes } from "./encoding.ts";

export type EventKind = "message" | "subscription";

/** The names of both kinds on the wire: of the event, and of its payload. */
export const kinds = {
  message: { eventKind: "TOPIC_MESSAGE_POSTED", payloadType: "TopicMessagePosted" },
  subscription: { eventKind: "FEED_SUBSCRIPTION_UPDATED", payloadType: "FeedSubscriptionUpdated" },
} as const;

/** What the server knows of an event beside its text. */
export interface FeedEvent {
  readonly id: string;
  readonly kind: EventKind;
  readonly networkId: string;
  /** Canonical. */
  readonly scope: string;
  readonly feedKey: string;
  readonly author: string;
  readonly createdAt: number;
  /** Whether it never leaves this instance. */
  readonly stays: boolean;
  /** What a subscription's change is about; undefined for a message. */
  readonly subscription: { readonly subscriber: string; readonly active: boolean } | undefined;
  /** The signed event, encoded. */
  readonly text: string;
}

/** A message to be signed. Texts with `Json` are encoded already. */
export interface MessageDraft {
  readonly networkId: string;
  readonly feedKey: string;
  /** As it was given, and canonical. */
  readonly hint: string;
  readonly scope: string;
  readonly stays: boolean;
  readonly contentJson: string;
  readonly replyTo: string | undefined;
  readonly envelopeJson: string | undefined;
}

export interface SubscriptionDraft {
  readonly networkId: string;
  readonly feedKey: string;
  readonly hint: string;
  readonly scope: string;
  readonly stays: boolean;
  readonly subscriber: string;
  readonly active: boolean;
  readonly envelopeJson: string | undefined;
}

/** What an active subscription offers. */
const CAPABILITIES = { live_gossip: true, history_backfill: true, local_store: true };

/** The payload of a message, written down by whoever posts it or checks it. Texts with `Json` are encoded already. */
export interface MessageParts extends Pick<MessageDraft, "networkId" | "feedKey" | "hint"> {
  readonly ref: ContentRef;
  readonly contentJson: string;
  readonly replyTo: string | null | undefined;
  readonly envelopeJson: string | undefined;
}

export function encodeMessage({ ref, ...parts }: MessageParts): string {
  return object({
    network_id: JSON.stringify(parts.networkId),
    feed_key: JSON.stringify(parts.feedKey),
    scope_hint: JSON.stringify(parts.hint),
    content_ref: JSON.stringify({
      uri: ref.uri,
      digest: ref.digest,
      size_bytes: ref.size_bytes,
      mime: ref.mime,
      created_at: ref.created_at,
      producer: ref.producer,
    }),
    local_content_cache: parts.contentJson,
    reply_to_message_id: parts.replyTo == null ? undefined : JSON.stringify(parts.replyTo),
    agent_envelope: parts.envelopeJson,
  });
}

/** The digest of a content, and where it is said to lie. */
export const digestOf = (contentJson: string): string => `sha256:${sha256(contentJson)}`;
export const uriOf = (digest: string): string => `artifact://topic-message/${digest}`;

export function messagePayload(draft: MessageDraft, author: string, createdAt: number): string {
  const digest = digestOf(draft.contentJson);
  const ref = {
    uri: uriOf(digest),
    digest,
    size_bytes: Buffer.byteLength(draft.contentJson),
    mime: CONTENT_TYPE,
    created_at: createdAt,
    producer: author,
  };
  return encodeMessage({ ...draft, ref });
}

/** The payload of a subscription's change, likewise. */
export interface SubscriptionParts extends Omit<SubscriptionDraft, "scope" | "stays"> {
  readonly gossipKinds: readonly string[];
  readonly capabilities: ProviderCapabilities | null | undefined;
}

export function encodeSubscription({ capabilities, ...parts }: SubscriptionParts): string {
  return object({
    network_id: JSON.stringify(parts.networkId),
    subscriber_node_id: JSON.stringify(parts.subscriber),
    feed_key: JSON.stringify(parts.feedKey),
    scope_hint: JSON.stringify(parts.hint),
    gossip_kinds: JSON.stringify(parts.gossipKinds),
    provider_capabilities:
      capabilities == null
        ? undefined
        : JSON.stringify({
            live_gossip: capabilities.live_gossip,
            history_backfill: capabilities.history_backfill,
            local_store: capabilities.local_store,
          }),
    agent_envelope: parts.envelopeJson,
    active: String(parts.active),
  });
}

export const subscriptionPayload = (draft: SubscriptionDraft): string =>
  encodeSubscription({
    ...draft,
    gossipKinds: [MESSAGES],
    capabilities: draft.active ? CAPABILITIES : undefined,
  });

/** An event without its id and signature. */
export interface Unsigned {
  readonly kind: EventKind;
  readonly scope: string;
  readonly author: string;
  readonly createdAt: number;
  /** Encoded. */
  readonly payload: string;
}

/** The text that the id is the SHA-256 of. */
export function encodeUnsigned({ kind, scope, author, createdAt, payload }: Unsigned): string {
  const { eventKind, payloadType } = kinds[kind];
  return object({
    protocol_version: JSON.stringify(PROTOCOL_VERSION),
    event_kind: JSON.stringify(eventKind),
    task_id: "null",
    swarm_scope: JSON.stringify(scope),
    epoch: "1",
    author_node_id: JSON.stringify(author),
    created_at: String(createdAt),
    payload: object({ type: JSON.stringify(payloadType), payload }),
  });
}

/** Throws `invalid_request` for an event that is too large. */
export function encodeSigned(id: string, unsigned: string, signature: string): string {
  const text = `{"event_id":"${id}",${unsigned.slice(1, -1)},"signature_hex":"${signature}"}`;
  if (Buffer.byteLength(text) > EVENT_BYTES_MAX) throw tooManyBytes();
  return text;
}

/** Where a signed event says what its scope is; what stands before it is the same for all. */
const SWARM_SCOPE = /^\{"event_id":"[0-9a-f]{64}",[^{[]*?"swarm_scope":("(?:[^"\\]|\\.)*")/;

/** The scope that a signed event belongs to. */
export function scopeOf(text: string): string {
  const [, scope] = SWARM_SCOPE.exec(text) ?? [];
  if (scope === undefined) throw new Error("what is stored is no signed event");
  return JSON.parse(scope) as string;
}

/** A signed event as it is sent. */
export const carried = (text: string): string => `{"scope":${JSON.stringify(scopeOf(text))},"event":${text}}`;
