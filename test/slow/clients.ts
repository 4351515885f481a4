/**
 * Clients that are too slow are cut off, those that are merely slow are not.
 *
 * All of them are looked at side by side, so the file takes as long as the slowest. The slowest come first, as
 * only so many tests run at a time.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { writeFile } from "node:fs/promises";
import { type ClientHttp2Session, connect } from "node:http2";
import { join } from "node:path";
import { newCertificate } from "../support/certificate.ts";
import { answersIn, isAnswer, RawSocket } from "../support/rawsocket.ts";
import { type SpawnedServer, spawnServer, temporaryDirectory } from "../support/spawn.ts";
import { absentTopic, timed } from "../support/topics.ts";

setDefaultTimeout(100_000);

/** By then a client that gets nowhere must be off. */
const CUT_MS = 75_000;
const PAUSE_MS = 20_000;

let server: SpawnedServer;
let secured: SpawnedServer;
const parts = new AsyncDisposableStack();

beforeAll(async () => {
  server = parts.use(await spawnServer());
  const dir = parts.use(await temporaryDirectory());
  const [certFile, keyFile] = [join(dir.path, "cert.pem"), join(dir.path, "key.pem")];
  const { cert, key } = await newCertificate();
  await writeFile(certFile, cert);
  await writeFile(keyFile, key);
  secured = parts.use(
    await spawnServer({ env: { TOPICS_TLS_CERT_FILE: certFile, TOPICS_TLS_KEY_FILE: keyFile } }),
  );
});

afterAll(() => parts.disposeAsync());

const lines = (...all: string[]) => `${all.join("\r\n")}\r\n\r\n`;
const host = "Host: test";
const health = lines("GET /v0/health HTTP/1.1", host);
const write = (framing: string) =>
  lines("POST /v0/topics/unfinished HTTP/1.1", host, "Content-Type: application/json", framing);
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const settings = "\0\0\0\x04\0\0\0\0\0";
/** Whether the server still does its work. */
async function expectServed(): Promise<void> {
  expect((await server.send("GET", "/v0/topics/unfinished")).status).toBe(404);
}

/** Sends the bytes and nothing more, and expects the end of the connection: not at once, but in time. */
async function expectCut(bytes: string): Promise<void> {
  using socket = new RawSocket(server.url);
  const { answer, ms } = await timed(async () => {
    await socket.write(bytes);
    return socket.untilClosed(CUT_MS);
  });
  if (!bytes.startsWith("PRI")) {
    const statuses = answersIn(answer).map(({ status }) => status);
    expect([[], [100], [400], [408], [100, 400], [100, 408]]).toContainEqual(statuses);
  }
  expect(ms).toBeGreaterThan(5000);
  await expectServed();
}

describe.concurrent("is cut off", () => {
  test.each([
    ["no body", write("Content-Length: 24")],
    ["half a body", `${write("Content-Length: 24")}{"records":[`],
    ["no chunk", write("Transfer-Encoding: chunked")],
    ["half a chunk", `${write("Transfer-Encoding: chunked")}18\r\n{"records":[`],
    ["chunks without an end", `${write("Transfer-Encoding: chunked")}18\r\n{"records":[{"data":1}]}\r\n`],
    ["a body that waits for 100 and never comes", write("Content-Length: 24\r\nExpect: 100-continue")],
    ["half a preface of HTTP/2", preface.slice(0, 10)],
    ["a preface and nothing more", preface],
  ])("%s", async (_, bytes) => expectCut(bytes));

  test("a connection that is kept alive and says no more", async () => {
    using socket = new RawSocket(server.url);
    await socket.write(health);
    await socket.until(isAnswer);
    const answer = await socket.untilClosed(CUT_MS);
    expect(answersIn(answer).map(({ status }) => status)).toEqual([200]);
  });

  test("half a request behind an answer", async () => {
    using socket = new RawSocket(server.url);
    await socket.write(health);
    await socket.until(isAnswer);
    await socket.write("GET /v0/heal");
    const answer = await socket.untilClosed(CUT_MS);
    expect([[200], [200, 400], [200, 408]]).toContainEqual(answersIn(answer).map(({ status }) => status));
  });

  test("an HTTP/2 client that answers no ping", async () => {
    using socket = new RawSocket(server.url);
    await socket.write(preface + settings);
    await socket.untilClosed(CUT_MS);
    await expectServed();
  });

  test("an HTTP/2 stream that stops inside its body", async () => {
    const session = connect(server.url);
    session.on("error", () => {});
    try {
      const stream = session.request({
        ":method": "POST",
        ":path": "/v0/topics/unfinished",
        "content-type": "application/json",
      });
      stream.on("error", () => {});
      stream.write('{"records":[');
      const ended = Promise.withResolvers<string>();
      const late = setTimeout(() => ended.resolve("still open"), CUT_MS);
      stream.on("close", () => ended.resolve("closed"));
      expect(await ended.promise).toBe("closed");
      clearTimeout(late);
    } finally {
      session.destroy();
    }
    await expectServed();
  });
});

describe.concurrent("a body that comes in drops", () => {
  test.each([
    ["of known length", write("Content-Length: 100000"), "x"],
    ["in chunks", write("Transfer-Encoding: chunked"), "1\r\nx\r\n"],
  ])("%s gets 408 request_timeout and is cut off", async (_, head, drop) => {
    using socket = new RawSocket(server.url);
    await socket.write(head);
    const drip = setInterval(() => void socket.write(drop), 1000);
    const answer = await socket.untilClosed(CUT_MS).finally(() => clearInterval(drip));
    const [refused] = answersIn(answer);
    expect([refused?.status, JSON.parse(refused!.body).error.code]).toEqual([408, "request_timeout"]);
    await expectServed();
  });
});

/** Answers over one HTTP/2 connection. */
class Session implements Disposable {
  readonly #session: ClientHttp2Session = connect(server.url);

  async send(method: string, path: string, body?: object): Promise<{ status: number; text: string }> {
    const stream = this.#session.request({
      ":method": method,
      ":path": path,
      ...(body === undefined ? {} : { "content-type": "application/json" }),
    });
    stream.end(body === undefined ? undefined : JSON.stringify(body));
    let status = 0;
    stream.on("response", (headers) => {
      status = Number(headers[":status"]);
    });
    let text = "";
    for await (const chunk of stream) text += chunk;
    return { status, text };
  }

  [Symbol.dispose](): void {
    this.#session.destroy();
  }
}

describe.concurrent("is served", () => {
  test.each([PAUSE_MS, 30_000])("a long poll of %d ms", async (wait_ms) => {
    const topic = absentTopic(server, `polled-${wait_ms}`);
    await topic.put();
    const { answer, ms } = await timed(() => topic.diff({ wait_ms }));
    expect(answer).toMatchObject({ status: 200, body: { records: [], caught_up: true } });
    expect(ms).toBeGreaterThan(wait_ms - 10);
  });

  test("a long poll over HTTP/2", async () => {
    const topic = absentTopic(server, "polled-by-stream");
    await topic.put();
    using session = new Session();
    const { answer, ms } = await timed(() =>
      session.send("POST", `${topic.path}/diff`, { wait_ms: PAUSE_MS }),
    );
    expect(answer).toMatchObject({ status: 200, text: expect.stringContaining('"caught_up":true') });
    expect(ms).toBeGreaterThan(PAUSE_MS - 10);
  });

  test("a long poll whose connection was idle before", async () => {
    const topic = absentTopic(server, "polled-late");
    await topic.put();
    using socket = new RawSocket(server.url);
    await socket.write(health);
    await socket.until(isAnswer);
    await Bun.sleep(PAUSE_MS);
    const body = `{"wait_ms":${PAUSE_MS}}`;
    const head = [`POST ${topic.path}/diff HTTP/1.1`, host, "Content-Type: application/json"];
    await socket.write(lines(...head, `Content-Length: ${body.length}`) + body);
    const both = (text: string) => isAnswer(text) && answersIn(text).length === 2;
    const answers = answersIn(await socket.until(both, CUT_MS));
    expect(answers.map(({ status }) => status)).toEqual([200, 200]);
  });

  test("a connection that rests between two requests", async () => {
    using socket = new RawSocket(server.url);
    await socket.write(health);
    await socket.until(isAnswer);
    await Bun.sleep(PAUSE_MS);
    expect(socket.closed).toBe(false);
    await socket.write(health);
    const answers = answersIn(await socket.until((text) => isAnswer(text) && answersIn(text).length === 2));
    expect(answers.map(({ status }) => status)).toEqual([200, 200]);
  });

  test("an HTTP/2 connection that rests between two requests", async () => {
    using session = new Session();
    expect((await session.send("GET", "/v0/health")).status).toBe(200);
    await Bun.sleep(PAUSE_MS);
    expect((await session.send("GET", "/v0/health")).status).toBe(200);
  });

  test("a body with pauses", async () => {
    using socket = new RawSocket(server.url);
    const body = '{"records":[{"data":"slowly"}]}';
    await socket.write(
      lines(
        "POST /v0/topics/slow HTTP/1.1",
        host,
        "Content-Type: application/json",
        `Content-Length: ${body.length}`,
      ),
    );
    for (const piece of [body.slice(0, 5), body.slice(5, 20), body.slice(20)]) {
      await Bun.sleep(PAUSE_MS / 2);
      await socket.write(piece);
    }
    expect(answersIn(await socket.until(isAnswer)).map(({ status }) => status)).toEqual([201]);
    expect((await absentTopic(server, "slow").diff()).body.records).toMatchObject([{ data: "slowly" }]);
  });
});

describe.concurrent("is cut off before a request is complete", () => {
  test.each([
    ["a connection that sends nothing", ""],
    ["half a request line", "GET /v0/hea"],
    ["half a head", `GET /v0/health HTTP/1.1\r\n${host}\r\nX-A: val`],
    ["a head without its last line", `GET /v0/health HTTP/1.1\r\n${host}\r\n`],
  ])("%s", async (_, bytes) => expectCut(bytes));

  test("a head that comes byte by byte, without an end", async () => {
    using socket = new RawSocket(server.url);
    await socket.write(`GET /v0/health HTTP/1.1\r\n${host}\r\nX-A: `);
    const drip = setInterval(() => void socket.write("x"), 1000);
    const answer = await socket.untilClosed(CUT_MS).finally(() => clearInterval(drip));
    expect([[], [400], [408]]).toContainEqual(answersIn(answer).map(({ status }) => status));
    await expectServed();
  });

  test("a TLS connection without a handshake", async () => {
    using socket = new RawSocket(secured.url);
    await socket.untilClosed(CUT_MS);
  });

  test("half a TLS handshake", async () => {
    using socket = new RawSocket(secured.url);
    await socket.write("\x16\x03\x01\x02\0\x01\0");
    await socket.untilClosed(CUT_MS);
  });
});
