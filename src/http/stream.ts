/** One stream of server-sent events, from its first byte to its end. */
import { ApiError } from "../contract/errors.ts";
import { STALL_MS } from "../contract/limits.ts";
import type { Caller } from "./keys.ts";
import { heartbeat, retry, utf8 } from "./sse.ts";

export const headers = {
  "content-type": "text/event-stream",
  "cache-control": "no-store",
  "x-accel-buffering": "no",
};

/** So much is encoded ahead of a client. What comes beyond waits for it. */
const AHEAD_BYTES = 16 * 1024;

/** Items that come now or later. An asynchronous generator is one. */
export interface Source<T> {
  /** The next item, now or later. Undefined if it will be given to `deliver`. */
  next(
    deliver: (result: IteratorResult<T, void>) => void,
  ): IteratorResult<T, void> | Promise<IteratorResult<T, void>> | undefined;
  return(end: undefined): unknown;
}

export interface Opening<T> {
  /** Whose streams it counts among. */
  readonly caller: Caller;
  readonly heartbeatMs: number;
  /** Its signal says that the client has left. */
  readonly source: (left: AbortSignal) => Source<T>;
  readonly spell: (item: T) => Uint8Array;
  /** An event that says why the stream ends before its source does. */
  readonly ending: (code: string, message: string) => string;
}

export interface StreamEvents {
  /** The stream is over. Called once. */
  readonly over: () => void;
  /** So many bytes are held for the client; 0 when it has taken them. */
  readonly hold: (client: { cut: () => void }, bytes: number) => void;
  /** Resolves when there is time for the first items, at once if undefined; rejects if the client has left by then. */
  readonly turn: (request: Request) => Promise<void> | undefined;
  readonly unexpected: (error: unknown) => void;
  /** Ms since the Unix epoch. */
  readonly now: () => number;
}

export class Stream<T> {
  readonly body: ReadableStream;
  readonly #request: Request;
  readonly #opening: Opening<T>;
  readonly #events: StreamEvents;
  readonly #left = new AbortController();
  readonly #items: Source<T>;
  #controller!: ReadableStreamDefaultController<Uint8Array>;
  #isOpen = true;
  #sentAt = 0;
  #beat: Timer | undefined;
  #expiry: Timer | undefined;
  /** Called when the client has taken what was ahead of it. */
  #room: (() => void) | undefined;
  #askAgain = (): void => {};

  /** `request` as Bun knows it. */
  constructor(request: Request, opening: Opening<T>, events: StreamEvents) {
    this.#request = request;
    this.#opening = opening;
    this.#events = events;
    this.#items = opening.source(this.#left.signal);
    this.body = new ReadableStream(
      {
        start: (controller) => {
          this.#controller = controller;
          this.#begin();
        },
        pull: () => this.#pulled(),
        cancel: () => this.#leave(),
      },
      new ByteLengthQueuingStrategy({ highWaterMark: AHEAD_BYTES }),
    );
  }

  /** There is room. As long as nobody waits for some, Bun is not to ask again behind every item. */
  #pulled(): Promise<void> {
    this.#room?.();
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#askAgain = resolve;
    return promise;
  }

  /** Gives the client up, with whatever is held for it. */
  cut(): void {
    if (!this.#isOpen) return;
    this.#leave();
    this.#controller.error(new Error("the client is too slow"));
  }

  #begin(): void {
    const { signal } = this.#request;
    this.#send(retry);
    if (signal.aborted) {
      this.#leave();
      return;
    }
    signal.addEventListener("abort", this.#leave);
    this.#beat = setTimeout(this.#checkBeat, this.#opening.heartbeatMs);
    const { expiresAt } = this.#opening.caller;
    if (expiresAt !== undefined) {
      const end = () => this.end("unauthorized", "the token has expired");
      this.#expiry = setTimeout(end, Math.max(0, expiresAt - this.#events.now()));
    }
    // Not while the stream is being made.
    const turn = this.#events.turn(this.#request) ?? Promise.resolve();
    turn.then(() => this.#pumpSafely(), this.#leave);
  }

  /** Sends what there is, until the client has enough or there is nothing more for now. */
  #pump(): void {
    while (this.#isOpen) {
      const coming = this.#items.next(this.#deliver);
      if (coming === undefined) return;
      if (coming instanceof Promise) {
        coming.then(this.#deliver, this.#fail);
        return;
      }
      if (!this.#take(coming)) return;
    }
  }

  readonly #deliver = (result: IteratorResult<T, void>): void => {
    try {
      if (this.#take(result)) this.#pump();
    } catch (error) {
      this.#fail(error);
    }
  };

  readonly #fail = (error: unknown): void => {
    if (!this.#isOpen) return;
    if (!(error instanceof ApiError)) this.#events.unexpected(error);
    try {
      this.end("internal", "internal error");
    } catch {
      this.#leave();
    }
  };

  /** Sends one item. False if the client has enough, or the stream is over. */
  #take({ value, done }: IteratorResult<T, void>): boolean {
    if (!this.#isOpen) return false;
    if (done) {
      this.#close();
      this.#controller.close();
      return false;
    }
    const bytes = this.#opening.spell(value);
    this.#send(bytes);
    if (!this.#isOpen) return false;
    if (this.#controller.desiredSize! > 0) return true;
    this.#untilTaken(bytes.length).then(() => this.#pumpSafely());
    return false;
  }

  #pumpSafely(): void {
    try {
      this.#pump();
    } catch (error) {
      this.#fail(error);
    }
  }

  #send(bytes: Uint8Array): void {
    this.#controller.enqueue(bytes);
    this.#sentAt = performance.now();
  }

  /** Waits until the client has taken what was sent. One that takes too long is cut. */
  async #untilTaken(bytes: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#room = resolve;
    this.#askAgain();
    this.#events.hold(this, bytes);
    const stall = setTimeout(
      () => this.end("slow_consumer", "the client takes too long; reconnect"),
      STALL_MS,
    );
    await promise;
    this.#room = undefined;
    clearTimeout(stall);
    if (this.#isOpen) this.#events.hold(this, 0);
  }

  /** A sign of life, unless there was one. The timer runs on by itself, so that events need not touch it. */
  readonly #checkBeat = (): void => {
    const { heartbeatMs } = this.#opening;
    const quietMs = performance.now() - this.#sentAt;
    const isDue = quietMs >= heartbeatMs && this.#room === undefined;
    if (isDue) this.#send(heartbeat);
    this.#beat = setTimeout(this.#checkBeat, quietMs >= heartbeatMs ? heartbeatMs : heartbeatMs - quietMs);
  };

  /** Ends the stream behind what the client has not taken yet. */
  end(code: string, message: string): void {
    if (!this.#isOpen) return;
    this.#send(utf8(this.#opening.ending(code, message)));
    this.#leave();
    this.#controller.close();
  }

  readonly #leave = (): void => {
    if (!this.#isOpen) return;
    this.#left.abort();
    // A source that rests between two items would never know.
    Promise.resolve(this.#items.return(undefined)).catch(() => {});
    this.#close();
  };

  #close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    clearTimeout(this.#beat);
    clearTimeout(this.#expiry);
    this.#request.signal.removeEventListener("abort", this.#leave);
    this.#room?.();
    this.#events.hold(this, 0);
    this.#events.over();
  }
}
