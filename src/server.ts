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
  const store = parts.use(
    new Store({
      dir: config.dataDir,
      acceptLoss: config.acceptLoss,
      checkpointer,
      checkpoints: {
        delayed: (reason) => log.warn({ reason }, "a checkpoint failed and will be tried again"),
        ended: broken,
      },
      lost: (damage) => log.error({ damage }, "the newest records are missing; going on with what is there"),
    }),
  );
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
  app.listen({ hostname: config.host, port: config.port });
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

async function writeAtomically(path: string, text: string): Promise<void> {
  await writeFile(`${path}.tmp`, text);
  await rename(`${path}.tmp`, path);
}
