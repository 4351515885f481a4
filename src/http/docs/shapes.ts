/**
 * The shapes of the contract as named schemas of the document, with what words say of their fields and types cannot.
 * A shape comes behind the shapes that it holds.
 */
import {
  BATCH_RECORDS_MAX,
  CLAIM_JITTER_MS_MAX,
  DIFF_BYTES_DEFAULT,
  DIFF_BYTES_MAX,
  DIFF_LIMIT_DEFAULT,
  DIFF_LIMIT_MAX,
  DIFF_WAIT_MS_MAX,
  IDEMPOTENCY_KEY_BYTES_MAX,
  LEASE_MS_MAX,
  LEASE_MS_MIN,
  META_BYTES_MAX,
  META_KEYS_MAX,
  NODE_BYTES_MAX,
  TAG_BYTES_MAX,
} from "../../contract/limits.ts";
import { AppendPerformance, DiffPerformance, Performance } from "../../contract/performance.ts";
import { FeedTotals, Health, Ready, ServerFigures, WalFigures } from "../../contract/probes.ts";
import {
  Append,
  Appended,
  DeleteRecords,
  Diff,
  DiffPage,
  RecordInput,
  RecordOutput,
  RecordsDeleted,
  TagFilter,
  Tombstone,
} from "../../contract/records.ts";
import {
  QueueState,
  TopicConfig,
  TopicConfigInput,
  TopicDeleted,
  TopicList,
  TopicPut,
  TopicState,
  TopicSummary,
} from "../../contract/topics.ts";
import { resolveConfig } from "../../engine/config.ts";
import { answer, count, type FieldWords, name, object } from "./naming.ts";

export const TOPIC = "The topic's name.";
const EPOCH = count("Changes with every new instance of the name.");
export const HEAD = count("The highest seq that was given out; 0 if none was.");
const EARLIEST = count("The first live seq; `head_seq + 1` if no record is live.");
const COUNT = count("Live records.");
const BYTES = count("Bytes of `data` and `meta` of the live records, as they were sent.");
const PRIORITY =
  "What readers may order by: the priority, or how recently the topic was read. Informational.";

object(Performance, "Performance", "What an answer cost.", {
  server_total_ms: count("Milliseconds in the server, with fractions."),
});
object(AppendPerformance, "AppendPerformance", "What a write cost, in milliseconds with fractions.", {
  server_total_ms: count("All of it."),
  wal_append_ms: count("Writing to the log. Absent for a deduplicated write."),
  fsync_ms: count("Syncing to the medium; 0 unless the topic is `fsync`. Absent for a deduplicated write."),
});
object(DiffPerformance, "DiffPerformance", "What a read cost.", {
  server_total_ms: count("Milliseconds in the server without the wait that was asked for."),
  records_scanned: count("Seqs that were looked at, with those that were skipped."),
});

/** What holds for a topic that nobody has configured. */
const defaults = resolveConfig("any", {});

const DELIVERIES =
  "a job delivered so often goes to `dead_letter` instead of being leased again; 0 is no limit, and without `dead_letter` " +
  "there is none either.";

object(
  TopicConfigInput,
  "TopicConfigInput",
  "Settings of a topic. What is left out has its default. Settings above 2^53-1 are refused.",
  {
    type: { description: "Cannot be changed once the topic exists.", default: defaults.type },
    ttl_ms: { description: "Records older than this expire; 0 keeps them.", default: defaults.ttl_ms },
    cap_records: {
      description: "Live records to keep at most; 0 is no limit.",
      default: defaults.cap_records,
    },
    cap_bytes: {
      description: "Bytes of live records to keep at most; 0 is no limit.",
      default: defaults.cap_bytes,
    },
    discard: {
      description: "At a cap: `old` evicts the oldest records, `reject` refuses the write.",
      default: defaults.discard,
    },
    durable: {
      description: "Read only without `durability`: true is `fsync`, false is `disk`.",
      default: defaults.durable,
    },
    durability:
      "How hard an acknowledged write is kept: `fsync` survives a power cut, `disk` and `memory` a crash of the " +
      "process, `ephemeral` no restart. Wins over `durable`.",
    priority: "Fixed priority; it takes effect within -1000..1000.",
    auto_priority: {
      description: "Without `priority`: rank by recent reads.",
      default: defaults.auto_priority,
    },
    auto_create: {
      description: "In the `config` of a write: whether that write may create the topic.",
      default: defaults.auto_create,
    },
    idempotency_window_ms: {
      description: "How long an idempotency key is remembered.",
      default: defaults.idempotency_window_ms,
    },
    dedupe_node: {
      description: "Whether readers may leave out records by `node`.",
      default: defaults.dedupe_node,
    },
    lease_ms: {
      description: `Queues: default lease. Clamped to ${LEASE_MS_MIN}..${LEASE_MS_MAX}.`,
      default: defaults.lease_ms,
    },
    claim_jitter_ms: {
      description: `Queues: claims wait so long for others to share with. Clamped to 0..${CLAIM_JITTER_MS_MAX}.`,
      default: defaults.claim_jitter_ms,
    },
    max_deliveries: {
      description: `Queues: ${DELIVERIES}`,
      default: defaults.max_deliveries,
    },
    dead_letter:
      "Queues: the topic that takes jobs which were delivered too often; created when the first one comes. A legal name, " +
      "which is 1 to 255 of `A-Z a-z 0-9 . _ : -`, the first a letter or a digit, and not the queue's own.",
    leases_durable: {
      description: "Queues: whether leases survive a restart.",
      default: defaults.leases_durable,
    },
  },
);
object(TopicConfig, "TopicConfig", "All settings of a topic.", {
  type: "",
  ttl_ms: count("Records older than this expire; 0 keeps them."),
  cap_records: count("Live records to keep at most; 0 is no limit."),
  cap_bytes: count("Bytes of live records to keep at most; 0 is no limit."),
  discard: "At a cap: `old` evicts the oldest records, `reject` refuses the write.",
  durable: "Whether `durability` is `fsync`.",
  durability: "How hard an acknowledged write is kept.",
  priority: "Fixed priority as it was set.",
  auto_priority: "Without `priority`: rank by recent reads.",
  auto_create: "Means something only in the `config` of a write.",
  idempotency_window_ms: count("How long an idempotency key is remembered."),
  dedupe_node: "Whether readers may leave out records by `node`.",
  lease_ms: { description: "Queues: default lease.", minimum: LEASE_MS_MIN, maximum: LEASE_MS_MAX },
  claim_jitter_ms: {
    description: "Queues: claims wait so long for others to share with.",
    minimum: 0,
    maximum: CLAIM_JITTER_MS_MAX,
  },
  max_deliveries: count(`Queues: ${DELIVERIES}`),
  dead_letter: "Queues: the topic that takes jobs which were delivered too often.",
  leases_durable: "Queues: whether leases survive a restart.",
});
answer(TopicPut, "TopicPut", "A topic as it is configured now.", {
  topic: TOPIC,
  epoch: EPOCH,
  created: "Whether this call created it.",
  config: "",
});
object(QueueState, "QueueState", "The jobs of a queue.", {
  ready: count("Jobs that could be leased now."),
  in_flight: count("Jobs that are leased."),
  dead_lettered: count("How many went to the dead letters so far."),
});
answer(TopicState, "TopicState", "A topic, seen at one moment.", {
  topic: TOPIC,
  type: "",
  epoch: EPOCH,
  head_seq: HEAD,
  earliest_seq: EARLIEST,
  next_seq: count("`head_seq + 1`."),
  count: COUNT,
  bytes: BYTES,
  config: "",
  effective_priority: PRIORITY,
  last_write_ts: count("When records were last appended, in ms since the Unix epoch; null if never."),
  last_read_ts: count("When the topic was last read, in ms since the Unix epoch; null if never."),
  queue: "Of a queue only.",
});
object(TopicSummary, "TopicSummary", "A topic in a list.", {
  topic: TOPIC,
  head_seq: HEAD,
  earliest_seq: EARLIEST,
  count: COUNT,
  bytes: BYTES,
  durable: "Whether its durability is `fsync`.",
  effective_priority: PRIORITY,
});
answer(TopicList, "TopicList", "One page of topics, in the byte order of their names.", {
  topics: "",
  next_cursor: "Present if more topics follow. Pass it back as `cursor`.",
});
answer(TopicDeleted, "TopicDeleted", "What a deletion did.", {
  topic: TOPIC,
  deleted: "False if there was no such topic.",
  routers_removed: "Names of the routers that went with it, in order.",
});

object(RecordInput, "RecordInput", "A record to append.", {
  data: "The payload: any JSON value, kept byte for byte as it was sent. With `meta` at most 1 MiB.",
  tag: {
    description: `What deletes select by. At most ${TAG_BYTES_MAX} bytes of UTF-8. Null is none.`,
    maxLength: TAG_BYTES_MAX,
  },
  node: {
    description: `Who wrote it; wins over the batch's. At most ${NODE_BYTES_MAX} bytes of UTF-8. Null is none.`,
    maxLength: NODE_BYTES_MAX,
  },
  meta: {
    description: `Any JSON value, kept byte for byte. At most ${META_BYTES_MAX} bytes and ${META_KEYS_MAX} keys. Null is none.`,
    maxProperties: META_KEYS_MAX,
  },
});
export const append = {
  records: { description: "In their order.", minItems: 1, maxItems: BATCH_RECORDS_MAX },
  node: `For records without a \`node\` of their own, which is when its length counts: at most ${NODE_BYTES_MAX} bytes.`,
  idempotency_key: {
    description: `A retry under the same key appends nothing and gets the first answer. At most ${IDEMPOTENCY_KEY_BYTES_MAX} bytes of UTF-8. Wins over the header.`,
    maxLength: IDEMPOTENCY_KEY_BYTES_MAX,
  },
  create:
    "Whether an absent topic is created. Left out or null: as `config.auto_create` says, and else yes. False: " +
    "`topic_not_found` for an absent topic.",
  config: {
    description:
      "Settings of the topic if this write creates it, which needs the scope `admin`. Else ignored.",
  },
  disable_backpressure: { description: "Accepted, and changes nothing.", default: false },
} satisfies FieldWords<typeof Append>;
object(Append, "Append", "Records to append: all of them or none. Unknown fields are ignored.", append);
export const appended = {
  topic: TOPIC,
  epoch: EPOCH,
  first_seq: count("Seq of the first record."),
  last_seq: count("Seq of the last record."),
  seqs: "One for each record, in order. Absent with `return_seqs=false`.",
  head_seq: count("The topic's head right after this write."),
  count: count("Records of this batch."),
  created: "Whether this write created the topic.",
  deduped: "Whether an earlier write with the same idempotency key is answered again.",
} satisfies FieldWords<typeof Appended>;
answer(Appended, "Appended", "Where the records are.", appended, AppendPerformance);
object(Diff, "Diff", "What to read. Everything has a default. Unknown fields are ignored.", {
  from_seq: {
    description: "Read what comes after this seq. Beyond 2^53-1 it is beyond any seq.",
    default: 0,
  },
  limit: {
    description: `Records at most; 0 is the default, and more than ${DIFF_LIMIT_MAX} is ${DIFF_LIMIT_MAX}.`,
    default: DIFF_LIMIT_DEFAULT,
  },
  node: "Leaves out records that one of these nodes wrote. Null or an empty array leaves out none.",
  include_tags: { description: "Whether records come with `$tag`.", default: false },
  include_meta: { description: "Whether records come with `meta`.", default: true },
  wait_ms: {
    description: `Without anything new: wait so long for it. More than ${DIFF_WAIT_MS_MAX} is ${DIFF_WAIT_MS_MAX}.`,
    default: 0,
  },
  max_batch_bytes: {
    description: `Bytes of records at most, but always one record; 0 is the default, and more than ${DIFF_BYTES_MAX} is ${DIFF_BYTES_MAX}.`,
    default: DIFF_BYTES_DEFAULT,
  },
  epoch: "The `epoch` that `from_seq` belongs to. If the topic was recreated since, a tombstone says so.",
});
export const record = {
  $seq: { description: "Its place in the topic, from 1 on.", minimum: 1 },
  $ts: count("When it was appended, in ms since the Unix epoch. Never decreases along `$seq`."),
  $node: "Who wrote it, if told.",
  $tag: "Its tag, if it has one and `include_tags` was asked for.",
  data: "Any JSON value, byte for byte as it was sent.",
  meta: "Any JSON value, byte for byte as it was sent; if it has one and `include_meta` is not false.",
} satisfies FieldWords<typeof RecordOutput>;
object(RecordOutput, "RecordOutput", "A record as it was appended.", record);
object(Tombstone, "Tombstone", "A gap: records that the reader has missed and can no longer get.", {
  gap_from: count("First seq of the gap."),
  gap_to: count("Last seq of the gap."),
  reason:
    "`cap` or `ttl` took the records, or both (`mixed`); `source_trim`: they were gone before a router could copy " +
    "them; `recreated`: the cursor belongs to another instance of the topic.",
  missed_estimate: count("How many records that were, at most."),
  earliest_seq: count("Where reading goes on."),
  head_seq: HEAD,
});
answer(
  DiffPage,
  "DiffPage",
  "Records in order, and where to go on.",
  {
    topic: TOPIC,
    epoch: EPOCH,
    records: "Ascending by `$seq`.",
    next_from_seq: count("The `from_seq` of the next read."),
    head_seq: HEAD,
    earliest_seq: EARLIEST,
    caught_up: "Whether `next_from_seq` is `head_seq`.",
    tombstone: "Not null if records before these are lost to the reader.",
    lag: count("`head_seq - next_from_seq`."),
  },
  DiffPerformance,
);
name(TagFilter, "TagFilter", {
  description:
    'Selects records by tag: `["tag","Eq",tag]`, `["tag","Glob","prefix*"]`, or a string, which is a prefix if it ends ' +
    "in `*` and else the whole tag. Records without a tag never match.",
  if: { type: "array", prefixItems: [{}, { const: "Glob" }] },
  // biome-ignore lint/suspicious/noThenProperty: the keyword of JSON Schema.
  then: { prefixItems: [{}, {}, { pattern: "\\*$" }] },
});
object(
  DeleteRecords,
  "DeleteRecords",
  {
    description:
      "Which records to delete. At least one of the two; both together must hold. Unknown fields are ignored.",
    anyOf: [
      { required: ["before_seq"], properties: { before_seq: { not: { type: "null" } } } },
      { required: ["match"], properties: { match: { not: { type: "null" } } } },
    ],
  },
  {
    before_seq: "Records with a smaller seq. Beyond the head it covers all there are. Null is no bound.",
    match: "Records with such a tag. Null is any, also none.",
  },
);
answer(RecordsDeleted, "RecordsDeleted", "What was deleted, and the topic after it.", {
  topic: TOPIC,
  deleted: count("Records that this call deleted."),
  earliest_seq: EARLIEST,
  head_seq: HEAD,
  count: COUNT,
  bytes: BYTES,
});

answer(Health, "Health", "The process serves.", {
  status: "",
  version: "The server's version.",
  uptime_ms: count("Milliseconds since the start."),
});
answer(Ready, "Ready", "The server takes requests.", {
  status: "",
  wal_replay_complete: "",
  topics: count("Topics."),
});
object(WalFigures, "WalFigures", "What the storage did since the start.", {
  batches: count("Transactions."),
  bytes_written: count("Record bytes committed to disk."),
  frames: count("Changes committed to disk."),
  fsync_count: count("Syncs."),
  fsync_micros_total: count("Microseconds that they took."),
  fsyncs: count("Syncs."),
  queue_depth: count("Changes accepted and not committed."),
  queue_depth_peak: count("The most there ever were."),
  read_only: { description: "1 after the medium has failed.", minimum: 0, maximum: 1 },
  rotations: count("Starts over of the write-ahead log."),
  submit_full_total: count("Changes refused since too many waited."),
});
object(FeedTotals, "FeedTotals", "What is there of feeds, and what has become of events since the start.", {
  events: count("Events that were ever in the log of feeds."),
  records: count("Those that it holds."),
  bytes: count("Bytes of these."),
  subscriptions: count("Subscriptions that hold, of this instance and of others."),
  posted: count("Events that clients have brought about."),
  accepted: count("Events of peers that were new."),
  duplicates: count("Events of peers that were known."),
  rejected: count("Events of peers that are not what they claim to be."),
});
answer(ServerFigures, "ServerFigures", "What the server is doing.", {
  bytes_live: count("Bytes of all live records."),
  feeds: "",
  queue_leases_in_flight: count("Leases that have not expired."),
  queue_topics: count("Topics of type queue."),
  ready: "Whether the server takes requests.",
  records_live: count("Live records of all topics."),
  replay_progress: { description: "How much is recovered.", minimum: 0, maximum: 1 },
  routers: count("Routers."),
  sse_connections: count("Open streams."),
  topics: count("Topics."),
  topics_disk: count("Topics with durability `disk`."),
  topics_ephemeral: count("Topics with durability `ephemeral`."),
  topics_fsync: count("Topics with durability `fsync`."),
  topics_memory: count("Topics with durability `memory`."),
  uptime_ms: count("Milliseconds since the start."),
  wal: "",
  watch_sessions: count("Watch sessions."),
});
