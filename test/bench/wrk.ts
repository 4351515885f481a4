/** wrk as load generator for HTTP: at full speed, or paced with every latency kept. */
import { join } from "node:path";
import type { Generated } from "./figures.ts";
import { outputOf, run, startPiped } from "./process.ts";

/** Longer than anything measured here may take; wrk counts what exceeds it as failed. */
const TIMEOUT_SECONDS = 120;
/** A paced load ends when asked; this only bounds it if nobody asks. */
const PACED_SECONDS = 3600;

export interface Load {
  readonly script: "append" | "diff" | "report";
  readonly url: string;
  readonly args: readonly (string | number)[];
}

export const appendLoad = (url: string, topic: string, records: number): Load => ({
  script: "append",
  url: `${url}/v0/topics/${topic}`,
  args: [records],
});

export type PageOrder = "hot" | "walk" | "random" | "tail";

export const diffLoad = (
  url: string,
  topic: string,
  order: PageOrder,
  stored: number,
  limit: number,
): Load => ({
  script: "diff",
  url: `${url}/v0/topics/${topic}/diff`,
  args: [order, stored, limit],
});

/** One GET, again and again. */
export const getLoad = (url: string): Load => ({ script: "report", url, args: [] });

/** When a request was sent (milliseconds since the epoch) and how long its answer took. */
export interface Sample {
  readonly at: number;
  readonly latencyMs: number;
}

/** Sends as fast as the answers come, from one thread. A failed request spoils the measurement. */
export async function flood(load: Load, connections: number, seconds: number): Promise<Generated> {
  const output = await run([
    ...["wrk", "-t1", `-c${connections}`, `-d${seconds}s`, "--timeout", `${TIMEOUT_SECONDS}s`],
    ...["-s", join(import.meta.dir, `${load.script}.lua`), load.url, "--", ...load.args.map(String)],
  ]);
  const { failed, ...generated } = lastLine<Omit<Generated, "cpuSeconds"> & { failed: number }>(
    output.stdout,
  );
  if (failed > 0) throw new Error(`${failed} of ${generated.calls} requests to ${load.url} failed`);
  return { ...generated, cpuSeconds: output.cpuSeconds };
}

/** A load with a fixed schedule, running until `stop`, which gives what each request saw. */
export function pace(load: Load, connections: number, intervalMs: number): { stop(): Promise<Sample[]> } {
  const child = startPiped([
    ...[
      "wrk",
      `-t${connections}`,
      `-c${connections}`,
      `-d${PACED_SECONDS}s`,
      "--timeout",
      `${TIMEOUT_SECONDS}s`,
    ],
    ...["-s", join(import.meta.dir, "paced.lua"), load.url, "--"],
    ...[load.script, intervalMs, ...load.args].map(String),
  ]);
  const output = outputOf(child);
  return {
    stop: async () => {
      child.kill("SIGINT");
      const { failed, samples } = lastLine<{ failed: number; samples: number[] }>((await output).stdout);
      if (failed > 0) throw new Error(`${failed} paced requests to ${load.url} failed`);
      return Array.from({ length: samples.length / 2 }, (_, i) => ({
        at: samples[2 * i]!,
        latencyMs: samples[2 * i + 1]!,
      }));
    },
  };
}

function lastLine<T>(stdout: string): T {
  const line = stdout.trimEnd().split("\n").at(-1) ?? "";
  if (!line.startsWith("{")) throw new Error(`wrk gave no figures:\n${stdout}`);
  return JSON.parse(line) as T;
}
