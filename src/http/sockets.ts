/** `GET /v0/ws`: one WebSocket to follow topics and to publish. */
import { Elysia, NotFoundError } from "elysia";
import { invalid } from "../contract/errors.ts";
import { SOCKET_BYTES_WAITING_MAX, SOCKET_MESSAGE_BYTES_MAX } from "../contract/limits.ts";
import type { Engine } from "../engine/engine.ts";
import { access } from "./access.ts";
import { callOf } from "./call.ts";
import { Commands } from "./commands.ts";
import { because } from "./docs/failures.ts";
import { mib } from "./docs/naming.ts";
import { operation } from "./docs/operation.ts";
import { commands, messages } from "./docs/watchshapes.ts";
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
        "(UnsubscribeCommand), `publish` (PublishCommand) and `ping` (PingCommand); they are carried out in their order and " +
        "answered by `subscribed` (SubscribedMessage), `unsubscribed` (UnsubscribedMessage), `ack` (AckMessage), `pong` " +
        "(PongMessage) or `error` (FailureMessage), with the `request_id` that they came with. What is followed comes as " +
        "`record` (RecordMessage), `tombstone` (TombstoneMessage), `caught_up` (CaughtUpMessage) and `topic_deleted` " +
        "(TopicDeletedMessage). Each command needs its own scope: `subscribe` `read`, `publish` `write`, and `admin` with " +
        "`config`.\n\n" +
        `A message holds ${mib(SOCKET_MESSAGE_BYTES_MAX)} at most. The server closes with 1001 when it stops, and with 1008 ` +
        `if the key may do something else by now, or if commands of ${mib(SOCKET_BYTES_WAITING_MAX)} wait for their answers.`,
      replies: { 101: { description: "The WebSocket." } },
      extensions: { "x-commands": commands, "x-messages": messages },
      failures: [because("invalid_request", "The request is no opening handshake of a WebSocket.")],
      // What a key may do, each command asks.
      never: ["forbidden"],
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
