/**
 * Keys and the process: the file of keys and its renewal, which addresses need keys, and that no key is ever
 * written anywhere.
 */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { exchange } from "../support/rawsocket.ts";
import { command, runToEnd, type SpawnedServer, spawnServer, temporaryDirectory } from "../support/spawn.ts";
import { type Sender, until } from "../support/topics.ts";

setDefaultTimeout(20_000);

const list = async (server: Sender, key: string) =>
  (await server.send("GET", "/v0/topics", undefined, { authorization: `Bearer ${key}` })).status;

const put = async (server: Sender, key: string, name = "t") =>
  (await server.send("PUT", `/v0/topics/${name}`, {}, { authorization: `Bearer ${key}` })).status;

/** Lines that the server has logged, each parsed. */
const logged = (server: SpawnedServer) =>
  server
    .output()
    .split("\n")
    .filter((line) => line.startsWith("{"))
    .map((line) => JSON.parse(line) as { level: string; msg: string });

/** A server with a file of keys that the test can write anew. */
async function withFile(text: string, env: Record<string, string> = {}) {
  await using parts = new AsyncDisposableStack();
  const dir = parts.use(await temporaryDirectory());
  const file = join(dir.path, "keys");
  await writeFile(file, text);
  const server = parts.use(await spawnServer({ env: { TOPICS_API_KEYS_FILE: file, ...env } }));
  // The last line of a start names the address, and may come later than the port file.
  await until(
    async () => server.output(),
    (output) => output.includes(new URL(server.url).host),
  );
  const kept = parts.move();
  return {
    server,
    file,
    write: (next: string) => writeFile(file, next),
    /** Sends SIGHUP and gives the levels of the lines that it was answered with, once there is one. */
    async renew(): Promise<string[]> {
      const before = logged(server).length;
      process.kill(server.pid, "SIGHUP");
      const lines = await until(
        async () => logged(server).slice(before),
        ({ length }) => length > 0,
      );
      return lines.map(({ level }) => level);
    },
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  };
}

/**
 * Runs a command in a network of its own, so that nobody can reach a server that listens on all addresses. Empty
 * where the system has no such thing.
 */
const isolated: string[] = (() => {
  const unshare = ["unshare", "--map-root-user", "--net"];
  const works = Bun.which("unshare") !== null && Bun.spawnSync([...unshare, "true"]).success;
  return works ? unshare : [];
})();

/** Starts a server that must refuse, and gives what it left behind. */
async function refusal(env: Record<string, string>, args: string[] = []) {
  await using dir = await temporaryDirectory();
  const [data, portFile] = [join(dir.path, "data"), join(dir.path, "port")];
  const child = Bun.spawn([...isolated, ...command, ...args], {
    env: {
      PATH: process.env.PATH ?? "",
      TOPICS_PORT: "0",
      TOPICS_PORT_FILE: portFile,
      TOPICS_DATA_DIR: data,
      ...env,
    },
    stdout: "pipe",
    stderr: "pipe",
    // One that starts after all is not left behind.
    timeout: 10_000,
    killSignal: "SIGKILL",
  });
  const [stdout, stderr, exitCode] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  return {
    exitCode,
    told: stderr.trim() !== "",
    dataDir: existsSync(data),
    portFile: existsSync(portFile),
    output: stdout + stderr,
  };
}

describe("the file of keys", () => {
  test("has entries separated by commas and line ends, and comments", async () => {
    await using kept = await withFile(
      [
        "# who may do what",
        "one",
        "",
        "two:r, three:w",
        "  four:read:t42:  ",
        "#five",
        "#six,seven",
        "eight # nine:rw",
        ",",
        "last",
      ].join("\n"),
    );
    const { server } = kept;
    const found: Record<string, number[]> = {};
    for (const key of ["one", "two", "three", "four", "five", "#five", "six", "seven", "#six", "last"]) {
      found[key] = [await put(server, key), await list(server, key)];
    }
    expect(found).toEqual({
      one: [201, 200],
      two: [403, 200],
      three: [403, 403],
      four: [403, 200],
      five: [401, 401],
      "#five": [401, 401],
      six: [401, 401],
      seven: [401, 401],
      "#six": [401, 401],
      last: [200, 200],
    });
    expect([
      await list(server, "eight"),
      await list(server, "eight # nine"),
      await list(server, "nine"),
    ]).toEqual([200, 401, 401]);
  });

  test("may start with a byte order mark", async () => {
    await using kept = await withFile("\ufeff# comment, and more\none");
    const keys = ["one", "# comment", "comment", "and more"];
    const statuses = await Promise.all(keys.map((key) => list(kept.server, key)));
    expect(statuses).toEqual([200, 401, 401, 401]);
  });

  test("may have line ends of another system", async () => {
    await using kept = await withFile("# comment\r\none\r\ntwo:r\r\n");
    const { server } = kept;
    expect([await put(server, "one"), await list(server, "two"), await put(server, "two")]).toEqual([
      201, 200, 403,
    ]);
  });

  test("and the variable are put together", async () => {
    await using kept = await withFile("filed:r\n", { TOPICS_API_KEYS: "named:r,also-named" });
    for (const key of ["filed", "named", "also-named"])
      expect([key, await list(kept.server, key)]).toEqual([key, 200]);
    expect(await list(kept.server, "neither")).toBe(401);
    expect((await kept.server.send("GET", "/v0/topics")).status).toBe(401);
  });

  test.each([
    ["missing", undefined],
    ["with an unknown scope", "hush-4711:bogus\n"],
    ["with an unknown scope behind good entries", "good:read\n# comment\nhush-4711:read+bogus"],
    ["with separators for scopes", "hush-4711:+"],
  ])("01.59 that is %s ends the start, and no key is told", async (_, text) => {
    await using dir = await temporaryDirectory();
    const file = join(dir.path, "keys");
    if (text !== undefined) await writeFile(file, text);
    const { output, ...left } = await refusal({ TOPICS_API_KEYS_FILE: file, TOPICS_API_KEYS: "hush-4712" });
    expect(left).toMatchObject({ exitCode: 1, told: true, portFile: false });
    expect(output).not.toContain("hush-471");
  });

  test("that is malformed is told with the line to mend", async () => {
    await using dir = await temporaryDirectory();
    const file = join(dir.path, "keys");
    await writeFile(file, "# operators\ngood:read\n\nother, another:bogus\n");
    const { output } = await refusal({ TOPICS_API_KEYS_FILE: file });
    expect(output).toContain(`${file}: line 4 has no valid scope`);
  });

  test("that is a directory ends the start", async () => {
    await using dir = await temporaryDirectory();
    const { exitCode, told } = await refusal({ TOPICS_API_KEYS_FILE: dir.path });
    expect({ exitCode, told }).toEqual({ exitCode: 1, told: true });
  });

  test("01.35 a malformed variable ends the start though the file is good", async () => {
    await using dir = await temporaryDirectory();
    const file = join(dir.path, "keys");
    await writeFile(file, "good");
    const { exitCode, told } = await refusal({ TOPICS_API_KEYS_FILE: file, TOPICS_API_KEYS: "k:bogus" });
    expect({ exitCode, told }).toEqual({ exitCode: 1, told: true });
  });
});

describe("SIGHUP", () => {
  test("takes the keys of a changed file", async () => {
    await using kept = await withFile("stays,goes,narrows", { TOPICS_API_KEYS: "named" });
    const { server } = kept;
    await kept.write("# changed\nstays\nnarrows:r\ncomes:w");
    expect([await list(server, "goes"), await list(server, "comes")]).toEqual([200, 401]);
    expect(await kept.renew()).toEqual(["info"]);
    const found: Record<string, number[]> = {};
    for (const key of ["stays", "goes", "narrows", "comes", "named"]) {
      found[key] = [await list(server, key), await put(server, key)];
    }
    expect(found).toEqual({
      stays: [200, 201],
      goes: [401, 401],
      narrows: [200, 403],
      comes: [403, 403],
      named: [200, 200],
    });
  });

  test.each([
    ["malformed", (file: string) => writeFile(file, "new,hush-4711:bogus")],
    ["missing", (file: string) => rm(file)],
    ["without a key", (file: string) => writeFile(file, "# none\n\n , \n")],
    [
      "a directory",
      async (file: string) => {
        await rm(file);
        await mkdir(file);
      },
    ],
  ])("01.59 keeps all old keys when the file is %s, and says so once", async (_, spoil) => {
    await using kept = await withFile("old\nold-reader:r", { TOPICS_API_KEYS: "named" });
    const { server, file } = kept;
    await spoil(file);
    expect(await kept.renew()).toEqual(["error"]);
    const statuses = [];
    for (const key of ["old", "old-reader", "named", "new", "hush-4711"])
      statuses.push(await list(server, key));
    expect(statuses).toEqual([200, 200, 200, 401, 401]);
    expect(await put(server, "old-reader")).toBe(403);

    await rm(file, { recursive: true, force: true });
    await kept.write("new");
    expect(await kept.renew()).toEqual(["info"]);
    expect([await list(server, "new"), await list(server, "old"), await list(server, "named")]).toEqual([
      200, 401, 200,
    ]);
    expect(logged(server).filter(({ level }) => level === "error")).toHaveLength(1);
    expect(server.output()).not.toContain("hush-4711");
  });

  test("is heard as soon as the server listens", async () => {
    await using dir = await temporaryDirectory();
    const file = join(dir.path, "keys");
    for (let round = 0; round < 5; round++) {
      await writeFile(file, "old");
      await using server = await spawnServer({ env: { TOPICS_API_KEYS_FILE: file } });
      await writeFile(file, "new");
      process.kill(server.pid, "SIGHUP");
      await until(
        () => list(server, "new"),
        (status) => status === 200,
      );
    }
  });

  test("without a file of keys changes nothing, and is answered", async () => {
    await using server = await spawnServer({ env: { TOPICS_API_KEYS: "one" } });
    process.kill(server.pid, "SIGHUP");
    await until(
      async () => logged(server).at(-1)!.msg,
      (msg) => /no file/.test(msg),
    );
    expect(await list(server, "one")).toBe(200);
  });

  test("disturbs no request that runs", async () => {
    await using kept = await withFile("one,two");
    const { server } = kept;
    await put(server, "one");
    const headers = { authorization: "Bearer two" };
    const poll = server.send("POST", "/v0/topics/t/diff", { wait_ms: 10_000 }, headers);
    await until(
      () => server.send("GET", "/v0/topics/t?touch=false", undefined, { authorization: "Bearer one" }),
      ({ body }) => body.last_read_ts !== null,
    );
    expect(await kept.renew()).toEqual(["info"]);
    await server.send("POST", "/v0/topics/t", { records: [{ data: "late" }] }, headers);
    expect(await poll).toMatchObject({ status: 200, body: { records: [{ data: "late" }] } });
  });

  test("01.45 does not forget what a key has running", async () => {
    await using kept = await withFile("busy,spare", { TOPICS_MAX_INFLIGHT_PER_KEY: "1" });
    const { server } = kept;
    await put(server, "spare");
    const poll = server.send(
      "POST",
      "/v0/topics/t/diff",
      { wait_ms: 10_000 },
      { authorization: "Bearer busy" },
    );
    const spare = { authorization: "Bearer spare" };
    await until(
      () => server.send("GET", "/v0/topics/t?touch=false", undefined, spare),
      ({ body }) => body.last_read_ts !== null,
    );
    await kept.renew();
    expect(await list(server, "busy")).toBe(429);
    await server.send("POST", "/v0/topics/t", { records: [{ data: 1 }] }, spare);
    await poll;
    await until(
      () => list(server, "busy"),
      (status) => status === 200,
    );
  });
});

describe("a public address", () => {
  const nowhere = { exitCode: 1, told: true, dataDir: false, portFile: false };

  test.each([
    ["TOPICS_HOST 0.0.0.0", { TOPICS_HOST: "0.0.0.0" }, []],
    ["TOPICS_HOST 0.0.0.0:0", { TOPICS_HOST: "0.0.0.0:0" }, []],
    ["TOPICS_HOST [::]:0", { TOPICS_HOST: "[::]:0" }, []],
    // The resolver has loopback for it, and whoever listens there listens everywhere.
    ["TOPICS_HOST *", { TOPICS_HOST: "*" }, []],
    ["TOPICS_HOST *:0", { TOPICS_HOST: "*:0" }, []],
    ["another host's address", { TOPICS_HOST: "192.0.2.1" }, []],
    ["a name without address", { TOPICS_HOST: "no-such-host.invalid" }, []],
    ["--host 0.0.0.0", {}, ["--host", "0.0.0.0"]],
    ["only separators for keys", { TOPICS_HOST: "0.0.0.0", TOPICS_API_KEYS: " , " }, []],
    ...["yes", "0", "TRUE", "on", ""].map((value): [string, Record<string, string>, string[]] => [
      `TOPICS_ALLOW_INSECURE_NO_AUTH=${value}`,
      { TOPICS_HOST: "0.0.0.0", TOPICS_ALLOW_INSECURE_NO_AUTH: value },
      [],
    ]),
  ])("01.51 %s without keys refuses, and the data directory is not made", async (_, env, args) => {
    const { output: __, ...left } = await refusal(env as Record<string, string>, args);
    expect(left).toEqual(nowhere);
  });

  test("01.51 a file without entries is no key", async () => {
    await using dir = await temporaryDirectory();
    const file = join(dir.path, "keys");
    await writeFile(file, "# none yet\n\n");
    const { output: _, ...left } = await refusal({ TOPICS_HOST: "0.0.0.0", TOPICS_API_KEYS_FILE: file });
    expect(left).toEqual(nowhere);
  });

  test.skipIf(isolated.length === 0).each([
    ["a key", { TOPICS_API_KEYS: "key" }],
    ["a key for little", { TOPICS_API_KEYS: "key:r:t42:" }],
    ["an entry without a secret", { TOPICS_API_KEYS: ":read" }],
    ["TOPICS_ALLOW_INSECURE_NO_AUTH=1", { TOPICS_ALLOW_INSECURE_NO_AUTH: "1" }],
    ["TOPICS_ALLOW_INSECURE_NO_AUTH=true", { TOPICS_ALLOW_INSECURE_NO_AUTH: "true" }],
  ])("01.51 0.0.0.0 starts with %s", async (_, env) => {
    await using dir = await temporaryDirectory();
    const portFile = join(dir.path, "port");
    const child = Bun.spawn([...isolated, ...command], {
      env: {
        PATH: process.env.PATH ?? "",
        TOPICS_HOST: "0.0.0.0",
        TOPICS_PORT: "0",
        TOPICS_PORT_FILE: portFile,
        TOPICS_DATA_DIR: join(dir.path, "data"),
        ...(env as Record<string, string>),
      },
      stdout: "ignore",
      stderr: "ignore",
    });
    try {
      await until(
        async () => existsSync(portFile) || child.exitCode !== null,
        (decided) => decided,
      );
      expect(child.exitCode).toBeNull();
      expect(await readFile(portFile, "utf8")).toMatch(/^0\.0\.0\.0:[1-9]\d*$/);
    } finally {
      child.kill("SIGKILL");
      await child.exited;
    }
  });

  test.each(["127.0.0.1", "127.0.0.2", "127.255.0.1:0", "localhost"])(
    "01.51 the loopback %s needs no keys",
    async (TOPICS_HOST) => {
      await using server = await spawnServer({ env: { TOPICS_HOST } });
      expect((await server.send("GET", "/v0/topics")).status).toBe(200);
    },
  );

  const ipv6 =
    existsSync("/proc/net/if_inet6") && /^0{31}1 /m.test(readFileSync("/proc/net/if_inet6", "utf8"));

  test.skipIf(!ipv6)("01.51 the loopback [::1]:0 needs no keys", async () => {
    await using server = await spawnServer({ env: { TOPICS_HOST: "[::1]:0" } });
    expect(server.url).toMatch(/^http:\/\/\[::1\]:[1-9]\d*$/);
    expect((await server.send("GET", "/v0/topics")).status).toBe(200);
  });
});

describe("secrecy", () => {
  /** Everything that is secret in these tests holds this. */
  const MARK = "hush-4711";

  /** The files below a directory that hold the mark. */
  async function marked(dir: string): Promise<string[]> {
    const entries = await readdir(dir, { recursive: true, withFileTypes: true });
    const found = [];
    for (const entry of entries.filter((entry) => entry.isFile())) {
      const path = join(entry.parentPath, entry.name);
      if ((await readFile(path)).includes(MARK)) found.push(path);
    }
    return found;
  }

  test.each(["trace", "info"])("01.59 no key is logged or stored, RUST_LOG=%s", async (RUST_LOG) => {
    await using kept = await withFile(`${MARK}-filed:r\n`, {
      RUST_LOG,
      TOPICS_API_KEYS: `${MARK}-named,${MARK}-tenant:rw:${MARK}-prefix`,
      TOPICS_MAX_BODY_BYTES: "1000",
      TOPICS_MAX_TOPICS: "1",
    });
    const { server } = kept;
    const token = `token=${MARK}-named`;
    const statuses = [];
    for (const authorization of ["-named", "-filed", "-tenant", "-wrong", ""].map(
      (end) => `Bearer ${MARK}${end}`,
    )) {
      for (const [method, path, body] of [
        ["GET", "/v0/topics", undefined],
        ["GET", `/v0/topics?${token}`, undefined],
        ["PUT", "/v0/topics/t", {}],
        ["PUT", "/v0/topics/u", {}],
        ["POST", "/v0/topics/t", "{"],
        ["POST", "/v0/topics/t", "x".repeat(2000)],
        ["GET", `/v0/watch/x?${token}`, undefined],
        ["GET", `/v0/nope?${token}`, undefined],
        ["PATCH", "/v0/topics", undefined],
      ] as const) {
        statuses.push((await server.send(method, path, body, { authorization })).status);
      }
    }
    for (const scheme of ["Basic", "bearer", "Token", ""]) {
      await server.send("GET", `/v0/watch/x?${token}`, undefined, { authorization: `${scheme} ${MARK}` });
    }
    // Broken at the HTTP level, with a key inside.
    await exchange(server.url, `GET / HTTP/9.9\r\nAuthorization: Bearer ${MARK}\r\n\r\n`);
    await exchange(server.url, `GET / HTTP/1.1\r\nHost: a\r\nAuthorization : Bearer ${MARK}\r\n\r\n`);
    await kept.renew();
    await server.stop("SIGTERM");
    expect(statuses).toContain(200);
    expect(statuses).toContain(401);
    expect(statuses).toContain(403);
    expect(server.output()).not.toContain(MARK);
    expect(await marked(server.dir)).toEqual([]);
  });

  test("01.59 the error line of a failed renewal holds no key", async () => {
    await using kept = await withFile(`${MARK}-filed`, { RUST_LOG: "trace" });
    await kept.write(`${MARK}-new, ${MARK}-bad:${MARK}:x`);
    expect(await kept.renew()).toContain("error");
    expect(kept.server.output()).not.toContain(MARK);
  });

  test.each([
    ["config", 0, /TOPICS_API_KEYS/],
    ["healthcheck", 1, /./],
  ])("01.59 topics %s tells no key", async (name, exitCode, told) => {
    await using dir = await temporaryDirectory();
    const file = join(dir.path, "keys");
    await writeFile(file, `${MARK}-filed`);
    const ended = await runToEnd([name], {
      TOPICS_PORT: "1",
      TOPICS_API_KEYS: `${MARK}-named:r:t42:,${MARK}-other`,
      TOPICS_API_KEYS_FILE: file,
    });
    const output = ended.stdout + ended.stderr;
    expect(ended.exitCode).toBe(exitCode);
    expect(output).toMatch(told);
    expect(output).not.toContain(MARK);
  });
});

describe("the start's log", () => {
  const lines = async (env: Record<string, string>) => {
    await using server = await spawnServer({ env });
    await server.stop();
    return logged(server);
  };

  test("01 s9 tells the number of keys", async () => {
    const told = (await lines({ TOPICS_API_KEYS: "a,b:r,c:w:t42:" })).filter((line) =>
      /key|auth/i.test(line.msg),
    );
    expect(told.map(({ level }) => level)).toEqual(["info"]);
    expect(JSON.stringify({ ...told[0], time: "" })).toMatch(/\b3\b/);
  });

  test("01 s9 warns when auth is off, and only then", async () => {
    const warnings = async (env: Record<string, string>) =>
      (await lines(env)).filter(({ level }) => level === "warn").length;
    expect(await warnings({})).toBeGreaterThan(0);
    expect(await warnings({ TOPICS_API_KEYS: "a" })).toBe(0);
  });
});
