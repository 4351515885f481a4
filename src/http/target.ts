/** What the request target says: path segments and query parameters, by the contract's lenient rules. */
import { invalid } from "../contract/errors.ts";
import { SAFE_INTEGER_MAX } from "../contract/limits.ts";

const utf8 = new TextDecoder("utf-8", { fatal: true });

/** The path as sent, still encoded. Bun gives URLs without a host where it finds none. */
export function pathOf(url: string): string {
  const start = pathStart(url);
  const query = url.indexOf("?", start);
  return query < 0 ? url.slice(start) : url.slice(start, query);
}

const pathStart = (url: string): number =>
  url.startsWith("/") ? 0 : url.indexOf("/", url.indexOf("://") + 3);

/** Elysia takes the first slash from here on for the start of the path. */
const HOST_END_MIN = 11;

/**
 * The same request with a URL in which Elysia finds the path. With a short host or none it would find another one,
 * and what is routed must be what is authorized.
 */
export function routable(request: Request): Request {
  const { url } = request;
  const start = pathStart(url);
  if (url.indexOf("/", HOST_END_MIN) === start) return request;
  return new Request(`http://localhost${url.slice(start)}`, request);
}

/**
 * The name in the third segment of `/v0/<kind>/<name>...`, percent-decoded once; "" if there is none. A stray `%`
 * stays as it is.
 */
export function nameIn(request: Request): string {
  const segment = pathOf(request.url).split("/", 4)[3] ?? "";
  if (!segment.includes("%")) return segment;
  const bytes = segment
    .split(/(%[0-9A-Fa-f]{2})/)
    .map((part, i) => (i % 2 === 1 ? Buffer.from(part.slice(1), "hex") : Buffer.from(part)));
  try {
    return utf8.decode(Buffer.concat(bytes));
  } catch {
    throw invalid("the path is not valid UTF-8");
  }
}

/** Query parameters. Of a repeated one the last counts; what cannot be understood is its default. */
export class Query {
  readonly #parameters: URLSearchParams | undefined;

  constructor(url: string) {
    const start = url.indexOf("?");
    this.#parameters = start < 0 ? undefined : new URLSearchParams(url.slice(start + 1));
  }

  all(name: string): string[] {
    return this.#parameters?.getAll(name) ?? [];
  }

  text(name: string, otherwise: string): string {
    return this.all(name).at(-1) ?? otherwise;
  }

  flag(name: string, otherwise: boolean): boolean {
    const value = this.text(name, "");
    if (value === "true" || value === "1") return true;
    return value === "false" || value === "0" ? false : otherwise;
  }

  /** An unsigned integer of so many bits. */
  integer(name: string, otherwise: number, bits = 64): number {
    const value = this.text(name, "");
    return /^[0-9]+$/.test(value) && BigInt(value) < 1n << BigInt(bits) ? Number(value) : otherwise;
  }
}

/** The same for what is no part of the older contract: what cannot be understood is `invalid_request`. */
export class StrictQuery {
  readonly #query: Query;

  constructor(query: Query) {
    this.#query = query;
  }

  flag(name: string): boolean | undefined {
    const value = this.oneOf(name, ["true", "1", "false", "0"]);
    return value === undefined ? undefined : value === "true" || value === "1";
  }

  oneOf(name: string, values: readonly string[]): string | undefined {
    const value = this.#query.all(name).at(-1);
    if (value === undefined || values.includes(value)) return value;
    throw invalid(`${name}: expected one of ${values.join(", ")}`);
  }

  /** An unsigned integer of so many bits; what is above 2^53-1 is as good as that. */
  integer(name: string, bits = 64): number | undefined {
    const value = this.#query.all(name).at(-1);
    if (value === undefined) return undefined;
    if (!/^0*[0-9]{1,20}$/.test(value) || BigInt(value) >= 1n << BigInt(bits)) {
      throw invalid(`${name}: expected an integer from 0 to 2^${bits}-1`);
    }
    return Math.min(Number(value), SAFE_INTEGER_MAX);
  }
}
