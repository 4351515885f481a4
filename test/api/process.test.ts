/** How an operator meets the process: where it listens, when it refuses to start, how it stops. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { command, freePort, runToEnd, spawnServer, temporaryDirectory } from "../support/spawn.ts";
import { absentTopic, timed, until } from "../support/topics.ts";

setDefaultTimeout(30_000);

/** Sends the text over a socket of its own. `answered` is the first answer, `ended` the whole of it. */
async function dial(url: string, text: string) {
  const { hostname, port } = new URL(url);
  const [answered, ended] = [Promise.withResolvers<string>(), Promise.withResolvers<string>()];
  let received = "";
  await Bun.connect({
    hostname,
    port: Number(port),
    socket: {
      open: (socket) => void socket.write(text),
      data: (_, chunk) => {
        received += chunk.toString();
        if (received.includes("\r\n\r\n")) answered.resolve(received);
      },
      close: () => ended.resolve(received),
    },
  });
  return { answered: answered.promise, ended: ended.promise };
}

const refused = (url: string) =>
  dial(url, "").then(
    () => false,
    () => true,
  );

describe("listening", () => {
  test("01.50 the port file names the live address", async () => {
    await using dir = await temporaryDirectory();
    const portFile = join(dir.path, "port");
    const child = Bun.spawn(command, {
      env: {
        PATH: process.env.PATH ?? "",
        TOPICS_PORT: "0",
        TOPICS_PORT_FILE: portFile,
        TOPICS_DATA_DIR: join(dir.path, "data"),
      },
      stdout: "ignore",
      stderr: "ignore",
    });
    try {
      // Written by a rename, so the first content that is seen is the whole of it.
      const address = await until(
        async () => ((await Bun.file(portFile).exists()) ? await Bun.file(portFile).text() : undefined),
        (text) => text !== undefined,
      );
      expect(address).toMatch(/^127\.0\.0\.1:[1-9]\d*$/);
      expect((await fetch(`http://${address}/v0/health`)).status).toBe(200);
    } finally {
      child.kill("SIGKILL");
      await child.exited;
    }
  });

  test("01.50 a port file that cannot be written ends the start", async () => {
    await using dir = await temporaryDirectory();
    const { exitCode, stderr } = await runToEnd([], {
      TOPICS_PORT: "0",
      TOPICS_PORT_FILE: join(dir.path, "absent", "port"),
      TOPICS_DATA_DIR: join(dir.path, "data"),
    });
    expect({ exitCode, told: stderr.trim() !== "" }).toEqual({ exitCode: 1, told: true });
  });

  /** Runs a server with a port file until `act` is done with its address, and gives the file's content then. */
  async function portFileAfter(
    act: (pid: number, file: string) => Promise<void>,
  ): Promise<string | undefined> {
    await using dir = await temporaryDirectory();
    const file = join(dir.path, "port");
    await writeFile(file, "127.0.0.1:1");
    const env = { PATH: process.env.PATH ?? "", TOPICS_PORT: "0", TOPICS_PORT_FILE: file };
    const child = Bun.spawn([...command, "--data-dir", join(dir.path, "data")], { env, stdout: "ignore" });
    await until(
      async () => ((await Bun.file(file).exists()) ? Bun.file(file).text() : ""),
      (text) => /:\d{2,}$/.test(text),
    );
    await act(child.pid, file);
    await child.exited;
    return (await Bun.file(file).exists()) ? Bun.file(file).text() : undefined;
  }

  test("01.50 a port file of an earlier server is replaced, and goes with the server", async () => {
    expect(await portFileAfter(async (pid) => void process.kill(pid, "SIGTERM"))).toBeUndefined();
  });

  test("01.50 a port file that names another server by now stays", async () => {
    const replaced = await portFileAfter(async (pid, file) => {
      await writeFile(file, "127.0.0.1:2");
      process.kill(pid, "SIGTERM");
    });
    expect(replaced).toBe("127.0.0.1:2");
  });

  test.each([
    ["a busy port", { TOPICS_PORT: "" }],
    ["a bad key", { TOPICS_API_KEYS: "k:bogus" }],
  ])("01.50 a start that fails by %s leaves no port file of an earlier server", async (_, env) => {
    await using dir = await temporaryDirectory();
    await using other = await spawnServer();
    const file = join(dir.path, "port");
    await writeFile(file, "127.0.0.1:1");
    const { exitCode, stdout } = await runToEnd(["--data-dir", join(dir.path, "data")], {
      TOPICS_PORT: new URL(other.url).port,
      TOPICS_PORT_FILE: file,
      ...Object.fromEntries(Object.entries(env).filter(([, value]) => value !== "")),
    });
    expect([exitCode, await Bun.file(file).exists()]).toEqual([1, false]);
    expect(stdout).not.toContain("saved");
  });

  test("01.50 01.53 a server that runs keeps its port file when another one is started by mistake", async () => {
    let left: unknown;
    await portFileAfter(async (pid, file) => {
      const address = await Bun.file(file).text();
      const env = { TOPICS_PORT: "0", TOPICS_PORT_FILE: file };
      const { exitCode } = await runToEnd(["--data-dir", join(dirname(file), "data")], env);
      left = [exitCode, (await Bun.file(file).text()) === address];
      process.kill(pid, "SIGTERM");
    });
    expect(left).toEqual([1, true]);
  });

  test("01.52 a host with a port overrides the port", async () => {
    const [port, other] = [freePort(), freePort()];
    await using server = await spawnServer({
      env: { TOPICS_HOST: `127.0.0.1:${port}`, TOPICS_PORT: `${other}` },
    });
    expect(server.url).toBe(`http://127.0.0.1:${port}`);
    expect((await server.send("GET", "/v0/health")).status).toBe(200);
    expect(await refused(`http://127.0.0.1:${other}`)).toBe(true);
  });

  test("01.52 a limit that is no number keeps its default, one with spaces is read", async () => {
    await using server = await spawnServer({
      env: { TOPICS_MAX_TOPICS: " 2 ", TOPICS_MAX_TOTAL_BYTES: "few", TOPICS_MAX_BODY_BYTES: "-1" },
    });
    expect((await absentTopic(server, "a").append("x".repeat(100_000))).status).toBe(201);
    const statuses = [];
    for (const name of ["b", "c"]) statuses.push((await absentTopic(server, name).put()).status);
    expect(statuses).toEqual([201, 429]);
  });
});

describe("origins of web pages", () => {
  test("may be given with a final slash and in capitals", async () => {
    await using server = await spawnServer({
      env: { TOPICS_CORS_ORIGINS: "https://App.example/ , http://b" },
    });
    for (const origin of ["https://app.example", "http://b"]) {
      const { headers } = await server.send("GET", "/v0/health", undefined, { origin });
      expect(headers.get("access-control-allow-origin")).toBe(origin);
    }
  });

  test.each(["https://app.example/shop", "https://a.example b"])("%j is none", async (origin) => {
    const { exitCode, stderr } = await runToEnd([], { TOPICS_PORT: "0", TOPICS_CORS_ORIGINS: origin });
    expect({ exitCode, stderr }).toEqual({ exitCode: 1, stderr: expect.stringContaining(origin) });
  });
});

describe("refusing to start", () => {
  test("01.53 06.29 one process owns a data directory until it dies", async () => {
    await using dir = await temporaryDirectory();
    await using first = await spawnServer({ dir: dir.path });
    await absentTopic(first, "t").append(1);
    const second = await runToEnd([], { TOPICS_PORT: "0", TOPICS_DATA_DIR: dir.path });
    expect(second.exitCode).toBe(1);
    expect(second.stderr + second.stdout).toContain(dir.path);
    expect((await absentTopic(first, "t").append(2)).body.last_seq).toBe(2);

    await first.stop("SIGKILL");
    await using third = await spawnServer({ dir: dir.path });
    expect((await absentTopic(third, "t").state()).body.head_seq).toBe(2);
  });

  test("01.54 a busy port", async () => {
    await using dir = await temporaryDirectory();
    await using server = await spawnServer();
    const portFile = join(dir.path, "port");
    const { exitCode, stderr } = await runToEnd([], {
      TOPICS_PORT: new URL(server.url).port,
      TOPICS_PORT_FILE: portFile,
      TOPICS_DATA_DIR: join(dir.path, "data"),
    });
    expect({ exitCode, told: stderr.trim() !== "" }).toEqual({ exitCode: 1, told: true });
    expect(await Bun.file(portFile).exists()).toBe(false);
  });

  test.each(["", "/data"])('01.54 06.30 a file as data directory, path "file%s"', async (below) => {
    await using dir = await temporaryDirectory();
    const [file, portFile] = [join(dir.path, "file"), join(dir.path, "port")];
    await writeFile(file, "mine");
    const { exitCode, stderr } = await runToEnd([], {
      TOPICS_PORT: "0",
      TOPICS_PORT_FILE: portFile,
      TOPICS_DATA_DIR: file + below,
    });
    expect({ exitCode, told: stderr.trim() !== "" }).toEqual({ exitCode: 1, told: true });
    expect(await Bun.file(portFile).exists()).toBe(false);
    expect(await Bun.file(file).text()).toBe("mine");
  });
});

describe.concurrent("stopping", () => {
  test.each(["SIGTERM", "SIGINT"] as const)("01.55 %s ends an idle server at once", async (signal) => {
    await using server = await spawnServer();
    const kept = await dial(server.url, "GET /v0/health HTTP/1.1\r\nHost: test\r\n\r\n");
    expect(await kept.answered).toStartWith("HTTP/1.1 200");
    const began = performance.now();
    expect(await server.stop(signal)).toBe(0);
    expect(performance.now() - began).toBeLessThan(2000);
    expect((await kept.ended).match(/HTTP\/1\.1/g)).toHaveLength(1);
    expect(await refused(server.url)).toBe(true);
  });

  test("01.56 06.34 a long poll is finished, new connections are refused meanwhile", async () => {
    await using server = await spawnServer();
    const idle = await dial(server.url, "GET /v0/health HTTP/1.1\r\nHost: test\r\n\r\n");
    await idle.answered;
    const topic = absentTopic(server, "polled");
    await topic.put();
    let polling = true;
    const poll = timed(() => topic.diff({ wait_ms: 3000 })).finally(() => {
      polling = false;
    });
    await until(
      () => topic.state(),
      ({ body }) => body.last_read_ts !== null,
    );

    const exit = server.stop("SIGTERM");
    await idle.ended;
    await until(
      () => refused(server.url),
      (is) => is,
    );
    expect(polling).toBe(true);
    const { answer, ms } = await poll;
    expect(answer).toMatchObject({ status: 200, body: { records: [], caught_up: true } });
    expect(ms).toBeGreaterThan(2900);
    expect(await exit).toBe(0);
  }, 20_000);

  test("01.58 a half-sent request holds up the stop for at most 12 s", async () => {
    await using server = await spawnServer();
    const half = await dial(
      server.url,
      "POST /v0/topics/t HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{",
    );
    await server.send("GET", "/v0/health");
    const began = performance.now();
    expect(await server.stop("SIGTERM")).toBe(0);
    expect(performance.now() - began).toBeLessThan(12_000);
    expect(await half.ended).not.toContain("HTTP/1.1 2");
  }, 20_000);
});
