/** Request bodies: bounded, inflated, JSON by content type, valid UTF-8, decoded by their schema. */
import { pipeline, Readable } from "node:stream";
import { createGunzip } from "node:zlib";
import type { Static, TSchema } from "@sinclair/typebox";
import { decoder } from "../contract/decode.ts";
import { ApiError, invalid } from "../contract/errors.ts";
import type { Admission } from "./admission.ts";

const INFLATED_CHUNK_BYTES = 256 * 1024;

/** What a body may take: so long, and longer at this rate. A slower one would hold memory that others need. */
const PATIENCE_MS = 30_000;
const BYTES_PER_MS_MIN = 256;
/** Shorter bodies are as slow as their connection may be. */
const TIMED_BYTES_MIN = 64 * 1024;

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Where no body may stand for `{}`. */
export interface BodyOptions {
  readonly optional?: boolean;
}

/**
 * A reader of request bodies of one schema.
 *
 * Throws `payload_too_large`, `throttled`, `request_timeout`, then `unsupported_media_type`, then `invalid_request`.
 */
export function bodyReader<T extends TSchema>(schema: T, { optional = false }: BodyOptions = {}) {
  const decode = decoder(schema);
  return async (request: Request, admission: Admission): Promise<Static<T>> => {
    const bytes = await readBytes(request, admission);
    if (optional && bytes.length === 0) return decode("{}");
    if (!request.headers.get("content-type")?.startsWith("application/json")) {
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
  const length = request.headers.get("content-length");
  if (length !== null) admission.allowBody(Number(length));
  const coding = request.headers.get("content-encoding")?.trim().toLowerCase() ?? "";
  if (coding === "gzip" || coding === "x-gzip") return inflated(request, admission);
  if (coding !== "" && coding !== "identity") {
    throw new ApiError("unsupported_media_type", {}, "the content encoding must be gzip or identity");
  }
  if (length === null) return readChunks(request.body ?? [], request, admission);
  admission.holdBody(request, Number(length));
  return Number(length) < TIMED_BYTES_MIN ? request.bytes() : inTime(request.bytes(), Number(length));
}

async function inTime<T>(read: Promise<T>, bytes: number): Promise<T> {
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(tooSlow()), patienceMs(bytes));
  try {
    return await Promise.race([read, late]);
  } finally {
    clearTimeout(timer);
  }
}

const patienceMs = (bytes: number): number => PATIENCE_MS + bytes / BYTES_PER_MS_MIN;
const tooSlow = (): ApiError => new ApiError("request_timeout", {});

async function inflated(request: Request, admission: Admission): Promise<Uint8Array> {
  if (request.body === null) return new Uint8Array();
  const gunzip = createGunzip({ chunkSize: INFLATED_CHUNK_BYTES });
  // What goes wrong on the way ends the iteration below.
  pipeline(Readable.fromWeb(request.body as never), gunzip, () => {});
  try {
    return await readChunks(gunzip, request, admission);
  } catch (error) {
    if (error instanceof ApiError) throw error;
    throw invalid("the body is not valid gzip");
  }
}

/** A body of unknown length is given up as soon as it is too long. */
async function readChunks(
  source: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  request: Request,
  admission: Admission,
): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  const start = performance.now();
  let length = 0;
  for await (const chunk of source) {
    admission.holdBody(request, chunk.length);
    chunks.push(chunk);
    length += chunk.length;
    if (performance.now() - start > patienceMs(length)) throw tooSlow();
  }
  return Buffer.concat(chunks);
}
