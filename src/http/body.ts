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
    const text = await readText(request, admission);
    if (optional && text === "") return decode("{}");
    if (!request.headers.get("content-type")?.startsWith("application/json")) {
      throw new ApiError("unsupported_media_type", {});
    }
    if (text === undefined) throw invalid("the body is not valid UTF-8");
    return decode(text);
  };
}

/** Undefined for a body that is not UTF-8. */
async function readText(request: Request, admission: Admission): Promise<string | undefined> {
  const length = contentLength(request);
  if (length !== undefined) admission.allowBody(length);
  const coding = request.headers.get("content-encoding")?.trim().toLowerCase() ?? "";
  if (coding === "gzip" || coding === "x-gzip") return inflated(request, admission);
  if (coding !== "" && coding !== "identity") {
    throw new ApiError("unsupported_media_type", {}, "the content encoding must be gzip or identity");
  }
  if (length === undefined) return readChunks(request.body ?? [], request, admission);
  admission.holdBody(request, length);
  return decoded(length < TIMED_BYTES_MIN ? await request.bytes() : await inTime(request.bytes(), length));
}

/** Undefined for a body in chunks, or none. A field that is sent twice comes as "2, 2"; Bun lets only equal ones pass. */
function contentLength(request: Request): number | undefined {
  const field = request.headers.get("content-length");
  return field === null ? undefined : Number.parseInt(field, 10);
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

async function inflated(request: Request, admission: Admission): Promise<string | undefined> {
  if (request.body === null) return "";
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
): Promise<string | undefined> {
  const text = new Utf8Text();
  const start = performance.now();
  let length = 0;
  for await (const chunk of source) {
    admission.holdBody(request, chunk.length);
    text.add(chunk);
    length += chunk.length;
    if (performance.now() - start > patienceMs(length)) throw tooSlow();
  }
  return text.end();
}

const newDecoder = () => new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const wholeTexts = newDecoder();

function decoded(bytes: Uint8Array, decoder = wholeTexts, stream = false): string | undefined {
  try {
    return decoder.decode(bytes, { stream });
  } catch {
    return undefined;
  }
}

/** Text that comes in pieces, whose bytes are needed no more once they are added. */
class Utf8Text {
  readonly #decoder = newDecoder();
  #text: string | undefined = "";

  add(bytes: Uint8Array, isLast = false): void {
    const more = decoded(bytes, this.#decoder, !isLast);
    this.#text = this.#text === undefined || more === undefined ? undefined : this.#text + more;
  }

  /** Undefined if it was not UTF-8. */
  end(): string | undefined {
    this.add(new Uint8Array(), true);
    return this.#text;
  }
}
