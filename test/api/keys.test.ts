/** The table of keys: which entries start the server, what each one grants, and how a key is presented. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { answersIn, exchange } from "../support/rawsocket.ts";
import { startServer } from "../support/server.ts";
import { runToEnd, temporaryDirectory } from "../support/spawn.ts";
import { type Sender, sharedServer } from "../support/topics.ts";

setDefaultTimeout(30_000);

/** The server as the holder of a key sees it. */
const keyed = (server: Sender, key: string): Sender => ({
  url: server.url,
  send: (method, path, body, headers) =>
    server.send(method, path, body, { authorization: `Bearer ${key}`, ...headers }),
});

const one = { records: [{ data: 1 }] };

/** One request for each scope on a topic that exists. The last one deletes it. */
const requests = [
  ["read", "GET", undefined],
  ["write", "POST", one],
  ["admin", "PUT", {}],
  ["delete", "DELETE", undefined],
] as const;

/** What the key's requests for each scope are answered. The server also knows the full key `root`. */
async function answers(server: Sender, key: string, topic = "probe"): Promise<Record<string, number>> {
  const path = `/v0/topics/${topic}`;
  await keyed(server, "root").send("PUT", path);
  const holder = keyed(server, key);
  const found: Record<string, number> = {};
  for (const [scope, method, body] of requests) found[scope] = (await holder.send(method, path, body)).status;
  return found;
}

/** The answers to a key that has these scopes and no other. */
const granting = (scopes: string) =>
  Object.fromEntries(requests.map(([scope]) => [scope, scopes.split(" ").includes(scope) ? 200 : 403]));

const everything = granting("read write admin delete");
const nothing = granting("");
const stranger = { read: 401, write: 401, admin: 401, delete: 401 };

describe("no entry", () => {
  test.each([
    ["unset", {}],
    ["empty", { TOPICS_API_KEYS: "" }],
    ["only separators", { TOPICS_API_KEYS: " , ,," }],
  ])("01 s6 %s: auth is off and Authorization is ignored", async (_, env) => {
    await using server = await startServer(env as Record<string, string>);
    expect((await server.send("GET", "/v0/topics")).status).toBe(200);
    expect(await answers(server, "nonsense")).toEqual(everything);
    for (const authorization of ["Basic eDp5", "Bearer", "x"]) {
      expect((await server.send("GET", "/v0/topics", undefined, { authorization })).status).toBe(200);
    }
  });
});

describe("scopes", () => {
  const spellings: [scopes: string, means: string][] = [
    ["read", "read"],
    ["r", "read"],
    ["Read", "read"],
    ["R", "read"],
    ["write", "write"],
    ["w", "write"],
    ["WRITE", "write"],
    ["delete", "delete"],
    ["del", "delete"],
    ["d", "delete"],
    ["Del", "delete"],
    ["admin", "admin"],
    ["a", "admin"],
    ["ADMIN", "admin"],
    ["rw", "read write"],
    ["Rw", "read write"],
    ["READ+Write", "read write"],
    [" r + w ", "read write"],
    ["read+", "read"],
    ["+w", "write"],
    ["r++d", "read delete"],
    ["r + + d", "read delete"],
    ["a+A+admin", "admin"],
    ["rw+a", "read write admin"],
    ["r+w+d+a", "read write admin delete"],
    ["", "read write admin delete"],
  ];
  const table = spellings.map(([scopes], i) => `key-${i}:${scopes}`);
  const server = sharedServer({ TOPICS_API_KEYS: [...table, "root"].join(",") });

  test.each(spellings.map(([scopes, means], i) => [scopes, means, `key-${i}`] as const))(
    '01.35 "%s" is %s',
    async (_, means, key) => {
      expect(await answers(server, key)).toEqual(granting(means));
    },
  );

  test.each([
    "hush-4711:bogus",
    "hush-4711:read+bogus",
    "good:read,hush-4711:bogus",
    "hush-4711:bogus,good:read",
    "hush-4711:bogus:t42:",
    "hush-4711:*",
    "hush-4711:all",
    "hush-4711:rea",
    "hush-4711:wr",
    "hush-4711:read write",
    "hush-4711:r|w",
    "hush-4711:+",
    "hush-4711:++",
    "hush-4711: + ",
    "hush-4711:+:t42:",
  ])("01.35 01.59 %s refuses to start and does not say the key", async (keys) => {
    await using dir = await temporaryDirectory();
    const { exitCode, stdout, stderr } = await runToEnd([], {
      TOPICS_PORT: "0",
      TOPICS_DATA_DIR: join(dir.path, "data"),
      TOPICS_API_KEYS: keys,
    });
    expect({ exitCode, told: stderr.trim() !== "" }).toEqual({ exitCode: 1, told: true });
    expect(stdout + stderr).not.toContain("hush-4711");
  });
});

describe("entries", () => {
  const long = "long-".repeat(800);
  const server = sharedServer({
    TOPICS_API_KEYS: [
      "root",
      " trimmed ",
      "",
      " ",
      "two words:read",
      "before-colon : read ",
      "Case-Key",
      "a+b|c=d/e.f~:write",
      "a",
      "twice:read",
      "twice:write",
      "narrowed",
      "narrowed:r:t42:",
      "widened:r:t42:",
      "widened",
      long,
    ].join(","),
  });

  test.each([
    ["an entry is trimmed", "trimmed", everything],
    ["spaces around a secret do not count when it is presented", "  trimmed", everything],
    ["a secret may have inner spaces", "two words", granting("read")],
    ["and keeps their number", "two  words", stranger],
    ["half of a secret with spaces is none", "two", stranger],
    ["a secret is trimmed in front of its colon", "before-colon", granting("read")],
    ["a secret is everything before the first colon", "a+b|c=d/e.f~", granting("write")],
    ["the scopes are no part of the secret", "two words:read", stranger],
    ["a secret is case-sensitive: as it is", "Case-Key", everything],
    ["a secret is case-sensitive: lower", "case-key", stranger],
    ["a secret is case-sensitive: upper", "CASE-KEY", stranger],
    ["one character is a secret", "a", everything],
    ["another character is not", "b", stranger],
    ["a secret may be long", long, everything],
    ["all of a long secret counts", long.slice(0, -1), stranger],
    ["the whole variable is no secret", "root, trimmed", stranger],
    ["of two entries for a secret the last counts", "twice", granting("write")],
  ])("01 s6 %s", async (_, key, expected) => {
    expect(await answers(server, key)).toEqual(expected);
  });

  test("01 s6 of two entries for a secret the last one's prefixes count", async () => {
    expect(await answers(server, "narrowed", "t42:x")).toEqual(granting("read"));
    expect(await answers(server, "narrowed", "other")).toEqual(nothing);
    expect(await answers(server, "widened", "other")).toEqual(everything);
  });

  test("01 s6 every one of many keys is known", async () => {
    const keys = Array.from({ length: 300 }, (_, i) => `many-${i}`);
    await using own = await startServer({ TOPICS_API_KEYS: keys.join(",") });
    const list = async (key: string) => (await keyed(own, key).send("GET", "/v0/topics")).status;
    for (const key of keys) expect([key, await list(key)]).toEqual([key, 200]);
    expect([await list("many-300"), await list("many-")]).toEqual([401, 401]);
  });

  test.each(["", " ", ":read", "read", ": read", "::"])(
    '01 s6 an entry without a secret turns auth on and does not know "%s"',
    async (key) => {
      await using own = await startServer({ TOPICS_API_KEYS: ":read" });
      expect((await own.send("GET", "/v0/topics")).status).toBe(401);
      expect((await keyed(own, key).send("GET", "/v0/topics")).status).toBe(401);
      expect((await own.send("GET", "/v0/health")).status).toBe(200);
    },
  );
});

describe("prefixes", () => {
  const server = sharedServer({
    TOPICS_API_KEYS: [
      "root",
      "all-scopes::t42:",
      "some-scopes:rw:t42:",
      "two::t42:|u7.",
      "spaced:: t42: | u7. ",
      "holed::|t42:||u7.|",
      "none-left::",
      "none-left-either:r: | ",
      "open-ended::t42",
      "deep::a:b:c",
      "whole::exact",
    ].join(","),
  });

  test.each([
    ["all-scopes", "t42:x", everything],
    ["all-scopes", "t42:", everything],
    ["all-scopes", "t42", nothing],
    ["all-scopes", "T42:x", nothing],
    ["all-scopes", "xt42:", nothing],
    ["some-scopes", "t42:x", granting("read write")],
    ["some-scopes", "other", nothing],
    ["two", "t42:x", everything],
    ["two", "u7.x", everything],
    ["two", "u7", nothing],
    ["spaced", "t42:x", everything],
    ["spaced", "u7.x", everything],
    ["spaced", "other", nothing],
    ["holed", "t42:x", everything],
    ["holed", "u7.x", everything],
    ["holed", "other", nothing],
    ["none-left", "other", everything],
    ["none-left-either", "other", granting("read")],
    ["open-ended", "t42", everything],
    ["open-ended", "t420:x", everything],
    ["open-ended", "t4", nothing],
    ["deep", "a:b:c", everything],
    ["deep", "a:b:cd", everything],
    ["deep", "a:b:x", nothing],
    ["deep", "a", nothing],
    ["whole", "exact", everything],
    ["whole", "exac", nothing],
  ])("01.36 the key %s on %s", async (key, topic, expected) => {
    expect(await answers(server, key, topic)).toEqual(expected);
  });
});

describe("presenting a key", () => {
  const server = sharedServer({ TOPICS_API_KEYS: "Good-Key-1,other-key:read" });
  const basic = btoa("Good-Key-1:");
  const list = (authorization: string) => server.send("GET", "/v0/topics", undefined, { authorization });

  test.each(["Bearer Good-Key-1", "Bearer   Good-Key-1", "Bearer other-key"])(
    '01.30 "%s" is let in',
    async (authorization) => {
      expect((await list(authorization)).status).toBe(200);
    },
  );

  test.each(["bearer Good-Key-1", "BEARER Good-Key-1", "bEARER  Good-Key-1"])(
    '01 s6 the scheme of "%s" matches in any case',
    async (authorization) => {
      expect((await list(authorization)).status).toBe(200);
    },
  );

  test("01 s6 a secret may hold any character; its UTF-8 bytes are presented", async () => {
    await using own = await startServer({ TOPICS_API_KEYS: "schlüssel-🔑" });
    const statusOf = async (characters: string) => {
      const secret = Buffer.from(characters).toString("latin1");
      const head = [
        "GET /v0/topics HTTP/1.1",
        "Host: test",
        "Connection: close",
        `Authorization: Bearer ${secret}`,
      ];
      return answersIn(await exchange(own.url, `${head.join("\r\n")}\r\n\r\n`))[0]!.status;
    };
    expect([await statusOf("schlüssel-🔑"), await statusOf("schlussel-🔑")]).toEqual([200, 401]);
  });

  test.each([
    ["no header", ""],
    ["a wrong key", "Bearer Wrong-Key-1"],
    ["a truncated key", "Bearer Good-Key-"],
    ["a lengthened key", "Bearer Good-Key-11"],
    ["a key without its first character", "Bearer ood-Key-1"],
    ["a key in another case", "Bearer good-key-1"],
    ["a key behind a letter", "Bearer xGood-Key-1"],
    ["two keys", "Bearer Good-Key-1 other-key"],
    ["a list of keys", "Bearer Good-Key-1,other-key"],
    ["a list of credentials", "Bearer Good-Key-1, Bearer other-key"],
    ["a quoted key", 'Bearer "Good-Key-1"'],
    ["an encoded key", "Bearer Good%2DKey%2D1"],
    ["a key in base64", `Bearer ${btoa("Good-Key-1")}`],
    ["only a scheme", "Bearer"],
    ["only a key", "Good-Key-1"],
    ["no space behind the scheme", "BearerGood-Key-1"],
    ["a colon behind the scheme", "Bearer:Good-Key-1"],
    ["two schemes", "Bearer Bearer Good-Key-1"],
    ["a key as Basic user", `Basic ${basic}`],
    ["a plain key as Basic", "Basic Good-Key-1"],
    ["another scheme", "Token Good-Key-1"],
    ["the start of the scheme", "Bear Good-Key-1"],
    ["a longer scheme", "Bearers Good-Key-1"],
  ])("01.30 %s is 401", async (_, authorization) => {
    const reply = await list(authorization);
    expect(reply).toMatchObject({ status: 401, body: { error: { code: "unauthorized" } } });
    expect(reply.headers.get("www-authenticate")).toBe("Bearer");
  });

  // With an effort that grows by the square of the length, this would keep everybody waiting for minutes.
  test.each([" ", "\t", " \t"])(
    "01.30 as many blanks as a head may hold are no burden: %j",
    async (blank) => {
      const blanks = blank.repeat(400_000 / blank.length);
      const [inside, around, alone] = await Promise.all([
        list(`Bearer x${blanks}y`),
        list(`Bearer ${blanks}Good-Key-1`),
        list(`Bearer${blanks}`),
      ]);
      expect([inside.status, around.status, alone.status]).toEqual([401, 200, 401]);
    },
  );

  test.each([
    ["GET", "/v0/topics", undefined],
    ["GET", "/v0/topics/t", undefined],
    ["PUT", "/v0/topics/t", {}],
    ["POST", "/v0/topics/t", one],
    ["POST", "/v0/topics/t/diff", {}],
    ["POST", "/v0/topics/t/delete", { before_seq: 1 }],
    ["DELETE", "/v0/topics/t", undefined],
    ["GET", "/v0/metrics", undefined],
    ["GET", "/v0/nope", undefined],
  ])("01.22 01.30 the 401 of %s %s has a code, a message and no detail", async (method, path, body) => {
    const reply = await keyed(server, "hush-4711").send(method, path, body);
    expect(reply.status).toBe(401);
    expect(reply.headers.get("content-type")).toBe("application/json");
    expect(Object.keys(reply.body).sort()).toEqual(["error", "performance"]);
    expect(Object.keys(reply.body.error).sort()).toEqual(["code", "message"]);
    expect(reply.body.error.code).toBe("unauthorized");
    expect(reply.body.error.message).toMatch(/./);
    expect(reply.text).not.toContain("hush-4711");
  });

  test("01.04 the 401 of HEAD has no body", async () => {
    const reply = await server.send("HEAD", "/v0/topics");
    expect({ status: reply.status, text: reply.text }).toEqual({ status: 401, text: "" });
    expect(reply.headers.get("www-authenticate")).toBe("Bearer");
  });

  test("01 s6 a known key without the scope is 403, and is not asked to authenticate", async () => {
    const reply = await keyed(server, "other-key").send("PUT", "/v0/topics/t");
    expect(reply).toMatchObject({ status: 403, body: { error: { code: "forbidden" } } });
    expect(reply.headers.get("www-authenticate")).toBeNull();
    expect(Object.keys(reply.body.error).sort()).toEqual(["code", "message"]);
  });

  test("01.30 a refused request changes nothing", async () => {
    await server.send("PUT", "/v0/topics/untouched");
    await keyed(server, "wrong").send("POST", "/v0/topics/untouched", one);
    expect((await keyed(server, "Good-Key-1").send("GET", "/v0/topics/untouched")).status).toBe(404);
  });
});
