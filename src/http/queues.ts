/** `/v0/topics/:topic/claim`, `ack`, `nack`, `extend` and `work`: what workers do with the jobs of a queue. */
import { Elysia } from "elysia";
import {
  CLAIM_JOBS_MAX,
  HEARTBEAT_MS,
  HELD_SEQS_MAX,
  LEASE_MS_MAX,
  LEASE_MS_MIN,
  NODE_BYTES_MAX,
} from "../contract/limits.ts";
import {
  Ack,
  Acked,
  Claim,
  Extend,
  Extended,
  JobsClaimed,
  Nack,
  Nacked,
  PushedJob,
  WorkEnded,
} from "../contract/queues.ts";
import type { Queues, WorkRequest } from "../engine/queues.ts";
import type { WorkFrame } from "../engine/work.ts";
import { access } from "./access.ts";
import type { Admission } from "./admission.ts";
import { bodyReader } from "./body.ts";
import { callOf } from "./call.ts";
import { because } from "./docs/failures.ts";
import { ref } from "./docs/naming.ts";
import { anyQueue, media, operation, toSameTopic } from "./docs/operation.ts";
import * as examples from "./docs/workexamples.ts";
import { reply, replyText } from "./reply.ts";
import { allowEvents, event, utf8 } from "./sse.ts";
import type { Streams } from "./streams.ts";
import { nameIn, Query } from "./target.ts";

const readClaim = bodyReader(Claim, { empty: "invalid" });
const readAck = bodyReader(Ack);
const readNack = bodyReader(Nack);
const readExtend = bodyReader(Extend);

const ofQueue = ["topic_not_found", "not_a_queue"] as const;
const ofHolder = [
  because("batch_too_large", "Too many seqs at a time.", { seqs: 1001, max: HELD_SEQS_MAX }),
  ...ofQueue,
];

export function queueRoutes(queues: Queues, admission: Admission, streams: Streams) {
  const work = ({ request }: { request: Request }) => {
    const topic = nameIn(request);
    const asked = workRequest(new Query(request.url));
    allowEvents(request);
    queues.allowWork(topic, asked);
    return streams.open(request, {
      caller: callOf(request).caller,
      heartbeatMs: HEARTBEAT_MS,
      source: (left) => queues.work(topic, asked, left, streams.shutdown),
      spell: (frames) => utf8(frames.map(spell).join("")),
      ending: (code, error) => event("error", JSON.stringify({ code, error, topic })),
    });
  };
  return new Elysia({ name: "queues" })
    .use(access)
    .post(
      "/v0/topics/:topic/claim",
      async ({ request }) => {
        const topic = nameIn(request);
        const body = await readClaim(request, admission);
        await admission.turn(request);
        const { claimed, said, waitedMs } = await queues.claim(topic, body, request.signal);
        const { topic: name, ...counts } = said;
        // The jobs are JSON already, in the spelling their writers sent.
        const head = `{"topic":${JSON.stringify(name)},"claimed":[${claimed}],`;
        return replyText(request, head + JSON.stringify(counts).slice(1), { waitedMs });
      },
      operation({
        id: "claimJobs",
        tag: "Queues",
        scope: ["read", "write"],
        summary: "Lease jobs",
        description:
          "Jobs that come back are first, then those that were never leased, both by seq. A leased job is shown to nobody " +
          "else until its deadline. One that was delivered `max_deliveries` times goes to the dead letters instead. " +
          "An empty queue answers at once; with `claim_jitter_ms` claims wait for that time and share what there is.",
        parameters: [anyQueue],
        body: { schema: Claim, examples: examples.claim.requests },
        replies: {
          200: {
            description: "The jobs leased, perhaps none.",
            schema: JobsClaimed,
            examples: examples.claim.answers,
            links: toSameTopic("ackJobs", "nackJobs", "extendLeases"),
          },
        },
        failures: ofQueue,
      }),
    )
    .post(
      "/v0/topics/:topic/ack",
      async ({ request }) => {
        const topic = nameIn(request);
        const { acked, fsyncMs } = await queues.ack(topic, await readAck(request, admission));
        const isSynced = acked.acked > 0 && fsyncMs > 0;
        return reply(request, acked, isSynced ? { performance: { fsync_ms: fsyncMs } } : {});
      },
      operation({
        id: "ackJobs",
        tag: "Queues",
        scope: "write",
        summary: "Finish jobs",
        description:
          "They are deleted. `lease_ids` make sure that it is still the same lease; what is not held by `node`, or no " +
          "longer, is listed in `skipped`. To repeat an ack does no harm.",
        parameters: [anyQueue],
        body: { schema: Ack, examples: examples.ack.requests },
        replies: { 200: { description: "What was done.", schema: Acked, examples: examples.ack.answers } },
        failures: ofHolder,
      }),
    )
    .post(
      "/v0/topics/:topic/nack",
      async ({ request }) => {
        const topic = nameIn(request);
        return reply(request, await queues.nack(topic, await readNack(request, admission)));
      },
      operation({
        id: "nackJobs",
        tag: "Queues",
        scope: "write",
        summary: "Give jobs back",
        description: "To be leased again, at once or after `delay_ms`.",
        parameters: [anyQueue],
        body: { schema: Nack, examples: examples.nack.requests },
        replies: { 200: { description: "What was done.", schema: Nacked, examples: examples.nack.answers } },
        failures: ofHolder,
      }),
    )
    .post(
      "/v0/topics/:topic/extend",
      async ({ request }) => {
        const topic = nameIn(request);
        return reply(request, await queues.extend(topic, await readExtend(request, admission)));
      },
      operation({
        id: "extendLeases",
        tag: "Queues",
        scope: "write",
        summary: "Keep jobs longer",
        description:
          "The deadline is `lease_ms` from now, which may also be sooner than it was. Lease ids stay.",
        parameters: [anyQueue],
        body: { schema: Extend, examples: examples.extend.requests },
        replies: {
          200: { description: "What was done.", schema: Extended, examples: examples.extend.answers },
        },
        failures: ofHolder,
      }),
    )
    .get(
      "/v0/topics/:topic/work",
      work,
      operation({
        id: "work",
        tag: "Queues",
        scope: ["read", "write"],
        schemes: ["key", "token"],
        summary: "Have jobs pushed",
        description:
          "Server-sent events: `job` (PushedJob) for each leased job. The stream leases at most `max` jobs at a time; an ack, " +
          "by `POST`, makes room for the next one. When it closes, its jobs go back at once. The last event says why, if it " +
          "was not the client: `error` (WorkEnded). It has no end of itself: use `curl -N`.",
        parameters: [
          anyQueue,
          {
            name: "node",
            in: "query",
            required: true,
            description: `Who holds the jobs: 1 to ${NODE_BYTES_MAX} bytes.`,
            schema: { type: "string", minLength: 1, maxLength: NODE_BYTES_MAX },
            example: "gpu-1",
          },
          {
            name: "max",
            in: "query",
            description: `Jobs at a time, 1 to ${CLAIM_JOBS_MAX}. What cannot be understood is 1.`,
            schema: { type: ["integer", "string"], default: 1 },
          },
          {
            name: "lease_ms",
            in: "query",
            description: `How long a lease is, ${LEASE_MS_MIN} to ${LEASE_MS_MAX}. What cannot be understood is as the queue says.`,
            schema: { type: ["integer", "string"] },
          },
        ],
        replies: {
          200: {
            description: "The stream.",
            otherwise: { "text/event-stream": media({ type: "string" }, examples.work) },
          },
        },
        extensions: { "x-events": { job: ref(PushedJob), error: ref(WorkEnded) } },
        failures: ["not_acceptable", ...ofQueue],
      }),
    );
}

function workRequest(query: Query): WorkRequest {
  const leaseMs = query.integer("lease_ms", Number.NaN);
  return {
    node: query.text("node", ""),
    max: query.integer("max", 1, 32),
    leaseMs: Number.isNaN(leaseMs) ? undefined : leaseMs,
  };
}

function spell(frame: WorkFrame): string {
  switch (frame.event) {
    case "job":
      return event("job", frame.data, frame.id);
    case "error":
      return event("error", JSON.stringify(frame.data));
  }
}
