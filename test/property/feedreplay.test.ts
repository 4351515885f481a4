/**
 * What an instance knows of feeds follows from the commands that it has carried out; and all but how far it is with
 * its peers, from its log and from who has brought what.
 */
import { Database } from "bun:sqlite";
import { expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import fc from "fast-check";
import { FEED_LOG } from "../../src/contract/limits.ts";
import { Catalog } from "../../src/engine/catalog.ts";
import type { Command } from "../../src/engine/commands.ts";
import { Commits } from "../../src/engine/commit.ts";
import { resolveConfig } from "../../src/engine/config.ts";
import { RouterSet } from "../../src/engine/routerset.ts";
import { Store } from "../../src/store/store.ts";
import type { SignedEvent } from "../support/events.ts";
import { temporaryDirectory } from "../support/spawn.ts";
import { type History, history, mend, perform } from "./feedhistory.ts";
import { Expected, laneOf } from "./feedlaws.ts";
import { FeedNetwork, NETWORK, type Site } from "./feednetwork.ts";
import { PATIENCE_MS, runs } from "./host.ts";

setDefaultTimeout(30_000);

const checkpointer = new URL("../../src/store/checkpointer.ts", import.meta.url);
const limits = { topicsMax: 0, routersMax: 0, totalBytesMax: 0 };
const GROUP = 50;

const unexpected = (reason: unknown) => {
  throw reason;
};

/** Writes down the commands that are submitted anywhere, until it is disposed of. */
class Recorder implements Disposable {
  readonly #submitted = new Map<Commits, Set<Command>>();
  /** Of each data directory, what was used for it, in order. */
  readonly #used = new Map<string, Set<Command>[]>();
  #latest: Commits | undefined;
  readonly #original = { upkeep: Commits.prototype.upkeep, submit: Commits.prototype.submit };

  constructor() {
    const recorder = this;
    const { upkeep, submit } = this.#original;
    Commits.prototype.upkeep = function (work) {
      recorder.#latest = this;
      return upkeep.call(this, work);
    };
    Commits.prototype.submit = function (command) {
      const commands = recorder.#of(this);
      commands.add(command);
      const done = submit.call(this, command);
      // What is refused has changed nothing.
      done.catch(() => commands.delete(command));
      return done as ReturnType<typeof submit<typeof command>>;
    };
  }

  /** An engine was made just now: it is the one that has created its log last. */
  opened = ({ dir }: Site): void => {
    const used = this.#used.get(dir) ?? [];
    used.push(this.#of(this.#latest!));
    this.#used.set(dir, used);
  };

  #of(commits: Commits): Set<Command> {
    const commands = this.#submitted.get(commits) ?? new Set();
    this.#submitted.set(commits, commands);
    return commands;
  }

  commandsOf({ dir }: Site): Command[] {
    return (this.#used.get(dir) ?? []).flatMap((commands) => [...commands]);
  }

  [Symbol.dispose](): void {
    Object.assign(Commits.prototype, this.#original);
  }
}

/** Carries out commands on an empty store. */
async function replay(commands: readonly Command[], dir: string): Promise<void> {
  const checkpoints = { delayed: unexpected, ended: unexpected };
  using store = new Store({ dir, acceptLoss: false, checkpointer, checkpoints, lost: unexpected });
  const commits = new Commits(store, new Catalog(store), new RouterSet([]), limits, {
    closing: () => {},
    committed: () => {},
    undone: () => {},
    failed: unexpected,
  });
  commits.upkeep((group) => {
    group.create(FEED_LOG, resolveConfig(FEED_LOG, { durability: "fsync" }));
  });
  for (let i = 0; i < commands.length; i += GROUP) {
    await Promise.all(commands.slice(i, i + GROUP).map((command) => commits.submit(command)));
  }
}

type Row = Record<string, string | number | null>;

/** What is stored in a data directory that nobody uses. */
class Stored implements Disposable {
  readonly #db: Database;

  constructor(dir: string) {
    this.#db = new Database(join(dir, "topics.db"), { readonly: true });
  }

  rows(sql: string): Row[] {
    return this.#db.query(sql).all() as Row[];
  }

  /** All that is known of feeds; what is left of retired links is about to be removed. */
  get tables(): Record<string, Row[]> {
    const table = (name: string) => this.rows(`SELECT * FROM ${name} ORDER BY 1`);
    const current = "WHERE link = 0 OR link IN (SELECT link FROM feed_peers)";
    return {
      records: this.rows("SELECT id, ts, data, tag, node, meta FROM records ORDER BY id"),
      nodes: table("feed_nodes"),
      lanes: table("feed_lanes"),
      events: table("feed_events"),
      subscriptions: this.rows(
        "SELECT * FROM feed_subscriptions ORDER BY network_id, host, subscriber, feed_key",
      ),
      cursors: this.rows("SELECT * FROM feed_cursors ORDER BY network_id, subscriber, feed_key"),
      peers: table("feed_peers"),
      addresses: table("feed_addresses"),
      links: this.rows(`SELECT * FROM feed_links ${current} ORDER BY link, seq`),
      peerLanes: this.rows(`SELECT * FROM feed_peer_lanes ${current} ORDER BY link, lane`),
    };
  }

  [Symbol.dispose](): void {
    this.#db.close();
  }
}

/** Plays a history to its end and gives what its instances have stored to `judge`. */
async function afterwards(
  { count, listings, steps, cut }: History,
  judge: (site: Site, commands: readonly Command[]) => Promise<void>,
): Promise<void> {
  using recorder = new Recorder();
  await using network = await FeedNetwork.open(count, listings, recorder.opened);
  for (const step of steps) {
    // Which commands a crash has let through is not known here.
    await perform(network, step.kind === "crash" ? { ...step, kind: "restart" } : step);
  }
  mend(network, cut);
  await network.settled();
  await Bun.sleep(20);
  await network.end();
  for (const site of network.sites) await judge(site, recorder.commandsOf(site));
}

test(
  "the commands of an instance give the same log and the same tables on an empty store",
  async () => {
    const equal = async (site: Site, commands: readonly Command[]) => {
      await using copy = await temporaryDirectory();
      await replay(commands, join(copy.path, "data"));
      using original = new Stored(site.dir);
      using replayed = new Stored(join(copy.path, "data"));
      expect(replayed.tables).toEqual(original.tables);
    };
    await fc.assert(
      fc.asyncProperty(history, (history) => afterwards(history, equal)),
      { ...runs(15), markInterruptAsFailure: true },
    );
  },
  PATIENCE_MS,
);

/** What the tables show, with names for numbers. */
function shown(stored: Stored) {
  const lane = "l.network_id, l.scope, l.feed_key";
  return {
    events: stored.rows(
      `SELECT e.seq, e.event_id AS id, ${lane}, n.node_id AS author, e.created_at, e.accepted_at
       FROM feed_events e JOIN feed_lanes l USING (lane) JOIN feed_nodes n ON n.node = e.author ORDER BY seq`,
    ),
    lanes: stored.rows(
      "SELECT network_id, scope, feed_key, last_seq FROM feed_lanes l WHERE last_seq > 0 ORDER BY last_seq",
    ),
    subscriptions: stored.rows(
      `SELECT s.event_id AS id, s.seq, ${lane}, n.node_id AS host, s.subscriber, s.active, s.created_at
       FROM feed_subscriptions s JOIN feed_lanes l USING (lane) JOIN feed_nodes n ON n.node = s.host ORDER BY s.seq`,
    ),
    wishes: stored.rows(
      `SELECT p.link, l.network_id, l.scope, l.feed_key, p.wishes FROM feed_peer_lanes p JOIN feed_lanes l USING (lane)
       WHERE p.wishes > 0 AND (p.link = 0 OR p.link IN (SELECT link FROM feed_peers))`,
    ),
  };
}

function rebuilt(nodeId: string, stored: Stored) {
  const log = stored
    .rows("SELECT id & ((1 << 42) - 1) AS seq, ts, data FROM records ORDER BY id")
    .map((row) => ({
      seq: row.seq as number,
      ts: row.ts as number,
      text: row.data as string,
      event: JSON.parse(row.data as string) as SignedEvent,
    }));
  const expected = new Expected(nodeId, log);
  const network_id = NETWORK;
  const events = expected.events.map(({ id, seq, ts, author, createdAt, ...event }) => {
    const { scope, feed: feed_key } = laneOf(event);
    return { seq, id, network_id, scope, feed_key, author, created_at: createdAt, accepted_at: ts };
  });
  const lastOf = new Map(events.map(({ seq, scope, feed_key }) => [JSON.stringify([scope, feed_key]), seq]));
  const lanes = [...lastOf].map(([name, last_seq]) => {
    const [scope, feed_key] = JSON.parse(name) as [string, string];
    return { network_id, scope, feed_key, last_seq };
  });
  const inForce = [...expected.subscriptions.values()].toSorted((a, b) => a.seq - b.seq);
  const subscriptions = inForce.map(({ id, seq, lane, author: host, change, createdAt: created_at }) => {
    const { who: subscriber, active } = change!;
    const { scope, feed: feed_key } = lane;
    return { id, seq, network_id, scope, feed_key, host, subscriber, active: Number(active), created_at };
  });
  const arrivals = stored.rows(
    "SELECT link, seq FROM feed_links WHERE link IN (SELECT link FROM feed_peers)",
  );
  const brought = new Set(arrivals.map(({ link, seq }) => `${link} ${seq}`));
  // This instance is link 0.
  const links = [0, ...new Set(arrivals.map(({ link }) => link))];
  const isFrom = (link: Row[string], seq: number, host: string) =>
    link === 0 ? host === nodeId : brought.has(`${link} ${seq}`);
  const wished = links.flatMap((link) =>
    subscriptions
      .filter(({ seq, host, active }) => active === 1 && isFrom(link!, seq, host))
      .map(({ scope, feed_key }) => JSON.stringify({ link, network_id, scope, feed_key })),
  );
  const wishes = [...Map.groupBy(wished, (text) => text)].map(([text, { length }]) => ({
    ...(JSON.parse(text) as Row),
    wishes: length,
  }));
  return { events, lanes: lanes.toSorted((a, b) => a.last_seq - b.last_seq), subscriptions, wishes };
}

const byText = (a: unknown, b: unknown): number => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1);

test(
  "what is known of events, lanes, subscriptions and wishes follows from the log and from who has brought what",
  async () => {
    const equal = async (site: Site) => {
      using stored = new Stored(site.dir);
      const { wishes: found, ...tables } = shown(stored);
      const { wishes, ...those } = rebuilt(site.author.id, stored);
      expect(tables).toEqual(those);
      expect(found.toSorted(byText)).toEqual(wishes.toSorted(byText));
      const own = "JOIN feed_events e USING (seq) JOIN feed_nodes n ON n.node = e.author";
      expect(stored.rows(`SELECT * FROM feed_links ${own} WHERE n.node_id = '${site.author.id}'`)).toEqual(
        [],
      );
      const head = Math.max(0, ...those.events.map(({ seq }) => seq));
      expect(stored.rows(`SELECT * FROM feed_peers WHERE out_seq > ${head}`)).toEqual([]);
    };
    await fc.assert(
      fc.asyncProperty(history, (history) => afterwards(history, equal)),
      { ...runs(15), markInterruptAsFailure: true },
    );
  },
  PATIENCE_MS,
);
