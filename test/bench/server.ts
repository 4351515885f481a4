/** The server under test: the built executable on a data directory of its own. */
import { existsSync } from "node:fs";
import { readFile, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { cpuSeconds, end, start, temporaryDirectory } from "./process.ts";

const root = join(import.meta.dir, "../..");
const POLL_MS = 1;
/** A server is at rest when it uses less than this share of a core. */
const REST_SHARE = 0.02;
const REST_DEADLINE_MS = 20_000;

export interface Server extends AsyncDisposable {
  readonly url: string;
  readonly pid: number;
  readonly version: string;
  /** From the start of the process until the port file was there and the server called itself ready. */
  readonly startMs: number;
  /** Stops cleanly; a server that cannot spoils the measurement. */
  stop(): Promise<void>;
}

/** The executable to measure. Without a given one it is `dist/topics`, built now if it is absent. */
export async function findBinary(given?: string): Promise<string> {
  const binary = given ?? join(root, "dist/topics");
  if (existsSync(binary)) return binary;
  if (given) throw new Error(`Cannot find the executable ${given}`);
  const build = Bun.spawn([process.execPath, "run", "build"], { cwd: root, stdout: 2, stderr: 2 });
  if ((await build.exited) !== 0 || !existsSync(binary)) throw new Error(`Cannot build ${binary}`);
  return binary;
}

/** Starts the server on the data directory `data`, whose logs and port file go beside it. */
export async function startServer(
  binary: string,
  data: string,
  settings: Record<string, string> = {},
): Promise<Server> {
  const portFile = `${data}.port`;
  const log = `${data}.log`;
  await rm(portFile, { force: true });
  const startedAt = performance.now();
  const env = {
    TOPICS_HOST: "127.0.0.1",
    TOPICS_PORT: "0",
    TOPICS_PORT_FILE: portFile,
    TOPICS_DATA_DIR: data,
    TOPICS_MAX_TOPICS: "0",
    ...settings,
  };
  const child = start([binary], env, log);
  const running = () => child.exitCode === null && child.signalCode === null;
  const isReady = async () => existsSync(portFile) && (await answersReady(await readFile(portFile, "utf8")));
  while (!(await isReady())) {
    if (!running()) {
      const output = (await readFile(log, "utf8")) + (await readFile(`${log}.err`, "utf8"));
      throw new Error(`The server ended before it was ready:\n${output}`);
    }
    await Bun.sleep(POLL_MS);
  }
  const startMs = performance.now() - startedAt;
  const url = `http://${await readFile(portFile, "utf8")}`;
  const { version } = (await (await fetch(`${url}/v0/health`)).json()) as { version: string };
  return {
    url,
    pid: child.pid,
    version,
    startMs,
    stop: async () => {
      const code = await end(child);
      if (code !== 0) throw new Error(`The server ended with ${code} when it was asked to stop`);
    },
    [Symbol.asyncDispose]: async () => {
      if (running()) await end(child, "SIGKILL");
    },
  };
}

async function answersReady(address: string): Promise<boolean> {
  const response = await fetch(`http://${address}/v0/ready`).catch(() => undefined);
  return response?.ok ?? false;
}

/** Runs `work` with a new server on an empty directory; both are gone after it. */
export async function withServer<T>(
  binary: string,
  parent: string,
  work: (server: Server) => Promise<T>,
): Promise<T> {
  await using directory = await temporaryDirectory(parent);
  await using server = await startServer(binary, join(directory.path, "data"));
  return await work(server);
}

/** Waits until the server has nothing left to do from the filling. */
export async function atRest(pid: number): Promise<void> {
  const deadline = Date.now() + REST_DEADLINE_MS;
  while (Date.now() < deadline) {
    const before = await cpuSeconds(pid);
    await Bun.sleep(1000);
    if ((await cpuSeconds(pid)) - before <= REST_SHARE) return;
  }
  throw new Error(`The server is still busy ${REST_DEADLINE_MS} ms after the last request`);
}

/** Bytes of all files in a data directory. */
export async function diskBytes(data: string): Promise<number> {
  const files = new Bun.Glob("**/*").scan({ cwd: data, dot: true });
  let bytes = 0;
  for await (const file of files) bytes += (await stat(join(data, file))).size;
  return bytes;
}
