/** The four probe paths. The port opens after recovery, so a server that answers is ready. */
import { Elysia } from "elysia";
import { version } from "../../package.json";
import { Health, Ready } from "../contract/probes.ts";
import type { Topics } from "../engine/topics.ts";
import * as examples from "./docs/examples.ts";
import { operation } from "./docs/operation.ts";
import { reply } from "./reply.ts";

export function healthRoutes(topics: Topics, uptimeMs: () => number) {
  const health = ({ request }: { request: Request }) =>
    reply(request, {
      status: "ok",
      version,
      uptime_ms: Math.floor(uptimeMs()),
    } satisfies Health);
  const ready = ({ request }: { request: Request }) =>
    reply(request, { status: "ready", wal_replay_complete: true, topics: topics.count } satisfies Ready);
  const app = new Elysia({ name: "health" });
  for (const [path, id] of [
    ["/v0/health", "health"],
    ["/healthz", "healthz"],
  ] as const) {
    app.get(
      path,
      health,
      operation({
        id,
        tag: "Probes",
        summary: "Whether the process serves",
        description: `The same at \`/v0/health\` and \`/healthz\`.`,
        replies: { 200: { description: "It does.", schema: Health, examples: examples.health } },
      }),
    );
  }
  for (const [path, id] of [
    ["/v0/ready", "ready"],
    ["/readyz", "readyz"],
  ] as const) {
    app.get(
      path,
      ready,
      operation({
        id,
        tag: "Probes",
        summary: "Whether the server takes requests",
        description: `The same at \`/v0/ready\` and \`/readyz\`. The port opens once everything is recovered.`,
        replies: { 200: { description: "It does.", schema: Ready, examples: examples.ready } },
      }),
    );
  }
  return app;
}
