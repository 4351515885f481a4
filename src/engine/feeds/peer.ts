/** One configured peer: who answers at its URL, and how it goes. */
import type { PeerState } from "../../contract/peers.ts";
import type { PeerRow } from "../../store/feeds/peers.ts";
import { Effort, type EffortEvents } from "./effort.ts";
import { type Remote, RemoteFailure } from "./remote.ts";

export interface PeerEvents {
  readonly push: (peer: Peer) => Promise<number | undefined>;
  readonly pull: (peer: Peer) => Promise<number | undefined>;
  /** The link has come up, or gone down with that reason. */
  readonly turned: (peer: Peer, reason: string | null) => void;
  readonly now: () => number;
}

export class Peer {
  readonly url: string;
  readonly remote: Remote;
  /** What goes to it, and what is asked of it. */
  readonly pushing: Effort;
  readonly pulling: Effort;
  /** The instance behind the URL, as far as it is known. */
  met: PeerRow | undefined;
  nodeId: string | null = null;
  /** Up to where our log is walked for it. What is noted of that, with `met`, may be behind. */
  walkedSeq = 0;
  /** Lanes that are to be read at once. */
  readonly lanesAsked = new Set<number>();
  /** When all lanes are to be read again, by the process's monotonic clock. */
  pullDueAt = 0;
  /** Exchanges that worked, and that did not. */
  pushes = 0;
  pulls = 0;
  failures = 0;
  readonly #events: PeerEvents;
  readonly #ended = new AbortController();
  #running: Promise<unknown> = Promise.resolve();
  #isConnected = false;
  #lastOkAt: number | null = null;
  #lastError: string | null = null;

  constructor(url: string, remote: Remote, events: PeerEvents) {
    this.url = url;
    this.remote = remote;
    this.#events = events;
    this.pushing = new Effort(this.#effort(events.push));
    this.pulling = new Effort(this.#effort(events.pull));
  }

  #effort(step: PeerEvents["push"]): EffortEvents {
    return {
      step: () => step(this),
      failed: (error) => this.#failed(error),
      isPassing: (error) => !(error instanceof RemoteFailure) || error.isPassing,
    };
  }

  get isConnected(): boolean {
    return this.#isConnected;
  }

  get state(): PeerState {
    return {
      url: this.url,
      node_id: this.nodeId,
      connected: this.#isConnected,
      out_seq: this.walkedSeq,
      last_ok_at: this.#lastOkAt,
      last_error: this.#lastError,
    };
  }

  start(): void {
    const { signal } = this.#ended;
    this.#running = Promise.all([this.pushing.run(signal), this.pulling.run(signal)]);
  }

  /** Resolves when nothing is under way any more. */
  async end(): Promise<void> {
    this.#ended.abort();
    await this.#running;
  }

  /** An exchange has worked: what else had failed may work again, too. */
  answered(effort: Effort): void {
    this.#lastOkAt = this.#events.now();
    const other = effort === this.pushing ? this.pulling : this.pushing;
    if (effort.worked()) other.resume();
    if (this.#isConnected || other.isFailing) return;
    this.#isConnected = true;
    this.#lastError = null;
    // What has come up meanwhile is asked for at once, unless that is what is going on.
    if (effort === this.pushing) this.pullDueAt = 0;
    this.#events.turned(this, null);
  }

  /** Aborts after so many ms, and when this peer is left. To be disposed of. */
  deadline(ms: number): Disposable & { readonly signal: AbortSignal } {
    const late = new AbortController();
    const timer = setTimeout(() => late.abort(new DOMException("no answer in time", "TimeoutError")), ms);
    const signal = AbortSignal.any([this.#ended.signal, late.signal]);
    return { signal, [Symbol.dispose]: () => clearTimeout(timer) };
  }

  #failed(error: unknown): void {
    this.failures++;
    const reason = error instanceof Error ? error.message : String(error);
    const isNews = this.#isConnected || this.#lastError === null;
    this.#isConnected = false;
    this.#lastError = reason;
    if (isNews) this.#events.turned(this, reason);
  }
}
