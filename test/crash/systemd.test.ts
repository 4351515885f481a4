/** Life under a supervisor: notifications to systemd, the unit that the program prints, and its health check. */
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { NotifySocket } from "../support/notifysocket.ts";
import { command, freePort, runToEnd, spawnServer, temporaryDirectory } from "../support/spawn.ts";
import { absentTopic, timed, until } from "../support/topics.ts";

setDefaultTimeout(30_000);

/** The promise's outcome. Fails if that takes longer. */
async function within<T>(deadlineMs: number, promise: Promise<T>): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error(`nothing in ${deadlineMs} ms`)), deadlineMs);
  return Promise.race([promise, late.promise]).finally(() => clearTimeout(timer));
}

const texts = (socket: NotifySocket) => socket.received().map(({ text }) => text);

const linux = process.platform === "linux";
const analyze = Bun.which("systemd-analyze");
const skipped = [
  ...(linux ? [] : ["the tests of notifications: this is no Linux"]),
  ...(analyze ? [] : ["the check of the unit: there is no systemd-analyze"]),
];
afterAll(() => {
  for (const what of skipped) console.warn(`skipped ${what}`);
});

describe.skipIf(!linux).concurrent("notifications", () => {
  test.each(["file", "abstract"] as const)(
    "tell over a socket (%s) of the start and the stop",
    async (kind) => {
      await using socket = new NotifySocket(kind);
      await using server = await spawnServer({ env: { NOTIFY_SOCKET: socket.path } });
      await socket.until("READY=1");
      expect(texts(socket)).not.toContain("STOPPING=1");
      expect(await server.stop()).toBe(0);
      await socket.until("STOPPING=1");
      const states = texts(socket).filter((text) => /^(READY|STOPPING|WATCHDOG)=/.test(text));
      expect(states).toEqual(["READY=1", "STOPPING=1"]);
    },
  );

  test("say ready when requests are answered, not before", async () => {
    await using dir = await temporaryDirectory();
    await using socket = new NotifySocket();
    const portFile = join(dir.path, "port");
    const child = Bun.spawn(command, {
      env: {
        PATH: process.env.PATH ?? "",
        NOTIFY_SOCKET: socket.path,
        TOPICS_PORT: "0",
        TOPICS_PORT_FILE: portFile,
        TOPICS_DATA_DIR: join(dir.path, "data"),
      },
      stdout: "ignore",
      stderr: "ignore",
    });
    try {
      await socket.until("READY=1");
      const address = await Bun.file(portFile).text();
      expect((await fetch(`http://${address}/v0/ready`)).status).toBe(200);
    } finally {
      child.kill("SIGKILL");
      await child.exited;
    }
  });

  test("say nothing where the start fails", async () => {
    await using dir = await temporaryDirectory();
    await using socket = new NotifySocket();
    const file = join(dir.path, "file");
    await writeFile(file, "");
    const env = { NOTIFY_SOCKET: socket.path, TOPICS_PORT: "0", TOPICS_DATA_DIR: file };
    expect((await runToEnd([], env)).exitCode).toBe(1);
    expect(texts(socket)).not.toContain("READY=1");
  });

  test("say stopping when the drain begins, not when it is over", async () => {
    await using socket = new NotifySocket();
    await using server = await spawnServer({ env: { NOTIFY_SOCKET: socket.path } });
    const topic = absentTopic(server, "t");
    await topic.put();
    let polling = true;
    const poll = topic.diff({ wait_ms: 2500 }).finally(() => {
      polling = false;
    });
    await until(
      () => topic.state(),
      ({ body }) => body.last_read_ts !== null,
    );
    const exit = server.stop();
    await socket.until("STOPPING=1");
    expect(polling).toBe(true);
    expect((await poll).status).toBe(200);
    expect(await exit).toBe(0);
  });

  test("show that the process lives, in half of the time the watchdog gives", async () => {
    await using socket = new NotifySocket();
    const watchdogMs = 600;
    await using server = await spawnServer({
      env: { NOTIFY_SOCKET: socket.path, WATCHDOG_USEC: `${watchdogMs * 1000}` },
    });
    const beats = await socket.until("WATCHDOG=1", 6);
    const gap = (beats.at(-1)!.at - beats[0]!.at) / (beats.length - 1);
    expect(gap).toBeGreaterThan(watchdogMs * 0.3);
    expect(gap).toBeLessThan(watchdogMs * 0.8);
    expect(await server.stop()).toBe(0);
  });

  test("go on while requests are drained", async () => {
    await using socket = new NotifySocket();
    await using server = await spawnServer({
      env: { NOTIFY_SOCKET: socket.path, WATCHDOG_USEC: "400000" },
    });
    const topic = absentTopic(server, "t");
    await topic.put();
    const poll = topic.diff({ wait_ms: 2500 });
    await until(
      () => topic.state(),
      ({ body }) => body.last_read_ts !== null,
    );
    const exit = server.stop();
    await socket.until("STOPPING=1");
    const before = (await socket.until("WATCHDOG=1")).length;
    await socket.until("WATCHDOG=1", before + 4, 2000);
    expect((await poll).status).toBe(200);
    expect(await exit).toBe(0);
  });

  test.each(["soon", "0", "-1", ""])("show no life for WATCHDOG_USEC=%j", async (WATCHDOG_USEC) => {
    await using socket = new NotifySocket();
    await using server = await spawnServer({ env: { NOTIFY_SOCKET: socket.path, WATCHDOG_USEC } });
    await socket.until("READY=1");
    await server.send("GET", "/v0/health");
    expect(await server.stop()).toBe(0);
    expect(texts(socket)).not.toContain("WATCHDOG=1");
  });

  test.each([
    ["is not there", "/nonexistent/notify"],
    ["is no socket", "/dev/null"],
    ["is a relative path", "notify"],
    ["is longer than a socket's path can be", `/${"n".repeat(300)}`],
    ["is an abstract one that nobody holds", `@topics-nobody-${crypto.randomUUID()}`],
    ["is only an @", "@"],
    ["is empty", ""],
  ])("do not hold up a server whose socket %s", async (_, NOTIFY_SOCKET) => {
    await using server = await spawnServer({ env: { NOTIFY_SOCKET, WATCHDOG_USEC: "50000" } });
    expect((await absentTopic(server, "t").append(1)).status).toBe(201);
    expect((await server.send("GET", "/v0/ready")).status).toBe(200);
    expect(await server.stop()).toBe(0);
  });

  test("do not hold up a server that nobody listens to", async () => {
    // Nothing is read from this socket, so its buffer fills up.
    await using socket = new NotifySocket();
    await using server = await spawnServer({ env: { NOTIFY_SOCKET: socket.path, WATCHDOG_USEC: "2000" } });
    const topic = absentTopic(server, "t");
    for (const end = performance.now() + 1000; performance.now() < end; ) await within(3000, topic.append(1));
    expect(await within(3000, server.stop())).toBe(0);
    expect(texts(socket)).toContain("WATCHDOG=1");
  });
});

describe("the unit", () => {
  /** The settings of a section, each with all its values. */
  function section(unit: string, name: string): Map<string, string[]> {
    const start = unit.indexOf(`[${name}]\n`);
    if (start < 0) throw new Error(`no [${name}] in ${unit}`);
    const [body] = unit.slice(start + name.length + 3).split(/^\[/m);
    const pairs = body!.matchAll(/^([A-Za-z]+)=(.*)$/gm);
    const settings = Map.groupBy(pairs, ([, key]) => key!);
    return new Map([...settings].map(([key, found]) => [key, found.map(([, , value]) => value!)]));
  }

  const print = async () => {
    const { stdout, stderr, exitCode } = await runToEnd(["systemd"]);
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
    return stdout;
  };

  test("is of type notify and allows the program little", async () => {
    const expected = {
      Type: "notify",
      DynamicUser: "yes",
      NoNewPrivileges: "yes",
      CapabilityBoundingSet: "",
      ProtectSystem: "strict",
      ProtectHome: "yes",
      ProtectControlGroups: "yes",
      ProtectKernelModules: "yes",
      ProtectKernelTunables: "yes",
      PrivateDevices: "yes",
      RestrictSUIDSGID: "yes",
    };
    const service = section(await print(), "Service");
    const found = Object.keys(expected).map((key) => [key, service.get(key)?.join(" and ")]);
    expect(Object.fromEntries(found)).toEqual(expected);
  });

  test("starts this program by an absolute path, with its data in the state directory", async () => {
    const unit = await print();
    const service = section(unit, "Service");
    const [state] = service.get("StateDirectory")!;
    expect(state).toMatch(/^[a-z][a-z0-9-]*$/);
    const [exec, ...others] = service.get("ExecStart")!;
    expect(others).toEqual([]);
    const program = exec!.split(" ")[0]!;
    expect(program).toStartWith("/");
    expect(existsSync(program)).toBe(true);
    const { stdout } = Bun.spawnSync([...exec!.split(" ").filter((word) => word !== "serve"), "--version"]);
    expect(stdout.toString()).toBe((await runToEnd(["--version"])).stdout);
    const settings = [exec, ...(service.get("Environment") ?? [])].join("\n");
    expect(settings).toMatch(new RegExp(`(TOPICS_DATA_DIR=|--data-dir[ =])(%S|/var/lib)/${state}\\b`));
    expect(section(unit, "Install").get("WantedBy")).toEqual(["multi-user.target"]);
  });

  test("is started again after a failure, and watched", async () => {
    const service = section(await print(), "Service");
    expect(service.get("Restart")![0]).toMatch(/^(on-failure|always)$/);
    expect(service.get("WatchdogSec")![0]).toMatch(/^[1-9]/);
    // A schema step over much data takes its time.
    expect(service.get("TimeoutStartSec")).toEqual(["infinity"]);
    // A stop may drain requests for 10 s; systemd must not end it before.
    for (const seconds of service.get("TimeoutStopSec") ?? ["90"])
      expect(Number.parseInt(seconds, 10)).toBeGreaterThan(10);
  });

  test("gets its keys as a credential, not in the environment", async () => {
    const service = section(await print(), "Service");
    const names = service.get("LoadCredential")!.map((credential) => credential.split(":"));
    expect(names.every(([, file]) => file!.startsWith("/"))).toBe(true);
    const environment = service.get("Environment")!.join("\n");
    const [name] = names.find(([id]) => environment.includes(`TOPICS_API_KEYS_FILE=%d/${id}`)) ?? [];
    expect(name).toBeString();
    expect(environment).not.toContain("TOPICS_API_KEYS=");
  });

  test("does not forbid what the runtime needs: memory that is written and run", async () => {
    expect(section(await print(), "Service").get("MemoryDenyWriteExecute")).not.toEqual(["yes"]);
  });

  test.skipIf(!analyze)("has nothing that systemd would complain about", async () => {
    await using dir = await temporaryDirectory();
    const path = join(dir.path, "topics.service");
    const complaints = async (unit: string) => {
      await writeFile(path, unit);
      const { stdout, stderr } = Bun.spawnSync([analyze!, "verify", "--man=no", path]);
      return `${stdout}${stderr}`.split("\n").filter((line) => line.includes("topics.service"));
    };
    const unit = await print();
    expect(await complaints(unit)).toEqual([]);
    const readme = await Bun.file(join(import.meta.dir, "../../README.md")).text();
    const [, dropIn] = /^```ini\n(\[Service\]\nLoadCredential=.*?)^```$/ms.exec(readme)!;
    expect(await complaints(unit + dropIn)).toEqual([]);
    // It does look: a setting that does not exist is told.
    expect(await complaints(unit.replace("[Service]\n", "[Service]\nNoSuchSetting=1\n"))).not.toEqual([]);
  });
});

describe.concurrent("healthcheck", () => {
  const check = (env: Record<string, string>, args: string[] = []) => runToEnd(["healthcheck", ...args], env);
  const portOf = (url: string) => new URL(url).port;
  const down = { exitCode: 1, stderr: expect.stringMatching(/^\S.*\n$/) };

  test("is 0 for a server that is up, and 1 with one line once it is stopped", async () => {
    await using server = await spawnServer();
    const env = { TOPICS_PORT: portOf(server.url) };
    expect(await check(env)).toMatchObject({ exitCode: 0, stderr: "" });
    await server.stop();
    expect(await check(env)).toMatchObject(down);
  });

  test("asks the server itself, whatever proxy there is, and says whom it could not reach", async () => {
    await using server = await spawnServer();
    const proxies = { HTTP_PROXY: "http://127.0.0.1:9", http_proxy: "http://127.0.0.1:9" };
    expect((await check({ ...proxies, TOPICS_PORT: portOf(server.url) })).exitCode).toBe(0);
    const port = `${freePort()}`;
    expect((await check({ ...proxies, TOPICS_PORT: port })).stderr).toContain(
      `http://127.0.0.1:${port}/v0/health`,
    );
  });

  test("finds the address as the server does", async () => {
    await using server = await spawnServer();
    const port = portOf(server.url);
    const codes = await Promise.all([
      check({ TOPICS_HOST: `127.0.0.1:${port}`, TOPICS_PORT: "1" }),
      check({ TOPICS_PORT: "1" }, ["--port", port]),
      check({ TOPICS_HOST: "localhost" }, ["--host", "127.0.0.1", "--port", port]),
      // As in a container, where the server listens on every address.
      check({ TOPICS_HOST: "0.0.0.0", TOPICS_PORT: port }),
    ]);
    expect(codes.map(({ exitCode, stderr }) => ({ exitCode, stderr }))).toEqual(
      Array(4).fill({ exitCode: 0, stderr: "" }),
    );
  });

  test("01.41 is 0 for a server whose probes ask for a key, with the server's settings", async () => {
    const settings = { TOPICS_API_KEYS: "reader:read,full", TOPICS_PROBE_AUTH: "1" };
    await using server = await spawnServer({ env: settings });
    expect((await server.send("GET", "/v0/health")).status).toBe(401);
    const { exitCode, stdout, stderr } = await check({ ...settings, TOPICS_PORT: portOf(server.url) });
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
    expect(stdout).not.toContain("reader");
  });

  test("01.41 is 0 for a server whose probes ask for a key from a file", async () => {
    await using dir = await temporaryDirectory();
    const file = join(dir.path, "keys");
    await writeFile(file, "# those who may\nreader:read\n");
    const settings = { TOPICS_API_KEYS_FILE: file, TOPICS_PROBE_AUTH: "1" };
    await using server = await spawnServer({ env: settings });
    expect(await check({ ...settings, TOPICS_PORT: portOf(server.url) })).toMatchObject({
      exitCode: 0,
      stderr: "",
    });
  });

  test("is 1 for what is no healthy server", async () => {
    using other = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      fetch: () => new Response("", { status: 500 }),
    });
    expect(await check({ TOPICS_PORT: `${other.port}` })).toMatchObject(down);
  });

  test("is 1 for a server that does not answer", async () => {
    const silent = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data: () => {} } });
    try {
      const { ms, answer } = await timed(() => check({ TOPICS_PORT: `${silent.port}` }));
      expect(answer).toMatchObject({ ...down, stderr: expect.stringMatching(/no answer within \d+ s\n$/) });
      expect(ms).toBeLessThan(15_000);
    } finally {
      silent.stop(true);
    }
  });

  test.each([
    ["a port beyond the last", { TOPICS_PORT: "99999" }, "99999"],
    ["a host that is none", { TOPICS_HOST: "a b" }, "a b"],
    ["nobody there", { TOPICS_PORT: "9" }, "ECONNREFUSED"],
  ])("says in words what is wrong with %s", async (_, env: Record<string, string>, words) => {
    const { exitCode, stderr } = await check(env);
    expect({ exitCode, stderr }).toEqual({ exitCode: 1, stderr: expect.stringContaining(words) });
    expect(stderr).toMatch(/^topics: Cannot .*[a-z]{4}.*\n$/);
  });

  test("leaves the data directory alone", async () => {
    await using dir = await temporaryDirectory();
    const data = join(dir.path, "data");
    await check({ TOPICS_PORT: `${freePort()}`, TOPICS_DATA_DIR: data });
    expect(existsSync(data)).toBe(false);
  });
});
