/** The shapes of feeds and peers as named schemas of the document. A shape comes behind the shapes that it holds. */
import {
  AgentCard,
  AgentEnvelopeInput,
  ContentRef,
  CursorState,
  FeedCursor,
  FeedMessage,
  FeedSubscription,
  MessageAnchor,
  MessagePage,
  MessagePosted,
  PostMessage,
  ProviderCapabilities,
  Subscribe,
  Subscribed,
  SubscriptionAnchor,
  SubscriptionList,
} from "../../contract/feeds.ts";
import {
  BACKFILL_EVENTS_DEFAULT,
  BACKFILL_EVENTS_MAX,
  HEAD_EVENTS_MAX,
  KNOWN_EVENTS_MAX,
  LOG_ID_LENGTH_MAX,
  PUSH_EVENTS_MAX,
} from "../../contract/limits.ts";
import {
  Backfill,
  Backfilled,
  CarriedEvent,
  EventsPushed,
  LaneName,
  PeerState,
  PeerStatus,
  PushEvents,
  RejectedEvent,
} from "../../contract/peers.ts";
import { answer, count, object, ref } from "./naming.ts";
import type { JsonSchema } from "./schema.ts";

const ID = { pattern: "^[0-9a-f]{64}$" };
const SAID = { pattern: "\\S" };
const LOG_ID = { ...SAID, minLength: 1, maxLength: LOG_ID_LENGTH_MAX };
const NETWORK = "The network.";
const FEED = "The feed.";
const SCOPE = "The scope in its one spelling.";
const HINT = "The scope as it was given.";
const SUBSCRIBER = "Who has subscribed.";
const VERBATIM = "A text is kept as it is; another value as the text that it is encoded as.";
const asked = {
  feed_key: { description: "The feed; any text.", ...SAID },
  scope_hint: {
    description:
      "How far it reaches: `global`, `region:<id>`, `group:<id>`, `node:<id>`, `network:<id>`, `dm:<a>:<b>`, or `local` for " +
      "this instance only.",
    ...SAID,
  },
  network_id: "That of this instance, if it is given.",
};

/** Two names of the same: at most one of them is used. */
const onlyOne = (...names: string[]): JsonSchema => ({ not: { required: names } });

object(AgentCard, "AgentCard", "What an agent tells of itself. Not checked.", {
  agent_id: "The agent.",
  node_id: "Where it runs.",
  card_hash: "A hash of the card.",
  issued_at: "When it was issued.",
  card: "The card; any JSON.",
  signature: "Of whoever has issued it.",
});
object(
  AgentEnvelopeInput,
  "AgentEnvelope",
  {
    description: "Who speaks to whom, and how. Signed along with the message, not checked.",
    allOf: [onlyOne("message", "message_json"), onlyOne("extensions", "extensions_json")],
  },
  {
    protocol: "The protocol that is spoken.",
    transport_profile: "How it is carried.",
    source_agent_id: "Who speaks,",
    target_agent_id: "to whom,",
    source_node_id: "where from,",
    target_node_id: "where to.",
    capability: "What is asked for.",
    source_agent_card: "The card of who speaks.",
    message_json: VERBATIM,
    message: "The same as `message_json`; only one of them.",
    extensions_json: VERBATIM,
    extensions: "The same as `extensions_json`; only one of them.",
    signature: "The agent's own.",
  },
);
object(PostMessage, "PostMessage", "A message.", {
  ...asked,
  content: {
    description:
      "Any JSON but null. Kept in one spelling: members sorted, numbers as ECMAScript prints them. Integers beyond 2^53-1 " +
      "are refused.",
    not: { type: "null" },
  },
  reply_to_message_id: "What it answers. Not checked: that may come later.",
  agent_envelope: "Who speaks to whom.",
});
answer(MessagePosted, "MessagePosted", "A message that is kept.", {
  ok: "Always true.",
  event_id: { description: "The event that holds it.", ...ID },
  message_id: { description: "The same.", ...ID },
  network_id: NETWORK,
  feed_key: FEED,
  scope_hint: HINT,
});
object(ContentRef, "ContentRef", "What the content is named by.", {
  uri: "Its name.",
  digest: "`sha256:` and the SHA-256 of its one spelling.",
  size_bytes: count("Bytes of that."),
  mime: "Its type.",
  created_at: count("As of the message."),
  producer: "As the author.",
});
object(FeedMessage, "FeedMessage", "A message.", {
  message_id: { description: "Covers author, time and content.", ...ID },
  network_id: NETWORK,
  feed_key: FEED,
  scope_hint: SCOPE,
  author_node_id: { description: "The instance that it was posted to.", ...ID },
  agent_envelope: "As it was signed, or null.",
  content_ref: "What the content is named by.",
  content: "The content.",
  content_resolved_at: "When this instance had it.",
  reply_to_message_id: "What it answers, or null.",
  created_at: count("The author's clock."),
  event_seq: count("Its seq in the topic `_feeds` of this instance."),
});
object(MessageAnchor, "MessageAnchor", "Where the next page begins.", {
  before_created_at: count("For the parameter of that name."),
  before_message_id: "For the parameter of that name.",
});
answer(MessagePage, "MessagePage", "Messages, newest first by their authors' clocks.", {
  ok: "Always true.",
  network_id: NETWORK,
  feed_key: FEED,
  scope_hint: HINT,
  messages: "The page.",
  next_anchor: "Null if there is nothing older.",
});
object(FeedCursor, "FeedCursor", "Where a subscriber stands.", {
  network_id: NETWORK,
  subscriber_node_id: SUBSCRIBER,
  feed_key: FEED,
  scope_hint: SCOPE,
  last_event_seq: count("The seq in `_feeds` of the last message."),
  last_event_id: { description: "That message.", ...ID },
  updated_at: count("When it was accepted here."),
});
answer(CursorState, "CursorState", "A subscriber's cursor.", {
  ok: "Always true.",
  network_id: NETWORK,
  subscriber_node_id: SUBSCRIBER,
  feed_key: FEED,
  cursor: "Null until the first message.",
});
object(Subscribe, "Subscribe", "A change of a subscription.", {
  ...asked,
  active: "Whether it begins or ends.",
  subscriber_node_id: "Who subscribes; by default this instance.",
  agent_envelope: "Who speaks to whom.",
});
answer(Subscribed, "Subscribed", "A change of a subscription that is kept.", {
  ok: "Always true.",
  event_id: { description: "The event that holds it.", ...ID },
  network_id: NETWORK,
  subscriber_node_id: SUBSCRIBER,
  feed_key: FEED,
  scope_hint: HINT,
  gossip_kinds: "What is subscribed to: `messages`.",
  active: "As it was asked for.",
  private_hive_key_share: "Always null.",
});
object(ProviderCapabilities, "ProviderCapabilities", "What a subscriber's instance offers.", {
  live_gossip: "Messages as they come.",
  history_backfill: "Stored ones.",
  local_store: "It keeps them.",
});
object(FeedSubscription, "FeedSubscription", "A subscription, as its newest event says.", {
  event_id: { description: "That event.", ...ID },
  network_id: NETWORK,
  subscriber_node_id: SUBSCRIBER,
  host_node_id: { description: "The instance that it was made at.", ...ID },
  feed_key: FEED,
  scope_hint: SCOPE,
  gossip_kinds: "What is subscribed to.",
  provider_capabilities: "Of an active one.",
  active: "Whether it holds.",
  updated_at: count("When it was signed."),
});
object(SubscriptionAnchor, "SubscriptionAnchor", "Where the next page begins.", {
  before_updated_at: count("For the parameter of that name."),
  before_event_id: "For the parameter of that name.",
});
answer(SubscriptionList, "SubscriptionList", "Subscriptions, newest first.", {
  ok: "Always true.",
  subscriptions: "The page.",
  next_anchor: "Null if there is nothing older.",
});

const EVENTS = "Signed events.";
const NODE = { description: "The instance that answers.", ...ID };
const LOG = "Its feed log. Another one means that it has begun anew.";
object(CarriedEvent, "CarriedEvent", "An event on its way.", {
  scope: "Its scope in its one spelling.",
  event: "The event as its author has signed it.",
});
object(LaneName, "LaneName", "Changes of subscriptions, or the messages of one feed in one scope.", {
  kind: { description: "`subscriptions` or `messages`.", enum: ["subscriptions", "messages"] },
  scope: "Of messages.",
  feed_key: "Of messages.",
});
object(PushEvents, "PushEvents", "Events for an instance.", {
  from: { description: "Who sends them.", ...ID },
  network_id: NETWORK,
  log_id: { description: "The sender's feed log.", ...LOG_ID },
  events: { description: EVENTS, minItems: 1, maxItems: PUSH_EVENTS_MAX, items: ref(CarriedEvent) },
});
object(RejectedEvent, "RejectedEvent", "An event that is not what it claims to be.", {
  event_id: "Its id, if it has one.",
  error: "What is wrong.",
});
answer(EventsPushed, "EventsPushed", "What has become of events.", {
  ok: "Always true.",
  node_id: NODE,
  log_id: LOG,
  head_seq: count("Its newest event."),
  accepted: count("Events that were new."),
  duplicates: count("Events that were known."),
  rejected: "The others.",
});
object(Backfill, "Backfill", "What is asked for of a lane.", {
  from: { description: "Who asks.", ...ID },
  network_id: NETWORK,
  lane: "Which lane.",
  from_event_seq: count("Events behind it."),
  limit: {
    description: "At most so many.",
    minimum: 1,
    maximum: BACKFILL_EVENTS_MAX,
    default: BACKFILL_EVENTS_DEFAULT,
  },
  head_only: { description: "Only how far the lane goes.", default: false },
  log_id: {
    description:
      "The feed log of who asks. If it has begun anew, it is told what the old one had brought, too.",
    ...LOG_ID,
  },
  known_event_ids: { description: "Events that are left out.", maxItems: KNOWN_EVENTS_MAX },
});
answer(Backfilled, "Backfilled", "A page of a lane, as its events were accepted.", {
  ok: "Always true.",
  node_id: NODE,
  log_id: LOG,
  lane: "As it was asked for.",
  next_from_event_seq: count("Where to go on; with `head_only` the newest event."),
  head_only: "As it was asked for.",
  head_event_ids: { description: "The newest events of the lane, newest first.", maxItems: HEAD_EVENTS_MAX },
  events: { description: EVENTS, items: ref(CarriedEvent) },
  more: "Whether there are more behind them.",
});
object(PeerState, "PeerState", "How it goes with a peer.", {
  url: "As it is configured.",
  node_id: "Who answers there.",
  connected: "Whether the last exchange has worked.",
  out_seq: count("Up to where this instance's feed log is done with for it."),
  last_ok_at: "When an exchange has last worked.",
  last_error: "Why the last one has not.",
});
answer(PeerStatus, "PeerStatus", "Who this instance is, and how it goes with its peers.", {
  ok: "Always true.",
  node_id: { description: "This instance.", ...ID },
  network_id: NETWORK,
  log_id: "Its feed log.",
  head_seq: count("Its newest event."),
  peers: "The configured ones.",
});
