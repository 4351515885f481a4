/**
 * Topics and the routers between them, as plainly as they can be said: every topic is a list of all it ever held,
 * with its holes, and a router is a place in the list of its source. `settle` does all that routers have to do.
 */

export const HOPS_MAX = 8;

export interface TopicSettings {
  readonly type: "log" | "queue";
  readonly durability: "disk" | "fsync";
  readonly cap_records: number;
  readonly discard: "old" | "reject";
}

export const plainTopic: TopicSettings = { type: "log", durability: "disk", cap_records: 0, discard: "old" };

export type Filter = null | string | readonly ["tag", "Eq" | "Glob", string];

export interface Edge {
  readonly source: string;
  readonly dest: string;
}

export interface RouterSettings extends Edge {
  readonly filter: Filter;
  readonly preserve_node: boolean;
  readonly preserve_tag: boolean;
  readonly guarantee: "at_least_once" | "exactly_once";
  readonly allow_cycle: boolean;
}

export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };

export interface Input {
  /** As text. */
  readonly data: string;
  readonly tag: string | undefined;
  readonly node: string | undefined;
  readonly meta: Json | undefined;
}

/** One seq of a topic. */
interface Entry extends Input {
  readonly seq: number;
  readonly ts: number;
  readonly hops: number;
  /** A hole stands for a record that the source had lost. */
  state: "live" | "deleted" | "evicted" | "hole";
}

export class ModelTopic {
  readonly name: string;
  settings: TopicSettings;
  /** What the server said it is; 0 if it was not asked yet. */
  epoch = 0;
  readonly entries: Entry[] = [];
  lastTs = 0;

  constructor(name: string, settings: TopicSettings) {
    this.name = name;
    this.settings = settings;
  }

  get head(): number {
    return this.entries.length;
  }

  get live(): Entry[] {
    return this.entries.filter(({ state }) => state === "live");
  }

  get holes(): number[] {
    return this.entries.filter(({ state }) => state === "hole").map(({ seq }) => seq);
  }

  fits(records: number): boolean {
    const { cap_records, discard } = this.settings;
    return discard === "old" || cap_records === 0 || this.live.length + records <= cap_records;
  }

  add(input: Input, now: number, hops: number): void {
    this.lastTs = Math.max(now, this.lastTs);
    this.entries.push({ ...input, seq: this.head + 1, ts: this.lastTs, hops, state: "live" });
  }

  addHole(): void {
    const nothing = { data: "", tag: undefined, node: undefined, meta: undefined };
    this.entries.push({ ...nothing, seq: this.head + 1, ts: 0, hops: 0, state: "hole" });
  }

  evict(): void {
    const { cap_records, discard } = this.settings;
    if (discard === "reject" || cap_records === 0) return;
    for (const entry of this.live.slice(0, Math.max(0, this.live.length - cap_records)))
      entry.state = "evicted";
  }
}

export interface ModelRouter {
  readonly name: string;
  settings: RouterSettings;
  /** The last seq of the source that is done with. */
  position: number;
  forwarded: number;
}

export class ModelGraph {
  readonly topics = new Map<string, ModelTopic>();
  readonly routers = new Map<string, ModelRouter>();

  get all(): ModelRouter[] {
    return [...this.routers.values()];
  }

  from = (topic: string): ModelRouter[] => this.all.filter(({ settings }) => settings.source === topic);
  into = (topic: string): ModelRouter[] => this.all.filter(({ settings }) => settings.dest === topic);

  /** The status of the answer. */
  putTopic(name: string, settings: TopicSettings): number {
    const topic = this.topics.get(name);
    if (topic === undefined) {
      this.topics.set(name, new ModelTopic(name, settings));
      return 201;
    }
    topic.settings = settings;
    topic.evict();
    return 200;
  }

  /** Names of the routers that go with it. */
  deleteTopic(name: string): string[] {
    const touching = this.all.filter(({ settings: { source, dest } }) => source === name || dest === name);
    for (const router of touching) this.routers.delete(router.name);
    this.topics.delete(name);
    return touching.map((router) => router.name).sort();
  }

  /** The status of the answer. */
  write(name: string, inputs: readonly Input[], now: number): number {
    const known = this.topics.get(name);
    if (known && !known.fits(inputs.length)) return inputs.length > known.settings.cap_records ? 400 : 422;
    if (known === undefined) this.putTopic(name, plainTopic);
    const topic = this.topics.get(name)!;
    for (const input of inputs) topic.add(input, now, 0);
    topic.evict();
    return known ? 200 : 201;
  }

  /** The number of records deleted. */
  deleteRecords(name: string, before: number | undefined, tag: string | undefined): number {
    const { live } = this.topics.get(name)!;
    const selected = live.filter(
      (entry) => (before === undefined || entry.seq < before) && (tag === undefined || entry.tag === tag),
    );
    for (const entry of selected) entry.state = "deleted";
    return selected.length;
  }

  /** The reason of the refusal, or the status of the answer. */
  putRouter(name: string, settings: RouterSettings): number | string {
    const { source, dest } = settings;
    const old = this.routers.get(name);
    const others = this.all.filter((router) => router !== old);
    if (source === dest) return "invalid_request";
    if (others.some(({ settings }) => settings.dest === dest && settings.source !== source)) {
      return "router_dest_fan_in";
    }
    if (old && (old.settings.source !== source || old.settings.dest !== dest)) {
      return "router_repoint_forbidden";
    }
    if (!settings.allow_cycle && reaches(dest, source, settingsOf(others))) return "router_cycle";
    for (const end of [source, dest]) if (!this.topics.has(end)) this.putTopic(end, plainTopic);
    if (old) {
      old.settings = settings;
      return 200;
    }
    this.routers.set(name, { name, settings, position: this.topics.get(source)!.head, forwarded: 0 });
    return 201;
  }

  /** Copies until nothing more can be copied. */
  settle(now: number): void {
    while (this.all.some((router) => this.#forward(router, now)));
  }

  /** True if the router has come further. */
  #forward(router: ModelRouter, now: number): boolean {
    const source = this.topics.get(router.settings.source)!;
    const dest = this.topics.get(router.settings.dest)!;
    const start = router.position;
    while (router.position < source.head) {
      const entry = source.entries[router.position]!;
      // What a hole stands for is missing further on, too.
      if (entry.state === "evicted" || entry.state === "hole") {
        dest.addHole();
        router.forwarded++;
      } else if (
        entry.state === "live" &&
        entry.hops < HOPS_MAX &&
        passes(router.settings.filter, entry.tag)
      ) {
        if (!dest.fits(1)) break;
        dest.add(copyOf(entry, router, source), now, entry.hops + 1);
        router.forwarded++;
      }
      router.position++;
    }
    dest.evict();
    return router.position > start;
  }
}

const settingsOf = (routers: readonly ModelRouter[]) => routers.map(({ settings }) => settings);

/** Whether routers lead from one topic to another. */
export function reaches(from: string, to: string, edges: readonly Edge[]): boolean {
  const seen = new Set([from]);
  for (const topic of seen) {
    for (const { source, dest } of edges) if (source === topic) seen.add(dest);
  }
  return seen.has(to);
}

export function passes(filter: Filter, tag: string | undefined): boolean {
  if (filter === null) return true;
  if (tag === undefined) return false;
  const [, kind, value] =
    typeof filter === "string" ? ["tag", filter.endsWith("*") ? "Glob" : "Eq", filter] : filter;
  return kind === "Eq" ? tag === value : tag.startsWith(value!.slice(0, -1));
}

function copyOf(entry: Entry, { name, settings }: ModelRouter, source: ModelTopic): Input {
  const { data, tag, node, meta } = entry;
  return {
    data,
    tag: settings.preserve_tag ? tag : undefined,
    node: settings.preserve_node ? node : undefined,
    meta: settings.guarantee === "exactly_once" ? stamped(meta, name, source, entry.seq) : meta,
  };
}

/** The stamp stands beside the record's own keys; a meta that is no object is kept whole. */
function stamped(meta: Json | undefined, router: string, source: ModelTopic, seq: number): Json {
  const { name, epoch } = source;
  const _topics_router = {
    idempotency_key: `router:${router}:${epoch}:${epoch}:${seq}`,
    router,
    source_topic: name,
    source_topic_id: epoch,
    source_epoch: epoch,
    source_seq: seq,
  };
  if (meta === undefined) return { _topics_router };
  const isObject = typeof meta === "object" && meta !== null && !Array.isArray(meta);
  return isObject ? { ...(meta as object), _topics_router } : { _topics_router, _topics_original_meta: meta };
}
