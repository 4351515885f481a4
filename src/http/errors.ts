/** The one place that catches: every failure becomes the contract's envelope. */
import { ApiError, type ErrorCode, type ErrorDetail } from "../contract/errors.ts";
import { reply } from "./reply.ts";
import { pathOf } from "./target.ts";

const RETRY_AFTER_SECONDS = "1";

/** `unexpected` gets everything that is not an answer to the client, whole. */
export function errorReply(
  request: Request,
  error: unknown,
  unexpected: (error: unknown) => void,
  headers: Record<string, string> = {},
): Response {
  if (!(error instanceof ApiError)) {
    // Who hangs up in the middle of a request hears nothing, and it is no failure of the server.
    if (!request.signal.aborted) unexpected(error);
    return envelope(request, new ApiError("internal", {}), headers);
  }
  return envelope(request, error, { ...headers, ...extraHeaders(error) });
}

function extraHeaders({ status }: ApiError): Record<string, string> {
  if (status === 401) return { "www-authenticate": "Bearer" };
  if (status === 429 || status === 503) return { "retry-after": RETRY_AFTER_SECONDS };
  // The rest of such a body is not worth receiving.
  return status === 408 || status === 413 ? { connection: "close" } : {};
}

function envelope(request: Request, error: ApiError, headers: Record<string, string>): Response {
  const { code, message, status } = error;
  // Feeds have a shape of their own, which says it in words only.
  if (pathOf(request.url).startsWith("/api/"))
    return reply(request, { ok: false, error: message }, { status, headers });
  const detail: ErrorDetail<ErrorCode> = error.detail;
  const told = Object.keys(detail).length > 0 ? { code, message, detail } : { code, message };
  return reply(request, { error: told }, { status, headers });
}
