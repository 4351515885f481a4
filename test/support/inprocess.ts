/** The server inside the test process, on a temporary data directory. */
import { join } from "node:path";
import { configFrom } from "../../src/config.ts";
import { createLogger } from "../../src/log.ts";
import { startServer } from "../../src/server.ts";
import { send, type TestServer } from "./request.ts";
import { temporaryDirectory } from "./spawn.ts";

export async function startInProcess(env: Record<string, string>): Promise<TestServer> {
  await using parts = new AsyncDisposableStack();
  const dir = parts.use(await temporaryDirectory());
  const config = configFrom({
    TOPICS_DATA_DIR: join(dir.path, "data"),
    TOPICS_PORT: "0",
    RUST_LOG: "error",
    ...env,
  });
  const server = parts.use(
    await startServer(config, createLogger(config.logLevel), (reason) => {
      throw reason;
    }),
  );
  const url = `http://${server.address}`;
  const kept = parts.move();
  return {
    url,
    send: (method, path, body, headers) => send(url, method, path, body, headers),
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  };
}
