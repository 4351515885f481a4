/** The four probe paths. The port opens after recovery, so a server that answers is ready. */
import { Elysia } from "elysia";
import { version } from "../../package.json";
import type { Topics } from "../engine/topics.ts";
import { reply } from "./reply.ts";

export function healthRoutes(topics: Topics) {
  const started = performance.now();
  const health = ({ request }: { request: Request }) =>
    reply(request, { status: "ok", version, uptime_ms: Math.floor(performance.now() - started) });
  const ready = ({ request }: { request: Request }) =>
    reply(request, { status: "ready", wal_replay_complete: true, topics: topics.count });
  const app = new Elysia({ name: "health" });
  for (const path of ["/v0/health", "/healthz"]) app.get(path, health).head(path, health);
  for (const path of ["/v0/ready", "/readyz"]) app.get(path, ready).head(path, ready);
  return app;
}
