/** Open streams: how many there may be, and what holds for each from its first byte to its end. */
import { ApiError } from "../contract/errors.ts";
import { callOf } from "./call.ts";
import type { Caller } from "./keys.ts";

/** 0 is no limit. */
export interface StreamLimits {
  readonly streamsMax: number;
  readonly streamsPerKeyMax: number;
}

const headers = {
  "content-type": "text/event-stream",
  "cache-control": "no-store",
  "x-accel-buffering": "no",
};

const utf8 = new TextEncoder();

export class Streams {
  readonly #limits: StreamLimits;
  readonly #shutdown = new AbortController();
  #count = 0;

  constructor(limits: StreamLimits) {
    this.#limits = limits;
  }

  /** Streams that are open. */
  get count(): number {
    return this.#count;
  }

  /** Aborted when all streams must end. */
  get shutdown(): AbortSignal {
    return this.#shutdown.signal;
  }

  /** All streams say their last words and end. */
  end(): void {
    this.#shutdown.abort();
  }

  /**
   * Answers with what `source` yields, a text at a time as fast as the client takes it. Its signal says that the
   * client has left. A `HEAD` gets the headers.
   *
   * Throws `not_acceptable`; then what `allow` does; then `throttled`.
   */
  open(request: Request, allow: () => void, source: (left: AbortSignal) => AsyncGenerator<string>): Response {
    if (!acceptsEvents(request)) throw new ApiError("not_acceptable", {});
    allow();
    if (request.method === "HEAD") return new Response(null, { headers });
    const { caller, admitted } = callOf(request);
    this.#allow(caller, admitted);
    const left = new AbortController();
    const texts = source(left.signal);
    let isOpen = true;
    this.#count++;
    caller.usage.streams++;
    const close = () => {
      if (!isOpen) return;
      isOpen = false;
      this.#count--;
      caller.usage.streams--;
      request.signal.removeEventListener("abort", leave);
    };
    const leave = () => {
      left.abort();
      // A generator that rests between two texts would never know.
      texts.return(undefined).catch(() => {});
      close();
    };
    if (request.signal.aborted) leave();
    else request.signal.addEventListener("abort", leave);
    const pull = async (controller: ReadableStreamDefaultController<Uint8Array>) => {
      const { value, done } = await texts.next().catch((error) => {
        close();
        throw error;
      });
      if (left.signal.aborted) return;
      if (!done) controller.enqueue(utf8.encode(value));
      else {
        close();
        controller.close();
      }
    };
    return new Response(new ReadableStream({ pull, cancel: leave }), { headers });
  }

  #allow({ usage }: Caller, hasKey: boolean): void {
    const { streamsMax, streamsPerKeyMax } = this.#limits;
    if (streamsMax > 0 && this.count >= streamsMax) {
      throw new ApiError("throttled", { limit: "max_sse_connections", max: streamsMax });
    }
    if (hasKey && streamsPerKeyMax > 0 && usage.streams >= streamsPerKeyMax) {
      throw new ApiError("throttled", { limit: "max_sse_connections_per_key", max: streamsPerKeyMax });
    }
  }
}

/** As lenient as clients are: the names anywhere in the header, or none. */
function acceptsEvents(request: Request): boolean {
  const accept = request.headers.get("accept") ?? "";
  return accept === "" || accept.includes("text/event-stream") || accept.includes("*/*");
}
