/**
 * A client of event streams that keeps every byte.
 *
 * The grammar of the streams is tested byte for byte, so a stream gives its raw blocks, each with the empty line
 * that ends it. Who wants to know what a block says reads events; these leave out comments and `retry`.
 */
import type { ClientHttp2Session, IncomingHttpHeaders } from "node:http2";
import type { Reply } from "./server.ts";

const DEADLINE_MS = 5000;

export interface StreamEvent {
  readonly id: string | undefined;
  readonly event: string;
  /** All `data` lines, joined with LF. */
  readonly data: string;
  // biome-ignore lint/suspicious/noExplicitAny: a test looks at whatever came.
  readonly body: any;
}

export class EventStream implements AsyncDisposable {
  readonly headers: Headers;
  /** All text so far. */
  received = "";
  /** Nothing more comes, whoever ended it. */
  ended = false;
  readonly #hangUp: () => void;
  readonly #pumped: Promise<void>;
  #taken = 0;
  #failure: unknown;
  #closed = false;
  #changed = Promise.withResolvers<void>();

  constructor(headers: Headers, chunks: AsyncIterable<Uint8Array>, hangUp: () => void) {
    this.headers = headers;
    this.#hangUp = hangUp;
    this.#pumped = this.#pump(chunks);
  }

  /** Opens a stream on a connection of its own. Rejects if the answer is no stream. */
  static async open(url: string, path: string, headers: Record<string, string> = {}): Promise<EventStream> {
    const abort = new AbortController();
    const response = await fetch(url + path, { headers, signal: abort.signal });
    if (!isStream(response)) throw new Error(`refused with ${response.status}: ${await response.text()}`);
    return new EventStream(response.headers, response.body!, () => abort.abort());
  }

  /** Opens a stream as one of many on an HTTP/2 connection. */
  static async openOver(session: ClientHttp2Session, path: string): Promise<EventStream> {
    const stream = session.request({ ":method": "GET", ":path": path });
    stream.end();
    const { promise, resolve, reject } = Promise.withResolvers<IncomingHttpHeaders>();
    stream.once("response", resolve);
    stream.once("error", reject);
    const { ":status": status, ...fields } = await promise;
    if (Number(status) !== 200) throw new Error(`refused with ${status}`);
    stream.on("error", () => {});
    const headers = new Headers(Object.entries(fields).map(([name, value]) => [name, `${value}`]));
    return new EventStream(headers, stream, () => stream.close());
  }

  /** The next block. */
  async block(deadlineMs?: number): Promise<string> {
    const end = () => this.received.indexOf("\n\n", this.#taken);
    await this.#until(() => end() >= 0 || this.ended, deadlineMs);
    if (end() < 0) throw new Error(`the stream has ended: ${this.#said()}`);
    const block = this.received.slice(this.#taken, end() + 2);
    this.#taken += block.length;
    return block;
  }

  /** The next block that is an event. */
  async event(deadlineMs?: number): Promise<StreamEvent> {
    for (;;) {
      const event = eventIn(await this.block(deadlineMs));
      if (event) return event;
    }
  }

  async events(n: number): Promise<StreamEvent[]> {
    const found: StreamEvent[] = [];
    while (found.length < n) found.push(await this.event());
    return found;
  }

  /** All events that have come and were not taken yet. */
  async arrived(): Promise<StreamEvent[]> {
    const found: StreamEvent[] = [];
    while (this.received.includes("\n\n", this.#taken)) {
      const event = eventIn(await this.block());
      if (event) found.push(event);
    }
    return found;
  }

  /** Waits until the server has ended the stream in order, and gives what was not taken yet. */
  async rest(deadlineMs?: number): Promise<string> {
    await this.#until(() => this.ended, deadlineMs);
    if (this.#closed || this.#failure) throw new Error(`the stream broke off: ${this.#said()}`);
    return this.received.slice(this.#taken);
  }

  async close(): Promise<void> {
    this.#closed = true;
    if (!this.ended) this.#hangUp();
    await this.#pumped;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #pump(chunks: AsyncIterable<Uint8Array>): Promise<void> {
    const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
    try {
      for await (const chunk of chunks) {
        this.received += decoder.decode(chunk, { stream: true });
        this.#change();
      }
      this.received += decoder.decode();
    } catch (failure) {
      this.#failure = failure;
    }
    this.ended = true;
    this.#change();
  }

  async #until(fits: () => boolean, deadlineMs = DEADLINE_MS): Promise<void> {
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      this.#change();
    }, deadlineMs);
    while (!fits() && !late) await this.#changed.promise;
    clearTimeout(timer);
    if (!fits()) throw new Error(`nothing within ${deadlineMs} ms: ${this.#said()}`);
  }

  #said(): string {
    const failure = this.#failure === undefined ? "" : ` and broke with ${this.#failure}`;
    return `it said ${JSON.stringify(this.received.slice(-2000))}${failure}`;
  }

  #change(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }
}

/** The answer to an attempt to open a stream, whole if it is no stream. One that does open is closed at once. */
export async function attempt(
  url: string,
  path: string,
  headers: Record<string, string> = {},
): Promise<Reply> {
  const abort = new AbortController();
  const response = await fetch(url + path, { headers, signal: abort.signal });
  const streams = isStream(response);
  const text = streams ? "" : await response.text();
  if (streams) abort.abort();
  const json = response.headers.get("content-type")?.startsWith("application/json") && text !== "";
  const body = json ? JSON.parse(text) : undefined;
  return { status: response.status, headers: response.headers, text, body };
}

const isStream = (response: Response) =>
  response.status === 200 && response.headers.get("content-type")?.startsWith("text/event-stream") === true;

/** What a client makes of a block; undefined where it has no `data`. */
export function eventIn(block: string): StreamEvent | undefined {
  // Clients take it for the end of a line, but no line here ends so.
  if (block.includes("\r")) throw new Error(`a carriage return in ${JSON.stringify(block)}`);
  let id: string | undefined;
  let event = "message";
  const data: string[] = [];
  for (const line of block.slice(0, -2).split("\n")) {
    const [, field, value = ""] = /^([^:]*)(?:: ?(.*))?$/s.exec(line)!;
    if (field === "id") id = value;
    if (field === "event") event = value;
    if (field === "data") data.push(value);
  }
  if (data.length === 0) return undefined;
  const text = data.join("\n");
  return { id, event, data: text, body: JSON.parse(text) };
}
