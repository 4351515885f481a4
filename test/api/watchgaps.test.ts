/** Tombstones on watch streams: what a client is told of records that it will never see, and where it is not. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { connect } from "node:net";
import { EventStream, type StreamEvent } from "../support/eventstream.ts";
import { newRoute } from "../support/router.ts";
import { newTopic, sharedServer, type Topic, until } from "../support/topics.ts";
import {
  appendFrom,
  cursorIn,
  epochOf,
  eventsTo,
  eventsUntil,
  fill,
  filledTopic,
  newSession,
  recordsIn,
  tell,
  told,
  watch,
  watchLive,
} from "../support/watch.ts";

setDefaultTimeout(20_000);

const server = sharedServer();

const filled = (n: number, config?: object): Promise<Topic> => filledTopic(server, n, config);

/** Waits until all records have expired. */
const expired = (topic: Topic) =>
  until(
    () => topic.state(),
    ({ body }) => body.count === 0,
  );

/** What was said about one topic, without its name. */
const said = (events: readonly StreamEvent[], { name }: Topic): string[] =>
  events.filter(({ body }) => body.topic === name).map((event) => told(event).slice(name.length + 1));

describe("below the floor at connect", () => {
  test("05.24 a cursor below the cap's floor gets the gap before the records", async () => {
    const topic = await filled(20, { cap_records: 3 });
    await using stream = await watch(server, { [topic.name]: { from_seq: 10 } });
    const [tombstone, record, caughtUp] = (await stream.events(3)) as [StreamEvent, StreamEvent, StreamEvent];

    expect(tombstone.event).toBe("tombstone");
    expect(tombstone.body).toStrictEqual({
      topic: topic.name,
      reason: "from_seq_too_old",
      gap_from: 11,
      gap_to: 17,
      earliest_seq: 18,
      head_seq: 20,
    });
    expect(cursorIn(tombstone)).toEqual({
      epochs: { [topic.name]: await epochOf(topic) },
      seqs: { [topic.name]: 17 },
    });
    // The cursor before this batch is the old one, although the tombstone has passed it.
    expect(record.body).toMatchObject({ from_seq: 10, to_seq: 20, head_seq: 20 });
    expect(recordsIn([record]).map(({ $seq }) => $seq)).toEqual([18, 19, 20]);
    expect(told(caughtUp)).toBe(`${topic.name} at 20`);
  });

  test("05.24 a cursor at the floor has lost nothing", async () => {
    const topic = await filled(5, { cap_records: 3 });
    await using stream = await watch(server, { [topic.name]: { from_seq: 2 } });
    expect(await tell(stream, 2)).toEqual([`${topic.name} 3 4 5`, `${topic.name} at 5`]);
  });

  test("05.24 each topic has its own, with from_seq_too_old for all", async () => {
    const capped = await filled(3, { cap_records: 1 });
    const whole = await filled(2);
    const emptied = await filled(2, { ttl_ms: 1 });
    const ahead = await filled(2);
    await expired(emptied);
    const all = { [capped.name]: {}, [whole.name]: {}, [emptied.name]: {}, [ahead.name]: { from_seq: 9 } };
    await using stream = await watch(server, all);
    const events = await stream.events(3 + 2 + 2 + 3);
    expect(said(events, capped)).toEqual(["from_seq_too_old 1-2", "3", "at 3"]);
    expect(said(events, whole)).toEqual(["1 2", "at 2"]);
    expect(said(events, emptied)).toEqual(["from_seq_too_old 1-2", "at 2"]);
    expect(said(events, ahead)).toEqual(["from_seq_too_old 1-2", "1 2", "at 2"]);
  });

  test("05.24 is told once and not on the frames that follow", async () => {
    const topic = await filled(9, { cap_records: 6 });
    await using stream = await watch(server, [topic], { limit: 2 });
    const events = await eventsTo(stream, topic, 9);
    expect(said(events, topic)).toEqual(["from_seq_too_old 1-3", "4 5", "6 7", "8 9", "at 9"]);
    expect(events.map((event) => cursorIn(event).seqs[topic.name])).toEqual([3, 5, 7, 9, 9]);
  });

  test("05.30 a backlog that has expired is a tombstone and caught-up, no record", async () => {
    const topic = await filled(3, { ttl_ms: 1 });
    await expired(topic);
    await using stream = await watch(server, [topic]);
    const [tombstone, caughtUp] = (await stream.events(2)) as [StreamEvent, StreamEvent];
    expect(tombstone.body).toStrictEqual({
      topic: topic.name,
      reason: "from_seq_too_old",
      gap_from: 1,
      gap_to: 3,
      earliest_seq: 4,
      head_seq: 3,
    });
    expect(told(caughtUp)).toBe(`${topic.name} at 3`);
    expect(cursorIn(caughtUp).seqs).toEqual({ [topic.name]: 3 });
  });

  test("05.30 so is one that expires while the client is away, with or without its last id", async () => {
    const topic = await newTopic(server, { ttl_ms: 400 });
    const session = await newSession(server, [topic]);
    const first = await session.open();
    await fill(topic, 2);
    const id = (await eventsTo(first, topic, 2)).at(-1)!.id;
    await first.close();
    await fill(topic, 3);
    await expired(topic);
    await using second = await session.open(id);
    await using third = await (await newSession(server, { [topic.name]: { from_seq: 2 } })).open();
    for (const stream of [second, third]) {
      expect(await tell(stream, 2)).toEqual([`${topic.name} from_seq_too_old 3-5`, `${topic.name} at 5`]);
    }
  });

  test("05.30 the younger records stay", async () => {
    const topic = await newTopic(server);
    await fill(topic, 2);
    await Bun.sleep(600);
    await fill(topic, 1);
    await topic.put({ ttl_ms: 500 });
    await using stream = await watch(server, [topic]);
    expect(said(await stream.events(3), topic)).toEqual(["from_seq_too_old 1-2", "3", "at 3"]);
  });
});

describe("overflow while live", () => {
  test("05.25 is a tombstone with cap, whose id holds gap_to", async () => {
    const topic = await newTopic(server, { cap_records: 2 });
    await using stream = await watchLive(server, [topic]);
    await fill(topic, 5);
    const [tombstone, record, caughtUp] = (await stream.events(3)) as [StreamEvent, StreamEvent, StreamEvent];

    expect(tombstone.body).toStrictEqual({
      topic: topic.name,
      reason: "cap",
      gap_from: 1,
      gap_to: 3,
      earliest_seq: 4,
      head_seq: 5,
    });
    expect(cursorIn(tombstone)).toEqual({
      epochs: { [topic.name]: await epochOf(topic) },
      seqs: { [topic.name]: 3 },
    });
    expect(record.body).toMatchObject({ from_seq: 0, to_seq: 5, head_seq: 5 });
    expect(said([record, caughtUp], topic)).toEqual(["4 5", "at 5"]);
  });

  test("05.25 of a byte cap that everything falls into has no record", async () => {
    const topic = await newTopic(server, { cap_bytes: 3 });
    await using stream = await watchLive(server, [topic]);
    await topic.append("large", "larger");
    expect(said(await stream.events(2), topic)).toEqual(["cap 1-2", "at 2"]);
    await topic.append(7);
    expect(said(await stream.events(2), topic)).toEqual(["3", "at 3"]);
  });

  test("05.25 that evicts only what was delivered is no gap", async () => {
    const topic = await newTopic(server, { cap_records: 1 });
    await using stream = await watchLive(server, [topic]);
    for (let n = 1; n <= 20; n++) {
      await topic.append(n);
      expect(said(await stream.events(2), topic)).toEqual([`${n}`, `at ${n}`]);
    }
  });

  test("05.25 in one topic leaves the others alone", async () => {
    const [topic, other] = [await newTopic(server, { cap_records: 1 }), await newTopic(server)];
    await using stream = await watchLive(server, [topic, other]);
    await fill(topic, 3);
    await fill(other, 2);
    const events = await eventsTo(stream, other, 2);
    expect(said(events, topic)).toEqual(["cap 1-2", "3", "at 3"]);
    expect(said(events, other)).toEqual(["1 2", "at 2"]);
  });

  test("3.3 records that a router could not copy are source_trim on its dest", async () => {
    const { source, dest } = await newRoute(server, {}, { source: { cap_records: 2 } });
    await using stream = await watchLive(server, [dest]);
    await fill(source, 5);
    const events = await eventsTo(stream, dest, 5);
    expect(said(events, dest)).toEqual(["source_trim 1-3", "4 5", "at 5"]);
    expect(recordsIn(events).map(({ data }) => data)).toEqual([4, 5]);
  });
});

describe("3.9 a client that stops reading", () => {
  const RECORD_BYTES = 1_000_000;
  /** More than what lies in buffers on the way. */
  const RECORDS = 24;

  test.each([
    ["cap", { cap_records: 4 }],
    ["ttl", { ttl_ms: 2000 }],
    ["mixed", { cap_records: 4, ttl_ms: 2000 }],
  ])("is told %s of what retention took meanwhile", async (reason, config) => {
    const topic = await newTopic(server, config);
    const { path } = await newSession(server, [topic]);
    const socket = connect(Number(new URL(server.url).port), "127.0.0.1");
    socket.write(`GET ${path} HTTP/1.0\r\n\r\n`);
    const chunks = unframed(socket);
    // Up to the first caught-up, the stream is read; from there on a gap has its real reason.
    let begun = "";
    while (!begun.includes("caught-up")) begun += (await chunks.next()).value;
    for (let n = 1; n <= RECORDS; n++) await topic.append(n + "x".repeat(RECORD_BYTES));
    if ("ttl_ms" in config) await expired(topic);
    await using stream = new EventStream(new Headers(), chunks, () => socket.destroy());
    const events = await eventsTo(stream, topic, RECORDS);

    const seen = recordsIn(events).map(({ $seq }) => $seq);
    const gaps = events.filter(({ event }) => event === "tombstone").map(({ body }) => body);
    expect(gaps.map((gap) => gap.reason)).toEqual([reason]);
    const { gap_from, gap_to } = gaps[0];
    expect(gap_to).toBe("ttl_ms" in config ? RECORDS : RECORDS - 4);
    const missed = Array.from({ length: gap_to - gap_from + 1 }, (_, i) => gap_from + i);
    expect([...seen, ...missed].sort((a, b) => a - b)).toEqual(
      Array.from({ length: RECORDS }, (_, i) => i + 1),
    );
    expect(seen).toEqual([...seen].sort((a, b) => a - b));
  });

  /** The body of an answer of HTTP/1.0, which ends with the connection. */
  async function* unframed(socket: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    let head: Buffer | undefined = Buffer.alloc(0);
    for await (const chunk of socket) {
      if (head === undefined) yield chunk;
      else {
        head = Buffer.concat([head, chunk]);
        const end = head.indexOf("\r\n\r\n");
        if (end < 0) continue;
        const rest = head.subarray(end + 4);
        head = undefined;
        yield rest;
      }
    }
  }
});

describe("from_seq above the head", () => {
  test.each([4, 1000, 2 ** 53 - 1])("05.26 %i gets 1 to head, then everything", async (from_seq) => {
    const topic = await filled(3);
    await using stream = await watch(server, { [topic.name]: { from_seq } });
    const events = await stream.events(3);
    expect(events[0]?.body).toStrictEqual({
      topic: topic.name,
      reason: "from_seq_too_old",
      gap_from: 1,
      gap_to: 3,
      earliest_seq: 1,
      head_seq: 3,
    });
    expect(said(events, topic)).toEqual(["from_seq_too_old 1-3", "1 2 3", "at 3"]);
  });

  test.each(["9007199254740993", "18446744073709551615"])("05.26 P7 so does %s", async (from_seq) => {
    const topic = await filled(2);
    await using stream = await watch(server, `{"topics":{"${topic.name}":{"from_seq":${from_seq}}}}`);
    expect(said(await stream.events(3), topic)).toEqual(["from_seq_too_old 1-2", "1 2", "at 2"]);
  });

  test("05.26 names the topic's own earliest record and gives what lives", async () => {
    const topic = await filled(6, { cap_records: 4 });
    await topic.erase({ before_seq: 4 });
    await using stream = await watch(server, { [topic.name]: { from_seq: 7 } }, { limit: 2 });
    const events = await stream.events(4);
    expect(events[0]?.body).toMatchObject({ gap_from: 1, gap_to: 6, earliest_seq: 4, head_seq: 6 });
    expect(said(events, topic)).toEqual(["from_seq_too_old 1-6", "4 5", "6", "at 6"]);
  });

  test("05.26 on an empty topic the gap is 1 to 0, then caught-up at 0, and it is live", async () => {
    const topic = await newTopic(server);
    await using stream = await watch(server, { [topic.name]: { from_seq: 5 } });
    const [tombstone, caughtUp] = (await stream.events(2)) as [StreamEvent, StreamEvent];
    expect(tombstone.body).toMatchObject({ gap_from: 1, gap_to: 0, earliest_seq: 1, head_seq: 0 });
    expect(caughtUp.body).toEqual({ topic: topic.name, head_seq: 0 });
    await topic.append("a");
    expect(said(await stream.events(2), topic)).toEqual(["1", "at 1"]);
  });

  test("the id of the tombstone holds gap_to, and 0 for the epoch; the next one the real epoch", async () => {
    const topic = await filled(3);
    await using stream = await watch(server, { [topic.name]: { from_seq: 4 } }, { limit: 2 });
    const ids = (await stream.events(4)).map(cursorIn);
    const epoch = await epochOf(topic);
    const at = (seq: number, epoch: number) => ({
      epochs: { [topic.name]: epoch },
      seqs: { [topic.name]: seq },
    });
    expect(ids).toEqual([at(3, 0), at(2, epoch), at(3, epoch), at(3, epoch)]);
  });
});

describe("P5 an epoch in the request", () => {
  test.each([0, 2, 3, 9])(
    "that is another one gives everything from the start, from_seq %i",
    async (from_seq) => {
      const topic = await filled(3);
      const epoch = (await epochOf(topic)) + 1000;
      await using stream = await watch(server, { [topic.name]: { from_seq, epoch } });
      const events = await stream.events(3);
      expect(events[0]?.body).toMatchObject({ gap_from: 1, gap_to: 3, earliest_seq: 1, head_seq: 3 });
      expect(said(events, topic)).toEqual(["from_seq_too_old 1-3", "1 2 3", "at 3"]);
      expect(cursorIn(events[0]!).epochs).toEqual({ [topic.name]: 0 });
    },
  );

  test("that is another one is told of on an empty topic, too", async () => {
    const topic = await newTopic(server);
    const epoch = (await epochOf(topic)) + 1;
    await using stream = await watch(server, { [topic.name]: { epoch } });
    expect(said(await stream.events(2), topic)).toEqual(["from_seq_too_old 1-0", "at 0"]);
  });
});

describe("no tombstone", () => {
  test("05.27 for a deleted prefix: only what is left", async () => {
    const topic = await filled(5);
    await topic.erase({ before_seq: 4 });
    await using stream = await watch(server, [topic]);
    const events = await stream.events(2);
    expect(said(events, topic)).toEqual(["4 5", "at 5"]);
    expect(events[0]?.body).toMatchObject({ from_seq: 0, to_seq: 5 });
  });

  test("05.27 for records deleted in the middle, at the end or all", async () => {
    const topic = await newTopic(server);
    await topic.write({ records: ["a", "x", "a", "x", "b"].map((tag) => ({ data: tag, tag })) });
    const all = async () => {
      await using stream = await watch(server, [topic]);
      return said(await eventsTo(stream, topic, 5), topic);
    };
    await topic.erase({ match: "x" });
    expect(await all()).toEqual(["1 3 5", "at 5"]);
    await topic.erase({ match: "b" });
    expect(await all()).toEqual(["1 3", "at 5"]);
    await topic.erase({ match: "*" });
    expect(await all()).toEqual(["at 5"]);
  });

  test("05.27 for deletes on an open stream: there is no frame at all", async () => {
    const [topic, other] = [await filled(3), await newTopic(server)];
    await using stream = await watch(server, [topic, other]);
    await stream.events(3);
    await topic.erase({ before_seq: 9 });
    await other.append(1);
    await topic.append(4);
    const events = await eventsTo(stream, topic, 4);
    expect(said(events, topic)).toEqual(["4", "at 4"]);
    expect(said(events, other)).toEqual(["1", "at 1"]);
  });

  test("05.27 02.45 but above a cap's loss the gap ends at the cap's floor", async () => {
    const topic = await filled(5, { cap_records: 3 });
    await topic.erase({ before_seq: 5 });
    await using stream = await watch(server, [topic]);
    const events = await stream.events(3);
    expect(events[0]?.body).toMatchObject({ gap_from: 1, gap_to: 2, earliest_seq: 3, head_seq: 5 });
    expect(said(events, topic)).toEqual(["from_seq_too_old 1-2", "5", "at 5"]);
  });

  test("3.3 for own records: only caught-up", async () => {
    const topic = await newTopic(server);
    await appendFrom(topic, "own", "own", "own");
    await using stream = await watch(server, [topic], { node: "own" });
    const events = await eventsUntil(stream, ({ event }) => event === "caught-up");
    expect(said(events, topic)).toEqual(["at 3"]);
  });

  test("3.3 but for own records that a cap has taken", async () => {
    const topic = await newTopic(server, { cap_records: 1 });
    await appendFrom(topic, "own", "own", "own");
    await using stream = await watch(server, [topic], { node: "own" });
    expect(said(await stream.events(2), topic)).toEqual(["from_seq_too_old 1-2", "at 3"]);
  });
});
