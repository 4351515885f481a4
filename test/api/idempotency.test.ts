/** Idempotency keys: one key, one append. */
import { describe, expect, test } from "bun:test";
import { startServer } from "../support/server.ts";
import { absentTopic, column, newTopic, sharedServer, type Topic, together } from "../support/topics.ts";

const server = sharedServer();

const records = (...values: unknown[]) => values.map((data) => ({ data }));
const keyed = (topic: Topic, key: string, ...values: unknown[]) =>
  topic.write({ records: records(...values), idempotency_key: key });
const withHeader = (topic: Topic, key: string) => ({
  write: (body: unknown) => topic.write(body, "", { "idempotency-key": key }),
});

describe("a hit", () => {
  test("02.31 repeats the first answer and appends nothing, whatever the payload", async () => {
    const topic = await newTopic(server);
    await topic.append(0);
    const first = await keyed(topic, "b-17", 1, 2);
    await topic.append(3);
    const same = await keyed(topic, "b-17", 1, 2);
    const other = await keyed(topic, "b-17", "other", "payload", "of", "four");
    for (const hit of [same, other]) {
      expect(hit.status).toBe(200);
      expect(hit.body).toStrictEqual({
        ...first.body,
        deduped: true,
        created: false,
        performance: { server_total_ms: expect.any(Number) },
      });
      expect(hit.body).toMatchObject({ first_seq: 2, last_seq: 3, seqs: [2, 3], head_seq: 3, count: 2 });
    }
    expect(column(await topic.diff(), "data")).toStrictEqual([0, 1, 2, 3]);
  });

  test("02.31 of a creating write is no creation", async () => {
    const topic = absentTopic(server);
    const first = await keyed(topic, "k", 1);
    const again = await keyed(topic, "k", 1);
    expect(first).toMatchObject({ status: 201, body: { created: true, deduped: false } });
    expect(again).toMatchObject({ status: 200, body: { created: false, deduped: true, first_seq: 1 } });
  });

  test("02.31 leaves out seqs when asked to", async () => {
    const topic = await newTopic(server);
    const body = { records: records(1, 2), idempotency_key: "k" };
    await topic.write(body, "?return_seqs=false");
    const short = await topic.write(body, "?return_seqs=false");
    const long = await topic.write(body);
    expect(short.body).toMatchObject({ deduped: true, first_seq: 1, last_seq: 2 });
    expect(short.body).not.toHaveProperty("seqs");
    expect(long.body.seqs).toStrictEqual([1, 2]);
  });

  test("5.3 stays one when the records are deleted or evicted", async () => {
    const topic = await newTopic(server, { cap_records: 2 });
    await keyed(topic, "evicted", 1);
    await topic.append(2, 3);
    await keyed(topic, "deleted", 4);
    await topic.erase({ before_seq: 5 });
    expect((await keyed(topic, "evicted", 1)).body).toMatchObject({ deduped: true, seqs: [1] });
    expect((await keyed(topic, "deleted", 1)).body).toMatchObject({ deduped: true, seqs: [4] });
    expect((await topic.state()).body).toMatchObject({ count: 0, head_seq: 4 });
  });
});

describe("keys", () => {
  test("02.32 header and body keys share one space, and the body's wins", async () => {
    const topic = await newTopic(server);
    await withHeader(topic, "k").write({ records: records(1) });
    const fromBody = await keyed(topic, "k", 2);
    const fromHeader = await withHeader(topic, "k").write({ records: records(2), idempotency_key: null });
    const bodyWins = await withHeader(topic, "k").write({ records: records(2), idempotency_key: "other" });
    const remembered = await keyed(topic, "other", 3);
    expect(fromBody.body).toMatchObject({ deduped: true, seqs: [1] });
    expect(fromHeader.body).toMatchObject({ deduped: true, seqs: [1] });
    expect(bodyWins.body).toMatchObject({ deduped: false, seqs: [2] });
    expect(remembered.body).toMatchObject({ deduped: true, seqs: [2] });
  });

  const raw = (topic: Topic, key: string) =>
    fetch(server.url + topic.path, {
      method: "POST",
      headers: { "content-type": "application/json", "idempotency-key": key },
      body: JSON.stringify({ records: records(1) }),
    }).then((response) => response.json() as Promise<{ deduped: boolean }>);

  test("02.32 the empty key is a key, in the body and in the header", async () => {
    const topic = await newTopic(server);
    expect((await keyed(topic, "", 1)).body.deduped).toBe(false);
    expect((await keyed(topic, "", 1)).body.deduped).toBe(true);
    expect(await raw(topic, "")).toMatchObject({ deduped: true });
  });

  test("5.1 a header that is not ASCII is no key", async () => {
    const topic = await newTopic(server);
    expect(await raw(topic, "clé")).toMatchObject({ deduped: false });
    expect(await raw(topic, "clé")).toMatchObject({ deduped: false });
  });

  test("5.3 without a key, and with null, nothing is deduped", async () => {
    const topic = await newTopic(server);
    for (const idempotency_key of [undefined, null, undefined, null]) {
      const reply = await topic.write({ records: records(1), idempotency_key });
      expect(reply.body.deduped).toBe(false);
    }
  });

  test.each([
    ["256 characters", "x".repeat(256), 200],
    ["257 characters", "x".repeat(257), 400],
    ["128 two-byte characters", "é".repeat(128), 200],
    ["129 two-byte characters", "é".repeat(129), 400],
    ["64 emoji", "😀".repeat(64), 200],
    ["65 emoji", "😀".repeat(65), 400],
  ])("02.32 a key of %s", async (_, key, status) => {
    const topic = await newTopic(server);
    const reply = await keyed(topic, key, 1);
    expect(reply.status).toBe(status);
    if (status === 400)
      expect(reply.body.error).toStrictEqual({ code: "invalid_request", message: expect.anything() });
    else expect((await keyed(topic, key, 1)).body.deduped).toBe(true);
  });

  test("02.32 a header of 257 bytes is refused, one of 256 is not", async () => {
    const topic = await newTopic(server);
    const long = await withHeader(topic, "x".repeat(257)).write({ records: records(1) });
    const fits = await withHeader(topic, "x".repeat(256)).write({ records: records(1) });
    expect(long).toMatchObject({ status: 400, body: { error: { code: "invalid_request" } } });
    expect(fits.body.deduped).toBe(false);
    expect((await keyed(topic, "x".repeat(256), 1)).body.deduped).toBe(true);
  });

  test("5.3 keys are compared byte for byte", async () => {
    const topic = await newTopic(server);
    const keys = ["a", "A", "a ", " a", "a\0", "a\0b", "é", "e\u0301", "1", "01", "*", "%"];
    for (const key of keys) expect((await keyed(topic, key, key)).body.deduped).toBe(false);
    for (const [i, key] of keys.entries()) {
      expect((await keyed(topic, key, key)).body).toMatchObject({ deduped: true, seqs: [i + 1] });
    }
  });

  test("02.34 a key belongs to one topic, and to one life of it", async () => {
    const topic = await newTopic(server);
    const other = await newTopic(server);
    await keyed(topic, "k", 1);
    expect((await keyed(other, "k", 1)).body.deduped).toBe(false);
    await topic.drop();
    expect(await keyed(topic, "k", 1)).toMatchObject({ status: 201, body: { deduped: false, seqs: [1] } });
    expect((await keyed(other, "k", 1)).body.deduped).toBe(true);
  });
});

describe("the window", () => {
  test("02.33 ends a fixed time after the first write; hits do not extend it", async () => {
    const topic = await newTopic(server, { idempotency_window_ms: 500 });
    await keyed(topic, "k", 1);
    await Bun.sleep(250);
    expect((await keyed(topic, "k", 1)).body).toMatchObject({ deduped: true, seqs: [1] });
    await Bun.sleep(350);
    expect((await keyed(topic, "k", 1)).body).toMatchObject({ deduped: false, seqs: [2] });
    expect((await keyed(topic, "k", 1)).body).toMatchObject({ deduped: true, seqs: [2] });
  });

  test("5.3 is the current config's: widening revives a key that no keyed write has pruned", async () => {
    const topic = await newTopic(server, { idempotency_window_ms: 30 });
    await keyed(topic, "k", 1);
    await Bun.sleep(80);
    await topic.append(2);
    await topic.put({ idempotency_window_ms: 60000 });
    expect((await keyed(topic, "k", 1)).body).toMatchObject({ deduped: true, seqs: [1] });
  });

  test("5.3 every keyed write prunes the keys that are out of it", async () => {
    const topic = await newTopic(server, { idempotency_window_ms: 30 });
    await keyed(topic, "k", 1);
    await Bun.sleep(80);
    await keyed(topic, "other", 2);
    await topic.put({ idempotency_window_ms: 60000 });
    expect((await keyed(topic, "k", 1)).body).toMatchObject({ deduped: false, seqs: [3] });
  });

  test("5.3 narrowing applies to keys already used", async () => {
    const topic = await newTopic(server);
    await keyed(topic, "k", 1);
    await topic.put({ idempotency_window_ms: 30 });
    await Bun.sleep(80);
    expect((await keyed(topic, "k", 1)).body.deduped).toBe(false);
  });
});

describe("with other rules", () => {
  test("02.35 of twelve concurrent writes one appends, the others wait and repeat its answer", async () => {
    const topic = await newTopic(server);
    const replies = await together(12, (i) => keyed(topic, "k", i, i));
    const hits = replies.filter(({ body }) => body.deduped);
    expect(replies.every(({ status }) => status === 200)).toBe(true);
    expect(hits).toHaveLength(11);
    for (const { body } of replies)
      expect(body).toMatchObject({ first_seq: 1, last_seq: 2, head_seq: 2, count: 2 });
    expect((await topic.state()).body).toMatchObject({ count: 2, head_seq: 2 });
  });

  test("02.35 concurrent creating writes too", async () => {
    const topic = absentTopic(server);
    const replies = await together(12, () => keyed(topic, "k", 1));
    expect(replies.filter(({ body }) => !body.deduped)).toHaveLength(1);
    expect(replies.filter(({ body }) => body.created)).toHaveLength(1);
    expect((await topic.state()).body.head_seq).toBe(1);
  });

  test("02.36 a used key does not excuse an invalid request", async () => {
    const topic = await newTopic(server);
    await keyed(topic, "k", 1);
    expect((await topic.write({ records: [{}], idempotency_key: "k" })).status).toBe(400);
    expect((await topic.write({ records: [], idempotency_key: "k" })).status).toBe(400);
    expect((await topic.state()).body.head_seq).toBe(1);
  });

  test("02.36 a refused write leaves its key unused", async () => {
    const topic = await newTopic(server, { cap_records: 1, discard: "reject" });
    await topic.append(1);
    expect((await keyed(topic, "k", 2)).status).toBe(422);
    await topic.erase({ before_seq: 2 });
    expect(await keyed(topic, "k", 2)).toMatchObject({ status: 200, body: { deduped: false, seqs: [2] } });
  });

  test("02.36 a hit on a full topic is a hit", async () => {
    const topic = await newTopic(server, { cap_records: 1, discard: "reject" });
    await keyed(topic, "k", 1);
    expect((await topic.write({ records: records(2) })).status).toBe(422);
    expect(await keyed(topic, "k", 1)).toMatchObject({ status: 200, body: { deduped: true, seqs: [1] } });
  });

  test("5.3 a hit is a hit when its batch no longer fits the cap, or the quota", async () => {
    await using own = await startServer({ TOPICS_MAX_TOTAL_BYTES: "4" });
    const topic = await newTopic(own, { cap_bytes: 4, discard: "reject" });
    await keyed(topic, "k", 12, 34);
    expect(await keyed(topic, "k", 12345)).toMatchObject({ status: 200, body: { deduped: true } });
    expect((await keyed(topic, "other", 12345)).status).toBe(400);
    await topic.put({});
    expect((await keyed(topic, "other", 5)).status).toBe(429);
    expect(await keyed(topic, "k", 5)).toMatchObject({ status: 200, body: { deduped: true, seqs: [1, 2] } });
  });
});
