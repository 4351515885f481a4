/**
 * API keys: who is known, and what they may do.
 *
 * An entry is `secret`, `secret:scopes`, `secret:scopes:prefixes` or `secret::prefixes`; entries are separated by
 * commas or line ends. Only the SHA-256 of a secret is kept.
 */
import { createHmac, timingSafeEqual } from "node:crypto";

export type Scope = "read" | "write" | "delete" | "admin";

const all: readonly Scope[] = ["read", "write", "delete", "admin"];

const spellings: ReadonlyMap<string, readonly Scope[]> = new Map(
  Object.entries({
    read: ["read"],
    r: ["read"],
    write: ["write"],
    w: ["write"],
    delete: ["delete"],
    del: ["delete"],
    d: ["delete"],
    admin: ["admin"],
    a: ["admin"],
    rw: ["read", "write"],
  } satisfies Record<string, Scope[]>),
);

/** What a caller holds right now: requests that run, bytes of their bodies, and open streams. */
export interface Usage {
  requests: number;
  bodyBytes: number;
  streams: number;
}

/** What a token leaves of its key's rights. */
export interface Grant {
  /** Names, and prefixes with a final `*`. */
  readonly topics: readonly string[];
  readonly scopes: readonly Scope[];
  /** Ms since the Unix epoch. */
  readonly expiresAt: number;
}

/** Somebody who is served: the holder of one key or of a token made with it, or anybody where no key is asked for. */
export class Caller {
  /** Empty for every name. */
  readonly prefixes: readonly string[];
  readonly usage: Usage;
  readonly #scopes: readonly Scope[];
  readonly #grant: Grant | undefined;

  constructor(scopes: readonly Scope[], prefixes: readonly string[], usage: Usage, grant?: Grant) {
    this.#scopes = scopes;
    this.prefixes = prefixes;
    this.usage = usage;
    this.#grant = grant;
  }

  /** When what it may do ends, in ms since the Unix epoch. */
  get expiresAt(): number | undefined {
    return this.#grant?.expiresAt;
  }

  /** Whether the other one's key, without what a token has narrowed, may do the same. */
  hasRightsOf(other: Caller): boolean {
    return isSame(this.#scopes, other.#scopes) && isSame(this.prefixes, other.prefixes);
  }

  may(scope: Scope): boolean {
    return this.#scopes.includes(scope) && (this.#grant?.scopes.includes(scope) ?? true);
  }

  /** Whether there are names that it may not use. */
  get isRestricted(): boolean {
    return this.prefixes.length > 0 || this.#grant !== undefined;
  }

  mayName(name: string): boolean {
    const isAllowed = this.prefixes.length === 0 || this.prefixes.some((prefix) => name.startsWith(prefix));
    return isAllowed && (this.#grant?.topics.some((topic) => covers(topic, name)) ?? true);
  }

  /** The holder of a token that this one has made. */
  narrowed(grant: Grant): Caller {
    return new Caller(this.#scopes, this.prefixes, this.usage, grant);
  }
}

const isSame = (some: readonly string[], others: readonly string[]): boolean =>
  new Set(some).symmetricDifference(new Set(others)).size === 0;

const covers = (pattern: string, name: string): boolean =>
  pattern.endsWith("*") ? name.startsWith(pattern.slice(0, -1)) : name === pattern;

const unused = (): Usage => ({ requests: 0, bodyBytes: 0, streams: 0 });

/** Without keys, everybody may do everything. */
export const anybody = new Caller(all, [], unused());
/** Where keys are in use, who comes without one to what is open. */
export const nobody = new Caller([], [], unused());

/** A text with entries, and where it comes from. */
export interface KeySource {
  readonly name: string;
  readonly text: string;
}

interface Key {
  readonly digest: Uint8Array;
  readonly caller: Caller;
}

export class Keys {
  readonly #bySource = new Map<string, readonly Key[]>();
  /** What a key is using, by its digest, also while it is taken away. */
  readonly #usages = new Map<string, Usage>();
  #keys: readonly Key[] = [];

  /** Of entries with the same secret the last counts. Throws as `replace` does. */
  constructor(sources: readonly KeySource[]) {
    for (const source of sources) this.replace(source);
  }

  /** Different secrets; 0 turns authentication off. */
  get count(): number {
    return this.#keys.length;
  }

  /**
   * Takes the keys of a source instead of those that it had.
   *
   * Throws if an entry is malformed, and then keeps what it has. The message names its place and never what it holds.
   */
  replace(source: KeySource): void {
    this.#bySource.set(source.name, this.#parse(source));
    const keys = [...this.#bySource.values()].flat();
    this.#keys = [...new Map(keys.map((key) => [hex(key.digest), key])).values()];
  }

  #parse({ name, text }: KeySource): Key[] {
    return entriesOf(text).map(({ entry, place }) => {
      const [secret = "", scopes = "", ...prefixes] = entry.split(":");
      const granted = scopesOf(scopes);
      if (granted === undefined)
        throw new Error(`Cannot use the keys in ${name}: ${place} has no valid scope`);
      const digest = sha256(Buffer.from(secret.trim()));
      return { digest, caller: new Caller(granted, pieces(prefixes.join(":"), "|"), this.#usageOf(digest)) };
    });
  }

  #usageOf(digest: Uint8Array): Usage {
    const usage = this.#usages.get(hex(digest)) ?? unused();
    this.#usages.set(hex(digest), usage);
    return usage;
  }

  /** Who uses that now. */
  holder(usage: Usage): Caller | undefined {
    return this.#using(usage)?.caller;
  }

  #using(usage: Usage): Key | undefined {
    return this.#keys.find(({ caller }) => caller.usage === usage);
  }

  /** Tells a key from others, and nothing about it to who does not know `salt`. Empty where there are no keys. */
  idOf({ usage }: Caller, salt: Uint8Array): string {
    const key = this.#using(usage);
    return key ? idOf(key, salt) : "";
  }

  /** Who has the key of that id. */
  holderOfId(id: string, salt: Uint8Array): Caller | undefined {
    return this.#keys.find((key) => idOf(key, salt) === id)?.caller;
  }

  /** Compares with every key, so that the time tells nothing about them. */
  holderOf(secret: Uint8Array): Caller | undefined {
    const digest = sha256(secret);
    let holder: Caller | undefined;
    for (const key of this.#keys) if (timingSafeEqual(key.digest, digest)) holder = key.caller;
    return holder;
  }
}

const idOf = ({ digest }: Key, salt: Uint8Array): string =>
  createHmac("sha256", salt).update(digest).digest("base64url");

/** With the place that a person finds: a line where there are several. */
function entriesOf(text: string): { entry: string; place: string }[] {
  const lines = text.split("\n");
  return lines.flatMap((line, i) =>
    pieces(line, ",").map((entry, j) => ({
      entry,
      place: lines.length > 1 ? `line ${i + 1}` : `entry ${j + 1}`,
    })),
  );
}

/** All of them for an empty field; undefined if one is not known, or there are only separators. */
function scopesOf(field: string): readonly Scope[] | undefined {
  if (field.trim() === "") return all;
  const named = pieces(field.toLowerCase(), "+").map((name) => spellings.get(name));
  return named.length > 0 && named.every((scopes) => scopes !== undefined) ? named.flat() : undefined;
}

const pieces = (field: string, separator: string): string[] =>
  field
    .split(separator)
    .map((piece) => piece.trim())
    .filter((piece) => piece !== "");

/** What of a secret is kept, and compared in constant time. */
export const sha256 = (bytes: Uint8Array): Uint8Array => Bun.SHA256.hash(bytes) as Uint8Array;

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");
