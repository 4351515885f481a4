/** What an operator sees of a server's life: its log from the start to the end. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { newCertificate } from "../support/certificate.ts";
import { inOrder, linesOf, shown, started } from "../support/log.ts";
import { RawSocket } from "../support/rawsocket.ts";
import { command, runToEnd, spawnServer, temporaryDirectory } from "../support/spawn.ts";
import { absentTopic } from "../support/topics.ts";

setDefaultTimeout(30_000);

const request = (method: string, path: string, body = "") =>
  `${method} ${path} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n` +
  `Content-Length: ${body.length}\r\n\r\n${body}`;

describe.concurrent("the log at the start", () => {
  test("has one line each for access, limits, data directory, recovery and address, in this order", async () => {
    await using dir = await temporaryDirectory();
    const limits = {
      TOPICS_MAX_TOPICS: "12345",
      TOPICS_MAX_TOTAL_BYTES: "987654321",
      TOPICS_MAX_BODY_BYTES: "7654321",
      TOPICS_MAX_INFLIGHT_PER_KEY: "4321",
    };
    const options = { dir: join(dir.path, "below", "data"), env: limits };
    {
      await using first = await spawnServer(options);
      for (const name of ["a", "b", "c"]) await absentTopic(first, name).put();
      await first.stop("SIGKILL");
    }
    await using server = await spawnServer(options);
    const lines = await started(server);
    const found = inOrder(lines, [
      (line) => line.level === "warn" && /auth|key|access/i.test(shown(line)),
      (line) => Object.values(limits).every((limit) => shown(line).includes(limit)),
      (line) => shown(line).includes(options.dir),
      (line) => line.topics === 3 && typeof line.recover_ms === "number" && line.recover_ms >= 0,
      (line) => shown(line).includes(new URL(server.url).host),
    ]);
    expect({ missing: found.indexOf(undefined), lines }).toEqual({ missing: -1, lines });
    expect(new Set(found.map((line) => line!.msg)).size).toBe(5);
    expect(found.slice(1).map((line) => line!.level)).toEqual(Array(4).fill("info"));
  });

  test("is JSON, one object a line, with level, UTC time and a message", async () => {
    await using server = await spawnServer();
    const began = Date.now();
    await started(server);
    await server.stop();
    for (const line of linesOf(server.output())) {
      expect(["trace", "debug", "info", "warn", "error", "fatal"]).toContain(line.level);
      expect(line.time).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3,6}Z$/);
      expect(Math.abs(Date.parse(line.time) - began)).toBeLessThan(60_000);
      expect(line.msg).toMatch(/^\S.*\S$/);
    }
  });

  test("tells how many keys there are, and no key", async () => {
    const keys = ["first-secret-7f", "second-secret-8a:read", "third-secret-9b:rw:t42:"];
    await using server = await spawnServer({ env: { TOPICS_API_KEYS: keys.join(" , ") } });
    const lines = await started(server);
    const [access] = inOrder(lines, [(line) => /auth|key|access/i.test(shown(line))]);
    expect(access).toMatchObject({ level: "info" });
    expect(shown(access!)).toMatch(/\b3\b/);
    expect(lines.filter(({ level }) => level !== "info")).toEqual([]);
    expect(server.output()).not.toContain("secret");
  });

  test("tells why there is no start, there and on stderr, at every level", async () => {
    await using dir = await temporaryDirectory();
    const file = join(dir.path, "file");
    await writeFile(file, "");
    const env = { TOPICS_PORT: "0", TOPICS_DATA_DIR: file };
    for (const level of ["info", "error"]) {
      const { exitCode, stdout, stderr } = await runToEnd([], { ...env, RUST_LOG: level });
      expect(exitCode).toBe(1);
      const last = linesOf(stdout).at(-1)!;
      expect(["error", "fatal"]).toContain(last.level);
      expect(shown(last)).toContain(file);
      expect(stderr.trimEnd().split("\n")).toEqual([expect.stringContaining(file)]);
    }
  });

  test("warns of a public address without TLS, and only there", async () => {
    await using dir = await temporaryDirectory();
    const { cert, key } = await newCertificate();
    const files = {
      TOPICS_TLS_CERT_FILE: join(dir.path, "cert"),
      TOPICS_TLS_KEY_FILE: join(dir.path, "key"),
    };
    await writeFile(files.TOPICS_TLS_CERT_FILE, cert);
    await writeFile(files.TOPICS_TLS_KEY_FILE, key);
    // Nobody can listen there, which is found out later.
    const env = { TOPICS_API_KEYS: "k", TOPICS_PORT: "0", TOPICS_DATA_DIR: join(dir.path, "data") };
    const warnings = async (more: Record<string, string>) =>
      linesOf((await runToEnd([], { ...env, ...more })).stdout).filter(({ level }) => level === "warn");
    const host = { TOPICS_HOST: "192.0.2.1" };
    expect(await warnings(host)).toMatchObject([
      { host: "192.0.2.1", msg: expect.stringContaining("in the clear") },
    ]);
    expect(await warnings({ ...host, ...files })).toEqual([]);
    expect(await warnings({ TOPICS_HOST: "127.0.0.1", TOPICS_PORT: "99999" })).toEqual([]);
  });

  test("shows a control character to nobody", async () => {
    await using dir = await temporaryDirectory();
    const file = join(dir.path, "a\u001b[31m\u009b\nb");
    await writeFile(file, "");
    const { stdout, stderr } = await runToEnd([], { TOPICS_PORT: "0", TOPICS_DATA_DIR: file });
    expect(stderr).toContain("a\\u001b[31m\\u009b\\nb");
    expect((stdout + stderr).replaceAll("\n", "")).not.toMatch(/\p{Cc}/u);
    expect(stderr.trimEnd().split("\n")).toHaveLength(1);
  });

  const terminal = Bun.which("script");
  test.skipIf(terminal === null)("has one line for an event on a terminal, too", async () => {
    await using dir = await temporaryDirectory();
    // Where nobody can listen it ends by itself.
    const env = {
      PATH: process.env.PATH ?? "",
      TOPICS_DATA_DIR: join(dir.path, "data"),
      TOPICS_HOST: "192.0.2.1",
    };
    const words = command.map((word) => `'${word}'`).join(" ");
    const child = Bun.spawn([terminal!, "-qec", `TOPICS_API_KEYS=k ${words}`, "/dev/null"], { env });
    const lines = Bun.stripANSI(await new Response(child.stdout).text())
      .trim()
      .split("\r\n");
    for (const line of lines) expect(line).toMatch(/^\[[\d:.]+\] [A-Z]+: |^topics: /);
    expect(lines.length).toBeGreaterThan(4);
  });

  test("01.35 01.59 shows no key that is refused", async () => {
    await using dir = await temporaryDirectory();
    const { exitCode, stdout, stderr } = await runToEnd([], {
      TOPICS_PORT: "0",
      TOPICS_DATA_DIR: join(dir.path, "data"),
      TOPICS_API_KEYS: "good-secret,bad-secret:bogus",
    });
    expect(exitCode).toBe(1);
    expect(stderr.trim()).not.toBe("");
    expect(stdout + stderr).not.toContain("secret");
  });
});

describe.concurrent("the log in between", () => {
  test("has no line for a request", async () => {
    await using server = await spawnServer();
    const before = await started(server);
    for (let i = 0; i < 20; i++) await absentTopic(server, `t${i}`).append(i);
    await server.send("GET", "/v0/nope");
    await server.send("PUT", "/v0/topics/_x", "{");
    await server.stop();
    const after = linesOf(server.output());
    const [signal] = inOrder(after.slice(before.length), [(line) => shown(line).includes("SIGTERM")]);
    expect(after[before.length]).toEqual(signal!);
  });

  test("01.59 holds no key, token or payload, not even at the level trace", async () => {
    await using dir = await temporaryDirectory();
    const env = { RUST_LOG: "trace", TOPICS_API_KEYS: "hidden-key-1,hidden-key-2:read" };
    await using server = await spawnServer({ dir: join(dir.path, "data"), env });
    const headers = { authorization: "Bearer hidden-key-1", "idempotency-key": "hidden-idem" };
    const send = (method: string, path: string, body?: unknown, others = {}) =>
      server.send(method, path, body, { ...headers, ...others });
    const record = {
      data: "hidden-data",
      tag: "hidden-tag",
      node: "hidden-node",
      meta: { k: "hidden-meta" },
    };
    const statuses = [
      await send("POST", "/v0/topics/t?token=hidden-token-1", { records: [record] }),
      await send("POST", "/v0/topics/t/diff?token=hidden-token-2", { node: "hidden-filter" }),
      await send("POST", "/v0/topics/t/delete", { match: "hidden-tag" }),
      await send("POST", "/v0/topics/t", '{"records":"hidden-body'),
      await send("POST", "/v0/topics/t", { records: [{ data: 1, tag: ["hidden-type"] }] }),
      await send("GET", "/v0/topics?cursor=!!!&token=hidden-token-3"),
      await send("GET", "/v0/topics", undefined, { authorization: "Bearer hidden-wrong" }),
      await send("GET", "/v0/topics", undefined, { authorization: "Basic hidden-basic" }),
      await send("GET", "/v0/topics/t/work?node=n&token=hidden-token-4"),
      await send("GET", "/v0/watch/w?token=hidden-token-5"),
      await send("PUT", "/v0/topics/t", {}, { authorization: "Bearer hidden-key-2" }),
    ].map(({ status }) => status);
    expect(statuses.slice(0, 8)).toEqual([201, 200, 200, 400, 400, 400, 401, 401]);
    expect(statuses.at(-1)).toBe(403);
    // A request whose client is gone before it is whole.
    using half = new RawSocket(server.url);
    await half.write(request("POST", "/v0/topics/t", '{"records":[{"data":"hidden-half"}]}').slice(0, -5));
    await server.send("GET", "/v0/health");
    await half.reset();
    expect(await server.stop()).toBe(0);
    expect(server.output()).toContain("SIGTERM");
    expect(server.output()).not.toContain("hidden");
  });
});

describe.concurrent("RUST_LOG", () => {
  /** The levels of all lines from start to stop. */
  async function levels(env: Record<string, string>): Promise<string[]> {
    await using server = await spawnServer({ env });
    await absentTopic(server, "t").append(1);
    await server.send("GET", "/v0/nope");
    expect(await server.stop()).toBe(0);
    return [...new Set(linesOf(server.output()).map(({ level }) => level))].sort();
  }

  test.each([
    ["without keys", {}],
    ["with keys", { TOPICS_API_KEYS: "secret" }],
  ])("01.59 at error a normal start and stop %s print nothing", async (_, env: Record<string, string>) => {
    await using server = await spawnServer({ env: { RUST_LOG: "error", ...env } });
    await server.send("GET", "/v0/nope");
    await server.send("PUT", "/v0/topics/t", "{");
    expect(await server.stop()).toBe(0);
    expect(server.output()).toBe("");
  });

  // Without keys there is always a warning.
  test.each([
    ["warn", ["warn"]],
    ["WARN", ["warn"]],
    ["warn,other=trace", ["warn"]],
    ["other=error,info", ["info", "warn"]],
    ["topics=warn", ["warn"]],
    ["error,topics=info", ["info", "warn"]],
    ["topics=info,error", ["info", "warn"]],
    ["topics=error,info", []],
    ["", ["info", "warn"]],
    ["loudly", ["info", "warn"]],
    ["topics=loudly", ["info", "warn"]],
    ["=", ["info", "warn"]],
  ])("%j shows %j", async (RUST_LOG, shown) => {
    expect(await levels({ RUST_LOG })).toEqual(shown);
  });

  test.each(["debug", "trace"])("%s shows what info shows, and may show more", async (RUST_LOG) => {
    expect(await levels({ RUST_LOG })).toEqual(expect.arrayContaining(["info", "warn"]));
  });
});
