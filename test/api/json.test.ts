/** JSON bodies: what is read, what is refused, and that a payload comes back byte for byte. */
import { describe, expect, test } from "bun:test";
import { payloads } from "../support/rawjson.ts";
import { newTopic, sharedServer } from "../support/topics.ts";

const server = sharedServer();

/** The endpoints that parse a body, by the suffix of the topic's path. */
const endpoints: [method: string, suffix: string][] = [
  ["PUT", ""],
  ["POST", ""],
  ["POST", "/diff"],
  ["POST", "/delete"],
];

const invalid = { status: 400, body: { error: { code: "invalid_request" } } };

const concat = (...parts: (string | number[])[]) =>
  new Uint8Array(Buffer.concat(parts.map((part) => Buffer.from(part as string))));

describe("fields", () => {
  test.each([
    ["PUT", "", '{"ttl_ms":0,"nope":1,"nope":[2],"TTL_MS":"x","topic":3}'],
    [
      "POST",
      "",
      '{"records":[{"data":1,"x":1,"x":2,"$seq":9,"$ts":"no","Tag":7}],"Records":1,"x":{"y":[]},"x":0}',
    ],
    ["POST", "", '{"records":[{"data":1}],"config":{"nope":1,"nope":2,"Type":"queue"}}'],
    ["POST", "/diff", '{"FROM_SEQ":"x","nope":1,"nope":2}'],
    ["POST", "/delete", '{"before_seq":1,"after_seq":"x","nope":1,"nope":2}'],
  ])("01.13 %s topic%s ignores what it does not know in %s", async (method, suffix, body) => {
    const topic = await newTopic(server);
    expect((await server.send(method, `${topic.path}${suffix}?nope=1&nope=2&From_Seq=x`, body)).status).toBe(
      200,
    );
  });

  test("01.13 unknown fields of a record are not stored", async () => {
    const topic = await newTopic(server);
    await topic.write('{"records":[{"data":1,"$seq":9,"$ts":3,"$tag":"t","extra":true}]}');
    const { body } = await topic.diff({ include_tags: true });
    expect(body.records).toEqual([{ $seq: 1, $ts: expect.any(Number), data: 1 }]);
  });

  test.each([
    ["PUT", "", '{"ttl_ms":1000,"ttl_ms":1000}'],
    ["PUT", "", '{"priority":null,"priority":null}'],
    ["POST", "", '{"records":[{"data":1}],"records":[{"data":1}]}'],
    ["POST", "", '{"records":[{"data":1,"data":1}]}'],
    ["POST", "", '{"records":[{"data":1,"tag":"a","tag":"a"}]}'],
    ["POST", "", '{"records":[{"data":1}],"config":{"ttl_ms":1,"ttl_ms":1}}'],
    ["POST", "/diff", '{"from_seq":0,"from_seq":0}'],
    ["POST", "/diff", '{"from_seq":0,"from\\u005fseq":0}'],
    ["POST", "/delete", '{"before_seq":1,"before_seq":1}'],
  ])("01.13 %s topic%s refuses a known field twice: %s", async (method, suffix, body) => {
    const topic = await newTopic(server);
    expect(await server.send(method, topic.path + suffix, body)).toMatchObject(invalid);
    expect((await topic.state()).body.head_seq).toBe(0);
  });

  test.each(["0", "1", "4294967296", "9007199254740991", "9007199254740993", "18446744073709551615"])(
    "01.14 from_seq may be %s",
    async (seq) => {
      const topic = await newTopic(server);
      await topic.append("a", "b");
      const reply = await topic.diff(`{"from_seq":${seq}}`);
      expect(reply.status).toBe(200);
      expect(reply.body.tombstone?.reason).toBe(Number(seq) > 2 ? "recreated" : undefined);
    },
  );

  test.each(["18446744073709551616", "-1", "-0", "1.0", "1e0", "1E2", '"1"', "null", "true", "[1]", "{}"])(
    "01.14 from_seq may not be %s",
    async (seq) => {
      const topic = await newTopic(server);
      expect(await topic.diff(`{"from_seq":${seq}}`)).toMatchObject(invalid);
    },
  );
});

describe("syntax", () => {
  const bodies: [string, string | Uint8Array][] = [
    ["null", "null"],
    ["a string", '"x"'],
    ["a number", "5"],
    ["true", "true"],
    ["an open object", "{"],
    ["an open string", '{"a'],
    ["two objects", "{}{}"],
    ["trailing text", "{} x"],
    ["a BOM", concat([0xef, 0xbb, 0xbf], "{}")],
    ["blanks", " \n\t "],
    ["a trailing comma", '{"a":1,}'],
    ["a comment", "/* */{}"],
    ["single quotes", "{'a':1}"],
    ["a bare name", "{a:1}"],
    ["NaN", '{"a":NaN}'],
    ["a leading zero", '{"a":01}'],
    ["a plus sign", '{"a":+1}'],
    ["no integer part", '{"a":.5}'],
    ["no fraction", '{"a":5.}'],
    ["no exponent", '{"a":1e}'],
    ["a raw control character", '{"a":"\u0001"}'],
    ["an unknown escape", '{"a":"\\x41"}'],
    ["a form feed between tokens", "{\f}"],
    ["a no-break space", "{\u00a0}"],
  ];

  test.each(
    endpoints.flatMap((endpoint) => bodies.map(([name, body]) => [...endpoint, name, body] as const)),
  )("01.15 %s topic%s refuses %s", async (method, suffix, _, body) => {
    const topic = await newTopic(server);
    const reply = await server.send(method, topic.path + suffix, body);
    expect(reply).toMatchObject(invalid);
    expect(reply.body.error.detail).toBeUndefined();
  });
});

/** Sends the text as `data` and as `meta` and gives back both as they were read. */
async function roundTrip(text: string) {
  const topic = await newTopic(server);
  const write = await topic.write(`{"records":[{"data":${text},"meta":{"m":${text}}}]}`);
  const read = await topic.diff();
  return { topic, write, read, data: payloads(read, "data")[0], meta: payloads(read, "meta")[0] };
}

describe("payloads", () => {
  test.each([
    "9007199254740993",
    "18446744073709551615",
    "-9223372036854775808",
    "18446744073709551616",
    "123456789012345678901234567890",
    "3.141592653589793238462643383279",
  ])("01.16 the number %s comes back exactly", async (text) => {
    const { data, meta } = await roundTrip(text);
    expect({ data, meta }).toEqual({ data: text, meta: `{"m":${text}}` });
  });

  test.each([
    "1.0",
    "-0",
    "1e3",
    "1E+03",
    "1e-400",
    "5e-324",
    "null",
    "true",
    '""',
    "[]",
    "{}",
    "[[],{},null]",
    '{"":1}',
    '{"a":{"b":{"c":[1,[2,{"d":null}]]}}}',
    '{ "b" : 1 ,\n\t"a" : [1,\r\n 2] }',
    '{"a":1,"b":2,"a":3}',
    '{"a":1,"\\u0061":2}',
    '{"__proto__":{"x":1},"constructor":0,"toString":null}',
    '"\\u0000\\u001f\\b\\f\\n\\r\\t\\"\\\\\\/"',
    '"\\u00e9 \\uD83D\\uDE00 \u{1f600} \u00e9 \u007f \u2028"',
    '"},\\"data\\":["',
  ])("01.17 %j comes back byte for byte", async (text) => {
    const { data, meta } = await roundTrip(text);
    expect({ data, meta }).toEqual({ data: text, meta: `{"m":${text}}` });
  });

  test("01.17 a reader sees the last of duplicate keys", async () => {
    const { read } = await roundTrip('{"a":1,"b":2,"a":3}');
    expect(read.body.records[0].data).toEqual({ a: 3, b: 2 });
  });

  test.each([
    ["a number beyond double range", "1e400"],
    ["a number far below double range", "-1E400"],
    ["a lone high surrogate", '"\\ud800"'],
    ["a lone low surrogate", '"\\udc00\\ud800"'],
    ["a lone surrogate in a key", '{"\\uD83D":1}'],
    ["invalid UTF-8", concat('"', [0xc3, 0x28], '"')],
    ["a cut-off UTF-8 sequence", concat('"', [0xf0, 0x9f, 0x98], '"')],
    ["an encoded surrogate", concat('"', [0xed, 0xa0, 0x80], '"')],
    ["an overlong encoding", concat('"', [0xc0, 0xaf], '"')],
    ["a raw tab", '"\t"'],
    ["a raw line feed", '"\n"'],
    ["no value", ""],
    ["two values", "1 2"],
  ])("01.18 %s in data is refused and nothing appended", async (_, text) => {
    const topic = await newTopic(server);
    const bytes = typeof text === "string" ? [...Buffer.from(text)] : [...text];
    const reply = await topic.write(concat('{"records":[{"data":1},{"data":', bytes, "}]}"));
    expect(reply).toMatchObject(invalid);
    expect((await topic.state()).body).toMatchObject({ head_seq: 0, count: 0 });
  });

  const nested = (depth: number) => "[".repeat(depth) + "]".repeat(depth);

  test("01.19 data may nest 124 deep", async () => {
    const topic = await newTopic(server);
    expect((await topic.write(`{"records":[{"data":${nested(124)}}]}`)).status).toBe(200);
    expect(payloads(await topic.diff(), "data")).toEqual([nested(124)]);
    expect(await topic.write(`{"records":[{"data":${nested(125)}}]}`)).toMatchObject(invalid);
  });

  test.each(endpoints)("01.19 %s topic%s takes no body nested 128 deep", async (method, suffix) => {
    const topic = await newTopic(server);
    expect(await server.send(method, topic.path + suffix, `{"x":${nested(127)}}`)).toMatchObject(invalid);
    expect(await server.send(method, topic.path + suffix, `{"x":${nested(100_000)}}`)).toMatchObject(invalid);
  });

  test("01.19 an ignored field may nest to 127 open containers", async () => {
    const topic = await newTopic(server);
    expect((await topic.diff(`{"x":${nested(126)}}`)).status).toBe(200);
  });
});
