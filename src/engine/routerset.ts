/** All routers, in memory: by name, by the topic they read and by the topic they write. */
import type { RouterSettings } from "../contract/routers.ts";
import type { RouterProgress } from "../store/routers.ts";

/** One router and how far it has come. Never changed, only replaced. */
export interface Router extends RouterSettings, RouterProgress {
  readonly name: string;
}

export class RouterSet {
  readonly #byName = new Map<string, Router>();
  readonly #bySource = new Map<string, Set<string>>();
  readonly #byDest = new Map<string, Set<string>>();
  #sorted: readonly string[] | undefined;

  constructor(routers: readonly Router[]) {
    for (const router of routers) this.set(router.name, router);
  }

  get size(): number {
    return this.#byName.size;
  }

  get(name: string): Router | undefined {
    return this.#byName.get(name);
  }

  set(name: string, router: Router | undefined): void {
    const old = this.#byName.get(name);
    if (old && router && old.source === router.source && old.dest === router.dest) {
      this.#byName.set(name, router);
      return;
    }
    this.#sorted = undefined;
    if (old) {
      this.#byName.delete(name);
      remove(this.#bySource, old.source, name);
      remove(this.#byDest, old.dest, name);
    }
    if (router) {
      this.#byName.set(name, router);
      add(this.#bySource, router.source, name);
      add(this.#byDest, router.dest, name);
    }
  }

  /** Routers that read `topic`. */
  from(topic: string): Router[] {
    return this.#named(this.#bySource.get(topic));
  }

  /** Routers that write to `topic`. */
  into(topic: string): Router[] {
    return this.#named(this.#byDest.get(topic));
  }

  /** All names in byte order. */
  get names(): readonly string[] {
    this.#sorted ??= [...this.#byName.keys()].sort();
    return this.#sorted;
  }

  all(): Iterable<Router> {
    return this.#byName.values();
  }

  /** The topics on a shortest way from `start` to `end` along routers other than `without`; undefined if there is none. */
  way(start: string, end: string, without: string): string[] | undefined {
    const cameFrom = new Map<string, string | undefined>([[start, undefined]]);
    for (const topic of cameFrom.keys()) {
      if (topic === end) return wayTo(end, cameFrom);
      for (const { name, dest } of this.from(topic)) {
        if (name !== without && !cameFrom.has(dest)) cameFrom.set(dest, topic);
      }
    }
    return undefined;
  }

  #named(names: Iterable<string> = []): Router[] {
    return Array.from(names, (name) => this.#byName.get(name)!);
  }
}

function wayTo(end: string, cameFrom: ReadonlyMap<string, string | undefined>): string[] {
  const way: string[] = [];
  for (let topic: string | undefined = end; topic !== undefined; topic = cameFrom.get(topic))
    way.unshift(topic);
  return way;
}

function add(index: Map<string, Set<string>>, topic: string, name: string): void {
  const names = index.get(topic) ?? new Set();
  index.set(topic, names.add(name));
}

function remove(index: Map<string, Set<string>>, topic: string, name: string): void {
  const names = index.get(topic);
  names?.delete(name);
  if (names?.size === 0) index.delete(topic);
}
