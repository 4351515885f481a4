/**
 * Looks into JSON text without parsing its values, for tests of byte-exact payloads.
 *
 * `JSON.parse` would round numbers, merge duplicate keys and drop white space: exactly what such a test is about.
 */
import type { Reply } from "./server.ts";

/** The text of one member (`data`, `meta`) of every record in a reply; undefined where a record has none. */
export function payloads(reply: Reply, member: string): (string | undefined)[] {
  const records = members(reply.text).get("records");
  if (records === undefined) throw new Error(`no records in ${reply.text}`);
  return elements(records).map((record) => members(record).get(member));
}

/** The members of an object's text, each with the text of its value. */
export function members(object: string): Map<string, string> {
  return new Map(
    elements(object).map((member) => {
      const [head, key] = /^("(?:[^"\\]|\\.)*")[ \t\n\r]*:[ \t\n\r]*/s.exec(member) as unknown as [
        string,
        string,
      ];
      return [JSON.parse(key), member.slice(head.length)];
    }),
  );
}

/** The texts between the outermost commas of an array or object. */
export function elements(container: string): string[] {
  const found: string[] = [];
  let depth = 0;
  let start = 0;
  for (const { 0: token, index } of container.matchAll(/"(?:[^"\\]|\\.)*"|[[\]{},]/gs)) {
    if (token === "[" || token === "{") depth += 1;
    if (token === "]" || token === "}") depth -= 1;
    const opens = depth === 1 && start === 0;
    const ends = depth === 0 || (depth === 1 && token === ",");
    if (ends) found.push(container.slice(start, index));
    if (opens || ends) start = index + 1;
  }
  return found.map((text) => text.replace(/^[ \t\n\r]+|[ \t\n\r]+$/g, "")).filter((text) => text !== "");
}
