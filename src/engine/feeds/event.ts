/**
 * Signed events: how one is written, named and signed. Whoever has the same members in hand comes to the same bytes,
 * so an id covers author, time and content.
 */
import { CONTENT_TYPE, MESSAGES, PROTOCOL_VERSION } from "../../contract/events.ts";
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

const CAPABILITIES = '{"live_gossip":true,"history_backfill":true,"local_store":true}';

export function messagePayload(draft: MessageDraft, author: string, createdAt: number): string {
  const digest = `sha256:${sha256(draft.contentJson)}`;
  return object({
    network_id: JSON.stringify(draft.networkId),
    feed_key: JSON.stringify(draft.feedKey),
    scope_hint: JSON.stringify(draft.hint),
    content_ref: object({
      uri: JSON.stringify(`artifact://topic-message/${digest}`),
      digest: JSON.stringify(digest),
      size_bytes: String(Buffer.byteLength(draft.contentJson)),
      mime: JSON.stringify(CONTENT_TYPE),
      created_at: String(createdAt),
      producer: JSON.stringify(author),
    }),
    local_content_cache: draft.contentJson,
    reply_to_message_id: draft.replyTo === undefined ? undefined : JSON.stringify(draft.replyTo),
    agent_envelope: draft.envelopeJson,
  });
}

export function subscriptionPayload(draft: SubscriptionDraft): string {
  return object({
    network_id: JSON.stringify(draft.networkId),
    subscriber_node_id: JSON.stringify(draft.subscriber),
    feed_key: JSON.stringify(draft.feedKey),
    scope_hint: JSON.stringify(draft.hint),
    gossip_kinds: JSON.stringify([MESSAGES]),
    provider_capabilities: draft.active ? CAPABILITIES : undefined,
    agent_envelope: draft.envelopeJson,
    active: String(draft.active),
  });
}

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
