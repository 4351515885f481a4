/** Sends a peer what it is to get, in order, each at least once: the next only when the last has been taken. */
import { PUSH_EVENTS_MAX } from "../../contract/limits.ts";
import type { Commits } from "../commit.ts";
import { carried } from "./exchange.ts";
import type { FeedLog } from "./feedlog.ts";
import type { Batch, Outbox } from "./outbox.ts";
import type { Peer } from "./peer.ts";
import { RemoteFailure } from "./remote.ts";

/** Events of one push; the receiver takes twice that. */
const BYTES_MAX = 4 * 1024 * 1024;
/** How often it is noted that there was nothing to send. */
const NOTE_MS = 1000;

export interface PusherOptions {
  readonly outbox: Outbox;
  readonly log: FeedLog;
  readonly commits: Commits;
  readonly nodeId: string;
  readonly networkId: string;
  /** A peer does not take some events, which are given up. */
  readonly refused: (peer: Peer, events: number, reason: string) => void;
  /** Takes notice of who has answered. */
  readonly meet: (peer: Peer, nodeId: string, logId: string) => Promise<void>;
}

export class Pusher {
  readonly #options: PusherOptions;
  /** How many events a push may hold: fewer when they are large, or the peer refuses more. */
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
    const limit = this.#limits.get(peer) ?? PUSH_EVENTS_MAX;
    const batch = outbox.next(met, peer.outSeq, limit);
    if (batch.seqs.length > 0) {
      await this.#send(peer, met.link, batch, limit);
      return 0;
    }
    const isNoted = batch.outSeq === met.outSeq && batch.lanes.length === 0;
    peer.outSeq = batch.outSeq;
    if (isNoted) return batch.isLast ? undefined : 0;
    const waitMs = (this.#notedAt.get(peer) ?? 0) + NOTE_MS - performance.now();
    if (batch.isLast && waitMs > 0 && batch.lanes.length === 0) return waitMs;
    await this.#note(peer, met.link, batch);
    // The walk may have been long.
    await Bun.sleep(0);
    return 0;
  }

  async #send(peer: Peer, link: number, batch: Batch, limit: number): Promise<void> {
    const { log, nodeId: from, networkId: network_id } = this.#options;
    const events: string[] = [];
    let bytes = 0;
    for (const seq of batch.seqs) {
      const text = log.text(seq);
      const { swarm_scope } = JSON.parse(text) as { swarm_scope: string };
      bytes += text.length;
      if (bytes > BYTES_MAX && events.length > 0) {
        // Too much for one push: the next one asks for no more than this could have held.
        this.#limits.set(peer, events.length);
        return;
      }
      events.push(carried(swarm_scope, text));
    }
    try {
      const push = { from, network_id, log_id: log.id, events };
      const answer = await peer.remote.push(push, peer.pushSignal);
      peer.pushes++;
      await this.#options.meet(peer, answer.node_id, answer.log_id);
      peer.answered(peer.pushing);
      const { length, 0: first } = answer.rejected;
      if (first) this.#options.refused(peer, length, first.error);
    } catch (error) {
      if (!(error instanceof RemoteFailure) || !error.isOfContent) throw error;
      if (events.length > 1) {
        this.#limits.set(peer, Math.ceil(Math.min(events.length, limit) / 2));
        return;
      }
      this.#options.refused(peer, 1, error.message);
    }
    this.#limits.set(peer, Math.min(2 * limit, PUSH_EVENTS_MAX));
    // Who has another log by now has nothing of what we noted.
    if (peer.met?.link !== link) return;
    peer.outSeq = batch.outSeq;
    await this.#note(peer, link, batch);
  }

  async #note(peer: Peer, link: number, { outSeq, lanes }: Batch): Promise<void> {
    await this.#options.commits.submit({ kind: "note_sent", link, outSeq, lanes });
    this.#notedAt.set(peer, performance.now());
    if (peer.met?.link === link) peer.met = { ...peer.met, outSeq };
  }
}
