/**
 * Damaged files: never a wrong record, and never silently fewer.
 *
 * Each case damages its own copy of a directory that a killed or a stopped server left behind. The server
 * may then serve everything, name the record it cannot serve, or name the damage and refuse to start.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { cp, readdir, readFile, rm, stat, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { spawnServer, temporaryDirectory } from "../support/spawn.ts";
import { absentTopic, type Topic } from "../support/topics.ts";

setDefaultTimeout(30_000);

const TOTAL = 60;
const filler = "z".repeat(300);

const input = (i: number) => ({
  data: { text: `dataword-${i}-${filler}` },
  tag: `tagword-${i}-end`,
  node: `nodeword-${i}-end`,
  meta: { text: `metaword-${i}-end` },
});

interface Entry {
  readonly $seq: number;
  readonly $ts: number;
}

interface Left extends AsyncDisposable {
  readonly path: string;
  readonly records: Entry[];
}

/** A directory that a server with 60 records, each from a write of its own, has left behind. */
async function leave(signal: NodeJS.Signals): Promise<Left> {
  const dir = await temporaryDirectory();
  const server = await spawnServer({ dir: dir.path });
  const topic = absentTopic(server, "t");
  await topic.put({ durability: "fsync" });
  for (let i = 1; i < TOTAL; i++) await topic.write({ records: [input(i)] });
  await topic.write({ records: [input(TOTAL)] });
  const { records } = (await topic.diff({ limit: 1000, include_tags: true })).body;
  await server.stop(signal);
  return { ...dir, path: dir.path, records };
}

let killed: Left;
let stopped: Left;
beforeAll(async () => {
  killed = await leave("SIGKILL");
  // A checkpoint may just have ended the log; then there is no middle to damage.
  while (!(await hasMiddle(killed))) {
    await killed[Symbol.asyncDispose]();
    killed = await leave("SIGKILL");
  }
  stopped = await leave("SIGTERM");
});
afterAll(async () => {
  await killed[Symbol.asyncDispose]();
  await stopped[Symbol.asyncDispose]();
});

async function copyOf(left: Left) {
  const dir = await temporaryDirectory();
  await cp(left.path, dir.path, { recursive: true });
  return dir;
}

/** The files with this ending, the largest first. */
async function filesIn(dir: string, ending: string): Promise<string[]> {
  const names = (await readdir(dir, { recursive: true })).filter((name) => name.endsWith(ending));
  const files = await Promise.all(
    names.map(async (name) => ({ path: join(dir, name), size: (await stat(join(dir, name))).size })),
  );
  const sorted = files.filter(({ size }) => size > 0).sort((a, b) => b.size - a.size);
  return sorted.map(({ path }) => path);
}

async function walOf(dir: string): Promise<string> {
  const [path] = await filesIn(dir, ".db-wal");
  if (path === undefined) throw new Error("the server left no log to damage");
  return path;
}

/**
 * The part of a log whose damage cannot pass for a torn last write: up to the third last commit. What lies behind
 * the last commit is of an earlier log, which a checkpoint has ended.
 */
async function middleOf(wal: string): Promise<{ start: number; end: number }> {
  const view = new DataView((await readFile(wal)).buffer);
  const frameBytes = 24 + view.getUint32(8);
  const commits: number[] = [];
  for (let at = 32; at + frameBytes <= view.byteLength; at += frameBytes) {
    if (view.getBigUint64(at + 8) !== view.getBigUint64(16)) break;
    if (view.getUint32(at + 4) !== 0) commits.push(at + frameBytes);
  }
  return { start: 32, end: commits.at(-3) ?? 32 };
}

async function hasMiddle(left: Left): Promise<boolean> {
  const { start, end } = await middleOf(await walOf(left.path));
  return start < end;
}

async function flip(path: string, offset: number) {
  const bytes = await readFile(path);
  bytes[offset]! ^= 1;
  await writeFile(path, bytes);
}

/** Flips one bit in every copy of the text. Gives their number. */
async function flipText(dir: string, text: string): Promise<number> {
  let found = 0;
  for (const path of [...(await filesIn(dir, ".db")), ...(await filesIn(dir, ".db-wal"))]) {
    const bytes = await readFile(path);
    for (let at = bytes.indexOf(text); at >= 0; at = bytes.indexOf(text, at + 1), found++) {
      bytes[at + text.length - 3]! ^= 1;
    }
    await writeFile(path, bytes);
  }
  return found;
}

interface Outcome {
  /** The message of a server that did not start. */
  readonly refusal?: string;
  /** The seqs it named instead of serving them. */
  readonly named: number[];
  readonly records: Entry[];
  readonly output: string;
}

/** Starts a server over the directory and reads all it can give. */
async function outcomeOf(dir: string): Promise<Outcome> {
  const started = await spawnServer({ dir }).catch((error: Error) => error);
  if (started instanceof Error) return { refusal: started.message, named: [], records: [], output: "" };
  await using server = started;
  const topic = absentTopic(server, "t");
  const named: number[] = [];
  const records: Entry[] = [];
  for (let from = 0, caughtUp = false; !caughtUp; ) {
    const { page, seq } = await pageAfter(topic, from, 7);
    if (seq !== undefined) {
      // What lies before the damage may be readable; if not, the error stood for all of it.
      const before = await pageAfter(topic, from, Math.max(1, seq - from - 1));
      const whole = seq > from + 1 && before.seq === undefined;
      if (whole) records.push(...before.page.records);
      for (let told = whole ? seq : from + 1; told <= seq; told++) named.push(told);
    }
    records.push(...page.records);
    ({ next_from_seq: from, caught_up: caughtUp } = page);
  }
  return { named, records, output: server.output() };
}

/** The page after a seq, or the seq of a record that cannot be served, to go on behind it. */
async function pageAfter(topic: Topic, from: number, limit: number) {
  const reply = await topic.diff({ from_seq: from, limit, include_tags: true });
  if (reply.status === 404) return { page: { records: [], next_from_seq: 0, caught_up: true } };
  if (reply.status === 200) return { page: reply.body };
  expect(reply).toMatchObject({ status: 500, body: { error: { code: "internal", detail: { topic: "t" } } } });
  const { seq } = reply.body.error.detail;
  expect(seq).toBeGreaterThan(from);
  expect(seq).toBeLessThanOrEqual(TOTAL);
  return { page: { records: [], next_from_seq: seq, caught_up: seq === TOTAL }, seq };
}

const names = /damage|corrupt|checksum|malformed|not a database|missing/i;

/** Nothing wrong was served, and whatever is not served was named. */
function expectHonest(outcome: Outcome, left: Left) {
  if (outcome.refusal !== undefined) {
    expect(outcome.refusal).toMatch(/exited with 1 /);
    expect(outcome.refusal).toMatch(names);
    return;
  }
  const { named } = outcome;
  expect(outcome.records).toEqual(left.records.filter(({ $seq }) => !named.includes($seq)));
}

/** The same as text, to tell which of the honest outcomes it was. */
const kindOf = ({ refusal, named }: Outcome) =>
  refusal !== undefined ? "refused" : named.length > 0 ? "named" : "served";

describe("the end of the log", () => {
  const random = (size: number) => crypto.getRandomValues(new Uint8Array(size));
  const append = async (path: string, bytes: Uint8Array) =>
    writeFile(path, Buffer.concat([await readFile(path), bytes]));
  const cut = async (path: string, bytes: number) => truncate(path, (await stat(path)).size - bytes);

  /** Starts with at least `least` records, writes one, and has it after another kill. */
  async function goesOn(dir: string, least: number) {
    await using first = await spawnServer({ dir });
    const topic = absentTopic(first, "t");
    const { records } = (await topic.diff({ limit: 1000, include_tags: true })).body;
    expect(records.length).toBeGreaterThanOrEqual(least);
    expect(records).toEqual(killed.records.slice(0, records.length));
    expect((await topic.append("next")).body.first_seq).toBe(records.length + 1);
    await first.stop("SIGKILL");
    await using second = await spawnServer({ dir });
    const after = (await absentTopic(second, "t").diff({ limit: 1000, include_tags: true })).body.records;
    expect(after).toMatchObject([...records, { $seq: records.length + 1, data: "next" }]);
    expect(after).toHaveLength(records.length + 1);
  }

  test.each([1, 13, 400, 4000])(
    "06.40 cut short by %d bytes loses the last record at most",
    async (bytes) => {
      await using dir = await copyOf(killed);
      await cut(await walOf(dir.path), bytes);
      await goesOn(dir.path, TOTAL - 1);
    },
  );

  test("06.40 with a flipped bit loses the last record at most", async () => {
    await using dir = await copyOf(killed);
    const wal = await walOf(dir.path);
    await flip(wal, (await stat(wal)).size - 50);
    await goesOn(dir.path, TOTAL - 1);
  });

  test.each([
    ["1 random byte", () => random(1)],
    ["100 random bytes", () => random(100)],
    ["10000 random bytes", () => random(10_000)],
    ["8192 zeros", () => new Uint8Array(8192)],
  ])("06.40 followed by %s loses nothing", async (_, garbage) => {
    await using dir = await copyOf(killed);
    await append(await walOf(dir.path), garbage());
    await goesOn(dir.path, TOTAL);
  });
});

describe("the middle of the log", () => {
  test.each([0, 5, 16, 24, 31])("06.42 a flipped bit in byte %d of its header is noticed", async (offset) => {
    await using dir = await copyOf(killed);
    await flip(await walOf(dir.path), offset);
    expectHonest(await outcomeOf(dir.path), killed);
  });

  test.each([2, 10, 20, 30, 40, 50, 60, 70, 80, 90])(
    "06.42 a flipped bit at %d % is noticed",
    async (percent) => {
      await using dir = await copyOf(killed);
      const wal = await walOf(dir.path);
      const { start, end } = await middleOf(wal);
      await flip(wal, start + Math.floor(((end - start) * percent) / 100));
      expectHonest(await outcomeOf(dir.path), killed);
    },
  );

  test.each([5, 30])("06.42 a flipped bit in record %d is noticed", async (i) => {
    await using dir = await copyOf(killed);
    expect(await flipText(dir.path, `dataword-${i}-${filler}`)).toBeGreaterThan(0);
    const outcome = await outcomeOf(dir.path);
    expectHonest(outcome, killed);
    expect(kindOf(outcome)).not.toBe("served");
  });

  test("06.42 a cut in the middle is noticed", async () => {
    await using dir = await copyOf(killed);
    const wal = await walOf(dir.path);
    const { start, end } = await middleOf(wal);
    // Zeros, not an early end: an early end cannot be told from a log that was never longer.
    const bytes = await readFile(wal);
    bytes.fill(0, Math.max(start, end - 10_000), end);
    await writeFile(wal, bytes);
    expectHonest(await outcomeOf(dir.path), killed);
  });
});

describe("the main file", () => {
  const members: [string, string][] = [
    ["data", `dataword-30-${filler}`],
    ["meta", "metaword-30-end"],
    ["tag", "tagword-30-end"],
    ["node", "nodeword-30-end"],
  ];
  test.each(members)("06.42 06 row 7: a flipped bit in the %s of a record is named", async (_, text) => {
    await using dir = await copyOf(stopped);
    expect(await flipText(dir.path, text)).toBeGreaterThan(0);
    const outcome = await outcomeOf(dir.path);
    expectHonest(outcome, stopped);
    if (kindOf(outcome) !== "refused") expect(outcome.named).toContain(30);
  });

  test.each([1, 5, 18, 30, 47, 60, 75, 90, 99])("06.42 a flipped bit at %d % is noticed", async (percent) => {
    await using dir = await copyOf(stopped);
    const [path] = await filesIn(dir.path, ".db");
    await flip(path!, Math.floor(((await stat(path!)).size * percent) / 100));
    expectHonest(await outcomeOf(dir.path), stopped);
  });
});

describe("whole files", () => {
  test.each(["removed", "garbage"])("06.41 the index of the log can be %s", async (how) => {
    await using dir = await copyOf(killed);
    for (const path of await filesIn(dir.path, ".db-shm")) {
      if (how === "removed") await rm(path);
      else await writeFile(path, crypto.getRandomValues(new Uint8Array(32_768)));
    }
    const outcome = await outcomeOf(dir.path);
    expectHonest(outcome, killed);
    expect(kindOf(outcome)).toBe("served");
  });

  const remove = (path: string) => rm(path);
  const garble = async (path: string) => {
    await writeFile(path, crypto.getRandomValues(new Uint8Array((await stat(path)).size)));
  };
  test.each([
    ["a removed log", ".db-wal", remove],
    ["a garbled log", ".db-wal", garble],
    ["a removed main file", ".db", remove],
    ["a garbled main file", ".db", garble],
  ])("06 row 9: %s is reported", async (_, ending, damage) => {
    await using dir = await copyOf(killed);
    const [path] = await filesIn(dir.path, ending);
    await damage(path!);
    const outcome = await outcomeOf(dir.path);
    expect(killed.records).toEqual(expect.arrayContaining(outcome.records));
    const complete = outcome.records.length === TOTAL;
    if (!complete) expect(outcome.refusal ?? outcome.output).toMatch(names);
  });
});
