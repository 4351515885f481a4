/** gzip in both directions: what is inflated, what is refused, what is compressed, and that no byte changes. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { readFile } from "node:fs/promises";
import { brotliCompressSync, constants, deflateRawSync, deflateSync, gunzipSync, gzipSync } from "node:zlib";
import { members, payloads } from "../support/rawjson.ts";
import { answersIn, exchange } from "../support/rawsocket.ts";
import { startServer } from "../support/server.ts";
import { type SpawnedServer, spawnServer } from "../support/spawn.ts";
import { absentTopic, newTopic, sharedServer, type Topic, together } from "../support/topics.ts";

setDefaultTimeout(30_000);

const server = sharedServer();

const gzipped = { "content-encoding": "gzip" };
const zip = (text: string) => gzipSync(text);
const batch = (...values: unknown[]) => JSON.stringify({ records: values.map((data) => ({ data })) });
const invalid = { status: 400, body: { error: { code: "invalid_request" } } };
const stored = async (topic: Topic) =>
  (await topic.diff()).body.records.map(({ data }: { data: unknown }) => data);

/** Texts that come back changed from a server that parses and prints, or loses count of bytes. */
const spellings = [
  `{ "b" : 1.0, "a":-0,\t"a": 1E5 }`,
  `"é\\u00e9\u2028😀\\ud83d\\ude00"`,
  "123456789012345678901234567890",
  `[${"[1e-7 , 0.10],".repeat(2000)}null]`,
  `"${"zip".repeat(50_000)}"`,
];

describe("requests", () => {
  test.each(["gzip", "GZIP", "x-gzip", "X-Gzip"])("a body of coding %s is inflated", async (coding) => {
    const topic = await newTopic(server);
    const reply = await topic.write(zip(batch("inflated")), "", { "content-encoding": coding });
    expect(reply.status).toBe(200);
    expect(await stored(topic)).toEqual(["inflated"]);
  });

  test("every endpoint that parses a body takes a compressed one", async () => {
    const topic = absentTopic(server);
    const send = async (method: string, suffix: string, body: object) =>
      (await server.send(method, topic.path + suffix, zip(JSON.stringify(body)), gzipped)).body;
    expect((await send("PUT", "", { cap_records: 77 })).config.cap_records).toBe(77);
    expect((await send("POST", "", { records: [{ data: 1 }, { data: 2 }] })).last_seq).toBe(2);
    expect((await send("POST", "/diff", { from_seq: 1 })).records).toMatchObject([{ data: 2 }]);
    expect((await send("POST", "/delete", { before_seq: 2 })).deleted).toBe(1);
  });

  test("a payload stays byte for byte", async () => {
    const topic = await newTopic(server);
    const body = `{"records":[${spellings.map((data) => `{"data":${data},"meta":{"n":1.0}}`).join(",")}]}`;
    expect((await topic.write(zip(body), "", gzipped)).status).toBe(200);
    expect(payloads(await topic.diff(), "data")).toEqual(spellings);
  });

  test("a compressed body may come in chunks", async () => {
    const topic = await newTopic(server);
    const body = zip(batch("x".repeat(5000), "last"));
    const pieces = new ReadableStream({
      start: (stream) => {
        for (let at = 0; at < body.length; at++) stream.enqueue(body.subarray(at, at + 1));
        stream.close();
      },
    });
    expect((await topic.write(pieces, "", gzipped)).status).toBe(200);
    expect((await stored(topic)).at(-1)).toBe("last");
  });

  test("members behind each other are one body", async () => {
    const topic = await newTopic(server);
    const text = batch("one", "two", "three");
    const parts = [text.slice(0, 10), "", text.slice(10, 25), text.slice(25)].map(zip);
    expect((await topic.write(Buffer.concat(parts), "", gzipped)).status).toBe(200);
    expect(await stored(topic)).toEqual(["one", "two", "three"]);
  });

  test("a member may carry a name and a comment", async () => {
    const topic = await newTopic(server);
    const plain = zip(batch("named"));
    const head = Buffer.concat([plain.subarray(0, 3), Buffer.from([0x18]), plain.subarray(4, 10)]);
    const body = Buffer.concat([head, Buffer.from("name\0comment\0"), plain.subarray(10)]);
    expect((await topic.write(body, "", gzipped)).status).toBe(200);
  });

  test("a retry may be compressed differently", async () => {
    const topic = await newTopic(server);
    const write = (body: string | Uint8Array, headers: object) =>
      topic.write(body, "", { "idempotency-key": "k", ...headers });
    const first = await write(batch(1), {});
    const again = await write(zip(batch(1)), gzipped);
    expect([first.body.first_seq, again.body.first_seq]).toEqual([1, 1]);
    expect(await stored(topic)).toEqual([1]);
  });

  test("identity is no coding", async () => {
    const topic = await newTopic(server);
    expect((await topic.write(batch(1), "", { "content-encoding": "identity" })).status).toBe(200);
  });

  const good = zip(batch("never"));
  const changed = (at: number) => {
    const copy = Buffer.from(good);
    copy[at < 0 ? copy.length + at : at]! ^= 0xff;
    return copy;
  };
  test.each<[string, Uint8Array]>([
    ["is not compressed", Buffer.from(batch("never"))],
    ["is zlib's", deflateSync(batch("never"))],
    ["is raw deflate", deflateRawSync(batch("never"))],
    ["is only a header", good.subarray(0, 10)],
    ["is half a header", good.subarray(0, 5)],
    ["is cut", good.subarray(0, 20)],
    ["lacks its checksum", good.subarray(0, good.length - 8)],
    ["lacks its last byte", good.subarray(0, good.length - 1)],
    ["has another magic number", changed(0)],
    ["has an unknown method", changed(2)],
    ["has reserved flags", changed(3)],
    ["has a changed byte", changed(14)],
    ["has a wrong checksum", changed(-8)],
    ["has a wrong length", changed(-4)],
    ["is cut in its second member", Buffer.concat([zip(""), good.subarray(0, 20)])],
    ["holds broken JSON", zip('{"records":[')],
    ["holds nothing", zip("")],
    ["holds invalid UTF-8", gzipSync(Buffer.from('{"records":[{"data":"\xff"}]}', "latin1"))],
    ["is compressed twice", gzipSync(good)],
  ])("a body that %s is 400", async (_, body) => {
    const topic = await newTopic(server);
    expect(await topic.write(body, "", gzipped)).toMatchObject(invalid);
    expect((await topic.state()).body.head_seq).toBe(0);
  });

  test.each([
    ["deflate", deflateSync(batch(1))],
    ["br", brotliCompressSync(batch(1))],
    ["zstd", Bun.zstdCompressSync(batch(1))],
    ["compress", Buffer.from(batch(1))],
    ["gzip, gzip", gzipSync(zip(batch(1)))],
    ["br, gzip", zip(batch(1))],
    ["gzipped", zip(batch(1))],
    ["utf-8", Buffer.from(batch(1))],
  ])("the coding %s is 415", async (coding, body) => {
    const topic = await newTopic(server);
    const reply = await topic.write(body, "", { "content-encoding": coding });
    expect(reply).toMatchObject({ status: 415, body: { error: { code: "unsupported_media_type" } } });
    expect((await topic.state()).body.head_seq).toBe(0);
  });

  test("a coding does not stand for the type", async () => {
    const topic = await newTopic(server);
    const typed = (type: string) => topic.write(zip(batch(1)), "", { ...gzipped, "content-type": type });
    expect((await typed("")).status).toBe(415);
    expect((await typed("text/plain")).status).toBe(415);
    expect((await typed("application/gzip")).status).toBe(415);
  });

  test("bodies that are ignored are not inflated", async () => {
    const topic = await newTopic(server);
    const reply = await server.send("DELETE", topic.path, Buffer.from("no gzip"), gzipped);
    expect(reply).toMatchObject({ status: 200, body: { deleted: true } });
  });
});

describe("the size of a request", () => {
  const limit = 2000;
  const sized = (bytes: number) => batch("").replace('""', `"${"x".repeat(bytes - batch("").length)}"`);

  test.each<[string, (body: Uint8Array<ArrayBuffer>) => unknown]>([
    ["with a length", (body) => body],
    ["chunked", (body) => new Blob([body]).stream()],
  ])("counts what is inflated, %s", async (_, framed) => {
    await using own = await startServer({ TOPICS_MAX_BODY_BYTES: `${limit}` });
    const write = (bytes: number) =>
      own.send("POST", "/v0/topics/t", framed(Buffer.from(zip(sized(bytes)))), gzipped);
    expect((await write(limit)).status).toBe(201);
    expect(await write(limit + 1)).toMatchObject({
      status: 413,
      body: { error: { code: "payload_too_large" } },
    });
    expect((await own.send("GET", "/v0/topics/t")).body.head_seq).toBe(1);
  });

  test("comes before the coding, the type and the JSON", async () => {
    await using own = await startServer({ TOPICS_MAX_BODY_BYTES: `${limit}` });
    const code = async (body: string | Uint8Array, headers: Record<string, string>) =>
      (await own.send("POST", "/v0/topics/t", body, headers)).body.error.code;
    const long = "x".repeat(limit + 1);
    expect(await code(long, { "content-encoding": "br" })).toBe("payload_too_large");
    expect(await code(long, { "content-encoding": "br", "content-type": "text/plain" })).toBe(
      "payload_too_large",
    );
    expect(await code(zip(long), gzipped)).toBe("payload_too_large");
  });

  const MIB = 1024 * 1024;
  const spaces = Buffer.alloc(16 * MIB, " ");

  /** 1 GiB of spaces in one megabyte: one member without an end, or 64 members. */
  const bombs: [string, Buffer][] = [
    [
      "one member",
      Buffer.concat([
        zip("").subarray(0, 10),
        ...Array<Buffer>(64).fill(deflateRawSync(spaces, { finishFlush: constants.Z_FULL_FLUSH })),
      ]),
    ],
    ["many members", Buffer.concat(Array<Buffer>(64).fill(gzipSync(spaces)))],
  ];

  const peakMib = async ({ pid }: SpawnedServer) => {
    const status = await readFile(`/proc/${pid}/status`, "utf8");
    return Number(/VmHWM:\s*(\d+)/.exec(status)?.[1]) / 1024;
  };

  const onLinux = test.skipIf(process.platform !== "linux");

  onLinux.each(bombs)(
    "a bomb of %s is 413 and takes little memory",
    async (_, bomb) => {
      await using own = await spawnServer({ env: { TOPICS_MAX_BODY_BYTES: `${8 * MIB}` } });
      const bombed = () => own.send("POST", "/v0/topics/t", bomb, gzipped);
      await own.send("POST", "/v0/topics/warm", zip(batch("x".repeat(MIB / 2))), gzipped);
      const before = await peakMib(own);
      const replies = await together(4, bombed);
      expect(replies.map(({ status }) => status)).toEqual([413, 413, 413, 413]);
      expect(replies[0]!.body.error.code).toBe("payload_too_large");
      // Four bodies at their limit, several times over: far from the 4 GiB they would be.
      expect((await peakMib(own)) - before).toBeLessThan(200);
      expect((await own.send("GET", "/v0/topics")).body.topics).toMatchObject([{ topic: "warm" }]);
    },
    60_000,
  );

  test("a body that never comes to anything is 413 once it has sent more than a body may be", async () => {
    await using own = await startServer({ TOPICS_MAX_BODY_BYTES: "100000" });
    // A file name that does not end: all of it belongs to the header of the first member.
    const header = Buffer.from([0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 3]);
    const name = Buffer.alloc(10_000, "a");
    let sent = 0;
    const endless = new ReadableStream<Uint8Array>({
      pull: (stream) => {
        stream.enqueue(sent++ === 0 ? header : name);
        if (sent > 1000) stream.close();
      },
    });
    const reply = await own.send("POST", "/v0/topics/t", endless, gzipped);
    expect(reply).toMatchObject({ status: 413, body: { error: { code: "payload_too_large" } } });
  });

  onLinux(
    "many bodies in a row leave no memory behind",
    async () => {
      await using own = await spawnServer();
      const body = zip(batch(..."abcdefgh".split("").map((letter) => letter.repeat(MIB / 2))));
      const write = () => own.send("POST", "/v0/topics/t/diff", body, gzipped);
      expect((await write()).status).toBe(404);
      for (let i = 0; i < 9; i++) await write();
      const before = await peakMib(own);
      for (let i = 0; i < 50; i++) await write();
      // 50 bodies of 4 MiB are 200 MiB.
      expect((await peakMib(own)) - before).toBeLessThan(120);
    },
    60_000,
  );
});

describe("answers", () => {
  /** An answer as it came, its body not inflated. */
  async function raw(method: string, path: string, accept: string | undefined, body?: unknown) {
    const text = body === undefined ? "" : JSON.stringify(body);
    const request = [
      `${method} ${path} HTTP/1.1`,
      "Host: test",
      "Connection: close",
      ...(accept === undefined ? [] : [`Accept-Encoding: ${accept}`]),
      ...(body === undefined ? [] : ["Content-Type: application/json", `Content-Length: ${text.length}`]),
    ];
    const received = await exchange(server.url, `${request.join("\r\n")}\r\n\r\n${text}`);
    return answersIn(received, () => method === "HEAD")[0]!;
  }
  const inflated = (body: string) => gunzipSync(Buffer.from(body, "latin1")).toString();

  async function largeTopic(): Promise<Topic> {
    const topic = await newTopic(server);
    await topic.write(`{"records":[${spellings.map((data) => `{"data":${data}}`).join(",")}]}`);
    return topic;
  }

  async function expectPlain(accept: string | undefined): Promise<void> {
    const topic = await largeTopic();
    const { headers, body } = await raw("POST", `${topic.path}/diff`, accept, {});
    expect(headers.has("content-encoding")).toBe(false);
    expect(headers.get("content-length")).toBe(`${body.length}`);
    expect(JSON.parse(body).records).toHaveLength(spellings.length);
  }

  test("a large answer is compressed, and no byte of it changes", async () => {
    const topic = await largeTopic();
    const { status, headers, body } = await raw("POST", `${topic.path}/diff`, "gzip", {});
    expect(status).toBe(200);
    expect(headers.get("content-encoding")).toBe("gzip");
    expect(headers.get("content-type")).toBe("application/json");
    expect(headers.get("vary")?.toLowerCase()).toBe("accept-encoding");
    expect(headers.get("content-length")).toBe(`${body.length}`);
    const text = inflated(body);
    expect(body.length).toBeLessThan(text.length / 2);
    expect(payloads({ status, headers: new Headers(), text, body: undefined }, "data")).toEqual(spellings);
    expect([...members(text).keys()].sort()).toEqual(Object.keys((await topic.diff()).body).sort());
  });

  test.each(["gzip", "GZip", "gzip;q=1", "gzip; q=0.001", "br, gzip", "deflate, gzip;q=0.5, br;q=0"])(
    "to Accept-Encoding: %s the answer is compressed",
    async (accept) => {
      const topic = await largeTopic();
      const { headers, body } = await raw("POST", `${topic.path}/diff`, accept, {});
      expect(headers.get("content-encoding")).toBe("gzip");
      expect(JSON.parse(inflated(body)).records).toHaveLength(spellings.length);
    },
  );

  test.each([
    "",
    "identity",
    "br",
    "deflate, br, zstd",
    "gzip;q=0",
    "gzip; q=0.0",
    "gzip;q=0.000, br",
    "gzip;q=0, *",
    "notgzip",
    "gzipped",
    "*;q=0",
  ])("to Accept-Encoding: %s the answer is plain", expectPlain);

  test("without Accept-Encoding the answer is plain", () => expectPlain(undefined));

  test("a small answer stays plain, an error too", async () => {
    for (const path of ["/v0/health", "/nope"]) {
      const { headers, body } = await raw("GET", path, "gzip");
      expect(headers.has("content-encoding")).toBe(false);
      expect(JSON.parse(body).performance.server_total_ms).toBeNumber();
    }
  });

  test("a page of topics and the metrics are compressed", async () => {
    await together(30, () => newTopic(server));
    const list = await raw("GET", "/v0/topics", "gzip");
    expect(list.headers.get("content-encoding")).toBe("gzip");
    expect(JSON.parse(inflated(list.body)).topics.length).toBeGreaterThanOrEqual(30);
    const metrics = await raw("GET", "/v0/metrics", "gzip");
    expect(metrics.headers.get("content-encoding")).toBe("gzip");
    expect(metrics.headers.get("content-type")).toStartWith("text/plain");
    expect(inflated(metrics.body)).toContain("\ntopics_topics ");
  });

  test("01.04 HEAD of what would be compressed has no body", async () => {
    await together(30, () => newTopic(server));
    for (const path of ["/v0/topics", "/v0/metrics"]) {
      const { status, headers, body } = await raw("HEAD", path, "gzip");
      expect([status, body]).toEqual([200, ""]);
      expect(headers.get("content-encoding")).toBe("gzip");
    }
  });

  test("both directions at once, and what is kept alive stays in order", async () => {
    const topic = await newTopic(server);
    const value = "x".repeat(20_000);
    await topic.write(zip(batch(value)), "", gzipped);
    // fetch keeps its connections and inflates by itself.
    const replies = await together(20, () =>
      server.send("POST", `${topic.path}/diff`, zip("{}"), { ...gzipped, "accept-encoding": "gzip" }),
    );
    for (const { body } of replies) expect(body.records).toMatchObject([{ $seq: 1, data: value }]);
  });
});
