/** `/api/peer/…`: what instances ask of each other. */
import { timingSafeEqual } from "node:crypto";
import type { Server } from "bun";
import { Elysia } from "elysia";
import { decoder } from "../contract/decode.ts";
import { ApiError } from "../contract/errors.ts";
import {
  AROUND_EVENTS_BYTES,
  BACKFILL_BYTES_MAX,
  BACKFILLS_MAX,
  PEER_BYTES_MAX,
  PEER_JSON_DEPTH_MAX,
  PUSHES_MAX,
} from "../contract/limits.ts";
import { Backfill, Backfilled, EventsPushed, PeerStatus, PushEvents } from "../contract/peers.ts";
import type { Network } from "../engine/feeds/network.ts";
import type { Admission } from "./admission.ts";
import { bearerIn } from "./admission.ts";
import { anyJsonReader } from "./body.ts";
import { callOf } from "./call.ts";
import * as examples from "./docs/feedexamples.ts";
import { peerOperation } from "./docs/operation.ts";
import { sha256 } from "./keys.ts";
import { reply, replyText } from "./reply.ts";

/** Fields that proxies add. */
const PASSED_ON = [
  "forwarded",
  "via",
  "x-forwarded-for",
  "x-forwarded-host",
  "x-forwarded-proto",
  "x-real-ip",
];
const LOOPBACK = /^(?:(?:::ffff:)?127(?:\.\d{1,3}){3}|::1)$/i;

const readPush = anyJsonReader(
  decoder(PushEvents, PEER_JSON_DEPTH_MAX),
  PEER_BYTES_MAX + AROUND_EVENTS_BYTES,
);
const readBackfill = anyJsonReader(decoder(Backfill, PEER_JSON_DEPTH_MAX), BACKFILL_BYTES_MAX);

/** `token`: what peers have to show; empty where only this machine is let in. */
export function peerRoutes(network: Network, token: string, admission: Admission) {
  const { feeds, exchange, log } = network;
  const pushes = new Gate(PUSHES_MAX);
  const backfills = new Gate(BACKFILLS_MAX);
  return new Elysia({ name: "peers" })
    .get(
      "/api/peer/status",
      ({ request, server }) => {
        authorizePeer(request, server, token);
        const status: PeerStatus = {
          ok: true,
          node_id: feeds.nodeId,
          network_id: feeds.networkId,
          log_id: log.id,
          head_seq: log.head,
          peers: network.peers.map(({ state }) => state),
        };
        return reply(request, status);
      },
      peerOperation({
        id: "peerStatus",
        summary: "See how it goes with peers",
        description: "Who this instance is, and the peers it is configured with.",
        replies: { 200: { description: "Now.", schema: PeerStatus, examples: examples.peerStatus } },
        never: ["throttled"],
      }),
    )
    .post(
      "/api/peer/events",
      async ({ request, server }) => {
        authorizePeer(request, server, token);
        using _inside = pushes.enter();
        return reply(request, await exchange.push(await readPush(request, admission)));
      },
      peerOperation({
        id: "pushEvents",
        summary: "Take events",
        description:
          "Each is checked by itself, whoever carries it. Those that are rejected are named; the others are kept.",
        body: { schema: PushEvents, examples: examples.pushEvents.requests },
        replies: {
          200: { description: "Kept.", schema: EventsPushed, examples: examples.pushEvents.answers },
        },
        failures: ["network_mismatch", "control_busy"],
      }),
    )
    .post(
      "/api/peer/backfill",
      async ({ request, server }) => {
        authorizePeer(request, server, token);
        using _inside = backfills.enter();
        const { head, events } = await exchange.backfill(await readBackfill(request, admission));
        const { more, ...told } = head;
        const start = JSON.stringify(told).slice(0, -1);
        return replyText(request, `${start},"events":[${events.join(",")}],"more":${more}}`);
      },
      peerOperation({
        id: "backfill",
        summary: "Give stored events",
        description: "A page of a lane, as they were accepted; with `head_only` just how far it goes.",
        body: { schema: Backfill, examples: examples.backfill.requests },
        replies: {
          200: { description: "A page.", schema: Backfilled, examples: examples.backfill.answers },
        },
        failures: ["network_mismatch", "control_busy"],
      }),
    );
}

/** Throws `unauthorized` for another token than the one configured, `forbidden` for other machines where none is. */
function authorizePeer(request: Request, server: Server<unknown> | null, token: string): void {
  if (token !== "") {
    const shown = bearerIn(request);
    if (shown === undefined || !timingSafeEqual(sha256(shown), sha256(Buffer.from(token)))) {
      throw new ApiError("unauthorized", {});
    }
    return;
  }
  const address = server?.requestIP(callOf(request).received)?.address ?? "";
  // A proxy on this machine speaks for others.
  const isPassedOn = PASSED_ON.some((name) => request.headers.has(name));
  if (isPassedOn || !LOOPBACK.test(address)) {
    throw new ApiError("forbidden", {}, "peers of other machines need FEED_PEER_TOKEN to be configured");
  }
}

/** Lets in so many at a time. */
class Gate {
  readonly #max: number;
  #inside = 0;

  constructor(max: number) {
    this.#max = max;
  }

  /** Throws `control_busy`. */
  enter(): Disposable {
    if (this.#inside >= this.#max) throw new ApiError("control_busy", {});
    this.#inside++;
    return { [Symbol.dispose]: () => void this.#inside-- };
  }
}
