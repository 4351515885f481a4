/** Cursors of lists: stateless, "after this name", base64url of `{"after":"<name>"}`. */
import { invalid } from "../contract/errors.ts";

export const encodeCursor = (after: string): string =>
  Buffer.from(JSON.stringify({ after })).toString("base64url");

/** The name to go on after; empty for the start. Accepts both base64 alphabets, with or without padding. */
export function decodeCursor(cursor: string): string {
  if (cursor === "") return "";
  if (!/^[A-Za-z0-9+/_-]*={0,2}$/.test(cursor)) throw invalid("cursor: not one this server gave out");
  const value = parse(Buffer.from(cursor, "base64").toString());
  const after = typeof value === "object" && value !== null && "after" in value ? value.after : undefined;
  return typeof after === "string" ? after : "";
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw invalid("cursor: not one this server gave out");
  }
}
