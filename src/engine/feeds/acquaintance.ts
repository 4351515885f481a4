/**
 * The commands about other instances: which log each has, what of our log it has, and which lanes it wants.
 *
 * What was exchanged is noted for a link, which stands for one log of a peer. A peer whose log has begun anew gets
 * another link, and nothing of the old one holds.
 */
import { ApiError } from "../../contract/errors.ts";
import { PEERS_MAX } from "../../contract/limits.ts";
import { OWN_LINK, type PeerRow } from "../../store/feeds/peers.ts";
import type { MeetPeer, NoteSent, PeerLog } from "../commands.ts";
import type { Group } from "../group.ts";

export function meetPeer(group: Group, { url, ...peer }: MeetPeer): PeerRow {
  const { feeds } = group.store;
  const { peers } = feeds;
  // Whoever is configured finds room.
  const isNew = feeds.peerOf(peer.nodeId) === undefined;
  if (isNew && peers.count >= PEERS_MAX && peers.oldestUnnamed) retire(group, peers.oldestUnnamed);
  const met = meet(group, peer);
  peers.setAddress(url, met.node);
  return met;
}

/** The peer, with the link that stands for its log. Throws `throttled` for one more than are remembered. */
export function meet(group: Group, { nodeId, logId }: PeerLog): PeerRow {
  const { feeds } = group.store;
  const { nodes, peers } = feeds;
  const known = feeds.peerOf(nodeId);
  if (known?.logId === logId) return known;
  if (known) retire(group, known);
  else if (peers.count >= PEERS_MAX) throw new ApiError("throttled", { limit: "max_peers", max: PEERS_MAX });
  return peers.link(nodes.named(nodeId), logId);
}

function retire(group: Group, { link }: PeerRow): void {
  group.store.feeds.peers.retire(link);
  group.hasRetired = true;
}

export function noteSent({ store }: Group, { link, outSeq, lanes }: NoteSent): null {
  const { peers, peerLanes } = store.feeds;
  if (outSeq !== undefined) peers.move(link, outSeq);
  for (const { lane, seq } of lanes) peerLanes.sent(link, lane, seq);
  return null;
}

/**
 * One subscription more or less by which a lane is wanted behind a link.
 *
 * The peer has the lane's events up to `sentSeq`, and while the lane is wanted those from `untilSeq` to where the walk
 * through the log is. So when the first wish comes, what is stored goes out by itself up to `untilSeq`; when the last
 * one goes and that is done, `sentSeq` is where the walk is.
 */
export function countWish({ store }: Group, link: number, lane: number, change: 1 | -1): void {
  const { peers, peerLanes, lanes } = store.feeds;
  const peer = peers.byLink(link);
  // A link that is not used any more wants nothing.
  if (link !== OWN_LINK && peer === undefined) return;
  const wish = peerLanes.wishOf(link, lane);
  const wishes = wish.wishes + change;
  let { sentSeq, untilSeq } = wish;
  if (peer && wish.wishes === 0) untilSeq = lanes.get(lane).lastSeq;
  // The walk through the log has gone on from there.
  if (peer && wishes === 0 && sentSeq >= untilSeq) sentSeq = Math.max(sentSeq, peer.outSeq);
  peerLanes.setWish(link, lane, { wishes, sentSeq, untilSeq });
}
