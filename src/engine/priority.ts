/** `effective_priority`: what an operator set, or how recently a topic was read. Informational. */
import type { TopicConfig } from "../contract/topics.ts";
import { clamp } from "./config.ts";

const MANUAL_MAX = 1000;
const AUTO_MAX = 500;
const HALF_LIFE_MS = 30_000;
const FORGOTTEN_MS = 300_000;

/** `consumedTs`: when the topic was last read, ms since the Unix epoch. */
export function effectivePriority(config: TopicConfig, consumedTs: number | null, now: number): number {
  if (config.priority !== null) return clamp(config.priority, -MANUAL_MAX, MANUAL_MAX);
  if (!config.auto_priority || consumedTs === null) return 0;
  const idleMs = Math.max(0, now - consumedTs);
  return idleMs >= FORGOTTEN_MS ? 0 : Math.round(AUTO_MAX * 2 ** (-idleMs / HALF_LIFE_MS));
}
