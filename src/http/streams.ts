/** Open streams: how many there may be, and what all of them may hold for clients that are slow to take it. */
import { ApiError } from "../contract/errors.ts";
import { callOf } from "./call.ts";
import { anybody, type Usage } from "./keys.ts";
import { headers, type Opening, Stream } from "./stream.ts";

/** 0 is no limit. */
export interface StreamLimits {
  readonly streamsMax: number;
  readonly streamsPerKeyMax: number;
  readonly streamBytesMax: number;
}

export class Streams {
  readonly #limits: StreamLimits;
  readonly #unexpected: (error: unknown) => void;
  readonly #shutdown = new AbortController();
  /** Streams whose clients are slow, with what is held for them; the longest waiting one first. */
  readonly #held = new Map<{ cut: () => void }, number>();
  #heldBytes = 0;
  #count = 0;

  /** `unexpected` gets what ends a stream and is no client's doing. */
  constructor(limits: StreamLimits, unexpected: (error: unknown) => void) {
    this.#limits = limits;
    this.#unexpected = unexpected;
  }

  /** Streams and sockets that are open. */
  get count(): number {
    return this.#count;
  }

  /** What is held for slow clients. */
  get heldBytes(): number {
    return this.#heldBytes;
  }

  /** Aborted when all streams must end. */
  get shutdown(): AbortSignal {
    return this.#shutdown.signal;
  }

  /** All streams say their last words and end. */
  end(): void {
    this.#shutdown.abort();
  }

  /** Counts one more, until the function it returns is called. Throws `throttled`. */
  enter(usage: Usage): () => void {
    const { streamsMax, streamsPerKeyMax } = this.#limits;
    if (streamsMax > 0 && this.count >= streamsMax) {
      throw new ApiError("throttled", { limit: "max_sse_connections", max: streamsMax });
    }
    if (usage !== anybody.usage && streamsPerKeyMax > 0 && usage.streams >= streamsPerKeyMax) {
      throw new ApiError("throttled", { limit: "max_sse_connections_per_key", max: streamsPerKeyMax });
    }
    this.#count++;
    usage.streams++;
    let isIn = true;
    return () => {
      if (!isIn) return;
      isIn = false;
      this.#count--;
      usage.streams--;
    };
  }

  /** Answers with what a source yields, as fast as the client takes it. A `HEAD` gets the headers. Throws `throttled`. */
  open<T>(request: Request, opening: Opening<T>): Response {
    if (request.method === "HEAD") return new Response(null, { headers });
    const leave = this.enter(opening.caller.usage);
    const call = callOf(request);
    call.isStream = true;
    const stream: Stream<T> = new Stream(call.received, opening, {
      over: leave,
      hold: (bytes): void => this.hold(stream, bytes),
      unexpected: this.#unexpected,
    });
    return new Response(stream.body, { headers });
  }

  /** Notes what is held for a slow client; 0 when it has taken it. Cuts the slowest ones if that is too much. */
  hold(client: { cut: () => void }, bytes: number): void {
    this.#heldBytes += bytes - (this.#held.get(client) ?? 0);
    this.#held.delete(client);
    if (bytes > 0) this.#held.set(client, bytes);
    const max = this.#limits.streamBytesMax;
    for (const slowest of this.#held.keys()) {
      if (max === 0 || this.#heldBytes <= max) break;
      slowest.cut();
    }
  }
}
