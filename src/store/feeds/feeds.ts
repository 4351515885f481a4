/** The tables of feeds. What they say follows from the feed log and from who has brought what. */
import type { Database } from "bun:sqlite";
import { Cursors } from "./cursors.ts";
import { Events } from "./events.ts";
import { Lanes, Nodes } from "./lanes.ts";
import { Links, PeerLanes, type PeerRow, Peers } from "./peers.ts";
import { Subscriptions } from "./subscriptions.ts";

export class FeedTables {
  readonly nodes: Nodes;
  readonly lanes: Lanes;
  readonly events: Events;
  readonly subscriptions: Subscriptions;
  readonly cursors: Cursors;
  readonly peers: Peers;
  readonly links: Links;
  readonly peerLanes: PeerLanes;

  constructor(db: Database) {
    this.nodes = new Nodes(db);
    this.lanes = new Lanes(db);
    this.events = new Events(db);
    this.subscriptions = new Subscriptions(db);
    this.cursors = new Cursors(db);
    this.peers = new Peers(db);
    this.links = new Links(db);
    this.peerLanes = new PeerLanes(db);
  }

  /** The peer of that public key, if it is remembered. */
  peerOf(nodeId: string): PeerRow | undefined {
    const node = this.nodes.find(nodeId);
    return node === undefined ? undefined : this.peers.get(node);
  }
}
