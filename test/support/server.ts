/**
 * A server for a test, and the few words a test needs to talk to it.
 *
 * A black-box test only ever sees a base URL. What answers behind it is chosen by `TOPICS_TEST_TARGET`:
 * `process` (default: the application inside the test process), `source` (a child process running
 * `src/main.ts`) or `binary` (a child process running `dist/topics`).
 */
import { type TestServer, target } from "./request.ts";
import { spawnServer } from "./spawn.ts";

export { type Reply, send, type Target, type TestServer, target } from "./request.ts";
export type { SpawnedServer } from "./spawn.ts";

/** Starts a server of its own for one test. `env` holds `TOPICS_*` settings; the data directory is temporary. */
export async function startServer(env: Record<string, string> = {}): Promise<TestServer> {
  if (target !== "process") return spawnServer({ env });
  const { startInProcess } = await import("./inprocess.ts");
  return startInProcess(env);
}
