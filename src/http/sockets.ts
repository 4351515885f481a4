/** `GET /v0/ws`: one WebSocket to follow topics and to publish. */
import { Elysia, NotFoundError } from "elysia";
import { invalid } from "../contract/errors.ts";
import type { Engine } from "../engine/engine.ts";
import { callOf } from "./call.ts";
import { Commands } from "./commands.ts";
import { hidden } from "./docs/operation.ts";
import { Socket } from "./socket.ts";
import type { Streams } from "./streams.ts";

export const SOCKET_PATH = "/v0/ws";

export function socketRoutes({ log, watch }: Engine, streams: Streams, unexpected: (error: unknown) => void) {
  return new Elysia({ name: "sockets" }).get(
    SOCKET_PATH,
    ({ request, server }) => {
      // Elysia takes a HEAD for a GET. Like other methods it is none that the path knows.
      if (request.method !== "GET") throw new NotFoundError();
      allowUpgrade(request);
      const { caller, received } = callOf(request);
      const leave = streams.enter(caller.usage);
      const follower = watch.socket();
      const commands = new Commands({ log, watch, follower, caller, unexpected });
      const data = new Socket(streams, follower, commands, leave);
      // Bun would select the first one that is offered.
      received.headers.delete("sec-websocket-protocol");
      if ((server as Bun.Server<Socket> | null)?.upgrade(received, { data })) return;
      leave();
      throw invalid("the connection cannot become a WebSocket");
    },
    { detail: hidden },
  );
}

/** Throws `invalid_request` for what is no opening handshake (RFC 6455, 4.2.1). */
function allowUpgrade({ headers }: Request): void {
  const has = (name: string, token: string) =>
    (headers.get(name) ?? "").split(",").some((part) => part.trim().toLowerCase() === token);
  if (!has("connection", "upgrade") || !has("upgrade", "websocket")) {
    throw invalid("this is a WebSocket: connect with Upgrade: websocket");
  }
  if (headers.get("sec-websocket-version") !== "13") throw invalid("sec-websocket-version: must be 13");
  if (!/^[A-Za-z0-9+/]{22}==$/.test(headers.get("sec-websocket-key") ?? "")) {
    throw invalid("sec-websocket-key: must be 16 bytes in base64");
  }
}
