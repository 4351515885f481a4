/** `GET /api/topic/messages` page by page: order, limits, anchors, and what a query may look like. */
import { beforeAll, describe, expect, test } from "bun:test";
import {
  ask,
  expectRefusal,
  type Feed,
  idsOf,
  type Message,
  type More,
  newFeed,
  nodeOf,
  paths,
  queryOf,
} from "../support/feeds.ts";
import { sharedServer, together, until } from "../support/topics.ts";

const server = sharedServer();

const TOTAL = 260;
const FAR = 2 ** 53 - 1;

/** A feed with 260 messages, of which some share their time. Nothing is added to it. */
let feed: Feed;
/** All of them as they are to be listed. */
let all: Message[];

const newestFirst = (a: Message, b: Message) =>
  b.created_at - a.created_at || Buffer.compare(Buffer.from(b.message_id), Buffer.from(a.message_id));

/** The pages from the newest to the oldest, as the anchors lead. */
async function pages(of: Feed, limit: number, query: More = {}): Promise<Message[][]> {
  const found: Message[][] = [];
  let anchor: More = {};
  for (;;) {
    const { body } = await of.get({ limit, ...query, ...anchor });
    found.push(body.messages);
    if (body.next_anchor === null) return found;
    expect(body.next_anchor).toStrictEqual({
      before_created_at: body.messages.at(-1).created_at,
      before_message_id: body.messages.at(-1).message_id,
    });
    if (found.length > TOTAL + 1) throw new Error("the anchors lead nowhere");
    anchor = body.next_anchor;
  }
}

beforeAll(async () => {
  feed = newFeed(server, "group:pages");
  // The neighbours are never listed with it.
  const neighbours = [
    newFeed(server, "group:pages"),
    newFeed(server, "group:other", feed.key),
    newFeed(server, "region:pages", feed.key),
  ];
  const posted: string[] = [];
  for (let n = 0; n < TOTAL; n += 65) {
    posted.push(...(await together(65, (i) => feed.post({ n: n + i }))));
    for (const other of neighbours) await other.post("elsewhere");
  }
  all = (await pages(feed, 200)).flat();
  expect(idsOf(all).sort()).toEqual(posted.sort());
});

describe("order", () => {
  test("07.6 is created_at, then message_id, both descending", () => {
    expect(idsOf(all)).toEqual(idsOf(all.toSorted(newestFirst)));
  });

  test("07.6 messages of one time are told apart by their ids", async () => {
    const times = all.map(({ created_at }) => created_at);
    const shared = all.filter(({ created_at }, i) => times.indexOf(created_at) !== i);
    // Posted in bursts: if no two had the same time, the tests of page edges would show nothing.
    expect(shared.length).toBeGreaterThan(0);
  });
});

describe("limit", () => {
  test.each<[string, string | undefined, number]>([
    ["none", undefined, 50],
    ["0", "0", 1],
    ["1", "1", 1],
    ["49", "49", 49],
    ["200", "200", 200],
    ["201", "201", 200],
    ["999", "999", 200],
    ["leading zeros", "0007", 7],
    ["many zeros", "0".repeat(100), 1],
    ["2^31", "2147483648", 200],
    ["2^53", "9007199254740992", 200],
    ["2^64", "18446744073709551616", 200],
    ["a thousand digits", "9".repeat(1000), 200],
  ])("07.4 %s gives so many", async (_, limit, count) => {
    const messages = await feed.list({ limit });
    expect(idsOf(messages)).toEqual(idsOf(all.slice(0, count)));
  });

  test.each([
    "",
    "abc",
    "-1",
    "-0",
    "+1",
    "1.0",
    "1.",
    ".5",
    "1e1",
    "0x10",
    "1_000",
    "1,000",
    " 5",
    "5 ",
    "5\n",
    "٣",
    "５",
    "null",
    "true",
    "NaN",
    "Infinity",
    "5\u0000",
    "1n",
  ])("07.5 %j is refused", async (limit) => {
    expectRefusal(await feed.get({ limit }), 400);
  });
});

describe("before_created_at", () => {
  test("07.6 alone gives strictly older messages", async () => {
    for (const { created_at } of [all[0]!, all[40]!, all[100]!, all.at(-1)!]) {
      const expected = all.filter((message) => message.created_at < created_at).slice(0, 200);
      expect(idsOf(await feed.list({ before_created_at: created_at, limit: 200 }))).toEqual(idsOf(expected));
    }
  });

  test.each([
    ["0", 0],
    ["1", 0],
    ["9007199254740991", 50],
  ])("07 s6 %s is a time", async (time, count) => {
    expect(await feed.list({ before_created_at: time })).toHaveLength(count);
  });

  test.each([
    "",
    " ",
    "x",
    "-1",
    "1.5",
    "1.0",
    "1e3",
    "9007199254740992",
    "18446744073709551615",
    "9".repeat(400),
    "0x1",
    "2026-01-01T00:00:00Z",
    "null",
    "NaN",
  ])("07.5 %j is refused", async (time) => {
    expectRefusal(await feed.get({ before_created_at: time }), 400);
    expectRefusal(await feed.get({ before_created_at: time, before_message_id: "f".repeat(64) }), 400);
  });
});

describe("before_message_id", () => {
  test("07 s6 splits the messages of its time, wherever it stands", async () => {
    for (const { created_at, message_id } of [all[0]!, all[33]!, all[59]!]) {
      const older = all.slice(all.findIndex((message) => message.message_id === message_id) + 1);
      const query = { before_created_at: created_at, before_message_id: message_id, limit: 200 };
      expect(idsOf(await feed.list(query))).toEqual(idsOf(older.slice(0, 200)));
    }
  });

  test.each(["~", "g", "zzz", "f".repeat(65)])(
    "07 s6 %s is above every id: its whole time follows",
    async (id) => {
      const time = all[20]!.created_at;
      const expected = all.filter(({ created_at }) => created_at <= time);
      const found = await feed.list({ before_created_at: time, before_message_id: id, limit: 50 });
      expect(idsOf(found)).toEqual(idsOf(expected.slice(0, 50)));
    },
  );

  test.each(["!", "+", "-1"])("07 s6 %s is below every id: its time is left out", async (id) => {
    const time = all[20]!.created_at;
    const expected = all.filter(({ created_at }) => created_at < time);
    const found = await feed.list({ before_created_at: time, before_message_id: id, limit: 50 });
    expect(idsOf(found)).toEqual(idsOf(expected.slice(0, 50)));
  });

  test.each(["", " ", "\t\n"])("07 s6 %j is none", async (id) => {
    const time = all[20]!.created_at;
    const expected = all.filter(({ created_at }) => created_at < time);
    const found = await feed.list({ before_created_at: time, before_message_id: id });
    expect(idsOf(found)).toEqual(idsOf(expected.slice(0, 50)));
  });

  test("07 s6 white space around it is dropped", async () => {
    const { created_at, message_id } = all[30]!;
    const found = await feed.list({ before_created_at: created_at, before_message_id: ` ${message_id}\n` });
    expect(idsOf(found)).toEqual(idsOf(all.slice(31, 81)));
  });

  test("07 s6 alone it is ignored", async () => {
    const found = await feed.list({ before_message_id: all[30]!.message_id });
    expect(idsOf(found)).toEqual(idsOf(all.slice(0, 50)));
  });
});

describe("next_anchor", () => {
  test.each([1, 7, 50, 200])("07.7 07.8 with limit=%d leads over every message once", async (limit) => {
    const found = await pages(feed, limit);
    expect(idsOf(found.flat())).toEqual(idsOf(all));
    expect(found.map(({ length }) => length).slice(0, -1)).toEqual(
      Array(Math.ceil(TOTAL / limit) - 1).fill(limit),
    );
  });

  test("07.7 over 100 messages with limit=7 ends null", async () => {
    const hundred = newFeed(server);
    const posted = await together(100, (n) => hundred.post(n));
    const found = await pages(hundred, 7);
    expect(found.map(({ length }) => length)).toEqual([...Array(14).fill(7), 2]);
    expect(idsOf(found.flat()).sort()).toEqual(posted.sort());
  });

  test.each([
    [4, 5],
    [5, 5],
    [6, 5],
  ])("07 s6 of a page of %d over %d messages says whether older ones exist", async (limit, total) => {
    const few = newFeed(server);
    for (let n = 0; n < total; n++) await few.post(n);
    const { messages, next_anchor } = (await few.get({ limit })).body;
    expect(messages).toHaveLength(Math.min(limit, total));
    expect(next_anchor === null).toBe(limit >= total);
  });

  test("07 s6 of the oldest message is followed by nothing", async () => {
    const { created_at, message_id } = all.at(-1)!;
    const reply = await feed.get({ before_created_at: created_at, before_message_id: message_id });
    expect(reply.body).toMatchObject({ ok: true, messages: [], next_anchor: null });
  });

  test("07.8 pages hold while messages are added in front", async () => {
    const growing = newFeed(server);
    const posted = await together(20, (n) => growing.post(n));
    const seen: string[] = [];
    let anchor: More | null = {};
    while (anchor !== null) {
      const { body } = await growing.get({ limit: 3, ...anchor });
      seen.push(...idsOf(body.messages));
      await growing.post("in front");
      anchor = body.next_anchor;
    }
    expect(seen.sort()).toEqual(posted.sort());
  });

  test("07.8 messages of one time across a page edge are neither lost nor repeated", async () => {
    // Bursts until a time is shared by three, so that a page of two ends inside it.
    const burst = newFeed(server);
    const shared = (messages: Message[]) =>
      messages.some(({ created_at }, i) => messages[i + 2]?.created_at === created_at);
    await until(async () => {
      await together(30, (n) => burst.post(n));
      return burst.list({ limit: 200 });
    }, shared);
    const whole = (await pages(burst, 200)).flat();
    expect(idsOf((await pages(burst, 2)).flat())).toEqual(idsOf(whole));
    expect(idsOf((await pages(burst, 1)).flat())).toEqual(idsOf(whole));
  });
});

describe("nothing to list", () => {
  const nothing = { ok: true, messages: [], next_anchor: null };

  test("07.9 an empty feed is 200", async () => {
    const empty = newFeed(server);
    const reply = await empty.get();
    expect(reply.status).toBe(200);
    expect(reply.body).toMatchObject({
      ...nothing,
      network_id: `local:${await nodeOf(server)}`,
      feed_key: empty.key,
      scope_hint: empty.scope,
    });
  });

  test.each(["othernet", "local:", "LOCAL", "a:b:c", "*"])(
    "07.9 the network %s is unknown: 200, echoed",
    async (network) => {
      const reply = await feed.get({ network_id: ` ${network} ` });
      expect(reply.status).toBe(200);
      expect(reply.body).toMatchObject({ ...nothing, network_id: network });
    },
  );

  test("07.9 the own network named is the default", async () => {
    const network_id = `local:${await nodeOf(server)}`;
    expect(idsOf(await feed.list({ network_id }))).toEqual(idsOf(all.slice(0, 50)));
  });

  test("07 s6 reading changes nothing", async () => {
    const before = (await feed.get({ limit: 200 })).body.messages;
    for (const limit of [1, 50, 200]) await feed.list({ limit, before_created_at: FAR });
    expect((await feed.get({ limit: 200 })).body.messages).toEqual(before);
  });
});

describe("a query", () => {
  const names = { feed_key: "k", scope_hint: "group:a" };

  test.each<[string, More]>([
    ["no feed_key", { ...names, feed_key: undefined }],
    ["no scope_hint", { ...names, scope_hint: undefined }],
    ["nothing", { feed_key: undefined, scope_hint: undefined }],
  ])("07.10 with %s is refused", async (_, query) => {
    expectRefusal(await ask(server, paths.messages, query), 400);
  });

  test.each(["", " ", "\t\r\n", "\u3000"])("07.10 with the blank %j is refused", async (blank) => {
    const read = (query: More) => ask(server, paths.messages, { ...names, ...query });
    expectRefusal(await read({ feed_key: blank }), 400, "feed_key is required");
    expectRefusal(await read({ scope_hint: blank }), 400, "scope_hint is required");
    expectRefusal(await read({ feed_key: blank, scope_hint: blank }), 400, "feed_key is required");
  });

  test("07.10 without a query at all is refused", async () => {
    expectRefusal(await server.send("GET", paths.messages), 400);
    expectRefusal(await server.send("GET", `${paths.messages}?`), 400);
  });

  test.each(["feed_key", "scope_hint", "network_id", "limit", "before_created_at", "before_message_id"])(
    "07 s1 %s twice is refused, also with equal values",
    async (name) => {
      const value = { ...names, network_id: "n", limit: 5, before_created_at: 5, before_message_id: "x" };
      const once = queryOf(value);
      const again = queryOf({ [name]: (value as More)[name] });
      expect((await server.send("GET", `${paths.messages}?${once}`)).status).toBe(200);
      expectRefusal(await server.send("GET", `${paths.messages}?${once}&${again}`), 400);
      expectRefusal(await server.send("GET", `${paths.messages}?${again}&${once}`), 400);
      const spelled = again.replace(name, `%${name.charCodeAt(0).toString(16)}${name.slice(1)}`);
      expectRefusal(await server.send("GET", `${paths.messages}?${once}&${spelled}`), 400);
    },
  );

  test.each(["feed_key", "scope_hint", "limit", "before_created_at"])(
    "07 s1 %s without a value is refused",
    async (name) => {
      const query = queryOf({ ...names, [name]: undefined });
      expectRefusal(await server.send("GET", `${paths.messages}?${query}&${name}`), 400);
      expectRefusal(await server.send("GET", `${paths.messages}?${name}&${query}`), 400);
    },
  );

  test.each([
    ["an unknown parameter", "&order=asc"],
    ["one twice", "&a=1&a=2"],
    ["one without a value", "&a"],
    ["one with a name like a known one", "&Feed_Key=other&LIMIT=1&limit%20=1"],
    ["an empty one", "&&=&"],
    ["one of the other operations", "&active=maybe&active=x&subscriber_node_id=&subscriber_node_id=a"],
    ["names that objects have", "&__proto__=1&constructor=2&toString=3"],
  ])("07 s1 with %s is answered as without", async (_, more) => {
    const reply = await server.send(
      "GET",
      `${paths.messages}?${queryOf({ feed_key: feed.key, scope_hint: feed.scope, limit: 3 })}${more}`,
    );
    expect(reply.status).toBe(200);
    expect(idsOf(reply.body.messages)).toEqual(idsOf(all.slice(0, 3)));
  });

  test.each([
    ["a byte that never occurs", "%ff"],
    ["a cut sequence", "a%c3"],
    ["a lone continuation", "%80"],
    ["an overlong slash", "%c0%af"],
    ["a surrogate", "%ed%a0%80"],
    ["a code point beyond all", "%f4%90%80%80"],
  ])("07 s1 with text that is no UTF-8 (%s) is refused", async (_, text) => {
    const read = (query: string) => server.send("GET", `${paths.messages}?${query}`);
    expectRefusal(await read(`feed_key=${text}&scope_hint=group:a`), 400);
    expectRefusal(await read(`feed_key=a&scope_hint=group:${text}`), 400);
    expectRefusal(await read(`feed_key=a&scope_hint=group:a&network_id=${text}`), 400);
    expectRefusal(
      await read(`feed_key=a&scope_hint=group:a&before_created_at=5&before_message_id=${text}`),
      400,
    );
  });

  test("07 s1 is decoded as a form: %XX in names and values, + for a space", async () => {
    const spaced = newFeed(server, "group:a b", "one two+three é");
    const id = await spaced.post(1);
    const reply = await server.send(
      "GET",
      `${paths.messages}?feed%5Fkey=one+two%2Bthree%20%C3%A9&scope_hint=group%3Aa+b`,
    );
    expect(reply.body).toMatchObject({ feed_key: spaced.key, messages: [{ message_id: id }] });
  });
});
