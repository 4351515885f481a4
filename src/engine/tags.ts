/** Selecting records by tag, on the JSON text that tags are stored as. */
import { invalid } from "../contract/errors.ts";
import type { FullTagFilter, TagFilter } from "../contract/records.ts";
import type { TagRange } from "../store/tagdeletes.ts";

/** A filter without its shorthand. Throws `invalid_request`, naming `field`, for a glob without its final `*`. */
export function inFull(filter: TagFilter, field: string): FullTagFilter {
  if (typeof filter === "string") return ["tag", filter.endsWith("*") ? "Glob" : "Eq", filter];
  const [tag, operator, value] = filter;
  if (operator === "Glob" && !value.endsWith("*")) throw invalid(`${field}: a Glob must end with *`);
  return [tag, operator, value];
}

/** The tags a filter selects. */
export function tagRange([, operator, value]: FullTagFilter): TagRange {
  if (operator === "Eq") return { text: JSON.stringify(value), isPrefix: false };
  // JSON escapes each character on its own, so a prefix of the tag is a prefix of its JSON text.
  return { text: JSON.stringify(value.slice(0, -1)).slice(0, -1), isPrefix: true };
}

export const inRange = (tag: string, range: TagRange): boolean =>
  range.isPrefix ? tag.startsWith(range.text) : tag === range.text;
