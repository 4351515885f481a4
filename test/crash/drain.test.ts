/** How a server that is to stop lets go of its clients, and what it tells of that. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { connect } from "node:http2";
import { join } from "node:path";
import { newCertificate } from "../support/certificate.ts";
import { inOrder, linesOf, shown, started } from "../support/log.ts";
import { answersIn, RawSocket } from "../support/rawsocket.ts";
import { type SpawnedServer, spawnServer, temporaryDirectory } from "../support/spawn.ts";
import { absentTopic, timed, until } from "../support/topics.ts";

setDefaultTimeout(30_000);

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

  test.each(["http", "https"])(
    "01.55 does not wait for connections of %s that were never used",
    async (scheme) => {
      await using dir = await temporaryDirectory();
      const { cert, key } = await newCertificate();
      const files = {
        TOPICS_TLS_CERT_FILE: join(dir.path, "cert"),
        TOPICS_TLS_KEY_FILE: join(dir.path, "key"),
      };
      await writeFile(files.TOPICS_TLS_CERT_FILE, cert);
      await writeFile(files.TOPICS_TLS_KEY_FILE, key);
      await using server = await spawnServer({ env: scheme === "https" ? files : {} });
      const { hostname, port } = new URL(server.url);
      const opened = Promise.withResolvers<void>();
      const closed = Promise.withResolvers<void>();
      await Bun.connect({
        hostname,
        port: Number(port),
        ...(scheme === "https" && { tls: { rejectUnauthorized: false } }),
        socket: {
          open: () => {
            if (scheme === "http") opened.resolve();
          },
          handshake: () => opened.resolve(),
          data: () => {},
          close: () => closed.resolve(),
        },
      });
      await opened.promise;
      // Younger ones are closed in any case.
      await Bun.sleep(1500);
      const { ms, answer: code } = await timed(() => server.stop());
      await closed.promise;
      expect(code).toBe(0);
      expect(ms).toBeLessThan(2000);
      expect(linesOf(server.output()).map(({ msg }) => msg)).toContain("drained");
    },
  );

  test("lets a slow client have the whole of its answer", async () => {
    await using server = await spawnServer();
    const topic = absentTopic(server, "t");
    await topic.append(...Array(8).fill("x".repeat(1_000_000)));
    // Over HTTP/2 a client that does not read leaves no room for more.
    const client = connect(server.url);
    const answer = client.request({
      ":method": "POST",
      ":path": `${topic.path}/diff`,
      "content-type": "application/json",
    });
    answer.end(JSON.stringify({ max_batch_bytes: 8 << 20 }));
    await once(answer, "response");
    const stopping = server.stop();
    await until(
      async () => server.output(),
      (output) => output.includes("signal received"),
    );
    // Much longer than it takes to find out that nothing runs.
    await Promise.race([stopping, Bun.sleep(1000)]);
    let received = "";
    for await (const chunk of answer) received += chunk;
    expect(JSON.parse(received).records).toHaveLength(8);
    expect(await stopping).toBe(0);
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
      (line) => line.level === "warn" && /dropped/.test(line.msg) && line.requests === 1,
      (line) => /saved|complete|stopped/i.test(line.msg),
    ]);
    expect({ missing: found.indexOf(undefined), lines }).toEqual({ missing: -1, lines });
  });
});
