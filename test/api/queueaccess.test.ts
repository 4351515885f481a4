/** The queue calls from outside: scopes and prefixes, methods and paths, metrics, what no call touches. */
import { describe, expect, test } from "bun:test";
import { Metrics } from "../support/prometheus.ts";
import {
  absentQueue,
  filledQueue,
  holderCalls,
  makeQueue,
  type Queue,
  reaches,
  WORKER,
} from "../support/queue.ts";
import { startServer } from "../support/server.ts";
import { newTopic, type Sender, sharedServer, until } from "../support/topics.ts";

/** The server as the holder of a key sees it. */
const keyed = (server: Sender, key: string): Sender => ({
  get url() {
    return server.url;
  },
  send: (method, path, body, headers) =>
    server.send(method, path, body, { authorization: `Bearer ${key}`, ...headers }),
});

const open = sharedServer();
const closed = sharedServer({
  TOPICS_API_KEYS: [
    "full",
    "reader:r",
    "writer:w",
    "deleter:d",
    "admin:a",
    "rw:rw",
    "read-admin:r+a",
    "write-delete-admin:w+d+a",
    "tenant::t42:",
    "tenant-rw:rw:t42:|u7.",
  ].join(","),
});
const full = keyed(closed, "full");

const forbidden = { status: 403, body: { error: { code: "forbidden" } } };

/** Every queue call with a valid body. */
const posts: [string, object][] = [
  ["claim", { node: WORKER }],
  ...holderCalls.map(([name, , fields]): [string, object] => [name, { node: WORKER, seqs: [1], ...fields }]),
];
const postNames = posts.map(([name]) => name);

/** The status of a work stream's opening; the stream is closed again. */
async function openWork(server: Sender, path: string, headers: Record<string, string> = {}, method = "GET") {
  const response = await fetch(server.url + path, { method, headers });
  await response.body?.cancel();
  return { status: response.status, headers: response.headers };
}

let named = 0;
const nameBelow = (prefix: string) => `${prefix}n${++named}`;

describe("scopes", () => {
  const holders: Record<string, string[]> = {
    full: ["read", "write"],
    reader: ["read"],
    writer: ["write"],
    deleter: [],
    admin: [],
    rw: ["read", "write"],
    "read-admin": ["read"],
    "write-delete-admin": ["write"],
  };
  const allowed = (needed: string[]) =>
    Object.fromEntries(
      Object.entries(holders).map(([key, scopes]) => [
        key,
        needed.every((scope) => scopes.includes(scope)) ? 200 : 403,
      ]),
    );

  test.each(posts)("04.61 %s", async (name, body) => {
    const queue = await filledQueue(full, 20);
    const statuses: Record<string, number> = {};
    for (const key of Object.keys(holders)) {
      statuses[key] = (await absentQueue(keyed(closed, key), queue.name).call(name, body)).status;
    }
    expect(statuses).toEqual(allowed(name === "claim" ? ["read", "write"] : ["write"]));
  });

  test("04.61 work", async () => {
    const { path } = await makeQueue(full);
    const statuses: Record<string, number> = {};
    for (const key of Object.keys(holders)) {
      statuses[key] = (
        await openWork(closed, `${path}/work?node=w`, { authorization: `Bearer ${key}` })
      ).status;
    }
    expect(statuses).toEqual(allowed(["read", "write"]));
  });

  test("04.61 a refused call does nothing, and its 403 has no detail", async () => {
    const queue = await filledQueue(full, 2);
    await queue.take(1);
    for (const [name, body] of posts) {
      const reply = await absentQueue(keyed(closed, "reader"), queue.name).call(name, body);
      expect(reply).toMatchObject(forbidden);
      expect(Object.keys(reply.body.error).sort()).toEqual(["code", "message"]);
    }
    expect(await queue.counters()).toEqual({ count: 2, ready: 1, in_flight: 1, dead_lettered: 0 });
  });

  test.each(postNames)("04.61 %s: the refusals come before anything else", async (name) => {
    const absent = absentQueue(closed);
    const call = (key: string, body?: string, headers: Record<string, string> = {}) =>
      absentQueue(keyed(closed, key), absent.name).call(name, body, headers);
    for (const [body, headers] of [
      ["{", {}],
      [undefined, {}],
      ["{}", { "content-type": "text/plain" }],
    ] as const) {
      expect((await absent.call(name, body, headers)).status).toBe(401);
      expect((await call("wrong", body, headers)).status).toBe(401);
      expect((await call("reader", body, headers)).status).toBe(403);
      expect([400, 415]).toContain((await call("rw", body, headers)).status);
    }
  });

  test.each(posts)("04.61 %s is bound to the key's prefixes", async (name, body) => {
    const [own, other] = [nameBelow("t42:"), nameBelow("u7.")];
    for (const topic of [own, other]) await filledQueueNamed(topic);
    const status = async (key: string, topic: string) =>
      (await absentQueue(keyed(closed, key), topic).call(name, body)).status;
    expect(await status("tenant", own)).toBe(200);
    expect(await status("tenant-rw", own)).toBe(200);
    expect(await status("tenant-rw", other)).toBe(200);
    expect(await status("tenant", other)).toBe(403);
    expect(await status("tenant", "t42")).toBe(403);
    expect(await status("tenant", nameBelow("absent"))).toBe(403);
    expect(await status("tenant", nameBelow("t42:absent"))).toBe(404);
    expect(await status("tenant", own.replace(":", "%3A"))).toBe(200);
    expect(await status("tenant", `t42%2Fx`)).toBe(403);
  });

  const filledQueueNamed = async (name: string) => {
    const queue = await makeQueue(full, {}, name);
    await queue.produce(5);
  };

  test("04.61 work is bound to the key's prefixes", async () => {
    const own = await makeQueue(full, {}, nameBelow("t42:"));
    const other = await makeQueue(full);
    const tenant = { authorization: "Bearer tenant" };
    expect((await openWork(closed, `${own.path}/work?node=w`, tenant)).status).toBe(200);
    expect((await openWork(closed, `${other.path}/work?node=w`, tenant)).status).toBe(403);
    expect((await openWork(closed, `${other.path}/work?node=w&token=tenant`)).status).toBe(403);
  });
});

describe("?token=", () => {
  test.each(posts)("01.39 04.61 does not open %s", async (name, body) => {
    const queue = await filledQueue(full, 1);
    const reply = await closed.send("POST", `${queue.path}/${name}?token=full`, body);
    expect(reply).toMatchObject({ status: 401, body: { error: { code: "unauthorized" } } });
    expect(await queue.counters()).toMatchObject({ ready: 1, in_flight: 0 });
  });

  test("01.39 does not take rights away where a Bearer gives them", async () => {
    const queue = await filledQueue(full, 1);
    const reply = await full.send("POST", `${queue.path}/claim?token=wrong`, { node: WORKER });
    expect(reply).toMatchObject({ status: 200, body: { count: 1 } });
  });

  test.each([
    ["a full key", "token=full", 200],
    ["a key that reads and writes", "token=rw", 200],
    ["a key that only reads", "token=reader", 403],
    ["a key that only writes", "token=writer", 403],
    ["an unknown key", "token=nobody", 401],
    ["an empty key", "token=", 401],
    ["a percent-encoded key", "token=%66ull", 200],
    ["two keys, the first one valid", "token=full&token=nobody", 200],
    ["two keys, the first one unknown", "token=nobody&token=full", 401],
    ["no key", "x=full", 401],
  ])("01.39 04.61 %s and work", async (_, query, status) => {
    const { path } = await makeQueue(full);
    expect((await openWork(closed, `${path}/work?node=w&${query}`)).status).toBe(status);
  });

  test("01.39 rescues no wrong Bearer", async () => {
    const { path } = await makeQueue(full);
    const headers = { authorization: "Bearer nobody" };
    expect((await openWork(closed, `${path}/work?node=w&token=full`, headers)).status).toBe(401);
  });
});

describe("methods and paths", () => {
  const methods = ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"];
  const allowed = (allow: string | null) => allow?.split(/\s*,\s*/).sort();

  test.each(postNames)("01.03 %s takes POST only", async (name) => {
    const queue = await filledQueue(open, 1);
    for (const method of methods) {
      const reply = await open.send(method, `${queue.path}/${name}`);
      expect([method, reply.status, allowed(reply.headers.get("allow"))]).toEqual([method, 405, ["POST"]]);
      if (method === "HEAD") expect(reply.text).toBe("");
      else
        expect(reply.body.error).toStrictEqual({ code: "method_not_allowed", message: expect.any(String) });
    }
    expect(await queue.counters()).toMatchObject({ ready: 1, in_flight: 0 });
  });

  test("01.03 work takes GET and HEAD only", async () => {
    const queue = await filledQueue(open, 1);
    for (const method of ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"]) {
      const reply = await open.send(method, `${queue.path}/work?node=w`);
      expect([method, reply.status, allowed(reply.headers.get("allow"))]).toEqual([
        method,
        405,
        ["GET", "HEAD"],
      ]);
    }
  });

  test("1 HEAD of work has the stream's headers, no body, and leases nothing", async () => {
    const queue = await filledQueue(open, 3);
    const reply = await open.send("HEAD", `${queue.path}/work?node=w&max=3`);
    expect({ status: reply.status, text: reply.text }).toEqual({ status: 200, text: "" });
    expect(reply.headers.get("content-type")).toStartWith("text/event-stream");
    expect(reply.headers.get("cache-control")).toBe("no-store");
    expect(reply.headers.get("x-accel-buffering")).toBe("no");
    expect(await queue.counters()).toEqual({ count: 3, ready: 3, in_flight: 0, dead_lettered: 0 });
  });

  test.each([...postNames, "work"])("1 %s with a trailing slash is not_found", async (name) => {
    const { path } = await makeQueue(open);
    for (const method of ["POST", "GET"]) {
      const reply = await open.send(
        method,
        `${path}/${name}/`,
        method === "POST" ? { node: "w" } : undefined,
      );
      expect(reply.status).toBe(404);
      expect(reply.body.error).toStrictEqual({ code: "not_found", message: expect.any(String) });
    }
  });

  test.each(["Claim", "claims", "claim/x", "ack/1", "acknowledge"])("01.02 %s is no call", async (name) => {
    const { path } = await makeQueue(open);
    const reply = await open.send("POST", `${path}/${name}`, { node: "w" });
    expect(reply).toMatchObject({ status: 404, body: { error: { code: "not_found" } } });
  });

  test.each(["claim", "ack", "nack", "extend", "work"])(
    "01 s2 %s is a legal name of a queue",
    async (name) => {
      const queue = await makeQueue(open, {}, name);
      await queue.produce(1);
      expect((await queue.claim()).body).toMatchObject({ topic: name, count: 1 });
      expect((await queue.ack([1])).body.acked).toBe(1);
    },
  );

  test("01.09 Accept changes nothing", async () => {
    const queue = await filledQueue(open, 2);
    const reply = await queue.call("claim", { node: WORKER }, { accept: "text/event-stream" });
    expect(reply).toMatchObject({ status: 200, body: { count: 1 } });
    expect(reply.headers.get("content-type")).toBe("application/json");
  });
});

describe("performance", () => {
  test.each(posts)("01.20 P2 %s tells its time, also in every error", async (name, body) => {
    const queue = await filledQueue(open, 2);
    const log = absentQueue(open, (await newTopic(open)).name);
    await queue.take(1);
    const replies = [
      await queue.call(name, body),
      await log.call(name, body),
      await absentQueue(open).call(name, body),
      await queue.call(name, "{"),
      await queue.call(name, "{}", { "content-type": "text/plain" }),
      await queue.call(name, { ...body, node: "" }),
      await open.send("PATCH", `${queue.path}/${name}`),
    ];
    expect(replies.map(({ status }) => status)).toEqual([200, 409, 404, 400, 415, 400, 405]);
    for (const { body } of replies) {
      expect(body.performance).toStrictEqual({ server_total_ms: expect.any(Number) });
      expect(body.performance.server_total_ms).toBeGreaterThanOrEqual(0);
    }
  });
});

describe("metrics", () => {
  const figures = async (server: Sender, ...queues: Queue[]) => {
    const metrics = new Metrics((await server.send("GET", "/v0/metrics")).text);
    return {
      topics: metrics.value("topics_queue_topics"),
      leases: metrics.value("topics_queue_leases_in_flight"),
      queues: queues.map(({ name: topic }) => [
        metrics.value("topics_topic_queue_ready", { topic }),
        metrics.value("topics_topic_queue_in_flight", { topic }),
      ]),
    };
  };

  test("01.48 11 follow claims, acks, nacks, deletes and dead letters, by queue and in sum", async () => {
    await using server = await startServer();
    const one = await filledQueue(server, 5);
    const other = await filledQueue(server, 3);
    await newTopic(server);
    const seen = () => figures(server, one, other);
    expect(await seen()).toEqual({
      topics: 2,
      leases: 0,
      queues: [
        [5, 0],
        [3, 0],
      ],
    });
    await one.take(3);
    await other.take(2);
    expect(await seen()).toEqual({
      topics: 2,
      leases: 5,
      queues: [
        [2, 3],
        [1, 2],
      ],
    });
    await one.ack([1]);
    await one.nack([2]);
    await other.nack([1], { delay_ms: 60000 });
    expect(await seen()).toEqual({
      topics: 2,
      leases: 2,
      queues: [
        [3, 1],
        [1, 1],
      ],
    });
    await other.erase({ before_seq: 3 });
    expect(await seen()).toEqual({
      topics: 2,
      leases: 1,
      queues: [
        [3, 1],
        [1, 0],
      ],
    });
    await one.put({ type: "queue", max_deliveries: 1, dead_letter: "dead" });
    await one.take(1);
    expect(await seen()).toEqual({
      topics: 2,
      leases: 2,
      queues: [
        [1, 2],
        [1, 0],
      ],
    });
    await one.drop();
    expect(await seen()).toEqual({
      topics: 1,
      leases: 0,
      queues: [
        [undefined, undefined],
        [1, 0],
      ],
    });
  });

  test("01.48 fall when leases expire, though nobody calls the queue", async () => {
    await using server = await startServer();
    const queue = await filledQueue(server, 4);
    await queue.take(2, { lease_ms: 600 });
    await queue.take(1);
    expect(await figures(server, queue)).toEqual({ topics: 1, leases: 3, queues: [[1, 3]] });
    const later = await until(
      () => figures(server, queue),
      ({ leases }) => leases !== 3,
    );
    expect(later).toEqual({ topics: 1, leases: 1, queues: [[3, 1]] });
  });

  test("01.48 rise when a delay is over, though nobody calls the queue", async () => {
    await using server = await startServer();
    const queue = await filledQueue(server, 1);
    await queue.take(1);
    await queue.nack([1], { delay_ms: 500 });
    expect((await figures(server, queue)).queues).toEqual([[0, 0]]);
    await until(
      () => figures(server, queue),
      ({ queues }) => queues[0]![0] === 1,
    );
    expect((await figures(server, queue)).queues).toEqual([[1, 0]]);
  });

  test("01.48 the JSON form has the sums", async () => {
    await using server = await startServer();
    const queue = await filledQueue(server, 4);
    const json = async () =>
      (await server.send("GET", "/v0/metrics", undefined, { accept: "application/json" })).body;
    await queue.take(1, { lease_ms: 60000 });
    await queue.take(2, { lease_ms: 500 });
    expect(await json()).toMatchObject({ queue_topics: 1, queue_leases_in_flight: 3, records_live: 4 });
    await until(json, ({ queue_leases_in_flight }) => queue_leases_in_flight === 1);
    await queue.ack([1]);
    expect(await json()).toMatchObject({ queue_topics: 1, queue_leases_in_flight: 0, records_live: 3 });
  });
});

describe("what workers do is no reading", () => {
  test("02.13 claim, ack, nack and extend touch neither priority nor last_read_ts", async () => {
    const queue = await filledQueue(open, 3);
    await queue.take(3);
    await queue.extend([1], 60000);
    await queue.nack([2]);
    await queue.ack([1, 3]);
    await queue.take(1);
    expect((await queue.state()).body).toMatchObject({ effective_priority: 0, last_read_ts: null });
  });

  test("02.13 nor last_write_ts", async () => {
    const queue = await filledQueue(open, 2);
    const { last_write_ts } = (await queue.state()).body;
    await until(
      async () => Date.now(),
      (now) => now > last_write_ts + 5,
    );
    await queue.nack([(await queue.take(1))[0]!.$seq]);
    await queue.take(2);
    await queue.ack([1]);
    expect((await queue.state()).body).toMatchObject({ last_write_ts, last_read_ts: null });
  });

  test("02.13 a queue's set priority stays as it is", async () => {
    const queue = await makeQueue(open, { priority: 7 });
    await queue.produce(1);
    await queue.take(1);
    expect((await queue.state()).body.effective_priority).toBe(7);
    expect(await reaches(queue, { in_flight: 1 })).toMatchObject({ ready: 0 });
  });
});
