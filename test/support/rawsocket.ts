/**
 * Bytes over a TCP connection, for requests that no HTTP client would send and answers that none would show.
 *
 * Text stands for bytes, one character each (Latin-1), in both directions.
 */
import type { Socket } from "bun";

const DEADLINE_MS = 5000;

export interface RawAnswer {
  readonly status: number;
  /** By name in lower case. */
  readonly headers: ReadonlyMap<string, string>;
  readonly body: string;
}

export class RawSocket implements Disposable {
  received = "";
  /** The server has ended or reset the connection. */
  closed = false;
  readonly #socket: Promise<Socket>;
  #unsent = Buffer.alloc(0);
  #changed = Promise.withResolvers<void>();

  /** Connects to the host and port of a base URL, whatever its scheme. */
  constructor(url: string) {
    const { hostname, port } = new URL(url);
    this.#socket = Bun.connect({
      hostname,
      port: Number(port),
      allowHalfOpen: true,
      socket: {
        data: (_, chunk) => {
          this.received += chunk.toString("latin1");
          this.#change();
        },
        drain: (socket) => this.#flush(socket),
        end: () => this.#ended(),
        close: () => this.#ended(),
        error: () => this.#ended(),
      },
    });
  }

  async write(bytes: string | Uint8Array): Promise<void> {
    const socket = await this.#socket;
    const more = typeof bytes === "string" ? Buffer.from(bytes, "latin1") : bytes;
    this.#unsent = Buffer.concat([this.#unsent, more]);
    this.#flush(socket);
  }

  /** Ends the sending side only; what the server still says is received. */
  async halfClose(): Promise<void> {
    (await this.#socket).shutdown();
  }

  /** Resets the connection: whatever was sent and not yet read is lost. */
  async reset(): Promise<void> {
    (await this.#socket).terminate();
  }

  /** Waits until what was received fits or nothing more can come, and gives it. */
  async until(fits: (received: string) => boolean, deadlineMs = DEADLINE_MS): Promise<string> {
    const late = Promise.withResolvers<never>();
    late.promise.catch(() => {});
    const timer = setTimeout(() => {
      late.reject(new Error(`still open after ${deadlineMs} ms, received ${JSON.stringify(this.received)}`));
    }, deadlineMs);
    try {
      await this.#socket;
      while (!this.closed && !fits(this.received)) await Promise.race([this.#changed.promise, late.promise]);
      return this.received;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Waits until the server has closed the connection and gives all that it said. */
  untilClosed(deadlineMs = DEADLINE_MS): Promise<string> {
    return this.until(() => false, deadlineMs);
  }

  [Symbol.dispose](): void {
    this.#socket.then(
      (socket) => socket.terminate(),
      () => {},
    );
  }

  #flush(socket: Socket): void {
    if (this.#unsent.length === 0) return;
    const sent = socket.write(this.#unsent);
    if (sent > 0) this.#unsent = this.#unsent.subarray(sent);
  }

  #ended(): void {
    this.closed = true;
    this.#change();
  }

  #change(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }
}

/** Sends the bytes on a connection of their own and gives all that came back until the server closed it. */
export async function exchange(
  url: string,
  bytes: string | Uint8Array,
  deadlineMs = DEADLINE_MS,
): Promise<string> {
  using socket = new RawSocket(url);
  await socket.write(bytes);
  // Awaited here: the socket lives no longer than this call.
  return await socket.untilClosed(deadlineMs);
}

/**
 * The answers that the text consists of, read as strictly as RFC 9112 has it: a byte too many, a stray line
 * end or a header that is none throws. An answer that is cut off is no answer yet and throws too.
 *
 * `bodiless` says of the n-th answer that it belongs to a HEAD. Interim answers count.
 */
export function answersIn(text: string, bodiless: (index: number) => boolean = () => false): RawAnswer[] {
  const answers: RawAnswer[] = [];
  let rest = text;
  while (rest !== "") {
    const { answer, length } = firstAnswer(rest, bodiless(answers.length));
    answers.push(answer);
    rest = rest.slice(length);
  }
  return answers;
}

/** Whether the text is at least one answer, and no answer in it is cut off. */
export function isAnswer(text: string): boolean {
  try {
    return answersIn(text).length > 0;
  } catch {
    return false;
  }
}

function firstAnswer(text: string, bodiless: boolean): { answer: RawAnswer; length: number } {
  const head = /^HTTP\/1\.[01] ([1-5]\d\d) [^\r\n]*\r\n((?:[!#$%&'*+.^_`|~\w-]+:[^\r\n\0]*\r\n)*)\r\n/.exec(
    text,
  );
  if (!head) throw new Error(`not an answer: ${JSON.stringify(text.slice(0, 500))}`);
  const fields = head[2]!.split("\r\n").slice(0, -1);
  const headers = new Map(
    fields.map((field) => {
      const colon = field.indexOf(":");
      return [field.slice(0, colon).toLowerCase(), field.slice(colon + 1).trim()];
    }),
  );
  if (headers.size < fields.length) throw new Error(`a header twice: ${JSON.stringify(head[0])}`);
  const status = Number(head[1]);
  const none = bodiless || status < 200 || status === 204 || status === 304;
  const { body, length } = none ? { body: "", length: 0 } : bodyIn(text.slice(head[0].length), headers);
  return { answer: { status, headers, body }, length: head[0].length + length };
}

function bodyIn(text: string, headers: ReadonlyMap<string, string>): { body: string; length: number } {
  if (headers.get("transfer-encoding") === "chunked") return chunksIn(text);
  const length = Number(headers.get("content-length") ?? text.length);
  if (text.length < length) throw new Error(`a body of ${length} bytes is cut off at ${text.length}`);
  return { body: text.slice(0, length), length };
}

function chunksIn(text: string): { body: string; length: number } {
  let body = "";
  let at = 0;
  for (;;) {
    const size = /^([0-9a-f]+)\r\n/i.exec(text.slice(at, at + 20));
    if (!size) throw new Error(`not a chunk: ${JSON.stringify(text.slice(at, at + 100))}`);
    const start = at + size[0].length;
    const end = start + Number.parseInt(size[1]!, 16);
    if (text.slice(end, end + 2) !== "\r\n") throw new Error("a chunk is cut off");
    at = end + 2;
    if (end === start) return { body, length: at };
    body += text.slice(start, end);
  }
}
