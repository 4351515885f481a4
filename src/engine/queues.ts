/** What workers do with queues: claim jobs or have them pushed, finish them, give them back, keep them. */
import { ApiError, invalid, readOnly } from "../contract/errors.ts";
import {
  CLAIM_JOBS_MAX,
  HELD_SEQS_MAX,
  LEASE_MS_MAX,
  LEASE_MS_MIN,
  NACK_DELAY_MS_MAX,
  NODE_BYTES_MAX,
} from "../contract/limits.ts";
import type { Ack, Acked, Claim, Extend, Extended, JobsClaimed, Nack, Nacked } from "../contract/queues.ts";
import { toldBack } from "../contract/schema.ts";
import { canonical } from "./claims.ts";
import type { Claimant, HeldJobs, JobsHeld, LeasedJob } from "./commands.ts";
import type { Commits } from "./commit.ts";
import { clamp } from "./config.ts";
import type { Forwarder } from "./forwarder.ts";
import type { Group } from "./group.ts";
import { Inbox } from "./inbox.ts";
import { Line, type Served, type Stream } from "./line.ts";
import type { Topic } from "./topic.ts";
import type { Topics } from "./topics.ts";
import { encodeJob, ending, frameOf, shuttingDown, type WorkFrame } from "./work.ts";

/** An answer to a claim. `claimed` is JSON, joined by commas; `waitedMs` is what the queue asked to wait. */
export interface ClaimAnswer {
  readonly claimed: string;
  readonly waitedMs: number;
  readonly said: Omit<JobsClaimed, "claimed">;
}

/** What a stream of work is asked for. */
export interface WorkRequest {
  readonly node: string;
  readonly max: number;
  readonly leaseMs: number | undefined;
}

const LEASE_ID = /^lease_0*([0-9a-fA-F]{1,16})$/;

export class Queues {
  readonly #topics: Topics;
  readonly #commits: Commits;
  readonly #forwarder: Forwarder;
  readonly #now: () => number;
  readonly #lines = new Map<Topic, Line>();
  #streams = 0;

  constructor(topics: Topics, commits: Commits, forwarder: Forwarder, now: () => number) {
    this.#topics = topics;
    this.#commits = commits;
    this.#forwarder = forwarder;
    this.#now = now;
  }

  /** Tells those who wait what a group has changed. */
  committed(group: Group): void {
    for (const topic of group.deleted) {
      this.#lines.get(topic)?.end();
      this.#lines.delete(topic);
    }
    for (const topic of group.changed) this.#look(topic);
  }

  /** What a group has done was undone, but not what time had done before. */
  undone(group: Group): void {
    for (const topic of group.touched) this.#look(topic);
  }

  #look(topic: Topic): void {
    const freed = topic.jobs?.takeFreed() ?? [];
    const line = this.#lines.get(topic);
    line?.freed(freed);
    line?.check();
  }

  /** Leases jobs. `signal` says when the client has left. Throws `topic_not_found`, `not_a_queue`, `invalid_request`. */
  async claim(name: string, request: Claim, signal: AbortSignal): Promise<ClaimAnswer> {
    this.#queue(name);
    allowNode(request.node);
    await this.#forwarder.catchUp(name);
    const topic = this.#queue(name);
    const claimant = claimantOf(request.node, request.max ?? 1, request.lease_ms, null);
    const start = performance.now();
    const isJittered = topic.config.claim_jitter_ms > 0;
    const served = isJittered
      ? await this.#inWindow(topic, claimant, signal)
      : await this.#atOnce(name, claimant);
    const waitedMs = isJittered ? performance.now() - start : 0;
    const { jobs, ready } = served;
    return {
      claimed: jobs.map((job) => encodeJob(job)).join(","),
      waitedMs,
      said: { topic: name, count: jobs.length, ready },
    };
  }

  async #inWindow(topic: Topic, claimant: Claimant, signal: AbortSignal): Promise<Served> {
    try {
      return await this.#lineOf(topic).claim(claimant, signal);
    } finally {
      this.#close(topic);
    }
  }

  async #atOnce(topic: string, claimant: Claimant): Promise<Served> {
    for (;;) {
      const { outcome } = await this.#commits.submit({
        kind: "claim",
        topic,
        claimants: [claimant],
        evenly: false,
        now: this.#now(),
      });
      const [jobs = []] = outcome.shares;
      if (jobs.length > 0 || !outcome.more) return { jobs, ready: outcome.ready };
    }
  }

  /** Throws `invalid_request`, `batch_too_large`, `topic_not_found`, `not_a_queue`. */
  async ack(topic: string, request: Ack): Promise<{ acked: Acked; fsyncMs: number }> {
    const held = this.#held(topic, request);
    const { outcome, fsyncMs } = await this.#commits.submit({ kind: "ack", ...held });
    const { done, ready, inFlight: in_flight } = outcome;
    const skipped = skippedOf(request, outcome);
    return { acked: { topic, acked: done.length, skipped, ready, in_flight }, fsyncMs };
  }

  async nack(topic: string, request: Nack): Promise<Nacked> {
    const delayMs = clamp(request.delay_ms ?? 0, 0, NACK_DELAY_MS_MAX);
    const held = this.#held(topic, request);
    const { outcome } = await this.#commits.submit({ kind: "nack", ...held, delayMs });
    const { done, ready, inFlight: in_flight } = outcome;
    return { topic, nacked: done.length, skipped: skippedOf(request, outcome), ready, in_flight };
  }

  async extend(topic: string, request: Extend): Promise<Extended> {
    const leaseMs = clampLease(request.lease_ms);
    const held = this.#held(topic, request);
    const { outcome } = await this.#commits.submit({ kind: "extend", ...held, leaseMs });
    const deadlines = outcome.done.map((i) => [String(request.seqs[i]), held.now + leaseMs]);
    return {
      topic,
      extended: deadlines.length,
      skipped: skippedOf(request, outcome),
      deadlines: Object.fromEntries(deadlines),
    };
  }

  #held(topic: string, { node, seqs, lease_ids = [] }: Ack): HeldJobs {
    const leases = lease_ids.map(leaseOf);
    if (node === "") throw invalid("node: must not be empty");
    if (seqs.length > HELD_SEQS_MAX) {
      throw new ApiError("batch_too_large", { seqs: seqs.length, max: HELD_SEQS_MAX });
    }
    if (leases.length > 0 && leases.length !== seqs.length) {
      throw invalid("lease_ids: as many as seqs, or none");
    }
    this.#queue(topic);
    const held = seqs.map((seq, i) => ({ seq: Number(seq), lease: leases[i] ?? null }));
    return { topic, node, held, now: this.#now() };
  }

  /** Throws `invalid_request`, `topic_not_found`, `not_a_queue` where a stream cannot begin. */
  allowWork(topic: string, { node }: Pick<WorkRequest, "node">): void {
    allowNode(node);
    this.#queue(topic);
  }

  /**
   * Pushes jobs as long as the stream has room for them, until `left` (the client has gone) or `shutdown`. Whatever
   * it holds at its end goes back.
   */
  async *work(
    name: string,
    request: WorkRequest,
    left: AbortSignal,
    shutdown: AbortSignal,
  ): AsyncGenerator<WorkFrame[]> {
    const topic = this.#queue(name);
    const ended = AbortSignal.any([left, shutdown]);
    const inbox = new Inbox<readonly LeasedJob[] | Error>(ended);
    const id = ++this.#streams;
    const stream: Stream = {
      id,
      depth: clamp(request.max, 1, CLAIM_JOBS_MAX),
      claimant: (max) => claimantOf(request.node, max, request.leaseMs, id),
      serve: (jobs) => inbox.put(jobs),
    };
    const line = this.#lineOf(topic);
    line.join(stream);
    try {
      await this.#forwarder.catchUp(name);
      if (topic.deleted) inbox.put(new ApiError("topic_not_found", { topic: name }));
      else if (!ended.aborted) line.want(stream);
      while (!ended.aborted) {
        const jobs = await inbox.take();
        if (jobs === undefined) break;
        if (jobs instanceof Error) {
          yield [{ event: "error", data: ending(name, jobs) }];
          return;
        }
        yield jobs.map((job) => frameOf(name, job));
        // The client has taken these, so there is room for more of them on the way.
        if (topic.deleted) inbox.put(new ApiError("topic_not_found", { topic: name }));
        else line.want(stream);
      }
      if (!left.aborted) yield [{ event: "error", data: shuttingDown(name) }];
    } finally {
      inbox.close();
      line.leave(stream);
      this.#release(topic, id);
      this.#close(topic);
    }
  }

  #release(topic: Topic, stream: number): void {
    // Also where the topic is gone: a claim that was under way may have got jobs of another one of that name.
    // The stream is over, so nobody is left to hear of a failure; then the deadlines end the leases.
    this.#commits.submit({ kind: "release", topic: topic.name, stream, now: this.#now() }).catch(() => {});
  }

  #lineOf(topic: Topic): Line {
    const line = this.#lines.get(topic) ?? new Line(topic, this.#commits, this.#now);
    if (!topic.deleted) this.#lines.set(topic, line);
    return line;
  }

  #close(topic: Topic): void {
    if (this.#lines.get(topic)?.isEmpty) this.#lines.delete(topic);
  }

  #queue(name: string): Topic {
    const topic = this.#topics.existing(name);
    if (topic.isReserved) throw readOnly(name);
    if (topic.jobs === undefined) throw new ApiError("not_a_queue", { topic: name });
    return topic;
  }
}

const clampLease = (ms: number): number => clamp(ms, LEASE_MS_MIN, LEASE_MS_MAX);

function allowNode(node: string): void {
  if (node === "" || Buffer.byteLength(node) > NODE_BYTES_MAX) {
    throw invalid(`node: 1 to ${NODE_BYTES_MAX} bytes`);
  }
}

function claimantOf(
  node: string,
  wanted: number,
  leaseMs: number | null | undefined,
  stream: number | null,
): Claimant {
  const max = clamp(wanted, 1, CLAIM_JOBS_MAX);
  const random = Buffer.from(crypto.getRandomValues(new Uint8Array(8 * max))).toString("hex");
  return { node, max, leaseMs: leaseMs == null ? null : clampLease(leaseMs), stream, random };
}

/** The lease that an id names; null for the empty text, which names none. */
function leaseOf(id: string): string | null {
  if (id === "") return null;
  const digits = LEASE_ID.exec(id)?.[1];
  if (digits === undefined) throw invalid("lease_ids: a lease id is lease_ and up to 16 hexadecimal digits");
  return canonical(digits);
}

/** The seqs that were skipped, as they were sent: also those that no number can hold. */
const skippedOf = ({ seqs }: Ack, { skipped }: JobsHeld): Acked["skipped"] =>
  skipped.map((i) => toldBack(seqs[i]!));
