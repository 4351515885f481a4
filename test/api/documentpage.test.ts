/** The page of the API's documentation: what it is made of, how it is sent, and that it needs nothing else. */
import { expect, test } from "bun:test";
import { gunzipSync } from "node:zlib";
import { startServer } from "../support/server.ts";
import { sharedServer } from "../support/topics.ts";

const server = sharedServer();

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

test.each(paths)("%s is sent in gzip to who likes that", async (path) => {
  const plain = await fetch(server.url + path, { headers: { "accept-encoding": "identity" } });
  const packed = await fetch(server.url + path, {
    headers: { "accept-encoding": "gzip" },
    decompress: false,
  });
  expect([plain.headers.get("content-encoding"), packed.headers.get("content-encoding")]).toEqual([
    null,
    "gzip",
  ]);
  expect(gunzipSync(await packed.arrayBuffer()).toString()).toBe(await plain.text());
  for (const { headers } of [plain, packed]) {
    expect(headers.get("vary")).toBe("accept-encoding");
    expect(headers.get("etag")).toBe(plain.headers.get("etag"));
  }
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
