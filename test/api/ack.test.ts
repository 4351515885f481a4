/** `ack`, and what it shares with `nack` and `extend`: who may answer for a job, by which token, and how. */
import { describe, expect, test } from "bun:test";
import {
  absentQueue,
  filledQueue,
  type HolderCall,
  holderCalls,
  makeQueue,
  type Queue,
  range,
  redeliver,
  seqsOf,
  WORKER,
} from "../support/queue.ts";
import { defaults, newTopic, seqs, sharedServer, together } from "../support/topics.ts";

const server = sharedServer();

const invalid = { status: 400, body: { error: { code: "invalid_request" } } };
const number = expect.any(Number);

describe("ack", () => {
  test("5.3 the reply has exactly these members", async () => {
    const queue = await filledQueue(server, 5);
    await queue.take(3);
    const { status, body } = await queue.ack([1, 2, 5]);
    expect(status).toBe(200);
    expect(body).toStrictEqual({
      topic: queue.name,
      acked: 2,
      skipped: [5],
      ready: 2,
      in_flight: 1,
      performance: { server_total_ms: number },
    });
  });

  test("04.14 removes the job from diff, count and bytes, silently, and for ever", async () => {
    const queue = await makeQueue(server);
    await queue.append("a", "bb", "ccc", "dddd");
    await queue.take(3);
    expect((await queue.ack([2])).body.acked).toBe(1);
    const middle = await queue.diff();
    expect(seqs(middle)).toEqual([1, 3, 4]);
    expect(middle.body).toMatchObject({ tombstone: null, earliest_seq: 1, head_seq: 4 });
    expect((await queue.state()).body).toMatchObject({ count: 3, bytes: 14, earliest_seq: 1, head_seq: 4 });
    await queue.ack([1]);
    const front = await queue.diff();
    expect(front.body).toMatchObject({ tombstone: null, earliest_seq: 3, next_from_seq: 4, caught_up: true });
    expect((await queue.state()).body).toMatchObject({ count: 2, bytes: 11, earliest_seq: 3, next_seq: 5 });
    await queue.nack([3]);
    expect(seqsOf(await queue.take(9))).toEqual([3, 4]);
  });

  test("04.14 of the last job leaves an empty queue that goes on at the next seq", async () => {
    const queue = await filledQueue(server, 2);
    await queue.take(2);
    await queue.ack([2, 1]);
    expect((await queue.state()).body).toMatchObject({ count: 0, bytes: 0, head_seq: 2, earliest_seq: 3 });
    expect((await queue.claim()).body.count).toBe(0);
    expect((await queue.append("next")).body.first_seq).toBe(3);
    expect(await queue.take()).toMatchObject([{ $seq: 3, deliveries: 1 }]);
  });

  test("04.16 a second ack of the same job is skipped", async () => {
    const queue = await filledQueue(server, 2);
    const [job] = await queue.take(1);
    await queue.ack([1]);
    expect((await queue.ack([1])).body).toMatchObject({ acked: 0, skipped: [1], ready: 1, in_flight: 0 });
    const again = await queue.ack([1], { lease_ids: [job!.lease_id] });
    expect(again).toMatchObject({ status: 200, body: { acked: 0, skipped: [1] } });
    expect(await queue.counters()).toMatchObject({ count: 1, ready: 1, in_flight: 0 });
  });

  test("04.16 of many acks at the same time each job counts once", async () => {
    const queue = await filledQueue(server, 20);
    await queue.take(20);
    const replies = await together(12, () => queue.ack(range(1, 20)));
    expect(replies.reduce((sum, { body }) => sum + body.acked, 0)).toBe(20);
    for (const { body } of replies) expect(body.acked + body.skipped.length).toBe(20);
    expect(await queue.counters()).toEqual({ count: 0, ready: 0, in_flight: 0, dead_lettered: 0 });
  });

  test("04.16 an ack and a nack at the same time: one of them counts", async () => {
    for (let round = 0; round < 20; round++) {
      const queue = await filledQueue(server, 1);
      await queue.take(1);
      const [ack, nack] = await Promise.all([queue.ack([1]), queue.nack([1])]);
      expect(ack.body.acked + nack.body.nacked).toBe(1);
      expect((await queue.counters()).count).toBe(nack.body.nacked);
    }
  });

  test("5.1 1000 jobs in one call", async () => {
    const queue = await filledQueue(server, 1200);
    const claimed = await queue.take(1000);
    const reply = await queue.ack(seqsOf(claimed), { lease_ids: claimed.map(({ lease_id }) => lease_id) });
    expect(reply.body).toMatchObject({ acked: 1000, skipped: [], ready: 200, in_flight: 0 });
    expect(await queue.counters()).toMatchObject({ count: 200, ready: 200 });
  });

  test.each([
    ["fsync", true],
    ["disk", false],
    ["memory", false],
    ["ephemeral", false],
  ])("04.21 on class %s it tells fsync_ms: %s", async (durability, told) => {
    const queue = await filledQueue(server, 3, { durability });
    await queue.take(2);
    const { performance } = (await queue.ack([1])).body;
    expect(performance).toStrictEqual({ server_total_ms: number, ...(told ? { fsync_ms: number } : {}) });
    if (told) expect(performance.fsync_ms).toBeGreaterThan(0);
  });

  test("04.21 an ack that completes nothing waits for no sync, nor do nack and extend", async () => {
    const queue = await filledQueue(server, 3, { durability: "fsync" });
    await queue.take(2);
    const replies = [
      await queue.ack([3]),
      await queue.ack([]),
      await queue.ack([1], { node: "other" }),
      await queue.extend([1], 60000),
      await queue.nack([1]),
    ];
    for (const { body } of replies) expect(Object.keys(body.performance)).toEqual(["server_total_ms"]);
  });

  test("02 5.4 makes room in a queue that rejects, and under the quota", async () => {
    const queue = await filledQueue(server, 2, { cap_records: 2, discard: "reject" });
    await queue.take(1);
    expect((await queue.write({ records: [{ data: 3 }] })).status).toBe(422);
    await queue.ack([1]);
    expect((await queue.write({ records: [{ data: 3 }] })).status).toBe(200);
    expect(seqs(await queue.diff())).toEqual([2, 3]);
  });
});

/** A queue of five jobs: the first three leased to WORKER, the fourth to another node, the fifth waiting. */
async function partlyLeased(): Promise<Queue> {
  const queue = await filledQueue(server, 5);
  await queue.take(3);
  await queue.take(1, { node: "other" });
  return queue;
}

describe.each(holderCalls)("%s", (name, counted, fields) => {
  const call = (queue: Queue, request: object) => queue.call(name, { node: WORKER, ...fields, ...request });
  /** The request's text, for values that no JavaScript object holds. */
  const text = (members: string) =>
    `{"node":"${WORKER}"${name === "extend" ? ',"lease_ms":60000' : ""},${members}}`;

  test("04.15 skips what the node does not hold, in the order of the request", async () => {
    const queue = await partlyLeased();
    const reply = await call(queue, { seqs: [99, 5, 3, 4, 0, 1, 6] });
    expect(reply.status).toBe(200);
    expect(reply.body).toMatchObject({ [counted]: 2, skipped: [99, 5, 4, 0, 6] });
  });

  test("04.15 of a wrong node: everything, and nothing changes", async () => {
    const queue = await partlyLeased();
    const reply = await call(queue, { node: "nobody", seqs: [1, 2, 3, 4] });
    expect(reply.body).toMatchObject({ [counted]: 0, skipped: [1, 2, 3, 4] });
    expect(await queue.counters()).toEqual({ count: 5, ready: 1, in_flight: 4, dead_lettered: 0 });
    expect((await queue.ack([1, 2, 3])).body.acked).toBe(3);
  });

  test.each([
    ["another letter case", "worker", "Worker"],
    ["a blank more", "worker", "worker "],
    ["another spelling of é", "é", "e\u0301"],
    ["a longer name", "w", "w1"],
    ["a name cut at U+0000", "w\0a", "w"],
  ])("5.2 the node is compared byte for byte: %s", async (_, holder, other) => {
    const queue = await filledQueue(server, 1);
    await queue.take(1, { node: holder });
    expect((await call(queue, { node: other, seqs: [1] })).body).toMatchObject({
      [counted]: 0,
      skipped: [1],
    });
    expect((await call(queue, { node: holder, seqs: [1] })).body).toMatchObject({
      [counted]: 1,
      skipped: [],
    });
  });

  test("5.1 a node may be longer than any holder's", async () => {
    const queue = await partlyLeased();
    const reply = await call(queue, { node: "x".repeat(1000), seqs: [1] });
    expect(reply).toMatchObject({ status: 200, body: { [counted]: 0, skipped: [1] } });
  });

  test("04.17 no seqs is a call without effect", async () => {
    const empty = await makeQueue(server);
    const partly = await partlyLeased();
    const counters = name === "extend" ? {} : { ready: 0, in_flight: 0 };
    expect(await call(empty, { seqs: [] })).toMatchObject({
      status: 200,
      body: { topic: empty.name, [counted]: 0, skipped: [], ...counters },
    });
    expect((await call(partly, { seqs: [], lease_ids: [] })).body).toMatchObject({
      [counted]: 0,
      skipped: [],
    });
    expect(await partly.counters()).toMatchObject({ count: 5, ready: 1, in_flight: 4 });
  });

  test("04.17 01.27 1000 seqs pass, 1001 are batch_too_large", async () => {
    const queue = await partlyLeased();
    const passed = await call(queue, { seqs: range(1, 1000) });
    const refused = await call(queue, { seqs: range(1, 1001) });
    expect(passed.body[counted]).toBe(3);
    expect(passed.body.skipped).toEqual(range(4, 1000));
    expect(refused.status).toBe(400);
    expect(refused.body.error).toStrictEqual({
      code: "batch_too_large",
      message: expect.any(String),
      detail: { seqs: 1001, max: 1000 },
    });
  });

  test("04.17 01.27 too many seqs change nothing", async () => {
    const queue = await partlyLeased();
    await call(queue, { seqs: [...range(1, 1001), ...range(1, 4)] });
    expect(await queue.counters()).toMatchObject({ count: 5, ready: 1, in_flight: 4 });
    expect((await call(queue, { seqs: range(1, 5000) })).body.error.detail).toEqual({
      seqs: 5000,
      max: 1000,
    });
  });

  test.each([
    ["no seqs", '"x":1'],
    ["seqs null", '"seqs":null'],
    ["seqs a number", '"seqs":1'],
    ["seqs a string", '"seqs":"1"'],
    ["seqs an object", '"seqs":{"0":1}'],
    ["seqs twice", '"seqs":[1],"seqs":[1]'],
    ["a negative seq", '"seqs":[1,-1]'],
    ["a fractional seq", '"seqs":[1,1.5]'],
    ["a seq in quotes", '"seqs":["1"]'],
    ["a seq null", '"seqs":[1,null]'],
    ["a seq true", '"seqs":[true]'],
    ["a seq of 2^64", '"seqs":[18446744073709551616]'],
    ["a list for a seq", '"seqs":[[1]]'],
  ])("04.17 %s is refused, and nothing is done", async (_, members) => {
    const queue = await partlyLeased();
    expect(await queue.call(name, text(members))).toMatchObject(invalid);
    expect(await queue.counters()).toMatchObject({ count: 5, ready: 1, in_flight: 4 });
  });

  test("5.1 P7 seqs up to 2^64-1 are unknown seqs, and come back unrounded", async () => {
    const queue = await partlyLeased();
    const seqs = ["9007199254740991", "9007199254740992", "9007199254740993", "18446744073709551615"];
    const reply = await queue.call(name, text(`"seqs":[${seqs.join()},1]`));
    expect(reply).toMatchObject({ status: 200, body: { [counted]: 1 } });
    expect(reply.text.replace(/\s/g, "")).toContain(`"skipped":[${seqs.join()}]`);
  });

  test.each([
    ["none", '"x":1'],
    ["null", '"node":null'],
    ["a number", '"node":1'],
    ["a list", '"node":["worker"]'],
    ["empty", '"node":""'],
  ])("5.1 the node %s is refused", async (_, node) => {
    const queue = await partlyLeased();
    const more = name === "extend" ? ',"lease_ms":60000' : "";
    expect(await queue.call(name, `{${node},"seqs":[1]${more}}`)).toMatchObject(invalid);
    expect(await queue.counters()).toMatchObject({ count: 5, ready: 1, in_flight: 4 });
  });

  test("5.1 unknown fields are ignored", async () => {
    const queue = await partlyLeased();
    const reply = await queue.call(name, text('"seqs":[1],"max":"x","match":1,"match":2,"Seqs":7'));
    expect(reply).toMatchObject({ status: 200, body: { [counted]: 1 } });
  });

  test.each([
    ["no lease_ids", undefined],
    ["lease_ids []", []],
    ["empty lease ids", ["", "", ""]],
  ])("04.18 %s is no fence", async (_, lease_ids) => {
    const queue = await partlyLeased();
    const reply = await call(queue, { seqs: [1, 2, 3], ...(lease_ids && { lease_ids }) });
    expect(reply).toMatchObject({ status: 200, body: { [counted]: 3, skipped: [] } });
  });

  test("04.18 an empty entry among tokens leaves only its own seq unfenced", async () => {
    const queue = await filledQueue(server, 3);
    const [first, second] = await queue.take(3);
    const lease_ids = [second!.lease_id, "", first!.lease_id];
    const reply = await call(queue, { seqs: [1, 2, 3], lease_ids });
    expect(reply.body).toMatchObject({ [counted]: 1, skipped: [1, 3] });
  });

  test("04.18 the right tokens count in any order of the seqs", async () => {
    const queue = await filledQueue(server, 3);
    const claimed = (await queue.take(3)).toReversed();
    const lease_ids = claimed.map(({ lease_id }) => lease_id);
    expect((await call(queue, { seqs: seqsOf(claimed), lease_ids })).body).toMatchObject({
      [counted]: 3,
      skipped: [],
    });
  });

  test.each([
    ["upper case", (hex: string) => `lease_${hex.toUpperCase()}`],
    ["16 digits", (hex: string) => `lease_${hex.padStart(16, "0")}`],
    ["leading zeros beyond 16 digits", (hex: string) => `lease_${hex.padStart(24, "0")}`],
  ])("5.1 a token in other spelling is the same token: %s", async (_, spell) => {
    const queue = await filledQueue(server, 1);
    const [job] = await queue.take(1);
    const lease_ids = [spell(job!.lease_id.slice("lease_".length))];
    expect((await call(queue, { seqs: [1], lease_ids })).body).toMatchObject({ [counted]: 1, skipped: [] });
  });

  test.each(["lease_0", "lease_1", "lease_ffffffffffffffff", "lease_0000000000000000000000001"])(
    "04.19 the well-formed token %s of nobody is skipped",
    async (token) => {
      const queue = await filledQueue(server, 1);
      await queue.take(1);
      const reply = await call(queue, { seqs: [1], lease_ids: [token] });
      expect(reply).toMatchObject({ status: 200, body: { [counted]: 0, skipped: [1] } });
    },
  );

  test.each([
    '"lease_"',
    '"lease_g"',
    '"lease_1 "',
    '" lease_1"',
    '"lease_ 1"',
    '"lease_+1"',
    '"lease_-1"',
    '"lease_0x1"',
    '"lease_1.0"',
    '"lease_1\\u0000"',
    '"lease_1\\n"',
    '"lease_１"',
    '"lease_10000000000000000"',
    '"lease_fffffffffffffffff"',
    '"lease-1"',
    '"LEASE_1"',
    '"Lease_1"',
    '"1"',
    '"x"',
    '" "',
    "1",
    "null",
    "true",
    '["lease_1"]',
  ])("04.18 the token %s is refused, whatever is beside it", async (token) => {
    const queue = await filledQueue(server, 2);
    const [job] = await queue.take(2);
    const members = `"seqs":[1,2],"lease_ids":["${job!.lease_id}",${token}]`;
    expect(await queue.call(name, text(members))).toMatchObject(invalid);
    expect(await queue.counters()).toMatchObject({ count: 2, ready: 0, in_flight: 2 });
  });

  test.each([
    ["fewer tokens than seqs", [1, 2], ["lease_1"]],
    ["more tokens than seqs", [1], ["lease_1", "lease_2"]],
    ["a token without seqs", [], ["lease_1"]],
    ["fewer empty tokens than seqs", [1, 2], [""]],
  ])("04.18 %s are refused", async (_, seqs, lease_ids) => {
    const queue = await partlyLeased();
    expect(await call(queue, { seqs, lease_ids })).toMatchObject(invalid);
    expect(await queue.counters()).toMatchObject({ count: 5, ready: 1, in_flight: 4 });
  });

  test.each(["null", '"lease_1"', "{}", "1"])("04.18 lease_ids %s is refused", async (lease_ids) => {
    const queue = await partlyLeased();
    expect(await queue.call(name, text(`"seqs":[1],"lease_ids":${lease_ids}`))).toMatchObject(invalid);
  });

  test("04.19 the token of an earlier lease of the same node is stale, the new one counts", async () => {
    const queue = await filledQueue(server, 1);
    const [old] = await queue.take(1);
    await queue.nack([1]);
    const [current] = await queue.take(1);
    const by = (token: string) => call(queue, { seqs: [1], lease_ids: [token] });
    expect((await by(old!.lease_id)).body).toMatchObject({ [counted]: 0, skipped: [1] });
    expect(await queue.counters()).toMatchObject({ count: 1, ready: 0, in_flight: 1 });
    expect((await by(current!.lease_id)).body).toMatchObject({ [counted]: 1, skipped: [] });
  });

  test("5.2 the right token in the hand of another node is skipped", async () => {
    const queue = await filledQueue(server, 1);
    const [job] = await queue.take(1);
    const reply = await call(queue, { node: "other", seqs: [1], lease_ids: [job!.lease_id] });
    expect(reply.body).toMatchObject({ [counted]: 0, skipped: [1] });
  });

  test("04.20 extending keeps the lease id", async () => {
    const queue = await filledQueue(server, 1);
    const [job] = await queue.take(1);
    const lease_ids = [job!.lease_id];
    await queue.extend([1], 50000);
    await queue.extend([1], 70000, { lease_ids });
    expect((await call(queue, { seqs: [1], lease_ids })).body).toMatchObject({ [counted]: 1, skipped: [] });
  });

  test("5.2 what was given back is nobody's", async () => {
    const queue = await filledQueue(server, 2);
    const [, job] = await queue.take(2);
    await queue.nack([1, 2]);
    const reply = await call(queue, { seqs: [1, 2], lease_ids: ["", job!.lease_id] });
    expect(reply.body).toMatchObject({ [counted]: 0, skipped: [1, 2] });
    expect(await queue.counters()).toMatchObject({ count: 2, ready: 2, in_flight: 0 });
  });

  test("5.2 what is delayed is nobody's", async () => {
    const queue = await filledQueue(server, 1);
    await queue.take(1);
    await queue.nack([1], { delay_ms: 60000 });
    expect((await call(queue, { seqs: [1] })).body).toMatchObject({ [counted]: 0, skipped: [1] });
    expect(await queue.counters()).toMatchObject({ count: 1, ready: 0, in_flight: 0 });
  });

  test("5.2 the delivery before does not matter: any lease can be answered", async () => {
    const queue = await filledQueue(server, 3);
    await redeliver(queue, 4);
    await queue.take(3);
    expect((await call(queue, { seqs: [3, 1] })).body).toMatchObject({ [counted]: 2, skipped: [] });
  });

  const M = `"seqs":[1]`;
  const tooMany = `"seqs":[${range(1, 1001)}]`;
  const ordered: [string, string | undefined, Record<string, string>, number, string, number, string][] = [
    [
      "another content type and bad JSON",
      "{",
      { "content-type": "text/plain" },
      415,
      "unsupported_media_type",
      0,
      "",
    ],
    ["no body and no content type", undefined, {}, 415, "unsupported_media_type", 0, ""],
    ["an empty body", "", { "content-type": "application/json" }, 400, "invalid_request", 0, ""],
    ["blanks", "  ", {}, 400, "invalid_request", 0, ""],
    ["bad JSON", "{", {}, 400, "invalid_request", 0, ""],
    ["null", "null", {}, 400, "invalid_request", 0, ""],
    ["a bad seq", text('"seqs":[-1]'), {}, 400, "invalid_request", 0, ""],
    ["a bad token", text(`${M},"lease_ids":["x"]`), {}, 400, "invalid_request", 0, ""],
    ["an empty node", text(M).replace(WORKER, ""), {}, 400, "invalid_request", 0, ""],
    [
      "a bad token and too many seqs",
      text(`${tooMany},"lease_ids":["x"]`),
      {},
      400,
      "invalid_request",
      0,
      "",
    ],
    ["an empty node and too many seqs", text(tooMany).replace(WORKER, ""), {}, 400, "invalid_request", 0, ""],
    ["too many seqs", text(tooMany), {}, 400, "batch_too_large", 0, ""],
    [
      "too many seqs and one token",
      text(`${tooMany},"lease_ids":["lease_1"]`),
      {},
      400,
      "batch_too_large",
      0,
      "",
    ],
    ["a token too few", text('"seqs":[1,2],"lease_ids":["lease_1"]'), {}, 400, "invalid_request", 0, ""],
    ["nothing wrong", text(M), {}, 404, "topic_not_found", 409, "not_a_queue"],
    ["nothing to do", text('"seqs":[]'), {}, 404, "topic_not_found", 409, "not_a_queue"],
  ];

  test.each(ordered)(
    "5.1 %s on a missing topic and on a log",
    async (_, body, headers, status, code, onLogStatus, onLogCode) => {
      const log = await newTopic(server);
      const absent = absentQueue(server);
      const [missing, present] = [absent, absentQueue(server, log.name)].map((topic) =>
        topic.call(name, body, headers),
      );
      expect(await missing).toMatchObject({ status, body: { error: { code } } });
      expect(await present).toMatchObject({
        status: onLogStatus || status,
        body: { error: { code: onLogCode || code } },
      });
      expect((await absent.state()).status).toBe(404);
      expect((await log.state()).body.config).toEqual(defaults);
    },
  );
});

describe("a seq twice in one call", () => {
  const counts: [HolderCall, object, object][] = [
    ["ack", {}, { acked: 2, skipped: [1, 1, 2] }],
    ["nack", {}, { nacked: 2, skipped: [1, 1, 2] }],
    ["extend", { lease_ms: 60000 }, { extended: 5, skipped: [] }],
  ];

  test.each(counts)("04.15 %s", async (name, fields, expected) => {
    const queue = await filledQueue(server, 2);
    await queue.take(2);
    const { body } = await queue.call(name, { node: WORKER, seqs: [1, 1, 2, 1, 2], ...fields });
    expect(body).toMatchObject(expected);
  });

  test("5.2 entries are judged from left to right, each by its own token", async () => {
    const queue = await filledQueue(server, 1);
    const [job] = await queue.take(1);
    const lease_ids = ["lease_1", job!.lease_id, job!.lease_id];
    expect((await queue.ack([1, 1, 1], { lease_ids })).body).toMatchObject({ acked: 1, skipped: [1, 1] });
  });
});
