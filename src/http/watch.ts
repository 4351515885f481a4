/** `/v0/watch` and `/v0/topics/:topic/stream`: following topics live, as server-sent events. */
import { Elysia } from "elysia";
import { ApiError } from "../contract/errors.ts";
import { HEARTBEAT_MS, WATCH_BYTES_DEFAULT, WATCH_LIMIT_DEFAULT } from "../contract/limits.ts";
import {
  frames,
  StreamFailure,
  type WatchFrom,
  Watch as WatchRequest,
  WatchStarted,
} from "../contract/watch.ts";
import type { Follower } from "../engine/follower.ts";
import type { Frame } from "../engine/frames.ts";
import type { Told } from "../engine/told.ts";
import { type FollowOptions, type Watch, wantsOf } from "../engine/watch.ts";
import { access, authorizeName } from "./access.ts";
import type { Admission } from "./admission.ts";
import { bodyReader } from "./body.ts";
import { callOf } from "./call.ts";
import { because } from "./docs/failures.ts";
import { ref } from "./docs/naming.ts";
import { anyTopic, flag, lastEventId, media, operation, session as sessionInPath } from "./docs/operation.ts";
import type { JsonSchema } from "./docs/schema.ts";
import * as examples from "./docs/watchexamples.ts";
import { selected } from "./docs/watchshapes.ts";
import type { Caller } from "./keys.ts";
import { reply } from "./reply.ts";
import { allowEvents, event, utf8 } from "./sse.ts";
import type { Streams } from "./streams.ts";
import { nameIn, Query, StrictQuery } from "./target.ts";

const readWatch = bodyReader(WatchRequest);

export function watchRoutes(watch: Watch, admission: Admission, streams: Streams) {
  const open = (request: Request, caller: Caller, heartbeatMs: number, begin: () => Follower) => {
    let follower: Follower | undefined;
    const source = () => {
      follower = begin();
      return follower;
    };
    const ending = (code: string, message: string) =>
      event("error", JSON.stringify({ code, message }), follower?.id);
    return streams.open(request, { caller, heartbeatMs, source, spell, ending });
  };
  return new Elysia({ name: "watch" })
    .use(access)
    .post(
      "/v0/watch",
      async ({ request }) => {
        const body = await readWatch(request, admission);
        const isLenient = new Query(request.url).flag("lenient", false);
        const owner = callOf(request).caller.usage;
        const allow = (topic: string) => authorizeName(request, topic);
        return reply(request, await watch.start(body, isLenient, owner, allow));
      },
      operation({
        id: "startWatch",
        tag: "Watch",
        scope: "read",
        summary: "Start a watch session",
        description:
          "For streams of several topics. The session keeps where its stream stands, in memory: it does not outlive the " +
          "server. Every topic in the body must be allowed to the key.",
        parameters: [flag("lenient", false, "Whether topics that do not exist are left out.")],
        body: { schema: WatchRequest, examples: examples.startWatch.requests },
        replies: {
          200: {
            description: "The session.",
            schema: WatchStarted,
            examples: examples.startWatch.answers,
            links: { openWatch: { operationId: "openWatch", parameters: { wid: "$response.body#/wid" } } },
          },
        },
        failures: ["topic_not_found"],
      }),
    )
    .get(
      "/v0/watch/:wid",
      ({ request }) => {
        allowEvents(request);
        const session = watch.session(nameIn(request));
        const { caller } = callOf(request);
        const isAllowed =
          caller.usage === session.owner &&
          caller.may("read") &&
          session.topics.every((topic) => caller.mayName(topic));
        if (!isAllowed) throw new ApiError("unauthorized", {});
        const source = () => watch.open(session, seenBy(request), streams.shutdown);
        return open(request, caller, session.heartbeatMs, source);
      },
      operation({
        id: "openWatch",
        tag: "Watch",
        key: "Needs the key that the session was made with, or a token made with it.",
        schemes: ["key", "token"],
        summary: "Open a stream of a session",
        description:
          "Server-sent events, from where the last stream of the session has stopped, or from `Last-Event-ID` if that " +
          "lies before: `record` (RecordFrame), `tombstone` (TombstoneFrame), `caught-up` (CaughtUpFrame), " +
          "`topic-deleted` (TopicDeletedFrame) and `error` (StreamFailure). Topics are served by their `priority`, then by " +
          "name. The stream ends when its last topic is gone, when the server stops, or if its client takes nothing for a " +
          "minute. Use `curl -N`.",
        parameters: [sessionInPath, lastEventId],
        replies: { 200: stream },
        extensions: events,
        failures: [
          "not_acceptable",
          because("not_found", "There is no such session, or it has expired."),
          because(
            "unauthorized",
            "The server has keys, and the request shows none of them, or another one than the session was made with, or one " +
              "that may not read its topics any more.",
          ),
        ],
      }),
    )
    .get(
      "/v0/topics/:topic/stream",
      async ({ request }) => {
        allowEvents(request);
        const topic = nameIn(request);
        const { from, options } = streamRequest(new Query(request.url));
        const wants = wantsOf(options);
        const starts = await watch.starts(new Map([[topic, from]]), false);
        const source = () =>
          watch.follow(topic, starts.get(topic)!, wants, seenBy(request), streams.shutdown);
        return open(request, callOf(request).caller, watch.heartbeatMs(options.heartbeat_ms), source);
      },
      operation({
        id: "followTopic",
        tag: "Watch",
        scope: "read",
        schemes: ["key", "token"],
        summary: "Follow one topic",
        description:
          "The stream of a session with this one topic, with the same events, in a single request: for `EventSource` and " +
          "`curl -N`. A client " +
          "that comes back with `Last-Event-ID` goes on there, whatever the URL says.",
        parameters: [
          anyTopic,
          asked(
            "from_seq",
            { type: "integer", minimum: 0, default: 0 },
            "Begin with what comes after this seq.",
          ),
          asked("tail", { type: "boolean", default: false }, "Begin with what comes from now on."),
          asked("epoch", { type: "integer", minimum: 0 }, "The instance that `from_seq` belongs to."),
          asked("node", { type: "array", items: { type: "string" } }, selected.node),
          asked("limit", { type: "integer", minimum: 0, default: WATCH_LIMIT_DEFAULT }, selected.limit),
          asked(
            "max_batch_bytes",
            { type: "integer", minimum: 0, default: WATCH_BYTES_DEFAULT },
            selected.max_batch_bytes,
          ),
          asked(
            "heartbeat_ms",
            { type: "integer", minimum: 0, default: HEARTBEAT_MS },
            selected.heartbeat_ms,
          ),
          asked("include_meta", { type: "boolean", default: true }, selected.include_meta),
          asked("include_tags", { type: "boolean", default: false }, selected.include_tags),
          asked("include_data", { type: "boolean", default: true }, selected.include_data),
          asked(
            "consistency",
            { type: "string", enum: ["eventual", "strong"], default: "eventual" },
            selected.consistency,
          ),
          lastEventId,
        ],
        replies: { 200: stream },
        extensions: events,
        failures: ["not_acceptable", "topic_not_found"],
      }),
    );
}

const stream = {
  description: "The stream.",
  otherwise: { "text/event-stream": media({ type: "string" }, examples.stream) },
};

const events = {
  "x-events": {
    ...Object.fromEntries(Object.entries(frames).map(([event, frame]) => [event, ref(frame)])),
    error: ref(StreamFailure),
  },
};

const asked = (name: string, schema: JsonSchema, description: string): JsonSchema => ({
  name,
  in: "query",
  description,
  schema,
});

const seenBy = (request: Request): string => request.headers.get("last-event-id") ?? "";

interface StreamRequest {
  readonly from: WatchFrom;
  readonly options: FollowOptions;
}

/** Throws `invalid_request` for what cannot be understood: a typing error must not replay a topic from its start. */
function streamRequest(query: Query): StreamRequest {
  const strict = new StrictQuery(query);
  const from = {
    from_seq: strict.integer("from_seq"),
    tail: strict.flag("tail"),
    epoch: strict.integer("epoch"),
  };
  const options = {
    node: query.all("node"),
    limit: strict.integer("limit", 32),
    max_batch_bytes: strict.integer("max_batch_bytes"),
    heartbeat_ms: strict.integer("heartbeat_ms"),
    include_meta: strict.flag("include_meta"),
    include_tags: strict.flag("include_tags"),
    include_data: strict.flag("include_data"),
    consistency: strict.oneOf("consistency", ["eventual", "strong"]),
  };
  return { from: given(from), options: given(options) } as StreamRequest;
}

/** Without what is not there. */
const given = (all: Record<string, unknown>): Record<string, unknown> =>
  Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));

/** The bytes of what is told, which many streams may share. */
function spell(told: readonly Told[]): Uint8Array {
  let bytes = spelled.get(told);
  if (bytes === undefined) {
    bytes = utf8(told.map(({ frame, id }) => `id: ${id}\n${bodyOf(frame)}`).join(""));
    spelled.set(told, bytes);
  }
  return bytes;
}
const spelled = new WeakMap<readonly Told[], Uint8Array>();

/** What is the same for all streams of a frame, spelled once. */
function bodyOf(frame: Frame): string {
  let body = bodies.get(frame);
  if (body === undefined) {
    body = event(frame.event, `{${frame.members}}`);
    bodies.set(frame, body);
  }
  return body;
}
const bodies = new WeakMap<Frame, string>();
