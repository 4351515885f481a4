/** `POST /v0/watch`: what a session may ask for, what its answer says, and what is refused. */
import { describe, expect, test } from "bun:test";
import { attempt, EventStream } from "../support/eventstream.ts";
import { type Reply, startServer } from "../support/server.ts";
import {
  absentTopic,
  newTopic,
  type Sender,
  sharedServer,
  type Topic,
  together,
  until,
} from "../support/topics.ts";

const server = sharedServer();

const U64_MAX = "18446744073709551615";
const U64_OVER = "18446744073709551616";
const U32_MAX = "4294967295";
const U32_OVER = "4294967296";

/** What stands for no unsigned integer, as JSON. */
const NO_INTEGERS = ["-1", "-0", "1.5", "1.0", "1e2", '"5"', '""', "null", "true", "[1]", "{}"];
const NO_FLAGS = ["null", '"true"', "0", "1", "[]", "{}"];

const watch = (body: unknown, query = "", headers: Record<string, string> = {}) =>
  server.send("POST", `/v0/watch${query}`, body, headers);

/** A request for these topics, each from its start. */
const all = (...topics: Topic[]) => ({ topics: Object.fromEntries(topics.map(({ name }) => [name, {}])) });

/** The text of a request for one topic, with one more member: of the topic's options, or beside `topics`. */
const withOption = ({ name }: Topic, option: string, json: string) =>
  `{"topics":{"${name}":{"${option}":${json}}}}`;
const withMember = ({ name }: Topic, member: string, json: string) =>
  `{"topics":{"${name}":{}},"${member}":${json}}`;

const epochOf = async (topic: Topic): Promise<number> => (await topic.state()).body.epoch;

/** Bytes have no content type of their own, unlike text. */
const bytes = (text: string) => new TextEncoder().encode(text);

function expectInvalid(reply: Reply): void {
  expect(reply).toMatchObject({ status: 400, body: { error: { code: "invalid_request" } } });
  expect(Object.keys(reply.body.error).sort()).toEqual(["code", "message"]);
  expect(reply.body.error.message).not.toBe("");
  expect(reply.body.performance.server_total_ms).toBeNumber();
}

/** How many sessions there are, as the metrics have it. */
const sessions = async (at: Sender): Promise<number> =>
  (await at.send("GET", "/v0/metrics", undefined, { accept: "application/json" })).body.watch_sessions;

async function filled(n: number, config: object = {}): Promise<Topic> {
  const topic = await newTopic(server, config);
  await topic.append(...Array.from({ length: n }, (_, i) => i + 1));
  return topic;
}

describe("the answer", () => {
  test("05.01 names the session and each topic's start", async () => {
    const [boats, trams] = [await filled(2), await filled(1)];
    const reply = await watch({ topics: { [boats.name]: { from_seq: 0 }, [trams.name]: { tail: true } } });
    expect(reply.status).toBe(200);
    expect(reply.headers.get("content-type")).toBe("application/json");
    expect(reply.body).toStrictEqual({
      wid: expect.stringMatching(/^wid_[A-Za-z0-9_-]{22}$/),
      stream_url: `/v0/watch/${reply.body.wid}`,
      session_ttl_ms: 300000,
      topics: {
        [boats.name]: { from_seq: 0, head_seq: 2, earliest_seq: 1, epoch: await epochOf(boats) },
        [trams.name]: { from_seq: 1, head_seq: 1, earliest_seq: 1, epoch: await epochOf(trams) },
      },
      performance: { server_total_ms: expect.any(Number) },
    });
  });

  test("05 section 2.2 tells an empty topic from its start", async () => {
    const topic = await newTopic(server);
    const { body } = await watch(all(topic));
    expect(body.topics[topic.name]).toStrictEqual({
      from_seq: 0,
      head_seq: 0,
      earliest_seq: 1,
      epoch: await epochOf(topic),
    });
  });

  test("05.01 the wid is 16 bytes, and another one each time", async () => {
    const topic = await newTopic(server);
    const replies = await together(50, () => watch(all(topic)));
    const wids = replies.map(({ body }) => body.wid.slice("wid_".length) as string);
    for (const wid of wids) {
      const decoded = Buffer.from(wid, "base64url");
      expect([decoded.length, decoded.toString("base64url")]).toEqual([16, wid]);
    }
    expect(new Set(wids).size).toBe(50);
  });

  test("05 section 2.2 an identical request makes a session of its own", async () => {
    await using own = await startServer();
    const topic = await newTopic(own);
    for (let n = 1; n <= 3; n++) {
      expect((await own.send("POST", "/v0/watch", all(topic))).status).toBe(200);
      expect(await sessions(own)).toBe(n);
    }
  });

  test("05 section 2.2 has applied the cap", async () => {
    const topic = await filled(5, { cap_records: 2 });
    const { body } = await watch(all(topic));
    expect(body.topics[topic.name]).toMatchObject({ from_seq: 0, head_seq: 5, earliest_seq: 4 });
  });

  test("05 section 2.2 has applied the time to live", async () => {
    const topic = await filled(2, { ttl_ms: 1 });
    // Nothing but these requests looks at the topic.
    const { body } = await until(
      () => watch(all(topic)),
      (reply) => reply.body.topics[topic.name].earliest_seq === 3,
    );
    expect(body.topics[topic.name]).toMatchObject({ from_seq: 0, head_seq: 2 });
  });

  test("05 section 1 is no read: `last_read_ts` stays, until a stream opens", async () => {
    const topic = await newTopic(server);
    const { stream_url } = (await watch(all(topic))).body;
    const lastRead = async () => (await topic.state()).body.last_read_ts;
    expect(await lastRead()).toBeNull();
    await using stream = await EventStream.open(server.url, stream_url);
    await stream.event();
    expect(await lastRead()).toBeNumber();
  });

  test("05 section 2 takes a queue, and leases nothing", async () => {
    const topic = await filled(2, { type: "queue" });
    const { body } = await watch(all(topic));
    expect(body.topics[topic.name]).toMatchObject({ head_seq: 2, earliest_seq: 1 });
    expect((await topic.state()).body.queue).toMatchObject({ ready: 2, in_flight: 0 });
  });
});

describe("the start of a topic", () => {
  test.each([
    ["nothing", {}, 0],
    ["from_seq", { from_seq: 2 }, 2],
    ["from_seq at the head", { from_seq: 3 }, 3],
    ["from_seq above the head", { from_seq: 99 }, 99],
    ["tail", { tail: true }, 3],
    ["tail and from_seq", { tail: true, from_seq: 1 }, 3],
    ["tail and from_seq above the head", { tail: true, from_seq: 99 }, 3],
    ["no tail", { tail: false, from_seq: 1 }, 1],
  ])("05.02 %s", async (_, options, from_seq) => {
    const topic = await filled(3);
    const { body } = await watch({ topics: { [topic.name]: options } });
    expect(body.topics[topic.name]).toMatchObject({ from_seq, head_seq: 3 });
  });

  test("05.02 tail of an empty topic is 0", async () => {
    const topic = await newTopic(server);
    const { body } = await watch({ topics: { [topic.name]: { tail: true, from_seq: 7 } } });
    expect(body.topics[topic.name]).toMatchObject({ from_seq: 0, head_seq: 0 });
  });

  test("05 section 2.1 tail is the head at the POST, not at the stream", async () => {
    const topic = await filled(2);
    const { stream_url } = (await watch({ topics: { [topic.name]: { tail: true } } })).body;
    await topic.append("later");
    await using stream = await EventStream.open(server.url, stream_url);
    const { event, body } = await stream.event();
    expect(event).toBe("record");
    expect(body).toMatchObject({ from_seq: 2, to_seq: 3, records: [{ $seq: 3, data: "later" }] });
  });

  test.each([U64_MAX, "9007199254740992", "9007199254740993"])(
    "05.05 P7 from_seq %s is echoed to the digit",
    async (from_seq) => {
      const topic = await newTopic(server);
      const reply = await watch(withOption(topic, "from_seq", from_seq));
      expect(reply.status).toBe(200);
      expect(reply.text).toContain(`"from_seq":${from_seq},`);
    },
  );

  test.each([...NO_INTEGERS, U64_OVER])("05.05 from_seq %s is refused", async (json) => {
    expectInvalid(await watch(withOption(await newTopic(server), "from_seq", json)));
  });

  test.each(NO_FLAGS)("05 section 2.1 tail %s is refused", async (json) => {
    expectInvalid(await watch(withOption(await newTopic(server), "tail", json)));
  });

  test("05 section 2.1 with tail, too, from_seq must be an integer", async () => {
    const { name } = await newTopic(server);
    expectInvalid(await watch(`{"topics":{"${name}":{"tail":true,"from_seq":"1"}}}`));
  });
});

describe("P5 the epoch of a topic", () => {
  const opened = async (options: string, { name }: Topic) =>
    EventStream.open(
      server.url,
      (await watch(`{"topics":{"${name}":${options}}}`)).body.stream_url as string,
    );

  test("if it is the live one, changes nothing", async () => {
    const topic = await filled(3);
    await using stream = await opened(`{"from_seq":2,"epoch":${await epochOf(topic)}}`, topic);
    const { event, body } = await stream.event();
    expect([event, body.from_seq, body.to_seq]).toEqual(["record", 2, 3]);
  });

  test("of an earlier life begins the stream with a tombstone, then every record", async () => {
    const topic = await filled(3);
    const old = await epochOf(topic);
    await topic.drop();
    await topic.append("a", "b", "c");
    await using stream = await opened(`{"from_seq":3,"epoch":${old}}`, topic);
    const [tombstone, record] = await stream.events(2);
    expect(tombstone).toMatchObject({
      event: "tombstone",
      body: { topic: topic.name, reason: "from_seq_too_old", gap_from: 1, gap_to: 3, head_seq: 3 },
    });
    expect(record!.body.records.map(({ data }: { data: string }) => data)).toEqual(["a", "b", "c"]);
  });

  test.each(["0", "9007199254740993", U64_MAX])("%s that never was does the same", async (epoch) => {
    const topic = await filled(2);
    await using stream = await opened(`{"from_seq":1,"epoch":${epoch}}`, topic);
    const [tombstone, record] = await stream.events(2);
    expect(tombstone!.body).toMatchObject({ reason: "from_seq_too_old", gap_from: 1, gap_to: 2 });
    expect(record!.body).toMatchObject({ to_seq: 2, records: [{ $seq: 1 }, { $seq: 2 }] });
  });

  test.each([...NO_INTEGERS.filter((json) => json !== "null"), U64_OVER])("%s is refused", async (json) => {
    expectInvalid(await watch(withOption(await newTopic(server), "epoch", json)));
  });
});

describe("topics", () => {
  test.each([
    ["an empty object", "{}"],
    ["only another member", '{"limit":5}'],
    ["no topics", '{"topics":{}}'],
    ["null", '{"topics":null}'],
    ["an array", '{"topics":["t"]}'],
    ["an empty array", '{"topics":[]}'],
    ["a string", '{"topics":"t"}'],
    ["a number", '{"topics":1}'],
    ["true", '{"topics":true}'],
  ])("05.03 05.04 are refused: %s", async (_, body) => {
    expectInvalid(await watch(body));
    expectInvalid(await watch(body, "?lenient=true"));
  });

  test.each(["null", "[]", "[0]", "[0,true]", '"tail"', "0", "true"])(
    "05.04 options %s are refused",
    async (options) => {
      const { name } = await newTopic(server);
      expectInvalid(await watch(`{"topics":{"${name}":${options}}}`));
      // Whether the topic exists or not: what the request is comes first.
      expectInvalid(await watch(`{"topics":{"absent":${options}}}`, "?lenient=true"));
    },
  );

  test.each([
    ["empty", ""],
    ["blank", "  "],
    ["null", "null"],
    ["a string", '"x"'],
    ["a number", "1"],
    ["an array", '[{"t":{}}]'],
    ["cut off", '{"topics":{"t":{}}'],
    ["two values", '{"topics":{"t":{}}}{}'],
    ["with a comma too much", '{"topics":{"t":{},}}'],
    ["with a byte order mark", '\ufeff{"topics":{"t":{}}}'],
    ["with a lone surrogate", '{"topics":{"\\ud800":{}}}'],
  ])("05 section 2.3 a body that is %s is refused", async (_, body) => {
    expectInvalid(await watch(bytes(body)));
  });

  test("05 section 2.3 a body that is no UTF-8 is refused", async () => {
    const body = Buffer.from('{"topics":{"t\xff":{}}}', "latin1");
    expectInvalid(await watch(new Uint8Array(body)));
  });

  test("05.10 up to 256, counted before unknown ones are dropped", async () => {
    await using own = await startServer();
    // Names of the greatest length, so that nothing else is in the way.
    const names = Array.from({ length: 257 }, (_, i) => `${i}-`.padEnd(255, "x"));
    await Promise.all(names.map((name) => absentTopic(own, name).put()));
    const ask = (asked: string[], query = "") =>
      own.send("POST", `/v0/watch${query}`, { topics: Object.fromEntries(asked.map((name) => [name, {}])) });
    const most = await ask(names.slice(1));
    expect(most.status).toBe(200);
    expect(Object.keys(most.body.topics).sort()).toEqual(names.slice(1).sort());
    for (const query of ["", "?lenient=true"]) expectInvalid(await ask(names, query));
    const unknown = Array.from({ length: 256 }, (_, i) => `unknown-${i}`);
    expect((await ask([names[0]!, ...unknown.slice(1)], "?lenient=true")).body.topics).toHaveProperty(
      [names[0]!],
      expect.anything(),
    );
    for (const query of ["", "?lenient=true"]) expectInvalid(await ask([names[0]!, ...unknown], query));
    expect(await sessions(own)).toBe(2);
  });

  test("05 section 2.1 of a name twice the last one counts", async () => {
    const { name } = await filled(3);
    const reply = await watch(`{"topics":{"${name}":{"from_seq":1},"${name}":{"from_seq":2}}}`);
    expect(reply).toMatchObject({ status: 200, body: { topics: { [name]: { from_seq: 2 } } } });
  });

  test("01 section 2 a name in escapes is the same name", async () => {
    const { name } = await filled(1);
    const escaped = [...name]
      .map((char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`)
      .join("");
    expect((await watch(`{"topics":{"${escaped}":{}}}`)).body.topics).toHaveProperty(name);
  });
});

describe("unknown topics", () => {
  const notFound = (topic: string) => ({
    status: 404,
    body: { error: { code: "topic_not_found", detail: { topic } } },
  });

  test("05.11 are 404, and nothing is left of the request", async () => {
    await using own = await startServer();
    const topic = await newTopic(own);
    for (const body of [{ topics: { nope: {} } }, { topics: { [topic.name]: {}, nope: {} } }]) {
      const reply = await own.send("POST", "/v0/watch", body);
      expect(reply).toMatchObject(notFound("nope"));
      expect(reply.body.performance.server_total_ms).toBeNumber();
    }
    expect(await sessions(own)).toBe(0);
    expect((await absentTopic(own, "nope").state()).status).toBe(404);
  });

  test("05.11 one of several is named", async () => {
    const { name } = await newTopic(server);
    const { status, body } = await watch({ topics: { nope: {}, [name]: {}, never: {} } });
    expect(status).toBe(404);
    expect(["nope", "never"]).toContain(body.error.detail.topic);
  });

  test.each(["", " ", "a b", "-a", "a/b", "ä", "a>b", "x".repeat(256), "__proto__", "constructor", "\0"])(
    "05 section 2.1 a name that none can have is just unknown: %j",
    async (name) => {
      const body = `{"topics":{${JSON.stringify(name)}:{}}}`;
      const reply = await watch(body);
      expect(reply.status).toBe(404);
      expect(reply.body.error).toMatchObject({ code: "topic_not_found", detail: { topic: name } });
      expect((await watch(body, "?lenient=true")).body.topics).toEqual({});
    },
  );

  test.each(["?lenient=true", "?lenient=1", "?lenient=%31", "?lenient=no&lenient=true", "?x=1&lenient=1"])(
    "05.12 are dropped with %s",
    async (query) => {
      const { name } = await newTopic(server);
      const { status, body } = await watch({ topics: { nope: { from_seq: 3 }, [name]: {} } }, query);
      expect(status).toBe(200);
      expect(Object.keys(body.topics)).toEqual([name]);
      expect((await absentTopic(server, "nope").state()).status).toBe(404);
    },
  );

  test.each([
    "",
    "?lenient=yes",
    "?lenient=TRUE",
    "?lenient=True",
    "?lenient=",
    "?lenient",
    "?lenient=0",
    "?lenient=false",
    "?lenient=2",
    "?lenient=true&lenient=no",
    "?LENIENT=true",
  ])("05.12 are 404 with %j", async (query) => {
    const { name } = await newTopic(server);
    expect(await watch({ topics: { [name]: {}, nope: {} } }, query)).toMatchObject(notFound("nope"));
  });

  test("05.12 are 404 with `lenient` in the body", async () => {
    const { name } = await newTopic(server);
    const reply = await watch({ topics: { [name]: {}, nope: { lenient: true } }, lenient: true });
    expect(reply).toMatchObject(notFound("nope"));
  });

  test("05 section 2.1 only unknown ones and `lenient`: the stream ends at once", async () => {
    const { status, body } = await watch({ topics: { nope: {}, never: {} } }, "?lenient=true");
    expect([status, body.topics]).toEqual([200, {}]);
    await using stream = await EventStream.open(server.url, body.stream_url);
    expect(await stream.rest()).toBe("retry: 2000\n\n");
  });
});

describe("members", () => {
  const values: [member: string, accepted: string[], refused: string[]][] = [
    ["limit", ["0", "1", "1000", "1001", U32_MAX], [...NO_INTEGERS, U32_OVER, "5000000000"]],
    ["max_batch_bytes", ["0", "1", "8388609", U32_OVER, U64_MAX], [...NO_INTEGERS, U64_OVER]],
    ["heartbeat_ms", ["0", "1", "1000", "60000", "60001", U64_MAX], [...NO_INTEGERS, U64_OVER]],
    ["include_meta", ["true", "false"], NO_FLAGS],
    ["include_tags", ["true", "false"], NO_FLAGS],
    ["include_data", ["true", "false"], NO_FLAGS],
    [
      "consistency",
      ['"eventual"', '"strong"'],
      ['"STRONG"', '"Eventual"', '""', '"weak"', "null", "true", "1", '["strong"]'],
    ],
    ["node", ['"n"', '""', "[]", '["n"]', '["n","m"]', "null"], ["1", "true", "{}", '["n",1]', "[null]"]],
  ];
  const cases = (of: (accepted: string[], refused: string[]) => string[]) =>
    values.flatMap(([member, ...lists]) => of(...lists).map((json): [string, string] => [member, json]));

  test.each(cases((accepted) => accepted))("05.06 05.07 05.08 %s: %s is taken", async (member, json) => {
    const topic = await newTopic(server);
    const reply = await watch(withMember(topic, member, json));
    expect([reply.status, Object.keys(reply.body.topics)]).toEqual([200, [topic.name]]);
    expect((await attempt(server.url, reply.body.stream_url)).status).toBe(200);
  });

  test.each(cases((_, refused) => refused))("05.06 05.07 05.08 %s: %s is refused", async (member, json) => {
    const topic = await newTopic(server);
    expectInvalid(await watch(withMember(topic, member, json)));
  });

  test("05 section 2.1 all at once", async () => {
    const { name } = await filled(2);
    const reply = await watch({
      topics: { [name]: { from_seq: 1, tail: false } },
      node: ["n"],
      limit: 10,
      max_batch_bytes: 1000,
      heartbeat_ms: 5000,
      include_meta: false,
      include_tags: true,
      include_data: false,
      consistency: "strong",
    });
    expect(reply).toMatchObject({ status: 200, body: { topics: { [name]: { from_seq: 1 } } } });
  });

  test("05.09 unknown ones are ignored at both levels, also twice", async () => {
    const { name } = await filled(3);
    const options = '"from_seq":1,"FROM_SEQ":"x","limit":-1,"cursor":"a","cursor":"b"';
    const reply = await watch(
      `{"topics":{"${name}":{${options}}},"cursor":"zzz","from_seq":-1,"Topics":1,"$x":[{}],"x":1,"x":2}`,
    );
    expect(reply).toMatchObject({ status: 200, body: { topics: { [name]: { from_seq: 1 } } } });
  });

  test.each([
    ["limit", "1"],
    ["max_batch_bytes", "1"],
    ["heartbeat_ms", "1000"],
    ["include_meta", "true"],
    ["include_tags", "true"],
    ["include_data", "true"],
    ["consistency", '"strong"'],
    ["node", '"n"'],
  ])("05 section 2.1 %s twice is refused", async (member, json) => {
    const topic = await newTopic(server);
    expectInvalid(await watch(withMember(topic, member, `${json},"${member}":${json}`)));
  });

  test("05 section 2.1 topics twice are refused", async () => {
    const topic = await newTopic(server);
    expectInvalid(await watch(withMember(topic, "topics", `{"${topic.name}":{}}`)));
  });

  test.each([
    ["from_seq", "1"],
    ["tail", "false"],
  ])("01.13 %s twice in a topic's options is refused", async (option, json) => {
    const topic = await newTopic(server);
    expectInvalid(await watch(withOption(topic, option, `${json},"${option}":${json}`)));
  });
});

describe("the request", () => {
  test.each(["", "text/plain", "application/xml", "application/x-www-form-urlencoded", "text/json"])(
    "05.13 with the content type %j is refused",
    async (type) => {
      const topic = await newTopic(server);
      for (const body of [JSON.stringify(all(topic)), "", "{"]) {
        const reply = await watch(bytes(body), "", { "content-type": type });
        expect(reply).toMatchObject({ status: 415, body: { error: { code: "unsupported_media_type" } } });
      }
    },
  );

  test.each([
    "application/json",
    "application/json; charset=utf-8",
    "application/json;charset=latin1",
    "application/json;x=y",
  ])("05.13 with the content type %j is taken", async (type) => {
    const topic = await newTopic(server);
    expect((await watch(all(topic), "", { "content-type": type })).status).toBe(200);
  });

  test("05 section 2.3 is refused for its size before its type, its text and its topics", async () => {
    await using own = await startServer({ TOPICS_MAX_BODY_BYTES: "100" });
    const send = (length: number, type: string) =>
      own.send("POST", "/v0/watch", bytes("x".repeat(length)), { "content-type": type });
    const tooLarge = { status: 413, body: { error: { code: "payload_too_large" } } };
    expect(await send(101, "text/plain")).toMatchObject(tooLarge);
    expect(await send(101, "application/json")).toMatchObject(tooLarge);
    expect((await send(100, "text/plain")).status).toBe(415);
    expect((await send(100, "application/json")).status).toBe(400);
  });

  test.each(["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"])("05.14 %s is 405", async (method) => {
    const reply = await server.send(method, "/v0/watch");
    expect([reply.status, reply.headers.get("allow")]).toEqual([405, "POST"]);
    if (method !== "HEAD") expect(reply.body.error.code).toBe("method_not_allowed");
  });

  test.each(["/v0/watch/", "/v0//watch", "/v0/Watch", "/v0/watch/a/b"])(
    "05.14 POST %s is 404",
    async (path) => {
      const topic = await newTopic(server);
      const reply = await server.send("POST", path, all(topic));
      expect(reply).toMatchObject({ status: 404, body: { error: { code: "not_found" } } });
    },
  );

  test("05 section 2.3 that fails leaves no session behind", async () => {
    await using own = await startServer();
    const { name } = await newTopic(own);
    const refused: [unknown, number, string?][] = [
      ["{", 400],
      [{ topics: {} }, 400],
      [{ topics: { [name]: { from_seq: -1 } } }, 400],
      [{ topics: { [name]: {} }, limit: "1" }, 400],
      [{ topics: { [name]: {}, nope: {} } }, 404],
      [{ topics: { [name]: {} } }, 415, "text/plain"],
    ];
    for (const [body, status, type = "application/json"] of refused) {
      expect((await own.send("POST", "/v0/watch", body, { "content-type": type })).status).toBe(status);
    }
    expect(await sessions(own)).toBe(0);
  });
});
