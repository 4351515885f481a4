/** What all topic endpoints share: bodies, content types, methods, the shape of errors and `performance`. */
import { describe, expect, test } from "bun:test";
import { type Reply, startServer } from "../support/server.ts";
import { absentTopic, newTopic, sharedServer, type Topic } from "../support/topics.ts";

const server = sharedServer();

const endpoints = [
  ["PUT", "", {}],
  ["POST", "", { records: [{ data: 1 }] }],
  ["POST", "/diff", {}],
  ["POST", "/delete", { before_seq: 1 }],
] as const;

const invalid = { status: 400, body: { error: { code: "invalid_request" } } };

describe("bodies", () => {
  const known = {
    PUT: '"ttl_ms":1',
    "": '"records":[]',
    "/diff": '"from_seq":0',
    "/delete": '"before_seq":1',
  };

  const broken: [string, string | Uint8Array][] = [
    ["a cut object", "{"],
    ["two objects", "{}{}"],
    ["trailing text", "{} x"],
    ["a trailing comma", '{"x":1,}'],
    ["a comment", "{/* */}"],
    ["NaN", '{"x":NaN}'],
    ["a leading zero", '{"x":01}'],
    ["a plus sign", '{"x":+1}'],
    ["no digit before the point", '{"x":.5}'],
    ["no digit after the point", '{"x":5.}'],
    ["single quotes", "{'x':1}"],
    ["an unquoted key", "{x:1}"],
    ["a raw tab in a string", '{"x":"\t"}'],
    ["a bad escape", '{"x":"\\x41"}'],
    ["a byte order mark", "\uFEFF{}"],
    ["white space only", " \n"],
    ["null", "null"],
    ["a string", '"x"'],
    ["a number", "5"],
    ["an array", "[]"],
    ["128 open containers", `{"x":${"[".repeat(127)}${"]".repeat(127)}}`],
    ["200000 open containers", "[".repeat(200000)],
  ];

  test.each(broken)("1 every endpoint refuses %s", async (_, body) => {
    const topic = await newTopic(server);
    for (const [method, path] of endpoints) {
      const reply = await server.send(method, topic.path + path, body);
      expect([method, path, reply.status, reply.body?.error]).toStrictEqual([
        method,
        path,
        400,
        { code: "invalid_request", message: expect.any(String) },
      ]);
    }
  });

  test("1 every endpoint refuses a known field sent twice, also where it is spelled with escapes", async () => {
    const topic = await newTopic(server);
    for (const [method, path] of endpoints) {
      const field = method === "PUT" ? known.PUT : known[path as "" | "/diff" | "/delete"];
      const escaped = field.replace(
        /"(.)/,
        (_, first) => `"\\u${first.charCodeAt(0).toString(16).padStart(4, "0")}`,
      );
      expect(await server.send(method, topic.path + path, `{${field},${field}}`)).toMatchObject(invalid);
      expect(await server.send(method, topic.path + path, `{${field},${escaped}}`)).toMatchObject(invalid);
    }
  });

  test.each([
    '{"records":[{"data":1,"data":2}]}',
    '{"records":[{"data":1,"tag":"a","tag":"a"}]}',
    '{"records":[{"data":1,"node":null,"node":"a"}]}',
    '{"records":[{"data":1,"meta":1,"meta":1}]}',
    '{"records":[{"data":1}],"config":{"ttl_ms":0,"ttl_ms":0}}',
  ])("1 a known field twice inside: %s", async (body) => {
    expect(await absentTopic(server).write(body)).toMatchObject(invalid);
  });

  test("1 unknown fields are ignored at every level, also when repeated", async () => {
    const topic = absentTopic(server);
    const write = await topic.write(
      '{"x":1,"x":2,"RECORDS":5,"config":{"x":1,"x":{}},"records":[{"data":1,"y":1,"y":2,"DATA":3}]}',
    );
    const diff = await topic.diff('{"FROM_SEQ":"a","x":[],"x":[]}');
    const erased = await topic.erase('{"before_seq":1,"x":1,"x":1}');
    expect(write.status).toBe(201);
    expect(diff).toMatchObject({ status: 200, body: { records: [{ data: 1 }] } });
    expect(erased).toMatchObject({ status: 200, body: { deleted: 0 } });
  });

  test("1 unknown query parameters are ignored", async () => {
    const topic = absentTopic(server);
    expect((await topic.write({ records: [{ data: 1 }] }, "?x=1&create=false")).status).toBe(201);
    expect((await server.send("GET", `${topic.path}?x=%ff&touch=false`)).status).toBe(200);
    expect((await server.send("POST", `${topic.path}/diff?limit=0`, {})).status).toBe(200);
  });

  const bytes = (...parts: (string | number)[]) =>
    Buffer.concat(parts.map((part) => (typeof part === "string" ? Buffer.from(part) : Buffer.from([part]))));

  const badData: [string, string | Uint8Array][] = [
    ["a lone high surrogate", '"\\ud83d"'],
    ["a lone low surrogate", '"\\ude00"'],
    ["swapped surrogates", '"\\ude00\\ud83d"'],
    ["a lone surrogate in a key", '{"\\ud83d":1}'],
    ["invalid UTF-8", bytes('"', 0xff, '"')],
    ["an overlong encoding", bytes('"', 0xc0, 0xaf, '"')],
    ["a surrogate in UTF-8", bytes('"', 0xed, 0xa0, 0x80, '"')],
    ["a raw line feed in a string", '"a\nb"'],
    ["a number beyond double range", "1e400"],
    ["a negative number beyond double range", "-1e400"],
    ["an integer beyond double range", "9".repeat(400)],
    ["125 nested arrays", "[".repeat(125) + "]".repeat(125)],
    ["nothing", ""],
  ];

  test.each(badData)("1 data that is %s is refused, and the batch with it", async (_, data) => {
    const topic = await newTopic(server);
    const body = Buffer.concat([
      bytes('{"records":[{"data":1},{"data":'),
      Buffer.from(data as string),
      bytes("}]}"),
    ]);
    expect(await topic.write(new Uint8Array(body))).toMatchObject(invalid);
    expect((await topic.state()).body.head_seq).toBe(0);
  });

  test.each(["tag", "node"])("1 a lone surrogate in %s is refused", async (member) => {
    const body = `{"records":[{"data":1,"${member}":"a\\udc00"}]}`;
    expect(await absentTopic(server).write(body)).toMatchObject(invalid);
  });
});

describe("content types", () => {
  const withType = (topic: Topic, method: string, path: string, body: string, type: string) =>
    server.send(method, topic.path + path, body, { "content-type": type });

  test.each(endpoints)("02.65 %s%s needs application/json for a body", async (method, path, body) => {
    const topic = await newTopic(server);
    const text = JSON.stringify(body);
    for (const type of ["", "text/plain", "application/xml", "text/json", "json"]) {
      const reply = await withType(topic, method, path, text, type);
      expect([type, reply.status, reply.body?.error?.code]).toStrictEqual([
        type,
        415,
        "unsupported_media_type",
      ]);
    }
    for (const type of ["application/json", "application/json;charset=utf-8", "application/json; x=y"]) {
      expect([type, (await withType(topic, method, path, text, type)).status]).toStrictEqual([type, 200]);
    }
  });

  test("1 an empty body is {} for PUT and diff, with and without Content-Type", async () => {
    const topic = await newTopic(server);
    for (const type of ["", "application/json"]) {
      expect((await withType(topic, "PUT", "", "", type)).status).toBe(200);
      expect((await withType(topic, "POST", "/diff", "", type)).status).toBe(200);
    }
  });

  test.each(["", "/delete"])("1 an empty body is refused by POST %s", async (path) => {
    const topic = await newTopic(server);
    expect((await server.send("POST", topic.path + path)).status).toBe(415);
    expect(await withType(topic, "POST", path, "", "application/json")).toMatchObject(invalid);
  });

  test("1 the body comes before the topic: 415 and 400 on an absent one", async () => {
    const topic = absentTopic(server);
    for (const path of ["/diff", "/delete"]) {
      expect((await withType(topic, "POST", path, "{}", "text/plain")).status).toBe(415);
      expect((await withType(topic, "POST", path, "{", "application/json")).status).toBe(400);
    }
    expect((await topic.state()).status).toBe(404);
  });

  test("1 a body over the limit is 413, before its type is looked at", async () => {
    await using small = await startServer({ TOPICS_MAX_BODY_BYTES: "1000" });
    const topic = await newTopic(small);
    const body = (bytes: number) => `{"records":[{"data":"${"x".repeat(bytes - 25)}"}]}`;
    expect(body(1000)).toHaveLength(1000);
    const over = { status: 413, body: { error: { code: "payload_too_large" } } };
    expect((await topic.write(body(1000))).status).toBe(200);
    expect(await topic.write(body(1001))).toMatchObject(over);
    expect(await topic.write(body(1001), "", { "content-type": "text/plain" })).toMatchObject(over);
    expect(await absentTopic(small).put(body(1001))).toMatchObject(over);
    expect((await topic.state()).body.head_seq).toBe(1);
  });
});

describe("paths and methods", () => {
  const allow = (reply: Reply) =>
    reply.headers
      .get("allow")
      ?.split(/\s*,\s*/)
      .sort()
      .join();

  test.each(["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"])(
    "02.65 %s on a sub-path is 405",
    async (method) => {
      const topic = await newTopic(server);
      for (const path of ["/diff", "/delete"]) {
        const reply = await server.send(method, topic.path + path);
        expect([reply.status, allow(reply)]).toStrictEqual([405, "POST"]);
        if (method !== "HEAD") expect(reply.body.error.code).toBe("method_not_allowed");
      }
    },
  );

  test.each(["PATCH", "OPTIONS"])("02.65 %s on a topic and on the list is 405", async (method) => {
    const topic = await newTopic(server);
    const onTopic = await server.send(method, topic.path);
    const onList = await server.send(method, "/v0/topics");
    expect([onTopic.status, allow(onTopic)]).toStrictEqual([405, "DELETE,GET,HEAD,POST,PUT"]);
    expect([onList.status, allow(onList)]).toStrictEqual([405, "GET,HEAD"]);
  });

  test.each(["/", "//diff", "/diff/", "/delete/", "/nothing", "/DIFF", "/diff/x"])(
    "02.65 %s behind a topic is no path",
    async (path) => {
      const topic = await newTopic(server);
      const reply = await server.send("POST", topic.path + path, {});
      expect(reply.status).toBe(404);
      expect(reply.body.error).toStrictEqual({ code: "not_found", message: expect.any(String) });
    },
  );

  test.each(["/v0/topics/", "/v0//topics", "/v0/Topics", "/v0/topics//x"])(
    "02.65 %s is no path",
    async (path) => {
      expect(await server.send("GET", path)).toMatchObject({
        status: 404,
        body: { error: { code: "not_found" } },
      });
    },
  );
});

describe("every answer", () => {
  test("P2 an error is code, message and sometimes detail, with performance beside it", async () => {
    const full = await newTopic(server, { cap_records: 1, discard: "reject" });
    const queue = await newTopic(server, { type: "queue" });
    const absent = absentTopic(server);
    await full.append(1);
    const one = { records: [{ data: 1 }] };
    const replies = [
      await absent.state(),
      await absent.diff(),
      await absent.erase({ before_seq: 1 }),
      await absent.erase({}),
      await absent.write({ ...one, create: false }),
      await absent.write({ records: [] }),
      await absent.write(one, "", { "content-type": "text/plain" }),
      await absent.put({ dead_letter: "_x" }),
      await absent.put("{"),
      await full.write(one),
      await full.drop("?if_empty=true"),
      await queue.put({}),
      await server.send("PUT", "/v0/topics/_x"),
      await server.send("PATCH", absent.path),
      await server.send("GET", "/nowhere"),
      await server.send("GET", "/v0/topics?cursor=!!!"),
    ];
    for (const { status, body, headers } of replies) {
      expect(status).toBeGreaterThanOrEqual(400);
      expect(headers.get("content-type")).toBe("application/json");
      expect(Object.keys(body).sort()).toStrictEqual(["error", "performance"]);
      expect(body.performance).toStrictEqual({ server_total_ms: expect.any(Number) });
      expect(body.error.code).toMatch(/^[a-z_]+$/);
      expect(body.error.message).toMatch(/./);
      expect(
        Object.keys(body.error).filter((key) => !["code", "message", "detail"].includes(key)),
      ).toStrictEqual([]);
    }
  });

  test("P2 performance on every 2xx, with the members of its endpoint", async () => {
    const topic = absentTopic(server);
    const number = expect.any(Number);
    const one = { records: [{ data: 1 }], idempotency_key: "k" };
    expect((await topic.put()).body.performance).toStrictEqual({ server_total_ms: number });
    expect((await topic.state()).body.performance).toStrictEqual({ server_total_ms: number });
    expect((await topic.write(one)).body.performance).toStrictEqual({
      server_total_ms: number,
      wal_append_ms: number,
      fsync_ms: 0,
    });
    expect((await topic.write(one)).body.performance).toStrictEqual({ server_total_ms: number });
    expect((await topic.diff()).body.performance).toStrictEqual({
      server_total_ms: number,
      records_scanned: 1,
    });
    expect((await topic.erase({ before_seq: 1 })).body.performance).toStrictEqual({
      server_total_ms: number,
    });
    expect((await server.send("GET", "/v0/topics")).body.performance).toStrictEqual({
      server_total_ms: number,
    });
    expect((await topic.drop()).body.performance).toStrictEqual({ server_total_ms: number });
  });

  test.each(["ephemeral", "memory", "disk", "fsync"])(
    "5.2 fsync_ms of a write, class %s",
    async (durability) => {
      const topic = await newTopic(server, { durability });
      const { wal_append_ms, fsync_ms } = (await topic.append(1)).body.performance;
      if (durability === "fsync") expect(fsync_ms).toBeGreaterThan(0);
      else expect(fsync_ms).toBe(0);
      if (durability === "ephemeral") expect(wal_append_ms).toBe(0);
      else expect(wal_append_ms).toBeGreaterThanOrEqual(0);
    },
  );
});
