/** A TCP proxy that cuts its connections in the middle, at the byte it is told. */
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";

interface Cut {
  /** So many bytes still go to clients. */
  left: number;
  readonly how: "end" | "reset";
  readonly done: PromiseWithResolvers<void>;
}

export class TcpProxy implements AsyncDisposable {
  readonly #server: Server;
  readonly #target: { readonly host: string; readonly port: number };
  readonly #sockets = new Set<Socket>();
  #cut: Cut | undefined;

  private constructor(target: string) {
    const { hostname, port } = new URL(target);
    this.#target = { host: hostname, port: Number(port) };
    this.#server = createServer((client) => this.#link(client));
  }

  /** Listens on a port of its own and passes everything on to the host and port of a base URL. */
  static async open(target: string): Promise<TcpProxy> {
    const proxy = new TcpProxy(target);
    proxy.#server.listen(0, "127.0.0.1");
    await once(proxy.#server, "listening");
    return proxy;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /**
   * Lets so many more bytes through to clients, over whichever connections, then destroys both sides of every
   * connection; this is when it resolves. `reset` also takes from the client what it has not read yet.
   */
  cutAfter(bytes: number, how: "end" | "reset" = "end"): Promise<void> {
    const done = Promise.withResolvers<void>();
    this.#cut = { left: bytes, how, done };
    return done.promise;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  #link(client: Socket): void {
    const server = connect(this.#target);
    for (const [from, to] of [
      [client, server],
      [server, client],
    ] as const) {
      this.#sockets.add(from);
      from.setNoDelay(true);
      from.on("drain", () => to.resume());
      from.on("error", () => to.destroy());
      from.on("close", () => {
        this.#sockets.delete(from);
        to.end();
      });
    }
    client.on("data", (chunk) => pass(chunk as Buffer, client, server));
    server.on("data", (chunk) => this.#answer(chunk as Buffer, server, client));
  }

  #answer(chunk: Buffer, server: Socket, client: Socket): void {
    const cut = this.#cut;
    if (cut === undefined || chunk.length < cut.left) {
      if (cut !== undefined) cut.left -= chunk.length;
      pass(chunk, server, client);
      return;
    }
    this.#cut = undefined;
    client.write(chunk.subarray(0, cut.left));
    for (const socket of this.#sockets) cut.how === "reset" ? socket.resetAndDestroy() : socket.destroy();
    cut.done.resolve();
  }
}

/** A side that takes no more holds up the other. */
function pass(chunk: Buffer, from: Socket, to: Socket): void {
  if (!to.write(chunk)) from.pause();
}
