/**
 * Real work: processes share a queue of GitHub's webhooks and are killed in the middle of it. Every payload is worked
 * on as it was sent, and every job is acknowledged once or found among the dead letters. `TEST_SEED` repeats the
 * choices of an earlier run.
 */
import { beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { payloads } from "../support/rawjson.ts";
import { type SpawnedServer, spawnServer } from "../support/spawn.ts";
import { absentTopic, until } from "../support/topics.ts";
import { readWebhooks, type Webhook } from "../support/webhooks.ts";
import { digestOf, type WorkerLine, type WorkerOptions } from "../support/worker.ts";

setDefaultTimeout(60_000);

const QUEUE = "webhooks";
const RESULTS = "webhooks.done";
const LETTERS = "webhooks.dead";
const script = join(import.meta.dir, "../support/worker.ts");
const BATCH = 50;
const WORK_MS = 45_000;
/** A worker is killed whenever so many more jobs are done. */
const JOBS_PER_KILL = 25;

const seed = Number(process.env.TEST_SEED ?? crypto.getRandomValues(new Uint32Array(1))[0]);
/** Numbers below `end` that the seed repeats. */
let state = seed;
const below = (end: number): number => {
  state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
  return Math.floor((state / 2 ** 32) * end);
};

let webhooks: Webhook[];
beforeAll(async () => {
  webhooks = await readWebhooks();
});

/** A job is known by its seq: the place of its payload among all, from 1 on. */
const all = () => webhooks.map((_, i) => i + 1);

interface RunningWorker {
  readonly lines: WorkerLine[];
  kill(): Promise<void>;
}

function startWorker(options: WorkerOptions): RunningWorker {
  const child = Bun.spawn([process.execPath, script, JSON.stringify(options)], {
    env: { PATH: process.env.PATH ?? "" },
    stdout: "pipe",
    stderr: "inherit",
  });
  const lines: WorkerLine[] = [];
  const read = async () => {
    const decoder = new TextDecoder();
    let rest = "";
    for await (const chunk of child.stdout) {
      const parts = (rest + decoder.decode(chunk, { stream: true })).split("\n");
      rest = parts.pop()!;
      lines.push(...parts.map((line) => JSON.parse(line) as WorkerLine));
    }
  };
  const ended = read();
  const kill = async () => {
    // One that has ended by itself has failed, and said so.
    expect([child.exitCode, child.signalCode]).toEqual([null, null]);
    child.kill("SIGKILL");
    await Promise.all([child.exited, ended]);
  };
  return { lines, kill };
}

type Role = Pick<WorkerOptions, "mode" | "max" | "refuses">;

/** Workers in their roles. Whoever is killed is replaced by another of the same role. */
class Crew implements AsyncDisposable {
  readonly #server: SpawnedServer;
  readonly #roles: readonly Role[];
  readonly #workers: RunningWorker[];
  readonly #lines: WorkerLine[][] = [];
  #hired = 0;

  constructor(server: SpawnedServer, roles: readonly Role[]) {
    this.#server = server;
    this.#roles = roles;
    this.#workers = roles.map((role) => this.#hire(role));
  }

  /** All that anybody has said, by worker. */
  get lines(): WorkerLine[] {
    return this.#lines.flat();
  }

  #hire(role: Role): RunningWorker {
    const node = `worker-${++this.#hired}`;
    const worker = startWorker({ url: this.#server.url, queue: QUEUE, results: RESULTS, node, ...role });
    this.#lines.push(worker.lines);
    return worker;
  }

  async replace(place: number): Promise<void> {
    await this.#workers[place]!.kill();
    this.#workers[place] = this.#hire(this.#roles[place]!);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#workers.map((worker) => worker.kill()));
  }
}

async function makeQueue(server: SpawnedServer, config: object): Promise<void> {
  const queue = absentTopic(server, QUEUE);
  expect((await queue.put({ type: "queue", ...config })).status).toBe(201);
  expect((await absentTopic(server, RESULTS).put({})).status).toBe(201);
  for (let i = 0; i < webhooks.length; i += BATCH) {
    const records = webhooks
      .slice(i, i + BATCH)
      .map(({ payload, event }) => `{"data":${payload},"tag":${JSON.stringify(event)}}`);
    expect((await queue.write(`{"records":[${records.join(",")}]}`)).status).toBe(200);
  }
}

/** Lets the workers work until the queue is empty, and kills one of them now and then. The number of kills. */
async function workOff(server: SpawnedServer, crew: Crew, places: number): Promise<number> {
  const queue = absentTopic(server, QUEUE);
  let kills = 0;
  const isEmpty = async () => {
    const { count } = (await queue.state()).body;
    if (webhooks.length - count >= (kills + 1) * JOBS_PER_KILL && count > 0) {
      kills++;
      await crew.replace(below(places));
    }
    return count === 0;
  };
  await until(isEmpty, Boolean, WORK_MS);
  return kills;
}

/** Seqs of acks that counted, and of all that were asked for, whether or not the worker lived to tell the answer. */
function acksIn(lines: readonly WorkerLine[]) {
  return {
    counted: lines.flatMap((line) => (line.did === "acked" && line.counted ? line.seq : [])),
    asked: new Set(lines.flatMap((line) => (line.did === "asked" ? line.seq : []))),
  };
}

/** The results, by seq of the job. */
async function readResults(server: SpawnedServer): Promise<Map<number, Set<string>>> {
  const results = new Map<number, Set<string>>();
  for (let from = 0, caughtUp = false; !caughtUp; ) {
    const { body } = await absentTopic(server, RESULTS).diff({ from_seq: from, limit: 1000 });
    for (const { data } of body.records) {
      results.set(data.seq, (results.get(data.seq) ?? new Set()).add(data.digest));
    }
    ({ next_from_seq: from, caught_up: caughtUp } = body);
  }
  return results;
}

const digests = (seqs: readonly number[]) =>
  new Map(seqs.map((seq) => [seq, new Set([digestOf(webhooks[seq - 1]!.payload)])]));
const ascending = (seqs: Iterable<number>): number[] => [...seqs].sort((a, b) => a - b);

test("04 every webhook is worked on byte for byte and acknowledged once, whichever workers are killed", async () => {
  await using server = await spawnServer();
  await makeQueue(server, { lease_ms: 500 });
  const claims: Role = { mode: "claim", max: 3, refuses: null };
  const streams: Role = { mode: "stream", max: 3, refuses: null };
  const roles = [claims, streams, claims, streams];
  const crew = new Crew(server, roles);
  {
    await using _ = crew;
    const kills = await workOff(server, crew, roles.length);
    expect({ seed, enough: kills >= 10 }).toEqual({ seed, enough: true });
  }

  const { counted, asked } = acksIn(crew.lines);
  expect({ seed, twice: counted.filter((seq, i) => counted.indexOf(seq) !== i) }).toEqual({
    seed,
    twice: [],
  });
  // What nobody heard the ack of was asked for by somebody who was killed before the answer.
  const silent = all().filter((seq) => !counted.includes(seq));
  expect({ seed, silent: silent.filter((seq) => !asked.has(seq)) }).toEqual({ seed, silent: [] });
  expect(ascending(new Set([...counted, ...silent]))).toEqual(all());
  expect(new Map([...(await readResults(server))].sort(([a], [b]) => a - b))).toEqual(digests(all()));
  const { body } = await absentTopic(server, QUEUE).state();
  expect(body).toMatchObject({
    head_seq: webhooks.length,
    count: 0,
    bytes: 0,
    queue: { ready: 0, in_flight: 0, dead_lettered: 0 },
  });
});

test("04 s6 what no worker acknowledges is among the dead letters, and all else is done", async () => {
  const refuses = "fork";
  const deliveries = 3;
  await using server = await spawnServer();
  await makeQueue(server, { lease_ms: 300, max_deliveries: deliveries, dead_letter: LETTERS });
  const roles: Role[] = [
    { mode: "claim", max: 3, refuses },
    { mode: "stream", max: 3, refuses },
    { mode: "claim", max: 1, refuses },
    { mode: "poison", max: 1, refuses },
  ];
  const crew = new Crew(server, roles);
  {
    await using _ = crew;
    await workOff(server, crew, roles.length);
  }

  const reply = await absentTopic(server, LETTERS).diff({ limit: 1000, max_batch_bytes: 8_388_608 });
  expect(reply.body.caught_up).toBe(true);
  const texts = payloads(reply, "data");
  const letters: number[] = reply.body.records.map(({ meta }: { meta: Record<string, string> }) =>
    Number(meta.$dead_letter_src_seq),
  );
  const differing = letters.filter((seq, i) => texts[i] !== webhooks[seq - 1]!.payload);
  expect(differing).toEqual([]);
  for (const { meta } of reply.body.records) {
    expect(meta).toMatchObject({ $dead_letter_from: QUEUE, $dead_letter: { topic: QUEUE, deliveries } });
  }

  const refused = all().filter((seq) => webhooks[seq - 1]!.event === refuses);
  expect(refused.length).toBeGreaterThan(0);
  expect(refused.filter((seq) => !letters.includes(seq))).toEqual([]);
  const { counted, asked } = acksIn(crew.lines);
  const ends = [...letters, ...counted];
  expect({ seed, twice: ends.filter((seq, i) => ends.indexOf(seq) !== i) }).toEqual({ seed, twice: [] });
  const silent = all().filter((seq) => !ends.includes(seq));
  expect({ seed, lost: silent.filter((seq) => !asked.has(seq)) }).toEqual({ seed, lost: [] });
  const { body } = await absentTopic(server, QUEUE).state();
  expect(body).toMatchObject({
    count: 0,
    queue: { ready: 0, in_flight: 0, dead_lettered: letters.length },
  });
});
