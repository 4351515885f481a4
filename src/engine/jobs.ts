/**
 * The jobs of one queue that were leased at least once, in memory: who holds them until when, and how often they
 * were delivered. Every other live record of the queue is a job that waits for its first lease.
 *
 * What time alone does, the end of leases and delays, is applied by `settle` before anything else looks. Commands
 * change jobs between `begin` and the end of their transaction, and `undo` takes that back.
 */
import type { JobRow } from "../store/jobs.ts";
import { Heap } from "./heap.ts";

export interface Job {
  readonly deliveries: number;
  /** Of its record. */
  readonly tag: string | null;
  readonly bytes: number;
  /** The id of its lease, while there is one, and who holds it. */
  readonly lease: string | null;
  readonly node: string | null;
  /** The stream that the lease was given out on. */
  readonly stream: number | null;
  /** With a lease its deadline; without one the end of a delay, or 0. Ms since the Unix epoch. */
  readonly until: number;
  /** The record was deleted under the lease, which lives on until its holder or the deadline ends it. */
  readonly gone: boolean;
}

interface Due {
  readonly at: number;
  readonly seq: number;
}

/** Entries of a heap that mean nothing any more are dropped when they are the most. */
const STALE_MIN = 1024;

const isWaiting = (job: Job): boolean => job.lease === null && job.until === 0;
const isDelayed = (job: Job): boolean => job.lease === null && job.until > 0;

/** A lease holds at its deadline still, and a delay is over at its end. */
const dueAt = ({ lease, until }: Job): number => (lease === null ? until : until + 1);

/** The job without its lease, waiting from `until` on. */
export const returned = (job: Job, until = 0): Job => ({
  ...job,
  lease: null,
  node: null,
  stream: null,
  until,
});

export class Jobs {
  /** By seq, ascending, since leases are first given in that order. */
  #jobs = new Map<number, Job>();
  /** Jobs without a record. */
  readonly #gone = new Map<number, Job>();
  readonly #waiting = new Heap<number>((a, b) => a < b);
  /** Waiting jobs that can be neither delivered nor moved, out of the line so that they hold up no claim. */
  #aside: number[] = [];
  readonly #due = new Heap<Due>((a, b) => a.at < b.at);
  readonly #streams = new Map<number, Set<number>>();
  readonly #freed = new Set<number>();
  #before = new Map<number, Job | undefined>();
  #figuresBefore = { leasedUpTo: 0, deadLettered: 0 };
  #waitingCount = 0;
  /** Jobs that are leased, and jobs that are held back by a delay. */
  inFlight = 0;
  delayed = 0;
  /** The last seq that was ever leased. */
  leasedUpTo = 0;
  /** How many went to dead letters. */
  deadLettered = 0;
  /** Counts changes: of anything, and of what is stored. */
  changes = 0;
  storedChanges = 0;

  constructor(rows: readonly JobRow[] = [], deadLettered = 0) {
    for (const { seq, ...row } of rows) this.#place(seq, undefined, { ...row, stream: null, gone: false });
    this.leasedUpTo = rows.at(-1)?.seq ?? 0;
    this.deadLettered = deadLettered;
  }

  get(seq: number): Job | undefined {
    return this.#jobs.get(seq) ?? this.#gone.get(seq);
  }

  set(seq: number, job: Job | undefined): void {
    const old = this.get(seq);
    if (!this.#before.has(seq)) this.#before.set(seq, old);
    this.storedChanges++;
    this.#place(seq, old, job);
  }

  /** The record of `seq` is gone. */
  drop(seq: number): void {
    const job = this.#jobs.get(seq);
    if (job) this.set(seq, job.lease === null ? undefined : { ...job, gone: true });
  }

  /** The records up to `seq` are gone. */
  dropUpTo(seq: number): void {
    for (const known of this.#jobs.keys()) {
      if (known > seq) return;
      this.drop(known);
    }
  }

  /** The records that `isGone` says so of are gone. */
  dropWhere(isGone: (seq: number, tag: string | null) => boolean): void {
    for (const [seq, { tag }] of this.#jobs) if (isGone(seq, tag)) this.drop(seq);
  }

  /** When the next lease or delay ends. */
  get nextDue(): number {
    for (;;) {
      const due = this.#due.least;
      if (due === undefined) return Number.POSITIVE_INFINITY;
      if (this.#isDue(due)) return due.at;
      this.#due.pop();
    }
  }

  /** Whether a lease or a delay is over at `now`. */
  hasDue(now: number): boolean {
    return this.nextDue <= now;
  }

  /** Ends the leases and delays that are over at `now`. */
  settle(now: number): void {
    while (this.hasDue(now)) {
      const { seq } = this.#due.pop()!;
      const job = this.get(seq)!;
      // Also what is stored says that it is over, so there is nothing to note.
      this.#place(seq, job, job.gone ? undefined : returned(job));
    }
  }

  /** Takes the waiting job with the lowest seq from the line. It is leased or put back by `set` or `putBack`. */
  takeWaiting(): number | undefined {
    for (;;) {
      const seq = this.#waiting.pop();
      if (seq === undefined) return undefined;
      const job = this.#jobs.get(seq);
      if (job && isWaiting(job)) return seq;
    }
  }

  /** Puts a job that was taken from the line back into it. */
  putBack(seq: number): void {
    this.#waiting.push(seq);
  }

  /** Keeps a job that was taken from the line out of it. */
  setAside(seq: number): void {
    this.#aside.push(seq);
  }

  /** One of the jobs that are set aside and still wait. */
  takeAside(): number | undefined {
    for (;;) {
      const seq = this.#aside.pop();
      const job = seq === undefined ? undefined : this.#jobs.get(seq);
      if (seq === undefined || (job && isWaiting(job))) return seq;
    }
  }

  /** Puts all jobs that were set aside back into the line. */
  restoreAside(): void {
    for (const seq of this.#aside) this.#waiting.push(seq);
    this.#aside = [];
  }

  /** Seqs of the leases that were given out on a stream and run. */
  heldOn(stream: number): ReadonlySet<number> {
    return this.#streams.get(stream) ?? nothing;
  }

  /** Streams on which a lease has ended since this was last asked for. */
  takeFreed(): number[] {
    const freed = [...this.#freed];
    this.#freed.clear();
    return freed;
  }

  /** A transaction begins. */
  begin(): void {
    this.#before.clear();
    this.#figuresBefore = { leasedUpTo: this.leasedUpTo, deadLettered: this.deadLettered };
  }

  /** What the transaction has changed that is to be stored: jobs by seq, undefined where there is none. */
  *changed(): Generator<[seq: number, job: Job | undefined]> {
    for (const seq of this.#before.keys()) yield [seq, this.#jobs.get(seq)];
  }

  get deadLetteredChanged(): boolean {
    return this.deadLettered !== this.#figuresBefore.deadLettered;
  }

  /** Every job is to be stored, since what was there does not count. */
  storeAll(): void {
    for (const [seq, job] of this.#jobs) if (!this.#before.has(seq)) this.#before.set(seq, job);
  }

  /** The transaction was rolled back. */
  undo(): void {
    Object.assign(this, this.#figuresBefore);
    this.restoreAside();
    if (this.#before.size === 0) return;
    for (const [seq, job] of this.#before) this.#place(seq, this.get(seq), job);
    this.#before.clear();
    this.#jobs = new Map([...this.#jobs].sort(([a], [b]) => a - b));
  }

  #isDue({ at, seq }: Due): boolean {
    const job = this.get(seq);
    return job !== undefined && !isWaiting(job) && dueAt(job) === at;
  }

  /** The one place where jobs change: counts and lines follow. */
  #place(seq: number, old: Job | undefined, job: Job | undefined): void {
    this.changes++;
    if (old) this.#count(seq, old, -1);
    if (old && old.gone !== job?.gone) (old.gone ? this.#gone : this.#jobs).delete(seq);
    if (job === undefined) return;
    (job.gone ? this.#gone : this.#jobs).set(seq, job);
    this.#count(seq, job, 1);
    if (isWaiting(job)) this.#waiting.push(seq);
    else this.#due.push({ at: dueAt(job), seq });
    this.#dropStale();
  }

  #count(seq: number, job: Job, change: 1 | -1): void {
    if (isWaiting(job)) this.#waitingCount += change;
    else if (!job.gone && isDelayed(job)) this.delayed += change;
    else if (!job.gone) this.inFlight += change;
    if (job.stream === null) return;
    const held = this.#streams.get(job.stream) ?? new Set();
    this.#streams.set(job.stream, held);
    if (change === 1) held.add(seq);
    else {
      held.delete(seq);
      this.#freed.add(job.stream);
    }
    if (held.size === 0) this.#streams.delete(job.stream);
  }

  #dropStale(): void {
    const due = this.#jobs.size + this.#gone.size - this.#waitingCount;
    if (this.#due.size > 2 * due + STALE_MIN) {
      this.#due.clear();
      for (const jobs of [this.#jobs, this.#gone])
        for (const [seq, job] of jobs) if (!isWaiting(job)) this.#due.push({ at: dueAt(job), seq });
    }
    if (this.#waiting.size > 2 * this.#waitingCount + STALE_MIN) {
      this.#waiting.clear();
      this.#aside = [];
      for (const [seq, job] of this.#jobs) if (isWaiting(job)) this.#waiting.push(seq);
    }
  }
}

const nothing: ReadonlySet<number> = new Set();
