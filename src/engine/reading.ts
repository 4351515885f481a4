/** Reading topics for streams: from memory at the head, from the store behind it, and nothing before it is kept. */
import type { Bell } from "./bell.ts";
import type { Commits } from "./commit.ts";
import { type Crowd, Crowds, type Member } from "./crowds.ts";
import type { Follower, Wants } from "./follower.ts";
import type { Group } from "./group.ts";
import { nameOf, Pages } from "./pages.ts";
import type { Place } from "./places.ts";
import { read, type Window } from "./reader.ts";
import { type Step, stepOf, Tails } from "./tails.ts";
import type { Topic } from "./topic.ts";
import type { Topics } from "./topics.ts";

export class Reading {
  readonly #topics: Topics;
  readonly #commits: Commits;
  readonly #bell: Bell;
  readonly #now: () => number;
  readonly #tails = new Tails();
  readonly #pages = new Pages();
  readonly #crowds = new Crowds(this);
  /** Topics that have changed, and streams that may have something to tell. */
  readonly #changed = new Set<Topic>();
  readonly #ready = new Set<Follower>();
  #turn: NodeJS.Immediate | undefined;
  readonly #readers = new Map<Topic, number>();

  constructor(topics: Topics, commits: Commits, bell: Bell, now: () => number) {
    this.#topics = topics;
    this.#commits = commits;
    this.#bell = bell;
    this.#now = now;
  }

  /** Serves a stream once everything is known that happens together, and its writers have their answers. */
  soon(follower: Follower): void {
    this.#ready.add(follower);
    this.#schedule();
  }

  #schedule(): void {
    this.#turn ??= setImmediate(() => {
      this.#turn = undefined;
      for (const topic of this.#changed) this.#crowds.serve(topic);
      this.#changed.clear();
      for (const follower of this.#ready) follower.serve();
      this.#ready.clear();
    });
  }

  /** Keeps what a group has brought for those who follow its topics, and tells them. */
  committed(group: Group): void {
    for (const [topic, appended] of group.appended) {
      if (this.#readers.has(topic)) this.#tails.append(topic, appended);
    }
    for (const topic of [...group.appended.keys(), ...group.deleted]) {
      if (this.#readers.has(topic)) this.#changed.add(topic);
    }
    if (this.#changed.size > 0) this.#schedule();
  }

  /** Calls `hear` when the topic grows or is deleted, until the function it returns is called. */
  listen(topic: Topic, hear: () => void): () => void {
    const stop = this.#bell.listen(topic, hear);
    this.#readers.set(topic, (this.#readers.get(topic) ?? 0) + 1);
    return () => {
      stop();
      this.#forget(topic);
    };
  }

  #forget(topic: Topic): void {
    const left = this.#readers.get(topic)! - 1;
    if (left > 0) this.#readers.set(topic, left);
    else {
      this.#readers.delete(topic);
      this.#tails.forget(topic);
    }
  }

  /** Lets a stream wait at the head with others that want the same; undefined if it cannot. */
  join(topic: Topic, wants: Wants, place: Place, member: Member): Crowd | undefined {
    const { limit, bytesMax, view, nodes, strong } = wants;
    if (strong || nodes.size > 0) return undefined;
    const common = { limit, bytesMax, view, withoutNodes: nodes };
    const crowd = this.#crowds.join(topic, keyOf(wants), common, place, member);
    if (crowd) this.#readers.set(topic, (this.#readers.get(topic) ?? 0) + 1);
    return crowd;
  }

  leave(topic: Topic, wants: Wants, member: Member): void {
    this.#crowds.leave(topic, keyOf(wants), member);
    this.#forget(topic);
  }

  /** Calls `hear` when a topic of that name is created. */
  listenFor(name: string, hear: () => void): () => void {
    return this.#bell.listen(name, hear);
  }

  /** What an operator has said of a topic: higher ones come first. */
  priorityOf(name: string): number {
    return this.#topics.find(name)?.config.priority ?? 0;
  }

  /** What lies behind `window.fromSeq`, if that is in memory. */
  live(topic: Topic, window: Window): Step | undefined {
    const step = this.#tails.read(topic, window, this.#now());
    if (step) this.#topics.consumed(topic);
    return step;
  }

  /**
   * What lies behind `window.fromSeq` of the topic that has that name now, with what its routers have for it.
   * Throws `topic_not_found`, `internal`.
   */
  async stored(name: string, window: (topic: Topic) => Window): Promise<{ topic: Topic; step: Step }> {
    const topic = await this.#topics.fresh(name);
    const wanted = window(topic);
    const run = await read(topic, wanted, this.#pages);
    // Deleted during a long walk: what was read says nothing about what there is now.
    if (topic.deleted) return this.stored(name, window);
    this.#topics.consumed(topic);
    return { topic, step: stepOf(topic, wanted, run) };
  }

  /** What must be over before records up to `seq` are shown; undefined if nothing must. */
  kept(topic: Topic, seq: number, strong: boolean): Promise<void> | undefined {
    if (topic.unsynced) return topic.unsynced;
    if (!strong || topic.config.durability === "ephemeral" || topic.syncedHead >= seq) return undefined;
    return this.#commits.harden(topic);
  }
}

const keyOf = ({ limit, bytesMax, view }: Wants): string => `${limit} ${bytesMax} ${nameOf(view)}`;
