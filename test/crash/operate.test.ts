/** What an operator sees of a server's life: its log from the start to the end, and how it lets go of its clients. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { answersIn, RawSocket } from "../support/rawsocket.ts";
import { runToEnd, type SpawnedServer, spawnServer, temporaryDirectory } from "../support/spawn.ts";
import { absentTopic, timed, until } from "../support/topics.ts";

setDefaultTimeout(30_000);

interface Line {
  readonly level: string;
  readonly time: string;
  readonly msg: string;
  readonly [field: string]: unknown;
}

const linesOf = (output: string): Line[] =>
  output === ""
    ? []
    : output
        .trimEnd()
        .split("\n")
        .map((line) => JSON.parse(line));

/** A line as text, without its time: a number in there would pass for anything. */
const shown = ({ time, ...line }: Line) => JSON.stringify(line);

/** For every wanted line the first one that fits behind the one before; what is missing is undefined. */
function inOrder(lines: readonly Line[], wanted: readonly ((line: Line) => boolean)[]): (Line | undefined)[] {
  let from = 0;
  return wanted.map((fits) => {
    const found = lines.findIndex((line, i) => i >= from && fits(line));
    if (found < 0) return undefined;
    from = found + 1;
    return lines[found];
  });
}

/** The lines once the last one of the start is there: it holds the address. */
async function started(server: SpawnedServer): Promise<Line[]> {
  const { host } = new URL(server.url);
  await until(
    async () => server.output(),
    (output) => output.endsWith("\n") && output.includes(host),
  );
  return linesOf(server.output());
}

const request = (method: string, path: string, body = "") =>
  `${method} ${path} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n` +
  `Content-Length: ${body.length}\r\n\r\n${body}`;

/** A connection on which a long poll runs. */
async function polling(server: SpawnedServer, waitMs: number): Promise<RawSocket> {
  const topic = absentTopic(server, `polled-${crypto.randomUUID()}`);
  await topic.put();
  const socket = new RawSocket(server.url);
  await socket.write(request("POST", `${topic.path}/diff`, JSON.stringify({ wait_ms: waitMs })));
  await until(
    () => topic.state(),
    ({ body }) => body.last_read_ts !== null,
  );
  return socket;
}

async function refuses(url: string): Promise<boolean> {
  using socket = new RawSocket(url);
  return socket.write("").then(
    () => false,
    () => true,
  );
}

/** Sends the signal and waits until the drain has begun: nobody can connect any more. */
async function drain(server: SpawnedServer, signal: NodeJS.Signals): Promise<{ exit: Promise<number> }> {
  const exit = server.stop(signal);
  await until(
    () => refuses(server.url),
    (is) => is,
  );
  return { exit };
}

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

describe.concurrent("a stop", () => {
  test.each(["SIGTERM", "SIGINT"] as const)("by %s is told: signal, drained, state saved", async (signal) => {
    await using server = await spawnServer();
    const before = await started(server);
    expect(await server.stop(signal)).toBe(0);
    const lines = linesOf(server.output()).slice(before.length);
    const found = inOrder(lines, [
      (line) => shown(line).includes(signal),
      (line) => /drain/i.test(shown(line)),
      (line) => /saved|complete|stopped/i.test(line.msg),
    ]);
    expect({ missing: found.indexOf(undefined), lines }).toEqual({ missing: -1, lines });
    expect(lines.at(-1)!.msg).toMatch(/saved|complete|stopped/i);
    expect(new Set(lines.map(({ level }) => level))).toEqual(new Set(["info"]));
  });

  test.each(["SIGTERM", "SIGINT"] as const)("01.55 by %s lets requests finish and closes", async (signal) => {
    await using server = await spawnServer();
    using poll = await polling(server, 2500);
    const { exit } = await drain(server, signal);
    const [answer, ...others] = answersIn(await poll.untilClosed());
    expect(answer).toMatchObject({ status: 200 });
    expect(answer!.headers.get("connection")?.toLowerCase()).toBe("close");
    expect(JSON.parse(answer!.body)).toMatchObject({ records: [], caught_up: true });
    expect(others).toEqual([]);
    expect(await exit).toBe(0);
  });

  test.each([
    ["SIGTERM", "SIGTERM"],
    ["SIGTERM", "SIGINT"],
    ["SIGINT", "SIGTERM"],
  ] as const)("by %s is not hurried by %s", async (first, second) => {
    await using server = await spawnServer();
    using poll = await polling(server, 2500);
    const { exit } = await drain(server, first);
    process.kill(server.pid, second);
    expect(answersIn(await poll.untilClosed())).toMatchObject([{ status: 200 }]);
    expect(await exit).toBe(0);
    expect(linesOf(server.output()).at(-1)!.msg).toMatch(/saved|complete|stopped/i);
  });

  test("lets a request finish whose body is still to come", async () => {
    await using dir = await temporaryDirectory();
    await using server = await spawnServer({ dir: dir.path });
    const write = request("POST", "/v0/topics/t", '{"records":[{"data":"late"}]}');
    using socket = new RawSocket(server.url);
    await socket.write(write.slice(0, -10));
    await absentTopic(server, "other").put();
    const { exit } = await drain(server, "SIGTERM");
    await socket.write(write.slice(-10));
    const [answer] = answersIn(await socket.untilClosed());
    expect(answer).toMatchObject({ status: 201 });
    expect(answer!.headers.get("connection")?.toLowerCase()).toBe("close");
    expect(await exit).toBe(0);
    await using next = await spawnServer({ dir: dir.path });
    expect((await absentTopic(next, "t").diff()).body.records).toMatchObject([{ data: "late" }]);
  });

  // An idle connection is closed at once; one on which a request has begun to arrive is still open.
  test.each([
    ["GET", "/v0/ready", ""],
    ["GET", "/v0/health", ""],
    ["POST", "/v0/topics/t", '{"records":[{"data":1}]}'],
    ["POST", "/v0/topics/t/diff", '{"wait_ms":30000}'],
  ])("answers %s %s that arrives meanwhile with 503 shutting_down", async (method, path, body) => {
    await using server = await spawnServer();
    await absentTopic(server, "t").put();
    using poll = await polling(server, 2500);
    using late = new RawSocket(server.url);
    const text = request(method, path, body);
    await late.write(text.slice(0, 12));
    await server.send("GET", "/v0/health");
    const { exit } = await drain(server, "SIGTERM");
    await late.write(text.slice(12));
    const [answer] = answersIn(await late.untilClosed());
    expect(answer).toMatchObject({ status: 503 });
    expect(answer!.headers.get("retry-after")).toBe("1");
    expect(answer!.headers.get("connection")?.toLowerCase()).toBe("close");
    const { error, performance } = JSON.parse(answer!.body);
    expect(error).toEqual({ code: "shutting_down", message: expect.stringMatching(/\S/) });
    expect(performance.server_total_ms).toBeNumber();
    expect(poll.closed).toBe(false);
    expect(answersIn(await poll.untilClosed())).toMatchObject([{ status: 200 }]);
    expect(await exit).toBe(0);
  });

  test("01.58 drops what still runs after 10 s, says so, and is a success", async () => {
    await using server = await spawnServer();
    const before = await started(server);
    using poll = await polling(server, 30_000);
    const { ms, answer: code } = await timed(() => server.stop());
    expect(code).toBe(0);
    expect(ms).toBeGreaterThan(8000);
    expect(ms).toBeLessThan(12_000);
    expect(await poll.untilClosed()).not.toContain("HTTP/1.1 2");
    const lines = linesOf(server.output()).slice(before.length);
    const found = inOrder(lines, [
      (line) => shown(line).includes("SIGTERM"),
      (line) => line.level === "warn" && /drain|dropped/i.test(line.msg),
      (line) => /saved|complete|stopped/i.test(line.msg),
    ]);
    expect({ missing: found.indexOf(undefined), lines }).toEqual({ missing: -1, lines });
  });
});
