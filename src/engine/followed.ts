/** One topic on one stream. */
import type { View } from "./pages.ts";
import type { Place } from "./places.ts";
import type { Window } from "./reader.ts";
import type { Topic } from "./topic.ts";

/** What a stream wants of a topic's records. `nodes` are JSON strings. */
export interface Wants {
  readonly limit: number;
  readonly bytesMax: number;
  readonly view: View;
  readonly nodes: ReadonlySet<string>;
  /** Only what is on the device. */
  readonly strong: boolean;
}

const none: ReadonlySet<string> = new Set();

export class Followed {
  readonly name: string;
  readonly wants: Wants;
  /** The instance that the client was told of, if it was. */
  readonly toldEpoch: number | undefined;
  place: Place;
  /** Undefined until it was read. */
  topic: Topic | undefined;
  /** Whether the client knows that it has all there is. */
  isCaughtUp = false;
  /** Whether it is gone, and may come back in a moment. */
  isGoing = false;
  /** Whether the client wants no more of it. */
  isDropped = false;
  /** While frames of it are on their way. */
  isComing = false;
  /** Reads from the store in this turn. */
  reads = 0;
  /** Ends whatever tells of changes. */
  stop = (): void => {};

  constructor(name: string, place: Place, wants: Wants, toldEpoch?: number) {
    this.name = name;
    this.place = place;
    this.wants = wants;
    this.toldEpoch = toldEpoch;
  }

  get hasMore(): boolean {
    if (this.topic === undefined || this.isGoing) return false;
    return this.topic.deleted || this.place.seq < this.topic.log.head;
  }

  /** Whether nothing is owed to the client, nor on its way to it. */
  get isAtHead(): boolean {
    const { topic } = this;
    if (topic === undefined || topic.deleted || this.isComing) return false;
    return this.isCaughtUp && this.place.seq === topic.log.head;
  }

  window(topic: Topic): Window {
    const { limit, bytesMax, view, nodes } = this.wants;
    const { seq: fromSeq, epoch } = this.place;
    const withoutNodes = topic.config.dedupe_node ? nodes : none;
    return { fromSeq, epoch, limit, bytesMax, view, withoutNodes };
  }
}
