/** Texts that start with something, as ranges in code point order, which is the byte order of UTF-8. */

/** The first text in code point order that no longer starts with `prefix`. */
export function behindPrefix(prefix: string): string {
  const points = Array.from(prefix);
  for (;;) {
    const last = points.pop()?.codePointAt(0);
    if (last === undefined) return "\u{10ffff}";
    if (last === 0x10ffff) continue;
    return points.join("") + String.fromCodePoint(last === 0xd7ff ? 0xe000 : last + 1);
  }
}

/**
 * Prefixes that together stand for all texts that start with `prefix` and with one of `within` (none: with anything),
 * in order and each text once.
 */
export function narrowed(prefix: string, within: readonly string[]): string[] {
  const both = (within.length === 0 ? [""] : within)
    .filter((other) => other.startsWith(prefix) || prefix.startsWith(other))
    .map((other) => (other.length > prefix.length ? other : prefix))
    .sort();
  const kept: string[] = [];
  for (const text of both) {
    const last = kept.at(-1);
    // Sorted, so that what starts with another one comes right behind it.
    if (last === undefined || !text.startsWith(last)) kept.push(text);
  }
  return kept;
}
