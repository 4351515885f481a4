/** Laws of the one spelling that ids are made of: it spells itself, whatever it was spelled from. */
import { expect, setDefaultTimeout, test } from "bun:test";
import fc from "fast-check";
import { canonical } from "../../src/engine/feeds/encoding.ts";
import { Scopes } from "../../src/engine/feeds/scope.ts";
import { canonical as simple } from "../support/events.ts";
import { runs } from "./host.ts";

setDefaultTimeout(30_000);

/** Numbers that everybody reads alike. */
const isExact = (n: number): boolean =>
  !Number.isInteger(n) || Number.isSafeInteger(n) || Math.abs(n) >= 1e21;
const number = fc.oneof(
  fc.integer(),
  fc.maxSafeInteger(),
  fc.double({ noNaN: true, noDefaultInfinity: true }).filter(isExact),
  fc.constantFrom(0, -0, 1e21, -1e21, 1e300, 5e-324, 0.1, 9007199254740991, -9007199254740991),
);
const text = fc.oneof(fc.string({ unit: "binary", maxLength: 6 }), fc.string({ maxLength: 6 }));
const key = fc.oneof(
  text,
  fc.constantFrom("10", "9", "", "__proto__", "constructor", "\u007f", "\uff5e", "\u{1f600}", "é", "e\u0301"),
);

/** A JSON value as a list of members, so that their order can be chosen when it is written. */
type Node =
  | { readonly leaf: string }
  | { readonly items: readonly Node[] }
  | { readonly members: readonly (readonly [string, Node])[] };

const value = fc.letrec<{ node: Node }>((tie) => ({
  node: fc.oneof(
    { maxDepth: 5 },
    fc
      .oneof(number, text, fc.boolean(), fc.constant(null))
      .map((leaf) => ({ leaf: Object.is(leaf, -0) ? "-0" : JSON.stringify(leaf) })),
    fc.array(tie("node"), { maxLength: 4 }).map((items) => ({ items })),
    fc
      .uniqueArray(fc.tuple(key, tie("node")), { maxLength: 6, selector: ([name]) => name })
      .map((members) => ({ members })),
  ),
})).node;

/** Writes a value with the members of each object in an order that `rank` decides. */
function write(node: Node, rank: (name: string) => number, space: string): string {
  if ("leaf" in node) return node.leaf;
  if ("items" in node)
    return `[${space}${node.items.map((item) => write(item, rank, space)).join(`,${space}`)}]`;
  const members = [...node.members].sort(([a], [b]) => rank(a) - rank(b));
  const texts = members.map(
    ([name, member]) => `${JSON.stringify(name)}${space}:${write(member, rank, space)}`,
  );
  return `{${texts.join(`${space},`)}${space}}`;
}

const order = fc.func(fc.integer());
const space = fc.constantFrom("", " ", "\n\t", "\r\n ");

test("the spelling is its own spelling", () => {
  fc.assert(
    fc.property(value, order, space, (node, rank, space) => {
      const once = canonical(write(node, rank, space));
      expect(canonical(once)).toBe(once);
    }),
    runs(500),
  );
});

test("neither white space nor the order of members matters", () => {
  fc.assert(
    fc.property(value, order, order, space, (node, first, second, space) => {
      expect(canonical(write(node, first, space))).toBe(canonical(write(node, second, "")));
    }),
    runs(500),
  );
});

test("it is what a simple encoder makes of the value", () => {
  fc.assert(
    fc.property(value, order, space, (node, rank, space) => {
      const written = write(node, rank, space);
      expect(canonical(written)).toBe(simple(JSON.parse(written)));
    }),
    runs(500),
  );
});

test("of equal keys the last counts", () => {
  fc.assert(
    fc.property(key, fc.array(value, { minLength: 1, maxLength: 4 }), order, (name, nodes, rank) => {
      const written = nodes.map((node) => `${JSON.stringify(name)}:${write(node, rank, "")}`);
      expect(canonical(`{${written.join(",")}}`)).toBe(canonical(`{${written.at(-1)}}`));
    }),
    runs(200),
  );
});

test("an integer that doubles cannot count is refused, wherever it stands and however it is spelled", () => {
  const digits = fc.oneof(
    fc.bigInt({ min: 2n ** 53n, max: 2n ** 80n }).map(String),
    fc.bigInt({ min: 2n ** 53n, max: 10n ** 20n }).map((n) => `${n}.0`),
    fc.integer({ min: 16, max: 20 }).map((exponent) => `1e${exponent}`),
  );
  const place = fc.constantFrom(
    (n: string) => n,
    (n: string) => `-${n}`,
    (n: string) => `[1,${n}]`,
    (n: string) => `{"a":{"b":[-${n}]}}`,
  );
  fc.assert(
    fc.property(digits, place, (digits, place) => {
      expect(() => canonical(place(digits))).toThrow("beyond 2^53-1");
    }),
    runs(200),
  );
});

const id = fc.oneof(
  fc.string({ maxLength: 5 }),
  fc.string({ unit: fc.constantFrom("a", "B", ":", "/", " ", "é", "\n", "\u{1f600}"), maxLength: 5 }),
);
const spaces = fc.constantFrom("", " ", "  ", "\t");
const hint = fc.oneof(
  { weight: 1, arbitrary: fc.string({ maxLength: 8 }) },
  {
    weight: 4,
    arbitrary: fc
      .tuple(
        fc.constantFrom("global", "region", "GROUP", "group", "Node", "local", "network", "dm", "banana"),
        fc.option(fc.tuple(id, fc.option(id)), { freq: 6 }),
        spaces,
        spaces,
      )
      .map(([kind, ids, a, b]) => {
        if (ids === null) return `${a}${kind}${b}`;
        return `${a}${kind}${b}:${a}${ids[0]}${ids[1] === null ? "" : `:${b}${ids[1]}`}${b}`;
      }),
  },
);

test.each([false, true])("the spelling of a scope is its own spelling, strict %s", (strict) => {
  const scopes = new Scopes(strict);
  fc.assert(
    fc.property(hint, (hint) => {
      const once = scopes.canonical(hint.trim());
      fc.pre(once !== undefined);
      expect(scopes.canonical(once!)).toBe(once!);
      expect(once).toBe(once!.trim());
    }),
    runs(500),
  );
});

test("whoever is named first, a conversation of two is the same one", () => {
  const end = fc.string({ unit: "binary", minLength: 1, maxLength: 4 });
  const scopes = new Scopes(false);
  fc.assert(
    fc.property(end, end, spaces, (a, b, space) => {
      fc.pre(!/:/.test(a + b) && a.trim() !== "" && b.trim() !== "");
      const there = scopes.canonical(`dm:${a}${space}:${b}`.trim());
      expect(there).toBe(scopes.canonical(`DM${space}: ${b}:${space}${a}`.trim())!);
    }),
    runs(500),
  );
});
