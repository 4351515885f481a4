/** From a configuration as sent to the one in force: defaults, clamps, and what may not change. */
import { ApiError, invalid } from "../contract/errors.ts";
import { CLAIM_JITTER_MS_MAX, LEASE_MS_MAX, LEASE_MS_MIN, TOPIC_NAME } from "../contract/limits.ts";
import type { TopicConfig, TopicConfigInput } from "../contract/topics.ts";

const IDEMPOTENCY_WINDOW_MS_DEFAULT = 120_000;
const LEASE_MS_DEFAULT = 30_000;

/** The configuration of `topic` that `input` asks for. Throws `invalid_request` for an impossible dead letter. */
export function resolveConfig(topic: string, input: TopicConfigInput): TopicConfig {
  const type = input.type ?? "log";
  const durability = input.durability ?? (input.durable ? "fsync" : "disk");
  const deadLetter = input.dead_letter ?? null;
  if (deadLetter !== null && !TOPIC_NAME.test(deadLetter)) {
    throw new ApiError("invalid_request", { dead_letter: deadLetter }, "dead_letter is not a topic name");
  }
  if (deadLetter === topic && type === "queue") throw invalid("a queue cannot be its own dead letter");
  return {
    type,
    ttl_ms: input.ttl_ms ?? 0,
    cap_records: input.cap_records ?? 0,
    cap_bytes: input.cap_bytes ?? 0,
    discard: input.discard ?? "old",
    durable: durability === "fsync",
    durability,
    priority: input.priority ?? null,
    auto_priority: input.auto_priority ?? true,
    auto_create: input.auto_create ?? true,
    idempotency_window_ms: input.idempotency_window_ms ?? IDEMPOTENCY_WINDOW_MS_DEFAULT,
    dedupe_node: input.dedupe_node ?? true,
    lease_ms: clamp(input.lease_ms ?? LEASE_MS_DEFAULT, LEASE_MS_MIN, LEASE_MS_MAX),
    claim_jitter_ms: clamp(input.claim_jitter_ms ?? 0, 0, CLAIM_JITTER_MS_MAX),
    max_deliveries: input.max_deliveries ?? 0,
    dead_letter: deadLetter,
    leases_durable: input.leases_durable ?? false,
  };
}

/** Whether leases of the topic outlive the process. */
export const keepsLeases = ({ type, leases_durable, durability }: TopicConfig): boolean =>
  type === "queue" && leases_durable && durability !== "ephemeral";

export const clamp = (value: number, min: number, max: number): number => Math.min(Math.max(value, min), max);
