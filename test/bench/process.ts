/**
 * The processes and the directory of one benchmark run. Both are gone when the run ends, however it
 * ends: normally, by an error, or by Ctrl-C.
 */
import { mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { join } from "node:path";

/** `/proc` counts CPU time in these on every Linux that Bun runs on. */
const TICKS_PER_SECOND = 100;

export interface Output {
  readonly stdout: string;
  readonly exitCode: number;
  readonly cpuSeconds: number;
}

/** Memory of a process in bytes: now, and the most it ever had. */
export interface Memory {
  readonly current: number;
  readonly peak: number;
}

/** Programs that run, and the signal that ends each at once. */
const children = new Map<Bun.Subprocess, NodeJS.Signals>();
/** Temporary directories, and how to remove each: once, however many ask for it. */
const directories = new Map<string, () => Promise<void>>();

/** Resolves when Ctrl-C or the like asks the run to end. */
export function askedToEnd(): Promise<void> {
  const asked = Promise.withResolvers<void>();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(signal, () => asked.resolve());
  return asked.promise;
}

/** Ends every child and removes every directory. */
export async function endEverything(): Promise<void> {
  const running = [...children];
  for (const [child, signal] of running) child.kill(signal);
  await Promise.all(running.map(([child]) => child.exited));
  await Promise.all([...directories.values()].map((remove) => remove()));
}

/**
 * Starts a program that belongs to this run. Its output goes to `log`, or nowhere. `lastSignal` ends it
 * when the run is over; one with children of its own needs another than SIGKILL.
 */
export function start(
  command: string[],
  env: Record<string, string> = {},
  log?: string,
  lastSignal: NodeJS.Signals = "SIGKILL",
): Bun.Subprocess {
  const child = Bun.spawn(command, {
    env: { PATH: process.env.PATH ?? "", ...env },
    stdin: "ignore",
    stdout: log ? Bun.file(log) : "ignore",
    stderr: log ? Bun.file(`${log}.err`) : "ignore",
  });
  return own(child, lastSignal);
}

/** Starts a program whose standard output is the result. */
export function startPiped(
  command: string[],
  input?: Blob,
): Bun.Subprocess<"ignore" | Blob, "pipe", "inherit"> {
  const child = Bun.spawn(command, { stdin: input ?? "ignore", stdout: "pipe", stderr: "inherit" });
  return own(child);
}

/** Waits for the end of a program started with `startPiped`. */
export async function outputOf(child: Bun.Subprocess<"ignore" | Blob, "pipe", "inherit">): Promise<Output> {
  const [stdout, exitCode] = await Promise.all([new Response(child.stdout).text(), child.exited]);
  return { stdout, exitCode, cpuSeconds: Number(child.resourceUsage()?.cpuTime.total ?? 0n) / 1e6 };
}

/** Runs a program to its end; anything but success is an error. */
export async function run(command: string[], input?: Blob): Promise<Output> {
  const output = await outputOf(startPiped(command, input));
  if (output.exitCode !== 0)
    throw new Error(`${command[0]} ended with ${output.exitCode}:\n${output.stdout}`);
  return output;
}

/** Sends a signal to a child and waits for its end. */
export async function end(child: Bun.Subprocess, signal: NodeJS.Signals = "SIGTERM"): Promise<number> {
  child.kill(signal);
  return child.exited;
}

/** A directory of its own below `parent`, removed on disposal. */
export async function temporaryDirectory(
  parent: string,
): Promise<AsyncDisposable & { readonly path: string }> {
  await mkdir(parent, { recursive: true });
  const path = await mkdtemp(join(parent, "topics-bench-"));
  let removed: Promise<void> | undefined;
  const remove = async () => {
    removed ??= rm(path, { recursive: true, force: true });
    await removed;
    directories.delete(path);
  };
  directories.set(path, remove);
  return { path, [Symbol.asyncDispose]: remove };
}

/** CPU time of all threads of a process so far, in seconds. */
export async function cpuSeconds(pid: number): Promise<number> {
  const [own] = await times(pid);
  return own;
}

/** CPU time of a process and of its children, also of those that have ended. */
export async function familyCpuSeconds(pid: number): Promise<number> {
  const [own, ended] = await times(pid);
  const children = (await readFile(`/proc/${pid}/task/${pid}/children`, "utf8")).split(" ").filter(Boolean);
  // A child may end in between; soon its time is among those of the ended ones.
  const running = await Promise.all(children.map((child) => cpuSeconds(Number(child)).catch(() => 0)));
  return running.reduce((sum, one) => sum + one, own + ended);
}

export async function memory(pid: number): Promise<Memory> {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  const bytes = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(status)?.[1]) * 1024;
  return { current: bytes("VmRSS"), peak: bytes("VmHWM") };
}

/** CPU seconds of a process, and of those of its children that have ended. */
async function times(pid: number): Promise<[own: number, ended: number]> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8");
  // The second field is the name in parentheses and may hold spaces; the times are fields 14 to 17.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const [user, system, endedUser, endedSystem] = fields.slice(11, 15).map(Number) as [number, ...number[]];
  return [(user + system!) / TICKS_PER_SECOND, (endedUser! + endedSystem!) / TICKS_PER_SECOND];
}

function own<S extends Bun.Subprocess>(child: S, lastSignal: NodeJS.Signals = "SIGKILL"): S {
  children.set(child, lastSignal);
  child.exited.then(() => children.delete(child));
  return child;
}
