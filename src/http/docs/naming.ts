/** Gives the shapes of the contract their names in the document, and words to what types cannot say of their fields. */
import type { TObject, TSchema } from "@sinclair/typebox";
import { measured, Performance } from "../../contract/performance.ts";
import { type JsonSchema, toJsonSchema } from "./schema.ts";

/** A field's description, alone or with further keywords. */
export type Words = string | JsonSchema;

export type FieldWords<T extends TObject> = { readonly [Field in keyof T["properties"]]: Words };

/** By what a copy of a shape, such as its optional form, shares with it. */
const named = new Map<object, string>();

const keyOf = (schema: TSchema): object => schema.properties ?? schema;

/** `components/schemas` of the document. */
export const schemas: Record<string, JsonSchema> = {};

/** Gives a shape its name in the document. */
export function name(schema: TSchema, as: string, words: Words): void {
  schemas[as] = { ...toJsonSchema(schema, reference), ...keywords(words) };
  named.set(keyOf(schema), as);
}

/** The reference to a named shape. */
export function ref(schema: TSchema): JsonSchema {
  const $ref = reference(schema);
  if ($ref === undefined) throw new TypeError("a shape of the document has no name");
  return { $ref };
}

const reference = (schema: TSchema): string | undefined =>
  named.has(keyOf(schema)) ? `#/components/schemas/${named.get(keyOf(schema))}` : undefined;

const keywords = (words: Words): JsonSchema =>
  typeof words !== "string" ? words : words === "" ? {} : { description: words };

/** Names an object, with words for every field. */
export function object<T extends TObject>(schema: T, as: string, words: Words, fields: FieldWords<T>): void {
  name(schema, as, words);
  const properties = { ...(schemas[as]!.properties as Record<string, JsonSchema>) };
  for (const [field, said] of Object.entries<Words>(fields)) {
    properties[field] = { ...properties[field], ...keywords(said) };
  }
  schemas[as] = { ...schemas[as], properties };
}

/** The body of an answer: what the engine says, and what it cost. */
export function answer<T extends TObject>(
  schema: T,
  as: string,
  words: Words,
  fields: FieldWords<T>,
  performance: TObject = Performance,
): void {
  object(measured(schema, performance), as, words, { ...fields, performance: "What this answer cost." });
  named.set(keyOf(schema), as);
}

/** A number that is never negative. */
export const count = (description: string): JsonSchema => ({ description, minimum: 0 });

/** A size in words. */
export const kib = (bytes: number): string => `${bytes / 2 ** 10} KiB`;
export const mib = (bytes: number): string => `${bytes / 2 ** 20} MiB`;
