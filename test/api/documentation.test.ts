/** The API documentation: a valid document that says what the server does, and a page that needs nothing else. */
import { beforeAll, describe, expect, test } from "bun:test";
import { Validator } from "@seriousme/openapi-schema-validator";
import Ajv2020, { type ValidateFunction } from "ajv/dist/2020";
import { type Reply, startServer } from "../support/server.ts";
import { sharedServer } from "../support/topics.ts";

type Json = Record<string, unknown>;

interface Content {
  readonly schema: Json;
  readonly examples?: Record<string, { readonly value: unknown }>;
}

interface Answer {
  readonly $ref?: string;
  readonly description: string;
  readonly headers?: Record<string, { readonly required?: boolean; readonly schema: Json }>;
  readonly content: Record<string, Content>;
}

interface Parameter {
  readonly name: string;
  readonly in: string;
  readonly schema: Json;
  readonly example?: unknown;
}

interface Operation {
  readonly operationId: string;
  readonly summary: string;
  readonly description: string;
  readonly tags: readonly string[];
  readonly security: readonly Record<string, readonly string[]>[];
  readonly parameters?: readonly Parameter[];
  readonly requestBody?: { readonly required: boolean; readonly content: Record<string, Content> };
  readonly responses: Record<string, Answer>;
}

interface Document {
  readonly openapi: string;
  readonly tags: readonly { readonly name: string }[];
  readonly paths: Record<string, Record<string, Operation>>;
  readonly components: {
    readonly schemas: Record<string, Json>;
    readonly responses: Record<string, Answer>;
    readonly securitySchemes: Record<string, Json>;
  };
}

const server = sharedServer();

let served: Reply;
let document: Document;
/** By JSON Schema 2020-12. */
let ajv: Ajv2020;
/** The same, and nothing is let pass that the document does not name. */
let strict: Ajv2020;

beforeAll(async () => {
  served = await server.send("GET", "/swagger/json");
  document = served.body;
  ajv = validators(document.components.schemas);
  strict = validators(closed(document.components.schemas));
});

function validators(schemas: Record<string, Json>): Ajv2020 {
  const ajv = new Ajv2020({ strict: false, validateFormats: false, allErrors: true });
  ajv.addSchema({ $id: "document", components: { schemas } });
  return ajv;
}

/** Objects of the schemas without members that have no name there. */
function closed<T>(value: T): T {
  if (Array.isArray(value)) return value.map(closed) as T;
  if (typeof value !== "object" || value === null) return value;
  const parts = Object.fromEntries(Object.entries(value).map(([name, part]) => [name, closed(part)]));
  const names = parts.type === "object" && parts.properties !== undefined && parts.anyOf === undefined;
  return (names ? { ...parts, additionalProperties: false } : parts) as T;
}

/** What a value has against a schema of the document; nothing if it fits. */
function complaints(value: unknown, schema: Json, by = ajv): unknown[] {
  const text = JSON.stringify(schema).replaceAll('"#/', '"document#/');
  const validate: ValidateFunction = by.compile(JSON.parse(text));
  return validate(value) ? [] : (validate.errors ?? []);
}

const answerOf = (answer: Answer): Answer =>
  answer.$ref === undefined ? answer : document.components.responses[answer.$ref.split("/").at(-1)!]!;

/** Every operation with its method and path. */
const operations = (): [method: string, path: string, Operation][] =>
  Object.entries(document.paths).flatMap(([path, item]) =>
    Object.entries(item).map(([method, operation]): [string, string, Operation] => [
      method.toUpperCase(),
      path,
      operation,
    ]),
  );

const label = (method: string, path: string, ...rest: string[]) => [method, path, ...rest].join(" ");

const concrete = (path: string) => path.replace("{topic}", "documented");

describe("the document", () => {
  test("is OpenAPI 3.1.0 and valid", async () => {
    expect(document.openapi).toBe("3.1.0");
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

  test("keeps what only the server understands to itself", () => {
    expect(served.text).not.toMatch(/RawJson|"beyond"|TypeBox/);
  });

  test("has nothing that is named and not used", () => {
    const names = Object.keys(document.components.schemas);
    expect(names.filter((name) => !served.text.includes(`"#/components/schemas/${name}"`))).toEqual([]);
  });

  test("describes every operation, its scope and its tag", () => {
    const tags = document.tags.map(({ name }) => name);
    const scheme = Object.keys(document.components.securitySchemes);
    expect(document.components.securitySchemes[scheme[0]!]).toMatchObject({ type: "http", scheme: "bearer" });
    for (const [, , operation] of operations()) {
      expect(operation.summary).toMatch(/^[A-Z].*[^.]$/);
      expect(operation.description).toMatch(/./);
      expect(tags).toContain(operation.tags[0]!);
      const scope = operation.security[0]![scheme[0]!]?.[0];
      const isOfPeers = operation.security.some((way) => "peer" in way);
      const open = isOfPeers ? "Needs the token that is configured for peers" : "Open without a key";
      const key = operation.security.length > 1 ? open : /Needs (?:a|the) key/;
      expect(operation.description).toMatch(scope ? `Needs the scope \`${scope}\`` : key);
    }
  });

  test("has an example of every request and every answer, and each fits its schema", () => {
    const wrong: unknown[] = [];
    const check = (where: string, { schema, examples = {} }: Content) => {
      if (Object.keys(examples).length === 0) wrong.push([where, "no example"]);
      for (const [name, { value }] of Object.entries(examples)) {
        const found = complaints(value, schema, strict);
        if (found.length > 0) wrong.push([where, name, found]);
      }
    };
    for (const [method, path, { parameters = [], requestBody, responses }] of operations()) {
      for (const { name, schema, example } of parameters) {
        if (example !== undefined && complaints(example, schema).length > 0) wrong.push([path, name]);
      }
      for (const content of Object.values(requestBody?.content ?? {})) check(label(method, path), content);
      for (const [status, answer] of Object.entries(responses)) {
        for (const [type, content] of Object.entries(answerOf(answer).content)) {
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
    for (const [method, path] of operations()) {
      const { status, body } = await server.send(method, concrete(path));
      // A session that is not there is a path that is not there.
      if (path === "/v0/watch/{wid}") expect(body.error.message).toContain("session");
      else if (status === 405 || body?.error?.code === "not_found") unknown.push(label(method, path));
    }
    expect(unknown).toEqual([]);
  });

  test("the methods of each path are the documented ones, and HEAD where there is GET", async () => {
    for (const [path, item] of Object.entries(document.paths)) {
      const { headers } = await server.send("PATCH", concrete(path));
      const documented = Object.keys(item).map((method) => method.toUpperCase());
      const expected = documented.includes("GET") ? [...documented, "HEAD"] : documented;
      expect([path, ...(headers.get("allow") ?? "").split(",").sort()]).toEqual([path, ...expected.sort()]);
    }
  });

  test.each([
    "/v0/health",
    "/healthz",
    "/v0/ready",
    "/readyz",
    "/v0/metrics",
    "/v0/topics",
    "/v0/topics/{topic}",
    "/v0/topics/{topic}/diff",
    "/v0/topics/{topic}/delete",
    "/v0/topics/{topic}/claim",
    "/v0/topics/{topic}/ack",
    "/v0/topics/{topic}/nack",
    "/v0/topics/{topic}/extend",
    "/v0/topics/{topic}/work",
    "/v0/routers",
    "/v0/routers/{router}",
  ])("%s is documented", (path) => {
    expect(document.paths).toHaveProperty([path]);
  });

  test("any operation may be refused for the key, the load, a failure and a stop", () => {
    for (const [method, path, { responses }] of operations()) {
      expect([method, path, ...Object.keys(responses)]).toEqual(
        expect.arrayContaining([method, path, "401", "429", "500", "503"]),
      );
    }
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
    const operation = document.paths[path]?.[method.toLowerCase()];
    const general = status === 405 ? "MethodNotAllowedError" : "NotFoundError";
    const answer = operation?.responses[status] ?? document.components.responses[general];
    expect(answer).toBeDefined();
    const { content, headers = {} } = answerOf(answer!);
    const type = reply.headers.get("content-type") ?? "";
    expect(Object.keys(content)).toContain(type);
    const { schema } = content[type]!;
    const value = type === "application/json" ? reply.body : reply.text;
    expect(complaints(value, schema)).toEqual([]);
    expect(complaints(value, schema, strict)).toEqual([]);
    for (const [name, { schema }] of Object.entries(headers)) {
      const text = reply.headers.get(name);
      expect(text).not.toBeNull();
      expect(complaints(schema.type === "integer" ? Number(text) : text, schema)).toEqual([]);
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

describe("the page", () => {
  const paths = [
    ["/swagger", "text/html; charset=utf-8"],
    ["/swagger/json", "application/json"],
    ["/swagger/start.js", "text/javascript; charset=utf-8"],
    ["/swagger/swagger-ui-bundle.js", "text/javascript; charset=utf-8"],
    ["/swagger/swagger-ui.css", "text/css; charset=utf-8"],
  ] as const;

  test.each(paths)("%s is %s", async (path, type) => {
    const reply = await server.send("GET", path);
    expect(reply.status).toBe(200);
    expect(reply.headers.get("content-type")).toBe(type);
    expect(reply.headers.get("x-content-type-options")).toBe("nosniff");
    expect(reply.headers.get("cache-control")).toBe("no-cache");
    expect(reply.text.length).toBeGreaterThan(100);
  });

  test.each(paths)("%s is not sent again to who has it", async (path) => {
    const etag = (await server.send("GET", path)).headers.get("etag")!;
    for (const known of [etag, `"other", ${etag}`, etag.slice(2), "*"]) {
      const reply = await server.send("GET", path, undefined, { "if-none-match": known });
      expect(reply).toMatchObject({ status: 304, text: "" });
      expect(reply.headers.get("etag")).toBe(etag);
    }
    expect(await server.send("GET", path, undefined, { "if-none-match": '"other"' })).toMatchObject({
      status: 200,
    });
  });

  test.each(paths)("%s has a HEAD", async (path, type) => {
    const reply = await server.send("HEAD", path);
    expect(reply).toMatchObject({ status: 200, text: "" });
    expect(reply.headers.get("content-type")).toBe(type);
    expect(reply.headers.get("etag")).toMatch(/./);
  });

  test.each(paths)("%s knows GET and HEAD only", async (path) => {
    const reply = await server.send("POST", path, {});
    expect(reply).toMatchObject({ status: 405, body: { error: { code: "method_not_allowed" } } });
    expect(reply.headers.get("allow")!.split(",").sort()).toEqual(["GET", "HEAD"]);
  });

  test("runs only scripts of its own, and none inside the page", async () => {
    const { headers, text } = await server.send("GET", "/swagger");
    const policy = headers.get("content-security-policy")!.split("; ");
    expect(policy).toContain("default-src 'none'");
    expect(policy).toContain("script-src 'self'");
    expect(policy).toContain("connect-src 'self'");
    const scripts = [...text.matchAll(/<script([^>]*)>([^<]*)/g)];
    expect(scripts.length).toBeGreaterThan(0);
    for (const [, attributes, inside] of scripts) {
      expect(attributes).toContain("src=");
      expect(inside).toBe("");
    }
  });

  test("asks no other host for anything, and everything that it asks for is there", async () => {
    const page = await server.send("GET", "/swagger");
    const start = await server.send("GET", "/swagger/start.js");
    const links = [...page.text.matchAll(/(?:src|href)="([^"]+)"/g)].map((match) => match[1]!);
    const document = /url: "([^"]+)"/.exec(start.text)![1]!;
    const fetched = [...links, document].filter((link) => !link.startsWith("data:"));
    expect(fetched.length).toBeGreaterThan(3);
    for (const link of fetched) {
      const target = new URL(link, `${server.url}/swagger`);
      expect(target.origin).toBe(server.url);
      expect((await server.send("GET", target.pathname)).status).toBe(200);
    }
    expect(page.text.replaceAll("http://www.w3.org/2000/svg", "")).not.toMatch(/https?:|[("']\/\//);
    expect(start.text).toContain("validatorUrl: null");
  });

  test("is open where everything else needs a key", async () => {
    await using own = await startServer({ TOPICS_API_KEYS: "secret", TOPICS_PROBE_AUTH: "1" });
    for (const [path] of paths) expect((await own.send("GET", path)).status).toBe(200);
    expect((await own.send("GET", "/v0/topics")).status).toBe(401);
  });

  test("what is not there is an unknown path", async () => {
    const reply = await server.send("GET", "/swagger/absent.js");
    expect(reply).toMatchObject({ status: 404, body: { error: { code: "not_found" } } });
  });
});
