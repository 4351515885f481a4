/** The ceiling: a bare `Bun.serve` under the same load, in a process of its own. */
import { join } from "node:path";
import { end, startPiped } from "./process.ts";

export interface Bare extends AsyncDisposable {
  readonly url: string;
  readonly pid: number;
}

/** Starts the server of `bare.ts`. It answers every read with `page`. */
export async function startBare(page: string): Promise<Bare> {
  const child = startPiped([process.execPath, join(import.meta.dir, "bare.ts")]);
  const { value } = await child.stdout.getReader().read();
  const url = new TextDecoder().decode(value).trim();
  await fetch(url, { method: "PUT", body: page });
  return {
    url,
    pid: child.pid,
    [Symbol.asyncDispose]: async () => {
      await end(child, "SIGKILL");
    },
  };
}
