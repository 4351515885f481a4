/**
 * The command that takes events into the feed log, and with each all that follows from it: what its lane holds, which
 * subscriptions are in force, where subscribers stand, who has brought it and who wants it.
 */
import { FEED_LOG, TAG_BYTES_MAX } from "../../contract/limits.ts";
import { OWN_LINK, type PeerRow } from "../../store/feeds/peers.ts";
import type { SubscriptionKey } from "../../store/feeds/subscriptions.ts";
import { recordBytes, type StoredRecord } from "../../store/records.ts";
import { add } from "../append.ts";
import type { AcceptEvents, EventsAccepted, ReadLane } from "../commands.ts";
import type { Group } from "../group.ts";
import { countWish, meet } from "./acquaintance.ts";
import type { FeedEvent } from "./event.ts";

/** The tag of what changes subscriptions. */
const SUBSCRIPTIONS = "subscriptions";

export function acceptEvents(group: Group, command: AcceptEvents): EventsAccepted {
  const { events, self, from, read, now } = command;
  const topic = group.existing(FEED_LOG);
  const { feeds } = group.store;
  const peer = from && meet(group, from);
  const known = new Map<string, number | undefined>();
  for (const { id } of events) known.set(id, feeds.events.find(id));
  const fresh = firstOfEach(events.filter(({ id }) => known.get(id) === undefined));
  const firstSeq = topic.log.head + 1;
  if (fresh.length > 0) add(group, topic, fresh.map(toRecord), now);
  fresh.forEach((event, i) => {
    enter(group, event, { seq: firstSeq + i, acceptedAt: topic.log.lastTs!, self, peer });
  });
  for (const event of events) {
    const seq = known.get(event.id);
    if (seq !== undefined && peer && event.author !== self) linkKnown(group, peer, event, seq);
  }
  if (peer && read) noteRead(group, peer, read, topic.log.head);
  group.accepted.push(...fresh);
  return { accepted: fresh.length, duplicates: events.length - fresh.length, head: topic.log.head };
}

function noteRead(
  { store }: Group,
  { link }: PeerRow,
  { lane: name, seq, caughtSeq }: ReadLane,
  head: number,
): void {
  const { lanes, peerLanes } = store.feeds;
  const lane = lanes.named(name);
  const caught = caughtSeq === undefined ? peerLanes.readOf(link, lane).caughtSeq : Math.min(caughtSeq, head);
  peerLanes.setRead(link, lane, { readSeq: seq, caughtSeq: caught });
}

const firstOfEach = (events: readonly FeedEvent[]): FeedEvent[] => [
  ...new Map(events.map((event) => [event.id, event])).values(),
];

function toRecord({ text, kind, scope, feedKey }: FeedEvent): StoredRecord {
  const lane = kind === "subscription" ? SUBSCRIPTIONS : `${scope}/${feedKey}`;
  const tag = Buffer.byteLength(lane) > TAG_BYTES_MAX ? null : JSON.stringify(lane);
  return { data: text, tag, node: null, meta: null, bytes: recordBytes(text, null) };
}

/** Where an event has come to lie, and how it came here. */
interface Arrival {
  readonly seq: number;
  readonly acceptedAt: number;
  readonly self: string;
  readonly peer: PeerRow | undefined;
}

function enter(group: Group, event: FeedEvent, arrival: Arrival): void {
  const { nodes, lanes, events, links } = group.store.feeds;
  const { id, kind, networkId, scope, feedKey, createdAt, stays } = event;
  const { seq, acceptedAt, self, peer } = arrival;
  const author = nodes.named(event.author);
  const lane = lanes.named(
    kind === "message"
      ? { networkId, scope, feedKey }
      : { networkId, scope: stays ? "local" : "", feedKey: "" },
  );
  events.insert({ seq, id, lane, author, createdAt, acceptedAt });
  lanes.grow(lane, seq);
  if (peer && event.author !== self) links.add(peer.link, seq);
  if (event.subscription) changeSubscription(group, event, author, arrival);
}

/** Puts a subscription's change in force, unless a newer one is: the newest wins, in whichever order they arrive. */
function changeSubscription(group: Group, event: FeedEvent, host: number, arrival: Arrival): void {
  const { seq, self, peer } = arrival;
  const { lanes, subscriptions, cursors, links } = group.store.feeds;
  const { id: eventId, networkId, scope, feedKey, createdAt } = event;
  const { subscriber, active } = event.subscription!;
  const key: SubscriptionKey = { networkId, host, subscriber, feedKey };
  const current = subscriptions.get(key);
  if (current && !isNewer(event, current)) return;
  const lane = lanes.named({ networkId, scope, feedKey });
  subscriptions.put({ ...key, lane, active, seq, createdAt, eventId });
  if (event.author === self) cursors.follow({ networkId, subscriber, feedKey }, active ? lane : null, seq);
  // First what is new: what it has in common with what was, stays as it is.
  if (active && event.author === self) countWish(group, OWN_LINK, lane, 1);
  else if (active && peer) countWish(group, peer.link, lane, 1);
  if (!current?.active) return;
  for (const link of links.of(current.seq)) countWish(group, link, current.lane, -1);
  if (event.author === self) countWish(group, OWN_LINK, current.lane, -1);
}

const isNewer = ({ createdAt, id }: FeedEvent, current: { createdAt: number; eventId: string }): boolean =>
  createdAt > current.createdAt || (createdAt === current.createdAt && id > current.eventId);

/** A known event came from one more peer. */
function linkKnown(group: Group, peer: PeerRow, { kind }: FeedEvent, seq: number): void {
  const { links, subscriptions } = group.store.feeds;
  if (!links.add(peer.link, seq) || kind !== "subscription") return;
  const lane = subscriptions.laneAskedBy(seq);
  if (lane !== undefined) countWish(group, peer.link, lane, 1);
}
