/**
 * The receiving end of systemd's notification protocol: a datagram socket that a service tells its state.
 *
 * Neither Bun nor Node has datagram sockets in the file system, so this one is made with libc.
 */
import { dlopen, FFIType, ptr } from "bun:ffi";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;
const MSG_DONTWAIT = 0x40;
const PATH_BYTES_MAX = 107;
const POLL_MS = 5;

const { i32, i64, u32, u64 } = FFIType;
const pointer = FFIType.ptr;

const open = () =>
  dlopen("libc.so.6", {
    socket: { args: [i32, i32, i32], returns: i32 },
    bind: { args: [i32, pointer, u32], returns: i32 },
    recv: { args: [i32, pointer, u64, i32], returns: i64 },
    close: { args: [i32], returns: i32 },
  }).symbols;

/** One `KEY=value` and when it came. */
export interface Notice {
  readonly text: string;
  /** By `performance.now()`. */
  readonly at: number;
}

export class NotifySocket implements AsyncDisposable {
  /** What `NOTIFY_SOCKET` is set to; `@` in front stands for a socket without a file. */
  readonly path: string;
  readonly #libc = open();
  readonly #socket: number;
  readonly #buffer = Buffer.alloc(4096);
  readonly #received: Notice[] = [];

  constructor(kind: "file" | "abstract" = "file") {
    const name = `topics-notify-${crypto.randomUUID()}`;
    this.path = kind === "file" ? join(tmpdir(), name) : `@${name}`;
    this.#socket = this.#libc.socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (this.#socket < 0) throw new Error("Cannot open a datagram socket");
    const address = addressOf(this.path);
    if (this.#libc.bind(this.#socket, ptr(address), address.length) !== 0)
      throw new Error(`Cannot bind a datagram socket to ${this.path}`);
  }

  /** All that came until now, oldest first; a datagram may hold several lines. */
  received(): Notice[] {
    for (;;) {
      const bytes = Number(
        this.#libc.recv(this.#socket, ptr(this.#buffer), this.#buffer.length, MSG_DONTWAIT),
      );
      if (bytes < 0) return this.#received;
      const at = performance.now();
      const lines = this.#buffer.toString("utf8", 0, bytes).split("\n");
      this.#received.push(...lines.filter((line) => line !== "").map((text) => ({ text, at })));
    }
  }

  /** Waits until something has come `count` times and gives those. */
  async until(text: string, count = 1, deadlineMs = 10_000): Promise<Notice[]> {
    const end = performance.now() + deadlineMs;
    for (;;) {
      const found = this.received().filter((notice) => notice.text === text);
      if (found.length >= count) return found;
      if (performance.now() > end) {
        throw new Error(`no ${count} ${text} in ${deadlineMs} ms: ${JSON.stringify(this.#received)}`);
      }
      await Bun.sleep(POLL_MS);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#libc.close(this.#socket);
    if (!this.path.startsWith("@")) await rm(this.path, { force: true });
  }
}

/** A `sockaddr_un`: the family, then the path; a path without a file begins with a zero byte. */
function addressOf(path: string): Buffer {
  const name = Buffer.from(path.startsWith("@") ? `\0${path.slice(1)}` : `${path}\0`);
  if (name.length > PATH_BYTES_MAX) throw new Error(`${path} is too long for a socket`);
  const family = Buffer.from(new Uint16Array([AF_UNIX]).buffer);
  return Buffer.concat([family, name]);
}
