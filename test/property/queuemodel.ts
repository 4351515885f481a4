/**
 * Queues, and the logs their dead letters go to, as plainly as they can be said: a list of all jobs ever
 * written, each dead or alive, with the lease it was given last. Nothing happens by time alone; what time has
 * done is found when somebody looks.
 */
import { members } from "../support/rawjson.ts";

export interface ModelConfig {
  readonly type: "log" | "queue";
  readonly durability: "disk" | "fsync" | "ephemeral";
  readonly ttl_ms: number;
  readonly cap_records: number;
  readonly discard: "old" | "reject";
  readonly lease_ms: number;
  readonly max_deliveries: number;
  readonly dead_letter: string | null;
  readonly leases_durable: boolean;
}

export const plainLog: ModelConfig = {
  type: "log",
  durability: "disk",
  ttl_ms: 0,
  cap_records: 0,
  discard: "old",
  lease_ms: 30_000,
  max_deliveries: 0,
  dead_letter: null,
  leases_durable: false,
};

/** A meta is its text as sent or, in a dead letter, the texts of its members. */
type Meta = string | ReadonlyMap<string, string>;

export interface ModelInput {
  readonly data: string;
  readonly tag: string | undefined;
  readonly node: string | undefined;
  readonly meta: Meta | undefined;
}

export interface Lease {
  readonly node: string;
  readonly id: string;
  readonly deadline: number;
}

export interface Job extends ModelInput {
  readonly seq: number;
  readonly ts: number;
  alive: boolean;
  deliveries: number;
  /** The last one, running or over. A job that was deleted keeps it until its deadline. */
  lease: Lease | undefined;
  delayedUntil: number;
  /** Nothing is promised about the lease of a job that was deleted before a restart. */
  unsure: boolean;
}

/** One entry of `claimed`, without the id that only the server can choose. */
export interface Claimed {
  readonly seq: number;
  readonly deadline: number;
  readonly ts: number;
  readonly tag: string | undefined;
  readonly deliveries: number;
  readonly data: string;
  readonly meta: Meta | undefined;
}

/** One entry of a request to ack, nack or extend. */
export interface Pick {
  readonly seq: number;
  /** The token as a number; undefined asks for no fence. */
  readonly token: bigint | undefined;
}

const clamp = (value: number, min: number, max: number) => Math.min(Math.max(value, min), max);
const leaseMs = (ms: number) => clamp(ms, 100, 86_400_000);
export const tokenOf = (id: string): bigint => BigInt(`0x${id.slice("lease_".length)}`);

export class ModelTopic {
  readonly name: string;
  config: ModelConfig;
  /** What the server said it is. */
  epoch: number;
  jobs: Job[] = [];
  head = 0;
  lastTs = 0;
  deadLettered = 0;

  constructor(name: string, config: ModelConfig, epoch: number) {
    this.name = name;
    this.config = config;
    this.epoch = epoch;
  }

  get live(): Job[] {
    return this.jobs.filter((job) => job.alive);
  }

  job(seq: number): Job | undefined {
    return this.jobs.find((job) => job.seq === seq);
  }

  isLeased = (job: Job, now: number): boolean => job.lease !== undefined && now <= job.lease.deadline;
  isWaiting = (job: Job, now: number): boolean => !this.isLeased(job, now) && now >= job.delayedUntil;

  counters(now: number) {
    this.expire(now);
    const ready = this.live.filter((job) => this.isWaiting(job, now)).length;
    const in_flight = this.live.filter((job) => this.isLeased(job, now)).length;
    return { ready, in_flight };
  }

  state(now: number) {
    const queue = { ...this.counters(now), dead_lettered: this.deadLettered };
    const { live, head, epoch } = this;
    const shown = { epoch, head_seq: head, earliest_seq: live[0]?.seq ?? head + 1, count: live.length };
    return this.config.type === "queue" ? { ...shown, queue } : shown;
  }

  /** What all live records take; undefined if a dead letter is among them, whose spelling is free. */
  get bytes(): number | undefined {
    let sum = 0;
    for (const { data, meta } of this.live) {
      if (meta instanceof Map) return undefined;
      sum += Buffer.byteLength(data) + Buffer.byteLength((meta as string | undefined) ?? "");
    }
    return sum;
  }

  configure(config: ModelConfig, now: number): void {
    this.config = config;
    this.expire(now);
    this.evict();
  }

  /** The code of the refusal, or undefined if the records are appended. */
  produce(inputs: readonly ModelInput[], now: number): string | undefined {
    this.expire(now);
    const { cap_records, discard } = this.config;
    if (discard === "reject" && cap_records > 0) {
      if (inputs.length > cap_records) return "record_too_large";
      if (this.live.length + inputs.length > cap_records) return "topic_full";
    }
    this.append(inputs, now);
    return undefined;
  }

  /** Appends, full or not. */
  append(inputs: readonly ModelInput[], now: number): void {
    this.expire(now);
    this.lastTs = Math.max(now, this.lastTs);
    for (const input of inputs) {
      const fresh = { alive: true, deliveries: 0, lease: undefined, delayedUntil: 0, unsure: false };
      this.jobs.push({ ...input, ...fresh, seq: ++this.head, ts: this.lastTs });
    }
    this.evict();
  }

  /** The number of jobs deleted. */
  delete(before: number | undefined, tag: string | undefined, now: number): number {
    this.expire(now);
    const selected = this.live.filter(
      (job) => (before === undefined || job.seq < before) && (tag === undefined || job.tag === tag),
    );
    for (const job of selected) job.alive = false;
    return selected.length;
  }

  /** Leases up to `max` jobs; what was delivered too often goes to `bury` instead. */
  claim(
    request: { now: number; node: string; max: number; lease_ms: number | undefined },
    bury: (job: Job) => void,
  ): Claimed[] {
    const { now, node, max } = request;
    const { max_deliveries, dead_letter } = this.config;
    this.expire(now);
    const waiting = this.live.filter((job) => this.isWaiting(job, now));
    const again = waiting.filter((job) => job.deliveries > 0);
    const fresh = waiting.filter((job) => job.deliveries === 0);
    const deadline = now + leaseMs(request.lease_ms ?? this.config.lease_ms);
    const taken: Job[] = [];
    for (const job of [...again, ...fresh]) {
      if (taken.length === Math.max(max, 1)) break;
      if (max_deliveries > 0 && dead_letter !== null && job.deliveries >= max_deliveries) {
        bury(job);
        job.alive = false;
        job.lease = undefined;
        this.deadLettered++;
        continue;
      }
      job.deliveries++;
      job.delayedUntil = 0;
      job.lease = { node, id: "", deadline };
      taken.push(job);
    }
    taken.sort((a, b) => a.seq - b.seq);
    return taken.map(({ seq, ts, tag, deliveries, data, meta }) => ({
      seq,
      deadline,
      ts,
      tag,
      deliveries,
      data,
      meta,
    }));
  }

  /** Notes the id the server has given to the lease just taken. */
  note(seq: number, id: string): void {
    const job = this.job(seq)!;
    job.lease = { ...job.lease!, id };
  }

  ack(node: string, picks: readonly Pick[], now: number) {
    const { done, skipped } = this.#settle(node, picks, now, (job) => {
      job.lease = undefined;
      job.alive = false;
    });
    return { acked: done.length, skipped, ...this.counters(now) };
  }

  nack(node: string, picks: readonly Pick[], delayMs: number, now: number) {
    const { done, skipped } = this.#settle(node, picks, now, (job) => {
      job.lease = undefined;
      job.delayedUntil = now + delayMs;
    });
    return { nacked: done.length, skipped, ...this.counters(now) };
  }

  extend(node: string, picks: readonly Pick[], ms: number, now: number) {
    const deadline = now + leaseMs(ms);
    const { done, skipped } = this.#settle(node, picks, now, (job) => {
      job.lease = { ...job.lease!, deadline };
    });
    const deadlines = Object.fromEntries(done.map((seq) => [String(seq), deadline]));
    return { extended: done.length, skipped, deadlines };
  }

  #settle(node: string, picks: readonly Pick[], now: number, change: (job: Job) => void) {
    this.expire(now);
    const done: number[] = [];
    const skipped: number[] = [];
    for (const { seq, token } of picks) {
      const job = this.job(seq);
      const holds =
        job?.lease !== undefined &&
        this.isLeased(job, now) &&
        job.lease.node === node &&
        (token === undefined || token === tokenOf(job.lease.id));
      if (holds) change(job);
      (holds ? done : skipped).push(seq);
    }
    return { done, skipped };
  }

  /** What a stop and a start leave. `head` is the one the server came back with. */
  restart(isCrash: boolean, found: { readonly epoch: number; readonly head_seq: number }): void {
    const { durability, leases_durable } = this.config;
    if (durability === "ephemeral") {
      if (isCrash) {
        this.head = found.head_seq;
        this.epoch = found.epoch;
      }
      this.jobs = [];
      this.deadLettered = 0;
      return;
    }
    for (const job of this.jobs) {
      if (leases_durable) {
        job.unsure ||= !job.alive && job.lease !== undefined;
        continue;
      }
      job.deliveries = 0;
      job.lease = undefined;
      job.delayedUntil = 0;
    }
  }

  expire(now: number): void {
    const { ttl_ms } = this.config;
    if (ttl_ms === 0) return;
    for (const job of this.live) if (now - job.ts > ttl_ms) job.alive = false;
  }

  evict(): void {
    const { cap_records, discard } = this.config;
    if (discard === "reject" || cap_records === 0) return;
    for (const job of this.live.slice(0, Math.max(this.live.length - cap_records, 0))) job.alive = false;
  }
}

/** The dead letter of a job: its own meta with four more members, or those alone where it was no object. */
export function letterOf(job: Job, { name, epoch, config }: ModelTopic): ModelInput {
  const { seq, ts, deliveries, data, tag, node } = job;
  const isObject = typeof job.meta === "object" || job.meta?.startsWith("{") === true;
  const own = typeof job.meta === "string" ? (isObject ? members(job.meta) : []) : (job.meta ?? []);
  const origin = JSON.stringify({ topic: name, epoch, seq, ts, deliveries }).slice(0, -1);
  const meta = new Map<string, string>([
    ...own,
    ["$dead_letter_from", JSON.stringify(name)],
    ["$dead_letter_deliveries", JSON.stringify(String(config.max_deliveries))],
    ["$dead_letter_src_seq", JSON.stringify(String(seq))],
    ["$dead_letter", `${origin}${isObject || job.meta === undefined ? "" : `,"meta":${job.meta}`}}`],
  ]);
  return { data, tag, node, meta };
}

/** A meta as something to compare: a text, or its members whatever their order. */
export function comparable(meta: Meta | undefined): unknown {
  if (meta === undefined || typeof meta === "string") return meta;
  return Object.fromEntries(
    [...meta].map(([key, text]) => [key, key === "$dead_letter" ? inner(text) : text]),
  );
}

/** What came back, as `comparable` has it for what was expected. */
export function comparableLike(expected: Meta | undefined, found: string | undefined): unknown {
  if (expected === undefined || typeof expected === "string" || found === undefined) return found;
  return comparable(members(found));
}

const inner = (object: string) => Object.fromEntries(members(object));
