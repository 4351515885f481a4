/**
 * Long polls: a diff with `wait_ms` at the head waits for the next append, and for nothing else.
 *
 * A poll counts as waiting once the topic's `last_read_ts` shows that it has read.
 */
import { describe, expect, test } from "bun:test";
import type { Reply } from "../support/server.ts";
import {
  column,
  newTopic,
  seqs,
  sharedServer,
  type Topic,
  timed,
  together,
  until,
} from "../support/topics.ts";

const server = sharedServer();

/** Long enough that a test would time out if the poll slept until its deadline. */
const LONG_MS = 20000;

/** Starts a poll and returns when it waits, with its answer still to come. Needs a topic nobody has read yet. */
async function waiting(
  topic: Topic,
  request: object,
): Promise<{ answered: Promise<{ ms: number; answer: Reply }> }> {
  const answered = timed(() => topic.diff(request));
  await until(
    () => topic.state(),
    ({ body }) => body.last_read_ts !== null,
  );
  return { answered };
}

describe("an append", () => {
  test("02.56 wakes the poll", async () => {
    const topic = await newTopic(server);
    await topic.append(1);
    const poll = await waiting(topic, { from_seq: 1, wait_ms: LONG_MS });
    await topic.append(2);
    const { answer } = await poll.answered;
    expect(answer.status).toBe(200);
    expect(column(answer, "data")).toStrictEqual([2]);
    expect(answer.body).toMatchObject({
      next_from_seq: 2,
      head_seq: 2,
      caught_up: true,
      tombstone: null,
      lag: 0,
    });
    expect(answer.body.performance.server_total_ms).toBeLessThan(1000);
  });

  test("02.56 on a topic without records, too", async () => {
    const topic = await newTopic(server);
    const poll = await waiting(topic, { wait_ms: LONG_MS });
    await topic.append(1);
    expect(seqs((await poll.answered).answer)).toStrictEqual([1]);
  });

  test("6.5 wakes every poll, each with the whole batch", async () => {
    const topic = await newTopic(server);
    const polls = together(20, () => topic.diff({ wait_ms: LONG_MS }));
    await until(
      () => topic.state(),
      ({ body }) => body.last_read_ts !== null,
    );
    await topic.append("a", "b", "c");
    for (const answer of await polls) expect(column(answer, "data")).toStrictEqual(["a", "b", "c"]);
  });

  test("6.5 is read under the poll's own limit, filter and members", async () => {
    const topic = await newTopic(server);
    const request = { wait_ms: LONG_MS, limit: 2, node: "me", include_tags: true, include_meta: false };
    const poll = await waiting(topic, request);
    await topic.write({
      records: [
        { data: 1, node: "me" },
        { data: 2, tag: "t", meta: 1 },
        { data: 3, tag: "t" },
        { data: 4, tag: "t" },
      ],
    });
    const { answer } = await poll.answered;
    const $ts = expect.any(Number);
    expect(answer.body.records).toStrictEqual([
      { $seq: 2, $ts, $tag: "t", data: 2 },
      { $seq: 3, $ts, $tag: "t", data: 3 },
    ]);
    expect(answer.body).toMatchObject({ next_from_seq: 3, caught_up: false, lag: 1 });
  });

  test("02.57 of the poll's own node answers with no record and a cursor that moved", async () => {
    const topic = await newTopic(server);
    const poll = await waiting(topic, { wait_ms: LONG_MS, node: "me" });
    await topic.write({ node: "me", records: [{ data: 1 }, { data: 2 }] });
    const { answer } = await poll.answered;
    expect(answer.body).toMatchObject({
      records: [],
      next_from_seq: 2,
      head_seq: 2,
      caught_up: true,
      lag: 0,
    });
  });

  test("6.5 that evicts itself answers with the tombstone", async () => {
    const topic = await newTopic(server, { cap_bytes: 3 });
    const poll = await waiting(topic, { wait_ms: LONG_MS });
    await topic.append("too large");
    const { answer } = await poll.answered;
    expect(answer.body).toMatchObject({
      records: [],
      next_from_seq: 1,
      tombstone: { reason: "cap", gap_to: 1 },
    });
  });

  test("02 section 9.7: is never missed, whenever the poll starts", async () => {
    const topic = await newTopic(server);
    for (let round = 0; round < 40; round++) {
      const request = { from_seq: round, wait_ms: LONG_MS };
      const calls = [() => topic.diff(request), () => topic.append(round), () => topic.diff(request)];
      const [before, , after] = await Promise.all(calls.map((call) => call()));
      expect(seqs(before!)).toStrictEqual([round + 1]);
      expect(seqs(after!)).toStrictEqual([round + 1]);
    }
  });
});

describe("something to tell at once", () => {
  const cases: [string, object, number[]][] = [
    ["a backlog", { from_seq: 3 }, [4]],
    ["a tombstone", { from_seq: 0, node: "me" }, []],
    ["a tombstone with records", { from_seq: 0 }, [3, 4]],
    ["a cursor above the head", { from_seq: 5, node: "me" }, []],
  ];

  test.each(cases)("02.57 %s is not waited for", async (_, request, expected) => {
    const topic = await newTopic(server, { cap_records: 2 });
    await topic.write({ node: "me", records: [1, 2, 3, 4].map((data) => ({ data })) });
    const { ms, answer } = await timed(() => topic.diff({ ...request, wait_ms: LONG_MS }));
    expect(seqs(answer)).toStrictEqual(expected);
    expect(ms).toBeLessThan(LONG_MS / 4);
  });

  test("6.5 an absent topic is 404 at once", async () => {
    const topic = await newTopic(server);
    await topic.drop();
    expect((await topic.diff({ wait_ms: LONG_MS })).status).toBe(404);
  });

  test("6.1 wait_ms 0 does not wait", async () => {
    const topic = await newTopic(server);
    expect((await topic.diff({ wait_ms: 0 })).body).toMatchObject({ records: [], caught_up: true });
  });
});

describe("no append", () => {
  const waitMs = 400;

  test("02.56 the poll ends after wait_ms, empty and caught up; its wait is not the server's time", async () => {
    const topic = await newTopic(server);
    await topic.append(1);
    const { ms, answer } = await timed(() => topic.diff({ from_seq: 1, wait_ms: waitMs }));
    expect(answer.status).toBe(200);
    expect(answer.body).toMatchObject({
      records: [],
      next_from_seq: 1,
      head_seq: 1,
      caught_up: true,
      lag: 0,
    });
    expect(ms).toBeGreaterThanOrEqual(waitMs - 20);
    expect(ms).toBeLessThan(waitMs + 2000);
    expect(answer.body.performance.server_total_ms).toBeLessThan(waitMs / 2);
  });

  const events: [string, (topic: Topic) => Promise<unknown>][] = [
    ["a delete of records", (topic) => topic.erase({ before_seq: 3 })],
    ["a PUT", (topic) => topic.put({ cap_records: 1 })],
    ["a state read", (topic) => topic.state()],
    ["a refused write", (topic) => topic.write({ records: [{}] })],
    ["a deduped write", (topic) => topic.write({ records: [{ data: 1 }], idempotency_key: "k" })],
    ["an append elsewhere", async () => (await newTopic(server)).append(1)],
    ["expiry", (topic) => topic.put({ ttl_ms: 1 })],
  ];

  test.each(events)("6.5 %s does not wake it", async (_, event) => {
    const topic = await newTopic(server);
    await topic.write({ records: [{ data: 1 }, { data: 2 }], idempotency_key: "k" });
    const poll = await waiting(topic, { from_seq: 2, wait_ms: waitMs });
    await event(topic);
    const { ms, answer } = await poll.answered;
    expect(answer.body).toMatchObject({ records: [], next_from_seq: 2, caught_up: true, tombstone: null });
    expect(ms).toBeGreaterThanOrEqual(waitMs - 20);
  });

  // Half a minute of waiting: run with TOPICS_TEST_SLOW=1.
  test.skipIf(process.env.TOPICS_TEST_SLOW !== "1")(
    "02.56 wait_ms 60000 ends after 30 s",
    async () => {
      const topic = await newTopic(server);
      const { ms, answer } = await timed(() => topic.diff({ wait_ms: 60000 }));
      expect(answer.body).toMatchObject({ records: [], caught_up: true });
      expect(ms).toBeGreaterThanOrEqual(29900);
      expect(ms).toBeLessThan(35000);
    },
    60000,
  );
});

describe("02 section 9.7: the end of the topic wakes the poll", () => {
  test("deleted: there is no such topic", async () => {
    const topic = await newTopic(server);
    await topic.append(1);
    const poll = await waiting(topic, { from_seq: 1, wait_ms: LONG_MS });
    await topic.drop();
    const { ms, answer } = await poll.answered;
    expect(answer).toMatchObject({ status: 404, body: { error: { code: "topic_not_found" } } });
    expect(ms).toBeLessThan(LONG_MS / 4);
  });

  test.each([0, 1])("recreated: a poll from %d does not show the old topic", async (from_seq) => {
    const topic = await newTopic(server);
    if (from_seq > 0) await topic.append(1);
    const { epoch } = (await topic.state()).body;
    const poll = await waiting(topic, { from_seq, epoch, wait_ms: LONG_MS });
    await Promise.all([topic.drop(), topic.put()]);
    const { ms, answer } = await poll.answered;
    if (answer.status === 200) {
      expect(answer.body.epoch).not.toBe(epoch);
      expect(answer.body.tombstone).toMatchObject({ reason: "recreated" });
    } else expect(answer).toMatchObject({ status: 404, body: { error: { code: "topic_not_found" } } });
    expect(ms).toBeLessThan(LONG_MS / 4);
  });

  test("all polls of the topic", async () => {
    const topic = await newTopic(server);
    const polls = together(10, () => topic.diff({ wait_ms: LONG_MS }));
    await until(
      () => topic.state(),
      ({ body }) => body.last_read_ts !== null,
    );
    await topic.drop();
    for (const answer of await polls) expect(answer.status).toBe(404);
  });
});
