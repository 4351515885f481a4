/**
 * The stamp that `exactly_once` copies carry in their `meta`, beside what the user wrote there.
 *
 * As everywhere, what the user wrote is compared as text: a stamp must not respell what it stands beside.
 */
import { describe, expect, test } from "bun:test";
import { elements, members, payloads } from "../support/rawjson.ts";
import {
  eventually,
  listedCount,
  newChain,
  newRoute,
  newRouter,
  type Router,
  range,
  read,
  values,
} from "../support/router.ts";
import { newTopic, sharedServer, type Topic } from "../support/topics.ts";

const server = sharedServer();

const exactly = { guarantee: "exactly_once" };
const epochOf = async (topic: Topic): Promise<number> => (await topic.state()).body.epoch;

/** The whole stamp of the source's record with this seq. */
async function stampOf(router: Router, source: Topic, seq: number) {
  const epoch = await epochOf(source);
  return {
    idempotency_key: `router:${router.name}:${epoch}:${epoch}:${seq}`,
    router: router.name,
    source_topic: source.name,
    source_topic_id: epoch,
    source_epoch: epoch,
    source_seq: seq,
  };
}

/** Sends one record with this text as `meta` through an `exactly_once` router. Gives the text of the copy's. */
async function stamped(meta: string) {
  const route = await newRoute(server, exactly);
  const reply = await route.source.write(`{"records":[{"data":1,"meta":${meta}}]}`);
  expect(reply.status).toBe(200);
  const copies = await route.dest.diff();
  const stamp = await stampOf(route.router, route.source, 1);
  return { ...route, copy: copies.body.records[0], text: payloads(copies, "meta")[0]!, stamp };
}

/** A member of an object as its key and the text of its value. */
const memberOf = (text: string) => [...members(`{${text}}`)][0]!;

/** The members of a copy's `meta` but for the stamp, each as its text, in order. */
const own = (meta: string) => elements(meta).filter((text) => memberOf(text)[0] !== "_topics_router");

/** How often the object's text has the key of the stamp, however it is spelled. */
const stamps = (meta: string) =>
  elements(meta).filter((text) => memberOf(text)[0] === "_topics_router").length;

describe("the stamp", () => {
  test("03.44 has six members; data, tag and node are as ever; the source has none", async () => {
    const { source, dest, router } = await newRoute(server, exactly);
    await source.write({ records: [{ data: { a: 1 }, tag: "t", node: "n", meta: { req: "r-1" } }] });
    const [copy] = await read(dest);
    expect(copy).toEqual({
      $seq: 1,
      $ts: expect.any(Number),
      $node: "n",
      $tag: "t",
      data: { a: 1 },
      meta: { req: "r-1", _topics_router: await stampOf(router, source, 1) },
    });
    expect((await read(source))[0]!.meta).toEqual({ req: "r-1" });
  });

  test("03.44 is all there is where the record has no meta", async () => {
    const { source, dest, router } = await newRoute(server, exactly);
    await source.write({ records: [{ data: 1 }, { data: 2, meta: null }] });
    const copies = await read(dest);
    expect(copies.map(({ meta }) => meta)).toEqual([
      { _topics_router: await stampOf(router, source, 1) },
      { _topics_router: await stampOf(router, source, 2) },
    ]);
    for (const record of await read(source)) expect(record).not.toHaveProperty("meta");
  });

  test("03.44 names the source's seq, whatever the dest's is", async () => {
    const { source, dest, router } = await newRoute(server, { ...exactly, filter: "yes" });
    await dest.append("own");
    await source.write({ records: range(1, 6).map((i) => ({ data: i, tag: i % 3 ? "no" : "yes" })) });
    const [, ...copies] = await read(dest);
    expect(copies.map(({ $seq, meta }) => [$seq, meta._topics_router])).toEqual([
      [2, await stampOf(router, source, 3)],
      [3, await stampOf(router, source, 6)],
    ]);
  });

  test("03.44 of every copy has a key of its own", async () => {
    const { source, dest } = await newRoute(server, exactly);
    for (let i = 0; i < 5; i++) await source.append(...range(1, 20));
    const keys = (await read(dest)).map(({ meta }) => meta._topics_router.idempotency_key);
    expect([keys.length, new Set(keys).size]).toEqual([100, 100]);
  });

  test("03.44 of a source created again is another one", async () => {
    const { source, dest, router } = await newRoute(server, exactly);
    await source.append("first life");
    expect(await values(dest)).toEqual(["first life"]);
    await source.drop();
    await newRouter(server, source, dest, exactly);
    await source.append("second life");
    const copies = await read(dest);
    expect(copies.map(({ data }) => data)).toEqual(["first life", "second life"]);
    const [first, second] = copies.map(({ meta }) => meta._topics_router);
    expect(second).toEqual(await stampOf(router, source, 1));
    expect(first.source_seq).toBe(second.source_seq);
    expect(first.idempotency_key).not.toBe(second.idempotency_key);
    expect(first.source_topic_id).not.toBe(second.source_topic_id);
  });

  test("03.44 tells two routers between the same topics apart: both copy", async () => {
    const { source, dest, router } = await newRoute(server, exactly);
    const other = await newRouter(server, source, dest, exactly, `${router.name}>2`);
    await source.append(1);
    const found = (await read(dest)).map(({ meta }) => meta._topics_router.router);
    expect(found.toSorted()).toEqual([router.name, other.name].toSorted());
  });

  test("03.44 is in no copy of an at_least_once router", async () => {
    const { source, dest } = await newRoute(server);
    await source.write({ records: [{ data: 1 }, { data: 2, meta: { m: 1 } }] });
    const [first, second] = await read(dest);
    expect(first).not.toHaveProperty("meta");
    expect(second!.meta).toEqual({ m: 1 });
  });

  test("03.44 comes and goes with the guarantee", async () => {
    const { source, dest, router } = await newRoute(server);
    const ends = { source: source.name, dest: dest.name };
    const guarantees = ["at_least_once", "exactly_once", "at_least_once", "exactly_once"];
    for (const [i, guarantee] of guarantees.entries()) {
      await router.put({ ...ends, guarantee });
      await source.append(i);
      await dest.state();
    }
    const copies = await read(dest);
    expect(copies.map(({ data, meta }) => [data, meta?._topics_router.source_seq])).toEqual([
      [0, undefined],
      [1, 2],
      [2, undefined],
      [3, 4],
    ]);
  });

  test("03.44 counts in the dest's bytes, not in the source's", async () => {
    const { source, dest, text } = await stamped('{"m":1}');
    expect((await source.state()).body.bytes).toBe("1".length + '{"m":1}'.length);
    expect((await dest.state()).body.bytes).toBe("1".length + Buffer.byteLength(text));
  });

  test("03.44 leaves data byte for byte as it was sent", async () => {
    const { source, dest } = await newRoute(server, exactly);
    const data = ['{ "b":1.0, "a":1E2,"a":-0 }', '"\\u00e9\\/"', "12345678901234567890123"];
    await source.write(`{"records":[${data.map((text) => `{"data":${text}}`).join(",")}]}`);
    expect(payloads(await dest.diff(), "data")).toEqual(data);
  });
});

describe("the user's meta", () => {
  test.each([
    "{}",
    "{ }",
    "{\n\t}",
    '{"a":1}',
    '{ "b" : 1 , "a" : [1, 2] }',
    '{"a":1.0,"b":-0,"c":1E3,"d":12345678901234567890123,"e":1e-400}',
    '{"\\u0061":"\\u00e9\\/\\ud83d\\uDE00\\u0000","a":2,"a":3}',
    '{"10":1,"9":2,"":3,"__proto__":{"x":1},"constructor":4}',
    '{"nested":{"_topics_router":{"router":"none"}},"list":[{"_topics_router":1}]}',
    '{"x":"_topics_router","_topics_router_":1," _topics_router":2,"_Topics_router":3}',
    '{"x":"}","y":"\\"_topics_router\\":{","z":"\\\\"}',
    '{"_topics_original_meta":[1.0]}',
    '{\r\n"a"\t:\n[ ]\r}',
  ])("03.44 P1 keeps its own members byte for byte: %j", async (meta) => {
    const { copy, text, stamp } = await stamped(meta);
    expect(own(text)).toEqual(elements(meta));
    expect(stamps(text)).toBe(1);
    expect(copy.meta._topics_router).toEqual(stamp);
  });

  test.each([
    ['{"_topics_router":{"router":"forged"}}', []],
    ['{"_topics_router":null,"a":1.0}', ['"a":1.0']],
    ['{"a":1.0 , "_topics_router":[1,{"x":"}"}]}', ['"a":1.0']],
    ['{"a":1,"_topics_router":"x","b":[ ]}', ['"a":1', '"b":[ ]']],
    ['{"_topics_router":1,"a":2,"_topics_router":3}', ['"a":2']],
    ['{"_topics\\u005frouter":1,"a":2}', ['"a":2']],
    ['{"\\u005ftopics\\u005Frouter":{"idempotency_key":"x"},"a":1E0}', ['"a":1E0']],
    ['{"a":1,"\\u005f\\u0074opics_route\\u0072":[[]]}', ['"a":1']],
    ['{"_topics_router":1,"_topics\\u005frouter":2,"\\u005Ftopics_router":3}', []],
    ['{ "_topics_router" : 1 }', []],
    ['{"\\"_topics_router\\"":1,"_topics_router":2}', ['"\\"_topics_router\\"":1']],
  ])("03.44 gives up a _topics_router of its own, however it is spelled: %j", async (meta, rest) => {
    const { copy, text, stamp } = await stamped(meta);
    expect(own(text)).toEqual(rest);
    expect(stamps(text)).toBe(1);
    expect(copy.meta._topics_router).toEqual(stamp);
  });

  test.each([
    "0",
    "-0",
    "1.50",
    "1E3",
    "12345678901234567890123",
    "true",
    "false",
    '""',
    '"\\u00e9\\/ \\" \\\\"',
    '"_topics_router"',
    "[]",
    "[ 1 ,\n2.0]",
    '[{"_topics_router":1}]',
  ])("03.45 P1 that is no object is wrapped as it is: %j", async (meta) => {
    const { copy, text, stamp, source } = await stamped(meta);
    expect(members(text).get("_topics_original_meta")).toBe(meta);
    expect(copy.meta).toEqual({ _topics_router: stamp, _topics_original_meta: JSON.parse(meta) });
    expect(elements(text)).toHaveLength(2);
    expect(payloads(await source.diff(), "meta")).toEqual([meta]);
  });

  const withKeys = (n: number) => `{${range(1, n).map((i) => `"k${i}": ${i}.0`)}}`;

  test("03.45 with 64 keys is wrapped", async () => {
    const meta = withKeys(64);
    const { copy, text, stamp } = await stamped(meta);
    expect(members(text).get("_topics_original_meta")).toBe(meta);
    expect(elements(text)).toHaveLength(2);
    expect(copy.meta._topics_router).toEqual(stamp);
  });

  test("03.45 with 63 keys is not", async () => {
    const meta = withKeys(63);
    const { copy, text, stamp } = await stamped(meta);
    expect(own(text)).toEqual(elements(meta));
    expect(copy.meta._topics_router).toEqual(stamp);
    expect(copy.meta).not.toHaveProperty("_topics_original_meta");
  });

  test.each([
    ["an object", (pad: string) => `{"pad":"${pad}"}`],
    ["a string", (pad: string) => `"${pad}"`],
    ["an array", (pad: string) => `["${pad}" ]`],
  ])("section 6: %s of 16384 bytes gets its stamp beyond the limit, and blocks nothing", async (_, spell) => {
    const meta = spell("x".repeat(16384 - spell("").length));
    const { source, dest, text, copy, stamp } = await stamped(meta);
    expect(text.includes(meta.slice(1, -1).trim())).toBe(true);
    expect(copy.meta._topics_router).toEqual(stamp);
    await source.append("next");
    expect(await values(dest)).toEqual([1, "next"]);
  });

  test("section 6: a record of the largest size gets its stamp beyond the limit", async () => {
    const { source, dest } = await newRoute(server, exactly);
    await source.append("x".repeat(1_048_574), "next");
    const sizes = (await read(dest)).map(({ data }) => (data as string).length);
    expect(sizes).toEqual([1_048_574, 4]);
  });
});

describe("a chain", () => {
  /** Sends one record with this text as `meta` down a chain. Gives the text of `meta` at the end. */
  async function throughChain(meta: string | undefined, ...guarantees: string[]) {
    const topics = [await newTopic(server)];
    const routers: Router[] = [];
    for (const guarantee of guarantees) {
      const dest = await newTopic(server);
      routers.push(await newRouter(server, topics.at(-1)!, dest, { guarantee }));
      topics.push(dest);
    }
    await topics[0]!.write(`{"records":[{"data":1${meta === undefined ? "" : `,"meta":${meta}`}}]}`);
    await eventually(() => listedCount(server, topics.at(-1)!), 1);
    const [text] = payloads(await topics.at(-1)!.diff(), "meta");
    return { topics, routers, text: text!, meta: JSON.parse(text!) };
  }

  test("03.46 of two exactly_once routers ends with the second one's stamp alone", async () => {
    const { topics, routers, text, meta } = await throughChain('{"a":1.0}', "exactly_once", "exactly_once");
    expect(own(text)).toEqual(['"a":1.0']);
    expect(stamps(text)).toBe(1);
    expect(meta._topics_router).toEqual(await stampOf(routers[1]!, topics[1]!, 1));
  });

  test("03.46 without meta, the same", async () => {
    const { topics, routers, meta } = await throughChain(undefined, "exactly_once", "exactly_once");
    expect(meta).toEqual({ _topics_router: await stampOf(routers[1]!, topics[1]!, 1) });
  });

  test.each(["[1.0]", '"\\u00e9"', "7"])(
    "03.46 a meta that is no object is wrapped once: %s",
    async (original) => {
      const { topics, routers, text, meta } = await throughChain(
        original,
        ...["exactly_once", "exactly_once", "exactly_once"],
      );
      expect(members(text).get("_topics_original_meta")).toBe(original);
      expect(Object.keys(meta).toSorted()).toEqual(["_topics_original_meta", "_topics_router"]);
      expect(meta._topics_router).toEqual(await stampOf(routers[2]!, topics[2]!, 1));
    },
  );

  test("03.46 an at_least_once router passes the stamp on as it is", async () => {
    const { topics, routers, meta, text } = await throughChain(
      '{"a":1.0}',
      ...["exactly_once", "at_least_once", "at_least_once"],
    );
    expect(meta._topics_router).toEqual(await stampOf(routers[0]!, topics[0]!, 1));
    expect(text).toBe(payloads(await topics[1]!.diff(), "meta")[0]!);
  });

  test("03.46 an exactly_once router behind an at_least_once one stamps", async () => {
    const { topics, routers, meta } = await throughChain("{}", "at_least_once", "exactly_once");
    expect(meta).toEqual({ _topics_router: await stampOf(routers[1]!, topics[1]!, 1) });
  });

  test("03.46 with nearly as many keys as allowed, the last stamp is the last router's", async () => {
    const keys = `{${range(1, 63).map((i) => `"k${i}":${i}`)}}`;
    const { topics, routers, meta } = await throughChain(keys, "exactly_once", "exactly_once");
    expect(meta._topics_router).toEqual(await stampOf(routers[1]!, topics[1]!, 1));
  });

  test("03.46 in a mirror, each side's copies have the stamp of the router that made them", async () => {
    const { topics, routers } = await newChain(server, 1, { ...exactly, allow_cycle: true });
    const [a, b] = topics as [Topic, Topic];
    const back = await newRouter(server, b, a, { ...exactly, allow_cycle: true });
    await a.append("once");
    await eventually(() => Promise.all([listedCount(server, a), listedCount(server, b)]), [5, 4]);
    const makers = async (topic: Topic) =>
      (await read(topic)).map(({ meta }) => [meta?._topics_router.router, meta?._topics_router.source_seq]);
    expect(await makers(a)).toEqual([[undefined, undefined], ...range(1, 4).map((seq) => [back.name, seq])]);
    expect(await makers(b)).toEqual(range(1, 4).map((seq) => [routers[0]!.name, seq]));
  });
});
