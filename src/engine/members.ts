/** Adding members to the `meta` that a record was sent with. Its own members stay as they are spelled. */
import { JsonReader } from "../contract/json.ts";

interface Member {
  readonly name: string;
  /** Name and value as they are written. */
  readonly text: string;
}

/** The members of a JSON object. */
function membersOf(object: string): Member[] {
  const reader = new JsonReader(object);
  const members: Member[] = [];
  if (!reader.openObject()) return members;
  do {
    const name = reader.rawName();
    members.push({ name: JSON.parse(name), text: `${name}:${reader.raw()}` });
  } while (reader.moreMembers());
  return members;
}

export const isObject = (json: string): boolean => json.startsWith("{");

/** How many members of other names than `name` an object has. */
export const othersThan = (name: string, object: string): number =>
  new Set(membersOf(object).flatMap((member) => (member.name === name ? [] : member.name))).size;

/** An object with `added` members, JSON by name, in place of its own ones of these names. */
export function withMembers(object: string, added: Readonly<Record<string, string>>): string {
  const own = membersOf(object);
  const kept = own.filter(({ name }) => !Object.hasOwn(added, name));
  const more = Object.entries(added).map(([name, value]) => `${JSON.stringify(name)}:${value}`);
  // As it stands, with its white space, where nothing goes.
  if (own.length > 0 && kept.length === own.length) return `${object.slice(0, -1)},${more.join(",")}}`;
  return `{${[...kept.map(({ text }) => text), ...more].join(",")}}`;
}
