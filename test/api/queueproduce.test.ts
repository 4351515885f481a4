/** Jobs come as they were written: idempotent produce, exact payloads on claim and in dead letters. */
import { describe, expect, test } from "bun:test";
import {
  absentQueue,
  claimedTexts,
  filledQueue,
  makeQueue,
  type Queue,
  redeliver,
  seqsOf,
} from "../support/queue.ts";
import { elements, members, payloads } from "../support/rawjson.ts";
import { absentTopic, newTopic, sharedServer, type Topic, together } from "../support/topics.ts";

const server = sharedServer();

describe("idempotent produce", () => {
  const job = (idempotency_key: string) => ({ records: [{ data: "job" }], idempotency_key });

  test("04.62 a retry after the ack is deduped and creates no job", async () => {
    const queue = await makeQueue(server);
    const first = await queue.write(job("k"));
    await queue.take(1);
    await queue.ack([1]);
    const again = await queue.write(job("k"));
    expect(first.body).toMatchObject({ deduped: false, first_seq: 1 });
    expect(again).toMatchObject({
      status: 200,
      body: { deduped: true, created: false, seqs: [1], head_seq: 1 },
    });
    expect((await queue.claim()).body).toMatchObject({ count: 0, ready: 0 });
    expect((await queue.state()).body).toMatchObject({ count: 0, head_seq: 1 });
  });

  test("04.62 a retry while the job waits, is leased, delayed or dead makes no second one", async () => {
    const dead = absentTopic(server);
    const queue = await makeQueue(server, { max_deliveries: 2, dead_letter: dead.name });
    const retry = async () => (await queue.write(job("k"))).body.deduped;
    const deduped = [await retry(), await retry()];
    await queue.take(1);
    deduped.push(await retry());
    await queue.nack([1], { delay_ms: 60000 });
    deduped.push(await retry());
    expect(await queue.counters()).toMatchObject({ count: 1, ready: 0, in_flight: 0 });
    expect(deduped).toEqual([false, true, true, true]);
    const other = await makeQueue(server, { max_deliveries: 1, dead_letter: dead.name });
    await other.write(job("k"));
    await redeliver(other, 2);
    expect((await other.write(job("k"))).body.deduped).toBe(true);
    expect(await other.counters()).toEqual({ count: 0, ready: 0, in_flight: 0, dead_lettered: 1 });
    expect((await dead.state()).body.count).toBe(1);
  });

  test("04.62 many retries at the same time make one job", async () => {
    const queue = await makeQueue(server);
    const replies = await together(10, () => queue.write(job("k")));
    expect(replies.filter(({ body }) => !body.deduped)).toHaveLength(1);
    expect(seqsOf(await queue.take(10))).toEqual([1]);
  });

  test("04.62 another key is another job", async () => {
    const queue = await makeQueue(server);
    await queue.write(job("a"));
    await queue.take(1);
    await queue.ack([1]);
    await queue.write(job("b"));
    expect(seqsOf(await queue.take(5))).toEqual([2]);
  });

  test("04.62 a retry on a queue that is full and rejects is deduped", async () => {
    const queue = await makeQueue(server, { cap_records: 1, discard: "reject" });
    await queue.write(job("k"));
    expect((await queue.write(job("k"))).body.deduped).toBe(true);
    expect((await queue.write(job("other"))).status).toBe(422);
  });

  test("2 the seqs of a refused write are not used, and its jobs are not there", async () => {
    const queue = await filledQueue(server, 1);
    expect((await queue.write({ records: [{ data: 2 }, {}] })).status).toBe(400);
    await queue.append(2);
    expect(seqsOf(await queue.take(5))).toEqual([1, 2]);
  });
});

const texts = [
  "null",
  "true",
  "0",
  "-0",
  "1.0",
  "1e3",
  "1E+3",
  "5e-324",
  "9007199254740993",
  "18446744073709551615",
  "18446744073709551616",
  "-9223372036854775808",
  "3.141592653589793238462643383279",
  '""',
  '"é"',
  '"\\u00e9"',
  '"\\/"',
  '"\\ud83d\\ude00"',
  '"\\u0000\\u001f"',
  '"\u2028\u007f"',
  '"\\"}],\\\\"',
  "[ ]",
  "{}",
  "[[],{}]",
  '{"b":1,"a":2}',
  '{"a":1,"a":2}',
  '{"":1,"__proto__":{"x":1.0},"10":1,"9":2}',
  '{ "b" : 1 , "a" : [1, 2] }',
  '{\n\t"a":\r\n [ 1 ,\t2 ]\n}',
  '{"lease_id":"lease_1","deliveries":9,"$seq":7,"data":1,"meta":2}',
];
const metas = texts.filter((text) => text !== "null");
const objects = metas.filter((text) => text.startsWith("{"));
const others = metas.filter((text) => !text.startsWith("{"));

const records = (parts: string[]) => `{"records":[${parts}]}`;

describe("P1 claim", () => {
  test.each(["ephemeral", "memory", "disk", "fsync"])(
    "04.12 data and meta of class %s come back byte for byte",
    async (durability) => {
      const queue = await makeQueue(server, { durability });
      await queue.write(records(texts.map((data) => `{"data":${data}}`)));
      await queue.write(records(metas.map((meta) => `{"meta":${meta},"data":0}`)));
      const first = await queue.claim({ max: texts.length });
      const second = await queue.claim({ max: metas.length });
      expect(claimedTexts(first, "data")).toStrictEqual(texts);
      expect(claimedTexts(first, "meta")).toStrictEqual(texts.map(() => undefined));
      expect(claimedTexts(second, "meta")).toStrictEqual(metas);
    },
  );

  test("04.12 every delivery is the same", async () => {
    const queue = await makeQueue(server);
    await queue.write(records(metas.map((text) => `{"data":${text},"meta":${text}}`)));
    await redeliver(queue, 2);
    const reply = await queue.claim({ max: 1000 });
    expect(claimedTexts(reply, "data")).toStrictEqual(metas);
    expect(claimedTexts(reply, "meta")).toStrictEqual(metas);
  });

  test("04.12 a long text with every kind of character comes back whole", async () => {
    const queue = await makeQueue(server);
    const data = JSON.stringify('aé😀"\\\n\u2028'.repeat(20000));
    await queue.write(records([`{"data":${data}}`, '{"data":1}']));
    expect((await queue.claim()).text).toContain(`:${data}`);
    expect(claimedTexts(await queue.claim(), "data")).toStrictEqual(["1"]);
  });

  test("04.12 a copy that a router made comes back byte for byte", async () => {
    const source = await newTopic(server);
    const queue = await makeQueue(server);
    const put = await server.send("PUT", `/v0/routers/r-${queue.name}`, {
      source: source.name,
      dest: queue.name,
    });
    expect(put.status).toBe(201);
    await source.write(records(metas.map((text) => `{"data":${text},"meta":${text}}`)));
    const reply = await queue.claim({ max: 1000 });
    expect(claimedTexts(reply, "data")).toStrictEqual(metas);
    expect(claimedTexts(reply, "meta")).toStrictEqual(metas);
  });

  test("04.12 the tag keeps every character", async () => {
    const queue = await makeQueue(server);
    const tags = ["", " ", "a\0b", '\u001f\n"\\/', "é", "😀", "\u2028", "\uffff", "*", '"}],['];
    await queue.write({ records: tags.map((tag) => ({ data: 0, tag })) });
    const claimed = await queue.take(100);
    expect(claimed.map(({ $tag }) => $tag)).toEqual(tags);
  });
});

describe("P1 dead letters", () => {
  const marks = ["$dead_letter", "$dead_letter_deliveries", "$dead_letter_from", "$dead_letter_src_seq"];

  interface Moved {
    readonly queue: Queue;
    readonly dead: Topic;
  }

  /** Writes the records into a queue and has all of them moved. */
  async function moved(parts: string[], into?: object): Promise<Moved> {
    const dead = absentTopic(server);
    if (into) await dead.put(into);
    const queue = await makeQueue(server, { max_deliveries: 1, dead_letter: dead.name });
    await queue.write(records(parts));
    await redeliver(queue, 2);
    return { queue, dead };
  }

  /** The texts of the `meta` of every dead letter. */
  const metaTexts = async (dead: Topic) =>
    payloads(await dead.diff({ limit: 1000 }), "meta").map((meta) => meta ?? "");

  /** The names of an object's members, each as often as it is there. */
  const keysOf = (object: string) => elements(object).map((member) => [...members(`{${member}}`).keys()][0]!);

  test("04.31 data comes back byte for byte", async () => {
    const { queue, dead } = await moved(texts.map((data) => `{"data":${data}}`));
    expect(payloads(await dead.diff({ limit: 1000 }), "data")).toStrictEqual(texts);
    expect((await queue.counters()).dead_lettered).toBe(texts.length);
  });

  test("04.31 data comes back byte for byte from a dead-letter queue", async () => {
    const { dead } = await moved(
      texts.map((data) => `{"data":${data}}`),
      { type: "queue" },
    );
    const reply = await absentQueue(server, dead.name).claim({ max: 1000 });
    expect(claimedTexts(reply, "data")).toStrictEqual(texts);
  });

  test("04.31 the own keys keep their order and the text of their values", async () => {
    const { dead } = await moved(objects.map((meta) => `{"data":0,"meta":${meta}}`));
    const found = await metaTexts(dead);
    for (const [i, meta] of found.entries()) {
      const own = members(objects[i]!);
      const kept = members(meta);
      for (const [key, value] of own) expect([key, kept.get(key)]).toEqual([key, value]);
      expect([...kept.keys()].filter((key) => !marks.includes(key))).toEqual([...own.keys()]);
      expect([...kept.keys()].filter((key) => marks.includes(key)).sort()).toEqual(marks);
    }
  });

  test("6 own keys of the marks' names are replaced, however spelled, and no key comes twice", async () => {
    const { queue, dead } = await moved([
      '{"data":0,"meta":{"$dead_letter_from":1.0,"a":1.0,"\\u0024dead_letter":2,' +
        '"$dead_letter_src_se\\u0071":3,"$dead_letter_deliveries":4,' +
        '"$dead_letter_deliveries":5,"b":{"$dead_letter_from":6.0}}}',
    ]);
    const [meta] = await metaTexts(dead);
    const kept = members(meta!);
    expect(keysOf(meta!).sort()).toEqual([...marks, "a", "b"]);
    expect([kept.get("a"), kept.get("b")]).toEqual(["1.0", '{"$dead_letter_from":6.0}']);
    expect(JSON.parse(kept.get("$dead_letter_from")!)).toBe(queue.name);
    expect(JSON.parse(kept.get("$dead_letter_src_seq")!)).toBe("1");
    expect(JSON.parse(kept.get("$dead_letter_deliveries")!)).toBe("1");
    expect(JSON.parse(kept.get("$dead_letter")!)).toMatchObject({ topic: queue.name, seq: 1, deliveries: 1 });
  });

  test("6 a meta that is no object is kept byte for byte inside $dead_letter", async () => {
    const { dead } = await moved(others.map((meta) => `{"data":0,"meta":${meta}}`));
    const kept = (await metaTexts(dead)).map((meta) =>
      members(members(meta).get("$dead_letter")!).get("meta"),
    );
    expect(kept).toStrictEqual(others);
  });

  test("P1 bytes counts the text of the record as it is read", async () => {
    const { dead } = await moved(['{"data":{ "a":1 },"meta":{"k":1.0 }}', '{"data":1e3}']);
    const reply = await dead.diff();
    const total = ["data", "meta"]
      .flatMap((member) => payloads(reply, member))
      .reduce((sum, text) => sum + Buffer.byteLength(text!), 0);
    expect((await dead.state()).body.bytes).toBe(total);
  });
});
