/** NATS on a server of its own, gone with the run. Its core has no store: who does not listen misses it. */
import { join } from "node:path";
import type { Socket } from "bun";
import { freePort } from "../support/spawn.ts";
import { end, start, temporaryDirectory } from "./process.ts";

export interface Nats extends AsyncDisposable {
  readonly url: string;
  readonly pid: number;
}

/** `settings`: what else its configuration says, given the directory that it may use. */
export async function startNats(
  parent: string,
  settings: (directory: string) => string = () => "",
): Promise<Nats> {
  const directory = await temporaryDirectory(parent);
  const port = freePort();
  const log = join(directory.path, "log");
  const file = join(directory.path, "settings");
  await Bun.write(file, settings(directory.path));
  const address = ["--addr", "127.0.0.1", "--port", String(port)];
  const child = start(["nats-server", "--config", file, ...address], {}, log);
  const dispose = async () => {
    if (child.exitCode === null && child.signalCode === null) await end(child, "SIGKILL");
    await directory[Symbol.asyncDispose]();
  };
  while (!(await greets(port))) {
    if (child.exitCode !== null) {
      const output = await Bun.file(`${log}.err`).text();
      await dispose();
      throw new Error(`nats-server ended before it listened:\n${output}`);
    }
    await Bun.sleep(5);
  }
  return { url: `nats://127.0.0.1:${port}`, pid: child.pid, [Symbol.asyncDispose]: dispose };
}

/** Who connects is told about the server at once. */
async function greets(port: number): Promise<boolean> {
  const reached = Promise.withResolvers<boolean>();
  const socket = {
    data: (socket: Socket, chunk: Buffer) => {
      reached.resolve(chunk.toString("latin1").startsWith("INFO "));
      socket.end();
    },
    close: () => reached.resolve(false),
  };
  await Bun.connect({ hostname: "127.0.0.1", port, socket }).catch(() => reached.resolve(false));
  return reached.promise;
}
