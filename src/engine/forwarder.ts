/**
 * Lets routers take their steps: right after each commit that has something for them, off the path of the writer.
 *
 * Each router goes its own way, so one that is held up by its destination holds up nobody else; and only so many
 * steps are under way at a time, so that many routers do not keep clients waiting. A router that is held up goes on
 * when its destination has changed, and looks again from time to time, since a quota may have got room anywhere.
 */
import type { Catalog } from "./catalog.ts";
import type { Commits } from "./commit.ts";
import type { Group } from "./group.ts";
import type { RouterSet } from "./routerset.ts";
import type { Topic } from "./topic.ts";

/** So many steps are under way at a time, and so many routers are looked at in one turn of the event loop. */
const STEPS_MAX = 64;
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
  /** Routers that may have something to do, in order. */
  readonly #wanted = new Set<string>();
  #turn: NodeJS.Immediate | undefined;
  /** The steps that are under way, by router. */
  readonly #steps = new Map<string, Promise<void>>();
  /** Those of them that have something to do behind it. */
  readonly #again = new Set<string>();
  /** Routers that are held up: who has waited longest is first. */
  readonly #heldUp = new Set<string>();
  #retry: Timer | undefined;
  #closed = false;

  constructor(catalog: Catalog, routers: RouterSet, commits: Commits, now: () => number) {
    this.#catalog = catalog;
    this.#routers = routers;
    this.#commits = commits;
    this.#now = now;
    for (const name of routers.names) this.#want(name);
  }

  /** Notes what a group has brought for routers. */
  committed(group: Group): void {
    for (const name of group.movedRouters) this.#want(name);
    if (this.#routers.size === 0) return;
    for (const topic of group.appended.keys())
      for (const { name } of this.#routers.from(topic.name)) this.#want(name);
    if (this.#heldUp.size === 0) return;
    const changed = new Set(group.changed.map(({ name }) => name));
    for (const name of this.#heldUp) if (changed.has(this.#routers.get(name)?.dest ?? "")) this.#want(name);
  }

  /** Resolves when the topic has what the sources of its routers show now, as far as there is room for it. */
  async catchUp(topic: string): Promise<void> {
    const routers = this.#routers.into(topic);
    if (routers.length > 0) await Promise.all(routers.map(({ name }) => this.catchUpRouter(name)));
  }

  async catchUpRouter(name: string): Promise<void> {
    const target = this.#shown(name);
    const deadline = performance.now() + CATCH_UP_MS;
    while (this.#isBehind(name, target) && !this.#isHeldUp(name) && performance.now() < deadline) {
      await this.#step(name);
    }
  }

  #want(name: string): void {
    if (this.#steps.has(name)) this.#again.add(name);
    else this.#wanted.add(name);
    this.#schedule();
  }

  #schedule(): void {
    if (this.#closed || this.#wanted.size === 0) return;
    this.#turn ??= setImmediate(() => this.#begin());
  }

  /** Begins steps of those that have waited longest. */
  #begin(): void {
    this.#turn = undefined;
    let looks = STEPS_MAX;
    for (const name of this.#wanted) {
      if (this.#steps.size >= STEPS_MAX || looks-- === 0) break;
      this.#wanted.delete(name);
      if (this.#isBehind(name, this.#shown(name))) this.#step(name);
      else {
        this.#heldUp.delete(name);
        this.#wantLater(name);
      }
    }
    if (this.#steps.size < STEPS_MAX) this.#schedule();
  }

  /** What a source does not show yet is forwarded when it does. */
  #wantLater(name: string): void {
    const again = () => this.#want(name);
    this.#sourceOf(name)?.unsynced?.then(again, () => {});
  }

  /** One step, or the one that is under way. */
  #step(name: string): Promise<void> {
    const running = this.#steps.get(name);
    if (running) return running;
    const step = this.#take(name).finally(() => {
      this.#steps.delete(name);
      if (this.#again.delete(name) || !this.#heldUp.has(name)) this.#want(name);
      else this.#schedule();
    });
    this.#steps.set(name, step);
    return step;
  }

  async #take(name: string): Promise<void> {
    const before = this.#routers.get(name);
    const source = this.#sourceOf(name);
    const step = { epoch: source?.epoch ?? null, upTo: source?.shownHead ?? 0, now: this.#now() };
    let isBlocked = true;
    try {
      const { outcome } = await this.#commits.submit({ kind: "forward", router: name, ...step });
      isBlocked = outcome.blocked;
    } catch {
      // Whoever runs the server has been told by the commit that failed.
    }
    const hasMoved = this.#routers.get(name) !== before;
    // Who got something goes to the end of the line.
    if (!isBlocked || hasMoved) this.#heldUp.delete(name);
    if (isBlocked && this.#routers.get(name)) {
      this.#heldUp.add(name);
      this.#arm();
    }
  }

  #arm(): void {
    if (this.#closed || this.#heldUp.size === 0) return;
    this.#retry ??= setTimeout(() => {
      this.#retry = undefined;
      const names = [...this.#heldUp].slice(0, RETRIED_MAX);
      for (const held of names) {
        // To the end, so that all have their turn.
        this.#heldUp.delete(held);
        this.#heldUp.add(held);
        this.#want(held);
      }
      this.#arm();
    }, RETRY_MS);
  }

  /** Whether the router waits for its destination, and there is no sign of room. */
  #isHeldUp(name: string): boolean {
    return this.#heldUp.has(name) && !this.#wanted.has(name) && !this.#steps.has(name);
  }

  #sourceOf(name: string): Topic | undefined {
    const router = this.#routers.get(name);
    try {
      return router && this.#catalog.find(router.source);
    } catch {
      // It cannot be read, which its own readers are told.
      return undefined;
    }
  }

  /** The newest seq of the router's source that readers see: a copy is never seen before its record is safe. */
  #shown(name: string): number {
    return this.#sourceOf(name)?.shownHead ?? 0;
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
        const source = this.#sourceOf(name);
        const step = { epoch: source?.epoch ?? null, upTo: source?.log.head ?? 0, now: this.#now() };
        if (!this.#isBehind(name, step.upTo)) continue;
        this.#commits.carryOut({ kind: "forward", router: name, ...step });
        moved ||= this.#routers.get(name) !== router;
      }
    }
  }

  [Symbol.dispose](): void {
    this.#closed = true;
    clearImmediate(this.#turn);
    clearTimeout(this.#retry);
  }
}
