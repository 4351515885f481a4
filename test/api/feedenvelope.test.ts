/** agent_envelope: what is taken, under which names, how it comes back, and what is never checked. */
import { describe, expect, test } from "bun:test";
import { expectRefusal, type Message, type More, newFeed, paths } from "../support/feeds.ts";
import { absentTopic, sharedServer } from "../support/topics.ts";

const server = sharedServer();
const log = absentTopic(server, "_feeds");

/** The optional strings of an envelope, in the order of the contract. */
const strings = [
  "transport_profile",
  "source_agent_id",
  "target_agent_id",
  "source_node_id",
  "target_node_id",
  "capability",
  "signature",
];

const card = { agent_id: "a", card_hash: "h", issued_at: 1_700_000_000, card: { name: "agent" } };

/** Posts an envelope and gives it as it is listed. */
async function listed(envelope: unknown): Promise<Message["agent_envelope"]> {
  const feed = newFeed(server);
  await feed.post("content", { agent_envelope: envelope });
  return (await feed.list())[0]!.agent_envelope;
}

/** The same with the envelope's text as sent. */
async function listedText(envelope: string): Promise<Message["agent_envelope"]> {
  const feed = newFeed(server);
  const head = `{"feed_key":"${feed.key}","scope_hint":"${feed.scope}","content":1`;
  const reply = await server.send("POST", paths.messages, `${head},"agent_envelope":${envelope}}`);
  expect(reply.status).toBe(200);
  return (await feed.list())[0]!.agent_envelope;
}

/** Both operations refuse the envelope's text, and nothing is stored. */
async function expectRefused(envelope: string): Promise<void> {
  const head = '{"feed_key":"refused","scope_hint":"group:envelope"';
  const before = (await log.state()).body.head_seq;
  for (const [path, more] of [
    [paths.messages, '"content":1'],
    [paths.subscriptions, '"active":true'],
  ])
    expectRefusal(await server.send("POST", path!, `${head},${more},"agent_envelope":${envelope}}`), 422);
  expect((await log.state()).body.head_seq).toBe(before);
}

describe("an envelope", () => {
  test("07.19 with everything comes back with everything", async () => {
    const envelope = {
      protocol: "a2a",
      ...Object.fromEntries(strings.map((name) => [name, `the ${name}`])),
      source_agent_card: { ...card, node_id: "n", signature: "s" },
      message_json: '{"text":"hi"}',
      extensions_json: '{"trace":"1"}',
    };
    expect(await listed(envelope)).toStrictEqual(envelope);
  });

  test("07.19 with only its protocol has that and an empty message", async () => {
    expect(await listed({ protocol: "p" })).toStrictEqual({ protocol: "p", message_json: "" });
  });

  test("07 s9 optional members that are null are left out", async () => {
    const nulls = Object.fromEntries(
      [...strings, "source_agent_card", "message_json", "extensions_json"].map((name) => [name, null]),
    );
    expect(await listed({ protocol: "p", ...nulls })).toStrictEqual({ protocol: "p", message_json: "" });
    const aliases = { message: null, extensions: null };
    expect(await listed({ protocol: "p", ...aliases })).toStrictEqual({ protocol: "p", message_json: "" });
  });

  test.each(strings)("07 s9 %s alone is kept as it is", async (name) => {
    const text = "  kept \t as\nit is é😀\u0000 ";
    expect(await listed({ protocol: "p", [name]: text })).toStrictEqual({
      protocol: "p",
      message_json: "",
      [name]: text,
    });
  });

  test.each(["", " ", "\t\n", " a2a "])("07.20 the protocol %j is stored as it is", async (protocol) => {
    expect((await listed({ protocol })).protocol).toBe(protocol);
  });

  test("07 s9 unknown members are dropped, also twice", async () => {
    const envelope =
      '{"protocol":"p","other":1,"other":2,"Message":"x","ok":false,"__proto__":{"protocol":"q"}}';
    expect(await listedText(envelope)).toStrictEqual({ protocol: "p", message_json: "" });
  });

  test.each([
    ["signature", { signature: "bogus" }],
    ["ids", { source_node_id: "not the author", target_node_id: "nobody", source_agent_id: "x" }],
    ["a card's hash", { source_agent_card: { ...card, card_hash: "bogus", signature: "bogus" } }],
    ["a message that is no JSON", { message_json: "{" }],
    ["extensions that are no JSON", { extensions_json: "]" }],
  ])("07.20 nobody checks %s", async (_, more) => {
    const envelope = { protocol: "p", message_json: "", ...more };
    expect(await listed(envelope)).toStrictEqual(envelope);
  });

  test("07 s9 of a subscription is carried by its event", async () => {
    const feed = newFeed(server);
    const agent_envelope = { protocol: "p", message: { b: 1, a: 2 }, capability: null, other: 1 };
    await feed.subscribe({ agent_envelope });
    const { head_seq } = (await log.state()).body;
    const [event] = (await log.diff({ from_seq: head_seq - 1 })).body.records;
    expect(event.data.payload.payload).toMatchObject({ feed_key: feed.key });
    expect(event.data.payload.payload.agent_envelope).toStrictEqual({
      protocol: "p",
      message_json: '{"a":2,"b":1}',
    });
  });

  test("07.3 null is no envelope", async () => {
    expect(await listed(null)).toBeNull();
  });
});

describe("message and extensions", () => {
  const texts: [sent: string, encoded: string][] = [
    ['{"text":"hi"}', '{"text":"hi"}'],
    ["{}", "{}"],
    ["[]", "[]"],
    ['{ "b" : 1 , "a" : [ 1.0 , "x" ] }', '{"a":[1,"x"],"b":1}'],
    ['{"10":1,"9":2}', '{"10":1,"9":2}'],
    ['{"a":1,"a":{"b":2,"b":3}}', '{"a":{"b":3}}'],
    ['{"😀":1,"～":2}', '{"～":2,"😀":1}'],
    ['["\\u00e9\\/\\u0000\\u001f\\u007f"]', '["é/\\u0000\\u001f\u007f"]'],
    ["1e3", "1000"],
    ["-0", "0"],
    ["0.10", "0.1"],
    ["1e21", "1e+21"],
    ["true", "true"],
    ["false", "false"],
    ["0", "0"],
    ["[null]", "[null]"],
  ];

  test.each(texts)("07.19 message %s becomes the text %s", async (sent, encoded) => {
    const envelope = await listedText(`{"protocol":"p","message":${sent}}`);
    expect(envelope).toStrictEqual({ protocol: "p", message_json: encoded });
    expect(JSON.parse(envelope.message_json)).toEqual(JSON.parse(encoded));
  });

  test.each(texts)("07.19 extensions %s become the text %s", async (sent, encoded) => {
    const envelope = await listedText(`{"protocol":"p","extensions":${sent}}`);
    expect(envelope).toStrictEqual({ protocol: "p", message_json: "", extensions_json: encoded });
  });

  const verbatim = [
    '{"b":1,"a":2}',
    '{ "a" : 1.0 }',
    "no JSON",
    ' "x" ',
    "null",
    "12345678901234567890",
    "é\u0000😀",
  ];

  test.each(verbatim)("07.19 the string %j is kept as it is under each name", async (text) => {
    const kept = { protocol: "p", message_json: text, extensions_json: text };
    expect(await listed({ protocol: "p", message: text, extensions: text })).toStrictEqual(kept);
    expect(await listed(kept)).toStrictEqual(kept);
  });

  test.each(["", " ", "\t\r\n"])(
    "07 s9 the blank message %j is kept, such extensions are dropped",
    async (blank) => {
      const kept = { protocol: "p", message_json: blank };
      expect(await listed({ protocol: "p", message: blank, extensions: blank })).toStrictEqual(kept);
      expect(await listed({ ...kept, extensions_json: blank })).toStrictEqual(kept);
    },
  );

  test.each([
    ["message", "message_json"],
    ["extensions", "extensions_json"],
  ])("07.20 %s together with %s is 422", async (alias, name) => {
    await expectRefused(`{"protocol":"p","${alias}":"x","${name}":"x"}`);
    await expectRefused(`{"protocol":"p","${name}":"x","${alias}":{}}`);
    await expectRefused(`{"protocol":"p","${alias}":null,"${name}":"x"}`);
  });
});

describe("what is refused", () => {
  test.each([
    ["a string", '"envelope"'],
    ["an array", '[{"protocol":"p"}]'],
    ["a number", "1"],
    ["true", "true"],
    ["false", "false"],
    ["an empty object", "{}"],
    ["no protocol", '{"message":"x","signature":"s"}'],
    ["protocol null", '{"protocol":null}'],
    ["protocol a number", '{"protocol":1}'],
    ["protocol an object", '{"protocol":{}}'],
    ["protocol in upper case", '{"Protocol":"p"}'],
  ])("07.20 %s is 422", async (_, envelope) => {
    await expectRefused(envelope);
  });

  test.each(
    strings.flatMap((name) => ["1", "true", "{}", "[]"].map((value): [string, string] => [name, value])),
  )("07.20 %s %s is 422", async (name, value) => {
    await expectRefused(`{"protocol":"p","${name}":${value}}`);
  });

  const values = { ...Object.fromEntries(strings.map((name) => [name, "x"])), message: "m", extensions: "e" };
  test.each(Object.entries({ protocol: "p", ...values, message_json: "m", extensions_json: "e" }))(
    "07 s1 %s twice is 422",
    async (name, value) => {
      const head = name === "protocol" ? "" : '"protocol":"p",';
      await expectRefused(`{${head}"${name}":"${value}","${name}":"${value}"}`);
      const escaped = `\\u00${name.charCodeAt(0).toString(16)}${name.slice(1)}`;
      await expectRefused(`{${head}"${name}":"${value}","${escaped}":"${value}"}`);
    },
  );
});

describe("source_agent_card", () => {
  const enveloped = (value: More) => ({ protocol: "p", source_agent_card: value });

  test.each<[string, More]>([
    ["what it needs", card],
    ["everything", { ...card, node_id: "n", signature: "s" }],
    ["a card of any kind", { ...card, card: [1, "two", { three: null }] }],
    ["a card that is a string", { ...card, card: "text" }],
    ["a card that is null", { ...card, card: null }],
    ["blank ids", { ...card, agent_id: "", card_hash: " " }],
    ["a time long ago", { ...card, issued_at: 0 }],
    ["a time far off", { ...card, issued_at: 2 ** 53 - 1 }],
  ])("07 s9 with %s comes back equal", async (_, value) => {
    expect((await listed(enveloped(value))).source_agent_card).toStrictEqual(value);
  });

  test("07 s9 null members are left out, unknown ones dropped", async () => {
    const value = { ...card, node_id: null, signature: null, other: 1, protocol: "q" };
    expect((await listed(enveloped(value))).source_agent_card).toStrictEqual(card);
  });

  test("07 s4 of equal keys in its card the last counts", async () => {
    const text = JSON.stringify(enveloped(card)).replace('{"name":"agent"}', '{"a":1,"a":{"b":1,"b":2}}');
    expect((await listedText(text)).source_agent_card.card).toEqual({ a: { b: 2 } });
  });

  test.each<[string, unknown]>([
    ["a string", "card"],
    ["an array", [card]],
    ["a number", 1],
    ["an empty object", {}],
    ["no agent_id", { ...card, agent_id: undefined }],
    ["no card_hash", { ...card, card_hash: undefined }],
    ["no issued_at", { ...card, issued_at: undefined }],
    ["no card", { ...card, card: undefined }],
    ["agent_id null", { ...card, agent_id: null }],
    ["card_hash null", { ...card, card_hash: null }],
    ["issued_at null", { ...card, issued_at: null }],
    ["agent_id a number", { ...card, agent_id: 1 }],
    ["card_hash an object", { ...card, card_hash: {} }],
    ["issued_at a string", { ...card, issued_at: "1" }],
    ["issued_at a fraction", { ...card, issued_at: 1.5 }],
    ["issued_at true", { ...card, issued_at: true }],
    ["node_id a number", { ...card, node_id: 1 }],
    ["signature an array", { ...card, signature: [] }],
  ])("07.20 %s is 422", async (_, value) => {
    await expectRefused(JSON.stringify({ protocol: "p", source_agent_card: value }));
  });

  test.each(["agent_id", "card_hash", "issued_at", "card"])("07 s1 %s twice is 422", async (name) => {
    const again = `"${name}":${JSON.stringify((card as More)[name])}`;
    const text = JSON.stringify(enveloped(card)).replace('"agent_id"', `${again},"agent_id"`);
    await expectRefused(text);
  });

  test("07 s1 the card itself twice is 422", async () => {
    const text = JSON.stringify(card);
    await expectRefused(`{"protocol":"p","source_agent_card":${text},"source_agent_card":${text}}`);
  });

  test.each(["9007199254740992", "1e30", "-9223372036854775809"])(
    "07 P11 issued_at %s is refused",
    async (time) => {
      const feed = newFeed(server);
      const envelope = JSON.stringify(enveloped(card)).replace("1700000000", time);
      const head = `{"feed_key":"${feed.key}","scope_hint":"${feed.scope}","content":1`;
      const { status } = await server.send("POST", paths.messages, `${head},"agent_envelope":${envelope}}`);
      expect([400, 422]).toContain(status);
      expect(await feed.list()).toEqual([]);
    },
  );
});
