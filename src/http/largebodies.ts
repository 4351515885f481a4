/** Bodies of many MiB are collected as soon as they are done with: the collector would let several of them lie. */

const LARGE_BYTES = 8 * 1024 * 1024;

/** So many bytes of a body are not needed any more. */
export function discard(bytes: number): void {
  if (bytes >= LARGE_BYTES) Bun.gc(true);
}

/** They will not be needed any more once what runs has returned. */
export function discardSoon(bytes: number): void {
  if (bytes >= LARGE_BYTES) setTimeout(discard, 0, bytes);
}
