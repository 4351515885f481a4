/**
 * The push mode of queues: opening a `work` stream, what it says byte for byte, and which jobs it hands out when.
 *
 * One worker at a time; several of them are in `workers.test.ts`.
 */
import { describe, expect, test } from "bun:test";
import { attempt, EventStream, eventIn } from "../support/eventstream.ts";
import { makeQueue, type Queue, range, reaches, WORKER } from "../support/queue.ts";
import { members } from "../support/rawjson.ts";
import { answersIn, isAnswer, RawSocket } from "../support/rawsocket.ts";
import { absentTopic, newTopic, sharedServer, type Topic, until } from "../support/topics.ts";

const server = sharedServer();

const OPEN = "retry: 2000\n\n";
const pathOf = (topic: Topic, query = "") => `${topic.path}/work?node=${WORKER}${query}`;
const work = (topic: Topic, query?: string) => EventStream.open(server.url, pathOf(topic, query));

/** Waits at most the second that a closed stream's leases may take until so many jobs wait. */
const released = (topic: Queue, waiting: number) =>
  until(
    () => topic.counters(),
    ({ ready }) => ready === waiting,
    1000,
  );

describe("opening", () => {
  test("04.41 has the headers of a stream and starts with exactly retry", async () => {
    const topic = await makeQueue(server);
    await using stream = await EventStream.open(server.url, pathOf(topic), { "accept-encoding": "gzip" });
    const { headers } = stream;
    expect(headers.get("content-type")).toBe("text/event-stream");
    expect(headers.get("cache-control")).toBe("no-store");
    expect(headers.get("x-accel-buffering")).toBe("no");
    expect(headers.get("content-encoding")).toBeNull();
    expect(headers.get("content-length")).toBeNull();
    expect(await stream.block()).toBe(OPEN);
    await topic.append(1);
    const job = await stream.block();
    expect(stream.received).toBe(OPEN + job);
  });

  test("04.41 says retry once and before the jobs that wait already", async () => {
    const topic = await makeQueue(server);
    await topic.append(1, 2);
    await using stream = await work(topic, "&max=2");
    const blocks = [await stream.block(), await stream.block(), await stream.block()];
    expect(blocks[0]).toBe(OPEN);
    expect(stream.received.match(/retry/g)).toHaveLength(1);
    expect(blocks.slice(1).map((block) => eventIn(block)?.event)).toEqual(["job", "job"]);
  });

  test("04 section 1 HEAD has the headers and leases nothing", async () => {
    const topic = await makeQueue(server);
    await topic.append(1);
    const head = await server.send("HEAD", pathOf(topic));
    expect(head).toMatchObject({ status: 200, text: "" });
    expect(head.headers.get("content-type")).toBe("text/event-stream");
    expect(head.headers.get("cache-control")).toBe("no-store");
    expect(head.headers.get("x-accel-buffering")).toBe("no");
    expect(await topic.counters()).toMatchObject({ ready: 1, in_flight: 0 });
    await using stream = await work(topic);
    expect((await stream.event()).body.deliveries).toBe(1);
  });

  test.each(["POST", "PUT", "DELETE", "PATCH"])("04 section 1 %s is 405 with Allow", async (method) => {
    const topic = await makeQueue(server);
    const reply = await server.send(method, pathOf(topic), {});
    expect(reply).toMatchObject({ status: 405, body: { error: { code: "method_not_allowed" } } });
    const allowed = reply.headers
      .get("allow")
      ?.split(",")
      .map((name) => name.trim());
    expect(allowed?.sort()).toEqual(["GET", "HEAD"]);
  });

  test("04 section 1 a trailing slash is 404 not_found", async () => {
    const topic = await makeQueue(server);
    const reply = await attempt(server.url, `${topic.path}/work/?node=w`);
    expect(reply).toMatchObject({ status: 404, body: { error: { code: "not_found" } } });
  });

  test("04 section 8.1 Last-Event-ID is ignored", async () => {
    const topic = await makeQueue(server);
    await topic.append(1, 2, 3);
    await using stream = await EventStream.open(server.url, pathOf(topic), { "last-event-id": "2" });
    expect((await stream.event()).id).toBe("1");
  });
});

describe("04.47 Accept", () => {
  test.each([
    "*/*",
    "text/event-stream",
    "text/event-stream;q=0.5",
    "application/json, text/event-stream",
    "text/html, */*;q=0.1",
  ])("%s opens", async (accept) => {
    const topic = await makeQueue(server);
    await using stream = await EventStream.open(server.url, pathOf(topic), { accept });
    expect(await stream.block()).toBe(OPEN);
  });

  test.each([
    ["absent", ""],
    ["empty", "Accept:\r\n"],
  ])("%s opens", async (_, field) => {
    const topic = await makeQueue(server);
    using socket = new RawSocket(server.url);
    await socket.write(`GET ${pathOf(topic)} HTTP/1.1\r\nHost: test\r\n${field}\r\n`);
    const text = await socket.until((received) => received.includes(OPEN));
    expect(text).toStartWith("HTTP/1.1 200 ");
  });

  test.each(["application/json", "text/*", "text/plain", "text/event", "TEXT/EVENT-STREAM"])(
    "%s is 406",
    async (accept) => {
      const topic = await makeQueue(server);
      const reply = await attempt(server.url, pathOf(topic), { accept });
      expect(reply).toMatchObject({ status: 406, body: { error: { code: "not_acceptable" } } });
      expect(reply.headers.get("content-type")).toBe("application/json");
      expect(reply.body.error.detail).toBeUndefined();
    },
  );
});

describe("node", () => {
  const longest = encodeURIComponent("é".repeat(64));

  test.each([
    ["missing", ""],
    ["empty", "?node="],
    ["empty at its last mention", "?node=w&node="],
    ["129 bytes", `?node=${"n".repeat(129)}`],
    ["129 bytes in 65 characters", `?node=n${longest}`],
  ])("04.47 %s is 400", async (_, query) => {
    const topic = await makeQueue(server);
    const reply = await attempt(server.url, `${topic.path}/work${query}`);
    expect(reply).toMatchObject({ status: 400, body: { error: { code: "invalid_request" } } });
  });

  test.each([
    ["128 bytes", "n".repeat(128), "n".repeat(128)],
    ["128 bytes in 64 characters", "é".repeat(64), longest],
    ["any characters", 'a b/"\n%&=\u{1f600}', encodeURIComponent('a b/"\n%&=\u{1f600}')],
    ["a plus for a space", "a b", "a+b"],
    ["its last mention", "last", "first&node=last"],
  ])("04 section 8.1 %s is the holder", async (_, node, spelled) => {
    const topic = await makeQueue(server);
    await topic.append(1);
    await using stream = await EventStream.open(server.url, `${topic.path}/work?node=${spelled}`);
    await stream.event();
    expect((await topic.ack([1], { node: `${node}.` })).body.skipped).toEqual([1]);
    expect((await topic.ack([1], { node })).body.acked).toBe(1);
  });
});

describe("04.47 the order of checks", () => {
  const json = { accept: "application/json" };

  test("406 comes before 400", async () => {
    expect((await attempt(server.url, "/v0/topics/absent/work", json)).status).toBe(406);
  });

  test("400 comes before 404", async () => {
    expect((await attempt(server.url, "/v0/topics/absent/work")).status).toBe(400);
  });

  test.each(["absent", "-ill.named"])("404 names the topic %s and creates nothing", async (name) => {
    const topic = absentTopic(server, name);
    const reply = await attempt(server.url, pathOf(topic));
    expect(reply).toMatchObject({ status: 404, body: { error: { code: "topic_not_found" } } });
    expect(reply.body.error.detail).toEqual({ topic: name });
    expect((await topic.state()).status).toBe(404);
  });

  test("409 on a log, but 406 and 400 first", async () => {
    const log = await newTopic(server);
    const reply = await attempt(server.url, pathOf(log));
    expect(reply).toMatchObject({ status: 409, body: { error: { code: "not_a_queue" } } });
    expect(reply.body.error.detail).toEqual({ topic: log.name });
    expect((await attempt(server.url, `${log.path}/work`)).status).toBe(400);
    expect((await attempt(server.url, pathOf(log), json)).status).toBe(406);
  });
});

describe("depth", () => {
  test("04.42 max=2 on 5 jobs leases 2", async () => {
    const topic = await makeQueue(server);
    await topic.append("a", "b", "c", "d", "e");
    await using stream = await work(topic, "&max=2");
    const jobs = await stream.events(2);
    expect(jobs.map(({ body }) => [body.$seq, body.data, body.deliveries])).toEqual([
      [1, "a", 1],
      [2, "b", 1],
    ]);
    expect(await topic.counters()).toEqual({ count: 5, ready: 3, in_flight: 2, dead_lettered: 0 });
  });

  test.each(["", "&max=", "&max=abc", "&max=-1", "&max=0", "&max=1.5", "&max=4294967296"])(
    "04.48 %j is depth 1",
    async (query) => {
      const topic = await makeQueue(server);
      await topic.append(1, 2, 3);
      await using stream = await work(topic, query);
      await stream.event();
      expect(await topic.counters()).toMatchObject({ ready: 2, in_flight: 1 });
      await topic.ack([1]);
      expect((await stream.event()).id).toBe("2");
      expect(await topic.counters()).toMatchObject({ ready: 1, in_flight: 1 });
      expect(stream.received.match(/event: job/g)).toHaveLength(2);
    },
  );

  test.each(["1000", "1001", "5000", "4294967295"])("04.48 max=%s is depth 1000", async (max) => {
    const topic = await makeQueue(server);
    await topic.append(...Array(1002).keys());
    await using stream = await work(topic, `&max=${max}`);
    const jobs = await stream.events(1000);
    expect(jobs.map(({ id }) => Number(id))).toEqual(range(1, 1000));
    expect(new Set(jobs.map(({ body }) => body.lease_id)).size).toBe(1000);
    expect(await topic.counters()).toMatchObject({ ready: 2, in_flight: 1000 });
  });

  test("04.43 one acked job brings exactly one more", async () => {
    const topic = await makeQueue(server);
    await topic.append(1, 2, 3, 4, 5);
    await using stream = await work(topic, "&max=2");
    await stream.events(2);
    for (const [acked, next] of [
      [2, 3],
      [1, 4],
      [4, 5],
    ] as const) {
      await topic.ack([acked]);
      expect((await stream.event(500)).id).toBe(`${next}`);
      expect(await topic.counters()).toMatchObject({ ready: 5 - next, in_flight: 2 });
    }
    expect(await stream.arrived()).toEqual([]);
  });

  test("04.43 an idle stream gets a new job within 100 ms of the write", async () => {
    const topic = await makeQueue(server);
    await using stream = await work(topic);
    await stream.block();
    const delays: number[] = [];
    for (let seq = 1; seq <= 15; seq++) {
      await topic.append(seq);
      const written = performance.now();
      expect((await stream.event()).id).toBe(`${seq}`);
      delays.push(performance.now() - written);
      await topic.ack([seq]);
    }
    // A few of fifteen may be late because the machine is busy, not all of them.
    expect(delays.sort((a, b) => a - b)[11]).toBeLessThan(100);
  });

  test("04 section 8.3 what others could not finish frees nothing", async () => {
    const topic = await makeQueue(server);
    await topic.append(1, 2);
    await using stream = await work(topic);
    const { body } = await stream.event();
    expect((await topic.ack([1], { node: "other" })).body.skipped).toEqual([1]);
    expect((await topic.ack([1], { lease_ids: ["lease_1"] })).body.skipped).toEqual([1]);
    expect((await topic.nack([1], { node: "other" })).body.skipped).toEqual([1]);
    expect(await topic.counters()).toMatchObject({ ready: 1, in_flight: 1 });
    expect((await topic.ack([1], { lease_ids: [body.lease_id] })).body.acked).toBe(1);
    expect((await stream.event()).id).toBe("2");
  });

  test("04 section 8.3 extending does not free a slot, however often", async () => {
    const topic = await makeQueue(server);
    await topic.append(1, 2, 3);
    await using stream = await work(topic);
    await stream.event();
    for (let times = 0; times < 3; times++) await topic.extend([1], 60_000);
    expect(await topic.counters()).toMatchObject({ ready: 2, in_flight: 1 });
    await topic.ack([1]);
    expect((await stream.event()).id).toBe("2");
    expect(await topic.counters()).toMatchObject({ ready: 1, in_flight: 1 });
    expect(await stream.arrived()).toEqual([]);
  });

  test("04 section 8.3 a leased job that is deleted keeps its slot until its holder is done with it", async () => {
    const topic = await makeQueue(server);
    await topic.append(1, 2, 3);
    await using stream = await work(topic);
    await stream.event();
    expect((await topic.erase({ before_seq: 2 })).body.deleted).toBe(1);
    expect(await topic.counters()).toMatchObject({ count: 2, ready: 2, in_flight: 0 });
    expect((await topic.ack([1])).body.acked).toBe(1);
    expect((await stream.event()).id).toBe("2");
    expect(await topic.counters()).toMatchObject({ ready: 1, in_flight: 1 });
    expect(await stream.arrived()).toEqual([]);
  });

  test("04 section 8.3 is filled, also with more than one claim may hand out", async () => {
    const topic = await makeQueue(server);
    for (let n = 0; n < 12; n++) await topic.append("x".repeat(1_000_000));
    await using stream = await work(topic, "&max=12");
    expect((await stream.events(12)).map(({ id }) => Number(id))).toEqual(range(1, 12));
    expect(await topic.counters()).toMatchObject({ ready: 0, in_flight: 12 });
  });

  test("04 section 8.3 several slots freed at once are all filled", async () => {
    const topic = await makeQueue(server);
    await topic.append(1, 2, 3, 4, 5, 6, 7);
    await using stream = await work(topic, "&max=3");
    await stream.events(3);
    await topic.ack([1, 2, 3]);
    expect((await stream.events(3)).map(({ id }) => id)).toEqual(["4", "5", "6"]);
    expect(await topic.counters()).toMatchObject({ ready: 1, in_flight: 3 });
  });
});

describe("a job", () => {
  test("04.42 is three lines, its id the seq, its data a claimed entry and the topic", async () => {
    const topic = await makeQueue(server, { lease_ms: 20_000 });
    await topic.write({ records: [{ data: { x: 1 }, tag: "tg", node: "producer", meta: { m: 1 } }] });
    const { records } = (await topic.diff()).body;
    const before = Date.now();
    await using stream = await work(topic);
    await stream.block();
    const block = await stream.block();
    const [, json] = /^id: 1\nevent: job\ndata: (\{[^\n]*\})\n\n$/.exec(block) ?? [];
    const job = JSON.parse(json ?? "null");
    expect(job).toStrictEqual({
      topic: topic.name,
      $seq: 1,
      lease_id: expect.stringMatching(/^lease_[0-9a-f]{1,16}$/),
      deadline: expect.any(Number),
      $ts: records[0].$ts,
      $tag: "tg",
      deliveries: 1,
      data: { x: 1 },
      meta: { m: 1 },
    });
    expect(job.deadline).toBeWithin(before + 20_000, Date.now() + 20_001);
  });

  test("04.42 has no $tag and no meta where the record has none", async () => {
    const topic = await makeQueue(server);
    await topic.write({ records: [{ data: null, node: "producer" }] });
    await using stream = await work(topic);
    const { body } = await stream.event();
    const names = ["$seq", "$ts", "data", "deadline", "deliveries", "lease_id", "topic"];
    expect(Object.keys(body).sort()).toEqual(names);
    expect(body.data).toBeNull();
  });

  test.each([
    ["order, duplicates, numbers", '{"b":1.0,"a":1,"a":-0,"n":12345678901234567890123,"e":1E3}'],
    ["white space", '{ "b" : [ 1 , {} ] }'],
    ["escapes", '"\\u00e9\\/é\u2028\u{1f600}\\ud83d\\ude00\\n\\u0000"'],
    ["what looks like a stream", '"id: 7\\n\\nevent: x\\n\\n: : hb"'],
    ["line feeds between tokens", '{\n  "a": [\n\n    1\n  ]\n}'],
    ["white space behind a line feed", "[\n \n  1]"],
  ])("04 section 8.2 keeps the text of its payload: %s", async (_, text) => {
    const topic = await makeQueue(server);
    await topic.write(`{"records":[{"data":${text},"meta":{"m":${text}}}]}`);
    await using stream = await work(topic);
    const { data } = await stream.event();
    expect(members(data).get("data")).toBe(text);
    expect(members(data).get("meta")).toBe(`{"m":${text}}`);
  });

  test("04 section 8.2 has a payload with line feeds on several data lines, still as one block", async () => {
    const topic = await makeQueue(server);
    await topic.write('{"records":[{"data":[1,\n\n2]}]}');
    await using stream = await work(topic);
    await stream.block();
    const block = await stream.block();
    expect(block).toMatch(/^id: 1\nevent: job\n(data:[^\n]*\n){3}\n$/);
    expect(eventIn(block)?.body.data).toEqual([1, 2]);
  });

  test("04 section 8.2 has carriage returns between tokens as line ends only", async () => {
    const topic = await makeQueue(server);
    await topic.write('{"records":[{"data":[1,\r\n2,\r3]}]}');
    await using stream = await work(topic);
    expect((await stream.event()).body.data).toEqual([1, 2, 3]);
    expect(stream.received).not.toContain("\r");
  });

  test("04 section 8.2 may be as large as a record", async () => {
    const topic = await makeQueue(server);
    const data = "\u{1f600}".repeat((1024 * 1024 - 2) / 4);
    await topic.append(data, "next");
    await using stream = await work(topic, "&max=2");
    const [large, next] = await stream.events(2);
    expect(large!.body.data === data).toBe(true);
    expect(next!.body.data).toBe("next");
  });

  test.each(["ephemeral", "memory", "disk", "fsync"])(
    "comes from a queue of class %s",
    async (durability) => {
      const topic = await makeQueue(server, { durability, leases_durable: true });
      await using stream = await work(topic, "&max=2");
      await topic.append("a");
      expect((await stream.event()).body.data).toBe("a");
      expect((await topic.ack([1])).body).toMatchObject({ acked: 1, skipped: [] });
      expect((await topic.counters()).count).toBe(0);
    },
  );

  test("04 section 8.3 comes from a router, too", async () => {
    const [source, dest] = [await newTopic(server), await makeQueue(server)];
    const router = { source: source.name, dest: dest.name };
    expect((await server.send("PUT", "/v0/routers/to-queue", router)).status).toBe(201);
    await using stream = await work(dest);
    await source.append("copied");
    expect((await stream.event()).body).toMatchObject({ topic: dest.name, $seq: 1, data: "copied" });
  });
});

describe("lease_ms", () => {
  const TOPIC_MS = 40_000;

  test.each([
    ["absent", "", TOPIC_MS],
    ["a number", "&lease_ms=2000", 2000],
    ["too small", "&lease_ms=1", 100],
    ["zero", "&lease_ms=0", 100],
    ["too large", "&lease_ms=99999999999", 86_400_000],
    ["the largest u64", "&lease_ms=18446744073709551615", 86_400_000],
    ["beyond u64", "&lease_ms=18446744073709551616", TOPIC_MS],
    ["negative", "&lease_ms=-5", TOPIC_MS],
    ["no number", "&lease_ms=abc", TOPIC_MS],
    ["empty", "&lease_ms=", TOPIC_MS],
  ])("04 section 8.1 %s", async (_, query, effective) => {
    const topic = await makeQueue(server, { lease_ms: TOPIC_MS });
    await topic.append(1);
    const before = Date.now();
    await using stream = await work(topic, query);
    const { deadline } = (await stream.event()).body;
    expect(deadline).toBeWithin(before + effective, Date.now() + effective + 1);
  });

  test("04 section 2 the topic's own is the one that holds when the job is pushed", async () => {
    const topic = await makeQueue(server, { lease_ms: TOPIC_MS });
    await using stream = await work(topic);
    await stream.block();
    await topic.put({ type: "queue", lease_ms: 5000 });
    const before = Date.now();
    await topic.append(1);
    const { deadline } = (await stream.event()).body;
    expect(deadline).toBeWithin(before + 5000, Date.now() + 5001);
  });
});

describe("given back", () => {
  test("04.44 a nacked job comes again, with another lease and deliveries 2", async () => {
    const topic = await makeQueue(server);
    await topic.append("a", "b");
    await using stream = await work(topic);
    const first = (await stream.event()).body;
    expect((await topic.nack([1])).body).toMatchObject({ nacked: 1, skipped: [] });
    const second = (await stream.event()).body;
    expect(second).toMatchObject({ $seq: 1, data: "a", deliveries: 2 });
    expect(second.lease_id).not.toBe(first.lease_id);
    const stale = await topic.ack([1], { lease_ids: [first.lease_id] });
    expect(stale.body).toMatchObject({ acked: 0, skipped: [1] });
    const fresh = await topic.ack([1], { lease_ids: [second.lease_id] });
    expect(fresh.body).toMatchObject({ acked: 1, skipped: [] });
    expect((await stream.event()).body).toMatchObject({ $seq: 2, deliveries: 1 });
  });

  test("04.44 with a delay it comes again when that is over, and not before", async () => {
    const topic = await makeQueue(server);
    await topic.append("a", "b", "c");
    await using stream = await work(topic);
    await stream.event();
    const nackedAt = Date.now();
    await topic.nack([1], { delay_ms: 300 });
    expect((await stream.event()).id).toBe("2");
    expect(await topic.counters()).toMatchObject({ ready: 1, in_flight: 1 });
    await reaches(topic, { ready: 2 });
    expect(Date.now() - nackedAt).toBeGreaterThanOrEqual(300);
    await topic.ack([2]);
    expect((await stream.event()).body).toMatchObject({ $seq: 1, deliveries: 2 });
  });

  test("04 section 8.3 the end of a delay wakes an idle stream", async () => {
    const topic = await makeQueue(server);
    await topic.append("a");
    await using stream = await work(topic);
    await stream.event();
    const nackedAt = Date.now();
    await topic.nack([1], { delay_ms: 200 });
    expect((await stream.event()).body).toMatchObject({ $seq: 1, deliveries: 2 });
    expect(Date.now() - nackedAt).toBeGreaterThanOrEqual(200);
  });

  test("04.45 an unacked job comes again when its lease is over", async () => {
    const topic = await makeQueue(server);
    await topic.append("a");
    await using stream = await work(topic, "&lease_ms=300");
    const first = (await stream.event()).body;
    const second = (await stream.event()).body;
    expect(second).toMatchObject({ $seq: 1, deliveries: 2 });
    expect(second.lease_id).not.toBe(first.lease_id);
    expect(second.deadline - 300).toBeGreaterThan(first.deadline);
    const late = await topic.ack([1], { lease_ids: [first.lease_id] });
    expect(late.body.skipped).toEqual([1]);
  });

  test("04.45 an extended job does not come again and keeps its slot", async () => {
    const topic = await makeQueue(server);
    await topic.append("extended", "expiring", "fresh");
    await using stream = await work(topic, "&max=2&lease_ms=600");
    await stream.events(2);
    expect((await topic.extend([1], 60_000)).body.extended).toBe(1);
    const again = await stream.events(2);
    expect(again.map(({ body }) => [body.$seq, body.deliveries])).toEqual([
      [2, 2],
      [2, 3],
    ]);
    expect(await topic.counters()).toMatchObject({ ready: 1, in_flight: 2 });
  });

  test("04 section 8.3 an extended lease is acked with its old token, which frees the slot", async () => {
    const topic = await makeQueue(server);
    await topic.append("a", "b");
    await using stream = await work(topic);
    const { lease_id } = (await stream.event()).body;
    await topic.extend([1], 60_000);
    expect((await topic.ack([1], { lease_ids: [lease_id] })).body.acked).toBe(1);
    expect((await stream.event()).id).toBe("2");
  });

  test("04 sections 4 and 8.3 given back jobs come before fresh ones, lowest seq first", async () => {
    const topic = await makeQueue(server);
    await topic.append(1, 2, 3, 4);
    await topic.take(3, { node: "other" });
    await topic.nack([3, 2], { node: "other" });
    await using stream = await work(topic, "&max=3");
    expect((await stream.events(3)).map(({ body }) => [body.$seq, body.deliveries])).toEqual([
      [2, 2],
      [3, 2],
      [4, 1],
    ]);
  });

  test("04 sections 6 and 8.3 a refill moves dead letters and goes on with good jobs", async () => {
    const topic = await makeQueue(server, { max_deliveries: 1, dead_letter: "work.dead" });
    await topic.append("poison", "good");
    await using stream = await work(topic);
    await stream.event();
    await topic.nack([1]);
    expect((await stream.event()).body).toMatchObject({ $seq: 2, data: "good", deliveries: 1 });
    expect(await topic.counters()).toEqual({ count: 1, ready: 0, in_flight: 1, dead_lettered: 1 });
    const dead = (await absentTopic(server, "work.dead").diff()).body.records;
    expect(dead).toMatchObject([{ data: "poison", meta: { $dead_letter_from: topic.name } }]);
  });
});

describe("closing", () => {
  test("04.46 releases the leases of this connection within 1 s", async () => {
    const topic = await makeQueue(server);
    await topic.append("a", "b", "c");
    const stream = await work(topic, "&max=2");
    await stream.events(2);
    await stream.close();
    await released(topic, 3);
    const claimed = await topic.take(3);
    expect(claimed.map((job) => [job.$seq, job.deliveries])).toEqual([
      [1, 2],
      [2, 2],
      [3, 1],
    ]);
  });

  test("04.46 so does a reset", async () => {
    const topic = await makeQueue(server);
    await topic.append("a");
    using socket = new RawSocket(server.url);
    await socket.write(`GET ${pathOf(topic)} HTTP/1.1\r\nHost: test\r\n\r\n`);
    await socket.until((received) => received.includes("event: job"));
    await socket.reset();
    await released(topic, 1);
  });

  test("04.46 leases that the same node has claimed stay", async () => {
    const topic = await makeQueue(server);
    await topic.append("claimed", "streamed");
    const claimed = await topic.take();
    const stream = await work(topic);
    expect((await stream.event()).id).toBe("2");
    await stream.close();
    await reaches(topic, { ready: 1, in_flight: 1 });
    const acked = await topic.ack([1], { lease_ids: [claimed[0]!.lease_id] });
    expect(acked.body.acked).toBe(1);
  });

  test("04.46 acked jobs stay gone, delayed ones delayed", async () => {
    const topic = await makeQueue(server);
    await topic.append("acked", "delayed", "leased");
    const stream = await work(topic, "&max=3");
    await stream.events(3);
    await topic.ack([1]);
    await topic.nack([2], { delay_ms: 60_000 });
    await stream.close();
    await reaches(topic, { ready: 1, in_flight: 0 });
    expect((await topic.counters()).count).toBe(2);
    expect(await topic.take(3)).toMatchObject([{ $seq: 3, deliveries: 2 }]);
  });

  test("04 section 8.4 a job that somebody else holds by now stays leased", async () => {
    const topic = await makeQueue(server);
    await topic.append("given back", "kept");
    const stream = await work(topic);
    await stream.event();
    // While the first job is delayed the second one takes its slot.
    await topic.nack([1], { delay_ms: 200 });
    expect((await stream.event()).id).toBe("2");
    await reaches(topic, { ready: 1 });
    const claimed = await topic.take();
    expect(claimed).toMatchObject([{ $seq: 1, deliveries: 2 }]);
    await stream.close();
    await reaches(topic, { ready: 1, in_flight: 1 });
    const acked = await topic.ack([1], { lease_ids: [claimed[0]!.lease_id] });
    expect(acked.body.acked).toBe(1);
  });

  test("04 section 8.4 a former holder has nothing left to finish", async () => {
    const topic = await makeQueue(server);
    await topic.append("a");
    const stream = await work(topic);
    const { lease_id } = (await stream.event()).body;
    await stream.close();
    await reaches(topic, { ready: 1 });
    const late = await topic.ack([1], { lease_ids: [lease_id] });
    expect(late.body).toMatchObject({ acked: 0, skipped: [1] });
    await using next = await work(topic);
    expect((await next.event()).body).toMatchObject({ $seq: 1, deliveries: 2 });
  });

  test("04 section 8.4 wakes a stream that waits for work", async () => {
    const topic = await makeQueue(server);
    await topic.append("a");
    const first = await work(topic);
    await first.event();
    await using second = await work(topic);
    await second.block();
    await first.close();
    expect((await second.event(1000)).body).toMatchObject({ $seq: 1, deliveries: 2 });
  });

  test("a request that is one of several on its connection is a stream like any other", async () => {
    const topic = await makeQueue(server);
    await topic.append("a");
    using socket = new RawSocket(server.url);
    await socket.write("GET /v0/health HTTP/1.1\r\nHost: test\r\n\r\n");
    const [health] = answersIn(await socket.until(isAnswer));
    expect(health?.status).toBe(200);
    await socket.write(`GET ${pathOf(topic)} HTTP/1.1\r\nHost: test\r\n\r\n`);
    expect(await socket.until((received) => received.includes("event: job"))).toContain(OPEN);
  });
});
