/** The port file: for whoever starts a server on a free port and has to know where it listens. */
import { readFile, rename, rm, writeFile } from "node:fs/promises";

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

async function isListening(address: string): Promise<boolean> {
  const [, hostname, port] = /^\[?([^\]]+)\]?:(\d+)$/.exec(address) ?? [];
  if (hostname === undefined) return false;
  try {
    const socket = await Bun.connect({ hostname, port: Number(port), socket: { data: () => {} } });
    socket.terminate();
    return true;
  } catch {
    return false;
  }
}
