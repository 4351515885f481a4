/**
 * Bytes that are no proper HTTP, or proper and odd: each gets an answer below 500 or a closed connection,
 * within a deadline, is never taken for more than one request, and leaves the server in order.
 */
import { describe, expect, test } from "bun:test";
import { answersIn, exchange, isAnswer, type RawAnswer, RawSocket } from "../support/rawsocket.ts";
import { startServer } from "../support/server.ts";
import { absentTopic, sharedServer } from "../support/topics.ts";

const server = sharedServer();

/** Stands for the status of an answer that never came because the connection was closed. */
const CLOSED = 0;

/** A request head. The fields are spelled as given, `Host` too. */
const head = (line: string, ...fields: string[]) => [line, ...fields, "", ""].join("\r\n");

const host = "Host: test";
const get = (...fields: string[]) => head("GET /v0/health HTTP/1.1", host, ...fields);
const line = (requestLine: string) => head(requestLine, host);

/** A write to a topic that no other request makes. Whoever acts on it although it is malformed creates the topic. */
const target = "/v0/topics/target";
const record = '{"records":[{"data":1}]}';
const write = (...fields: string[]) =>
  head(`POST ${target} HTTP/1.1`, host, "Content-Type: application/json", ...fields);
const sized = (length: string) => write(`Content-Length: ${length}`) + record;
const chunks = `18\r\n${record}\r\n0\r\n\r\n`;
const coded = (...codings: string[]) =>
  write(...codings.map((coding) => `Transfer-Encoding: ${coding}`)) + chunks;
const chunked = (body: string) => write("Transfer-Encoding: chunked") + body;

/** What a body spells that is taken for a request by mistake. */
const smuggled = head("PUT /v0/topics/target HTTP/1.1", host, "Content-Length: 0");
const carrying = (requestLine: string, ...fields: string[]) =>
  head(requestLine, host, `Content-Length: ${smuggled.length}`, ...fields) + smuggled;

const numbered = (count: number) => Array.from({ length: count }, (_, i) => `X-${i}: value`);

const finals = (text: string) => answersIn(text).filter(({ status }) => status >= 200);

/** A new connection is served, and nobody has acted on the write. */
async function expectUnharmed(): Promise<void> {
  const answer = await exchange(server.url, head(`GET ${target} HTTP/1.1`, host, "Connection: close"));
  expect(answersIn(answer).map(({ status, body }) => [status, JSON.parse(body).error.code])).toEqual([
    [404, "topic_not_found"],
  ]);
}

type Case = [what: string, bytes: string, statuses: number[]];

const refused = (statuses: number[], cases: Record<string, string>): Case[] =>
  Object.entries(cases).map(([what, bytes]) => [what, bytes, statuses]);

describe("malformed requests are refused and end the connection", () => {
  const requestLines = refused([400], {
    "only a method": head("GET", host),
    "no target": line("GET HTTP/1.1"),
    "two spaces behind the method": line("GET  /v0/health HTTP/1.1"),
    "a space in front": line(" GET /v0/health HTTP/1.1"),
    "a target without a slash": line("GET v0/health HTTP/1.1"),
    "a target of backslashes": line("GET \\v0\\health HTTP/1.1"),
    "a target that is only a query": line("GET ?/v0/health HTTP/1.1"),
    "an asterisk for GET": line("GET * HTTP/1.1"),
    "an absolute target of another scheme": line("GET ftp://test/v0/health HTTP/1.1"),
    "a separator in the method": line("GE(T /v0/health HTTP/1.1"),
  });
  const versions = refused([400, 505], {
    "no version": line("GET /v0/health"),
    "an empty version": line("GET /v0/health "),
    "version 0.9": line("GET /v0/health HTTP/0.9"),
    "version 1.2": line("GET /v0/health HTTP/1.2"),
    "version 1.10": line("GET /v0/health HTTP/1.10"),
    "version 2.0": line("GET /v0/health HTTP/2.0"),
    "version 3": line("GET /v0/health HTTP/3"),
    "a version without a point": line("GET /v0/health HTTP/11"),
    "a version with a comma": line("GET /v0/health HTTP/1,1"),
    "a version in lower case": line("GET /v0/health http/1.1"),
    "a version with a space": line("GET /v0/health HTTP/ 1.1"),
    "another protocol": line("GET /v0/health HTTPS/1.1"),
    "a space behind the version": line("GET /v0/health HTTP/1.1 "),
    "a space in the target": line("GET /v0/he alth HTTP/1.1"),
    "tabs for spaces": line("GET\t/v0/health\tHTTP/1.1"),
    "NUL in the target": line("GET /v0/\0health HTTP/1.1"),
    "a control character in the target": line("GET /v0/\x01health HTTP/1.1"),
    "NUL in the method": line("GE\0T /v0/health HTTP/1.1"),
    "a byte above 127 in the method": line("G\xc9T /v0/health HTTP/1.1"),
    "line feeds only": "GET /v0/health HTTP/1.1\nHost: test\n\n",
    "carriage returns only": "GET /v0/health HTTP/1.1\rHost: test\r\r",
    "a line feed in the request line": line("GET /v0/health\n HTTP/1.1"),
  });
  // Who does not know a method may also say so by closing.
  const methods = refused([400, 405, 501, CLOSED], {
    "a method in lower case": line("get /v0/health HTTP/1.1"),
    "a method that nobody defined": line("BREW /v0/health HTTP/1.1"),
    "a method of 5000 letters": line(`${"A".repeat(5000)} /v0/health HTTP/1.1`),
  });
  const fields = refused([400], {
    "a field without a colon": get("Junk"),
    "a field without a name": get(": value"),
    "a space before the colon": get("X-A : value"),
    "a tab before the colon": get("X-A\t: value"),
    "an indented field": get(" X-A: value"),
    "an indented first field": head("GET /v0/health HTTP/1.1", " Host: test"),
    "a space in a name": get("X A: value"),
    "a separator in a name": get("X(A): value"),
    "NUL in a name": get("X\0A: value"),
    "a byte above 127 in a name": get("X\xe9A: value"),
    "a folded field": get("X-A: value", " more"),
    "a field folded by a tab": get("X-A: value", "\tmore"),
    "NUL in a value": get("X-A: val\0ue"),
    "CR in a value": get("X-A: val\rue"),
    "LF in a value": get("X-A: value\nX-B: value"),
    "a control character in a value": get("X-A: val\x01ue"),
    "a head that ends with LF": "GET /v0/health HTTP/1.1\r\nHost: test\n\n",
    "a space before the colon of the framing": `${write("Transfer-Encoding : chunked")}${chunks}`,
  });
  const lengths = refused([400], {
    "a negative length": sized("-1"),
    "a length with a plus": sized("+24"),
    "a hexadecimal length": sized("0x18"),
    "a length that is a word": sized("abc"),
    "an empty length": sized(""),
    "a length with a space inside": sized("2 4"),
    "a length with a fraction": sized("24.0"),
    "a length with an exponent": sized("24e0"),
    "a list of different lengths": sized("24, 25"),
    "different lengths": write("Content-Length: 24", "Content-Length: 25") + record,
    "different lengths, the shorter last": write("Content-Length: 24", "Content-Length: 2") + record,
    "a length of 2^64": sized("18446744073709551616"),
    "a length of 2^64 + 24": sized("18446744073709551640"),
    "a length of 400 digits": sized("9".repeat(400)),
  });
  const encodings = refused([400, 501], {
    "a length and chunks": write("Content-Length: 24", "Transfer-Encoding: chunked") + chunks,
    "chunks and a length": write("Transfer-Encoding: chunked", "Content-Length: 24") + chunks,
    "a length of 0 and chunks": write("Content-Length: 0", "Transfer-Encoding: chunked") + chunks,
    "a length and identity": write("Content-Length: 24", "Transfer-Encoding: identity") + record,
    "a length, chunks and a request behind": carrying(
      `POST ${target} HTTP/1.1`,
      "Transfer-Encoding: chunked",
    ).replace(smuggled, `0\r\n\r\n${smuggled}`),
    "chunked in two fields": coded("chunked", "chunked"),
    "chunked and identity": coded("chunked", "identity"),
    "chunked twice": coded("chunked, chunked"),
    "chunked not last": coded("chunked, gzip"),
    "an unknown coding below chunked": coded("gzip, chunked"),
    "identity as transfer coding": write("Transfer-Encoding: identity") + record,
    "a coding that begins as chunked": coded("chunkedx"),
    "a coding that ends as chunked": coded("xchunked"),
    "a quoted coding": coded('"chunked"'),
    "a coding behind a vertical tab": coded("\x0bchunked"),
    "an empty transfer coding": coded(""),
    "chunks in version 1.0": coded("chunked").replace("HTTP/1.1", "HTTP/1.0"),
  });
  const chunkings = refused([400], {
    "a negative chunk": chunked(`-18\r\n${record}\r\n0\r\n\r\n`),
    "a chunk size with a plus": chunked(`+18\r\n${record}\r\n0\r\n\r\n`),
    "a chunk size with 0x": chunked(`0x18\r\n${record}\r\n0\r\n\r\n`),
    "a chunk size that is a word": chunked(`zz\r\n${record}\r\n0\r\n\r\n`),
    "an empty chunk size": chunked(`\r\n${record}\r\n0\r\n\r\n`),
    "a space before a chunk size": chunked(` 18\r\n${record}\r\n0\r\n\r\n`),
    "NUL in a chunk size": chunked(`1\x008\r\n${record}\r\n0\r\n\r\n`),
    "a chunk size ended by LF": chunked(`18\n${record}\n0\n\n`),
    "a chunk without an end of line": chunked(`18\r\n${record}0\r\n\r\n`),
    "bytes behind a chunk": chunked(`18\r\n${record}xx0\r\n\r\n`),
    "a chunk longer than its size": chunked(`17\r\n${record}\r\n0\r\n\r\n`),
    "a chunk shorter than its size": chunked(`19\r\n${record}\r\n0\r\n\r\n`),
    "CR in a chunk extension": chunked(`18;a\rb\r\n${record}\r\n0\r\n\r\n`),
    "LF in a chunk extension": chunked(`18;a\nb\r\n${record}\r\n0\r\n\r\n`),
  });
  const hugeChunks = refused([400, 413], {
    "a chunk of 2^68 - 1 bytes": chunked(`fffffffffffffffff\r\n${record}\r\n0\r\n\r\n`),
    "a chunk of 2^64 - 1 bytes": chunked(`ffffffffffffffff\r\n${record}\r\n0\r\n\r\n`),
    "a chunk of 2^64 + 24 bytes": chunked(`10000000000000018\r\n${record}\r\n0\r\n\r\n`),
    "a chunk extension of 100 kB": chunked(`18;${"a".repeat(1e5)}\r\n${record}\r\n0\r\n\r\n`),
  });
  // A server that refuses while the client still sends may cut off its own answer.
  const long = refused([400, 414, 431, CLOSED], {
    "a target of 1 MB": line(`GET /v0/health?${"x".repeat(1e6)} HTTP/1.1`),
    "a target without end": `GET /${"x".repeat(1e6)}`,
    "a method without end": "G".repeat(1e6),
    "a value of 1 MB": get(`X-A: ${"x".repeat(1e6)}`),
    "a name of 1 MB": get(`${"x".repeat(1e6)}: value`),
    "1000 fields": get(...numbered(1000)),
    "100000 fields": get(...numbered(1e5)),
    "a folded field without end": `${get().slice(0, -2)}X-A: value\r\n${" more\r\n".repeat(1e5)}`,
  });
  const random = Array.from({ length: 5000 }, (_, i) => String.fromCharCode((i * i * 7919 + 13 * i) % 251));
  const foreign = refused([400, 431, 505, CLOSED], {
    "a TLS hello": `\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03${"\x55".repeat(505)}`,
    "an SSL 2 hello": `\x80\x2e\x01\x03\x01${"\x33".repeat(40)}`,
    "bytes without order": random.join(""),
    "1000 NULs": "\0".repeat(1000),
    "70000 bytes of 255": "\xff".repeat(70000),
    "a PROXY line": `PROXY TCP4 192.0.2.1 192.0.2.2 1000 80\r\n${get()}`,
    "a Redis command": "*1\r\n$4\r\nPING\r\n",
    "an SMTP greeting": "EHLO test\r\n",
    "an SSH banner": "SSH-2.0-OpenSSH_9.6\r\n",
    "a body without a head": `${record}\r\n\r\n`,
    "a response": "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "half a preface of HTTP/2 and a request": `PRI * HTTP/2.0\r\n\r\n${get()}`,
  });

  test.each([
    ...requestLines,
    ...versions,
    ...methods,
    ...fields,
    ...lengths,
    ...encodings,
    ...chunkings,
    ...hugeChunks,
    ...long,
    ...foreign,
  ])("%s", async (_, bytes, statuses) => {
    const answers = answersIn(await exchange(server.url, bytes));
    expect(answers.length).toBeLessThanOrEqual(1);
    expect(statuses).toContain(answers[0]?.status ?? CLOSED);
    await expectUnharmed();
  });
});

/** Sends the bytes and then, where the connection stays open, a good request. Gives the first answer. */
async function onlyAnswer(bytes: string, url = server.url): Promise<RawAnswer> {
  using socket = new RawSocket(url);
  await socket.write(bytes);
  await socket.until((text) => isAnswer(text) && finals(text).length > 0);
  if (!socket.closed) await socket.write(head("GET /v0/ready HTTP/1.1", host, "Connection: close"));
  const [answer, ...others] = finals(await socket.untilClosed());
  // Whatever else the first request was taken for would be answered in between.
  if (others.length > 0)
    expect(others).toMatchObject([{ status: 200, body: expect.stringMatching(/"ready"/) }]);
  return answer!;
}

describe("odd requests get one answer", () => {
  const health = /^\{"status":"ok"/;
  const proper = refused([200], {
    "an absolute target": line("GET http://test/v0/health HTTP/1.1"),
    "an absolute target of another host": line("GET http://elsewhere.example:99/v0/health HTTP/1.1"),
    "a host of one letter": head("GET /v0/health HTTP/1.1", "Host: x"),
    "an absolute target with a host of one letter": line("GET http://x/v0/health HTTP/1.1"),
    "a host with a port": head("GET /v0/health HTTP/1.1", "Host: 127.0.0.1:4000"),
    "an IPv6 host": head("GET /v0/health HTTP/1.1", "Host: [::1]:4000"),
    "field names in mixed case": head("GET /v0/health HTTP/1.1", "hOST: test", "CONNECTION: Keep-Alive"),
    "an empty value": get("X-A:"),
    "no space and many spaces around values": get("X-A:value", "X-B: \t  value \t "),
    "a byte above 127 in a value": get("X-A: \xff\xfe"),
    "the same field 50 times": get(...Array(50).fill("X-A: value")),
    "80 fields": get(...numbered(79)),
    "a target of 8 KiB": line(`GET /v0/health?${"x".repeat(8192 - 11)} HTTP/1.1`),
    "a field of 8 KiB": get(`X-A: ${"x".repeat(8192 - 5)}`),
    "a query that is no query": line("GET /v0/health?%zz&=&&a=%ff%00;?/// HTTP/1.1"),
    "an upgrade to nothing known": get("Connection: Upgrade", "Upgrade: teleport"),
    "a connection field of junk": get("Connection: , ,;x"),
    "a GET with a body": carrying("GET /v0/health HTTP/1.1"),
    "a GET with chunks": `${get("Transfer-Encoding: chunked")}4\r\nbody\r\n0\r\n\r\n`,
    "a GET that expects 100": get("Expect: 100-continue"),
  });
  const lenient = refused([200, 400], {
    "an empty line in front": `\r\n${get()}`,
    "no host": head("GET /v0/health HTTP/1.1"),
    "an empty host": head("GET /v0/health HTTP/1.1", "Host:"),
    "two hosts": get("Host: other"),
    "the same host twice": get(host),
    "a host with a path": head("GET /v0/health HTTP/1.1", "Host: test/v0/topics"),
    "a host with a query": head("GET /v0/health HTTP/1.1", "Host: test/v0/topics?"),
    "a host with a fragment": head("GET /v0/health HTTP/1.1", "Host: test/v0/topics#"),
    "a host with a user": head("GET /v0/health HTTP/1.1", "Host: user@test"),
    "a host with a space": head("GET /v0/health HTTP/1.1", "Host: te st"),
    "a host with a backslash": head("GET /v0/health HTTP/1.1", "Host: te\\st"),
    "half an IPv6 host": head("GET /v0/health HTTP/1.1", "Host: [::1"),
    "a host with an impossible port": head("GET /v0/health HTTP/1.1", "Host: test:99999999"),
    "a host with escapes": head("GET /v0/health HTTP/1.1", "Host: te%00st"),
    "a host of bytes above 127": head("GET /v0/health HTTP/1.1", "Host: \xff\xfe"),
    "a host of 5000 letters": head("GET /v0/health HTTP/1.1", `Host: ${"a".repeat(5000)}`),
    "an absolute target with a user": line("GET http://user:word@test/v0/health HTTP/1.1"),
    "an absolute target of HTTPS": line("GET https://test/v0/health HTTP/1.1"),
    "DEL in a value": get("X-A: val\x7fue"),
  });
  const versionOne = refused([200], {
    "version 1.0": head("GET /v0/health HTTP/1.0"),
    "version 1.0 with a host": head("GET /v0/health HTTP/1.0", host),
    "version 1.0 that wants to stay": head("GET /v0/health HTTP/1.0", "Connection: keep-alive"),
  });

  test.each([...proper, ...lenient, ...versionOne])("%s", async (_, bytes, statuses) => {
    const { status, headers, body } = await onlyAnswer(bytes);
    expect(statuses).toContain(status);
    if (status === 200) expect(body).toMatch(health);
    if (bytes.includes("HTTP/1.0")) expect(headers.has("transfer-encoding")).toBe(false);
    await expectUnharmed();
  });

  const refusals = [
    ...refused([400], {
      "raw angle brackets in a new name": line("PUT /v0/topics/<a> HTTP/1.1"),
      "a name in overlong UTF-8": line("GET /v0/topics/%c0%af HTTP/1.1"),
      "a name with an encoded surrogate": line("GET /v0/topics/%ed%a0%80 HTTP/1.1"),
      "a name with bytes beyond Unicode": line("GET /v0/topics/%f8%88%80%80%80 HTTP/1.1"),
      "a name that ends inside a character": line("POST /v0/topics/%e2%82/diff HTTP/1.1"),
    }),
    ...refused([404], {
      "a stray percent sign": line("GET /v0/topics/% HTTP/1.1"),
      "half an escape": line("GET /v0/topics/a%2 HTTP/1.1"),
      "an escape of no digits": line("GET /v0/topics/a%zz HTTP/1.1"),
      "an escaped NUL": line("GET /v0/topics/%00 HTTP/1.1"),
      "an escaped slash": line("GET /v0/topics/a%2Fdiff HTTP/1.1"),
      "an escaped escape": line("GET /v0/topics/%2574arget HTTP/1.1"),
      "an escaped line end": line("GET /v0/topics/a%0d%0aX-A:%20value HTTP/1.1"),
      "escapes all over a path": line("GET /%76%30%2Fhealth HTTP/1.1"),
      "10000 escapes": line(`GET /v0/topics/${"%61".repeat(2000)} HTTP/1.1`),
      "a name of a property": line("GET /v0/topics/__proto__ HTTP/1.1"),
      "a path of a property": line("GET /constructor HTTP/1.1"),
      "the pattern of a path": line("GET /v0/topics/:topic HTTP/1.1"),
      "an asterisk in a path": line("GET /v0/* HTTP/1.1"),
      "parameters behind a semicolon": line("GET /v0/health;a=b HTTP/1.1"),
      "a fragment behind a path": line("GET /v0/topics#a HTTP/1.1"),
      "a host in the path": line("GET //test/v0/health HTTP/1.1"),
      "slashes only": line(`GET ${"/".repeat(4000)} HTTP/1.1`),
      "an absolute target without a path": line("GET http://test HTTP/1.1"),
      "an absolute target with only a query": line("GET http://test?/v0/health HTTP/1.1"),
    }),
    // The runtime may hand on a byte that is no UTF-8 as U+FFFD, and an angle bracket as its escape.
    ...refused([400, 404], {
      "raw bytes above 127": line("GET /v0/topics/\xff\xfe HTTP/1.1"),
      "raw UTF-8": line("GET /v0/topics/\xc3\xa9 HTTP/1.1"),
      "raw angle brackets": line("GET /v0/topics/<a> HTTP/1.1"),
    }),
    ...refused([400, 405, 501], {
      "TRACE with a secret": head("TRACE /v0/health HTTP/1.1", host, "X-Secret: hidden-4711"),
      PURGE: line("PURGE /v0/health HTTP/1.1"),
      PROPFIND: line("PROPFIND /v0/topics HTTP/1.1"),
      "an asterisk for OPTIONS": line("OPTIONS * HTTP/1.1"),
    }),
    ...refused([404], { "an unknown path with a body": carrying("POST /nope HTTP/1.1") }),
    ...refused([405], { "a wrong method with a body": carrying("PATCH /v0/topics/target HTTP/1.1") }),
    ...refused([415], { "a write of no type": carrying(`POST ${target} HTTP/1.1`) }),
    ...refused([400], {
      "a write of junk": carrying(`POST ${target} HTTP/1.1`, "Content-Type: application/json"),
      "a write with a body cut by its length": write("Content-Length: 10") + record.slice(0, 10),
      "a write with a length of 0": write("Content-Length: 0"),
      "a write with no framing": write(),
      "a write with an empty chunked body": chunked("0\r\n\r\n"),
    }),
    ...refused([400, 417], { "an expectation nobody knows": `${write("Expect: miracles")}` }),
  ];

  test.each(refusals)("%s", async (_, bytes, statuses) => {
    const { status, body } = await onlyAnswer(bytes);
    expect(statuses).toContain(status);
    expect(body).not.toContain("hidden-4711");
    await expectUnharmed();
  });

  test.each([
    ["equal lengths", "", `Content-Length: 24\r\nContent-Length: 24\r\n\r\n${record}`, [201, 400]],
    ["a list of equal lengths", "", `Content-Length: 24, 24\r\n\r\n${record}`, [201, 400]],
    ["a length with zeros in front", "", `Content-Length: 00024\r\n\r\n${record}`, [201, 400]],
    ["chunked in capitals", "", `Transfer-Encoding: CHUNKED\r\n\r\n${chunks}`, [201]],
    ["a chunk extension", "", `Transfer-Encoding: chunked\r\n\r\n18;a=b;c="d"\r\n${chunks.slice(4)}`, [201]],
    [
      "a chunk size in capitals with zeros",
      " ".repeat(0x2a - 0x18),
      `Transfer-Encoding: chunked\r\n\r\n00002A\r\n${" ".repeat(0x2a - 0x18)}${record}\r\n000\r\n\r\n`,
      [201],
    ],
    [
      "a chunk for each byte",
      "",
      `Transfer-Encoding: chunked\r\n\r\n${[...record].map((byte) => `1\r\n${byte}\r\n`).join("")}0\r\n\r\n`,
      [201],
    ],
    [
      "a body that was sent without waiting for 100",
      "",
      `Expect: 100-continue\r\nContent-Length: 24\r\n\r\n${record}`,
      [201],
    ],
  ] as [string, string, string, number[]][])("01.06 a body with %s", async (what, _, framing, statuses) => {
    const topic = absentTopic(server, what.replaceAll(" ", "-"));
    const start = head(`POST ${topic.path} HTTP/1.1`, host, "Content-Type: application/json").slice(0, -2);
    const { status } = await onlyAnswer(start + framing);
    expect(statuses).toContain(status);
    const { body } = await topic.diff();
    expect(body.records?.map(({ data }: { data: unknown }) => data)).toEqual(
      status === 201 ? [1] : undefined,
    );
  });

  test.each(["elsewhere.example:443", "/v0/health", "test"])("CONNECT to %s opens no tunnel", async (to) => {
    using socket = new RawSocket(server.url);
    await socket.write(line(`CONNECT ${to} HTTP/1.1`));
    const answers = finals(await socket.until(isAnswer));
    expect([400, 404, 405, 501]).toContain(answers[0]!.status);
    await expectUnharmed();
  });

  test("a trailer is never taken for a request", async () => {
    const topic = absentTopic(server, "trailed");
    for (const trailer of ["X-Trailer: value\r\n\r\n", smuggled]) {
      const start = head(`POST ${topic.path} HTTP/1.1`, host, "Content-Type: application/json").slice(0, -2);
      using socket = new RawSocket(server.url);
      await socket.write(
        `${start}Transfer-Encoding: chunked\r\n\r\n${chunks.slice(0, -2)}${trailer}` +
          head("GET /v0/ready HTTP/1.1", host, "Connection: close"),
      );
      const statuses = finals(await socket.untilClosed()).map(({ status }) => status);
      expect([200, 201, 400]).toContain(statuses[0]!);
      // A runtime that cannot read trailers may still say so, and then close.
      for (const status of statuses.slice(1)) expect([200, 400]).toContain(status);
      expect(statuses.length).toBeLessThanOrEqual(2);
    }
    await expectUnharmed();
  });

  test.each([
    ["an unknown path", "POST /nope HTTP/1.1", 404],
    ["a wrong method", "PATCH /v0/topics HTTP/1.1", 405],
    ["too long a body", `POST ${target} HTTP/1.1`, 413],
  ])("%s is answered before the body comes", async (_, requestLine, expected) => {
    using socket = new RawSocket(server.url);
    await socket.write(
      head(requestLine, host, "Content-Type: application/json", "Content-Length: 99999999999"),
    );
    const answers = finals(await socket.until(isAnswer));
    expect(answers.map(({ status }) => status)).toEqual([expected]);
    await expectUnharmed();
  });

  test("too long a body that still comes is not taken for requests", async () => {
    await using own = await startServer({ TOPICS_MAX_BODY_BYTES: "100" });
    const body = smuggled.repeat(1000);
    for (const [framing, sent] of [
      [`Content-Length: ${body.length}`, body],
      ["Transfer-Encoding: chunked", `${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`],
    ] as const) {
      using socket = new RawSocket(own.url);
      await socket.write(write(framing) + sent);
      await socket.until((text) => text.endsWith("}"));
      await socket.halfClose();
      const answers = finals(await socket.untilClosed());
      expect([413, CLOSED]).toContain(answers[0]?.status ?? CLOSED);
      expect(answers.length).toBeLessThanOrEqual(1);
    }
    expect((await own.send("GET", "/v0/topics")).body.topics).toEqual([]);
  });
});

test.each([
  ["twice", "Content-Length: 24\r\nContent-Length: 24"],
  ["in a list", "Content-Length: 24, 24"],
])("01.24 a length that is sent %s counts as it is", async (_, lengths) => {
  await using own = await startServer({ TOPICS_MAX_BODY_BYTES: "10" });
  const answer = await exchange(own.url, write(lengths, "Connection: close") + record);
  expect([400, 413]).toContain(finals(answer)[0]!.status);
  const { body } = await own.send("GET", "/v0/metrics", undefined, { accept: "application/json" });
  expect(body).toMatchObject({ topics: 0 });
  expect((await own.send("GET", "/v0/metrics")).text).toContain("\ntopics_request_body_bytes_in_flight 0\n");
});

test.each([".", "..", "%2e", "%2E%2e"])("01.12 %s is not the name of a topic anywhere", async (dots) => {
  await using own = await startServer();
  await absentTopic(own, "diff").put();
  for (const [method, rest] of [
    ["GET", ""],
    ["PUT", ""],
    ["DELETE", ""],
    ["POST", "/diff"],
  ] as const) {
    const answer = await exchange(
      own.url,
      head(`${method} /v0/topics/${dots}${rest} HTTP/1.1`, host, "Connection: close"),
    );
    expect([method, [400, 404, 415].includes(answersIn(answer)[0]!.status)]).toEqual([method, true]);
  }
  expect((await own.send("GET", "/v0/topics")).body.topics).toMatchObject([{ topic: "diff", head_seq: 0 }]);
});

describe("HTTP/2 without order", () => {
  const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
  const frame = (type: number, stream: number, payload: string, flags = 0) =>
    String.fromCharCode(
      (payload.length >> 16) & 255,
      (payload.length >> 8) & 255,
      payload.length & 255,
      type,
      flags,
      (stream >> 24) & 255,
      (stream >> 16) & 255,
      (stream >> 8) & 255,
      stream & 255,
    ) + payload;
  const settings = frame(4, 0, "");

  test.each([
    ["junk for frames", "\xff".repeat(1000)],
    ["HTTP/1.1 for frames", get().repeat(5)],
    ["a frame of 16 MB", `\xff\xff\xff\x04\0\0\0\0\0${"\0".repeat(50_000)}`],
    ["data on no stream", settings + frame(0, 0, "a")],
    ["data on a stream that never opened", settings + frame(0, 1, "a")],
    ["data before the settings", frame(0, 1, "a")],
    ["a stream of an even number", settings + frame(1, 2, "\x82", 5)],
    ["headers that are no headers", settings + frame(1, 1, "\xff\xff\xff\xff\xff\xff", 5)],
    ["settings of a wrong length", frame(4, 0, "abc")],
    ["settings on a stream", frame(4, 1, "")],
    ["a ping of a wrong length", settings + frame(6, 0, "abc")],
    ["a window that grows by 0", settings + frame(8, 0, "\0\0\0\0")],
    ["a window that grows too far", settings + frame(8, 0, "\x7f\xff\xff\xff")],
    ["a continuation of nothing", settings + frame(9, 1, "abc")],
    ["a push from the client", settings + frame(5, 1, "\0\0\0\x02\x82", 4)],
  ])("%s ends the connection", async (_, bytes) => {
    const received = await exchange(server.url, preface + bytes);
    // An error of the connection is told in a GOAWAY (7), the last frame of all.
    const types: number[] = [];
    for (let at = 0; at < received.length; ) {
      const [high, middle, low, type] = Buffer.from(received.slice(at, at + 4), "latin1");
      types.push(type!);
      at += 9 + ((high! << 16) | (middle! << 8) | low!);
    }
    expect(types.at(-1)).toBe(7);
    await expectUnharmed();
  });
});

describe("requests in pieces", () => {
  const whole = sized("24");

  test("end of the client's side anywhere in a request", async () => {
    const fates = await Promise.all(
      Array.from({ length: whole.length - 1 }, async (_, i) => {
        using socket = new RawSocket(server.url);
        await socket.write(whole.slice(0, i + 1));
        await socket.halfClose();
        return finals(await socket.untilClosed()).map(({ status }) => status);
      }),
    );
    for (const statuses of fates) {
      expect(statuses.length).toBeLessThanOrEqual(1);
      expect([400, 408, CLOSED]).toContain(statuses[0] ?? CLOSED);
    }
    await expectUnharmed();
  });

  test("reset of the connection anywhere in a request", async () => {
    for (let length = 1; length < whole.length; length += 7) {
      using socket = new RawSocket(server.url);
      await socket.write(whole.slice(0, length));
      await server.send("GET", "/v0/health");
      await socket.reset();
    }
    await expectUnharmed();
  });

  test.each([
    ["a length", sized("24")],
    ["chunks", chunked(chunks)],
  ])("a client that ends its side behind a whole request with %s", async (framing, bytes) => {
    const topic = absentTopic(server, `behind-${framing.replace(" ", "-")}`);
    using socket = new RawSocket(server.url);
    await socket.write(bytes.replace(target, topic.path));
    await socket.halfClose();
    const statuses = finals(await socket.untilClosed()).map(({ status }) => status);
    expect([[], [201]]).toContainEqual(statuses);
    if (statuses.length > 0) expect((await topic.state()).body.head_seq).toBe(1);
    await expectUnharmed();
  });

  test.each([
    ["a length", sized("24")],
    ["chunks", chunked(`a;ext=1\r\n${record.slice(0, 10)}\r\nE\r\n${record.slice(10)}\r\n0\r\n\r\n`)],
  ])("01.06 a request with %s may be cut in two anywhere", async (framing, bytes) => {
    const topic = absentTopic(server, `cut-${framing.replace(" ", "-")}`);
    await topic.put();
    const request = bytes.replace(target, topic.path);
    const statuses = await Promise.all(
      Array.from({ length: request.length - 1 }, async (_, i) => {
        using socket = new RawSocket(server.url);
        await socket.write(request.slice(0, i + 1));
        // An answer to another connection: by now the server has most likely seen the first part.
        await server.send("GET", "/v0/health");
        await socket.write(request.slice(i + 1));
        return finals(await socket.until(isAnswer)).map(({ status }) => status);
      }),
    );
    expect(statuses).toEqual(Array(request.length - 1).fill([200]));
    expect((await topic.state()).body.count).toBe(request.length - 1);
  });

  test("01.06 a request may come byte by byte", async () => {
    const topic = absentTopic(server, "bytewise");
    using socket = new RawSocket(server.url);
    for (const byte of sized("24").replace(target, topic.path)) {
      await socket.write(byte);
      await new Promise(setImmediate);
    }
    expect(finals(await socket.until(isAnswer)).map(({ status }) => status)).toEqual([201]);
    expect((await topic.diff()).body.records).toMatchObject([{ $seq: 1, data: 1 }]);
  });
});

describe("pipelined requests", () => {
  /** As many answers as expected, or the first few of them before the connection is closed. */
  async function pipelined(requests: string[], expected: number[]): Promise<number> {
    using socket = new RawSocket(server.url);
    await socket.write(requests.join(""));
    const all = (text: string) => isAnswer(text) && finals(text).length >= expected.length;
    const statuses = finals(await socket.until(all)).map(({ status }) => status);
    expect(statuses).toEqual(expected.slice(0, statuses.length));
    return statuses.length;
  }

  test("reads are answered in order", async () => {
    const cycle: [string, number][] = [
      [get(), 200],
      [line("GET /nope HTTP/1.1"), 404],
      [line("PATCH /v0/health HTTP/1.1"), 405],
      [line("GET /v0/topics/never HTTP/1.1"), 404],
    ];
    const requests = Array.from({ length: 40 }, (_, i) => cycle[i % cycle.length]!);
    const answered = await pipelined(
      requests.map(([request]) => request),
      requests.map(([, status]) => status),
    );
    expect(answered).toBeGreaterThan(0);
    await expectUnharmed();
  });

  test("writes are stored in order, as far as they are answered", async () => {
    const topic = absentTopic(server, "pipelined");
    const requests = Array.from({ length: 20 }, (_, i) => {
      const body = `{"records":[{"data":${i}}]}`;
      return (
        head(
          `POST ${topic.path} HTTP/1.1`,
          host,
          "Content-Type: application/json",
          `Content-Length: ${body.length}`,
        ) + body
      );
    });
    const answered = await pipelined(requests, [201, ...Array(19).fill(200)]);
    const stored = (await topic.diff()).body.records.map(({ data }: { data: number }) => data);
    expect(stored).toEqual(Array.from({ length: stored.length }, (_, i) => i));
    expect(stored.length).toBeGreaterThanOrEqual(answered);
  });

  test("a request behind a long poll waits for it, or ends the connection", async () => {
    const topic = absentTopic(server, "polled");
    await topic.put();
    const wait = '{"wait_ms":300}';
    const poll =
      head(
        `POST ${topic.path}/diff HTTP/1.1`,
        host,
        "Content-Type: application/json",
        `Content-Length: ${wait.length}`,
      ) + wait;
    using socket = new RawSocket(server.url);
    await socket.write(poll + line("GET /nope HTTP/1.1"));
    const received = await socket.until((text) => isAnswer(text) && finals(text).length === 2);
    expect(socket.closed ? [[], [200], [200, 404]] : [[200, 404]]).toContainEqual(
      finals(received).map(({ status }) => status),
    );
    await expectUnharmed();
  });

  test("a malformed request behind a good one takes nothing from it", async () => {
    const answers = finals(await exchange(server.url, `${get()}JUNK\r\n\r\n${get()}`));
    expect(answers.map(({ status }) => status)).toEqual([200, 400]);
    await expectUnharmed();
  });
});

describe("one path for routes and access", () => {
  const around = [
    line("GET http://x/v0/topics/other HTTP/1.1"),
    line("GET http://t42:/v0/topics/other HTTP/1.1"),
    head("GET /v0/topics/other HTTP/1.1", "Host: x/v0/topics/t42:a?"),
    head("GET /v0/topics/other HTTP/1.1", "Host: x/v0/topics/t42:a#"),
    head("GET /v0/topics/other HTTP/1.1", "Host:"),
    head("GET /v0/topics/other HTTP/1.0"),
    line("GET /v0/topics/t42:a/../other HTTP/1.1"),
    line("GET /v0/topics/t42:a/%2e%2e/other HTTP/1.1"),
    line("GET /v0/topics/t42:a%2f..%2fother HTTP/1.1"),
    line("GET /v0/topics/t42:a\\..\\other HTTP/1.1"),
    line("GET /v0/topics/t42:a/..%5cother HTTP/1.1"),
    line("GET /v0/health/../topics/other HTTP/1.1"),
    line("GET /healthz/../v0/topics/other HTTP/1.1"),
    line("GET /v0/topics/%6fther HTTP/1.1"),
    line("GET //v0/topics/other HTTP/1.1"),
    line("GET /v0/topics/other#/v0/topics/t42:a HTTP/1.1"),
    line("GET /v0/topics/other?/v0/topics/t42:a HTTP/1.1"),
    line("GET /v0/topics/other/ HTTP/1.1"),
    line("GET /v0/topics/..\\..\\swagger\\x\\other HTTP/1.1"),
    line("POST /v0/topics/..\\..\\swagger\\x\\other/diff HTTP/1.1"),
    line("GET /v0/topics/t42:a\\..\\other HTTP/1.1"),
    line("GET /swagger/../v0/topics/other HTTP/1.1"),
    line("GET /swagger\\..\\v0\\topics\\other HTTP/1.1"),
    head("GET /swagger/v0/topics/other HTTP/1.1", "Host: a"),
    head("GET /healthz/v0/topics/other HTTP/1.1", "Host: a"),
    head("GET /swagger/xx/v0/topics/other HTTP/1.0"),
    head("GET /swagger/../v0/topics/other HTTP/1.0"),
    head("GET /v0/topics/t42:/v0/topics/other HTTP/1.0"),
  ];

  test("01.30 01.36 no spelling of a path gets around the keys", async () => {
    await using own = await startServer({ TOPICS_API_KEYS: "full,narrow::t42:" });
    const authorized = (key: string) => `Authorization: Bearer ${key}`;
    const put = await own.send("PUT", "/v0/topics/other", {}, { authorization: "Bearer full" });
    expect(put.status).toBe(201);
    for (const request of around) {
      const sent = (field: string) => onlyAnswer(request.replace("\r\n", `\r\n${field}\r\n`), own.url);
      const [none, narrow] = [await sent("X-None: 1"), await sent(authorized("narrow"))];
      // Whatever is below /swagger is open; all that it may say is that there is no such page.
      const open = request.includes("swagger") ? [404] : [];
      expect([request, [400, 401, ...open].includes(none.status)]).toEqual([request, true]);
      expect(none.body).not.toContain("head_seq");
      expect([request, [400, 403, 404].includes(narrow.status)]).toEqual([request, true]);
      expect(narrow.body).not.toContain("head_seq");
    }
  });
});

describe("answers", () => {
  const fieldsOf = async (method: string, path: string, body?: unknown, sent?: Record<string, string>) => {
    const { status, headers } = await server.send(method, path, body, sent);
    const names = [...headers.keys()].filter((name) => name !== "connection" && name !== "keep-alive");
    return [status, names.sort().join(" ")];
  };
  const plain = "content-length content-type date";

  test("1 carry a type, a length, a date and no more", async () => {
    const { path } = absentTopic(server, "fields");
    expect(await fieldsOf("PUT", path)).toEqual([201, plain]);
    expect(await fieldsOf("POST", path, { records: [{ data: 1 }] })).toEqual([200, plain]);
    expect(await fieldsOf("POST", `${path}/diff`, {})).toEqual([200, plain]);
    expect(await fieldsOf("GET", path)).toEqual([200, plain]);
    expect(await fieldsOf("GET", "/v0/health")).toEqual([200, plain]);
    expect(await fieldsOf("GET", "/v0/health", undefined, { origin: "https://a.example" })).toEqual([
      200,
      plain,
    ]);
    expect(await fieldsOf("GET", "/nope")).toEqual([404, plain]);
    expect(await fieldsOf("POST", path, "{")).toEqual([400, plain]);
    expect(await fieldsOf("PATCH", path)).toEqual([405, `allow ${plain}`]);
  });

  test.each([
    ["/v0/topics", "application/json"],
    ["/v0/topics/headed", "application/json"],
    ["/v0/health", "application/json"],
    ["/v0/ready", "application/json"],
    ["/healthz", "application/json"],
    ["/readyz", "application/json"],
    ["/v0/metrics", "text/plain"],
    ["/v0/topics/never-headed", "application/json"],
    ["/nope", "application/json"],
  ])("01.04 HEAD %s has the headers of GET and no body", async (path, type) => {
    await absentTopic(server, "headed").put();
    const ask = (method: string) =>
      exchange(server.url, head(`${method} ${path} HTTP/1.1`, host, "Connection: close"));
    const [full] = answersIn(await ask("GET"));
    const [bare, ...rest] = answersIn(await ask("HEAD"), () => true);
    expect(rest).toEqual([]);
    expect([bare!.status, [...bare!.headers.keys()].sort()]).toEqual([
      full!.status,
      [...full!.headers.keys()].sort(),
    ]);
    expect(bare!.headers.get("content-type")).toStartWith(type);
    // Only the figures in the body differ, by a few digits.
    expect(Number(bare!.headers.get("content-length"))).toBeGreaterThan(full!.body.length * 0.8);
  });
});
