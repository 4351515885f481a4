/** Peers that are so slow that an exchange is given up. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { Author, type SignedEvent, subscriptionEvent } from "../support/events.ts";
import { lane, NETWORK, Network } from "../support/network.ts";
import { until } from "../support/topics.ts";

setDefaultTimeout(100_000);

const chat = lane("chat");
const names = { network_id: NETWORK, feed_key: chat.feed_key, scope: chat.scope_hint, active: true };

/** What a page is asked for with, as far as it is looked at here. */
interface Asked {
  readonly lane: { readonly kind: string };
  readonly head_only?: boolean;
  readonly from_event_seq: number;
}

/** A peer that takes its time for each event. */
class SlowPeer implements AsyncDisposable {
  readonly author = new Author();
  readonly url: string;
  /** Whether it wants the lane. */
  wants = false;
  /** How many events each push held. */
  readonly pushes: number[] = [];
  readonly taken = new Set<string>();
  readonly #eventMs: number;
  readonly #wish = subscriptionEvent(this.author, names);
  readonly #server: Bun.Server<unknown>;

  constructor(eventMs: number) {
    this.#eventMs = eventMs;
    this.#server = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      idleTimeout: 120,
      routes: {
        "/api/peer/events": (request) => this.#take(request),
        "/api/peer/backfill": (request) => this.#give(request),
      },
    });
    this.url = `http://127.0.0.1:${this.#server.port}`;
  }

  get #self() {
    return { ok: true, node_id: this.author.id, log_id: "log" };
  }

  async #take(request: Request): Promise<Response> {
    const { events } = (await request.json()) as { events: { event: SignedEvent }[] };
    const { length: accepted } = events;
    this.pushes.push(accepted);
    await Bun.sleep(accepted * this.#eventMs);
    // Who has given up does not hear of it.
    if (!request.signal.aborted) for (const { event } of events) this.taken.add(event.event_id);
    return Response.json({ ...this.#self, head_seq: 1, accepted, duplicates: 0, rejected: [] });
  }

  /** Its subscription is all that it has. */
  async #give(request: Request): Promise<Response> {
    const { lane, head_only = false, from_event_seq } = (await request.json()) as Asked;
    const rows = this.wants && lane.kind === "subscriptions" ? [this.#wish] : [];
    const page = head_only || from_event_seq > 0 ? [] : rows;
    return Response.json({
      ...this.#self,
      ...{ lane, head_only, next_from_event_seq: rows.length, more: false },
      head_event_ids: rows.map(({ event_id }) => event_id),
      events: page.map((event) => ({ scope: event.swarm_scope, event })),
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.stop(true);
  }
}

test("a peer that cannot take a push in 10 s is sent fewer events at a time", async () => {
  await using peer = new SlowPeer(50);
  await using network = await Network.of({ a: [peer.url] });
  const [a] = network.get("a");
  const ids = await a.postMany(chat, 300);
  peer.wants = true;
  await until(
    async () => ids.every((id) => peer.taken.has(id)),
    (all) => all,
    90_000,
  );
  const [first, second] = peer.pushes;
  expect(first).toBe(256);
  expect(second).toBeWithin(1, 200);
  // What was too much is not tried over and over.
  expect(peer.pushes.filter((count) => count > 200)).toEqual([256]);
});
