/** PostgreSQL on a cluster of its own, gone with the run. */
import { join } from "node:path";
import { SQL } from "bun";
import { freePort } from "../support/spawn.ts";
import { end, run, start, temporaryDirectory } from "./process.ts";

const USER = "topics";

export interface Postgres extends AsyncDisposable {
  readonly url: string;
  /** The process whose children serve the connections. */
  readonly pid: number;
}

/** Debian keeps the programs of each version in a directory of its own, out of the PATH. */
export function postgresProgram(name: string): string | undefined {
  const found = Bun.which(name);
  if (found) return found;
  const versions = new Bun.Glob(`*/bin/${name}`);
  const root = "/usr/lib/postgresql";
  try {
    return [...versions.scanSync({ cwd: root, absolute: true })].toSorted().at(-1);
  } catch {
    return undefined;
  }
}

/** PostgreSQL at its best for this work: all of it in memory, and no checkpoint while it is measured. */
export async function startPostgres(parent: string, synchronousCommit: "off" | "on"): Promise<Postgres> {
  const directory = await temporaryDirectory(parent);
  const data = join(directory.path, "data");
  const port = freePort();
  // PostgreSQL refuses to run as root; its package brings a user.
  const isRoot = process.getuid?.() === 0;
  const asUser = isRoot ? ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"] : [];
  if (isRoot) await run(["chown", "postgres:postgres", directory.path]);
  const initdb = [postgresProgram("initdb")!, "-D", data, "--auth=trust", `--username=${USER}`, "--no-sync"];
  await run([...asUser, ...initdb, "--encoding=UTF8", "--locale=C"]);
  const settings = {
    listen_addresses: "127.0.0.1",
    port,
    unix_socket_directories: "",
    synchronous_commit: synchronousCommit,
    shared_buffers: "512MB",
    max_wal_size: "8GB",
  };
  const args = Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`]);
  const log = join(directory.path, "log");
  // An immediate shutdown: it needs no checkpoint, and ends the processes of the connections.
  const child = start([...asUser, postgresProgram("postgres")!, "-D", data, ...args], {}, log, "SIGQUIT");
  const dispose = async () => {
    if (child.exitCode === null && child.signalCode === null) await end(child, "SIGQUIT");
    await directory[Symbol.asyncDispose]();
  };
  const url = `postgres://${USER}@127.0.0.1:${port}/postgres`;
  while (!(await answers(url))) {
    if (child.exitCode !== null) {
      const output = await Bun.file(`${log}.err`).text();
      await dispose();
      throw new Error(`postgres ended before it listened:\n${output}`);
    }
    await Bun.sleep(20);
  }
  return { url, pid: child.pid, [Symbol.asyncDispose]: dispose };
}

async function answers(url: string): Promise<boolean> {
  const sql = new SQL(url, { max: 1 });
  try {
    await sql`SELECT 1`;
    return true;
  } catch {
    return false;
  } finally {
    await sql.close();
  }
}
