/** Where a feed reaches: the spellings that mean the same, and what stays on this instance. */
import { invalid } from "../../contract/errors.ts";

const KIND_AND_ID = /^([^:]*):(.*)$/s;
const DIRECT = /^([^:]+):([^:]+)$/s;

export class Scopes {
  /** Whether only what a reference node knows is a scope. */
  readonly #strict: boolean;

  constructor(strict: boolean) {
    this.#strict = strict;
  }

  /** The one spelling of a scope that may be written to; `what` would be refused. Throws `invalid_request`. */
  writable(hint: string, what: string): string {
    const scope = this.canonical(hint);
    if (scope === undefined) throw invalid(`invalid event: ${what} scope_hint invalid`);
    // What peers tell apart by these cannot hold them.
    if (/^(?:region|group|node):.*[:/]/s.test(scope))
      throw invalid("invalid event: event swarm_scope mismatch");
    return scope;
  }

  /** For reading, which never refuses: what is no scope matches nothing. */
  readable(hint: string): string {
    return this.canonical(hint) ?? hint;
  }

  /** Whether what belongs there never leaves this instance. */
  stays(scope: string): boolean {
    return scope === "local" || (this.#strict && scope === "global");
  }

  /** Undefined for what is no scope. */
  canonical(hint: string): string | undefined {
    const plain = hint.trim().toLowerCase();
    if (plain === "global") return plain;
    if (plain === "local") return this.#strict ? undefined : plain;
    const [, kind = "", rest = ""] = KIND_AND_ID.exec(hint) ?? [];
    const id = rest.trim();
    if (id === "") return undefined;
    switch (kind.trim().toLowerCase()) {
      case "region":
        return `region:${id}`;
      case "group":
        return `group:${id}`;
      case "node":
      case "local":
        return `node:${id}`;
      case "network":
        return this.#strict ? undefined : `network:${id}`;
      case "dm":
        return this.#strict ? undefined : direct(id);
      default:
        return undefined;
    }
  }
}

/** A conversation of two, whoever is named first. */
function direct(id: string): string | undefined {
  const [, first, second] = DIRECT.exec(id) ?? [];
  const ends = [first?.trim() ?? "", second?.trim() ?? ""];
  if (ends.includes("")) return undefined;
  ends.sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  return `dm:${ends.join(":")}`;
}
