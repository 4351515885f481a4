/**
 * Tells systemd how the server is doing, where it was started by it.
 *
 * https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
 */
import { dlopen, ptr } from "bun:ffi";
import type { Environment } from "./config.ts";

const AF_UNIX = 1;
const SOCK_DGRAM_CLOEXEC = 2 | 0o2000000;
/** Nobody who does not listen may hold up the server. */
const MSG_DONTWAIT_NOSIGNAL = 0x40 | 0x4000;
/** What fits in an address, with the zero that ends a path. */
const PATH_BYTES_MAX = 107;

export type Notify = (state: "READY=1" | "STOPPING=1" | "WATCHDOG=1") => void;

/** A sender of states to the service manager; it does nothing where there is none. */
export function notifier({ NOTIFY_SOCKET: path }: Environment): Notify {
  const bytes = Buffer.from(path ?? "");
  if (process.platform !== "linux" || !/^[/@]/.test(path ?? "") || bytes.length > PATH_BYTES_MAX)
    return () => {};
  // An abstract socket's name starts with a zero byte and needs none behind it.
  const isAbstract = bytes[0] === 0x40;
  if (isAbstract) bytes[0] = 0;
  const address = Buffer.alloc(2 + bytes.length + (isAbstract ? 0 : 1));
  address.writeUInt16LE(AF_UNIX);
  bytes.copy(address, 2);
  const { symbols } = dlopen("libc.so.6", {
    socket: { args: ["int", "int", "int"], returns: "int" },
    sendto: { args: ["int", "ptr", "usize", "int", "ptr", "u32"], returns: "i64" },
  });
  const socket = symbols.socket(AF_UNIX, SOCK_DGRAM_CLOEXEC, 0);
  return (state) => {
    const message = Buffer.from(state);
    symbols.sendto(socket, ptr(message), message.length, MSG_DONTWAIT_NOSIGNAL, ptr(address), address.length);
  };
}

/** How often systemd wants to hear that the server is alive, in ms: twice as often as it checks. */
export function watchdogMs({ WATCHDOG_USEC, WATCHDOG_PID }: Environment): number | undefined {
  if (WATCHDOG_PID !== undefined && WATCHDOG_PID !== String(process.pid)) return undefined;
  const micros = Number(WATCHDOG_USEC);
  return Number.isSafeInteger(micros) && micros > 0 ? micros / 2000 : undefined;
}
