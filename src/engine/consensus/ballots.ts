/**
 * What messages say in a vote: proposals, stances on them, and results.
 *
 * Anybody may write anything into a feed, so a content that does not fit is no error: it is simply no part of a vote.
 * A member that is null is taken as absent.
 */

/** A message of a lane, as far as a vote looks at it. */
export interface Message {
  readonly message_id: string;
  readonly feed_key: string;
  /** Canonical. */
  readonly scope_hint: string;
  readonly author_node_id: string;
  /** A parsed JSON value. */
  readonly content: unknown;
  readonly reply_to_message_id: string | null;
  /** The author's clock, and ours when it came. Ms since the Unix epoch. */
  readonly created_at: number;
  readonly content_resolved_at: number | null;
  /** Its place among all that has come. */
  readonly event_seq: number;
}

export interface Proposal {
  readonly message: Message;
  readonly proposalId: string;
  /** Who may vote; if empty, everybody. */
  readonly participants: ReadonlySet<string>;
  readonly thresholdPercent: number;
  readonly minParticipants: number;
  readonly roundIndex: number;
  readonly maxRounds: number;
  /** 0 is no timeout. */
  readonly roundTimeoutMs: number;
  readonly resultFeedKey: string;
  /** The node that counts the votes and says what has come of them. */
  readonly coordinator: string;
  readonly fallbackDecision: string | null;
  /** Any JSON value. */
  readonly goal: unknown;
}

export const choices = ["support", "reject", "abstain"] as const;
export type Choice = (typeof choices)[number];

export interface Stance {
  readonly message: Message;
  readonly proposalId: string;
  readonly choice: Choice;
  /** The message that it is about, if it names one. */
  readonly proposalMessageId: string | null;
  /** Whose stance this is, according to its author. */
  readonly source: string | null;
}

const ballotKinds: readonly unknown[] = ["proposal", "stance", "interpreted_stance"];

/** Whether a message with this content can change what has come of a vote. */
export const isBallot = (content: unknown): boolean => ballotKinds.includes(membersOf(content).kind);

export function proposalIn(message: Message): Proposal | undefined {
  const fields = new Fields(message.content);
  if (fields.kind !== "proposal") return undefined;
  const participants = new Set(fields.texts("participants"));
  const roundIndex = fields.integer("round_index", 1, 1);
  const proposal: Proposal = {
    message,
    proposalId: fields.requiredText("proposal_id"),
    participants,
    thresholdPercent: fields.integer("threshold_percent", 60, 1, 100),
    minParticipants: fields.integer("min_participants", Math.max(1, participants.size), 1),
    roundIndex,
    maxRounds: fields.integer("max_rounds", roundIndex, 1),
    roundTimeoutMs: fields.integer("round_timeout_ms", 0, 0),
    // Feed keys have no space around them.
    resultFeedKey: fields.text("result_feed_key")?.trim() ?? `${message.feed_key}.result`,
    coordinator: fields.text("coordinator_node_id")?.trim() ?? message.author_node_id,
    fallbackDecision: fields.text("fallback_decision"),
    goal: fields.any("goal"),
  };
  return fields.fit ? proposal : undefined;
}

/** The feed that a proposal wants its result in, if it names one. */
export function resultFeedIn(content: unknown): string | undefined {
  const fields = new Fields(content);
  return fields.kind === "proposal" ? fields.text("result_feed_key")?.trim() : undefined;
}

export function stanceIn(message: Message): Stance | undefined {
  const fields = new Fields(message.content);
  if (fields.kind !== "stance" && fields.kind !== "interpreted_stance") return undefined;
  const choice = choices.find((known) => known === fields.any("stance"));
  const stance = {
    message,
    proposalId: fields.requiredText("proposal_id"),
    proposalMessageId: fields.text("proposal_message_id"),
    source: fields.text("source_author_node_id"),
  };
  return fields.fit && choice ? { ...stance, choice } : undefined;
}

/** The proposal message that this content is the result of. */
export function closedBy(content: unknown): string | undefined {
  const { kind, proposal_message_id: closed } = membersOf(content);
  return kind === "consensus_result" && typeof closed === "string" ? closed : undefined;
}

/** Reads the members of a content one by one, and notes whether all of them fit. */
class Fields {
  readonly #members: Members;
  fit = true;

  constructor(content: unknown) {
    this.#members = membersOf(content);
  }

  get kind(): unknown {
    return this.#members.kind;
  }

  any(name: string): unknown {
    return this.#members[name] ?? null;
  }

  /** A blank text is none. */
  text(name: string): string | null {
    const value = this.any(name);
    if (typeof value === "string") return value.trim() === "" ? null : value;
    if (value !== null) this.fit = false;
    return null;
  }

  requiredText(name: string): string {
    const value = this.text(name);
    if (value === null) this.fit = false;
    return value ?? "";
  }

  texts(name: string): readonly string[] {
    const value = this.any(name) ?? [];
    if (Array.isArray(value) && value.every((item) => typeof item === "string")) return value;
    this.fit = false;
    return [];
  }

  integer(name: string, otherwise: number, min: number, max = Number.MAX_SAFE_INTEGER): number {
    const value = this.any(name) ?? otherwise;
    if (Number.isInteger(value) && (value as number) >= min && (value as number) <= max)
      return value as number;
    this.fit = false;
    return otherwise;
  }
}

type Members = Readonly<Record<string, unknown>>;

const membersOf = (content: unknown): Members =>
  typeof content === "object" && content !== null && !Array.isArray(content) ? (content as Members) : {};
