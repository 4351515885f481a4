/** Requests and answers as they might be seen: a shop that sells mugs. */
import { resolveConfig } from "../../engine/config.ts";

const topic = { topic: "orders.eu", epoch: 1 };
const performance = { server_total_ms: 0.06 };

const settings = { ttl_ms: 604_800_000, durability: "fsync" } as const;
const config = resolveConfig(topic.topic, settings);

export const putTopic = {
  requests: {
    "Keep records for a week, each safe from a power cut": settings,
    "A bounded log that refuses more": { cap_records: 100_000, discard: "reject" },
    Defaults: {},
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
    "Wait for what comes": { from_seq: 4, wait_ms: 20_000, epoch: 1 },
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

const queue = { topic: "renders" };
const counts = { ready: 1, in_flight: 0 };

export const claim = {
  requests: {
    "Two jobs at most": { node: "gpu-1", max: 2 },
    "One job for a minute": { node: "gpu-1", lease_ms: 60_000 },
  },
  answers: {
    "Two jobs": {
      ...queue,
      claimed: [
        {
          $seq: 1,
          lease_id: "lease_9f0c27a1b35de846",
          deadline: 1_795_307_715_072,
          $ts: 1_795_307_695_070,
          $tag: "shot-a",
          deliveries: 1,
          data: { frame: 1 },
          meta: { pri: "hi" },
        },
        {
          $seq: 2,
          lease_id: "lease_51d2ac90ffe3b176",
          deadline: 1_795_307_715_072,
          $ts: 1_795_307_695_070,
          deliveries: 1,
          data: { frame: 2 },
        },
      ],
      count: 2,
      ready: 1,
      performance,
    },
    "Nothing to do": { ...queue, claimed: [], count: 0, ready: 0, performance },
  },
};

const leases = { node: "gpu-1", seqs: [1], lease_ids: ["lease_9f0c27a1b35de846"] };

export const ack = {
  requests: { "One job": leases, "Two jobs, under whatever lease": { node: "gpu-1", seqs: [1, 2] } },
  answers: { "One of two": { ...queue, acked: 1, skipped: [2], ...counts, performance } },
};

export const nack = {
  requests: { "Again in a second": { ...leases, delay_ms: 1000 } },
  answers: { "Given back": { ...queue, nacked: 1, skipped: [], ...counts, performance } },
};

export const extend = {
  requests: { "A minute from now": { ...leases, lease_ms: 60_000 } },
  answers: {
    Kept: { ...queue, extended: 1, skipped: [], deadlines: { "1": 1_795_307_755_074 }, performance },
  },
};

export const work = {
  "A job": [
    "retry: 2000",
    "",
    "id: 1",
    "event: job",
    'data: {"topic":"renders","$seq":1,"lease_id":"lease_9f0c27a1b35de846","deadline":1795307715072,"$ts":1795307695070,' +
      '"deliveries":1,"data":{"frame":1}}',
    "",
    "",
  ].join("\n"),
};

const boats = { epoch: 7, from_seq: 0, head_seq: 2, earliest_seq: 1 };

export const startWatch = {
  requests: {
    "All of one topic, and what is new in another": {
      topics: { boats: { from_seq: 0 }, trams: { tail: true } },
    },
  },
  answers: {
    "A session": {
      wid: "wid_lzRu0YvxyFf1RsIMYIncEg",
      stream_url: "/v0/watch/wid_lzRu0YvxyFf1RsIMYIncEg",
      session_ttl_ms: 300_000,
      topics: { boats, trams: { epoch: 9, from_seq: 1, head_seq: 1, earliest_seq: 1 } },
      performance,
    },
  },
};

export const stream = {
  "Two records": [
    "retry: 2000",
    "",
    "id: eyIkZXBvY2hzIjp7ImJvYXRzIjo3fSwiYm9hdHMiOjJ9",
    "event: record",
    'data: {"topic":"boats","from_seq":0,"to_seq":2,"head_seq":2,"records":[{"$seq":1,"$ts":1795306882226,"data":{"n":1}},' +
      '{"$seq":2,"$ts":1795306882226,"data":2}]}',
    "",
    "id: eyIkZXBvY2hzIjp7ImJvYXRzIjo3fSwiYm9hdHMiOjJ9",
    "event: caught-up",
    'data: {"topic":"boats","head_seq":2}',
    "",
    "",
  ].join("\n"),
};

export const issueToken = {
  requests: {
    "For one page for an hour": { topics: ["boats", "trams.*"], ttl_ms: 3_600_000 },
    "To work on a queue": { topics: ["renders"], scopes: ["read", "write"] },
  },
  answers: {
    "A token": {
      token: "eyJhbGciOiJIUzI1NiJ9.eyJ0b3BpY3MiOlsiYm9hdHMiXX0.x5FZ0u6Gq3v1yWm2y2Hq0q2b2c2d2e2f2g2h2i2j2k2",
      expires_at: 1_795_311_119_215,
      topics: ["boats", "trams.*"],
      scopes: ["read"],
      performance,
    },
  },
};

const router = {
  router: "orders.eu->archive",
  source: "orders.eu",
  dest: "archive",
  preserve_node: true,
  preserve_tag: true,
  filter: ["tag", "Glob", "order:*"],
  allow_cycle: false,
  guarantee: "at_least_once",
};

export const putRouter = {
  requests: {
    "Copy everything": { source: "orders.eu", dest: "archive" },
    "Copy orders, each with a stamp": {
      source: "orders.eu",
      dest: "archive",
      filter: "order:*",
      guarantee: "exactly_once",
    },
  },
  created: { "A new router": { ...router, created: true, performance } },
  configured: { "A router with other settings": { ...router, created: false, performance } },
};

export const routerState = { "After three records": { ...router, forwarded_total: 3, performance } };

export const listRouters = {
  "The only page": {
    routers: [
      {
        router: "orders.eu->archive",
        source: "orders.eu",
        dest: "archive",
        guarantee: "at_least_once",
        forwarded_total: 3,
      },
    ],
    performance,
  },
};

export const deleteRouter = {
  "There was one": { router: "orders.eu->archive", deleted: true, performance },
  "There was none": { router: "orders.eu->archive", deleted: false, performance },
};

export const health = { Serving: { status: "ok", version: "0.1.0", uptime_ms: 20_850, performance } };

export const ready = { Ready: { status: "ready", wal_replay_complete: true, topics: 14, performance } };

export const figures = {
  "A server at work": {
    bytes_live: 21_970,
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
