/** Concurrent changes of one topic: one wins, and nobody sees a mixture. */
import { describe, expect, test } from "bun:test";
import { absentTopic, newTopic, seqs, sharedServer, together } from "../support/topics.ts";

const server = sharedServer();

describe("02 section 9.8: concurrent changes of one topic", () => {
  test("exactly one of many PUTs creates", async () => {
    const topic = absentTopic(server);
    const replies = await together(16, () => topic.put({ cap_records: 3 }));
    expect(replies.map(({ status }) => status).sort()).toEqual([...Array(15).fill(200), 201]);
    expect(replies.filter(({ body }) => body.created)).toHaveLength(1);
  });

  test("exactly one of many creating writes creates", async () => {
    const topic = absentTopic(server);
    const replies = await together(16, () => topic.write({ records: [{ data: 1 }] }));
    expect(replies.filter(({ status, body }) => status === 201 && body.created)).toHaveLength(1);
    expect(replies.map(({ body }) => body.first_seq).sort((a, b) => a - b)).toEqual(
      Array.from({ length: 16 }, (_, i) => i + 1),
    );
  });

  test("of PUTs with different types, only those of the winner's type succeed", async () => {
    const topic = absentTopic(server);
    const types = ["log", "queue"];
    const replies = await together(16, (i) => topic.put({ type: types[i % 2] }));
    const { type } = (await topic.state()).body;
    for (const [i, reply] of replies.entries()) {
      expect([200, 201].includes(reply.status)).toBe(types[i % 2] === type);
      if (types[i % 2] !== type) expect(reply.body.error.code).toBe("topic_exists_incompatible");
    }
    expect(replies.filter(({ status }) => status === 201)).toHaveLength(1);
  });

  test("exactly one of many DELETEs deletes", async () => {
    const topic = await newTopic(server);
    await topic.append(1);
    const replies = await together(16, () => topic.drop());
    expect(replies.every(({ status }) => status === 200)).toBe(true);
    expect(replies.filter(({ body }) => body.deleted)).toHaveLength(1);
  });

  test("a state read during writes shows one moment", async () => {
    const topic = await newTopic(server);
    const writes = together(40, () => topic.append(1, 2, 3));
    const states = await together(60, () => topic.state());
    await writes;
    for (const { body } of states) {
      expect(body).toMatchObject({ count: body.head_seq, bytes: body.head_seq, next_seq: body.head_seq + 1 });
      expect(body.head_seq % 3).toBe(0);
    }
  });
});

describe("concurrent writes, deletes and topic deletes", () => {
  test("every acknowledged write has its own seqs", async () => {
    const topic = await newTopic(server);
    const replies = await together(60, (i) => topic.append(...Array((i % 3) + 1).fill(i)));
    const given = replies.flatMap(({ body }) => body.seqs).sort((a, b) => a - b);
    const stored = await topic.diff({ limit: 1000 });
    expect(given).toEqual(Array.from({ length: 120 }, (_, i) => i + 1));
    expect(seqs(stored)).toEqual(given);
    for (const [i, { body }] of replies.entries()) {
      for (const seq of body.seqs) expect(stored.body.records[seq - 1].data).toBe(i);
    }
  });

  test("concurrent deletes of the same records count each record once", async () => {
    const topic = await newTopic(server);
    await topic.write({ records: Array.from({ length: 30 }, (_, i) => ({ data: i, tag: "x" })) });
    const replies = await together(10, (i) => topic.erase(i % 2 ? { match: "x" } : { before_seq: 31 }));
    expect(replies.reduce((sum, { body }) => sum + body.deleted, 0)).toBe(30);
    for (const { body } of replies) expect(body).toMatchObject({ count: 0, bytes: 0, earliest_seq: 31 });
  });

  test("a delete never touches what is written after it", async () => {
    const topic = await newTopic(server);
    const calls = await together(40, (i) =>
      i % 4 === 3 ? topic.erase({ before_seq: 1000 }) : topic.write({ records: [{ data: i, tag: "x" }] }),
    );
    const { body } = await topic.state();
    const deleted = calls.reduce((sum, reply) => sum + (reply.body.deleted ?? 0), 0);
    expect(body.head_seq).toBe(30);
    expect(body.count).toBe(30 - deleted);
    expect(seqs(await topic.diff())).toHaveLength(body.count);
  });

  test("writes during PUT and DELETE of their topic end up in one of its lives, or are refused", async () => {
    const topic = await newTopic(server);
    const replies = await together(60, (i) => {
      if (i % 10 === 4) return topic.drop();
      if (i % 10 === 9) return topic.put();
      return topic.write({ records: [{ data: i }], create: false });
    });
    const live = (await topic.put()).body.epoch;
    const written = replies.filter(({ status, body }) => status === 200 && body.epoch === live && body.seqs);
    for (const { status } of replies) expect([200, 201, 404]).toContain(status);
    expect((await topic.state()).body).toMatchObject({ count: written.length, head_seq: written.length });
  });

  test("if_empty never deletes a topic together with a record", async () => {
    for (let round = 0; round < 20; round++) {
      const topic = await newTopic(server);
      const [write, drop] = await Promise.all([
        topic.write({ records: [{ data: 1 }], create: false }),
        topic.drop("?if_empty=true"),
      ]);
      const state = await topic.state();
      if (write.status === 200) expect([drop.status, state.body.count]).toEqual([409, 1]);
      else expect([write.status, drop.status, state.status]).toEqual([404, 200, 404]);
    }
  });
});
