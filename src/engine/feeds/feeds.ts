/** What clients do with feeds: post and read messages, subscribe, see where subscribers stand. */
import { invalid } from "../../contract/errors.ts";
import {
  MESSAGES,
  type StoredEvent,
  type StoredMessage,
  type StoredSubscription,
} from "../../contract/events.ts";
import type {
  CursorState,
  FeedSubscription,
  MessageAnchor,
  MessagePosted,
  PostMessage,
  Subscribe,
  Subscribed,
  SubscriptionList,
} from "../../contract/feeds.ts";
import {
  FEED_LOG,
  MESSAGES_BYTES_MAX,
  MESSAGES_LIMIT_MAX,
  SAFE_INTEGER_MAX,
  SUBSCRIPTIONS_LIMIT_MAX,
} from "../../contract/limits.ts";
import type { EventRow } from "../../store/feeds/events.ts";
import type { FeedTables } from "../../store/feeds/feeds.ts";
import type { Lane } from "../../store/feeds/lanes.ts";
import type { SubscriptionRow } from "../../store/feeds/subscriptions.ts";
import type { Commits } from "../commit.ts";
import { clamp } from "../config.ts";
import { InTurn } from "../inturn.ts";
import { Author } from "./author.ts";
import { canonical } from "./encoding.ts";
import { encodeGivenEnvelope } from "./envelope.ts";
import type { FeedEvent } from "./event.ts";
import { damaged, type FeedLog } from "./feedlog.ts";
import type { Identity } from "./identity.ts";
import type { Scopes } from "./scope.ts";

/** An author's clock that is ahead by more waits: peers do not believe what is far ahead. */
const AHEAD_MS_MAX = 1000;

/** Which messages are asked for. Texts are as they were given. */
export interface MessageQuery {
  readonly feedKey: string;
  readonly scopeHint: string;
  readonly networkId: string | undefined;
  readonly limit: number;
  readonly beforeCreatedAt: number | undefined;
  readonly beforeMessageId: string | undefined;
}

/** A page of messages, newest first, each encoded, and where the next one begins. */
export interface MessagesFound {
  readonly messages: readonly string[];
  readonly head: {
    readonly network_id: string;
    readonly feed_key: string;
    readonly scope_hint: string;
  };
  readonly next_anchor: MessageAnchor | null;
}

export interface CursorQuery {
  readonly feedKey: string;
  readonly networkId: string | undefined;
  readonly subscriber: string | undefined;
}

export interface SubscriptionQuery {
  readonly networkId: string | undefined;
  readonly feedKey: string | undefined;
  readonly active: boolean | undefined;
  readonly limit: number;
  readonly beforeUpdatedAt: number | undefined;
  readonly beforeEventId: string | undefined;
  /** What feed keys must begin with one of; none for any. */
  readonly within: readonly string[];
}

export interface FeedOptions {
  readonly tables: FeedTables;
  readonly log: FeedLog;
  readonly commits: Commits;
  readonly identity: Identity;
  readonly networkId: string;
  readonly strict: boolean;
  readonly scopes: Scopes;
  readonly now: () => number;
}

/** Where something is to be written. */
interface Place {
  readonly networkId: string;
  readonly feedKey: string;
  /** The scope as it was given, canonical, and whether it stays here. */
  readonly hint: string;
  readonly scope: string;
  readonly stays: boolean;
}

/** What the refusals of a message and of a subscription call it. */
type Subject = "topic message" | "feed subscription";

export class Feeds {
  /** This instance's name: its public key. */
  readonly nodeId: string;
  readonly networkId: string;
  #posted = 0;
  readonly #tables: FeedTables;
  readonly #log: FeedLog;
  readonly #commits: Commits;
  readonly #author: Author;
  readonly #strict: boolean;
  readonly #scopes: Scopes;
  readonly #now: () => number;
  /**
   * Changes of one subscription come one after another, since each may depend on the one before; and so does what
   * waits for the clock, under no name.
   */
  readonly #changes = new InTurn();

  constructor({ tables, log, commits, identity, networkId, strict, scopes, now }: FeedOptions) {
    this.nodeId = identity.nodeId;
    this.networkId = networkId;
    this.#tables = tables;
    this.#log = log;
    this.#commits = commits;
    this.#author = new Author(identity, log.topic.log.lastTs ?? 0, now);
    this.#strict = strict;
    this.#scopes = scopes;
    this.#now = now;
  }

  /** Events that clients have brought about, since the start. */
  get posted(): number {
    return this.#posted;
  }

  /** Resolves when the message is kept and shown. Throws `invalid_request`, `unprocessable`. */
  async post(request: PostMessage): Promise<MessagePosted> {
    const place = this.#place(request, "topic message");
    if (request.content === "null") throw invalid("content must not be null");
    if (this.#author.aheadMs > AHEAD_MS_MAX) await this.#catchUp();
    const event = this.#author.message({
      ...place,
      contentJson: canonical(request.content),
      replyTo: given(request.reply_to_message_id),
      envelopeJson: encodeGivenEnvelope(request.agent_envelope),
    });
    await this.#accept([event]);
    const { networkId: network_id, feedKey: feed_key, hint: scope_hint } = place;
    return { ok: true, event_id: event.id, message_id: event.id, network_id, feed_key, scope_hint };
  }

  /** Waits until the author's clock is believable again, one post after another. */
  #catchUp(): Promise<void> {
    return this.#changes.run("", async () => {
      const ms = this.#author.aheadMs - AHEAD_MS_MAX;
      if (ms > 0) await Bun.sleep(ms);
    });
  }

  /** One page of a feed's messages. Throws `invalid_request`. */
  async messages(query: MessageQuery): Promise<MessagesFound> {
    const feedKey = required(query.feedKey, "feed_key");
    const hint = required(query.scopeHint, "scope_hint");
    const networkId = given(query.networkId) ?? this.networkId;
    const { lanes, events } = this.#tables;
    const size = clamp(query.limit, 1, MESSAGES_LIMIT_MAX);
    const lane = lanes.find({ networkId, feedKey, scope: this.#scopes.readable(hint) });
    const { beforeCreatedAt = SAFE_INTEGER_MAX + 1 } = query;
    const beforeId = query.beforeCreatedAt === undefined ? "" : (given(query.beforeMessageId) ?? "");
    const rows =
      lane === undefined ? [] : events.older(lane, beforeCreatedAt, beforeId, this.#log.head, size + 1);
    const page = rows.slice(0, size);
    const named = lane === undefined ? undefined : lanes.get(lane);
    const encode = (row: EventRow, text: string | undefined) => this.#encodeMessage(row, named!, text);
    const { encoded: messages, count } = await this.#log.encoded(page, encode, MESSAGES_BYTES_MAX);
    const last = page[count - 1];
    // A reference node tells of a place behind the last page, too.
    const isEnd = last === undefined || (!this.#strict && rows.length === count);
    const next_anchor = isEnd ? null : { before_created_at: last.createdAt, before_message_id: last.id };
    return { messages, head: { network_id: networkId, feed_key: feedKey, scope_hint: hint }, next_anchor };
  }

  #encodeMessage({ seq, id, createdAt, acceptedAt }: EventRow, lane: Lane, text: string | undefined): string {
    if (text === undefined) throw damaged(seq);
    const { author_node_id, payload } = JSON.parse(text) as StoredEvent<StoredMessage>;
    const { content_ref, local_content_cache: content, ...said } = payload.payload;
    return JSON.stringify({
      message_id: id,
      network_id: lane.networkId,
      feed_key: lane.feedKey,
      scope_hint: lane.scope,
      author_node_id,
      agent_envelope: said.agent_envelope ?? null,
      content_ref,
      content,
      content_resolved_at: author_node_id === this.nodeId ? createdAt : acceptedAt,
      reply_to_message_id: said.reply_to_message_id ?? null,
      created_at: createdAt,
      event_seq: seq,
    });
  }

  /** Where a subscriber stands in a feed. Throws `invalid_request`. */
  async cursor(query: CursorQuery): Promise<CursorState> {
    const feedKey = required(query.feedKey, "feed_key");
    const networkId = given(query.networkId) ?? this.networkId;
    const subscriber = query.subscriber === undefined ? this.nodeId : query.subscriber.trim();
    if (subscriber === "") throw invalid("subscriber_node_id cannot be empty");
    const { cursors, events, lanes } = this.#tables;
    const seq = cursors.seqOf({ networkId, subscriber, feedKey });
    const event = seq === undefined ? undefined : events.get(seq);
    const place = { network_id: networkId, subscriber_node_id: subscriber, feed_key: feedKey };
    // Nobody is told of what a power cut could still take.
    await this.#log.topic.unsynced;
    if (event === undefined) return { ok: true, ...place, cursor: null };
    const cursor = {
      ...place,
      scope_hint: lanes.get(event.lane).scope,
      last_event_seq: event.seq,
      last_event_id: event.id,
      updated_at: event.acceptedAt,
    };
    return { ok: true, ...place, cursor };
  }

  /** Throws `invalid_request`, `unprocessable`. */
  async subscribe(request: Subscribe): Promise<Subscribed> {
    const place = this.#place(request, "feed subscription");
    const subscriber = given(request.subscriber_node_id) ?? this.nodeId;
    if (this.#strict && subscriber !== this.nodeId) throw invalid("unauthorized: claimer author mismatch");
    const { active } = request;
    const envelopeJson = encodeGivenEnvelope(request.agent_envelope);
    const event_id = await this.#changes.run(JSON.stringify([subscriber, place.feedKey]), async () => {
      if (this.#author.aheadMs > AHEAD_MS_MAX) await this.#catchUp();
      const ending = this.#endingElsewhere(place, subscriber);
      const event = this.#author.subscription({ ...place, subscriber, active, envelopeJson });
      await this.#accept(ending ? [ending, event] : [event]);
      return event.id;
    });
    return {
      ok: true,
      event_id,
      network_id: place.networkId,
      subscriber_node_id: subscriber,
      feed_key: place.feedKey,
      scope_hint: place.hint,
      gossip_kinds: [MESSAGES],
      active,
      private_hive_key_share: null,
    };
  }

  /** Peers do not hear of a subscription that moves to a scope which stays here, so they hear that it has ended. */
  #endingElsewhere({ networkId, feedKey, stays }: Place, subscriber: string): FeedEvent | undefined {
    const { nodes, subscriptions, lanes } = this.#tables;
    const host = nodes.find(this.nodeId);
    if (!stays || host === undefined) return undefined;
    const current = subscriptions.get({ networkId, host, subscriber, feedKey });
    if (!current?.active) return undefined;
    const { scope } = lanes.get(current.lane);
    if (this.#scopes.stays(scope)) return undefined;
    const draft = { networkId, feedKey, hint: scope, scope, stays: false, subscriber };
    return this.#author.subscription({ ...draft, active: false, envelopeJson: undefined });
  }

  /** One page of the subscriptions that are known, newest first. */
  async subscriptions(query: SubscriptionQuery): Promise<SubscriptionList> {
    const { networkId, feedKey, active, within } = query;
    const size = clamp(query.limit, 1, SUBSCRIPTIONS_LIMIT_MAX);
    const { beforeUpdatedAt = SAFE_INTEGER_MAX + 1 } = query;
    const beforeId = query.beforeUpdatedAt === undefined ? "" : (given(query.beforeEventId) ?? "");
    const filter = { networkId: given(networkId), feedKey: given(feedKey), active, within };
    const isKnown = filter.networkId === undefined || this.#tables.lanes.hasNetwork(filter.networkId);
    const { subscriptions: table } = this.#tables;
    const rows = !isKnown ? [] : table.older(beforeUpdatedAt, beforeId, filter, size + 1);
    const page = rows.slice(0, size);
    const subscriptions: FeedSubscription[] = [];
    for await (const some of this.#log.read(page)) {
      for (const { row, text } of some) subscriptions.push(this.#subscription(row, text));
    }
    await this.#log.topic.unsynced;
    const last = rows.length > size ? page.at(-1) : undefined;
    const next_anchor = last ? { before_updated_at: last.createdAt, before_event_id: last.eventId } : null;
    return { ok: true, subscriptions, next_anchor };
  }

  #subscription(row: SubscriptionRow, text: string | undefined): FeedSubscription {
    if (text === undefined) throw damaged(row.seq);
    const { nodes, lanes } = this.#tables;
    const { payload } = (JSON.parse(text) as StoredEvent<StoredSubscription>).payload;
    const { gossip_kinds, provider_capabilities = null } = payload;
    return {
      event_id: row.eventId,
      network_id: row.networkId,
      subscriber_node_id: row.subscriber,
      host_node_id: nodes.idOf(row.host),
      feed_key: row.feedKey,
      scope_hint: lanes.get(row.lane).scope,
      gossip_kinds,
      provider_capabilities,
      active: row.active,
      updated_at: row.createdAt,
    };
  }

  #place(request: PostMessage | Subscribe, subject: Subject): Place {
    const feedKey = required(request.feed_key, "feed_key");
    const hint = required(request.scope_hint, "scope_hint");
    const networkId = given(request.network_id) ?? this.networkId;
    if (networkId !== this.networkId) throw invalid(`invalid event: ${subject} network_id mismatch`);
    const scope = this.#scopes.writable(hint, subject);
    return { networkId, feedKey, hint, scope, stays: this.#scopes.stays(scope) };
  }

  async #accept(events: readonly FeedEvent[]): Promise<void> {
    const latest = Math.max(...events.map(({ createdAt }) => createdAt));
    await this.#commits.submit({
      kind: "accept_events",
      topic: FEED_LOG,
      events,
      self: this.nodeId,
      from: undefined,
      read: undefined,
      // So the log's own time tells where an author's clock must go on after a restart.
      now: Math.max(this.#now(), latest),
    });
    this.#posted += events.length;
  }
}

/** A text that says something, without white space around it. */
const given = (text: string | null | undefined): string | undefined => text?.trim() || undefined;

function required(text: string, name: string): string {
  const said = given(text);
  if (said === undefined) throw invalid(`${name} is required`);
  return said;
}
