/**
 * Watch sessions: what a client wants to follow, and where it stands. They live in memory, and as long as a stream
 * is open or somebody comes back in time.
 *
 * Each stream has places of its own, so several on one session get everything each.
 */
import { ApiError } from "../contract/errors.ts";
import { SESSION_TTL_MS } from "../contract/limits.ts";
import type { Wants } from "./followed.ts";
import type { Follower } from "./follower.ts";
import { decodeId, isBefore, type Place, type Places } from "./places.ts";

const WID_BYTES = 16;

export interface SessionSettings {
  /** Whoever has made it, and nobody else, opens its streams. */
  readonly owner: object;
  readonly places: Places;
  readonly wants: Wants;
  readonly heartbeatMs: number;
}

export class Session {
  readonly wid =
    `wid_${Buffer.from(crypto.getRandomValues(new Uint8Array(WID_BYTES))).toString("base64url")}`;
  readonly owner: object;
  readonly wants: Wants;
  readonly heartbeatMs: number;
  readonly #streams = new Set<Follower>();
  /** Where the streams that have ended stood; of several in each topic the first place. */
  #left: Places | undefined;
  /** The furthest places that any stream has come to. */
  #reached: Places;

  constructor({ owner, places, wants, heartbeatMs }: SessionSettings) {
    this.owner = owner;
    this.wants = wants;
    this.heartbeatMs = heartbeatMs;
    this.#left = places;
    this.#reached = places;
  }

  get topics(): string[] {
    return [...this.#reached.keys()];
  }

  get isIdle(): boolean {
    return this.#streams.size === 0;
  }

  /** Where a stream begins: where the last one has stopped, or where the client says it is, if that lies before. */
  places(lastEventId: string): Places {
    const told = decodeId(lastEventId);
    const left =
      this.#left ??
      merged(
        [...this.#streams].map((stream) => stream.places),
        isBefore,
      );
    return new Map(
      Array.from(left, ([topic, place]) => [topic, this.#placeIn(topic, place, told?.get(topic))]),
    );
  }

  #placeIn(topic: string, left: Place, told: { epoch?: number; seq: number } | undefined): Place {
    if (told === undefined) return left;
    const reached = this.#furthest(topic);
    const place = { epoch: reached.epoch, ...told };
    // Nobody is sent further on than they were; but whoever knows another instance knows nothing of this one.
    return place.epoch === reached.epoch && isBefore(reached, place) ? left : place;
  }

  #furthest(topic: string): Place {
    const places = [...this.#streams].map((stream) => stream.places.get(topic)!);
    return [this.#reached.get(topic)!, ...places].reduce((a, b) => (isBefore(a, b) ? b : a));
  }

  begin(stream: Follower): void {
    // A stream that is alone decides where the session stands.
    if (this.isIdle) this.#reached = new Map(stream.places);
    this.#left = undefined;
    this.#streams.add(stream);
  }

  end(stream: Follower): void {
    this.#streams.delete(stream);
    this.#left = merged([...(this.#left ? [this.#left] : []), stream.places], isBefore);
    this.#reached = merged([this.#reached, stream.places], (a, b) => isBefore(b, a));
  }
}

/** Of each topic the place that comes first. */
function merged(all: readonly Places[], comesFirst: (a: Place, b: Place) => boolean): Places {
  const places = new Map<string, Place>();
  for (const [topic, place] of all.flatMap((places) => [...places])) {
    const other = places.get(topic);
    if (other === undefined || comesFirst(place, other)) places.set(topic, place);
  }
  return places;
}

export class Sessions implements Disposable {
  readonly #max: number;
  readonly #now: () => number;
  readonly #sessions = new Map<string, Session>();
  /** Sessions without a stream, and since when; the longest idle one first. */
  readonly #idle = new Map<Session, number>();
  #timer: Timer | undefined;

  /** `max` of 0 is no limit. */
  constructor(max: number, now: () => number) {
    this.#max = max;
    this.#now = now;
  }

  get count(): number {
    return this.#sessions.size;
  }

  /** Throws `throttled`. */
  add(settings: SessionSettings): Session {
    this.#expire();
    const max = this.#max;
    if (max > 0 && this.count >= max) throw new ApiError("throttled", { limit: "max_watch_sessions", max });
    const session = new Session(settings);
    this.#sessions.set(session.wid, session);
    this.#rest(session);
    return session;
  }

  /** Throws `not_found`. */
  existing(wid: string): Session {
    this.#expire();
    const session = this.#sessions.get(wid);
    if (session === undefined)
      throw new ApiError("not_found", {}, "no such watch session, or it has expired");
    return session;
  }

  begin(session: Session, stream: Follower): void {
    session.begin(stream);
    this.#idle.delete(session);
  }

  end(session: Session, stream: Follower): void {
    session.end(stream);
    if (session.isIdle) this.#rest(session);
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
  }

  #rest(session: Session): void {
    this.#idle.set(session, this.#now());
    this.#timer ??= setTimeout(() => this.#sweep(), SESSION_TTL_MS);
  }

  #sweep(): void {
    this.#timer = undefined;
    this.#expire();
    const [since] = this.#idle.values();
    if (since !== undefined) {
      const left = since + SESSION_TTL_MS + 1 - this.#now();
      this.#timer = setTimeout(() => this.#sweep(), Math.max(1, Math.min(left, SESSION_TTL_MS)));
    }
  }

  #expire(): void {
    const now = this.#now();
    for (const [session, since] of this.#idle) {
      if (now - since <= SESSION_TTL_MS) break;
      this.#idle.delete(session);
      this.#sessions.delete(session.wid);
    }
  }
}
