/**
 * One stream's place in its topics, and what comes next.
 *
 * A follower holds positions and no records: whoever takes its frames slowly only slows itself. Nothing is polled: it
 * listens to its topics, or waits in a crowd. What is in memory is told at once. What has to be read from the store is
 * read one page at a time and not before the last one was taken, so a stream never holds more.
 */
import { ApiError } from "../contract/errors.ts";
import type { Crowd, Member } from "./crowds.ts";
import { Followed, type Wants } from "./followed.ts";
import { caughtUp, ending, type Frame, failed, tombstoneFrame, topicDeleted } from "./frames.ts";
import { type Place, type Places, StreamId } from "./places.ts";
import type { Reading } from "./reading.ts";
import type { Step } from "./tails.ts";
import { kept, soleTold, type TellResult, type Told } from "./told.ts";
import type { Topic } from "./topic.ts";
import { Turns } from "./turns.ts";

/** So many pages of one topic may come before others that are behind have their turn. */
const READS_PER_TURN = 16;
/** Frames are handed out together up to about so many characters. */
const BATCH_LENGTH = 64 * 1024;
/** A topic that is created again within this time has not gone. */
const GRACE_MS = 100;

export interface FollowerStyle {
  /**
   * For clients that come back with ids: frames have one, the first loss in a topic is told as `from_seq_too_old`,
   * and a topic may be created again while it is followed. The stream ends with its last topic.
   */
  readonly ids: boolean;
  /** When it is aborted, the stream ends and says so. */
  readonly shutdown?: AbortSignal;
  /** Called once, when nothing is followed any more. */
  readonly over?: () => void;
}

/** What a look at a topic has brought. */
interface Look {
  readonly followed: Followed;
  readonly frames: readonly Frame[];
  readonly wasRead: boolean;
}

export class Follower implements Member {
  readonly #reading: Reading;
  readonly #style: FollowerStyle;
  readonly #followed = new Map<string, Followed>();
  readonly #places = new Map<string, Place>();
  /** Topics that may have something to tell, and those whose records must be read from the store. */
  readonly #rung: Turns<Followed>;
  readonly #behind: Turns<Followed>;
  /** A page is on its way from the store, or was not taken yet. */
  #isReading = false;
  /** What has taken some time to read or to keep. */
  readonly #arrived: Look[] = [];
  #id: StreamId | undefined;
  #crowd: Crowd | undefined;
  #isOver = false;
  #last: Frame | undefined;
  /** Gives whoever asked what there is. */
  #ask: ((result: TellResult) => void) | undefined;

  constructor(reading: Reading, style: FollowerStyle) {
    this.#reading = reading;
    this.#style = style;
    const priorityOf = ({ name, topic }: Followed) =>
      topic ? (topic.config.priority ?? 0) : reading.priorityOf(name);
    style.shutdown?.addEventListener("abort", this.#shutDown);
    this.#rung = new Turns(priorityOf);
    this.#behind = new Turns(priorityOf);
  }

  /** Where a stream with ids stands in every topic that it has followed. */
  get places(): Places {
    if (this.#crowd === undefined) return this.#places;
    const [name] = this.#followed.keys();
    return new Map([...this.#places, [name!, this.#crowd.place]]);
  }

  /** The same, for its client. */
  get id(): string {
    if (!this.#style.ids) return "";
    if (this.#isSole) return String(new StreamId(this.places));
    this.#id ??= new StreamId(this.#places);
    return this.#id.toString();
  }

  /** Follows a topic from now on, from there and in no other way. `toldEpoch`: the instance its client was told of. */
  add(name: string, place: Place, wants: Wants, toldEpoch?: number): void {
    this.#leaveCrowd();
    this.remove(name);
    const followed = new Followed(name, place, wants, toldEpoch);
    this.#followed.set(name, followed);
    this.#id = undefined;
    this.#place(followed, place);
    this.#notice(followed);
  }

  remove(name: string): void {
    const followed = this.#followed.get(name);
    if (followed === undefined) return;
    this.#leaveCrowd();
    followed.isDropped = true;
    this.#drop(followed);
  }

  /** Ends with this error. */
  end(code: string, message: string): void {
    if (this.#isOver) return;
    this.#last = ending(code, message);
    this.#finish();
  }

  return(): void {
    this.#finish();
  }

  /** What comes next, if there is something. Else `deliver` gets it when there is. */
  next(deliver: (result: TellResult) => void): TellResult | undefined {
    // In a crowd, there is nothing yet.
    const result = this.#crowd ? undefined : this.#poll();
    if (result === undefined) this.#wait(deliver);
    return result;
  }

  /** Answers whoever has asked, if there is something by now. */
  serve(): void {
    const ask = this.#ask;
    const result = ask && this.#poll();
    if (result === undefined) return;
    this.#ask = undefined;
    ask!(result);
  }

  get isAsking(): boolean {
    return this.#ask !== undefined;
  }

  accept(result: TellResult): void {
    const ask = this.#ask;
    this.#ask = undefined;
    ask?.(this.#isSole ? result : this.#own(result));
  }

  /** What a crowd is told, with the ids of this stream. */
  #own({ value = [] }: TellResult): TellResult {
    const told: Told[] = [];
    const [followed] = this.#followed.values();
    this.#tell(told, { followed: followed!, frames: value.map(({ frame }) => frame), wasRead: false });
    return { value: told, done: false };
  }

  leave(place: Place): void {
    const [followed] = this.#followed.values();
    this.#stand(followed!, place);
    this.#listen(followed!, followed!.topic!);
    this.#notice(followed!);
  }

  #wait(deliver: (result: TellResult) => void): void {
    this.#ask = deliver;
    if (this.#crowd === undefined && this.#followed.size === 1) this.#join();
  }

  /** Waits together with others, where it may. */
  #join(): void {
    const [followed] = this.#followed.values();
    const { topic, place, wants, isAtHead } = followed!;
    if (!isAtHead || !topic) return;
    this.#crowd = this.#reading.join(topic, wants, place, this);
    if (this.#crowd === undefined) return;
    followed!.stop();
    followed!.stop = () => {
      if (this.#crowd) this.#stand(followed!, this.#crowd.place);
      this.#reading.leave(topic, wants, this);
    };
  }

  #leaveCrowd(): void {
    if (this.#crowd) this.leave(this.#crowd.place);
  }

  /** On its own, no longer in a crowd. */
  #stand(followed: Followed, place: Place): void {
    this.#crowd = undefined;
    followed.place = place;
    this.#place(followed, place);
  }

  /** Whether its ids are those of every stream at the same place. */
  get #isSole(): boolean {
    return this.#style.ids && this.#places.size === 1;
  }

  /** What can be told now; undefined if that is nothing. */
  #poll(): TellResult | undefined {
    const told: Told[] = [];
    // It may have been too late to listen.
    if (this.#style.shutdown?.aborted) this.#shutDown();
    for (let length = 0; length < BATCH_LENGTH; ) {
      const look = this.#isOver ? undefined : (this.#takeArrived() ?? this.#lookOnSafely());
      if (look === undefined) break;
      if (look.frames.length === 0) continue;
      if (this.#isSole && told.length === 0) return { value: this.#tellSole(look), done: false };
      length += this.#tell(told, look);
    }
    if (this.#style.ids && this.#followed.size === 0 && this.#arrived.length === 0) this.#finish();
    if (this.#isOver) return this.#lastWords(told);
    return told.length > 0 ? { value: told, done: false } : undefined;
  }

  #takeArrived(): Look | undefined {
    const look = this.#arrived.shift();
    if (look?.wasRead) this.#isReading = false;
    return look;
  }

  /** What goes wrong here must end nothing but this stream. */
  #lookOnSafely(): Look | undefined {
    try {
      return this.#lookOn();
    } catch (error) {
      this.#reading.unexpected(error);
      this.end("internal", "internal error");
      return undefined;
    }
  }

  /** Looks at what waits, until something can be told without waiting for it. */
  #lookOn(): Look | undefined {
    for (let followed = this.#rung.take(); followed; followed = this.#rung.take()) {
      this.#behind.delete(followed);
      const frames = this.#lookAt(followed);
      if (frames instanceof Promise) this.#arriveLater(followed, frames, false);
      else if (frames) return { followed, frames, wasRead: false };
      else this.#behind.add(followed);
    }
    if (this.#isReading) return undefined;
    const followed = this.#behind.take();
    if (followed) {
      this.#isReading = true;
      this.#arriveLater(followed, this.#read(followed), true);
    }
    return undefined;
  }

  /** What can be told from memory; undefined if that is not all. */
  #lookAt(followed: Followed): readonly Frame[] | Promise<readonly Frame[]> | undefined {
    const { topic } = followed;
    if (topic === undefined) return undefined;
    // A client without ids has to ask for another topic of that name.
    if (topic.deleted) return this.#style.ids ? undefined : this.#gone(followed);
    const step = this.#reading.live(topic, followed.window(topic));
    return step && this.#taken(followed, topic, step);
  }

  /** A page from the store. */
  async #read(followed: Followed): Promise<readonly Frame[]> {
    followed.reads++;
    const found = await this.#reading.stored(followed.name, (topic) => followed.window(topic));
    return found ? this.#taken(followed, found.topic, found.step) : this.#gone(followed);
  }

  /** Goes on with other topics meanwhile, and not with this one. */
  #arriveLater(followed: Followed, coming: Promise<readonly Frame[]>, wasRead: boolean): void {
    followed.isComing = true;
    this.#rung.delete(followed);
    coming
      .catch((error) => this.#failed(followed, error))
      .then((frames) => {
        followed.isComing = false;
        this.#arrived.push({ followed, frames, wasRead });
        if (this.#followed.get(followed.name) === followed && followed.hasMore) this.#goOn(followed);
        if (this.#ask) this.#reading.soon(this);
      });
  }

  /** A topic that is behind keeps its turn for a while. */
  #goOn(followed: Followed): void {
    if (followed.reads > 0 && followed.reads < READS_PER_TURN) this.#behind.first(followed);
    else {
      followed.reads = 0;
      this.#rung.add(followed);
    }
  }

  /** What was read is told as soon as it may be shown. */
  #taken(followed: Followed, topic: Topic, step: Step): readonly Frame[] | Promise<readonly Frame[]> {
    const before = followed.topic;
    const { toldEpoch = topic.epoch } = followed;
    const isAnother = before ? before !== topic : toldEpoch !== topic.epoch;
    if (isAnother && !this.#style.ids) return this.#gone(followed);
    if (before !== topic) this.#listen(followed, topic);
    const { tombstone, next, head } = step;
    let { frames } = step;
    if (tombstone) {
      const reason = before === undefined && this.#style.ids ? "from_seq_too_old" : tombstone.reason;
      frames = [tombstoneFrame(topic, tombstone, reason), ...frames];
    }
    if (next === head) followed.reads = 0;
    if (frames.length > 0) followed.isCaughtUp = next === head;
    else if (next === head && !followed.isCaughtUp) {
      followed.isCaughtUp = true;
      frames = [caughtUp(topic, head)];
    }
    const kept = this.#reading.kept(topic, next, followed.wants.strong);
    const place = { epoch: topic.epoch, seq: next };
    followed.place = place;
    // Moved without a word: the id of whatever is told next says so.
    const isSilent = frames.length === 0;
    if (kept) {
      return kept.then(() => {
        if (isSilent && !followed.isDropped) this.#place(followed, place);
        return frames;
      });
    }
    if (isSilent) this.#place(followed, place);
    if (followed.hasMore && !followed.isComing) this.#rung.add(followed);
    return frames;
  }

  /** A topic that cannot be read ends a stream, or its own subscription. */
  #failed(followed: Followed, error: unknown): readonly Frame[] {
    if (!(error instanceof ApiError)) this.#reading.unexpected(error);
    const { code, message } = error instanceof ApiError ? error : new ApiError("internal", {});
    if (this.#style.ids) {
      this.end(code, message);
      return [];
    }
    this.#drop(followed);
    return [failed(followed.name, code, message)];
  }

  /** There is no topic of that name. */
  #gone(followed: Followed): readonly Frame[] {
    if (this.#isOver || followed.isDropped) return [];
    if (this.#style.ids && followed.topic !== undefined && !followed.isGoing) {
      this.#awaitReturn(followed);
      return [];
    }
    this.#drop(followed);
    return [topicDeleted(followed.name, followed.place)];
  }

  #awaitReturn(followed: Followed): void {
    followed.isGoing = true;
    followed.stop();
    const look = () => this.#notice(followed);
    const timer = setTimeout(look, GRACE_MS);
    const stop = this.#reading.listenFor(followed.name, look);
    followed.stop = () => {
      clearTimeout(timer);
      stop();
    };
  }

  #listen(followed: Followed, topic: Topic): void {
    const { stop } = followed;
    followed.topic = topic;
    followed.isGoing = false;
    const isWanted = !this.#isOver && !followed.isDropped;
    followed.stop = isWanted ? this.#reading.listen(topic, () => this.#notice(followed)) : () => {};
    // Only now, so that the topic has a listener all the time.
    stop();
  }

  #notice(followed: Followed): void {
    if (this.#isOver || followed.isComing) return;
    this.#rung.add(followed);
    if (this.#ask) this.#reading.soon(this);
  }

  #drop(followed: Followed): void {
    followed.stop();
    this.#rung.delete(followed);
    this.#behind.delete(followed);
    if (this.#followed.get(followed.name) === followed) this.#followed.delete(followed.name);
  }

  readonly #shutDown = (): void => this.end("server_shutting_down", "server is shutting down; reconnect");

  #finish(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#style.shutdown?.removeEventListener("abort", this.#shutDown);
    this.#style.over?.();
    for (const followed of this.#followed.values()) followed.stop();
    if (this.#ask) this.#reading.soon(this);
  }

  /** What is left to say, and then the end. */
  #lastWords(told: Told[]): TellResult {
    const frame = this.#last;
    this.#last = undefined;
    if (frame) told.push({ frame, id: this.id, from: kept });
    return told.length > 0 ? { value: told, done: false } : { value: undefined, done: true };
  }

  #tell(told: Told[], { followed, frames }: Look): number {
    let length = 0;
    if (followed.isDropped) return length;
    for (const frame of frames) {
      if (frame.place) this.#place(followed, frame.place);
      told.push({ frame, id: this.id, from: followed });
      length += frame.members.length;
    }
    return length;
  }

  #tellSole({ followed, frames }: Look): readonly Told[] {
    this.#places.set(followed.name, frames.at(-1)!.place!);
    return soleTold(frames);
  }

  #place({ name }: Followed, place: Place): void {
    if (!this.#style.ids) return;
    this.#places.set(name, place);
    this.#id?.move(name, place);
  }
}
