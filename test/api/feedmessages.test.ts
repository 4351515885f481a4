/** `POST` and `GET /api/topic/messages`: what a post answers, how its message is listed, and what tells two apart. */
import { describe, expect, test } from "bun:test";
import {
  contentsOf,
  expectRefusal,
  HEX,
  idsOf,
  inOrder,
  type Message,
  newFeed,
  nodeOf,
  paths,
  tick,
} from "../support/feeds.ts";
import { startServer } from "../support/server.ts";
import { sharedServer, together } from "../support/topics.ts";

const server = sharedServer();

/** How far the server's time may be from the test's. */
const CLOCK_MS = 2000;

const sha256 = (text: string) => new Bun.CryptoHasher("sha256").update(text).digest("hex");

/** Kinds of white space that are trimmed off. */
const blanks: [name: string, text: string][] = [
  ["nothing", ""],
  ["a space", " "],
  ["tabs and line ends", "\t\r\n\v\f"],
  ["other spaces", "\u00a0\u2003\u3000\u2028"],
];

describe("a post", () => {
  test("07.1 answers with exactly these members", async () => {
    const feed = newFeed(server, "group:a");
    const reply = await feed.send({ text: "hi" });
    const { performance, ...members } = reply.body;
    expect(reply.status).toBe(200);
    expect(members).toStrictEqual({
      ok: true,
      event_id: expect.stringMatching(HEX),
      message_id: members.event_id,
      network_id: `local:${await nodeOf(server)}`,
      feed_key: feed.key,
      scope_hint: "group:a",
    });
    expect(performance.server_total_ms).toBeNumber();
  });

  test("07.2 is listed first by the next read", async () => {
    const feed = newFeed(server);
    for (const n of [1, 2, 3, 4]) {
      const content = { n, text: "hi", list: [1, { deep: null }] };
      const before = Date.now();
      await tick();
      const id = await feed.post(content);
      const [first] = await feed.list();
      expect(first).toMatchObject({ message_id: id, content });
      expect(Math.abs(first!.created_at - before)).toBeLessThan(CLOCK_MS);
    }
  });

  test("07.3 is listed with exactly these members, null where nothing was sent", async () => {
    const feed = newFeed(server, "group:a");
    const id = await feed.post("hi");
    const { performance, ...answer } = (await feed.get()).body;
    const [message] = answer.messages as [Message];
    const author = await nodeOf(server);
    expect(answer).toStrictEqual({
      ok: true,
      network_id: `local:${author}`,
      feed_key: feed.key,
      scope_hint: "group:a",
      messages: [expect.anything()],
      next_anchor: null,
    });
    expect(message).toStrictEqual({
      message_id: id,
      network_id: `local:${author}`,
      feed_key: feed.key,
      scope_hint: "group:a",
      author_node_id: author,
      agent_envelope: null,
      content_ref: {
        uri: `artifact://topic-message/sha256:${sha256('"hi"')}`,
        digest: `sha256:${sha256('"hi"')}`,
        size_bytes: 4,
        mime: "application/json",
        created_at: message.created_at,
        producer: author,
      },
      content: "hi",
      content_resolved_at: message.created_at,
      reply_to_message_id: null,
      created_at: message.created_at,
      event_seq: message.event_seq,
    });
    expect([message.created_at, message.event_seq].every(Number.isSafeInteger)).toBe(true);
    expect(performance.server_total_ms).toBeNumber();
  });

  test("07.3 has the same members with everything that may be sent", async () => {
    const feed = newFeed(server);
    await feed.post("plain");
    await tick();
    await feed.post("full", { reply_to_message_id: "x", agent_envelope: { protocol: "p" } });
    const [full, plain] = await feed.list();
    expect(Object.keys(full!).sort()).toEqual(Object.keys(plain!).sort());
    expect(full).toMatchObject({ reply_to_message_id: "x", agent_envelope: { protocol: "p" } });
  });

  test("07 s2 the node's id is 64 lower-case hex, the author of everything posted here", async () => {
    const feed = newFeed(server);
    await together(5, (n) => feed.post(n));
    const node = await nodeOf(server);
    expect(node).toMatch(HEX);
    expect(new Set((await feed.list()).map(({ author_node_id }) => author_node_id))).toEqual(new Set([node]));
  });

  test("07.21 identical posts at once are messages of their own", async () => {
    const feed = newFeed(server);
    const ids = await together(20, () => feed.post({ same: true }));
    expect(new Set(ids).size).toBe(20);
    expect(idsOf(await feed.list()).sort()).toEqual(ids.sort());
  });

  test("07.21 identical posts differ in created_at", async () => {
    const feed = newFeed(server);
    await together(10, () => feed.post("same"));
    const times = (await feed.list()).map(({ created_at }) => created_at);
    expect(new Set(times).size).toBe(10);
  });

  test("07 s4 created_at never goes backwards in the order of acceptance", async () => {
    const feed = newFeed(server);
    await together(60, (n) => feed.post(n % 3));
    const messages = inOrder(await feed.list({ limit: 200 }));
    const times = messages.map(({ created_at }) => created_at);
    expect(messages).toHaveLength(60);
    expect(times).toEqual(times.toSorted((a, b) => a - b));
    expect(new Set(messages.map(({ event_seq }) => event_seq)).size).toBe(60);
  });

  test("07 s4 posts one after the other have growing positions", async () => {
    const feed = newFeed(server);
    for (const n of [1, 2, 3]) await feed.post(n);
    const messages = inOrder(await feed.list());
    const [first] = messages;
    expect(contentsOf(messages)).toEqual([1, 2, 3]);
    expect(messages.map(({ event_seq }) => event_seq - first!.event_seq)).toEqual([0, 1, 2]);
  });

  test("07 s5 a post by query is no post", async () => {
    const feed = newFeed(server);
    const query = `feed_key=${feed.key}&scope_hint=group:b&content=1`;
    expectRefusal(await server.send("POST", `${paths.messages}?${query}`, {}), 422);
    const sent = { feed_key: feed.key, scope_hint: feed.scope, content: 1 };
    expect((await server.send("POST", `${paths.messages}?feed_key=other&limit=x`, sent)).status).toBe(200);
    expect(contentsOf(await feed.list())).toEqual([1]);
  });
});

describe("content", () => {
  test.each<[string, unknown]>([
    ["an object", { text: "hi", n: 1 }],
    ["an empty object", {}],
    ["an array", [1, "two", null, [true]]],
    ["an empty array", []],
    ["a string", "hi"],
    ["an empty string", ""],
    ["blanks", " \t\n "],
    ["zero", 0],
    ["a negative number", -17],
    ["a fraction", 0.1],
    ["a tiny number", 5e-324],
    ["a huge number", 1.7976931348623157e308],
    ["true", true],
    ["false", false],
    ["an array with null", [null]],
    ["an object with null", { a: null }],
    ["strings with white space around them", { " key ": "  value\n" }],
    ["an empty key", { "": { "": "" } }],
    ["control characters", { "\u0000\u0001\u001f\u007f": '\b\f\n\r\t\u0000"\\/' }],
    ["characters of every length", "aé€😀\u2028\u2029\ufeff\uffff\u{10ffff}"],
    [
      "keys that objects have in JavaScript",
      JSON.parse('{"__proto__":{"a":1},"constructor":1,"toString":[]}'),
    ],
    ["keys that look like numbers", { 10: "ten", 9: "nine", "-1": "minus", 1.5: "half" }],
    ["a message's own members", { feed_key: 1, content: null, message_id: "x", error: {}, ok: false }],
  ])("07.12 may be %s and comes back equal", async (_, content) => {
    const feed = newFeed(server);
    await feed.post(content);
    const [message] = await feed.list();
    expect(message!.content).toStrictEqual(content);
  });

  test("07.12 null is refused, and nothing is stored", async () => {
    const feed = newFeed(server);
    expectRefusal(await feed.send(null), 400, "content must not be null");
    expect(await feed.list()).toEqual([]);
  });

  test.each<[string, string, string]>([
    ["white space", ' { "b" : 1 ,\t"a" : [ 1 , 2 ] } ', '{"a":[1,2],"b":1}'],
    ["keys in another order", '{"b":1,"B":2,"é":3,"a":4}', '{"B":2,"a":4,"b":1,"é":3}'],
    ["keys that look like numbers", '{"10":1,"9":2,"1":3}', '{"1":3,"10":1,"9":2}'],
    ["keys beyond the basic plane", '{"😀":1,"～":2}', '{"～":2,"😀":1}'],
    ["equal keys", '{"a":1,"b":2,"a":3}', '{"a":3,"b":2}'],
    ["equal keys, one escaped", '{"\\u0061":1,"a":{"x":0}}', '{"a":{"x":0}}'],
    ["equal keys deeper down", '[{"a":{"k":1,"k":{"z":1,"z":2}}}]', '[{"a":{"k":{"z":2}}}]'],
    ["escapes", '"\\u00e9\\/\\ud83d\\ude00\\u007f"', '"é/😀\u007f"'],
    [
      "control characters",
      '"\\u0008\\u000c\\u000A\\u000d\\u0009\\u0000\\u001F"',
      '"\\b\\f\\n\\r\\t\\u0000\\u001f"',
    ],
    ["numbers", "[1.0,1e3,1E-7,0.10,-0,-0.0,1e21,100e0]", "[1,1000,1e-7,0.1,0,0,1e+21,100]"],
  ])("07 s4 digest and size cover the encoded text of %s", async (_, sent, encoded) => {
    const feed = newFeed(server);
    const reply = await server.send(
      "POST",
      paths.messages,
      `{"feed_key":"${feed.key}","scope_hint":"${feed.scope}","content":${sent}}`,
    );
    expect(reply.status).toBe(200);
    const [message] = await feed.list();
    expect(message!.content_ref).toMatchObject({
      digest: `sha256:${sha256(encoded)}`,
      uri: `artifact://topic-message/sha256:${sha256(encoded)}`,
      size_bytes: Buffer.byteLength(encoded),
    });
    expect(message!.content).toEqual(JSON.parse(encoded));
  });
});

describe("optional members", () => {
  test.each(["network_id", "reply_to_message_id", "agent_envelope"])(
    "07.12 %s: null is absent",
    async (name) => {
      const feed = newFeed(server);
      await feed.post(1, { [name]: null });
      const [message] = await feed.list();
      expect(message).toMatchObject({
        network_id: `local:${await nodeOf(server)}`,
        reply_to_message_id: null,
        agent_envelope: null,
      });
    },
  );

  test.each(blanks)("07.18 reply_to_message_id and network_id: %s is absent", async (_, blank) => {
    const feed = newFeed(server);
    await feed.post(1, { reply_to_message_id: blank, network_id: blank });
    const [message] = await feed.list({ network_id: blank });
    expect(message).toMatchObject({
      network_id: `local:${await nodeOf(server)}`,
      reply_to_message_id: null,
    });
  });

  test.each([
    ["an unknown id", "0".repeat(64)],
    ["no id at all", "the one before"],
    ["a long text", "é".repeat(1000)],
  ])("07.18 a reply to %s is stored and returned", async (_, parent) => {
    const feed = newFeed(server);
    await feed.post("reply", { reply_to_message_id: ` ${parent}\t` });
    expect((await feed.list())[0]!.reply_to_message_id).toBe(parent);
  });

  test("07.18 a reply to a message of another feed is stored", async () => {
    const parent = await newFeed(server).post("parent");
    const feed = newFeed(server);
    await feed.post("reply", { reply_to_message_id: parent });
    expect((await feed.list())[0]!.reply_to_message_id).toBe(parent);
  });
});

describe("feed_key", () => {
  test.each([
    ["a slash", "a/b/../c"],
    ["percent signs", "50%/%41"],
    ["inner spaces", "two  words"],
    ["a plus sign", "a+b"],
    ["query syntax", "a=b&c=d#e?f"],
    ["colons", "group:a:b"],
    ["other scripts", "цех-七-😀"],
    ["a control character", "a\u0000b"],
    ["quotes", `"a'b\`\\`],
    ["a name that objects have", "__proto__"],
    ["another such name", "constructor"],
    ["a wildcard", "*%_"],
    ["one character", "x"],
    ["only digits", "007"],
    ["a reserved topic's name", "_feeds"],
  ])("07 s1 with %s is a key like any other", async (_, key) => {
    const feed = newFeed(server, "group:keys", key);
    const id = await feed.post(key);
    const reply = await feed.get();
    expect(reply.body).toMatchObject({
      feed_key: key,
      messages: [{ message_id: id, feed_key: key, content: key }],
    });
  });

  test.each([
    ["upper case", "Key-1", "key-1"],
    ["a composed character", "caf\u00e9", "cafe\u0301"],
    ["a longer one", "key-2", "key-2x"],
    ["NUL and more", "key-3", "key-3\u0000"],
    ["leading zeros", "7", "07"],
    ["an inner space more", "a b", "a  b"],
  ])("07 s1 keys that differ by %s are different feeds", async (_, one, other) => {
    const [a, b] = [newFeed(server, "group:differ", one), newFeed(server, "group:differ", other)];
    await a.post("one");
    await b.post("other");
    expect([contentsOf(await a.list()), contentsOf(await b.list())]).toEqual([["one"], ["other"]]);
  });

  test.each(blanks.slice(1))(
    "07 s1 %s around feed_key, scope_hint and network_id is dropped",
    async (_, blank) => {
      const feed = newFeed(server, "group:trim");
      const around = (text: string) => `${blank}${text}${blank}`;
      const network = `local:${await nodeOf(server)}`;
      const padded = {
        feed_key: around(feed.key),
        scope_hint: around(feed.scope),
        network_id: around(network),
      };
      const names = { feed_key: feed.key, scope_hint: feed.scope, network_id: network };
      expect((await feed.send(1, padded)).body).toMatchObject(names);
      const read = (await feed.get(padded)).body;
      expect(read).toMatchObject({ ...names, messages: [names] });
      expect(contentsOf(await feed.list())).toEqual([1]);
    },
  );
});

describe("the network", () => {
  test("07 s2 is the configured one", async () => {
    await using own = await startServer({ FEED_NETWORK_ID: "mainnet" });
    const feed = newFeed(own);
    expect((await feed.send(1)).body.network_id).toBe("mainnet");
    expect((await feed.send(2, { network_id: " mainnet " })).body.network_id).toBe("mainnet");
    expect((await feed.get()).body).toMatchObject({
      network_id: "mainnet",
      messages: [{ network_id: "mainnet" }, { network_id: "mainnet" }],
    });
    expectRefusal(
      await feed.send(3, { network_id: `local:${await nodeOf(own)}` }),
      400,
      "invalid event: topic message network_id mismatch",
    );
  });

  test.each(["othernet", "Local:", "local:", "0"])(
    "07.17 a post to the network %s is refused",
    async (network) => {
      const feed = newFeed(server);
      const error = "invalid event: topic message network_id mismatch";
      expectRefusal(await feed.send(1, { network_id: network }), 400, error);
      expect(await feed.list()).toEqual([]);
    },
  );

  test("07.17 the network's name is compared exactly", async () => {
    const feed = newFeed(server);
    const network = `local:${(await nodeOf(server)).toUpperCase()}`;
    expectRefusal(await feed.send(1, { network_id: network }), 400, /network_id mismatch$/);
  });
});

describe("the seed", () => {
  // RFC 8032, section 7.1, tests 1 and 2.
  test.each([
    [
      "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
      "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
    ],
    [
      "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
      "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
    ],
  ])("07 s2 node_id is the Ed25519 public key of %s", async (seed, node) => {
    await using own = await startServer({ FEED_NODE_SEED: seed });
    expect(await nodeOf(own)).toBe(node);
    expect((await newFeed(own).send(1)).body.network_id).toBe(`local:${node}`);
  });

  test("07 s2 without one every server makes its own", async () => {
    await using own = await startServer();
    expect(await nodeOf(own)).not.toBe(await nodeOf(server));
  });
});
