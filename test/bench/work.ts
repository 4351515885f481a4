/**
 * The third table: one call that removes very many records, and what other clients notice of it. The
 * others are paced, not at full speed: their latencies show the stalls that the call causes.
 */
import { CLICK_BYTES, call, fill, type Reply } from "./client.ts";
import { percentile } from "./figures.ts";
import type { Bench } from "./loads.ts";
import { atRest, type Server, withServer } from "./server.ts";
import { appendLoad, diffLoad, pace, type Sample } from "./wrk.ts";

const TOPIC = "events";
const APPEND_CONNECTIONS = 4;
const DIFF_CONNECTIONS = 2;
/** 1000 appends and 500 reads per second in all: enough to see a stall, not enough to be one. */
const INTERVAL_MS = 4;
const TAIL_RECORDS = 10;
/** Records of the topic that the paced reads look at. */
const SMALL_RECORDS = 1000;
/** One record in so many has another tag and stays. */
const KEPT_STEP = 1001;
const CAP_RECORDS = 10;
const RAMP_MS = 500;
/** A stall is over when so many appends in a row are answered within so many milliseconds. */
const QUICK_ANSWERS = 20;
const QUICK_MS = 10;
const CAUGHT_UP_DEADLINE_MS = 30_000;

export interface Latencies {
  readonly requests: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
}

/** A stretch of time beside the call, and what the paced requests saw in it. */
export interface Stretch {
  readonly name: "before" | "during the call" | "reading the rest" | "after";
  readonly lengthMs: number;
  readonly appends: Latencies;
  readonly diffs: Latencies;
}

export interface Operation {
  readonly name: string;
  readonly callMs: number;
  /** What was not as it has to be; empty if all was exact. */
  readonly inexact: string[];
  readonly stretches: Stretch[];
}

interface Plan {
  readonly name: string;
  readonly stored: number;
  tagOf?(seq: number): string | undefined;
  act(url: string): Promise<Reply>;
  /** Compares the answer, and what can be read at once behind it, with what has to be. */
  check(url: string, reply: Reply): Promise<string[]>;
}

export async function measureWork(bench: Bench): Promise<Operation[]> {
  const removed = bench.quick ? 100_000 : 1_000_000;
  const operations: Operation[] = [];
  for (const plan of plans(removed)) {
    bench.say(`work: ${plan.name}`);
    operations.push(
      await withServer(bench.binary, bench.directory, (server) => carryOut(bench, server, plan)),
    );
  }
  return operations;
}

function plans(removed: number): Plan[] {
  const path = `/v0/topics/${TOPIC}`;
  const count = removed.toLocaleString("en");
  const kept = removed / (KEPT_STEP - 1);
  const stored = removed + kept;
  const firstLeft = removed - CAP_RECORDS + 1;
  const cappedBytes = CAP_RECORDS * CLICK_BYTES;
  const answer = { deleted: removed, head_seq: stored, count: kept, bytes: kept * CLICK_BYTES };
  return [
    {
      name: `delete ${count} by tag`,
      stored,
      tagOf: (seq) => (seq % KEPT_STEP === 0 ? "kept" : `old:${seq % 50}`),
      act: (url) => call(url, "POST", `${path}/delete`, { match: ["tag", "Glob", "old:*"] }),
      check: async (url, reply) => [
        ...differences(reply, 200, { ...answer, earliest_seq: KEPT_STEP }),
        ...(await differentSeqs(
          url,
          range(kept, (i) => (i + 1) * KEPT_STEP),
        )),
      ],
    },
    {
      name: `delete ${count} by before_seq`,
      stored,
      act: (url) => call(url, "POST", `${path}/delete`, { before_seq: removed + 1 }),
      check: async (url, reply) => [
        ...differences(reply, 200, { ...answer, earliest_seq: removed + 1 }),
        ...(await differentSeqs(
          url,
          range(kept, (i) => removed + 1 + i),
        )),
      ],
    },
    {
      name: `expire ${count} by ttl_ms`,
      stored: removed,
      act: (url) => call(url, "PUT", path, { ttl_ms: 1 }),
      check: async (url, reply) => [
        ...differences(reply, 200, { created: false }),
        ...(await differentState(url, { head_seq: removed, earliest_seq: removed + 1, count: 0, bytes: 0 })),
        ...(await differentTombstone(url, "ttl", removed)),
        ...(await differentSeqs(url, [])),
      ],
    },
    {
      name: `delete a topic of ${count}`,
      stored: removed,
      act: (url) => call(url, "DELETE", path),
      check: async (url, reply) => [
        ...differences(reply, 200, { deleted: true }),
        ...differences(await call(url, "GET", path), 404, {}),
        ...differences(await call(url, "POST", path, { records: [{ data: 1 }] }), 201, {
          first_seq: 1,
          created: true,
        }),
        ...(await differentState(url, { head_seq: 1, earliest_seq: 1, count: 1, bytes: 1 })),
      ],
    },
    {
      name: `cap_records to ${CAP_RECORDS} of ${count}`,
      stored: removed,
      act: (url) => call(url, "PUT", path, { cap_records: CAP_RECORDS }),
      check: async (url, reply) => [
        ...differences(reply, 200, { created: false }),
        ...(await differentState(url, {
          head_seq: removed,
          earliest_seq: firstLeft,
          count: CAP_RECORDS,
          bytes: cappedBytes,
        })),
        ...(await differentTombstone(url, "cap", firstLeft - 1)),
        ...(await differentSeqs(
          url,
          range(CAP_RECORDS, (i) => firstLeft + i),
        )),
      ],
    },
  ];
}

async function carryOut(bench: Bench, server: Server, plan: Plan): Promise<Operation> {
  const { url } = server;
  const windowMs = bench.quick ? 1000 : 3000;
  await fill(url, TOPIC, plan.stored, plan.tagOf?.bind(plan));
  await fill(url, "small", SMALL_RECORDS);
  await atRest(server.pid);
  const appends = pace(appendLoad(url, "other", 1), APPEND_CONNECTIONS, INTERVAL_MS);
  const diffs = pace(
    diffLoad(url, "small", "tail", SMALL_RECORDS, TAIL_RECORDS),
    DIFF_CONNECTIONS,
    INTERVAL_MS,
  );
  await Bun.sleep(RAMP_MS);
  const marks = [now()];
  await Bun.sleep(windowMs);
  marks.push(now());
  const reply = await plan.act(url);
  marks.push(now());
  const inexact = await plan.check(url, reply);
  marks.push(now());
  await Bun.sleep(windowMs);
  marks.push(now());
  await caughtUp(bench, url);
  const [appendSamples, diffSamples] = await Promise.all([appends.stop(), diffs.stop()]);
  const stretches = divide(marks, appendSamples, diffSamples);
  return { name: plan.name, callMs: marks[2]! - marks[1]!, inexact, stretches };
}

/** Waits until the paced requests that a stall has held up are answered, so that their latency is known. */
async function caughtUp(bench: Bench, url: string): Promise<void> {
  const deadline = now() + CAUGHT_UP_DEADLINE_MS;
  for (let quick = 0; quick < QUICK_ANSWERS; ) {
    const before = now();
    if (before > deadline) return bench.say(`work: others still wait, ${CAUGHT_UP_DEADLINE_MS} ms later`);
    await fill(url, "other", 1);
    quick = now() - before < QUICK_MS ? quick + 1 : 0;
    await Bun.sleep(RAMP_MS / QUICK_ANSWERS);
  }
}

/** Milliseconds since the epoch, with a fraction: the clock of the paced load. */
const now = () => performance.timeOrigin + performance.now();

/**
 * Puts each request where it was on the way. One that began before the call and ended in it was held up
 * by the call and counts there; the same goes for the reading. Server work that is put off shows after.
 */
function divide(marks: number[], appends: Sample[], diffs: Sample[]): Stretch[] {
  const [rampedAt, calledAt, answeredAt, readAt, endedAt] = marks as [number, number, number, number, number];
  const nameOf = ({ at, latencyMs }: Sample): Stretch["name"] | undefined => {
    if (at < rampedAt || at > endedAt) return undefined;
    if (at + latencyMs < calledAt) return "before";
    if (at < answeredAt) return "during the call";
    return at < readAt ? "reading the rest" : "after";
  };
  const stretch = (name: Stretch["name"], lengthMs: number): Stretch => {
    const seen = (samples: Sample[]) => latencies(samples.filter((sample) => nameOf(sample) === name));
    return { name, lengthMs, appends: seen(appends), diffs: seen(diffs) };
  };
  return [
    stretch("before", calledAt - rampedAt),
    stretch("during the call", answeredAt - calledAt),
    stretch("reading the rest", readAt - answeredAt),
    stretch("after", endedAt - readAt),
  ];
}

function latencies(samples: Sample[]): Latencies {
  const all = samples.map((sample) => sample.latencyMs);
  const [p50Ms, p99Ms, maxMs] = [percentile(all, 0.5), percentile(all, 0.99), percentile(all, 1)];
  return { requests: all.length, p50Ms, p99Ms, maxMs };
}

/** In words, where an answer is not what was expected. */
function differences(reply: Reply, status: number, members: Record<string, unknown>): string[] {
  if (reply.status !== status)
    return [`status ${reply.status}, not ${status}: ${JSON.stringify(reply.body)}`];
  return Object.entries(members)
    .filter(([name, value]) => reply.body[name] !== value)
    .map(([name, value]) => `${name} ${reply.body[name]}, not ${value}`);
}

async function differentState(url: string, expected: Record<string, number>): Promise<string[]> {
  return differences(await call(url, "GET", `/v0/topics/${TOPIC}`), 200, expected);
}

async function differentTombstone(url: string, reason: string, gapTo: number): Promise<string[]> {
  const { body, status } = await call(url, "POST", `/v0/topics/${TOPIC}/diff`, { limit: 1 });
  const expected = { reason, gap_from: 1, gap_to: gapTo, missed_estimate: gapTo, earliest_seq: gapTo + 1 };
  return differences({ status, body: body.tombstone ?? {} }, 200, expected).map(
    (text) => `tombstone: ${text}`,
  );
}

/** Reads the topic from the start to the head and compares the seqs. */
async function differentSeqs(url: string, expected: number[]): Promise<string[]> {
  const seqs: number[] = [];
  for (let from = 0, done = false; !done; ) {
    const { body } = await call(url, "POST", `/v0/topics/${TOPIC}/diff`, { from_seq: from, limit: 1000 });
    for (const record of body.records) seqs.push(record.$seq);
    from = body.next_from_seq;
    done = body.caught_up;
  }
  if (Bun.deepEquals(seqs, expected)) return [];
  const wrong = seqs.findIndex((seq, i) => seq !== expected[i]);
  return [
    `${seqs.length} records are readable, ${expected.length} should be; the first wrong one is ${seqs[wrong]}`,
  ];
}

const range = (length: number, seqOf: (i: number) => number): number[] =>
  Array.from({ length }, (_, i) => seqOf(i));
