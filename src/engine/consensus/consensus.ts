/**
 * Carries votes through: looks at lanes when something may be to be decided in them, and posts what comes of it.
 *
 * A lane is looked at after each post of a client that may matter; and every few seconds, if somebody is subscribed to
 * it here, when messages that matter have come or a timeout has. One look at a lane at a time, so that nothing is
 * posted twice: what has been posted is noted with the lane, and looked for in the feed of results when that is not
 * known any more.
 */
import { LRUCache } from "lru-cache";
import { ApiError } from "../../contract/errors.ts";
import type { FeedEvent } from "../feeds/event.ts";
import type { FeedLog } from "../feeds/feedlog.ts";
import type { Feeds } from "../feeds/feeds.ts";
import { isBallot, type Message } from "./ballots.ts";
import { decide, type Publication } from "./decision.ts";
import { pagesOf } from "./pages.ts";
import { closedAmong } from "./results.ts";
import { keyOf, type Lane, Subscribed } from "./subscribed.ts";

/** A vote is among so many of the newest messages of a lane. */
const MESSAGES_MAX = 500;
const INTERVAL_MS = 5000;
/** So many lanes are looked at side by side. */
const LOOKS_MAX = 4;
/** So many subscriptions are read before others get their turn. */
const SUBSCRIPTIONS_AT_ONCE = 100;
/** What was seen in so many lanes is kept. */
const LANES_KEPT = 10_000;
/** How messages that matter are spelled; others may hold it, too. */
const MAY_BE_BALLOT = /"kind":"(?:proposal|stance|interpreted_stance)"/;

export interface ConsensusOptions {
  readonly feeds: Pick<Feeds, "nodeId" | "networkId" | "post" | "messages" | "subscriptions">;
  readonly log: Pick<FeedLog, "listen">;
  /** Ms since the Unix epoch. */
  readonly now: () => number;
  /** How often it is time to look at subscribed lanes. */
  readonly intervalMs?: number;
  /** Something that should not be has ended a look. */
  readonly unexpected: (error: unknown) => void;
}

/** What the last look at a lane has found. */
interface Seen {
  /** Something that matters has come since. */
  isStale: boolean;
  /** When the next timeout comes. */
  againAt: number | null;
  /** Messages of proposals that have a result or a next round. */
  closed: Set<string>;
}

export class Consensus implements Disposable {
  readonly #options: ConsensusOptions;
  readonly #subscribed = new Subscribed();
  readonly #seen = new LRUCache<string, Seen>({ max: LANES_KEPT });
  /** Lanes by key: in which something has come; and subscribed ones with a timeout to come. */
  #changed = new Map<string, Lane>();
  readonly #timed = new Map<string, { readonly lane: Lane; readonly at: number }>();
  /** Lanes that are to be looked at: because of a post, and because it is time to. And those that are looked at. */
  readonly #posted = new Map<string, Lane>();
  readonly #due = new Map<string, Lane>();
  readonly #looking = new Set<string>();
  readonly #stopListening: () => void;
  readonly #timer: Timer;
  #ended = false;

  constructor(options: ConsensusOptions) {
    this.#options = options;
    this.#stopListening = options.log.listen((events) => {
      for (const event of events) this.#hear(event);
    });
    this.#timer = setInterval(() => this.#tick(), options.intervalMs ?? INTERVAL_MS);
    this.#readSubscriptions().catch((error) => this.#failed(error));
  }

  /** What was subscribed to before this start, none of it looked at yet. */
  async #readSubscriptions(): Promise<void> {
    const { feeds } = this.#options;
    const asked = { networkId: feeds.networkId, feedKey: undefined, active: true, within: [] };
    let before: { beforeUpdatedAt: number | undefined; beforeEventId: string | undefined } = {
      beforeUpdatedAt: undefined,
      beforeEventId: undefined,
    };
    while (!this.#ended) {
      const page = await feeds.subscriptions({ ...asked, ...before, limit: SUBSCRIPTIONS_AT_ONCE });
      for (const row of page.subscriptions) {
        if (row.host_node_id !== feeds.nodeId) continue;
        const lane = { feedKey: row.feed_key, scope: row.scope_hint };
        const { subscriber_node_id: subscriber, active, event_id: eventId, updated_at: createdAt } = row;
        this.#subscribed.note({ ...lane, subscriber, active, eventId, createdAt });
        this.#changed.set(keyOf(lane), lane);
      }
      const { next_anchor: anchor } = page;
      if (anchor === null) return;
      await Bun.sleep(0);
      before = { beforeUpdatedAt: anchor.before_updated_at, beforeEventId: anchor.before_event_id };
    }
  }

  #hear({ id: eventId, scope, feedKey, author, createdAt, subscription, text }: FeedEvent): void {
    const lane = { feedKey, scope };
    const isOwn = author === this.#options.feeds.nodeId;
    if (subscription === undefined) this.#hearMessage(lane, isOwn, text);
    else if (isOwn) {
      this.#subscribed.note({ ...lane, ...subscription, eventId, createdAt });
      if (subscription.active) this.#changed.set(keyOf(lane), lane);
    }
  }

  #hearMessage(lane: Lane, isOwn: boolean, text: string): void {
    const key = keyOf(lane);
    const seen = this.#seen.get(key);
    const ballot = ballotIn(text);
    if (ballot) {
      if (seen) seen.isStale = true;
      this.#changed.set(key, lane);
    }
    if (!isOwn) return;
    // A next round that was posted from here has time until the next interval, so rounds never chase each other.
    if (ballot?.replyTo && seen?.closed.has(ballot.replyTo)) return;
    const isTimeUp = seen !== undefined && seen.againAt !== null && seen.againAt <= this.#options.now();
    if (seen && !seen.isStale && !isTimeUp) return;
    this.#posted.set(key, lane);
    this.#begin();
  }

  #tick(): void {
    const now = this.#options.now();
    for (const [key, { lane, at }] of this.#timed) {
      if (at > now) continue;
      this.#timed.delete(key);
      this.#changed.set(key, lane);
    }
    for (const [key, lane] of this.#changed) if (this.#subscribed.has(key)) this.#due.set(key, lane);
    this.#changed = new Map();
    this.#begin();
  }

  /** Begins looks, first where somebody has posted. */
  #begin(): void {
    for (const waiting of [this.#posted, this.#due]) {
      for (const [key, lane] of waiting) {
        if (this.#ended || this.#looking.size >= LOOKS_MAX) return;
        if (this.#looking.has(key)) continue;
        this.#posted.delete(key);
        this.#due.delete(key);
        this.#looking.add(key);
        void this.#look(key, lane).finally(() => {
          this.#looking.delete(key);
          this.#begin();
        });
      }
    }
  }

  async #look(key: string, lane: Lane): Promise<void> {
    const { feeds, now } = this.#options;
    const { nodeId, networkId } = feeds;
    const seen = this.#seen.get(key) ?? { isStale: false, againAt: null, closed: new Set() };
    this.#seen.set(key, seen);
    // What comes from now on is for the next look.
    seen.isStale = false;
    this.#timed.delete(key);
    try {
      const messages = await this.#newest(lane);
      const known = new Set(messages.map(({ message_id }) => message_id));
      seen.closed = seen.closed.intersection(known);
      const decision = decide(messages, { nodeId, networkId, now: now(), closed: seen.closed });
      seen.againAt = decision.againAt;
      if (seen.againAt !== null && this.#subscribed.has(key))
        this.#timed.set(key, { lane, at: seen.againAt });
      await this.#publish(decision.publications, seen);
    } catch (error) {
      seen.isStale = true;
      this.#changed.set(key, lane);
      this.#failed(error);
    }
  }

  /** The newest messages of a lane that may matter. */
  async #newest(lane: Lane): Promise<Message[]> {
    const messages: Message[] = [];
    let left = MESSAGES_MAX;
    for await (const page of pagesOf(lane, this.#options.feeds)) {
      messages.push(...page.messages(MAY_BE_BALLOT, left));
      left -= page.size;
      if (left <= 0) break;
    }
    return messages;
  }

  async #publish(publications: readonly Publication[], seen: Seen): Promise<void> {
    if (publications.length === 0) return;
    const proposals = publications.map(({ proposal }) => proposal);
    const closed = await closedAmong(proposals, this.#options.feeds);
    for (const publication of publications) {
      const { message_id: id } = publication.proposal.message;
      if (this.#ended) return;
      seen.closed.add(id);
      if (closed.has(id)) continue;
      try {
        await this.#post(publication);
      } catch (error) {
        // What can never be posted is not tried again.
        if (error instanceof ApiError && error.code === "invalid_request") continue;
        seen.closed.delete(id);
        throw error;
      }
    }
  }

  async #post({ feedKey, scopeHint, content, replyTo }: Publication): Promise<void> {
    await this.#options.feeds.post({
      feed_key: feedKey,
      scope_hint: scopeHint,
      content: JSON.stringify(content),
      ...(replyTo === undefined ? {} : { reply_to_message_id: replyTo }),
    });
  }

  #failed(error: unknown): void {
    if (!(error instanceof ApiError)) this.#options.unexpected(error);
  }

  [Symbol.dispose](): void {
    this.#ended = true;
    this.#stopListening();
    clearInterval(this.#timer);
  }
}

/** What matters in the text of a message's event. */
function ballotIn(text: string): { readonly replyTo: string | undefined } | undefined {
  if (!MAY_BE_BALLOT.test(text)) return undefined;
  const { local_content_cache: content, reply_to_message_id: replyTo } = JSON.parse(text).payload.payload;
  return isBallot(content) ? { replyTo } : undefined;
}
