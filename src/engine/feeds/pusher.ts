/** Sends a peer what it is to get, in order, each at least once: the next only when the last has been taken. */
import { PUSH_EVENTS_MAX } from "../../contract/limits.ts";
import type { Commits } from "../commit.ts";
import { carried, scopeOf } from "./event.ts";
import type { FeedLog } from "./feedlog.ts";
import type { Batch, Outbox, Progress } from "./outbox.ts";
import type { Peer } from "./peer.ts";
import { RemoteFailure } from "./remote.ts";
import type { Scopes } from "./scope.ts";

const TIMEOUT_MS = 10_000;
/** Events of one push; the receiver takes twice that. */
const BYTES_MAX = 4 * 1024 * 1024;
/** After one that was taken, a push may hold so many more. */
const GROWTH = 8;
/** How often it is seen whether a peer still reads by itself. */
const WAIT_MS = 500;
/** How often it is noted that there was nothing to send. */
const NOTE_MS = 1000;

export interface PusherOptions {
  readonly outbox: Outbox;
  readonly log: FeedLog;
  readonly scopes: Scopes;
  readonly commits: Commits;
  readonly nodeId: string;
  readonly networkId: string;
  /** A peer does not take some events, which are given up. */
  readonly leftOut: (peer: Peer, events: number, reason: string) => void;
  /** Takes notice of who has answered. */
  readonly meet: (peer: Peer, nodeId: string, logId: string) => Promise<void>;
}

export class Pusher {
  readonly #options: PusherOptions;
  /** How many events a push may hold: fewer when the peer refuses more, or takes too long. */
  readonly #limits = new WeakMap<Peer, number>();
  readonly #notedAt = new WeakMap<Peer, number>();

  constructor(options: PusherOptions) {
    this.#options = options;
  }

  /** One batch. Resolves with 0 while there is more. */
  async step(peer: Peer): Promise<number | undefined> {
    const { met } = peer;
    if (met === undefined) return undefined;
    const { outbox } = this.#options;
    const batch = outbox.next(met, peer.walkedSeq, this.#limits.get(peer) ?? PUSH_EVENTS_MAX);
    if (batch.seqs.length > 0) {
      await this.#send(peer, met.link, batch);
      return 0;
    }
    const progress = batch.progress(0);
    const isNoted = progress.outSeq === met.outSeq && progress.lanes.length === 0;
    peer.walkedSeq = progress.outSeq;
    if (!isNoted) {
      const waitMs = (this.#notedAt.get(peer) ?? 0) + NOTE_MS - performance.now();
      // That there was nothing to send is no news worth a write each time.
      if (batch.rest !== "more" && progress.lanes.length === 0 && waitMs > 0) return waitMs;
      await this.#note(peer, met.link, progress);
      // The walk may have been long.
      await Bun.sleep(0);
    }
    if (batch.rest === "more") return 0;
    // What had failed is not wanted any more.
    if (batch.rest === "none") peer.pushing.worked();
    return batch.rest === "none" ? undefined : WAIT_MS;
  }

  async #send(peer: Peer, link: number, batch: Batch): Promise<void> {
    const { count, events } = await this.#load(peer, batch.seqs);
    if (events.length > 0 && !(await this.#isTaken(peer, events))) return;
    // Who has another log by now has nothing of what we noted, nor has the peer if this instance has answered itself.
    if (peer.met?.link !== link || peer.nodeId === this.#options.nodeId) return;
    const progress = batch.progress(count);
    peer.walkedSeq = progress.outSeq;
    await this.#note(peer, link, progress);
  }

  /** As many of the events as one push holds, each as it is carried; and how many were looked at for that. */
  async #load(peer: Peer, seqs: readonly number[]): Promise<{ count: number; events: string[] }> {
    const { log, scopes, leftOut } = this.#options;
    const events: string[] = [];
    let bytes = 0;
    let count = 0;
    for await (const some of log.read(seqs.map((seq) => ({ seq })))) {
      for (const { row, text } of some) {
        if (text === undefined) leftOut(peer, 1, `event ${row.seq} of the feed log is damaged in storage`);
        // It may have been another setting that let it go.
        else if (!scopes.stays(scopeOf(text))) {
          bytes += Buffer.byteLength(text);
          if (bytes > BYTES_MAX && events.length > 0) return { count, events };
          events.push(carried(text));
        }
        count++;
      }
    }
    return { count, events };
  }

  /** Whether the peer is done with the events: it has them, or does not want to. */
  async #isTaken(peer: Peer, events: readonly string[]): Promise<boolean> {
    const { log, nodeId: from, networkId: network_id, leftOut, meet } = this.#options;
    using deadline = peer.deadline(TIMEOUT_MS);
    try {
      const push = { from, network_id, log_id: log.id, events };
      const answer = await peer.remote.push(push, deadline.signal);
      peer.pushes++;
      await meet(peer, answer.node_id, answer.log_id);
      peer.answered(peer.pushing);
      const { length, 0: first } = answer.rejected;
      if (first) leftOut(peer, length, first.error);
    } catch (error) {
      if (!(error instanceof RemoteFailure)) throw error;
      // Fewer may be taken, and in time.
      if (events.length > 1 && (error.isOfContent || error.isLate)) {
        this.#limits.set(peer, Math.ceil(events.length / 2));
      }
      if (!error.isOfContent) throw error;
      if (events.length > 1) return false;
      leftOut(peer, 1, error.message);
    }
    const limit = this.#limits.get(peer) ?? PUSH_EVENTS_MAX;
    this.#limits.set(peer, Math.min(limit + GROWTH, PUSH_EVENTS_MAX));
    return true;
  }

  async #note(peer: Peer, link: number, { outSeq, lanes }: Progress): Promise<void> {
    await this.#options.commits.submit({ kind: "note_sent", link, outSeq, lanes });
    this.#notedAt.set(peer, performance.now());
    if (peer.met?.link === link) peer.met = { ...peer.met, outSeq };
  }
}
