/** HTTP/2 in clear text on the same port, for clients that know it beforehand. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { once } from "node:events";
import { type ClientHttp2Session, connect, type IncomingHttpHeaders } from "node:http2";
import { answersIn, exchange } from "../support/rawsocket.ts";
import { startServer } from "../support/server.ts";
import { absentTopic, sharedServer, timed, together } from "../support/topics.ts";

const server = sharedServer();

interface Reply {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
  // biome-ignore lint/suspicious/noExplicitAny: a test looks at whatever came back.
  readonly body: any;
}

/** One connection, closed on disposal. */
class Connection implements Disposable {
  readonly session: ClientHttp2Session;

  constructor(url: string) {
    this.session = connect(url);
    // What goes wrong with the connection ends its streams, and there it is seen.
    this.session.on("error", () => {});
  }

  open(method: string, path: string, body?: unknown, headers: Record<string, string> = {}) {
    const type = body === undefined ? {} : { "content-type": "application/json" };
    const stream = this.session.request({ ":method": method, ":path": path, ...type, ...headers });
    stream.end(typeof body === "string" || body === undefined ? body : JSON.stringify(body));
    return stream;
  }

  send(method: string, path: string, body?: unknown, headers?: Record<string, string>): Promise<Reply> {
    const stream = this.open(method, path, body, headers);
    const reply = Promise.withResolvers<Reply>();
    const chunks: Buffer[] = [];
    let received: IncomingHttpHeaders = {};
    stream.on("response", (fields) => {
      received = fields;
    });
    stream.on("data", (chunk: Buffer) => chunks.push(chunk));
    stream.on("error", reply.reject);
    stream.on("end", () => {
      const text = Buffer.concat(chunks).toString();
      const json = received["content-type"]?.startsWith("application/json") && text !== "";
      reply.resolve({
        status: Number(received[":status"]),
        headers: received,
        text,
        body: json ? JSON.parse(text) : undefined,
      });
    });
    return reply.promise;
  }

  [Symbol.dispose](): void {
    this.session.destroy();
  }
}

let shared: Connection;
beforeAll(() => {
  shared = new Connection(server.url);
});
afterAll(() => shared[Symbol.dispose]());

describe("every kind of request", () => {
  test("01.05 health", async () => {
    const reply = await shared.send("GET", "/v0/health");
    expect(reply).toMatchObject({ status: 200, body: { status: "ok" } });
    expect(reply.headers["content-type"]).toBe("application/json");
    expect(reply.headers.date).toMatch(/GMT$/);
  });

  test("01.05 create, write, read, delete", async () => {
    const path = "/v0/topics/a%2Eb";
    expect(await shared.send("PUT", path)).toMatchObject({ status: 201, body: { topic: "a.b" } });
    const records = [{ data: { text: "é\u2028😀" }, tag: "x" }, { data: 2 }];
    expect((await shared.send("POST", path, { records })).body).toMatchObject({ first_seq: 1, last_seq: 2 });
    const read = await shared.send("POST", `${path}/diff`, { from_seq: 0 });
    expect(read).toMatchObject({
      status: 200,
      body: { records: records.map(({ data }) => ({ data })), head_seq: 2, caught_up: true },
    });
    expect((await shared.send("POST", `${path}/delete`, { before_seq: 2 })).status).toBe(200);
    expect((await shared.send("GET", path)).body).toMatchObject({ topic: "a.b", count: 1 });
    expect((await shared.send("DELETE", path)).body).toMatchObject({ deleted: true });
    expect((await shared.send("GET", path)).status).toBe(404);
  });

  test("01.05 an empty body is {} for PUT and diff", async () => {
    const { path } = absentTopic(server, "empty-bodies");
    expect((await shared.send("PUT", path, "")).status).toBe(201);
    expect((await shared.send("POST", `${path}/diff`)).status).toBe(200);
    expect((await shared.send("POST", path)).status).toBe(415);
  });

  test("01.05 a write is seen by HTTP/1.1, and the other way round", async () => {
    const topic = absentTopic(server, "both-ways");
    await shared.send("POST", topic.path, { records: [{ data: "two" }] });
    await topic.append("one");
    const [one, two] = [await topic.diff(), await shared.send("POST", `${topic.path}/diff`, {})];
    expect(one.body.records).toMatchObject([{ data: "two" }, { data: "one" }]);
    expect(two.body.records).toEqual(one.body.records);
  });

  test("01.05 a payload of a megabyte comes back byte for byte", async () => {
    const { path } = absentTopic(server, "large");
    const data = `{"b":1.0,"a":-0,"b":"${"\\u00e9é\\n ".repeat(90_000)}"}`;
    expect((await shared.send("POST", path, `{"records":[{"data":${data}}]}`)).status).toBe(201);
    const read = await shared.send("POST", `${path}/diff`, { from_seq: 0 });
    expect(read.text).toContain(data);
  });

  test("01.05 a long poll is answered by a write on the same connection", async () => {
    const { path } = absentTopic(server, "polled");
    await shared.send("PUT", path);
    const poll = timed(() => shared.send("POST", `${path}/diff`, { wait_ms: 20_000 }));
    await shared.send("POST", path, { records: [{ data: 1 }] });
    const { answer, ms } = await poll;
    expect(answer.body.records).toMatchObject([{ $seq: 1, data: 1 }]);
    expect(ms).toBeLessThan(10_000);
  });

  test("01.05 a long poll without news ends with its time", async () => {
    const { path } = absentTopic(server, "silent");
    await shared.send("PUT", path);
    const { answer, ms } = await timed(() => shared.send("POST", `${path}/diff`, { wait_ms: 300 }));
    expect(answer).toMatchObject({ status: 200, body: { records: [], caught_up: true } });
    expect(ms).toBeGreaterThan(290);
  });

  test.each([
    "/v0/topics",
    "/v0/topics/headed",
    "/v0/health",
    "/v0/ready",
    "/healthz",
    "/readyz",
    "/v0/metrics",
  ])("01.04 01.05 HEAD %s has the headers of GET and no body", async (path) => {
    await absentTopic(server, "headed").put();
    const [full, bare] = [await shared.send("GET", path), await shared.send("HEAD", path)];
    expect([bare.status, bare.text]).toEqual([200, ""]);
    expect(bare.headers["content-type"]).toBe(full.headers["content-type"]!);
    expect(Object.keys(bare.headers).sort()).toEqual(Object.keys(full.headers).sort());
  });
});

describe("refusals", () => {
  test.each([
    ["GET", "/nope", undefined, 404, "not_found"],
    ["GET", "/v0/topics/never", undefined, 404, "topic_not_found"],
    ["PATCH", "/v0/topics", undefined, 405, "method_not_allowed"],
    ["OPTIONS", "/v0/health", undefined, 405, "method_not_allowed"],
    ["PUT", "/v0/topics/a%20b", undefined, 400, "invalid_request"],
    ["GET", "/v0/topics/a%ff", undefined, 400, "invalid_request"],
    ["POST", "/v0/topics/t", "{", 400, "invalid_request"],
    ["POST", "/v0/topics/never/diff", {}, 404, "topic_not_found"],
  ])("01.05 %s %s with %j is %d", async (method, path, body, status, code) => {
    const reply = await shared.send(method, path, body);
    expect(reply).toMatchObject({ status, body: { error: { code } } });
    expect(reply.headers.allow === undefined).toBe(status !== 405);
  });

  test("01.05 a body of the wrong type is 415", async () => {
    const reply = await shared.send("POST", "/v0/topics/t", "{}", { "content-type": "text/plain" });
    expect(reply).toMatchObject({ status: 415, body: { error: { code: "unsupported_media_type" } } });
  });

  test("01.05 too long a body is 413, and names no connection of HTTP/1.1", async () => {
    await using own = await startServer({ TOPICS_MAX_BODY_BYTES: "2000" });
    const body = `{"records":[{"data":"${"x".repeat(3000)}"}]}`;
    for (const headers of [{ "content-length": `${body.length}` }, {}]) {
      using connection = new Connection(own.url);
      const reply = await connection.send("POST", "/v0/topics/t", body, headers);
      expect(reply).toMatchObject({ status: 413, body: { error: { code: "payload_too_large" } } });
      for (const field of ["connection", "keep-alive", "transfer-encoding", "upgrade"])
        expect(reply.headers[field]).toBeUndefined();
    }
    expect((await own.send("GET", "/v0/topics")).body.topics).toEqual([]);
  });

  test("01.05 01.30 keys are asked for", async () => {
    await using own = await startServer({ TOPICS_API_KEYS: "mine" });
    using connection = new Connection(own.url);
    const status = async (headers: Record<string, string>) =>
      (await connection.send("GET", "/v0/topics", undefined, headers)).status;
    expect(await status({})).toBe(401);
    expect(await status({ authorization: "Bearer other" })).toBe(401);
    expect(await status({ authorization: "Bearer mine" })).toBe(200);
  });
});

describe("one connection", () => {
  test("01.05 has room for 100 streams at once", async () => {
    using connection = new Connection(server.url);
    // 99 of them wait, and the last one can still be opened to end their waiting.
    const topics = Array.from({ length: 99 }, (_, i) => `/v0/topics/waited-${i}`);
    await Promise.all(topics.map((path) => connection.send("PUT", path)));
    const polls = topics.map((path) => connection.send("POST", `${path}/diff`, { wait_ms: 30_000 }));
    const { answer: replies, ms } = await timed(async () => {
      for (const path of topics) await connection.send("POST", path, { records: [{ data: path }] });
      return Promise.all(polls);
    });
    expect(replies.map(({ body }) => body.records[0].data)).toEqual(topics);
    expect(ms).toBeLessThan(20_000);
  }, 40_000);

  test("01.05 tells how many streams it takes", async () => {
    using connection = new Connection(server.url);
    if (connection.session.remoteSettings?.maxConcurrentStreams === undefined)
      await once(connection.session, "remoteSettings");
    expect(connection.session.remoteSettings.maxConcurrentStreams).toBeGreaterThanOrEqual(100);
  });

  test("01.05 takes 1000 requests at a time", async () => {
    using connection = new Connection(server.url);
    const { path } = absentTopic(server, "crowded");
    await connection.send("PUT", path);
    const replies = await together(1000, (i) => connection.send("POST", path, { records: [{ data: i }] }));
    const seqs = replies.map(({ body }) => body.last_seq).sort((a, b) => a - b);
    expect(seqs).toEqual(Array.from({ length: 1000 }, (_, i) => i + 1));
    const read = await connection.send("POST", `${path}/diff`, { from_seq: 0, limit: 1000 });
    expect(new Set(read.body.records.map(({ data }: { data: number }) => data)).size).toBe(1000);
  });

  test("01.05 outlives its cancelled streams", async () => {
    using connection = new Connection(server.url);
    const { path } = absentTopic(server, "cancelled");
    await connection.send("PUT", path);
    const other = connection.send("POST", `${path}/diff`, { wait_ms: 20_000 });
    const gone = Array.from({ length: 300 }, () => {
      const stream = connection.open("POST", `${path}/diff`, { wait_ms: 20_000 });
      stream.on("error", () => {});
      stream.close(8);
      return once(stream, "close");
    });
    await Promise.all(gone);
    await connection.send("POST", path, { records: [{ data: 1 }] });
    expect((await other).body.records).toMatchObject([{ data: 1 }]);
    expect((await connection.send("GET", "/v0/health")).status).toBe(200);
  });

  test("01.05 may vanish in the middle of a body", async () => {
    using connection = new Connection(server.url);
    const stream = connection.session.request({
      ":method": "POST",
      ":path": "/v0/topics/vanished",
      "content-type": "application/json",
    });
    stream.on("error", () => {});
    stream.write('{"records":[{"data":1}');
    await connection.send("GET", "/v0/health");
    connection.session.destroy();
    expect((await absentTopic(server, "vanished").state()).status).toBe(404);
  });

  test("1 answers a ping", async () => {
    using connection = new Connection(server.url);
    await connection.send("GET", "/v0/health");
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    connection.session.ping(Buffer.from("12345678"), (error, _, payload) =>
      error ? reject(error) : resolve(payload.toString()),
    );
    expect(await promise).toBe("12345678");
  });
});

describe("beside HTTP/1.1", () => {
  test("01.05 both are served at the same time", async () => {
    const topic = absentTopic(server, "mixed");
    await topic.put();
    const polls = [
      topic.diff({ wait_ms: 20_000 }),
      shared.send("POST", `${topic.path}/diff`, { wait_ms: 20_000 }),
    ];
    await topic.append("news");
    for (const { body } of await Promise.all(polls)) expect(body.records).toMatchObject([{ data: "news" }]);
  });

  test("1 an upgrade to h2c is ignored", async () => {
    const answer = await exchange(
      server.url,
      [
        "GET /v0/health HTTP/1.1",
        "Host: test",
        "Connection: Upgrade, HTTP2-Settings, close",
        "Upgrade: h2c",
        "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA",
        "",
        "",
      ].join("\r\n"),
    );
    expect(answersIn(answer)).toMatchObject([
      { status: 200, body: expect.stringContaining('"status":"ok"') },
    ]);
  });
});
