/**
 * One stream's place in its topics, and what comes next.
 *
 * A follower holds positions and no records: whoever takes its frames slowly only slows itself. It listens to its
 * topics, so nothing is polled and no record waits for a heartbeat. Topics that have something are served by their
 * priority, then by name, each to its head unless it would keep the others waiting.
 */
import { ApiError } from "../contract/errors.ts";
import {
  caughtUp,
  damaged,
  ending,
  type Frame,
  tombstoneFrame,
  topicDeleted,
} from "./frames.ts";
import type { View } from "./pages.ts";
import { type Place, type Places, StreamId } from "./places.ts";
import type { Window } from "./reader.ts";
import type { Reading } from "./reading.ts";
import type { Step } from "./tails.ts";
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

/** A frame on its way to the client. */
export interface Told {
  readonly frame: Frame;
  /** Where the stream stands behind it. Empty for a stream without ids. */
  readonly id: string;
  /** Whether the client has dropped the topic meanwhile. */
  readonly from: { readonly isDropped: boolean };
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
  /** Reads since it was last at its head. */
  reads = 0;
  stop = (): void => {};

  constructor(name: string, place: Place, wants: Wants) {
    this.name = name;
    this.place = place;
    this.wants = wants;
  }

  get priority(): number {
    return this.topic?.config.priority ?? 0;
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

export class Follower implements AsyncIterableIterator<readonly Told[]> {
  readonly #reading: Reading;
  readonly #style: FollowerStyle;
  readonly #followed = new Map<string, Followed>();
  readonly #places = new Map<string, Place>();
  /** Topics that may have something to tell. */
  readonly #waiting = new Set<Followed>();
  #id: StreamId | undefined;
  #isOver = false;
  #last: Frame | undefined;
  #wake = (): void => {};

  constructor(reading: Reading, style: FollowerStyle) {
    this.#reading = reading;
    this.#style = style;
  }

  /** Where it stands in every topic that it has followed. */
  get places(): Places {
    return this.#places;
  }

  follows(topic: string): boolean {
    return this.#followed.has(topic);
  }

  /** Follows a topic from now on, from there and in no other way. */
  add(name: string, place: Place, wants: Wants): void {
    this.remove(name);
    const followed = new Followed(name, place, wants);
    this.#followed.set(name, followed);
    this.#places.set(name, place);
    this.#id = undefined;
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

  [Symbol.asyncIterator](): this {
    return this;
  }

  async next(): Promise<IteratorResult<readonly Told[], undefined>> {
    const told: Told[] = [];
    for (let length = 0; ; ) {
      const followed = this.#isOver || length >= BATCH_LENGTH ? undefined : this.#nextWaiting();
      if (followed) {
        const frames = this.#step(followed);
        for (const frame of frames instanceof Promise ? await frames : frames) {
          told.push(this.#tell(followed, frame));
          length += frame.members.length;
        }
      } else if (this.#isOver) {
        return this.#lastWords(told);
      } else if (told.length > 0) {
        return { value: told, done: false };
      } else if (this.#style.ids && this.#followed.size === 0) {
        this.#finish();
      } else {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    }
  }

  async return(): Promise<IteratorResult<readonly Told[], undefined>> {
    this.#finish();
    return { value: undefined, done: true };
  }

  #finish(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#style.over();
    for (const followed of this.#followed.values()) followed.stop();
    this.#wake();
  }

  /** What is left to say, and then the end. */
  #lastWords(told: Told[]): IteratorResult<readonly Told[], undefined> {
    const frame = this.#last;
    this.#last = undefined;
    if (frame) told.push({ frame, id: this.#idBehind(frame), from: { isDropped: false } });
    return told.length > 0 ? { value: told, done: false } : { value: undefined, done: true };
  }

  #notice(followed: Followed): void {
    if (this.#isOver) return;
    this.#waiting.add(followed);
    this.#wake();
  }

  #drop(followed: Followed): void {
    followed.stop();
    this.#waiting.delete(followed);
    if (this.#followed.get(followed.name) === followed) this.#followed.delete(followed.name);
  }

  #nextWaiting(): Followed | undefined {
    let best: Followed | undefined;
    for (const followed of this.#waiting) if (best === undefined || comesBefore(followed, best)) best = followed;
    if (best && best.reads >= READS_PER_TURN) for (const followed of this.#waiting) followed.reads = 0;
    return best;
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
    else followed.reads = 0;
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

  #tell(followed: Followed, frame: Frame): Told {
    if (frame.place) this.#place(followed, frame.place);
    return { frame, id: this.#idBehind(frame), from: followed };
  }

  #place({ name }: Followed, place: Place): void {
    this.#places.set(name, place);
    this.#id?.move(name, place);
  }

  #idBehind(frame: Frame): string {
    if (!this.#style.ids) return "";
    // The same for all streams that follow this topic alone.
    if (this.#places.size === 1 && frame.soleId) return frame.soleId;
    this.#id ??= new StreamId(this.#places);
    const id = this.#id.toString();
    if (this.#places.size === 1) frame.soleId = id;
    return id;
  }
}

/** Who has had many reads comes after those who wait. */
function comesBefore(a: Followed, b: Followed): boolean {
  const hasHadTurn = ({ reads }: Followed) => reads >= READS_PER_TURN;
  if (hasHadTurn(a) !== hasHadTurn(b)) return hasHadTurn(b);
  return a.priority === b.priority ? a.name < b.name : a.priority > b.priority;
}
