/**
 * A dest without room: the router waits, goes on by itself when there is room, and tells of what it could not copy.
 *
 * Tests look at a waiting dest through the list of topics, which brings nothing up to date. That a router does not
 * go on is seen by asking for its total, which brings it up to date as far as that is possible.
 */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { Dice } from "../support/dice.ts";
import {
  eventually,
  listed,
  listedCount,
  newRoute,
  newRouter,
  putRouter,
  type Route,
  range,
  read,
  story,
  type Tombstone,
  values,
  walk,
} from "../support/router.ts";
import { startServer } from "../support/server.ts";
import {
  absentTopic,
  column,
  newTopic,
  sharedServer,
  type Topic,
  timed,
  together,
  until,
} from "../support/topics.ts";

setDefaultTimeout(20_000);

const server = sharedServer();

/** How long a router that waits for room may need to notice it: twice 200 ms, and as much for a busy machine. */
const ROOM_MS = 800;

/** A route to a topic that refuses what does not fit. */
const newNarrowRoute = (dest: object, options: object = {}, source: object = {}): Promise<Route> =>
  newRoute(server, options, { source, dest: { discard: "reject", ...dest } });

const listedState = async (topic: Topic) => {
  const { head_seq, count } = await listed(server, topic);
  return { head_seq, count };
};

describe("a full dest", () => {
  test("03.33 takes the first records that fit; the others wait, and the source takes more", async () => {
    const { source, dest, router } = await newNarrowRoute({ cap_records: 3 });
    await source.append(1, 2, 3, 4, 5);
    expect(await values(dest)).toEqual([1, 2, 3]);
    expect(await router.total()).toBe(3);
    for (let i = 6; i <= 9; i++) expect((await source.append(i)).status).toBe(200);
    expect(await router.total()).toBe(3);
    expect(await values(dest)).toEqual([1, 2, 3]);
    expect((await dest.state()).body).toMatchObject({ head_seq: 3, count: 3, earliest_seq: 1 });
    expect((await source.state()).body).toMatchObject({ head_seq: 9, count: 9 });
  });

  test("03.33 the same with cap_bytes: the first that does not fit stops all behind it", async () => {
    const { source, dest, router } = await newNarrowRoute({ cap_bytes: 10 });
    await source.append("aa", "bb", "ccc", 1, 2);
    expect(await values(dest)).toEqual(["aa", "bb"]);
    expect([await router.total(), (await dest.state()).body.bytes]).toEqual([2, 8]);
  });

  test("03.33 may be filled exactly", async () => {
    const { source, dest } = await newNarrowRoute({ cap_records: 3, cap_bytes: 12 });
    await source.append("aa", "bb", "cc");
    expect((await dest.state()).body).toMatchObject({ count: 3, bytes: 12 });
  });

  test("03.33 refuses direct writes too, and they do not overtake by their size", async () => {
    const { source, dest } = await newNarrowRoute({ cap_bytes: 10 });
    await source.append("aaaaaa", "bbbb");
    expect(await values(dest)).toEqual(["aaaaaa"]);
    expect((await dest.write({ records: [{ data: "ccc" }] })).status).toBe(422);
    await dest.append(7);
    expect(await values(dest)).toEqual(["aaaaaa", 7]);
    await dest.erase({ before_seq: 2 });
    await eventually(() => listedCount(server, dest), 2);
    expect(await values(dest)).toEqual([7, "bbbb"]);
  });

  test("03.33 answers while it waits", async () => {
    const { source, dest, router } = await newNarrowRoute({ cap_records: 1 });
    await source.append(...range(1, 500));
    const { ms } = await timed(() =>
      Promise.all([dest.diff(), dest.state(), router.get(), source.append(501), router.get()]),
    );
    expect(ms).toBeLessThan(1000);
    expect((await source.diff({ from_seq: 500 })).body.head_seq).toBe(501);
  });

  test("03.33 holds only its own router", async () => {
    const { source, dest, router } = await newNarrowRoute({ cap_records: 2 });
    const open = await newTopic(server);
    const other = await newRouter(server, source, open);
    for (let i = 0; i < 10; i++) await source.append(...range(i * 50 + 1, i * 50 + 50));
    expect(await values(open)).toEqual(range(1, 500));
    expect([await router.total(), await other.total()]).toEqual([2, 500]);
    expect(await values(dest)).toEqual([1, 2]);
  });

  test("03.33 in the middle of a chain holds what is behind it", async () => {
    const { source, dest: middle } = await newNarrowRoute({ cap_records: 2 });
    const last = await newTopic(server);
    await newRouter(server, middle, last);
    await source.append(1, 2, 3, 4, 5);
    await eventually(() => listedCount(server, last), 2);
    await middle.erase({ before_seq: 3 });
    await eventually(() => listedCount(server, last), 4);
    await middle.erase({ before_seq: 5 });
    await eventually(() => listedCount(server, last), 5);
    expect(await values(last)).toEqual([1, 2, 3, 4, 5]);
    expect(await values(middle)).toEqual([5]);
  });

  test("03.33 with two routers from the same source takes each of their records once, in order", async () => {
    const { source, dest, router } = await newNarrowRoute({ cap_records: 3 });
    await putRouter(server, source.name, dest.name, {}, `${router.name}.2`);
    await source.append(...range(1, 6));
    const found: unknown[] = [];
    await until(
      async () => {
        const reply = await dest.diff();
        found.push(...column(reply, "data"));
        await dest.erase({ before_seq: reply.body.next_from_seq + 1 });
        return found.length;
      },
      (taken) => taken >= 12,
    );
    expect(found.toSorted()).toEqual(range(1, 6).flatMap((i) => [i, i]));
    expect(found.filter((value, i) => found.indexOf(value) === i)).toEqual(range(1, 6));
    expect(found.filter((value, i) => found.indexOf(value) !== i)).toEqual(range(1, 6));
  });

  test("03.33 is never passed by copies and direct writes together", async () => {
    const { source, dest, router } = await newNarrowRoute({ cap_records: 60 });
    const statuses: number[] = [];
    await together(4, async (writer) => {
      for (let i = 0; i < 20; i++) {
        if (writer < 2) await source.append(`copy ${writer}.${i}`);
        else statuses.push((await dest.write({ records: [{ data: `own ${writer}.${i}` }] })).status);
      }
    });
    const found = await values(dest);
    expect((await dest.state()).body).toMatchObject({ count: 60, head_seq: 60 });
    const own = statuses.filter((status) => status === 200).length;
    expect(statuses.filter((status) => status === 422)).toHaveLength(40 - own);
    expect(await router.total()).toBe(60 - own);
    const copies = found.filter((data) => String(data).startsWith("copy"));
    expect(copies).toEqual((await values(source)).slice(0, 60 - own));
  });

  test("03.33 is full for a copy with its stamp, whatever the record's own size", async () => {
    const { source, dest, router } = await newNarrowRoute({ cap_bytes: 20 }, { guarantee: "exactly_once" });
    await source.append(1, 2);
    expect(await router.total()).toBe(0);
    expect((await dest.state()).body).toMatchObject({ head_seq: 0, bytes: 0 });
    await router.put({ source: source.name, dest: dest.name });
    await eventually(() => listedCount(server, dest), 2, ROOM_MS);
    expect(await read(dest)).toMatchObject([{ data: 1 }, { data: 2 }]);
  });

  test("03.33 lets pass what the filter drops: no record waits that would not be copied", async () => {
    const { source, dest, router } = await newNarrowRoute({ cap_records: 1 }, { filter: "yes" });
    const write = (...tags: string[]) => source.write({ records: tags.map((tag) => ({ data: tag, tag })) });
    await write("no", "yes", "no", "yes", "no");
    expect(await router.total()).toBe(1);
    await source.erase({ match: "yes" });
    await write("no");
    await dest.put({});
    expect(await router.total()).toBe(1);
    expect(await values(dest)).toEqual(["yes"]);
  });
});

describe("room", () => {
  /** A dest that holds records 1 and 2 of 5 and has no room for more. */
  const fullRoute = async (options: object = {}, dest: object = {}) => {
    const route = await newNarrowRoute({ cap_records: 2, ...dest }, options);
    await route.source.write({ records: range(1, 5).map((i) => ({ data: i, tag: `t${i}`, node: `n${i}` })) });
    await eventually(() => listedCount(server, route.dest), 2);
    expect(await route.router.total()).toBe(2);
    return route;
  };

  test("03.34 by a delete before a seq: the waiting records come, in order, with nobody reading", async () => {
    const { source, dest, router } = await fullRoute();
    await dest.erase({ before_seq: 3 });
    await eventually(() => listedState(dest), { head_seq: 4, count: 2 }, ROOM_MS);
    expect(await values(dest)).toEqual([3, 4]);
    await dest.erase({ before_seq: 4 });
    await eventually(() => listedState(dest), { head_seq: 5, count: 2 }, ROOM_MS);
    expect(await values(dest)).toEqual([4, 5]);
    await dest.erase({ before_seq: 6 });
    await source.append(6);
    expect(await values(dest)).toEqual([6]);
    expect(await router.total()).toBe(6);
  });

  test("03.34 by a delete of a tag", async () => {
    const { dest } = await fullRoute();
    await dest.erase({ match: "t1" });
    await eventually(() => listedState(dest), { head_seq: 3, count: 2 }, ROOM_MS);
    expect(await values(dest)).toEqual([2, 3]);
  });

  test("03.34 by a larger cap", async () => {
    const { dest } = await fullRoute();
    await dest.put({ cap_records: 4, discard: "reject" });
    await eventually(() => listedState(dest), { head_seq: 4, count: 4 }, ROOM_MS);
    await dest.put({ discard: "reject" });
    await eventually(() => listedState(dest), { head_seq: 5, count: 5 }, ROOM_MS);
    expect(await values(dest)).toEqual(range(1, 5));
  });

  test('03.34 by discard:"old": the oldest make room', async () => {
    const { dest } = await fullRoute();
    await dest.put({ cap_records: 2, discard: "old" });
    await eventually(() => listedState(dest), { head_seq: 5, count: 2 }, ROOM_MS);
    expect(await story(dest)).toEqual(["cap 1-3", 4, 5]);
  });

  test("03.34 by an ack", async () => {
    const { dest } = await fullRoute({}, { type: "queue" });
    const post = (call: string, body: object) => server.send("POST", `${dest.path}/${call}`, body);
    const claimed = await post("claim", { node: "w", max: 9 });
    expect(claimed.body.claimed.map(({ data }: { data: number }) => data)).toEqual([1, 2]);
    await post("ack", { node: "w", seqs: [2] });
    await eventually(() => listedState(dest), { head_seq: 3, count: 2 }, ROOM_MS);
    const next = await post("claim", { node: "w", max: 9 });
    expect(next.body.claimed).toMatchObject([{ $seq: 3, data: 3, deliveries: 1 }]);
  });

  test("03.34 by the end of a TTL", async () => {
    const { source, dest, router } = await newNarrowRoute({ cap_records: 2, ttl_ms: 600 });
    await source.append(1, 2, 3);
    expect(await router.total()).toBe(2);
    await eventually(async () => (await listed(server, dest)).head_seq, 3, 600 + ROOM_MS);
    expect(column(await dest.diff({ from_seq: 2 }), "data")).toEqual([3]);
  });

  test("03.34 by a TTL that is set later", async () => {
    const { dest } = await fullRoute();
    await dest.put({ cap_records: 2, discard: "reject", ttl_ms: 1 });
    await eventually(async () => (await listed(server, dest)).head_seq, 5, 3 * ROOM_MS);
  });

  test("03.34 a record larger than the whole cap_bytes waits for another config, and all behind it", async () => {
    const { source, dest, router } = await newNarrowRoute({ cap_bytes: 10 });
    await source.append("aa", "larger than ten", "bb");
    expect(await values(dest)).toEqual(["aa"]);
    await dest.erase({ before_seq: 2 });
    expect(await router.total()).toBe(1);
    expect((await dest.state()).body).toMatchObject({ head_seq: 1, count: 0 });
    await dest.put({ cap_bytes: 100, discard: "reject" });
    await eventually(() => listedState(dest), { head_seq: 3, count: 2 }, ROOM_MS);
    expect(await values(dest)).toEqual(["larger than ten", "bb"]);
  });

  test("03.34 little by little brings thousands, in order", async () => {
    const { source, dest } = await newNarrowRoute({ cap_records: 100 });
    for (let i = 0; i < 4; i++) await source.append(...range(i * 500 + 1, i * 500 + 500));
    const found: unknown[] = [];
    while (found.length < 2000) {
      const reply = await dest.diff({ limit: 1000 });
      found.push(...column(reply, "data"));
      await dest.erase({ before_seq: reply.body.next_from_seq + 1 });
    }
    expect(found).toEqual(range(1, 2000));
  });

  test("03.13 a copy's time is that of its forwarding, and a TTL counts from it", async () => {
    const { source, dest } = await fullRoute();
    await Bun.sleep(2000);
    const room = Date.now();
    await dest.put({ discard: "reject", ttl_ms: 1900 });
    // The first two are older than the TTL; so are the others, but not their copies.
    expect(await story(dest)).toEqual(["ttl 1-2", 3, 4, 5]);
    for (const { $ts } of (await dest.diff({ from_seq: 2 })).body.records)
      expect($ts).toBeGreaterThanOrEqual(room);
    for (const { $ts } of await read(source)) expect($ts).toBeLessThan(room);
  });

  test("2.4 what waits goes by the router's options at its time: filter", async () => {
    const { source, dest, router } = await fullRoute();
    await router.put({ source: source.name, dest: dest.name, filter: "t5" });
    await dest.put({});
    await eventually(() => listedCount(server, dest), 3);
    expect(await values(dest)).toEqual([1, 2, 5]);
    expect(await router.total()).toBe(3);
  });

  test("2.4 what waits goes by the router's options at its time: preserve_node, preserve_tag, guarantee", async () => {
    const { source, dest, router } = await fullRoute();
    const options = { preserve_node: false, preserve_tag: false, guarantee: "exactly_once" };
    await router.put({ source: source.name, dest: dest.name, ...options });
    await dest.put({});
    await eventually(() => listedCount(server, dest), 5);
    const shapes = (await read(dest)).map((record) => [record.$node, record.$tag, "meta" in record]);
    expect(shapes).toEqual([
      ["n1", "t1", false],
      ["n2", "t2", false],
      [undefined, undefined, true],
      [undefined, undefined, true],
      [undefined, undefined, true],
    ]);
  });

  test("03.21 PUTs of a waiting router neither skip nor repeat", async () => {
    const { source, dest, router } = await fullRoute();
    for (let i = 0; i < 5; i++) await router.put({ source: source.name, dest: dest.name });
    expect(await router.total()).toBe(2);
    await dest.put({});
    await eventually(() => listedCount(server, dest), 5);
    expect(await values(dest)).toEqual(range(1, 5));
  });

  test("03.39 a deleted router forwards nothing of what waited", async () => {
    const { source, dest, router } = await fullRoute();
    await router.drop();
    await dest.put({});
    const witness = await newTopic(server);
    await newRouter(server, source, witness);
    await source.append(6);
    await eventually(() => listedCount(server, witness), 1);
    expect(await values(dest)).toEqual([1, 2]);
  });

  test("03.40 created again, it starts at the head", async () => {
    const { source, dest, router } = await fullRoute();
    await router.drop();
    const reply = await router.put({ source: source.name, dest: dest.name });
    expect(reply.status).toBe(201);
    expect(await router.total()).toBe(0);
    await source.append(6);
    await dest.put({});
    await eventually(() => listedCount(server, dest), 3);
    expect(await values(dest)).toEqual([1, 2, 6]);
    expect(await router.total()).toBe(1);
  });

  test("03.41 a deleted source takes what waited with it", async () => {
    const { source, dest, router } = await fullRoute();
    expect((await source.drop()).body.routers_removed).toEqual([router.name]);
    await source.put();
    await dest.put({});
    await source.append("another source");
    expect(await values(dest)).toEqual([1, 2]);
  });

  test("03.41 a deleted full dest is replaced by one that knows nothing of it", async () => {
    const { source, dest, router } = await fullRoute();
    expect((await dest.drop()).body.routers_removed).toEqual([router.name]);
    await newRouter(server, source, dest);
    await source.append(6);
    expect(await read(dest)).toMatchObject([{ $seq: 1, data: 6 }]);
  });
});

describe("the bytes of all topics", () => {
  /** A record of 100 bytes whose first character tells it from others. */
  const hundred = (mark: string) => mark.padEnd(98, ".");

  test("03.33 no room below TOPICS_MAX_TOTAL_BYTES holds a router like a full dest", async () => {
    await using own = await startServer({ TOPICS_MAX_TOTAL_BYTES: "400" });
    const [source, dest, other] = ["source", "dest", "other"].map((name) => absentTopic(own, name));
    await other!.append(hundred("x"));
    const router = await newRouter(own, source!, dest!);
    await source!.append(hundred("a"));
    expect(await values(dest!)).toEqual([hundred("a")]);
    await source!.append(hundred("b"));
    expect(await router.total()).toBe(1);
    const refused = await dest!.write({ records: [{ data: 1 }] });
    expect(refused).toMatchObject({ status: 429, body: { error: { detail: { limit: "max_total_bytes" } } } });
    // Room made anywhere is room.
    await other!.erase({ before_seq: 2 });
    await eventually(() => listedCount(own, dest!), 2, ROOM_MS);
    expect(await values(dest!)).toEqual([hundred("a"), hundred("b")]);
    expect(await router.total()).toBe(2);
  });

  test("03.33 copies never pass the limit, and deleting at the source lets them go on", async () => {
    await using own = await startServer({ TOPICS_MAX_TOTAL_BYTES: "500" });
    const [source, dest] = [absentTopic(own, "source"), absentTopic(own, "dest")];
    await newRouter(own, source, dest);
    const bytes = async () => (await listed(own, source)).bytes + (await listed(own, dest)).bytes;
    await source.append(hundred("a"), hundred("b"), hundred("c"));
    await eventually(() => listedCount(own, dest), 2);
    expect(await bytes()).toBe(500);
    await source.erase({ before_seq: 2 });
    await eventually(() => listedCount(own, dest), 3, ROOM_MS);
    expect(await bytes()).toBe(500);
    expect(await values(dest)).toEqual([hundred("a"), hundred("b"), hundred("c")]);
  });

  test('03.33 a dest with discard:"old" waits too', async () => {
    await using own = await startServer({ TOPICS_MAX_TOTAL_BYTES: "200" });
    const [source, dest] = [absentTopic(own, "source"), absentTopic(own, "dest")];
    await dest.put({ cap_records: 1 });
    const router = await newRouter(own, source, dest);
    await source.append("a");
    expect(await values(dest)).toEqual(["a"]);
    await source.append(hundred("b"));
    expect(await router.total()).toBe(1);
    await source.erase({ before_seq: 2 });
    expect(await values(dest)).toEqual(["a"]);
    await dest.erase({ before_seq: 2 });
    await eventually(() => listedCount(own, dest), 1, ROOM_MS);
    expect(await values(dest)).toEqual([hundred("b")]);
  });
});

describe('a dest with discard:"old"', () => {
  test("03.35 keeps the newest copies; readers are told, and the total counts all", async () => {
    const { source, dest, router } = await newRoute(server, {}, { dest: { cap_records: 3 } });
    for (let i = 1; i <= 10; i++) await source.append(i);
    expect(await story(dest)).toEqual(["cap 1-7", 8, 9, 10]);
    expect(await router.total()).toBe(10);
    expect((await dest.state()).body).toMatchObject({ head_seq: 10, earliest_seq: 8, count: 3 });
    expect(await values(source)).toEqual(range(1, 10));
  });

  test("03.35 the same for a batch, and by bytes", async () => {
    const { source, dest, router } = await newRoute(server, {}, { dest: { cap_bytes: 8 } });
    await source.append("aa", "bb", "cc", "longer than the cap", "dd");
    expect(await story(dest)).toEqual(["cap 1-4", "dd"]);
    expect(await router.total()).toBe(5);
  });

  test("03.35 evicted copies do not come back", async () => {
    const { source, dest, router } = await newRoute(
      server,
      { guarantee: "exactly_once" },
      { dest: { cap_records: 1 } },
    );
    await source.append(1, 2, 3);
    expect(await story(dest)).toEqual(["cap 1-2", 3]);
    await dest.put({});
    await router.put({ source: source.name, dest: dest.name, guarantee: "exactly_once" });
    await source.append(4);
    expect(await story(dest)).toEqual(["cap 1-2", 3, 4]);
  });
});

describe("records the source lost before their turn", () => {
  test("03.36 02.48 become holes that a reader is told of", async () => {
    const { source, dest, router } = await newRoute(server, {}, { source: { cap_records: 2 } });
    await source.append(0, 1, 2, 3, 4);
    const reply = await dest.diff({ from_seq: 0 });
    expect(reply.body.tombstone).toEqual({
      gap_from: 1,
      gap_to: 3,
      reason: "source_trim",
      missed_estimate: 3,
      earliest_seq: 4,
      head_seq: 5,
    });
    expect(reply.body).toMatchObject({
      records: [
        { $seq: 4, data: 3 },
        { $seq: 5, data: 4 },
      ],
      next_from_seq: 5,
      head_seq: 5,
      earliest_seq: 4,
      caught_up: true,
      lag: 0,
    });
    expect(await router.total()).toBe(5);
    expect((await dest.state()).body).toMatchObject({ count: 2, head_seq: 5, earliest_seq: 4, bytes: 2 });
    expect(await listed(server, dest)).toMatchObject({ count: 2, head_seq: 5, earliest_seq: 4 });
  });

  test.each([
    [0, ["source_trim 1-3", 3, 4]],
    [1, ["source_trim 2-3", 3, 4]],
    [2, ["source_trim 3-3", 3, 4]],
    [3, [3, 4]],
    [4, [4]],
    [5, []],
  ])("03.36 02.48 seen from %d: %j", async (from_seq, expected) => {
    const { source, dest } = await newRoute(server, {}, { source: { cap_records: 2 } });
    await source.append(0, 1, 2, 3, 4);
    expect(await story(dest, { from_seq })).toEqual(expected);
  });

  test("03.36 02.48 every read from below repeats the tombstone, with its estimate", async () => {
    const { source, dest } = await newRoute(server, {}, { source: { cap_bytes: 2 } });
    await source.append(1, 2, 3, 4, 5, 6);
    for (let i = 0; i < 2; i++) {
      const [first] = (await walk(dest, { from_seq: 1, limit: 1 })) as [Tombstone];
      expect(first).toEqual({
        gap_from: 2,
        gap_to: 4,
        reason: "source_trim",
        missed_estimate: 3,
        earliest_seq: 5,
        head_seq: 6,
      });
    }
  });

  test("03.36 02.48 in the middle of the dest hide nothing that is older", async () => {
    const { source, dest, router } = await newRoute(server, {}, { source: { cap_records: 2 } });
    await dest.append("own 1", "own 2");
    await source.append(0, 1, 2, 3, 4);
    const whole = ["own 1", "own 2", "source_trim 3-5", 3, 4];
    expect(await story(dest)).toEqual(whole);
    expect(await story(dest, { limit: 1 })).toEqual(whole);
    expect(await story(dest, { from_seq: 1 })).toEqual(whole.slice(1));
    expect(await story(dest, { from_seq: 2 })).toEqual(whole.slice(2));
    expect(await story(dest, { from_seq: 3 })).toEqual(["source_trim 4-5", 3, 4]);
    expect(await story(dest, { from_seq: 5 })).toEqual([3, 4]);
    expect((await dest.state()).body).toMatchObject({ count: 4, head_seq: 7, earliest_seq: 1 });
    expect(await router.total()).toBe(5);
  });

  test("03.36 02.48 in the middle are told with the right numbers", async () => {
    const { source, dest } = await newRoute(server, {}, { source: { cap_records: 2 } });
    await dest.append("own 1", "own 2");
    await source.append(0, 1, 2, 3, 4);
    const first = await dest.diff({ from_seq: 0 });
    expect(column(first, "data").slice(0, 2)).toEqual(["own 1", "own 2"]);
    expect(first.body.tombstone).toBeNull();
    const { body } = await dest.diff({ from_seq: 2 });
    expect(body.tombstone).toEqual({
      gap_from: 3,
      gap_to: 5,
      reason: "source_trim",
      missed_estimate: 3,
      earliest_seq: 6,
      head_seq: 7,
    });
    expect(body).toMatchObject({ next_from_seq: 7, caught_up: true, lag: 0 });
  });

  test("03.36 02.48 a reader at the head who waits is told of a hole and what follows", async () => {
    const { source, dest } = await newRoute(server, {}, { source: { cap_records: 1 } });
    await dest.append("own");
    const poll = dest.diff({ from_seq: 1, wait_ms: 20_000 });
    await until(
      () => dest.state(),
      ({ body }) => body.last_read_ts !== null,
    );
    await source.append(0, 1, 2);
    expect((await poll).body).toMatchObject({
      records: [{ $seq: 4, data: 2 }],
      tombstone: { gap_from: 2, gap_to: 3, reason: "source_trim" },
      next_from_seq: 4,
    });
  });

  test("03.36 02.48 several times leave several holes, with live records between", async () => {
    const { source, dest, router } = await newRoute(server, {}, { source: { cap_records: 1 } });
    for (let i = 0; i < 4; i++) {
      await source.append(`lost ${i}`, `lost too ${i}`, i);
      expect((await dest.state()).body.head_seq).toBe(4 * i + 3);
      await dest.append(`own ${i}`);
    }
    const expected = range(0, 3).flatMap((i) => [`source_trim ${4 * i + 1}-${4 * i + 2}`, i, `own ${i}`]);
    expect(await story(dest)).toEqual(expected);
    expect(await story(dest, { limit: 1 })).toEqual(expected);
    expect(await router.total()).toBe(12);
    expect((await dest.state()).body).toMatchObject({ count: 8, head_seq: 16, earliest_seq: 3 });
  });

  test("03.36 02.48 at the end of the dest: nothing follows, and the reader is caught up", async () => {
    const { source, dest, router } = await newRoute(server, {}, { source: { cap_bytes: 5 } });
    await source.append("longer than the cap");
    const { body } = await dest.diff();
    expect(body).toMatchObject({
      records: [],
      next_from_seq: 1,
      head_seq: 1,
      earliest_seq: 2,
      caught_up: true,
      tombstone: {
        gap_from: 1,
        gap_to: 1,
        reason: "source_trim",
        missed_estimate: 1,
        earliest_seq: 2,
        head_seq: 1,
      },
    });
    expect(await router.total()).toBe(1);
    await source.append(1);
    expect(await story(dest)).toEqual(["source_trim 1-1", 1]);
  });

  test("03.36 02.48 at the end, behind live records", async () => {
    const { source, dest } = await newRoute(server, {}, { source: { cap_bytes: 5 } });
    await source.append(1);
    expect(await values(dest)).toEqual([1]);
    await source.append("longer than the cap");
    expect(await story(dest)).toEqual([1, "source_trim 2-2"]);
    expect(await story(dest, { from_seq: 1 })).toEqual(["source_trim 2-2"]);
    expect((await dest.state()).body).toMatchObject({ count: 1, head_seq: 2, earliest_seq: 1 });
    await dest.append("own");
    expect(await story(dest)).toEqual([1, "source_trim 2-2", "own"]);
  });

  test("03.36 count whatever the filter would have said", async () => {
    const { source, dest, router } = await newRoute(
      server,
      { filter: "yes" },
      { source: { cap_records: 2 } },
    );
    await source.write({ records: ["no", "no", "yes", "no", "yes"].map((tag, i) => ({ data: i, tag })) });
    expect(await story(dest)).toEqual(["source_trim 1-3", 4]);
    expect(await router.total()).toBe(4);
  });

  test("03.36 leave their holes in every dest", async () => {
    const { source, dest } = await newRoute(server, {}, { source: { cap_records: 1 } });
    const other = await newTopic(server);
    await newRouter(server, source, other, { guarantee: "exactly_once" });
    await source.append(0, 1);
    expect([await story(dest), await story(other)]).toEqual([
      ["source_trim 1-1", 1],
      ["source_trim 1-1", 1],
    ]);
  });

  test("03.36 are no records: a second router copies what lives around the hole", async () => {
    const { source, dest } = await newRoute(server, {}, { source: { cap_records: 1 } });
    const last = await newTopic(server);
    await newRouter(server, dest, last);
    await source.append(0, 1);
    await eventually(() => listedCount(server, last), 1);
    await source.append(2);
    await eventually(() => listedCount(server, last), 2);
    const told = await story(last);
    expect(told.filter((step) => typeof step === "number")).toEqual([1, 2]);
  });

  test("03.36 in a queue are skipped: the jobs around them are claimed", async () => {
    const { source, dest } = await newRoute(
      server,
      {},
      { source: { cap_records: 2 }, dest: { type: "queue" } },
    );
    await source.append(0, 1, 2, 3, 4);
    const { body } = await server.send("POST", `${dest.path}/claim`, { node: "w", max: 9 });
    expect(body.claimed).toMatchObject([
      { $seq: 4, data: 3 },
      { $seq: 5, data: 4 },
    ]);
    expect((await dest.state()).body).toMatchObject({ count: 2, queue: { ready: 0, in_flight: 2 } });
  });

  test("P6 03.36 holes take no room below the dest's cap", async () => {
    const { source, dest } = await newNarrowRoute({ cap_records: 4 }, {}, { cap_records: 2 });
    await source.append(0, 1, 2, 3, 4);
    expect((await dest.state()).body.count).toBe(2);
    await dest.append("own 1", "own 2");
    expect((await dest.write({ records: [{ data: 1 }] })).status).toBe(422);
    expect(await story(dest)).toEqual(["source_trim 1-3", 3, 4, "own 1", "own 2"]);
  });

  test("P6 03.36 nor do they push live records out", async () => {
    const { source, dest } = await newRoute(
      server,
      {},
      { source: { cap_records: 1 }, dest: { cap_records: 3 } },
    );
    await dest.append("own 1", "own 2");
    await source.append(...range(1, 20));
    expect(await story(dest)).toEqual(["own 1", "own 2", "source_trim 3-21", 20]);
  });

  test("03.36 while the router waited: holes first, then what is left, in order", async () => {
    const { source, dest, router } = await newNarrowRoute({ cap_records: 1 }, {}, { cap_records: 2 });
    await source.append(1);
    expect(await values(dest)).toEqual([1]);
    await source.append(2, 3);
    expect(await router.total()).toBe(1);
    await source.append(4, 5);
    await dest.put({});
    await eventually(() => listedCount(server, dest), 3);
    expect(await story(dest)).toEqual([1, "source_trim 2-3", 4, 5]);
    expect(await router.total()).toBe(5);
  });

  test("03.36 the same by a TTL of the source", async () => {
    const { source, dest, router } = await newNarrowRoute({ cap_records: 1 }, {}, { ttl_ms: 50 });
    await dest.append("in the way");
    await source.append(1, 2, 3);
    await until(
      () => source.state(),
      ({ body }) => body.count === 0,
    );
    await source.put({});
    await source.append(4);
    await dest.put({});
    await eventually(() => listedCount(server, dest), 2);
    expect(await story(dest)).toEqual(["in the way", "source_trim 2-4", 4]);
    expect(await router.total()).toBe(4);
  });

  test("03.37 what was deleted there leaves no hole beside those that do", async () => {
    const { source, dest, router } = await newNarrowRoute({ cap_records: 1 });
    await dest.append("in the way");
    await source.write({
      records: ["gone", "lost", "gone", "lost", "kept"].map((tag) => ({ data: tag, tag })),
    });
    expect(await router.total()).toBe(0);
    await source.erase({ match: "gone" });
    await source.put({ cap_records: 1 });
    await dest.put({});
    await eventually(() => listedCount(server, dest), 2);
    expect(await story(dest)).toEqual(["in the way", "source_trim 2-3", "kept"]);
  });

  test("6.4 a dest that lost records there too says so: cap", async () => {
    const { source, dest } = await newRoute(
      server,
      {},
      { source: { cap_records: 2 }, dest: { cap_records: 1 } },
    );
    await source.append(0, 1, 2, 3, 4);
    expect(await story(dest)).toEqual(["cap 1-4", 4]);
    expect(await story(dest, { from_seq: 3 })).toEqual(["cap 4-4", 4]);
  });

  test("6.4 a dest that lost records there too says so: ttl", async () => {
    const { source, dest } = await newRoute(server, {}, { source: { cap_records: 2 } });
    await source.append(0, 1, 2, 3, 4);
    expect((await dest.state()).body.count).toBe(2);
    await dest.put({ ttl_ms: 1 });
    await until(
      () => dest.state(),
      ({ body }) => body.count === 0,
    );
    await dest.put({});
    await dest.append("own");
    expect(await story(dest)).toEqual(["ttl 1-5", "own"]);
  });

  test("6.4 a dest that lost records there too says so: mixed", async () => {
    const { source, dest } = await newRoute(
      server,
      {},
      { source: { cap_records: 3 }, dest: { cap_records: 2 } },
    );
    await source.append(0, 1, 2, 3, 4);
    expect(await story(dest)).toEqual(["cap 1-3", 3, 4]);
    await dest.put({ ttl_ms: 1 });
    await until(
      () => dest.state(),
      ({ body }) => body.count === 0,
    );
    await dest.put({});
    await dest.append("own");
    expect(await story(dest)).toEqual(["mixed 1-5", "own"]);
  });

  test("6.4 older live records that a cap takes later join the gap", async () => {
    const { source, dest } = await newRoute(server, {}, { source: { cap_records: 2 } });
    await dest.append("own 1", "own 2");
    await source.append(0, 1, 2, 3, 4);
    expect(await story(dest)).toEqual(["own 1", "own 2", "source_trim 3-5", 3, 4]);
    await dest.put({ cap_records: 3 });
    expect(await story(dest)).toEqual(["cap 1-1", "own 2", "source_trim 3-5", 3, 4]);
    await dest.put({ cap_records: 2 });
    expect(await story(dest)).toEqual(["cap 1-5", 3, 4]);
  });

  test("6.4 older records that were deleted leave the hole to be told", async () => {
    const { source, dest } = await newRoute(server, {}, { source: { cap_records: 2 } });
    await dest.append("own 1", "own 2");
    await source.append(0, 1, 2, 3, 4);
    await dest.erase({ before_seq: 3 });
    expect(await story(dest, { from_seq: 2 })).toEqual(["source_trim 3-5", 3, 4]);
    const [first, ...rest] = (await walk(dest)) as [Tombstone, ...unknown[]];
    expect(first).toMatchObject({ reason: "source_trim", gap_to: 5, earliest_seq: 6 });
    expect(rest).toMatchObject([{ data: 3 }, { data: 4 }]);
  });

  test("6.4 deleting the records behind a hole leaves the hole to be told", async () => {
    const { source, dest } = await newRoute(server, {}, { source: { cap_records: 2 } });
    await dest.append("own");
    await source.append(0, 1, 2, 3, 4);
    expect((await dest.state()).body.count).toBe(3);
    await dest.erase({ before_seq: 1000 });
    await source.append(5);
    const told = await story(dest, { from_seq: 1 });
    expect(told).toEqual(["source_trim 2-4", 5]);
  });
});

describe("many turns", () => {
  const seed = Number(process.env.TEST_SEED ?? crypto.getRandomValues(new Uint32Array(1))[0]);

  test("03.33 03.36 the n-th record of the source is the n-th of the dest, or a hole, whatever stood in its way", async () => {
    console.info(`TEST_SEED=${seed}`);
    const { below } = new Dice(seed);
    const { source, dest, router } = await newNarrowRoute({ cap_records: 2 }, {}, { cap_records: 4 });
    let [written, from] = [0, 0];
    const found = new Map<number, unknown>();
    const follow = async () => {
      for (const step of await walk(dest, { from_seq: from, limit: 1 + below(4) })) {
        if ("gap_from" in step) {
          expect(step).toMatchObject({ gap_from: from + 1, reason: "source_trim" });
          for (const seq of range(step.gap_from, step.gap_to)) found.set(seq, "hole");
          from = step.gap_to;
        } else {
          expect(step.$seq).toBe(from + 1);
          found.set(step.$seq, step.data);
          from = step.$seq;
        }
      }
    };
    const write = (count: number) => {
      written += count;
      return source.append(...range(written - count + 1, written));
    };
    const turns = [
      () => write(1 + below(6)),
      () => write(1),
      follow,
      () => dest.erase({ before_seq: from + 1 }),
      () => dest.put({ discard: "reject", cap_records: below(5) }),
      () => source.put({ cap_records: 1 + below(5) }),
      () => router.put({ source: source.name, dest: dest.name, guarantee: "exactly_once" }),
    ];
    for (let i = 0; i < 400; i++) await turns[below(turns.length)]!();
    await dest.put({});
    await eventually(async () => (await listed(server, dest)).head_seq, written);
    await follow();
    expect([...found.keys()]).toEqual(range(1, written));
    const copies = [...found].filter(([, data]) => data !== "hole");
    expect(copies.map(([seq]) => seq)).toEqual(copies.map(([, data]) => data as number));
    expect(await router.total()).toBe(written);
    // Otherwise the test has shown little.
    expect([copies.length > 20, written - copies.length > 20]).toEqual([true, true]);
  });
});
