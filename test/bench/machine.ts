/** Where the figures come from; without this they say nothing. */
import { readFile } from "node:fs/promises";
import { cpus, loadavg, release, totalmem } from "node:os";
import { resolve } from "node:path";
import { devDependencies } from "../../package.json";
import { postgresProgram } from "./postgres.ts";

export interface Machine {
  readonly cpu: string;
  readonly cores: number;
  readonly memoryBytes: number;
  readonly kernel: string;
  readonly bun: string;
  /** Type of the file system that holds the stores. On `tmpfs` a sync costs nothing. */
  readonly fileSystem: string;
  readonly redis: string;
  readonly bullmq: string;
  readonly postgres: string;
  readonly nats: string;
  readonly wrk: string;
  readonly date: string;
  /** Runnable processes before the run: what else this machine had to do. */
  readonly loadAverage: number;
}

export async function describeMachine(directory: string): Promise<Machine> {
  return {
    cpu: cpus()[0]?.model ?? "unknown",
    cores: cpus().length,
    memoryBytes: totalmem(),
    kernel: release(),
    bun: Bun.version,
    fileSystem: await fileSystemOf(resolve(directory)),
    redis: versionOf(["redis-server", "--version"], /v=(\S+)/),
    bullmq: devDependencies.bullmq,
    postgres: versionOf([postgresProgram("postgres") ?? "postgres", "--version"], /(\d\S+)/),
    nats: versionOf(["nats-server", "--version"], /v(\d\S+)/),
    wrk: versionOf(["wrk", "--version"], /^wrk (\S+)/),
    date: new Date().toISOString(),
    loadAverage: loadavg()[0] ?? 0,
  };
}

/** The mount whose path is the longest prefix of the directory. */
async function fileSystemOf(directory: string): Promise<string> {
  const mounts = (await readFile("/proc/mounts", "utf8")).trimEnd().split("\n");
  const holding = mounts
    .map((line) => line.split(" "))
    .filter(([, at = ""]) => at === "/" || directory === at || directory.startsWith(`${at}/`))
    .sort(([, a = ""], [, b = ""]) => a.length - b.length);
  return holding.at(-1)?.[2] ?? "unknown";
}

function versionOf(command: string[], pattern: RegExp): string {
  if (!Bun.which(command[0]!)) return "missing";
  const { stdout, stderr } = Bun.spawnSync(command);
  return pattern.exec(`${stdout}${stderr}`)?.[1] ?? "unknown";
}
