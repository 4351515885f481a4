/** `POST /v0/topics/:topic/delete`: records go by position, by tag, or by both. */
import { describe, expect, test } from "bun:test";
import { column, newTopic, seqs, sharedServer, type Topic, taggedTopic } from "../support/topics.ts";

const server = sharedServer();

const left = async (topic: Topic) => column(await topic.diff(), "data");

describe("by tag", () => {
  test("7 the reply tells what is left", async () => {
    const topic = await newTopic(server);
    await topic.write({
      records: [
        { data: "raw", tag: "ord:82" },
        { data: null, tag: "x" },
        { data: 4 },
        { data: 5, tag: "ord:1", meta: {} },
      ],
    });
    const reply = await topic.erase({ match: ["tag", "Glob", "ord:*"] });
    expect(reply.status).toBe(200);
    expect(reply.body).toStrictEqual({
      topic: topic.name,
      deleted: 2,
      earliest_seq: 2,
      head_seq: 4,
      count: 2,
      bytes: 5,
      performance: { server_total_ms: expect.any(Number) },
    });
    expect((await topic.state()).body).toMatchObject({ earliest_seq: 2, head_seq: 4, count: 2, bytes: 5 });
  });

  const tags = ["a", "a*", "ab", "abc", "A", "", "b", undefined, "*", "a**", "x*y"];
  const without = (...gone: string[]) =>
    tags.filter((tag) => tag === undefined || !gone.includes(tag)).map((tag) => tag ?? null);

  test.each([
    ["a", without("a")],
    ["a*", without("a", "a*", "ab", "abc", "a**")],
    [["tag", "Glob", "a*"], without("a", "a*", "ab", "abc", "a**")],
    [["tag", "Eq", "a*"], without("a*")],
    [["tag", "Eq", "a"], without("a")],
    ["a**", without("a*", "a**")],
    [["tag", "Eq", "a**"], without("a**")],
    ["x*y", without("x*y")],
    ["x*", without("x*y")],
    ["", without("")],
    [["tag", "Eq", ""], without("")],
    [["tag", "Eq", "*"], without("*")],
    ["*", [null]],
    [["tag", "Glob", "*"], [null]],
    ["**", without("*")],
    ["nobody", without()],
    ["nobody*", without()],
  ])("02.59 02.60 %j", async (match, expected) => {
    const topic = await taggedTopic(server, ...tags);
    const reply = await topic.erase({ match });
    expect(await left(topic)).toStrictEqual(expected);
    expect(reply.body).toMatchObject({ deleted: tags.length - expected.length, count: expected.length });
  });

  test("02.60 a prefix ends where it says", async () => {
    const topic = await taggedTopic(
      server,
      "chat-42:",
      "chat-42:x",
      "chat-420:x",
      "chat-42",
      "chat-4",
      undefined,
    );
    await topic.erase({ match: "chat-42:*" });
    expect(await left(topic)).toStrictEqual(["chat-420:x", "chat-42", "chat-4", null]);
  });

  test.each([
    ["100%", "100%*", ["100x"]],
    ["a_c", "a_c*", ["abc"]],
    ["a?c", "a?c*", ["abc"]],
    ["[ab]c", "[ab]*", ["ac", "b"]],
    ["a\\*c", "a\\*", ["a*c", "ac"]],
    ["it's", "it's*", ["its"]],
    ["%", "%*", ["x", "_"]],
    ["\0a", "\0*", ["a", ""]],
    ["a\0b", "a\0*", ["a", "ab"]],
    ["\uE000x", "\uE000*", ["😀x", "\uD7FFx", "\uF000"]],
    ["😀x", "😀*", ["😁x", "\uE000", "\uFFFFx"]],
    ["\uFFFFx", "\uFFFF*", ["😀", "\uFFFE"]],
    ["\u{10FFFF}x", "\u{10FFFF}*", ["\u{10FFFE}x", "\uFFFF"]],
    ["\uD7FFx", "\uD7FF*", ["\uE000", "\uD7FEx", "😀"]],
    ["\u007fx", "\u007f*", ["\u0080x", "~"]],
    ["éa", "é*", ["e\u0301a", "É"]],
  ])("7 no character but the last * is special: %j by %j spares %j", async (tag, match, others) => {
    const topic = await taggedTopic(server, tag, ...others);
    expect((await topic.erase({ match })).body.deleted).toBe(1);
    expect(await left(topic)).toStrictEqual(others);
  });

  test.each([
    ["a\0b", ["a", "a\0", "a\0B"]],
    ["É", ["é", "E\u0301"]],
    ["x ", ["x", "X "]],
    ["1", ["01", "1.0"]],
  ])("7 Eq compares bytes: %j spares %j", async (tag, others) => {
    const topic = await taggedTopic(server, tag, ...others);
    expect((await topic.erase({ match: ["tag", "Eq", tag] })).body.deleted).toBe(1);
    expect(await left(topic)).toStrictEqual(others);
  });

  test("7 all records of a tag go, over many writes, and each is counted once", async () => {
    const topic = await newTopic(server);
    for (let i = 0; i < 5; i++) await topic.write({ records: [{ data: i, tag: "x" }, { data: i }] });
    expect((await topic.erase({ match: "x" })).body).toMatchObject({ deleted: 5, count: 5 });
    expect((await topic.erase({ match: "x" })).body).toMatchObject({ deleted: 0, count: 5 });
    expect(seqs(await topic.diff())).toStrictEqual([2, 4, 6, 8, 10]);
  });

  test("02.62 a match in the middle leaves earliest_seq; deleting the front then jumps the hole", async () => {
    const topic = await taggedTopic(server, "front", "middle", "middle", "end");
    expect((await topic.erase({ match: "middle" })).body).toMatchObject({
      deleted: 2,
      earliest_seq: 1,
      count: 2,
    });
    expect((await topic.diff()).body.tombstone).toBeNull();
    expect((await topic.erase({ match: "front" })).body).toMatchObject({
      deleted: 1,
      earliest_seq: 4,
      count: 1,
    });
    expect((await topic.diff()).body).toMatchObject({ tombstone: null, earliest_seq: 4 });
  });

  test("02.62 a before_seq inside a hole moves earliest_seq behind the hole", async () => {
    const topic = await taggedTopic(server, "front", "middle", "middle", "end");
    await topic.erase({ match: "middle" });
    expect((await topic.erase({ before_seq: 2 })).body).toMatchObject({ deleted: 1, earliest_seq: 4 });
  });
});

describe("by position", () => {
  test.each([
    [0, 0, 1, [1, 2, 3]],
    [1, 0, 1, [1, 2, 3]],
    [2, 1, 2, [2, 3]],
    [3, 2, 3, [3]],
    [4, 3, 4, []],
    [5, 3, 4, []],
    [9007199254740991, 3, 4, []],
  ])("02.44 before_seq %d deletes %d", async (before_seq, deleted, earliest_seq, rest) => {
    const topic = await newTopic(server);
    await topic.append(1, 2, 3);
    const reply = await topic.erase({ before_seq });
    expect(reply.body).toMatchObject({
      deleted,
      earliest_seq,
      head_seq: 3,
      count: rest.length,
      bytes: rest.length,
    });
    expect(seqs(await topic.diff())).toStrictEqual(rest);
  });

  test.each(["9007199254740993", "9223372036854775808", "18446744073709551615"])(
    "P7 before_seq %s is beyond every seq",
    async (beforeSeq) => {
      const topic = await newTopic(server);
      await topic.append(1, 2);
      expect((await topic.erase(`{"before_seq":${beforeSeq}}`)).body).toMatchObject({
        deleted: 2,
        earliest_seq: 3,
      });
      expect(seqs(await topic.append(3).then(() => topic.diff()))).toStrictEqual([3]);
    },
  );

  test("7 on a topic without records there is nothing to delete", async () => {
    const topic = await newTopic(server);
    const reply = await topic.erase({ before_seq: 10 });
    expect(reply.body).toMatchObject({ deleted: 0, earliest_seq: 1, head_seq: 0, count: 0, bytes: 0 });
    expect((await topic.append(1)).body.seqs).toStrictEqual([1]);
    expect(seqs(await topic.diff())).toStrictEqual([1]);
  });

  test("7 repeating is harmless, a lower position too", async () => {
    const topic = await newTopic(server);
    await topic.append(1, 2, 3);
    await topic.erase({ before_seq: 3 });
    for (const before_seq of [3, 2, 0]) {
      const reply = await topic.erase({ before_seq });
      expect(reply.body).toMatchObject({ deleted: 0, earliest_seq: 3, count: 1, bytes: 1 });
    }
  });

  test("02.63 beyond the head it empties the topic and touches nothing that comes later", async () => {
    const topic = await newTopic(server);
    await topic.write({ records: [{ data: 1, tag: "x" }, { data: 2 }] });
    const reply = await topic.erase({ before_seq: 1000 });
    expect(reply.body).toMatchObject({ deleted: 2, earliest_seq: 3, head_seq: 2, count: 0, bytes: 0 });
    await topic.append(3);
    const diff = await topic.diff();
    expect(seqs(diff)).toStrictEqual([3]);
    expect(diff.body.tombstone).toBeNull();
    expect((await topic.state()).body).toMatchObject({ earliest_seq: 3, count: 1 });
  });

  test("02.63 a record of a deleted tag that is written later survives", async () => {
    const topic = await taggedTopic(server, "x", "y");
    await topic.erase({ match: "x" });
    await topic.write({ records: [{ data: "new x", tag: "x" }] });
    expect(await left(topic)).toStrictEqual(["y", "new x"]);
  });
});

describe("by both", () => {
  test("02.61 newer records of the tag and older ones of others stay", async () => {
    const topic = await taggedTopic(server, "x", "y", "x", "y", "x");
    const reply = await topic.erase({ match: "x", before_seq: 4 });
    expect(reply.body).toMatchObject({ deleted: 2, count: 3, earliest_seq: 2, head_seq: 5 });
    expect(seqs(await topic.diff())).toStrictEqual([2, 4, 5]);
  });

  test.each([
    ["x*", 4, [4, 5]],
    ["x*", 3, [3, 4, 5]],
    ["*", 4, [4, 5]],
    [["tag", "Glob", "xa*"], 5, [1, 2, 4, 5]],
    [["tag", "Eq", "xb"], 5, [1, 3, 4, 5]],
  ])("02.61 a predicate %j below %d", async (match, before_seq, expected) => {
    const topic = await taggedTopic(server, "x", "xb", "xa", "x", "xa");
    expect((await topic.erase({ match, before_seq })).body).toMatchObject({ deleted: 5 - expected.length });
    expect(seqs(await topic.diff())).toStrictEqual(expected);
  });

  test("02.61 it sets no floor: earliest_seq moves only past what is gone", async () => {
    const topic = await taggedTopic(server, "y", "x", "x", "y");
    expect((await topic.erase({ match: "x", before_seq: 100 })).body).toMatchObject({
      deleted: 2,
      earliest_seq: 1,
    });
    expect(seqs(await topic.diff())).toStrictEqual([1, 4]);
  });

  test("7 a null half does not count", async () => {
    const topic = await taggedTopic(server, "x", "y", "x");
    expect((await topic.erase({ before_seq: 2, match: null })).body.deleted).toBe(1);
    expect((await topic.erase({ before_seq: null, match: "x" })).body.deleted).toBe(1);
    expect(await left(topic)).toStrictEqual(["y"]);
  });
});

describe("what a delete leaves alone", () => {
  test("7 evicted and expired records are not counted", async () => {
    const topic = await newTopic(server, { cap_records: 2 });
    await topic.write({ records: [1, 2, 3, 4].map((data) => ({ data, tag: "x" })) });
    expect((await topic.erase({ match: "x" })).body).toMatchObject({ deleted: 2, earliest_seq: 5 });
    await topic.put({ ttl_ms: 20 });
    await topic.write({ records: [{ data: 5, tag: "x" }] });
    await Bun.sleep(60);
    expect((await topic.erase({ match: "x" })).body).toMatchObject({ deleted: 0, count: 0, earliest_seq: 6 });
    expect((await topic.diff({ from_seq: 4 })).body.tombstone).toMatchObject({ reason: "ttl" });
  });

  test("7 the loss floor: a reader below it still gets its tombstone", async () => {
    const topic = await newTopic(server, { cap_records: 2 });
    await topic.append(1, 2, 3, 4);
    await topic.erase({ before_seq: 5 });
    expect((await topic.diff()).body).toMatchObject({
      records: [],
      tombstone: { gap_from: 1, gap_to: 2, reason: "cap" },
      earliest_seq: 5,
      next_from_seq: 4,
      caught_up: true,
    });
    expect((await topic.diff({ from_seq: 2 })).body.tombstone).toBeNull();
  });

  test("7 clocks, head and idempotency keys", async () => {
    const topic = await newTopic(server);
    const keyed = { records: [{ data: 1 }], idempotency_key: "k" };
    await topic.write(keyed);
    const before = (await topic.state()).body;
    await topic.erase({ match: "*", before_seq: 2 });
    await topic.erase({ before_seq: 2 });
    const after = (await topic.state()).body;
    const { last_write_ts, last_read_ts, head_seq, next_seq, epoch, config } = before;
    expect(after).toMatchObject({ last_write_ts, last_read_ts, head_seq, next_seq, epoch, config });
    expect((await topic.write(keyed)).body).toMatchObject({ deduped: true, seqs: [1] });
  });

  test("7 other topics", async () => {
    const [topic, other] = [await taggedTopic(server, "x", "x"), await taggedTopic(server, "x", "x")];
    await topic.erase({ match: "x" });
    expect(await left(other)).toStrictEqual(["x", "x"]);
  });
});
