/** The command line: the settings in force and where they come from, help, and what is refused as wrong usage. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { runToEnd, spawnServer, temporaryDirectory } from "../support/spawn.ts";

setDefaultTimeout(20_000);

/** Every variable with its default; `undefined` where there is none. */
const variables: Record<string, string | undefined> = {
  TOPICS_HOST: "127.0.0.1",
  TOPICS_PORT: "4000",
  TOPICS_PORT_FILE: undefined,
  TOPICS_DATA_DIR: "./topics-data",
  TOPICS_API_KEYS: undefined,
  TOPICS_API_KEYS_FILE: undefined,
  TOPICS_ALLOW_INSECURE_NO_AUTH: "false",
  TOPICS_PROBE_AUTH: "false",
  TOPICS_CORS_ORIGINS: undefined,
  TOPICS_TLS_CERT_FILE: undefined,
  TOPICS_TLS_KEY_FILE: undefined,
  TOPICS_MAX_BODY_BYTES: "67108864",
  TOPICS_MAX_BODY_MEMORY_BYTES: "268435456",
  TOPICS_MAX_TOPICS: "100000",
  TOPICS_MAX_ROUTERS: "10000",
  TOPICS_MAX_SSE_CONNECTIONS: "10000",
  TOPICS_MAX_SSE_CONNECTIONS_PER_KEY: "1000",
  TOPICS_MAX_WATCH_SESSIONS: "10000",
  TOPICS_MAX_STREAM_BYTES: "268435456",
  TOPICS_TEST_MIN_HEARTBEAT_MS: "1000",
  TOPICS_MAX_TOTAL_BYTES: "0",
  TOPICS_MAX_INFLIGHT_PER_KEY: "1000",
  RUST_LOG: "info",
  FEED_NETWORK_ID: undefined,
  FEED_NODE_SEED: undefined,
  FEED_PEERS: undefined,
  FEED_PEER_TOKEN: undefined,
  FEED_SYNC_INTERVAL_MS: "15000",
  FEED_STRICT: "false",
  FEED_PUBLIC: "false",
};

interface Setting {
  /** As it is printed; undefined where there is none. */
  readonly value: string | undefined;
  readonly source: string;
  /** What the variable says, where that means nothing. */
  readonly ignored?: string;
}

/** Words that stand for no value and for a switch that is off or on. */
const words: Record<string, string | undefined> = { off: "false", on: "true", no: "false", yes: "true" };
const nothing = /^(|-|–|unset|none|off|not set)$/;

const plain = (value: string, name: string) => {
  if (nothing.test(value) && variables[name] === undefined) return undefined;
  return words[value] ?? value;
};

/**
 * The settings that `topics config` prints: one line each, with the variable's name, the value, and one of the
 * words flag, variable and default; flags may be named beside. Columns are at least two spaces apart.
 */
function settings(stdout: string): Map<string, Setting> {
  const found = new Map<string, Setting>();
  for (const line of stdout.split("\n")) {
    const name = /\b((?:TOPICS|FEED)_[A-Z_]+|RUST_LOG)\b/.exec(line)?.[1];
    if (name === undefined) continue;
    if (found.has(name)) throw new Error(`${name} is printed twice: ${stdout}`);
    const columns = line.split(/\s{2,}|\t|\s*[=|]\s*/).map((column) => column.replace(/^[(["]|[)\]"]$/g, ""));
    const told = columns.find((column) => /^(flag|variable|default)( \(.* ignored)?$/.test(column));
    if (told === undefined) throw new Error(`${name} has no source: ${line}`);
    const [, source = "", , ignored] = /^(\w+)( \((.*) ignored)?$/.exec(told)!;
    const rest = columns.filter((column) => column !== name && column !== told && !column.startsWith("--"));
    const value = plain(rest.join(" ").trim(), name);
    found.set(name, ignored === undefined ? { value, source } : { value, source, ignored });
  }
  return found;
}

async function config(env: Record<string, string> = {}, ...args: string[]): Promise<Map<string, Setting>> {
  const { stdout, stderr, exitCode } = await runToEnd(["config", ...args], env);
  expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
  return settings(stdout);
}

describe.concurrent("topics config", () => {
  test("prints every setting with its default", async () => {
    const printed = await config();
    const expected = Object.entries(variables).map(([name, value]) => [name, { value, source: "default" }]);
    expect(Object.fromEntries(printed)).toEqual(Object.fromEntries(expected));
  });

  const values: Record<string, string> = {
    TOPICS_HOST: "127.0.0.2",
    TOPICS_PORT: "4100",
    TOPICS_PORT_FILE: "/run/topics/port",
    TOPICS_DATA_DIR: "/srv/topics",
    TOPICS_ALLOW_INSECURE_NO_AUTH: "1",
    TOPICS_PROBE_AUTH: "true",
    TOPICS_CORS_ORIGINS: "https://a.example,https://b.example",
    TOPICS_MAX_BODY_BYTES: "1001",
    TOPICS_MAX_BODY_MEMORY_BYTES: "1002",
    TOPICS_MAX_TOPICS: "1003",
    TOPICS_MAX_ROUTERS: "1006",
    TOPICS_MAX_SSE_CONNECTIONS: "1007",
    TOPICS_MAX_SSE_CONNECTIONS_PER_KEY: "1008",
    TOPICS_MAX_WATCH_SESSIONS: "1009",
    TOPICS_MAX_STREAM_BYTES: "1010",
    TOPICS_TEST_MIN_HEARTBEAT_MS: "7",
    TOPICS_MAX_TOTAL_BYTES: "1004",
    TOPICS_MAX_INFLIGHT_PER_KEY: "1005",
    RUST_LOG: "warn",
    FEED_NETWORK_ID: "mainnet",
    FEED_PEERS: "http://a.example:4000,https://b.example",
    FEED_SYNC_INTERVAL_MS: "1011",
    FEED_STRICT: "1",
    FEED_PUBLIC: "true",
  };

  test("prints what the variables say", async () => {
    await using dir = await temporaryDirectory();
    const files = ["TOPICS_API_KEYS_FILE", "TOPICS_TLS_CERT_FILE", "TOPICS_TLS_KEY_FILE"];
    const env = { ...values };
    for (const name of files) {
      env[name] = join(dir.path, name.toLowerCase());
      await writeFile(env[name], "key\n");
    }
    const printed = await config(env);
    const expected = Object.entries(env).map(([name, value]) => [
      name,
      { value: value === "1" ? "true" : value, source: "variable" },
    ]);
    // Secrets are not shown.
    const { TOPICS_API_KEYS, FEED_NODE_SEED, FEED_PEER_TOKEN, ...others } = Object.fromEntries(printed);
    expect(others).toEqual(Object.fromEntries(expected));
    expect(TOPICS_API_KEYS).toMatchObject({ source: "default" });
  });

  test("prints what the flags say, which win over the variables", async () => {
    const flags = ["--host", "127.0.0.3", "--port", "4200", "--data-dir", "/srv/flagged"];
    const printed = await config({ TOPICS_PORT: "4100", TOPICS_MAX_TOPICS: "7" }, ...flags);
    const names = ["TOPICS_HOST", "TOPICS_PORT", "TOPICS_DATA_DIR", "TOPICS_MAX_TOPICS", "RUST_LOG"];
    expect(names.map((name) => [name, printed.get(name)])).toEqual([
      ["TOPICS_HOST", { value: "127.0.0.3", source: "flag" }],
      ["TOPICS_PORT", { value: "4200", source: "flag" }],
      ["TOPICS_DATA_DIR", { value: "/srv/flagged", source: "flag" }],
      ["TOPICS_MAX_TOPICS", { value: "7", source: "variable" }],
      ["RUST_LOG", { value: "info", source: "default" }],
    ]);
  });

  test("hides keys, but not that there are some", async () => {
    const TOPICS_API_KEYS = "first-secret,second-secret:read,third-secret::t42:";
    const { stdout, stderr, exitCode } = await runToEnd(["config"], { TOPICS_API_KEYS });
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
    expect(stdout).not.toContain("secret");
    const printed = settings(stdout).get("TOPICS_API_KEYS")!;
    expect(printed.source).toBe("variable");
    expect(printed.value).toMatch(/\S/);
  });

  test("hides the keys of a file", async () => {
    await using dir = await temporaryDirectory();
    const file = join(dir.path, "keys");
    await writeFile(file, "filed-secret\nother-secret:read\n");
    const { stdout, exitCode } = await runToEnd(["config"], { TOPICS_API_KEYS_FILE: file });
    expect(exitCode).toBe(0);
    expect(stdout).not.toContain("secret");
    expect(settings(stdout).get("TOPICS_API_KEYS_FILE")).toEqual({ value: file, source: "variable" });
  });

  test("01.52 shows a host with a port as the address it is", async () => {
    const { stdout, exitCode } = await runToEnd(["config"], {
      TOPICS_HOST: "127.0.0.1:5017",
      TOPICS_PORT: "6017",
    });
    expect(exitCode).toBe(0);
    expect(stdout).toContain("5017");
    expect(stdout).not.toContain("6017");
  });

  const numbers = [
    "TOPICS_PORT",
    "TOPICS_MAX_BODY_BYTES",
    "TOPICS_MAX_BODY_MEMORY_BYTES",
    "TOPICS_MAX_TOPICS",
    "TOPICS_MAX_ROUTERS",
    "TOPICS_MAX_SSE_CONNECTIONS",
    "TOPICS_MAX_SSE_CONNECTIONS_PER_KEY",
    "TOPICS_MAX_TOTAL_BYTES",
    "TOPICS_MAX_INFLIGHT_PER_KEY",
  ];

  test.each(["many", "-1", "1.5", "1e3", "0x10", "1_000", "1,000", "7 8", "", " "])(
    "01.52 %j is no number, so the defaults stay",
    async (value) => {
      const printed = await config(Object.fromEntries(numbers.map((name) => [name, value])));
      const expected = { source: "default", ...(value.trim() !== "" && { ignored: value }) };
      expect(numbers.map((name) => [name, printed.get(name)])).toEqual(
        numbers.map((name) => [name, { value: variables[name], ...expected }]),
      );
    },
  );

  test.each([
    [" 12 ", "12"],
    ["0", "0"],
    ["007", "7"],
  ])("01.52 %j is the number %s", async (value, number) => {
    // Whether spaces are allowed around the size of a body is left open.
    const names = numbers.filter((name) => !name.startsWith("TOPICS_MAX_BODY"));
    const printed = await config(Object.fromEntries(names.map((name) => [name, value])));
    expect(names.map((name) => [name, printed.get(name)])).toEqual(
      names.map((name) => [name, { value: number, source: "variable" }]),
    );
  });

  test.each(["yes", "on", "TRUE", "0", "false", " 1", ""])(
    "%j is off where on is 1 or true",
    async (value) => {
      const names = ["TOPICS_ALLOW_INSECURE_NO_AUTH", "TOPICS_PROBE_AUTH"];
      const printed = await config(Object.fromEntries(names.map((name) => [name, value])));
      expect(names.map((name) => printed.get(name)?.value)).toEqual(["false", "false"]);
    },
  );

  test("01.52 tells at the start of every variable that means nothing, once, and without its value", async () => {
    await using dir = await temporaryDirectory();
    const wrong = {
      TOPICS_MAX_TOTAL_BYTES: "10GB",
      TOPICS_PROBE_AUTH: "yes",
      FEED_SYNC_INTERVAL_MS: "soon",
      RUST_LOG: "loudly",
    };
    const right = {
      TOPICS_MAX_TOPICS: " 7 ",
      FEED_STRICT: "0",
      FEED_PUBLIC: "false",
      TOPICS_MAX_ROUTERS: "",
    };
    await using server = await spawnServer({ dir: join(dir.path, "data"), env: { ...wrong, ...right } });
    const told = server.output().matchAll(/^{"level":"warn",.*"variable":"(\w+)","default":([^,]*),/gm);
    expect(Object.fromEntries(Array.from(told, ([, name, value]) => [name, value]))).toEqual({
      TOPICS_MAX_TOTAL_BYTES: "0",
      TOPICS_PROBE_AUTH: "false",
      FEED_SYNC_INTERVAL_MS: "15000",
      RUST_LOG: '"info"',
    });
    for (const value of Object.values(wrong)) expect(server.output()).not.toContain(value);
  });

  test("shows no password and no control character", async () => {
    const { stdout } = await runToEnd(["config"], {
      FEED_PEERS: "https://ada:hunter2@a.example,http://b.example",
      TOPICS_DATA_DIR: "a\u001b[31m\u009bb\nc",
      TOPICS_MAX_TOPICS: "\u001b[31m",
    });
    expect(stdout).toContain("https://(hidden)@a.example,http://b.example");
    expect(stdout).not.toContain("hunter2");
    expect(stdout).toContain("a\\u001b[31m\\u009bb\\nc");
    expect(stdout.replaceAll("\n", "")).not.toMatch(/\p{Cc}/u);
  });

  test.each([
    ["0", "1"],
    ["5000", "1000"],
    ["400", "400"],
  ])("shows a heartbeat of %s as the %s that holds", async (text, value) => {
    const printed = await config({ TOPICS_TEST_MIN_HEARTBEAT_MS: text });
    expect(printed.get("TOPICS_TEST_MIN_HEARTBEAT_MS")).toEqual({ value, source: "variable" });
  });

  test("touches nothing", async () => {
    await using dir = await temporaryDirectory();
    const [data, portFile] = [join(dir.path, "data"), join(dir.path, "port")];
    await config({ TOPICS_DATA_DIR: data, TOPICS_PORT_FILE: portFile });
    expect([existsSync(data), existsSync(portFile)]).toEqual([false, false]);
  });
});

describe.concurrent("usage", () => {
  test.each(["--help", "-h", "help"])("topics %s tells all commands and flags", async (asked) => {
    const { stdout, stderr, exitCode } = await runToEnd([asked]);
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
    for (const word of [
      "serve",
      "config",
      "healthcheck",
      "systemd",
      "--host",
      "--port",
      "--data-dir",
      "--help",
    ])
      expect(stdout).toContain(word);
    expect(Math.max(...stdout.split("\n").map((line) => line.length))).toBeLessThanOrEqual(120);
  });

  test.each([
    ["serve", ["--host", "--port", "--data-dir"]],
    ["config", ["--host", "--port", "--data-dir"]],
    ["healthcheck", ["--help"]],
    ["systemd", ["--help"]],
  ])("topics %s --help is about that command", async (name, words) => {
    const { stdout, stderr, exitCode } = await runToEnd([name, "--help"]);
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
    expect(stdout).toContain(`topics ${name}`);
    for (const word of words) expect(stdout).toContain(word);
  });

  test("topics --version prints one version", async () => {
    const { stdout, exitCode } = await runToEnd(["--version"]);
    expect(exitCode).toBe(0);
    expect(stdout).toMatch(/^\d+\.\d+\.\d+\S*\n$/);
  });

  test.each([
    ["an unknown command", ["bogus"]],
    ["an unknown flag", ["--bogus"]],
    ["an unknown flag of serve", ["serve", "--bogus"]],
    ["an unknown flag of config", ["config", "--bogus"]],
    ["an unknown flag of healthcheck", ["healthcheck", "--bogus"]],
    ["an unknown flag of systemd", ["systemd", "--bogus"]],
    ["an argument too many for serve", ["serve", "extra"]],
    ["an argument too many for config", ["config", "extra"]],
    ["an argument too many for healthcheck", ["healthcheck", "extra"]],
    ["an argument too many for systemd", ["systemd", "extra"]],
    ["a port that is no number", ["--port", "http"]],
    ["a port that is too large", ["serve", "--port", "65536"]],
    ["a port below zero", ["--port=-1"]],
    ["a flag without its value", ["--port"]],
    ["a directory without its value", ["config", "--data-dir"]],
  ])("%s is refused with 2 and told on stderr", async (_, args) => {
    await using dir = await temporaryDirectory();
    const data = join(dir.path, "data");
    const { stdout, stderr, exitCode } = await runToEnd(args, { TOPICS_PORT: "0", TOPICS_DATA_DIR: data });
    expect({ exitCode, stdout }).toEqual({ exitCode: 2, stdout: "" });
    expect(stderr).toMatch(/\S/);
    expect(existsSync(data)).toBe(false);
  });
});

test("an unknown command is told as such, with those that there are", async () => {
  const { exitCode, stdout, stderr } = await runToEnd(["serv\u001b[31m"]);
  expect({ exitCode, stdout }).toEqual({ exitCode: 2, stdout: "" });
  expect(stderr).toMatch(/unknown command 'serv.*serve, config, healthcheck, systemd/);
  expect(stderr).not.toContain("\u001b");
});

test("the README names every variable with its default, and no other", async () => {
  const readme = await Bun.file(join(import.meta.dir, "../../README.md")).text();
  const rows = readme
    .split("\n")
    .filter((line) => /^\|.*`((?:TOPICS|FEED)_[A-Z_]+|RUST_LOG)` *\|/.test(line));
  const documented = rows.map((row) => {
    const cells = row.split("|").map((cell) => cell.trim().replaceAll("`", ""));
    const at = cells.findIndex((cell) => /^((?:TOPICS|FEED)_[A-Z_]+|RUST_LOG)$/.test(cell));
    return [cells[at]!, plain(cells[at + 1]!, cells[at]!)] as const;
  });
  const printed = [...(await config())].map(([name, { value }]) => [name, value] as const);
  expect(documented.length).toBe(printed.length);
  expect(Object.fromEntries(documented)).toEqual(Object.fromEntries(printed));
});
