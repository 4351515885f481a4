/** What the document says of a route, from what is special about it; the rest holds for all of them. */
import type { TSchema } from "@sinclair/typebox";
import type { DocumentDecoration } from "elysia";
import type { ErrorCode } from "../../contract/errors.ts";
import { PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX, ROUTER_NAME, TOPIC_NAME } from "../../contract/limits.ts";
import type { Scope } from "../keys.ts";
import { failureResponses, feedFailureResponses } from "./failures.ts";
import { ref } from "./naming.ts";
import type { JsonSchema } from "./schema.ts";
import "./feedshapes.ts";
import "./shapes.ts";
import "./watchshapes.ts";
import "./workshapes.ts";

export type Tag = "Topics" | "Records" | "Watch" | "Queues" | "Routers" | "Feeds" | "Peers" | "Probes";

/** Examples by what they show. */
type Examples = Readonly<Record<string, unknown>>;

export interface Body {
  readonly schema: TSchema;
  /** Whether no body stands for `{}`. */
  readonly optional?: boolean;
  /** What the operation asks for beyond the shape. */
  readonly also?: JsonSchema;
  readonly examples: Examples;
}

export interface Reply {
  readonly description: string;
  /** Its JSON, if that is what it is. */
  readonly schema?: TSchema;
  readonly examples?: Examples;
  /** The answer in other media types. */
  readonly otherwise?: Readonly<Record<string, JsonSchema>>;
}

export interface Operation {
  readonly id: string;
  readonly tag: Tag;
  readonly summary: string;
  readonly description: string;
  /** The scopes that a key needs; none of them for any key. Left out, no key is needed. */
  readonly scope?: Scope | readonly Scope[];
  /** The key that is needed, where scopes do not say it. */
  readonly key?: string;
  readonly parameters?: readonly JsonSchema[];
  readonly body?: Body;
  readonly replies: Readonly<Record<number, Reply>>;
  /** What OpenAPI has no words for. */
  readonly extensions?: JsonSchema;
  /** The errors that only some operations have. */
  readonly failures?: readonly ErrorCode[];
}

/** What a route says of itself: the scope that is asked for, and what the document tells. */
export function operation(said: Operation): Pick<Operation, "scope"> & { detail: DocumentDecoration } {
  return { ...(said.scope && { scope: said.scope }), detail: detailOf(said) };
}

function detailOf(said: Operation): DocumentDecoration {
  const { id, tag, summary, scope, key, parameters, body } = said;
  const scopes = scope === undefined ? undefined : [scope].flat();
  const replies = Object.entries(said.replies).map(([status, reply]) => [status, response(reply)]);
  return {
    operationId: id,
    tags: [tag],
    summary,
    description: `${said.description}\n\n${key ?? needs(scopes)}`,
    security: scopes || key ? [{ key: scopes ?? [] }] : [{}, { key: [] }],
    ...(parameters && { parameters }),
    ...(body && { requestBody: requestBody(body) }),
    responses: { ...Object.fromEntries(replies), ...failureResponses(failuresOf(said)) },
    ...said.extensions,
  } as object;
}

/** The same for a feed's operation, which fails in words only. */
export function feedOperation(said: Omit<Operation, "tag" | "key">): ReturnType<typeof operation> {
  return ofFeeds({ ...said, tag: "Feeds" }, [
    ...failuresOf({ ...said, tag: "Feeds" }),
    ...withFeedBody(said),
  ]);
}

/** What one instance asks of another, which shows a token of its own. */
export function peerOperation(said: Omit<Operation, "tag" | "key" | "scope">): ReturnType<typeof operation> {
  const key =
    "Needs the token that is configured for peers; where none is, only programs on the same machine are let in.";
  const possible = [...failuresOf({ ...said, tag: "Peers" }), "forbidden" as const];
  const { detail } = ofFeeds({ ...said, tag: "Peers", key }, possible);
  return { detail: { ...detail, security: [{}, { peer: [] }] } };
}

function ofFeeds(said: Operation, possible: readonly ErrorCode[]): ReturnType<typeof operation> {
  const { detail, ...route } = operation(said);
  const replies = Object.entries(said.replies).map(([status, reply]) => [status, response(reply)]);
  const responses = { ...Object.fromEntries(replies), ...feedFailureResponses(possible) };
  return { ...route, detail: { ...detail, responses } };
}

const withFeedBody = ({ body }: Pick<Operation, "body">): ErrorCode[] =>
  body ? ["unprocessable"] : ["invalid_request"];

/** For a route that the document leaves out: a `HEAD` is what its `GET` is, without a body. */
export const hidden: DocumentDecoration = { hide: true };

function needs(scopes: readonly Scope[] | undefined): string {
  if (scopes?.length === 0) return "Needs a key, whatever its scopes.";
  if (scopes === undefined) return "Open without a key, unless the server is set to ask for one.";
  return `Needs the scope ${scopes.map((scope) => `\`${scope}\``).join(" and ")}.`;
}

const withBody: readonly ErrorCode[] = [
  "invalid_request",
  "request_timeout",
  "payload_too_large",
  "unsupported_media_type",
];

function failuresOf({ scope, parameters = [], body, failures = [] }: Operation): ErrorCode[] {
  return [
    ...(body ? withBody : []),
    // A name that is no UTF-8, and one that is resolved as a path: `.` and `..`.
    ...(parameters.some(({ in: where }) => where === "path")
      ? (["invalid_request", "not_found"] as const)
      : []),
    ...failures,
    "unauthorized",
    ...(scope ? (["forbidden"] as const) : []),
    "throttled",
    "internal",
    "shutting_down",
  ];
}

function requestBody({ schema, optional = false, also = {}, examples }: Body): JsonSchema {
  return {
    required: !optional,
    ...(optional && { description: "No body is the same as `{}`." }),
    content: { "application/json": media({ ...ref(schema), ...also }, examples) },
  };
}

function response({ description, schema, examples = {}, otherwise }: Reply): JsonSchema {
  return {
    description,
    content: { ...(schema && { "application/json": media(ref(schema), examples) }), ...otherwise },
  };
}

/** A body of one media type. */
export const media = (schema: JsonSchema, examples: Examples): JsonSchema => ({
  schema,
  examples: Object.fromEntries(
    Object.entries(examples).map(([summary, value]) => [idOf(summary), { summary, value }]),
  ),
});

const idOf = (summary: string): string => summary.toLowerCase().replace(/[^a-z0-9]+/g, "-");

const topic = { name: "topic", in: "path", required: true, example: "orders.eu" };

const router = {
  name: "router",
  in: "path",
  required: true,
  example: "orders.eu->archive",
};

/** The name of a router that the operation may create. */
export const newRouter: JsonSchema = {
  ...router,
  description: "The router's name: 1 to 255 of `A-Z a-z 0-9 . _ : - >`, the first a letter or a digit.",
  schema: { type: "string", pattern: ROUTER_NAME.source },
};

/** The name of a router that must be there already. */
export const anyRouter: JsonSchema = {
  ...router,
  description: "The router's name.",
  schema: { type: "string", minLength: 1 },
};

/** The name of a topic that the operation may create. */
export const newTopic: JsonSchema = {
  ...topic,
  description: "The topic's name: 1 to 255 of `A-Z a-z 0-9 . _ : -`, the first a letter or a digit.",
  schema: { type: "string", pattern: TOPIC_NAME.source },
};

/** The name of a topic that must be there already; one that could not be has never been. */
export const anyTopic: JsonSchema = {
  ...topic,
  description: "The topic's name.",
  schema: { type: "string", minLength: 1 },
};

/** A query parameter that is true or false. */
export const flag = (name: string, otherwise: boolean, description: string): JsonSchema =>
  lenient(name, "boolean", otherwise, `${description} \`true\` or \`1\`, \`false\` or \`0\``);

/** A query parameter that is a whole number. */
const integer = (name: string, otherwise: number, description: string): JsonSchema =>
  lenient(name, "integer", otherwise, description);

/** What cannot be understood is the default, and no error. */
const lenient = (name: string, type: string, otherwise: unknown, description: string): JsonSchema => ({
  name,
  in: "query",
  description: `${description}; anything else is the default.`,
  schema: { type: [type, "string"], default: otherwise },
});

/** A key where a browser cannot send headers, or a token made for it. */
export const token: JsonSchema = {
  name: "token",
  in: "query",
  description: "A key, or a token made with one, where the header cannot be sent.",
  schema: { type: "string" },
};

/** Where a client is that comes back. */
export const lastEventId: JsonSchema = {
  name: "Last-Event-ID",
  in: "header",
  description: "The `id` of the last event that the client has got. What cannot be understood is ignored.",
  schema: { type: "string" },
};

/** A query parameter that is any text. */
export const text = (name: string, description: string): JsonSchema => ({
  name,
  in: "query",
  description,
  schema: { type: "string" },
});

/** The parameters of a list of `what`, which comes in pages. */
export const paging = (what: string): JsonSchema[] => [
  integer(
    "page_size",
    PAGE_SIZE_DEFAULT,
    `${what} at most; 0 is 1, and more than ${PAGE_SIZE_MAX} is ${PAGE_SIZE_MAX}`,
  ),
  text("cursor", "The `next_cursor` of the page before. Anything else may be refused; empty is the start."),
];
