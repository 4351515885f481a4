/** Lets web pages of named origins use the server. Keys travel in a header, so no credentials are allowed. */
import { cors } from "@elysiajs/cors";
import { Elysia } from "elysia";

const PREFLIGHT_SECONDS = 600;

/** `*` is any origin; none turns cross-origin requests off. */
export function crossOrigin(origins: readonly string[]) {
  if (origins.length === 0) return new Elysia({ name: "no-cors" });
  return cors({
    origin: [...origins],
    methods: ["GET", "HEAD", "PUT", "POST", "DELETE"],
    allowedHeaders: ["authorization", "content-type", "content-encoding", "idempotency-key", "last-event-id"],
    exposeHeaders: ["allow", "retry-after", "www-authenticate"],
    credentials: false,
    maxAge: PREFLIGHT_SECONDS,
  });
}
