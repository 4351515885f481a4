/** The ends that the server gives to `work` streams: the topic is gone, or the server stops. */
import { describe, expect, test } from "bun:test";
import { connect } from "node:http2";
import { attempt, EventStream } from "../support/eventstream.ts";
import { spawnServer } from "../support/spawn.ts";
import { absentTopic, newTopic, type Sender, sharedServer, type Topic, timed } from "../support/topics.ts";

const server = sharedServer();

const queue = (config: object = {}, at: Sender = server) => newTopic(at, { type: "queue", ...config });
const pathOf = (topic: Topic, max = 1) => `${topic.path}/work?node=w&max=${max}`;

/** A stream that has begun. */
async function work(topic: Topic, max = 1, url = server.url): Promise<EventStream> {
  const stream = await EventStream.open(url, pathOf(topic, max));
  await stream.block();
  return stream;
}

/** The data of the one block that is left of a stream, which must be a well-formed `error`. */
async function lastWords(stream: EventStream, deadlineMs: number): Promise<unknown> {
  const text = await stream.rest(deadlineMs);
  const [, json] = /^event: error\ndata: (\{[^\n]*\})\n\n$/.exec(text) ?? [];
  if (json === undefined) throw new Error(`no last words: ${JSON.stringify(text)}`);
  return JSON.parse(json);
}

const gone = (topic: Topic) => ({ code: 409, error: expect.stringMatching(/./), topic: topic.name });

describe("a topic", () => {
  const queueAgain = (topic: Topic) => topic.put({ type: "queue" });

  test.each([
    ["deleted", async () => {}],
    ["created again as a log", (topic: Topic) => topic.put()],
    ["created again as a log by a write", (topic: Topic) => topic.append("new")],
    ["created again as a queue", queueAgain],
  ])("04.50 %s at once, ends the stream with code 409", async (_, create) => {
    const topic = await queue();
    await using stream = await work(topic);
    await topic.drop();
    await create(topic);
    expect(await lastWords(stream, 1000)).toStrictEqual(gone(topic));
  });

  test("04.50 deleted under a leased and a waiting job, ends the stream with nothing in between", async () => {
    const topic = await queue();
    await topic.append("leased", "waiting");
    await using stream = await work(topic);
    await stream.event();
    expect((await topic.drop()).status).toBe(200);
    expect(await lastWords(stream, 1000)).toStrictEqual(gone(topic));
  });

  test("04.50 ends all its streams, and no other topic's", async () => {
    const [topic, other] = [await queue(), await queue()];
    const streams = [await work(topic), await work(topic, 10), await work(topic)];
    await using spared = await work(other);
    await topic.drop();
    for (const stream of streams) expect(await lastWords(stream, 1000)).toStrictEqual(gone(topic));
    await other.append("a");
    expect((await spared.event()).body).toMatchObject({ topic: other.name, data: "a" });
  });

  test("04.50 deleted while a claim window is open, ends the stream", async () => {
    const topic = await queue({ claim_jitter_ms: 500 });
    await topic.append("a");
    await using stream = await work(topic);
    await topic.drop();
    expect(await lastWords(stream, 2000)).toStrictEqual(gone(topic));
  });

  test("04 section 8.2 created again as a queue starts over for new streams only", async () => {
    const topic = await queue();
    await topic.append("old", "old", "old");
    await using stream = await work(topic);
    const { lease_id } = (await stream.event()).body;
    await topic.drop();
    await queueAgain(topic);
    await topic.append("new");
    expect(await lastWords(stream, 1000)).toStrictEqual(gone(topic));
    await using next = await work(topic);
    const { body } = await next.event();
    expect(body).toMatchObject({ $seq: 1, data: "new", deliveries: 1 });
    expect(body.lease_id).not.toBe(lease_id);
    expect((await topic.state()).body.queue).toEqual({ ready: 0, in_flight: 1, dead_lettered: 0 });
  });

  test("04 section 9 that is not empty, or loses its records only, goes on", async () => {
    const topic = await queue();
    await topic.append("a");
    await using stream = await work(topic, 2);
    await stream.event();
    expect((await topic.drop("?if_empty=true")).body.error.code).toBe("topic_not_empty");
    expect((await topic.erase({ before_seq: 2 })).body.deleted).toBe(1);
    await topic.put({ type: "queue", lease_ms: 5000 });
    await topic.append("b");
    expect((await stream.event()).body).toMatchObject({ $seq: 2, data: "b" });
  });

  test("04 section 8.1 that is gone opens no further stream", async () => {
    const topic = await queue();
    await topic.drop();
    expect((await attempt(server.url, pathOf(topic))).status).toBe(404);
  });
});

describe("a server that stops", () => {
  const stopping = (topic: string) => ({
    code: "server_shutting_down",
    error: expect.stringMatching(/./),
    topic,
  });

  test.each(["SIGTERM", "SIGINT"] as const)(
    "04.51 01.57 on %s tells every stream and exits within 2 s",
    async (signal) => {
      await using spawned = await spawnServer();
      const [idle, busy] = [await queue({}, spawned), await queue({ claim_jitter_ms: 100 }, spawned)];
      await busy.append("leased", "waiting");
      const session = connect(spawned.url);
      session.on("error", () => {});
      const streams = [await work(idle, 1, spawned.url), await work(busy, 1, spawned.url)];
      const shared = await EventStream.openOver(session, pathOf(idle));
      await shared.block();
      await streams[1]!.event();
      const { ms, answer: code } = await timed(() => spawned.stop(signal));
      for (const stream of [streams[0]!, shared]) {
        expect(await lastWords(stream, 1000)).toStrictEqual(stopping(idle.name));
      }
      expect(await lastWords(streams[1]!, 1000)).toStrictEqual(stopping(busy.name));
      expect(code).toBe(0);
      expect(ms).toBeLessThan(2000);
      session.destroy();
    },
    20_000,
  );

  test("04 section 10 takes their leases back for the next start", async () => {
    await using first = await spawnServer();
    const topic = await queue({}, first);
    await topic.append("a");
    const stream = await work(topic, 1, first.url);
    await stream.event();
    expect(await first.stop()).toBe(0);
    await using second = await spawnServer({ dir: first.dir });
    const again = absentTopic(second, topic.name);
    expect((await again.state()).body.queue).toMatchObject({ ready: 1, in_flight: 0 });
    await using next = await work(again, 1, second.url);
    expect((await next.event()).body).toMatchObject({ $seq: 1, data: "a" });
  }, 20_000);
});
