/** The life of a topic: its name, its state, its end, and how many there may be. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { startServer } from "../support/server.ts";
import { absentTopic, defaults, newTopic, seqs, sharedServer, together, until } from "../support/topics.ts";

setDefaultTimeout(30_000);

const server = sharedServer();

describe("names", () => {
  test.each([
    ["_x", "_x"],
    ["-a", "-a"],
    [".a", ".a"],
    [":a", ":a"],
    ["a%20b", "a b"],
    ["a+b", "a+b"],
    ["a%2Fb", "a/b"],
    ["a%3Eb", "a>b"],
    ["%C3%A9", "é"],
    ["a%00b", "a\0b"],
    ["x".repeat(256), "x".repeat(256)],
  ])("02.9 no topic can be called %s, and none is", async (segment, name) => {
    const path = `/v0/topics/${segment}`;
    const absent = { status: 404, body: { error: { code: "topic_not_found", detail: { topic: name } } } };
    const invalid = { status: 400, body: { error: { code: "invalid_request" } } };
    expect(await server.send("PUT", path)).toMatchObject(invalid);
    expect(await server.send("POST", path, { records: [{ data: 1 }] })).toMatchObject(invalid);
    expect(await server.send("POST", path, { records: [{ data: 1 }], create: false })).toMatchObject(absent);
    expect(await server.send("GET", path)).toMatchObject(absent);
    expect(await server.send("POST", `${path}/diff`, {})).toMatchObject(absent);
    expect(await server.send("POST", `${path}/delete`, { match: "*" })).toMatchObject(absent);
    expect(await server.send("DELETE", path)).toMatchObject({
      status: 200,
      body: { topic: name, deleted: false, routers_removed: [] },
    });
  });

  test.each([
    ["a%2Eb", "a.b"],
    ["%61bc", "abc"],
    ["t%3Aone", "t:one"],
    ["0", "0"],
    ["Az09._:-", "Az09._:-"],
    ["diff", "diff"],
    ["delete", "delete"],
    ["constructor", "constructor"],
    ["toString", "toString"],
    ["y".repeat(255), "y".repeat(255)],
  ])("02.9 %s is the topic %s", async (segment, name) => {
    expect(await server.send("GET", `/v0/topics/${segment}`)).toMatchObject({ status: 404 });
    const put = await server.send("PUT", `/v0/topics/${segment}`);
    const write = await server.send("POST", `/v0/topics/${segment}`, { records: [{ data: 1 }] });
    const diff = await server.send("POST", `/v0/topics/${name}/diff`);
    expect(put).toMatchObject({ status: 201, body: { topic: name } });
    expect(write).toMatchObject({ status: 200, body: { topic: name } });
    expect(diff).toMatchObject({ status: 200, body: { topic: name, head_seq: 1 } });
  });

  test("02.9 names are case-sensitive", async () => {
    await server.send("PUT", "/v0/topics/CASE");
    expect((await server.send("GET", "/v0/topics/case")).status).toBe(404);
  });

  test("02.9 a name that is not UTF-8 is a bad request", async () => {
    const reply = await server.send("PUT", "/v0/topics/a%ff");
    expect(reply).toMatchObject({ status: 400, body: { error: { code: "invalid_request" } } });
  });
});

describe("state", () => {
  test("02.10 reading an absent topic does not create it", async () => {
    const topic = absentTopic(server);
    for (const query of ["", "?touch=true", "?touch=false"]) {
      const reply = await server.send("GET", topic.path + query);
      expect(reply).toMatchObject({ status: 404, body: { error: { code: "topic_not_found" } } });
      expect(reply.body.error.detail).toStrictEqual({ topic: topic.name });
    }
    expect((await topic.put()).status).toBe(201);
  });

  test("02.11 a fresh topic is empty and starts at 1", async () => {
    const topic = await newTopic(server);
    const { status, body } = await topic.state();
    expect(status).toBe(200);
    expect(body).toStrictEqual({
      topic: topic.name,
      type: "log",
      head_seq: 0,
      earliest_seq: 1,
      next_seq: 1,
      count: 0,
      bytes: 0,
      config: defaults,
      effective_priority: 0,
      last_write_ts: null,
      last_read_ts: null,
      epoch: expect.any(Number),
      performance: { server_total_ms: expect.any(Number) },
    });
  });

  test("02.11 the state follows writes", async () => {
    const topic = await newTopic(server, { cap_records: 3, priority: 10 });
    const before = Date.now();
    await topic.append({ sku: "mug", qty: 2 }, "raw", null, 4);
    const { body } = await server.send("GET", topic.path);
    const after = Date.now();
    expect(body).toMatchObject({ head_seq: 4, earliest_seq: 2, next_seq: 5, count: 3, bytes: 10 });
    expect(body).toMatchObject({ effective_priority: 10, config: { cap_records: 3 } });
    for (const ts of [body.last_write_ts, body.last_read_ts]) {
      expect(Number.isInteger(ts)).toBe(true);
      expect(ts).toBeGreaterThanOrEqual(before - 1);
      expect(ts).toBeLessThanOrEqual(after + 1);
    }
  });

  test("02.11 last_write_ts is the $ts of the last append, whatever is deleted later", async () => {
    const topic = await newTopic(server);
    await topic.append(1);
    await topic.append(2);
    const [, last] = (await topic.diff()).body.records;
    await topic.erase({ before_seq: 3 });
    await topic.put({ ttl_ms: 600000 });
    expect((await topic.state()).body.last_write_ts).toBe(last.$ts);
  });

  test("HEAD answers as GET does, without a body", async () => {
    const topic = await newTopic(server);
    const present = await server.send("HEAD", topic.path);
    const absent = await server.send("HEAD", absentTopic(server).path);
    expect(present).toMatchObject({ status: 200, text: "" });
    expect(present.headers.get("content-type")).toBe("application/json");
    expect(absent).toMatchObject({ status: 404, text: "" });
  });
});

describe("PUT on a topic with records", () => {
  test("02.2 seqs, records, idempotency keys and clocks survive", async () => {
    const topic = await newTopic(server);
    await topic.write({ records: [{ data: 1 }, { data: 2 }], idempotency_key: "k" });
    await topic.diff();
    const before = (await topic.state()).body;
    await topic.put({ cap_records: 10 });
    const after = (await topic.state()).body;
    const again = await topic.write({ records: [{ data: 1 }], idempotency_key: "k" });
    expect(after).toStrictEqual({
      ...before,
      config: { ...defaults, cap_records: 10 },
      effective_priority: expect.any(Number),
      performance: expect.anything(),
    });
    expect(again.body).toMatchObject({ deduped: true, head_seq: 2 });
    expect((await topic.append(3)).body.first_seq).toBe(3);
  });

  test("4.1 a lower cap applies at once, and relaxing it restores nothing", async () => {
    const topic = await newTopic(server);
    await topic.append(1, 2, 3, 4, 5);
    await topic.put({ cap_records: 2 });
    expect((await topic.state()).body).toMatchObject({ count: 2, bytes: 2, earliest_seq: 4, head_seq: 5 });
    await topic.put({ cap_bytes: 1 });
    expect((await topic.state()).body).toMatchObject({ count: 1, bytes: 1, earliest_seq: 5 });
    await topic.put({});
    expect((await topic.state()).body).toMatchObject({ count: 1, bytes: 1, earliest_seq: 5 });
    expect(seqs(await topic.diff())).toStrictEqual([5]);
  });

  test("4.1 a shorter TTL applies at once", async () => {
    const topic = await newTopic(server);
    await topic.append(1, 2);
    await Bun.sleep(60);
    await topic.put({ ttl_ms: 20 });
    await topic.put({});
    expect((await topic.state()).body).toMatchObject({ count: 0, bytes: 0, earliest_seq: 3 });
    expect((await topic.diff()).body.tombstone).toMatchObject({ reason: "ttl", gap_to: 2 });
  });

  test("4.1 expired records that no sweep has seen live again when the PUT removes the TTL", async () => {
    const topic = await newTopic(server, { ttl_ms: 50 });
    await topic.append(1, 2);
    await Bun.sleep(150);
    await topic.put({});
    expect((await topic.state()).body).toMatchObject({ count: 2, earliest_seq: 1 });
    expect(seqs(await topic.diff())).toStrictEqual([1, 2]);
  });
});

describe("DELETE", () => {
  test("02.16 deletes once; then there is nothing to delete", async () => {
    const topic = await newTopic(server);
    await topic.append(1);
    const first = await topic.drop();
    const second = await topic.drop();
    expect(first.status).toBe(200);
    expect(first.body).toMatchObject({ topic: topic.name, deleted: true, routers_removed: [] });
    expect(second.status).toBe(200);
    expect(second.body).toMatchObject({ topic: topic.name, deleted: false, routers_removed: [] });
    expect((await topic.state()).status).toBe(404);
    expect((await topic.diff()).status).toBe(404);
  });

  test("02.16 a body is ignored", async () => {
    const topic = await newTopic(server);
    const reply = await server.send("DELETE", topic.path, "{not json", { "content-type": "text/plain" });
    expect(reply).toMatchObject({ status: 200, body: { deleted: true } });
  });

  test.each(["true", "1"])("02.17 if_empty=%s refuses to delete live records", async (flag) => {
    const topic = await newTopic(server);
    await topic.append(1, 2, 3);
    await topic.erase({ before_seq: 2 });
    const reply = await topic.drop(`?if_empty=${flag}`);
    expect(reply).toMatchObject({ status: 409, body: { error: { code: "topic_not_empty" } } });
    expect(reply.body.error.detail).toStrictEqual({ topic: topic.name, count: 2 });
    expect((await topic.state()).body).toMatchObject({ count: 2, head_seq: 3 });
  });

  test.each(["false", "0", "yes", "TRUE", ""])("02.17 if_empty=%s is no condition", async (flag) => {
    const topic = await newTopic(server);
    await topic.append(1);
    expect(await topic.drop(`?if_empty=${flag}`)).toMatchObject({ status: 200, body: { deleted: true } });
  });

  test("02.17 a repeated if_empty: the last one counts", async () => {
    const topic = await newTopic(server);
    await topic.append(1);
    expect((await topic.drop("?if_empty=false&if_empty=true")).status).toBe(409);
    expect((await topic.drop("?if_empty=true&if_empty=false")).status).toBe(200);
  });

  test("02.17 if_empty deletes a topic whose records are all deleted", async () => {
    const topic = await newTopic(server);
    await topic.append(1, 2);
    await topic.erase({ before_seq: 3 });
    expect(await topic.drop("?if_empty=true")).toMatchObject({ status: 200, body: { deleted: true } });
  });

  test("02.17 if_empty deletes a topic whose records have all expired", async () => {
    const topic = await newTopic(server, { ttl_ms: 30 });
    await topic.append(1, 2);
    const reply = await until(
      () => topic.drop("?if_empty=true"),
      ({ status }) => status === 200,
    );
    expect(reply.body.deleted).toBe(true);
  });

  test("02.17 if_empty counts only what has not expired", async () => {
    const topic = await newTopic(server);
    await topic.append("a", "b");
    await Bun.sleep(500);
    await topic.append("c");
    await topic.put({ ttl_ms: 400 });
    expect((await topic.drop("?if_empty=true")).body.error.detail).toStrictEqual({
      topic: topic.name,
      count: 1,
    });
    expect((await topic.state()).body).toMatchObject({ count: 1, bytes: 3, earliest_seq: 3 });
  });

  test("02.17 if_empty on an absent topic deletes nothing", async () => {
    const reply = await absentTopic(server).drop("?if_empty=true");
    expect(reply).toMatchObject({ status: 200, body: { deleted: false, routers_removed: [] } });
  });

  test("4.5 a recreated name is an unrelated topic, also of another type", async () => {
    const topic = await newTopic(server, { cap_records: 1, priority: 9 });
    await topic.append(1, 2, 3);
    await topic.drop();
    const reply = await topic.put({ type: "queue" });
    const state = (await topic.state()).body;
    expect(reply).toMatchObject({ status: 201, body: { created: true } });
    expect(reply.body.config).toStrictEqual({ ...defaults, type: "queue" });
    expect(state).toMatchObject({
      type: "queue",
      head_seq: 0,
      earliest_seq: 1,
      count: 0,
      last_write_ts: null,
    });
    expect((await topic.append(1)).body.first_seq).toBe(1);
    expect((await topic.diff()).body.tombstone).toBeNull();
  });
});

describe("number of topics", () => {
  const throttled = {
    status: 429,
    body: { error: { code: "throttled", detail: { limit: "max_topics", max: 2 } } },
  };

  test("02.66 TOPICS_MAX_TOPICS bounds creation, by PUT and by write, and nothing else", async () => {
    await using limited = await startServer({ TOPICS_MAX_TOPICS: "2" });
    const first = await newTopic(limited);
    const second = await newTopic(limited);
    const third = absentTopic(limited);

    const put = await third.put();
    const write = await third.write({ records: [{ data: 1 }] });
    expect(put).toMatchObject(throttled);
    expect(put.headers.get("retry-after")).toBe("1");
    expect(write).toMatchObject(throttled);
    expect(write.headers.get("retry-after")).toBe("1");
    expect((await third.state()).status).toBe(404);

    expect((await first.put({ cap_records: 1 })).status).toBe(200);
    expect((await first.append(1)).status).toBe(200);
    expect((await limited.send("PUT", "/v0/topics/_x")).body.error.code).toBe("invalid_request");
    expect((await third.write({ records: [{ data: 1 }], create: false })).status).toBe(404);

    await second.drop();
    expect((await third.put()).status).toBe(201);
  });

  test("02.66 concurrent creates do not pass the limit", async () => {
    await using limited = await startServer({ TOPICS_MAX_TOPICS: "5" });
    const replies = await together(20, (i) => limited.send("PUT", `/v0/topics/t${i}`));
    expect(replies.filter(({ status }) => status === 201)).toHaveLength(5);
    expect(replies.filter(({ status }) => status === 429)).toHaveLength(15);
  });

  test("02.66 0 is no limit", async () => {
    await using unlimited = await startServer({ TOPICS_MAX_TOPICS: "0" });
    expect((await newTopic(unlimited).then(() => unlimited.send("PUT", "/v0/topics/b"))).status).toBe(201);
  });
});
