/**
 * The metrics as Prometheus knows them: one row each. They are made when somebody asks, so that the work of the
 * server only bumps plain numbers.
 *
 * https://prometheus.io/docs/instrumenting/exposition_formats/
 */
import { Counter, Gauge, type Metric, Registry } from "prom-client";
import { METRICS_TOPICS_MAX, SYNC_BUCKETS_US } from "../contract/limits.ts";
import type { FeedFigures } from "../engine/feeds/network.ts";
import type { PeerFigures } from "../engine/feeds/peering.ts";
import type { Figures, TopicFigures } from "../engine/figures.ts";
import type { Admission } from "./admission.ts";

/** Everything that is shown, read at one moment. */
export interface Observed extends Figures {
  readonly topics: readonly TopicFigures[];
  readonly streams: number;
  readonly sessions: number;
  readonly heldBytes: number;
  readonly ready: boolean;
  readonly uptimeMs: number;
  readonly load: Admission["load"];
  readonly responses: readonly (readonly [status: string, count: number])[];
}

/** One value, or one for each label. */
type Value = number | readonly (readonly [label: string, value: number])[];

interface Series {
  readonly name: string;
  readonly type: "gauge" | "counter";
  readonly help: string;
  /** The label of series that have one. */
  readonly label?: string;
  readonly value: (observed: Observed) => Value;
}

const gauge = (name: string, help: string, value: Series["value"], label?: string): Series => ({
  name,
  type: "gauge",
  help,
  value,
  ...(label && { label }),
});

const counter = (name: string, help: string, value: Series["value"], label?: string): Series => ({
  ...gauge(name, help, value, label),
  type: "counter",
});

/** A gauge with a series for each of the first topics by name that has a value. */
const perTopic = (name: string, help: string, value: (topic: TopicFigures) => number | undefined): Series =>
  gauge(
    name,
    help,
    ({ topics }) =>
      topics.flatMap((topic) => {
        const number = value(topic);
        return number === undefined ? [] : [[topic.topic, number] as const];
      }),
    "topic",
  );

/** The same for queues only. */
const perQueue = (
  name: string,
  help: string,
  value: (queue: NonNullable<TopicFigures["queue"]>) => number,
): Series => perTopic(name, help, ({ queue }) => queue && value(queue));

/** A series for each configured peer. */
const perPeer = (
  name: string,
  type: Series["type"],
  help: string,
  value: (peer: PeerFigures, feeds: FeedFigures) => number,
): Series => ({
  ...gauge(
    name,
    help,
    ({ feeds }) => feeds.peers.map((peer) => [peer.state.url, value(peer, feeds)] as const),
    "peer",
  ),
  type,
});

const table: readonly Series[] = [
  gauge("topics_topics", "Topics.", ({ census }) => census.topics),
  gauge(
    "topics_topics_by_class",
    "Topics by durability class.",
    ({ census }) => Object.entries(census.byDurability),
    "class",
  ),
  gauge("topics_routers", "Routers.", ({ routers }) => routers),
  gauge("topics_records_live", "Live records of all topics.", ({ census }) => census.records),
  gauge("topics_bytes_live", "Bytes of all live records.", ({ census }) => census.bytes),
  perTopic("topics_topic_head_seq", "Newest seq of a topic.", (topic) => topic.head),
  perTopic("topics_topic_earliest_seq", "First live seq of a topic.", (topic) => topic.earliest),
  perTopic("topics_topic_records_live", "Live records of a topic.", (topic) => topic.records),
  perTopic("topics_topic_bytes_live", "Bytes of a topic's live records.", (topic) => topic.bytes),
  perQueue("topics_topic_queue_ready", "Jobs of a queue that could be claimed.", (queue) => queue.ready),
  perQueue("topics_topic_queue_in_flight", "Jobs of a queue that are leased.", (queue) => queue.inFlight),
  gauge(
    "topics_topic_metrics_truncated",
    `1 if only the first ${METRICS_TOPICS_MAX} topics by name have series of their own.`,
    ({ census }) => Number(census.topics > METRICS_TOPICS_MAX),
  ),
  gauge("topics_queue_topics", "Topics of type queue.", ({ census }) => census.queues),
  gauge("topics_queue_leases_in_flight", "Leases that have not expired.", ({ leases }) => leases),
  gauge("topics_sse_connections", "Open streams: watch, work, WebSocket.", ({ streams }) => streams),
  gauge("topics_watch_sessions", "Watch sessions.", ({ sessions }) => sessions),
  gauge("topics_stream_held_bytes", "Bytes held for slow readers.", ({ heldBytes }) => heldBytes),
  gauge("topics_feed_events", "Events in the feed log.", ({ feeds }) => feeds.events),
  gauge("topics_feed_records", "Live records of the feed log.", ({ feeds }) => feeds.records),
  gauge("topics_feed_bytes", "Bytes of the feed log's live records.", ({ feeds }) => feeds.bytes),
  gauge(
    "topics_feed_subscriptions",
    "Subscriptions in force, here and elsewhere.",
    ({ feeds }) => feeds.subscriptions,
  ),
  counter("topics_feed_posted_total", "Events that clients have brought about.", ({ feeds }) => feeds.posted),
  counter(
    "topics_feed_received_total",
    "Events that peers have brought, by what has become of them.",
    ({ feeds: { accepted, duplicates, rejected } }) => Object.entries({ accepted, duplicates, rejected }),
    "result",
  ),
  perPeer("topics_peer_connected", "gauge", "1 if the last exchange has worked.", ({ state }) =>
    Number(state.connected),
  ),
  perPeer(
    "topics_peer_lag_events",
    "gauge",
    "Events of the feed log that are not done with for a peer.",
    ({ state }, { events }) => Math.max(0, events - state.out_seq),
  ),
  perPeer(
    "topics_peer_last_ok_timestamp_seconds",
    "gauge",
    "When an exchange has last worked, since unix epoch in seconds; 0 if never.",
    ({ state }) => (state.last_ok_at ?? 0) / 1000,
  ),
  perPeer("topics_peer_pushes_total", "counter", "Pushes that a peer has taken.", ({ pushes }) => pushes),
  perPeer(
    "topics_peer_pulls_total",
    "counter",
    "Pages and digests that a peer has given.",
    ({ pulls }) => pulls,
  ),
  perPeer("topics_peer_failures_total", "counter", "Exchanges that have failed.", ({ failures }) => failures),
  gauge("topics_ready", "1 if the server takes requests.", ({ ready }) => Number(ready)),
  gauge("topics_recovery_progress", "How much is recovered, 0 to 1.", () => 1),
  counter("topics_uptime_ms", "Milliseconds since the start.", ({ uptimeMs }) => Math.floor(uptimeMs)),
  gauge("topics_uptime_seconds", "Seconds since the start.", ({ uptimeMs }) => uptimeMs / 1000),
  counter("topics_wal_frames_total", "Changes committed to disk.", ({ commits }) => commits.entries),
  counter("topics_wal_batches_total", "Transactions they shared.", ({ commits }) => commits.batches),
  counter("topics_wal_fsyncs_total", "Syncs of the write-ahead log.", ({ store }) => store.syncs.count),
  counter(
    "topics_wal_bytes_written_total",
    "Record bytes committed to disk.",
    ({ commits }) => commits.bytes,
  ),
  counter(
    "topics_wal_rotations_total",
    "Starts over of the write-ahead log.",
    ({ store }) => store.walRestarts,
  ),
  gauge("topics_wal_size_bytes", "Size of the write-ahead log's file.", ({ store }) => store.walBytes),
  gauge("topics_wal_queue_depth", "Changes accepted and not committed.", ({ commits }) => commits.waiting),
  gauge("topics_wal_queue_depth_peak", "The most there ever were.", ({ commits }) => commits.waitingPeak),
  counter(
    "topics_wal_submit_full_total",
    "Changes refused since too many waited.",
    ({ commits }) => commits.refused,
  ),
  gauge("topics_wal_read_only", "1 after the medium has failed.", ({ commits }) => Number(commits.broken)),
  counter("topics_http_responses_total", "Answers by status.", ({ responses }) => responses, "status"),
  gauge("topics_requests_in_flight", "Requests that run.", ({ load }) => load.requests),
  gauge("topics_request_body_bytes_in_flight", "Bytes of their bodies.", ({ load }) => load.bodyBytes),
  gauge("process_resident_memory_bytes", "Resident memory size in bytes.", () => process.memoryUsage.rss()),
  counter("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.", () => {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1_000_000;
  }),
  gauge(
    "process_start_time_seconds",
    "Start time of the process since unix epoch in seconds.",
    () => performance.timeOrigin / 1000,
  ),
];

/** Shown where the system tells. */
const ofDescriptors: readonly Series[] = [
  gauge("process_open_fds", "Number of open file descriptors.", ({ store }) => store.descriptors!.open),
  gauge("process_max_fds", "Maximum number of open file descriptors.", ({ store }) => store.descriptors!.max),
];

/** A registry of what was observed at one moment. */
export function registryOf(observed: Observed): Registry {
  const registry = new Registry();
  const shown = observed.store.descriptors ? [...table, ...ofDescriptors] : table;
  for (const series of shown) registry.registerMetric(metricOf(series, observed));
  registry.registerMetric(syncLatency("us", 1, observed));
  registry.registerMetric(syncLatency("seconds", 1e-6, observed));
  return registry;
}

function metricOf({ name, type, help, label, value }: Series, observed: Observed): Metric {
  const options = { name, help, labelNames: label === undefined ? [] : [label], registers: [] };
  const metric = type === "gauge" ? new Gauge(options) : new Counter(options);
  const shown = value(observed);
  if (typeof shown === "number") metric.inc({}, shown);
  else for (const [text, number] of shown) metric.inc({ [label!]: text }, number);
  return metric;
}

/** A histogram of counts that were taken elsewhere, which the library's own cannot show. */
function syncLatency(unit: string, perMicro: number, { store }: Observed): Metric {
  const name = `topics_wal_fsync_latency_${unit}`;
  const { count, micros, buckets } = store.syncs;
  let below = 0;
  const values = buckets.map((number, i) => {
    below += number;
    const bound = SYNC_BUCKETS_US[i];
    const le = bound === undefined ? "+Inf" : Number((bound * perMicro).toPrecision(6));
    return { metricName: `${name}_bucket`, labels: { le }, value: below };
  });
  const sums = [
    { metricName: `${name}_sum`, labels: {}, value: micros * perMicro },
    { metricName: `${name}_count`, labels: {}, value: count },
  ];
  const help = "What a sync of the write-ahead log took.";
  const get = async () => ({ name, help, type: "histogram", values: [...values, ...sums] });
  return { name, get } as unknown as Metric;
}
