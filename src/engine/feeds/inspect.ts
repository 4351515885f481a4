/** Whether an event that somebody brings is what it claims to be, whoever carries it. */
import { decoder } from "../../contract/decode.ts";
import { ApiError, invalid } from "../../contract/errors.ts";
import { MessagePayload, PROTOCOL_VERSION, SignedEvent, SubscriptionPayload } from "../../contract/events.ts";
import { EVENT_AHEAD_MS_MAX, EVENT_BYTES_MAX, PEER_JSON_DEPTH_MAX } from "../../contract/limits.ts";
import { CarriedEvent, type RejectedEvent } from "../../contract/peers.ts";
import { canonical, sha256, tooManyBytes } from "./encoding.ts";
import { encodeEnvelope } from "./envelope.ts";
import {
  digestOf,
  type EventKind,
  encodeMessage,
  encodeSigned,
  encodeSubscription,
  encodeUnsigned,
  type FeedEvent,
  kinds,
  uriOf,
} from "./event.ts";
import { isId, isSignature, isSignedBy } from "./identity.ts";
import type { Scopes } from "./scope.ts";

/** What is longer cannot be an event, however it is escaped and spaced; it is not worth a look. */
const CARRIED_LENGTH_MAX = 8 * EVENT_BYTES_MAX;

const readCarried = decoder(CarriedEvent, PEER_JSON_DEPTH_MAX);
const readEvent = decoder(SignedEvent, PEER_JSON_DEPTH_MAX);
const readMessage = decoder(MessagePayload, PEER_JSON_DEPTH_MAX);
const readSubscription = decoder(SubscriptionPayload, PEER_JSON_DEPTH_MAX);

/** What an event must agree with. */
export interface Expected {
  readonly networkId: string;
  readonly scopes: Scopes;
  readonly strict: boolean;
  readonly now: number;
  /** Whether exactly this event was checked and kept before. */
  readonly isStored: (event: Pick<FeedEvent, "id" | "text">) => boolean;
}

/** The payload of an event, encoded anew, and what it says of the event. */
interface Payload {
  readonly encoded: string;
  readonly networkId: string;
  readonly hint: string;
  readonly feedKey: string;
  readonly subscription: FeedEvent["subscription"];
}

/** The event that is carried, in its one spelling, or why it is none. `carried` is JSON. */
export async function inspect(carried: string, expected: Expected): Promise<FeedEvent | RejectedEvent> {
  try {
    if (carried.length > CARRIED_LENGTH_MAX) throw tooManyBytes();
    return await checked(readCarried(carried), expected);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    const reason = error.message.startsWith("invalid event: ")
      ? error.message
      : `invalid event: ${error.message}`;
    return { event_id: idIn(carried), error: reason };
  }
}

export const isRejected = (event: FeedEvent | RejectedEvent): event is RejectedEvent => "error" in event;

async function checked({ scope, event: raw }: CarriedEvent, expected: Expected): Promise<FeedEvent> {
  const event = readEvent(raw);
  const { event_id: id, author_node_id: author, created_at: createdAt, signature_hex: signature } = event;
  must(event.protocol_version === PROTOCOL_VERSION, "protocol_version is not known");
  must(event.epoch === 1, "epoch must be 1");
  must(isId(id), "event_id must be 64 hexadecimal digits");
  must(isId(author), "author_node_id must be 64 hexadecimal digits");
  must(isSignature(signature), "signature_hex must be 128 hexadecimal digits");
  const kind = kindOf(event);
  const payload = kind === "message" ? messageIn(event) : subscriptionIn(event, expected.strict);
  must(payload.networkId === expected.networkId, "network_id mismatch");
  must(payload.feedKey.trim() !== "", "feed_key is required");
  must(payload.feedKey === payload.feedKey.trim(), "feed_key has white space around it");
  const canonicalScope = expected.scopes.writable(
    payload.hint,
    kind === "message" ? "topic message" : "feed subscription",
  );
  must(canonicalScope === event.swarm_scope && canonicalScope === scope, "event swarm_scope mismatch");
  must(!expected.scopes.stays(canonicalScope), "scope does not leave its instance");
  must(createdAt <= expected.now + EVENT_AHEAD_MS_MAX, "created_at is too far ahead");
  const unsigned = encodeUnsigned({
    kind,
    scope: canonicalScope,
    author,
    createdAt,
    payload: payload.encoded,
  });
  const text = encodeSigned(id, unsigned, signature);
  must(sha256(unsigned) === id, "event_id mismatch");
  const isSigned = expected.isStored({ id, text }) || (await isSignedBy(author, id, signature));
  must(isSigned, "signature mismatch");
  const { networkId, feedKey, subscription } = payload;
  return {
    id,
    kind,
    networkId,
    scope: canonicalScope,
    feedKey,
    author,
    createdAt,
    stays: false,
    subscription,
    text,
  };
}

function kindOf({ event_kind, payload }: SignedEvent): EventKind {
  const kind = (Object.keys(kinds) as EventKind[]).find((kind) => kinds[kind].eventKind === event_kind);
  if (kind === undefined) throw invalid("event_kind is not known");
  must(payload.type === kinds[kind].payloadType, "payload type mismatch");
  return kind;
}

function messageIn({ author_node_id, payload }: SignedEvent): Payload {
  const message = readMessage(payload.payload);
  const { content_ref: ref, reply_to_message_id: replyTo, agent_envelope: envelope } = message;
  const content = canonical(message.local_content_cache);
  must(content !== "null", "content must not be null");
  must(ref.digest === digestOf(content), "content digest mismatch");
  must(ref.uri === uriOf(ref.digest), "content uri mismatch");
  must(ref.size_bytes === Buffer.byteLength(content), "content size mismatch");
  must(ref.producer === author_node_id, "content producer mismatch");
  const { network_id: networkId, feed_key: feedKey, scope_hint: hint } = message;
  const envelopeJson = envelope == null ? undefined : encodeEnvelope(envelope);
  const encoded = encodeMessage({
    networkId,
    feedKey,
    hint,
    ref,
    contentJson: content,
    replyTo,
    envelopeJson,
  });
  return { encoded, networkId, hint, feedKey, subscription: undefined };
}

function subscriptionIn({ author_node_id, payload }: SignedEvent, strict: boolean): Payload {
  const change = readSubscription(payload.payload);
  const { network_id: networkId, feed_key: feedKey, scope_hint: hint, active } = change;
  const { subscriber_node_id: subscriber, agent_envelope: envelope } = change;
  const { gossip_kinds: gossipKinds, provider_capabilities: capabilities } = change;
  must(subscriber.trim() !== "", "subscriber_node_id cannot be empty");
  if (strict) must(subscriber === author_node_id, "unauthorized: claimer author mismatch");
  const envelopeJson = envelope == null ? undefined : encodeEnvelope(envelope);
  const said = { networkId, subscriber, feedKey, hint, gossipKinds, capabilities, envelopeJson, active };
  return {
    encoded: encodeSubscription(said),
    networkId,
    hint,
    feedKey,
    subscription: { subscriber, active },
  };
}

/** Throws `invalid_request` unless it holds. */
function must(holds: boolean, otherwise: string): void {
  if (!holds) throw invalid(otherwise);
}

/** The id that something claims which may not be an event at all. */
function idIn(carried: string): string | null {
  const { event } = (JSON.parse(carried) ?? {}) as { event?: { event_id?: unknown } | null };
  return typeof event?.event_id === "string" ? event.event_id : null;
}
