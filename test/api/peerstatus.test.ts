/** `GET /api/peer/status`: who the instance is, how long its log is, and how it gets on with its peers. */
import { describe, expect, test } from "bun:test";
import { Author, headSeq, messageEvent, Peer, peerStatus } from "../support/events.ts";
import { ask, expectRefusal, HEX, newFeed, paths } from "../support/feeds.ts";
import { startServer } from "../support/server.ts";
import { freePort } from "../support/spawn.ts";
import { sharedServer, until } from "../support/topics.ts";

const network_id = "net";
const server = sharedServer({ FEED_NETWORK_ID: network_id });

interface PeerRow {
  url: string;
  node_id: string | null;
  connected: boolean;
  out_seq: number;
  last_ok_at: number | null;
  last_error: string | null;
}

type Answer = (path: string) => Response | undefined;

/** Something else than an instance that peer routes are called on; it counts the calls. */
function startStranger(answer: Answer) {
  const called: string[] = [];
  const listener = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch: (request) => {
      const path = new URL(request.url).pathname;
      called.push(path);
      return answer(path) ?? new Response("no", { status: 500 });
    },
  });
  return {
    url: `http://127.0.0.1:${listener.port}`,
    called,
    [Symbol.asyncDispose]: () => listener.stop(true),
  };
}

/** What a peer with an empty log answers. */
const emptyNode = (node_id: string): Answer => {
  const head = { ok: true, node_id, log_id: "stranger", performance: { server_total_ms: 0 } };
  const answers: Record<string, object> = {
    "/api/peer/status": { ...head, network_id, head_seq: 0, peers: [] },
    "/api/peer/events": { ...head, head_seq: 0, accepted: 1, duplicates: 0, rejected: [] },
    "/api/peer/backfill": {
      ...head,
      lane: { kind: "subscriptions" },
      next_from_event_seq: 0,
      head_only: true,
      head_event_ids: [],
      events: [],
      more: false,
    },
  };
  return (path) => (answers[path] ? Response.json(answers[path]) : undefined);
};

describe("an instance without peers", () => {
  test("07 says who it is and where its log ends", async () => {
    await using own = await startServer({ FEED_NETWORK_ID: network_id });
    const reply = await peerStatus(own);
    expect([reply.status, reply.body]).toEqual([
      200,
      {
        ok: true,
        node_id: expect.stringMatching(HEX),
        network_id,
        log_id: expect.stringMatching(/./),
        head_seq: 0,
        peers: [],
        performance: { server_total_ms: expect.any(Number) },
      },
    ]);
    const { body } = await ask(own, paths.cursor, { feed_key: "f" });
    expect(body).toMatchObject({ subscriber_node_id: reply.body.node_id, network_id });
  });

  test("07 every event makes the log one longer, and its node and log stay the same", async () => {
    const before = (await peerStatus(server)).body;
    const feed = newFeed(server);
    await feed.post(1);
    await feed.subscribe();
    await newFeed(server, "local").post(1);
    const parts = { network_id, feed_key: feed.key, scope: feed.scope, content: 1 };
    await new Peer(server, network_id).push(messageEvent(new Author(), parts));
    await feed.list();
    await feed.cursor();
    const { node_id, log_id, head_seq } = before;
    expect((await peerStatus(server)).body).toMatchObject({ node_id, log_id, head_seq: head_seq + 4 });
    expect((await feed.list())[0]!.event_seq).toBe(head_seq + 4);
  });

  test("07 no two have the same node or log", async () => {
    await using own = await startServer();
    const [one, other] = [(await peerStatus(own)).body, (await peerStatus(server)).body];
    expect(one.node_id).not.toBe(other.node_id);
    expect(one.log_id).not.toBe(other.log_id);
  });

  test("07 who pushes or pulls is not listed", async () => {
    const peer = new Peer(server, network_id);
    await peer.push(messageEvent(new Author(), { network_id, feed_key: "x", scope: "group:a", content: 1 }));
    await peer.backfill({ kind: "subscriptions" });
    expect((await peerStatus(server)).body.peers).toEqual([]);
  });

  test("07 the route takes a query and HEAD, but no other method", async () => {
    expect((await server.send("GET", "/api/peer/status?x=1")).status).toBe(200);
    expect((await server.send("HEAD", "/api/peer/status")).status).toBe(200);
    for (const method of ["POST", "PUT", "DELETE"]) {
      const reply = await server.send(method, "/api/peer/status");
      expectRefusal(reply, 405);
      expect(reply.headers.get("allow")).toContain("GET");
    }
  });
});

describe("configured peers", () => {
  const rows = async (of: Parameters<typeof peerStatus>[0]) => (await peerStatus(of)).body.peers as PeerRow[];

  test("07 are listed in their order, as written, each once", async () => {
    const urls = Array.from({ length: 3 }, () => `http://127.0.0.1:${freePort()}`);
    const [a, b, c] = urls as [string, string, string];
    await using own = await startServer({
      FEED_PEERS: ` ${c} ,, ${a}/ ,${b}/deeper/,${c}/, ${a},`,
      FEED_NETWORK_ID: network_id,
    });
    const listed = await rows(own);
    expect(listed.map(({ url }) => url)).toEqual([c, a, `${b}/deeper`]);
    for (const row of listed)
      expect(row).toEqual({
        url: expect.any(String),
        node_id: null,
        connected: false,
        out_seq: 0,
        last_ok_at: null,
        last_error: row.last_error === null ? null : expect.stringMatching(/\S/),
      });
  });

  test("07 none are listed where the setting is blank", async () => {
    await using own = await startServer({ FEED_PEERS: " , ,, " });
    expect(await rows(own)).toEqual([]);
  });

  test("07 one that cannot be reached has an error and nothing else", async () => {
    const url = `http://127.0.0.1:${freePort()}`;
    await using own = await startServer({ FEED_PEERS: url, FEED_SYNC_INTERVAL_MS: "100" });
    const [row] = await until(
      () => rows(own),
      ([row]) => row?.last_error !== null,
    );
    expect(row).toEqual({
      url,
      node_id: null,
      connected: false,
      out_seq: 0,
      last_ok_at: null,
      last_error: expect.stringMatching(/\S/),
    });
  });

  test("07 one that answers is connected, with its id and the time, and no error", async () => {
    const author = new Author();
    await using stranger = startStranger(emptyNode(author.id));
    const before = Date.now();
    await using own = await startServer({
      FEED_PEERS: `${stranger.url}/`,
      FEED_NETWORK_ID: network_id,
      FEED_SYNC_INTERVAL_MS: "100",
    });
    const [row] = await until(
      () => rows(own),
      ([row]) => row?.connected === true && row.node_id !== null,
    );
    expect(row).toEqual({
      url: stranger.url,
      node_id: author.id,
      connected: true,
      out_seq: expect.any(Number),
      last_ok_at: expect.any(Number),
      last_error: null,
    });
    expect(row!.last_ok_at!).toBeWithin(before, Date.now() + 1);
  });

  test("07 one that stops answering is not connected; what was known of it stays, and it may come back", async () => {
    const author = new Author();
    const node = emptyNode(author.id);
    let answers = true;
    await using stranger = startStranger((path) => (answers ? node(path) : undefined));
    await using own = await startServer({
      FEED_PEERS: stranger.url,
      FEED_NETWORK_ID: network_id,
      FEED_SYNC_INTERVAL_MS: "100",
    });
    const state = (connected: boolean) =>
      until(
        () => rows(own),
        ([row]) => row?.connected === connected,
        10_000,
      );
    const [met] = await state(true);
    answers = false;
    const [lost] = await state(false);
    expect(lost).toMatchObject({ node_id: author.id, last_error: expect.stringMatching(/\S/) });
    expect(lost!.last_ok_at!).toBeGreaterThanOrEqual(met!.last_ok_at!);
    answers = true;
    const [back] = await state(true);
    expect(back).toMatchObject({ node_id: author.id, last_error: null });
    expect(back!.last_ok_at!).toBeGreaterThanOrEqual(lost!.last_ok_at!);
  });

  test("07 out_seq walks the log, and does so for each peer alone", async () => {
    await using stranger = startStranger(emptyNode(new Author().id));
    const nobody = `http://127.0.0.1:${freePort()}`;
    await using own = await startServer({
      FEED_PEERS: `${stranger.url},${nobody}`,
      FEED_NETWORK_ID: network_id,
      FEED_SYNC_INTERVAL_MS: "100",
    });
    const feed = newFeed(own);
    await feed.subscribe();
    await feed.post(1);
    await newFeed(own, "local").post(2);
    const head = await headSeq(own);
    expect(head).toBe(3);
    const [reached, missed] = await until(
      () => rows(own),
      ([row]) => row?.out_seq === head,
    );
    expect(reached).toMatchObject({ connected: true, out_seq: 3 });
    expect(missed).toMatchObject({ connected: false, out_seq: 0 });
    expect(stranger.called).toContain("/api/peer/events");
  });

  test("07 one that is the instance itself is harmless", async () => {
    const port = freePort();
    const url = `http://127.0.0.1:${port}`;
    await using own = await startServer({
      TOPICS_PORT: `${port}`,
      FEED_PEERS: `${url}/`,
      FEED_NETWORK_ID: network_id,
      FEED_SYNC_INTERVAL_MS: "100",
    });
    const { node_id } = (await peerStatus(own)).body;
    const feed = newFeed(own);
    await feed.subscribe();
    const id = await feed.post(1);
    const [row] = await until(
      () => rows(own),
      ([row]) => row?.connected === true && row.node_id !== null,
    );
    expect(row).toMatchObject({ url, node_id, connected: true, last_error: null });
    expect((await feed.list()).map(({ message_id }) => message_id)).toEqual([id]);
    expect(await headSeq(own)).toBe(2);
  });
});
