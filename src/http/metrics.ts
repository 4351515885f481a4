/** `GET /v0/metrics`: what the server is doing, for Prometheus as text and for scripts as JSON. */
import { Elysia } from "elysia";
import { METRICS_TOPICS_MAX } from "../contract/limits.ts";
import { ServerFigures } from "../contract/probes.ts";
import type { Engine } from "../engine/engine.ts";
import type { TopicFigures } from "../engine/figures.ts";
import { access } from "./access.ts";
import type { Admission } from "./admission.ts";
import { callOf } from "./call.ts";
import * as examples from "./docs/examples.ts";
import { media, operation } from "./docs/operation.ts";
import { reply } from "./reply.ts";
import { type Observed, registryOf } from "./series.ts";
import type { Streams } from "./streams.ts";

export class Metrics {
  readonly #engine: Engine;
  readonly #admission: Admission;
  readonly #streams: Streams;
  readonly #uptimeMs: () => number;
  readonly #responses = new Map<number, number>();

  constructor(engine: Engine, admission: Admission, streams: Streams, uptimeMs: () => number) {
    this.#engine = engine;
    this.#admission = admission;
    this.#streams = streams;
    this.#uptimeMs = uptimeMs;
  }

  /** Counts an answer. */
  answered(status: number): void {
    this.#responses.set(status, (this.#responses.get(status) ?? 0) + 1);
  }

  /** The text format. */
  async text(): Promise<string> {
    await this.#engine.settle();
    const topics = await this.#engine.topicFigures(METRICS_TOPICS_MAX);
    return registryOf(this.#observed(topics)).metrics();
  }

  async json(): Promise<ServerFigures> {
    await this.#engine.settle();
    return toJson(this.#observed([]));
  }

  #observed(topics: readonly TopicFigures[]): Observed {
    return {
      ...this.#engine.figures,
      topics,
      streams: this.#streams.count,
      sessions: this.#engine.watch.sessions,
      heldBytes: this.#streams.heldBytes,
      ready: !this.#admission.draining,
      uptimeMs: this.#uptimeMs(),
      load: this.#admission.load,
      responses: [...this.#responses].map(([status, count]) => [String(status), count]),
    };
  }
}

export function metricsRoutes(metrics: Metrics) {
  const answer = async ({ request }: { request: Request }) => {
    if (request.headers.get("accept")?.includes("application/json"))
      return reply(request, await metrics.json());
    const text = await metrics.text();
    callOf(request).answerBytes = text.length;
    return new Response(text, { headers: { "content-type": "text/plain; version=0.0.4" } });
  };
  return new Elysia({ name: "metrics" }).use(access).get(
    "/v0/metrics",
    answer,
    operation({
      id: "metrics",
      tag: "Probes",
      scope: "read",
      summary: "Metrics",
      description:
        "For Prometheus as text, and as JSON if the `Accept` header names `application/json`. " +
        `The text has series of their own for the first ${METRICS_TOPICS_MAX} topics by name.`,
      replies: {
        200: {
          description: "The figures of this moment.",
          schema: ServerFigures,
          examples: examples.figures,
          otherwise: { "text/plain; version=0.0.4": media({ type: "string" }, examples.exposition) },
        },
      },
    }),
  );
}

function toJson({ census, commits, store, ...other }: Observed): ServerFigures {
  const { byDurability } = census;
  const { peers, ...feeds } = other.feeds;
  return {
    bytes_live: census.bytes,
    feeds,
    queue_leases_in_flight: other.leases,
    queue_topics: census.queues,
    ready: other.ready,
    records_live: census.records,
    replay_progress: 1,
    routers: other.routers,
    sse_connections: other.streams,
    topics: census.topics,
    topics_disk: byDurability.disk,
    topics_ephemeral: byDurability.ephemeral,
    topics_fsync: byDurability.fsync,
    topics_memory: byDurability.memory,
    uptime_ms: Math.floor(other.uptimeMs),
    wal: {
      batches: commits.batches,
      bytes_written: commits.bytes,
      frames: commits.entries,
      fsync_count: store.syncs.count,
      fsync_micros_total: Math.round(store.syncs.micros),
      fsyncs: store.syncs.count,
      queue_depth: commits.waiting,
      queue_depth_peak: commits.waitingPeak,
      read_only: Number(commits.broken),
      rotations: store.walRestarts,
      submit_full_total: commits.refused,
    },
    watch_sessions: other.sessions,
  };
}
