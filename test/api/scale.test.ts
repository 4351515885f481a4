/** The same rules over thousands of records: deletes, caps and expiry that no single page or step covers. */
import { describe, expect, test } from "bun:test";
import { newTopic, sharedServer, type Topic, together, until } from "../support/topics.ts";

const server = sharedServer();

const N = 6000;
const numbers = (n: number, from = 1) => Array.from({ length: n }, (_, i) => from + i);

interface Kept {
  seq: number;
  tag: string;
}

const bytesOf = (kept: readonly Kept[]) => kept.reduce((sum, { seq }) => sum + String(seq).length, 0);

/** Every third record is `a`, the others are `b`; `data` is the seq. */
async function filled(config = {}): Promise<{ topic: Topic; kept: Kept[] }> {
  const topic = await newTopic(server, config);
  const kept = numbers(N).map((seq) => ({ seq, tag: seq % 3 === 0 ? "a" : "b" }));
  await topic.write({ records: kept.map(({ seq, tag }) => ({ data: seq, tag })) }, "?return_seqs=false");
  return { topic, kept };
}

/** Compares the topic's state and everything a reader gets with what should be left. */
async function expectLeft(topic: Topic, kept: readonly Kept[], head: number) {
  const earliest = kept[0]?.seq ?? head + 1;
  const seen: number[] = [];
  for (let from_seq = earliest - 1, caughtUp = false; !caughtUp; ) {
    const { body } = await topic.diff({ from_seq, limit: 1000 });
    for (const { $seq, data } of body.records) {
      expect(data).toBe($seq);
      seen.push($seq);
    }
    [from_seq, caughtUp] = [body.next_from_seq, body.caught_up];
  }
  expect(seen).toStrictEqual(kept.map(({ seq }) => seq));
  expect((await topic.state()).body).toMatchObject({
    head_seq: head,
    earliest_seq: earliest,
    count: kept.length,
    bytes: bytesOf(kept),
  });
}

describe("deletes", () => {
  test.each([
    ["a", "b"],
    ["b", "a"],
    ["b*", "a"],
  ])("7 by match %s", async (match, rest) => {
    const { topic, kept } = await filled();
    const left = kept.filter(({ tag }) => tag === rest);
    const reply = await topic.erase({ match });
    expect(reply.body).toMatchObject({
      deleted: N - left.length,
      earliest_seq: left[0]!.seq,
      head_seq: N,
      count: left.length,
      bytes: bytesOf(left),
    });
    await expectLeft(topic, left, N);
    expect((await topic.erase({ match })).body).toMatchObject({ deleted: 0, count: left.length });
    await expectLeft(topic, left, N);
  });

  test("7 by match and before_seq, then by match alone", async () => {
    const { topic, kept } = await filled();
    const older = kept.filter(({ seq, tag }) => tag === "a" || seq >= 4500);
    expect((await topic.erase({ match: "b", before_seq: 4500 })).body.deleted).toBe(N - older.length);
    await expectLeft(topic, older, N);
    const newer = older.filter(({ tag }) => tag === "a");
    expect((await topic.erase({ match: "b" })).body.deleted).toBe(older.length - newer.length);
    await expectLeft(topic, newer, N);
  });

  test.each([
    ["b", ["ba", "a", ""]],
    [
      ["tag", "Eq", "b*"],
      ["b", "ba", "b**"],
    ],
    ["b*", ["a", "B", "", "c"]],
  ])("7 by match %j, beside tags that look like it", async (match, others) => {
    const topic = await newTopic(server);
    const tag = typeof match === "string" ? match.replace("*", "x") : match[2]!;
    const kept = numbers(4000).map((seq) => ({ seq, tag: seq % 2 ? tag : others[seq % others.length]! }));
    await topic.write({ records: kept.map(({ seq, tag }) => ({ data: seq, tag })) }, "?return_seqs=false");
    expect((await topic.erase({ match })).body).toMatchObject({ deleted: 2000, count: 2000 });
    await expectLeft(
      topic,
      kept.filter(({ seq }) => seq % 2 === 0),
      4000,
    );
  });

  test("02.61 by a prefix and before_seq", async () => {
    const { topic, kept } = await filled();
    const left = kept.filter(({ seq, tag }) => tag === "a" || seq >= 4500);
    expect((await topic.erase({ match: "b*", before_seq: 4500 })).body.deleted).toBe(N - left.length);
    await expectLeft(topic, left, N);
  });

  test("02.63 records of the tag that are written after a large delete survive it", async () => {
    const { topic, kept } = await filled();
    await topic.erase({ match: "b" });
    const records = numbers(1500, N + 1).map((seq) => ({ data: seq, tag: "b" }));
    await topic.write({ records }, "?return_seqs=false");
    const left = kept
      .filter(({ tag }) => tag === "a")
      .concat(records.map(({ data, tag }) => ({ seq: data, tag })));
    await expectLeft(topic, left, N + 1500);
    expect((await topic.erase({ match: "b" })).body).toMatchObject({ deleted: 1500, count: 2000 });
    await expectLeft(
      topic,
      left.filter(({ tag }) => tag === "a"),
      N + 1500,
    );
  });

  test("02.63 no write is lost or saved by a large delete that runs beside it", async () => {
    const { topic } = await filled();
    const [erased, ...written] = await Promise.all([
      topic.erase({ match: "b" }),
      ...numbers(20).map(() => topic.write({ records: [{ data: 0, tag: "b" }] })),
    ]);
    const { count, head_seq } = (await topic.state()).body;
    expect(written.every(({ status }) => status === 200)).toBe(true);
    expect(head_seq).toBe(N + 20);
    expect(count).toBe(N + 20 - erased.body.deleted);
    const { body } = await topic.diff({ from_seq: N, limit: 1000 });
    expect(body.records).toHaveLength(count - N / 3);
  });

  test.each([1, 2, 999, 1000, 1001, 1024, 1025, 2049, 4096, 4097, N, N + 1])(
    "02.44 by before_seq %d",
    async (before_seq) => {
      const { topic, kept } = await filled();
      const left = kept.filter(({ seq }) => seq >= before_seq);
      expect((await topic.erase({ before_seq })).body).toMatchObject({
        deleted: N - left.length,
        bytes: bytesOf(left),
      });
      await expectLeft(topic, left, N);
    },
  );

  test("02.62 the front after a long hole: earliest_seq jumps it", async () => {
    const topic = await newTopic(server);
    const tags = numbers(5000).map((seq) => (seq === 1 ? "front" : seq === 5000 ? "end" : "middle"));
    await topic.write({ records: tags.map((tag, i) => ({ data: i + 1, tag })) }, "?return_seqs=false");
    expect((await topic.erase({ match: "middle" })).body).toMatchObject({
      deleted: 4998,
      earliest_seq: 1,
      count: 2,
    });
    const { body } = await topic.diff({ from_seq: 1, limit: 1 });
    expect(body).toMatchObject({ records: [{ data: 5000 }], next_from_seq: 5000, caught_up: true });
    expect((await topic.erase({ before_seq: 2 })).body).toMatchObject({
      deleted: 1,
      earliest_seq: 5000,
      count: 1,
    });
    await expectLeft(topic, [{ seq: 5000, tag: "end" }], 5000);
  });

  test("02.63 deletes of the same records at the same time count each record once", async () => {
    const { topic } = await filled();
    const replies = await together(6, (i) =>
      topic.erase(i % 2 ? { match: "*" } : { before_seq: 1500 * (i + 1) }),
    );
    expect(replies.reduce((sum, { body }) => sum + body.deleted, 0)).toBe(N);
    await expectLeft(topic, [], N);
  });

  test("P6 a large delete beside writes that evict: the counts stay exact", async () => {
    const { topic } = await filled({ cap_records: N });
    const batch = numbers(100).map((data) => ({ data: 0, tag: data % 2 ? "a" : "c" }));
    await Promise.all([
      topic.erase({ match: "b" }),
      topic.erase({ match: "a", before_seq: 3000 }),
      ...numbers(30).map(() => topic.write({ records: batch }, "?return_seqs=false")),
    ]);
    const { count, bytes, earliest_seq } = (await topic.state()).body;
    const left: Kept[] = [];
    for (let from_seq = earliest_seq - 1, caughtUp = false; !caughtUp; ) {
      const { body } = await topic.diff({ from_seq, limit: 1000 });
      left.push(
        ...body.records.map(({ $seq, data }: { $seq: number; data: number }) => ({
          seq: $seq,
          tag: String(data),
        })),
      );
      [from_seq, caughtUp] = [body.next_from_seq, body.caught_up];
    }
    expect(left[0]!.seq).toBe(earliest_seq);
    expect(left).toHaveLength(count);
    expect(left.reduce((sum, { tag }) => sum + tag.length, 0)).toBe(bytes);
  });

  test("7 pages read before a change are not shown after it", async () => {
    const { topic, kept } = await filled();
    let left = kept;
    const step = async (change: () => Promise<unknown>, stays: (record: Kept) => boolean) => {
      await expectLeft(topic, left, N);
      await change();
      left = left.filter(stays);
      await expectLeft(topic, left, N);
    };
    await step(
      () => topic.erase({ match: "a", before_seq: 50 }),
      ({ seq, tag }) => tag === "b" || seq >= 50,
    );
    await step(
      () => topic.erase({ before_seq: 700 }),
      ({ seq }) => seq >= 700,
    );
    await step(
      () => topic.put({ cap_records: 3500 }),
      ({ seq }) => seq > N - 3500,
    );
    await step(
      () => topic.put({ durability: "ephemeral" }),
      () => true,
    );
    await step(
      () => topic.erase({ match: "b" }),
      ({ tag }) => tag === "a",
    );
    await topic.drop();
    await topic.write({ records: numbers(2000).map((data) => ({ data })) }, "?return_seqs=false");
    await expectLeft(
      topic,
      numbers(2000).map((seq) => ({ seq, tag: "" })),
      2000,
    );
  });
});

describe("caps", () => {
  test.each([1, 999, 1000, 2048, 4096, 5999])(
    "P6 cap_records %d over holes keeps the newest live ones",
    async (cap) => {
      const { topic, kept } = await filled();
      await topic.erase({ match: "a" });
      await topic.put({ cap_records: cap });
      const left = kept.filter(({ tag }) => tag === "b").slice(-cap);
      await expectLeft(topic, left, N);
    },
  );

  test.each([4, 5, 4000, 10000, 16000])("P6 cap_bytes %d over holes keeps what fits", async (cap) => {
    const { topic, kept } = await filled();
    await topic.erase({ match: "a" });
    await topic.put({ cap_bytes: cap });
    let left = kept.filter(({ tag }) => tag === "b");
    while (bytesOf(left) > cap) left = left.slice(Math.max(1, Math.floor((bytesOf(left) - cap) / 5)));
    await expectLeft(topic, left, N);
  });

  test("5.4 a cap that many small writes pass", async () => {
    const topic = await newTopic(server, { cap_records: 1500 });
    for (let from = 1; from <= 4000; from += 400) {
      await topic.write({ records: numbers(400, from).map((data) => ({ data })) }, "?return_seqs=false");
    }
    const left = numbers(1500, 2501).map((seq) => ({ seq, tag: "" }));
    await expectLeft(topic, left, 4000);
    expect((await topic.diff()).body.tombstone).toMatchObject({ reason: "cap", gap_from: 1, gap_to: 2500 });
  });
});

describe("expiry", () => {
  test("6.2 takes thousands at once, over holes, and no younger one", async () => {
    const { topic } = await filled();
    await topic.erase({ match: "b" });
    await Bun.sleep(600);
    await topic.write({ records: numbers(2000, N + 1).map((data) => ({ data })) }, "?return_seqs=false");
    await topic.put({ ttl_ms: 550 });
    const { body } = await topic.diff({ limit: 1 });
    expect(body).toMatchObject({
      records: [{ $seq: N + 1 }],
      earliest_seq: N + 1,
      tombstone: { reason: "ttl", gap_from: 1, gap_to: N },
    });
    const swept = await until(
      () => topic.state(),
      ({ body }) => body.count === 0,
    );
    expect(swept.body).toMatchObject({ bytes: 0, earliest_seq: N + 2001, head_seq: N + 2000 });
  });
});
