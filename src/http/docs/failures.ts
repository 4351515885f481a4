/** The error answers of the document, from the table of all errors. */
import { envelope } from "../../contract/envelope.ts";
import { type ErrorCode, type ErrorDetail, errors } from "../../contract/errors.ts";
import { FeedFailure } from "../../contract/feeds.ts";
import { IDEMPOTENCY_KEY_BYTES_MAX } from "../../contract/limits.ts";
import { answer, name, ref } from "./naming.ts";
import type { JsonSchema } from "./schema.ts";

interface Cause<Code extends ErrorCode = ErrorCode> {
  /** When a client gets it. */
  readonly when: string;
  /** What an example tells of it. */
  readonly detail: ErrorDetail<Code>;
  readonly message?: string;
}

/** An error that an operation may end in: for any of its causes, or for one that is told. */
export type Possible = ErrorCode | { readonly code: ErrorCode; readonly cause: Cause };

/** An error in the words of one operation. */
export const because = <Code extends ErrorCode>(
  code: Code,
  when: string,
  detail: ErrorDetail<Code> = failures[code].detail,
): Possible => ({ code, cause: { when, detail } });

const failures: { readonly [Code in ErrorCode]: Cause<Code> } = {
  invalid_request: {
    when: "The body, a field, a query parameter or the name is not what it must be; the message says which.",
    detail: {},
    message: `idempotency_key: longer than ${IDEMPOTENCY_KEY_BYTES_MAX} bytes`,
  },
  batch_too_large: { when: "Too many records in one write, or too many seqs at a time.", detail: {} },
  record_too_large: {
    when: "A record is too large, or the write alone exceeds the caps of a topic that rejects.",
    detail: {},
  },
  unauthorized: { when: "The server has keys, and the request shows none of them.", detail: {} },
  forbidden: {
    when: "The key lacks the scope, or may not use the name.",
    detail: {},
    message: "the API key lacks the scope that this operation needs",
  },
  topic_not_found: { when: "There is no such topic.", detail: { topic: "orders.eu" } },
  router_not_found: { when: "There is no such router.", detail: { router: "orders.eu->archive" } },
  not_acceptable: { when: "The `Accept` header leaves out `text/event-stream`.", detail: {} },
  not_found: { when: "There is no such path.", detail: {} },
  method_not_allowed: { when: "The path exists and does not know the method.", detail: {} },
  request_timeout: { when: "The body came too slowly.", detail: {} },
  topic_exists_incompatible: {
    when: "The topic or the router exists, and is another one.",
    detail: { topic: "orders.eu", existing_type: "queue", requested_type: "log" },
  },
  not_a_queue: { when: "The topic is a log.", detail: { topic: "orders.eu" } },
  router_cycle: {
    when: "Records would come back to where they started, and `allow_cycle` was not asked for.",
    detail: { cycle: ["orders.eu", "orders.us", "orders.eu"] },
  },
  topic_not_empty: {
    when: "The topic holds live records, and `if_empty` was asked for.",
    detail: { topic: "orders.eu", count: 3 },
  },
  payload_too_large: { when: "The body is larger than the server accepts.", detail: {} },
  unsupported_media_type: {
    when: "The content type is not `application/json`, or the content encoding is neither `gzip` nor `identity`.",
    detail: {},
  },
  unprocessable: { when: "The body is JSON of another shape; the message says where.", detail: {} },
  network_mismatch: { when: "The instances are of different networks.", detail: {} },
  control_busy: { when: "Too many peers ask at once. Try again later.", detail: {} },
  topic_full: {
    when: "The topic rejects writes beyond its caps, and is full.",
    detail: { topic: "orders.eu", cap_records: 3, cap_bytes: 0, head_seq: 4, earliest_seq: 2 },
  },
  throttled: {
    when: "A limit of the server is reached. Try again later.",
    detail: { limit: "max_inflight_per_key", max: 1000 },
  },
  shutting_down: { when: "The server is stopping.", detail: {} },
  internal: {
    when: "The server failed, or a stored record is damaged, which the detail then names.",
    detail: {},
  },
};

/** Errors that only feeds have, which tell them in words. */
const ofFeeds: readonly ErrorCode[] = ["unprocessable", "network_mismatch", "control_busy"];

const codes = (Object.keys(errors) as ErrorCode[]).filter((code) => !ofFeeds.includes(code));

for (const code of codes) name(envelope(code), schemaName(code), failures[code].when);

answer(FeedFailure, "FeedFailure", "Why a request about feeds has failed.", {
  ok: "Always false.",
  error: "What is wrong, in words.",
});

/** `TopicNotFoundError` for `topic_not_found`. */
function schemaName(code: ErrorCode): string {
  return `${code.replace(/(?:^|_)([a-z])/g, (_, letter: string) => letter.toUpperCase())}Error`;
}

const text = (description: string, schema: JsonSchema) => ({ description, required: true, schema });

/** The headers that come with every error of a status. */
const headers: Readonly<Record<number, JsonSchema>> = {
  401: { "WWW-Authenticate": text("The scheme to authenticate with.", { const: "Bearer" }) },
  405: { Allow: text("The methods that the path knows, separated by commas.", { type: "string" }) },
  429: { "Retry-After": text("Seconds to wait.", { type: "integer", minimum: 1 }) },
  503: { "Retry-After": text("Seconds to wait.", { type: "integer", minimum: 1 }) },
};

/** Errors that any operation can end in, or that belong to none. */
const shared: readonly ErrorCode[] = [
  "unauthorized",
  "forbidden",
  "not_found",
  "method_not_allowed",
  "request_timeout",
  "payload_too_large",
  "unsupported_media_type",
  "throttled",
  "shutting_down",
  "internal",
];

type Group = readonly { readonly code: ErrorCode; readonly cause: Cause }[];

/** The errors by status, each once. What an operation says of one counts more than what is said of it in general. */
function byStatus(possible: readonly Possible[]): [status: number, Group][] {
  const causes = new Map<ErrorCode, Cause>();
  for (const each of possible) {
    if (typeof each !== "string") causes.set(each.code, each.cause);
    else if (!causes.has(each)) causes.set(each, failures[each]);
  }
  const all = Array.from(causes, ([code, cause]) => ({ code, cause }));
  const groups = Object.groupBy(all, ({ code }) => errors[code].status);
  return Object.entries(groups).map(([status, group = []]) => [Number(status), group]);
}

/** The answers to a request that may fail with `possible`, by status. */
export function failureResponses(possible: readonly Possible[]): Record<string, JsonSchema> {
  const isShared = ([{ code, cause } = {}, ...more]: Partial<Group[number]>[]) =>
    more.length === 0 && shared.includes(code!) && cause === failures[code!];
  return Object.fromEntries(
    byStatus(possible).map(([status, group]) => [
      status,
      isShared([...group])
        ? { $ref: `#/components/responses/${schemaName(group[0]!.code)}` }
        : response(status, group),
    ]),
  );
}

/** The answers to a request about feeds that may fail with `possible`: in words, whatever it is. */
export function feedFailureResponses(possible: readonly Possible[]): Record<string, JsonSchema> {
  const answers = byStatus(possible).map(([status, group]) => [
    status,
    {
      description: group.map(({ cause }) => cause.when).join("\n\n"),
      ...(headers[status] && { headers: headers[status] }),
      content: { "application/json": { schema: ref(FeedFailure), examples: examplesOf(group, feedExample) } },
    },
  ]);
  return Object.fromEntries(answers);
}

function response(status: number, group: Group): JsonSchema {
  const schemas = group.map(({ code }) => ({ $ref: `#/components/schemas/${schemaName(code)}` }));
  return {
    description: group.map(({ code, cause }) => `\`${code}\`: ${cause.when}`).join("\n\n"),
    ...(headers[status] && { headers: headers[status] }),
    content: {
      "application/json": {
        schema: schemas.length === 1 ? schemas[0] : { anyOf: schemas },
        examples: examplesOf(group, example),
      },
    },
  };
}

const examplesOf = (group: Group, example: (code: ErrorCode, cause: Cause) => object): JsonSchema =>
  Object.fromEntries(group.map(({ code, cause }) => [code, { value: example(code, cause) }]));

const said = (code: ErrorCode, { message, detail }: Cause): string =>
  message ?? (errors[code].message as (detail: unknown) => string)(detail);

const performance = { server_total_ms: 0.04 };

const feedExample = (code: ErrorCode, cause: Cause): object => ({
  ok: false,
  error: said(code, cause),
  performance,
});

function example(code: ErrorCode, cause: Cause): object {
  const error = { code, message: said(code, cause) };
  const { detail } = cause;
  return { error: Object.keys(detail).length > 0 ? { ...error, detail } : error, performance };
}

/** `components/responses` of the document. */
export const responses: Record<string, JsonSchema> = Object.fromEntries(
  shared.map((code) => [
    schemaName(code),
    response(errors[code].status, [{ code, cause: failures[code] as Cause }]),
  ]),
);
