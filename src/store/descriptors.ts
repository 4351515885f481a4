/** Files and connections that this process has open. https://man7.org/linux/man-pages/man5/proc_pid_fd.5.html */
import { existsSync, readdirSync, readFileSync } from "node:fs";

const OPEN = "/proc/self/fd";
const LIMITS = "/proc/self/limits";

export interface Descriptors {
  readonly open: number;
  readonly max: number;
}

/** Undefined where the system does not tell. */
export function descriptors(): Descriptors | undefined {
  if (!existsSync(OPEN) || !existsSync(LIMITS)) return undefined;
  const [, max] = /^Max open files +(\d+)/m.exec(readFileSync(LIMITS, "utf8")) ?? [];
  // One of them is the directory that is read here.
  return { open: readdirSync(OPEN).length - 1, max: Number(max ?? Number.POSITIVE_INFINITY) };
}
