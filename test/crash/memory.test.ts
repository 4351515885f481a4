/** Large bodies: memory stays bounded while they are handled, and nothing of them stays that is not needed. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { readFile } from "node:fs/promises";
import { gzipSync } from "node:zlib";
import { answersIn, isAnswer, type RawAnswer, RawSocket } from "../support/rawsocket.ts";
import { type SpawnedServer, spawnServer } from "../support/spawn.ts";
import { absentTopic, together, until } from "../support/topics.ts";
import { watchLive } from "../support/watch.ts";

setDefaultTimeout(60_000);

const BODY_BYTES = 67_108_864;
const BUDGET_BYTES = 268_435_456;
const RECORD_BYTES = 1_048_576;
const CLIENTS = 6;
const MIB = 1024 * 1024;

/** A write of exactly the largest body: 63 records of 1 MiB and a smaller one. */
const body = (() => {
  const record = (bytes: number) => `{"data":"${"x".repeat(bytes - 2)}"}`;
  const full = Array.from({ length: 63 }, () => record(RECORD_BYTES)).join(",");
  const bare = `{"records":[${full},${record(2)}]}`;
  return Buffer.from(bare.replace(/""\}\]\}$/, `"${"y".repeat(BODY_BYTES - bare.length)}"}]}`));
})();
const RECORDS = 64;

/** The body as it goes over the wire, and the header fields that say how. */
interface Sent {
  readonly sent: Uint8Array;
  readonly fields: readonly string[];
}

const plain: Sent = { sent: body, fields: [`Content-Length: ${body.length}`] };
const chunked: Sent = {
  sent: Buffer.concat([Buffer.from(`${body.length.toString(16)}\r\n`), body, Buffer.from("\r\n0\r\n\r\n")]),
  fields: ["Transfer-Encoding: chunked"],
};
const gzip = gzipSync(body, { level: 1 });
const gzipped: Sent = {
  sent: gzip,
  fields: ["Content-Encoding: gzip", `Content-Length: ${gzip.length}`],
};

/** Resident memory: its peak so far (VmHWM), or what it is (VmRSS). */
async function memoryBytes({ pid }: SpawnedServer, what: "VmHWM" | "VmRSS"): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  return Number(new RegExp(`^${what}:\\s*(\\d+) kB$`, "m").exec(status)![1]) * 1024;
}

/** Sends one write. Its answer may come before all of the body is sent. */
async function write(url: string, key: string, { sent, fields }: Sent): Promise<RawAnswer> {
  using socket = new RawSocket(url);
  const head = [
    "POST /v0/topics/t HTTP/1.1",
    "Host: test",
    `Authorization: Bearer ${key}`,
    "Content-Type: application/json",
    ...fields,
  ];
  await socket.write(`${head.join("\r\n")}\r\n\r\n`);
  await socket.write(sent);
  return answersIn(await socket.until(isAnswer, 40_000))[0]!;
}

describe.skipIf(process.platform !== "linux")("six bodies of 64 MiB at once", () => {
  test.each([
    ["without keys", () => "none", {}, plain],
    ["chunked, without keys", () => "none", {}, chunked],
    ["each with a key of its own", (i: number) => `key-${i}`, { keys: true }, plain],
    ["all with one key", () => "key-0", { keys: true }, plain],
    ["gzipped, with one key", () => "key-0", { keys: true }, gzipped],
  ])("%s", async (name, keyOf, { keys }: { keys?: boolean }, sent) => {
    const table = Array.from({ length: CLIENTS }, (_, i) => `key-${i}`).join(",");
    await using server = await spawnServer({ env: keys ? { TOPICS_API_KEYS: table } : {} });
    const holder = {
      url: server.url,
      send: (method: string, path: string, body?: unknown) =>
        server.send(method, path, body, { authorization: "Bearer key-0" }),
    };
    const topic = absentTopic(holder, "t");
    await topic.put();
    const before = await memoryBytes(server, "VmHWM");

    const answers = await together(CLIENTS, (i) => write(server.url, keyOf(i), sent));
    const rise = (await memoryBytes(server, "VmHWM")) - before;
    const accepted = answers.filter(({ status }) => status === 200).length;
    console.info(`memory, ${name}: ${accepted} of ${CLIENTS} taken, peak +${Math.round(rise / MIB)} MiB`);

    const others = answers.filter(({ status }) => status !== 200);
    expect(others.map(({ status, headers }) => [status, headers.get("retry-after")])).toEqual(
      others.map(() => [429, "1"]),
    );
    expect(accepted).toBeGreaterThan(0);
    expect(rise).toBeLessThanOrEqual(BUDGET_BYTES);
    expect((await topic.state()).body).toMatchObject({ head_seq: accepted * RECORDS });

    // Whoever was refused gets in when it comes again.
    const again = await until(
      () => write(server.url, keyOf(0), sent),
      ({ status }) => status !== 429,
      20_000,
    );
    expect(again.status).toBe(200);
    expect((await topic.state()).body).toMatchObject({ head_seq: (accepted + 1) * RECORDS });
  });
});

describe.skipIf(process.platform !== "linux")("of a body that is done with only what is needed stays", () => {
  const TIMES = 40;
  const BYTES = 8 * MIB;
  const LONG_NAME = "n".repeat(200);
  const pad = "x".repeat(BYTES);
  const large = Array.from({ length: 8 }, () => ({ data: pad.slice(0, RECORD_BYTES - 2) }));
  /** A small part of a large text is kept, and little else is in it. */
  const padded = (body: object) => JSON.stringify({ pad, ...body });
  /** The same, and all of the text is taken. */
  const dense = (rest: object = {}) => JSON.stringify({ records: [...large, { data: "small" }], ...rest });

  test.each([
    ["a record beside padding", "/v0/topics/followed-#", () => padded({ records: [{ data: "small" }] })],
    ["the last record of a large write", "/v0/topics/followed-#", () => dense()],
    ["settings beside records", "/v0/topics/new-#", () => dense({ config: { dead_letter: LONG_NAME } })],
  ])("%s", async (name, path, body) => {
    await using server = await spawnServer();
    const topics = Array.from({ length: TIMES }, (_, i) => absentTopic(server, `followed-${i}`));
    for (const topic of topics) await topic.put();
    await using stream = await watchLive(server, topics, { exclude_node: ["me"] });
    for (let i = 0; i < 3; i++) await server.send("POST", "/v0/topics/first", dense());
    const before = await memoryBytes(server, "VmRSS");

    const statuses = new Set<number>();
    for (let i = 0; i < TIMES; i++) {
      statuses.add((await server.send("POST", path.replace("#", `${i}`), body())).status);
    }
    const rise = (await memoryBytes(server, "VmRSS")) - before;
    console.info(`memory, ${name}: +${Math.round(rise / MIB)} MiB`);
    expect([...statuses].filter((status) => status >= 300)).toEqual([]);
    expect(rise).toBeLessThan((TIMES * BYTES) / 2);
    expect(stream.ended).toBe(false);
  });

  test("a topic does not keep the target it was made by", async () => {
    await using server = await spawnServer();
    const query = `?pad=${"x".repeat(200_000)}`;
    const put = (from: number, to: number) =>
      together(to - from, (i) => server.send("PUT", `/v0/topics/${from + i}-${LONG_NAME}${query}`));
    for (let i = 0; i < 200; i += 20) await put(i, i + 20);
    const before = await memoryBytes(server, "VmRSS");
    for (let i = 200; i < 1400; i += 20) await put(i, i + 20);
    expect((await memoryBytes(server, "VmRSS")) - before).toBeLessThan(1200 * 100_000);
    expect((await server.send("GET", "/v0/ready")).body.topics).toBe(1400);
  });
});
