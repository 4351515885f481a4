/**
 * Streams that wait at the head of one topic and want the same of it. What comes next is made once for all of them,
 * and costs each no more than to be handed it.
 */
import type { Place } from "./places.ts";
import type { Window } from "./reader.ts";
import type { Step } from "./tails.ts";
import { soleTold, type TellResult } from "./told.ts";
import type { Topic } from "./topic.ts";

/** A stream in a crowd. */
export interface Member {
  /** Whether it has asked for what comes next. */
  readonly isAsking: boolean;
  /** Gets what all get. */
  accept(result: TellResult): void;
  /** It is a member no more, and stands at this place. */
  leave(place: Place): void;
}

/** What members want, but not from where. */
export type Common = Omit<Window, "fromSeq" | "epoch">;

/** How a crowd reads. */
export interface CrowdReading {
  live(topic: Topic, window: Window): Step | undefined;
  kept(topic: Topic, seq: number, strong: boolean): Promise<void> | undefined;
}

export class Crowd {
  readonly #reading: CrowdReading;
  readonly #topic: Topic;
  readonly #common: Common;
  readonly members = new Set<Member>();
  /** Where all of them stand. */
  place: Place;
  /** While what is next must not be shown yet. */
  #isHeld = false;

  constructor(reading: CrowdReading, topic: Topic, common: Common, place: Place) {
    this.#reading = reading;
    this.#topic = topic;
    this.#common = common;
    this.place = place;
  }

  /** Hands the members what is behind their place. Where that is not simple, they look for themselves. */
  serve(): void {
    const topic = this.#topic;
    if (this.#isHeld || (!topic.deleted && this.place.seq === topic.log.head)) return;
    const step = topic.deleted ? undefined : this.#look();
    if (step === undefined || step.next < step.head || step.frames.length === 0) {
      this.#scatter([...this.members], this.place);
      return;
    }
    const kept = this.#reading.kept(topic, step.next, false);
    if (kept) this.#holdBack(kept, step);
    else this.#hand(step);
  }

  /** What is in memory; undefined if it is not, or if that cannot be told: then each member finds out for itself. */
  #look(): Step | undefined {
    const { epoch, seq: fromSeq } = this.place;
    try {
      return this.#reading.live(this.#topic, { ...this.#common, fromSeq, epoch });
    } catch {
      return undefined;
    }
  }

  #holdBack(kept: Promise<void>, step: Step): void {
    this.#isHeld = true;
    kept.then(
      () => {
        this.#isHeld = false;
        this.#hand(step);
        this.serve();
      },
      () => {
        this.#isHeld = false;
        this.#scatter([...this.members], this.place);
      },
    );
  }

  #hand({ frames, next }: Step): void {
    const result: TellResult = { value: soleTold(frames), done: false };
    // Those who are busy have not come this far. One of them may be cut while the others get theirs.
    this.#scatter(
      [...this.members].filter(({ isAsking }) => !isAsking),
      this.place,
    );
    this.place = { epoch: this.#topic.epoch, seq: next };
    for (const member of [...this.members]) member.accept(result);
  }

  #scatter(members: readonly Member[], place: Place): void {
    for (const member of members) if (this.members.delete(member)) member.leave(place);
  }
}

export class Crowds {
  readonly #reading: CrowdReading;
  readonly #crowds = new Map<Topic, Map<string, Crowd>>();

  constructor(reading: CrowdReading) {
    this.#reading = reading;
  }

  /** The topic has grown or is gone. */
  serve(topic: Topic): void {
    for (const crowd of this.#crowds.get(topic)?.values() ?? []) crowd.serve();
  }

  /** The crowd that stands at `place`, the head of the topic; undefined if it is not there yet. */
  join(topic: Topic, key: string, common: Common, place: Place, member: Member): Crowd | undefined {
    // It may not have heard of the newest records, and those who were busy leave it.
    this.#crowds.get(topic)?.get(key)?.serve();
    const crowds = this.#crowds.get(topic) ?? new Map<string, Crowd>();
    const crowd = crowds.get(key) ?? new Crowd(this.#reading, topic, common, place);
    if (crowd.place.seq !== place.seq) return undefined;
    this.#crowds.set(topic, crowds.set(key, crowd));
    crowd.members.add(member);
    return crowd;
  }

  /** The member goes. */
  leave(topic: Topic, key: string, member: Member): void {
    const crowds = this.#crowds.get(topic);
    const crowd = crowds?.get(key);
    crowd?.members.delete(member);
    if (crowd?.members.size === 0) crowds!.delete(key);
    if (crowds?.size === 0) this.#crowds.delete(topic);
  }
}
