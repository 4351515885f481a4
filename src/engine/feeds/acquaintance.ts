/**
 * The commands about other instances: which log each has, what of our log it has, and which lanes it wants.
 *
 * What was exchanged is noted for a link, which stands for one log of a peer. A peer whose log has begun anew gets
 * another link, and nothing of the old one holds.
 */
import { ApiError } from "../../contract/errors.ts";
import { PEERS_MAX } from "../../contract/limits.ts";
import type { PeerRow } from "../../store/feeds/peers.ts";
import type { MeetPeer, NoteSent, PeerLog } from "../commands.ts";
import type { Group } from "../group.ts";

export function meetPeer(group: Group, { url, ...peer }: MeetPeer): PeerRow {
  const met = meet(group, peer);
  group.store.feeds.peers.setAddress(url, met.node);
  return met;
}

/** The peer, with the link that stands for its log. Throws `throttled` for one more than are remembered. */
export function meet(group: Group, { nodeId, logId }: PeerLog): PeerRow {
  const { nodes, peers } = group.store.feeds;
  const node = nodes.find(nodeId);
  const known = node === undefined ? undefined : peers.get(node);
  if (known === undefined) {
    if (peers.count >= PEERS_MAX) throw new ApiError("throttled", { limit: "max_peers", max: PEERS_MAX });
    return peers.link(node ?? nodes.named(nodeId), logId ?? "");
  }
  if (logId === undefined || logId === known.logId) return known;
  if (known.logId === "") {
    peers.name(known, logId);
    return { ...known, logId };
  }
  peers.retire(known.link);
  group.hasRetired = true;
  return peers.link(known.node, logId);
}

export function noteSent({ store }: Group, { link, outSeq, lanes }: NoteSent): null {
  const { peers, peerLanes } = store.feeds;
  peers.move(link, outSeq);
  for (const { lane, seq } of lanes) peerLanes.sent(link, lane, seq);
  return null;
}

/** Notes whether a peer wants a lane, after something that this depends on has changed. */
export function reviewWish({ store }: Group, { link, outSeq }: PeerRow, lane: number): void {
  const { subscriptions, peerLanes, lanes } = store.feeds;
  const wanted = subscriptions.isWantedBy(lane, link);
  const wish = peerLanes.wishOf(link, lane);
  if (wanted === wish.wanted) return;
  if (wanted) {
    // What is stored goes out by itself; what comes later, with all else that comes.
    peerLanes.setWish(link, lane, { ...wish, wanted, untilSeq: lanes.get(lane).lastSeq });
    return;
  }
  const isAllSent = wish.sentSeq >= wish.untilSeq;
  const sentSeq = isAllSent ? Math.max(wish.sentSeq, outSeq) : wish.sentSeq;
  peerLanes.setWish(link, lane, { ...wish, wanted, sentSeq });
}
