/** What instances ask of each other: taking events, giving stored ones, telling how they stand. */
import { type Static, Type } from "@sinclair/typebox";
import { BACKFILL_EVENTS_MAX, HEAD_EVENTS_MAX, KNOWN_EVENTS_MAX, PUSH_EVENTS_MAX } from "./limits.ts";
import { Natural, Nullable, RawJson } from "./schema.ts";

/** An event on its way. `scope` says where it belongs, as the event itself does. */
export const CarriedEvent = Type.Object({ scope: Type.String(), event: RawJson });
export type CarriedEvent = Static<typeof CarriedEvent>;

/** Each is looked at by itself, so that a bad one leaves the others be. */
const events = (max: number) => Type.Array(RawJson, { maxItems: max });

/** All changes of subscriptions, or the messages of one feed in one scope. */
export const LaneName = Type.Object({
  kind: Type.String(),
  scope: Type.Optional(Nullable(Type.String())),
  feed_key: Type.Optional(Nullable(Type.String())),
});
export type LaneName = Static<typeof LaneName>;

export const PushEvents = Type.Object({
  from: Type.String(),
  network_id: Type.String(),
  log_id: Type.String(),
  events: events(PUSH_EVENTS_MAX),
});
export type PushEvents = Static<typeof PushEvents>;

export const RejectedEvent = Type.Object({ event_id: Nullable(Type.String()), error: Type.String() });
export type RejectedEvent = Static<typeof RejectedEvent>;

export const EventsPushed = Type.Object({
  ok: Type.Boolean(),
  node_id: Type.String(),
  log_id: Type.String(),
  head_seq: Natural,
  accepted: Natural,
  duplicates: Natural,
  rejected: Type.Array(RejectedEvent, { maxItems: PUSH_EVENTS_MAX }),
});
export type EventsPushed = Static<typeof EventsPushed>;

export const Backfill = Type.Object({
  from: Type.String(),
  network_id: Type.String(),
  lane: LaneName,
  from_event_seq: Natural,
  limit: Type.Optional(Natural),
  head_only: Type.Optional(Type.Boolean()),
  log_id: Type.Optional(Type.String()),
  known_event_ids: Type.Optional(Type.Array(Type.String(), { maxItems: KNOWN_EVENTS_MAX })),
});
export type Backfill = Static<typeof Backfill>;

export const Backfilled = Type.Object({
  ok: Type.Boolean(),
  node_id: Type.String(),
  log_id: Type.String(),
  lane: LaneName,
  next_from_event_seq: Natural,
  head_only: Type.Boolean(),
  head_event_ids: Type.Array(Type.String(), { maxItems: HEAD_EVENTS_MAX }),
  events: events(BACKFILL_EVENTS_MAX),
  more: Type.Boolean(),
});
export type Backfilled = Static<typeof Backfilled>;

/** How it goes with a configured peer. `out_seq`: up to where our feed log is done with for it. */
export const PeerState = Type.Object({
  url: Type.String(),
  node_id: Nullable(Type.String()),
  connected: Type.Boolean(),
  out_seq: Type.Integer(),
  last_ok_at: Nullable(Type.Integer()),
  last_error: Nullable(Type.String()),
});
export type PeerState = Static<typeof PeerState>;

export const PeerStatus = Type.Object({
  ok: Type.Literal(true),
  node_id: Type.String(),
  network_id: Type.String(),
  log_id: Type.String(),
  head_seq: Type.Integer(),
  peers: Type.Array(PeerState),
});
export type PeerStatus = Static<typeof PeerStatus>;
