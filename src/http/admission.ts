/**
 * Who is let in, and how much at a time: keys first, then the limits on what one key and all together may hold.
 * Decided before a request is routed and before its body is read.
 */
import { ApiError } from "../contract/errors.ts";
import { type Call, callOf } from "./call.ts";
import { discardSoon } from "./garbage.ts";
import { anybody, type Caller, type Keys, nobody } from "./keys.ts";
import { pathOf, Query } from "./target.ts";
import type { Tokens } from "./tokens.ts";
import type { Turns } from "./turns.ts";

export interface AdmissionLimits {
  /** Requests that one key may have running. 0 is no limit. */
  readonly requestsPerKeyMax: number;
  /** Bytes of one body, after inflating. */
  readonly bodyBytesMax: number;
  /** Bytes of memory that all bodies together may take. 0 is no limit. */
  readonly bodyMemoryMax: number;
}

export interface AdmissionOptions {
  readonly keys: Keys;
  readonly tokens: Tokens;
  readonly turns: Turns;
  readonly limits: AdmissionLimits;
  /** Whether health and readiness need a key, too. */
  readonly probeAuth: boolean;
  /** Whether feeds need none. */
  readonly feedPublic: boolean;
}

/** A body is there as bytes and as text, and so are the values in it. */
const MEMORY_FACTOR = 3;

const PROBES = new Set(["/healthz", "/readyz", "/v0/health", "/v0/ready"]);
/** Holds no data. A browser opens it before it can present a key. */
const DOCUMENTATION = /^\/swagger(?:\/|$)/;
const FEEDS = /^\/api\/topic\//;
const PEERS = /^\/api\/peer\/(?:status|events|backfill)$/;
/** Streams that a browser opens, which cannot send headers there. */
const TOKEN_PATHS = /^\/v0\/(?:(watch)\/[^/]+|topics\/[^/]+\/(?:work|stream))$/;

export class Admission {
  readonly #keys: Keys;
  readonly #tokens: Tokens;
  readonly #limits: AdmissionLimits;
  readonly #probeAuth: boolean;
  readonly #feedPublic: boolean;
  readonly #turns: Turns;
  #draining = false;
  #requests = 0;
  #bodyBytes = 0;

  constructor({ keys, tokens, turns, limits, probeAuth, feedPublic }: AdmissionOptions) {
    this.#keys = keys;
    this.#tokens = tokens;
    this.#turns = turns;
    this.#limits = limits;
    this.#probeAuth = probeAuth;
    this.#feedPublic = feedPublic;
  }

  /** Requests that run, and bytes of bodies that they hold. */
  get load(): { readonly requests: number; readonly bodyBytes: number } {
    return { requests: this.#requests, bodyBytes: this.#bodyBytes };
  }

  /** What the body of a request may hold. */
  bodyBytesMaxOf(request: Request): number {
    return Math.min(this.#limits.bodyBytesMax, callOf(request).bodyBytesMax);
  }

  get draining(): boolean {
    return this.#draining;
  }

  /** No further request is let in. */
  drain(): void {
    this.#draining = true;
  }

  /** To be undone by `leave`. */
  enter(): void {
    this.#requests++;
  }

  /** Finds out who shows a token, which takes a moment. Comes before `admit`. */
  async recognize(request: Request): Promise<void> {
    const token = this.#keys.count > 0 ? presentedBy(request)?.token : undefined;
    if (token) callOf(request).tokenHolder = await this.#tokens.holderOf(token);
  }

  /** Throws `shutting_down`, `unauthorized`, `throttled`. */
  admit(request: Request): void {
    if (this.#draining) throw new ApiError("shutting_down", {});
    if (this.#keys.count === 0) return;
    const call = callOf(request);
    const path = pathOf(request.url);
    // Peers show something else, where their requests are carried out.
    if (PEERS.test(path) || (this.#feedPublic && FEEDS.test(path))) return;
    if (this.#isOpen(path)) {
      call.caller = nobody;
      return;
    }
    const secret = presentedBy(request)?.secret;
    const caller = (secret && this.#keys.holderOf(secret)) ?? call.tokenHolder;
    if (caller === undefined) {
      // Whether there is such a session comes before whose it is.
      call.caller = nobody;
      if (isWatchStream(request)) return;
      throw new ApiError("unauthorized", {});
    }
    const max = this.#limits.requestsPerKeyMax;
    if (max > 0 && caller.usage.requests >= max) {
      throw new ApiError("throttled", { limit: "max_inflight_per_key", max });
    }
    call.caller = caller;
    call.admitted = true;
    caller.usage.requests++;
  }

  /** Whether a caller may still do what it might when it was let in: keys may have been read again. */
  isCurrent(caller: Caller): boolean {
    return caller === anybody || (this.#keys.holder(caller.usage)?.hasRightsOf(caller) ?? false);
  }

  /**
   * To be awaited before work that takes long: until there is time for it beside other requests.
   *
   * Throws if the client has left by then.
   */
  turn(request: Request): Promise<void> | undefined {
    return this.#turns.take(callOf(request).received);
  }

  leave({ caller, admitted, bodyBytes }: Call): void {
    this.#requests--;
    this.#bodyBytes -= bodyBytes;
    caller.usage.bodyBytes -= bodyBytes;
    if (admitted) caller.usage.requests--;
    discardSoon(bodyBytes);
  }

  /** Throws `payload_too_large` for a body of that many bytes. */
  allowBody(request: Request, bytes: number): void {
    if (bytes > this.bodyBytesMaxOf(request)) throw new ApiError("payload_too_large", {});
  }

  /**
   * Lets a request hold `bytes` more of its body. What is alone is always let in, and one key leaves half to others.
   *
   * Throws `payload_too_large`, `throttled`.
   */
  holdBody(request: Request, bytes: number): void {
    const call = callOf(request);
    const { bodyMemoryMax: max } = this.#limits;
    const bytesMax = max / MEMORY_FACTOR;
    this.allowBody(request, call.bodyBytes + bytes);
    const { usage } = call.caller;
    const isFull = (held: number, most: number) => most > 0 && held > call.bodyBytes && held + bytes > most;
    if (isFull(this.#bodyBytes, bytesMax) || (call.admitted && isFull(usage.bodyBytes, bytesMax / 2))) {
      throw new ApiError("throttled", { limit: "max_body_memory_bytes", max });
    }
    call.bodyBytes += bytes;
    usage.bodyBytes += bytes;
    this.#bodyBytes += bytes;
  }

  #isOpen(path: string): boolean {
    return (!this.#probeAuth && PROBES.has(path)) || DOCUMENTATION.test(path);
  }
}

/** What a request shows: the bytes of a secret, which as a parameter may also be a token. */
interface Presented {
  readonly secret: Uint8Array;
  readonly token?: string;
}

function presentedBy(request: Request): Presented | undefined {
  const header = request.headers.get("authorization") ?? "";
  const token = header.startsWith("Bearer ") ? undefined : tokenIn(request);
  if (token) return { secret: Buffer.from(token), token };
  const secret = bearerIn(request);
  return secret && { secret };
}

/** The secret that the header of a request shows (RFC 6750, 2.1), in time that grows with its length only. */
export function bearerIn(request: Request): Uint8Array | undefined {
  const header = request.headers.get("authorization") ?? "";
  let start = "bearer".length;
  if (header.slice(0, start).toLowerCase() !== "bearer" || !isBlank(header, start)) return undefined;
  let end = header.length;
  while (isBlank(header, start)) start++;
  while (end > start && isBlank(header, end - 1)) end--;
  // Header values are bytes, one a character.
  return end > start ? Buffer.from(header.slice(start, end), "latin1") : undefined;
}

const isBlank = (text: string, i: number): boolean => text[i] === " " || text[i] === "\t";

/** The parameter of a stream, where a browser cannot send the header. */
function tokenIn(request: Request): string | undefined {
  const path = streamPath(request);
  return path ? new Query(request.url).all("token").at(path[1] === "watch" ? -1 : 0) : undefined;
}

const streamPath = (request: Request): RegExpExecArray | null =>
  /^(?:GET|HEAD)$/.test(request.method) ? TOKEN_PATHS.exec(pathOf(request.url)) : null;

const isWatchStream = (request: Request): boolean => streamPath(request)?.[1] === "watch";
