/**
 * Clients of the WebSocket, each with every frame it received as text and parsed.
 *
 * `SocketClient` says commands and waits for what comes back. `RawWebSocket` writes frames by hand, for what no
 * client would send, and can stop reading.
 */
import { connect, type Socket } from "node:net";

const DEADLINE_MS = 5000;

const OPENING_KEY = "dGhlIHNhbXBsZSBub25jZQ==";
/** What the server answers to that key (RFC 6455, section 1.3). */
export const OPENING_ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/** The text of an opening handshake. A header given as undefined is left out. */
export function opening(headers: Record<string, string | undefined> = {}, target = "/v0/ws"): string {
  const fields = {
    Host: "test",
    Connection: "Upgrade",
    Upgrade: "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": OPENING_KEY,
    ...headers,
  };
  const lines = Object.entries(fields).filter(([, value]) => value !== undefined);
  return `GET ${target} HTTP/1.1\r\n${lines.map(([name, value]) => `${name}: ${value}\r\n`).join("")}\r\n`;
}

/** What has come and was not taken yet, in order. */
class Inbox<T> {
  readonly #show: (item: T) => string;
  #items: T[] = [];
  #isClosed = false;
  #changed = Promise.withResolvers<void>();

  /** `show` is for messages of failures. */
  constructor(show: (item: T) => string) {
    this.#show = show;
  }

  push(item: T): void {
    this.#items.push(item);
    this.#change();
  }

  /** Nothing more comes. */
  close(): void {
    this.#isClosed = true;
    this.#change();
  }

  /** Takes the first that fits and leaves the others, as soon as there is one. */
  async take(fits: (item: T) => boolean, deadlineMs: number): Promise<T> {
    let looked = 0;
    const find = () => {
      const at = this.#items.findIndex((item, i) => i >= looked && fits(item));
      looked = this.#items.length;
      return at < 0 ? undefined : { item: this.#items.splice(at, 1)[0]! };
    };
    const end = performance.now() + deadlineMs;
    for (;;) {
      const found = find();
      if (found) return found.item;
      if (this.#isClosed) throw new Error(`the connection has ended, not taken: ${this.#shown()}`);
      if (!(await this.#changes(end)))
        throw new Error(`nothing within ${deadlineMs} ms that fits, but ${this.#shown()}`);
    }
  }

  /** Waits for the end of the connection and takes all. */
  async rest(deadlineMs: number): Promise<T[]> {
    const end = performance.now() + deadlineMs;
    while (!this.#isClosed) {
      if (!(await this.#changes(end))) throw new Error(`still open after ${deadlineMs} ms: ${this.#shown()}`);
    }
    return this.drain();
  }

  drain(): T[] {
    return this.#items.splice(0);
  }

  /** False if nothing changes before the moment. */
  async #changes(end: number): Promise<boolean> {
    const { promise: late, resolve } = Promise.withResolvers<boolean>();
    const timer = setTimeout(() => resolve(false), Math.max(0, end - performance.now()));
    const changed = await Promise.race([this.#changed.promise.then(() => true), late]);
    clearTimeout(timer);
    return changed;
  }

  #shown(): string {
    const shown = this.#items.slice(0, 5).map((item) => this.#show(item).slice(0, 300));
    return `${this.#items.length} of ${shown.join(", ")}`;
  }

  #change(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }
}

export interface Message {
  readonly text: string;
  // biome-ignore lint/suspicious/noExplicitAny: a test looks at whatever came.
  readonly body: any;
}

export interface Ending {
  readonly code: number;
  readonly reason: string;
}

export class SocketClient implements AsyncDisposable {
  readonly #socket: WebSocket;
  readonly #messages = new Inbox<Message>(({ text }) => text);
  readonly #ending = Promise.withResolvers<Ending>();
  #asked = 0;

  private constructor(socket: WebSocket) {
    this.#socket = socket;
    socket.onmessage = ({ data }) => {
      const text = String(data);
      this.#messages.push({ text, body: JSON.parse(text) });
    };
    socket.onclose = ({ code, reason }) => {
      this.#messages.close();
      this.#ending.resolve({ code, reason });
    };
  }

  /** Opens a socket. Rejects if it is refused. */
  static async open(
    url: string,
    headers: Record<string, string> = {},
    tls: { ca?: string } = {},
  ): Promise<SocketClient> {
    const socket = new WebSocket(`${url.replace("http", "ws")}/v0/ws`, { headers, tls });
    const client = new SocketClient(socket);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    socket.onopen = () => resolve();
    socket.onerror = (event) => reject(new Error(`no socket: ${(event as ErrorEvent).message}`));
    await promise;
    return client;
  }

  /** Says something and waits for nothing. */
  say(command: unknown): void {
    this.#socket.send(typeof command === "string" ? command : JSON.stringify(command));
  }

  sayBytes(bytes: Uint8Array<ArrayBuffer>): void {
    this.#socket.send(bytes);
  }

  /** Says a command under a `request_id` of its own, unless it has one, and takes the answer to it. */
  async ask(command: object): Promise<Message["body"]> {
    const asked: object = { request_id: `request ${++this.#asked}`, ...command };
    const { request_id } = asked as { request_id: unknown };
    this.say(asked);
    const answers = ({ body }: Message) =>
      "request_id" in body && Bun.deepEquals(body.request_id, request_id, true);
    return (await this.#messages.take(answers, DEADLINE_MS)).body;
  }

  /** Takes the next message, whatever it is. */
  next(deadlineMs = DEADLINE_MS): Promise<Message> {
    return this.#messages.take(() => true, deadlineMs);
  }

  /** Takes the next `n` messages, as they are. */
  async bodies(n: number, deadlineMs = DEADLINE_MS): Promise<Message["body"][]> {
    const found = [];
    while (found.length < n) found.push((await this.next(deadlineMs)).body);
    return found;
  }

  /** Takes the next message with this `op`. Others before it stay. */
  async take(op: string, deadlineMs = DEADLINE_MS): Promise<Message["body"]> {
    return (await this.#messages.take(({ body }) => body.op === op, deadlineMs)).body;
  }

  /** Everything that came until the server answered a ping, and was not taken. */
  async arrived(): Promise<Message["body"][]> {
    await this.ask({ op: "ping" });
    return this.#messages.drain().map(({ body }) => body);
  }

  /** Waits until the connection has ended. */
  async ended(deadlineMs = DEADLINE_MS): Promise<{ messages: Message[]; ending: Ending }> {
    const messages = await this.#messages.rest(deadlineMs);
    return { messages, ending: await this.#ending.promise };
  }

  async close(): Promise<void> {
    this.#socket.close();
    await this.#ending.promise;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

export const opcodes = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const;

/** A frame as the server sends it. */
export interface RawFrame {
  readonly fin: boolean;
  /** The three reserved bits. */
  readonly reserved: number;
  readonly opcode: number;
  readonly masked: boolean;
  readonly payload: Buffer;
}

export interface FrameOptions {
  /** Default true. */
  readonly fin?: boolean;
  /** The three reserved bits, 4 is the first of them. Default 0. */
  readonly reserved?: number;
  /** Default true. */
  readonly masked?: boolean;
  /** What the header says, whatever the payload is. */
  readonly length?: bigint;
}

const MASK = Buffer.from([0x37, 0xfa, 0x21, 0x3d]);

/** The bytes of one client frame. */
export function frame(opcode: number, payload: string | Uint8Array = "", options: FrameOptions = {}): Buffer {
  const { fin = true, reserved = 0, masked = true } = options;
  const content = Buffer.from(payload as string);
  const length = options.length ?? BigInt(content.length);
  const first = (fin ? 0x80 : 0) | (reserved << 4) | opcode;
  const bit = masked ? 0x80 : 0;
  let header: Buffer;
  if (length < 126n) header = Buffer.from([first, bit | Number(length)]);
  else if (length < 65536n) {
    header = Buffer.from([first, bit | 126, 0, 0]);
    header.writeUInt16BE(Number(length), 2);
  } else {
    header = Buffer.from([first, bit | 127, 0, 0, 0, 0, 0, 0, 0, 0]);
    header.writeBigUInt64BE(length, 2);
  }
  if (!masked) return Buffer.concat([header, content]);
  for (let i = 0; i < content.length; i++) content[i]! ^= MASK[i & 3]!;
  return Buffer.concat([header, MASK, content]);
}

export class RawWebSocket implements Disposable {
  readonly #socket: Socket;
  readonly #frames = new Inbox<RawFrame>(
    ({ opcode, payload }) => `${opcode} ${payload.toString("latin1", 0, 200)}`,
  );
  readonly #opened = Promise.withResolvers<string>();
  readonly #closed = Promise.withResolvers<void>();
  #written = Promise.resolve();
  #chunks: Buffer[] = [];
  #isOpen = false;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on("data", (chunk) => this.#receive(chunk as Buffer));
    socket.on("end", () => this.#frames.close());
    // After a reset there is no `end`.
    socket.on("close", () => {
      this.#frames.close();
      this.#closed.resolve();
      this.#opened.reject(new Error("the connection was closed"));
    });
    socket.on("error", () => {});
    this.#opened.promise.catch(() => {});
  }

  /** Opens a socket. Rejects if it is refused. */
  static async open(url: string, headers: Record<string, string> = {}): Promise<RawWebSocket> {
    const { hostname, port } = new URL(url);
    const raw = new RawWebSocket(connect({ host: hostname, port: Number(port), allowHalfOpen: true }));
    raw.#socket.setNoDelay(true);
    raw.#socket.write(opening(headers));
    const head = await raw.#opened.promise;
    if (!head.startsWith("HTTP/1.1 101 ")) throw new Error(`refused: ${head}`);
    return raw;
  }

  write(bytes: Uint8Array): void {
    this.#written = new Promise((resolve) => {
      this.#socket.write(bytes, () => resolve());
    });
  }

  /** Waits until everything that was written is on its way, or the connection is gone. */
  async written(): Promise<void> {
    await Promise.race([this.#written, this.#closed.promise]);
  }

  /** Writes a command as one text frame. */
  say(command: unknown): void {
    this.write(frame(opcodes.text, typeof command === "string" ? command : JSON.stringify(command)));
  }

  /** Takes the next frame. */
  next(deadlineMs = DEADLINE_MS): Promise<RawFrame> {
    return this.#frames.take(() => true, deadlineMs);
  }

  /** Takes the next frame, which must be a text, and parses it. */
  async body(deadlineMs = DEADLINE_MS): Promise<Message["body"]> {
    const { opcode, payload } = await this.next(deadlineMs);
    if (opcode !== opcodes.text) throw new Error(`a frame with opcode ${opcode}: ${payload.toString("hex")}`);
    return JSON.parse(payload.toString());
  }

  /** Waits until the server has ended the connection and gives the frames that were not taken. */
  rest(deadlineMs = DEADLINE_MS): Promise<RawFrame[]> {
    return this.#frames.rest(deadlineMs);
  }

  /** Reads nothing any more: what the server sends stays in the buffers between the two. */
  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  /** Ends the sending side only. */
  halfClose(): void {
    this.#socket.end();
  }

  /** Resets the connection: whatever was sent and not yet read is lost. */
  reset(): void {
    this.#socket.resetAndDestroy();
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }

  #receive(chunk: Buffer): void {
    this.#chunks.push(chunk);
    if (!this.#isOpen && !this.#open()) return;
    while (this.#parse()) {}
  }

  /** True once the answer to the handshake is complete. */
  #open(): boolean {
    const received = this.#joined();
    const end = received.indexOf("\r\n\r\n");
    if (end < 0) return false;
    this.#isOpen = true;
    this.#chunks = [received.subarray(end + 4)];
    this.#opened.resolve(received.toString("latin1", 0, end));
    return true;
  }

  /** Takes one frame out of what was received; false if it is not complete. */
  #parse(): boolean {
    const received = this.#chunks.reduce((sum, { length }) => sum + length, 0);
    // A long frame comes in many chunks, which are joined when all of them are here.
    const size = sizeOf(this.#chunks[0]!.length < 14 ? this.#joined() : this.#chunks[0]!);
    if (size === undefined || received < size.header + size.payload) return false;
    const bytes = this.#joined();
    this.#frames.push({
      fin: (bytes[0]! & 0x80) > 0,
      reserved: (bytes[0]! >> 4) & 7,
      opcode: bytes[0]! & 15,
      masked: (bytes[1]! & 0x80) > 0,
      payload: bytes.subarray(size.header, size.header + size.payload),
    });
    this.#chunks = [bytes.subarray(size.header + size.payload)];
    return true;
  }

  #joined(): Buffer {
    if (this.#chunks.length !== 1) this.#chunks = [Buffer.concat(this.#chunks)];
    return this.#chunks[0]!;
  }
}

function sizeOf(bytes: Buffer): { header: number; payload: number } | undefined {
  if (bytes.length < 2) return undefined;
  const mask = bytes[1]! & 0x80 ? 4 : 0;
  const short = bytes[1]! & 0x7f;
  if (short < 126) return { header: 2 + mask, payload: short };
  const header = (short === 126 ? 4 : 10) + mask;
  if (bytes.length < header) return undefined;
  return { header, payload: short === 126 ? bytes.readUInt16BE(2) : Number(bytes.readBigUInt64BE(2)) };
}
