/**
 * HTTP/1.1 with as little work as possible, for loads that share the machine with the server: whole
 * requests as text, one at a time on a connection, answers cut at their length. Texts are ASCII.
 */
import type { Socket } from "bun";

const HEAD_END = "\r\n\r\n";

/** A request as it goes over the wire; one that does not change is built once. */
export function post(path: string, body: string): string {
  const head = `POST ${path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json`;
  return `${head}\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
}

export class Connection implements Disposable {
  readonly #socket: Socket;
  #received = "";
  #answer: PromiseWithResolvers<string> | undefined;

  private constructor(socket: Socket) {
    this.#socket = socket;
  }

  static async open(url: string): Promise<Connection> {
    const connection: Connection = new Connection(
      await connect(url, {
        data: (chunk) => connection.#take(chunk),
        close: () => connection.#answer?.reject(new Error("The server closed a connection that waits")),
      }),
    );
    return connection;
  }

  /** Sends a request and gives the body of the answer. An answer that is no success is an error. */
  send(request: string): Promise<string> {
    this.#answer = Promise.withResolvers();
    write(this.#socket, request);
    return this.#answer.promise;
  }

  [Symbol.dispose](): void {
    this.#answer = undefined;
    this.#socket.terminate();
  }

  #take(chunk: string): void {
    this.#received += chunk;
    const headEnd = this.#received.indexOf(HEAD_END);
    if (headEnd < 0) return;
    const head = this.#received.slice(0, headEnd);
    const bodyStart = headEnd + HEAD_END.length;
    const length = Number(/\r\ncontent-length: *(\d+)/i.exec(head)?.[1]);
    if (this.#received.length < bodyStart + length) return;
    const body = this.#received.slice(bodyStart);
    this.#received = "";
    const answer = this.#answer;
    this.#answer = undefined;
    if (succeeded(head) && body.length === length) answer?.resolve(body);
    else answer?.reject(new Error(`The server answered\n${head}\n\n${body}`));
  }
}

/** A GET whose answer does not end. */
export class Stream implements Disposable {
  readonly #socket: Socket;
  readonly #take: (text: string) => void;
  #head = "";
  #rest = "";

  private constructor(socket: Socket, take: (text: string) => void) {
    this.#socket = socket;
    this.#take = take;
  }

  /** Connects; nothing is asked yet. `fail` hears of a refusal and of an end. */
  static async open(
    url: string,
    take: (text: string) => void,
    fail: (error: Error) => void,
  ): Promise<Stream> {
    const stream: Stream = new Stream(
      await connect(url, {
        data: (chunk) => {
          const refusal = stream.#hear(chunk);
          if (refusal) fail(new Error(`The server answered\n${refusal}`));
        },
        close: () => fail(new Error("The server ended a stream")),
      }),
      take,
    );
    return stream;
  }

  get(path: string): void {
    write(this.#socket, `GET ${path} HTTP/1.1\r\nHost: bench\r\nAccept: text/event-stream\r\n\r\n`);
  }

  [Symbol.dispose](): void {
    this.#socket.terminate();
  }

  /** Gives what came instead of a chunked answer. */
  #hear(chunk: string): string | undefined {
    this.#rest += chunk;
    if (this.#head === "") {
      const headEnd = this.#rest.indexOf(HEAD_END);
      if (headEnd < 0) return undefined;
      this.#head = this.#rest.slice(0, headEnd);
      if (!succeeded(this.#head) || !/\r\ntransfer-encoding: *chunked/i.test(this.#head)) return this.#rest;
      this.#rest = this.#rest.slice(headEnd + HEAD_END.length);
    }
    const text = this.#unwrap();
    if (text !== "") this.#take(text);
    return undefined;
  }

  /** Takes complete chunks off what was received: their length in hexadecimal, a line end, the text, a line end. */
  #unwrap(): string {
    let text = "";
    let at = 0;
    for (;;) {
      const lineEnd = this.#rest.indexOf("\r\n", at);
      if (lineEnd < 0) break;
      const end = lineEnd + 2 + Number.parseInt(this.#rest.slice(at, lineEnd), 16);
      if (this.#rest.length < end + 2) break;
      text += this.#rest.slice(lineEnd + 2, end);
      at = end + 2;
    }
    this.#rest = this.#rest.slice(at);
    return text;
  }
}

const succeeded = (head: string) => head.startsWith("HTTP/1.1 2");

function connect(url: string, on: { data(chunk: string): void; close(): void }): Promise<Socket> {
  const { hostname, port } = new URL(url);
  const socket = {
    data: (_: Socket, chunk: Buffer) => on.data(chunk.toString("latin1")),
    close: () => on.close(),
  };
  return Bun.connect({ hostname, port: Number(port), socket });
}

/** What is sent here fits into the buffer of a connection on which nothing else is on the way. */
function write(socket: Socket, request: string): void {
  if (socket.write(request) !== request.length) throw new Error("A request did not fit into its connection");
}
