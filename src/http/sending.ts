/**
 * Large answers go out as their clients take them. Until then each holds its request's place, and counts among what
 * is held for slow clients; one of which nothing is taken for a minute is given up.
 */
import { STALL_MS } from "../contract/limits.ts";
import { discardSoon } from "./garbage.ts";
import type { Slow, Streams } from "./streams.ts";

/** Smaller ones are left to the connection. */
export const LARGE_ANSWER_BYTES = 256 * 1024;
const PIECE_BYTES = 64 * 1024;

export class Sending implements Slow {
  readonly body: ReadableStream;
  readonly #bytes: Uint8Array;
  readonly #streams: Streams;
  readonly #over: () => void;
  #controller!: ReadableStreamDefaultController<Uint8Array>;
  #sent = 0;
  #isOver = false;
  #stall: Timer | undefined;

  /** `over` is called once, when nothing of it is held any more. */
  constructor(bytes: Uint8Array, streams: Streams, over: () => void) {
    this.#bytes = bytes;
    this.#streams = streams;
    this.#over = over;
    this.body = new ReadableStream(
      {
        start: (controller) => {
          this.#controller = controller;
        },
        pull: () => this.#send(),
        cancel: () => this.#end(),
      },
      new ByteLengthQueuingStrategy({ highWaterMark: PIECE_BYTES }),
    );
  }

  cut(): void {
    if (this.#isOver) return;
    this.#end();
    // Bun prints what is thrown while it asks for a piece.
    setImmediate(() => this.#controller.error(new Error("the client is too slow")));
  }

  #send(): void {
    const piece = this.#bytes.subarray(this.#sent, this.#sent + PIECE_BYTES);
    this.#sent += piece.length;
    this.#controller.enqueue(piece);
    if (this.#sent < this.#bytes.length) {
      this.#wait();
      return;
    }
    this.#end();
    this.#controller.close();
  }

  /** From now on the client is slow, until it takes the next piece. All of the answer is held for it. */
  #wait(): void {
    clearTimeout(this.#stall);
    this.#stall = setTimeout(() => this.cut(), STALL_MS);
    this.#streams.hold(this, 0);
    this.#streams.hold(this, this.#bytes.length);
  }

  #end(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    clearTimeout(this.#stall);
    this.#streams.hold(this, 0);
    discardSoon(this.#bytes.length);
    this.#over();
  }
}
