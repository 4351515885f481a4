/** Tombstones: how a reader learns that records it never saw are gone, and when it does not. */
import { describe, expect, test } from "bun:test";
import { newTopic, seqs, sharedServer, type Topic, until } from "../support/topics.ts";

const server = sharedServer();

const expired = (topic: Topic) =>
  until(
    () => topic.state(),
    ({ body }) => body.count === 0,
  );

describe("lost to a cap", () => {
  test("02.41 a reader below the floor gets the gap, then what is left", async () => {
    const topic = await newTopic(server, { cap_records: 2 });
    await topic.append(1, 2, 3, 4, 5);
    const reply = await topic.diff({ from_seq: 0 });
    expect(reply.body.tombstone).toStrictEqual({
      gap_from: 1,
      gap_to: 3,
      reason: "cap",
      missed_estimate: 3,
      earliest_seq: 4,
      head_seq: 5,
    });
    expect(seqs(reply)).toStrictEqual([4, 5]);
    expect(reply.body).toMatchObject({ next_from_seq: 5, earliest_seq: 4, caught_up: true });
  });

  test("6.4 the gap starts behind the reader's cursor", async () => {
    const topic = await newTopic(server, { cap_records: 2 });
    await topic.append(1, 2, 3, 4, 5);
    const { tombstone } = (await topic.diff({ from_seq: 2 })).body;
    expect(tombstone).toMatchObject({ gap_from: 3, gap_to: 3, missed_estimate: 1, earliest_seq: 4 });
  });

  test("6.4 every read from below the floor repeats it", async () => {
    const topic = await newTopic(server, { cap_bytes: 2 });
    await topic.append(1, 2, 3);
    const first = await topic.diff();
    const second = await topic.diff({ limit: 1 });
    expect(first.body.tombstone).toMatchObject({ gap_from: 1, gap_to: 1, reason: "cap" });
    expect(second.body.tombstone).toStrictEqual(first.body.tombstone);
    expect(second.body).toMatchObject({ next_from_seq: 2, caught_up: false });
  });

  test("02.43 a cursor at the floor lost nothing", async () => {
    const topic = await newTopic(server, { cap_records: 2 });
    await topic.append(1, 2, 3, 4, 5);
    for (const from_seq of [3, 4, 5]) expect((await topic.diff({ from_seq })).body.tombstone).toBeNull();
    expect(seqs(await topic.diff({ from_seq: 3 }))).toStrictEqual([4, 5]);
  });

  test("6.4 a gap that everything fell into: no record, caught up", async () => {
    const topic = await newTopic(server, { cap_bytes: 1 });
    await topic.append("large", "larger");
    expect((await topic.diff()).body).toMatchObject({
      records: [],
      next_from_seq: 2,
      earliest_seq: 3,
      caught_up: true,
      tombstone: { gap_from: 1, gap_to: 2, reason: "cap", earliest_seq: 3, head_seq: 2 },
    });
  });
});

describe("lost to the TTL", () => {
  test("02.42 the reason is ttl, also long after", async () => {
    const topic = await newTopic(server, { ttl_ms: 30 });
    await topic.append(1, 2, 3);
    await expired(topic);
    const reply = await topic.diff();
    expect(reply.body.tombstone).toStrictEqual({
      gap_from: 1,
      gap_to: 3,
      reason: "ttl",
      missed_estimate: 3,
      earliest_seq: 4,
      head_seq: 3,
    });
    expect(reply.body).toMatchObject({ records: [], next_from_seq: 3, earliest_seq: 4, caught_up: true });
    await topic.put({});
    await topic.append(4);
    const later = await topic.diff();
    expect(seqs(later)).toStrictEqual([4]);
    expect(later.body.tombstone).toMatchObject({ reason: "ttl", gap_to: 3, head_seq: 4 });
  });

  test("02.42 a diff by itself sweeps what has expired", async () => {
    const topic = await newTopic(server, { ttl_ms: 30 });
    await topic.append(1, 2);
    await Bun.sleep(80);
    expect((await topic.diff()).body).toMatchObject({ records: [], tombstone: { reason: "ttl", gap_to: 2 } });
  });

  test("02.42 the younger records stay", async () => {
    const topic = await newTopic(server);
    await topic.append(1, 2);
    await Bun.sleep(400);
    await topic.append(3);
    await topic.put({ ttl_ms: 350 });
    const reply = await topic.diff();
    expect(seqs(reply)).toStrictEqual([3]);
    expect(reply.body.tombstone).toMatchObject({ reason: "ttl", gap_from: 1, gap_to: 2 });
  });

  test("02.42 both in the gap are mixed; a cursor past the cap's part sees ttl only", async () => {
    const topic = await newTopic(server, { cap_records: 2 });
    await topic.append(1, 2, 3, 4);
    await topic.put({ cap_records: 2, ttl_ms: 1 });
    await expired(topic);
    const reason = async (from_seq: number) => (await topic.diff({ from_seq })).body.tombstone?.reason;
    expect(await Promise.all([0, 1, 2, 3, 4].map(reason))).toStrictEqual([
      "mixed",
      "mixed",
      "ttl",
      "ttl",
      undefined,
    ]);
  });

  test("02.42 a cap that loses more after the expiry: mixed below, cap above", async () => {
    const topic = await newTopic(server, { ttl_ms: 1 });
    await topic.append(1, 2);
    await expired(topic);
    await topic.put({ cap_records: 1 });
    await topic.append(3, 4, 5);
    const reason = async (from_seq: number) => (await topic.diff({ from_seq })).body.tombstone?.reason;
    expect(await Promise.all([0, 1, 2, 3, 4].map(reason))).toStrictEqual([
      "mixed",
      "mixed",
      "cap",
      "cap",
      undefined,
    ]);
  });
});

describe("deleted on purpose", () => {
  test("02.44 is silent: no tombstone, less to read", async () => {
    const topic = await newTopic(server);
    await topic.append("a", "b", "c");
    await topic.erase({ before_seq: 3 });
    const reply = await topic.diff();
    expect(reply.body).toMatchObject({ tombstone: null, earliest_seq: 3, next_from_seq: 3, caught_up: true });
    expect(seqs(reply)).toStrictEqual([3]);
    expect((await topic.state()).body).toMatchObject({ count: 1, bytes: 3, earliest_seq: 3 });
  });

  test.each([
    ["before_seq", { before_seq: 5 }, 5],
    ["match", { match: "x" }, 4],
  ])("02.45 above a cap's loss, by %s: the gap ends at the cap's floor", async (_, request, earliest) => {
    const topic = await newTopic(server, { cap_records: 3 });
    await topic.write({ records: [1, 2, 3, 4, 5].map((data) => ({ data, tag: data === 3 ? "x" : "y" })) });
    await topic.erase(request);
    const reply = await topic.diff();
    expect(reply.body.earliest_seq).toBe(earliest);
    expect(reply.body.tombstone).toStrictEqual({
      gap_from: 1,
      gap_to: 2,
      reason: "cap",
      missed_estimate: 2,
      earliest_seq: 3,
      head_seq: 5,
    });
    expect(seqs(reply)).toStrictEqual([4, 5].filter((seq) => seq >= earliest));
    expect((await topic.diff({ from_seq: 2 })).body.tombstone).toBeNull();
  });
});

describe("ahead of the head", () => {
  test("02.46 is recreated: 1 to head, then what is there", async () => {
    const topic = await newTopic(server);
    await topic.append(1, 2, 3);
    const reply = await topic.diff({ from_seq: 4 });
    expect(reply.body.tombstone).toStrictEqual({
      gap_from: 1,
      gap_to: 3,
      reason: "recreated",
      missed_estimate: 3,
      earliest_seq: 1,
      head_seq: 3,
    });
    expect(seqs(reply)).toStrictEqual([1, 2, 3]);
    expect(reply.body).toMatchObject({ next_from_seq: 3, caught_up: true, lag: 0 });
  });

  test("02.46 names the topic's own earliest record", async () => {
    const topic = await newTopic(server, { cap_records: 3 });
    await topic.append(1, 2, 3, 4, 5);
    await topic.erase({ before_seq: 4 });
    const reply = await topic.diff({ from_seq: 9, limit: 1 });
    expect(reply.body.tombstone).toMatchObject({
      reason: "recreated",
      gap_to: 5,
      missed_estimate: 5,
      earliest_seq: 4,
    });
    expect(reply.body).toMatchObject({ next_from_seq: 4, caught_up: false, lag: 1 });
    expect(seqs(reply)).toStrictEqual([4]);
  });

  test("02.46 on an empty topic the gap is 1 to 0, and one is missed", async () => {
    const topic = await newTopic(server);
    const { body } = await topic.diff({ from_seq: 1 });
    expect(body.tombstone).toStrictEqual({
      gap_from: 1,
      gap_to: 0,
      reason: "recreated",
      missed_estimate: 1,
      earliest_seq: 1,
      head_seq: 0,
    });
    expect(body).toMatchObject({ records: [], next_from_seq: 0, head_seq: 0, caught_up: true, lag: 0 });
  });

  test.each(["9007199254740991", "9007199254740993", "9223372036854775808", "18446744073709551615"])(
    "P7 from_seq %s is beyond every seq",
    async (fromSeq) => {
      const topic = await newTopic(server);
      await topic.append(1);
      const reply = await topic.diff(`{"from_seq":${fromSeq}}`);
      expect(reply.body.tombstone).toMatchObject({ reason: "recreated", gap_from: 1, gap_to: 1 });
      expect(seqs(reply)).toStrictEqual([1]);
    },
  );

  test("02.47 after a recreation: a cursor above the new head is told, one at it is not", async () => {
    const topic = await newTopic(server);
    await topic.append(1, 2, 3);
    await topic.drop();
    await topic.put();
    expect((await topic.append("new", "newer")).body.seqs).toStrictEqual([1, 2]);
    const above = await topic.diff({ from_seq: 3 });
    const at = await topic.diff({ from_seq: 2 });
    const below = await topic.diff({ from_seq: 1 });
    expect(above.body.tombstone).toMatchObject({ reason: "recreated", gap_to: 2 });
    expect(seqs(above)).toStrictEqual([1, 2]);
    expect(at.body).toMatchObject({ tombstone: null, records: [], caught_up: true });
    expect(below.body.tombstone).toBeNull();
    expect(seqs(below)).toStrictEqual([2]);
  });

  test("02.47 the floors of the old topic are forgotten", async () => {
    const topic = await newTopic(server, { cap_records: 1 });
    await topic.append(1, 2, 3);
    await topic.drop();
    await topic.append(1, 2);
    const reply = await topic.diff();
    expect(reply.body.tombstone).toBeNull();
    expect(seqs(reply)).toStrictEqual([1, 2]);
  });
});
