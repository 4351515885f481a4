/**
 * Whether a proposal has its result already.
 *
 * The feed that results go to is what tells, so it is told after a restart, too, however much has come since. Whoever
 * has more to look through than one page stops where no result can be any more: this node writes one after it has the
 * proposal, and what it writes later never has an earlier time.
 */
import type { Feeds } from "../feeds/feeds.ts";
import { closedBy, type Message, type Proposal } from "./ballots.ts";
import { pagesOf } from "./pages.ts";
import type { Lane } from "./subscribed.ts";

type Read = Pick<Feeds, "nodeId" | "messages">;

/** A clock may have been set back by so much since a proposal came. */
const SET_BACK_MS_MAX = 3_600_000;
const MAY_BE_RESULT = /"kind":"consensus_result"/;

/** The messages of those of the proposals, all of one scope, that this node has posted a result of. */
export async function closedAmong(proposals: readonly Proposal[], feeds: Read): Promise<Set<string>> {
  const closed = new Set<string>();
  for (const [feedKey, some] of Map.groupBy(proposals, ({ resultFeedKey }) => resultFeedKey)) {
    const { scope_hint: scope } = some[0]!.message;
    for (const id of await closedIn({ feedKey, scope }, some, feeds)) closed.add(id);
  }
  return closed;
}

async function closedIn(lane: Lane, proposals: readonly Proposal[], feeds: Read): Promise<string[]> {
  const open = new Set(proposals.map(({ message }) => message.message_id));
  const closed: string[] = [];
  const isEarlier = earlierThan(proposals, feeds.nodeId);
  for await (const page of pagesOf(lane, feeds)) {
    const results = page.messages(MAY_BE_RESULT).filter((message) => message.author_node_id === feeds.nodeId);
    for (const { content } of results) {
      const id = closedBy(content);
      if (id !== undefined && open.delete(id)) closed.push(id);
    }
    if (open.size === 0 || isEarlier(page.last) || results.some(isEarlier)) break;
  }
  return closed;
}

/** Tells whether a message is from before any of the proposals, and so is every result below it. */
function earlierThan(proposals: readonly Proposal[], nodeId: string): (message: Message) => boolean {
  const messages = proposals.map(({ message }) => message);
  const seq = Math.min(...messages.map(({ event_seq }) => event_seq));
  const cameAt = Math.min(...messages.map((message) => message.content_resolved_at ?? message.created_at));
  return ({ author_node_id, event_seq, created_at }) =>
    (author_node_id === nodeId && event_seq < seq) || created_at < cameAt - SET_BACK_MS_MAX;
}
