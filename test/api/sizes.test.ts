/** How much a write may hold: records, keys, tags, nodes, meta and data, each at its limit and one beyond. */
import { describe, expect, test } from "bun:test";
import { absentTopic, sharedServer } from "../support/topics.ts";

const server = sharedServer();

const invalid = { status: 400, body: { error: { code: "invalid_request" } } };

describe("limits", () => {
  const batch = (length: number) => ({ records: Array.from({ length }, () => ({ data: 1 })) });

  test("02.23 10000 records pass", async () => {
    const topic = absentTopic(server);
    const reply = await topic.write(batch(10000));
    expect(reply).toMatchObject({ status: 201, body: { first_seq: 1, last_seq: 10000, count: 10000 } });
    expect(reply.body.seqs).toStrictEqual(Array.from({ length: 10000 }, (_, i) => i + 1));
    expect((await topic.state()).body).toMatchObject({ head_seq: 10000, count: 10000, bytes: 10000 });
  });

  test("02.23 10001 records and no record do not", async () => {
    const topic = absentTopic(server);
    const many = await topic.write(batch(10001));
    const none = await topic.write(batch(0));
    expect(many.status).toBe(400);
    expect(many.body.error).toStrictEqual({ code: "batch_too_large", message: expect.any(String) });
    expect(none).toMatchObject(invalid);
    expect((await topic.state()).status).toBe(404);
  });

  const object = (keys: number) =>
    JSON.stringify(Object.fromEntries(Array.from({ length: keys }, (_, i) => [i, 0])));
  const padded = (bytes: number) => `{"k":${"0".padEnd(bytes - 6)}}`;

  test.each([
    ["a tag of 256 bytes", `"tag":"${"x".repeat(256)}"`, true],
    ["a tag of 257 bytes", `"tag":"${"x".repeat(257)}"`, false],
    ["a tag of 128 two-byte characters", `"tag":"${"é".repeat(128)}"`, true],
    ["a tag of 129 two-byte characters", `"tag":"${"é".repeat(129)}"`, false],
    ["a tag of 64 escaped emoji", `"tag":"${"\\ud83d\\ude00".repeat(64)}"`, true],
    ["a tag of 65 emoji", `"tag":"${"😀".repeat(65)}"`, false],
    ["a node of 128 bytes", `"node":"${"x".repeat(128)}"`, true],
    ["a node of 129 bytes", `"node":"${"x".repeat(129)}"`, false],
    ["a node of 65 two-byte characters", `"node":"${"é".repeat(65)}"`, false],
    ["a meta of 16384 bytes", `"meta":{"k":"${"x".repeat(16376)}"}`, true],
    ["a meta of 16385 bytes", `"meta":{"k":"${"x".repeat(16377)}"}`, false],
    ["P6 a meta of 16384 bytes with white space", `"meta":${padded(16384)}`, true],
    ["P6 a meta of 16385 bytes with white space", `"meta":${padded(16385)}`, false],
    ["P6 a meta of 16386 bytes in two-byte characters", `"meta":"${"é".repeat(8192)}"`, false],
    ["a meta of 64 keys", `"meta":${object(64)}`, true],
    ["a meta of 65 keys", `"meta":${object(65)}`, false],
    ["a meta list of 65 items", `"meta":[${Array(65).fill("0")}]`, true],
  ])("02.24 %s", async (_, members, passes) => {
    const topic = absentTopic(server);
    const reply = await topic.write(`{"records":[{"data":1,${members}}]}`);
    if (passes) expect(reply.status).toBe(201);
    else {
      expect(reply.status).toBe(400);
      expect(reply.body.error).toStrictEqual({ code: "invalid_request", message: expect.any(String) });
    }
  });

  test.each([
    ["1048576 bytes", `"data":"${"x".repeat(1048574)}"`, true],
    ["1048577 bytes", `"data":"${"x".repeat(1048575)}"`, false],
    ["1048576 bytes with meta", `"data":"${"x".repeat(1048566)}","meta":{"k":""}`, true],
    ["1048577 bytes with meta", `"data":"${"x".repeat(1048567)}","meta":{"k":""}`, false],
    ["P6 1048576 bytes with white space", `"data":[1,${" ".repeat(1048571)}1]`, true],
    ["P6 1048577 bytes with white space", `"data":[1,${" ".repeat(1048572)}1]`, false],
    ["1048578 bytes in two-byte characters", `"data":"${"é".repeat(524288)}"`, false],
    ["1048576 bytes beside a tag and a node", `"tag":"t","node":"n","data":"${"x".repeat(1048574)}"`, true],
  ])("02.25 a record of %s", async (_, members, passes) => {
    const topic = absentTopic(server);
    const reply = await topic.write(`{"records":[{${members}}]}`);
    if (passes) expect(reply.status).toBe(201);
    else {
      expect(reply.status).toBe(400);
      expect(reply.body.error).toStrictEqual({ code: "record_too_large", message: expect.any(String) });
    }
    expect((await topic.state()).status).toBe(passes ? 200 : 404);
  });

  test("5.1 the batch's node is measured only where it is used", async () => {
    const node = "x".repeat(129);
    const unused = await absentTopic(server).write({ node, records: [{ data: 1, node: "a" }] });
    const used = await absentTopic(server).write({ node, records: [{ data: 1, node: "a" }, { data: 2 }] });
    expect(unused.status).toBe(201);
    expect(used).toMatchObject(invalid);
  });

  test("5.1 the number of records is checked before the key, the records before the topic", async () => {
    const key = "x".repeat(257);
    const absent = absentTopic(server);
    const many = await absent.write({ ...batch(10001), idempotency_key: key });
    const empty = await absent.write({ records: [], create: false });
    const longTag = await absent.write({ records: [{ data: 1, tag: key }], create: false });
    const tooLarge = await absent.write({ records: [{ data: "x".repeat(1048577) }], create: false });
    expect(many.body.error.code).toBe("batch_too_large");
    expect(empty).toMatchObject(invalid);
    expect(longTag).toMatchObject(invalid);
    expect(tooLarge.body.error.code).toBe("record_too_large");
  });
});
