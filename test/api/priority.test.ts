/** `effective_priority` and the clock of the last read: what counts as reading, and how it fades. */
import { describe, expect, test } from "bun:test";
import { newTopic, sharedServer, type Topic, timed } from "../support/topics.ts";

const server = sharedServer();

const effective = async (topic: Topic) => (await topic.state()).body.effective_priority;

describe("what counts as a read", () => {
  const list = (topic: Topic, touch: string) =>
    server.send("GET", `/v0/topics?prefix=${topic.name}&page_size=1${touch}`);

  const reads: [string, (topic: Topic) => Promise<unknown>][] = [
    ["a plain GET", (topic) => server.send("GET", topic.path)],
    ["GET ?touch=true", (topic) => server.send("GET", `${topic.path}?touch=true`)],
    ["GET ?touch=1", (topic) => server.send("GET", `${topic.path}?touch=1`)],
    ["GET ?touch=nonsense", (topic) => server.send("GET", `${topic.path}?touch=nonsense`)],
    ["a diff", (topic) => topic.diff()],
    ["an empty diff at the head", (topic) => topic.diff({ from_seq: 1 })],
    ["a list with touch=true", (topic) => list(topic, "&touch=true")],
  ];

  test.each(reads)("02.12 %s does", async (_, read) => {
    const topic = await newTopic(server);
    await topic.append(1);
    await read(topic);
    expect(await effective(topic)).toBeGreaterThan(490);
  });

  const others: [string, (topic: Topic) => Promise<unknown>][] = [
    ["GET ?touch=false", (topic) => topic.state()],
    ["GET ?touch=0", (topic) => server.send("GET", `${topic.path}?touch=0`)],
    ["a write", (topic) => topic.append(2)],
    ["a PUT", (topic) => topic.put({ ttl_ms: 60000 })],
    ["a delete of records", (topic) => topic.erase({ before_seq: 2 })],
    ["a list", (topic) => list(topic, "")],
    ["a list with touch=false", (topic) => list(topic, "&touch=false")],
    ["a refused diff", (topic) => topic.diff({ from_seq: -1 })],
  ];

  test.each(others)("02.13 %s does not", async (_, call) => {
    const topic = await newTopic(server);
    await topic.append(1);
    await call(topic);
    expect((await topic.state()).body).toMatchObject({ effective_priority: 0, last_read_ts: null });
  });

  test("02.12 a GET shows its own touch", async () => {
    const topic = await newTopic(server);
    const before = Date.now();
    const { body } = await server.send("GET", topic.path);
    expect(body.effective_priority).toBe(500);
    expect(body.last_read_ts).toBeGreaterThanOrEqual(before - 1);
    expect(body.last_read_ts).toBeLessThanOrEqual(Date.now() + 1);
  });

  test("02.13 a diff sets last_read_ts, a later write leaves it", async () => {
    const topic = await newTopic(server);
    await topic.diff();
    const { last_read_ts } = (await topic.state()).body;
    await topic.append(1);
    expect(last_read_ts).toStrictEqual(expect.any(Number));
    expect((await topic.state()).body.last_read_ts).toBe(last_read_ts);
  });

  test("4.3 a touching list raises the priority and leaves last_read_ts", async () => {
    const topic = await newTopic(server);
    await list(topic, "&touch=true");
    const { body } = await topic.state();
    expect(body.effective_priority).toBeGreaterThan(490);
    expect(body.last_read_ts).toBeNull();
  });

  test("4.3 a touching list touches only what it lists", async () => {
    const [listed, other] = [await newTopic(server), await newTopic(server)];
    await list(listed, "&touch=true");
    expect(await effective(other)).toBe(0);
  });
});

describe("the value", () => {
  test("02.12 it fades by half in 30 s", async () => {
    const topic = await newTopic(server);
    const { ms: lead } = await timed(() => server.send("GET", topic.path));
    const { ms: idle, answer } = await timed(async () => {
      await Bun.sleep(1500);
      return await topic.state();
    });
    const at = (ms: number) => Math.round(500 * 2 ** (-ms / 30000));
    expect(answer.body.effective_priority).toBeGreaterThanOrEqual(at(lead + idle + 2));
    expect(answer.body.effective_priority).toBeLessThanOrEqual(at(1500 - 20));
  });

  test.each([
    [{ auto_priority: false }, 0],
    [{ priority: 10 }, 10],
    [{ priority: 0 }, 0],
    [{ priority: -3, auto_priority: true }, -3],
    [{ priority: 7, auto_priority: false }, 7],
    [{ priority: 5000 }, 1000],
    [{ priority: null, auto_priority: true }, 500],
  ])("4.3 with %j a touched topic has %d", async (config, expected) => {
    const topic = await newTopic(server, config);
    expect((await server.send("GET", topic.path)).body.effective_priority).toBe(expected);
  });
});
