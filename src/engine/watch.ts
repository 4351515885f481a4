/** Following topics: by a session and its streams, by a stream of one topic, or over a socket. */
import { invalid } from "../contract/errors.ts";
import {
  HEARTBEAT_MS,
  HEARTBEAT_MS_MAX,
  HEARTBEAT_MS_MIN,
  NODE_BYTES_MAX,
  SAFE_INTEGER_MAX,
  SESSION_TTL_MS,
  WATCH_BYTES_DEFAULT,
  WATCH_LIMIT_DEFAULT,
  WATCH_NODES_MAX,
  WATCH_TOPICS_MAX,
} from "../contract/limits.ts";
import { toldBack } from "../contract/schema.ts";
import type { Selection, Watched, WatchFrom, Watch as WatchRequest } from "../contract/watch.ts";
import { clamp } from "./config.ts";
import type { Wants } from "./followed.ts";
import { Follower } from "./follower.ts";
import type { Group } from "./group.ts";
import { decodeId, NO_EPOCH, type Place } from "./places.ts";
import { sizeOf } from "./reader.ts";
import type { Reading } from "./reading.ts";
import { type Session, Sessions } from "./sessions.ts";
import type { Topics } from "./topics.ts";

/** So many topics are looked at before others may go on. */
const STARTS_AT_ONCE = 256;

export interface WatchLimits {
  /** 0 is no limit. */
  readonly watchSessionsMax: number;
  readonly heartbeatMsMin: number;
}

/** What streams of one topic or several are asked for, beside where to begin. */
export type FollowOptions = Omit<WatchRequest, "topics">;

/** Where a stream begins in a topic, as its client is told and as it is kept. */
export interface Start {
  readonly told: Watched;
  readonly place: Place;
}

export class Watch implements Disposable {
  readonly #topics: Topics;
  readonly #reading: Reading;
  readonly #sessions: Sessions;
  readonly #limits: WatchLimits;

  constructor(topics: Topics, reading: Reading, limits: WatchLimits, now: () => number) {
    this.#topics = topics;
    this.#reading = reading;
    this.#limits = limits;
    this.#sessions = new Sessions(limits.watchSessionsMax, now);
  }

  get sessions(): number {
    return this.#sessions.count;
  }

  committed(group: Group): void {
    this.#reading.committed(group);
  }

  [Symbol.dispose](): void {
    this.#sessions[Symbol.dispose]();
  }

  /**
   * Makes a session for its `owner`. `allow` is asked about every name before any is looked at; `lenient` leaves out
   * those that do not exist. Throws `invalid_request`, what `allow` does, `topic_not_found`, `throttled`.
   */
  async start(request: WatchRequest, lenient: boolean, owner: object, allow: (topic: string) => void) {
    const { topics, heartbeat_ms } = request;
    if (topics.size === 0 || topics.size > WATCH_TOPICS_MAX) {
      throw invalid(`topics: 1 to ${WATCH_TOPICS_MAX} are needed`);
    }
    const wants = wantsOf(request);
    for (const name of topics.keys()) allow(name);
    const starts = await this.starts(topics, lenient);
    const session = this.#sessions.add({
      owner,
      places: new Map(Array.from(starts, ([name, { place }]) => [name, place])),
      wants,
      heartbeatMs: this.heartbeatMs(heartbeat_ms),
    });
    return {
      wid: session.wid,
      stream_url: `/v0/watch/${session.wid}`,
      session_ttl_ms: SESSION_TTL_MS,
      topics: Object.fromEntries(Array.from(starts, ([name, { told }]) => [name, told])),
    };
  }

  /** Throws `not_found`. */
  session(wid: string): Session {
    return this.#sessions.existing(wid);
  }

  /** A stream of a session. It ends when it is returned, or by itself at `shutdown`. */
  open(session: Session, lastEventId: string, shutdown: AbortSignal): Follower {
    const over = () => this.#sessions.end(session, follower);
    const follower = new Follower(this.#reading, { ids: true, shutdown, over });
    for (const [name, place] of session.places(lastEventId)) follower.add(name, place, session.wants);
    this.#sessions.begin(session, follower);
    return follower;
  }

  /** A stream of one topic. A place that its client comes back with counts more than `start`. */
  follow(topic: string, start: Start, wants: Wants, lastEventId: string, shutdown: AbortSignal): Follower {
    const told = decodeId(lastEventId)?.get(topic);
    const follower = new Follower(this.#reading, { ids: true, shutdown });
    follower.add(topic, told ? { epoch: start.told.epoch, ...told } : start.place, wants);
    return follower;
  }

  /** What a socket follows is for it to add. */
  socket(): Follower {
    return new Follower(this.#reading, { ids: false });
  }

  heartbeatMs(asked = HEARTBEAT_MS): number {
    return clamp(asked, clamp(this.#limits.heartbeatMsMin, 1, HEARTBEAT_MS_MIN), HEARTBEAT_MS_MAX);
  }

  /** Where to begin in each topic. Throws `topic_not_found` unless `lenient`. */
  async starts(topics: ReadonlyMap<string, WatchFrom>, lenient: boolean): Promise<Map<string, Start>> {
    const starts = new Map<string, Start>();
    const all = [...topics];
    while (all.length > 0) {
      const some = all.splice(0, STARTS_AT_ONCE);
      const found = await Promise.all(some.map(([name, from]) => this.#start(name, from, lenient)));
      for (const [i, start] of found.entries()) if (start) starts.set(some[i]![0], start);
      // A message may hold a million names.
      if (all.length > 0) await Bun.sleep(0);
    }
    return starts;
  }

  async #start(name: string, from: WatchFrom, lenient: boolean): Promise<Start | undefined> {
    if (lenient && !this.#topics.has(name)) return undefined;
    const topic = await this.#topics.fresh(name);
    const { head: head_seq, earliest: earliest_seq } = topic.log;
    const seq = from.tail ? head_seq : (from.from_seq ?? 0);
    // Who was further on than the topic was somewhere else, also if it gets there in the meantime.
    const own = seq > head_seq ? NO_EPOCH : topic.epoch;
    const epoch = from.tail ? own : (from.epoch ?? own);
    await topic.unsynced;
    return {
      told: { epoch: topic.epoch, from_seq: toldBack(seq), head_seq, earliest_seq },
      place: { epoch, seq: Math.min(Number(seq), SAFE_INTEGER_MAX) },
    };
  }
}

/** Zeros stand for the defaults of a diff. Throws `invalid_request` for more nodes than a stream can keep. */
export function wantsOf(
  { node, consistency, ...asked }: Selection & Pick<FollowOptions, "consistency">,
  limit = WATCH_LIMIT_DEFAULT,
  bytes = WATCH_BYTES_DEFAULT,
): Wants {
  // No record can be of one with a longer name.
  const nodes = [node ?? []].flat().filter((name) => Buffer.byteLength(name) <= NODE_BYTES_MAX);
  if (nodes.length > WATCH_NODES_MAX) throw invalid(`node: at most ${WATCH_NODES_MAX}`);
  return {
    ...sizeOf(asked.limit ?? limit, asked.max_batch_bytes ?? bytes),
    view: {
      tags: asked.include_tags ?? false,
      meta: asked.include_meta ?? true,
      data: asked.include_data ?? true,
    },
    nodes: new Set(nodes.map((name) => JSON.stringify(name))),
    strong: consistency === "strong",
  };
}
