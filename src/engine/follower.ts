/**
 * One stream's place in its topics, and what comes next.
 *
 * A follower holds positions and no records: whoever takes its frames slowly only slows itself. It listens to its
 * topics, so nothing is polled and no record waits for a heartbeat. Topics that have something are served by their
 * priority, then by name, each to its head unless it would keep the others waiting.
 */
import { ApiError } from "../contract/errors.ts";
import type { Crowd, Member } from "./crowds.ts";
import { caughtUp, damaged, ending, type Frame, tombstoneFrame, topicDeleted } from "./frames.ts";
import type { View } from "./pages.ts";
import { type Place, type Places, StreamId } from "./places.ts";
import type { Window } from "./reader.ts";
import type { Reading } from "./reading.ts";
import type { Step } from "./tails.ts";
import { kept, soleTold, type TellResult, type Told } from "./told.ts";
import type { Topic } from "./topic.ts";

/** So many reads of one topic may come before others have their turn. */
const READS_PER_TURN = 16;
/** Frames are handed out together up to about so many characters. */
const BATCH_LENGTH = 64 * 1024;
/** A topic that is created again within this time has not gone. */
const GRACE_MS = 100;

/** What a stream wants of a topic's records. `nodes` are JSON strings. */
export interface Wants {
  readonly limit: number;
  readonly bytesMax: number;
  readonly view: View;
  readonly nodes: ReadonlySet<string>;
  /** Only what is on the device. */
  readonly strong: boolean;
}

export interface FollowerStyle {
  /**
   * For clients that come back with ids: frames have one, the first loss in a topic is told as `from_seq_too_old`,
   * and a topic may be created again while it is followed. The stream ends with its last topic.
   */
  readonly ids: boolean;
  /** Called once, when nothing is followed any more. */
  readonly over: () => void;
}

/** A topic that is followed. */
class Followed {
  readonly name: string;
  readonly wants: Wants;
  place: Place;
  /** Undefined until it was read. */
  topic: Topic | undefined;
  /** Whether the client knows that it has all there is. */
  isCaughtUp = false;
  isGoing = false;
  isDropped = false;
  /** Reads in this round. */
  reads = 0;
  stop = (): void => {};

  constructor(name: string, place: Place, wants: Wants) {
    this.name = name;
    this.place = place;
    this.wants = wants;
  }

  get hasMore(): boolean {
    return this.topic !== undefined && (this.topic.deleted || this.place.seq < this.topic.log.head);
  }

  window(topic: Topic): Window {
    const { limit, bytesMax, view, nodes } = this.wants;
    const { seq: fromSeq, epoch } = this.place;
    const withoutNodes = topic.config.dedupe_node ? nodes : none;
    return { fromSeq, epoch, limit, bytesMax, view, withoutNodes };
  }
}

const none: ReadonlySet<string> = new Set();

export class Follower implements Member {
  readonly #reading: Reading;
  readonly #style: FollowerStyle;
  readonly #followed = new Map<string, Followed>();
  readonly #places = new Map<string, Place>();
  /** Topics that may have something to tell. */
  readonly #waiting = new Set<Followed>();
  #round: Followed[] = [];
  #id: StreamId | undefined;
  #crowd: Crowd | undefined;
  #isOver = false;
  #last: Frame | undefined;
  /** Gives whoever asked what there is. */
  #ask: ((result: TellResult | Promise<TellResult>) => void) | undefined;

  constructor(reading: Reading, style: FollowerStyle) {
    this.#reading = reading;
    this.#style = style;
  }

  /** Where a stream with ids stands in every topic that it has followed. */
  get places(): Places {
    const [name] = this.#places.keys();
    return this.#crowd ? new Map([[name!, this.#crowd.place]]) : this.#places;
  }

  /** Where it stands, for its client. */
  get id(): string {
    return this.#idNow();
  }

  /** Follows a topic from now on, from there and in no other way. */
  add(name: string, place: Place, wants: Wants): void {
    this.remove(name);
    const followed = new Followed(name, place, wants);
    this.#followed.set(name, followed);
    this.#id = undefined;
    this.#place(followed, place);
    this.#notice(followed);
  }

  remove(name: string): void {
    const followed = this.#followed.get(name);
    if (followed === undefined) return;
    followed.isDropped = true;
    this.#drop(followed);
  }

  /** Ends with this error. */
  end(code: string, message: string): void {
    if (this.#isOver) return;
    this.#last = ending(code, message);
    this.#finish();
  }

  /** What comes next: now, where it is in memory, or when there is something. */
  next(): TellResult | Promise<TellResult> {
    // In a crowd, there is nothing yet.
    return (this.#crowd ? undefined : this.#poll([])) ?? this.#wait();
  }

  #wait(): Promise<TellResult> {
    const coming = new Promise<TellResult>((resolve) => {
      this.#ask = resolve;
    });
    if (this.#isSole && this.#crowd === undefined) this.#join();
    return coming;
  }

  /** Waits together with others, where it may. */
  #join(): void {
    const [followed] = this.#followed.values();
    const { topic, place, isCaughtUp } = followed ?? {};
    if (!topic || topic.deleted || !isCaughtUp || place?.seq !== topic.log.head) return;
    this.#crowd = this.#reading.join(topic, followed!.wants, place, this);
    if (this.#crowd === undefined) return;
    followed!.stop();
    followed!.stop = () => {
      if (this.#crowd) this.#stand(followed!, this.#crowd.place);
      this.#reading.leave(topic, followed!.wants, this);
    };
  }

  accept(result: TellResult): boolean {
    const ask = this.#ask;
    this.#ask = undefined;
    ask?.(result);
    return ask !== undefined;
  }

  leave(place: Place): void {
    const [followed] = this.#followed.values();
    this.#stand(followed!, place);
    this.#listen(followed!, followed!.topic!);
    this.#notice(followed!);
  }

  /** On its own, no longer in a crowd. */
  #stand(followed: Followed, place: Place): void {
    this.#crowd = undefined;
    followed.place = place;
    this.#places.set(followed.name, place);
  }

  return(): void {
    this.#finish();
  }

  /** Answers whoever has asked, if there is something by now. */
  serve(): void {
    const ask = this.#ask;
    if (ask === undefined) return;
    const result = this.#pollSafely();
    if (result === undefined) return;
    this.#ask = undefined;
    ask(result);
  }

  #pollSafely(): TellResult | Promise<TellResult> | undefined {
    try {
      return this.#poll([]);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** Adds to `told` what can be told now. Undefined if that is nothing. */
  #poll(told: Told[]): TellResult | Promise<TellResult> | undefined {
    for (let length = 0; ; ) {
      const followed = this.#isOver || length >= BATCH_LENGTH ? undefined : this.#nextWaiting();
      if (followed === undefined) break;
      const frames = this.#step(followed);
      if (frames instanceof Promise) return this.#pollOn(told, followed, frames);
      if (frames.length === 0) continue;
      if (this.#isSole && told.length === 0) return { value: this.#tellSole(followed, frames), done: false };
      length += this.#tell(told, followed, frames);
    }
    if (this.#style.ids && this.#followed.size === 0) this.#finish();
    if (this.#isOver) return this.#lastWords(told);
    return told.length > 0 ? { value: told, done: false } : undefined;
  }

  async #pollOn(told: Told[], followed: Followed, coming: Promise<readonly Frame[]>): Promise<TellResult> {
    const frames = await coming;
    const isSole = this.#isSole && told.length === 0 && frames.length > 0;
    if (isSole) return { value: this.#tellSole(followed, frames), done: false };
    this.#tell(told, followed, frames);
    return this.#poll(told) ?? this.next();
  }

  #finish(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#style.over();
    for (const followed of this.#followed.values()) followed.stop();
    this.#reading.soon(this);
  }

  /** What is left to say, and then the end. */
  #lastWords(told: Told[]): TellResult {
    const frame = this.#last;
    this.#last = undefined;
    if (frame) told.push({ frame, id: this.#idNow(), from: kept });
    return told.length > 0 ? { value: told, done: false } : { value: undefined, done: true };
  }

  #notice(followed: Followed): void {
    if (this.#isOver) return;
    this.#waiting.add(followed);
    if (this.#ask) this.#reading.soon(this);
  }

  #drop(followed: Followed): void {
    followed.stop();
    this.#waiting.delete(followed);
    if (this.#followed.get(followed.name) === followed) this.#followed.delete(followed.name);
  }

  /** In rounds: those that wait when a round begins are served in order, the others in the next one. */
  #nextWaiting(): Followed | undefined {
    for (;;) {
      const current = this.#round.at(-1);
      if (current === undefined) {
        if (this.#waiting.size === 0) return undefined;
        this.#round = this.#newRound();
      } else if (this.#waiting.has(current) && current.reads < READS_PER_TURN) {
        return current;
      } else {
        current.reads = 0;
        this.#round.pop();
      }
    }
  }

  /** Those that wait, the first one last. */
  #newRound(): Followed[] {
    const round = [...this.#waiting];
    if (round.length === 1) return round;
    const priorities = new Map(round.map(({ name }) => [name, this.#reading.priorityOf(name)]));
    return round.sort((a, b) => {
      const byPriority = priorities.get(a.name)! - priorities.get(b.name)!;
      return byPriority === 0 ? (a.name < b.name ? 1 : -1) : byPriority;
    });
  }

  #step(followed: Followed): readonly Frame[] | Promise<readonly Frame[]> {
    this.#waiting.delete(followed);
    followed.reads++;
    const { topic } = followed;
    const step = topic && !topic.deleted && this.#reading.live(topic, followed.window(topic));
    return step ? this.#taken(followed, topic, step) : this.#stored(followed);
  }

  async #stored(followed: Followed): Promise<readonly Frame[]> {
    try {
      const { topic, step } = await this.#reading.stored(followed.name, (topic) => followed.window(topic));
      return this.#taken(followed, topic, step);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (error.code === "topic_not_found") return this.#gone(followed);
      const { seq } = error.detail as { seq?: number };
      if (seq === undefined) {
        this.end(error.code, error.message);
        return [];
      }
      const place = { epoch: followed.topic?.epoch ?? followed.place.epoch, seq };
      return this.#moved(followed, place, [damaged(followed.name, place, error)]);
    }
  }

  /** What was read is told as soon as it may be shown. */
  #taken(followed: Followed, topic: Topic, step: Step): readonly Frame[] | Promise<readonly Frame[]> {
    const isFirst = followed.topic === undefined;
    if (followed.topic !== topic) this.#listen(followed, topic);
    const { tombstone, next, head } = step;
    let { frames } = step;
    if (tombstone) {
      const reason = isFirst && this.#style.ids ? "from_seq_too_old" : tombstone.reason;
      frames = [tombstoneFrame(topic, tombstone, reason), ...frames];
    }
    if (frames.length > 0) followed.isCaughtUp = next === head;
    else if (next === head && !followed.isCaughtUp) {
      followed.isCaughtUp = true;
      frames = [caughtUp(topic, head)];
    }
    const moved = this.#moved(followed, { epoch: topic.epoch, seq: next }, frames);
    const kept = this.#reading.kept(topic, next, followed.wants.strong);
    return kept ? kept.then(() => moved) : moved;
  }

  #moved(followed: Followed, place: Place, frames: readonly Frame[]): readonly Frame[] {
    followed.place = place;
    // Dropped meanwhile, and perhaps followed in another way since.
    if (this.#followed.get(followed.name) !== followed) return [];
    if (frames.length === 0) this.#place(followed, place);
    if (followed.hasMore) this.#waiting.add(followed);
    return frames;
  }

  #listen(followed: Followed, topic: Topic): void {
    followed.stop();
    followed.topic = topic;
    followed.isGoing = false;
    if (!this.#isOver && !followed.isDropped)
      followed.stop = this.#reading.listen(topic, () => this.#notice(followed));
  }

  /** There is no topic of that name. */
  #gone(followed: Followed): readonly Frame[] {
    if (this.#style.ids && followed.topic !== undefined && !followed.isGoing) {
      followed.isGoing = true;
      followed.stop();
      const look = () => this.#notice(followed);
      const timer = setTimeout(look, GRACE_MS);
      const stop = this.#reading.listenFor(followed.name, look);
      followed.stop = () => {
        clearTimeout(timer);
        stop();
      };
      return [];
    }
    this.#drop(followed);
    return followed.isDropped ? [] : [topicDeleted(followed.name, followed.place)];
  }

  #tell(told: Told[], followed: Followed, frames: readonly Frame[]): number {
    let length = 0;
    for (const frame of frames) {
      if (frame.place) this.#place(followed, frame.place);
      told.push({ frame, id: this.#idNow(), from: followed });
      length += frame.members.length;
    }
    return length;
  }

  #tellSole(followed: Followed, frames: readonly Frame[]): readonly Told[] {
    this.#places.set(followed.name, followed.place);
    return soleTold(frames);
  }

  /** Whether its ids are those of every stream at the same place. */
  get #isSole(): boolean {
    return this.#style.ids && this.#places.size === 1;
  }

  #place({ name }: Followed, place: Place): void {
    if (!this.#style.ids) return;
    this.#places.set(name, place);
    this.#id?.move(name, place);
  }

  #idNow(): string {
    if (!this.#style.ids) return "";
    if (this.#isSole) return String(new StreamId(this.places));
    this.#id ??= new StreamId(this.#places);
    return this.#id.toString();
  }
}
