/** Signed events, as instances hand them to each other. */
import { type Static, Type } from "@sinclair/typebox";
import { addressing, ContentRef, ProviderCapabilities } from "./feeds.ts";
import { Natural, OptionalNullable, RawJson } from "./schema.ts";

export const PROTOCOL_VERSION = "0.1.0";
export const MESSAGES = "messages";
export const CONTENT_TYPE = "application/json";

/** What an author signs, and its signature. The payload's shape goes by `event_kind`. */
export const SignedEvent = Type.Object({
  event_id: Type.String(),
  protocol_version: Type.String(),
  event_kind: Type.String(),
  task_id: Type.Null(),
  swarm_scope: Type.String(),
  epoch: Natural,
  author_node_id: Type.String(),
  created_at: Natural,
  payload: Type.Object({ type: Type.String(), payload: RawJson }),
  signature_hex: Type.String(),
});
export type SignedEvent = Static<typeof SignedEvent>;

/** An agent's envelope as it is signed: by one name each, and as text. */
export const AgentEnvelope = Type.Object({
  ...addressing,
  message_json: OptionalNullable(Type.String()),
  extensions_json: OptionalNullable(Type.String()),
  signature: OptionalNullable(Type.String()),
});
export type AgentEnvelope = Static<typeof AgentEnvelope>;

export const MessagePayload = Type.Object({
  network_id: Type.String(),
  feed_key: Type.String(),
  scope_hint: Type.String(),
  content_ref: ContentRef,
  local_content_cache: RawJson,
  reply_to_message_id: OptionalNullable(Type.String()),
  agent_envelope: OptionalNullable(AgentEnvelope),
});
export type MessagePayload = Static<typeof MessagePayload>;

export const SubscriptionPayload = Type.Object({
  network_id: Type.String(),
  subscriber_node_id: Type.String(),
  feed_key: Type.String(),
  scope_hint: Type.String(),
  gossip_kinds: Type.Array(Type.String()),
  provider_capabilities: OptionalNullable(ProviderCapabilities),
  agent_envelope: OptionalNullable(AgentEnvelope),
  active: Type.Boolean(),
});
export type SubscriptionPayload = Static<typeof SubscriptionPayload>;

/** What is told of events that are stored, which are what they were when they were taken. */
export interface StoredEvent<Payload> {
  readonly author_node_id: string;
  readonly payload: { readonly payload: Payload };
}

export interface StoredMessage {
  readonly content_ref: ContentRef;
  readonly local_content_cache: unknown;
  readonly reply_to_message_id?: string;
  readonly agent_envelope?: AgentEnvelope;
}

export interface StoredSubscription {
  readonly gossip_kinds: string[];
  readonly provider_capabilities?: ProviderCapabilities;
}
