/** The spelling of server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html */
import { ApiError } from "../contract/errors.ts";
import { RETRY_MS } from "../contract/limits.ts";

const encoder = new TextEncoder();

export function utf8(text: string): Uint8Array {
  return encoder.encode(text);
}

/** What every stream says first: how long a client waits before it connects again. */
export const retry = utf8(`retry: ${RETRY_MS}\n\n`);

/** A sign of life. */
export const heartbeat = utf8(": : hb\n\n");

/** One event. `data` may have line breaks, which clients put together again. */
export function event(name: string, data: string, id?: string | number): string {
  const lines = /[\r\n]/.test(data) ? data.split(/\r\n|\r|\n/).join("\ndata: ") : data;
  return `${id === undefined ? "" : `id: ${id}\n`}event: ${name}\ndata: ${lines}\n\n`;
}

/** Throws `not_acceptable`. As lenient as clients are: the names anywhere in the header, or none. */
export function allowEvents(request: Request): void {
  const accept = request.headers.get("accept") ?? "";
  if (accept === "" || accept.includes("text/event-stream") || accept.includes("*/*")) return;
  throw new ApiError("not_acceptable", {});
}
