/** Reading topics for streams: from memory at the head, from the store behind it, and nothing before it is kept. */
import { ApiError } from "../contract/errors.ts";
import type { Bell } from "./bell.ts";
import type { Commits } from "./commit.ts";
import { type Crowd, Crowds, type Member } from "./crowds.ts";
import type { Wants } from "./followed.ts";
import type { Follower } from "./follower.ts";
import type { Group } from "./group.ts";
import { nameOf, Pages } from "./pages.ts";
import type { Place } from "./places.ts";
import { type Run, read, type Window } from "./reader.ts";
import { type Step, stepOf, Tails } from "./tails.ts";
import type { Topic } from "./topic.ts";
import type { Topics } from "./topics.ts";

export class Reading {
  readonly unexpected: (error: unknown) => void;
  readonly #topics: Topics;
  readonly #commits: Commits;
  readonly #bell: Bell;
  readonly #now: () => number;
  readonly #tails = new Tails();
  readonly #pages = new Pages();
  readonly #crowds = new Crowds(this);
  /** Topics that have changed, and streams that may have something to tell. */
  readonly #changed: Topic[] = [];
  #ready = new Set<Follower>();
  #turn: NodeJS.Immediate | undefined;
  readonly #readers = new Map<Topic, number>();

  /** `unexpected` gets what ends a stream and is no answer to a client. */
  constructor(
    topics: Topics,
    commits: Commits,
    bell: Bell,
    unexpected: (error: unknown) => void,
    now: () => number,
  ) {
    this.unexpected = unexpected;
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
      for (const topic of this.#changed.splice(0)) this.#crowds.serve(topic);
      const ready = this.#ready;
      this.#ready = new Set();
      for (const follower of ready) follower.serve();
    });
  }

  /** Keeps what a group has brought for those who follow its topics, and tells them. */
  committed(group: Group): void {
    for (const [topic, appended] of group.appended) {
      if (this.#readers.has(topic)) this.#tails.append(topic, appended);
    }
    for (const topic of [...group.appended.keys(), ...group.deleted]) {
      if (this.#readers.has(topic)) this.#changed.push(topic);
    }
    if (this.#changed.length > 0) this.#schedule();
  }

  /** Calls `hear` when the topic grows or is deleted, until the function it returns is called. */
  listen(topic: Topic, hear: () => void): () => void {
    const stop = this.#bell.listen(topic, hear);
    this.#remember(topic);
    return () => {
      stop();
      this.#forget(topic);
    };
  }

  #remember(topic: Topic): void {
    this.#readers.set(topic, (this.#readers.get(topic) ?? 0) + 1);
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
    if (crowd) this.#remember(topic);
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

  /** What lies behind `window.fromSeq` of the topic that has that name now; undefined if none has. Throws `internal`. */
  async stored(
    name: string,
    window: (topic: Topic) => Window,
  ): Promise<{ topic: Topic; step: Step } | undefined> {
    try {
      const { topic, run } = await this.read(name, window);
      return { topic, step: stepOf(topic, window(topic), run) };
    } catch (error) {
      if (error instanceof ApiError && error.code === "topic_not_found") return undefined;
      throw error;
    }
  }

  /** Reads from the store, with what routers have for the topic. Throws `topic_not_found`, `internal`. */
  async read(name: string, window: (topic: Topic) => Window): Promise<{ topic: Topic; run: Run }> {
    const topic = await this.#topics.fresh(name);
    const run = await read(topic, window(topic), this.#pages);
    // Deleted during a long walk: what was read says nothing about what there is now.
    if (topic.deleted) return this.read(name, window);
    this.#topics.consumed(topic);
    return { topic, run };
  }

  /** What must be over before records up to `seq` are shown; undefined if nothing must. */
  kept(topic: Topic, seq: number, strong: boolean): Promise<void> | undefined {
    const { durability } = topic.config;
    const isWeak = durability === "disk" || durability === "memory";
    return strong && isWeak && topic.syncedHead < seq ? this.#commits.harden(topic) : topic.unsynced;
  }
}

const keyOf = ({ limit, bytesMax, view }: Wants): string => `${limit} ${bytesMax} ${nameOf(view)}`;
