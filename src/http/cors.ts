/** Lets web pages of named origins use the server. Keys travel in a header, so no credentials are allowed. */
import { cors } from "@elysiajs/cors";
import { Elysia } from "elysia";

const PREFLIGHT_SECONDS = 600;

/** `*` is any origin; none turns cross-origin requests off. */
export function crossOrigin(origins: readonly string[]) {
  if (origins.length === 0) return new Elysia({ name: "no-cors" });
  const headers = cors({
    origin: [...origins],
    methods: ["GET", "HEAD", "PUT", "POST", "DELETE"],
    allowedHeaders: ["authorization", "content-type", "content-encoding", "idempotency-key", "last-event-id"],
    exposeHeaders: ["allow", "retry-after", "www-authenticate"],
    credentials: false,
    // It would take every OPTIONS for one.
    preflight: false,
  });
  return headers.onRequest(({ request, set }) => {
    if (!isPreflight(request)) return;
    set.headers["access-control-max-age"] = `${PREFLIGHT_SECONDS}`;
    return new Response(null, { status: 204 });
  });
}

/** Whether a browser asks what another origin's page may do (https://fetch.spec.whatwg.org/#http-requests). */
const isPreflight = ({ method, headers }: Request): boolean =>
  method === "OPTIONS" && headers.has("origin") && headers.has("access-control-request-method");
