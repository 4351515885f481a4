/** Our queue as the loads use it: workers that claim and acknowledge, or streams that push the jobs. */
import { click } from "./client.ts";
import { Connection, post, Stream } from "./connection.ts";
import {
  BATCH_JOBS,
  CLAIM_JOBS,
  type Finished,
  inBatches,
  type JobQueue,
  PRODUCERS,
  QUEUE,
  WORKERS,
  type Workers,
} from "./jobs.ts";

const path = `/v0/topics/${QUEUE}`;
const nodes = Array.from({ length: WORKERS }, (_, i) => `worker-${i}`);

/** Workers that loop `claim` and `ack`, each on a connection of its own. */
export async function openClaims(url: string): Promise<JobQueue> {
  const connections = await connectWorkers(url);
  return queueOf(connections, async () => ({
    finish: (count) => claimAll(connections, count),
    [Symbol.asyncDispose]: async () => {},
  }));
}

/** Workers with a `work` stream each, and a connection for the acknowledgements. */
export async function openStreams(url: string): Promise<JobQueue> {
  const connections = await connectWorkers(url);
  return queueOf(connections, () => openWorkStreams(url, connections));
}

const connectWorkers = (url: string) => Promise.all(nodes.map(() => Connection.open(url)));

function queueOf(connections: Connection[], hire: () => Promise<Workers>): JobQueue {
  const producers = connections.slice(0, PRODUCERS);
  const send = (producer: Connection, first: number) => producer.send(post(path, batch(first)));
  return {
    produce: (count) => inBatches(producers, count, send),
    hire,
    [Symbol.asyncDispose]: async () => {
      for (const connection of connections) connection[Symbol.dispose]();
    },
  };
}

function batch(first: number): string {
  const records = Array.from({ length: BATCH_JOBS }, (_, i) => ({ data: click(first + i) }));
  return JSON.stringify({ records });
}

async function claimAll(connections: Connection[], count: number): Promise<Finished> {
  const claimsMs: number[] = [];
  let waiting = count;
  const work = async (connection: Connection, i: number) => {
    const node = nodes[i]!;
    const claim = post(`${path}/claim`, JSON.stringify({ node, max: CLAIM_JOBS }));
    let done = 0;
    while (waiting > 0) {
      const askedAt = performance.now();
      const seqs = seqsOf(await connection.send(claim));
      claimsMs.push(performance.now() - askedAt);
      if (seqs.length === 0) continue;
      waiting -= seqs.length;
      await acknowledge(connection, node, seqs);
      done += seqs.length;
    }
    return done;
  };
  return { claimsMs, jobsOfWorkers: await Promise.all(connections.map(work)) };
}

/** The numbers of the jobs in the answer to a claim. */
export const seqsOf = (body: string): string[] => body.match(/(?<="\$seq":)\d+/g) ?? [];

export async function acknowledge(connection: Connection, node: string, seqs: string[]): Promise<void> {
  const answer = await connection.send(post(`${path}/ack`, `{"node":"${node}","seqs":[${seqs}]}`));
  if (!answer.includes(`"acked":${seqs.length},`)) throw new Error(`Not all of ${seqs} was acked: ${answer}`);
}

async function openWorkStreams(url: string, connections: Connection[]): Promise<Workers> {
  const failed = Promise.withResolvers<never>();
  const all = await Promise.all(
    nodes.map((node, i) => StreamWorker.open(url, node, connections[i]!, failed.reject)),
  );
  return {
    finish: async (count) => {
      const finished = Promise.withResolvers<void>();
      let left = count;
      for (const worker of all) {
        worker.start((done) => {
          left -= done;
          if (left === 0) finished.resolve();
        });
      }
      await Promise.race([finished.promise, failed.promise]);
      return {
        claimsMs: all.flatMap((worker) => worker.claimsMs),
        jobsOfWorkers: all.map((worker) => worker.done),
      };
    },
    [Symbol.asyncDispose]: async () => {
      failed.promise.catch(() => {});
      for (const worker of all) worker[Symbol.dispose]();
    },
  };
}

/** Acknowledges at once all jobs that have come while the acknowledgement before was on its way. */
class StreamWorker implements Disposable {
  readonly claimsMs: number[] = [];
  done = 0;
  readonly #node: string;
  readonly #connection: Connection;
  readonly #fail: (error: Error) => void;
  #stream: Stream | undefined;
  #report: (done: number) => void = () => {};
  #received = "";
  #seqs: string[] = [];
  #acknowledging = false;
  /** When the server was last told that there is room for jobs, if none has come since. */
  #askedAt: number | undefined;

  private constructor(node: string, connection: Connection, fail: (error: Error) => void) {
    this.#node = node;
    this.#connection = connection;
    this.#fail = fail;
  }

  static async open(
    url: string,
    node: string,
    connection: Connection,
    fail: (error: Error) => void,
  ): Promise<StreamWorker> {
    const worker = new StreamWorker(node, connection, fail);
    worker.#stream = await Stream.open(url, (text) => worker.#take(text), fail);
    return worker;
  }

  /** Opens the stream. `report` hears how many jobs each acknowledgement has finished. */
  start(report: (done: number) => void): void {
    this.#report = report;
    this.#askedAt = performance.now();
    this.#stream?.get(`${path}/work?node=${this.#node}&max=${CLAIM_JOBS}`);
  }

  [Symbol.dispose](): void {
    this.#stream?.[Symbol.dispose]();
  }

  #take(text: string): void {
    const blocks = (this.#received + text).split("\n\n");
    this.#received = blocks.pop()!;
    for (const block of blocks) {
      if (block.startsWith("id: ")) this.#seqs.push(block.slice("id: ".length, block.indexOf("\n")));
      if (block.startsWith("event: error")) this.#fail(new Error(`The server sent\n${block}`));
    }
    if (this.#seqs.length === 0) return;
    if (this.#askedAt !== undefined) this.claimsMs.push(performance.now() - this.#askedAt);
    this.#askedAt = undefined;
    if (!this.#acknowledging) this.#acknowledge().catch(this.#fail);
  }

  async #acknowledge(): Promise<void> {
    this.#acknowledging = true;
    while (this.#seqs.length > 0) {
      const seqs = this.#seqs;
      this.#seqs = [];
      this.#askedAt = performance.now();
      await acknowledge(this.#connection, this.#node, seqs);
      this.done += seqs.length;
      this.#report(seqs.length);
    }
    this.#acknowledging = false;
  }
}
