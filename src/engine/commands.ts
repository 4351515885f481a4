/**
 * Every change of state, as plain values. A command holds its own time and all that is random in it, so that the
 * same commands on an empty store always give the same state.
 */
import type { FEED_LOG } from "../contract/limits.ts";
import type { RouterSettings } from "../contract/routers.ts";
import type { TopicConfig, TopicConfigInput } from "../contract/topics.ts";
import type { LaneName } from "../store/feeds/lanes.ts";
import type { PeerRow } from "../store/feeds/peers.ts";
import type { RecordRow, StoredRecord } from "../store/records.ts";
import type { TagRange } from "../store/tagdeletes.ts";
import type { FeedEvent } from "./feeds/event.ts";
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

/** Apply what time alone has done: records expire, leases and delays end. */
export interface Sweep {
  readonly kind: "sweep";
  readonly topic: string;
  readonly now: number;
}

/** Who asks for jobs, and how many at most. */
export interface Claimant {
  readonly node: string;
  readonly max: number;
  /** Null is what the queue says. */
  readonly leaseMs: number | null;
  /** The stream that the jobs go out on, if any. */
  readonly stream: number | null;
  /** 16 hexadecimal digits for each lease. */
  readonly random: string;
}

/** Lease jobs to claimants: each gets its fill in turn, or `evenly` one job each at a time. */
export interface ClaimJobs {
  readonly kind: "claim";
  readonly topic: string;
  readonly claimants: readonly Claimant[];
  readonly evenly: boolean;
  readonly now: number;
}

/** Jobs that somebody says to hold; a `lease` names which lease of the job is meant. */
export interface HeldJobs {
  readonly topic: string;
  readonly node: string;
  readonly held: readonly { readonly seq: number; readonly lease: string | null }[];
  readonly now: number;
}

/** Finish jobs: they are deleted. */
export interface AckJobs extends HeldJobs {
  readonly kind: "ack";
}

/** Give jobs back, to be claimed again after a delay. */
export interface NackJobs extends HeldJobs {
  readonly kind: "nack";
  readonly delayMs: number;
}

/** Set new deadlines. */
export interface ExtendLeases extends HeldJobs {
  readonly kind: "extend";
  readonly leaseMs: number;
}

/** Give back all jobs that were leased on a stream. */
export interface ReleaseStream {
  readonly kind: "release";
  readonly topic: string;
  readonly stream: number;
  readonly now: number;
}

/** Create a router, or replace the settings of an existing one. */
export interface PutRouter {
  readonly kind: "put_router";
  readonly router: string;
  readonly settings: RouterSettings;
  readonly createDest: boolean;
}

export interface DeleteRouter {
  readonly kind: "delete_router";
  readonly router: string;
}

/** Copy records of a router's source up to `upTo` to its destination: the next few. */
export interface Forward {
  readonly kind: "forward";
  readonly router: string;
  /** The instance of the source that is meant; null is whichever there is. */
  readonly epoch: number | null;
  readonly upTo: number;
  readonly now: number;
}

/** Another instance, and the log it has. */
export interface PeerLog {
  readonly nodeId: string;
  readonly logId: string;
}

/** `caughtSeq`, where there is nothing more to read: what is behind it in our log may be new there. */
export interface ReadLane {
  readonly lane: LaneName;
  readonly seq: number;
  readonly caughtSeq: number | undefined;
}

/** Take signed events into the feed log: each once, whoever brings it. */
export interface AcceptEvents {
  readonly kind: "accept_events";
  readonly topic: typeof FEED_LOG;
  readonly events: readonly FeedEvent[];
  /** This instance. What it has written itself has no link. */
  readonly self: string;
  /** Who has brought them; undefined for what was posted here. */
  readonly from: PeerLog | undefined;
  /** Up to where a lane of that peer is read with them, if it is a page of one. */
  readonly read: ReadLane | undefined;
  readonly now: number;
}

/** Note which instance a URL leads to, and which log that has. */
export interface MeetPeer extends PeerLog {
  readonly kind: "meet_peer";
  readonly url: string;
}

/** Note that a peer has events: of those that come up to `outSeq`, if that is told, and of stored ones by lane. */
export interface NoteSent {
  readonly kind: "note_sent";
  readonly link: number;
  readonly outSeq?: number;
  readonly lanes: readonly { readonly lane: number; readonly seq: number }[];
}

export type Command =
  | PutTopic
  | DeleteTopic
  | AppendRecords
  | DeleteBefore
  | DeleteTagged
  | Sweep
  | ClaimJobs
  | AckJobs
  | NackJobs
  | ExtendLeases
  | ReleaseStream
  | PutRouter
  | DeleteRouter
  | Forward
  | AcceptEvents
  | MeetPeer
  | NoteSent;

export interface TopicPlaced {
  readonly epoch: number;
  readonly created: boolean;
  readonly config: TopicConfig;
}

export interface TopicRemoved {
  readonly deleted: boolean;
  /** Names of the routers that went with it, in order. */
  readonly routers: readonly string[];
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

/** A job that was leased. */
export interface LeasedJob {
  readonly row: RecordRow;
  readonly lease: string;
  readonly deadline: number;
  readonly deliveries: number;
}

export interface JobsLeased {
  /** What each claimant got, ascending by seq. */
  readonly shares: readonly (readonly LeasedJob[])[];
  readonly ready: number;
  /** Whether the claim has stopped before it had looked at every job. */
  readonly more: boolean;
}

/** Which of the jobs named were held, by their place in the command. */
export interface JobsHeld {
  readonly done: readonly number[];
  readonly skipped: readonly number[];
  readonly ready: number;
  readonly inFlight: number;
}

export interface RouterPlaced {
  readonly created: boolean;
}

export interface EventsAccepted {
  /** Events that were new, and those that were known. */
  readonly accepted: number;
  readonly duplicates: number;
  readonly head: number;
}

export interface Outcomes {
  put_topic: TopicPlaced;
  delete_topic: TopicRemoved;
  append: RecordsAppended;
  delete_before: RecordsRemoved;
  delete_tagged: RecordsRemoved;
  sweep: null;
  claim: JobsLeased;
  ack: JobsHeld;
  nack: JobsHeld;
  extend: JobsHeld;
  release: null;
  put_router: RouterPlaced;
  delete_router: { readonly deleted: boolean };
  /** Whether the destination has no room for the next record. */
  forward: { readonly blocked: boolean };
  accept_events: EventsAccepted;
  meet_peer: PeerRow;
  note_sent: null;
}
export type Outcome<C extends Command> = Outcomes[C["kind"]];

/** The topic that a command is about; undefined for those about routers. */
export const topicOf = (command: Command): string | undefined =>
  "topic" in command ? command.topic : undefined;
