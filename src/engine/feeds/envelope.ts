/** How an agent's envelope is written down in an event. */

import { unprocessable } from "../../contract/errors.ts";
import type { AgentCard, AgentEnvelopeInput } from "../../contract/feeds.ts";
import { canonical, object } from "./encoding.ts";

/** Throws `unprocessable` where a member is given under both of its names. */
export function encodeEnvelope(envelope: AgentEnvelopeInput): string {
  const text = (value: string | null | undefined) => (value == null ? undefined : JSON.stringify(value));
  const card = envelope.source_agent_card;
  return object({
    protocol: JSON.stringify(envelope.protocol),
    transport_profile: text(envelope.transport_profile),
    source_agent_id: text(envelope.source_agent_id),
    target_agent_id: text(envelope.target_agent_id),
    source_node_id: text(envelope.source_node_id),
    target_node_id: text(envelope.target_node_id),
    capability: text(envelope.capability),
    source_agent_card: card == null ? undefined : encodeCard(card),
    message_json: JSON.stringify(textOf(oneOf(envelope, "message")) ?? ""),
    extensions_json: extensions(textOf(oneOf(envelope, "extensions"))),
    signature: text(envelope.signature),
  });
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
function textOf(json: string | undefined): string | undefined {
  if (json === undefined || json === "null") return undefined;
  return json.startsWith('"') ? (JSON.parse(json) as string) : canonical(json);
}

const extensions = (text: string | undefined): string | undefined =>
  text === undefined || text.trim() === "" ? undefined : JSON.stringify(text);
