/** A topic as plainly as it can be said: a list of all records ever written, each dead or alive. */
import type { Tombstone } from "../../src/contract/records.ts";

export interface ModelConfig {
  readonly ttl_ms: number;
  readonly cap_records: number;
  readonly cap_bytes: number;
  readonly discard: "old" | "reject";
}

export interface ModelInput {
  readonly data: string;
  readonly tag: string | undefined;
  readonly node: string | undefined;
}

interface ModelRecord extends ModelInput {
  readonly seq: number;
  readonly ts: number;
  alive: boolean;
}

const bytesOf = ({ data }: ModelInput) => Buffer.byteLength(data);

export class ModelTopic {
  readonly records: ModelRecord[] = [];
  config: ModelConfig;
  capFloor = 0;
  ttlFloor = 0;

  constructor(config: ModelConfig) {
    this.config = config;
  }

  get head(): number {
    return this.records.length;
  }

  get live(): ModelRecord[] {
    return this.records.filter((record) => record.alive);
  }

  get state() {
    const { live, head } = this;
    const bytes = live.reduce((sum, record) => sum + bytesOf(record), 0);
    return { head_seq: head, earliest_seq: live[0]?.seq ?? head + 1, count: live.length, bytes };
  }

  configure(config: ModelConfig, now: number): void {
    this.config = config;
    this.expire(now);
    this.evict();
  }

  /** The code of the refusal, or undefined if the records are appended. */
  append(inputs: readonly ModelInput[], now: number): string | undefined {
    this.expire(now);
    const { cap_records, cap_bytes, discard } = this.config;
    const { count, bytes } = this.state;
    const added = inputs.reduce((sum, input) => sum + bytesOf(input), 0);
    const exceeds = (count: number, bytes: number) =>
      (cap_records > 0 && count > cap_records) || (cap_bytes > 0 && bytes > cap_bytes);
    if (discard === "reject" && exceeds(inputs.length, added)) return "record_too_large";
    if (discard === "reject" && exceeds(count + inputs.length, bytes + added)) return "topic_full";
    const ts = Math.max(now, this.records.at(-1)?.ts ?? 0);
    for (const input of inputs) this.records.push({ ...input, seq: this.head + 1, ts, alive: true });
    this.evict();
    return undefined;
  }

  /** The number of records deleted. */
  delete(before: number | undefined, matches: ((tag: string) => boolean) | undefined, now: number): number {
    this.expire(now);
    const selected = this.live.filter(
      (record) =>
        (before === undefined || record.seq < before) &&
        (matches === undefined || (record.tag !== undefined && matches(record.tag))),
    );
    for (const record of selected) record.alive = false;
    return selected.length;
  }

  expire(now: number): void {
    const { ttl_ms } = this.config;
    for (const record of this.live) {
      if (ttl_ms === 0 || now - record.ts <= ttl_ms) return;
      record.alive = false;
      this.ttlFloor = record.seq;
    }
  }

  evict(): void {
    const { cap_records, cap_bytes, discard } = this.config;
    if (discard === "reject") return;
    for (const record of this.live) {
      const { count, bytes } = this.state;
      if (!(cap_records > 0 && count > cap_records) && !(cap_bytes > 0 && bytes > cap_bytes)) return;
      record.alive = false;
      this.capFloor = record.seq;
    }
  }

  tombstone(from: number): Tombstone | null {
    const { head_seq, earliest_seq } = this.state;
    if (from > head_seq) {
      const missed_estimate = Math.max(head_seq, 1);
      return { gap_from: 1, gap_to: head_seq, reason: "recreated", missed_estimate, earliest_seq, head_seq };
    }
    const floor = Math.max(this.capFloor, this.ttlFloor);
    if (from >= floor) return null;
    const reasons = [this.capFloor > from ? "cap" : "", this.ttlFloor > from ? "ttl" : ""].filter(Boolean);
    return {
      gap_from: from + 1,
      gap_to: floor,
      reason: reasons.length === 2 ? "mixed" : (reasons[0] as "cap" | "ttl"),
      missed_estimate: floor - from,
      earliest_seq: floor + 1,
      head_seq,
    };
  }

  /** What a reader from `from` gets in the end, however it pages. */
  after(from: number, withoutNode: string | undefined) {
    const start = this.tombstone(from) ? 0 : from;
    return this.live
      .filter((record) => record.seq > start && (withoutNode === undefined || record.node !== withoutNode))
      .map(({ seq, ts, data, tag }) => ({ seq, ts, data, tag }));
  }
}
