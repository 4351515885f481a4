/** The command that leases jobs. */
import { ApiError } from "../contract/errors.ts";
import { CLAIM_BYTES_MAX } from "../contract/limits.ts";
import { DamagedRecord, type RecordRow } from "../store/records.ts";
import type { Claimant, ClaimJobs, JobsLeased, LeasedJob } from "./commands.ts";
import { isPoison, moveToDeadLetters } from "./deadletter.ts";
import { readRows, readSoundRows } from "./gaps.ts";
import type { Group } from "./group.ts";
import type { Job, Jobs } from "./jobs.ts";
import { queueIn } from "./leases.ts";
import { firstCounted } from "./live.ts";
import { rowsWithin } from "./reader.ts";
import type { Topic } from "./topic.ts";

/** So many records are passed over, or moved to dead letters, by one claim. */
const PASSED_MAX = 2000;
/** Never leased jobs are read so many at a time. */
const READ_MAX = 256;

/**
 * Leases jobs that come back first, lowest seq first, then those that were never leased. One that was delivered too
 * often goes to the dead letters instead, and does not count.
 */
export function claim(group: Group, { topic: name, claimants, evenly, now }: ClaimJobs): JobsLeased {
  const { topic, jobs } = queueIn(group, name, now);
  const shares = claimants.map((claimant) => new Share(topic, claimant, now));
  const supply = new Supply(group, topic, jobs, now);
  try {
    let wanted = shares.reduce((sum, { claimant }) => sum + claimant.max, 0);
    for (let open = shares; open.length > 0; open = open.filter((share) => !share.full)) {
      for (const share of open) {
        do {
          const next = supply.take(wanted--);
          if (next === undefined) return outcome(topic, shares, supply.exhausted);
          jobs.set(next.row.seq, share.lease(next.row, next.job));
        } while (!evenly && !share.full);
      }
    }
    return outcome(topic, shares, supply.exhausted);
  } catch (error) {
    if (!(error instanceof DamagedRecord)) throw error;
    if (supply.moved > 0 || shares.some(({ jobs }) => jobs.length > 0)) return outcome(topic, shares, true);
    throw new ApiError(
      "internal",
      { topic: name, seq: error.seq },
      `job ${error.seq} of queue "${name}" is damaged in storage; once those before it are done, before_seq ` +
        `${error.seq + 1} deletes it`,
    );
  }
}

const outcome = (topic: Topic, shares: readonly Share[], more: boolean): JobsLeased => ({
  shares: shares.map(({ jobs }) => jobs.sort((a, b) => a.row.seq - b.row.seq)),
  ready: topic.ready,
  more,
});

/** What one claimant gets. */
class Share {
  readonly claimant: Claimant;
  readonly jobs: LeasedJob[] = [];
  readonly #deadline: number;
  #bytes = 0;

  constructor({ config }: Topic, claimant: Claimant, now: number) {
    this.claimant = claimant;
    this.#deadline = now + (claimant.leaseMs ?? config.lease_ms);
  }

  get full(): boolean {
    return this.jobs.length >= this.claimant.max || this.#bytes >= CLAIM_BYTES_MAX;
  }

  lease(row: RecordRow, before: Job | undefined): Job {
    const { node, stream, random } = this.claimant;
    const at = 16 * this.jobs.length;
    const lease = canonical(random.slice(at, at + 16));
    const deliveries = (before?.deliveries ?? 0) + 1;
    this.jobs.push({ row, lease, deadline: this.#deadline, deliveries });
    this.#bytes += row.bytes;
    const { tag, bytes } = row;
    return { deliveries, tag, bytes, lease, node, stream, until: this.#deadline, gone: false };
  }
}

/** One spelling of a number in hexadecimal. */
export function canonical(hex: string): string {
  const lower = hex.toLowerCase();
  return lower.startsWith("0") ? lower.replace(/^0+(?=.)/, "") : lower;
}

/** The jobs of a queue in the order in which they are leased. */
class Supply {
  readonly #group: Group;
  readonly #topic: Topic;
  readonly #jobs: Jobs;
  readonly #now: number;
  /** Never leased ones that were read ahead, the next one last. */
  #fresh: RecordRow[] = [];
  /** Whether jobs can be moved to the dead letters; not known before one was tried. */
  #moves: boolean | undefined;
  #passed = 0;
  moved = 0;

  constructor(group: Group, topic: Topic, jobs: Jobs, now: number) {
    this.#group = group;
    this.#topic = topic;
    this.#jobs = jobs;
    this.#now = now;
    // One of those that were set aside shows whether they still have to be.
    const probe = jobs.takeAside();
    if (probe === undefined) return;
    jobs.putBack(probe);
    if (!isPoison(topic, jobs.get(probe)!)) jobs.restoreAside();
  }

  /** Whether it ended before the last job, since enough were passed over. */
  get exhausted(): boolean {
    return this.#passed >= PASSED_MAX || this.moved >= PASSED_MAX;
  }

  /** The next job; `wanted` more will be asked for at most. */
  take(wanted: number): { row: RecordRow; job: Job | undefined } | undefined {
    while (!this.exhausted) {
      const seq = this.#jobs.takeWaiting();
      if (seq === undefined) {
        const row = this.#takeFresh(wanted);
        return row && { row, job: undefined };
      }
      try {
        const job = this.#jobs.get(seq)!;
        if (!isPoison(this.#topic, job)) return { row: this.#rowOf(seq), job };
        if (this.#move(seq, job)) this.moved++;
        else this.#jobs.setAside(seq);
      } catch (error) {
        this.#jobs.putBack(seq);
        throw error;
      }
    }
    return undefined;
  }

  /** Where one job cannot be moved, no other one can. */
  #move(seq: number, job: Job): boolean {
    if (this.#moves === false) return false;
    this.#moves = moveToDeadLetters(this.#group, this.#topic, this.#rowOf(seq), job, this.#now);
    if (this.#moves) this.#jobs.restoreAside();
    return this.#moves;
  }

  #rowOf(seq: number): RecordRow {
    const [row] = readRows(this.#topic, seq - 1, seq, 1);
    if (row === undefined) throw new DamagedRecord(seq);
    return row;
  }

  #takeFresh(wanted: number): RecordRow | undefined {
    const { log } = this.#topic;
    while (this.#fresh.length === 0) {
      const after = Math.max(this.#jobs.leasedUpTo, log.earliest - 1);
      if (after >= log.head || this.exhausted) return undefined;
      this.#readFresh(after, Math.min(Math.max(wanted, 1), READ_MAX));
    }
    const row = this.#fresh.pop()!;
    this.#jobs.leasedUpTo = row.seq;
    return row;
  }

  /** Reads up to `most` rows behind `after`, and passes over those that are hidden. */
  #readFresh(after: number, most: number): void {
    const topic = this.#topic;
    const { head } = topic.log;
    const start = topic.tagDeletes.length === 0 ? after : Math.min(head, firstCounted(topic, after + 1) - 1);
    const limit = rowsWithin(topic, start, head, most);
    const { rows, looked } = readSoundRows(topic, start, head, limit);
    const live = rows.filter(({ seq, tag }) => !topic.isDeleted(seq, tag));
    this.#passed += rows.length - live.length;
    if (live.length === 0) this.#jobs.leasedUpTo = looked;
    this.#fresh = live.reverse();
  }
}
