/**
 * The few shapes TypeBox has no word for. Each is an ordinary TypeBox schema, so types and the OpenAPI page
 * come from it; the marks are read by the decoders (decode.ts).
 */
import { Kind, type Static, type TSchema, Type } from "@sinclair/typebox";
import { SAFE_INTEGER_MAX } from "./limits.ts";

/** Any JSON value, kept as the raw text it was sent as. */
export const RawJson = Type.Unsafe<string>({
  [Kind]: "RawJson",
  description: "any JSON value, kept byte for byte",
});

/** What happens to an integer that is in range for the contract but above 2^53-1. */
export type Beyond = "clamp" | "refuse" | "exact";

const unsigned = (bits: 32 | 64, beyond: Beyond, options: object = {}) =>
  Type.Integer({ minimum: 0, format: `uint${bits}`, beyond, ...options });

/** A position in a log: above 2^53-1 it acts as beyond any seq. */
export const Position = unsigned(64, "clamp");
/** A seq that is told back as it was sent: above 2^53-1 a bigint. */
export const AnySeq = Type.Unsafe<number | bigint>(unsigned(64, "exact"));
/** What serializes as the number that was sent. https://tc39.es/proposal-json-parse-with-source/ has no type yet. */
export const toldBack = (seq: number | bigint): number | bigint =>
  typeof seq === "bigint" ? rawJson(String(seq)) : seq;
const { rawJSON: rawJson } = JSON as unknown as { rawJSON: (text: string) => bigint };
/** A setting: above 2^53-1 it is refused, because it could not be echoed exactly. */
export const Setting = unsigned(64, "refuse");
/** A value that is clamped to a small range anyway. */
export const Clamped = unsigned(64, "clamp");
/** A small count or duration: 0..2^32-1. */
export const Small = unsigned(32, "refuse");
/** 0..2^53-1: a time in ms since the Unix epoch, a position, a size. */
export const Natural = Type.Integer({ minimum: 0, maximum: SAFE_INTEGER_MAX });
export const SafeInteger = Type.Integer({ minimum: -SAFE_INTEGER_MAX, maximum: SAFE_INTEGER_MAX });
export const Int32 = Type.Integer({ minimum: -(2 ** 31), maximum: 2 ** 31 - 1, format: "int32" });

/** An object whose names are the caller's. Of a name that comes twice the last counts. */
export const MapOf = <T extends TSchema>(schema: T) =>
  Type.Unsafe<ReadonlyMap<string, Static<T>>>(Type.Record(Type.String(), schema));

/** `null` means the same as leaving the field out. */
export const Nullable = <T extends TSchema>(schema: T) => Type.Union([schema, Type.Null()]);
export const OptionalNullable = <T extends TSchema>(schema: T) => Type.Optional(Nullable(schema));

/** One of a few strings, compared exactly. */
export const OneOf = <const T extends string[]>(...values: T) =>
  Type.Union(values.map((value) => Type.Literal(value as T[number])));
