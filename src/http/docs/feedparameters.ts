/** The query parameters of feeds. What is repeated or cannot be understood is refused. */
import { SAFE_INTEGER_MAX } from "../../contract/limits.ts";
import type { JsonSchema } from "./schema.ts";

/** With something in it that is no white space. */
const SAID = "\\S";

const query = (name: string, description: string, schema: JsonSchema): JsonSchema => ({
  name,
  in: "query",
  description,
  schema,
});

export const text = (name: string, description: string): JsonSchema =>
  query(name, description, { type: "string" });

export const said = (name: string, description: string): JsonSchema =>
  query(name, description, { type: "string", pattern: SAID });

const required = (name: string, description: string, example: string): JsonSchema => ({
  ...query(name, description, { type: "string", pattern: SAID }),
  required: true,
  example,
});

export const feedKey = required("feed_key", "The feed.", "chat.general");
export const scopeHint = required(
  "scope_hint",
  "How far it reaches: `global`, `region:…`, `group:…`, `node:…`, `network:…`, `dm:…:…` or `local`.",
  "group:crew-7",
);
export const networkId = text("network_id", "The network; by default that of this instance.");
export const active = query("active", "Only active ones, or only ended ones.", { type: "boolean" });

export const limit = (otherwise: number, max: number): JsonSchema =>
  query("limit", `At most so many; 0 is 1, and more than ${max} is ${max}.`, {
    type: "integer",
    minimum: 0,
    default: otherwise,
  });

export const before = (name: string): JsonSchema =>
  query(name, "Only what is older, in ms since the Unix epoch.", {
    type: "integer",
    minimum: 0,
    maximum: SAFE_INTEGER_MAX,
  });
