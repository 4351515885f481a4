/**
 * `data` and `meta` come back byte for byte as they were sent, and `bytes` counts exactly that text.
 *
 * The tests write JSON text and compare JSON text: parsing either side would hide what they look for.
 */
import { describe, expect, test } from "bun:test";
import { members, payloads } from "../support/rawjson.ts";
import { absentTopic, newTopic, sharedServer } from "../support/topics.ts";

const server = sharedServer();

const texts = [
  // Numbers
  "0",
  "-0",
  "-0.0",
  "1.0",
  "1.10",
  "1e3",
  "1E3",
  "1E+3",
  "1e-3",
  "1e15",
  "1e21",
  "100000000000000000000.0",
  "5e-324",
  "1e-400",
  "1.7976931348623157e308",
  "9007199254740993",
  "-9007199254740993",
  "9223372036854775808",
  "-9223372036854775808",
  "18446744073709551615",
  "18446744073709551616",
  "12345678901234567890123456789012345678901234567890",
  "3.141592653589793238462643383279",
  `0.${"1".repeat(400)}`,
  // Strings
  '""',
  '"\\u00e9"',
  '"é"',
  '"\\u0065\\u0301"',
  '"e\u0301"',
  '"\\/"',
  '"/"',
  '"\\ud83d\\ude00"',
  '"\\uD83D\\uDE00"',
  '"😀"',
  '"\\u0000"',
  '"\\u001f\\u007f"',
  '"\u007f\u0080"',
  '"\\b\\f\\n\\r\\t"',
  '"\\u000a"',
  '"\\"}],\\\\"',
  '"\u2028\u2029"',
  '"\uFEFF"',
  '"\\ufffd\\uffff"',
  '"\uffff"',
  '"<script>&amp;</script>"',
  '"null"',
  '"it\'s $1 ?1 :x"',
  // Containers
  "[]",
  "{}",
  "[ ]",
  "{\t}",
  "[[],{}]",
  '{"b":1,"a":2}',
  '{"a":1,"a":2}',
  '{"\\u0061":1,"a":2}',
  '{"10":1,"9":2,"1":3}',
  '{"":1}',
  '{"__proto__":{"x":1},"constructor":2,"toJSON":3}',
  '{"data":1,"meta":2,"records":[{"data":3}]}',
  '{"$seq":1,"$ts":2}',
  '{ "b" : 1 , "a" : [1, 2] }',
  '{\n\t"a":\r\n [ 1 ,\t2 ]\n}',
  '{"$serde_json::private::Number":"1"}',
  // Words
  "true",
  "false",
  "null",
];

const utf8Bytes = (text: string) => Buffer.byteLength(text);

describe("P1 data", () => {
  test.each(texts)("02.28 %s comes back as it is, and counts as it is", async (data) => {
    const topic = await newTopic(server);
    const write = await topic.write(`{"records":[{"data":${data}}]}`);
    expect(write.status).toBe(200);
    expect(payloads(await topic.diff(), "data")).toStrictEqual([data]);
    expect((await topic.state()).body.bytes).toBe(utf8Bytes(data));
  });

  test("a batch of all of them keeps them apart", async () => {
    const topic = await newTopic(server);
    await topic.write(`{"records":[${texts.map((data) => `{"data":${data}}`)}]}`);
    expect(payloads(await topic.diff({ limit: 1000 }), "data")).toStrictEqual(texts);
    const total = texts.reduce((sum, text) => sum + utf8Bytes(text), 0);
    expect((await topic.state()).body.bytes).toBe(total);
  });

  test("white space around a value is not part of it", async () => {
    const topic = await newTopic(server);
    await topic.write('\n{ "records" : [ { "tag":"t" , "data" :\r\n [1, 2]\t , "meta" :  { } } ] }\n ');
    const reply = await topic.diff();
    expect(payloads(reply, "data")).toStrictEqual(["[1, 2]"]);
    expect(payloads(reply, "meta")).toStrictEqual(["{ }"]);
    expect((await topic.state()).body.bytes).toBe(9);
  });

  test("the order of a record's members does not matter, nor how their names are spelled", async () => {
    const topic = await newTopic(server);
    await topic.write(
      '{"records":[{"meta":{"b":1,"a":2},"data":{"d":1,"c":2}},{"d\\u0061ta":1e3,"\\u006deta":-0},' +
        '{"x":{"data":7},"data":8,"y":[{"meta":9}]}]}',
    );
    const reply = await topic.diff();
    expect(payloads(reply, "data")).toStrictEqual(['{"d":1,"c":2}', "1e3", "8"]);
    expect(payloads(reply, "meta")).toStrictEqual(['{"b":1,"a":2}', "-0", undefined]);
  });

  test("124 nested arrays are stored, 125 are refused", async () => {
    const nested = (depth: number) => "[".repeat(depth) + "]".repeat(depth);
    const topic = await newTopic(server);
    expect((await topic.write(`{"records":[{"data":${nested(124)}}]}`)).status).toBe(200);
    expect((await topic.write(`{"records":[{"data":${nested(125)}}]}`)).status).toBe(400);
    expect((await topic.write(`{"records":[{"data":1,"meta":${nested(124)}}]}`)).status).toBe(200);
    const reply = await topic.diff();
    expect(payloads(reply, "data")).toStrictEqual([nested(124), "1"]);
    expect(payloads(reply, "meta")).toStrictEqual([undefined, nested(124)]);
  });

  test("brackets inside strings are not nesting", async () => {
    const topic = await newTopic(server);
    const data = `"${"[".repeat(500)}"`;
    await topic.write(`{"records":[{"data":${data}}]}`);
    expect(payloads(await topic.diff(), "data")).toStrictEqual([data]);
  });

  test("a long text with every kind of character comes back whole", async () => {
    const topic = await newTopic(server);
    const data = JSON.stringify('aé😀"\\\n\u2028'.repeat(20000));
    await topic.write(`{"records":[{"data":${data}},{"data":1}]}`);
    const reply = await topic.diff();
    expect(reply.text).toContain(`:${data}`);
    expect(payloads(await topic.diff({ from_seq: 1 }), "data")).toStrictEqual(["1"]);
    expect((await topic.state()).body.bytes).toBe(utf8Bytes(data) + 1);
  });

  test.each(["ephemeral", "memory", "fsync"])("the class %s keeps the text too", async (durability) => {
    const topic = await newTopic(server, { durability });
    await topic.write('{"records":[{"data":{"b":1.0, "a":-0},"meta":{"z":1e3, "y":18446744073709551616}}]}');
    const reply = await topic.diff();
    expect(payloads(reply, "data")).toStrictEqual(['{"b":1.0, "a":-0}']);
    expect(payloads(reply, "meta")).toStrictEqual(['{"z":1e3, "y":18446744073709551616}']);
  });

  test("the reply around the payloads is one JSON object", async () => {
    const topic = await newTopic(server);
    await topic.write({ records: [{ data: 1, tag: '"},{"', node: '"]}', meta: '"}]' }] });
    const reply = await topic.diff({ include_tags: true });
    expect(members(reply.text).get("head_seq")).toBe("1");
    expect(reply.body.records[0]).toMatchObject({ $tag: '"},{"', $node: '"]}', meta: '"}]' });
  });
});

describe("P1 meta", () => {
  const kept = texts.filter((text) => text !== "null");

  test("02 section 2: every JSON kind but null is kept as it is", async () => {
    const topic = await newTopic(server);
    await topic.write(`{"records":[${kept.map((meta) => `{"data":1,"meta":${meta}}`)}]}`);
    const reply = await topic.diff({ limit: 1000 });
    expect(payloads(reply, "meta")).toStrictEqual(kept);
    const total = kept.reduce((sum, text) => sum + utf8Bytes(text) + 1, 0);
    expect((await topic.state()).body.bytes).toBe(total);
  });

  test("null is no meta, and counts nothing", async () => {
    const topic = await newTopic(server);
    await topic.write('{"records":[{"data":1,"meta":null}]}');
    expect(payloads(await topic.diff(), "meta")).toStrictEqual([undefined]);
    expect((await topic.state()).body.bytes).toBe(1);
  });
});

describe("bytes", () => {
  test.each([
    ['{"data":null}', 4],
    ['{"data":"x"}', 3],
    ['{"data":""}', 2],
    ['{"data":"é"}', 4],
    ['{"data":"\\u00e9"}', 8],
    ['{"data":{"a":[1,2],"b":1}}', 17],
    ['{"data":{ "b" : 1 , "a" : [1, 2] }}', 26],
    ['{"data":{"a":1,"a":2}}', 13],
    ['{"data":1,"meta":{"k":"v"}}', 10],
    ['{"data":1,"meta":{ "k":"v" }}', 12],
    ['{"data":1,"tag":"long tag","node":"long node"}', 1],
  ])("02.29 %s counts %d", async (record, bytes) => {
    const topic = absentTopic(server);
    await topic.write(`{"records":[${record}]}`);
    await topic.write(`{"records":[${record},${record}],"node":"n","idempotency_key":"k"}`);
    expect((await topic.state()).body).toMatchObject({ bytes: bytes * 3, count: 3 });
  });
});
