/** Examples of feeds and peers for the document. */
const performance = { server_total_ms: 0.62 };
const node = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
const message = "9d1c3b6f6ff0e3b4e0f2c1f7a3d5e8b0c4a6927f15de3a8b7c60d9e4f2a1b3c5";
const change = "3f5ad2c0b98e47761f0e2d4c6b8a90123456789abcdef0fedcba98765432100f";
const log = "0f8fad5bd9cb469fa16570867728950e";
const network_id = "mainnet";
const place = { feed_key: "chat.general", scope_hint: "group:crew-7" };
const content = { text: "Who has the keys?" };

export const postMessage = {
  requests: {
    "A message": { ...place, content },
    "An answer of an agent": {
      ...place,
      content: { text: "I have." },
      reply_to_message_id: message,
      agent_envelope: { protocol: "a2a", source_agent_id: "porter", message: { role: "agent" } },
    },
  },
  answers: {
    Kept: { ok: true, event_id: message, message_id: message, network_id, ...place, performance },
  },
};

const digest = "sha256:8b1a9953c4611296a827abf8c47804d7f0a5c1b2e3d4c5b6a798081726354453";

export const readMessages = {
  "The only page": {
    ok: true,
    network_id,
    ...place,
    messages: [
      {
        message_id: message,
        network_id,
        ...place,
        author_node_id: node,
        agent_envelope: null,
        content_ref: {
          uri: `artifact://topic-message/${digest}`,
          digest,
          size_bytes: 28,
          mime: "application/json",
          created_at: 1_770_000_000_000,
          producer: node,
        },
        content,
        content_resolved_at: 1_770_000_000_000,
        reply_to_message_id: null,
        created_at: 1_770_000_000_000,
        event_seq: 2,
      },
    ],
    next_anchor: null,
    performance,
  },
};

const subscriber = { network_id, subscriber_node_id: node, feed_key: place.feed_key };

export const readCursor = {
  "Before the first message": { ok: true, ...subscriber, cursor: null, performance },
  "Behind it": {
    ok: true,
    ...subscriber,
    cursor: {
      ...subscriber,
      scope_hint: place.scope_hint,
      last_event_seq: 2,
      last_event_id: message,
      updated_at: 1_770_000_000_003,
    },
    performance,
  },
};

export const subscribe = {
  requests: { Begin: { ...place, active: true }, End: { ...place, active: false } },
  answers: {
    "It holds": {
      ok: true,
      event_id: change,
      network_id,
      subscriber_node_id: node,
      ...place,
      gossip_kinds: ["messages"],
      active: true,
      private_hive_key_share: null,
      performance,
    },
  },
};

export const listSubscriptions = {
  "The only page": {
    ok: true,
    subscriptions: [
      {
        event_id: change,
        network_id,
        subscriber_node_id: node,
        host_node_id: node,
        ...place,
        gossip_kinds: ["messages"],
        provider_capabilities: { live_gossip: true, history_backfill: true, local_store: true },
        active: true,
        updated_at: 1_770_000_000_000,
      },
    ],
    next_anchor: null,
    performance,
  },
};

export const peerStatus = {
  "With one peer": {
    ok: true,
    node_id: node,
    network_id,
    log_id: log,
    head_seq: 2,
    peers: [
      {
        url: "http://10.0.0.7:4000",
        node_id: node,
        connected: true,
        out_seq: 2,
        last_ok_at: 1_770_000_000_009,
        last_error: null,
      },
    ],
    performance,
  },
};

/**
 * Signed, so that an instance of that network takes it: by `Author` (engine/feeds/author.ts) at `created_at`, with the
 * seed of test 1 of RFC 8032, 7.1, which makes `node` its author.
 */
const event = {
  event_id: "a17c307e934174e130cf258fa82b58b3e0f2f8b2a95e35da9d2a8f33ac355af8",
  protocol_version: "0.1.0",
  event_kind: "FEED_SUBSCRIPTION_UPDATED",
  task_id: null,
  swarm_scope: place.scope_hint,
  epoch: 1,
  author_node_id: node,
  created_at: 1_770_000_000_000,
  payload: {
    type: "FeedSubscriptionUpdated",
    payload: { ...subscriber, scope_hint: place.scope_hint, gossip_kinds: ["messages"], active: false },
  },
  signature_hex:
    "b9f5ad0239403642e5a398d13fc6dc387548aa7cd5c7f1d01f29c88a3d2c3cfc" +
    "1403073eeadfa3297f609007b7e6c8148e329bdaca69ee2c8e0bbd03d9866c0d",
};
const events = [{ scope: place.scope_hint, event }];

export const pushEvents = {
  requests: { "One event": { from: node, network_id, log_id: log, events } },
  answers: {
    "It was new": {
      ok: true,
      node_id: node,
      log_id: log,
      head_seq: 3,
      accepted: 1,
      duplicates: 0,
      rejected: [],
      performance,
    },
  },
};

const lane = { kind: "messages", ...{ scope: place.scope_hint, feed_key: place.feed_key } };
const told = { ok: true, node_id: node, log_id: log, lane };

export const backfill = {
  requests: {
    "How far a lane goes": { from: node, network_id, lane, from_event_seq: 0, head_only: true },
    "All changes of subscriptions": {
      from: node,
      network_id,
      lane: { kind: "subscriptions" },
      from_event_seq: 0,
    },
  },
  answers: {
    "How far it goes": {
      ...told,
      next_from_event_seq: 2,
      head_only: true,
      head_event_ids: [message],
      events: [],
      more: false,
      performance,
    },
  },
};
