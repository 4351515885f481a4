/** What holds in a network of instances that gossip: for each by itself, and between those that can hear each other. */
import type { Engine } from "../../src/engine/engine.ts";
import { Scopes } from "../../src/engine/feeds/scope.ts";
import { type FeedNetwork, faultOf, type Logged, logOf, NETWORK, type Site } from "./feednetwork.ts";

export interface Lane {
  readonly feed: string;
  readonly scope: string;
}

const nameOf = ({ feed, scope }: Lane): string => `${scope}/${feed}`;

/** What is said of an event here. */
interface Read {
  readonly id: string;
  readonly seq: number;
  readonly ts: number;
  readonly author: string;
  readonly createdAt: number;
  readonly lane: Lane;
  /** Of a change of a subscription. */
  readonly change: { readonly who: string; readonly active: boolean } | undefined;
}

function read({ seq, ts, event }: Logged): Read {
  const { payload, type } = event.payload;
  const change =
    type === "FeedSubscriptionUpdated"
      ? { who: payload.subscriber_node_id as string, active: payload.active as boolean }
      : undefined;
  return {
    id: event.event_id,
    seq,
    ts,
    author: event.author_node_id,
    createdAt: event.created_at,
    lane: { feed: payload.feed_key as string, scope: event.swarm_scope },
    change,
  };
}

/** The lane that an event is stored in: changes of subscriptions share one, or two. */
export const laneOf = ({ lane, change }: Pick<Read, "lane" | "change">): Lane =>
  change === undefined ? lane : { feed: "", scope: lane.scope === "local" ? "local" : "" };

/** The later one is in force. */
const isNewer = (a: Read, b: Read): boolean =>
  a.createdAt > b.createdAt || (a.createdAt === b.createdAt && a.id > b.id);

/** What an instance must show, going by its log alone. */
export class Expected {
  readonly events: readonly Read[];
  /** In force, by row. */
  readonly subscriptions = new Map<string, Read>();
  /** The last message of subscribers hosted here. */
  readonly cursors = new Map<string, Read>();

  constructor(nodeId: string, log: readonly Logged[]) {
    this.events = log.map(read);
    for (const event of this.events) this.#take(nodeId, event);
  }

  #take(nodeId: string, event: Read): void {
    const { author, lane, change } = event;
    if (change === undefined) {
      for (const { author, lane: followed, change } of this.subscriptions.values()) {
        if (author !== nodeId || !change!.active || nameOf(followed) !== nameOf(lane)) continue;
        this.cursors.set(JSON.stringify([change!.who, lane.feed]), event);
      }
      return;
    }
    const row = JSON.stringify([author, change.who, lane.feed]);
    const current = this.subscriptions.get(row);
    if (current === undefined || isNewer(event, current)) this.subscriptions.set(row, event);
  }

  get messages(): Read[] {
    return this.events.filter(({ change }) => change === undefined);
  }

  /** Lanes that somebody subscribes to here. */
  hosted(nodeId: string): Lane[] {
    const mine = [...this.subscriptions.values()].filter(
      ({ author, change }) => author === nodeId && change!.active,
    );
    return mine.map(({ lane }) => lane);
  }
}

const byAge = (a: Read, b: Read): number => (isNewer(a, b) ? -1 : 1);
const travels = ({ lane }: Read): boolean => lane.scope !== "local";

/** What is wrong with an instance by itself. */
export async function faultsWithin(
  { forgetful }: FeedNetwork,
  site: Site,
  subscribers: readonly (string | null)[],
): Promise<string[]> {
  const faults: string[] = [];
  const { engine } = site.run!;
  const { nodeId } = engine.network.feeds;
  const log = await logOf(engine);
  const fault = (text: string) => void faults.push(`site ${site.index}: ${text}`);
  log.forEach((logged, i) => {
    if (logged.seq !== i + 1) fault(`seq ${logged.seq} where ${i + 1} was due`);
    const own = faultOf(logged);
    if (own !== undefined) fault(`seq ${logged.seq}: ${own}`);
  });
  const expected = new Expected(nodeId, log);
  const { events } = expected;
  if (new Set(events.map(({ id }) => id)).size !== events.length) fault("an event is stored twice");
  for (const id of site.told) if (!events.some((event) => event.id === id)) fault(`${id} is lost`);
  for (const event of events) {
    if (!travels(event) && event.author !== nodeId) fault(`seq ${event.seq} has left its instance`);
  }
  const own = events.filter(({ author }) => author === nodeId);
  if (!forgetful.has(nodeId)) {
    own.forEach(({ seq, createdAt }, i) => {
      if (i > 0 && createdAt < own[i - 1]!.createdAt) fault(`seq ${seq} has an earlier time than one before`);
    });
    const changes = own.filter(({ change }) => change !== undefined);
    const times = changes.map(({ change, lane, createdAt }) =>
      JSON.stringify([change!.who, lane.feed, createdAt]),
    );
    if (new Set(times).size !== times.length) fault("two changes of a subscription have one time");
  }
  await checkLanes(engine, expected, fault);
  await checkSubscriptions(engine, expected, fault);
  const feeds = new Set(events.map(({ lane }) => lane.feed));
  for (const feed of feeds)
    for (const who of subscribers) await checkCursor(engine, expected, who ?? nodeId, feed, fault);
  return faults;
}

type Fault = (text: string) => void;

async function checkLanes(engine: Engine, { messages }: Expected, fault: Fault): Promise<void> {
  for (const [name, those] of Map.groupBy(messages, ({ lane }) => nameOf(lane))) {
    const wanted = those.toSorted(byAge).map(({ id, seq }) => `${id} ${seq}`);
    const listed = await listOf(engine, those[0]!.lane, wanted.length > 50 ? 200 : 7);
    const found = listed.map(({ message_id, event_seq }) => `${message_id} ${event_seq}`);
    if (found.join() !== wanted.join()) fault(`${name} is listed otherwise than it is stored`);
  }
}

interface Listed {
  readonly message_id: string;
  readonly event_seq: number;
  readonly created_at: number;
}

/** All pages of a lane's messages. */
export async function listOf(engine: Engine, { feed, scope }: Lane, limit: number): Promise<Listed[]> {
  const listed: Listed[] = [];
  let beforeCreatedAt: number | undefined;
  let beforeMessageId: string | undefined;
  for (;;) {
    const query = { feedKey: feed, scopeHint: scope, networkId: undefined, limit };
    const page = await engine.network.feeds.messages({ ...query, beforeCreatedAt, beforeMessageId });
    listed.push(...page.messages.map((message) => JSON.parse(message) as Listed));
    if (page.next_anchor === null) return listed;
    ({ before_created_at: beforeCreatedAt, before_message_id: beforeMessageId } = page.next_anchor);
  }
}

async function checkSubscriptions(engine: Engine, { subscriptions }: Expected, fault: Fault): Promise<void> {
  const wanted = [...subscriptions.values()]
    .toSorted(byAge)
    .map(({ id, author, lane, change, createdAt }) =>
      JSON.stringify([id, author, change!.who, lane.feed, lane.scope, change!.active, createdAt]),
    );
  const found: string[] = [];
  let beforeUpdatedAt: number | undefined;
  let beforeEventId: string | undefined;
  for (;;) {
    const query = { networkId: NETWORK, feedKey: undefined, active: undefined, limit: 3, within: [] };
    const page = await engine.network.feeds.subscriptions({ ...query, beforeUpdatedAt, beforeEventId });
    for (const row of page.subscriptions) {
      const { event_id, host_node_id, subscriber_node_id, feed_key, scope_hint, active, updated_at } = row;
      found.push(
        JSON.stringify([
          event_id,
          host_node_id,
          subscriber_node_id,
          feed_key,
          scope_hint,
          active,
          updated_at,
        ]),
      );
    }
    if (page.next_anchor === null) break;
    ({ before_updated_at: beforeUpdatedAt, before_event_id: beforeEventId } = page.next_anchor);
  }
  if (found.join("\n") !== wanted.join("\n")) {
    fault(`subscriptions are\n${found.join("\n")}\nand should be\n${wanted.join("\n")}`);
  }
}

async function checkCursor(
  engine: Engine,
  { cursors }: Expected,
  who: string,
  feed: string,
  fault: Fault,
): Promise<void> {
  const query = { feedKey: feed, networkId: undefined, subscriber: who };
  const { cursor } = await engine.network.feeds.cursor(query);
  const at = cursors.get(JSON.stringify([who, feed]));
  const found = cursor && [cursor.last_event_seq, cursor.last_event_id, cursor.scope_hint, cursor.updated_at];
  const wanted = at ? [at.seq, at.id, at.lane.scope, at.ts] : null;
  if (JSON.stringify(found) !== JSON.stringify(wanted)) {
    fault(`the cursor of ${who} in ${feed} is ${JSON.stringify(found)}, not ${JSON.stringify(wanted)}`);
  }
}

/** Groups of instances that can hear each other, whoever lists whom. */
export function components({ sites, links }: FeedNetwork): Site[][] {
  const groupOf = new Map(sites.map((site) => [site.index, new Set([site.index])]));
  for (const { listing, isCut } of links) {
    if (isCut) continue;
    const joined = groupOf.get(listing.from)!.union(groupOf.get(listing.to)!);
    for (const index of joined) groupOf.set(index, joined);
  }
  return [...new Set(groupOf.values())].map((group) => [...group].map((index) => sites[index]!));
}

/** What instances that can hear each other have not told each other. */
export async function faultsBetween(network: FeedNetwork, group: readonly Site[]): Promise<string[]> {
  const known = new Map<Site, Expected>();
  const all = new Map<string, Read>();
  for (const site of group) {
    const expected = new Expected(site.author.id, await logOf(site.run!.engine));
    known.set(site, expected);
    for (const event of expected.events) if (travels(event)) all.set(event.id, event);
  }
  const faults: string[] = [];
  for (const [site, expected] of known) {
    const ids = new Set(expected.events.map(({ id }) => id));
    for (const { id, change, author, lane } of all.values()) {
      // Nobody gets back by itself what it has lost of its own.
      if (change === undefined || ids.has(id) || network.forgetful.has(author)) continue;
      faults.push(`site ${site.index} does not know of subscription ${id} to ${nameOf(lane)}`);
    }
    faults.push(...unaskedFaults(network, site, expected));
    for (const [other, { subscriptions }] of known)
      faults.push(...endedFaults(site, expected, other, subscriptions));
    for (const lane of expected.hosted(site.author.id)) {
      if (lane.scope === "local") continue;
      const fault = await laneFault(network, site, lane, [...all.values()]);
      if (fault !== undefined) faults.push(`site ${site.index}: ${nameOf(lane)}: ${fault}`);
    }
  }
  return faults;
}

/** What nobody has asked for stays where it was posted. */
function unaskedFaults({ asked }: FeedNetwork, site: Site, { messages }: Expected): string[] {
  const scopes = new Scopes(false);
  const lanes = Array.from(asked, (text) => {
    const [feed, hint] = JSON.parse(text) as [string, string];
    return nameOf({ feed, scope: scopes.canonical(hint)! });
  });
  const foreign = messages.filter(({ author }) => author !== site.author.id);
  const unasked = foreign.filter(({ lane }) => !lanes.includes(nameOf(lane)));
  return unasked.map(({ id, lane }) => `site ${site.index} has ${id} of ${nameOf(lane)}, which nobody wants`);
}

/** Others know of a subscription that has moved to where they cannot see it that it has ended. */
function endedFaults(site: Site, own: Expected, other: Site, theirs: Expected["subscriptions"]): string[] {
  if (site === other) return [];
  const moved = [...own.subscriptions].filter(
    ([, { author, lane }]) => author === site.author.id && lane.scope === "local",
  );
  const active = moved.filter(([row]) => theirs.get(row)?.change?.active);
  return active.map(([row]) => `site ${other.index} takes ${row} for active`);
}

/**
 * A subscriber sees what anybody has, in one order. What an instance has written and lost is not sent to it, so it
 * may be missing there, and behind it.
 */
async function laneFault(
  { forgetful }: FeedNetwork,
  site: Site,
  lane: Lane,
  all: readonly Read[],
): Promise<string | undefined> {
  const found = (await listOf(site.run!.engine, lane, 200)).map(({ message_id }) => message_id);
  const has = new Set(found);
  const those = all.filter((event) => event.change === undefined && nameOf(event.lane) === nameOf(lane));
  const wanted = those.filter(({ id, author }) => has.has(id) || !forgetful.has(author)).toSorted(byAge);
  if (wanted.map(({ id }) => id).join() === found.join()) return undefined;
  const missing = wanted.filter(({ id }) => !has.has(id)).length;
  return `${missing} of ${wanted.length} messages are missing, ${found.length} are there`;
}
