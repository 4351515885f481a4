/** How much one request to follow topics may ask for, what it costs others, and how its key may be shown. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { attempt } from "../support/eventstream.ts";
import { startServer } from "../support/server.ts";
import { SocketClient } from "../support/socket.ts";
import { newTopic, sharedServer } from "../support/topics.ts";

setDefaultTimeout(20_000);

const server = sharedServer();

const short = (n: number): string[] => Array.from({ length: n }, (_, i) => `node-${i}`);
/** Longer than the node of any record can be. */
const long = (n: number, length = 129): string[] =>
  Array.from({ length: n }, (_, i) => `${i}-`.padEnd(length, "n"));

describe("own nodes", () => {
  type Asks = (topic: string, node: string[]) => Promise<string>;

  /** Each follows a topic and gives `ok` or the code of the error. */
  const ways: [string, Asks][] = [
    [
      "a watch session",
      async (topic, node) => {
        const { status, body } = await server.send("POST", "/v0/watch", { topics: { [topic]: {} }, node });
        return status === 200 ? "ok" : body.error.code;
      },
    ],
    [
      "a stream of one topic",
      async (topic, node) => {
        const query = node.map((name) => `node=${encodeURIComponent(name)}`).join("&");
        const { status, body } = await attempt(server.url, `/v0/topics/${topic}/stream?${query}`);
        return status === 200 ? "ok" : body.error.code;
      },
    ],
    [
      "a subscription",
      async (topic, node) => {
        await using client = await SocketClient.open(server.url);
        const { op, code } = await client.ask({ op: "subscribe", topic, node });
        return op === "subscribed" ? "ok" : code;
      },
    ],
  ];

  const lists: [string, string[], string][] = [
    ["256", short(256), "ok"],
    ["257", short(257), "invalid_request"],
    ["256 and others that are too long for a record", [...long(50), ...short(256)], "ok"],
    ["300 that are too long for a record", long(300), "ok"],
    ["257 of the longest names", long(257, 128), "invalid_request"],
    ["257 names of 129 bytes in 66 characters", long(257, 3).map((name) => "é".repeat(63) + name), "ok"],
  ];

  const cases = ways.flatMap(([who, ask]) =>
    lists.map(([what, nodes, answer]) => ({ who, ask, what, nodes, answer })),
  );
  test.each(cases)("of $who: $what", async ({ ask, nodes, answer }) => {
    const topic = await newTopic(server);
    expect(await ask(topic.name, nodes)).toBe(answer);
  });

  test("that are too long count for nothing, the others do", async () => {
    const topic = await newTopic(server);
    await topic.write({
      records: [
        { data: 1, node: "mine" },
        { data: 2, node: "other" },
      ],
    });
    await using client = await SocketClient.open(server.url);
    await client.ask({ op: "subscribe", topic: topic.name, node: [...long(300), "mine"] });
    const { records } = await client.take("record");
    expect(records.map(({ data }: { data: number }) => data)).toEqual([2]);
  });
});

describe("a subscription to very many topics", () => {
  test("lets others be answered meanwhile", async () => {
    await using client = await SocketClient.open(server.url);
    const names = Array.from({ length: 300_000 }, (_, i) => `"u${i}":{}`);
    client.say(`{"op":"subscribe","request_id":1,"lenient":true,"topics":{${names.join(",")}}}`);
    let isAnswered = false;
    const subscribed = client.take("subscribed", 15_000).finally(() => {
      isAnswered = true;
    });
    let answered = 0;
    while (!isAnswered) {
      const { status } = await server.send("GET", "/v0/health");
      if (status === 200 && !isAnswered) answered++;
    }
    expect((await subscribed).topics).toEqual({});
    // The first ones may be answered before the server has seen the message.
    expect(answered).toBeGreaterThan(10);
  });
});

describe("a key in the parameter of a stream", () => {
  const headers: [string, number][] = [
    ["bearer wrong", 200],
    ["BEARER wrong", 200],
    ["Basic wrong", 200],
    ["Bearer wrong", 401],
  ];

  test.each(headers)("beside the header %s: %d", async (authorization, expected) => {
    await using keyed = await startServer({ TOPICS_API_KEYS: "secret" });
    const key = { authorization: "Bearer secret" };
    await keyed.send("PUT", "/v0/topics/t", {}, key);
    await keyed.send("PUT", "/v0/topics/jobs", { type: "queue" }, key);
    const { token } = (
      await keyed.send("POST", "/v0/tokens", { topics: ["t", "jobs"], scopes: ["read", "write"] }, key)
    ).body;
    const { stream_url } = (await keyed.send("POST", "/v0/watch", { topics: { t: {} } }, key)).body;
    const paths = ["/v0/topics/t/stream?", "/v0/topics/jobs/work?node=n&", `${stream_url}?`];
    const statuses: number[] = [];
    for (const shown of ["secret", token]) {
      for (const path of paths) {
        statuses.push((await attempt(keyed.url, `${path}token=${shown}`, { authorization })).status);
      }
    }
    expect(statuses).toEqual(Array(6).fill(expected));
  });
});
