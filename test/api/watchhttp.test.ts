/** Watch streams over every version of HTTP, byte by byte; `HEAD`, methods and connections that end. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { type ClientHttp2Session, connect, type IncomingHttpHeaders } from "node:http2";
import { EventStream, eventIn } from "../support/eventstream.ts";
import { answersIn, isAnswer, RawSocket } from "../support/rawsocket.ts";
import { newTopic, sharedServer, type Topic, together } from "../support/topics.ts";
import { eventsTo, fill, idOf, newSession, openStreams, recordsIn, tell, told } from "../support/watch.ts";

setDefaultTimeout(20_000);

const server = sharedServer();

const RETRY = "retry: 2000\n\n";

const filled = async (n: number): Promise<Topic> => {
  const topic = await newTopic(server);
  await fill(topic, n);
  return topic;
};

/** What the blocks of a stream say, in short, behind its `retry`. */
function saidIn(body: string): string[] {
  expect(body).toStartWith(RETRY);
  const blocks = body.slice(RETRY.length).split(/(?<=\n\n)/);
  return blocks.map((block) => told(eventIn(block)!));
}

const bodyOf = (received: string) => received.slice(received.indexOf("\r\n\r\n") + 4);
const headOf = (received: string) => received.slice(0, received.indexOf("\r\n\r\n")).toLowerCase();

describe("3.1 HTTP/1.0", () => {
  test.each([
    ["alone", ""],
    ["with a host", "Host: test\r\n"],
    ["that wants to stay", "Host: test\r\nConnection: keep-alive\r\n"],
  ])("%s gets the body as it is, until the connection closes", async (_, fields) => {
    const topic = await filled(1);
    const { path } = await newSession(server, [topic]);
    using socket = new RawSocket(server.url);
    await socket.write(`GET ${path} HTTP/1.0\r\n${fields}\r\n`);
    const begun = await socket.until((text) => text.includes("event: caught-up") && text.endsWith("\n\n"));
    await topic.append(2);
    await socket.until((text) => text.split("event: caught-up").length === 3 && text.endsWith("\n\n"));
    await topic.drop();
    const all = await socket.untilClosed();

    expect(begun).toMatch(/^HTTP\/1\.[01] 200 /);
    expect(headOf(all)).toContain("content-type: text/event-stream");
    expect(headOf(all)).not.toContain("transfer-encoding");
    expect(headOf(all)).not.toContain("content-length");
    expect(saidIn(bodyOf(all))).toEqual(
      ["1", "at 1", "2", "at 2", "deleted"].map((said) => `${topic.name} ${said}`),
    );
  });

  test("Last-Event-ID is read", async () => {
    const topic = await filled(3);
    const { path } = await newSession(server, { [topic.name]: { tail: true } });
    using socket = new RawSocket(server.url);
    await socket.write(`GET ${path} HTTP/1.0\r\nLast-Event-ID: ${idOf({ [topic.name]: 1 })}\r\n\r\n`);
    const text = await socket.until((text) => text.includes("event: caught-up") && text.endsWith("\n\n"));
    expect(saidIn(bodyOf(text))).toEqual([`${topic.name} 2 3`, `${topic.name} at 3`]);
  });
});

describe("HTTP/1.1", () => {
  test("05.15 gets chunks that end with the stream, and the connection stays good", async () => {
    const topic = await filled(1);
    const { path } = await newSession(server, [topic]);
    using socket = new RawSocket(server.url);
    await socket.write(`GET ${path} HTTP/1.1\r\nHost: test\r\n\r\n`);
    await socket.until((text) => text.includes("event: caught-up"));
    await topic.drop();
    const [answer] = answersIn(await socket.until(isAnswer));
    await socket.write("GET /v0/health HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    const [, health] = answersIn(await socket.untilClosed());

    expect(answer?.status).toBe(200);
    expect(answer?.headers.get("transfer-encoding")).toBe("chunked");
    expect(saidIn(answer!.body)).toEqual(["1", "at 1", "deleted"].map((said) => `${topic.name} ${said}`));
    expect(health?.status).toBe(200);
  });

  test.each(["gzip", "gzip, deflate, br, zstd", "br", "*"])(
    "3.1 is never compressed: %s",
    async (encodings) => {
      const topic = await newTopic(server);
      await topic.append("compressible ".repeat(10_000));
      const { path } = await newSession(server, [topic]);
      using socket = new RawSocket(server.url);
      await socket.write(`GET ${path} HTTP/1.1\r\nHost: test\r\nAccept-Encoding: ${encodings}\r\n\r\n`);
      const text = await socket.until((text) => text.includes("event: caught-up"));
      expect(headOf(text)).not.toContain("content-encoding");
      expect(text).toContain(RETRY);
      expect(text).toContain("compressible compressible");
    },
  );

  test("a client that resets its connection is not counted any more", async () => {
    const topic = await newTopic(server);
    const { path } = await newSession(server, [topic]);
    using socket = new RawSocket(server.url);
    await socket.write(`GET ${path} HTTP/1.1\r\nHost: test\r\n\r\n`);
    await socket.until((text) => text.includes("event: caught-up"));
    await openStreams(server, 1);
    await socket.reset();
    await openStreams(server, 0);
  });
});

describe("HTTP/2 in clear text", () => {
  /** One connection, closed on disposal. */
  class Connection implements Disposable {
    readonly session: ClientHttp2Session;

    constructor() {
      this.session = connect(server.url);
      // What goes wrong with the connection ends its streams, and there it is seen.
      this.session.on("error", () => {});
    }

    /** Sends a request with these fields and gives the fields of the answer. */
    async request(method: string, path: string, fields: Record<string, string> = {}) {
      const stream = this.session.request({ ":method": method, ":path": path, ...fields });
      stream.end();
      const answered = Promise.withResolvers<IncomingHttpHeaders>();
      stream.once("response", answered.resolve);
      stream.once("error", answered.reject);
      return { stream, headers: await answered.promise };
    }

    [Symbol.dispose](): void {
      this.session.destroy();
    }
  }

  test("3.1 01.05 tells backlog, live records and the end", async () => {
    using connection = new Connection();
    const topic = await filled(2);
    const { path } = await newSession(server, [topic]);
    await using stream = await EventStream.openOver(connection.session, path);
    expect(stream.headers.get("content-type")).toMatch(/^text\/event-stream(;|$)/);
    expect(stream.headers.get("cache-control")).toBe("no-store");
    expect(stream.headers.get("x-accel-buffering")).toBe("no");
    expect(await stream.block()).toBe(RETRY);
    expect(await tell(stream, 2)).toEqual([`${topic.name} 1 2`, `${topic.name} at 2`]);
    for (let n = 3; n <= 20; n++) {
      await topic.append(n);
      expect(await tell(stream, 2)).toEqual([`${topic.name} ${n}`, `${topic.name} at ${n}`]);
    }
    await topic.drop();
    expect(await tell(stream, 1)).toEqual([`${topic.name} deleted`]);
    expect(await stream.rest()).toBe("");
  });

  test("many streams share one connection", async () => {
    using connection = new Connection();
    const topics = await together(50, () => newTopic(server));
    const streams = await Promise.all(
      topics.map(async (topic) => {
        const { path } = await newSession(server, [topic]);
        const stream = await EventStream.openOver(connection.session, path);
        await stream.event();
        return stream;
      }),
    );
    await together(50, (i) => topics[i]!.append(i));
    for (const [i, stream] of streams.entries()) {
      const events = await eventsTo(stream, topics[i]!, 1);
      expect(recordsIn(events)).toMatchObject([{ $seq: 1, data: i }]);
    }
    await openStreams(server, 50);
    await Promise.all(streams.slice(10).map((stream) => stream.close()));
    await openStreams(server, 10);
    connection.session.destroy();
    await openStreams(server, 0);
  });

  test("a backlog of megabytes comes whole, with other requests in between", async () => {
    using connection = new Connection();
    const topic = await newTopic(server);
    for (let n = 1; n <= 8; n++) await topic.append(n + "x".repeat(900_000));
    const { path } = await newSession(server, [topic]);
    await using stream = await EventStream.openOver(connection.session, path);
    const { headers, stream: health } = await connection.request("GET", "/v0/health");
    health.close();
    const events = await eventsTo(stream, topic, 8);
    expect(headers).toMatchObject({ ":status": 200 });
    expect(recordsIn(events).map(({ data }) => data.length)).toEqual(Array(8).fill(900_001));
  });

  test("Last-Event-ID is read, and nothing is compressed", async () => {
    using connection = new Connection();
    const topic = await filled(3);
    const { path } = await newSession(server, { [topic.name]: { tail: true } });
    const fields = { "last-event-id": idOf({ [topic.name]: 1 }), "accept-encoding": "gzip" };
    const { stream, headers } = await connection.request("GET", path, fields);
    await using events = new EventStream(new Headers(), stream, () => stream.close());
    expect(headers["content-encoding"]).toBeUndefined();
    expect(await tell(events, 2)).toEqual([`${topic.name} 2 3`, `${topic.name} at 3`]);
  });

  test("HEAD has the headers and ends", async () => {
    using connection = new Connection();
    const { path } = await newSession(server, [await filled(1)]);
    const { stream, headers } = await connection.request("HEAD", path);
    let body = "";
    for await (const chunk of stream) body += chunk;
    expect(headers).toMatchObject({ ":status": 200, "cache-control": "no-store" });
    expect(headers["content-type"]).toMatch(/^text\/event-stream(;|$)/);
    expect(body).toBe("");
  });
});

describe("3.1 HEAD", () => {
  const json = { accept: "application/json" };

  test("leaves its connection good", async () => {
    const { path } = await newSession(server, [await filled(1)]);
    using socket = new RawSocket(server.url);
    const host = "Host: test\r\n";
    await socket.write(
      `HEAD ${path} HTTP/1.1\r\n${host}\r\nGET /v0/health HTTP/1.1\r\n${host}Connection: close\r\n\r\n`,
    );
    const answers = answersIn(await socket.untilClosed(), (i) => i === 0);
    expect(answers.map(({ status }) => status)).toEqual([200, 200]);
    expect(answers[1]?.body).toContain("ok");
  });

  test("is 404 for an unknown wid, and 406 comes first", async () => {
    const unknown = "/v0/watch/wid_AAAAAAAAAAAAAAAAAAAAAA";
    const { path } = await newSession(server, [await filled(1)]);
    expect((await server.send("HEAD", unknown)).status).toBe(404);
    expect((await server.send("HEAD", unknown, undefined, json)).status).toBe(406);
    expect((await server.send("HEAD", path, undefined, json)).status).toBe(406);
  });
});
