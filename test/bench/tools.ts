/** The programs that a run needs beside Bun: found, installed, or missing with a clear word. */
import { postgresProgram } from "./postgres.ts";

export interface Tools {
  readonly wrk: boolean;
  readonly redis: boolean;
  readonly postgres: boolean;
  readonly nats: boolean;
  /** What is left out, in sentences. */
  readonly omitted: string[];
}

/** The Debian packages, and the programs that each is needed for. */
const packages = {
  wrk: { package: "wrk", programs: ["wrk"] },
  redis: { package: "redis-server", programs: ["redis-server", "redis-benchmark", "redis-cli"] },
  postgres: { package: "postgresql", programs: ["postgres", "initdb"] },
  nats: { package: "nats-server", programs: ["nats-server"] },
};
export type Tool = keyof typeof packages;

/** Looks for the programs; as root on a Debian-like system it installs what is missing of the `needed` ones. */
export async function findTools(needed: Tool[], say: (line: string) => void): Promise<Tools> {
  const find = (program: string) => Bun.which(program) ?? postgresProgram(program);
  const isMissing = (tool: Tool) => packages[tool].programs.some((program) => !find(program));
  const missing = needed.filter(isMissing);
  if (missing.length > 0 && process.getuid?.() === 0 && Bun.which("apt-get")) {
    const names = missing.map((tool) => packages[tool].package);
    say(`installing ${names.join(", ")}`);
    const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
    const install = Bun.spawn(["apt-get", "install", "-y", ...names], { env, stdout: 2, stderr: 2 });
    await install.exited;
  }
  const lacks = {
    wrk: "no figures of the server and of the ceiling, no growth, no work, no routers, no feeds",
    redis: "no Redis Streams rows, no Redis Pub/Sub rows, no BullMQ rows",
    postgres: "no PostgreSQL rows",
    nats: "no NATS rows",
  };
  const omitted = needed
    .filter(isMissing)
    .map((tool) => `The package ${packages[tool].package} is missing: ${lacks[tool]}.`);
  return {
    wrk: !isMissing("wrk"),
    redis: !isMissing("redis"),
    postgres: !isMissing("postgres"),
    nats: !isMissing("nats"),
    omitted,
  };
}
