/** Topic configs: defaults, full replace, clamps, and what `PUT /v0/topics/:topic` refuses. */
import { describe, expect, test } from "bun:test";
import { absentTopic, defaults, newTopic, sharedServer } from "../support/topics.ts";

const server = sharedServer();

describe("defaults and replacement", () => {
  test("02.1 the first PUT creates, the same PUT then changes nothing", async () => {
    const topic = absentTopic(server);
    const config = { cap_records: 3, ttl_ms: 600000, priority: 10 };
    const first = await topic.put(config);
    const second = await topic.put(config);
    const expected = { topic: topic.name, config: { ...defaults, ...config } };
    expect(first).toMatchObject({ status: 201, body: { ...expected, created: true } });
    expect(second).toMatchObject({ status: 200, body: { ...expected, created: false } });
  });

  test.each([
    ["an empty body without Content-Type", undefined, {}],
    ["an empty body with Content-Type", "", {}],
    ["an empty object", "{}", {}],
    ["unknown fields only, also repeated", '{"x":1,"x":2,"TTL_MS":5}', {}],
    ["Content-Type parameters", "{}", { "content-type": "application/json; charset=latin1" }],
  ])("02.1 %s asks for all 17 defaults", async (_, body, headers: Record<string, string>) => {
    const topic = absentTopic(server);
    const reply = await server.send("PUT", topic.path, body, headers);
    expect(reply.status).toBe(201);
    expect(reply.body.config).toStrictEqual(defaults);
  });

  test("02.2 PUT resets every field it omits", async () => {
    const topic = await newTopic(server, {
      ttl_ms: 60000,
      cap_records: 3,
      cap_bytes: 100,
      discard: "reject",
      durability: "memory",
      priority: 10,
      auto_priority: false,
      auto_create: false,
      idempotency_window_ms: 5,
      dedupe_node: false,
      lease_ms: 1000,
      claim_jitter_ms: 20,
      max_deliveries: 4,
      dead_letter: "dead",
      leases_durable: true,
    });
    const reply = await topic.put({ cap_records: 9 });
    expect(reply.body.config).toStrictEqual({ ...defaults, cap_records: 9 });
    expect((await topic.state()).body.config).toStrictEqual({ ...defaults, cap_records: 9 });
  });

  test("02.2 every field is echoed by PUT and kept for GET", async () => {
    const config = {
      type: "queue",
      ttl_ms: 9007199254740991,
      cap_records: 1,
      cap_bytes: 2,
      discard: "reject",
      durable: true,
      durability: "fsync",
      priority: -7,
      auto_priority: false,
      auto_create: false,
      idempotency_window_ms: 9007199254740991,
      dedupe_node: false,
      lease_ms: 100,
      claim_jitter_ms: 5000,
      max_deliveries: 9007199254740991,
      dead_letter: "dead.letters:1",
      leases_durable: true,
    };
    const topic = absentTopic(server);
    expect((await topic.put(config)).body.config).toStrictEqual(config);
    expect((await topic.state()).body.config).toStrictEqual(config);
  });

  test("02.2 explicit nulls mean absent", async () => {
    const topic = await newTopic(server, { priority: 5, dead_letter: "dead", durability: "memory" });
    const reply = await topic.put({ priority: null, dead_letter: null, durability: null });
    expect(reply.body.config).toStrictEqual(defaults);
  });
});

describe("type", () => {
  test.each([
    ["queue", {}, "log"],
    ["queue", { type: "log", cap_records: 5 }, "log"],
    ["log", { type: "queue", cap_records: 5 }, "queue"],
  ])("02.3 the type of a %s does not change to what %j asks for", async (existing, request, requested) => {
    const topic = await newTopic(server, { type: existing, ttl_ms: 60000 });
    const reply = await topic.put(request);
    expect(reply).toMatchObject({ status: 409, body: { error: { code: "topic_exists_incompatible" } } });
    expect(reply.body.error.detail).toStrictEqual({
      topic: topic.name,
      existing_type: existing,
      requested_type: requested,
    });
    expect((await topic.state()).body.config).toStrictEqual({ ...defaults, type: existing, ttl_ms: 60000 });
  });
});

describe("durability", () => {
  test.each([
    [{ durable: true }, "fsync", true],
    [{ durable: false }, "disk", false],
    [{ durability: "memory", durable: true }, "memory", false],
    [{ durability: "ephemeral", durable: true }, "ephemeral", false],
    [{ durability: "fsync", durable: false }, "fsync", true],
    [{ durability: "disk" }, "disk", false],
    [{ durability: null, durable: true }, "fsync", true],
  ])("02.4 %j is echoed as %s", async (request, durability, durable) => {
    const reply = await absentTopic(server).put(request);
    expect(reply.body.config).toStrictEqual({ ...defaults, durability, durable });
  });
});

describe("clamps and ranges", () => {
  test.each([
    ["lease_ms", "1", 100],
    ["lease_ms", "0", 100],
    ["lease_ms", "100", 100],
    ["lease_ms", "86400000", 86400000],
    ["lease_ms", "99999999999", 86400000],
    ["lease_ms", "18446744073709551615", 86400000],
    ["claim_jitter_ms", "0", 0],
    ["claim_jitter_ms", "5000", 5000],
    ["claim_jitter_ms", "6000", 5000],
    ["claim_jitter_ms", "18446744073709551615", 5000],
  ])("02.5 %s %s is clamped to %d", async (field, sent, echoed) => {
    const topic = absentTopic(server);
    const reply = await topic.put(`{"${field}":${sent}}`);
    expect(reply).toMatchObject({ status: 201, body: { config: { [field]: echoed } } });
    expect((await topic.state()).body.config[field]).toBe(echoed);
  });

  test.each([
    [5000, 1000],
    [1000, 1000],
    [999, 999],
    [0, 0],
    [-1000, -1000],
    [-5000, -1000],
    [2147483647, 1000],
    [-2147483648, -1000],
  ])("02.6 priority %d is echoed as it is, and counts as %d", async (priority, effective) => {
    const topic = absentTopic(server);
    const put = await topic.put({ priority });
    const state = await topic.state();
    expect(put.body.config.priority).toBe(priority);
    expect(state.body).toMatchObject({ config: { priority }, effective_priority: effective });
  });

  const unsigned = ["ttl_ms", "cap_records", "cap_bytes", "idempotency_window_ms", "max_deliveries"];

  test.each(unsigned)("P7 %s takes 2^53-1 and refuses what would be rounded", async (field) => {
    const statuses: Record<string, number> = {};
    for (const value of [
      "9007199254740991",
      "9007199254740992",
      "9223372036854775808",
      "18446744073709551615",
    ]) {
      statuses[value] = (await absentTopic(server).put(`{"${field}":${value}}`)).status;
    }
    expect(statuses).toStrictEqual({
      "9007199254740991": 201,
      "9007199254740992": 400,
      "9223372036854775808": 400,
      "18446744073709551615": 400,
    });
  });

  test("02 section 9.4: the longest ttl_ms expires nothing, the longest window dedupes", async () => {
    const topic = await newTopic(server, {
      ttl_ms: 9007199254740991,
      idempotency_window_ms: 9007199254740991,
    });
    await topic.write({ records: [{ data: 1 }], idempotency_key: "k" });
    const again = await topic.write({ records: [{ data: 1 }], idempotency_key: "k" });
    expect(again.body.deduped).toBe(true);
    expect((await topic.state()).body.count).toBe(1);
  });

  const notUnsigned = ["-1", "-0", "1.5", "1.0", "1e3", '"5"', "true", "null", "[]", "18446744073709551616"];
  const notBoolean = ["null", "0", "1", '"true"', "[]"];
  const notText = ["null", "0", '"x"', '"LOG"', '"Old"', "true"];

  test.each([
    ...[...unsigned, "lease_ms", "claim_jitter_ms"].map((field) => [field, notUnsigned] as const),
    ...["durable", "auto_priority", "auto_create", "dedupe_node", "leases_durable"].map(
      (field) => [field, notBoolean] as const,
    ),
    ["type", notText],
    ["discard", notText],
    ["durability", ["0", "true", '"x"', '"Disk"', '"FSYNC"', '""']],
    ["priority", ["1.5", "1.0", "1e2", '"1"', "true", "2147483648", "-2147483649"]],
    ["dead_letter", ["5", "true", "{}", "[]"]],
  ] as const)("02.7 %s refuses values of another kind", async (field, values) => {
    const codes: Record<string, string> = {};
    for (const value of values) {
      const reply = await absentTopic(server).put(`{"${field}":${value}}`);
      codes[value] = `${reply.status} ${reply.body?.error?.code}`;
    }
    expect(codes).toStrictEqual(Object.fromEntries(values.map((value) => [value, "400 invalid_request"])));
  });

  test("02.7 a refused PUT creates nothing and changes nothing", async () => {
    const absent = absentTopic(server);
    const existing = await newTopic(server, { cap_records: 4 });
    const refused = { cap_records: 9, ttl_ms: -1 };
    expect((await absent.put(refused)).status).toBe(400);
    expect((await existing.put(refused)).status).toBe(400);
    expect((await absent.state()).status).toBe(404);
    expect((await existing.state()).body.config).toStrictEqual({ ...defaults, cap_records: 4 });
  });
});

describe("dead_letter", () => {
  test.each(["_x", "", "a b", "é", "a/b", "x".repeat(256)])(
    "02.8 the illegal name %j is refused and named",
    async (name) => {
      const topic = absentTopic(server);
      const reply = await topic.put({ dead_letter: name });
      expect(reply).toMatchObject({ status: 400, body: { error: { code: "invalid_request" } } });
      expect(reply.body.error.detail).toStrictEqual({ dead_letter: name });
      expect((await topic.state()).status).toBe(404);
    },
  );

  test("02.8 a queue cannot name itself, a log can", async () => {
    const queue = absentTopic(server);
    const log = absentTopic(server);
    const refused = await queue.put({ type: "queue", dead_letter: queue.name });
    const taken = await log.put({ dead_letter: log.name });
    expect(refused).toMatchObject({ status: 400, body: { error: { code: "invalid_request" } } });
    expect(refused.body.error.detail).toBeUndefined();
    expect(taken).toMatchObject({ status: 201, body: { config: { dead_letter: log.name } } });
  });

  test("02.8 the topic's own name is checked before dead_letter, and dead_letter before the type", async () => {
    const log = await newTopic(server);
    const illegal = await server.send("PUT", "/v0/topics/_x", { dead_letter: "_y" });
    const deadLetter = await log.put({ type: "queue", dead_letter: "_y" });
    const self = await log.put({ type: "queue", dead_letter: log.name });
    expect(illegal.status).toBe(400);
    expect(illegal.body.error.detail).toBeUndefined();
    expect(deadLetter).toMatchObject({ status: 400, body: { error: { detail: { dead_letter: "_y" } } } });
    expect(self).toMatchObject({ status: 400, body: { error: { code: "invalid_request" } } });
  });
});
