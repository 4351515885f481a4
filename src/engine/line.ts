/**
 * Who waits for jobs of one queue: claims that share a window, and streams with room for more.
 *
 * Nothing here polls. A stream is served when a commit has brought jobs or freed its room, or when a timer for the
 * next lease or delay to end goes off. Streams are served in the order in which they began to wait.
 */
import { ApiError } from "../contract/errors.ts";
import type { Claimant, JobsLeased, LeasedJob } from "./commands.ts";
import type { Commits } from "./commit.ts";
import { clamp } from "./config.ts";
import type { Topic } from "./topic.ts";

/** A claim that waits for the end of a window. */
interface Waiting {
  readonly claimant: Claimant;
  readonly resolve: (share: Served) => void;
  readonly reject: (error: unknown) => void;
}

export interface Served {
  readonly jobs: readonly LeasedJob[];
  readonly ready: number;
}

/** A stream of work. Its `claimant` asks for all the room it has at a time. */
export interface Stream {
  readonly id: number;
  /** How many jobs it may hold. */
  readonly depth: number;
  readonly claimant: (max: number) => Claimant;
  /** Gets jobs, or what ends the stream. */
  readonly serve: (jobs: readonly LeasedJob[] | Error) => void;
}

/** Longer timers would overflow. */
const TIMER_MS_MAX = 2 ** 31 - 1;

export class Line {
  readonly #topic: Topic;
  readonly #commits: Commits;
  readonly #now: () => number;
  readonly #open = new Set<number>();
  /** Streams that want jobs: with room, without, and those that a claim is under way for. */
  #idle = new Map<number, Stream>();
  readonly #full = new Map<number, Stream>();
  readonly #taken = new Map<number, Stream>();
  #claims: Waiting[] = [];
  #window: Timer | undefined;
  #due: Timer | undefined;
  #serving = false;
  /** While a claim was under way, something has changed, or a window has ended. */
  #again = false;
  #isWindowOver = false;

  constructor(topic: Topic, commits: Commits, now: () => number) {
    this.#topic = topic;
    this.#commits = commits;
    this.#now = now;
  }

  get isEmpty(): boolean {
    return this.#open.size === 0 && this.#claims.length === 0 && this.#window === undefined;
  }

  /** Waits for the end of the window, which it opens if there is none. Throws what a claim may. */
  async claim(claimant: Claimant, signal: AbortSignal): Promise<Served> {
    const { promise, resolve, reject } = Promise.withResolvers<Served>();
    const waiting = { claimant, resolve, reject };
    // Who has left gets no share.
    const leave = () => {
      this.#claims = this.#claims.filter((other) => other !== waiting);
      resolve({ jobs: [], ready: this.#topic.ready });
    };
    if (signal.aborted) leave();
    else {
      this.#claims.push(waiting);
      this.#openWindow();
    }
    signal.addEventListener("abort", leave);
    try {
      return await promise;
    } finally {
      signal.removeEventListener("abort", leave);
    }
  }

  /** A stream begins. */
  join({ id }: Stream): void {
    this.#open.add(id);
  }

  /** The stream wants jobs. It gets some once, or an error, unless it leaves before. */
  want(stream: Stream): void {
    (this.#roomOf(stream) > 0 ? this.#idle : this.#full).set(stream.id, stream);
    this.check();
  }

  /** The stream is over. */
  leave(stream: Stream): void {
    this.#remove(stream);
    this.#open.delete(stream.id);
    if (this.#open.size === 0) this.#stopTimer();
  }

  #remove({ id }: Stream): void {
    for (const streams of [this.#idle, this.#full, this.#taken]) streams.delete(id);
  }

  /** Leases have ended on streams, or have changed. */
  freed(streams: readonly number[]): void {
    for (const id of streams) {
      const stream = this.#full.get(id);
      if (stream === undefined || this.#roomOf(stream) <= 0) continue;
      this.#full.delete(id);
      this.#idle.set(id, stream);
    }
  }

  /** Serves whoever can be served now, and else sees to it that they are when they can. */
  check(): void {
    const { jobs } = this.#topic;
    if (jobs === undefined || this.#open.size === 0) return;
    if (this.#serving) {
      this.#again = true;
      return;
    }
    const isAnyDue = jobs.hasDue(this.#now());
    if (this.#idle.size > 0 && (this.#topic.ready > 0 || isAnyDue)) this.#begin();
    else if (isAnyDue) this.#sweep();
    else this.#startTimer();
  }

  /** The topic is gone. */
  end(): void {
    clearTimeout(this.#window);
    this.#window = undefined;
    this.#stopTimer();
    const gone = new ApiError("topic_not_found", { topic: this.#topic.name });
    for (const { reject } of this.#claims) reject(gone);
    this.#claims = [];
    this.#fail([...this.#idle.values(), ...this.#full.values(), ...this.#taken.values()], gone);
  }

  #roomOf({ id, depth }: Stream): number {
    return depth - (this.#topic.jobs?.heldOn(id).size ?? 0);
  }

  #startTimer(): void {
    this.#stopTimer();
    if (this.#open.size === 0) return;
    const at = this.#topic.jobs?.nextDue ?? Number.POSITIVE_INFINITY;
    if (at === Number.POSITIVE_INFINITY) return;
    this.#due = setTimeout(() => this.check(), clamp(at - this.#now(), 0, TIMER_MS_MAX));
  }

  #stopTimer(): void {
    clearTimeout(this.#due);
    this.#due = undefined;
  }

  /** Serves streams: at once, or together with the claims of a window. */
  #begin(): void {
    if (this.#topic.config.claim_jitter_ms > 0) this.#openWindow();
    else this.#serve([]);
  }

  #openWindow(): void {
    this.#window ??= setTimeout(() => {
      this.#window = undefined;
      // The claim that is under way may end with streams that share in this one.
      if (this.#serving) this.#isWindowOver = true;
      else this.#endWindow();
    }, this.#topic.config.claim_jitter_ms);
  }

  #endWindow(): void {
    const claims = this.#claims;
    this.#claims = [];
    this.#isWindowOver = false;
    this.#serve(claims);
  }

  /** Ends leases that are over, whose room is then free. */
  #sweep(): void {
    this.#commits
      .submit({ kind: "sweep", topic: this.#topic.name, now: this.#now() })
      .catch((error) => this.#fail([...this.#idle.values(), ...this.#full.values()], error));
  }

  /** One claim for all of `claims` and for as many streams as there may be jobs for. */
  async #serve(claims: readonly Waiting[]): Promise<void> {
    const evenly = this.#topic.config.claim_jitter_ms > 0;
    const streams = this.#takeStreams(evenly);
    const most = Math.max(this.#topic.ready, 1);
    const claimants = [
      ...claims.map(({ claimant }) => claimant),
      ...streams.map((stream) => stream.claimant(Math.min(this.#roomOf(stream), most))),
    ];
    if (claimants.length === 0) {
      this.#startTimer();
      return;
    }
    this.#serving = true;
    this.#again = false;
    let isMore = false;
    try {
      const claim = { kind: "claim" as const, topic: this.#topic.name, claimants, evenly, now: this.#now() };
      const { outcome } = await this.#commits.submit(claim);
      const { shares, ready, more } = outcome;
      for (const [i, { resolve }] of claims.entries()) resolve({ jobs: shares[i]!, ready });
      isMore = this.#handOut(streams, shares.slice(claims.length)) || more;
    } catch (error) {
      for (const { reject } of claims) reject(error);
      this.#fail(streams, error);
      isMore = true;
    }
    this.#serving = false;
    // Where nobody got anything, there is nothing to get until something changes.
    if (this.#isWindowOver) this.#endWindow();
    else if (isMore || this.#again) this.check();
    else this.#startTimer();
  }

  /** Streams with room, in order; unless jobs are shared evenly, no more than can get any. */
  #takeStreams(evenly: boolean): Stream[] {
    const taken: Stream[] = [];
    let ready = Math.max(this.#topic.ready, 1);
    for (const stream of this.#idle.values()) {
      if (!evenly && ready <= 0) break;
      ready -= this.#roomOf(stream);
      this.#idle.delete(stream.id);
      this.#taken.set(stream.id, stream);
      taken.push(stream);
    }
    return taken;
  }

  /** Gives each stream its share. Who gets none is the first to get some later. True if anybody got any. */
  #handOut(streams: readonly Stream[], shares: JobsLeased["shares"]): boolean {
    const unserved: Stream[] = [];
    streams.forEach((stream, i) => {
      const jobs = shares[i]!;
      // Who has left meanwhile gives back what it got.
      if (!this.#taken.delete(stream.id)) return;
      if (jobs.length === 0) unserved.push(stream);
      else stream.serve(jobs);
    });
    if (unserved.length > 0) {
      const first = unserved.map((stream) => [stream.id, stream] as const);
      this.#idle = new Map([...first, ...this.#idle]);
    }
    return unserved.length < streams.length;
  }

  #fail(streams: readonly Stream[], error: unknown): void {
    for (const stream of streams) {
      this.#remove(stream);
      stream.serve(error instanceof Error ? error : new Error(String(error)));
    }
  }
}
