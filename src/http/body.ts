/** Request bodies: bounded in size and time, inflated, JSON by content type, valid UTF-8, decoded by their schema. */
import { pipeline, Readable } from "node:stream";
import { createGunzip } from "node:zlib";
import type { Static, TSchema } from "@sinclair/typebox";
import { decoder } from "../contract/decode.ts";
import { ApiError, invalid } from "../contract/errors.ts";
import { BODY_BYTES_PER_MS_MIN, BODY_PATIENCE_MS } from "../contract/limits.ts";
import type { Admission } from "./admission.ts";
import { callOf } from "./call.ts";
import { discard } from "./garbage.ts";
import { Gathering } from "./gathering.ts";

const INFLATED_CHUNK_BYTES = 256 * 1024;

/** Shorter bodies are as slow as their connection may be. */
const TIMED_BYTES_MIN = 64 * 1024;

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** What no body means: a request without a content type, or that of `{}`, or an invalid one whatever its type. */
export interface BodyOptions {
  readonly empty?: "untyped" | "default" | "invalid";
}

/**
 * A reader of request bodies of one schema.
 *
 * Throws `payload_too_large`, `throttled`, `request_timeout`, then `unsupported_media_type`, then `invalid_request`.
 */
export function bodyReader<T extends TSchema>(schema: T, { empty = "untyped" }: BodyOptions = {}) {
  const decode = decoder(schema);
  return async (request: Request, admission: Admission): Promise<Static<T>> => {
    const bytes = await readBytes(request, admission);
    if (bytes.length === 0 && empty === "default") return decode("{}");
    if (bytes.length === 0 && empty === "invalid") throw invalid("a JSON body is needed");
    if (!request.headers.get("content-type")?.startsWith("application/json")) {
      throw new ApiError("unsupported_media_type", {});
    }
    return decode(toText(bytes));
  };
}

/** A media type that is JSON, and its parameters. */
const ANY_JSON = /^application\/(?:[^\s;/]+\+)?json[ \t]*(?:;|$)/i;

/** A reader of bodies of at most so many bytes, of any JSON type, which `decode` makes something of. */
export function anyJsonReader<T>(decode: (text: string) => T, bytesMax: number) {
  return async (request: Request, admission: Admission): Promise<T> => {
    callOf(request).bodyBytesMax = bytesMax;
    const bytes = await readBytes(request, admission);
    if (!ANY_JSON.test(request.headers.get("content-type") ?? "")) {
      throw new ApiError("unsupported_media_type", {});
    }
    return decode(toText(bytes));
  };
}

function toText(bytes: Uint8Array): string {
  try {
    return utf8.decode(bytes);
  } catch {
    throw invalid("the body is not valid UTF-8");
  }
}

async function readBytes(request: Request, admission: Admission): Promise<Uint8Array> {
  // Bun takes the body, and then refuses a message that goes on behind it.
  if (request.headers.has("trailer")) throw invalid("trailers are not taken");
  const length = contentLength(request);
  if (length !== undefined) admission.allowBody(request, length);
  const coding = request.headers.get("content-encoding")?.trim().toLowerCase() ?? "";
  if (coding === "gzip" || coding === "x-gzip")
    return readPieces(inflated(request, admission), request, admission);
  if (coding !== "" && coding !== "identity") {
    throw new ApiError("unsupported_media_type", {}, "the content encoding must be gzip or identity");
  }
  if (length === undefined || length >= TIMED_BYTES_MIN)
    return readPieces(received(request, admission), request, admission, length);
  const bytes = await callOf(request).received.bytes();
  admission.holdBody(request, bytes.length);
  return bytes;
}

/** Undefined for a body in chunks, or none. A field that is sent twice comes as "2, 2"; Bun lets only equal ones pass. */
function contentLength(request: Request): number | undefined {
  const field = request.headers.get("content-length");
  return field === null ? undefined : Number.parseInt(field, 10);
}

/** Counts pieces as they come, so that what is announced and does not come keeps nobody else out. */
async function readPieces(
  pieces: AsyncIterable<Uint8Array>,
  request: Request,
  admission: Admission,
  bytesMax = admission.bodyBytesMaxOf(request),
): Promise<Uint8Array> {
  const bytes = new Gathering(bytesMax);
  for await (const piece of pieces) {
    admission.holdBody(request, piece.length);
    bytes.add(piece);
  }
  // The pieces.
  discard(bytes.length);
  return bytes.end();
}

/** What comes in, not more of it than a body may hold, and not slower than it may be. */
async function* received(request: Request, admission: Admission): AsyncGenerator<Uint8Array> {
  const reader = callOf(request).received.body?.getReader();
  if (reader === undefined) return;
  const start = performance.now();
  let length = 0;
  let isLate = false;
  const giveUp = () => reader.cancel().catch(() => {});
  const check = () => {
    const leftMs = start + BODY_PATIENCE_MS + length / BODY_BYTES_PER_MS_MIN - performance.now();
    isLate = leftMs <= 0;
    if (isLate) giveUp();
    else timer = setTimeout(check, leftMs);
  };
  let timer = setTimeout(check, BODY_PATIENCE_MS);
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (isLate) throw new ApiError("request_timeout", {});
      if (done) return;
      length += value.length;
      admission.allowBody(request, length);
      yield value;
    }
  } finally {
    clearTimeout(timer);
    // Nobody waits for what is refused.
    giveUp();
  }
}

async function* inflated(request: Request, admission: Admission): AsyncGenerator<Uint8Array> {
  const gunzip = createGunzip({ chunkSize: INFLATED_CHUNK_BYTES });
  // What goes wrong on the way ends the iteration below.
  pipeline(Readable.from(received(request, admission)), gunzip, () => {});
  try {
    yield* gunzip;
  } catch (error) {
    throw error instanceof ApiError ? error : invalid("the body is not valid gzip");
  }
}
