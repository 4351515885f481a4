/**
 * Many kills under load, on one data directory.
 *
 * Several writers append, delete, read and retry on `fsync` and `disk` topics until the process is killed in
 * the middle of it. After each restart the survivors are exactly the acknowledged records plus whole requests
 * that were under way, minus what deletes took. `TEST_SEED` repeats the choices of an earlier run.
 */
import { expect, setDefaultTimeout, test } from "bun:test";
import { Dice } from "../support/dice.ts";
import { payloads } from "../support/rawjson.ts";
import type { Reply } from "../support/server.ts";
import { type SpawnedServer, spawnServer, temporaryDirectory } from "../support/spawn.ts";
import { absentTopic, column, seqs } from "../support/topics.ts";

setDefaultTimeout(30_000);

const KILLS = 50;
const WRITERS = 6;
const classes = ["fsync", "disk", "fsync", "disk"];
const seed = Number(process.env.TEST_SEED ?? crypto.getRandomValues(new Uint32Array(1))[0]);

/** A record as text, `ts` once it has been read. */
interface Row {
  readonly data: string;
  readonly meta: string | undefined;
  readonly tag: string | undefined;
  readonly ts?: number;
}

/** Moments count what the test sent and heard. Something unanswered was acknowledged at `Infinity`. */
interface Request {
  readonly sentAt: number;
  ackedAt: number;
}

interface Batch extends Request {
  readonly rows: Row[];
  readonly key: string | undefined;
  /** The seq of the first row, once it is known. */
  first: number | undefined;
}

interface Erasure extends Request {
  readonly tag: string | undefined;
  readonly before: number | undefined;
}

let moment = 0;
const sent = (): Request => ({ sentAt: ++moment, ackedAt: Number.POSITIVE_INFINITY });

/** What one topic must hold: settled rows by seq, and what was asked of it since they were settled. */
class Ledger {
  readonly name: string;
  live = new Map<number, Row>();
  head = 0;
  batches: Batch[] = [];
  erasures: Erasure[] = [];
  seen = new Map<number, Row>();
  /** Settled batches with a key. */
  readonly keyed: Batch[] = [];

  constructor(name: string) {
    this.name = name;
  }

  /** Compares with what is found after a restart, takes it over, and gives what is wrong with it. */
  settle(found: Map<number, Row>, head: number): string[] {
    this.#place([...found, ...this.seen]);
    const problems: string[] = [];
    const known = new Map<number, Request & { readonly row: Row }>();
    for (const [seq, row] of this.live) known.set(seq, { row, sentAt: 0, ackedAt: 0 });
    for (const { rows, first, sentAt, ackedAt } of this.batches) {
      if (first === undefined) continue;
      rows.forEach((row, i) => {
        if (first + i <= this.head || known.has(first + i)) problems.push(`seq ${first + i} was given twice`);
        known.set(first + i, { row, sentAt, ackedAt });
      });
    }
    for (const [seq, row] of [...found, ...this.seen]) {
      const expected = known.get(seq)?.row ?? { data: "nothing", meta: undefined, tag: undefined };
      const ts = expected.ts ?? this.seen.get(seq)?.ts ?? row.ts;
      if (!Bun.deepEquals(row, { ...expected, ts })) problems.push(`seq ${seq} is ${JSON.stringify(row)}`);
    }
    for (const [seq, { row, sentAt, ackedAt }] of known) {
      const hits = this.erasures.filter((erasure) => takes(erasure, seq, row));
      const alive = found.has(seq);
      if (seq > head) problems.push(`seq ${seq} is beyond the head ${head}`);
      if (!alive && !hits.some((erasure) => sentAt < erasure.ackedAt)) problems.push(`seq ${seq} is lost`);
      if (alive && hits.some((erasure) => ackedAt < erasure.sentAt && erasure.ackedAt < Infinity)) {
        problems.push(`seq ${seq} came back`);
      }
    }
    problems.push(...this.#halfErasures(known, found), ...this.#holes(known, head));
    this.live = found;
    this.head = head;
    return problems;
  }

  /** Forgets the load; the keyed batches stay, to be retried. */
  close() {
    this.keyed.push(...this.batches.filter(({ key }) => key !== undefined));
    this.batches = [];
    this.erasures = [];
    this.seen = new Map();
  }

  /** Finds the seqs of unacknowledged batches by their rows. */
  #place(rows: Iterable<[number, Row]>) {
    const owners = new Map(
      this.batches.flatMap((batch) => batch.rows.map((row, i) => [row.data, { batch, i }] as const)),
    );
    for (const [seq, { data }] of rows) {
      const owner = owners.get(data);
      if (owner) owner.batch.first ??= seq - owner.i;
    }
  }

  /** A delete that was under way took all of the settled rows that only it could take, or none. */
  #halfErasures(known: Map<number, Request & { row: Row }>, found: Map<number, Row>): string[] {
    return this.erasures
      .filter(({ ackedAt }) => ackedAt === Number.POSITIVE_INFINITY)
      .filter((erasure) => {
        const alone = [...known].filter(
          ([seq, { row, ackedAt }]) =>
            ackedAt < erasure.sentAt &&
            takes(erasure, seq, row) &&
            this.erasures.every((other) => other === erasure || !takes(other, seq, row)),
        );
        return new Set(alone.map(([seq]) => found.has(seq))).size === 2;
      })
      .map((erasure) => `half of a delete: ${JSON.stringify(erasure)}`);
  }

  /** A seq without a known row can only come from an unacknowledged batch that a delete took whole. */
  #holes(known: Map<number, unknown>, head: number): string[] {
    const unknown: number[] = [];
    for (let seq = this.head + 1; seq <= head; seq++) if (!known.has(seq)) unknown.push(seq);
    const vanished = this.batches.filter(({ first }) => first === undefined);
    const possible = vanished.reduce((sum, { rows }) => sum + rows.length, 0);
    const explained = unknown.length === 0 || (this.erasures.length > 0 && unknown.length <= possible);
    return explained ? [] : [`a hole at seq ${unknown[0]}, ${unknown.length} seqs in all`];
  }
}

const takes = ({ tag, before }: Erasure, seq: number, row: Row) =>
  (tag === undefined || row.tag === tag) && (before === undefined || seq < before);

const spellings: ((id: string, size: number) => string)[] = [
  (id) => `"${id} \\u00e9\\/ \u00e9\u{1f600}"`,
  (id) => `{ "id" : "${id}" ,\n "v":1.0, "v":-0 }`,
  (id) => `["${id}",12345678901234567890.10,1E3,[],{}]`,
  (id, size) => `{"id":"${id}","pad":"${"x".repeat(size)}"}`,
];

function newRow(dice: Dice, id: string): Row {
  return {
    data: dice.pick(spellings)(id, dice.below(3000)),
    meta: dice.pick([undefined, undefined, '{ "m" : 1.50 }', '{"a":null,"b":[]}']),
    tag: dice.pick([undefined, "a", "b", "c"]),
  };
}

const requestOf = ({ rows, key }: Batch) => {
  const records = rows.map(
    ({ data, meta, tag }) => `{"data":${data},"meta":${meta ?? null},"tag":${JSON.stringify(tag ?? null)}}`,
  );
  return `{"idempotency_key":${JSON.stringify(key ?? null)},"records":[${records.join(",")}]}`;
};

function rowsOf(reply: Reply): [number, Row][] {
  const [data, meta] = [payloads(reply, "data"), payloads(reply, "meta")];
  const [tag, ts] = [column(reply, "$tag") as (string | undefined)[], column(reply, "$ts") as number[]];
  return seqs(reply).map((seq, i) => [seq, { data: data[i]!, meta: meta[i], tag: tag[i], ts: ts[i]! }]);
}

/** One server under load until its end, which comes after a number of acknowledgements. */
class Load {
  readonly server: SpawnedServer;
  killed: Promise<number> | undefined;
  #acks: number;

  constructor(server: SpawnedServer, acks: number) {
    this.server = server;
    this.#acks = acks;
  }

  /** Sends a request and counts its answer; undefined if the process died first. */
  async send(ledger: Ledger, suffix: string, body: unknown): Promise<Reply | undefined> {
    const path = `/v0/topics/${ledger.name}${suffix}`;
    const reply = await this.server.send("POST", path, body).catch(() => undefined);
    if (reply === undefined) return undefined;
    if (reply.status !== 200) throw new Error(`${path} answered ${reply.status}: ${reply.text}`);
    this.#acks -= 1;
    if (this.#acks === 0) this.killed = this.server.stop("SIGKILL");
    return reply;
  }
}

async function append(load: Load, ledger: Ledger, dice: Dice, id: string) {
  const size = dice.pick([1, 1, 1, 1 + dice.below(20), 1 + dice.below(20), 1 + dice.below(150)]);
  const rows = Array.from({ length: size }, (_, i) => newRow(dice, `${id}.${i}`));
  const key = dice.roll() < 0.3 ? `key-${id}` : undefined;
  const batch: Batch = { ...sent(), rows, key, first: undefined };
  ledger.batches.push(batch);
  const copies = key !== undefined && dice.roll() < 0.4 ? 2 : 1;
  const sends = Array.from({ length: copies }, () => load.send(ledger, "", requestOf(batch)));
  const answers = (await Promise.all(sends)).filter((reply) => reply !== undefined).map(({ body }) => body);
  if (answers.length === 0) return;
  batch.ackedAt = ++moment;
  batch.first = answers[0].first_seq;
  const expected = Array.from({ length: size }, (_, i) => batch.first! + i);
  for (const answer of answers) expect(answer.seqs).toEqual(expected);
  const fresh = answers.filter(({ deduped }) => !deduped).length;
  if (answers.length === copies) expect(fresh).toBe(1);
}

async function erase(load: Load, ledger: Ledger, dice: Dice) {
  const before = dice.below(Math.max(1, ledger.head));
  const tag = dice.pick(["a", "b", "c"]);
  const [taken, below] = dice.pick([
    [tag, undefined],
    [undefined, before],
    [tag, before],
  ] as const);
  const erasure: Erasure = { ...sent(), tag: taken, before: below };
  ledger.erasures.push(erasure);
  const match = taken === undefined ? null : ["tag", "Eq", taken];
  const reply = await load.send(ledger, "/delete", { match, before_seq: below ?? null });
  if (reply) erasure.ackedAt = ++moment;
}

async function read(load: Load, ledger: Ledger, dice: Dice) {
  const from = dice.below(ledger.head + 100);
  const reply = await load.send(ledger, "/diff", { from_seq: from, limit: 50, include_tags: true });
  if (reply && !reply.body.tombstone) for (const [seq, row] of rowsOf(reply)) ledger.seen.set(seq, row);
}

/** Works until the server is dead. */
async function work(load: Load, ledgers: Ledger[], dice: Dice, id: string) {
  for (let n = 0; !load.killed; n++) {
    const ledger = dice.pick(ledgers);
    const choice = dice.roll();
    if (choice < 0.1) await read(load, ledger, dice);
    else if (choice < 0.18) await erase(load, ledger, dice);
    else await append(load, ledger, dice, `${id}.${n}`);
  }
}

/** Reads a topic whole and settles its ledger with it. */
async function audit(server: SpawnedServer, ledger: Ledger) {
  const topic = absentTopic(server, ledger.name);
  const found = new Map<number, Row>();
  let lastTs = 0;
  for (let from = 0, caughtUp = false; !caughtUp; ) {
    const page = await topic.diff({ from_seq: from, limit: 1000, include_tags: true });
    expect(page).toMatchObject({ status: 200, body: { tombstone: null } });
    for (const [seq, row] of rowsOf(page)) {
      expect(found.has(seq)).toBe(false);
      expect(row.ts).toBeGreaterThanOrEqual(lastTs);
      lastTs = row.ts!;
      found.set(seq, row);
    }
    ({ next_from_seq: from, caught_up: caughtUp } = page.body);
  }
  const { body } = await topic.state();
  const bytes = [...found.values()].reduce(
    (sum, row) => sum + Buffer.byteLength(row.data + (row.meta ?? "")),
    0,
  );
  const [earliest = body.head_seq + 1] = found.keys();
  expect(body).toMatchObject({ count: found.size, bytes, earliest_seq: earliest });
  expect(ledger.settle(found, body.head_seq)).toEqual([]);
}

/** Sends keyed batches again, twice: those cut off by the kill and a few others. None may be stored twice. */
async function retry(server: SpawnedServer, ledger: Ledger, dice: Dice) {
  const cut = ledger.batches.filter(({ key, ackedAt }) => key !== undefined && ackedAt === Infinity);
  const others = [...ledger.batches.filter(({ key }) => key !== undefined), ...ledger.keyed];
  const some = others.length === 0 ? [] : [dice.pick(others), dice.pick(others)];
  for (const batch of new Set([...cut, ...some])) {
    for (const _ of ["once", "twice"]) {
      const { body } = await absentTopic(server, ledger.name).write(requestOf(batch));
      expect(body.count).toBe(batch.rows.length);
      if (batch.first === undefined && !body.deduped) {
        expect(body.first_seq).toBe(ledger.head + 1);
        batch.rows.forEach((row, i) => {
          ledger.live.set(body.first_seq + i, row);
        });
        ledger.head = body.last_seq;
      } else expect(body).toMatchObject({ deduped: true, first_seq: batch.first ?? body.first_seq });
      batch.first ??= body.first_seq;
    }
  }
  return cut.length;
}

test(`${KILLS} kills under load lose nothing and bring nothing back`, async () => {
  console.info(`TEST_SEED=${seed}`);
  await using dir = await temporaryDirectory();
  const ledgers = classes.map((durability, i) => new Ledger(`${durability}-${i}`));
  let [cutOff, retried] = [0, 0];
  for (let round = 0; round <= KILLS; round++) {
    await using server = await spawnServer({ dir: dir.path });
    const dice = new Dice(seed + round * 1000);
    for (const [i, ledger] of ledgers.entries()) {
      if (round === 0) {
        await absentTopic(server, ledger.name).put({
          durability: classes[i],
          idempotency_window_ms: 3_600_000,
        });
      }
      await audit(server, ledger);
      cutOff += ledger.batches.filter(({ ackedAt }) => ackedAt === Infinity).length;
      retried += await retry(server, ledger, dice);
      ledger.close();
    }
    if (round === KILLS) break;
    const load = new Load(server, 1 + dice.below(120));
    await Promise.all(
      Array.from({ length: WRITERS }, (_, writer) =>
        work(load, ledgers, new Dice(seed + round * 1000 + 1 + writer), `${round}.${writer}`),
      ),
    );
    await load.killed;
  }
  const stored = ledgers.reduce((sum, { head }) => sum + head, 0);
  console.info(`${stored} records written, ${cutOff} batches cut off by kills, ${retried} of them retried`);
  // Otherwise no kill came in the middle of anything, and the test has shown little.
  expect(cutOff).toBeGreaterThan(KILLS);
}, 120_000);
