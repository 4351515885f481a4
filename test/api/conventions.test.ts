/** What holds for every answer: `performance`, the error envelope, and the limits that refuse a request. */
import { describe, expect, test } from "bun:test";
import { type Reply, startServer, type TestServer } from "../support/server.ts";
import { absentTopic, newTopic, sharedServer } from "../support/topics.ts";

const server = sharedServer();

const numbers = (value: object) =>
  Object.values(value).every((member) => typeof member === "number" && member >= 0);

describe("performance", () => {
  test.each([
    ["PUT", "/v0/topics/perf", "{}", 201],
    ["PUT", "/v0/topics/perf", "{}", 200],
    ["GET", "/v0/topics/perf", undefined, 200],
    ["GET", "/v0/topics", undefined, 200],
    ["POST", "/v0/topics/perf", '{"records":[{"data":1}],"idempotency_key":"k"}', 200],
    ["POST", "/v0/topics/perf", '{"records":[{"data":1}],"idempotency_key":"k"}', 200],
    ["POST", "/v0/topics/perf/diff", "{}", 200],
    ["POST", "/v0/topics/perf/delete", '{"before_seq":1}', 200],
    ["DELETE", "/v0/topics/perf", undefined, 200],
    ["GET", "/v0/health", undefined, 200],
    ["GET", "/v0/ready", undefined, 200],
    ["GET", "/healthz", undefined, 200],
    ["GET", "/readyz", undefined, 200],
    ["GET", "/v0/nope", undefined, 404],
    ["GET", "/v0/topics/absent", undefined, 404],
    ["PATCH", "/v0/topics", undefined, 405],
    ["PUT", "/v0/topics/_illegal", undefined, 400],
    ["POST", "/v0/topics/perf/diff", "{", 400],
    ["POST", "/v0/topics/perf/delete", undefined, 415],
  ])("01.20 %s %s %s %d tells its time", async (method, path, body, status) => {
    const reply = await server.send(method, path, body);
    expect(reply.status).toBe(status);
    expect(reply.body.performance.server_total_ms).toBeNumber();
    expect(numbers(reply.body.performance)).toBe(true);
  });

  test.each([
    ["fsync", true, true],
    ["disk", true, false],
    ["memory", true, false],
    ["ephemeral", false, false],
  ])(
    "01.21 06.03 a write to a topic of class %s tells what it waited for",
    async (durability, logs, syncs) => {
      const topic = await newTopic(server, { durability });
      const { performance } = (await topic.append(1)).body;
      expect({ logs: performance.wal_append_ms > 0, syncs: performance.fsync_ms > 0 }).toEqual({
        logs,
        syncs,
      });
      expect(numbers(performance)).toBe(true);
    },
  );

  test("01.21 a repeated write waits for nothing, a diff counts what it scanned", async () => {
    const topic = await newTopic(server, { durability: "fsync" });
    const write = () => topic.write({ records: [{ data: 1 }, { data: 2 }], idempotency_key: "k" });
    await write();
    expect(Object.keys((await write()).body.performance)).toEqual(["server_total_ms"]);
    const { performance } = (await topic.diff()).body;
    expect(performance).toMatchObject({ server_total_ms: expect.any(Number), records_scanned: 2 });
  });
});

type Refusal = (on: Pick<TestServer, "send" | "url">) => Promise<Reply>;

describe("errors", () => {
  const tight = {
    TOPICS_MAX_BODY_BYTES: "1500000",
    TOPICS_MAX_TOPICS: "3",
    TOPICS_MAX_TOTAL_BYTES: "2000000",
  };
  const refusals: [string, number, object | undefined, Refusal][] = [
    ["invalid_request", 400, undefined, (on) => on.send("PUT", "/v0/topics/_x")],
    [
      "invalid_request",
      400,
      { dead_letter: "no name" },
      (on) => on.send("PUT", "/v0/topics/t", { dead_letter: "no name" }),
    ],
    ["invalid_request", 400, undefined, (on) => on.send("POST", "/v0/topics/t/delete", {})],
    ["invalid_request", 400, undefined, (on) => on.send("GET", "/v0/topics?cursor=!!!")],
    [
      "batch_too_large",
      400,
      undefined,
      (on) => on.send("POST", "/v0/topics/t", { records: Array(10_001).fill({ data: 1 }) }),
    ],
    [
      "record_too_large",
      400,
      undefined,
      (on) => on.send("POST", "/v0/topics/t", { records: [{ data: "x".repeat(1_048_575) }] }),
    ],
    ["topic_not_found", 404, { topic: "a.b" }, (on) => on.send("GET", "/v0/topics/a%2Eb")],
    ["topic_not_found", 404, { topic: "n" }, (on) => on.send("POST", "/v0/topics/n/diff")],
    [
      "topic_not_found",
      404,
      { topic: "n" },
      (on) => on.send("POST", "/v0/topics/n?x", { records: [{ data: 1 }], create: false }),
    ],
    ["not_found", 404, undefined, (on) => on.send("GET", "/v0/topics/t/")],
    ["method_not_allowed", 405, undefined, (on) => on.send("GET", "/v0/topics/t/diff")],
    [
      "topic_exists_incompatible",
      409,
      { topic: "t", existing_type: "log", requested_type: "queue" },
      async (on) => {
        await on.send("PUT", "/v0/topics/t");
        return on.send("PUT", "/v0/topics/t", { type: "queue" });
      },
    ],
    [
      "topic_not_empty",
      409,
      { topic: "t", count: 2 },
      async (on) => {
        await on.send("POST", "/v0/topics/t", { records: [{ data: 1 }, { data: 2 }] });
        return on.send("DELETE", "/v0/topics/t?if_empty=true");
      },
    ],
    [
      "unsupported_media_type",
      415,
      undefined,
      (on) => on.send("PUT", "/v0/topics/t", "{}", { "content-type": "text/plain" }),
    ],
    [
      "topic_full",
      422,
      { topic: "t", cap_records: 2, cap_bytes: 50, head_seq: 2, earliest_seq: 1 },
      async (on) => {
        await on.send("PUT", "/v0/topics/t", { cap_records: 2, cap_bytes: 50, discard: "reject" });
        await on.send("POST", "/v0/topics/t", { records: [{ data: 1 }, { data: 2 }] });
        return on.send("POST", "/v0/topics/t", { records: [{ data: 3 }] });
      },
    ],
    [
      "throttled",
      429,
      { limit: "max_topics", max: 3 },
      async (on) => {
        for (const name of ["t1", "t2", "t3"]) await on.send("PUT", `/v0/topics/${name}`);
        return on.send("PUT", "/v0/topics/t4");
      },
    ],
    [
      "throttled",
      429,
      { limit: "max_total_bytes", max: 2_000_000 },
      async (on) => {
        const half = { records: [{ data: "x".repeat(999_999) }] };
        await on.send("POST", "/v0/topics/t", half);
        return on.send("POST", "/v0/topics/t", half);
      },
    ],
  ];

  test.each(refusals)("01.22 %s is %d with detail %j", async (code, status, detail, refusal) => {
    await using own = await startServer(tight);
    const reply = await refusal(own);
    expect({ status: reply.status, type: reply.headers.get("content-type") }).toEqual({
      status,
      type: "application/json",
    });
    const { error, performance, ...others } = reply.body;
    expect({ code: error.code, others }).toEqual({ code, others: {} });
    expect(performance.server_total_ms).toBeNumber();
    expect(error.message).toMatch(/\S/);
    expect(Object.keys(error).sort()).toEqual(["code", ...(detail ? ["detail"] : []), "message"]);
    expect(error.detail).toEqual(detail);
    expect(reply.headers.get("retry-after")).toBe(status === 429 ? "1" : null);
  });
});

describe("fixed sizes", () => {
  test("01.25 a batch may have 10000 records", async () => {
    const topic = await newTopic(server);
    const batch = (size: number) =>
      topic.write({ records: Array(size).fill({ data: 1 }) }, "?return_seqs=false");
    expect(await batch(10_000)).toMatchObject({ status: 200, body: { count: 10_000, last_seq: 10_000 } });
    expect(await batch(10_001)).toMatchObject({ status: 400, body: { error: { code: "batch_too_large" } } });
    expect(await batch(0)).toMatchObject({ status: 400, body: { error: { code: "invalid_request" } } });
    expect((await topic.state()).body.head_seq).toBe(10_000);
  });

  const million = 1_048_576;
  test.each([
    ["a string", (size: number) => `"data":"${"x".repeat(size - 2)}"`],
    [
      "two-byte characters",
      (size: number) => `"data":"${"é".repeat((size - 2) >> 1)}${"x".repeat(size & 1)}"`,
    ],
    ["data and meta", (size: number) => `"data":"${"x".repeat(size - 9)}","meta":{"a":1}`],
    ["white space as sent", (size: number) => `"data":[1,${" ".repeat(size - 5)}2]`],
    ["escapes as sent", (size: number) => `"data":"${"x".repeat(size - 8)}\\u0041"`],
  ])("01.25 a record of %s may have 1048576 bytes", async (_, record) => {
    const topic = await newTopic(server);
    const write = (size: number) => topic.write(`{"records":[{${record(size)}}]}`);
    expect((await write(million)).status).toBe(200);
    expect((await topic.state()).body.bytes).toBe(million);
    expect(await write(million + 1)).toMatchObject({
      status: 400,
      body: { error: { code: "record_too_large" } },
    });
  });

  const keys = (n: number) => Object.fromEntries(Array.from({ length: n }, (_, i) => [`k${i}`, i]));
  const sized = { data: 1 };
  test.each<[string, object, object]>([
    [
      "tag of 256 bytes",
      { records: [{ ...sized, tag: "t".repeat(256) }] },
      { records: [{ ...sized, tag: "t".repeat(257) }] },
    ],
    [
      "tag of 128 two-byte characters",
      { records: [{ ...sized, tag: "é".repeat(128) }] },
      { records: [{ ...sized, tag: `${"é".repeat(128)}x` }] },
    ],
    [
      "node of 128 bytes",
      { records: [{ ...sized, node: "n".repeat(128) }] },
      { records: [{ ...sized, node: "n".repeat(129) }] },
    ],
    [
      "batch node of 128 bytes",
      { records: [sized], node: "n".repeat(128) },
      { records: [sized], node: "n".repeat(129) },
    ],
    [
      "meta of 64 keys",
      { records: [{ ...sized, meta: keys(64) }] },
      { records: [{ ...sized, meta: keys(65) }] },
    ],
    [
      "meta of 16384 bytes",
      { records: [{ ...sized, meta: { a: "x".repeat(16_376) } }] },
      { records: [{ ...sized, meta: { a: "x".repeat(16_377) } }] },
    ],
    [
      "idempotency key of 256 bytes",
      { records: [sized], idempotency_key: "é".repeat(128) },
      { records: [sized], idempotency_key: `${"é".repeat(128)}x` },
    ],
  ])("01.26 a %s passes, one more is refused", async (_, most, more) => {
    const topic = await newTopic(server);
    expect((await topic.write(most)).status).toBe(200);
    expect(await topic.write(more)).toMatchObject({
      status: 400,
      body: { error: { code: "invalid_request" } },
    });
    expect((await topic.state()).body.head_seq).toBe(1);
  });

  test("01.26 an idempotency header of 256 bytes passes, 257 are refused", async () => {
    const topic = await newTopic(server);
    const write = (size: number) =>
      topic.write({ records: [sized] }, "", { "idempotency-key": "k".repeat(size) });
    expect((await write(256)).status).toBe(200);
    expect(await write(257)).toMatchObject({ status: 400, body: { error: { code: "invalid_request" } } });
  });
});

describe("settings that limit", () => {
  const tooMany = {
    status: 429,
    body: { error: { code: "throttled", detail: { limit: "max_topics", max: 2 } } },
  };

  test("01.42 topics are refused beyond the limit, however they are made", async () => {
    await using own = await startServer({ TOPICS_MAX_TOPICS: "2" });
    const put = (name: string) => own.send("PUT", `/v0/topics/${name}`);
    expect([(await put("a")).status, (await put("b")).status, (await put("a")).status]).toEqual([
      201, 201, 200,
    ]);
    const refused = [await put("c"), await own.send("POST", "/v0/topics/d", { records: [{ data: 1 }] })];
    expect(refused).toMatchObject([tooMany, tooMany]);
    expect(refused.map(({ headers }) => headers.get("retry-after"))).toEqual(["1", "1"]);
    await own.send("DELETE", "/v0/topics/a");
    expect((await put("c")).status).toBe(201);
  });

  test("01.42 concurrent creations do not pass the limit", async () => {
    await using own = await startServer({ TOPICS_MAX_TOPICS: "2" });
    const replies = await Promise.all(
      Array.from({ length: 12 }, (_, i) => own.send("PUT", `/v0/topics/t${i}`, { ttl_ms: i })),
    );
    const count = (status: number) => replies.filter((reply) => reply.status === status).length;
    expect([count(201), count(429)]).toEqual([2, 10]);
    expect((await own.send("GET", "/v0/topics")).body.topics).toHaveLength(2);
  });

  test("01.42 a limit of 0 is none", async () => {
    await using own = await startServer({ TOPICS_MAX_TOPICS: "0", TOPICS_MAX_TOTAL_BYTES: "0" });
    for (const name of ["a", "b", "c"]) expect((await absentTopic(own, name).append(1)).status).toBe(201);
  });

  test("01.46 stored bytes are bounded over all topics", async () => {
    await using own = await startServer({ TOPICS_MAX_TOTAL_BYTES: "300" });
    const data = "x".repeat(98);
    const [a, b] = [absentTopic(own, "a"), absentTopic(own, "b")];
    await a.append(data, data);
    await b.append(data);
    const refused = [await b.write({ records: [{ data: 1 }] })];
    refused.push(await a.write({ records: [{ data: 1 }], disable_backpressure: true }));
    for (const reply of refused) {
      expect(reply).toMatchObject({
        status: 429,
        body: { error: { code: "throttled", detail: { limit: "max_total_bytes", max: 300 } } },
      });
      expect(reply.headers.get("retry-after")).toBe("1");
    }
    await a.erase({ before_seq: 2 });
    expect((await b.append(data)).body.last_seq).toBe(2);
  });
});
