/** Answers in gzip, for clients that ask for it and answers that are worth it. */
import { promisify } from "node:util";
import { constants, gzip } from "node:zlib";

const BYTES_MIN = 1024;

/** In the thread pool, so that a large answer keeps nobody waiting. */
export const gzipped = promisify(gzip);

/** The answer in gzip, if it is a text of some length. Streams are never compressed. */
export async function compressed(response: Response): Promise<Response> {
  if (!isText(response) || response.headers.has("content-encoding")) return response;
  const bytes = await response.bytes();
  const { status } = response;
  const headers = new Headers(response.headers);
  if (bytes.length < BYTES_MIN) return new Response(bytes, { status, headers });
  headers.set("content-encoding", "gzip");
  headers.append("vary", "accept-encoding");
  const packed = await gzipped(bytes, { level: constants.Z_BEST_SPEED });
  return new Response(packed, { status, headers });
}

/** Whether the client names `gzip` or `*` with a weight above 0. */
export function acceptsGzip(request: Request): boolean {
  const header = request.headers.get("accept-encoding");
  if (!header) return false;
  const weights = new Map(
    header.split(",").map((item) => {
      const [coding = "", ...parameters] = item.split(";").map((part) => part.trim().toLowerCase());
      const weight = parameters.find((parameter) => parameter.startsWith("q="))?.slice(2);
      return [coding, Number(weight ?? 1)];
    }),
  );
  return (weights.get("gzip") ?? weights.get("*") ?? 0) > 0;
}

const isText = ({ headers }: Response): boolean =>
  /^(?:application\/json|text\/plain)/.test(headers.get("content-type") ?? "");
