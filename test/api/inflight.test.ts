/** What one key, and all requests together, may have running: requests per key and bytes of bodies. */
import { describe, expect, test } from "bun:test";
import { gzipSync } from "node:zlib";
import { answersIn, isAnswer, type RawAnswer, RawSocket } from "../support/rawsocket.ts";
import { type Reply, startServer } from "../support/server.ts";
import { absentTopic, type Sender, type Topic, together, until } from "../support/topics.ts";

/** The server as the holder of a key sees it. */
const keyed = (server: Sender, key: string): Sender => ({
  url: server.url,
  send: (method, path, body, headers) =>
    server.send(method, path, body, { authorization: `Bearer ${key}`, ...headers }),
});

const LONG_MS = 30_000;
const one = { records: [{ data: 1 }] };

describe("requests of one key", () => {
  const keys = { TOPICS_API_KEYS: "busy,spare,reader:r" };
  const limited = (max: number | string, env: Record<string, string> = {}) =>
    startServer({ ...keys, TOPICS_MAX_INFLIGHT_PER_KEY: `${max}`, ...env });

  /** Whether polls by others have reached the server; each one touches its topic. */
  const polled = (topic: Topic) =>
    until(
      () => topic.state(),
      ({ body }) => body.last_read_ts !== null,
    );

  /** A long poll of the key on a topic of its own, which runs until something is appended there. */
  async function poll(server: Sender, key: string, name: string) {
    const watched = absentTopic(keyed(server, "spare"), name);
    await watched.put();
    const answer = absentTopic(keyed(server, key), name).diff({ wait_ms: LONG_MS });
    await polled(watched);
    return {
      async end(): Promise<Reply> {
        await watched.append("wake");
        return answer;
      },
    };
  }

  const list = (server: Sender, key: string) => keyed(server, key).send("GET", "/v0/topics");

  const throttled = { status: 429, body: { error: { code: "throttled" } } };

  test("01.45 a long poll is the one request; another key is served; afterwards so is this one", async () => {
    await using server = await limited(1);
    const running = await poll(server, "busy", "t");
    const refused = await list(server, "busy");
    expect(refused).toMatchObject(throttled);
    expect(refused.headers.get("retry-after")).toBe("1");
    expect((await list(server, "spare")).status).toBe(200);
    expect((await running.end()).status).toBe(200);
    expect((await list(server, "busy")).status).toBe(200);
  });

  test.each([
    ["GET", "/v0/topics", undefined],
    ["HEAD", "/v0/topics/t", undefined],
    ["GET", "/v0/metrics", undefined],
    ["GET", "/v0/nope", undefined],
    ["PATCH", "/v0/topics", undefined],
    ["PUT", "/v0/topics/t", {}],
    ["PUT", "/v0/topics/t", "{"],
    ["POST", "/v0/topics/t", one],
    ["POST", "/v0/topics/t", "x".repeat(2000)],
    ["DELETE", "/v0/topics/t", undefined],
  ])("01 s4 the limit comes before everything but the 401: %s %s", async (method, path, body) => {
    await using server = await limited(1, { TOPICS_MAX_BODY_BYTES: "1000" });
    const running = await poll(server, "reader", "t");
    expect((await keyed(server, "reader").send(method, path, body)).status).toBe(429);
    expect((await keyed(server, "wrong").send(method, path, body)).status).toBe(401);
    await running.end();
    expect((await absentTopic(keyed(server, "spare"), "t").state()).body.head_seq).toBe(1);
  });

  test("01.45 exactly so many run at once; each end makes room for one", async () => {
    await using server = await limited(3);
    const running = [];
    for (const name of ["a", "b", "c"]) running.push(await poll(server, "busy", name));
    expect((await list(server, "busy")).status).toBe(429);
    for (const one of running) {
      await one.end();
      expect((await list(server, "busy")).status).toBe(200);
    }
  });

  test.each(["0", "many"])("01 s7 a limit of %s lets many run", async (max) => {
    await using server = await limited(max);
    const running = [];
    for (let i = 0; i < 12; i++) running.push(await poll(server, "busy", `t${i}`));
    expect((await list(server, "busy")).status).toBe(200);
    for (const one of running) expect((await one.end()).status).toBe(200);
  });

  test("01 s7 without keys there is no limit", async () => {
    await using server = await startServer({ TOPICS_MAX_INFLIGHT_PER_KEY: "1" });
    const topic = absentTopic(server, "t");
    await topic.put();
    const polls = together(3, () => topic.diff({ wait_ms: LONG_MS }));
    await polled(topic);
    expect((await server.send("GET", "/v0/topics")).status).toBe(200);
    await topic.append(1);
    expect((await polls).map(({ status }) => status)).toEqual([200, 200, 200]);
  });

  test("01 s7 open probes neither wait for a slot nor take one", async () => {
    await using server = await limited(1);
    const running = await poll(server, "busy", "t");
    for (const path of ["/v0/health", "/v0/ready", "/healthz", "/readyz"]) {
      expect((await keyed(server, "busy").send("GET", path)).status).toBe(200);
    }
    await running.end();
  });

  test("01 s7 with TOPICS_PROBE_AUTH the limit covers health", async () => {
    await using server = await limited(1, { TOPICS_PROBE_AUTH: "1" });
    const running = await poll(server, "busy", "t");
    const status = async (key: string) => (await keyed(server, key).send("GET", "/v0/health")).status;
    expect([await status("busy"), await status("spare")]).toEqual([429, 200]);
    await running.end();
    expect(await status("busy")).toBe(200);
  });

  test("01 s7 every kind of answer gives the slot back", async () => {
    await using server = await limited(1, { TOPICS_MAX_BODY_BYTES: "1000" });
    const send = keyed(server, "reader").send;
    const statuses = [];
    for (const [method, path, body] of [
      ["GET", "/v0/topics", undefined],
      ["HEAD", "/v0/topics", undefined],
      ["GET", "/v0/nope", undefined],
      ["PATCH", "/v0/topics", undefined],
      ["PUT", "/v0/topics/t", {}],
      ["GET", "/v0/topics/t", undefined],
      ["POST", "/v0/topics/t/diff", {}],
      ["POST", "/v0/topics/t/diff", "{"],
      ["POST", "/v0/topics/t/diff", "x".repeat(2000)],
      ["GET", "/v0/topics", undefined],
    ] as const) {
      statuses.push((await send(method, path, body)).status);
    }
    expect(statuses).toEqual([200, 200, 404, 405, 403, 404, 404, 400, 413, 200]);
  });

  const text = (...lines: string[]) => `${lines.join("\r\n")}\r\n\r\n`;
  const pollText = text(
    "POST /v0/topics/t/diff HTTP/1.1",
    "Host: test",
    "Authorization: Bearer busy",
    "Content-Type: application/json",
    "Content-Length: 17",
  );
  const vanishing: [string, string, (topic: Topic) => Promise<unknown>][] = [
    ["during a long poll", `${pollText}{"wait_ms":30000}`, polled],
    ["inside its body", `${pollText}{"wait_ms"`, async () => {}],
  ];

  test.each(vanishing)(
    "01.45 a client that vanishes %s gives its slot back, once",
    async (_, request, seen) => {
      await using server = await limited(1);
      const topic = absentTopic(keyed(server, "spare"), "t");
      await topic.put();
      const lost = new RawSocket(server.url);
      await lost.write(request);
      await seen(topic);
      await until(
        () => list(server, "busy"),
        ({ status }) => status === 429,
      );
      await lost.reset();
      await until(
        () => list(server, "busy"),
        ({ status }) => status === 200,
      );
      const running = await poll(server, "busy", "another");
      expect((await list(server, "busy")).status).toBe(429);
      await running.end();
    },
  );

  test("01.45 a client that gives up its poll gives its slot back", async () => {
    await using server = await limited(1);
    const topic = absentTopic(keyed(server, "spare"), "t");
    await topic.put();
    const given = new AbortController();
    const poll = fetch(`${server.url}/v0/topics/t/diff`, {
      method: "POST",
      headers: { authorization: "Bearer busy", "content-type": "application/json" },
      body: `{"wait_ms":${LONG_MS}}`,
      signal: given.signal,
    }).catch(() => "given up");
    await polled(topic);
    expect((await list(server, "busy")).status).toBe(429);
    given.abort();
    expect(await poll).toBe("given up");
    await until(
      () => list(server, "busy"),
      ({ status }) => status === 200,
    );
  });
});

/** A diff request of exactly this many bytes. */
function padded(size: number): string {
  const bare = '{"pad":""}';
  return bare.replace('""', `"${"x".repeat(size - bare.length)}"`);
}

/** A request whose body is all sent but for its last byte. */
class Held implements Disposable {
  readonly #socket: RawSocket;
  readonly #rest: string;

  private constructor(socket: RawSocket, rest: string) {
    this.#socket = socket;
    this.#rest = rest;
  }

  static async send(url: string, size: number, chunked: boolean, key?: string): Promise<Held> {
    const body = padded(size);
    const socket = new RawSocket(url);
    const head = [
      "POST /v0/topics/t/diff HTTP/1.1",
      "Host: test",
      "Content-Type: application/json",
      ...(key === undefined ? [] : [`Authorization: Bearer ${key}`]),
      chunked ? "Transfer-Encoding: chunked" : `Content-Length: ${size}`,
    ];
    const sent = body.slice(0, -1);
    const chunk = `${sent.length.toString(16)}\r\n${sent}\r\n`;
    await socket.write(`${head.join("\r\n")}\r\n\r\n${chunked ? chunk : sent}`);
    return new Held(socket, chunked ? "1\r\n}\r\n0\r\n\r\n" : "}");
  }

  /** Sends the last byte and waits for the answer. */
  async finish(): Promise<RawAnswer> {
    await this.#socket.write(this.#rest);
    return this.answer();
  }

  async answer(): Promise<RawAnswer> {
    return answersIn(await this.#socket.until(isAnswer))[0]!;
  }

  vanish(): Promise<void> {
    return this.#socket.reset();
  }

  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]();
  }
}

describe("memory of bodies", () => {
  /** Bytes of bodies; each takes three of memory. */
  const MAX = 1_000_000;
  const MEMORY_MAX = 3 * MAX;
  const limited = async (env: Record<string, string> = {}) => {
    const server = await startServer({ TOPICS_MAX_BODY_MEMORY_BYTES: `${MEMORY_MAX}`, ...env });
    await owner(server).send("PUT", "/v0/topics/t");
    return server;
  };
  const keys = { TOPICS_API_KEYS: "owner,a,b" };
  const owner = (server: Sender) => keyed(server, "owner");
  const diff = (server: Sender, size: number, key = "owner") =>
    keyed(server, key).send("POST", "/v0/topics/t/diff", padded(size));

  async function bytesInFlight(server: Sender): Promise<number> {
    const { text } = await owner(server).send("GET", "/v0/metrics");
    return Number(/^topics_request_body_bytes_in_flight (\S+)$/m.exec(text)?.[1]);
  }

  /** Sends all but the last byte of a body and waits until the server has it. */
  async function hold(server: Sender, size: number, { chunked = false, key = "owner" } = {}): Promise<Held> {
    const before = await bytesInFlight(server);
    const held = await Held.send(server.url, size, chunked, key);
    await until(
      () => bytesInFlight(server),
      (bytes) => bytes >= before + size - 1,
    );
    return held;
  }

  const released = (server: Sender) =>
    until(
      () => bytesInFlight(server),
      (bytes) => bytes === 0,
    );

  const throttled = {
    status: 429,
    body: { error: { code: "throttled", detail: { limit: "max_body_memory_bytes", max: MEMORY_MAX } } },
  };

  test.each([true, false])(
    "chunked %p: what does not fit beside others is refused, what fits is not",
    async (chunked) => {
      await using server = await limited();
      using held = await hold(server, 700_000, { chunked });
      const refused = await diff(server, 400_000);
      expect(refused).toMatchObject(throttled);
      expect(refused.headers.get("retry-after")).toBe("1");
      expect((await diff(server, 300_000)).status).toBe(200);
      expect((await diff(server, 300_002)).status).toBe(429);
      expect((await held.finish()).status).toBe(200);
      await released(server);
      expect((await diff(server, 1_000_000)).status).toBe(200);
    },
  );

  test("requests without a body are not refused", async () => {
    await using server = await limited();
    using held = await hold(server, 1_000_000);
    expect((await diff(server, 10)).status).toBe(429);
    expect((await server.send("GET", "/v0/topics")).status).toBe(200);
    expect((await server.send("PUT", "/v0/topics/other")).status).toBe(201);
    expect((await server.send("POST", "/v0/topics/t/diff")).status).toBe(200);
    expect((await server.send("DELETE", "/v0/topics/other")).status).toBe(200);
    expect((await held.finish()).status).toBe(200);
  });

  test.each([true, false])(
    "chunked %p: a body larger than the limit is let in when it is alone",
    async (chunked) => {
      await using server = await limited();
      using held = await hold(server, 5_000_000, { chunked });
      expect((await diff(server, 10)).status).toBe(429);
      expect((await held.finish()).status).toBe(200);
      await released(server);
      expect((await diff(server, 5_000_000)).status).toBe(200);
    },
  );

  test("a chunked body that outgrows the limit beside another is refused", async () => {
    await using server = await limited();
    using held = await hold(server, 500_000);
    using late = await Held.send(server.url, 600_000, true, "owner");
    const answer = await late.answer();
    expect([answer.status, answer.headers.get("retry-after")]).toEqual([429, "1"]);
    expect((await held.finish()).status).toBe(200);
    await released(server);
  });

  test("an inflated body counts as what it becomes", async () => {
    await using server = await limited();
    using held = await hold(server, 500_000);
    const inflated = (size: number) =>
      server.send("POST", "/v0/topics/t/diff", new Uint8Array(gzipSync(padded(size))), {
        "content-encoding": "gzip",
      });
    expect(gzipSync(padded(600_000)).length).toBeLessThan(2000);
    expect((await inflated(600_000)).status).toBe(429);
    expect((await inflated(300_000)).status).toBe(200);
    expect((await held.finish()).status).toBe(200);
    await released(server);
    expect((await inflated(600_000)).status).toBe(200);
  });

  test("what a vanished client held is free again", async () => {
    await using server = await limited();
    using held = await hold(server, 900_000);
    expect((await diff(server, 500_000)).status).toBe(429);
    await held.vanish();
    await released(server);
    expect((await diff(server, 1_000_000)).status).toBe(200);
  });

  test("every kind of answer frees what its request held", async () => {
    await using server = await limited({ ...keys, TOPICS_MAX_BODY_BYTES: "2000000" });
    const statuses = [];
    for (const [path, body, key] of [
      ["t/diff", padded(900_000), "owner"],
      ["t/diff", "{".padEnd(900_000), "owner"],
      ["absent/diff", padded(900_000), "owner"],
      ["t/diff", padded(3_000_000), "owner"],
      ["t/diff", padded(900_000), "wrong"],
    ] as const) {
      statuses.push((await keyed(server, key).send("POST", `/v0/topics/${path}`, body)).status);
      await released(server);
    }
    expect(statuses).toEqual([200, 400, 404, 413, 401]);
  });

  test("a body that is refused for its key holds nothing", async () => {
    await using server = await limited(keys);
    using unread = await Held.send(server.url, 900_000, false, "wrong");
    expect((await unread.answer()).status).toBe(401);
    expect(await bytesInFlight(server)).toBe(0);
    expect((await diff(server, 1_000_000)).status).toBe(200);
  });

  test("one key holds at most half, the other half is for others", async () => {
    await using server = await limited(keys);
    using held = await hold(server, 400_000, { key: "a" });
    const refused = await diff(server, 200_000, "a");
    expect(refused).toMatchObject({
      status: 429,
      body: { error: { code: "throttled", detail: { limit: "max_body_memory_bytes" } } },
    });
    expect(refused.headers.get("retry-after")).toBe("1");
    expect((await diff(server, 100_000, "a")).status).toBe(200);
    expect((await diff(server, 500_000, "b")).status).toBe(200);
    expect((await held.finish()).status).toBe(200);
    await released(server);
    expect((await diff(server, 200_000, "a")).status).toBe(200);
  });

  test("a key that holds nothing may take more than half, if there is room", async () => {
    await using server = await limited(keys);
    using held = await hold(server, 800_000, { key: "a" });
    expect((await diff(server, 10, "a")).status).toBe(429);
    expect((await diff(server, 200_000, "b")).status).toBe(200);
    expect((await diff(server, 300_000, "b")).status).toBe(429);
    expect((await held.finish()).status).toBe(200);
  });

  test("without keys nobody is held to half", async () => {
    await using server = await limited();
    using held = await hold(server, 400_000);
    expect((await diff(server, 600_000)).status).toBe(200);
    expect((await held.finish()).status).toBe(200);
  });

  test.each(["few", "-1"])("a limit of %s is the default", async (max) => {
    await using server = await limited({ TOPICS_MAX_BODY_MEMORY_BYTES: max });
    using held = await hold(server, 100_000);
    expect((await diff(server, 100_000)).status).toBe(200);
    expect((await held.finish()).status).toBe(200);
  });

  test("01 s7 a limit of 0 is none", async () => {
    await using server = await limited({ TOPICS_MAX_BODY_MEMORY_BYTES: "0" });
    using held = await hold(server, 100_000);
    expect((await diff(server, 100_000)).status).toBe(200);
    expect((await held.finish()).status).toBe(200);
  });
});
