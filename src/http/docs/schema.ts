/**
 * TypeBox shapes as JSON Schema 2020-12, as strict as the decoders are: what a mark means to them is said in the
 * words of JSON Schema, and the marks stay behind.
 */
import { Kind, type TSchema } from "@sinclair/typebox";

export type JsonSchema = { readonly [keyword: string]: unknown };

/** 2^64-1 is no double; the document spells it exactly where this one stands. */
export const U64_MAX = 2 ** 64;

const KEPT = [
  "title",
  "description",
  "pattern",
  "minimum",
  "maximum",
  "minLength",
  "maxLength",
  "minItems",
  "maxItems",
  "minProperties",
  "additionalProperties",
] as const;

/** `refOf` names the shapes that have a place of their own. */
export function toJsonSchema(schema: TSchema, refOf: (schema: TSchema) => string | undefined): JsonSchema {
  const $ref = refOf(schema);
  if ($ref !== undefined) return { $ref };
  const inner = (part: TSchema) => toJsonSchema(part, refOf);
  if (schema[Kind] !== "Union") return { ...body(schema, inner), ...kept(schema) };
  const flat = (part: TSchema): TSchema[] =>
    part[Kind] === "Union" && refOf(part) === undefined ? (part.anyOf as TSchema[]).flatMap(flat) : [part];
  return { ...union(flat(schema), inner), ...kept(schema) };
}

const kept = (schema: TSchema): JsonSchema =>
  Object.fromEntries(KEPT.flatMap((word) => (schema[word] === undefined ? [] : [[word, schema[word]]])));

function body(schema: TSchema, inner: (part: TSchema) => JsonSchema): JsonSchema {
  const kind: string = schema[Kind];
  switch (kind) {
    case "RawJson":
      return {};
    case "String":
    case "Boolean":
    case "Number":
    case "Null":
      return { type: kind.toLowerCase() };
    case "Literal":
      return { const: schema.const };
    case "Integer":
      return integer(schema);
    case "Array":
      return { type: "array", items: inner(schema.items) };
    case "Tuple":
      return { type: "array", prefixItems: schema.items.map(inner), items: false };
    case "Record":
      return {
        type: "object",
        additionalProperties: inner(Object.values(schema.patternProperties)[0] as TSchema),
      };
    case "Object":
      return {
        type: "object",
        properties: Object.fromEntries(
          Object.entries(schema.properties as Record<string, TSchema>).map(([name, part]) => [
            name,
            inner(part),
          ]),
        ),
        ...(schema.required && { required: schema.required }),
      };
    default:
      throw new TypeError(`no JSON Schema for a schema of kind ${kind}`);
  }
}

function integer({ format = "int64", minimum, beyond }: TSchema): JsonSchema {
  const unsigned = minimum === 0;
  if (format === "uint32") return { type: "integer", format, maximum: 2 ** 32 - 1 };
  if (format === "uint64" && unsigned) {
    return { type: "integer", format, maximum: beyond === "refuse" ? Number.MAX_SAFE_INTEGER : U64_MAX };
  }
  return { type: "integer", format };
}

/** Strings to choose from are an `enum`, and plain types are named together, which reads best. */
function union(members: readonly TSchema[], inner: (part: TSchema) => JsonSchema): JsonSchema {
  const values = members.filter((member) => member[Kind] === "Literal").map((member) => member.const);
  const others = members.filter((member) => member[Kind] !== "Literal").map(inner);
  const choices: JsonSchema[] = values.length > 0 ? [{ type: "string", enum: values }, ...others] : others;
  const [first, ...more] = choices.filter(({ type }) => type !== "null");
  if (first === undefined || more.length > 0) return { anyOf: choices };
  if (choices.length === 1) return first;
  if (first.type === undefined) return { anyOf: choices };
  return {
    ...first,
    type: [first.type, "null"],
    ...(first.enum !== undefined && { enum: [...values, null] }),
  };
}
