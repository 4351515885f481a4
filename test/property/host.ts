/**
 * A server in this process that a test can stop, crash and start again, with a clock the test sets.
 *
 * A crash goes on with a copy of the data directory that was taken while the server ran. That is what SIGKILL
 * leaves: this thread does nothing while `cp` runs, so no commit is half done, and `cp` is a process of its own
 * because closing a file here would let go of the locks that SQLite holds on it.
 */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { configFrom } from "../../src/config.ts";
import { createLogger } from "../../src/log.ts";
import { type Server, startServer } from "../../src/server.ts";
import { type Reply, send } from "../support/request.ts";
import { temporaryDirectory } from "../support/spawn.ts";

const START = 1_700_000_000_000;

/** `TEST_RUNS` asks for more histories. */
const asked = Number(process.env.TEST_RUNS ?? 0);

/** So long a property test may take, and so long it goes on looking for a shorter history that fails, too. */
export const PATIENCE_MS = Math.max(120_000, asked * 3000);
const SEARCH_MS = PATIENCE_MS - 60_000;

/** What a property test runs with. `TEST_SEED` repeats a run that failed; the report of a failure tells its seed. */
export const runs = (usual: number) => ({
  numRuns: asked || usual,
  interruptAfterTimeLimit: SEARCH_MS,
  ...(process.env.TEST_SEED ? { seed: Number(process.env.TEST_SEED) } : {}),
});

export class Host implements AsyncDisposable {
  /** What the server takes for the time. */
  now = START;
  readonly #base: string;
  readonly #parts: AsyncDisposableStack;
  #starts = 0;
  #dir = "";
  #server: Server | undefined;
  /** What servers have failed with. All of them end in order, also those whose data is not used any more. */
  #failures: unknown[] = [];

  private constructor(base: string, parts: AsyncDisposableStack) {
    this.#base = base;
    this.#parts = parts;
  }

  static async open(): Promise<Host> {
    await using parts = new AsyncDisposableStack();
    const { path } = parts.use(await temporaryDirectory());
    const host = new Host(path, parts.move());
    await host.renew();
    return host;
  }

  /** How often a server was started here. */
  get starts(): number {
    return this.#starts;
  }

  send = (method: string, path: string, body?: unknown): Promise<Reply> =>
    send(`http://${this.#server?.address}`, method, path, body);

  /** Like `send`, but undefined if the server is gone before the answer is here. */
  async attempt(method: string, path: string, body?: unknown): Promise<Reply | undefined> {
    const starts = this.#starts;
    try {
      const reply = await this.send(method, path, body);
      return this.#starts === starts ? reply : undefined;
    } catch (error) {
      if (this.#starts === starts) throw error;
      return undefined;
    }
  }

  /** Starts with nothing. */
  async renew(): Promise<void> {
    await this.#stop();
    this.#failures = [];
    this.#dir = this.#newDirectory();
    await this.#start();
  }

  /** Stops in order and starts again. */
  async restart(): Promise<void> {
    await this.#stop();
    await this.#start();
  }

  /** Goes on with what SIGKILL would leave at this moment. */
  async crash(): Promise<void> {
    const copy = this.#newDirectory();
    await mkdir(copy);
    const { exitCode, stderr } = Bun.spawnSync(["cp", "-r", `${this.#dir}/.`, copy]);
    if (exitCode !== 0) throw new Error(`cannot copy the data directory: ${stderr}`);
    const old = this.#server;
    this.#server = undefined;
    this.#starts++;
    this.#dir = copy;
    await old?.[Symbol.asyncDispose]();
    await this.#start();
  }

  async #start(): Promise<void> {
    const env = { TOPICS_DATA_DIR: this.#dir, TOPICS_PORT: "0", RUST_LOG: "error" };
    const config = configFrom(env);
    this.#starts++;
    const broken = (reason: unknown) => {
      this.#failures.push(reason);
    };
    this.#server = await startServer(config, createLogger(config.logLevel), broken, () => this.now);
    if (this.#failures.length > 0) throw this.#failures[0];
  }

  async #stop(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    await server?.[Symbol.asyncDispose]();
  }

  #newDirectory(): string {
    return join(this.#base, `data-${crypto.randomUUID()}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stop();
    await this.#parts[Symbol.asyncDispose]();
  }
}

/** Runs one history. After a failure the next one finds a new server, whatever became of the old one. */
export async function onFreshAfterFailure(host: Host, history: () => Promise<void>): Promise<void> {
  try {
    await history();
  } catch (error) {
    await host.renew();
    throw error;
  }
}
