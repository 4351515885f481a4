/** What the request target says: path segments and query parameters, by the contract's lenient rules. */
import { invalid } from "../contract/errors.ts";

const utf8 = new TextDecoder("utf-8", { fatal: true });

/** The path as sent, still encoded. Works for absolute and origin-form targets alike. */
export function pathOf(url: string): string {
  const authority = url.startsWith("/") ? -1 : url.indexOf("://");
  const start = authority < 0 ? 0 : url.indexOf("/", authority + 3);
  const query = url.indexOf("?", start);
  return query < 0 ? url.slice(start) : url.slice(start, query);
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

  integer(name: string, otherwise: number): number {
    const value = this.text(name, "");
    return /^[0-9]+$/.test(value) ? Number(value) : otherwise;
  }
}
