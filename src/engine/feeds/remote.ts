/** Another instance as it is spoken to, by whatever protocol. */
import type { Backfill, Backfilled, EventsPushed } from "../../contract/peers.ts";

export interface Remote {
  /** Sends events, each encoded as it is carried. Throws `RemoteFailure`. */
  push(push: Push, signal: AbortSignal): Promise<EventsPushed>;
  /** Asks for a page of a lane. Throws `RemoteFailure`. */
  backfill(request: Backfill, signal: AbortSignal): Promise<Backfilled>;
}

export interface Push {
  readonly from: string;
  readonly network_id: string;
  readonly log_id: string;
  readonly events: readonly string[];
}

/** An exchange has come to nothing. */
export class RemoteFailure extends Error {
  /** Of the answer; undefined where there was none. */
  readonly status: number | undefined;
  /** Whether it was given up after a while. */
  readonly isLate: boolean;

  constructor(message: string, status?: number, isLate = false) {
    super(message);
    this.status = status;
    this.isLate = isLate;
  }

  /** Whether the same may work soon: the other side is down or busy. Otherwise somebody has to change something. */
  get isPassing(): boolean {
    return this.status === undefined || this.status === OK || this.status === 429 || this.status >= 500;
  }

  /** Whether what was sent is to blame. */
  get isOfContent(): boolean {
    return this.status === 400 || this.status === 413;
  }

  /** Whether another request may go well: the answer to this one is a refusal of it, a failure, or nonsense. */
  get isOfRequest(): boolean {
    return this.isOfContent || this.status === OK || this.status === 500;
  }
}

/** The status of an answer that could not be understood. */
const OK = 200;
