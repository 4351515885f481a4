/** Talking to a server by its base URL, and which server that is. */

export type Target = "process" | "source" | "binary";

export const target = (process.env.TOPICS_TEST_TARGET ?? "process") as Target;

/** One answer, with its body as text and, where it is JSON, parsed. */
export interface Reply {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  // biome-ignore lint/suspicious/noExplicitAny: a test looks at whatever came back.
  readonly body: any;
}

export interface TestServer extends AsyncDisposable {
  /** `http://127.0.0.1:<port>`, without a trailing slash. */
  readonly url: string;
  /**
   * Sends one request. An object is sent as JSON; a string or bytes are sent as they are. Both carry
   * `content-type: application/json` unless `headers` says otherwise (`"content-type": ""` omits it).
   */
  send(method: string, path: string, body?: unknown, headers?: Record<string, string>): Promise<Reply>;
}

export async function send(
  url: string,
  method: string,
  path: string,
  body?: unknown,
  headers: Record<string, string> = {},
): Promise<Reply> {
  const sent = new Headers();
  const raw = typeof body === "string" || body instanceof Uint8Array || body instanceof ReadableStream;
  if (body !== undefined) sent.set("content-type", "application/json");
  for (const [name, value] of Object.entries(headers))
    value === "" ? sent.delete(name) : sent.set(name, value);
  const response = await fetch(url + path, {
    method,
    headers: sent,
    redirect: "manual",
    ...(body === undefined ? {} : { body: (raw ? body : JSON.stringify(body)) as string }),
  });
  const text = await response.text();
  const json = response.headers.get("content-type")?.startsWith("application/json") && text !== "";
  return {
    status: response.status,
    headers: response.headers,
    text,
    body: json ? JSON.parse(text) : undefined,
  };
}
