/** How much a diff reads from the store for the page it gives. */
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import type { Records } from "../../src/store/records.ts";
import { append, diff, records, TestEngine } from "./setup.ts";

setDefaultTimeout(20_000);

const MIB = 1024 * 1024;
/** With its quotes each record counts for exactly this. */
const LARGE = 256 * 1024;
const large = (n: number) => records(n, null, `"${"x".repeat(LARGE - 2)}"`);
/** Read at once, whatever the budget. */
const AHEAD = MIB + LARGE;

/** Bytes of the records read since the last look. */
function watch(records: Records): () => number {
  const range = records.range.bind(records);
  let bytes = 0;
  records.range = (...asked) => {
    const rows = range(...asked);
    for (const row of rows) bytes += row.bytes;
    return rows;
  };
  return () => {
    const read = bytes;
    bytes = 0;
    return read;
  };
}

async function filled() {
  const open = new TestEngine();
  const { engine, store } = open;
  for (let i = 0; i < 8; i++) await append(engine, "large", large(16));
  for (let i = 0; i < 4; i++) await append(engine, "mixed", records(10_000));
  for (let i = 0; i < 4; i++) await append(engine, "mixed", large(16));
  return Object.assign(open, { takeBytes: watch(store.disk.records) });
}

describe("a page of large records", async () => {
  const open = await filled();
  afterAll(() => open[Symbol.dispose]());

  test.each([
    ["the default", undefined, MIB / LARGE],
    ["8 MiB", 8 * MIB, 32],
    ["less than a record", 1000, 1],
    ["nearly two records", 2 * LARGE - 1, 1],
  ])("with a budget of %s holds what fits, and little more is read", async (_, budget, expected) => {
    const request = budget === undefined ? {} : { max_batch_bytes: budget };
    // A page that is read again is kept encoded: that must not read more either.
    for (let times = 0; times < 3; times++) {
      const { seqs } = await diff(open.engine, "large", { from_seq: 5, ...request });
      const read = open.takeBytes();
      expect(seqs).toEqual(Array.from({ length: expected }, (_, i) => 6 + i));
      expect(read).toBeLessThanOrEqual(expected * LARGE + AHEAD);
    }
  });

  test("with a small limit reads little", async () => {
    const { seqs } = await diff(open.engine, "large", { limit: 2 });
    expect(seqs).toEqual([1, 2]);
    expect(open.takeBytes()).toBeLessThanOrEqual(2 * LARGE + AHEAD);
  });

  test("behind many small ones reads little, too", async () => {
    for (let times = 0; times < 3; times++) {
      const { seqs } = await diff(open.engine, "mixed", { from_seq: 40_000 });
      const read = open.takeBytes();
      expect(seqs).toEqual([40_001, 40_002, 40_003, 40_004]);
      // The average says nothing here, so there may be a first guess that is too large; all of them are 16 MiB.
      expect(read).toBeLessThanOrEqual(4 * MIB);
    }
  });
});
