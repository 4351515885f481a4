/** Tokens on the wire: a key, narrowed to some topics for some time. */
import { type Static, Type } from "@sinclair/typebox";
import { OneOf, Small } from "./schema.ts";

const TokenScope = OneOf("read", "write");

export const TokenRequest = Type.Object({
  topics: Type.Array(Type.String()),
  scopes: Type.Optional(Type.Array(TokenScope)),
  ttl_ms: Type.Optional(Small),
});
export type TokenRequest = Static<typeof TokenRequest>;

export const TokenIssued = Type.Object({
  token: Type.String(),
  expires_at: Type.Integer(),
  topics: Type.Array(Type.String()),
  scopes: Type.Array(TokenScope),
});
export type TokenIssued = Static<typeof TokenIssued>;
