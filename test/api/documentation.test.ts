/** The API document is valid, and says what the server does. */
import { beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { Validator } from "@seriousme/openapi-schema-validator";
import { ApiDocument, type Content } from "../support/document.ts";
import { type Reply, startServer } from "../support/server.ts";
import { sharedServer } from "../support/topics.ts";

setDefaultTimeout(30_000);

const server = sharedServer();

let served: Reply;
let document: ApiDocument;

beforeAll(async () => {
  served = await server.send("GET", "/swagger/json");
  document = new ApiDocument(served.text);
});

const exampleOf = ({ value }: { readonly value: unknown }) => value;

const label = (method: string, path: string, ...rest: string[]) => [method, path, ...rest].join(" ");

const concrete = (path: string) => path.replace("{topic}", "documented");

describe("the document", () => {
  test("is OpenAPI 3.1.0 and valid", async () => {
    expect(document.parts.openapi).toBe("3.1.0");
    expect(await new Validator().validate(served.body)).toMatchObject({ valid: true });
  });

  test("is JSON with an ETag", () => {
    expect(served).toMatchObject({ status: 200 });
    expect(served.headers.get("content-type")).toBe("application/json");
    expect(served.headers.get("etag")).toMatch(/^W\/"[\w-]+"$/);
  });

  test("says exactly how large a seq may be", () => {
    expect(served.text).toContain('"maximum":18446744073709551615');
    expect(served.text).not.toContain("18446744073709552000");
  });

  test.each(["", "/below/a/path"])("leads to the server, wherever a proxy has it: %p", (path) => {
    const [to] = document.parts.servers;
    const base = new URL(to!.url, `https://proxy.example${path}/swagger/json`);
    expect(base.href).toBe(`https://proxy.example${path}/`);
  });

  test.each<[string, string?]>([
    ["64 MiB after inflating", "413"],
    ["127 deep", "400"],
    ["30 seconds", "408"],
    ["10000 records"],
    ["1 MiB of `data` and `meta`"],
    ["feeds 2 MiB"],
    ["8 MiB of events"],
    ["event of a feed: 131072 bytes"],
    ["200 fields", "431"],
  ])("tells of the limit %s", (limit, status = "") => {
    const [, limits] = document.parts.info.description.split("### Limits");
    const line = limits!.split("\n- ").find((line) => line.replaceAll(/\s+/g, " ").includes(limit));
    expect(line).toContain(status);
  });

  test("keeps what only the server understands to itself", () => {
    expect(served.text).not.toMatch(/RawJson|"beyond"|TypeBox/);
  });

  test("has nothing that is named and not used", () => {
    const names = Object.keys(document.parts.components.schemas);
    expect(names.filter((name) => !served.text.includes(`"#/components/schemas/${name}"`))).toEqual([]);
  });

  test("describes every operation and its tag", () => {
    const tags = document.parts.tags.map(({ name }) => name);
    for (const [, , operation] of document.operations) {
      expect(operation.summary).toMatch(/^[A-Z].*[^.]$/);
      expect(operation.description).toMatch(/./);
      expect(tags).toContain(operation.tags[0]!);
    }
  });

  test("says which key an operation needs, to tools and to readers", () => {
    expect(document.parts.components.securitySchemes).toMatchObject({
      key: { type: "http", scheme: "bearer" },
      token: { type: "apiKey", in: "query", name: "token" },
      peer: { type: "http", scheme: "bearer" },
    });
    const withToken: string[] = [];
    for (const [, path, { description, security, parameters = [] }] of document.operations) {
      const [way = {}, ...others] = security;
      const scopes = way.key ?? [];
      if ("peer" in way) expect(description).toContain("Needs the token that is configured for peers");
      else if (scopes.length > 0)
        expect(description).toContain(
          `Needs the scope ${scopes.map((scope) => `\`${scope}\``).join(" and ")}`,
        );
      else expect(description).toMatch("key" in way ? /Needs (?:a|the) key/ : /Open, unless the server/);
      if (others.length > 0) {
        expect(others).toEqual([{ token: scopes }]);
        withToken.push(path);
      }
      expect(parameters.map(({ name }) => name)).not.toContain("token");
    }
    const streams = ["/v0/topics/{topic}/stream", "/v0/topics/{topic}/work", "/v0/watch/{wid}"];
    expect(withToken.sort()).toEqual(streams);
  });

  test("has an example of every request and every answer, and each fits its schema", () => {
    const wrong: unknown[] = [];
    const check = (where: string, { schema, examples = {} }: Content) => {
      if (Object.keys(examples).length === 0) wrong.push([where, "no example"]);
      for (const [name, { value }] of Object.entries(examples)) {
        const found = document.complaints(value, schema);
        if (found.length > 0) wrong.push([where, name, found]);
      }
    };
    for (const [method, path, { parameters = [], requestBody, responses }] of document.operations) {
      for (const { name, in: where, required, schema, example, examples = {} } of parameters) {
        const values = [
          ...(example === undefined ? [] : [example]),
          ...Object.values(examples).map(exampleOf),
        ];
        if (values.some((value) => document.complaints(value, schema).length > 0)) wrong.push([path, name]);
        if ((where === "path" || required) && values.length === 0) wrong.push([path, name, "no example"]);
      }
      for (const content of Object.values(requestBody?.content ?? {})) check(label(method, path), content);
      for (const [status, answer] of Object.entries(responses)) {
        for (const [type, content] of Object.entries(document.answer(answer).content)) {
          check(label(method, path, status, type), content);
        }
      }
    }
    expect(wrong).toEqual([]);
  });
});

describe("the routes", () => {
  test("each documented operation is one of the server", async () => {
    const unknown: string[] = [];
    for (const [method, path] of document.operations) {
      const { status, body } = await server.send(method, concrete(path));
      // A session that is not there is a path that is not there.
      if (path === "/v0/watch/{wid}") expect(body.error.message).toContain("session");
      else if (status === 405 || body?.error?.code === "not_found") unknown.push(label(method, path));
    }
    expect(unknown).toEqual([]);
  });

  test("the methods of each path are the documented ones, and HEAD where there is GET", async () => {
    for (const [path, item] of Object.entries(document.parts.paths)) {
      const { headers } = await server.send("PATCH", concrete(path));
      const documented = Object.keys(item).map((method) => method.toUpperCase());
      const expected = documented.includes("GET") ? [...documented, "HEAD"] : documented;
      expect([path, ...(headers.get("allow") ?? "").split(",").sort()]).toEqual([path, ...expected.sort()]);
    }
  });

  test("are all there", () => {
    expect(document.operations.map(([method, path]) => `${method} ${path}`).sort()).toEqual([
      "DELETE /v0/routers/{router}",
      "DELETE /v0/topics/{topic}",
      "GET /api/peer/status",
      "GET /api/topic/cursor",
      "GET /api/topic/messages",
      "GET /api/topic/subscriptions",
      "GET /healthz",
      "GET /readyz",
      "GET /v0/health",
      "GET /v0/metrics",
      "GET /v0/ready",
      "GET /v0/routers",
      "GET /v0/routers/{router}",
      "GET /v0/topics",
      "GET /v0/topics/{topic}",
      "GET /v0/topics/{topic}/stream",
      "GET /v0/topics/{topic}/work",
      "GET /v0/watch/{wid}",
      "GET /v0/ws",
      "POST /api/peer/backfill",
      "POST /api/peer/events",
      "POST /api/topic/messages",
      "POST /api/topic/subscriptions",
      "POST /v0/tokens",
      "POST /v0/topics/{topic}",
      "POST /v0/topics/{topic}/ack",
      "POST /v0/topics/{topic}/claim",
      "POST /v0/topics/{topic}/delete",
      "POST /v0/topics/{topic}/diff",
      "POST /v0/topics/{topic}/extend",
      "POST /v0/topics/{topic}/nack",
      "POST /v0/watch",
      "PUT /v0/routers/{router}",
      "PUT /v0/topics/{topic}",
    ]);
  });

  test("links lead to operations, with parameters that these have", () => {
    const answers = document.operations.flatMap(([, , { responses }]) => Object.values(responses));
    const links = answers.flatMap(({ links = {} }) => Object.values(links));
    expect(links.map(({ operationId }) => operationId)).toContain("openWatch");
    for (const { operationId, parameters } of links) {
      const names = document.operation(operationId).parameters!.map(({ name }) => name);
      expect(names).toEqual(expect.arrayContaining(Object.keys(parameters)));
    }
  });

  test("any operation may be refused for the key, the load, a failure and a stop", () => {
    for (const [method, path, { operationId, responses }] of document.operations) {
      // Nothing limits how often peers look.
      const load = operationId === "peerStatus" ? [] : ["429"];
      expect([method, path, ...Object.keys(responses)]).toEqual(
        expect.arrayContaining([method, path, "401", ...load, "500", "503"]),
      );
    }
  });

  test("an operation has no answer that it cannot give", () => {
    expect(document.operation("peerStatus").responses).not.toHaveProperty("429");
    expect(document.operation("openSocket").responses).not.toHaveProperty("403");
    const told = (id: string, status: number) => document.operation(id).responses[status]!.description;
    expect(told("putTopic", 409)).not.toContain("router");
    expect(told("ackJobs", 400)).not.toContain("write");
    expect(told("appendRecords", 400)).not.toContain("seqs");
    expect(told("getTopic", 404)).not.toContain("session");
    expect(told("openWatch", 404)).toContain("session");
    expect(told("peerStatus", 401)).toContain("token for peers");
  });
});

describe("the answers are as documented", () => {
  interface Case {
    readonly status: number;
    readonly method: string;
    /** As the document spells it. */
    readonly path: string;
    readonly code?: string;
    readonly topic?: string;
    readonly router?: string;
    readonly query?: string;
    readonly body?: unknown;
    readonly headers?: Record<string, string>;
  }

  const topic = "/v0/topics/{topic}";
  const record = { data: { sku: "mug" }, tag: "a", node: "n", meta: [1] };

  const asked = async (to: { send: typeof server.send }, { method, path, ...rest }: Case) =>
    to.send(
      method,
      path.replace("{topic}", rest.topic ?? "documented").replace("{router}", rest.router ?? "a-%3Eb") +
        (rest.query ?? ""),
      rest.body,
      rest.headers,
    );

  /** Against the documented status, schema, headers and media type. */
  function expectDocumented({ method, path, status, code }: Case, reply: Reply): void {
    expect({ status: reply.status, code: reply.body?.error?.code }).toEqual({ status, code });
    const operation = document.parts.paths[path]?.[method.toLowerCase()];
    const general = status === 405 ? "MethodNotAllowedError" : "NotFoundError";
    const answer = operation?.responses[status] ?? document.parts.components.responses[general];
    expect(answer).toBeDefined();
    const { content, headers = {} } = document.answer(answer!);
    const type = reply.headers.get("content-type") ?? "";
    expect(Object.keys(content)).toContain(type);
    const { schema } = content[type]!;
    const value = type === "application/json" ? reply.body : reply.text;
    expect(document.complaints(value, schema)).toEqual([]);
    for (const [name, { schema }] of Object.entries(headers)) {
      const text = reply.headers.get(name);
      expect(text).not.toBeNull();
      expect(document.complaints(schema.type === "integer" ? Number(text) : text, schema)).toEqual([]);
    }
  }

  const open: Case[] = [
    { status: 200, method: "GET", path: "/v0/health" },
    { status: 200, method: "GET", path: "/healthz" },
    { status: 200, method: "GET", path: "/v0/ready" },
    { status: 200, method: "GET", path: "/readyz" },
    { status: 200, method: "GET", path: "/v0/metrics" },
    { status: 200, method: "GET", path: "/v0/metrics", headers: { accept: "application/json" } },
    { status: 405, method: "DELETE", path: "/v0/health", code: "method_not_allowed" },
    { status: 404, method: "GET", path: "/v1", code: "not_found" },
    { status: 201, method: "PUT", path: topic },
    { status: 200, method: "PUT", path: topic, body: { durability: "fsync", priority: 3, dead_letter: "d" } },
    { status: 201, method: "POST", path: topic, topic: "other", body: { records: [record] } },
    { status: 200, method: "POST", path: topic, body: { records: [record, { data: null }] } },
    {
      status: 200,
      method: "POST",
      path: topic,
      query: "?return_seqs=0",
      headers: { "idempotency-key": "k" },
      body: { records: [record] },
    },
    {
      status: 200,
      method: "POST",
      path: topic,
      headers: { "idempotency-key": "k" },
      body: { records: [record] },
    },
    { status: 200, method: "POST", path: `${topic}/diff` },
    { status: 200, method: "POST", path: `${topic}/diff`, body: { include_tags: true, include_meta: false } },
    { status: 200, method: "POST", path: `${topic}/diff`, body: { from_seq: 9 } },
    { status: 200, method: "GET", path: topic },
    { status: 200, method: "GET", path: "/v0/topics", query: "?page_size=1" },
    { status: 200, method: "GET", path: "/v0/topics", query: "?page_size=x&touch=x" },
    { status: 400, method: "GET", path: "/v0/topics", query: "?cursor=!", code: "invalid_request" },
    { status: 400, method: "GET", path: topic, topic: "a%ff", code: "invalid_request" },
    { status: 400, method: "PUT", path: topic, topic: "_", code: "invalid_request" },
    { status: 400, method: "PUT", path: topic, body: { dead_letter: "_" }, code: "invalid_request" },
    { status: 400, method: "POST", path: topic, body: { records: [] }, code: "invalid_request" },
    {
      status: 400,
      method: "POST",
      path: topic,
      body: { records: Array(10_001).fill({ data: 1 }) },
      code: "batch_too_large",
    },
    {
      status: 400,
      method: "POST",
      path: topic,
      body: { records: [{ data: "x".repeat(2 ** 20) }] },
      code: "record_too_large",
    },
    { status: 404, method: "GET", path: topic, topic: "absent", code: "topic_not_found" },
    {
      status: 404,
      method: "POST",
      path: topic,
      topic: "absent",
      body: { records: [record], create: false },
      code: "topic_not_found",
    },
    { status: 404, method: "POST", path: `${topic}/diff`, topic: "absent", code: "topic_not_found" },
    {
      status: 404,
      method: "POST",
      path: `${topic}/delete`,
      topic: "absent",
      body: { match: "a*" },
      code: "topic_not_found",
    },
    { status: 409, method: "PUT", path: topic, body: { type: "queue" }, code: "topic_exists_incompatible" },
    { status: 409, method: "DELETE", path: topic, query: "?if_empty=1", code: "topic_not_empty" },
    {
      status: 413,
      method: "POST",
      path: topic,
      body: { records: [], rest: "x".repeat(2 ** 21) },
      code: "payload_too_large",
    },
    {
      status: 415,
      method: "POST",
      path: topic,
      body: "{}",
      headers: { "content-type": "text/plain" },
      code: "unsupported_media_type",
    },
    { status: 201, method: "PUT", path: topic, topic: "full", body: { cap_records: 1, discard: "reject" } },
    { status: 200, method: "POST", path: topic, topic: "full", body: { records: [record] } },
    {
      status: 422,
      method: "POST",
      path: topic,
      topic: "full",
      body: { records: [record] },
      code: "topic_full",
    },
    { status: 429, method: "PUT", path: topic, topic: "fourth", code: "throttled" },
    { status: 200, method: "POST", path: `${topic}/delete`, body: { before_seq: 2 } },
    { status: 200, method: "POST", path: topic, topic: "other", body: { records: [record] } },
    { status: 200, method: "PUT", path: topic, topic: "other", body: { cap_records: 1 } },
    { status: 200, method: "POST", path: `${topic}/diff`, topic: "other", body: {} },
    { status: 200, method: "DELETE", path: topic },
    { status: 200, method: "DELETE", path: topic },
  ];

  test("without keys", async () => {
    await using own = await startServer({ TOPICS_MAX_TOPICS: "3", TOPICS_MAX_BODY_BYTES: String(2 ** 21) });
    for (const each of open) expectDocumented(each, await asked(own, each));
  });

  const queue = "q";
  const post = (call: string, body: unknown, more: Partial<Case> = {}): Case => ({
    status: 200,
    method: "POST",
    path: `${topic}/${call}`,
    topic: queue,
    body,
    ...more,
  });
  const route = (status: number, body: unknown, code?: string, router = "a-%3Eb"): Case => ({
    status,
    method: "PUT",
    path: "/v0/routers/{router}",
    router,
    body,
    ...(code && { code }),
  });
  const router = "/v0/routers/{router}";
  const working: Case[] = [
    { status: 201, method: "PUT", path: topic, topic: queue, body: { type: "queue", durability: "fsync" } },
    { status: 201, method: "PUT", path: topic, topic: "a" },
    { status: 200, method: "POST", path: topic, topic: queue, body: { records: [record, { data: 2 }] } },
    post("claim", { node: "n", max: 5 }),
    post("claim", { node: "n" }),
    post("extend", { node: "n", seqs: [1, 9], lease_ms: 60_000 }),
    post("nack", { node: "n", seqs: [1, 9], delay_ms: 1 }),
    post("ack", { node: "n", seqs: [1, 2] }),
    post("ack", { node: "n", seqs: [2 ** 40] }),
    post("ack", { node: "n", seqs: Array(1001).fill(1) }, { status: 400, code: "batch_too_large" }),
    post("claim", { node: "" }, { status: 400, code: "invalid_request" }),
    post("claim", { node: "n" }, { status: 404, topic: "absent", code: "topic_not_found" }),
    post("claim", { node: "n" }, { status: 409, topic: "a", code: "not_a_queue" }),
    post("nack", { node: "n", seqs: [] }, { status: 409, topic: "a", code: "not_a_queue" }),
    post("extend", { node: "n", seqs: [], lease_ms: 1 }, { status: 409, topic: "a", code: "not_a_queue" }),
    { status: 200, method: "GET", path: topic, topic: queue },
    {
      status: 406,
      method: "GET",
      path: `${topic}/work`,
      topic: queue,
      headers: { accept: "text/html" },
      code: "not_acceptable",
    },
    { status: 400, method: "GET", path: `${topic}/work`, topic: queue, code: "invalid_request" },
    { status: 409, method: "GET", path: `${topic}/work`, topic: "a", query: "?node=n", code: "not_a_queue" },
    { status: 404, method: "GET", path: router, code: "router_not_found" },
    route(404, { source: "a", dest: "b", create_dest: false }, "topic_not_found"),
    route(201, { source: "a", dest: "b", filter: "x*", guarantee: "exactly_once" }),
    route(200, { source: "a", dest: "b" }),
    route(409, { source: "a", dest: "c" }, "topic_exists_incompatible"),
    route(409, { source: "c", dest: "b" }, "topic_exists_incompatible", "c-%3Eb"),
    route(409, { source: "b", dest: "a" }, "router_cycle", "b-%3Ea"),
    { status: 200, method: "GET", path: router },
    { status: 200, method: "GET", path: "/v0/routers", query: "?page_size=1&source=a" },
    { status: 400, method: "GET", path: "/v0/routers", query: "?cursor=!", code: "invalid_request" },
    { status: 200, method: "DELETE", path: router },
    { status: 200, method: "DELETE", path: router },
  ];

  test("of queues and routers", async () => {
    for (const each of working) expectDocumented(each, await asked(server, each));
  });

  const keyed: Case[] = [
    { status: 401, method: "GET", path: "/v0/topics", code: "unauthorized" },
    { status: 401, method: "GET", path: "/v0/health", code: "unauthorized" },
    { status: 401, method: "GET", path: "/v0/metrics", code: "unauthorized" },
    { status: 401, method: "PUT", path: topic, code: "unauthorized" },
    {
      status: 403,
      method: "PUT",
      path: topic,
      headers: { authorization: "Bearer reader" },
      code: "forbidden",
    },
    { status: 403, method: "GET", path: topic, headers: { authorization: "Bearer eu" }, code: "forbidden" },
    {
      status: 403,
      method: "PUT",
      path: topic,
      topic: "eu:a",
      headers: { authorization: "Bearer eu" },
      body: { dead_letter: "us:a" },
      code: "forbidden",
    },
    { status: 201, method: "PUT", path: topic, topic: "eu:a", headers: { authorization: "Bearer eu" } },
  ];

  test("with keys", async () => {
    await using own = await startServer({
      TOPICS_API_KEYS: "reader:read,eu::eu:",
      TOPICS_PROBE_AUTH: "1",
      TOPICS_MAX_INFLIGHT_PER_KEY: "1",
    });
    for (const each of keyed) expectDocumented(each, await asked(own, each));
  });

  test("every code that a request can provoke is among them", () => {
    const seen = new Set([...open, ...working, ...keyed].map(({ code }) => code));
    const documented = [...served.text.matchAll(/"code":\{"const":"(\w+)"\}/g)].map((match) => match[1]!);
    expect(documented).toContain("topic_full");
    const unprovoked = ["internal", "request_timeout", "shutting_down"];
    expect(documented.filter((code) => !seen.has(code)).sort()).toEqual(unprovoked);
  });
});
