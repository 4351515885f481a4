/** The HTTP application: every route, and what holds for all of them. */
import { Elysia } from "elysia";
import { ApiError } from "../contract/errors.ts";
import type { Engine } from "../engine/engine.ts";
import { errorReply } from "./errors.ts";
import { healthRoutes } from "./health.ts";
import { recordRoutes } from "./records.ts";
import { arrived } from "./reply.ts";
import { pathOf } from "./target.ts";
import { topicRoutes } from "./topics.ts";

/** Above the longest long poll; a connection that is silent for longer is closed. */
const IDLE_TIMEOUT_SECONDS = 60;

export interface AppOptions {
  readonly engine: Engine;
  readonly bodyBytesMax: number;
  /** Gets what was thrown and is no answer to a client. */
  readonly unexpected: (error: unknown) => void;
}

export function createApp({ engine, bodyBytesMax, unexpected }: AppOptions) {
  const app = new Elysia({
    strictPath: true,
    serve: {
      development: false,
      // Elysia's default would let a second server share the port.
      reusePort: false,
      idleTimeout: IDLE_TIMEOUT_SECONDS,
      // Bodies are bounded where they are read, with the contract's answer.
      maxRequestBodySize: Number.MAX_SAFE_INTEGER,
    },
  })
    .onRequest(({ request }) => arrived(request))
    .onError(({ request, error, code }) => {
      if (code !== "NOT_FOUND") return errorReply(request, error, unexpected);
      const allowed = methodsOf(app.routes, pathOf(request.url));
      return allowed.length === 0
        ? errorReply(request, new ApiError("not_found", {}), unexpected)
        : errorReply(request, new ApiError("method_not_allowed", {}), unexpected, {
            allow: allowed.join(","),
          });
    })
    .use(healthRoutes(engine.topics))
    .use(topicRoutes(engine.topics, bodyBytesMax))
    .use(recordRoutes(engine.log, bodyBytesMax));
  return app;
}

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
  return routes.filter((route) => matches(route.path)).map((route) => route.method);
}
