/** What the engine tells of itself to whoever watches over it. All plain numbers, read when asked for. */
import type { StoreFigures } from "../store/store.ts";
import type { Catalog } from "./catalog.ts";
import type { Census } from "./census.ts";
import type { CommitFigures } from "./commit.ts";
import type { FeedFigures } from "./feeds/network.ts";

export interface Figures {
  readonly census: Readonly<Census>;
  readonly routers: number;
  readonly leases: number;
  readonly commits: CommitFigures;
  readonly store: StoreFigures;
  readonly feeds: FeedFigures;
}

/** Where one topic stands. */
export interface TopicFigures {
  readonly topic: string;
  readonly head: number;
  readonly earliest: number;
  readonly records: number;
  readonly bytes: number;
  /** Of a queue: jobs that could be claimed, and jobs that are leased. */
  readonly queue: { readonly ready: number; readonly inFlight: number } | undefined;
}

/** So many topics are looked at in one turn of the event loop. */
const TURN_TOPICS = 50;

/** The figures of the topics of these names that exist, a few at a time so that nobody has to wait for all. */
export async function figuresOf(catalog: Catalog, names: readonly string[]): Promise<TopicFigures[]> {
  const figures: TopicFigures[] = [];
  for (let i = 0; i < names.length; i++) {
    if (i > 0 && i % TURN_TOPICS === 0) await new Promise((next) => setImmediate(next));
    const topic = names[i]!;
    const found = catalog.peek(topic);
    if (found === undefined) continue;
    const { head, earliest, count: records, bytes } = found.log;
    const { ready = records, jobs } = catalog.loaded(topic) ?? {};
    const queue = found.config.type === "queue" ? { ready, inFlight: jobs?.inFlight ?? 0 } : undefined;
    figures.push({ topic, head, earliest, records, bytes, queue });
  }
  return figures;
}
