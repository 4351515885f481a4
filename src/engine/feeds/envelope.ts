/** How an agent's envelope is written down in an event. */

import { unprocessable } from "../../contract/errors.ts";
import type { AgentEnvelope } from "../../contract/events.ts";
import type { AgentCard, AgentEnvelopeInput } from "../../contract/feeds.ts";
import { canonical, object } from "./encoding.ts";

/** As it is signed. */
export function encodeEnvelope(envelope: AgentEnvelope): string {
  const text = (value: string | null | undefined) => (value == null ? undefined : JSON.stringify(value));
  const { source_agent_card: card, extensions_json: extensions } = envelope;
  return object({
    protocol: JSON.stringify(envelope.protocol),
    transport_profile: text(envelope.transport_profile),
    source_agent_id: text(envelope.source_agent_id),
    target_agent_id: text(envelope.target_agent_id),
    source_node_id: text(envelope.source_node_id),
    target_node_id: text(envelope.target_node_id),
    capability: text(envelope.capability),
    source_agent_card: card == null ? undefined : encodeCard(card),
    message_json: JSON.stringify(envelope.message_json ?? ""),
    extensions_json: extensions?.trim() ? JSON.stringify(extensions) : undefined,
    signature: text(envelope.signature),
  });
}

/** An envelope as it is given, by either name of a member. Throws `unprocessable` where both are. */
export function encodeGivenEnvelope(envelope: AgentEnvelopeInput | null | undefined): string | undefined {
  if (envelope == null) return undefined;
  const message_json = textOf(oneOf(envelope, "message"));
  const extensions_json = textOf(oneOf(envelope, "extensions"));
  return encodeEnvelope({ ...envelope, message_json, extensions_json });
}

function encodeCard({ agent_id, node_id, card_hash, issued_at, card, signature }: AgentCard): string {
  return object({
    agent_id: JSON.stringify(agent_id),
    node_id: node_id == null ? undefined : JSON.stringify(node_id),
    card_hash: JSON.stringify(card_hash),
    issued_at: String(issued_at),
    card: canonical(card),
    signature: signature == null ? undefined : JSON.stringify(signature),
  });
}

/** The member, as raw JSON, by whichever of its two names it was given. */
function oneOf(envelope: AgentEnvelopeInput, name: "message" | "extensions"): string | undefined {
  const [alias, real] = [envelope[name], envelope[`${name}_json`]];
  if (alias !== undefined && real !== undefined) {
    throw unprocessable(`agent_envelope: ${name} and ${name}_json are the same and cannot both be given`);
  }
  return alias ?? real;
}

/** A string is its own text, another value the text it is encoded as. */
function textOf(json: string | undefined): string | null {
  if (json === undefined || json === "null") return null;
  return json.startsWith('"') ? (JSON.parse(json) as string) : canonical(json);
}
