/** Random tables of keys and random requests against a plain model of who may do what. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import fc from "fast-check";
import { answersIn, exchange } from "../support/rawsocket.ts";
import { type Reply, startServer, type TestServer } from "../support/server.ts";

setDefaultTimeout(30_000);

type Scope = "read" | "write" | "delete" | "admin";

/** One entry as it is meant, and how it is spelled. Without scopes it grants all, without prefixes any name. */
interface Entry {
  readonly secret: string;
  readonly scopes: readonly Scope[];
  readonly prefixes: readonly string[];
  readonly text: string;
}

interface Attempt {
  readonly do: "list" | "state" | "diff" | "append" | "configure" | "put" | "delete";
  readonly name: string;
  /** The name as it stands in the path. */
  readonly segment: string;
  readonly scheme: string;
  readonly token: string | undefined;
}

const SECRETS = ["alpha", "Alpha", "alph", "beta two", "g+|=/~", ""];
const PREFIXES = ["t42:", "t42", "a.", "T", "t42:x:y"];
const NAMES = ["t42:x", "t42:x:yz", "t42", "t420", "T42:x", "a.b", "a", "b"];
const SPELLINGS: Record<Scope, string[]> = {
  read: ["read", "r", "READ", "Read"],
  write: ["write", "w", "Write"],
  delete: ["delete", "del", "d", "DEL"],
  admin: ["admin", "a", "A"],
};
const SCOPES = Object.keys(SPELLINGS) as Scope[];

const spaces = fc.constantFrom("", "", "", " ", "  ");
const subset = <T>(values: readonly T[], maxLength: number) =>
  fc.oneof(fc.constant<T[]>([]), fc.subarray([...values], { minLength: 1, maxLength }));

/** Each scope in one of its spellings, with blanks, empty pieces and repetitions between. */
const scopeField = (scopes: readonly Scope[]): fc.Arbitrary<string> =>
  fc
    .tuple(
      ...scopes.map((scope) => fc.tuple(spaces, fc.constantFrom(...SPELLINGS[scope]), spaces)),
      fc.constantFrom("+", "+", "++", "+ +"),
      fc.constantFrom("", "", "+"),
    )
    .map((parts) => {
      const [between, behind] = parts.slice(-2) as [string, string];
      const pieces = parts.slice(0, -2).map((piece) => (piece as string[]).join(""));
      return pieces.length === 0 ? "" : pieces.join(between) + behind;
    });

const prefixField = (prefixes: readonly string[]): fc.Arbitrary<string> =>
  fc
    .tuple(spaces, fc.constantFrom("|", " | ", "||"), fc.constantFrom("", "|"))
    .map(([space, between, behind]) => space + prefixes.join(between) + behind);

const entry: fc.Arbitrary<Entry> = fc
  .record({
    secret: fc.constantFrom(...SECRETS),
    scopes: subset(SCOPES, SCOPES.length),
    prefixes: subset(PREFIXES, 2),
  })
  .chain((meant) =>
    fc
      .tuple(scopeField(meant.scopes), prefixField(meant.prefixes), spaces, spaces, fc.boolean())
      .map(([scopes, prefixes, front, back, whole]) => {
        const fields = [`${front}${meant.secret}${back}`];
        if (whole || meant.prefixes.length > 0) fields.push(scopes, prefixes);
        else if (meant.scopes.length > 0) fields.push(scopes);
        return { ...meant, text: fields.join(":") };
      }),
  );

/** Any character of a name may stand there percent-encoded. */
const segment = (name: string): fc.Arbitrary<string> =>
  fc
    .array(fc.constantFrom(false, false, false, true), { minLength: name.length, maxLength: name.length })
    .map((encoded) =>
      [...name]
        .map((char, i) => (encoded[i] ? `%${char.charCodeAt(0).toString(16).toUpperCase()}` : char))
        .join(""),
    );

const attempt: fc.Arbitrary<Attempt> = fc
  .record({
    do: fc.constantFrom<Attempt["do"]>("list", "state", "diff", "append", "configure", "put", "delete"),
    name: fc.constantFrom(...NAMES),
    scheme: fc.constantFrom("Bearer ", "Bearer ", "Bearer ", "Bearer   ", "bearer ", "Basic ", "Bearer"),
    token: fc.constantFrom(...SECRETS, ...SECRETS, "wrong", "alphabet", "beta", undefined),
  })
  .chain((made) => segment(made.name).map((segment) => ({ ...made, segment })));

/** Who may do what, and which topics are there. */
class Model {
  readonly #entries: readonly Entry[];
  readonly #topics = new Set<string>();

  constructor(entries: readonly Entry[]) {
    this.#entries = entries.filter(({ text }) => text.trim() !== "");
  }

  /** The status, and of a list the names. */
  answer(attempt: Attempt): { status: number; names?: string[] } {
    const key = this.#keyOf(attempt);
    if (key === undefined) return { status: 401 };
    const may = (scope: Scope) => key.scopes.length === 0 || key.scopes.includes(scope);
    const reaches = (name: string) =>
      key.prefixes.length === 0 || key.prefixes.some((prefix) => name.startsWith(prefix));
    const { name } = attempt;
    const allowed = (scope: Scope) => may(scope) && reaches(name);
    const exists = this.#topics.has(name);
    switch (attempt.do) {
      case "list":
        return may("read")
          ? { status: 200, names: [...this.#topics].filter(reaches).sort() }
          : { status: 403 };
      case "state":
      case "diff":
        if (!allowed("read")) return { status: 403 };
        return { status: exists ? 200 : 404 };
      case "append":
      case "configure":
        if (!allowed("write")) return { status: 403 };
        if (attempt.do === "configure" && !exists && !may("admin")) return { status: 403 };
        break;
      case "put":
        if (!allowed("admin")) return { status: 403 };
        break;
      case "delete":
        if (!allowed("delete")) return { status: 403 };
        this.#topics.delete(name);
        return { status: 200 };
    }
    this.#topics.add(name);
    return { status: exists ? 200 : 201 };
  }

  #keyOf({ scheme, token }: Attempt): Pick<Entry, "scopes" | "prefixes"> | undefined {
    if (this.#entries.length === 0) return { scopes: [], prefixes: [] };
    if (!/^bearer +$/i.test(scheme) || token === undefined || token === "") return undefined;
    return this.#entries.findLast(({ secret }) => secret === token);
  }
}

function send(server: TestServer, attempt: Attempt): Promise<Reply> {
  const path = `/v0/topics/${attempt.segment}`;
  const headers: Record<string, string> =
    attempt.token === undefined ? {} : { authorization: attempt.scheme + attempt.token };
  const records = [{ data: 1 }];
  switch (attempt.do) {
    case "list":
      return server.send("GET", "/v0/topics", undefined, headers);
    case "state":
      return server.send("GET", path, undefined, headers);
    case "diff":
      return server.send("POST", `${path}/diff`, {}, headers);
    case "append":
      return server.send("POST", path, { records }, headers);
    case "configure":
      return server.send("POST", path, { records, config: {} }, headers);
    case "put":
      return server.send("PUT", path, {}, headers);
    case "delete":
      return server.send("DELETE", path, undefined, headers);
  }
}

test("01 s6 any table of keys lets in whom the plain model lets in", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(entry, { minLength: 1, maxLength: 6 }),
      fc.constantFrom(",", " , ", ",,"),
      fc.array(attempt, { minLength: 20, maxLength: 40 }),
      async (entries, between, attempts) => {
        const table = entries.map(({ text }) => text).join(between);
        await using server = await startServer({ TOPICS_API_KEYS: table });
        const model = new Model(entries);
        for (const attempt of attempts) {
          const { status, body } = await send(server, attempt);
          const names = body?.topics?.map(({ topic }: { topic: string }) => topic);
          const answer = names === undefined ? { status } : { status, names };
          expect({ table, attempt, answer }).toEqual({ table, attempt, answer: model.answer(attempt) });
        }
      },
    ),
    { numRuns: Number(process.env.TEST_RUNS ?? 40) },
  );
}, 120_000);

describe("a malformed Authorization", () => {
  const SECRET = "Good-Key-1";
  let server: TestServer;
  beforeAll(async () => {
    server = await startServer({ TOPICS_API_KEYS: `${SECRET},:read` });
  });
  afterAll(() => server[Symbol.asyncDispose]());

  /** The status of a list. The header's characters are sent as one byte each. */
  async function statusFor(authorization: string): Promise<number> {
    const head = ["GET /v0/topics HTTP/1.1", "Host: test", "Connection: close"];
    const request = `${head.join("\r\n")}\r\nAuthorization: ${authorization}\r\n\r\n`;
    return answersIn(await exchange(server.url, request))[0]!.status;
  }

  /** One character of the secret changed, added or taken. */
  const nearly = fc
    .tuple(fc.nat(SECRET.length), fc.constantFrom(..."aG-1 k\u00e9,:%+"), fc.nat(2))
    .map(
      ([at, char, change]) =>
        SECRET.slice(0, at) + (change === 2 ? "" : char) + SECRET.slice(change === 1 ? at : at + 1),
    );
  const spelled = fc
    .tuple(
      fc.constantFrom("Bearer", "bearer", "Basic", "Token", "Bear", "Bearers", "Bearer Bearer", ""),
      fc.constantFrom("", " ", "  ", ":", "=", ", ", '"'),
      fc.oneof(nearly, fc.constantFrom("", SECRET, `"${SECRET}"`, `${SECRET},`, "wrong")),
    )
    .map(([scheme, separator, token]) => scheme + separator + token);

  const good = (authorization: string) => /^bearer +Good-Key-1$/i.test(authorization.trim());

  test("01.30 with the good key inside, spelled well, the list is shown", async () => {
    expect([await statusFor(`Bearer ${SECRET}`), await statusFor(` Bearer  ${SECRET} `)]).toEqual([200, 200]);
  });

  test("01.30 near misses are 401", async () => {
    await fc.assert(
      fc.asyncProperty(
        spelled.filter((authorization) => !good(authorization)),
        async (authorization) => {
          expect(await statusFor(authorization)).toBe(401);
        },
      ),
      { numRuns: 400 },
    );
  });

  const bytes = fc
    .array(fc.integer({ min: 0, max: 255 }), { maxLength: 200 })
    .map((codes) => String.fromCharCode(...codes));

  test("01.30 any bytes are refused, and are no failure of the server", async () => {
    const line = fc
      .tuple(fc.constantFrom("", "Bearer ", `Bearer ${SECRET}`), bytes)
      .map(([front, rest]) => front + rest.replace(/[\r\n]/g, ""))
      .filter((authorization) => !good(authorization.replace(/\t/g, " ")));
    await fc.assert(
      fc.asyncProperty(line, async (authorization) => {
        const status = await statusFor(authorization);
        expect([status, status === 400 || status === 401]).toEqual([status, true]);
      }),
      { numRuns: 400 },
    );
  });
});
