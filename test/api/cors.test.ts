/** Cross-origin requests of web pages: off unless origins are configured, and then on every answer. */
import { describe, expect, test } from "bun:test";
import { type Reply, startServer } from "../support/server.ts";
import { newTopic, sharedServer } from "../support/topics.ts";

const page = "https://app.example";

/** Every path, with the methods that a page may want to use there. */
const paths: [path: string, methods: string[]][] = [
  ["/v0/topics", ["GET"]],
  ["/v0/topics/some", ["GET", "PUT", "POST", "DELETE"]],
  ["/v0/topics/some/diff", ["POST"]],
  ["/v0/topics/some/delete", ["POST"]],
  ["/v0/topics/some/stream", ["GET"]],
  ["/v0/watch/some", ["GET"]],
  ["/v0/metrics", ["GET"]],
  ["/v0/health", ["GET"]],
  ["/v0/ready", ["GET"]],
  ["/healthz", ["GET"]],
  ["/readyz", ["GET"]],
];
const calls = paths.flatMap(([path, methods]) => methods.map((method) => [method, path] as const));

const preflight = (method: string, origin = page) => ({
  origin,
  "access-control-request-method": method,
  "access-control-request-headers": "authorization,content-type,idempotency-key,last-event-id",
});

/** The names of a comma-separated header in lower case. */
const list = (reply: Reply, header: string) =>
  (reply.headers.get(header) ?? "").toLowerCase().split(/ *, */).filter(Boolean);

const allowed = ({ headers }: Reply) => headers.get("access-control-allow-origin");

const crossOriginFields = ({ headers }: Reply) =>
  [...headers.keys()].filter((name) => name.startsWith("access-control-"));

describe("without configured origins", () => {
  const server = sharedServer();

  test.each(calls)("1 a preflight for %s %s is any OPTIONS: 405", async (method, path) => {
    const reply = await server.send("OPTIONS", path, undefined, preflight(method));
    expect(reply).toMatchObject({ status: 405, body: { error: { code: "method_not_allowed" } } });
    expect(list(reply, "allow")).toContain(method.toLowerCase());
    expect(crossOriginFields(reply)).toEqual([]);
  });

  test.each(["GET", "PUT", "POST", "HEAD"])("1 an answer to %s says nothing of origins", async (method) => {
    const { path } = await newTopic(server);
    const body = method === "POST" ? { records: [{ data: 1 }] } : undefined;
    const reply = await server.send(method, path, body, { origin: page });
    expect([reply.status, crossOriginFields(reply), reply.headers.get("vary")]).toEqual([200, [], null]);
  });

  test.each(["", "  ", ","])('"%s" is no origin', async (origins) => {
    await using own = await startServer({ TOPICS_CORS_ORIGINS: origins });
    const reply = await own.send("GET", "/v0/health", undefined, { origin: page });
    expect([reply.status, crossOriginFields(reply)]).toEqual([200, []]);
    expect((await own.send("OPTIONS", "/v0/health", undefined, preflight("GET"))).status).toBe(405);
  });
});

describe("with configured origins", () => {
  const server = sharedServer({
    TOPICS_CORS_ORIGINS: `${page}, http://localhost:5173`,
    TOPICS_API_KEYS: "mine,reader:read",
    TOPICS_MAX_TOPICS: "1",
    TOPICS_MAX_BODY_BYTES: "5000",
  });
  const key = { authorization: "Bearer mine" };

  test.each(calls)("a preflight for %s %s needs no key", async (method, path) => {
    const reply = await server.send("OPTIONS", path, undefined, preflight(method));
    expect([200, 204]).toContain(reply.status);
    expect(reply.text).toBe("");
    expect(allowed(reply)).toBe(page);
    expect(list(reply, "access-control-allow-methods")).toContain(method.toLowerCase());
    for (const field of ["authorization", "content-type", "idempotency-key", "last-event-id"])
      expect(list(reply, "access-control-allow-headers")).toContain(field);
    expect(reply.headers.has("access-control-allow-credentials")).toBe(false);
    expect(list(reply, "vary")).toContain("origin");
  });

  test.each([
    ["without an origin", { "access-control-request-method": "GET" }],
    ["without a method", { origin: page }],
    ["with neither", {}],
  ])("01.03 an OPTIONS %s is none: 405 with Allow, and 404 on an unknown path", async (_, fields) => {
    const ask = (path: string, more = {}) => server.send("OPTIONS", path, undefined, { ...fields, ...more });
    const known = await ask("/v0/topics/some/diff", key);
    expect([known.status, known.headers.get("allow")]).toEqual([405, "POST"]);
    expect([(await ask("/v0/nope", key)).status, (await ask("/v0/topics")).status]).toEqual([404, 401]);
  });

  test("a preflight changes nothing and tells nothing", async () => {
    await server.send("PUT", "/v0/topics/only", {}, key);
    for (const method of ["PUT", "POST", "DELETE"])
      await server.send("OPTIONS", "/v0/topics/only", undefined, { ...preflight(method), ...key });
    const { body } = await server.send("GET", "/v0/topics", undefined, key);
    expect(body.topics).toMatchObject([{ topic: "only", head_seq: 0 }]);
  });

  test.each([page, "http://localhost:5173"])("%s may read every answer", async (origin) => {
    const headers = { origin, "content-type": "application/json", "accept-encoding": "identity" };
    const path = "/v0/topics/only";
    await server.send("PUT", path, {}, key);
    const send = (method: string, at: string, body?: unknown, more: Record<string, string> = key) =>
      server.send(method, at, body, { ...headers, ...more });
    const record = { records: [{ data: 1 }] };
    const replies: [number, Reply][] = [
      [200, await send("PUT", path, {})],
      [200, await send("POST", path, record)],
      [200, await send("POST", `${path}/diff`, {})],
      [200, await send("GET", path)],
      [200, await send("HEAD", path)],
      [200, await send("GET", "/v0/topics")],
      [200, await send("GET", "/v0/metrics")],
      [200, await send("GET", "/v0/health", undefined, {})],
      [400, await send("POST", path, "{")],
      [400, await send("GET", "/v0/topics/a%ff")],
      [401, await send("GET", path, undefined, {})],
      [401, await send("GET", "/nope", undefined, { authorization: "Bearer other" })],
      [403, await send("POST", path, record, { authorization: "Bearer reader" })],
      [404, await send("GET", "/v0/topics/absent")],
      [404, await send("GET", "/nope")],
      [405, await send("PATCH", path)],
      [413, await send("POST", path, { records: [{ data: "x".repeat(5000) }] })],
      [415, await send("POST", path, "{}", { ...key, "content-type": "text/plain" })],
      [429, await send("PUT", "/v0/topics/another", {})],
    ];
    for (const [status, reply] of replies) {
      expect([reply.status, allowed(reply)]).toEqual([status, origin]);
      expect(list(reply, "vary")).toContain("origin");
      expect(reply.headers.has("access-control-allow-credentials")).toBe(false);
      if (status === 405) expect(list(reply, "access-control-expose-headers")).toContain("allow");
      if (status === 429) expect(list(reply, "access-control-expose-headers")).toContain("retry-after");
    }
    expect(replies.at(-1)![1].headers.get("retry-after")).toBe("1");
    expect(list(replies.find(([status]) => status === 405)![1], "allow")).toContain("put");
  });

  test("a compressed answer depends on origin and encoding", async () => {
    const path = "/v0/topics/only";
    await server.send("PUT", path, {}, key);
    await server.send("POST", path, { records: [{ data: "x".repeat(4000) }] }, key);
    const headers = { ...key, origin: page, "accept-encoding": "gzip" };
    const reply = await server.send("POST", `${path}/diff`, {}, headers);
    const document = await server.send("GET", "/swagger/json", undefined, headers);
    for (const each of [reply, document]) {
      expect([each.status, allowed(each)]).toEqual([200, page]);
      expect(list(each, "vary").sort()).toEqual(["accept-encoding", "origin"]);
    }
  });

  test.each([
    "https://other.example",
    "http://app.example",
    "https://app.example:8443",
    "https://app.example.other.example",
    "https://sub.app.example",
    "https://app.example/",
    "https://appxexample",
    "xhttps://app.example",
    "http://localhost",
    "http://localhost:51730",
    "null",
    "*",
  ])("%s is served, and its page may not read it", async (origin) => {
    const reply = await server.send("GET", "/v0/topics", undefined, { ...key, origin });
    expect([reply.status, allowed(reply)]).toEqual([200, null]);
    const asked = await server.send("OPTIONS", "/v0/topics", undefined, preflight("GET", origin));
    expect(allowed(asked)).toBeNull();
    const refused = await server.send("GET", "/v0/topics", undefined, { origin });
    expect([refused.status, allowed(refused)]).toEqual([401, null]);
  });

  test("a request without an origin is served as ever", async () => {
    const reply = await server.send("GET", "/v0/topics", undefined, key);
    expect([reply.status, allowed(reply)]).toEqual([200, null]);
    const patched = await server.send("PATCH", "/v0/topics", undefined, key);
    expect([patched.status, list(patched, "allow").sort()]).toEqual([405, ["get", "head"]]);
  });
});

describe("with any origin", () => {
  const server = sharedServer({ TOPICS_CORS_ORIGINS: "*", TOPICS_API_KEYS: "mine" });
  const key = { authorization: "Bearer mine" };

  test.each(calls)("a preflight for %s %s needs no key", async (method, path) => {
    const reply = await server.send("OPTIONS", path, undefined, preflight(method, "https://who.example"));
    expect([200, 204]).toContain(reply.status);
    expect(allowed(reply)).toBe("*");
    expect(list(reply, "access-control-allow-methods")).toContain(method.toLowerCase());
    // With a key in the request `*` does not stand for `authorization`.
    for (const field of ["authorization", "content-type", "idempotency-key", "last-event-id"])
      expect(list(reply, "access-control-allow-headers")).toContain(field);
    expect(reply.headers.has("access-control-allow-credentials")).toBe(false);
  });

  test.each(["https://who.example", "http://localhost:1", "null"])(
    "%s may read every answer",
    async (origin) => {
      const send = (method: string, path: string, headers: Record<string, string>) =>
        server.send(method, path, undefined, { origin, ...headers });
      const replies = [
        await send("GET", "/v0/topics", key),
        await send("GET", "/v0/metrics", key),
        await send("GET", "/v0/health", {}),
        await send("GET", "/v0/topics", {}),
        await send("GET", "/nope", key),
        await send("PATCH", "/v0/topics", key),
      ];
      expect(replies.map(({ status }) => status)).toEqual([200, 200, 200, 401, 404, 405]);
      for (const reply of replies) {
        expect(allowed(reply)).toBe("*");
        expect(reply.headers.has("access-control-allow-credentials")).toBe(false);
        expect(list(reply, "access-control-expose-headers")).toEqual(
          expect.arrayContaining(["allow", "retry-after"]),
        );
      }
    },
  );
});
