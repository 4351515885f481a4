/** Answers: JSON, each with its `performance` block. */

import { callOf } from "./call.ts";

/** Times in ms with fractions, and counts. */
export type Performance = Record<string, number>;

export interface ReplyOptions {
  readonly status?: number;
  readonly headers?: Record<string, string>;
  readonly performance?: Performance;
  /** Time to leave out of `server_total_ms`: waiting that the client has asked for. */
  readonly waitedMs?: number;
}

export function reply(request: Request, body: object, options: ReplyOptions = {}): Response {
  return replyText(request, JSON.stringify(body), options);
}

/** `json` is a JSON object with at least one member. */
export function replyText(request: Request, json: string, options: ReplyOptions = {}): Response {
  const { status = 200, headers, performance: measured, waitedMs = 0 } = options;
  const call = callOf(request);
  call.answerBytes = json.length;
  const block = JSON.stringify({
    server_total_ms: performance.now() - call.arrivedAt - waitedMs,
    ...measured,
  });
  return new Response(`${json.slice(0, -1)},"performance":${block}}`, {
    status,
    headers: { "content-type": "application/json", ...headers },
  });
}
