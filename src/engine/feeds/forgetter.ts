/** Removes what is known of links that are not used any more, a slice at a time. */
import type { Peers } from "../../store/feeds/peers.ts";
import type { Commits } from "../commit.ts";
import type { Group } from "../group.ts";
import type { FeedLog } from "./feedlog.ts";

const ROWS_PER_SLICE = 5000;
/** Nobody waits for it. */
const REST_MS = 20;
/** After a slice has failed, for example on a full disk. */
const RETRY_MS = 1000;

export class Forgetter implements Disposable {
  readonly #peers: Peers;
  readonly #log: FeedLog;
  readonly #commits: Commits;
  #timer: Timer | undefined;
  #closed = false;

  constructor(peers: Peers, log: FeedLog, commits: Commits) {
    this.#peers = peers;
    this.#log = log;
    this.#commits = commits;
    this.#schedule(0);
  }

  committed(group: Group): void {
    if (group.hasRetired) this.#schedule(0);
  }

  #schedule(ms: number): void {
    if (this.#closed) return;
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      this.#slice();
    }, ms);
  }

  #slice(): void {
    const { retired } = this.#peers;
    if (retired === undefined) return;
    const done = this.#commits.upkeep(() => this.#peers.forget(retired, this.#log.events, ROWS_PER_SLICE));
    this.#schedule(done ? REST_MS : RETRY_MS);
  }

  [Symbol.dispose](): void {
    this.#closed = true;
    clearTimeout(this.#timer);
  }
}
