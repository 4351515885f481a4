/** The cluster of Redis: a stream on a primary that syncs each write, and replicas. */
import type { Cluster } from "./cluster.ts";
import { command, type Line, openLine } from "./line.ts";
import type { Bench } from "./loads.ts";
import { type Redis, startRedis } from "./redis.ts";
import { note } from "./writers.ts";

/** Otherwise a primary waits for more replicas before it serves the first. */
const settings = { "repl-diskless-sync-delay": 0 };

export async function startReplicas(bench: Bench, replicas: number): Promise<Cluster> {
  await using parts = new AsyncDisposableStack();
  const servers: Redis[] = [];
  const lines: Line[] = [];
  while (servers.length < 1 + replicas) {
    const redis = parts.use(await startRedis(bench.directory, "always", settings));
    const line = await openLine(urlOf(redis));
    parts.defer(() => line.end());
    servers.push(redis);
    lines.push(line);
  }
  const [primary, ...copies] = servers;
  const ask = (server: number, ...words: string[]) => lines[server]!.ask(command(...words));
  const length = async (lane: string, copy: number) =>
    Number((await ask(1 + copy, "XLEN", lane)).slice(1).trim());
  const owned = parts.move();
  return {
    pid: primary!.pid,
    copyPids: copies.map(({ pid }) => pid),
    begin: async () => {
      for (const server of servers.keys()) {
        await ask(server, "REPLICAOF", "NO", "ONE");
        await ask(server, "FLUSHALL");
      }
    },
    copy: async () => {
      for (const copy of copies.keys()) await ask(1 + copy, "REPLICAOF", "127.0.0.1", String(primary!.port));
    },
    writer: async (lane) => {
      const line = await openLine(urlOf(primary!));
      return {
        write: (number) => line.ask(command("XADD", lane, "*", "data", JSON.stringify(note(number)))),
        [Symbol.dispose]: () => line.end(),
      };
    },
    progress: length,
    count: length,
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

const urlOf = ({ port }: Redis): string => `redis://127.0.0.1:${port}`;
