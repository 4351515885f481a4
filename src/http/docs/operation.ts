/** What the document says of a route, from what is special about it; the rest holds for all of them. */
import type { TSchema } from "@sinclair/typebox";
import type { DocumentDecoration } from "elysia";
import { PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX, ROUTER_NAME, TOPIC_NAME } from "../../contract/limits.ts";
import type { Scope } from "../keys.ts";
import { because, failureResponses, feedFailureResponses, type Possible } from "./failures.ts";
import { ref } from "./naming.ts";
import type { JsonSchema } from "./schema.ts";
import "./feedshapes.ts";
import "./shapes.ts";
import "./watchshapes.ts";
import "./workshapes.ts";

export type Tag = "Topics" | "Records" | "Watch" | "Queues" | "Routers" | "Feeds" | "Peers" | "Probes";

/** How a request shows who it is from; see the document's security schemes. */
export type Scheme = "key" | "token" | "peer";

/** Examples by what they show. */
type Examples = Readonly<Record<string, unknown>>;

export interface Body {
  readonly schema: TSchema;
  /** Whether no body stands for `{}`. */
  readonly optional?: boolean;
  readonly examples: Examples;
}

export interface Reply {
  readonly description: string;
  /** Its JSON, if that is what it is. */
  readonly schema?: TSchema;
  readonly examples?: Examples;
  /** The answer in other media types. */
  readonly otherwise?: Readonly<Record<string, JsonSchema>>;
  /** What to do next with what it says. */
  readonly links?: Readonly<Record<string, JsonSchema>>;
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
  /** The ways to show it. */
  readonly schemes?: readonly Scheme[];
  readonly parameters?: readonly JsonSchema[];
  readonly body?: Body;
  readonly replies: Readonly<Record<number, Reply>>;
  /** What OpenAPI has no words for. */
  readonly extensions?: JsonSchema;
  /** The errors that only some operations have, and those that it has for a cause of its own. */
  readonly failures?: readonly Possible[];
  /** The errors that any other operation has. */
  readonly never?: readonly Possible[];
}

type Route = Pick<Operation, "scope"> & { detail: DocumentDecoration };

/** What a route says of itself: the scope that is asked for, and what the document tells. */
export const operation = (said: Operation): Route => route(said, failureResponses(failuresOf(said)));

/** The same for a feed's operation, which fails in words only. */
export function feedOperation(said: Omit<Operation, "tag"> & { readonly scope: Scope }): Route {
  const key = `${needs([said.scope]).slice(0, -1)}, unless feeds are open to all (\`FEED_PUBLIC\`).`;
  return route(
    { ...said, tag: "Feeds", key },
    feedFailures(said, said.body ? "unprocessable" : "invalid_request"),
  );
}

/** What one instance asks of another, which shows a token of its own. */
export function peerOperation(said: Omit<Operation, "tag">): Route {
  const key =
    "Needs the token that is configured for peers (`FEED_PEER_TOKEN`); where none is, only programs on the same machine are " +
    "let in.";
  const failures = feedFailures(
    said,
    because("unauthorized", "The server has a token for peers, and the request does not show it."),
    because(
      "forbidden",
      "The server has no token for peers, and the request comes from another machine, or through a proxy.",
    ),
  );
  return route({ ...said, tag: "Peers", key, schemes: ["peer"] }, failures);
}

const feedFailures = (said: Omit<Operation, "tag">, ...more: Possible[]) =>
  feedFailureResponses([...failuresOf(said), ...(said.body ? [anyJson] : []), failed, ...more]);

const anyJson = because(
  "unsupported_media_type",
  "The content type is not JSON, or the content encoding is neither `gzip` nor `identity`.",
);
const failed = because("internal", "The server failed.");

function route(said: Operation, failures: JsonSchema): Route {
  const { id, tag, summary, scope, key, schemes = ["key"], parameters, body } = said;
  const scopes = scope === undefined ? undefined : [scope].flat();
  const replies = Object.entries(said.replies).map(([status, reply]) => [status, response(reply)]);
  const detail = {
    operationId: id,
    tags: [tag],
    summary,
    description: `${said.description}\n\n${key ?? needs(scopes)}`,
    security: scopes || key ? schemes.map((scheme) => ({ [scheme]: scopes ?? [] })) : [],
    ...(parameters && { parameters }),
    ...(body && { requestBody: requestBody(body) }),
    responses: { ...Object.fromEntries(replies), ...failures },
    ...said.extensions,
  };
  return { ...(scope && { scope }), detail: detail as object };
}

/** For a route that the document leaves out: a `HEAD` is what its `GET` is, without a body. */
export const hidden: DocumentDecoration = { hide: true };

function needs(scopes: readonly Scope[] | undefined): string {
  if (scopes?.length === 0) return "Needs a key, whatever its scopes.";
  if (scopes === undefined)
    return "Open, unless the server is set to ask for a key here, too (`TOPICS_PROBE_AUTH`).";
  return `Needs the scope ${scopes.map((scope) => `\`${scope}\``).join(" and ")}.`;
}

const withBody: readonly Possible[] = [
  "invalid_request",
  "request_timeout",
  "payload_too_large",
  "unsupported_media_type",
];

function failuresOf(said: Omit<Operation, "tag">): Possible[] {
  const { scope, parameters = [], body, failures = [], never = [] } = said;
  const possible: Possible[] = [
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
  return possible.filter((each) => !never.includes(each));
}

function requestBody({ schema, optional = false, examples }: Body): JsonSchema {
  return {
    required: !optional,
    ...(optional && { description: "No body is the same as `{}`." }),
    content: { "application/json": media(ref(schema), examples) },
  };
}

function response({ description, schema, examples = {}, otherwise, links }: Reply): JsonSchema {
  return {
    description,
    content: { ...(schema && { "application/json": media(ref(schema), examples) }), ...otherwise },
    ...(links && { links }),
  };
}

/** A body of one media type. */
export const media = (schema: JsonSchema, examples: Examples): JsonSchema => ({
  schema,
  examples: examplesOf(examples),
});

const examplesOf = (examples: Examples): JsonSchema =>
  Object.fromEntries(Object.entries(examples).map(([summary, value]) => [idOf(summary), { summary, value }]));

const idOf = (summary: string): string => summary.toLowerCase().replace(/[^a-z0-9]+/g, "-");

const inPath = (name: string, example: string, description: string, schema: JsonSchema): JsonSchema => ({
  name,
  in: "path",
  required: true,
  description,
  schema: { type: "string", ...schema },
  example,
});

const LOG = "orders.eu";
const QUEUE = "renders";
const ROUTER = "orders.eu->archive";

/** The name of a router that the operation may create. */
export const newRouter = inPath(
  "router",
  ROUTER,
  "The router's name: 1 to 255 of `A-Z a-z 0-9 . _ : - >`, the first a letter or a digit.",
  { pattern: ROUTER_NAME.source },
);

/** The name of a router that must be there already. */
export const anyRouter = inPath("router", ROUTER, "The router's name.", { minLength: 1 });

/**
 * The name of a topic that the operation may create. An example of a body that has the id of one of the parameter goes
 * with that, and others with the first.
 */
export function newTopic(exampleOfQueue: string): JsonSchema {
  const { example: _, ...parameter } = inPath(
    "topic",
    LOG,
    "The topic's name: 1 to 255 of `A-Z a-z 0-9 . _ : -`, the first a letter or a digit.",
    { pattern: TOPIC_NAME.source },
  );
  return { ...parameter, examples: examplesOf({ "A log": LOG, [exampleOfQueue]: QUEUE }) };
}

/** The name of a topic that must be there already; one that could not be has never been. */
export const anyTopic = inPath("topic", LOG, "The topic's name.", { minLength: 1 });
/** The same of a queue. */
export const anyQueue = inPath("topic", QUEUE, "The queue's name.", { minLength: 1 });

/** The operations that may come next, with the topic of this one. */
export const toSameTopic = (...operationIds: string[]): Record<string, JsonSchema> =>
  Object.fromEntries(
    operationIds.map((operationId) => [
      operationId,
      { operationId, parameters: { topic: "$request.path.topic" } },
    ]),
  );

/** A watch session. */
export const session = inPath("wid", "wid_lzRu0YvxyFf1RsIMYIncEg", "The session.", { minLength: 1 });

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
