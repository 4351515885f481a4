/** `epoch`: the number of a topic's life, and how a reader with an old one learns of the new. */
import { describe, expect, test } from "bun:test";
import { absentTopic, newTopic, seqs, sharedServer, type Topic, timed } from "../support/topics.ts";

const server = sharedServer();

const epochOf = async (topic: Topic): Promise<number> => (await topic.state()).body.epoch;

async function recreated(values: unknown[], again: unknown[]) {
  const topic = await newTopic(server);
  if (values.length > 0) await topic.append(...values);
  const old = await epochOf(topic);
  await topic.drop();
  await topic.put();
  if (again.length > 0) await topic.append(...again);
  return { topic, old };
}

describe("P5 the number", () => {
  test("is one integer in PUT, GET, write and diff, for the whole life of a topic", async () => {
    const topic = absentTopic(server);
    const write = { records: [{ data: 1 }], idempotency_key: "k" };
    const replies = [
      await topic.put(),
      await topic.state(),
      await topic.write(write),
      await topic.write(write),
      await topic.write({ records: [{ data: 2 }] }, "?return_seqs=false"),
      await topic.diff(),
      await topic.put({ cap_records: 1 }),
      await server.send("GET", topic.path),
    ];
    const [first, ...rest] = replies.map(({ body }) => body.epoch);
    expect(Number.isSafeInteger(first)).toBe(true);
    expect(rest).toStrictEqual(Array(rest.length).fill(first));
  });

  test("is the same for a topic that a write created", async () => {
    const topic = absentTopic(server);
    const { body } = await topic.append(1);
    expect(Number.isSafeInteger(body.epoch)).toBe(true);
    expect(await epochOf(topic)).toBe(body.epoch);
  });

  test("differs in every life of a name", async () => {
    const topic = absentTopic(server);
    const epochs: number[] = [];
    for (let life = 0; life < 5; life++) {
      epochs.push((await topic.append(1)).body.epoch);
      await topic.drop();
    }
    expect(new Set(epochs).size).toBe(5);
  });
});

describe("P5 a diff that names the epoch", () => {
  test("reads as always while it is the live one", async () => {
    const topic = await newTopic(server);
    await topic.append(1, 2, 3);
    const epoch = await epochOf(topic);
    for (const from_seq of [0, 1, 3]) {
      const plain = await topic.diff({ from_seq });
      const named = await topic.diff({ from_seq, epoch });
      expect({ ...named.body, performance: 0 }).toStrictEqual({ ...plain.body, performance: 0 });
      expect(named.body.tombstone).toBeNull();
    }
  });

  test.each([
    ["below the new head", 2],
    ["at the new head", 3],
    ["above the new head", 9],
    ["at 0", 0],
  ])("P5 is told of a recreation, its cursor %s, and starts over", async (_, from_seq) => {
    const { topic, old } = await recreated([1, 2], ["a", "b", "c"]);
    const reply = await topic.diff({ from_seq, epoch: old });
    expect(reply.body.epoch).not.toBe(old);
    expect(reply.body.tombstone).toStrictEqual({
      gap_from: 1,
      gap_to: 3,
      reason: "recreated",
      missed_estimate: 3,
      earliest_seq: 1,
      head_seq: 3,
    });
    expect(seqs(reply)).toStrictEqual([1, 2, 3]);
    expect(reply.body).toMatchObject({ next_from_seq: 3, caught_up: true });
  });

  test("is told on an empty new topic too", async () => {
    const { topic, old } = await recreated([1, 2], []);
    expect((await topic.diff({ from_seq: 0, epoch: old })).body).toMatchObject({
      records: [],
      next_from_seq: 0,
      tombstone: {
        gap_from: 1,
        gap_to: 0,
        reason: "recreated",
        missed_estimate: 1,
        earliest_seq: 1,
        head_seq: 0,
      },
    });
  });

  test("starts over behind the new topic's own losses", async () => {
    const { topic, old } = await recreated([1], [1, 2, 3, 4]);
    await topic.put({ cap_records: 2 });
    const reply = await topic.diff({ from_seq: 4, epoch: old });
    expect(reply.body.tombstone).toMatchObject({
      reason: "recreated",
      gap_from: 1,
      gap_to: 4,
      earliest_seq: 3,
    });
    expect(seqs(reply)).toStrictEqual([3, 4]);
  });

  test("does not wait when it has something to tell", async () => {
    const { topic, old } = await recreated([1], [1]);
    const { ms, answer } = await timed(() => topic.diff({ from_seq: 1, epoch: old, wait_ms: 10000 }));
    expect(answer.body.tombstone).toMatchObject({ reason: "recreated" });
    expect(ms).toBeLessThan(5000);
  });

  test("is told of a number that never was", async () => {
    const topic = await newTopic(server);
    await topic.append(1);
    const epoch = (await epochOf(topic)) + 1000;
    expect((await topic.diff({ from_seq: 1, epoch })).body.tombstone).toMatchObject({ reason: "recreated" });
  });

  test.each(['"1"', "1.5", "true", "{}"])("P5 the epoch %s is refused", async (epoch) => {
    const topic = await newTopic(server);
    const reply = await topic.diff(`{"epoch":${epoch}}`);
    expect(reply).toMatchObject({ status: 400, body: { error: { code: "invalid_request" } } });
  });
});
