/** Topics that are deleted, or deleted and created again, while they are watched or while their client is away. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import type { EventStream, StreamEvent } from "../support/eventstream.ts";
import { makeQueue } from "../support/queue.ts";
import { newTopic, sharedServer, type Topic, timed } from "../support/topics.ts";
import {
  cursorIn,
  epochOf,
  eventsTo,
  eventsUntil,
  fill,
  filledTopic,
  newSession,
  openStreams,
  recordsIn,
  recreate,
  tell,
  told,
  watch,
  watchLive,
} from "../support/watch.ts";

setDefaultTimeout(20_000);

const server = sharedServer();

const slow = { heartbeat_ms: 60000 };

/** A machine that stands still for 0.1 s between deletion and creation shows the deletion. */
const inOneMoment = { retry: 2 };

const filled = (n: number, config?: object): Promise<Topic> => filledTopic(server, n, config);

const range = (n: number) => Array.from({ length: n }, (_, i) => i + 1);

/** What was said about one topic, without its name. */
const said = (events: readonly StreamEvent[], { name }: Topic): string[] =>
  events.filter(({ body }) => body.topic === name).map((event) => told(event).slice(name.length + 1));

/** Waits at most the second that a deletion may take to be told. */
const deletion = (stream: EventStream) => stream.event(1000);

describe("a deleted topic", () => {
  test("05.37 is told within a second, and the other topic goes on", async () => {
    const [gone, boats] = [await filled(1), await filled(2)];
    await using stream = await watch(server, [gone, boats], slow);
    const backlog = await stream.events(4);
    const epochs = { [gone.name]: await epochOf(gone), [boats.name]: await epochOf(boats) };
    await gone.drop();
    const { ms, answer: deleted } = await timed(() => deletion(stream));
    await boats.append(3);
    const live = await stream.events(2);

    expect(said(backlog, gone)).toEqual(["1", "at 1"]);
    expect(ms).toBeLessThan(1000);
    expect(deleted.event).toBe("topic-deleted");
    expect(deleted.body).toStrictEqual({ topic: gone.name, head_seq: 0, reason: "deleted" });
    expect(cursorIn(deleted)).toEqual({ epochs, seqs: { [gone.name]: 1, [boats.name]: 2 } });
    expect(live.map(told)).toEqual([`${boats.name} 3`, `${boats.name} at 3`]);
    expect(cursorIn(live[1]!).seqs).toEqual({ [gone.name]: 1, [boats.name]: 3 });
  });

  test("05.37 is told when nothing of it was ever delivered", async () => {
    const [empty, other] = [await newTopic(server), await newTopic(server)];
    await using stream = await watchLive(server, [empty, other], slow);
    await empty.drop();
    const deleted = await deletion(stream);
    expect(told(deleted)).toBe(`${empty.name} deleted`);
    expect(cursorIn(deleted).seqs).toEqual({ [empty.name]: 0, [other.name]: 0 });
  });

  test("05.37 is told to all its streams, and to no other one", async () => {
    const [topic, spared] = [await newTopic(server), await newTopic(server)];
    const streams = [await watchLive(server, [topic], slow), await watchLive(server, [topic, spared], slow)];
    await using other = await watchLive(server, [spared], slow);
    await topic.drop();
    for (const stream of streams) {
      expect(told(await deletion(stream))).toBe(`${topic.name} deleted`);
      await stream.close();
    }
    await spared.append(1);
    expect(await tell(other, 2)).toEqual([`${spared.name} 1`, `${spared.name} at 1`]);
  });

  test("05.38 that is the last one ends the stream", async () => {
    const [first, last] = [await filled(1), await newTopic(server)];
    await using stream = await watch(server, [first, last], slow);
    await stream.events(3);
    await first.drop();
    expect(told(await deletion(stream))).toBe(`${first.name} deleted`);
    await last.drop();
    expect(told(await deletion(stream))).toBe(`${last.name} deleted`);
    expect(await stream.rest(1000)).toBe("");
  });

  test("05.38 all at the same time: each is told, then the stream ends", async () => {
    const topics = await Promise.all(range(20).map(() => newTopic(server)));
    await using stream = await watchLive(server, topics, slow);
    await Promise.all(topics.map((topic) => topic.drop()));
    const events = await stream.events(20);
    expect(events.map(told).sort()).toEqual(topics.map(({ name }) => `${name} deleted`).sort());
    expect(await stream.rest(1000)).toBe("");
  });

  test("05.38 an ended stream is not counted any more", async () => {
    const topic = await newTopic(server);
    await using stream = await watchLive(server, [topic], slow);
    await openStreams(server, 1);
    await topic.drop();
    await stream.rest(1000);
    await openStreams(server, 0);
  });

  test("3.8 the records before it come first", async () => {
    const topic = await newTopic(server);
    await using stream = await watchLive(server, [topic], { ...slow, limit: 100 });
    await fill(topic, 10);
    await eventsTo(stream, topic, 10);
    await topic.drop();
    expect(told(await deletion(stream))).toBe(`${topic.name} deleted`);
    expect(await stream.rest(1000)).toBe("");
  });

  test("3.8 one that is created again behind topic-deleted is not followed on this stream", async () => {
    const [topic, other] = [await filled(1), await newTopic(server)];
    const session = await newSession(server, [topic, other], slow);
    await using stream = await session.open();
    await stream.events(3);
    await topic.drop();
    const deleted = await deletion(stream);
    await fill(topic, 3);
    await other.append(1);
    await topic.append(4);
    await other.append(2);
    const events = await eventsTo(stream, other, 2);
    await using again = await session.open();
    const seen = await eventsTo(again, topic, 4);

    expect(told(deleted)).toBe(`${topic.name} deleted`);
    expect(said(events, topic)).toEqual([]);
    expect(recordsIn(events).map(({ $seq }) => $seq)).toEqual([1, 2]);
    expect(said(seen, topic)).toEqual(["from_seq_too_old 1-4", "1 2 3 4", "at 4"]);
  });
});

describe("05.39 deleted and created again", () => {
  const lives = [
    ["fewer records than", 2],
    ["as many records as", 3],
    ["one more record than", 4],
    ["many more records than", 600],
  ] as const;

  test.each(lives)(
    "live, with %s the cursor: recreated, then every record",
    async (_, n) => {
      const topic = await filled(3);
      await using stream = await watch(server, [topic], slow);
      await eventsTo(stream, topic, 3);
      await topic.drop();
      await topic.append(...range(n).map((i) => `new ${i}`));
      const [tombstone, ...events] = await eventsTo(stream, topic, n);

      expect(tombstone?.event).toBe("tombstone");
      expect(tombstone?.body).toStrictEqual({
        topic: topic.name,
        reason: "recreated",
        gap_from: 1,
        gap_to: n,
        earliest_seq: 1,
        head_seq: n,
      });
      expect(cursorIn(tombstone!)).toEqual({ epochs: { [topic.name]: 0 }, seqs: { [topic.name]: n } });
      expect(recordsIn(events).map(({ data }) => data)).toEqual(range(n).map((i) => `new ${i}`));
      expect(cursorIn(events.at(-1)!)).toEqual({
        epochs: { [topic.name]: await epochOf(topic) },
        seqs: { [topic.name]: n },
      });
      await topic.append("later");
      expect(said(await stream.events(2), topic)).toEqual([`${n + 1}`, `at ${n + 1}`]);
    },
    inOneMoment,
  );

  test.each(lives)("while the client is away, with %s the cursor", async (_, n) => {
    const topic = await filled(3);
    const session = await newSession(server, [topic], slow);
    const first = await session.open();
    const { id } = (await eventsTo(first, topic, 3)).at(-1)!;
    await first.close();
    await openStreams(server, 0);
    await recreate(topic, ...range(n).map((i) => `new ${i}`));
    for (const header of [undefined, id]) {
      const stream = await session.open(header);
      const [tombstone, ...events] = await eventsTo(stream, topic, n);
      await stream.close();
      await openStreams(server, 0);
      expect(told(tombstone!)).toBe(`${topic.name} from_seq_too_old 1-${n}`);
      expect(recordsIn(events).map(({ data }) => data)).toEqual(range(n).map((i) => `new ${i}`));
    }
  });

  test.each(lives)("between the POST and the stream, with %s the cursor", async (_, n) => {
    const topic = await filled(3);
    const session = await newSession(server, { [topic.name]: { tail: true } }, slow);
    await recreate(topic, ...range(n));
    await using stream = await session.open();
    const [tombstone, ...events] = await eventsTo(stream, topic, n);
    expect(told(tombstone!)).toBe(`${topic.name} from_seq_too_old 1-${n}`);
    expect(recordsIn(events).map(({ data }) => data)).toEqual(range(n));
  });

  test(
    "live and left empty: recreated 1 to 0, and caught-up at 0",
    async () => {
      const topic = await filled(3);
      await using stream = await watch(server, [topic], slow);
      await eventsTo(stream, topic, 3);
      await recreate(topic);
      const [tombstone, caughtUp] = (await stream.events(2)) as [StreamEvent, StreamEvent];
      expect(tombstone.body).toMatchObject({ reason: "recreated", gap_from: 1, gap_to: 0, head_seq: 0 });
      expect(caughtUp.body).toEqual({ topic: topic.name, head_seq: 0 });
      await topic.append("a");
      expect(said(await stream.events(2), topic)).toEqual(["1", "at 1"]);
    },
    inOneMoment,
  );

  test(
    "an empty topic live, whose cursor is 0: recreated, then every record",
    async () => {
      const topic = await newTopic(server);
      await using stream = await watchLive(server, [topic], slow);
      await topic.drop();
      await topic.append("a", "b");
      expect(said(await eventsTo(stream, topic, 2), topic)).toEqual(["recreated 1-2", "1 2", "at 2"]);
    },
    inOneMoment,
  );

  test(
    "as a queue, and from own records, too",
    async () => {
      const topic = await filled(3);
      await using stream = await watch(server, [topic], { ...slow, node: "own" });
      await eventsTo(stream, topic, 3);
      await topic.drop();
      await topic.write({ config: { type: "queue" }, node: "own", records: [{ data: 1 }, { data: 2 }] });
      expect(said(await eventsTo(stream, topic, 2), topic)).toEqual(["recreated 1-2", "at 2"]);
      await topic.append("job");
      expect(said(await stream.events(2), topic)).toEqual(["3", "at 3"]);
    },
    inOneMoment,
  );

  test(
    "the other topic goes on meanwhile",
    async () => {
      const [topic, other] = [await filled(1), await newTopic(server)];
      await using stream = await watch(server, [topic, other], slow);
      await stream.events(3);
      await topic.drop();
      await topic.append("new");
      await other.append(1);
      const events = [...(await eventsTo(stream, topic, 1))];
      if (said(events, other).length === 0) events.push(...(await eventsTo(stream, other, 1)));
      expect(said(events, topic)).toEqual(["recreated 1-1", "1", "at 1"]);
      expect(said(events, other)).toEqual(["1", "at 1"]);
      expect(cursorIn(events.at(-1)!).seqs).toEqual({ [topic.name]: 1, [other.name]: 1 });
    },
    inOneMoment,
  );

  test("again and again: in the end every record of the last life was there, behind its last tombstone", async () => {
    const [topic, other] = [await newTopic(server), await newTopic(server)];
    const session = await newSession(server, [topic, other], slow);
    const stream = await session.open();
    await stream.events(2);
    for (let life = 1; life <= 20; life++) {
      await topic.drop();
      await topic.append(`${life} a`, `${life} b`);
      await topic.append(`${life} c`);
    }
    await other.append("end");
    const events = await eventsTo(stream, other, 1);
    while (!isAtEnd(events, topic)) events.push(await stream.event());
    await stream.close();
    await openStreams(server, 0);
    // A slow machine shows a deletion: then the records come with the next stream.
    if (events.some(({ event }) => event === "topic-deleted")) {
      await using next = await session.open();
      events.push(...(await eventsTo(next, topic, 3)));
    }
    const own = events.filter(({ body }) => body.topic === topic.name);
    const last = own.findLastIndex(({ event }) => event === "tombstone");
    expect(recordsIn(own.slice(last)).map(({ data }) => data)).toEqual(["20 a", "20 b", "20 c"]);
  });

  const isAtEnd = (events: StreamEvent[], { name }: Topic) => {
    const last = events.findLast(({ body }) => body.topic === name);
    const records = recordsIn(events.filter(({ body }) => body.topic === name));
    return last?.event === "topic-deleted" || records.at(-1)?.data === "20 c";
  };
});

describe("05.40 a stream that opens", () => {
  test("while the topic is absent tells it and ends; once the topic is back it is served", async () => {
    const topic = await filled(2);
    const session = await newSession(server, [topic], slow);
    const first = await session.open();
    await eventsTo(first, topic, 2);
    await first.close();
    await topic.drop();
    for (let time = 0; time < 2; time++) {
      await using stream = await session.open();
      const deleted = await stream.event();
      expect(deleted.body).toStrictEqual({ topic: topic.name, head_seq: 0, reason: "deleted" });
      expect(cursorIn(deleted).seqs).toEqual({ [topic.name]: 2 });
      expect(await stream.rest(1000)).toBe("");
    }
    await topic.append("a", "b", "c");
    await using stream = await session.open();
    expect(said(await stream.events(3), topic)).toEqual(["from_seq_too_old 1-3", "1 2 3", "at 3"]);
    await topic.append("d");
    expect(said(await stream.events(2), topic)).toEqual(["4", "at 4"]);
  });

  test("while one of two is absent tells it and serves the other", async () => {
    const [gone, other] = [await filled(2), await filled(2)];
    const session = await newSession(server, [gone, other], slow);
    await gone.drop();
    await using stream = await session.open();
    const events = await stream.events(3);
    expect(said(events, gone)).toEqual(["deleted"]);
    expect(said(events, other)).toEqual(["1 2", "at 2"]);
    await other.append(3);
    expect(await tell(stream, 2)).toEqual([`${other.name} 3`, `${other.name} at 3`]);
  });

  test("with its last id while the topic is absent tells it, too", async () => {
    const topic = await filled(2);
    const session = await newSession(server, [topic], slow);
    const first = await session.open();
    const { id } = (await eventsTo(first, topic, 2)).at(-1)!;
    await first.close();
    await topic.drop();
    await using stream = await session.open(id);
    const deleted = await stream.event();
    expect(told(deleted)).toBe(`${topic.name} deleted`);
    expect(await stream.rest(1000)).toBe("");
    await topic.append("a", "b");
    await using next = await session.open(deleted.id);
    expect(said(await next.events(3), topic)).toEqual(["from_seq_too_old 1-2", "1 2", "at 2"]);
  });

  test("finds a deleted queue gone, and a queue in its place", async () => {
    const queue = await makeQueue(server);
    await queue.produce(2);
    const session = await newSession(server, [queue], slow);
    await using stream = await session.open();
    await eventsTo(stream, queue, 2);
    await queue.drop();
    const events = await eventsUntil(stream, ({ event }) => event === "topic-deleted");
    expect(said(events, queue)).toEqual(["deleted"]);
    await queue.put({ type: "queue" });
    await queue.produce(1);
    await using next = await session.open();
    expect(said(await next.events(3), queue)).toEqual(["from_seq_too_old 1-1", "1", "at 1"]);
  });
});
