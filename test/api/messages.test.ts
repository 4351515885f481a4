/** What is said of a body that is not as it must be: where, what was expected there, and what was found. */
import { expect, test } from "bun:test";
import { newTopic, sharedServer } from "../support/topics.ts";

const server = sharedServer();

test.each([
  ['{"limit":true}', "limit: expected an integer, found true"],
  ['{"limit":"5"}', 'limit: expected an integer, found "5"'],
  ['{"limit":[5]}', "limit: expected an integer, found ["],
  ['{"limit":{"n":5}}', "limit: expected an integer, found {"],
  ['{"limit":null,"epoch":1}', "limit: expected an integer, found null"],
  ['{"limit":1.5}', "limit: expected an integer"],
  ['{"limit":-1}', "limit: expected an integer from 0 to 4294967295"],
  ['{"from_seq":-1}', "from_seq: expected an integer from 0 to 2^64-1"],
  ['{"from_seq":18446744073709551616}', "from_seq: expected an integer from 0 to 2^64-1"],
  ['{"include_tags":1}', "include_tags: expected true or false, found 1"],
  ['{"include_tags":"a long answer"}', 'include_tags: expected true or false, found "a long answe'],
  ['{"limit":', "limit: expected a JSON value, found the end"],
  ['{"limit":}', "limit: expected a JSON value, found }"],
])("%s: %s", async (body, message) => {
  const topic = await newTopic(server);
  const reply = await topic.diff(body);
  expect(reply).toMatchObject({ status: 400, body: { error: { code: "invalid_request", message } } });
});

test.each([
  ['{"ttl_ms":-1}', `ttl_ms: expected an integer from 0 to ${Number.MAX_SAFE_INTEGER}`],
  ['{"ttl_ms":9007199254740992}', "ttl_ms: integers above 2^53-1 cannot be kept exactly"],
  ['{"ttl_ms":18446744073709551616}', "ttl_ms: integers above 2^53-1 cannot be kept exactly"],
  ['{"priority":2147483648}', "priority: expected an integer from -2147483648 to 2147483647"],
])("%s: %s", async (body, message) => {
  const topic = await newTopic(server);
  const reply = await topic.put(body);
  expect(reply).toMatchObject({ status: 400, body: { error: { code: "invalid_request", message } } });
});
