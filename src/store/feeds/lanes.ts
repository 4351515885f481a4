/** Authors and peers, and the lanes that events belong to, by small numbers. */
import type { Database, Statement } from "bun:sqlite";

/** The messages of a feed in a scope; with an empty feed key, changes of subscriptions. */
export interface LaneName {
  readonly networkId: string;
  readonly scope: string;
  readonly feedKey: string;
}

export interface Lane extends LaneName {
  readonly lane: number;
  /** Of its newest event; 0 if it has none. */
  readonly lastSeq: number;
}

export class Lanes {
  readonly #find: Statement;
  readonly #insert: Statement;
  readonly #get: Statement;
  readonly #grow: Statement;
  readonly #hasNetwork: Statement;

  constructor(db: Database) {
    this.#hasNetwork = db.prepare("SELECT 1 FROM feed_lanes WHERE network_id = ? LIMIT 1");
    const where = "network_id = ?1 AND feed_key = ?2 AND scope = ?3";
    this.#find = db.prepare(`SELECT lane FROM feed_lanes WHERE ${where}`);
    this.#insert = db.prepare(
      "INSERT INTO feed_lanes (network_id, feed_key, scope, last_seq) VALUES (?1, ?2, ?3, 0) RETURNING lane",
    );
    this.#get = db.prepare("SELECT network_id, scope, feed_key, last_seq FROM feed_lanes WHERE lane = ?");
    this.#grow = db.prepare("UPDATE feed_lanes SET last_seq = ?2 WHERE lane = ?1");
  }

  find({ networkId, scope, feedKey }: LaneName): number | undefined {
    const [row] = this.#find.values(networkId, feedKey, scope) as [number][];
    return row?.[0];
  }

  /** Its number, which it gets when it is first named. */
  named(name: LaneName): number {
    const known = this.find(name);
    if (known !== undefined) return known;
    const [[lane]] = this.#insert.values(name.networkId, name.feedKey, name.scope) as [[number]];
    return lane;
  }

  get(lane: number): Lane {
    const [row] = this.#get.values(lane) as [string, string, string, number][];
    if (row === undefined) throw new Error(`there is no lane ${lane}`);
    const [networkId, scope, feedKey, lastSeq] = row;
    return { lane, networkId, scope, feedKey, lastSeq };
  }

  /** Whether anything is known of a network. */
  hasNetwork(networkId: string): boolean {
    return this.#hasNetwork.values(networkId).length > 0;
  }

  /** `seq` is its newest event now. */
  grow(lane: number, seq: number): void {
    this.#grow.run(lane, seq);
  }
}

export class Nodes {
  readonly #find: Statement;
  readonly #insert: Statement;
  readonly #get: Statement;

  constructor(db: Database) {
    this.#find = db.prepare("SELECT node FROM feed_nodes WHERE node_id = ?");
    this.#insert = db.prepare("INSERT INTO feed_nodes (node_id) VALUES (?) RETURNING node");
    this.#get = db.prepare("SELECT node_id FROM feed_nodes WHERE node = ?");
  }

  find(nodeId: string): number | undefined {
    const [row] = this.#find.values(nodeId) as [number][];
    return row?.[0];
  }

  /** Its number, which it gets when it is first named. */
  named(nodeId: string): number {
    const known = this.find(nodeId);
    if (known !== undefined) return known;
    const [[node]] = this.#insert.values(nodeId) as [[number]];
    return node;
  }

  idOf(node: number): string {
    const [[nodeId]] = this.#get.values(node) as [[string]];
    return nodeId;
  }
}
