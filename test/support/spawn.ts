/** The real server as a child process, for tests about processes: kill, restart, exit codes, output. */
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Reply, send, type TestServer, target } from "./request.ts";

const root = join(import.meta.dir, "../..");

/** What runs the server: the built executable when the target is `binary`, else the source. */
export const command =
  target === "binary" ? [join(root, "dist/topics")] : [process.execPath, join(root, "src/main.ts")];

export interface SpawnedServer extends TestServer {
  readonly dir: string;
  readonly pid: number;
  /** Sends a signal (default SIGTERM), waits for the end and gives the exit code (128 + signal if killed). */
  stop(signal?: NodeJS.Signals): Promise<number>;
  /** Everything written to stdout and stderr so far. */
  output(): string;
}

export interface SpawnOptions {
  /** The data directory. Default: a new temporary one, removed on disposal. A given one is kept. */
  readonly dir?: string;
  readonly env?: Record<string, string>;
  readonly args?: string[];
  /** A file that stdout goes to, which `output` does not see then. */
  readonly stdout?: string;
}

/** An empty directory below the system's temporary directory, removed on disposal. */
export async function temporaryDirectory(): Promise<AsyncDisposable & { readonly path: string }> {
  const path = await mkdtemp(join(tmpdir(), "topics-test-"));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

/** Below this the kernel gives no ports to connections, which would take one while its server restarts. */
const EPHEMERAL_PORT_MIN = 32_768;
const PORT_MIN = 12_000;

/** A port that was free a moment ago. */
export function freePort(): number {
  for (let attempt = 0; attempt < 100; attempt++) {
    const port = PORT_MIN + Math.floor(Math.random() * (EPHEMERAL_PORT_MIN - PORT_MIN));
    try {
      Bun.listen({ hostname: "127.0.0.1", port, socket: { data() {} } }).stop(true);
      return port;
    } catch {
      // Somebody listens there.
    }
  }
  throw new Error("there is no free port");
}

/** Runs the server's command line to its end, for tests of flags and refusals to start. */
export async function runToEnd(args: string[], env: Record<string, string> = {}) {
  const child = Bun.spawn([...command, ...args], {
    env: { PATH: process.env.PATH ?? "", ...env },
    stdout: "pipe",
    stderr: "pipe",
  });
  const [stdout, stderr, exitCode] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  return { stdout, stderr, exitCode };
}

/** Starts a server and waits until it listens. Rejects with its output if it exits before. */
export async function spawnServer(options: SpawnOptions = {}): Promise<SpawnedServer> {
  const own = options.dir === undefined ? await temporaryDirectory() : undefined;
  const dir = options.dir ?? join(own!.path, "data");
  const portFile = join(tmpdir(), `topics-port-${process.pid}-${crypto.randomUUID()}`);
  const child = Bun.spawn([...command, ...(options.args ?? [])], {
    env: {
      PATH: process.env.PATH ?? "",
      TOPICS_PORT: "0",
      TOPICS_PORT_FILE: portFile,
      TOPICS_DATA_DIR: dir,
      ...options.env,
    },
    stdout: options.stdout === undefined ? "pipe" : Bun.file(options.stdout),
    stderr: "pipe",
  });
  let output = "";
  const collect = async (stream: ReadableStream<Uint8Array> | number | undefined) => {
    const decoder = new TextDecoder();
    if (!(stream instanceof ReadableStream)) return;
    for await (const chunk of stream) output += decoder.decode(chunk, { stream: true });
  };
  const collected = Promise.all([collect(child.stdout), collect(child.stderr)]);
  const address = await listening(portFile, child);
  if (address === undefined) {
    await collected;
    await own?.[Symbol.asyncDispose]();
    throw new Error(`the server exited with ${child.exitCode} before it listened:\n${output}`);
  }
  const url = `http://${address}`;
  const stop = async (signal: NodeJS.Signals = "SIGTERM") => {
    child.kill(signal);
    const code = await child.exited;
    await collected;
    return code;
  };
  return {
    url,
    dir,
    pid: child.pid,
    output: () => output,
    stop,
    send: (method, path, body, headers): Promise<Reply> => send(url, method, path, body, headers),
    [Symbol.asyncDispose]: async () => {
      if (child.exitCode === null && child.signalCode === null) await stop("SIGKILL");
      await own?.[Symbol.asyncDispose]();
    },
  };
}

/** Waits for the port file; undefined if the process ends first. */
async function listening(portFile: string, child: Bun.Subprocess): Promise<string | undefined> {
  while (child.exitCode === null && child.signalCode === null) {
    if (existsSync(portFile)) {
      const address = await readFile(portFile, "utf8");
      await rm(portFile);
      return address;
    }
    await Bun.sleep(5);
  }
  return undefined;
}
