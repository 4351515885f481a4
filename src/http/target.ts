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
  // Its body is read from the request as it was received: what is made here would keep it from being given up.
  const { method, headers, signal } = request;
  return new Request(`http://localhost${url.slice(start)}`, { method, headers, signal });
}

/**
 * The name in the third segment of `/v0/<kind>/<name>...`, percent-decoded once; "" if there is none. A stray `%`
 * stays as it is.
 */
export function nameIn(request: Request): string {
  const [, version, , name = ""] = pathOf(request.url).split("/", 4);
  return version === "v0" ? decoded(name, "path") : "";
}

/** Throws `invalid_request` for what is not UTF-8. */
function decoded(text: string, where: "path" | "query"): string {
  if (!text.includes("%")) return text;
  const bytes = text
    .split(/(%[0-9A-Fa-f]{2})/)
    .map((part, i) => (i % 2 === 1 ? Buffer.from(part.slice(1), "hex") : Buffer.from(part)));
  try {
    return utf8.decode(Buffer.concat(bytes));
  } catch {
    throw invalid(`the ${where} is not valid UTF-8`);
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

/** The same for feeds: what is repeated or cannot be understood is `invalid_request`. */
export class FeedQuery {
  readonly #query: Query;

  constructor(url: string) {
    const start = url.indexOf("?");
    if (start >= 0) decoded(url.slice(start + 1).replaceAll("+", " "), "query");
    this.#query = new Query(url);
  }

  text(name: string): string | undefined {
    const [value, ...more] = this.#query.all(name);
    if (more.length > 0) throw invalid(`${name} is given twice`);
    return value;
  }

  required(name: string): string {
    return this.text(name) ?? missing(name);
  }

  /** A whole number in decimal digits; what is above `max` is as good as that. */
  clamped(name: string, otherwise: number, max: number): number {
    const value = this.text(name) ?? String(otherwise);
    if (!/^[0-9]+$/.test(value)) throw invalid(`${name}: expected a whole number`);
    return Math.min(Number(value), max);
  }

  /** 0..2^53-1. */
  natural(name: string): number | undefined {
    const value = this.text(name);
    if (value === undefined) return undefined;
    if (!/^[0-9]+$/.test(value) || BigInt(value) > SAFE_INTEGER_MAX) {
      throw invalid(`${name}: expected an integer from 0 to 2^53-1`);
    }
    return Number(value);
  }

  flag(name: string): boolean | undefined {
    const value = this.text(name);
    if (value === undefined) return undefined;
    if (value !== "true" && value !== "false") throw invalid(`${name}: expected true or false`);
    return value === "true";
  }
}

function missing(name: string): never {
  throw invalid(`${name} is required`);
}
