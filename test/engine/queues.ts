/** What workers do with queues of an engine without HTTP, in short words. */
import type { Engine } from "../../src/engine/engine.ts";
import type { WorkFrame } from "../../src/engine/work.ts";

/** The node of every claim that names no other. */
export const WORKER = "worker";

export interface Leased {
  readonly $seq: number;
  readonly lease_id: string;
  readonly deliveries: number;
  readonly data: unknown;
}

const staying = () => new AbortController().signal;

/** Claims up to `max` jobs and gives them. */
export async function claim(engine: Engine, queue: string, max = 1, node = WORKER): Promise<Leased[]> {
  const { claimed } = await engine.queues.claim(queue, { node, max }, staying());
  return JSON.parse(`[${claimed}]`);
}

export const seqsOf = (jobs: readonly Leased[]): number[] => jobs.map(({ $seq }) => $seq);

/** Claims `max` jobs and gives them back, so that each was delivered once more. */
export async function redeliver(engine: Engine, queue: string, max: number): Promise<void> {
  const seqs = seqsOf(await claim(engine, queue, max));
  await engine.queues.nack(queue, { node: WORKER, seqs });
}

/** What the queue counts. */
export const counters = async (engine: Engine, queue: string) => {
  const { count, queue: counted } = await engine.topics.state(queue, false);
  return { count, ...counted! };
};

/** A stream of work, read as fast as it speaks until it ends or is left. */
export class Worker implements Disposable {
  readonly frames: WorkFrame[] = [];
  /** Resolves when the stream has ended. */
  readonly ended: Promise<void>;
  readonly #left = new AbortController();

  constructor(engine: Engine, queue: string, max = 1, node = "stream") {
    this.ended = this.#read(
      engine.queues.work(queue, { node, max, leaseMs: undefined }, this.#left.signal, staying()),
    );
  }

  get events(): string[] {
    return this.frames.map(({ event }) => event);
  }

  /** The seqs of the jobs that have come. */
  get jobs(): number[] {
    return this.frames.flatMap((frame) => (frame.event === "job" ? [frame.id] : []));
  }

  async #read(frames: AsyncGenerator<WorkFrame[]>): Promise<void> {
    for await (const batch of frames) this.frames.push(...batch);
  }

  [Symbol.dispose](): void {
    this.#left.abort();
  }
}
