/** Open streams: how many there may be, and what all of them may hold for clients that are slow to take it. */
import { ApiError } from "../contract/errors.ts";
import { callOf } from "./call.ts";
import { anybody, type Caller } from "./keys.ts";
import { headers, type Opening, Stream } from "./stream.ts";
import type { Turns } from "./turns.ts";

/** 0 is no limit. */
export interface StreamLimits {
  readonly streamsMax: number;
  readonly streamsPerKeyMax: number;
  readonly streamBytesMax: number;
}

/** Of those that have become slow within about that time, what they hold decides who is given up. */
const JUST_NOW_MS = 1000;

/** A stream or a socket. */
export interface Open {
  readonly caller: Caller;
  readonly end: (code: string, message: string) => void;
}

/** A stream or a socket whose client is slow. */
export interface Slow {
  /** Gives the client up, with whatever is held for it. */
  cut(): void;
}

export class Streams {
  readonly #limits: StreamLimits;
  readonly #turns: Turns;
  readonly #isCurrent: (caller: Caller) => boolean;
  readonly #now: () => number;
  readonly #unexpected: (error: unknown) => void;
  readonly #shutdown = new AbortController();
  readonly #open = new Set<Open>();
  /** Those whose clients are slow, with what is held for them, and since when. */
  readonly #held = new Map<Slow, { readonly bytes: number; readonly since: number }>();
  #heldBytes = 0;

  /**
   * `isCurrent` tells whether a caller still has the rights it came with; `now` is in ms since the Unix epoch;
   * `unexpected` gets what goes wrong with a stream and is no client's doing.
   */
  constructor(
    limits: StreamLimits,
    turns: Turns,
    isCurrent: (caller: Caller) => boolean,
    now: () => number,
    unexpected: (error: unknown) => void,
  ) {
    this.#limits = limits;
    this.#turns = turns;
    this.#isCurrent = isCurrent;
    this.#now = now;
    this.#unexpected = unexpected;
  }

  /** Streams and sockets that are open. */
  get count(): number {
    return this.#open.size;
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

  /** Ends those whose callers have other rights by now, or none. Who still may comes back. */
  review(): void {
    for (const { caller, end } of this.#open) {
      if (this.#isCurrent(caller)) continue;
      try {
        end("unauthorized", "what the key may do has changed; reconnect");
      } catch (error) {
        this.#unexpected(error);
      }
    }
  }

  /** Counts one more, until the function it returns is called. Throws `unauthorized`, `throttled`. */
  enter(open: Open): () => void {
    // The key may have been taken away while the stream was being made.
    if (!this.#isCurrent(open.caller)) throw new ApiError("unauthorized", {});
    const { usage } = open.caller;
    const { streamsMax, streamsPerKeyMax } = this.#limits;
    if (streamsMax > 0 && this.count >= streamsMax) {
      throw new ApiError("throttled", { limit: "max_sse_connections", max: streamsMax });
    }
    if (usage !== anybody.usage && streamsPerKeyMax > 0 && usage.streams >= streamsPerKeyMax) {
      throw new ApiError("throttled", { limit: "max_sse_connections_per_key", max: streamsPerKeyMax });
    }
    this.#open.add(open);
    usage.streams++;
    return () => {
      if (this.#open.delete(open)) usage.streams--;
    };
  }

  /** Answers with what a source yields, as fast as the client takes it. A `HEAD` gets the headers. Throws as `enter`. */
  open<T>(request: Request, opening: Opening<T>): Response {
    if (request.method === "HEAD") return new Response(null, { headers });
    const end = (code: string, message: string): void => stream.end(code, message);
    const leave = this.enter({ caller: opening.caller, end });
    const call = callOf(request);
    call.isStream = true;
    const stream: Stream<T> = new Stream(call.received, opening, {
      over: leave,
      hold: (client, bytes) => this.hold(client, bytes),
      turn: (request) => this.#turns.take(request),
      unexpected: this.#unexpected,
      now: this.#now,
    });
    return new Response(stream.body, { headers });
  }

  /** Notes what is held for a slow client; 0 when it has taken it. */
  hold(client: Slow, bytes: number): void {
    const held = this.#held.get(client);
    this.#heldBytes += bytes - (held?.bytes ?? 0);
    if (bytes > 0) this.#held.set(client, { bytes, since: held?.since ?? this.#now() });
    else this.#held.delete(client);
    const max = this.#limits.streamBytesMax;
    if (bytes > 0 && max > 0 && this.#heldBytes > max) this.#relieve(max);
  }

  /** Gives up those that hold most for longest. What is alone may hold more. */
  #relieve(max: number): void {
    const now = this.#now();
    const weighed = Array.from(this.#held, ([client, { bytes, since }]) => {
      return { client, weight: bytes * (JUST_NOW_MS + now - since) };
    });
    for (const { client } of weighed.sort((a, b) => b.weight - a.weight)) {
      if (this.#heldBytes <= max || this.#held.size === 1) return;
      client.cut();
    }
  }
}
