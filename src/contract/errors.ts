/**
 * Every error a client can see. Status, body, wording and OpenAPI entry all come from this table, so a new
 * error is one new row.
 */
import { type Static, type TObject, Type } from "@sinclair/typebox";

const row = <const S extends number, D extends TObject>(
  status: S,
  detail: D,
  message: (detail: Static<D>) => string,
) => ({ status, detail, message });

const none = Type.Object({});
const topic = Type.Object({ topic: Type.String() });

export const errors = {
  /** `reason` is the message; it is not part of `detail`. */
  invalid_request: row(
    400,
    Type.Object({ dead_letter: Type.Optional(Type.String()) }),
    () => "the request is invalid",
  ),
  batch_too_large: row(
    400,
    Type.Object({ seqs: Type.Optional(Type.Integer()), max: Type.Optional(Type.Integer()) }),
    (d) => (d.seqs === undefined ? "a write takes at most 10000 records" : `at most ${d.max} seqs at a time`),
  ),
  record_too_large: row(400, none, () => "a record holds at most 1048576 bytes of data and meta"),
  unauthorized: row(401, none, () => "missing or invalid bearer token"),
  forbidden: row(403, Type.Object({ topic: Type.Optional(Type.String()) }), (d) =>
    d.topic === undefined
      ? "the API key may not use this name"
      : `the API key may not use or configure topic "${d.topic}"`,
  ),
  topic_not_found: row(404, topic, (d) => `topic "${d.topic}" does not exist`),
  router_not_found: row(
    404,
    Type.Object({ router: Type.String() }),
    (d) => `router "${d.router}" does not exist`,
  ),
  not_found: row(404, none, () => "no such path"),
  method_not_allowed: row(405, none, () => "this path does not know that method; see the Allow header"),
  not_acceptable: row(406, none, () => "this is a stream: accept text/event-stream"),
  request_timeout: row(408, none, () => "the request body came too slowly"),
  /** Another type of topic, another source of a destination, or other ends of a router. */
  topic_exists_incompatible: row(
    409,
    Type.Object({
      topic: Type.Optional(Type.String()),
      existing_type: Type.Optional(Type.String()),
      requested_type: Type.Optional(Type.String()),
      router: Type.Optional(Type.String()),
      reason: Type.Optional(Type.String()),
      existing_source: Type.Optional(Type.String()),
      existing_dest: Type.Optional(Type.String()),
    }),
    (d) =>
      d.reason === "router_dest_fan_in"
        ? `topic "${d.topic}" is fed by routers from another source`
        : d.reason === "router_repoint_forbidden"
          ? `router "${d.router}" leads from "${d.existing_source}" to "${d.existing_dest}"; delete it to change that`
          : `topic "${d.topic}" is a ${d.existing_type} and cannot become a ${d.requested_type}`,
  ),
  not_a_queue: row(409, topic, (d) => `topic "${d.topic}" is not a queue`),
  router_cycle: row(
    409,
    Type.Object({ cycle: Type.Array(Type.String()) }),
    (d) => `the router would close a cycle: ${d.cycle.join(" -> ")}`,
  ),
  topic_not_empty: row(
    409,
    Type.Object({ topic: Type.String(), count: Type.Integer() }),
    (d) => `topic "${d.topic}" still holds ${d.count} records`,
  ),
  payload_too_large: row(413, none, () => "the request body is larger than this server accepts"),
  unsupported_media_type: row(415, none, () => "the content type must be application/json"),
  /** Valid JSON that is not what a feed operation takes. */
  unprocessable: row(422, none, () => "the request body has another shape"),
  network_mismatch: row(409, none, () => "network_id mismatch"),
  topic_full: row(
    422,
    Type.Object({
      topic: Type.String(),
      cap_records: Type.Integer(),
      cap_bytes: Type.Integer(),
      head_seq: Type.Integer(),
      earliest_seq: Type.Integer(),
    }),
    (d) => `topic "${d.topic}" is full and rejects writes`,
  ),
  throttled: row(
    429,
    Type.Object({ limit: Type.String(), max: Type.Integer() }),
    (d) => `the limit ${d.limit} of ${d.max} is reached`,
  ),
  control_busy: row(503, none, () => "control_busy"),
  shutting_down: row(503, none, () => "the server is shutting down"),
  internal: row(
    500,
    Type.Object({ topic: Type.Optional(Type.String()), seq: Type.Optional(Type.Integer()) }),
    (d) =>
      d.seq === undefined
        ? "internal error"
        : `record ${d.seq} of topic "${d.topic}" is damaged in storage; from_seq ${d.seq} reads on behind it`,
  ),
};

export type ErrorCode = keyof typeof errors;
export type ErrorDetail<C extends ErrorCode> = Static<(typeof errors)[C]["detail"]>;

/** The one error that reaches a client as it is. `message` replaces the table's wording where a caller knows more. */
export class ApiError<C extends ErrorCode = ErrorCode> extends Error {
  readonly code: C;
  readonly detail: ErrorDetail<C>;

  constructor(code: C, detail: ErrorDetail<C>, message?: string) {
    super(message ?? (errors[code].message as (detail: ErrorDetail<C>) => string)(detail));
    this.code = code;
    this.detail = detail;
  }

  get status(): number {
    return errors[this.code].status;
  }
}

/** A request that breaks the contract's shape or rules: `400 invalid_request`, saying what to mend. */
export const invalid = (message: string): ApiError => new ApiError("invalid_request", {}, message);

/** A feed operation's body of the wrong shape. */
export const unprocessable = (message: string): ApiError => new ApiError("unprocessable", {}, message);

/** Clients can read the topic, and nothing else. */
export const readOnly = (topic: string): ApiError =>
  invalid(`topic "${topic}" belongs to the server and can only be read`);
