/** Routers on the wire: definition, state, lists. */
import { type Static, Type } from "@sinclair/typebox";
import { FullTagFilter, TagFilter } from "./records.ts";
import { Nullable, OneOf, OptionalNullable } from "./schema.ts";

/** What a restart may do to copies: `at_least_once` may repeat some, `exactly_once` stamps them and repeats none. */
export const Guarantee = OneOf("at_least_once", "exactly_once");
export type Guarantee = Static<typeof Guarantee>;

/** A router as asked for: what is left out has its default. */
export const RouterInput = Type.Object({
  source: Type.String(),
  dest: Type.String(),
  preserve_node: Type.Optional(Type.Boolean()),
  preserve_tag: Type.Optional(Type.Boolean()),
  create_dest: Type.Optional(Type.Boolean()),
  filter: OptionalNullable(TagFilter),
  allow_cycle: Type.Optional(Type.Boolean()),
  guarantee: Type.Optional(Guarantee),
});
export type RouterInput = Static<typeof RouterInput>;

/** What a router does: every field present. */
export const RouterSettings = Type.Object({
  source: Type.String(),
  dest: Type.String(),
  preserve_node: Type.Boolean(),
  preserve_tag: Type.Boolean(),
  filter: Nullable(FullTagFilter),
  allow_cycle: Type.Boolean(),
  guarantee: Guarantee,
});
export type RouterSettings = Static<typeof RouterSettings>;

/** Answer of `PUT /v0/routers/:router`. */
export const RouterPut = Type.Object({
  router: Type.String(),
  created: Type.Boolean(),
  ...RouterSettings.properties,
});
export type RouterPut = Static<typeof RouterPut>;

/** Answer of `GET /v0/routers/:router`. */
export const RouterState = Type.Object({
  router: Type.String(),
  ...RouterSettings.properties,
  forwarded_total: Type.Integer(),
});
export type RouterState = Static<typeof RouterState>;

export const RouterSummary = Type.Object({
  router: Type.String(),
  source: Type.String(),
  dest: Type.String(),
  guarantee: Guarantee,
  forwarded_total: Type.Integer(),
});

export const RouterList = Type.Object({
  routers: Type.Array(RouterSummary),
  next_cursor: Type.Optional(Type.String()),
});
export type RouterList = Static<typeof RouterList>;

export const RouterDeleted = Type.Object({
  router: Type.String(),
  deleted: Type.Boolean(),
});
export type RouterDeleted = Static<typeof RouterDeleted>;
