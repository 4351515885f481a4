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
      return { type: kind.toLowerCase() };
    case "Null":
      return { const: null };
    case "Literal":
      return { const: schema.const };
    case "Integer":
      return integer(schema);
    case "Array":
      return { type: "array", items: inner(schema.items) };
    case "Tuple":
      return tuple(schema.items.map(inner));
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

/** Neither longer nor shorter: tools know that better from its length than from `items: false`. */
const tuple = (items: readonly JsonSchema[]): JsonSchema => ({
  type: "array",
  prefixItems: items,
  minItems: items.length,
  maxItems: items.length,
});

/** What to choose from is an `enum`, and plain types are named together, which reads best. */
function union(members: readonly TSchema[], inner: (part: TSchema) => JsonSchema): JsonSchema {
  const of = (kind: string) => members.filter((member) => member[Kind] === kind);
  const values = of("Literal").map((member) => member.const);
  const enums = Object.entries(Object.groupBy(values, (value) => typeof value)).map(([type, values]) => ({
    type: type === "number" ? "integer" : type,
    enum: values,
  }));
  const others = members.filter((member) => !["Literal", "Null"].includes(member[Kind])).map(inner);
  const choices: JsonSchema[] = [...enums, ...others];
  const isNullable = of("Null").length > 0;
  const [first, ...more] = choices;
  if (first === undefined || more.length > 0 || (isNullable && first.$ref !== undefined))
    return { anyOf: isNullable ? [...choices, { type: "null" }] : choices };
  // Any JSON is null, too.
  if (!isNullable || first.type === undefined) return first;
  return {
    ...first,
    type: [first.type, "null"],
    ...(first.enum !== undefined && { enum: [...values, null] }),
  };
}
