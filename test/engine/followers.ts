/**
 * Followers without HTTP, asked by hand, and what they tell in short.
 *
 * A frame in short is `<topic> 1 2 3` for records, `<topic> at 3` for being caught up, `<topic> cap 1-3` for a
 * tombstone, `<topic> deleted`, and `<topic> internal 2` or `<code>` for an error.
 */
import type { WatchFrom } from "../../src/contract/watch.ts";
import type { Engine } from "../../src/engine/engine.ts";
import type { Follower } from "../../src/engine/follower.ts";
import type { Frame } from "../../src/engine/frames.ts";
import type { TellResult } from "../../src/engine/told.ts";
import { type FollowOptions, wantsOf } from "../../src/engine/watch.ts";
import type { Store } from "../../src/store/store.ts";
import { promptly } from "./setup.ts";

const never = new AbortController().signal;

/** Where to begin in each topic, and what its records are asked for with. */
export interface Asked extends FollowOptions, WatchFrom {}

export class Client {
  readonly follower: Follower;

  constructor(follower: Follower) {
    this.follower = follower;
  }

  /** What comes next, now or later. Empty at the end. */
  async ask(): Promise<readonly Frame[]> {
    const { value = [] } = await new Promise<TellResult>((resolve) => {
      const result = this.follower.next(resolve);
      if (result) resolve(result);
    });
    return value.filter(({ from }) => !from.isDropped).map(({ frame }) => frame);
  }

  /** What comes next, which must not be long in coming, in short. */
  async take(): Promise<string[]> {
    return (await promptly(this.ask())).map(short);
  }

  /** All that comes up to this frame, in short. */
  async takeTo(last: string): Promise<string[]> {
    const taken: string[] = [];
    while (!taken.includes(last)) {
      const more = await this.take();
      if (more.length === 0) throw new Error(`the follower has ended behind ${taken.join(", ")}`);
      taken.push(...more);
    }
    return taken;
  }
}

/** The stream of one topic, as `GET /v0/topics/:topic/stream` opens it. */
export async function streamOf(engine: Engine, topic: string, asked: Asked = {}, shutdown = never) {
  const start = (await engine.watch.starts(new Map([[topic, asked]]), false)).get(topic)!;
  return new Client(engine.watch.follow(topic, start, wantsOf(asked), "", shutdown));
}

/** The stream of a session on some topics. */
export async function sessionOf(engine: Engine, topics: string[], asked: Asked = {}, shutdown = never) {
  const request = { ...asked, topics: new Map(topics.map((name) => [name, asked])) };
  const { wid } = await engine.watch.start(request, false, {}, () => {});
  return new Client(engine.watch.open(engine.watch.session(wid), "", shutdown));
}

/** What a WebSocket follows. */
export async function socketOf(engine: Engine, topics: string[], asked: Asked = {}): Promise<Client> {
  const client = new Client(engine.watch.socket());
  await subscribe(engine, client, topics, asked);
  return client;
}

/** Lets a client of a WebSocket follow more topics. */
export async function subscribe(
  engine: Engine,
  { follower }: Client,
  topics: string[],
  asked: Asked = {},
): Promise<void> {
  const starts = await engine.watch.starts(new Map(topics.map((name) => [name, asked])), false);
  for (const [name, { place }] of starts) follower.add(name, place, wantsOf(asked));
}

/** A frame in short. */
export function short({ event, members }: Frame): string {
  const body = JSON.parse(`{${members}}`);
  switch (event) {
    case "record":
      return [body.topic, ...body.records.map(({ $seq }: { $seq: number }) => $seq)].join(" ");
    case "caught-up":
      return `${body.topic} at ${body.head_seq}`;
    case "tombstone":
      return `${body.topic} ${body.reason} ${body.gap_from}-${body.gap_to}`;
    case "topic-deleted":
      return `${body.topic} deleted`;
    case "error":
      return [body.topic, body.code, body.seq].filter((part) => part !== undefined).join(" ");
  }
}

/** The seqs of all records in frames of one topic that are told in short. */
export const seqsTold = (told: readonly string[]): number[] =>
  told
    .filter((frame) => /^\S+( \d+)+$/.test(frame))
    .flatMap((frame) => frame.split(" ").slice(1).map(Number));

/** Counts the reads of records from the store from now on. */
export function countReads({ disk: { records } }: Store): { count: number } {
  const reads = { count: 0 };
  const range = records.range.bind(records);
  records.range = (...which) => {
    reads.count++;
    return range(...which);
  };
  return reads;
}
