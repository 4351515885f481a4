/**
 * Queues for a test, and short words for what workers ask of them.
 *
 * As with topics, a word that prepares something (`makeQueue`, `produce`, `take`, `redeliver`) throws on a
 * refusal; the others return the reply as it is. A call that does not name its worker is made by `WORKER`.
 */
import { elements, members } from "./rawjson.ts";
import type { Reply } from "./server.ts";
import { absentTopic, type Sender, type Topic, until } from "./topics.ts";

/** The node of every call that names no other. */
export const WORKER = "worker";

/** The calls that a job's holder makes, each with the fields it needs beside `node` and `seqs`. */
export const holderCalls = [
  ["ack", "acked", {}],
  ["nack", "nacked", {}],
  ["extend", "extended", { lease_ms: 60000 }],
] as const;

export type HolderCall = (typeof holderCalls)[number][0];

/** One entry of `claimed[]`. */
export interface Job {
  readonly $seq: number;
  readonly lease_id: string;
  /** ms since the epoch. */
  readonly deadline: number;
  readonly $ts: number;
  readonly $tag?: string;
  readonly deliveries: number;
  readonly data: unknown;
  readonly meta?: unknown;
}

/** What a queue's state counts. */
export interface Counters {
  readonly count: number;
  readonly ready: number;
  readonly in_flight: number;
  readonly dead_lettered: number;
}

export interface Queue extends Topic {
  /** One of the queue's calls with whatever body. */
  call(name: string, body?: unknown, headers?: Record<string, string>): Promise<Reply>;
  /** Writes `n` jobs in one batch; in a new queue `data` is the seq. */
  produce(n: number): Promise<Reply>;
  claim(request?: object): Promise<Reply>;
  /** Claims up to `max` jobs and gives them. */
  take(max?: number, request?: object): Promise<Job[]>;
  ack(seqs: number[], request?: object): Promise<Reply>;
  nack(seqs: number[], request?: object): Promise<Reply>;
  extend(seqs: number[], lease_ms: number, request?: object): Promise<Reply>;
  counters(): Promise<Counters>;
}

/** A queue that does not exist yet, or any topic seen as a queue. */
export function absentQueue(server: Sender, name?: string): Queue {
  const topic = absentTopic(server, name);
  const call: Queue["call"] = (action, body, headers) =>
    server.send("POST", `${topic.path}/${action}`, body, headers);
  const claim: Queue["claim"] = (request) => call("claim", { node: WORKER, ...request });
  const holder = (action: HolderCall, seqs: number[], request?: object) =>
    call(action, { node: WORKER, seqs, ...request });
  return {
    ...topic,
    call,
    claim,
    produce: (n) => topic.append(...Array.from({ length: n }, (_, i) => i + 1)),
    take: async (max = 1, request) => jobs(accepted(await claim({ max, ...request }))),
    ack: (seqs, request) => holder("ack", seqs, request),
    nack: (seqs, request) => holder("nack", seqs, request),
    extend: (seqs, lease_ms, request) => holder("extend", seqs, { lease_ms, ...request }),
    counters: async () => {
      const { count, queue } = accepted(await topic.state()).body;
      return { count, ...queue };
    },
  };
}

/** An empty queue. */
export async function makeQueue(server: Sender, config: object = {}, name?: string): Promise<Queue> {
  const queue = absentQueue(server, name);
  accepted(await queue.put({ type: "queue", ...config }));
  return queue;
}

/** A queue with `n` jobs waiting, whose `data` is their seq. */
export async function filledQueue(server: Sender, n: number, config: object = {}): Promise<Queue> {
  const queue = await makeQueue(server, config);
  await queue.produce(n);
  return queue;
}

/** The jobs of a claim's reply. */
export const jobs = (reply: Reply): Job[] => reply.body.claimed;

export const seqsOf = (claimed: Job[]): number[] => claimed.map(({ $seq }) => $seq);

/** `first` to `last`, both included. */
export const range = (first: number, last: number): number[] =>
  Array.from({ length: last - first + 1 }, (_, i) => first + i);

/** Delivers every claimable job `times` times, and gives it back each time. */
export async function redeliver(queue: Queue, times: number, max = 1000): Promise<void> {
  for (let time = 0; time < times; time++) accepted(await queue.nack(seqsOf(await queue.take(max))));
}

/** Waits until the queue's state counts this, and gives all that it counts then. */
export const reaches = (queue: Queue, expected: Partial<Counters>): Promise<Counters> =>
  until(
    () => queue.counters(),
    (counters) =>
      Object.entries(expected).every(([name, value]) => counters[name as keyof Counters] === value),
  );

/** The text of one member (`data`, `meta`) of every claimed job; undefined where a job has none. */
export function claimedTexts(reply: Reply, member: string): (string | undefined)[] {
  const claimed = members(reply.text).get("claimed");
  if (claimed === undefined) throw new Error(`nothing claimed in ${reply.text}`);
  return elements(claimed).map((job) => members(job).get(member));
}

function accepted(reply: Reply): Reply {
  if (reply.status >= 300) throw new Error(`refused with ${reply.status}: ${reply.text}`);
  return reply;
}
