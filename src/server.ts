/** One running server: keys, store, engine and HTTP, opened in order and taken down in reverse. */

import http from "node:http";
import { checkAddress, isLoopback } from "./address.ts";
import { type Config, originsIn, withoutSecrets } from "./config.ts";
import { keyFile, keySources, tlsFrom } from "./credentials.ts";
import { Consensus } from "./engine/consensus/consensus.ts";
import { Engine } from "./engine/engine.ts";
import type { Peering } from "./engine/feeds/peering.ts";
import { Admission } from "./http/admission.ts";
import { createApp } from "./http/app.ts";
import { Keys } from "./http/keys.ts";
import { HttpRemote } from "./http/remote.ts";
import { Streams } from "./http/streams.ts";
import { Tokens } from "./http/tokens.ts";
import { Turns } from "./http/turns.ts";
import type { Logger } from "./log.ts";
import { feedSettings, type PeerSettings, peerSettings } from "./peers.ts";
import { clearPortFile, removePortFile, writePortFile } from "./portfile.ts";
import { isFull, Store } from "./store/store.ts";

/** Requests that still run this long after a stop was asked for are dropped. */
const DRAIN_MS = 10_000;
/** Connections are closed when there was nothing to be done on any of them for so long. */
const QUIET_MS = 100;
const LOOK_MS = 20;

const HEADER_BYTES_MAX = 512 * 1024;

/** Named from here because a compiled executable keeps it relative to its entry point. */
const checkpointer = new URL("./store/checkpointer.ts", import.meta.url);

export interface Server extends AsyncDisposable {
  /** The real `host:port`. */
  readonly address: string;
  /** Reads the keys again. What is wrong with them is logged, and those in use stay. */
  reloadKeys(): void;
}

/** `broken` is called when the server cannot go on and must be stopped. */
export async function startServer(
  given: Config,
  log: Logger,
  broken: (reason: unknown) => void,
  now: () => number = Date.now,
): Promise<Server> {
  await withPortFile(given.portFile, () => clearPortFile(given.portFile));
  const keys = new Keys(keySources(given));
  const tls = tlsFrom(given);
  const feeds = feedSettings(given);
  const peers = peerSettings(given);
  const corsOrigins = originsIn(given);
  const config = withoutSecrets(given);
  const isLocal = await isLoopback(config.host);
  const access = keys.count > 0 ? "keys" : isLocal ? "local" : "public";
  checkAddress(config, access === "public");
  logAccess(access, config, keys, log);
  if (!isLocal && tls === undefined) {
    log.warn({ host: config.host }, "keys and data travel in the clear, unless a proxy in front speaks TLS");
  }
  logLimits(config, log);

  let isStarted = false;
  await using parts = new AsyncDisposableStack();
  const unexpected = (error: unknown) => log.error({ err: error }, "a request failed");
  const start = performance.now();
  log.info({ dataDir: config.dataDir }, "opening the data directory");
  const store = parts.adopt(openStore(config, log, broken), (store) => {
    if (close(store, log) && isStarted) log.info("state saved");
  });
  const engine = parts.use(
    new Engine({
      store,
      limits: config,
      feeds,
      now,
      failed: (error, isBroken) => {
        if (isFull(error)) log.error("no space left on the disk: writes are refused until there is some");
        else log.error({ err: error }, "a write failed and was undone");
        if (isBroken) broken(error);
      },
      freed: () => log.info("there is space on the disk again: writes work"),
      unexpected,
    }),
  );
  const { feeds: ours, log: feedLog } = engine.network;
  parts.use(new Consensus({ feeds: ours, log: feedLog, now, unexpected }));
  const recover_ms = Math.round(performance.now() - start);
  log.info({ topics: engine.topics.count, recover_ms, afterCrash: store.crashed }, "data is ready");
  const peering = parts.use(joinPeers(engine, peers, config.feedSyncIntervalMs, log));
  const tokens = new Tokens(keys, store.secret("tokens"), now);
  const { probeAuth, feedPublic } = config;
  const turns = new Turns();
  const admission = new Admission({ keys, tokens, turns, limits: config, probeAuth, feedPublic });
  const streams = new Streams(config, turns, (caller) => admission.isCurrent(caller), now, unexpected);
  const app = createApp({
    engine,
    admission,
    peerToken: peers.token,
    tokens,
    streams,
    corsOrigins,
    tls,
    unexpected,
  });
  listen(app, config);
  parts.defer(() => drain(app.server!, admission, streams, log));
  const { hostname, port } = app.server!;
  const address = `${hostname?.includes(":") ? `[${hostname}]` : hostname}:${port}`;
  await withPortFile(config.portFile, async () => {
    await writePortFile(config.portFile, address);
    parts.defer(() => removePortFile(config.portFile, address));
  });
  log.info({ address, tls: tls !== undefined }, "listening");
  peering.start();
  isStarted = true;
  const kept = parts.move();
  return {
    address,
    reloadKeys: () => {
      reloadKeys(config, keys, log);
      streams.review();
    },
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  };
}

/** Lets requests finish, and closes the connections on which there are none. */
async function drain(
  server: Bun.Server<unknown>,
  admission: Admission,
  streams: Streams,
  log: Logger,
): Promise<void> {
  admission.drain();
  streams.end();
  // Of its own accord it waits for connections that were never used as well.
  const stopped = server.stop();
  // Pending are those whose answers are not sent to their end, too.
  const left = () => {
    const { requests } = admission.load;
    return { requests, answers: server.pendingRequests - requests, sockets: server.pendingWebSockets };
  };
  const isQuiet = () => Object.values(left()).every((count) => count <= 0);
  const deadline = performance.now() + DRAIN_MS;
  let quietAt = performance.now() + QUIET_MS;
  let isOver = false;
  while (!isOver && performance.now() < Math.min(quietAt, deadline)) {
    isOver = await Promise.race([stopped.then(() => true), Bun.sleep(LOOK_MS).then(() => false)]);
    if (!isQuiet()) quietAt = performance.now() + QUIET_MS;
  }
  if (isOver || isQuiet()) log.info("drained");
  else log.warn(left(), "what was not finished after 10 s was dropped");
  await Promise.all([server.stop(true), stopped]);
}

/** False if the disk is full. What is not in the main file stays in the log beside it for the next start. */
function close(store: Store, log: Logger): boolean {
  try {
    store[Symbol.dispose]();
    return true;
  } catch (error) {
    if (!isFull(error)) throw error;
    log.warn("no space left to put the write-ahead log into the main file: the next start will");
    return false;
  }
}

/** Nobody is spoken to before that is started. */
function joinPeers(
  { network }: Engine,
  { urls, token }: PeerSettings,
  intervalMs: number,
  log: Logger,
): Peering {
  const { nodeId, networkId } = network.feeds;
  log.info({ nodeId, networkId, peers: urls }, "feeds are ready");
  return network.join({
    urls,
    intervalMs,
    remote: (url) => new HttpRemote(url, token),
    turned: (url, nodeId, reason) => {
      if (reason === null) log.info({ url, nodeId }, "a peer is connected");
      else log.warn({ url, nodeId, reason }, "a peer cannot be reached; it will be tried again");
    },
    leftOut: (url, count, reason) =>
      log.warn({ url, count, reason }, "some of the feeds is not exchanged with a peer"),
  });
}

function logAccess(access: "keys" | "local" | "public", { host }: Config, keys: Keys, log: Logger): void {
  if (access === "keys") log.info({ keys: keys.count }, "authentication is on");
  else if (access === "local") log.warn("authentication is off: everybody on this machine may do everything");
  else log.warn({ host }, "AUTHENTICATION IS OFF ON A PUBLIC ADDRESS: whoever reaches it may do everything");
}

function logLimits(config: Config, log: Logger): void {
  const limits = Object.entries(config).filter(([name]) => name.endsWith("Max"));
  log.info(Object.fromEntries(limits), "limits");
}

function reloadKeys(config: Config, keys: Keys, log: Logger): void {
  if (config.apiKeysFile === "") {
    log.info("there is no file of keys to be read again");
    return;
  }
  try {
    keys.replace(keyFile(config.apiKeysFile));
    log.info({ keys: keys.count }, "keys are read again");
  } catch (error) {
    log.error({ reason: (error as Error).message, keys: keys.count }, "the old keys stay in use");
  }
}

function openStore({ dataDir, acceptLoss }: Config, log: Logger, broken: (reason: unknown) => void): Store {
  try {
    return new Store({
      dir: dataDir,
      acceptLoss,
      checkpointer,
      checkpoints: {
        delayed: (reason) => log.warn({ reason }, "a checkpoint failed; it is tried again until it works"),
        ended: broken,
      },
      lost: (damage) => log.error({ damage }, "the newest records are missing; going on with what is there"),
      restored: () => log.warn("the data is a backup: what was written after it is missing"),
    });
  } catch (error) {
    throw explained(`Cannot use the data directory ${dataDir}`, error);
  }
}

function listen(app: ReturnType<typeof createApp>, { host, port }: Config): void {
  // The id of a stream on many topics comes back in a header.
  Object.assign(http, { maxHeaderSize: HEADER_BYTES_MAX });
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

/** Tries what has to do with the port file. */
async function withPortFile(path: string, attempt: () => Promise<void>): Promise<void> {
  if (path === "") return;
  try {
    await attempt();
  } catch (error) {
    throw explained(`Cannot write the port file ${path}`, error);
  }
}
