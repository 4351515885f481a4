/**
 * Tokens: a key narrowed to some topics, for some time, so that no key has to reach a browser.
 *
 * They are JSON Web Tokens (RFC 7519), signed with a secret of this data directory, so nothing is stored for them and
 * they outlive a restart. A token names its key: it can do no more than that, and is of no use while that is away.
 */
import { jwtVerify, SignJWT } from "jose";
import { ApiError, invalid } from "../contract/errors.ts";
import {
  TOKEN_TOPIC,
  TOKEN_TOPICS_MAX,
  TOKEN_TTL_MS_DEFAULT,
  TOKEN_TTL_MS_MAX,
  TOKEN_TTL_MS_MIN,
} from "../contract/limits.ts";
import type { TokenIssued, TokenRequest } from "../contract/tokens.ts";
import type { Caller, Grant, Keys } from "./keys.ts";

const ALGORITHM = "HS256";

export class Tokens {
  readonly #keys: Keys;
  readonly #secret: Uint8Array;
  readonly #now: () => number;

  constructor(keys: Keys, secret: Uint8Array, now: () => number) {
    this.#keys = keys;
    this.#secret = secret;
    this.#now = now;
  }

  /** Throws `invalid_request`, `forbidden` if the caller may not do that itself. */
  async issue(
    caller: Caller,
    { topics, scopes = ["read"], ttl_ms = TOKEN_TTL_MS_DEFAULT }: TokenRequest,
  ): Promise<TokenIssued> {
    if (topics.length === 0 || topics.length > TOKEN_TOPICS_MAX) {
      throw invalid(`topics: 1 to ${TOKEN_TOPICS_MAX} are needed`);
    }
    if (scopes.length === 0) throw invalid("scopes: at least one is needed");
    if (ttl_ms < TOKEN_TTL_MS_MIN || ttl_ms > TOKEN_TTL_MS_MAX) {
      throw invalid(`ttl_ms: from ${TOKEN_TTL_MS_MIN} to ${TOKEN_TTL_MS_MAX}`);
    }
    if (!scopes.every((scope) => caller.may(scope))) {
      throw new ApiError("forbidden", {}, "the API key lacks a scope that the token asks for");
    }
    const unusable = topics.find((topic) => !TOKEN_TOPIC.test(topic));
    if (unusable !== undefined)
      throw invalid(`topics: "${unusable}" is no name, and no prefix with a final *`);
    const foreign = topics.find((topic) => !caller.mayName(topic.replace(/\*$/, "")));
    if (foreign !== undefined) throw new ApiError("forbidden", { topic: foreign });
    const expires_at = this.#now() + ttl_ms;
    const grant: Grant = { topics, scopes, expiresAt: expires_at };
    const token = await new SignJWT({ ...grant })
      .setProtectedHeader({ alg: ALGORITHM })
      .setSubject(this.#keys.idOf(caller, this.#secret))
      .setExpirationTime(Math.ceil(expires_at / 1000))
      .sign(this.#secret);
    return { token, expires_at, topics, scopes };
  }

  /** Who shows that token, if it is one of ours that still holds. */
  async holderOf(token: string): Promise<Caller | undefined> {
    const claims = await jwtVerify<Grant>(token, this.#secret, {
      algorithms: [ALGORITHM],
      currentDate: new Date(this.#now()),
    }).catch(() => undefined);
    if (claims === undefined || claims.payload.expiresAt <= this.#now()) return undefined;
    return this.#keys.holderOfId(claims.payload.sub!, this.#secret)?.narrowed(claims.payload);
  }
}
