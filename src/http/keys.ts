/**
 * API keys: who is known, and what they may do.
 *
 * An entry is `secret`, `secret:scopes`, `secret:scopes:prefixes` or `secret::prefixes`; entries are separated by
 * commas or line ends. Only the SHA-256 of a secret is kept.
 */
import { timingSafeEqual } from "node:crypto";

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
  /** A digest of the digest. */
  readonly id: string;
  readonly caller: Caller;
}

export class Keys {
  #keys: readonly Key[];

  /** Throws if an entry is malformed. The message names its place and never what it holds. */
  constructor(sources: readonly KeySource[]) {
    this.#keys = parse(sources, []);
  }

  /** Different secrets; 0 turns authentication off. */
  get count(): number {
    return this.#keys.length;
  }

  /** Takes other keys from now on. Throws as the constructor does, and then keeps what it has. */
  replace(sources: readonly KeySource[]): void {
    this.#keys = parse(sources, this.#keys);
  }

  /** Who uses that now. */
  holder(usage: Usage): Caller | undefined {
    return this.#using(usage)?.caller;
  }

  #using(usage: Usage): Key | undefined {
    return this.#keys.find(({ caller }) => caller.usage === usage);
  }

  /** Tells a key from others and nothing about it. Empty where there are no keys. */
  idOf({ usage }: Caller): string {
    return this.#using(usage)?.id ?? "";
  }

  /** Who has the key of that id. */
  holderOfId(id: string): Caller | undefined {
    return this.#keys.find((key) => key.id === id)?.caller;
  }

  /** Compares with every key, so that the time tells nothing about them. */
  holderOf(secret: Uint8Array): Caller | undefined {
    const digest = sha256(secret);
    let holder: Caller | undefined;
    for (const key of this.#keys) if (timingSafeEqual(key.digest, digest)) holder = key.caller;
    return holder;
  }
}

/** Of entries with the same secret the last counts. A secret that was `known` keeps what it is using. */
function parse(sources: readonly KeySource[], known: readonly Key[]): Key[] {
  const usages = new Map(known.map(({ digest, caller }) => [hex(digest), caller.usage]));
  const keys = new Map<string, Key>();
  for (const { name, text } of sources) {
    entriesOf(text).forEach((entry, i) => {
      const [secret = "", scopes = "", ...prefixes] = entry.split(":");
      const granted = scopesOf(scopes);
      if (granted === undefined)
        throw new Error(`Cannot use the keys in ${name}: entry ${i + 1} has no valid scope`);
      const digest = sha256(Buffer.from(secret.trim()));
      const usage = usages.get(hex(digest)) ?? unused();
      const caller = new Caller(granted, pieces(prefixes.join(":"), "|"), usage);
      keys.set(hex(digest), { digest, id: hex(sha256(digest)), caller });
    });
  }
  return [...keys.values()];
}

const entriesOf = (text: string): string[] => pieces(text.replaceAll("\n", ","), ",");

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
