/**
 * Watch streams on every kind of topic: queues, dests of routers, all durabilities, both consistencies. And the
 * promise that holds for all: whatever is written while a stream opens or sleeps, it is told at once.
 */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import type { EventStream, StreamEvent } from "../support/eventstream.ts";
import { filledQueue, makeQueue, seqsOf } from "../support/queue.ts";
import { newChain, newRoute, newRouter } from "../support/router.ts";
import { newTopic, sharedServer, type Topic, together, until } from "../support/topics.ts";
import {
  appendFrom,
  eventsTo,
  eventsUntil,
  fill,
  newSession,
  recordsIn,
  tell,
  told,
  watch,
  watchLive,
} from "../support/watch.ts";

setDefaultTimeout(30_000);

const server = sharedServer();

/** No heartbeat may be needed to find a record. */
const slow = { heartbeat_ms: 60000 };

const range = (n: number) => Array.from({ length: n }, (_, i) => i + 1);
const dataIn = (events: readonly StreamEvent[]) => recordsIn(events).map(({ data }) => data);

/** What was said about one topic, without its name. */
const said = (events: readonly StreamEvent[], { name }: Topic): string[] =>
  events.filter(({ body }) => body.topic === name).map((event) => told(event).slice(name.length + 1));

describe("a queue", () => {
  test("05.49 shows waiting and leased jobs, none acked, and leaves leases alone", async () => {
    const queue = await filledQueue(server, 4, { lease_ms: 60_000 });
    const [first, second] = await queue.take(2);
    await queue.ack([second!.$seq], { lease_ids: [second!.lease_id] });
    const before = await queue.counters();
    await using stream = await watch(server, [queue], slow);
    const events = await eventsTo(stream, queue, 4);
    const after = await queue.counters();
    const acked = (await queue.ack([first!.$seq], { lease_ids: [first!.lease_id] })).body;

    expect(said(events, queue)).toEqual(["1 3 4", "at 4"]);
    expect(dataIn(events)).toEqual([1, 3, 4]);
    expect(before).toEqual({ count: 3, ready: 2, in_flight: 1, dead_lettered: 0 });
    expect(after).toEqual(before);
    expect(acked).toMatchObject({ acked: 1, skipped: [] });
  });

  test("05.49 the jobs that it showed are delivered for the first time afterwards", async () => {
    const queue = await filledQueue(server, 3);
    await using stream = await watch(server, [queue], slow);
    await eventsTo(stream, queue, 3);
    await queue.produce(1);
    await eventsTo(stream, queue, 4);
    expect((await queue.take(10)).map(({ $seq, deliveries }) => [$seq, deliveries])).toEqual([
      [1, 1],
      [2, 1],
      [3, 1],
      [4, 1],
    ]);
  });

  test("04.54 claim, extend, nack and ack give no frame", async () => {
    const queue = await filledQueue(server, 3);
    const marker = await newTopic(server);
    await using stream = await watch(server, [queue, marker], slow);
    await eventsTo(stream, queue, 3);
    const taken = seqsOf(await queue.take(3));
    await queue.extend(taken, 60_000);
    await queue.nack(taken);
    await queue.ack(seqsOf(await queue.take(2)));
    await queue.erase({ before_seq: 4 });
    await marker.append("now");
    const between = await eventsTo(stream, marker, 1);
    await queue.produce(1);
    const [job] = await eventsTo(stream, queue, 4);

    expect(said(between, queue)).toEqual([]);
    expect(job?.body).toMatchObject({ topic: queue.name, from_seq: 3, to_seq: 4, records: [{ $seq: 4 }] });
  });

  test("04.54 a lease that runs out gives no frame", async () => {
    const queue = await filledQueue(server, 1, { lease_ms: 100 });
    await using stream = await watch(server, [queue], slow);
    await eventsTo(stream, queue, 1);
    await queue.take();
    await until(
      () => queue.counters(),
      ({ ready }) => ready === 1,
    );
    await queue.produce(1);
    expect(await tell(stream, 2)).toEqual([`${queue.name} 2`, `${queue.name} at 2`]);
  });

  test("3.1 the node filter works as on a log", async () => {
    const queue = await makeQueue(server);
    await appendFrom(queue, "own", "other");
    await using stream = await watch(server, [queue], { ...slow, node: "own" });
    expect(await tell(stream, 2)).toEqual([`${queue.name} 2`, `${queue.name} at 2`]);
  });

  test("a dead letter wakes those who watch where it goes, and not those who watch the queue", async () => {
    const letters = await newTopic(server);
    const queue = await filledQueue(server, 1, { max_deliveries: 1, dead_letter: letters.name });
    await using stream = await watch(server, [letters, queue], slow);
    await stream.events(3);
    await queue.nack(seqsOf(await queue.take()));
    // The queue's next claim finds that there is no delivery left.
    await queue.take();
    const events = await eventsTo(stream, letters, 1);
    expect(dataIn(events)).toEqual([1]);
    expect(said(events, queue)).toEqual([]);
  });
});

describe("the dest of a router", () => {
  test("03.31 tells a forwarded record as soon as it is copied", async () => {
    const { source, dest } = await newRoute(server);
    await using stream = await watchLive(server, [dest], slow);
    for (let n = 1; n <= 20; n++) {
      await source.append(n);
      const [record] = (await eventsTo(stream, dest, n)) as [StreamEvent];
      expect(record.body).toMatchObject({
        topic: dest.name,
        from_seq: n - 1,
        to_seq: n,
        records: [{ data: n }],
      });
    }
  });

  test("03.31 tells it at the end of a chain, too", async () => {
    const { topics } = await newChain(server, 5);
    const [first, last] = [topics[0]!, topics.at(-1)!];
    await using stream = await watchLive(server, [first, last], slow);
    await first.append("a");
    const events = await eventsTo(stream, last, 1);
    if (said(events, first).length === 0) events.push(...(await eventsTo(stream, first, 1)));
    expect(said(events, first)).toEqual(["1", "at 1"]);
    expect(said(events, last)).toEqual(["1", "at 1"]);
  });

  test("03.32 each of several dests tells every record in the order of the source", async () => {
    const source = await newTopic(server);
    const dests = await together(3, () => newTopic(server));
    for (const dest of dests) await newRouter(server, source, dest);
    const streams = await together(3, (i) => watchLive(server, [dests[i]!], slow));
    for (let n = 0; n < 2000; n += 100) await source.append(...range(100).map((i) => n + i));
    for (const [i, stream] of streams.entries()) {
      expect(dataIn(await eventsTo(stream, dests[i]!, 2000))).toEqual(range(2000));
      await stream.close();
    }
  });

  test("03.32 a client's own records are not told to it, however they came", async () => {
    const source = await newTopic(server);
    const dests = await together(3, () => newTopic(server));
    for (const dest of dests) await newRouter(server, source, dest);
    const backlog = range(300).map((n) => (n % 3 === 0 ? "own" : n % 3 === 1 ? "other" : null));
    await appendFrom(source, ...backlog);
    for (const dest of dests) await dest.state();
    await using stream = await watch(server, dests, { ...slow, node: "own" });
    const events: StreamEvent[] = [];
    for (const dest of dests) events.push(...(await eventsTo(stream, dest, 300)));
    await appendFrom(source, "own", "own", "other");
    const live: StreamEvent[] = [];
    while (recordsIn(live).length < 3) live.push(await stream.event());

    for (const { name } of dests) {
      const records = recordsIn(events.filter(({ body }) => body.topic === name));
      expect(records.map(({ $node }) => $node ?? null)).toEqual(backlog.filter((node) => node !== "own"));
      expect(recordsIn(live.filter(({ body }) => body.topic === name))).toMatchObject([
        { $seq: 303, $node: "other" },
      ]);
    }
  });

  test("03 section 7 nor in a mesh that leads back to where they were written", async () => {
    const [here, there] = [await newTopic(server), await newTopic(server)];
    await newRouter(server, here, there);
    await newRouter(server, there, here, { allow_cycle: true });
    await using stream = await watchLive(server, [here], { ...slow, node: "here" });
    await appendFrom(here, "here");
    await appendFrom(there, "there");
    const events: StreamEvent[] = [];
    // As many copies as there are hops that lead here.
    while (recordsIn(events).length < 4) events.push(await stream.event());
    await until(
      () => here.state(),
      ({ body }) => body.head_seq === 9,
    );
    await here.append("end");
    events.push(...(await eventsUntil(stream, (event) => dataIn([event]).includes("end"))));
    expect(dataIn(events)).toEqual(["there", "there", "there", "there", "end"]);
  });

  test("03.11 a copy without its node is nobody's own", async () => {
    const { source, dest } = await newRoute(server, { preserve_node: false });
    await using stream = await watchLive(server, [dest], { ...slow, node: "own" });
    await appendFrom(source, "own");
    expect(await tell(stream, 2)).toEqual([`${dest.name} 1`, `${dest.name} at 1`]);
  });
});

describe("every durability", () => {
  const kinds = ["ephemeral", "memory", "disk", "fsync"].flatMap((durability) =>
    ["eventual", "strong"].map((consistency) => [durability, consistency] as const),
  );

  test.each(kinds)(
    "05.7 %s with %s: backlog and live, in order, none needs a heartbeat",
    async (durability, consistency) => {
      const topic = await newTopic(server, { durability });
      await fill(topic, 3);
      await using stream = await watch(server, [topic], { ...slow, consistency });
      expect(dataIn(await eventsTo(stream, topic, 3))).toEqual([1, 2, 3]);
      for (let n = 4; n <= 30; n++) {
        await topic.append(n);
        expect(dataIn(await eventsTo(stream, topic, n))).toEqual([n]);
      }
      await together(70, (n) => topic.append(31 + n));
      const records = recordsIn(await eventsTo(stream, topic, 100));
      expect(records.map(({ $seq }) => $seq)).toEqual(range(70).map((n) => n + 30));
      expect(new Set(records.map(({ data }) => data))).toEqual(new Set(range(70).map((n) => n + 30)));
    },
  );

  test("2.4 one stream of all of them gives each its own, strong or not", async () => {
    const durabilities = ["ephemeral", "memory", "disk", "fsync"];
    const topics = await Promise.all(durabilities.map((durability) => newTopic(server, { durability })));
    await using eventual = await watchLive(server, topics, slow);
    await using strong = await watchLive(server, topics, { ...slow, consistency: "strong" });
    const writes = together(40, (n) => topics[n % 4]!.append(n));
    for (const stream of [eventual, strong]) {
      const events = await eventsUntilAll(stream, topics, 10);
      for (const { name } of topics) {
        const own = recordsIn(events.filter(({ body }) => body.topic === name));
        expect(own.map(({ $seq }) => $seq)).toEqual(range(10));
      }
    }
    await writes;
  });

  test("2.4 strong with caps and deletes tells the same gaps", async () => {
    const topic = await newTopic(server, { cap_records: 2 });
    await using stream = await watchLive(server, [topic], { ...slow, consistency: "strong" });
    await fill(topic, 5);
    expect(said(await eventsTo(stream, topic, 5), topic)).toEqual(["cap 1-3", "4 5", "at 5"]);
    await topic.drop();
    expect(told(await stream.event(1000))).toBe(`${topic.name} deleted`);
  });

  /** Up to where every topic has come to `head`. */
  function eventsUntilAll(stream: EventStream, topics: readonly Topic[], head: number) {
    const open = new Set(topics.map(({ name }) => name));
    return eventsUntil(stream, ({ event, body }) => {
      if (event === "caught-up" && body.head_seq === head) open.delete(body.topic);
      return open.size === 0;
    });
  }
});

describe("3.5 no record is lost", () => {
  const ROUNDS = 60;
  const AT_ONCE = 8;

  test.each(["ephemeral", "disk", "fsync"])(
    "that is written while a stream opens: %s",
    async (durability) => {
      const topics = await together(AT_ONCE, () => newTopic(server, { durability }));
      for (let round = 1; round <= ROUNDS; round++) {
        await Promise.all(
          topics.map(async (topic, i) => {
            const session = await newSession(server, { [topic.name]: { tail: true } }, slow);
            // Every round has another distance between the two, in turns of the event loop.
            const opening = session.open();
            for (let turn = 0; turn < (round * AT_ONCE + i) % 24; turn++) await new Promise(setImmediate);
            const writing = topic.append(round);
            await using stream = await opening;
            const events = await eventsTo(stream, topic, round);
            expect(dataIn(events)).toEqual([round]);
            await writing;
          }),
        );
      }
    },
  );

  test("that is written while another stream of its session opens or closes", async () => {
    const topic = await newTopic(server);
    const session = await newSession(server, [topic], slow);
    await using stream = await session.open();
    await stream.event();
    for (let n = 1; n <= 100; n++) {
      const opening = session.open();
      const writing = topic.append(n);
      expect(dataIn(await eventsTo(stream, topic, n))).toEqual([n]);
      await writing;
      await (await opening).close();
    }
  });

  test("that is written to one topic while another one is being told", async () => {
    const [busy, quiet] = [await newTopic(server), await newTopic(server)];
    await using stream = await watchLive(server, [busy, quiet], slow);
    for (let n = 1; n <= 60; n++) {
      const writes = [busy.append(...range(50)), quiet.append(n)];
      const told = { busy: 0, quiet: 0 };
      await eventsUntil(stream, ({ event, body }) => {
        if (event === "caught-up") told[body.topic === busy.name ? "busy" : "quiet"] = body.head_seq;
        return told.busy === 50 * n && told.quiet === n;
      });
      await Promise.all(writes);
    }
  });

  test("of many that wait for the same one", async () => {
    const topic = await newTopic(server);
    const streams = await together(100, () => watchLive(server, [topic], slow));
    for (let n = 1; n <= 5; n++) {
      await topic.append(n);
      for (const stream of streams) {
        expect(await tell(stream, 2)).toEqual([`${topic.name} ${n}`, `${topic.name} at ${n}`]);
      }
    }
    await Promise.all(streams.map((stream) => stream.close()));
  });
});

describe("1.4 a stream reads", () => {
  test("what a retried write did not write twice", async () => {
    const topic = await newTopic(server);
    await using stream = await watchLive(server, [topic], slow);
    const write = () => topic.write({ records: [{ data: "once" }], idempotency_key: "k" });
    await write();
    expect((await write()).body.deduped).toBe(true);
    await topic.append("next");
    const events = await eventsTo(stream, topic, 2);
    expect(dataIn(events)).toEqual(["once", "next"]);
  });

  test("nothing of a write that was refused", async () => {
    const topic = await newTopic(server, { cap_records: 2, discard: "reject" });
    await using stream = await watchLive(server, [topic], slow);
    await fill(topic, 1);
    expect((await topic.write({ records: [{ data: "x" }, { data: "y" }] })).status).toBe(422);
    await topic.append("fits");
    expect(dataIn(await eventsTo(stream, topic, 2))).toEqual([1, "fits"]);
  });
});
