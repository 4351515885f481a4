/**
 * Requests and answers as they might be seen: a shop that sells mugs. Requests come in an order in which each is
 * answered as is told, by a server that has nothing yet.
 */
import { resolveConfig } from "../../engine/config.ts";

const topic = { topic: "orders.eu", epoch: 2 };
export const performance = { server_total_ms: 0.06 };

const settings = { ttl_ms: 604_800_000, durability: "fsync" } as const;
const config = resolveConfig(topic.topic, settings);

export const putTopic = {
  requests: {
    "Keep records for a week, each safe from a power cut": settings,
    "A bounded log that refuses more": { cap_records: 100_000, discard: "reject" },
    Defaults: {},
    "A queue": { type: "queue", lease_ms: 60_000, max_deliveries: 3, dead_letter: "renders.dead" },
  },
  created: { "A new topic": { ...topic, created: true, config, performance } },
  configured: { "A topic with other settings": { ...topic, created: false, config, performance } },
};

export const state = {
  "A topic with three live records": {
    ...topic,
    type: "log",
    head_seq: 4,
    earliest_seq: 2,
    next_seq: 5,
    count: 3,
    bytes: 41,
    config,
    effective_priority: 500,
    last_write_ts: 1_795_307_519_215,
    last_read_ts: 1_795_307_519_216,
    performance,
  },
};

export const list = {
  "The first of several pages": {
    topics: [
      {
        topic: "orders.eu",
        head_seq: 4,
        earliest_seq: 2,
        count: 3,
        bytes: 41,
        durable: true,
        effective_priority: 10,
      },
    ],
    next_cursor: "eyJhZnRlciI6Im9yZGVycy5ldSJ9",
    performance,
  },
};

export const deleteTopic = {
  "There was one": { topic: "orders.eu", deleted: true, routers_removed: [], performance },
  "There was none": { topic: "orders.eu", deleted: false, routers_removed: [], performance },
};

const appended = {
  ...topic,
  first_seq: 3,
  last_seq: 4,
  seqs: [3, 4],
  head_seq: 4,
  count: 2,
  created: false,
  deduped: false,
  performance: { server_total_ms: 0.32, wal_append_ms: 0.11, fsync_ms: 0 },
};

export const append = {
  requests: {
    "Two records": {
      node: "till-4",
      records: [
        { data: { sku: "mug", qty: 2 }, tag: "order:81", meta: { trace: "t9" } },
        { data: "any JSON value", node: "till-9" },
      ],
    },
    "A write that may be repeated": { idempotency_key: "b-17", records: [{ data: { sku: "mug", qty: 2 } }] },
    "A write that may create its topic": {
      records: [{ data: null }],
      create: true,
      config: { ttl_ms: 60_000 },
    },
    Jobs: {
      records: [
        { data: { frame: 1 }, tag: "shot-a", meta: { pri: "hi" } },
        { data: { frame: 2 } },
        { data: { frame: 3 } },
      ],
    },
  },
  created: {
    "The topic is new": { ...appended, first_seq: 1, last_seq: 2, seqs: [1, 2], head_seq: 2, created: true },
  },
  appended: {
    "Two records": appended,
    "A repeated write": { ...appended, deduped: true, performance },
  },
};

const page = {
  ...topic,
  records: [
    { $seq: 3, $ts: 1_795_307_519_215, $node: "till-4", $tag: "order:81", data: { sku: "mug", qty: 2 } },
    { $seq: 4, $ts: 1_795_307_519_215, $node: "till-9", data: "any JSON value" },
  ],
  next_from_seq: 4,
  head_seq: 4,
  earliest_seq: 2,
  caught_up: true,
  tombstone: null,
  lag: 0,
  performance: { server_total_ms: 0.05, records_scanned: 2 },
};

export const diff = {
  requests: {
    "From the start, with tags": { from_seq: 0, limit: 100, include_tags: true },
    "From a cursor": { from_seq: 2 },
    "Wait for what comes": { from_seq: 4, wait_ms: 20_000, epoch: 2 },
    "All but the reader's own records": { from_seq: 2, node: "till-4" },
  },
  pages: {
    "Two records": page,
    "After a gap": {
      ...page,
      tombstone: {
        gap_from: 1,
        gap_to: 1,
        reason: "cap",
        missed_estimate: 1,
        earliest_seq: 2,
        head_seq: 4,
      },
    },
    "Nothing new": {
      ...page,
      records: [],
      performance: { server_total_ms: 0.02, records_scanned: 0 },
    },
  },
};

export const deleteRecords = {
  requests: {
    "Everything about one order": { match: ["tag", "Eq", "order:81"] },
    "Every order": { match: "order:*" },
    "What is old": { before_seq: 3 },
    "Old orders": { before_seq: 3, match: ["tag", "Glob", "order:*"] },
  },
  answers: {
    "One record": {
      topic: "orders.eu",
      deleted: 1,
      earliest_seq: 4,
      head_seq: 4,
      count: 1,
      bytes: 16,
      performance,
    },
  },
};

export const health = { Serving: { status: "ok", version: "0.1.0", uptime_ms: 20_850, performance } };

export const ready = { Ready: { status: "ready", wal_replay_complete: true, topics: 14, performance } };

export const figures = {
  "A server at work": {
    bytes_live: 21_970,
    feeds: {
      events: 9,
      records: 9,
      bytes: 8_214,
      subscriptions: 2,
      posted: 5,
      accepted: 4,
      duplicates: 1,
      rejected: 0,
    },
    queue_leases_in_flight: 0,
    queue_topics: 2,
    ready: true,
    records_live: 75,
    replay_progress: 1,
    routers: 0,
    sse_connections: 0,
    topics: 74,
    topics_disk: 72,
    topics_ephemeral: 0,
    topics_fsync: 1,
    topics_memory: 1,
    uptime_ms: 241_455,
    wal: {
      batches: 225,
      bytes_written: 59_567,
      frames: 227,
      fsync_count: 150,
      fsync_micros_total: 29_541,
      fsyncs: 150,
      queue_depth: 0,
      queue_depth_peak: 1,
      read_only: 0,
      rotations: 0,
      submit_full_total: 0,
    },
    watch_sessions: 0,
    performance,
  },
};

export const exposition = {
  "The first lines": [
    "# HELP topics_topics Topics.",
    "# TYPE topics_topics gauge",
    "topics_topics 74",
    "",
    "# HELP topics_topics_by_class Topics by durability class.",
    "# TYPE topics_topics_by_class gauge",
    'topics_topics_by_class{class="disk"} 72',
    "",
  ].join("\n"),
};
