/** Who may use the peer routes: whoever has the token, or loopback callers where there is none. */
import { describe, expect, test } from "bun:test";
import { connect } from "node:net";
import { networkInterfaces } from "node:os";
import { Author, headSeq, item, messageEvent, messagesLane, Peer, peerStatus } from "../support/events.ts";
import { expectRefusal } from "../support/feeds.ts";
import { answersIn, isAnswer, type RawAnswer, RawSocket } from "../support/rawsocket.ts";
import { type Reply, startServer } from "../support/server.ts";
import { type Sender, sharedServer } from "../support/topics.ts";

const network_id = "net";
const author = new Author();
const message = () => messageEvent(author, { network_id, feed_key: "f", scope: "group:crew", content: 1 });
const lane = messagesLane("group:crew", "f");

/** The answers of the three peer routes to a caller with these headers. */
async function ask(server: Sender, headers: Record<string, string>): Promise<Reply[]> {
  const peer = new Peer(server, network_id, author, headers);
  return [await peerStatus(server, headers), await peer.push(message()), await peer.backfill(lane)];
}

const statuses = (replies: { status: number }[]) => replies.map(({ status }) => status);

describe("with a token", () => {
  const server = sharedServer({
    FEED_NETWORK_ID: network_id,
    FEED_PEER_TOKEN: "peer-token-1",
    TOPICS_API_KEYS: "key-1",
  });
  const good = { authorization: "Bearer peer-token-1" };

  test("07.38 whoever has it is served", async () => {
    expect(statuses(await ask(server, good))).toEqual([200, 200, 200]);
  });

  test.each<[string, Record<string, string>]>([
    ["none", {}],
    ["another", { authorization: "Bearer peer-token-2" }],
    ["a part of it", { authorization: "Bearer peer-token-" }],
    ["more than it", { authorization: "Bearer peer-token-11" }],
    ["it in upper case", { authorization: "Bearer PEER-TOKEN-1" }],
    ["an empty one", { authorization: "Bearer " }],
    ["it without a scheme", { authorization: "peer-token-1" }],
    ["it in another scheme", { authorization: "Basic peer-token-1" }],
    ["an API key", { authorization: "Bearer key-1" }],
    ["it in another header", { "x-peer-token": "peer-token-1" }],
    ["another of another length", { authorization: `Bearer ${"peer-token-1".repeat(100)}` }],
  ])("07.38 401 with %s", async (_, headers) => {
    const head = await peerStatus(server, good);
    for (const reply of await ask(server, headers)) expectRefusal(reply, 401);
    expect((await peerStatus(server, good)).body.head_seq).toBe(head.body.head_seq);
  });

  test("07.38 not from the query", async () => {
    const reply = await server.send("GET", "/api/peer/status?token=peer-token-1");
    expectRefusal(reply, 401);
  });

  test("07.38 401 comes before everything that is wrong with a request", async () => {
    const huge = " ".repeat(8 * 1024 * 1024 + 65_537);
    for (const path of ["/api/peer/events", "/api/peer/backfill"]) {
      expectRefusal(await server.send("POST", path, huge), 401);
      expectRefusal(await server.send("POST", path, "{", { "content-type": "text/plain" }), 401);
      expectRefusal(await server.send("POST", path, "{"), 401);
    }
    const stranger = new Peer(server, "another", author);
    expectRefusal(await stranger.push(message()), 401);
    expectRefusal(await stranger.backfill(lane), 401);
  });

  test("07 whoever has none is refused before a body has come, and takes no place from others", async () => {
    const head = "Host: node\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
    using strangers = new DisposableStack();
    const sockets = Array.from({ length: 20 }, () => strangers.use(new RawSocket(server.url)));
    for (const socket of sockets) await socket.write(`POST /api/peer/backfill HTTP/1.1\r\n${head}`);
    const answers = await Promise.all(sockets.map((socket) => socket.until(isAnswer)));
    expect(statuses(answers.map((text) => answersIn(text)[0]!))).toEqual(Array(20).fill(401));
    expect(statuses(await ask(server, good))).toEqual([200, 200, 200]);
  });

  test("07 the token opens nothing else", async () => {
    const routes = ["/v0/topics", "/v0/metrics", "/api/topic/messages?feed_key=f&scope_hint=group%3Acrew"];
    const replies = [];
    for (const path of routes) replies.push(await server.send("GET", path, undefined, good));
    expect(statuses(replies)).toEqual([401, 401, 401]);
  });

  test("07 an API key opens the feeds, and what peers brought is there", async () => {
    const event = messageEvent(author, { network_id, feed_key: "g", scope: "group:crew", content: 2 });
    await new Peer(server, network_id, author, good).push(item(event));
    const path = "/api/topic/messages?feed_key=g&scope_hint=group%3Acrew";
    const { body } = await server.send("GET", path, undefined, { authorization: "Bearer key-1" });
    expect(body.messages).toMatchObject([{ message_id: event.event_id }]);
  });
});

describe("without a token", () => {
  const server = sharedServer({ FEED_NETWORK_ID: network_id });
  const keyed = sharedServer({ FEED_NETWORK_ID: network_id, TOPICS_API_KEYS: "key-1,reader:read" });
  const tokened = sharedServer({ FEED_NETWORK_ID: network_id, FEED_PEER_TOKEN: "peer-token-1" });
  const blank = sharedServer({ FEED_NETWORK_ID: network_id, FEED_PEER_TOKEN: "" });

  test("07 loopback callers are served, whatever token they send", async () => {
    for (const headers of [{}, { authorization: "Bearer anything" }, { authorization: "Basic x" }])
      expect(statuses(await ask(server, headers))).toEqual([200, 200, 200]);
  });

  test("07 API keys are not looked at", async () => {
    for (const headers of [{}, { authorization: "Bearer wrong" }, { authorization: "Bearer reader" }])
      expect(statuses(await ask(keyed, headers))).toEqual([200, 200, 200]);
    expect((await keyed.send("GET", "/v0/topics")).status).toBe(401);
  });

  test("07 an empty token is none", async () => {
    expect(statuses(await ask(blank, {}))).toEqual([200, 200, 200]);
  });

  const outside = Object.values(networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .find(({ family, internal }) => family === "IPv4" && !internal)?.address;

  // The server listens on 127.0.0.1 only. Linux lets a caller come there from any address of the machine.
  const reaches = process.platform === "linux" && outside !== undefined;

  test.skipIf(!reaches)("07.38 403 for callers that are not on loopback, whatever they claim", async () => {
    const claims = [{}, { "x-forwarded-for": "127.0.0.1" }, { forwarded: "for=127.0.0.1" }];
    for (const one of [server, keyed, blank])
      for (const claim of [...claims, { authorization: "Bearer key-1" }]) {
        const head = await headSeq(one);
        const answers = await askFrom(outside!, one, claim);
        expect(answers.map(({ status }) => status)).toEqual([403, 403, 403]);
        for (const { body } of answers)
          expect(JSON.parse(body)).toEqual({
            ok: false,
            error: expect.stringMatching(/\S/),
            performance: { server_total_ms: expect.any(Number) },
          });
        expect(await headSeq(one)).toBe(head);
      }
  });

  test.skipIf(!reaches)("07.38 403 comes before everything that is wrong with a request", async () => {
    const wrong = { "content-type": "text/plain" };
    const answers = [
      await requestFrom(outside!, server, "POST", "/api/peer/events", "{", wrong),
      await requestFrom(outside!, server, "POST", "/api/peer/backfill", "{", wrong),
    ];
    expect(statuses(answers)).toEqual([403, 403]);
  });

  test.skipIf(!reaches)("07 other routes serve such callers, and a token lets them in", async () => {
    expect((await requestFrom(outside!, server, "GET", "/v0/topics")).status).toBe(200);
    expect(statuses(await askFrom(outside!, tokened, { authorization: "Bearer peer-token-1" }))).toEqual([
      200, 200, 200,
    ]);
    expect(statuses(await askFrom(outside!, tokened, {}))).toEqual([401, 401, 401]);
  });

  test.skipIf(process.platform !== "linux")("07 all of 127.0.0.0/8 is loopback", async () => {
    expect(statuses(await askFrom("127.0.0.9", server, {}))).toEqual([200, 200, 200]);
  });

  const six = Object.values(networkInterfaces()).some((list) =>
    list?.some(({ address }) => address === "::1"),
  );
  describe.skipIf(!six)("over IPv6", () => {
    const server = sharedServer({ FEED_NETWORK_ID: network_id, TOPICS_HOST: "::1" });

    test("07 ::1 is loopback", async () => {
      expect(statuses(await ask(server, {}))).toEqual([200, 200, 200]);
    });
  });
});

/** The answers of the three peer routes to a caller with this address. */
async function askFrom(
  address: string,
  server: Sender,
  headers: Record<string, string>,
): Promise<RawAnswer[]> {
  const of = { from: author.id, network_id };
  const event = message();
  const push = JSON.stringify({ ...of, log_id: "log", events: [{ scope: event.swarm_scope, event }] });
  const backfill = JSON.stringify({ ...of, lane, from_event_seq: 0 });
  return [
    await requestFrom(address, server, "GET", "/api/peer/status", "", headers),
    await requestFrom(address, server, "POST", "/api/peer/events", push, headers),
    await requestFrom(address, server, "POST", "/api/peer/backfill", backfill, headers),
  ];
}

/** One request on a connection that begins at an address of this machine. */
async function requestFrom(
  localAddress: string,
  { url }: Sender,
  method: string,
  path: string,
  body = "",
  headers: Record<string, string> = {},
): Promise<RawAnswer> {
  const { hostname, port, host } = new URL(url);
  const sent = {
    host,
    connection: "close",
    "content-type": "application/json",
    "content-length": `${Buffer.byteLength(body)}`,
    ...headers,
  };
  const head = Object.entries(sent).map(([name, value]) => `${name}: ${value}\r\n`);
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  let received = "";
  const socket = connect({ host: hostname, port: Number(port), localAddress }, () =>
    socket.write(`${method} ${path} HTTP/1.1\r\n${head.join("")}\r\n${body}`),
  );
  socket.on("data", (chunk) => {
    received += chunk.toString("latin1");
  });
  socket.on("close", () => resolve(received));
  socket.on("error", reject);
  return answersIn(await promise)[0]!;
}

describe("a proxy on this machine", () => {
  test.each(["Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP"])(
    "07.38 speaks for another caller where it says so: %s",
    async (name) => {
      await using server = await startServer();
      const reply = await server.send("GET", "/api/peer/status", undefined, { [name]: "for=203.0.113.9" });
      expect(reply).toMatchObject({ status: 403, body: { ok: false } });
      expect((await server.send("GET", "/api/peer/status")).status).toBe(200);
    },
  );
});
