/** Histories of instances that gossip, and how one comes about. */
import fc from "fast-check";
import type { FeedNetwork, Listing, Site } from "./feednetwork.ts";

const SITES_MAX = 4;
export const feeds = ["a", "b"];
/** Spellings of a few scopes; two of them mean the same. */
const hints = ["global", "group:g", "GROUP : g", "node:n", "dm:x:y", "dm:y:x", "local"];
/** Null: the instance itself. */
export const subscribers = [null, "s"];

export type Step =
  | {
      readonly kind: "post";
      readonly at: number;
      readonly feed: string;
      readonly scope: string;
      readonly count: number;
      readonly isSame: boolean;
    }
  | {
      readonly kind: "subscribe";
      readonly at: number;
      readonly who: string | null;
      readonly feed: string;
      readonly scope: string;
      readonly active: boolean;
    }
  | { readonly kind: "cut" | "mend" | "lose" | "double"; readonly link: number }
  | { readonly kind: "restart" | "crash"; readonly at: number }
  | { readonly kind: "wipe"; readonly at: number; readonly keepsKey: boolean }
  | { readonly kind: "tick"; readonly at: number; readonly ms: number }
  | { readonly kind: "settle" }
  | { readonly kind: "rest"; readonly ms: number };

export interface History {
  readonly count: number;
  readonly listings: readonly Listing[];
  readonly steps: readonly Step[];
  /** Links that stay cut, and what is still posted then. */
  readonly cut: readonly number[];
  readonly last: readonly Step[];
  /** How wrong the clocks are. */
  readonly skews: readonly number[];
}

const at = fc.nat(SITES_MAX - 1);
const link = fc.nat(11);
// Most of it is about one lane, so that what is posted is also asked for.
const feed = fc.constantFrom(...feeds, "a", "a");
const scope = fc.constantFrom(...hints, ...Array<string>(8).fill("group:g"));
const just = <T extends string>(kind: T) => fc.constant(kind);
const post = fc.record({
  kind: just("post"),
  at,
  feed,
  scope,
  count: fc.oneof(
    { weight: 30, arbitrary: fc.integer({ min: 1, max: 4 }) },
    { weight: 1, arbitrary: fc.constant(300) },
  ),
  isSame: fc.boolean(),
});
const subscribe = fc.record({
  kind: just("subscribe"),
  at,
  who: fc.constantFrom(...subscribers),
  feed,
  scope,
  active: fc.constantFrom(true, true, true, false),
});
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 10, arbitrary: post },
  { weight: 8, arbitrary: subscribe },
  { weight: 6, arbitrary: fc.record({ kind: fc.constantFrom("cut", "mend", "lose", "double"), link }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constantFrom("restart", "crash"), at }) },
  { weight: 1, arbitrary: fc.record({ kind: just("wipe"), at, keepsKey: fc.boolean() }) },
  {
    weight: 2,
    arbitrary: fc.record({ kind: just("tick"), at, ms: fc.constantFrom(1, 5, 1000, -3, -300) }),
  },
  { weight: 2, arbitrary: fc.record({ kind: just("settle") }) },
  { weight: 3, arbitrary: fc.record({ kind: just("rest"), ms: fc.constantFrom(1, 5, 5, 30) }) },
);

const listing = (count: number) => fc.record({ from: fc.nat(count - 1), to: fc.nat(count - 1) });

/** A peer that is listed again is listed by another URL. */
const numbered = (pairs: readonly Omit<Listing, "alias">[]): Listing[] =>
  pairs.map((pair, i) => ({
    ...pair,
    alias: pairs.slice(0, i).filter(({ from, to }) => from === pair.from && to === pair.to).length,
  }));

export const history: fc.Arbitrary<History> = fc.constantFrom(2, 3, 3, SITES_MAX, SITES_MAX).chain((count) =>
  fc.record({
    count: fc.constant(count),
    listings: fc.array(listing(count), { minLength: count - 1, maxLength: 2 * count }).map(numbered),
    steps: fc.array(step, { maxLength: 40, size: "max" }),
    cut: fc.oneof(
      { weight: 3, arbitrary: fc.constant([]) },
      { weight: 1, arbitrary: fc.array(link, { maxLength: 2 }) },
    ),
    last: fc.array(post, { maxLength: 2 }),
    skews: fc.array(fc.constantFrom(0, 0, 40_000, -40_000), { minLength: count, maxLength: count }),
  }),
);

export async function perform(network: FeedNetwork, step: Step): Promise<void> {
  const siteAt = (at: number): Site => network.sites[at % network.sites.length]!;
  switch (step.kind) {
    case "post":
      return network.post(siteAt(step.at), step.feed, step.scope, step.count, step.isSame);
    case "subscribe":
      return network.subscribe(siteAt(step.at), step);
    case "restart":
      return network.restart(siteAt(step.at));
    case "crash":
      return network.crash(siteAt(step.at));
    case "wipe":
      return network.wipe(siteAt(step.at), step.keepsKey);
    case "tick":
      siteAt(step.at).tick(step.ms);
      return;
    case "settle":
      return network.settled();
    case "rest":
      // Something gets under way; what and how far is left to chance.
      return Bun.sleep(step.ms);
    default: {
      const link = network.links[step.link % network.links.length];
      if (link === undefined) return;
      if (step.kind === "cut" || step.kind === "mend") link.isCut = step.kind === "cut";
      else if (step.kind === "lose") link.losing++;
      else link.doubling++;
    }
  }
}

/** Lets everything through again, but for links that stay cut. */
export function mend({ links }: FeedNetwork, cut: readonly number[]): void {
  links.forEach((link, i) => {
    link.isCut = cut.includes(i);
    link.losing = 0;
    link.doubling = 0;
  });
}

/**
 * Every subscription is made again. Where an instance has lost its data, that is how the others learn by which way a
 * subscription comes now: what only the lost one had brought is not told again by itself.
 */
export async function renew({ sites }: FeedNetwork): Promise<void> {
  for (const { run } of sites) {
    const { feeds } = run!.engine.network;
    const any = { networkId: undefined, feedKey: undefined, active: true, within: [] };
    const page = { limit: 1000, beforeUpdatedAt: undefined, beforeEventId: undefined };
    const { subscriptions } = await feeds.subscriptions({ ...any, ...page });
    for (const { host_node_id, subscriber_node_id, feed_key, scope_hint } of subscriptions) {
      if (host_node_id !== feeds.nodeId) continue;
      await feeds.subscribe({ feed_key, scope_hint, active: true, subscriber_node_id });
    }
  }
}
