/** The selector of `POST /v0/topics/:topic/delete`: what is no selector, and when that is noticed. */
import { describe, expect, test } from "bun:test";
import { absentTopic, newTopic, sharedServer, taggedTopic } from "../support/topics.ts";

const server = sharedServer();

describe("the selector", () => {
  test.each([
    ["nothing", "{}"],
    ["nulls", '{"before_seq":null,"match":null}'],
    ["a null position", '{"before_seq":null}'],
    ["a null predicate", '{"match":null}'],
    ["unknown fields only", '{"Match":"*","before":5}'],
  ])("02.58 %s selects nothing: 400, on an absent topic too", async (_, body) => {
    for (const topic of [await newTopic(server), absentTopic(server)]) {
      const reply = await topic.erase(body);
      expect(reply.status).toBe(400);
      expect(reply.body.error).toStrictEqual({ code: "invalid_request", message: expect.any(String) });
    }
  });

  test.each([
    { before_seq: 1 },
    { match: "*" },
    { match: ["tag", "Eq", "x"] },
    { before_seq: 1, match: null },
  ])("02.58 %j on an absent topic is 404", async (selector) => {
    const topic = absentTopic(server);
    const reply = await topic.erase(selector);
    expect(reply).toMatchObject({ status: 404, body: { error: { code: "topic_not_found" } } });
    expect(reply.body.error.detail).toStrictEqual({ topic: topic.name });
    expect((await topic.state()).status).toBe(404);
  });

  test.each(["-1", "-0", "1.0", "1e0", "1.5", '"1"', "true", "[]", "18446744073709551616"])(
    "7 before_seq %s is refused",
    async (value) => {
      const topic = await taggedTopic(server, "a", "b");
      const reply = await topic.erase(`{"before_seq":${value},"match":"*"}`);
      expect(reply).toMatchObject({ status: 400, body: { error: { code: "invalid_request" } } });
      expect((await topic.state()).body.count).toBe(2);
    },
  );

  test.each([
    '["tag","Glob","a"]',
    '["tag","Glob",""]',
    '["tag","Glob","*a"]',
    '["tag","eq","a"]',
    '["tag","EQ","a"]',
    '["tag","glob","a*"]',
    '["tag","Prefix","a"]',
    '["Tag","Eq","a"]',
    '["node","Eq","a"]',
    '["tag","Eq"]',
    '["tag","Eq","a","b"]',
    '["tag","Eq",5]',
    '["tag","Eq",null]',
    '["tag","Eq",["a"]]',
    "[]",
    '["a*"]',
    "5",
    "true",
    "{}",
    '{"tag":"a"}',
  ])("02.59 the predicate %s is refused, on an absent topic too", async (match) => {
    const topic = await taggedTopic(server, "a", "b");
    for (const target of [topic, absentTopic(server)]) {
      const reply = await target.erase(`{"match":${match}}`);
      expect(reply).toMatchObject({ status: 400, body: { error: { code: "invalid_request" } } });
    }
    expect((await topic.state()).body.count).toBe(2);
  });
});
