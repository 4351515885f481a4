/** The wire around every endpoint: paths, methods, content types, body framing and body sizes. */
import { describe, expect, test } from "bun:test";
import { RawSocket } from "../support/rawsocket.ts";
import { startServer } from "../support/server.ts";
import { absentTopic, newTopic, sharedServer } from "../support/topics.ts";

const server = sharedServer();
const bytes = (text: string) => new TextEncoder().encode(text);

/**
 * Sends a request over a socket of its own and gives everything that was answered until the server closed.
 * `rest` is sent after the answer so far ends with an interim `100`.
 */
async function exchange(url: string, request: string, rest?: string): Promise<string> {
  using socket = new RawSocket(url);
  await socket.write(request);
  if (rest !== undefined) {
    await socket.until((answer) => /^HTTP\/1\.1 100 [^\r]*\r\n\r\n$/.test(answer));
    await socket.write(rest);
  }
  // Awaited here: the socket lives no longer than this call.
  return await socket.untilClosed();
}

const head = (method: string, path: string, ...fields: string[]) =>
  [`${method} ${path} HTTP/1.1`, "Host: test", "Connection: close", ...fields, "", ""].join("\r\n");

const statusOf = (answer: string) => Number(/^HTTP\/1\.\d (\d{3})/.exec(answer)?.[1]);

describe("paths", () => {
  test.each(["/v0/health", "/healthz", "/v0/health?verbose=1"])(
    "01.01 %s tells version and uptime",
    async (path) => {
      const reply = await server.send("GET", path);
      expect(reply).toMatchObject({ status: 200, body: { status: "ok" } });
      expect(reply.body.version).toMatch(/./);
      expect(Number.isInteger(reply.body.uptime_ms)).toBe(true);
    },
  );

  test("01.01 uptime grows", async () => {
    const uptime = async () => (await server.send("GET", "/v0/health")).body.uptime_ms;
    const first = await uptime();
    let later = first;
    for (const end = Date.now() + 2000; later === first && Date.now() < end; ) later = await uptime();
    expect(later).toBeGreaterThan(first);
  });

  test.each(["/v0/ready", "/readyz", "/readyz?verbose=1"])(
    "01.01 %s tells the number of topics",
    async (path) => {
      await using own = await startServer();
      await own.send("PUT", "/v0/topics/a");
      await own.send("PUT", "/v0/topics/b");
      const reply = await own.send("GET", path);
      expect(reply).toMatchObject({
        status: 200,
        body: { status: "ready", wal_replay_complete: true, topics: 2 },
      });
    },
  );

  test.each([
    "/",
    "/metrics",
    "/v0",
    "/v0/",
    "/v1/health",
    "/v0/health/",
    "/healthz/",
    "/v0//topics",
    "/v0/HEALTH",
    "/V0/health",
    "/v0/topics/",
    "/v0/topics/a/",
    "/v0/topics/a/nope",
    "/v0/topics/a/diff/",
    "/v0/topics/a/diff/b",
  ])("01.02 %s is not found", async (path) => {
    for (const method of ["GET", "POST"]) {
      const { status, headers, body } = await server.send(method, path);
      expect({ method, status, type: headers.get("content-type"), code: body?.error.code }).toEqual({
        method,
        status: 404,
        type: "application/json",
        code: "not_found",
      });
      expect(Object.keys(body.error).sort()).toEqual(["code", "message"]);
    }
  });

  test.each([
    ["a.b", "a%2Eb"],
    ["x:y", "x%3Ay"],
    ["abc", "%61bc"],
  ])("01.11 %s and %s are one topic", async (plain, encoded) => {
    await using own = await startServer();
    const put = await own.send("PUT", `/v0/topics/${encoded}`);
    expect(put).toMatchObject({ status: 201, body: { topic: plain } });
    expect(await own.send("GET", `/v0/topics/${plain}`)).toMatchObject({
      status: 200,
      body: { topic: plain },
    });
    expect((await own.send("PUT", `/v0/topics/${plain}`)).status).toBe(200);
  });

  test.each(["a%2Fb", "a+b", "a%20b", "-a", "_a", ".a", "a%00b", "%C3%A9", "a%zz", "a%", "n".repeat(256)])(
    "01.12 the name %s is refused",
    async (name) => {
      const reply = await server.send("PUT", `/v0/topics/${name}`);
      expect(reply).toMatchObject({ status: 400, body: { error: { code: "invalid_request" } } });
    },
  );

  test("01.12 an undecodable name is refused", async () => {
    for (const [method, path] of [
      ["PUT", "/v0/topics/a%ff"],
      ["GET", "/v0/topics/a%ff"],
      ["POST", "/v0/topics/a%ff/diff"],
    ] as const) {
      expect((await server.send(method, path)).status).toBe(400);
    }
  });

  test("01.12 a name may have 255 bytes", async () => {
    const name = "n".repeat(255);
    expect(await server.send("PUT", `/v0/topics/${name}`)).toMatchObject({
      status: 201,
      body: { topic: name },
    });
  });

  test.each(["..", "%2e%2e", ".", "%2E", "../topics", "a/../../topics/.."])(
    "01.12 %s creates nothing",
    async (name) => {
      await using own = await startServer();
      const answer = await exchange(own.url, head("PUT", `/v0/topics/${name}`, "Content-Length: 0"));
      expect(statusOf(answer)).toBeGreaterThanOrEqual(400);
      expect((await own.send("GET", "/v0/topics")).body.topics).toEqual([]);
    },
  );
});

describe("methods", () => {
  const probes = ["/v0/health", "/v0/ready", "/healthz", "/readyz"];
  const allowed: [string, string[]][] = [
    ["/v0/topics", ["GET", "HEAD"]],
    ...probes.map((path): [string, string[]] => [path, ["GET", "HEAD"]]),
    ["/v0/topics/some", ["DELETE", "GET", "HEAD", "POST", "PUT"]],
    ["/v0/topics/some/diff", ["POST"]],
    ["/v0/topics/some/delete", ["POST"]],
  ];
  const every = ["GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"];
  const cases = allowed.flatMap(([path, methods]) =>
    every.filter((method) => !methods.includes(method)).map((method) => [method, path, methods] as const),
  );

  test.each(cases)("01.03 %s %s is not allowed", async (method, path, methods) => {
    const reply = await server.send(method, path);
    expect(reply).toMatchObject({ status: 405, body: { error: { code: "method_not_allowed" } } });
    expect(reply.body.error.detail).toBeUndefined();
    expect((reply.headers.get("allow") ?? "").split(/ *, */).sort()).toEqual([...methods]);
  });

  test.each(["/v0/topics", "/v0/topics/seen", ...probes])(
    "01.04 HEAD %s is GET without a body",
    async (path) => {
      await server.send("PUT", "/v0/topics/seen");
      const answer = await exchange(server.url, head("HEAD", path));
      expect(statusOf(answer)).toBe(200);
      expect(answer).toMatch(/\r\ncontent-type: application\/json\r\n/i);
      expect(answer.split("\r\n\r\n").slice(1)).toEqual([""]);
    },
  );

  test("01.04 HEAD of an absent topic is 404 without a body", async () => {
    const answer = await exchange(server.url, head("HEAD", "/v0/topics/never-made"));
    expect(statusOf(answer)).toBe(404);
    expect(answer.split("\r\n\r\n").slice(1)).toEqual([""]);
  });
});

describe("body framing", () => {
  test("01.06 a chunked body is read", async () => {
    const answer = await exchange(
      server.url,
      `${head("POST", "/v0/topics/chunked", "Content-Type: application/json", "Transfer-Encoding: chunked")}` +
        `c\r\n{"records":[\r\n9;ext=1\r\n{"data":1\r\n3\r\n}]}\r\n0\r\n\r\n`,
    );
    expect(statusOf(answer)).toBe(201);
    const read = await absentTopic(server, "chunked").diff();
    expect(read.body.records).toMatchObject([{ $seq: 1, data: 1 }]);
  });

  test("01.06 a client that expects 100 gets it, then its answer", async () => {
    const body = '{"records":[{"data":"waited"}]}';
    const answer = await exchange(
      server.url,
      head(
        "POST",
        "/v0/topics/expecting",
        "Content-Type: application/json",
        `Content-Length: ${body.length}`,
        "Expect: 100-continue",
      ),
      body,
    );
    expect(answer).toMatch(/^HTTP\/1\.1 100 [^\r]*\r\n\r\nHTTP\/1\.1 201 /);
    const read = await absentTopic(server, "expecting").diff();
    expect(read.body.records).toMatchObject([{ data: "waited" }]);
  });
});

/** Every endpoint here that parses a body, with a body that it takes. */
const parsing: [method: string, suffix: string, body: string][] = [
  ["PUT", "", "{}"],
  ["POST", "", '{"records":[{"data":1}]}'],
  ["POST", "/diff", "{}"],
  ["POST", "/delete", '{"before_seq":1}'],
];

describe("content types", () => {
  const types = [
    "application/json",
    "application/json; charset=utf-8",
    "application/json;charset=latin1;a=b",
  ];
  test.each(parsing.flatMap((endpoint) => types.map((type) => [...endpoint, type] as const)))(
    "01.07 %s topic%s %s takes %s",
    async (method, suffix, body, type) => {
      const topic = await newTopic(server);
      const reply = await server.send(method, topic.path + suffix, bytes(body), { "content-type": type });
      expect(reply.status).toBe(200);
    },
  );

  const others = [
    "",
    "text/plain",
    "application/xml",
    "application/x-www-form-urlencoded",
    "multipart/form-data",
  ];
  test.each(parsing.flatMap((endpoint) => others.map((type) => [...endpoint, type] as const)))(
    '01.07 %s topic%s %s refuses type "%s"',
    async (method, suffix, body, type) => {
      const topic = await newTopic(server);
      const reply = await server.send(method, topic.path + suffix, bytes(body), { "content-type": type });
      expect(reply).toMatchObject({ status: 415, body: { error: { code: "unsupported_media_type" } } });
    },
  );

  test.each([
    ["PUT", "", 200, 200],
    ["POST", "/diff", 200, 200],
    ["POST", "", 415, 400],
    ["POST", "/delete", 415, 400],
  ])(
    "01.08 %s topic%s with an empty body is %d untyped, %d typed",
    async (method, suffix, untyped, typed) => {
      const { path } = await newTopic(server);
      expect((await server.send(method, path + suffix)).status).toBe(untyped);
      expect(
        (await server.send(method, path + suffix, undefined, { "content-type": "application/json" })).status,
      ).toBe(typed);
    },
  );

  test.each(parsing)("01.08 %s topic%s does not take blanks for nothing", async (method, suffix) => {
    const { path } = await newTopic(server);
    expect((await server.send(method, path + suffix, bytes(" \n"), { "content-type": "" })).status).toBe(415);
    expect((await server.send(method, path + suffix, " \n")).status).toBe(400);
  });

  test("01.08 bodies of GET and DELETE are ignored", async () => {
    const { path } = await newTopic(server);
    const send = (method: string) =>
      exchange(server.url, `${head(method, path, "Content-Type: text/plain", "Content-Length: 3")}{x}`);
    expect([statusOf(await send("GET")), statusOf(await send("DELETE"))]).toEqual([200, 200]);
  });
});

describe("precedence and body size", () => {
  test.each(parsing.slice(1))("01.23 %s absent%s: 415, then 400, then 404", async (method, suffix, body) => {
    const { path } = absentTopic(server);
    const code = async (text: string, type: string) =>
      (await server.send(method, path + suffix, text, { "content-type": type })).body.error?.code;
    expect(await code(body, "text/plain")).toBe("unsupported_media_type");
    expect(await code("{", "application/json")).toBe("invalid_request");
    if (suffix !== "") expect(await code(body, "application/json")).toBe("topic_not_found");
  });

  const limit = 2000;
  const padded = (size: number) => {
    const body = '{"records":[{"data":1}],"pad":""}';
    return body.replace('""', `"${"x".repeat(size - body.length)}"`);
  };
  const streamed = (text: string) => new Blob([text]).stream();

  test("01.22 01.23 an oversized body of the wrong type is 413 without detail", async () => {
    await using own = await startServer({ TOPICS_MAX_BODY_BYTES: `${limit}` });
    const reply = await own.send("POST", "/v0/topics/t/diff", padded(limit + 1), {
      "content-type": "text/plain",
    });
    expect(reply).toMatchObject({ status: 413, body: { error: { code: "payload_too_large" } } });
    expect(Object.keys(reply.body.error).sort()).toEqual(["code", "message"]);
  });

  test.each([
    ["with a length", padded],
    ["chunked", (size: number) => streamed(padded(size))],
  ])("01.24 a body %s may be as long as the limit", async (_, body) => {
    await using own = await startServer({ TOPICS_MAX_BODY_BYTES: `${limit}` });
    expect((await own.send("POST", "/v0/topics/t", body(limit))).status).toBe(201);
    const reply = await own.send("POST", "/v0/topics/t", body(limit + 1));
    expect(reply).toMatchObject({ status: 413, body: { error: { code: "payload_too_large" } } });
    expect((await own.send("GET", "/v0/topics/t")).body.head_seq).toBe(1);
  });

  test("01.24 an endless chunked body is cut off", async () => {
    await using own = await startServer({ TOPICS_MAX_BODY_BYTES: `${limit}` });
    const chunk = `1000\r\n${"x".repeat(4096)}\r\n`;
    const answer = await exchange(
      own.url,
      head("POST", "/v0/topics/t", "Content-Type: application/json", "Transfer-Encoding: chunked") + chunk,
    );
    expect(statusOf(answer)).toBe(413);
  });

  test("01.24 a limit of 0 refuses every body", async () => {
    await using own = await startServer({ TOPICS_MAX_BODY_BYTES: "0" });
    expect((await own.send("PUT", "/v0/topics/t", "{}")).status).toBe(413);
    expect((await own.send("PUT", "/v0/topics/t")).status).toBe(201);
  });
});

test.each(["text/html", "text/event-stream", "application/xml;q=1", "*/*;q=0", "junk", "application/json"])(
  "01.09 Accept %s gets JSON from a JSON endpoint",
  async (accept) => {
    const topic = await newTopic(server);
    const requests = [
      ["GET", "/v0/topics", undefined],
      ["GET", topic.path, undefined],
      ["POST", `${topic.path}/diff`, "{}"],
      ["GET", "/healthz", undefined],
      ["GET", "/nope", undefined],
    ] as const;
    const types = await Promise.all(
      requests.map(async ([method, path, body]) => {
        const { headers } = await server.send(method, path, body, { accept });
        return headers.get("content-type");
      }),
    );
    expect(types).toEqual(requests.map(() => "application/json"));
  },
);
