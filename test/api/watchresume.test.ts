/** Where a stream begins that is not the first of its session: the places of a session, `Last-Event-ID`, epochs. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { EventStream, type StreamEvent } from "../support/eventstream.ts";
import { newTopic, sharedServer, type Topic, together } from "../support/topics.ts";
import {
  cursorIn,
  epochOf,
  eventsTo,
  fill,
  filledTopic,
  idOf,
  newSession,
  openStreams,
  plainId,
  recordsIn,
  recreate,
  type Session,
  tell,
  told,
  topicNamed,
} from "../support/watch.ts";

setDefaultTimeout(20_000);

const server = sharedServer();

const filled = (n: number, config?: object): Promise<Topic> => filledTopic(server, n, config);

/** What was said about one topic, without its name. */
const said = (events: readonly StreamEvent[], { name }: Topic): string[] =>
  events.filter(({ body }) => body.topic === name).map((event) => told(event).slice(name.length + 1));

/** A session whose first stream has come to the head of all its topics and was closed. Gives its last event. */
async function visited(...topics: Topic[]): Promise<{ session: Session; last: StreamEvent }> {
  const session = await newSession(server, topics);
  const stream = await session.open();
  const open = new Set(topics.map(({ name }) => name));
  for (;;) {
    const event = await stream.event();
    if (event.event === "caught-up") open.delete(event.body.topic);
    if (open.size > 0) continue;
    await leave(stream);
    return { session, last: event };
  }
}

/** Closes the only open stream and waits until the server knows. */
async function leave(stream: EventStream, left = 0): Promise<void> {
  await stream.close();
  await openStreams(server, left);
}

/** What a new stream of the session says about its only topic until that is at `head`. */
async function reads(session: Session, topic: Topic, head: number, id?: string): Promise<string[]> {
  const stream = await session.open(id);
  const events = await eventsTo(stream, topic, head);
  await leave(stream);
  return said(events, topic);
}

describe("without a header", () => {
  test("05.33 a stream goes on behind the last frame", async () => {
    const topic = await filled(2);
    const { session } = await visited(topic);
    await fill(topic, 2);
    expect(await reads(session, topic, 4)).toEqual(["3 4", "at 4"]);
    expect(await reads(session, topic, 4)).toEqual(["at 4"]);
    await fill(topic, 1);
    expect(await reads(session, topic, 5)).toEqual(["5", "at 5"]);
  });

  test("05.33 a stream that was cut in its backlog goes on where it was, and nothing is skipped by its id", async () => {
    const topic = await filled(300);
    const session = await newSession(server, [topic], { limit: 1 });
    const first = await session.open();
    const [event] = (await first.events(10)).slice(-1);
    await leave(first);
    const rest = await reads(session, topic, 300, event!.id);
    expect(rest).toEqual([...Array.from({ length: 290 }, (_, i) => `${i + 11}`), "at 300"]);
  });

  test("3.6 an empty header is none", async () => {
    const topic = await filled(2);
    const { session } = await visited(topic);
    await fill(topic, 1);
    expect(await reads(session, topic, 3, "")).toEqual(["3", "at 3"]);
  });

  test.each(["cursor", "last_event_id", "Last-Event-ID", "from_seq", "tail"])(
    "3.6 the query parameter %s is ignored",
    async (name) => {
      const topic = await filled(2);
      const { session } = await visited(topic);
      const value = name === "tail" ? "true" : name === "from_seq" ? "0" : idOf({ [topic.name]: 0 });
      await using stream = await EventStream.open(server.url, `${session.path}?${name}=${value}`);
      expect(await tell(stream, 1)).toEqual([`${topic.name} at 2`]);
    },
  );

  test("1.3 each session has its own places", async () => {
    const topic = await filled(2);
    await visited(topic);
    expect(await reads(await newSession(server, [topic]), topic, 2)).toEqual(["1 2", "at 2"]);
  });
});

describe("05.33 with Last-Event-ID", () => {
  test("the last one goes on behind it", async () => {
    const topic = await filled(2);
    const { session, last } = await visited(topic);
    await fill(topic, 1);
    expect(await reads(session, topic, 3, last.id)).toEqual(["3", "at 3"]);
  });

  test("a lower one brings back what followed it", async () => {
    const topic = await filled(5);
    const { session, last } = await visited(topic);
    const { epochs } = cursorIn(last);
    const id = idOf({ $epochs: epochs, [topic.name]: 2 });
    expect(await reads(session, topic, 5, id)).toEqual(["3 4 5", "at 5"]);
    expect(await reads(session, topic, 5, idOf({ $epochs: epochs, [topic.name]: 0 }))).toEqual([
      "1 2 3 4 5",
      "at 5",
    ]);
  });

  test.each([
    ["", 0, []],
    [", also before a tombstone", 9, ["from_seq_too_old 1-3"]],
  ])("every id of a stream leads to exactly what came behind it%s", async (_, from_seq, gap) => {
    const [topic, other] = [await filled(5), await filled(3)];
    const watched = { [topic.name]: {}, [other.name]: { from_seq } };
    const session = await newSession(server, watched, { limit: 2 });
    const stream = await session.open();
    const all = [...(await eventsTo(stream, topic, 5)), ...(await eventsTo(stream, other, 3))];
    await leave(stream);
    expect(said(all, other)).toEqual([...gap, "1 2", "3", "at 3"]);
    for (const [i, { id }] of all.entries()) {
      const again = await session.open(id);
      const events: StreamEvent[] = [];
      const [last] = all.slice(-1);
      // What is caught up already says so once more.
      while (events.at(-1)?.data !== last!.data) events.push(await again.event());
      await leave(again);
      const behind = all.slice(i + 1).filter(({ event }) => event !== "caught-up");
      const isStartedOver = all[i]!.event === "tombstone";
      const expected = isStartedOver ? [all[i]!, ...behind] : behind;
      expect(events.filter(({ event }) => event !== "caught-up").map(told)).toEqual(expected.map(told));
    }
  });

  test.each([3, 1000, 2 ** 53 - 1])("a higher one (%i) skips nothing", async (seq) => {
    const topic = await filled(2);
    const session = await newSession(server, { [topic.name]: { from_seq: 1 } });
    const id = idOf({ $epochs: { [topic.name]: await epochOf(topic) }, [topic.name]: seq });
    expect(await reads(session, topic, 2, id)).toEqual(["2", "at 2"]);
  });

  test.each([3, 1000])("a higher one (%i) without epochs skips nothing, also later", async (seq) => {
    const topic = await filled(2);
    const { session } = await visited(topic);
    await using stream = await session.open(idOf({ [topic.name]: seq }));
    await fill(topic, 3);
    const events = await eventsTo(stream, topic, 5);
    expect(recordsIn(events).map(({ $seq }) => $seq)).toEqual([3, 4, 5]);
  });

  test("18446744073709551615 skips nothing", async () => {
    const topic = await filled(2);
    const { session } = await visited(topic);
    const id = idOf(`{"${topic.name}":18446744073709551615}`);
    await fill(topic, 1);
    expect(await reads(session, topic, 3, id)).toEqual(["3", "at 3"]);
  });

  test("the lower one holds for each topic by itself", async () => {
    const [topic, other] = [await filled(3), await filled(3)];
    const { session } = await visited(topic, other);
    await using stream = await session.open(idOf({ [topic.name]: 1, [other.name]: 99 }));
    const events = [...(await eventsTo(stream, topic, 3)), ...(await eventsTo(stream, other, 3))];
    expect(said(events, topic)).toEqual(["2 3", "at 3"]);
    expect(said(events, other)).toEqual(["at 3"]);
  });

  test("a topic that it does not name goes on", async () => {
    const [topic, other] = [await filled(3), await filled(3)];
    const { session } = await visited(topic, other);
    await using stream = await session.open(idOf({ [topic.name]: 0 }));
    const events = [...(await eventsTo(stream, topic, 3)), ...(await eventsTo(stream, other, 3))];
    expect(said(events, topic)).toEqual(["1 2 3", "at 3"]);
    expect(said(events, other)).toEqual(["at 3"]);
  });

  test("05.35 an unknown topic in it is ignored, and the known one rewinds", async () => {
    const topic = await filled(3);
    const { session } = await visited(topic);
    const id = idOf(`{"absent":1,"${topic.name}":1,"":7,"not a name":2}`);
    expect(await reads(session, topic, 3, id)).toEqual(["2 3", "at 3"]);
  });

  test("05.35 an existing topic that the session does not watch is ignored, too", async () => {
    const [topic, other] = [await filled(2), await filled(2)];
    const { session } = await visited(topic);
    const stream = await session.open(idOf({ [other.name]: 0, [topic.name]: 1 }));
    const events = await eventsTo(stream, topic, 2);
    await leave(stream);
    expect(events.map(told)).toEqual([`${topic.name} 2`, `${topic.name} at 2`]);
    for (const event of events) expect(Object.keys(cursorIn(event).seqs)).toEqual([topic.name]);
  });

  test("05.36 goes below the start of a tail, down to 0", async () => {
    const topic = await filled(4);
    const tail = () => newSession(server, { [topic.name]: { tail: true } });
    expect(await reads(await tail(), topic, 4, idOf({ [topic.name]: 2 }))).toEqual(["3 4", "at 4"]);
    expect(await reads(await tail(), topic, 4, idOf({ [topic.name]: 0 }))).toEqual(["1 2 3 4", "at 4"]);
  });

  test("05.36 goes below a from_seq", async () => {
    const topic = await filled(4);
    const session = await newSession(server, { [topic.name]: { from_seq: 3 } });
    expect(await reads(session, topic, 4, idOf({ [topic.name]: 1 }))).toEqual(["2 3 4", "at 4"]);
  });

  test("3.6 below the floor gets a tombstone", async () => {
    const topic = await filled(6, { cap_records: 2 });
    const { session } = await visited(topic);
    expect(await reads(session, topic, 6, idOf({ [topic.name]: 1 }))).toEqual([
      "from_seq_too_old 2-4",
      "5 6",
      "at 6",
    ]);
  });

  test("3.6 a rewind moves the session, and what follows is live", async () => {
    const topic = await filled(3);
    const { session } = await visited(topic);
    await using stream = await session.open(idOf({ [topic.name]: 2 }));
    expect(said(await stream.events(2), topic)).toEqual(["3", "at 3"]);
    await fill(topic, 1);
    expect(said(await stream.events(2), topic)).toEqual(["4", "at 4"]);
  });
});

describe("05.34 a header that says nothing", () => {
  const cursor = (name: string) => `{"${name}":0}`;

  test.each<[string, (name: string) => string]>([
    ["garbage", () => "!!!"],
    ["plain JSON", cursor],
    ["plain text", () => "0"],
    ["base64url of garbage", () => idOf("garbage")],
    ["base64url of bytes that are no text", () => Buffer.from([0xff, 0xfe, 0x7b]).toString("base64url")],
    ["an array", (name) => idOf(`[${cursor(name)}]`)],
    ["a number", () => idOf("0")],
    ["null", () => idOf("null")],
    ["a string", (name) => idOf(JSON.stringify(cursor(name)))],
    ["an object that is cut off", (name) => idOf(cursor(name).slice(0, -1))],
    ["an object with more behind it", (name) => idOf(`${cursor(name)}}`)],
    ["padding", (name) => Buffer.from(`${cursor(name)}${" ".repeat(padding(name))}`).toString("base64")],
    ["a negative value", (name) => idOf(`{"${name}":-1}`)],
    ["a string for a value", (name) => idOf(`{"${name}":"0"}`)],
    ["a fraction", (name) => idOf(`{"${name}":0.5}`)],
    ["null for a value", (name) => idOf(`{"${name}":null}`)],
    ["true for a value", (name) => idOf(`{"${name}":true}`)],
    ["2^64", (name) => idOf(`{"other":18446744073709551616,"${name}":0}`)],
    ["one bad value, of another topic", (name) => idOf(`{"${name}":0,"other":-1}`)],
    ["$epochs that is an array", (name) => idOf(`{"$epochs":[1],"${name}":0}`)],
    ["$epochs that is a number", (name) => idOf(`{"$epochs":1,"${name}":0}`)],
    ["$epochs that is null", (name) => idOf(`{"$epochs":null,"${name}":0}`)],
    ["$epochs of strings", (name) => idOf(`{"$epochs":{"${name}":"1"},"${name}":0}`)],
    ["$epochs of fractions", (name) => idOf(`{"$epochs":{"${name}":1.5},"${name}":0}`)],
  ])("%s is as none", async (_, header) => {
    const topic = await filled(2);
    const { session } = await visited(topic);
    await fill(topic, 1);
    await using stream = await session.open(header(topic.name));
    expect(said(await stream.events(2), topic)).toEqual(["3", "at 3"]);
  });

  /** So many spaces that base64 ends with padding. */
  const padding = (name: string) => (cursor(name).length % 3 === 0 ? 1 : 0);

  test("the letters of plain base64 are as none, those of base64url are read", async () => {
    const topic = await filled(2);
    const { session } = await visited(topic);
    // Somewhere these make a letter in which both differ.
    const text = `{"a":1,"???":1,">>>":1,"?>?":1,"~~~~":1,"${topic.name}":0}`;
    const plain = Buffer.from(text).toString("base64").replaceAll("=", "");
    expect(plain).toMatch(/[+/]/);
    expect(await reads(session, topic, 2, plain)).toEqual(["at 2"]);
    expect(await reads(session, topic, 2, idOf(text))).toEqual(["1 2", "at 2"]);
  });
});

describe("two streams of one session", () => {
  test("each get everything", async () => {
    const topic = await filled(2);
    const session = await newSession(server, [topic]);
    await using first = await session.open();
    expect(said(await first.events(2), topic)).toEqual(["1 2", "at 2"]);
    await using second = await session.open();
    await eventsTo(second, topic, 2);
    for (let n = 3; n <= 60; n++) {
      await topic.append(n);
      for (const stream of [first, second]) {
        expect(said(await stream.events(2), topic)).toEqual([`${n}`, `at ${n}`]);
      }
    }
  });

  test("a rewind by one is not seen by the other", async () => {
    const topic = await filled(3);
    const session = await newSession(server, [topic]);
    await using first = await session.open();
    await first.events(2);
    await using second = await session.open(idOf({ [topic.name]: 1 }));
    expect(said(await second.events(2), topic)).toEqual(["2 3", "at 3"]);
    await topic.append(4);
    for (const stream of [first, second]) expect(said(await stream.events(2), topic)).toEqual(["4", "at 4"]);
  });

  test("a third one without a header begins at the lowest place that one has left behind", async () => {
    const topic = await filled(3);
    const session = await newSession(server, [topic]);
    const leaving = await session.open();
    await eventsTo(leaving, topic, 3);
    await using staying = await session.open();
    await eventsTo(staying, topic, 3);
    await leave(leaving, 1);
    await topic.append(4, 5);
    await eventsTo(staying, topic, 5);
    await using third = await session.open();
    expect(said(await third.events(2), topic)).toEqual(["4 5", "at 5"]);
  });

  test("nor does it matter that another one has left behind a later place", async () => {
    const topic = await filled(3);
    const session = await newSession(server, [topic]);
    const [early, late] = [await session.open(), await session.open()];
    for (const stream of [early, late]) await eventsTo(stream, topic, 3);
    await leave(early, 1);
    await topic.append(4, 5);
    await eventsTo(late, topic, 5);
    await leave(late);
    expect(await reads(session, topic, 5)).toEqual(["4 5", "at 5"]);
    expect(await reads(session, topic, 5)).toEqual(["at 5"]);
  });

  test("an id up to the furthest place that one reached is taken as it is", async () => {
    const topic = await filled(3);
    const session = await newSession(server, [topic]);
    const leaving = await session.open();
    await eventsTo(leaving, topic, 3);
    await using staying = await session.open();
    await eventsTo(staying, topic, 3);
    await leave(leaving, 1);
    await topic.append(4, 5);
    const { id } = (await eventsTo(staying, topic, 5)).at(-1)!;
    await using third = await session.open(id);
    await topic.append(6);
    const events = await eventsTo(third, topic, 6);
    expect(recordsIn(events).map(({ $seq }) => $seq)).toEqual([6]);
  });

  test("many at the same time, opened while records come, each get all of them", async () => {
    const topic = await newTopic(server);
    const session = await newSession(server, [topic]);
    const streams = together(20, () => session.open());
    const writes = together(50, (n) => topic.append(n));
    for (const stream of await streams) {
      const events = await eventsTo(stream, topic, 50);
      expect(recordsIn(events).map(({ $seq }) => $seq)).toEqual(Array.from({ length: 50 }, (_, i) => i + 1));
      await stream.close();
    }
    await writes;
  });
});

describe("P5 $epochs in an id", () => {
  test.each([
    ["fewer records than", 2],
    ["as many records as", 3],
    ["more records than", 5],
  ])("of a topic created again with %s the cursor: a tombstone and everything", async (_, n) => {
    const topic = await filled(3);
    const { session, last } = await visited(topic);
    await recreate(topic, ...Array(n).fill("new"));
    const all = [`from_seq_too_old 1-${n}`, Array.from({ length: n }, (_, i) => i + 1).join(" "), `at ${n}`];
    expect(await reads(session, topic, n, last.id)).toEqual(all);
    // The session has gone on, but the header is still from before.
    expect(await reads(session, topic, n, last.id)).toEqual(all);
    expect(await reads(session, topic, n)).toEqual([`at ${n}`]);
  });

  test("that names a life from before the session gives everything", async () => {
    const topic = await filled(3);
    const old = await epochOf(topic);
    await recreate(topic, "a", "b", "c");
    const { session } = await visited(topic);
    const id = idOf({ $epochs: { [topic.name]: old }, [topic.name]: 3 });
    expect(await reads(session, topic, 3, id)).toEqual(["from_seq_too_old 1-3", "1 2 3", "at 3"]);
  });

  test("concerns only the topic that it is about", async () => {
    const [topic, other] = [await filled(2), await filled(2)];
    const { session, last } = await visited(topic, other);
    await recreate(topic, "a", "b");
    await using stream = await session.open(last.id);
    const events = [...(await eventsTo(stream, topic, 2)), ...(await eventsTo(stream, other, 2))];
    expect(said(events, topic)).toEqual(["from_seq_too_old 1-2", "1 2", "at 2"]);
    expect(said(events, other)).toEqual(["at 2"]);
  });

  test("may be missing: the plain seqs are read", async () => {
    const topic = await filled(3);
    const { session, last } = await visited(topic);
    expect(plainId(last)).toBe(idOf({ [topic.name]: 3 }));
    expect(await reads(session, topic, 3, idOf({ [topic.name]: 1 }))).toEqual(["2 3", "at 3"]);
  });

  test.each([2, 3, 5])(
    "that is missing hides no recreation which the session has not seen, with %i records",
    async (n) => {
      const topic = await filled(3);
      const { session, last } = await visited(topic);
      await recreate(topic, ...Array(n).fill("new"));
      const story = await reads(session, topic, n, plainId(last));
      expect(story).toEqual([
        `from_seq_too_old 1-${n}`,
        Array.from({ length: n }, (_, i) => i + 1).join(" "),
        `at ${n}`,
      ]);
    },
  );

  test("may name other topics, and other members that start with $ are ignored", async () => {
    const topic = await filled(3);
    const { session, last } = await visited(topic);
    const epochs = { ...cursorIn(last).epochs, absent: 12 };
    const id = idOf({ $epochs: epochs, $more: [1, "2"], $: null, [topic.name]: 2 });
    expect(await reads(session, topic, 3, id)).toEqual(["3", "at 3"]);
  });

  test("need not name all topics", async () => {
    const topic = await filled(3);
    const { session } = await visited(topic);
    expect(await reads(session, topic, 3, idOf({ $epochs: {}, [topic.name]: 2 }))).toEqual(["3", "at 3"]);
  });

  test("without a header a recreation is not missed either", async () => {
    const topic = await filled(3);
    const { session } = await visited(topic);
    await recreate(topic, "a", "b", "c", "d");
    expect(await reads(session, topic, 4)).toEqual(["from_seq_too_old 1-4", "1 2 3 4", "at 4"]);
  });

  test("an old id does not rewind the new topic's records into nothing on an empty topic", async () => {
    const topic = await filled(3);
    const { session, last } = await visited(topic);
    await recreate(topic);
    await using stream = await session.open(last.id);
    expect(said(await stream.events(2), topic)).toEqual(["from_seq_too_old 1-0", "at 0"]);
    await topic.append("new");
    expect(said(await stream.events(2), topic)).toEqual(["1", "at 1"]);
  });
});

describe("a stream that is cut right behind a tombstone of a recreation", () => {
  /** Opens, reads no further than the tombstone, and gives it. */
  async function cut(session: Session, id?: string): Promise<StreamEvent> {
    const stream = await session.open(id);
    const tombstone = await stream.event();
    await leave(stream);
    expect(tombstone.event).toBe("tombstone");
    return tombstone;
  }

  const whole = ["from_seq_too_old 1-3", "1 2 3", "at 3"];

  test("gets it and all records again by its id, and so on", async () => {
    const topic = await filled(3);
    const { session } = await visited(topic);
    await recreate(topic, "a", "b", "c");
    const first = await cut(session);
    expect(cursorIn(first)).toEqual({ epochs: { [topic.name]: 0 }, seqs: { [topic.name]: 3 } });
    const second = await cut(session, first.id);
    expect(second.body).toEqual(first.body);
    expect(await reads(session, topic, 3, second.id)).toEqual(whole);
    expect(await reads(session, topic, 3)).toEqual(["at 3"]);
  });

  test("gets them although more were written meanwhile", async () => {
    const topic = await filled(3);
    const { session } = await visited(topic);
    await recreate(topic, "a");
    const tombstone = await cut(session);
    await topic.append("b", "c");
    expect(await reads(session, topic, 3, tombstone.id)).toEqual(whole);
  });

  test("gets them after a from_seq above the head, too", async () => {
    const topic = await filled(3);
    const session = await newSession(server, { [topic.name]: { from_seq: 9 } });
    const tombstone = await cut(session);
    expect(await reads(session, topic, 3, tombstone.id)).toEqual(whole);
  });

  test(
    "gets them live, where the reason is recreated",
    async () => {
      const topic = await filled(3);
      const session = await newSession(server, [topic]);
      const stream = await session.open();
      await eventsTo(stream, topic, 3);
      await recreate(topic, "a", "b", "c");
      const live = await stream.event();
      await leave(stream);
      expect(live.body).toMatchObject({ reason: "recreated", gap_from: 1, gap_to: 3 });
      expect(cursorIn(live).epochs).toEqual({ [topic.name]: 0 });
      const tombstone = await cut(session, live.id);
      expect(await reads(session, topic, 3, tombstone.id)).toEqual(whole);
    },
    // A machine that stands still for 0.1 s between the two calls shows the deletion.
    { retry: 2 },
  );

  test("but behind a tombstone of a cap it goes on behind the gap", async () => {
    const topic = await filled(5, { cap_records: 2 });
    const session = await newSession(server, [topic]);
    const tombstone = await cut(session);
    expect(await reads(session, topic, 5, tombstone.id)).toEqual(["4 5", "at 5"]);
  });
});

describe("3.4 an id of 256 topics with names of 255 characters", () => {
  test("is accepted as Last-Event-ID", async () => {
    const names = Array.from({ length: 256 }, (_, i) => `${i}`.padStart(3, "0").padEnd(255, "x"));
    const [last, ...others] = [...names].reverse() as [string, ...string[]];
    for (const name of others) await topicNamed(server, name);
    // Served first, so that it need not be looked for behind 255 large frames.
    const topic = await topicNamed(server, last, { priority: 1 });
    await fill(topic, 3);
    const watched = Object.fromEntries(names.map((name) => [name, { tail: true }]));
    const session = await newSession(server, watched);
    const id = idOf(Object.fromEntries(names.map((name) => [name, name === last ? 1 : 0])));
    expect(id.length).toBeGreaterThan(85_000);
    const stream = await session.open(id);
    const record = await stream.event();
    await leave(stream);
    const { epochs, seqs } = cursorIn(record);

    expect(record.body).toMatchObject({ topic: last, from_seq: 1, to_seq: 3 });
    expect(Object.keys(epochs).sort()).toEqual(names);
    expect(seqs).toEqual(Object.fromEntries(names.map((name) => [name, name === last ? 3 : 0])));
    // The stream's own id has the epochs, too, and leads behind the record.
    const again = await session.open(record.id);
    const next = await again.event();
    await leave(again);
    expect(told(next)).toBe(`${last} at 3`);
  });
});
