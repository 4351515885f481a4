/**
 * Lets routers take their steps: right after each commit that has something for them, off the path of the writer.
 *
 * Each router goes its own way, so one that is held up by its destination holds up nobody else. It goes on when its
 * destination has changed, and looks again from time to time, since a quota may have got room anywhere.
 */
import type { Catalog } from "./catalog.ts";
import type { Commits } from "./commit.ts";
import type { Group } from "./group.ts";
import type { RouterSet } from "./routerset.ts";

/** How often routers that are held up look again, and how many of them at a time. */
const RETRY_MS = 200;
const RETRIED_MAX = 50;
/** So long a reader waits at most for copies that are on their way. */
const CATCH_UP_MS = 1000;
/** So long a stop waits at most for them. */
const LAST_STEPS_MS = 5000;

export class Forwarder implements Disposable {
  readonly #catalog: Catalog;
  readonly #routers: RouterSet;
  readonly #commits: Commits;
  readonly #now: () => number;
  /** The steps that are being taken, by router. */
  readonly #steps = new Map<string, Promise<void>>();
  /** Routers that take step after step by themselves. */
  readonly #going = new Set<string>();
  readonly #blocked = new Set<string>();
  #timer: Timer | undefined;
  #closed = false;

  constructor(catalog: Catalog, routers: RouterSet, commits: Commits, now: () => number) {
    this.#catalog = catalog;
    this.#routers = routers;
    this.#commits = commits;
    this.#now = now;
    setImmediate(() => {
      for (const { name } of routers.all()) this.#go(name);
    });
  }

  /** Notes what a group has brought for routers. */
  committed(group: Group): void {
    if (this.#routers.size + group.configured.size === 0) return;
    for (const name of group.configured) {
      this.#blocked.delete(name);
      this.#go(name);
    }
    for (const topic of group.changed) {
      for (const { name } of this.#routers.from(topic.name)) this.#go(name);
      for (const { name } of this.#routers.into(topic.name)) if (this.#blocked.delete(name)) this.#go(name);
    }
  }

  /** Resolves when the topic has what the sources of its routers hold now, as far as there is room for it. */
  async catchUp(topic: string): Promise<void> {
    const routers = this.#routers.into(topic);
    if (routers.length > 0) await Promise.all(routers.map(({ name }) => this.catchUpRouter(name)));
  }

  async catchUpRouter(name: string): Promise<void> {
    const target = this.#headOf(name);
    const deadline = performance.now() + CATCH_UP_MS;
    while (this.#isBehind(name, target) && !this.#blocked.has(name) && performance.now() < deadline) {
      await this.#step(name);
    }
  }

  /** Takes steps until the router has nothing more to do. */
  async #go(name: string): Promise<void> {
    if (this.#going.has(name)) return;
    this.#going.add(name);
    while (this.#isBehind(name, this.#headOf(name)) && !this.#blocked.has(name) && !this.#closed) {
      await this.#step(name);
    }
    this.#going.delete(name);
  }

  /** One step, or the one that is being taken. */
  #step(name: string): Promise<void> {
    const running = this.#steps.get(name);
    if (running) return running;
    const step = this.#take(name).finally(() => this.#steps.delete(name));
    this.#steps.set(name, step);
    return step;
  }

  async #take(name: string): Promise<void> {
    const router = this.#routers.get(name);
    const source = router && this.#catalog.find(router.source);
    const upTo = source?.log.head ?? 0;
    try {
      // A copy is never seen before its record is on the device.
      await source?.unsynced;
      const { outcome } = await this.#commits.submit({
        kind: "forward",
        router: name,
        upTo,
        now: this.#now(),
      });
      if (outcome.blocked) this.#block(name);
    } catch {
      // Whoever runs the server has been told by the commit that failed.
      this.#block(name);
    }
  }

  #block(name: string): void {
    this.#blocked.add(name);
    this.#timer ??= setTimeout(() => this.#retry(), RETRY_MS);
  }

  #retry(): void {
    this.#timer = undefined;
    for (const name of [...this.#blocked].slice(0, RETRIED_MAX)) {
      this.#blocked.delete(name);
      this.#go(name);
    }
    if (this.#blocked.size > 0 && !this.#closed) this.#timer = setTimeout(() => this.#retry(), RETRY_MS);
  }

  #headOf(name: string): number {
    const router = this.#routers.get(name);
    return (router && this.#catalog.find(router.source)?.log.head) ?? 0;
  }

  #isBehind(name: string, target: number): boolean {
    const router = this.#routers.get(name);
    return router !== undefined && (router.position < target || router.lost > 0);
  }

  /** Takes the steps that are left, as far as there is room and time. */
  finish(): void {
    const deadline = performance.now() + LAST_STEPS_MS;
    // Each hop of a chain brings work for the next one.
    for (let moved = true; moved && performance.now() < deadline; ) {
      moved = false;
      for (const router of [...this.#routers.all()]) {
        const { name } = router;
        const upTo = this.#headOf(name);
        if (!this.#isBehind(name, upTo)) continue;
        this.#commits.carryOut({ kind: "forward", router: name, upTo, now: this.#now() });
        moved ||= this.#routers.get(name) !== router;
      }
    }
  }

  [Symbol.dispose](): void {
    this.#closed = true;
    clearTimeout(this.#timer);
  }
}
