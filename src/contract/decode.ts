/**
 * Turns JSON text into a value of a TypeBox schema, or says what is wrong with it.
 *
 * The schema is compiled once into closures over `JsonReader`. Known fields are checked, a known field twice is
 * refused, unknown fields are passed over (their syntax counts), and a `RawJson` field keeps its text.
 */
import {
  type Static,
  type TObject,
  type TSchema,
  type TTuple,
  type TUnion,
  Kind as TypeKind,
} from "@sinclair/typebox";
import { type ApiError, invalid, unprocessable } from "./errors.ts";
import { JsonReader, type Kind, Mismatch } from "./json.ts";
import type { Beyond } from "./schema.ts";

type Decode = (reader: JsonReader) => unknown;

/**
 * What is decoded may stay for long, and each part of a text keeps all of the text in memory. So parts are copied
 * from texts longer than this where less than a quarter of the text is wanted.
 */
const SPARSE_TEXT_MIN = 4096;
const SPARSE_FACTOR = 4;

/** A decoder of whole texts. Throws `invalid_request` naming the place and what was expected there. */
export function decoder<T extends TSchema>(schema: T, depthMax?: number): (text: string) => Static<T> {
  const decode = compile(schema);
  return (text) => whole(text, depthMax, decode, invalid) as Static<T>;
}

/** The same, but valid JSON of another shape is `unprocessable`: it is looked at only after all of the text is. */
export function shapeDecoder<T extends TSchema>(schema: T): (text: string) => Static<T> {
  const decode = compile(schema);
  return (text) => {
    whole(text, undefined, (reader) => reader.skip(), invalid);
    return whole(text, undefined, decode, unprocessable) as Static<T>;
  };
}

function whole(
  text: string,
  depthMax: number | undefined,
  decode: Decode,
  refusal: (message: string) => ApiError,
): unknown {
  const read = (copies: boolean) => {
    const reader = new JsonReader(text, depthMax, copies);
    reader.space();
    const value = decode(reader);
    reader.end();
    return { value, taken: reader.taken };
  };
  try {
    const { value, taken } = read(false);
    const isSparse = text.length > SPARSE_TEXT_MIN && taken * SPARSE_FACTOR < text.length;
    return isSparse ? read(true).value : value;
  } catch (error) {
    if (!(error instanceof Mismatch)) throw error;
    throw refusal(error.path.length === 0 ? error.message : `${place(error.path)}: ${error.message}`);
  }
}

const place = (path: readonly (string | number)[]): string =>
  path.map((step, i) => (typeof step === "number" ? `[${step}]` : i === 0 ? step : `.${step}`)).join("");

function compile(schema: TSchema): Decode {
  switch (schema[TypeKind]) {
    case "RawJson":
      return (reader) => reader.raw();
    case "String":
      return (reader) => reader.string();
    case "Boolean":
      return (reader) => reader.boolean();
    case "Null":
      return (reader) => reader.null();
    case "Literal":
      return oneOf([schema.const as string]);
    case "Integer":
      return integer(schema);
    case "Array":
      return array(schema.items as TSchema, schema.maxItems);
    case "Tuple":
      return tuple(schema as TTuple);
    case "Object":
      return object(schema as TObject);
    case "Record":
      return map(Object.values(schema.patternProperties as Record<string, TSchema>)[0]!);
    case "Union":
      return union(schema as TUnion);
    default:
      throw new TypeError(`no decoder for a schema of kind ${schema[TypeKind]}`);
  }
}

function integer(schema: TSchema): Decode {
  const max = schema.maximum ?? (schema.format === "uint32" ? 2 ** 32 - 1 : Number.MAX_SAFE_INTEGER);
  const beyond: Beyond = schema.beyond ?? "refuse";
  return (reader) => reader.integer(schema.minimum as number, max, beyond);
}

function oneOf(allowed: readonly string[]): Decode {
  return (reader) => {
    const value = reader.string();
    return allowed.find((one) => one === value) ?? reader.fail(`expected one of ${allowed.join(", ")}`);
  };
}

function array(items: TSchema, max = Number.POSITIVE_INFINITY): Decode {
  const decode = compile(items);
  return (reader) => {
    const out: unknown[] = [];
    if (!reader.openArray()) return out;
    try {
      do out.push(out.length < max ? decode(reader) : reader.fail(`more than ${max}`));
      while (reader.moreItems());
    } catch (error) {
      throw within(error, out.length);
    }
    return out;
  };
}

function tuple(schema: TTuple): Decode {
  const decoders = (schema.items ?? []).map(compile);
  const wrong = `expected an array of ${decoders.length}`;
  return (reader) => {
    const out: unknown[] = [];
    if (!reader.openArray()) return reader.fail(wrong);
    do {
      const decode = decoders[out.length];
      out.push(decode ? decode(reader) : reader.fail(wrong));
    } while (reader.moreItems());
    return out.length === decoders.length ? out : reader.fail(wrong);
  };
}

function object(schema: TObject): Decode {
  const names = Object.keys(schema.properties);
  const quoted = names.map((name) => JSON.stringify(name));
  const decoders = names.map((name) => compile(schema.properties[name]!));
  const required = names.reduce(
    (bits, name, i) => (schema.required?.includes(name) ? bits | (1 << i) : bits),
    0,
  );
  return (reader) => {
    const out: Record<string, unknown> = {};
    let seen = 0;
    if (reader.openObject()) {
      do {
        const i = reader.key(quoted);
        if (i < 0) {
          reader.skip();
          continue;
        }
        if (seen & (1 << i)) throw within(new Mismatch("is given twice"), names[i]!);
        seen |= 1 << i;
        try {
          out[names[i]!] = decoders[i]!(reader);
        } catch (error) {
          throw within(error, names[i]!);
        }
      } while (reader.moreMembers());
    }
    if ((seen & required) === required) return out;
    return reader.fail(`"${names.find((_, i) => required & ~seen & (1 << i))}" is missing`);
  };
}

function map(values: TSchema): Decode {
  const decode = compile(values);
  return (reader) => {
    const out = new Map<string, unknown>();
    if (!reader.openObject()) return out;
    do {
      const name = JSON.parse(reader.rawName()) as string;
      try {
        out.set(name, decode(reader));
      } catch (error) {
        throw within(error, name);
      }
    } while (reader.moreMembers());
    return out;
  };
}

/** The first character of a JSON value names its kind, and no union here has two members of one kind. */
function union(schema: TUnion): Decode {
  const byKind = new Map<Kind, Decode>();
  const literals: string[] = [];
  for (const member of flat(schema)) {
    if (member[TypeKind] === "Literal") literals.push(member.const as string);
    else byKind.set(kindOf(member), compile(member));
  }
  if (literals.length > 0) byKind.set("string", oneOf(literals));
  const expected = `expected ${[...byKind.keys()].join(" or ")}`;
  return (reader) => {
    const decode = byKind.get(reader.kind());
    return decode ? decode(reader) : reader.fail(expected);
  };
}

const flat = (schema: TSchema): TSchema[] =>
  schema[TypeKind] === "Union" ? (schema as TUnion).anyOf.flatMap(flat) : [schema];

function kindOf(schema: TSchema): Kind {
  const kinds: Record<string, Kind> = {
    String: "string",
    Boolean: "boolean",
    Null: "null",
    Integer: "number",
    Array: "array",
    Tuple: "array",
    Object: "object",
    Record: "object",
  };
  return kinds[schema[TypeKind] as string] ?? unknownKind(schema);
}

function unknownKind(schema: TSchema): never {
  throw new TypeError(`a union cannot hold a schema of kind ${schema[TypeKind]}`);
}

function within(error: unknown, step: string | number): unknown {
  if (error instanceof Mismatch) error.path.unshift(step);
  return error;
}
