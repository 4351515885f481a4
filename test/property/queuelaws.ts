/**
 * Looks on while several workers use a queue at the same time. It knows only what was asked and answered, and
 * throws with the name of the law that an answer breaks.
 */

export type Law = keyof typeof laws;

const laws = {
  lease: "no job is leased twice inside a lease",
  loss: "no job is lost: each is acked, dead-lettered, deleted or still there",
  end: "what is acked, dead-lettered or deleted does not come back",
  count: "delivery counts are exact",
  ready: "every job counted as ready is claimable",
};

export function broken(law: Law, what: string): never {
  throw new Error(`${laws[law]}: ${what}`);
}

/** What a worker was given. */
export interface Grant {
  /** The job's `data`: every job has a number of its own. */
  readonly job: number;
  readonly seq: number;
  readonly id: string;
  readonly node: string;
  readonly deadline: number;
  readonly deliveries: number;
}

/** A request and what is known of its answer; `answered` is false if the server was killed meanwhile. */
export type Deed =
  | { call: "produce"; tags: ReadonlyMap<number, string>; answered: boolean }
  | { call: "claim"; grants: readonly Grant[]; answered: boolean }
  | { call: "ack" | "nack"; asked: readonly Grant[]; skipped: readonly number[]; answered: boolean }
  | { call: "erase"; tag: string; answered: boolean };

interface Job {
  readonly tag: string;
  /** Whether it was certainly written. */
  certain: boolean;
  /** The last delivery counter heard of, and whether there may have been one more since. */
  deliveries: number;
  unheard: number;
  /** The last lease heard of, running or not. */
  lease: Grant | undefined;
  acked: boolean;
  erased: boolean;
  /** An ack or a delete of which it is not known whether it took this job. */
  maybeGone: boolean;
}

const asked = (deeds: readonly Deed[]) =>
  deeds.flatMap((deed) => (deed.call === "ack" || deed.call === "nack" ? deed : []));

export class Witness {
  readonly #jobs = new Map<number, Job>();
  readonly #leaseIds = new Set<string>();

  /** What `node` may believe to hold. */
  heldBy(node: string): Grant[] {
    return [...this.#jobs.values()].flatMap(({ lease }) => (lease?.node === node ? lease : []));
  }

  /** Takes in requests that ran at the same time, in whatever order, at the time `now`. */
  saw(deeds: readonly Deed[], now: number): void {
    const known = new Set(this.#jobs.values().filter(({ certain }) => certain));
    const over = new Set(this.#jobs.values().filter(({ acked, erased }) => acked || erased));
    for (const deed of deeds) {
      if (deed.call !== "produce") continue;
      for (const [number, tag] of deed.tags) this.#jobs.set(number, newJob(tag, deed.answered));
    }
    const released = new Set(asked(deeds).flatMap(({ asked }) => asked.map(({ job }) => job)));
    const leasedBefore = new Map(this.#jobs.entries().map(([number, { lease }]) => [number, lease]));
    this.#release(asked(deeds), now);
    for (const deed of deeds) if (deed.call === "erase") this.#erase(deed, known);
    const given = new Set<number>();
    for (const deed of deeds) {
      if (deed.call !== "claim") continue;
      for (const grant of deed.grants) {
        const { job: number } = grant;
        const job = this.#job(number);
        const lease = leasedBefore.get(number);
        const runs = lease !== undefined && now <= lease.deadline && !released.has(number);
        if (over.has(job)) broken("end", `job ${number} was handed out`);
        if (runs || given.has(number)) broken("lease", `${JSON.stringify(grant)} beside ${tell(job.lease)}`);
        given.add(number);
        this.#lease(job, grant);
      }
    }
    if (!deeds.some(({ call, answered }) => call === "claim" && !answered)) return;
    for (const [number, job] of this.#jobs) if (!given.has(number)) job.unheard++;
  }

  #release(deeds: readonly Extract<Deed, { asked: unknown }>[], now: number): void {
    const tries = new Map<string, number>();
    for (const { id } of deeds.flatMap(({ asked }) => asked)) tries.set(id, (tries.get(id) ?? 0) + 1);
    const ended = new Set<string>();
    for (const { call, asked, skipped, answered } of deeds) {
      for (const grant of asked) {
        const job = this.#job(grant.job);
        const counted = answered && !skipped.includes(grant.seq);
        const had = job.lease?.id === grant.id && now <= grant.deadline;
        if (answered && !counted && had && tries.get(grant.id) === 1) {
          broken("lease", `${tell(grant)} was running, and its holder could not ${call}`);
        }
        if (counted && (ended.has(grant.id) || now > grant.deadline)) {
          broken("lease", `${tell(grant)} was over, and ${call} counted`);
        }
        if (counted) ended.add(grant.id);
        if (counted && call === "ack") job.acked = true;
        if (!answered && call === "ack") job.maybeGone = true;
      }
    }
    for (const job of this.#jobs.values()) {
      const tried = job.lease && tries.has(job.lease.id);
      if (tried && (ended.has(job.lease!.id) || deeds.some(({ answered }) => !answered)))
        job.lease = undefined;
    }
  }

  #erase({ tag, answered }: Extract<Deed, { call: "erase" }>, known: ReadonlySet<Job>): void {
    for (const job of this.#jobs.values()) {
      if (job.tag !== tag) continue;
      if (answered && known.has(job)) job.erased = true;
      else job.maybeGone = true;
    }
  }

  #lease(job: Job, grant: Grant): void {
    if (this.#leaseIds.has(grant.id)) broken("lease", `the id of ${tell(grant)} was given before`);
    this.#leaseIds.add(grant.id);
    const due = job.deliveries + 1;
    if (grant.deliveries < due || grant.deliveries > due + job.unheard) {
      broken("count", `${tell(grant)}, and delivery ${due} was due`);
    }
    job.certain = true;
    job.deliveries = grant.deliveries;
    job.unheard = 0;
    job.lease = grant;
  }

  /** What a stop and a start leave of leases and counters. */
  restarted(leasesDurable: boolean): void {
    for (const job of this.#jobs.values()) {
      if (!leasesDurable || job.erased || job.maybeGone) job.lease = undefined;
      if (leasesDurable) continue;
      job.deliveries = 0;
      job.unheard = 0;
    }
  }

  /** Nothing is left in the queue; `buried` are the jobs among the dead letters. */
  finished(buried: readonly number[]): void {
    for (const [number, job] of this.#jobs) {
      const ends = buried.filter((one) => one === number).length + (job.acked ? 1 : 0);
      if (ends > 1) broken("end", `job ${number} has ended ${ends} times`);
      if (ends === 0 && job.certain && !job.erased && !job.maybeGone) broken("loss", `job ${number} is gone`);
    }
    for (const number of buried) if (!this.#jobs.has(number)) broken("end", `job ${number} is nobody's`);
  }

  #job(number: number): Job {
    return this.#jobs.get(number) ?? broken("end", `job ${number} was never written`);
  }
}

const newJob = (tag: string, certain: boolean): Job => ({
  tag,
  certain,
  deliveries: 0,
  unheard: 0,
  lease: undefined,
  acked: false,
  erased: false,
  maybeGone: false,
});

const tell = (grant: Grant | undefined): string => JSON.stringify(grant ?? "nothing");
