/**
 * Every change of state, as plain values. A command holds its own time, so that the same commands on an empty
 * store always give the same state.
 */
import type { TopicConfig, TopicConfigInput } from "../contract/topics.ts";
import type { StoredRecord } from "../store/records.ts";
import type { TagRange } from "../store/tagdeletes.ts";
import type { Tally } from "./live.ts";

/** Create a topic, or replace the settings of an existing one. */
export interface PutTopic {
  readonly kind: "put_topic";
  readonly topic: string;
  readonly config: TopicConfigInput;
  readonly now: number;
}

export interface DeleteTopic {
  readonly kind: "delete_topic";
  readonly topic: string;
  readonly ifEmpty: boolean;
  readonly now: number;
}

export interface AppendRecords {
  readonly kind: "append";
  readonly topic: string;
  readonly records: readonly StoredRecord[];
  /** Idempotency key. */
  readonly key: string | null;
  /** Whether an absent topic is created, and with which settings. */
  readonly create: boolean;
  readonly config: TopicConfigInput;
  readonly now: number;
}

/** Delete all records with `seq < before`. */
export interface DeleteBefore {
  readonly kind: "delete_before";
  readonly topic: string;
  readonly before: number;
  readonly now: number;
}

/** The records a delete by tag covers, summed by block. */
export type Counted = ReadonlyMap<number, Tally>;

/** Delete records by tag, among those with `seq <= upTo` of one instance of the topic. */
export interface DeleteTagged {
  readonly kind: "delete_tagged";
  readonly topic: string;
  readonly epoch: number;
  readonly range: TagRange;
  readonly upTo: number;
  readonly now: number;
  /**
   * Only saves time: the outcome is the same without it. Deletes by tag of one topic must not overtake each
   * other between count and command.
   */
  readonly counted?: Counted;
}

/** Apply what time alone has done: expiry. */
export interface Sweep {
  readonly kind: "sweep";
  readonly topic: string;
  readonly now: number;
}

export type Command = PutTopic | DeleteTopic | AppendRecords | DeleteBefore | DeleteTagged | Sweep;

export interface TopicPlaced {
  readonly epoch: number;
  readonly created: boolean;
  readonly config: TopicConfig;
}

export interface RecordsAppended {
  readonly epoch: number;
  readonly firstSeq: number;
  readonly count: number;
  readonly head: number;
  readonly created: boolean;
  readonly deduped: boolean;
}

export interface RecordsRemoved {
  readonly deleted: number;
  readonly earliest: number;
  readonly head: number;
  readonly count: number;
  readonly bytes: number;
}

export interface Outcomes {
  put_topic: TopicPlaced;
  delete_topic: { readonly deleted: boolean };
  append: RecordsAppended;
  delete_before: RecordsRemoved;
  delete_tagged: RecordsRemoved;
  sweep: null;
}
export type Outcome<C extends Command> = Outcomes[C["kind"]];
