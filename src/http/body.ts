/** Request bodies: bounded, JSON by content type, valid UTF-8, decoded by their schema. */
import type { Static, TSchema } from "@sinclair/typebox";
import { decoder } from "../contract/decode.ts";
import { ApiError, invalid } from "../contract/errors.ts";

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Where no body may stand for `{}`. */
export interface BodyOptions {
  readonly optional?: boolean;
}

/**
 * A reader of request bodies of one schema.
 *
 * Throws `payload_too_large`, then `unsupported_media_type`, then `invalid_request`.
 */
export function bodyReader<T extends TSchema>(schema: T, { optional = false }: BodyOptions = {}) {
  const decode = decoder(schema);
  return async (request: Request, bytesMax: number): Promise<Static<T>> => {
    const bytes = await readBytes(request, bytesMax);
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

async function readBytes(request: Request, bytesMax: number): Promise<Uint8Array> {
  const length = request.headers.get("content-length");
  if (length === null) return readChunks(request, bytesMax);
  if (Number(length) > bytesMax) throw new ApiError("payload_too_large", {});
  return request.bytes();
}

/** A body without a length is given up as soon as it is too long. */
async function readChunks(request: Request, bytesMax: number): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of request.body ?? []) {
    length += chunk.length;
    if (length > bytesMax) throw new ApiError("payload_too_large", {});
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
