/** The port file: for whoever starts a server on a free port and has to know where it listens. */
import { readFile, rename, rm, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { settings } from "./config.ts";

/** Who does not answer within that time is not there. */
const ANSWER_MS = 1000;

/** Nobody is to find an address at which no server is. One that is still there keeps its own. Throws. */
export async function clearPortFile(path: string): Promise<void> {
  const named = await readFile(path, "utf8").catch(() => undefined);
  if (named !== undefined && !(await isListening(named))) await rm(path, { force: true });
}

/** Names the address all at once. Throws. */
export async function writePortFile(path: string, address: string): Promise<void> {
  const temporary = `${path}.tmp`;
  try {
    await writeFile(temporary, address);
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

/** The server at that address is going. */
export async function removePortFile(path: string, address: string): Promise<void> {
  const named = await readFile(path, "utf8").catch(() => undefined);
  if (named === address) await rm(path, { force: true }).catch(() => {});
}

function isListening(address: string): Promise<boolean> {
  const [, host, port] = /^\[?([^\]]+)\]?:(\d+)$/.exec(address) ?? [];
  const { promise, resolve } = Promise.withResolvers<boolean>();
  if (host === undefined || Number(port) > settings.port.max) return Promise.resolve(false);
  const socket = connect({ host, port: Number(port), timeout: ANSWER_MS });
  socket.on("connect", () => resolve(true));
  for (const event of ["error", "timeout"]) socket.on(event, () => resolve(false));
  return promise.finally(() => socket.destroy());
}
