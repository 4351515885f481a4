/** Feeds: messages, cursors and subscriptions of a network of agents, as the feed operations take and give them. */
import { type Static, Type } from "@sinclair/typebox";
import { Natural, Nullable, OptionalNullable, RawJson, SafeInteger } from "./schema.ts";

/** What an agent tells of itself, carried along with an envelope and not checked. */
export const AgentCard = Type.Object({
  agent_id: Type.String(),
  node_id: OptionalNullable(Type.String()),
  card_hash: Type.String(),
  issued_at: SafeInteger,
  card: RawJson,
  signature: OptionalNullable(Type.String()),
});
export type AgentCard = Static<typeof AgentCard>;

/** What an envelope says beside the message itself. */
export const addressing = {
  protocol: Type.String(),
  transport_profile: OptionalNullable(Type.String()),
  source_agent_id: OptionalNullable(Type.String()),
  target_agent_id: OptionalNullable(Type.String()),
  source_node_id: OptionalNullable(Type.String()),
  target_node_id: OptionalNullable(Type.String()),
  capability: OptionalNullable(Type.String()),
  source_agent_card: OptionalNullable(AgentCard),
};

/** Who speaks to whom, and in which protocol. `message` and `extensions` are other names of `…_json`. */
export const AgentEnvelopeInput = Type.Object({
  ...addressing,
  message_json: Type.Optional(RawJson),
  message: Type.Optional(RawJson),
  extensions_json: Type.Optional(RawJson),
  extensions: Type.Optional(RawJson),
  signature: OptionalNullable(Type.String()),
});
export type AgentEnvelopeInput = Static<typeof AgentEnvelopeInput>;

export const PostMessage = Type.Object({
  feed_key: Type.String(),
  scope_hint: Type.String(),
  content: RawJson,
  network_id: OptionalNullable(Type.String()),
  reply_to_message_id: OptionalNullable(Type.String()),
  agent_envelope: OptionalNullable(AgentEnvelopeInput),
});
export type PostMessage = Static<typeof PostMessage>;

export const MessagePosted = Type.Object({
  ok: Type.Literal(true),
  event_id: Type.String(),
  message_id: Type.String(),
  network_id: Type.String(),
  feed_key: Type.String(),
  scope_hint: Type.String(),
});
export type MessagePosted = Static<typeof MessagePosted>;

export const ContentRef = Type.Object({
  uri: Type.String(),
  digest: Type.String(),
  size_bytes: Natural,
  mime: Type.String(),
  created_at: Natural,
  producer: Type.String(),
});
export type ContentRef = Static<typeof ContentRef>;

/** `content` is the value itself. */
export const FeedMessage = Type.Object({
  message_id: Type.String(),
  network_id: Type.String(),
  feed_key: Type.String(),
  scope_hint: Type.String(),
  author_node_id: Type.String(),
  agent_envelope: Nullable(RawJson),
  content_ref: ContentRef,
  content: RawJson,
  content_resolved_at: Nullable(Type.Integer()),
  reply_to_message_id: Nullable(Type.String()),
  created_at: Type.Integer(),
  event_seq: Type.Integer(),
});

export const MessageAnchor = Type.Object({
  before_created_at: Type.Integer(),
  before_message_id: Type.String(),
});
export type MessageAnchor = Static<typeof MessageAnchor>;

export const MessagePage = Type.Object({
  ok: Type.Literal(true),
  network_id: Type.String(),
  feed_key: Type.String(),
  scope_hint: Type.String(),
  messages: Type.Array(FeedMessage),
  next_anchor: Nullable(MessageAnchor),
});

export const FeedCursor = Type.Object({
  network_id: Type.String(),
  subscriber_node_id: Type.String(),
  feed_key: Type.String(),
  scope_hint: Type.String(),
  last_event_seq: Type.Integer(),
  last_event_id: Type.String(),
  updated_at: Type.Integer(),
});

export const CursorState = Type.Object({
  ok: Type.Literal(true),
  network_id: Type.String(),
  subscriber_node_id: Type.String(),
  feed_key: Type.String(),
  cursor: Nullable(FeedCursor),
});
export type CursorState = Static<typeof CursorState>;

export const Subscribe = Type.Object({
  feed_key: Type.String(),
  scope_hint: Type.String(),
  active: Type.Boolean(),
  network_id: OptionalNullable(Type.String()),
  subscriber_node_id: OptionalNullable(Type.String()),
  agent_envelope: OptionalNullable(AgentEnvelopeInput),
});
export type Subscribe = Static<typeof Subscribe>;

export const Subscribed = Type.Object({
  ok: Type.Literal(true),
  event_id: Type.String(),
  network_id: Type.String(),
  subscriber_node_id: Type.String(),
  feed_key: Type.String(),
  scope_hint: Type.String(),
  gossip_kinds: Type.Array(Type.String()),
  active: Type.Boolean(),
  private_hive_key_share: Type.Null(),
});
export type Subscribed = Static<typeof Subscribed>;

export const ProviderCapabilities = Type.Object({
  live_gossip: Type.Boolean(),
  history_backfill: Type.Boolean(),
  local_store: Type.Boolean(),
});
export type ProviderCapabilities = Static<typeof ProviderCapabilities>;

/** `updated_at` is when its last change was signed. */
export const FeedSubscription = Type.Object({
  event_id: Type.String(),
  network_id: Type.String(),
  subscriber_node_id: Type.String(),
  host_node_id: Type.String(),
  feed_key: Type.String(),
  scope_hint: Type.String(),
  gossip_kinds: Type.Array(Type.String()),
  provider_capabilities: Nullable(ProviderCapabilities),
  active: Type.Boolean(),
  updated_at: Type.Integer(),
});
export type FeedSubscription = Static<typeof FeedSubscription>;

export const SubscriptionAnchor = Type.Object({
  before_updated_at: Type.Integer(),
  before_event_id: Type.String(),
});

export const SubscriptionList = Type.Object({
  ok: Type.Literal(true),
  subscriptions: Type.Array(FeedSubscription),
  next_anchor: Nullable(SubscriptionAnchor),
});
export type SubscriptionList = Static<typeof SubscriptionList>;

/** Why a feed operation was refused. */
export const FeedFailure = Type.Object({ ok: Type.Literal(false), error: Type.String({ minLength: 1 }) });
