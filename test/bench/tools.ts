/** The programs that a run needs beside Bun: found, installed, or missing with a clear word. */

export interface Tools {
  readonly wrk: boolean;
  readonly redis: boolean;
  /** What is left out, in sentences. */
  readonly omitted: string[];
}

const packages = { wrk: ["wrk"], redis: ["redis-server", "redis-benchmark", "redis-cli"] };

/** Looks for wrk and Redis; as root on a Debian-like system it installs what is missing. */
export async function findTools(say: (line: string) => void): Promise<Tools> {
  const isMissing = (name: keyof typeof packages) => packages[name].some((program) => !Bun.which(program));
  const missing = (["wrk", "redis"] as const).filter(isMissing);
  if (missing.length > 0 && process.getuid?.() === 0 && Bun.which("apt-get")) {
    const names = missing.map((name) => packages[name][0]!);
    say(`installing ${names.join(", ")}`);
    const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
    const install = Bun.spawn(["apt-get", "install", "-y", ...names], { env, stdout: 2, stderr: 2 });
    await install.exited;
  }
  const wrk = !isMissing("wrk");
  const redis = !isMissing("redis");
  const omitted: string[] = [];
  if (!wrk)
    omitted.push(
      "wrk is missing (package wrk): no figures of the server and of the ceiling, no growth, no work.",
    );
  if (!redis) omitted.push("Redis is missing (package redis-server): no Redis Streams rows.");
  return { wrk, redis, omitted };
}
