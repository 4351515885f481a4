/**
 * What is to be said about the proposals of a lane that this node coordinates: a result, the next round, or nothing yet.
 *
 * This only depends on which messages there are and what time it is, never on the order in which they have come.
 */
import { type Choice, type Message, type Proposal, proposalIn, type Stance, stanceIn } from "./ballots.ts";

export interface Situation {
  /** This node, and the network it is in. */
  readonly nodeId: string;
  readonly networkId: string;
  /** Ms since the Unix epoch. */
  readonly now: number;
  /** Messages of proposals that are known to have a result. */
  readonly closed: ReadonlySet<string>;
}

/** A message for this node to post, unless it has posted the result of the same proposal message before. */
export interface Publication {
  readonly proposal: Proposal;
  readonly feedKey: string;
  readonly scopeHint: string;
  readonly content: Readonly<Record<string, unknown>>;
  readonly replyTo?: string;
}

export interface Decision {
  readonly publications: readonly Publication[];
  /** When the next timeout comes, if there is one to come. Ms since the Unix epoch. */
  readonly againAt: number | null;
}

/** Votes by choice: one for each voter. */
export type Tally = Readonly<Record<Choice, number>>;

/** Decides on the proposals among the newest messages of one lane. */
export function decide(messages: readonly Message[], situation: Situation): Decision {
  const { nodeId, networkId, now, closed } = situation;
  const newest = [...messages].sort(newestFirst);
  const proposals = newest.flatMap((message) => proposalIn(message) ?? []);
  const over = new Set(proposals.flatMap((next) => roundBefore(next, proposals) ?? []));
  const own = proposals.filter(
    (proposal) =>
      proposal.coordinator === nodeId && !closed.has(proposal.message.message_id) && !over.has(proposal),
  );
  if (own.length === 0) return { publications: [], againAt: null };
  const stances = bound(newest, proposals);
  const publications: Publication[] = [];
  let againAt: number | null = null;
  for (const proposal of own.toReversed()) {
    const tally = count(proposal, stances.get(proposal) ?? [], networkId);
    const publication = close(proposal, tally, now);
    if (publication) publications.push(publication);
    else if (proposal.roundTimeoutMs > 0) againAt = Math.min(againAt ?? Infinity, endOf(proposal));
  }
  return { publications, againAt };
}

const newestFirst = (a: Message, b: Message): number =>
  b.created_at - a.created_at || (a.message_id < b.message_id ? 1 : -1);

/** The proposal whose coordinator has posted this one when its time was up. */
function roundBefore({ message, proposalId, roundIndex }: Proposal, proposals: readonly Proposal[]) {
  if (message.reply_to_message_id === null) return undefined;
  const before = proposals.find((proposal) => proposal.message.message_id === message.reply_to_message_id);
  const isNext =
    before?.proposalId === proposalId &&
    before.coordinator === message.author_node_id &&
    before.roundIndex < roundIndex;
  return isNext ? before : undefined;
}

/** The stances on each proposal, in the order of the messages. */
function bound(messages: readonly Message[], proposals: readonly Proposal[]): Map<Proposal, Stance[]> {
  const known = Map.groupBy(proposals, ({ proposalId }) => proposalId);
  const stances = new Map<Proposal, Stance[]>();
  for (const message of messages) {
    const stance = stanceIn(message);
    const proposal = stance && proposalOf(stance, known.get(stance.proposalId) ?? []);
    if (!stance || !proposal) continue;
    const others = stances.get(proposal);
    if (others) others.push(stance);
    else stances.set(proposal, [stance]);
  }
  return stances;
}

/** Which of the proposals with its id a stance is about: the one it names or replies to, else the only one. */
function proposalOf(stance: Stance, proposals: readonly Proposal[]): Proposal | undefined {
  const named = stance.proposalMessageId ?? stance.message.reply_to_message_id;
  if (named === null) return proposals.length === 1 ? proposals[0] : undefined;
  return proposals.find(({ message }) => message.message_id === named);
}

/** Counts the latest stance of everybody who may vote. */
function count(proposal: Proposal, newest: readonly Stance[], networkId: string): Tally {
  const { participants, coordinator } = proposal;
  const coordinatorVotes = networkId.startsWith("local:");
  const tally = { support: 0, reject: 0, abstain: 0 };
  const voted = new Set<string>();
  for (const stance of newest) {
    const voter = voterOf(stance, proposal);
    if (voted.has(voter)) continue;
    if (participants.size > 0 && !participants.has(voter)) continue;
    if (voter === coordinator && !coordinatorVotes) continue;
    voted.add(voter);
    tally[stance.choice]++;
  }
  return tally;
}

/** Only the coordinator may speak for others. */
const voterOf = ({ message, source }: Stance, { coordinator }: Proposal): string =>
  message.author_node_id === coordinator && source !== null ? source : message.author_node_id;

/** What ends the round of the proposal, if it is over. */
function close(proposal: Proposal, tally: Tally, now: number): Publication | undefined {
  const needed = neededFor(proposal, tally);
  const met = (["support", "reject"] as const).find((choice) => tally[choice] >= needed);
  if (met) return resultOf(proposal, tally, met, "threshold_met");
  if (proposal.roundTimeoutMs === 0 || now < endOf(proposal)) return undefined;
  if (proposal.roundIndex < proposal.maxRounds) return nextRoundOf(proposal);
  return resultOf(proposal, tally, fallbackOf(proposal, tally), "max_rounds_fallback");
}

const endOf = ({ message, roundTimeoutMs }: Proposal): number => message.created_at + roundTimeoutMs;

const votersOf = ({ support, reject, abstain }: Tally): number => support + reject + abstain;

function neededFor({ participants, minParticipants, thresholdPercent }: Proposal, tally: Tally): number {
  const total = Math.max(minParticipants, participants.size || votersOf(tally));
  // Huge numbers are rounded, but no more than all is ever needed.
  return Math.min(total, Math.ceil((total * thresholdPercent) / 100));
}

function fallbackOf({ fallbackDecision }: Proposal, { support, reject }: Tally): string {
  if (fallbackDecision !== null) return fallbackDecision;
  if (support === reject) return "abstain";
  return support > reject ? "support" : "reject";
}

function nextRoundOf(proposal: Proposal): Publication {
  const { message, roundIndex } = proposal;
  return {
    proposal,
    feedKey: message.feed_key,
    scopeHint: message.scope_hint,
    // Also what is only meant for those who vote is said again.
    content: { ...(message.content as object), round_index: roundIndex + 1 },
    replyTo: message.message_id,
  };
}

function resultOf(
  proposal: Proposal,
  tally: Tally,
  decision: string,
  closeReason: "threshold_met" | "max_rounds_fallback",
): Publication {
  const { message } = proposal;
  return {
    proposal,
    feedKey: proposal.resultFeedKey,
    scopeHint: message.scope_hint,
    content: {
      kind: "consensus_result",
      proposal_id: proposal.proposalId,
      proposal_message_id: message.message_id,
      decision,
      support_count: tally.support,
      reject_count: tally.reject,
      abstain_count: tally.abstain,
      required_count: neededFor(proposal, tally),
      observed_participant_count: votersOf(tally),
      min_participants: proposal.minParticipants,
      threshold_percent: proposal.thresholdPercent,
      round_index: proposal.roundIndex,
      max_rounds: proposal.maxRounds,
      fallback_applied: closeReason === "max_rounds_fallback",
      close_reason: closeReason,
      participants: [...proposal.participants],
      coordinator_node_id: proposal.coordinator,
      source_feed_key: message.feed_key,
      source_scope_hint: message.scope_hint,
      goal: proposal.goal,
    },
  };
}
