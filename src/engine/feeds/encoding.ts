/**
 * The one spelling of a JSON value that ids and signatures are made of: compact, keys sorted by their UTF-8 bytes,
 * numbers as ECMAScript prints them (after RFC 8785, which sorts by UTF-16 units). Of equal keys the last counts.
 */
import { createHash } from "node:crypto";
import { invalid } from "../../contract/errors.ts";
import { EVENT_BYTES_MAX, SAFE_INTEGER_MAX } from "../../contract/limits.ts";

/** From here on numbers are printed with an exponent, so that nobody takes them for integers. */
const PRINTED_WITH_EXPONENT = 1e21;
/** UTF-8 and UTF-16 sort alike below the surrogates. */
const ABOVE_SURROGATES = /[\ud800-\uffff]/;
const INTEGER = /^-?[0-9]+$/;

/**
 * The spelling of valid JSON text. Throws `invalid_request` for integers that others could not read exactly, and for
 * what is too large for an event whatever else there is in it.
 */
export function canonical(json: string): string {
  const encoder = new Encoder();
  const text = encoder.encode(JSON.parse(json));
  // Of a very large number only its source tells whether it was meant as an integer.
  if (encoder.hasLarge) JSON.parse(json, refuseRounded);
  return text;
}

class Encoder {
  hasLarge = false;
  #length = 0;

  encode(value: unknown): string {
    if (Array.isArray(value)) {
      this.#count(2);
      return `[${value.map((item) => this.encode(item)).join(",")}]`;
    }
    if (typeof value === "object" && value !== null) {
      this.#count(2);
      return `{${sorted(Object.keys(value))
        .map((key) => this.#member(key, value))
        .join(",")}}`;
    }
    if (typeof value === "number") this.#check(value);
    return this.#scalar(value);
  }

  #member(key: string, object: object): string {
    return `${this.#scalar(key)}:${this.encode((object as Record<string, unknown>)[key])}`;
  }

  #scalar(value: unknown): string {
    const text = JSON.stringify(value);
    this.#count(text.length);
    return text;
  }

  #check(value: number): void {
    if (isRounded(value)) throw tooLarge(String(value));
    this.hasLarge ||= Math.abs(value) >= PRINTED_WITH_EXPONENT;
  }

  /** Gives up as soon as it is known to be too much. */
  #count(length: number): void {
    this.#length += length;
    if (this.#length > EVENT_BYTES_MAX) throw tooManyBytes();
  }
}

const sorted = (keys: string[]): string[] =>
  keys.some((key) => ABOVE_SURROGATES.test(key))
    ? keys.sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
    : keys.sort();

/** Whether a number is printed as an integer that a double cannot tell from its neighbours. */
const isRounded = (value: number): boolean =>
  Number.isInteger(value) && Math.abs(value) > SAFE_INTEGER_MAX && Math.abs(value) < PRINTED_WITH_EXPONENT;

/** A reviver of `JSON.parse`. https://tc39.es/proposal-json-parse-with-source/ has no type yet. */
function refuseRounded(_key: string, value: unknown, context?: { source?: string }): unknown {
  const source = context?.source ?? "";
  const isLarge = typeof value === "number" && Math.abs(value) >= PRINTED_WITH_EXPONENT;
  if (isLarge && INTEGER.test(source)) throw tooLarge(source);
  return value;
}

const tooLarge = (number: string) =>
  invalid(`the integer ${number} is beyond 2^53-1, so others could not read it exactly`);

export const tooManyBytes = () => invalid("invalid event: event bytes > 128KB");

/** Hexadecimal SHA-256 of a text. */
export const sha256 = (text: string): string => createHash("sha256").update(text).digest("hex");

/** An object of members that are encoded already, in this order. Undefined ones are left out. */
export function object(members: Readonly<Record<string, string | undefined>>): string {
  let text = "";
  for (const name in members) {
    const value = members[name];
    if (value !== undefined) text += `${text === "" ? "" : ","}"${name}":${value}`;
  }
  return `{${text}}`;
}
