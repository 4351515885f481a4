/** Graphs of routers: one source for each dest, rings that are refused or allowed, and what goes round in them. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import {
  eventually,
  listedCount,
  newChain,
  newRouter,
  type Router,
  range,
  read,
  routerNamed,
  story,
  values,
} from "../support/router.ts";
import { type Reply, startServer } from "../support/server.ts";
import { absentTopic, newTopic, sharedServer, type Topic, together } from "../support/topics.ts";

setDefaultTimeout(20_000);

const server = sharedServer();

const newTopics = (n: number) => together(n, () => newTopic(server));

const between = (source: Topic, dest: Topic): Router => routerNamed(server, `${source.name}->${dest.name}`);

const put = (source: Topic, dest: Topic, options: object = {}): Promise<Reply> =>
  between(source, dest).put({ source: source.name, dest: dest.name, ...options });

function expectCycle(reply: Reply, ...topics: Topic[]) {
  expect(reply).toMatchObject({ status: 409, body: { error: { code: "router_cycle" } } });
  expect(reply.body.error.detail).toEqual({ cycle: topics.map(({ name }) => name) });
}

function expectFanIn(reply: Reply, dest: Topic) {
  expect(reply).toMatchObject({ status: 409, body: { error: { code: "topic_exists_incompatible" } } });
  expect(reply.body.error.detail).toEqual({ topic: dest.name, reason: "router_dest_fan_in" });
}

/** A->B and B->A. */
async function newMirror(toB: object = {}, toA: object = {}) {
  const [a, b] = await newTopics(2);
  const there = await newRouter(server, a!, b!, { allow_cycle: true, ...toB });
  const back = await newRouter(server, b!, a!, { allow_cycle: true, ...toA });
  return { a: a!, b: b!, there, back };
}

/** Brings the routers up to date until five more rounds of it change nothing. Fails if that does not come. */
async function settled(...routers: Router[]): Promise<number[]> {
  let totals: number[] = [];
  let same = 0;
  for (let rounds = 0; same < 5; rounds++) {
    if (rounds > 60) throw new Error(`no end in sight at ${totals}`);
    const now: number[] = [];
    for (const router of routers) now.push(await router.total());
    same = Bun.deepEquals(now, totals) ? same + 1 : 0;
    totals = now;
  }
  return totals;
}

describe("fan-in", () => {
  test("03.17 a dest has one source, and its router may be refused with any name", async () => {
    const [a, b, dest] = await newTopics(3);
    await newRouter(server, a!, dest!);
    expectFanIn(await put(b!, dest!), dest!);
    expectFanIn(await put(b!, dest!, { allow_cycle: true }), dest!);
    expect((await between(b!, dest!).get()).status).toBe(404);
  });

  test("03.17 a second name for the same two topics is no second source", async () => {
    const [a, dest] = await newTopics(2);
    await newRouter(server, a!, dest!);
    await newRouter(server, a!, dest!, {}, `second-${a!.name}`);
  });

  test("03.17 a dest may be a source, and a source may have many dests", async () => {
    const [a, b, c, d] = await newTopics(4);
    await newRouter(server, a!, b!);
    await newRouter(server, b!, c!);
    await newRouter(server, a!, d!);
    await a!.append(1);
    await eventually(() => values(c!), [1]);
    expect(await values(d!)).toEqual([1]);
  });

  test("03.17 a dest takes direct writes", async () => {
    const [a, dest] = await newTopics(2);
    await newRouter(server, a!, dest!);
    await a!.append("copy 1");
    expect(await values(dest!)).toEqual(["copy 1"]);
    await dest!.append("own");
    await a!.append("copy 2");
    expect(await values(dest!)).toEqual(["copy 1", "own", "copy 2"]);
  });

  test("03.17 it is looked at before a cycle", async () => {
    const [a, b, c, x] = await newTopics(4);
    await newRouter(server, x!, a!);
    await newRouter(server, a!, b!);
    await newRouter(server, b!, c!);
    expectFanIn(await put(c!, a!), a!);
  });

  test("03.17 without its last router a dest is free for another source", async () => {
    const [a, b, dest] = await newTopics(3);
    const first = await newRouter(server, a!, dest!);
    const second = await newRouter(server, a!, dest!, {}, `second-${a!.name}`);
    await first.drop();
    expectFanIn(await put(b!, dest!), dest!);
    await second.drop();
    expect((await put(b!, dest!)).status).toBe(201);
    await a!.append("not this");
    await b!.append("but this");
    expect(await values(dest!)).toEqual(["but this"]);
  });

  test("03.17 without its source's topic a dest is free for another source", async () => {
    const [a, b, dest] = await newTopics(3);
    await newRouter(server, a!, dest!);
    await a!.drop();
    expect((await put(b!, dest!)).status).toBe(201);
  });

  test("03.17 of PUTs with different sources at once, one wins", async () => {
    const [dest, ...sources] = await newTopics(6);
    const replies = await Promise.all(sources.map((source) => put(source, dest!)));
    expect(replies.map(({ status }) => status).toSorted()).toEqual([201, 409, 409, 409, 409]);
  });
});

describe("a ring", () => {
  test("03.22 of two is refused", async () => {
    const [a, b] = await newTopics(2);
    await newRouter(server, a!, b!);
    expectCycle(await put(b!, a!), b!, a!, b!);
    expect((await between(b!, a!).get()).status).toBe(404);
  });

  test("03.22 of three is refused, and named from the requested source round to it", async () => {
    const [a, b, c] = await newTopics(3);
    await newRouter(server, a!, b!);
    await newRouter(server, b!, c!);
    expectCycle(await put(c!, a!), c!, a!, b!, c!);
    expect((await between(c!, a!).get()).status).toBe(404);
    await c!.append("stays");
    expect((await a!.diff()).body.head_seq).toBe(0);
  });

  test("03.22 of many is refused, whatever hangs on it", async () => {
    const { topics } = await newChain(server, 12);
    const [side, deeper] = await newTopics(2);
    await newRouter(server, topics[3]!, side!);
    await newRouter(server, side!, deeper!);
    expectCycle(await put(topics[12]!, topics[0]!), topics[12]!, ...topics);
    expect((await put(deeper!, absentTopic(server))).status).toBe(201);
  });

  test("03.22 counts a router whatever its filter", async () => {
    const [a, b] = await newTopics(2);
    await newRouter(server, a!, b!, { filter: "never" });
    expectCycle(await put(b!, a!, { filter: "other" }), b!, a!, b!);
  });

  test("03.23 with allow_cycle is accepted, and only who closes it needs that", async () => {
    const [a, b, c] = await newTopics(3);
    await newRouter(server, a!, b!);
    await newRouter(server, b!, c!);
    const reply = await put(c!, a!, { allow_cycle: true });
    expect(reply).toMatchObject({ status: 201, body: { created: true, allow_cycle: true } });
    expect((await between(c!, a!).get()).body.allow_cycle).toBe(true);
    expect((await between(a!, b!).get()).body.allow_cycle).toBe(false);
  });

  test("03.23 that others were allowed to come near does not allow it", async () => {
    const [a, b, c] = await newTopics(3);
    await newRouter(server, a!, b!, { allow_cycle: true });
    await newRouter(server, b!, c!, { allow_cycle: true });
    expectCycle(await put(c!, a!), c!, a!, b!, c!);
  });

  test("03.24 every member needs the flag again, or stays as it was", async () => {
    const [a, b, c] = await newTopics(3);
    await newRouter(server, a!, b!);
    await newRouter(server, b!, c!, { allow_cycle: true });
    await newRouter(server, c!, a!, { allow_cycle: true, filter: "x*" });
    expectCycle(await put(a!, b!, { filter: "new" }), a!, b!, c!, a!);
    expectCycle(await put(b!, c!, { filter: "new" }), b!, c!, a!, b!);
    expectCycle(await put(c!, a!), c!, a!, b!, c!);
    const filters = await Promise.all(
      [between(a!, b!), between(b!, c!), between(c!, a!)].map(async (router) => {
        const { body } = await router.get();
        return [body.filter, body.allow_cycle];
      }),
    );
    expect(filters).toEqual([
      [null, false],
      [null, true],
      [["tag", "Glob", "x*"], true],
    ]);
    const again = await put(a!, b!, { allow_cycle: true, filter: "new" });
    expect(again).toMatchObject({ status: 200, body: { created: false, allow_cycle: true } });
  });

  test("03.24 a plain router is never a cycle with itself", async () => {
    const { topics } = await newChain(server, 3);
    for (const i of [0, 1, 2]) {
      const reply = await put(topics[i]!, topics[i + 1]!);
      expect(reply).toMatchObject({ status: 200, body: { created: false } });
    }
  });

  test("03.24 a router that only touches a ring needs no flag, also again", async () => {
    const { a, b } = await newMirror();
    const c = await newTopic(server);
    expect((await put(a, c)).status).toBe(201);
    expect((await put(a, c)).status).toBe(200);
    expectCycle(await put(a, b), a, b, a);
  });

  test("03.24 once it is open, its members need no flag", async () => {
    const { a, b, back } = await newMirror();
    await back.drop();
    expect((await put(a, b)).status).toBe(200);
    expectCycle(await put(b, a), b, a, b);
  });

  test("03.22 of PUTs that would close it together, one is refused", async () => {
    const [a, b] = await newTopics(2);
    const replies = await Promise.all([put(a!, b!), put(b!, a!)]);
    expect(replies.map(({ status }) => status).toSorted()).toEqual([201, 409]);
  });
});

describe("a mirror", () => {
  test("03.25 one write comes to its end: 5 here, 4 there, and each keeps its node", async () => {
    const { a, b, there, back } = await newMirror();
    await a.write({ records: [{ data: "once", node: "X", tag: "t" }] });
    await eventually(() => Promise.all([listedCount(server, a), listedCount(server, b)]), [5, 4]);
    expect(await settled(there, back)).toEqual([4, 4]);
    const copy = { $node: "X", $tag: "t", data: "once" };
    expect(await read(a)).toMatchObject(range(1, 5).map(($seq) => ({ ...copy, $seq })));
    expect(await read(b)).toMatchObject(range(1, 4).map(($seq) => ({ ...copy, $seq })));
  });

  test("03.25 a batch does so too, and with both guarantees", async () => {
    const { a, b, there, back } = await newMirror(
      { guarantee: "exactly_once" },
      { guarantee: "exactly_once" },
    );
    await a.append(1, 2, 3);
    expect(await settled(there, back)).toEqual([12, 12]);
    const times = async (topic: Topic) => {
      const found = await values(topic);
      return [1, 2, 3].map((value) => found.filter((one) => one === value).length);
    };
    expect([await times(a), await times(b)]).toEqual([
      [5, 5, 5],
      [4, 4, 4],
    ]);
  });

  test("03.25 a ring of three ends after eight copies", async () => {
    const topics = await newTopics(3);
    const [a, b, c] = topics as [Topic, Topic, Topic];
    const routers = [
      await newRouter(server, a, b),
      await newRouter(server, b, c),
      await newRouter(server, c, a, { allow_cycle: true }),
    ];
    await a.append("once");
    await eventually(() => settled(...routers), [3, 3, 2]);
    expect(await Promise.all(topics.map(values))).toEqual(Array(3).fill(["once", "once", "once"]));
  });

  test("03.26 a reader with the writer's node gets nothing back, and is caught up", async () => {
    const { a, b, there, back } = await newMirror();
    await a.write({ node: "X", records: [{ data: 1 }] });
    await settled(there, back);
    for (const [topic, head] of [
      [a, 5],
      [b, 4],
    ] as const) {
      expect((await topic.diff({ node: "X" })).body).toMatchObject({
        records: [],
        next_from_seq: head,
        head_seq: head,
        caught_up: true,
        lag: 0,
      });
      expect((await topic.diff({ node: "Y" })).body.records).toHaveLength(head);
    }
  });

  test("03.26 two masters: each reads what the other wrote, and not what it wrote itself", async () => {
    const { a, b, there, back } = await newMirror();
    await a.write({ node: "X", records: [{ data: "from X" }] });
    await b.write({ node: "Y", records: [{ data: "from Y" }] });
    await settled(there, back);
    const read = async (topic: Topic, node: string) => {
      const { records } = (await topic.diff({ node })).body;
      return [...new Set(records.map(({ data }: { data: string }) => data))];
    };
    expect([await read(a, "X"), await read(b, "Y")]).toEqual([["from Y"], ["from X"]]);
  });

  test("03.26 without preserve_node the copies come back to the writer", async () => {
    const { a, there, back } = await newMirror({ preserve_node: false });
    await a.write({ node: "X", records: [{ data: 1 }] });
    await settled(there, back);
    const { body } = await a.diff({ node: "X" });
    expect(body.records).toHaveLength(4);
    for (const record of body.records) expect(record).not.toHaveProperty("$node");
  });
});

describe("a mirror that loses records", () => {
  test("03.25 03.36 comes to its end when a cap takes records before their turn", async () => {
    // What never ends must not go on beside the other tests.
    await using own = await startServer();
    const [a, b] = [await newTopic(own, { cap_records: 2 }), await newTopic(own)];
    const there = await newRouter(own, a, b, { allow_cycle: true });
    const back = await newRouter(own, b, a, { allow_cycle: true });
    await a.append(1, 2, 3, 4, 5);
    const totals = await settled(there, back);
    const heads = () => Promise.all([a, b].map(async (topic) => (await topic.state()).body.head_seq));
    const before = await heads();
    // None of the five records, live or lost, comes to a topic more than five times.
    expect(Math.max(...before)).toBeLessThanOrEqual(5 * 5);
    for (let i = 0; i < 5; i++) expect(await settled(there, back)).toEqual(totals);
    expect(await heads()).toEqual(before);
    expect((await a.append("still alive")).status).toBe(200);
    await eventually(async () => (await story(b)).includes("still alive"), true);
  });

  test("03.25 03.33 comes to its end when one side is full, and goes on when it is not", async () => {
    const [a, b] = [await newTopic(server), await newTopic(server, { cap_records: 1, discard: "reject" })];
    const there = await newRouter(server, a, b, { allow_cycle: true });
    const back = await newRouter(server, b, a, { allow_cycle: true });
    await a.append("once");
    // The copy in B is back in A, and the next one does not fit into B.
    expect(await settled(there, back)).toEqual([1, 1]);
    expect([(await values(a)).length, (await values(b)).length]).toEqual([2, 1]);
    await b.put({});
    await eventually(() => Promise.all([listedCount(server, a), listedCount(server, b)]), [5, 4]);
  });
});

describe("hops", () => {
  test("03.27 in a row of ten routers a record gets eight topics far", async () => {
    const { topics, routers } = await newChain(server, 10);
    await topics[0]!.append("from the start");
    await eventually(() => listedCount(server, topics[8]!), 1);
    // A record that starts later passes the place where the first one ended.
    await topics[5]!.append("from the middle");
    await eventually(() => listedCount(server, topics[10]!), 1);
    const found = await Promise.all(topics.map(values));
    const [start, middle] = ["from the start", "from the middle"];
    expect(found).toEqual([...Array(5).fill([start]), ...Array(4).fill([start, middle]), [middle], [middle]]);
    expect(await routers[8]!.total()).toBe(1);
    expect(await routers[9]!.total()).toBe(1);
  });

  test("03.27 a record that has used up its hops leaves no gap", async () => {
    const { topics } = await newChain(server, 9);
    await topics[0]!.append(1, 2);
    await topics[1]!.append(3);
    await eventually(() => listedCount(server, topics[9]!), 1);
    expect(await read(topics[9]!)).toMatchObject([{ $seq: 1, data: 3 }]);
    expect((await topics[9]!.state()).body).toMatchObject({ head_seq: 1, earliest_seq: 1, count: 1 });
  });

  test("03.27 written again, a copy starts anew", async () => {
    const { topics } = await newChain(server, 9);
    await topics[0]!.append("first life");
    await eventually(() => listedCount(server, topics[8]!), 1);
    const [copy] = await read(topics[8]!);
    await topics[8]!.append(`${copy!.data}, second life`);
    expect(await values(topics[9]!)).toEqual(["first life, second life"]);
  });

  test("03.27 hops are shown nowhere", async () => {
    const { topics } = await newChain(server, 2);
    await topics[0]!.append(1);
    await eventually(() => listedCount(server, topics[2]!), 1);
    const [record] = await read(topics[2]!);
    expect(Object.keys(record!).toSorted()).toEqual(["$seq", "$ts", "data"]);
  });
});
