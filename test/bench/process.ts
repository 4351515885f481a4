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

const children = new Set<Bun.Subprocess>();
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
  for (const child of running) child.kill("SIGKILL");
  await Promise.all(running.map((child) => child.exited));
  await Promise.all([...directories.values()].map((remove) => remove()));
}

/** Starts a program that belongs to this run. Its output goes to `log`, or nowhere. */
export function start(command: string[], env: Record<string, string> = {}, log?: string): Bun.Subprocess {
  const child = Bun.spawn(command, {
    env: { PATH: process.env.PATH ?? "", ...env },
    stdin: "ignore",
    stdout: log ? Bun.file(log) : "ignore",
    stderr: log ? Bun.file(`${log}.err`) : "ignore",
  });
  return own(child);
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
  const stat = await readFile(`/proc/${pid}/stat`, "utf8");
  // The second field is the name in parentheses and may hold spaces; user and system time are 14 and 15.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

export async function memory(pid: number): Promise<Memory> {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  const bytes = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(status)?.[1]) * 1024;
  return { current: bytes("VmRSS"), peak: bytes("VmHWM") };
}

function own<S extends Bun.Subprocess>(child: S): S {
  children.add(child);
  child.exited.then(() => children.delete(child));
  return child;
}
