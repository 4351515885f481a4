/** One running server: store, engine and HTTP, opened in order and taken down in reverse. */
import { rename, writeFile } from "node:fs/promises";
import type { Config } from "./config.ts";
import { Engine } from "./engine/engine.ts";
import { createApp } from "./http/app.ts";
import type { Logger } from "./log.ts";
import { Store } from "./store/store.ts";

/** Requests that still run this long after a stop was asked for are dropped. */
const DRAIN_MS = 10_000;

/** Named from here because a compiled executable keeps it relative to its entry point. */
const checkpointer = new URL("./store/checkpointer.ts", import.meta.url);

export interface Server extends AsyncDisposable {
  /** The real `host:port`. */
  readonly address: string;
}

/** `broken` is called when the server cannot go on and must be stopped. */
export async function startServer(
  config: Config,
  log: Logger,
  broken: (reason: unknown) => void,
  now: () => number = Date.now,
): Promise<Server> {
  await using parts = new AsyncDisposableStack();
  const store = parts.use(openStore(config, log, broken));
  const engine = parts.use(
    new Engine({
      store,
      limits: config,
      now,
      failed: (error, isBroken) => {
        log.error({ err: error }, "a write failed and was undone");
        if (isBroken) broken(error);
      },
    }),
  );
  log.info(
    { dataDir: config.dataDir, topics: engine.topics.count, afterCrash: store.crashed },
    "data is ready",
  );
  const app = createApp({
    engine,
    bodyBytesMax: config.bodyBytesMax,
    unexpected: (error) => log.error({ err: error }, "a request failed"),
  });
  listen(app, config);
  parts.defer(async () => {
    const deadline = setTimeout(() => {
      log.warn("requests still running after 10 s are dropped");
      app.server?.stop(true);
    }, DRAIN_MS);
    await app.server?.stop();
    clearTimeout(deadline);
  });
  const { hostname, port } = app.server!;
  const address = `${hostname?.includes(":") ? `[${hostname}]` : hostname}:${port}`;
  if (config.portFile) await writeAtomically(config.portFile, address);
  log.info({ address }, "listening");
  const kept = parts.move();
  return { address, [Symbol.asyncDispose]: () => kept.disposeAsync() };
}

function openStore({ dataDir, acceptLoss }: Config, log: Logger, broken: (reason: unknown) => void): Store {
  try {
    return new Store({
      dir: dataDir,
      acceptLoss,
      checkpointer,
      checkpoints: {
        delayed: (reason) => log.warn({ reason }, "a checkpoint failed and will be tried again"),
        ended: broken,
      },
      lost: (damage) => log.error({ damage }, "the newest records are missing; going on with what is there"),
    });
  } catch (error) {
    throw explained(`Cannot use the data directory ${dataDir}`, error);
  }
}

function listen(app: ReturnType<typeof createApp>, { host, port }: Config): void {
  try {
    app.listen({ hostname: host, port });
  } catch (error) {
    throw explained(`Cannot listen on ${host} port ${port}`, error);
  }
}

/** The error with what was tried in front, unless it says so itself. */
function explained(what: string, error: unknown): Error {
  const message = error instanceof Error ? error.message : String(error);
  return new Error(message.startsWith("Cannot ") ? message : `${what}: ${message}`, { cause: error });
}

async function writeAtomically(path: string, text: string): Promise<void> {
  await writeFile(`${path}.tmp`, text);
  await rename(`${path}.tmp`, path);
}
