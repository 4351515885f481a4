/** Making a queue: its configuration, its state, and what the queue calls say of topics that are none. */
import { describe, expect, test } from "bun:test";
import { absentQueue, holderCalls, makeQueue, WORKER } from "../support/queue.ts";
import { absentTopic, defaults, newTopic, sharedServer } from "../support/topics.ts";

const server = sharedServer();

const invalid = { status: 400, body: { error: { code: "invalid_request" } } };
const one = { records: [{ data: 1 }] };

describe("PUT", () => {
  test("04.1 makes a queue, and its state has the counters", async () => {
    const queue = absentQueue(server);
    const reply = await queue.put({ type: "queue" });
    const { body } = await queue.state();
    expect(reply).toMatchObject({ status: 201, body: { created: true } });
    expect(reply.body.config).toStrictEqual({ ...defaults, type: "queue" });
    expect(body.type).toBe("queue");
    expect(body.queue).toStrictEqual({ ready: 0, in_flight: 0, dead_lettered: 0 });
  });

  test("04.1 a log has no counters, and the list shows none of a queue", async () => {
    const log = await newTopic(server);
    const queue = await makeQueue(server);
    await log.append(1);
    await queue.append(1);
    expect((await log.state()).body).not.toHaveProperty("queue");
    const list = await server.send("GET", `/v0/topics?prefix=${queue.name}&page_size=1`);
    expect(list.body.topics[0]).toMatchObject({ topic: queue.name, count: 1 });
    expect(list.body.topics[0]).not.toHaveProperty("queue");
  });

  test("04.1 a config with everything a queue has comes back", async () => {
    const config = {
      type: "queue",
      durable: true,
      lease_ms: 20000,
      claim_jitter_ms: 50,
      max_deliveries: 2,
      dead_letter: "renders.dead",
      leases_durable: true,
    };
    const queue = absentQueue(server);
    const expected = { ...defaults, ...config, durability: "fsync" };
    expect((await queue.put(config)).body.config).toStrictEqual(expected);
    expect((await queue.state()).body.config).toStrictEqual(expected);
  });

  test.each([
    ["lease_ms", "0", 100],
    ["lease_ms", "99", 100],
    ["lease_ms", "101", 101],
    ["lease_ms", "999999999999", 86400000],
    ["lease_ms", "18446744073709551615", 86400000],
    ["claim_jitter_ms", "1", 1],
    ["claim_jitter_ms", "6000", 5000],
    ["claim_jitter_ms", "18446744073709551615", 5000],
  ])("04.2 %s %s is clamped to %d and echoed so", async (field, sent, echoed) => {
    const queue = absentQueue(server);
    const reply = await queue.put(`{"type":"queue","${field}":${sent}}`);
    expect(reply).toMatchObject({ status: 201, body: { config: { [field]: echoed } } });
    expect((await queue.state()).body.config[field]).toBe(echoed);
  });

  test.each(["lease_ms", "claim_jitter_ms", "max_deliveries"])(
    "04.2 %s refuses what is no unsigned integer, and makes no queue",
    async (field) => {
      const queue = absentQueue(server);
      for (const value of ["-1", "1.5", '"100"', "null", "true", "18446744073709551616"]) {
        expect(await queue.put(`{"type":"queue","${field}":${value}}`)).toMatchObject(invalid);
      }
      expect((await queue.state()).status).toBe(404);
    },
  );

  test.each(["null", "0", '"true"'])("04.2 leases_durable %s is refused", async (value) => {
    const reply = await absentQueue(server).put(`{"type":"queue","leases_durable":${value}}`);
    expect(reply).toMatchObject(invalid);
  });

  test.each(["", "_x", "a b", "a/b", "x".repeat(256)])(
    "04.3 the dead_letter %j is refused and named",
    async (dead_letter) => {
      const queue = absentQueue(server);
      const reply = await queue.put({ type: "queue", dead_letter });
      expect(reply).toMatchObject(invalid);
      expect(reply.body.error.detail).toStrictEqual({ dead_letter });
      expect((await queue.state()).status).toBe(404);
    },
  );

  test("04.3 a queue cannot be its own dead_letter, neither new nor later", async () => {
    const absent = absentQueue(server);
    const existing = await makeQueue(server, { max_deliveries: 3 });
    for (const queue of [absent, existing]) {
      expect(await queue.put({ type: "queue", dead_letter: queue.name })).toMatchObject(invalid);
    }
    expect((await absent.state()).status).toBe(404);
    expect((await existing.state()).body.config).toMatchObject({ max_deliveries: 3, dead_letter: null });
  });

  test("04.3 a dead_letter that does not exist is not created by PUT", async () => {
    const dead = absentTopic(server);
    const queue = await makeQueue(server, { max_deliveries: 1, dead_letter: dead.name });
    expect((await queue.state()).body.config.dead_letter).toBe(dead.name);
    expect((await dead.state()).status).toBe(404);
  });

  test.each([
    ["queue", { lease_ms: 500 }, "log"],
    ["queue", { type: "log" }, "log"],
    ["log", { type: "queue" }, "queue"],
  ])("04.4 a %s keeps its type, whatever %j asks for", async (existing_type, request, requested_type) => {
    const topic = await newTopic(server, { type: existing_type, ttl_ms: 60000 });
    await topic.append(1);
    const reply = await topic.put(request);
    expect(reply).toMatchObject({ status: 409, body: { error: { code: "topic_exists_incompatible" } } });
    expect(reply.body.error.detail).toStrictEqual({ topic: topic.name, existing_type, requested_type });
    expect((await topic.state()).body).toMatchObject({
      type: existing_type,
      count: 1,
      config: { ttl_ms: 60000, lease_ms: 30000 },
    });
  });

  test("2 a PUT replaces the whole config and leaves jobs and leases alone", async () => {
    const queue = await makeQueue(server, { max_deliveries: 2, dead_letter: "dead", lease_ms: 5000 });
    await queue.produce(3);
    const [job] = await queue.take(1);
    const reply = await queue.put({ type: "queue", claim_jitter_ms: 1 });
    expect(reply.body.config).toStrictEqual({ ...defaults, type: "queue", claim_jitter_ms: 1 });
    expect(await queue.counters()).toEqual({ count: 3, ready: 2, in_flight: 1, dead_lettered: 0 });
    expect((await queue.ack([1], { lease_ids: [job!.lease_id] })).body.acked).toBe(1);
  });
});

describe("a creating write", () => {
  test("2 creates a log unless its config says queue", async () => {
    const [plain, queue] = [absentTopic(server), absentQueue(server)];
    await plain.write(one);
    const reply = await queue.write({ ...one, config: { type: "queue", lease_ms: 700 } });
    expect(reply).toMatchObject({ status: 201, body: { created: true, first_seq: 1 } });
    expect((await plain.state()).body.type).toBe("log");
    expect((await queue.state()).body.config).toStrictEqual({ ...defaults, type: "queue", lease_ms: 700 });
    expect(await queue.counters()).toEqual({ count: 1, ready: 1, in_flight: 0, dead_lettered: 0 });
    expect(await queue.take()).toMatchObject([{ $seq: 1, deliveries: 1, data: 1 }]);
  });

  test("2 cannot make a queue that is its own dead_letter", async () => {
    const queue = absentQueue(server);
    const config = { type: "queue", dead_letter: queue.name };
    expect(await queue.write({ ...one, config })).toMatchObject(invalid);
    expect((await queue.state()).status).toBe(404);
  });
});

describe("a topic that is no queue", () => {
  const calls: [string, object][] = [
    ["claim", { node: WORKER }],
    ...holderCalls.map(([name, , fields]): [string, object] => [
      name,
      { node: WORKER, seqs: [1], ...fields },
    ]),
  ];

  test.each(calls)("04.5 %s on a log is not_a_queue", async (name, body) => {
    const log = absentQueue(server);
    await log.append(1);
    const reply = await log.call(name, body);
    expect(reply.status).toBe(409);
    expect(reply.body.error).toStrictEqual({
      code: "not_a_queue",
      message: expect.any(String),
      detail: { topic: log.name },
    });
    expect((await log.state()).body).toMatchObject({ type: "log", count: 1 });
  });

  test.each(calls)(
    "04.5 %s on a missing topic is topic_not_found and creates nothing",
    async (name, body) => {
      const absent = absentQueue(server);
      const reply = await absent.call(name, body);
      expect(reply.status).toBe(404);
      expect(reply.body.error).toStrictEqual({
        code: "topic_not_found",
        message: expect.any(String),
        detail: { topic: absent.name },
      });
      expect((await absent.state()).status).toBe(404);
    },
  );

  test.each(calls)("04.5 %s on a name that is none is topic_not_found", async (name, body) => {
    for (const [path, topic] of [
      ["_x", "_x"],
      ["a%20b", "a b"],
      ["a%2Fb", "a/b"],
      ["x".repeat(256), "x".repeat(256)],
    ]) {
      const reply = await server.send("POST", `/v0/topics/${path}/${name}`, body);
      expect(reply).toMatchObject({
        status: 404,
        body: { error: { code: "topic_not_found", detail: { topic } } },
      });
    }
  });

  test("04.5 work on a log is not_a_queue, on a missing topic topic_not_found", async () => {
    const log = await newTopic(server);
    const absent = absentTopic(server);
    expect(await server.send("GET", `${log.path}/work?node=w`)).toMatchObject({
      status: 409,
      body: { error: { code: "not_a_queue", detail: { topic: log.name } } },
    });
    expect(await server.send("GET", `${absent.path}/work?node=w`)).toMatchObject({
      status: 404,
      body: { error: { code: "topic_not_found", detail: { topic: absent.name } } },
    });
    expect((await absent.state()).status).toBe(404);
  });

  test("1 a percent-encoded name is the decoded one", async () => {
    const queue = await makeQueue(server, {}, "config.queue:1");
    await queue.produce(1);
    const reply = await server.send("POST", "/v0/topics/config%2Equeue%3A1/claim", { node: WORKER });
    expect(reply).toMatchObject({ status: 200, body: { topic: queue.name, count: 1 } });
  });

  test("2 on a log the queue fields are kept and change nothing", async () => {
    const log = absentTopic(server);
    const config = { lease_ms: 100, claim_jitter_ms: 500, max_deliveries: 1, dead_letter: log.name };
    expect((await log.put(config)).body.config).toMatchObject(config);
    await log.append(1, 2);
    expect((await log.diff()).body.records).toHaveLength(2);
  });
});
