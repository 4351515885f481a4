/** The strict JSON reader against `JSON.parse`: it accepts the same texts, but for what the contract refuses. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { Type } from "@sinclair/typebox";
import fc from "fast-check";
import { decoder } from "../../src/contract/decode.ts";
import { JSON_DEPTH_MAX } from "../../src/contract/limits.ts";
import { RawJson } from "../../src/contract/schema.ts";

setDefaultTimeout(30_000);

const decode = decoder(Type.Object({ data: RawJson }));

function accepts(data: string): boolean {
  try {
    decode(`{"data":${data}}`);
    return true;
  } catch {
    return false;
  }
}

function parse(text: string): { value: unknown } | undefined {
  try {
    return { value: JSON.parse(text) };
  } catch {
    return undefined;
  }
}

/** What the contract refuses although it is JSON. */
function refused(value: unknown, depth = 2): boolean {
  if (typeof value === "number") return !Number.isFinite(value);
  if (typeof value === "string") return !value.isWellFormed();
  if (typeof value !== "object" || value === null) return false;
  if (depth > JSON_DEPTH_MAX) return true;
  const inner = Array.isArray(value) ? value : [...Object.keys(value), ...Object.values(value)];
  return inner.some((item) => refused(item, depth + 1));
}

const plain = fc.oneof(
  fc.constantFrom(
    "null",
    "true",
    "false",
    "0",
    "-0",
    "1.0",
    "1e3",
    "1E+2",
    "-1.50e-7",
    "12345678901234567890",
  ),
  fc.double({ noNaN: true, noDefaultInfinity: true }).map((n) => JSON.stringify(n)),
  fc.string({ unit: "binary" }).map((s) => JSON.stringify(s)),
  fc.constantFrom('"\\u00e9\\/"', '"\\u0000\\b"', '"é😀"'),
);
const surrogates = fc.constantFrom(
  '"\\ud83d\\ude00"',
  '"\\ud800"',
  '"\\ude00\\ud83d"',
  '"\\ud83d\\u0041"',
  "1e400",
  "-1e309",
);

/** JSON text with white space, odd escapes and odd numbers, around the given scalars. */
const spelledWith = (scalar: fc.Arbitrary<string>) =>
  fc.letrec<{ value: string }>((tie) => ({
    value: fc.oneof(
      { maxDepth: 6 },
      scalar,
      fc.array(tie("value"), { maxLength: 4 }).map((items) => `[ ${items.join(" ,\t")}\n]`),
      // No key comes twice: JSON.parse would not show what it drops.
      fc
        .uniqueArray(fc.tuple(fc.constantFrom('"a"', '"b"', '"\\u0063"', '""'), tie("value")), {
          selector: ([key]) => key,
        })
        .map((members) => `{${members.map(([key, value]) => `${key} :\r${value}`).join(", ")}}`),
    ),
  })).value;

const spelled = spelledWith(fc.oneof(plain, surrogates));

/** Text that is JSON or nearly so: one character changed, added or taken. */
const nearly = fc
  .tuple(
    spelledWith(plain),
    fc.nat(),
    fc.constantFrom(...'"\\{}[],:0123456789eE+-.untrfals \t\n\u0001\u2028é'),
    fc.nat(2),
  )
  .map(([text, place, char, change]) => {
    const at = place % (text.length + 1);
    return text.slice(0, at) + (change === 2 ? "" : char) + text.slice(change === 1 ? at : at + 1);
  })
  .filter((text) => text.isWellFormed());

describe("the JSON reader", () => {
  test("accepts what JSON.parse accepts, but for lone surrogates, infinite numbers and depth", () => {
    fc.assert(
      fc.property(fc.oneof(spelled, nearly, fc.json(), fc.string()), (text) => {
        const parsed = parse(text);
        expect(accepts(text)).toBe(parsed !== undefined && !refused(parsed.value));
      }),
      { numRuns: 20_000 },
    );
  });

  test("gives back every value in the spelling it came in", () => {
    fc.assert(
      fc.property(spelled, fc.constantFrom("", " ", "\n\t"), (text, space) => {
        fc.pre(accepts(text));
        expect(decode(`{"data"${space}:${space}${text}${space}}`)).toEqual({ data: text });
      }),
      { numRuns: 5000 },
    );
  });

  test.each([
    [124, true],
    [125, true],
    [126, true],
    [127, false],
  ])("takes %i arrays inside one object: %p", (depth, accepted) => {
    expect(accepts("[".repeat(depth) + "]".repeat(depth))).toBe(accepted);
  });
});
