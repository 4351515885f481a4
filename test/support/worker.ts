/**
 * A worker of a queue, as a process of its own that a test can kill at any moment.
 *
 * Its work on a job is to write the digest of the payload's text to a topic. Before and after each step it writes a
 * line of JSON to stdout, at once, so that the test knows what a killed worker had done.
 */
import { writeSync } from "node:fs";
import { EventStream } from "./eventstream.ts";
import { elements, members } from "./rawjson.ts";

export interface WorkerOptions {
  readonly url: string;
  readonly queue: string;
  /** The topic for the results. */
  readonly results: string;
  readonly node: string;
  /** `claim` polls, `stream` is served by a `work` stream, `poison` claims and does nothing more. */
  readonly mode: "claim" | "stream" | "poison";
  readonly max: number;
  /** Jobs with this tag are never acknowledged. */
  readonly refuses: string | null;
}

/** One line of output. A line that was not finished is not worth anything. */
export type WorkerLine =
  | { readonly did: "took"; readonly seq: number; readonly deliveries: number }
  | { readonly did: "asked"; readonly seq: number }
  | { readonly did: "acked"; readonly seq: number; readonly counted: boolean };

/** What a job's payload is known by. */
export const digestOf = (text: string): string => new Bun.CryptoHasher("sha256").update(text).digest("hex");

/** A worker without jobs asks again after so long, and so long a poison worker looks at one. */
const IDLE_MS = 20;
const FOREVER_MS = 2 ** 31 - 1;

interface Job {
  readonly seq: number;
  readonly leaseId: string;
  readonly deliveries: number;
  readonly tag: string | undefined;
  /** Its text. */
  readonly data: string;
}

function jobIn(entry: string): Job {
  const fields = members(entry);
  const parsed = (name: string) => JSON.parse(fields.get(name) ?? "null");
  return {
    seq: parsed("$seq"),
    leaseId: parsed("lease_id"),
    deliveries: parsed("deliveries"),
    tag: parsed("$tag") ?? undefined,
    data: fields.get("data")!,
  };
}

class Worker {
  readonly #options: WorkerOptions;

  constructor(options: WorkerOptions) {
    this.#options = options;
  }

  async run(): Promise<never> {
    const { url, queue, node, mode, max } = this.#options;
    if (mode === "stream") {
      const stream = await EventStream.open(url, `/v0/topics/${queue}/work?node=${node}&max=${max}`);
      for (;;) await this.#work(jobIn((await stream.event(FOREVER_MS)).data));
    }
    for (;;) {
      const claimed = members(await this.#post(`${queue}/claim`, { node, max })).get("claimed")!;
      const jobs = elements(claimed).map(jobIn);
      for (const job of jobs) await this.#work(job);
      if (jobs.length === 0) await Bun.sleep(IDLE_MS);
    }
  }

  async #work({ seq, leaseId, deliveries, tag, data }: Job): Promise<void> {
    const { queue, results, node, mode, refuses } = this.#options;
    tell({ did: "took", seq, deliveries });
    if (mode === "poison") return Bun.sleep(IDLE_MS);
    if (tag !== undefined && tag === refuses) return;
    await this.#post(results, { records: [{ data: { seq, digest: digestOf(data) } }] });
    tell({ did: "asked", seq });
    const answer = await this.#post(`${queue}/ack`, { node, seqs: [seq], lease_ids: [leaseId] });
    tell({ did: "acked", seq, counted: JSON.parse(answer).acked === 1 });
  }

  async #post(path: string, body: unknown): Promise<string> {
    const response = await fetch(`${this.#options.url}/v0/topics/${path}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${path} was refused with ${response.status}: ${text}`);
    return text;
  }
}

function tell(line: WorkerLine): void {
  writeSync(1, `${JSON.stringify(line)}\n`);
}

if (import.meta.main) await new Worker(JSON.parse(process.argv[2]!)).run();
