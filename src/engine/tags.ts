/** Selecting records by tag, on the JSON text that tags are stored as. */
import { invalid } from "../contract/errors.ts";
import type { TagFilter } from "../contract/records.ts";
import type { TagRange } from "../store/tagdeletes.ts";

/** The tags a filter selects. Throws `invalid_request` for a glob without its final `*`. */
export function tagRange(filter: TagFilter): TagRange {
  const [operator, value] =
    typeof filter === "string" ? ([filter.endsWith("*") ? "Glob" : "Eq", filter] as const) : filter.slice(1);
  if (operator === "Eq") return { text: JSON.stringify(value), isPrefix: false };
  if (!value!.endsWith("*")) throw invalid("match: a Glob must end with *");
  // JSON escapes each character on its own, so a prefix of the tag is a prefix of its JSON text.
  return { text: JSON.stringify(value!.slice(0, -1)).slice(0, -1), isPrefix: true };
}

export const inRange = (tag: string, range: TagRange): boolean =>
  range.isPrefix ? tag.startsWith(range.text) : tag === range.text;
