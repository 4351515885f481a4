/**
 * A strict reader of JSON text (RFC 8259), one pass, no intermediate tree.
 *
 * Stricter than `JSON.parse` where the contract is: nesting is bounded, a lone surrogate escape and a number
 * beyond double range are refused, and an integer is an integer literal. The text must come from valid UTF-8.
 */
import { JSON_DEPTH_MAX, SAFE_INTEGER_MAX } from "./limits.ts";
import type { Beyond } from "./schema.ts";

const QUOTE = 0x22;
const COMMA = 0x2c;
const MINUS = 0x2d;
const DOT = 0x2e;
const ZERO = 0x30;
const NINE = 0x39;
const COLON = 0x3a;
const OPEN_ARRAY = 0x5b;
const BACKSLASH = 0x5c;
const CLOSE_ARRAY = 0x5d;
const OPEN_OBJECT = 0x7b;
const CLOSE_OBJECT = 0x7d;
const LOWER_U = 0x75;

/** A flat object without white space or escapes, the usual payload: the regular expression engine is quicker at it. */
const flatObject = (() => {
  const string = '"[^"\\\\\\x00-\\x1f]*"';
  const member = `${string}:(?:${string}|-?(?:0|[1-9][0-9]{0,15})|true|false|null)`;
  return new RegExp(`\\{${member}(?:,${member})*\\}`, "y");
})();

/** What stands somewhere, or how it begins. */
const token = /"[^"\\]{0,12}"?|[^\s"[\]{},:]{1,12}|\S/y;

const U64_MAX = 18446744073709551615n;

/** The text is not what the contract asks for. `path` grows outwards as the decoders unwind. */
export class Mismatch extends Error {
  readonly path: (string | number)[] = [];
}

export type Kind = "string" | "number" | "boolean" | "null" | "array" | "object";

export class JsonReader {
  readonly text: string;
  readonly #depthMax: number;
  readonly #copies: boolean;
  #pos = 0;
  #depth = 0;
  #taken = 0;

  /** What is read of it is part of the text and keeps all of it in memory, or `copies`. */
  constructor(text: string, depthMax = JSON_DEPTH_MAX, copies = false) {
    this.text = text;
    this.#depthMax = depthMax;
    this.#copies = copies;
  }

  /** How many characters of the text were given out, as they are written. */
  get taken(): number {
    return this.#taken;
  }

  fail(message: string): never {
    throw new Mismatch(message);
  }

  /** The kind of the value that starts here, by its first character. */
  kind(): Kind {
    switch (this.text.charCodeAt(this.#pos)) {
      case QUOTE:
        return "string";
      case OPEN_OBJECT:
        return "object";
      case OPEN_ARRAY:
        return "array";
      case 0x74: // t
      case 0x66: // f
        return "boolean";
      case 0x6e: // n
        return "null";
      default:
        return "number";
    }
  }

  /** Skips white space and gives the code of the next character (NaN at the end). */
  space(): number {
    const { text } = this;
    for (;;) {
      const code = text.charCodeAt(this.#pos);
      if (code > 0x20 || (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09)) return code;
      this.#pos++;
    }
  }

  /** Enters an object. False if it is empty, and then already left. */
  openObject(): boolean {
    return this.#open(OPEN_OBJECT, CLOSE_OBJECT, "an object");
  }

  /** Enters an array. False if it is empty, and then already left. */
  openArray(): boolean {
    return this.#open(OPEN_ARRAY, CLOSE_ARRAY, "an array");
  }

  /** After a member: true if another one follows, false if the object was left. */
  moreMembers(): boolean {
    return this.#more(CLOSE_OBJECT);
  }

  moreItems(): boolean {
    return this.#more(CLOSE_ARRAY);
  }

  /**
   * Reads a field name and its colon. Gives its place in `quoted` (names with their quotes), or -1 for a name
   * that is not there.
   */
  key(quoted: readonly string[]): number {
    let index = -1;
    for (let i = 0; i < quoted.length; i++) {
      if (this.text.startsWith(quoted[i]!, this.#pos)) {
        this.#pos += quoted[i]!.length;
        index = i;
        break;
      }
    }
    // An escaped spelling is the same name.
    if (index < 0) index = quoted.indexOf(JSON.stringify(this.string()));
    this.#colon();
    return index;
  }

  /** Reads a field name, as it is written with its quotes, and its colon. */
  rawName(): string {
    const start = this.#pos;
    if (this.text.charCodeAt(start) !== QUOTE) this.#expected("a field name");
    this.#skipString();
    const name = this.text.slice(start, this.#pos);
    this.#colon();
    return name;
  }

  #colon(): void {
    if (this.space() !== COLON) this.fail("expected a colon after a field name");
    this.#pos++;
    this.space();
  }

  /** The text must end here. */
  end(): void {
    this.space();
    if (this.#pos < this.text.length) this.fail("unexpected text behind the JSON value");
  }

  string(): string {
    const start = this.#pos;
    if (this.text.charCodeAt(start) !== QUOTE) this.#expected("a string");
    const plain = this.#skipString();
    return plain ? this.#take(start + 1, this.#pos - 1) : JSON.parse(this.text.slice(start, this.#pos));
  }

  boolean(): boolean {
    if (this.#literal("true")) return true;
    if (this.#literal("false")) return false;
    return this.#expected("true or false");
  }

  null(): null {
    return this.#literal("null") ? null : this.#expected("null");
  }

  /** An integer literal from `min` to `max`; for unsigned ones above 2^53-1 `beyond` decides. */
  integer(min: number, max: number, beyond: Beyond): number | bigint {
    const start = this.#pos;
    if (this.kind() !== "number") this.#expected("an integer");
    if (this.#skipNumber() !== "integer") this.fail("expected an integer");
    const literal = this.text.slice(start, this.#pos);
    const value = Number(literal);
    if (literal.length < 16 && value >= min && value <= max && !Object.is(value, -0)) return value;
    const most = max === SAFE_INTEGER_MAX && beyond !== "refuse" ? U64_MAX : BigInt(max);
    const exact = BigInt(literal);
    if (exact > SAFE_INTEGER_MAX && max === SAFE_INTEGER_MAX && beyond === "refuse") {
      this.fail("integers above 2^53-1 cannot be kept exactly");
    }
    if (value < min || exact > most || Object.is(value, -0)) {
      this.fail(`expected an integer from ${min} to ${most === U64_MAX ? "2^64-1" : max}`);
    }
    if (exact <= SAFE_INTEGER_MAX) return value;
    return beyond === "exact" ? exact : SAFE_INTEGER_MAX;
  }

  /** Any value, as the text it is written in. */
  raw(): string {
    const start = this.#pos;
    this.skip();
    return this.#take(start, this.#pos);
  }

  /** Checks and passes over any value. */
  skip(): void {
    switch (this.text.charCodeAt(this.#pos)) {
      case QUOTE:
        this.#skipString();
        return;
      case OPEN_OBJECT:
        if (this.#skipFlat()) return;
        if (!this.openObject()) return;
        do {
          this.rawName();
          this.skip();
        } while (this.moreMembers());
        return;
      case OPEN_ARRAY:
        if (!this.openArray()) return;
        do this.skip();
        while (this.moreItems());
        return;
      case 0x74:
      case 0x66:
        this.boolean();
        return;
      case 0x6e:
        this.null();
        return;
      default:
        this.#skipNumber();
    }
  }

  #take(start: number, end: number): string {
    this.#taken += end - start;
    const part = this.text.slice(start, end);
    return this.#copies ? structuredClone(part) : part;
  }

  #skipFlat(): boolean {
    if (this.#depth >= this.#depthMax) return false;
    flatObject.lastIndex = this.#pos;
    if (!flatObject.test(this.text)) return false;
    this.#pos = flatObject.lastIndex;
    return true;
  }

  #open(open: number, close: number, what: string): boolean {
    if (this.text.charCodeAt(this.#pos) !== open) this.#expected(what);
    if (++this.#depth > this.#depthMax) this.fail(`nested deeper than ${this.#depthMax} arrays and objects`);
    this.#pos++;
    if (this.space() !== close) return true;
    this.#pos++;
    this.#depth--;
    return false;
  }

  #more(close: number): boolean {
    const code = this.space();
    this.#pos++;
    if (code === COMMA) {
      this.space();
      return true;
    }
    if (code !== close) this.fail(`expected a comma or ${String.fromCharCode(close)}`);
    this.#depth--;
    return false;
  }

  #literal(word: string): boolean {
    if (!this.text.startsWith(word, this.#pos)) return false;
    this.#pos += word.length;
    return true;
  }

  /** Passes over a string, checking it. True if it holds no escape, so that it is its own value. */
  #skipString(): boolean {
    const { text } = this;
    let plain = true;
    let pos = this.#pos + 1;
    for (;;) {
      const code = text.charCodeAt(pos++);
      if (code === QUOTE) break;
      if (code === BACKSLASH) {
        plain = false;
        pos = this.#skipEscape(pos);
      } else if (!(code >= 0x20)) {
        this.fail(
          pos > text.length ? "a string does not end" : "control characters in strings must be escaped",
        );
      }
    }
    this.#pos = pos;
    return plain;
  }

  /** `pos` is behind the backslash; gives the place behind the escape. */
  #skipEscape(pos: number): number {
    const { text } = this;
    const code = text.charCodeAt(pos);
    if (code !== LOWER_U) {
      if (!'"\\/bfnrt'.includes(text.charAt(pos)) || pos >= text.length)
        this.fail("unknown escape in a string");
      return pos + 1;
    }
    const unit = this.#hex(pos + 1);
    if (unit < 0xd800 || unit > 0xdfff) return pos + 5;
    const paired = unit < 0xdc00 && text.startsWith("\\u", pos + 5);
    const low = paired ? this.#hex(pos + 7) : 0;
    if (low < 0xdc00 || low > 0xdfff) this.fail("a surrogate escape without its other half");
    return pos + 11;
  }

  #hex(pos: number): number {
    let value = 0;
    for (let i = pos; i < pos + 4; i++) {
      const code = this.text.charCodeAt(i) | 0x20;
      const digit =
        code >= ZERO && code <= NINE ? code - ZERO : code >= 0x61 && code <= 0x66 ? code - 0x57 : -1;
      // `| 0x20` maps 0x10..0x19 onto the digits; those are control characters.
      if (digit < 0 || this.text.charCodeAt(i) < ZERO) this.fail("\\u takes four hexadecimal digits");
      value = value * 16 + digit;
    }
    return value;
  }

  #skipNumber(): "integer" | "fraction" {
    const { text } = this;
    const start = this.#pos;
    let pos = start;
    let integer = true;
    let exponent = false;
    if (text.charCodeAt(pos) === MINUS) pos++;
    const first = text.charCodeAt(pos);
    if (!(first >= ZERO && first <= NINE)) this.#expected("a JSON value");
    pos = first === ZERO ? pos + 1 : this.#digits(pos);
    let code = text.charCodeAt(pos);
    if (code === DOT) {
      integer = false;
      pos = this.#digits(pos + 1);
      code = text.charCodeAt(pos);
    }
    if (code === 0x65 || code === 0x45) {
      integer = false;
      exponent = true;
      code = text.charCodeAt(pos + 1);
      pos = this.#digits(code === MINUS || code === 0x2b ? pos + 2 : pos + 1);
    }
    this.#pos = pos;
    // Only an exponent or some 300 digits can pass the range of a double.
    if ((exponent || pos - start > 300) && !Number.isFinite(Number(text.slice(start, pos)))) {
      this.fail("a number is beyond the range of a double");
    }
    return integer ? "integer" : "fraction";
  }

  /** One or more digits from `pos`; gives the place behind them. */
  #digits(pos: number): number {
    const { text } = this;
    const start = pos;
    for (;;) {
      const code = text.charCodeAt(pos);
      if (!(code >= ZERO && code <= NINE)) break;
      pos++;
    }
    if (pos === start) this.fail("expected a digit");
    return pos;
  }

  #expected(what: string): never {
    token.lastIndex = this.#pos;
    const [found = "the end"] = token.exec(this.text) ?? [];
    return this.fail(`expected ${what}, found ${found}`);
  }
}
