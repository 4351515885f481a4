/** A small file system of its own for a data directory, to be filled up. It takes the right to mount one. */
import { closeSync, openSync, rmSync, writeSync } from "node:fs";
import { join } from "node:path";
import { temporaryDirectory } from "./spawn.ts";

export interface Disk extends AsyncDisposable {
  /** A data directory on the disk, not made yet. */
  readonly data: string;
  /** Takes all space that is left. */
  fill(): void;
  /** Gives back what `fill` took. */
  free(): void;
  /** Forbids and allows writing. */
  remount(mode: "ro" | "rw"): void;
}

const mount = (path: string, mib: number) =>
  Bun.spawnSync(["mount", "-t", "tmpfs", "-o", `size=${mib}m`, "tmpfs", path]);

const unmount = (path: string) => {
  const { exitCode, stderr } = Bun.spawnSync(["umount", path]);
  if (exitCode !== 0) throw new Error(`Cannot unmount ${path}: ${stderr}`);
};

export async function smallDisk(): Promise<Disk> {
  const dir = await temporaryDirectory();
  const { exitCode, stderr } = mount(dir.path, 48);
  if (exitCode !== 0) throw new Error(`Cannot mount: ${stderr}`);
  const ballast = join(dir.path, "ballast");
  return {
    data: join(dir.path, "data"),
    fill: () => {
      const file = openSync(ballast, "a");
      for (const size of [1 << 20, 1 << 12, 1]) writeUntilFull(file, Buffer.alloc(size, 1));
      closeSync(file);
    },
    free: () => rmSync(ballast),
    remount: (mode) => {
      const { exitCode, stderr } = Bun.spawnSync(["mount", "-o", `remount,${mode}`, dir.path]);
      if (exitCode !== 0) throw new Error(`Cannot remount: ${stderr}`);
    },
    [Symbol.asyncDispose]: async () => {
      unmount(dir.path);
      await dir[Symbol.asyncDispose]();
    },
  };
}

function writeUntilFull(file: number, chunk: Buffer) {
  try {
    while (writeSync(file, chunk) > 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
  }
}

/** Why these tests cannot run here; undefined if they can. */
export async function obstacle(): Promise<string | undefined> {
  await using dir = await temporaryDirectory();
  if (Bun.which("mount") === null) return "there is no mount command";
  const { exitCode, stderr } = mount(dir.path, 1);
  if (exitCode !== 0) return `mounting a tmpfs is not permitted: ${stderr.toString().trim()}`;
  unmount(dir.path);
  return undefined;
}
