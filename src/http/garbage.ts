/** Large bodies and answers are collected soon after they are done with: the collector would let many of them lie. */

const LARGE_BYTES = 1024 * 1024;
/** So much may lie. */
const LYING_BYTES_MAX = 32 * 1024 * 1024;

let lyingBytes = 0;

/** So many bytes are not needed any more. */
export function discard(bytes: number): void {
  if (bytes < LARGE_BYTES) return;
  lyingBytes += bytes;
  if (lyingBytes < LYING_BYTES_MAX) return;
  lyingBytes = 0;
  Bun.gc(true);
}

/** They will not be needed any more once what runs has returned. */
export function discardSoon(bytes: number): void {
  if (bytes >= LARGE_BYTES) setTimeout(discard, 0, bytes);
}
