/** What streams and sockets say is what the API document says of them: each event, message and failure has its schema. */
import { beforeAll, expect, test } from "bun:test";
import { ApiDocument, type Json } from "../support/document.ts";
import { EventStream, type StreamEvent } from "../support/eventstream.ts";
import { startServer, type TestServer } from "../support/server.ts";
import { SocketClient } from "../support/socket.ts";
import { spawnServer } from "../support/spawn.ts";
import { newTopic, sharedServer, type Topic } from "../support/topics.ts";

const server = sharedServer();

let document: ApiDocument;

beforeAll(async () => {
  document = await ApiDocument.of(server);
});

/** What a name has against the schema that an operation gives for it. */
function complaints(
  id: string,
  list: "x-events" | "x-messages" | "x-commands",
  name: string,
  value: unknown,
) {
  const schema: Json | undefined = document.operation(id)[list]?.[name];
  return schema === undefined ? [`${id} does not tell of ${name}`] : document.complaints(value, schema);
}

/** Every event is as told. Gives their names. */
function expectEvents(id: string, events: readonly StreamEvent[]): string[] {
  const wrong = events.flatMap(({ event, body }) => complaints(id, "x-events", event, body));
  expect(wrong).toEqual([]);
  return events.map(({ event }) => event);
}

/** Every event of a stream that has ended, or up to a last one. */
async function eventsOf(stream: EventStream, last: string): Promise<StreamEvent[]> {
  const events: StreamEvent[] = [];
  do events.push(await stream.event());
  while (events.at(-1)!.event !== last);
  return events;
}

const records = [
  { data: { n: 1 }, tag: "a", node: "n", meta: [1] },
  { data: null },
  { data: "three", meta: null },
];

/** A log that has lost its first records. */
async function shortened(to = server): Promise<Topic> {
  const topic = await newTopic(to, { cap_records: 2 });
  await topic.write({ records: [...records, ...records] });
  return topic;
}

/** What a stream says before a topic goes. */
const BEFORE = ["tombstone", "record", "caught-up"];

test.each(["", "?include_tags=true", "?include_data=false", "?include_meta=false&node=n"])(
  "the stream of a topic%s",
  async (query) => {
    const topic = await shortened();
    await using stream = await EventStream.open(server.url, `${topic.path}/stream${query}`);
    const events = await stream.events(3);
    await topic.drop();
    events.push(...(await eventsOf(stream, "topic-deleted")));
    expect(expectEvents("followTopic", events)).toEqual([...BEFORE, "topic-deleted"]);
  },
);

test("the stream of a session", async () => {
  const topic = await shortened();
  const { body } = await server.send("POST", "/v0/watch", {
    topics: { [topic.name]: {} },
    include_data: false,
  });
  await using stream = await EventStream.open(server.url, body.stream_url);
  expect(expectEvents("openWatch", await stream.events(3))).toEqual(BEFORE);
});

test("a stream of work", async () => {
  const queue = await newTopic(server, { type: "queue" });
  await queue.write({ records });
  await using stream = await EventStream.open(server.url, `${queue.path}/work?node=n&max=3`);
  const events = await stream.events(3);
  await queue.drop();
  events.push(...(await eventsOf(stream, "error")));
  expect(expectEvents("work", events)).toEqual(["job", "job", "job", "error"]);
  expect(events.at(-1)!.body).toMatchObject({ code: 409 });
});

/** Why streams of each kind end. */
async function expectLast(streams: Record<string, EventStream>, code: string): Promise<void> {
  for (const [id, stream] of Object.entries(streams)) {
    await using _ = stream;
    const events = await eventsOf(stream, "error");
    expectEvents(id, events);
    expect(events.at(-1)!.body).toMatchObject({ code });
  }
}

async function prepare(send: TestServer["send"], headers?: Record<string, string>): Promise<string> {
  await send("PUT", "/v0/topics/log", {}, headers);
  await send("PUT", "/v0/topics/queue", { type: "queue" }, headers);
  return (await send("POST", "/v0/watch", { topics: { log: {} } }, headers)).body.stream_url;
}

test("the last words of a server that stops", async () => {
  await using own = await spawnServer();
  const session = await prepare(own.send);
  const streams = {
    followTopic: await EventStream.open(own.url, "/v0/topics/log/stream"),
    openWatch: await EventStream.open(own.url, session),
    work: await EventStream.open(own.url, "/v0/topics/queue/work?node=n"),
  };
  const socket = await SocketClient.open(own.url);
  const stopped = own.stop();
  await expectLast(streams, "server_shutting_down");
  const { messages } = await socket.ended();
  expect(messages.map(({ body }) => body)).toMatchObject([{ op: "error", code: "server_shutting_down" }]);
  expectMessages(messages.map(({ body }) => body));
  await stopped;
});

test("the last words to a token that has expired", async () => {
  await using own = await startServer({ TOPICS_API_KEYS: "key" });
  const key = { authorization: "Bearer key" };
  await prepare(own.send, key);
  const asked = { topics: ["log", "queue"], scopes: ["read", "write"], ttl_ms: 1000 };
  const { token } = (await own.send("POST", "/v0/tokens", asked, key)).body;
  const streams = {
    followTopic: await EventStream.open(own.url, `/v0/topics/log/stream?token=${token}`),
    work: await EventStream.open(own.url, `/v0/topics/queue/work?node=n&token=${token}`),
  };
  await expectLast(streams, "unauthorized");
});

/** Every message is as told. Gives their names. */
function expectMessages(messages: readonly { readonly op: string }[]): string[] {
  expect(messages.flatMap((said) => complaints("openSocket", "x-messages", said.op, said))).toEqual([]);
  return messages.map(({ op }) => op);
}

test("what a socket says, and what is said to it", async () => {
  const topic = await shortened();
  await using socket = await SocketClient.open(server.url);
  const commands = [
    { op: "subscribe", request_id: 1, topic: topic.name, include_data: false },
    { op: "publish", request_id: { any: ["json"] }, topic: topic.name, records },
    { op: "publish", topic: topic.name, records, return_seqs: false },
    { op: "publish", request_id: null, topic: topic.name, records, idempotency_key: "k", node: "n" },
    { op: "subscribe", topics: { [topic.name]: { tail: true } }, include_tags: true, lenient: true },
    { op: "unsubscribe", request_id: "u", topics: [topic.name] },
    { op: "ping" },
  ];
  const wrong = commands.flatMap((said) => complaints("openSocket", "x-commands", said.op, said));
  expect(wrong).toEqual([]);
  for (const command of commands) socket.say(command);
  const pong = await socket.take("pong");
  socket.say(commands[0]);
  const caughtUp = await socket.take("caught_up");
  await topic.drop();
  const last = await socket.take("topic_deleted");
  const ops = new Set(expectMessages([...(await socket.arrived()), pong, caughtUp, last]));
  const { error: _, ...others } = document.operation("openSocket")["x-messages"]!;
  expect([...ops].sort()).toEqual(Object.keys(others).sort());
});

test("what a socket says of commands that fail", async () => {
  const full = await newTopic(server, { cap_records: 1, discard: "reject" });
  await full.append(1);
  await using socket = await SocketClient.open(server.url);
  const absent = "absent";
  const failing: [code: string, command: unknown][] = [
    ["invalid_json", "{"],
    ["invalid_json", { op: "no such" }],
    ["invalid_request", { op: "subscribe" }],
    ["topic_not_found", { op: "subscribe", topic: absent }],
    ["invalid_request", { op: "publish", topic: full.name, records: [] }],
    ["batch_too_large", { op: "publish", topic: full.name, records: Array(10_001).fill({ data: 1 }) }],
    ["record_too_large", { op: "publish", topic: full.name, records: [{ data: "x".repeat(2 ** 20) }] }],
    ["topic_full", { op: "publish", topic: full.name, records: [{ data: 1 }] }],
    ["topic_not_found", { op: "publish", topic: absent, records: [{ data: 1 }], create: false }],
  ];
  for (const [code, command] of failing) {
    socket.say(command);
    const { body } = await socket.next();
    expect([command, expectMessages([body]), body.code]).toEqual([command, ["error"], code]);
  }
  socket.sayBytes(new Uint8Array([1]));
  const { body } = await socket.next();
  expect(expectMessages([body])).toEqual(["error"]);
  expect(body.code).toBe("unsupported_message");
});

test("every event and message that is told of is among them", () => {
  const told = (id: string, list: "x-events" | "x-messages" | "x-commands") =>
    Object.keys(document.operation(id)[list]!).sort();
  const frames = ["caught-up", "error", "record", "tombstone", "topic-deleted"];
  expect(told("followTopic", "x-events")).toEqual(frames);
  expect(told("openWatch", "x-events")).toEqual(frames);
  expect(told("work", "x-events")).toEqual(["error", "job"]);
  expect(told("openSocket", "x-commands")).toEqual(["ping", "publish", "subscribe", "unsubscribe"]);
  const answers = ["ack", "pong", "subscribed", "unsubscribed"];
  const pushed = ["caught_up", "error", "record", "tombstone", "topic_deleted"];
  expect(told("openSocket", "x-messages")).toEqual([...answers, ...pushed].sort());
});
