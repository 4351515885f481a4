/**
 * Many kills under load, on queues with durable leases.
 *
 * Producers, claimers and `work` streams use the queues until the process is killed in the middle of it. What
 * they were told is written down: which jobs were stored, who was promised which job until when, and what was
 * acknowledged. After the last restart the queues are emptied, and it must all fit together. `TEST_SEED`
 * repeats the choices of an earlier run.
 */
import { expect, setDefaultTimeout, test } from "bun:test";
import { Dice } from "../support/dice.ts";
import { EventStream } from "../support/eventstream.ts";
import { absentQueue, type Job, makeQueue, seqsOf } from "../support/queue.ts";
import type { Reply } from "../support/server.ts";
import { type SpawnedServer, spawnServer, temporaryDirectory } from "../support/spawn.ts";
import { absentTopic, until } from "../support/topics.ts";

setDefaultTimeout(30_000);

const KILLS = 20;
/** Producers wait while so many jobs of a queue are unfinished. */
const BACKLOG = 60;
const MAX_DELIVERIES = 3;
const LEASE_MS_MAX = 8000;
/** At most so many answers until a kill. */
const ANSWERS_MAX = 500;
const classes = ["fsync", "disk"];
const seed = Number(process.env.TEST_SEED ?? crypto.getRandomValues(new Uint32Array(1))[0]);

/** One delivery, as its holder was told of it. Times are the server's clock, which is also the test's. */
interface Lease {
  readonly job: Job;
  readonly node: string;
  readonly round: number;
  readonly claimedAt: number;
  /** Nobody else may have the job before this has passed. While an `extend` is unanswered it is the earlier time. */
  deadline: number;
  /** From here on the holder may have ended the lease itself. */
  endedAt: number;
  /** What became of an ack: `sent` without an answer leaves everything open. */
  ack: "none" | "sent" | "acked" | "skipped";
}

interface Batch {
  readonly ids: string[];
  /** Once the write is acknowledged. */
  first: number | undefined;
}

interface Letter {
  readonly id: string;
  readonly movedAt: number;
  readonly deliveries: number;
}

/** What was heard of one queue. A job is known by its `data`, which no other job has. */
class Ledger {
  readonly name: string;
  readonly batches: Batch[] = [];
  readonly leases: Lease[] = [];
  /** Leases that their holders are not done with. */
  held: Lease[] = [];
  readonly problems: string[] = [];
  /** Answers from beyond a kill: leases that were good in a later round than their own. */
  outlasting = 0;

  constructor(name: string) {
    this.name = name;
  }

  lease(job: Job, node: string, leaseMs: number, round: number): Lease {
    const claimedAt = job.deadline - leaseMs;
    const { deadline } = job;
    const lease: Lease = { job, node, round, claimedAt, deadline, endedAt: Infinity, ack: "none" };
    this.leases.push(lease);
    this.held.push(lease);
    return lease;
  }

  holds(node: string): Lease[] {
    return this.held.filter((lease) => lease.node === node);
  }

  release(lease: Lease): Lease {
    this.held = this.held.filter((other) => other !== lease);
    return lease;
  }

  /** What does not fit together, with the dead letters and the jobs that were left at the end. */
  verdict(letters: Letter[], left: Set<string>): string[] {
    const problems = [...this.problems];
    const dead = new Map(letters.map((letter) => [letter.id, letter]));
    const byJob = Map.groupBy(this.leases, ({ job }) => job.data as string);
    if (dead.size < letters.length) problems.push("a job has two dead letters");
    if (new Set(this.leases.map(({ job }) => job.lease_id)).size < this.leases.length)
      problems.push("a lease_id was given twice");
    const finished = new Set<string>();
    for (const [id, leases] of byJob) {
      leases.sort((a, b) => a.job.deliveries - b.job.deliveries);
      problems.push(
        ...contradictions(leases).map((problem) => `${id}: ${problem} ${JSON.stringify(leases)}`),
      );
      const letter = dead.get(id);
      const last = leases.at(-1)!;
      if (letter && letter.movedAt <= last.deadline && letter.movedAt < last.endedAt)
        problems.push(`${id}: moved away under its holder: ${JSON.stringify([letter, last])}`);
      const acked = leases.some((lease) => lease.ack === "acked");
      if (acked && (letter || left.has(id))) problems.push(`${id}: came back after its ack`);
      if (acked || leases.some((lease) => lease.ack === "sent")) finished.add(id);
    }
    for (const { id, deliveries } of letters)
      if (deliveries !== MAX_DELIVERIES) problems.push(`${id}: moved after ${deliveries} deliveries`);
    const accounted = (id: string) => finished.has(id) || dead.has(id) || left.has(id);
    const owners = new Map<number, string>();
    for (const { ids, first } of this.batches) {
      // A write without an answer is stored as a whole or not at all.
      const stored = first !== undefined || ids.some((id) => accounted(id) || byJob.has(id));
      for (const [i, id] of ids.entries()) {
        const seq = byJob.get(id)?.[0]?.job.$seq ?? (first === undefined ? undefined : first + i);
        if (stored && !accounted(id)) problems.push(`${id}: lost`);
        if (seq === undefined) continue;
        if (first !== undefined && seq !== first + i)
          problems.push(`${id}: has seq ${seq}, not ${first + i}`);
        if (owners.has(seq)) problems.push(`seq ${seq} is ${owners.get(seq)} and ${id}`);
        owners.set(seq, id);
      }
    }
    const sent = new Set(this.batches.flatMap(({ ids }) => ids));
    for (const id of [...byJob.keys(), ...dead.keys(), ...left])
      if (!sent.has(id)) problems.push(`${id}: was never written`);
    return problems;
  }
}

/** What is wrong with the deliveries of one job, which come in the order of its counter. */
function contradictions(leases: Lease[]): string[] {
  const problems: string[] = [];
  for (const [i, lease] of leases.entries()) {
    const next = leases[i + 1];
    if (lease.job.$seq !== leases[0]!.job.$seq) problems.push("has two seqs");
    if (lease.job.deliveries > MAX_DELIVERIES) problems.push("was delivered too often");
    if (!next) continue;
    if (lease.job.deliveries === next.job.deliveries) problems.push("has one delivery twice");
    if (lease.ack === "acked") problems.push("was delivered after its ack");
    if (next.claimedAt <= lease.deadline && next.claimedAt < lease.endedAt) problems.push("had two holders");
  }
  return problems;
}

/** One server under load until its end, which comes after a number of answers. */
class Load {
  readonly server: SpawnedServer;
  readonly round: number;
  killed: Promise<number> | undefined;
  /** Requests that never got an answer. */
  cutOff = 0;
  #answers: number;

  constructor(server: SpawnedServer, round: number, answers: number) {
    this.server = server;
    this.round = round;
    this.#answers = answers;
  }

  /** Sends a request and counts its answer; undefined if the process died first. */
  async send(ledger: Ledger, action: string, body: object): Promise<Reply | undefined> {
    const path = `/v0/topics/${ledger.name}${action}`;
    const reply = await this.server.send("POST", path, body).catch(() => undefined);
    if (reply === undefined) {
      if (!this.killed) throw new Error(`${path} was not answered before the kill:\n${this.server.output()}`);
      this.cutOff += 1;
      return undefined;
    }
    if (reply.status !== 200) throw new Error(`${path} answered ${reply.status}: ${reply.text}`);
    this.count();
    return reply;
  }

  count() {
    this.#answers -= 1;
    if (this.#answers === 0) this.killed = this.server.stop("SIGKILL");
  }
}

/** Writes jobs until the server is dead, as long as there are not too many. */
async function produce(load: Load, ledger: Ledger, dice: Dice, name: string) {
  const topic = absentTopic(load.server, ledger.name);
  for (let n = 0; !load.killed; n++) {
    const state = await topic.state().catch(() => undefined);
    if (state === undefined) return;
    if (state.body.count > BACKLOG) {
      await Bun.sleep(5);
      continue;
    }
    const ids = Array.from({ length: dice.between(1, 6) }, (_, i) => `${name}.${n}.${i}`);
    const batch: Batch = { ids, first: undefined };
    ledger.batches.push(batch);
    const reply = await load.send(ledger, "", { records: ids.map((data) => ({ data })) });
    batch.first = reply?.body.first_seq;
  }
}

/** Long leases outlast a restart, short ones end in between. */
const leaseMs = (dice: Dice) =>
  dice.roll() < 0.4 ? dice.between(5000, LEASE_MS_MAX) : dice.between(100, 1500);

/** Claims jobs and deals with them until the server is dead. */
async function claim(load: Load, ledger: Ledger, dice: Dice, node: string) {
  while (!load.killed) {
    const held = ledger.holds(node);
    if (held.length > 0 && dice.roll() < 0.7) {
      await settle(load, ledger, ledger.release(dice.pick(held)), dice);
      continue;
    }
    const lease_ms = leaseMs(dice);
    const reply = await load.send(ledger, "/claim", { node, max: dice.between(1, 5), lease_ms });
    for (const job of reply?.body.claimed ?? []) ledger.lease(job, node, lease_ms, load.round);
    if (reply?.body.count === 0) await Bun.sleep(5);
  }
}

/** Works on one stream after the other until the server is dead. */
async function work(load: Load, ledger: Ledger, dice: Dice, node: string) {
  while (!load.killed) {
    const lease_ms = leaseMs(dice);
    const path = `/v0/topics/${ledger.name}/work?node=${node}&max=${dice.between(1, 5)}&lease_ms=${lease_ms}`;
    const stream = await EventStream.open(load.server.url, path).catch(() => undefined);
    const own: Lease[] = [];
    for (let events = dice.between(1, 30); stream && events > 0; events--) {
      const event = await stream.event(500).catch(() => undefined);
      if (!event) break;
      load.count();
      own.push(ledger.lease(event.body, node, lease_ms, load.round));
      const held = ledger.holds(node);
      if (dice.roll() < 0.9) await settle(load, ledger, ledger.release(dice.pick(held)), dice);
    }
    // After a kill they are ordinary leases; but those of a stream that is closed come back.
    if (!load.killed) for (const lease of own) lease.endedAt = Math.min(lease.endedAt, Date.now());
    await stream?.close();
  }
}

/** Finishes, gives back or extends the lease, or leaves it to its deadline. */
async function settle(load: Load, ledger: Ledger, lease: Lease, dice: Dice) {
  const choice = dice.roll();
  if (choice < 0.5) await ack(load, ledger, lease);
  else if (choice < 0.7) await nack(load, ledger, lease, dice.pick([0, 0, dice.between(10, 400)]));
  else if (choice < 0.85) await extend(load, ledger, lease, leaseMs(dice));
}

/** Asks something of a lease; gives whether it counted, undefined if there was no answer. */
async function ask(
  load: Load,
  ledger: Ledger,
  lease: Lease,
  action: string,
  more: object = {},
): Promise<Reply | false | undefined> {
  const { deadline, endedAt } = lease;
  const { $seq, lease_id } = lease.job;
  const reply = await load.send(ledger, action, {
    node: lease.node,
    seqs: [$seq],
    lease_ids: [lease_id],
    ...more,
  });
  if (reply?.body.skipped.length === 0) {
    if (lease.round < load.round) ledger.outlasting += 1;
    return reply;
  }
  const running = Date.now() <= deadline && endedAt === Infinity && lease.endedAt === Infinity;
  if (reply && running) ledger.problems.push(`${action} skipped a running lease: ${JSON.stringify(lease)}`);
  // What was cut off is tried again after the restart.
  if (!reply) ledger.held.push(lease);
  return reply && false;
}

async function ack(load: Load, ledger: Ledger, lease: Lease) {
  const sentAt = Date.now();
  const before = lease.ack;
  lease.ack = "sent";
  const counted = await ask(load, ledger, lease, "/ack");
  if (counted) lease.ack = "acked";
  else if (counted === false && before === "none") lease.ack = "skipped";
  if (counted !== false) lease.endedAt = Math.min(lease.endedAt, sentAt);
}

async function nack(load: Load, ledger: Ledger, lease: Lease, delay_ms: number) {
  const sentAt = Date.now();
  await ask(load, ledger, lease, "/nack", { delay_ms });
  lease.endedAt = Math.min(lease.endedAt, sentAt);
}

async function extend(load: Load, ledger: Ledger, lease: Lease, lease_ms: number) {
  const { deadline } = lease;
  lease.deadline = Math.min(deadline, Date.now() + lease_ms);
  const reply = await ask(load, ledger, lease, "/extend", { lease_ms });
  if (reply) {
    lease.deadline = reply.body.deadlines[lease.job.$seq];
    ledger.held.push(lease);
  } else if (reply === false) lease.deadline = deadline;
}

/** Claims and acks until nothing is left, and gives the ids of what was. */
async function drain(server: SpawnedServer, ledger: Ledger): Promise<Set<string>> {
  const queue = absentQueue(server, ledger.name);
  const left = new Set<string>();
  await until(
    async () => {
      const lease_ms = 60_000;
      const taken = await queue.take(1000, { lease_ms });
      const leases = taken.map((job) => ledger.lease(job, "worker", lease_ms, KILLS));
      expect((await queue.ack(seqsOf(taken))).body.acked).toBe(taken.length);
      for (const { job } of leases) left.add(job.data as string);
      return queue.counters();
    },
    ({ count }) => count === 0,
    LEASE_MS_MAX + 5000,
  );
  return left;
}

/** Reads all dead letters of a queue. */
async function lettersOf(server: SpawnedServer, ledger: Ledger): Promise<Letter[]> {
  const letters: Letter[] = [];
  for (let from = 0, caughtUp = false; !caughtUp; ) {
    const { body } = await absentTopic(server, `dead-${ledger.name}`).diff({ from_seq: from, limit: 1000 });
    for (const { data, $ts, meta } of body.records) {
      expect(meta.$dead_letter_from).toBe(ledger.name);
      letters.push({ id: data, movedAt: $ts, deliveries: meta.$dead_letter.deliveries });
    }
    ({ next_from_seq: from, caught_up: caughtUp } = body);
  }
  return letters;
}

/** Who is at work on each queue. */
const cast = [produce, produce, claim, claim, claim, work, work];

test(`${KILLS} kills under load lose no job and lease none to two holders`, async () => {
  console.info(`TEST_SEED=${seed}`);
  await using dir = await temporaryDirectory();
  const ledgers = classes.map((durability) => new Ledger(durability));
  let cutOff = 0;
  for (let round = 0; round < KILLS; round++) {
    await using server = await spawnServer({ dir: dir.path });
    if (round === 0) {
      for (const { name } of ledgers) {
        const config = { leases_durable: true, max_deliveries: MAX_DELIVERIES, dead_letter: `dead-${name}` };
        await makeQueue(server, { durability: name, ...config }, name);
      }
    }
    const load = new Load(server, round, 1 + new Dice(seed + round * 1000).below(ANSWERS_MAX));
    const actors = ledgers.flatMap((ledger, q) =>
      cast.map((act, i) => {
        const dice = new Dice(seed + round * 1000 + 100 * (q + 1) + i);
        // Workers keep their names, as they keep their leases; producers never write an id twice.
        return act(load, ledger, dice, act === produce ? `${round}.${i}` : `${i}`);
      }),
    );
    await Promise.all(actors);
    await load.killed;
    cutOff += load.cutOff;
  }

  await using server = await spawnServer({ dir: dir.path });
  for (const ledger of ledgers) {
    const left = await drain(server, ledger);
    const letters = await lettersOf(server, ledger);
    // One defect leaves many traces; the first ones will do.
    expect(ledger.verdict(letters, left).slice(0, 10)).toEqual([]);
    expect(await absentQueue(server, ledger.name).counters()).toEqual({
      count: 0,
      ready: 0,
      in_flight: 0,
      dead_lettered: letters.length,
    });
    const { leases, outlasting } = ledger;
    const acked = leases.filter((lease) => lease.ack === "acked").length;
    const again = leases.filter(({ job }) => job.deliveries > 1).length;
    console.info(
      `${ledger.name}: ${leases.length} deliveries, ${again} of them not the first, ${acked} acked, ` +
        `${letters.length} dead letters, ${left.size} left, ${outlasting} answers to leases from before a kill`,
    );
    // Otherwise the load was no load, and the test has shown little.
    for (const sum of [acked, again, letters.length, outlasting]) expect(sum).toBeGreaterThan(KILLS);
  }
  expect(cutOff).toBeGreaterThan(KILLS);
}, 120_000);
