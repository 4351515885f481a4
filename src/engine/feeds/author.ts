/** Writes this instance's events: each signed, no two the same, and never with an earlier time than one before. */
import { sha256 } from "./encoding.ts";
import {
  type EventKind,
  encodeSigned,
  encodeUnsigned,
  type FeedEvent,
  type MessageDraft,
  messagePayload,
  type SubscriptionDraft,
  subscriptionPayload,
} from "./event.ts";
import type { Identity } from "./identity.ts";

export class Author {
  readonly #identity: Identity;
  readonly #now: () => number;
  /** The latest that the clock has shown. One that is set back is taken to stand still. */
  #clock: number;
  /** The time of the last event, and what was signed at it and cannot be again. */
  #at: number;
  readonly #taken = new Set<string>();

  /** Nothing gets a time up to `after`. */
  constructor(identity: Identity, after: number, now: () => number) {
    this.#identity = identity;
    this.#at = after + 1;
    this.#clock = this.#at;
    this.#now = now;
  }

  /** How far the time of the last event is ahead: each of many that are the same takes a time of its own. */
  get aheadMs(): number {
    return this.#at - this.#time();
  }

  /** Throws `invalid_request` for an event that is too large. */
  message(draft: MessageDraft): FeedEvent {
    this.#advance(this.#time());
    const { networkId, feedKey, stays } = draft;
    const about = { networkId, feedKey, stays, subscription: undefined };
    for (;;) {
      const { nodeId } = this.#identity;
      const event = this.#sign("message", draft.scope, messagePayload(draft, nodeId, this.#at));
      // Two that are the same in everything but time are two all the same.
      if (this.#take(event.id)) return { ...about, ...event };
      this.#advance(this.#at + 1);
    }
  }

  /** Two changes of one subscription have different times, so that everybody knows the later one. */
  subscription(draft: SubscriptionDraft): FeedEvent {
    this.#advance(this.#time());
    const { networkId, feedKey, stays, subscriber, active } = draft;
    const row = JSON.stringify([networkId, subscriber, feedKey]);
    if (!this.#take(row)) {
      this.#advance(this.#at + 1);
      this.#take(row);
    }
    const event = this.#sign("subscription", draft.scope, subscriptionPayload(draft));
    return { networkId, feedKey, stays, subscription: { subscriber, active }, ...event };
  }

  #time(): number {
    this.#clock = Math.max(this.#clock, this.#now());
    return this.#clock;
  }

  #sign(kind: EventKind, scope: string, payload: string) {
    const author = this.#identity.nodeId;
    const createdAt = this.#at;
    const unsigned = encodeUnsigned({ kind, scope, author, createdAt, payload });
    const id = sha256(unsigned);
    return { id, kind, scope, author, createdAt, text: encodeSigned(id, unsigned, this.#identity.sign(id)) };
  }

  #take(what: string): boolean {
    return !this.#taken.has(what) && this.#taken.add(what) !== undefined;
  }

  #advance(to: number): void {
    if (to <= this.#at) return;
    this.#at = to;
    this.#taken.clear();
  }
}
