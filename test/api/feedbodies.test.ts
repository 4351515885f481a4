/** Bodies of the feed API: JSON, types, numbers, depth, sizes, content types and codings. */
import { describe, expect, test } from "bun:test";
import { brotliCompressSync, gzipSync } from "node:zlib";
import {
  contentsOf,
  expectRefusal,
  type Feed,
  inOrder,
  type More,
  newFeed,
  paths,
} from "../support/feeds.ts";
import { elements, members, payloads } from "../support/rawjson.ts";
import { answersIn, exchange, RawSocket } from "../support/rawsocket.ts";
import { type Reply, startServer } from "../support/server.ts";
import { absentTopic, sharedServer } from "../support/topics.ts";

const server = sharedServer();
const log = absentTopic(server, "_feeds");

const BODY_BYTES_MAX = 2_097_152;
const EVENT_BYTES_MAX = 131_072;
const TOO_LARGE = "invalid event: event bytes > 128KB";

const post = (body: unknown, headers?: Record<string, string>) =>
  server.send("POST", paths.messages, body, headers);
const subscribe = (body: unknown, headers?: Record<string, string>) =>
  server.send("POST", paths.subscriptions, body, headers);

/** The text of a post to the feed with this text as `content`, and these members behind it. */
const spelled = (feed: Feed, content: string, more = "") =>
  `{"feed_key":"${feed.key}","scope_hint":"${feed.scope}","content":${content}${more}}`;

/** Both operations that take a body, each with a body that is good. */
const operations: [operation: string, path: string, good: More][] = [
  ["a post", paths.messages, { feed_key: "k", scope_hint: "group:bodies", content: 1 }],
  ["a subscription", paths.subscriptions, { feed_key: "k", scope_hint: "group:bodies", active: true }],
];

const headSeq = async () => (await log.state()).body.head_seq;

/** Runs what must leave no event behind. */
async function storingNothing<T>(run: () => Promise<T>): Promise<T> {
  const before = await headSeq();
  const result = await run();
  expect(await headSeq()).toBe(before);
  return result;
}

describe("types", () => {
  const both = operations.map(([operation]) => operation);
  const wrong: [name: string, takenBy: string[], values: unknown[]][] = [
    ["feed_key", both, [undefined, null, 1, true, {}, []]],
    ["scope_hint", both, [undefined, null, 0, false, {}, ["group:a"]]],
    ["network_id", both, [1, true, {}, []]],
    ["agent_envelope", both, ["{}", 1, true, [], [{}]]],
    ["content", ["a post"], [undefined]],
    ["reply_to_message_id", ["a post"], [1, true, {}, []]],
    ["active", ["a subscription"], [undefined, null, 0, 1, "true", "", {}, []]],
    ["subscriber_node_id", ["a subscription"], [1, true, {}, []]],
  ];
  const cases = wrong.flatMap(([name, takenBy, values]) =>
    operations
      .filter(([operation]) => takenBy.includes(operation))
      .flatMap(([operation, path, good]) =>
        values.map((value): [string, string, unknown, string, More] => [operation, name, value, path, good]),
      ),
  );

  test.each(cases)("07.11 %s with %s %j is 422", async (_, name, value, path, good) => {
    await storingNothing(async () => {
      expectRefusal(await server.send("POST", path, { ...good, [name]: value }), 422);
    });
  });

  test.each(["[]", '"text"', "1", "-0.5", "true", "false", "null", '[{"feed_key":"k"}]', " [ ] "])(
    "07.11 the body %s is 422",
    async (body) => {
      expectRefusal(await post(body), 422);
      expectRefusal(await subscribe(body), 422);
    },
  );

  test.each(operations)("07.11 %s with an empty object is 422", async (_, path) => {
    expectRefusal(await server.send("POST", path, {}), 422);
  });

  test.each(operations)("07.11 %s whose members are spelled otherwise lacks them", async (_, path, good) => {
    const { feed_key, ...others } = good;
    for (const name of ["Feed_Key", "feedKey", "feed_key ", "FEED_KEY"])
      expectRefusal(await server.send("POST", path, { ...others, [name]: feed_key }), 422);
  });

  test.each(operations)("07 s1 of %s wrong types come before what the values say", async (_, path, good) => {
    const send = (more: More) => server.send("POST", path, { ...good, ...more });
    expectRefusal(await send({ feed_key: " ", scope_hint: 1 }), 422);
    expectRefusal(await send({ scope_hint: "banana", agent_envelope: {} }), 422);
    expectRefusal(await send({ network_id: "othernet", agent_envelope: 1 }), 422);
  });
});

describe("members", () => {
  test.each(operations)("07 s1 %s ignores what it does not know", async (_, path, good) => {
    const text = JSON.stringify(good).slice(0, -1);
    for (const more of [
      '"other":1',
      '"other":1,"other":2',
      '"__proto__":{"content":2}',
      '"other":{"feed_key":1,"feed_key":2}',
      '"other":12345678901234567890',
      '"":null',
      '"limit":"x"',
    ])
      expect((await server.send("POST", path, `${text},${more}}`)).status).toBe(200);
  });

  const repeated = operations.flatMap(([operation, path, good]) =>
    Object.entries({
      ...good,
      network_id: null,
      agent_envelope: null,
      ...(path === paths.messages ? { reply_to_message_id: "x" } : { subscriber_node_id: "x" }),
    }).map(([name, value]): [string, string, string, string, More] => [
      operation,
      name,
      JSON.stringify(value),
      path,
      good,
    ]),
  );

  test.each(repeated)("07 s1 %s with %s:%s twice is 422", async (_, name, value, path, good) => {
    const { [name]: _once, ...others } = good;
    const text = JSON.stringify(others).slice(0, -1);
    const escaped = `\\u${name.charCodeAt(0).toString(16).padStart(4, "0")}${name.slice(1)}`;
    const send = (...spellings: string[]) =>
      server.send("POST", path, [text, ...spellings.map((one) => `"${one}":${value}`)].join(",").concat("}"));
    expect((await send(name)).status).toBe(200);
    expect((await send(escaped)).status).toBe(200);
    await storingNothing(async () => {
      expectRefusal(await send(name, name), 422);
      expectRefusal(await send(name, escaped), 422);
    });
  });

  test("07 s1 of equal members inside content the last counts", async () => {
    const feed = newFeed(server);
    const content = '{"feed_key":1,"feed_key":2,"a":{"b":1,"b":[1],"b":{"c":1,"c":2}}}';
    expect((await post(spelled(feed, content))).status).toBe(200);
    expect(contentsOf(await feed.list())).toEqual([{ feed_key: 2, a: { b: { c: 2 } } }]);
  });
});

const bytes = (...parts: (string | number[])[]) =>
  Buffer.concat(parts.map((part) => (typeof part === "string" ? Buffer.from(part) : Buffer.from(part))));

describe("JSON", () => {
  /** Texts of a value that no body may hold, wherever it stands. */
  const broken: [string, string | Uint8Array][] = [
    ["nothing", ""],
    ["a word", "undefined"],
    ["a comment", "/* one */1"],
    ["a trailing comma", "[1,]"],
    ["a single quote", "'a'"],
    ["a name without quotes", "{a:1}"],
    ["NaN", "NaN"],
    ["Infinity", "-Infinity"],
    ["a leading zero", "01"],
    ["a plus sign", "+1"],
    ["a bare fraction", ".5"],
    ["a bare point", "5."],
    ["a hexadecimal number", "0x10"],
    ["1e400", "1e400"],
    ["-1E+400", "-1E+400"],
    ["a lone high surrogate", '"\\ud83d"'],
    ["a lone low surrogate", '"\\ude00"'],
    ["surrogates the wrong way round", '"\\ude00\\ud83d"'],
    ["a high surrogate before a letter", '"\\ud83dA"'],
    ["a lone surrogate in a name", '{"\\ud83d":1}'],
    ["a raw tab", '"\t"'],
    ["a raw line feed", '"\n"'],
    ["a raw NUL", '"\u0000"'],
    ["an unknown escape", '"\\x41"'],
    ["a short escape", '"\\u41"'],
    ["a string that does not end", '"a'],
    ["an array that does not end", "[1"],
    ["the wrong bracket", "[1}"],
    ["a byte that is no UTF-8", bytes('"', [0xff], '"')],
    ["a cut character", bytes('"', [0xc3], '"')],
    ["an overlong slash", bytes('"', [0xc0, 0xaf], '"')],
    ["an encoded surrogate", bytes('"', [0xed, 0xa0, 0x80], '"')],
    ["128 levels with the body", "[".repeat(127) + "]".repeat(127)],
  ];

  const around = (head: string, value: string | Uint8Array, tail: string) =>
    Buffer.concat([Buffer.from(head), Buffer.from(value as string), Buffer.from(tail)]);

  test.each(broken)("07.11 %s is 400 wherever it stands", async (_, value) => {
    const good = '"feed_key":"k","scope_hint":"group:json"';
    await storingNothing(async () => {
      for (const name of ["content", "agent_envelope", "other"])
        expectRefusal(await post(around(`{${good},"content":1,"${name}":`, value, "}")), 400);
      for (const name of ["other", "agent_envelope"])
        expectRefusal(await subscribe(around(`{"active":true,${good},"${name}":`, value, "}")), 400);
      expectRefusal(await post(around('{"feed_key":', value, ',"scope_hint":"group:a","content":1}')), 400);
    });
  });

  test.each<[string, string | Uint8Array]>([
    ["an empty body", ""],
    ["blanks", " \r\n\t"],
    ["a cut body", '{"feed_key":"k"'],
    ["two bodies", "{}{}"],
    ["trailing text", "{} x"],
    ["a byte order mark", bytes([0xef, 0xbb, 0xbf], '{"feed_key":"k","scope_hint":"group:a","content":1}')],
    ["a form", "feed_key=k&scope_hint=group:a&content=1"],
    ["no value", '{"feed_key"}'],
    ["no comma", '{"feed_key":"k" "scope_hint":"group:a"}'],
    ["a comma too many", '{"feed_key":"k",}'],
  ])("07.11 %s is 400", async (_, body) => {
    await storingNothing(async () => {
      expectRefusal(await post(body), 400);
      expectRefusal(await subscribe(body), 400);
    });
  });

  test.each([
    ["a wrong type", '{"feed_key":1,"content":1,"other":01}'],
    ["a member twice", '{"feed_key":"a","feed_key":"b","other":[1,]}'],
    ["a missing member", '{"other":"\\ud83d"}'],
    ["a body that is no object", "[1e400]"],
    ["a blank feed_key", '{"feed_key":" ","scope_hint":" ","content":1,"other":1e999}'],
    ["content null", '{"feed_key":"k","scope_hint":"group:a","content":null}x'],
  ])("07 s1 broken JSON comes before %s", async (_, body) => {
    expectRefusal(await post(body), 400, /^(?!feed_key is required|content must not be null)/);
  });

  test("07 s1 white space between tokens is free", async () => {
    const feed = newFeed(server);
    const body = ` \n{\t"feed_key" :"${feed.key}" ,\r\n"scope_hint": "${feed.scope}","content" : [ 1 , 2 ]\n}\n `;
    expect((await post(body)).status).toBe(200);
    expect(contentsOf(await feed.list())).toEqual([[1, 2]]);
  });

  test("07 s5 content may nest as deep as a body may", async () => {
    const nested = (depth: number) => "[".repeat(depth) + "]".repeat(depth);
    for (const content of [nested(126), `${'{"a":'.repeat(126)}1${"}".repeat(126)}`]) {
      const feed = newFeed(server);
      expect((await post(spelled(feed, content))).status).toBe(200);
      expect(contentsOf(await feed.list())).toEqual([JSON.parse(content)]);
    }
  });

  test("07 s1 127 levels pass in what is ignored, too", async () => {
    const feed = newFeed(server);
    const other = `,"other":${"[".repeat(126)}${"]".repeat(126)}`;
    expect((await post(spelled(feed, "1", other))).status).toBe(200);
  });
});

describe("numbers", () => {
  test.each([
    ["9007199254740991", 9007199254740991],
    ["-9007199254740991", -9007199254740991],
    ["9007199254740991.0", 9007199254740991],
    ["9.007199254740991e15", 9007199254740991],
    ["1e15", 1e15],
    ["1000000000000000e-15", 1],
    ["1.0", 1],
    ["0.1", 0.1],
    ["1.7976931348623157e308", 1.7976931348623157e308],
    ["1e21", 1e21],
    ["-1e21", -1e21],
    ["1E+300", 1e300],
    ["123456789.123456789", 123456789.12345679],
    ["0.30000000000000004", 0.30000000000000004],
    ["5e-324", 5e-324],
    ["1e-7", 1e-7],
    ["4503599627370495.5", 4503599627370495.5],
  ])("07 s4 P11 %s is %d", async (sent, value) => {
    const feed = newFeed(server);
    expect((await post(spelled(feed, `{"deep":[${sent}]}`))).status).toBe(200);
    expect(contentsOf(await feed.list())).toEqual([{ deep: [value] }]);
  });

  test.each(["-0", "-0.0", "0e5", "-0E-5", "0.000"])("07 s4 P11 %s is printed as 0", async (sent) => {
    const feed = newFeed(server);
    await post(spelled(feed, sent));
    const [message] = elements(members((await feed.get()).text).get("messages")!);
    expect(members(message!).get("content")).toBe("0");
  });

  const beyond = [
    "9007199254740992",
    "-9007199254740992",
    "9007199254740993",
    "12345678901234567890",
    "18446744073709551615",
    "-9223372036854775808",
    "1000000000000000000000",
    `1${"0".repeat(300)}`,
    "9007199254740992.0",
    "9007199254740993.0",
    "9007199254740992e0",
    "9.007199254740992e15",
    "1e16",
    "-1e16",
    "1E20",
    "999999999999999900000",
    "9.999e20",
    "10000000000000000.5",
  ];

  test.each(beyond)("07 s4 P11 %s in content is 400", async (number) => {
    const feed = newFeed(server);
    await storingNothing(async () => {
      for (const content of [number, `[${number}]`, `{"a":{"b":[0,${number}]}}`])
        expectRefusal(await post(spelled(feed, content)), 400);
    });
  });

  test.each(beyond)("07 s4 P11 %s in an envelope's free parts is 400", async (number) => {
    const feed = newFeed(server);
    const card = (value: string) =>
      `"source_agent_card":{"agent_id":"a","card_hash":"h","issued_at":1,"card":{"n":[${value}]}}`;
    await storingNothing(async () => {
      for (const part of [
        `"message":{"n":${number}}`,
        `"extensions":[${number}]`,
        `"message":${number}`,
        card(number),
      ])
        expectRefusal(await post(spelled(feed, "1", `,"agent_envelope":{"protocol":"p",${part}}`)), 400);
    });
  });

  test("07 s4 P11 such digits in a string or in what is ignored are fine", async () => {
    const feed = newFeed(server);
    const more =
      ',"other":9007199254740993,"agent_envelope":{"protocol":"p","other":[1e16],"message":"9007199254740993"}';
    expect((await post(spelled(feed, '{"9007199254740993":"9007199254740993"}', more))).status).toBe(200);
    const [message] = await feed.list();
    expect(message).toMatchObject({
      content: { "9007199254740993": "9007199254740993" },
      agent_envelope: { message_json: "9007199254740993" },
    });
  });
});

describe("the size of an event", () => {
  /** Bytes of the last event in the log. */
  async function lastBytes(): Promise<number> {
    const { head_seq } = (await log.state()).body;
    const [event] = payloads(await log.diff({ from_seq: head_seq - 1 }), "data");
    return Buffer.byteLength(event!);
  }

  test.each<[string, string, number]>([
    ["one byte", "x", 1],
    ["two bytes", "é", 2],
    ["four bytes", "😀", 4],
    ["an escape", "\n", 2],
    ["a long escape", "\u0001", 6],
  ])("07.13 may be 131072 bytes in characters of %s, not one more", async (_, character, size) => {
    const feed = newFeed(server);
    /** Content whose encoded text has so many bytes. */
    const text = (n: number) => character.repeat(Math.floor((n - 2) / size)) + "y".repeat((n - 2) % size);
    const some = 110_000;
    await feed.post(text(some));
    const most = some + EVENT_BYTES_MAX - (await lastBytes());
    await feed.post(text(most));
    expect(await lastBytes()).toBe(EVENT_BYTES_MAX);
    expect(inOrder(await feed.list()).at(-1)!.content).toBe(text(most));
    await storingNothing(async () => {
      expectRefusal(await feed.send(text(most + 1)), 400, TOO_LARGE);
    });
    expect(await feed.list()).toHaveLength(2);
  });

  test("07.13 leaves about 129,900 bytes of content", async () => {
    const feed = newFeed(server, "group:a", "k");
    expect((await feed.send("x".repeat(129_600))).status).toBe(200);
    expect((await feed.send("x".repeat(130_400))).status).toBe(400);
  });

  test("07.13 counts the encoded text, not the text as sent", async () => {
    const feed = newFeed(server);
    const padded = `[${" ".repeat(300_000)}"${"\\u0041".repeat(20_000)}",1.${"0".repeat(200_000)}]`;
    expect((await post(spelled(feed, padded))).status).toBe(200);
    expect((await feed.list())[0]!.content_ref.size_bytes).toBe(20_000 + 6);
  });

  test.each<[string, unknown]>([
    ["a string", "x".repeat(99_998)],
    ["many small values", Array(50_000).fill(1).slice(0, 49_999)],
    ["many keys", Object.fromEntries(Array.from({ length: 7000 }, (_, i) => [`key-${i}`, i]))],
  ])("07.13 100,000 bytes of content in %s pass", async (_, content) => {
    const feed = newFeed(server);
    await feed.post(content);
    expect((await feed.list())[0]!.content).toEqual(content);
  });

  test.each<[string, More]>([
    ["content", { content: "x".repeat(EVENT_BYTES_MAX) }],
    ["feed_key", { feed_key: "k".repeat(EVENT_BYTES_MAX) }],
    ["reply_to_message_id", { reply_to_message_id: "r".repeat(EVENT_BYTES_MAX) }],
    ["agent_envelope", { agent_envelope: { protocol: "p", message: "m".repeat(EVENT_BYTES_MAX) } }],
    ["scope_hint", { scope_hint: `group:${"g".repeat(EVENT_BYTES_MAX)}` }],
  ])("07.13 a %s that is too long for an event is 400", async (_, more) => {
    const feed = newFeed(server);
    await storingNothing(async () => expectRefusal(await feed.send("small", more), 400, TOO_LARGE));
  });

  test.each<[string, More]>([
    ["feed_key", { feed_key: "k".repeat(EVENT_BYTES_MAX) }],
    ["subscriber_node_id", { subscriber_node_id: "s".repeat(EVENT_BYTES_MAX) }],
    ["agent_envelope", { agent_envelope: { protocol: "p".repeat(EVENT_BYTES_MAX) } }],
  ])("07.13 a subscription whose %s is too long for an event is 400", async (_, more) => {
    const good = { feed_key: newFeed(server).key, scope_hint: "group:a", active: true };
    await storingNothing(async () => expectRefusal(await subscribe({ ...good, ...more }), 400, TOO_LARGE));
  });

  test("07 s4 there is no other cap: long names pass", async () => {
    const long = newFeed(server, `group:${"g".repeat(20_000)}`, "k".repeat(60_000));
    expect((await long.send(1, { reply_to_message_id: "r".repeat(5000) })).status).toBe(200);
    expect(await lastBytes()).toBeGreaterThan(100_000);
    const subscription = { feed_key: long.key, scope_hint: long.scope, active: true };
    expect((await subscribe(subscription)).status).toBe(200);
  });
});

describe("the size of a body", () => {
  /** A good post of exactly so many bytes. */
  const padded = (feed: Feed, size: number) => {
    const empty = spelled(feed, "1", ',"pad":""');
    return `${empty.slice(0, -2)}${"x".repeat(size - empty.length)}"}`;
  };
  const chunked = (text: string) =>
    new ReadableStream({
      start(stream) {
        for (let at = 0; at < text.length; at += 65_536)
          stream.enqueue(Buffer.from(text.slice(at, at + 65_536)));
        stream.close();
      },
    });
  const gzipped = { "content-encoding": "gzip" };

  const ways: [string, (text: string) => Promise<Reply>][] = [
    ["with its length", (text) => post(text)],
    ["in chunks", (text) => post(chunked(text))],
    ["compressed", (text) => post(gzipSync(text), gzipped)],
  ];

  test.each(ways)("07.13 sent %s it may be 2,097,152 bytes, not one more", async (_, send) => {
    const feed = newFeed(server);
    expect((await send(padded(feed, BODY_BYTES_MAX))).status).toBe(200);
    await storingNothing(async () => expectRefusal(await send(padded(feed, BODY_BYTES_MAX + 1)), 413));
    expect(contentsOf(await feed.list())).toEqual([1]);
  });

  test.each(ways)("07.13 3 MB sent %s are 413", async (_, send) => {
    const feed = newFeed(server);
    expectRefusal(await send(spelled(feed, `"${"x".repeat(3_000_000)}"`)), 413);
    expect(await feed.list()).toEqual([]);
  });

  test("07.13 a subscription has the same limit", async () => {
    const text = (size: number) => {
      const empty = '{"feed_key":"k","scope_hint":"group:a","active":true,"pad":""}';
      return `${empty.slice(0, -2)}${"x".repeat(size - empty.length)}"}`;
    };
    expect((await subscribe(text(BODY_BYTES_MAX))).status).toBe(200);
    expectRefusal(await subscribe(text(BODY_BYTES_MAX + 1)), 413);
  });

  const head = (fields: string) => `POST ${paths.messages} HTTP/1.1\r\nHost: test\r\n${fields}\r\n`;

  test("07.13 413 is told without waiting for the body, and closes the connection", async () => {
    using socket = new RawSocket(server.url);
    await socket.write(head("Content-Type: application/json\r\nContent-Length: 3000000\r\n"));
    await socket.write('{"feed_key":');
    const [answer] = answersIn(await socket.untilClosed());
    expect(answer!.status).toBe(413);
    expect(JSON.parse(answer!.body)).toMatchObject({ ok: false, error: expect.stringMatching(/\S/) });
  });

  test("07.13 a body in chunks is cut off as soon as it passes", async () => {
    using socket = new RawSocket(server.url);
    await socket.write(head("Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n"));
    const size = BODY_BYTES_MAX + 1;
    await socket.write(`${size.toString(16)}\r\n${" ".repeat(size)}\r\n`);
    const [answer] = answersIn(await socket.untilClosed());
    expect(answer!.status).toBe(413);
  });

  test.each([
    ["a wrong type", { "content-type": "text/plain" }],
    ["no type", { "content-type": "" }],
    ["an unknown coding", { "content-encoding": "br" }],
  ])("07 s1 413 comes before %s", async (_, headers) => {
    expectRefusal(await post("x".repeat(BODY_BYTES_MAX + 1), headers), 413);
  });
});

describe("content types", () => {
  const good = operations.map(([, path, body]) => [path, body] as const);

  test.each([
    "application/json",
    "application/json;charset=utf-8",
    "application/json; charset=UTF-8",
    "application/json ; charset=latin1",
    'application/json; profile="a/b; c"',
    "application/vnd.api+json",
    "application/ld+json",
    "application/problem+json; charset=utf-8",
    "application/x.y-z+json",
  ])("07.11 %s passes", async (type) => {
    for (const [path, body] of good)
      expect((await server.send("POST", path, body, { "content-type": type })).status).toBe(200);
  });

  test.each([
    "",
    "text/plain",
    "text/json",
    "text/plain+json",
    "image/x+json",
    "application/xml",
    "application/jsonx",
    "application/json5",
    "application/x-json",
    "application/json+xml",
    "application/jso",
    "application/",
    "application",
    "json",
    "application/vnd.api+jsonx",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/octet-stream",
    "text/plain; a=application/json",
    "*/*",
  ])("07.11 the type %j is 415", async (type) => {
    await storingNothing(async () => {
      for (const [path, body] of good)
        expectRefusal(await server.send("POST", path, JSON.stringify(body), { "content-type": type }), 415);
    });
  });

  test.each([
    ["broken JSON", "{"],
    ["a body that is no object", "[]"],
    ["a missing member", "{}"],
    ["an empty body", ""],
  ])("07 s1 415 comes before %s", async (_, body) => {
    expectRefusal(await post(body, { "content-type": "text/plain" }), 415);
  });

  test.each([
    ["a good body", spelled(newFeed(server), "1")],
    ["broken JSON", "{"],
    ["no body", ""],
  ])("07.11 %s without a type is 415", async (_, body) => {
    const fields = `Host: test\r\nConnection: close\r\nContent-Length: ${body.length}\r\n`;
    const sent = `POST ${paths.messages} HTTP/1.1\r\n${fields}\r\n${body}`;
    const [answer] = answersIn(await exchange(server.url, sent));
    expect(answer!.status).toBe(415);
    expect(members(answer!.body).get("ok")).toBe("false");
  });
});

describe("codings", () => {
  test.each(["gzip", "x-gzip", "GZIP"])("07 s1 01 s1 a body of coding %s is inflated", async (coding) => {
    const feed = newFeed(server);
    const body = gzipSync(spelled(feed, '{"zipped":true}'));
    expect((await post(body, { "content-encoding": coding })).status).toBe(200);
    expect(contentsOf(await feed.list())).toEqual([{ zipped: true }]);
  });

  test("07 s1 a compressed body that is broken is 400", async () => {
    const body = gzipSync(spelled(newFeed(server), "1"));
    for (const part of [body.subarray(0, 20), Buffer.from("{}"), gzipSync("{"), gzipSync("")])
      expectRefusal(await post(part, { "content-encoding": "gzip" }), 400);
  });

  test("07 s1 another coding is 415", async () => {
    const body = brotliCompressSync(spelled(newFeed(server), "1"));
    expectRefusal(await post(body, { "content-encoding": "br" }), 415);
  });

  test("07.13 a small body that inflates beyond the limit is 413", async () => {
    const bomb = gzipSync(Buffer.alloc(50_000_000, " "));
    expect(bomb.length).toBeLessThan(100_000);
    expectRefusal(await post(bomb, { "content-encoding": "gzip" }), 413);
  });
});

test("07 s1 a post over HTTP/1.1 with Expect: 100-continue is answered", async () => {
  await using own = await startServer();
  const feed = newFeed(own);
  const body = spelled(feed, "1");
  const fields = [
    `POST ${paths.messages} HTTP/1.1`,
    "Host: test",
    "Connection: close",
    "Expect: 100-continue",
    "Content-Type: application/json",
    `Content-Length: ${body.length}`,
  ];
  const answers = answersIn(await exchange(own.url, `${fields.join("\r\n")}\r\n\r\n${body}`));
  expect(answers.at(-1)!.status).toBe(200);
});
