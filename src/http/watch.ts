/** `/v0/watch` and `/v0/topics/:topic/stream`: following topics live, as server-sent events. */
import { Elysia } from "elysia";
import { ApiError } from "../contract/errors.ts";
import { type WatchFrom, Watch as WatchRequest } from "../contract/watch.ts";
import type { Frame } from "../engine/frames.ts";
import type { Follower, Told } from "../engine/follower.ts";
import type { FollowOptions, Watch } from "../engine/watch.ts";
import { access, authorizeName } from "./access.ts";
import type { Admission } from "./admission.ts";
import { bodyReader } from "./body.ts";
import { callOf } from "./call.ts";
import { hidden } from "./docs/operation.ts";
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
      { scope: "read" as const, detail: hidden },
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
        const source = () => watch.open(session, lastEventId(request), streams.shutdown);
        return open(request, caller, session.heartbeatMs, source);
      },
      { detail: hidden },
    )
    .get(
      "/v0/topics/:topic/stream",
      async ({ request }) => {
        allowEvents(request);
        const topic = nameIn(request);
        const { from, options } = streamRequest(new Query(request.url));
        const starts = await watch.starts(new Map([[topic, from]]), false);
        const source = () => watch.follow(topic, starts.get(topic)!, options, lastEventId(request), streams.shutdown);
        return open(request, callOf(request).caller, watch.heartbeatMs(options.heartbeat_ms), source);
      },
      { scope: "read" as const, detail: hidden },
    );
}

const lastEventId = (request: Request): string => request.headers.get("last-event-id") ?? "";

interface StreamRequest {
  readonly from: WatchFrom;
  readonly options: FollowOptions;
}

/** Throws `invalid_request` for what cannot be understood: a typing error must not replay a topic from its start. */
function streamRequest(query: Query): StreamRequest {
  const strict = new StrictQuery(query);
  const from = { from_seq: strict.integer("from_seq"), tail: strict.flag("tail"), epoch: strict.integer("epoch") };
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
