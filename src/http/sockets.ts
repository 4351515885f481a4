/** `GET /v0/ws`: one WebSocket to follow topics and to publish. */
import { Elysia, NotFoundError } from "elysia";
import { invalid } from "../contract/errors.ts";
import { socketCommands } from "../contract/watch.ts";
import type { Engine } from "../engine/engine.ts";
import { access } from "./access.ts";
import { callOf } from "./call.ts";
import { Commands } from "./commands.ts";
import { ref } from "./docs/naming.ts";
import { operation } from "./docs/operation.ts";
import { Socket } from "./socket.ts";
import type { Streams } from "./streams.ts";

export function socketRoutes({ log, watch }: Engine, streams: Streams, unexpected: (error: unknown) => void) {
  return new Elysia({ name: "sockets" }).use(access).get(
    "/v0/ws",
    ({ request, server }) => {
      if (request.method === "HEAD") throw new NotFoundError();
      allowUpgrade(request);
      const { caller, received } = callOf(request);
      const end = (code: string, message: string): void => data.end(code, message);
      const leave = streams.enter({ caller, end });
      const follower = watch.socket();
      const commands = new Commands({ log, watch, follower, caller, unexpected });
      const data: Socket = new Socket(streams, follower, commands, leave);
      // Bun would select the first one that is offered.
      received.headers.delete("sec-websocket-protocol");
      if ((server as Bun.Server<Socket> | null)?.upgrade(received, { data })) return;
      leave();
      throw invalid("the connection cannot become a WebSocket");
    },
    operation({
      id: "openSocket",
      tag: "Watch",
      scope: [],
      summary: "Open a WebSocket",
      description:
        "Messages are JSON objects with an `op`. Commands are `subscribe` (SubscribeCommand), `unsubscribe` " +
        "(UnsubscribeCommand), `publish` (an Append with `topic` and `return_seqs`) and `ping`; they are carried out in " +
        "their order and answered by `subscribed`, `unsubscribed`, `ack` (an Appended), `pong` or `error`, with the " +
        "`request_id` that they came with. What is followed comes as `record`, `tombstone`, `caught_up` and " +
        "`topic_deleted`, with the members of the frames of a stream. Each command needs its own scope: `subscribe` " +
        "`read`, `publish` `write`, and `admin` with `config`.",
      replies: { 101: { description: "The WebSocket." } },
      extensions: {
        "x-commands": {
          subscribe: ref(socketCommands.subscribe),
          unsubscribe: ref(socketCommands.unsubscribe),
        },
      },
      failures: ["invalid_request"],
    }),
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
