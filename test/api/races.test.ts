/** Concurrent changes of one topic: one wins, and nobody sees a mixture. */
import { describe, expect, test } from "bun:test";
import {
  absentTopic,
  column,
  newTopic,
  seqs,
  sharedServer,
  type Topic,
  together,
} from "../support/topics.ts";

const server = sharedServer();

describe("02 section 9.8: concurrent changes of one topic", () => {
  test("exactly one of many PUTs creates", async () => {
    const topic = absentTopic(server);
    const replies = await together(16, () => topic.put({ cap_records: 3 }));
    expect(replies.map(({ status }) => status).sort()).toStrictEqual([...Array(15).fill(200), 201]);
    expect(replies.filter(({ body }) => body.created)).toHaveLength(1);
  });

  test("exactly one of many creating writes creates", async () => {
    const topic = absentTopic(server);
    const replies = await together(16, () => topic.write({ records: [{ data: 1 }] }));
    expect(replies.filter(({ status, body }) => status === 201 && body.created)).toHaveLength(1);
    expect(replies.map(({ body }) => body.first_seq).sort((a, b) => a - b)).toStrictEqual(
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
    expect(given).toStrictEqual(Array.from({ length: 120 }, (_, i) => i + 1));
    expect(seqs(stored)).toStrictEqual(given);
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
      if (write.status === 200) expect([drop.status, state.body.count]).toStrictEqual([409, 1]);
      else expect([write.status, drop.status, state.status]).toStrictEqual([404, 200, 404]);
    }
  });
});

describe("beside a long read", () => {
  // Enough records of the reader's own that the server has to walk for a while.
  const own = { node: "me", records: Array.from({ length: 10000 }, (_, data) => ({ data })) };

  const losses: [string, (topic: Topic) => Promise<unknown>][] = [
    ["a PUT", (topic) => topic.put({ cap_records: 1 })],
    ["a write", (topic) => topic.write({ records: own.records }, "?return_seqs=false")],
  ];

  test.each(losses)("6.4 %s that evicts: the reader gets the records or the tombstone", async (_, evict) => {
    const answers: string[] = [];
    for (let round = 0; round < 6; round++) {
      const topic = await newTopic(server, { cap_records: 10010 });
      await topic.write(own, "?return_seqs=false");
      await topic.append(...Array(10).fill("other"));
      const reads = together(4, () => topic.diff({ node: "me", limit: 10 }));
      for (let pause = 0; pause < round; pause++) await topic.state();
      await evict(topic);
      for (const { body } of await reads) {
        const whole = body.tombstone === null && body.records.length === 10 && body.records[0].$seq === 10001;
        answers.push(whole ? "whole" : (body.tombstone?.reason ?? "silent"));
      }
    }
    expect(answers.filter((answer) => answer !== "whole")).toStrictEqual(
      answers.filter((answer) => answer === "cap"),
    );
  });

  test("02 section 9.7 an append: a poll does not sleep through it", async () => {
    for (let round = 0; round < 6; round++) {
      const topic = await newTopic(server);
      await topic.write(own, "?return_seqs=false");
      const polls = together(4, () => topic.diff({ node: "me", limit: 10, wait_ms: 20000 }));
      for (let pause = 0; pause < round; pause++) await topic.state();
      await topic.append("other");
      for (const reply of await polls) expect(column(reply, "data")).toStrictEqual(["other"]);
    }
  });

  test("6.5 a DELETE: the reader gets all of the old topic, or of the new one, or a 404", async () => {
    for (let round = 0; round < 6; round++) {
      const topic = await newTopic(server);
      await topic.write(own, "?return_seqs=false");
      const { epoch } = (await topic.append(...Array(10).fill("old"))).body;
      const reads = together(4, () => topic.diff({ node: "me", limit: 10 }));
      for (let pause = 0; pause < round; pause++) await topic.state();
      await topic.drop();
      await topic.append(...Array(10).fill("new"));
      for (const reply of await reads) {
        if (reply.status === 200) {
          const value = reply.body.epoch === epoch ? "old" : "new";
          expect(column(reply, "data")).toStrictEqual(Array(10).fill(value));
        } else expect(reply.status).toBe(404);
      }
    }
  });
});

describe("beside a list", () => {
  test("4.4 topics that expire and go: the list leaves them out", async () => {
    const topics = await together(20, () => newTopic(server, { ttl_ms: 1 }));
    await together(20, (i) => topics[i]!.append(1));
    await Bun.sleep(10);
    const replies = await Promise.all(
      topics.flatMap((topic) => [topic.drop(), server.send("GET", "/v0/topics?page_size=1000")]),
    );
    expect(replies.map(({ status }) => status)).toStrictEqual(Array(40).fill(200));
  });
});
