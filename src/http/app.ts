/** The HTTP application: every route, and what holds for all of them. */
import { type AnyElysia, Elysia } from "elysia";
import { ApiError } from "../contract/errors.ts";
import type { Engine } from "../engine/engine.ts";
import type { Admission } from "./admission.ts";
import { begin } from "./call.ts";
import { acceptsGzip, compressed } from "./compression.ts";
import { crossOrigin } from "./cors.ts";
import { documentationRoutes } from "./docs/document.ts";
import { hidden } from "./docs/operation.ts";
import { errorReply } from "./errors.ts";
import { feedRoutes } from "./feeds.ts";
import { healthRoutes } from "./health.ts";
import { Metrics, metricsRoutes } from "./metrics.ts";
import { peerRoutes } from "./peers.ts";
import { queueRoutes } from "./queues.ts";
import { recordRoutes } from "./records.ts";
import { routerRoutes } from "./routers.ts";
import { LARGE_ANSWER_BYTES, Sending } from "./sending.ts";
import { socketOptions } from "./socket.ts";
import { socketRoutes } from "./sockets.ts";
import type { Streams } from "./streams.ts";
import { pathOf, routable } from "./target.ts";
import { tokenRoutes } from "./tokenroutes.ts";
import type { Tokens } from "./tokens.ts";
import { topicRoutes } from "./topics.ts";
import { watchRoutes } from "./watch.ts";

/** Above the longest long poll; a connection that is silent for longer is closed. */
const IDLE_TIMEOUT_SECONDS = 60;
/** Above the longest heartbeat, and long enough for a stalled client to find out that its stream was cut. */
const STREAM_IDLE_SECONDS = 130;

export interface AppOptions {
  readonly engine: Engine;
  readonly admission: Admission;
  readonly tokens: Tokens;
  readonly streams: Streams;
  /** What peers have to show; empty where only this machine is let in. */
  readonly peerToken: string;
  /** Origins of web pages that may use the server; `*` is any. */
  readonly corsOrigins: readonly string[];
  /** PEM texts. */
  readonly tls: { readonly cert: string; readonly key: string } | undefined;
  /** Gets what was thrown and is no answer to a client. */
  readonly unexpected: (error: unknown) => void;
}

/** As other servers count a client that has hung up. */
const CLIENT_LEFT = 499;

type Handle = (request: Request) => Response | Promise<Response>;

export function createApp(options: AppOptions) {
  const { engine, admission, tokens, streams, peerToken, corsOrigins, tls, unexpected } = options;
  const started = performance.now();
  const uptimeMs = () => performance.now() - started;
  const metrics = new Metrics(engine, admission, streams, uptimeMs);
  const serve = {
    development: false,
    // Elysia's default would let a second server share the port.
    reusePort: false,
    http2: true,
    idleTimeout: IDLE_TIMEOUT_SECONDS,
    // Bodies are bounded where they are read, with the contract's answer.
    maxRequestBodySize: Number.MAX_SAFE_INTEGER,
    ...(tls && { tls }),
  };
  const silent = (request: Request): void => app.server?.timeout(request, STREAM_IDLE_SECONDS);
  // Bun's own router sees paths before dots are resolved, and access is decided on what they come to.
  const app = new Elysia({ strictPath: true, systemRouter: false, serve, websocket: socketOptions })
    .wrap((handle) => accounted(handle as unknown as Handle, { admission, metrics, streams, silent }))
    .use(crossOrigin(corsOrigins))
    .onRequest(({ request }) => admission.admit(request))
    .onError(({ request, error, code }) => {
      if (code !== "NOT_FOUND") return errorReply(request, error, unexpected);
      const allowed = methodsOf(app.routes, pathOf(request.url));
      return allowed.length === 0
        ? errorReply(request, new ApiError("not_found", {}), unexpected)
        : errorReply(request, new ApiError("method_not_allowed", {}), unexpected, {
            allow: allowed.join(","),
          });
    })
    .use(healthRoutes(engine.topics, uptimeMs))
    .use(metricsRoutes(metrics))
    .use(topicRoutes(engine.topics, admission))
    .use(recordRoutes(engine.log, engine.topics, admission))
    .use(queueRoutes(engine.queues, admission, streams))
    .use(routerRoutes(engine.routers, admission))
    .use(watchRoutes(engine.watch, admission, streams))
    .use(tokenRoutes(tokens, admission))
    .use(socketRoutes(engine, streams, unexpected))
    .use(feedRoutes(engine.network.feeds, admission))
    .use(peerRoutes(engine.network, peerToken, admission));
  return withHeads(app.use(documentationRoutes(app.routes)));
}

/** `HEAD` wherever `GET` is: the same for whoever may do that, without a body. */
function withHeads<App extends AnyElysia>(app: App): App {
  for (const { method, path, handler, hooks } of [...app.routes]) {
    if (method === "GET") app.head(path, handler as () => Response, { ...hooks, detail: hidden });
  }
  return app;
}

interface Accounting {
  readonly admission: Admission;
  readonly metrics: Metrics;
  readonly streams: Streams;
  /** Lets the connection of a stream be silent for longer than others. */
  readonly silent: (request: Request) => void;
}

/** Counts a request from its arrival until its answer is ready, and a large one until that is sent. */
const accounted =
  (handle: Handle, { admission, metrics, streams, silent }: Accounting): Handle =>
  async (received) => {
    const request = routable(received);
    const call = begin(request, received);
    let isSending = false;
    const leave = () => admission.leave(call);
    admission.enter();
    try {
      if (request.url.includes("token=")) await admission.recognize(request);
      const response = await handle(request);
      if (call.isStream) silent(received);
      metrics.answered(hasLeft(request, response) ? CLIENT_LEFT : response.status);
      if (admission.draining) response.headers.set("connection", "close");
      // Bun gives every answer a date but those to HEAD.
      if (request.method === "HEAD") response.headers.set("date", new Date().toUTCString());
      const answer = acceptsGzip(request) ? await compressed(response) : response;
      if (call.answerBytes < LARGE_ANSWER_BYTES || request.method === "HEAD") return answer;
      const { status, headers } = answer;
      const bytes = await answer.bytes();
      isSending = true;
      return new Response(new Sending(bytes, streams, leave).body, { status, headers });
    } finally {
      if (!isSending) leave();
    }
  };

/** A failure that nobody waits for any more is the client's. */
const hasLeft = (request: Request, { status }: Response): boolean => status >= 400 && request.signal.aborted;

/** The methods a path knows; none for an unknown path. */
function methodsOf(routes: readonly { method: string; path: string }[], path: string): string[] {
  const segments = path.split("/");
  const matches = (route: string) => {
    const parts = route.split("/");
    return (
      parts.length === segments.length &&
      parts.every((part, i) => (part.startsWith(":") ? segments[i] !== "" : part === segments[i]))
    );
  };
  return routes.filter(({ path }) => matches(path)).map(({ method }) => method);
}
