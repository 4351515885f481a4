/**
 * Routers across restarts: definitions, positions and copies after a clean stop, after a kill, and after many
 * kills under load.
 *
 * A copy is a record like any other: once a reader has seen it, it stays at its seq as it was.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import {
  type Entry,
  eventually,
  listedCount,
  newChain,
  newRoute,
  newRouter,
  plain,
  putRouter,
  type Route,
  type Router,
  range,
  read,
  routerNamed,
  story,
  topicsNamed,
  values,
  walk,
} from "../support/router.ts";
import { type SpawnedServer, spawnServer, temporaryDirectory } from "../support/spawn.ts";
import { absentTopic, column, newTopic, type Topic, timed, together } from "../support/topics.ts";

setDefaultTimeout(30_000);

const guarantees = ["at_least_once", "exactly_once"];
const exactly = { guarantee: "exactly_once" };

/** Ends the server the given way and starts another one over its directory. */
async function restart(server: SpawnedServer, signal: NodeJS.Signals): Promise<SpawnedServer> {
  const code = await server.stop(signal);
  if (signal === "SIGTERM") expect(code).toBe(0);
  return spawnServer({ dir: server.dir });
}

/** All that readers can tell of a topic, without the traces of reading. */
async function seen(topic: Topic) {
  const steps = await walk(topic);
  const { performance, last_read_ts, effective_priority, ...state } = (await topic.state()).body;
  return { steps, state };
}

/** A router's whole answer but for the time it took. */
async function shown(server: SpawnedServer, name: string) {
  const { performance, ...body } = (await routerNamed(server, name).get()).body;
  return body;
}

/** Topics, routers and routes as another server has them. */
const again = (server: SpawnedServer, { name }: Topic): Topic => absentTopic(server, name);
const againAll = (server: SpawnedServer, topics: readonly Topic[]) =>
  topics.map((topic) => again(server, topic));
const routeAgain = (server: SpawnedServer, { source, dest, router }: Route): Route => ({
  source: again(server, source),
  dest: again(server, dest),
  router: routerNamed(server, router.name),
});

/** A story with a restart in the middle, where it yields and is given the new server. It keeps to topics of its own. */
type Scenario = (server: SpawnedServer) => AsyncGenerator<void, void, SpawnedServer>;

/** Tests the scenarios on one server, so that one restart does for all. Those that must be under way come last. */
function acrossRestart(signal: NodeJS.Signals, scenarios: Record<string, Scenario>) {
  const parts = new AsyncDisposableStack();
  const begun = new Map<string, { run: ReturnType<Scenario>; failed: unknown }>();
  let second: SpawnedServer;

  beforeAll(async () => {
    const dir = parts.use(await temporaryDirectory());
    const first = parts.use(await spawnServer({ dir: dir.path }));
    for (const [name, scenario] of Object.entries(scenarios)) {
      const run = scenario(first);
      const failed = await run.next().then(
        () => undefined,
        (error: unknown) => error,
      );
      begun.set(name, { run, failed });
    }
    second = parts.use(await restart(first, signal));
  });

  afterAll(() => parts.disposeAsync());

  test.each(Object.keys(scenarios))(`%s (${signal})`, async (name) => {
    const { run, failed } = begun.get(name)!;
    if (failed !== undefined) throw failed;
    expect((await run.next(second)).done).toBe(true);
  });
}

const newTopics = (server: SpawnedServer, ...configs: object[]) =>
  Promise.all(configs.map((config) => newTopic(server, config)));

/** A dest that refuses what does not fit. */
const narrow = (dest: object, source: object = {}) => ({ source, dest: { discard: "reject", ...dest } });

/** What holds after every kind of restart. */
const always: Record<string, Scenario> = {
  "03.51 06.26 routers, totals, copies and their seqs stay; the next record follows": async function* (
    first,
  ) {
    const options = [
      {},
      { filter: "t1*", preserve_node: false, preserve_tag: false, allow_cycle: true },
      exactly,
      { filter: ["tag", "Eq", "t2"] },
      { preserve_tag: false },
    ];
    const [source, ...dests] = (await newTopics(
      first,
      ...[{}, {}, {}, {}, { cap_records: 3 }, { durability: "fsync" }],
    )) as [Topic, Topic, ...Topic[]];
    await dests[0].append("own");
    const routers: Router[] = [];
    for (const [i, dest] of dests.entries()) routers.push(await newRouter(first, source, dest, options[i]));
    for (let i = 0; i < 10; i++) {
      const records = range(0, 4).map((k) => ({
        data: `${i}.${k}`,
        tag: `t${k % 3}`,
        node: "n",
        ...(k === 2 ? { meta: { k } } : {}),
      }));
      await source.write({ records });
    }
    await dests[0].erase({ match: "t2" });
    const lookAt = async (server: SpawnedServer) => ({
      topics: await Promise.all(againAll(server, [source, ...dests]).map(seen)),
      routers: await Promise.all(routers.map(({ name }) => shown(server, name))),
    });
    const before = await lookAt(first);
    expect(before.routers.map(({ forwarded_total }) => forwarded_total)).toEqual([50, 20, 50, 10, 50]);
    expect(before.routers[1]).toMatchObject({ ...options[1], filter: ["tag", "Glob", "t1*"] });

    const second = yield;
    expect(await lookAt(second)).toEqual(before);
    await again(second, source).write({ records: [{ data: "next", tag: "t1", node: "n" }] });
    for (const [i, dest] of againAll(second, dests).entries()) {
      const last = before.topics[i + 1]!.state.head_seq;
      const { records } = (await dest.diff({ from_seq: last })).body;
      // One of the filters does not let it through.
      expect(records).toMatchObject(i === 3 ? [] : [{ $seq: last + 1, data: "next" }]);
    }
    expect(await routerNamed(second, routers[0]!.name).total()).toBe(51);
  },

  "03.28 what was written before the router is not fetched": async function* (first) {
    const topics = await newTopics(first, {}, {}, {}, {});
    const [source, unused, used, late] = topics as [Topic, Topic, Topic, Topic];
    await source.append("old 1", "old 2");
    await newRouter(first, source, unused);
    await newRouter(first, source, used);
    await source.append("new 1");
    expect(await values(used)).toEqual(["new 1"]);
    await newRouter(first, source, late);

    const second = yield;
    await again(second, source).append("new 2");
    expect(await Promise.all(againAll(second, [unused, used, late]).map(values))).toEqual([
      ["new 1", "new 2"],
      ["new 1", "new 2"],
      ["new 2"],
    ]);
  },

  "03.51 a mirror does not grow": async function* (first) {
    const { topics, routers } = await newChain(first, 1, { allow_cycle: true });
    const [a, b] = topics as [Topic, Topic];
    routers.push(await newRouter(first, b, a, { allow_cycle: true }));
    await a.append("once");
    const counts = (server: SpawnedServer) =>
      Promise.all([a, b].map((topic) => listedCount(server, again(server, topic))));
    await eventually(() => counts(first), [5, 4]);

    const second = yield;
    for (let i = 0; i < 5; i++)
      for (const { name } of routers) expect(await routerNamed(second, name).total()).toBe(4);
    expect(await counts(second)).toEqual([5, 4]);
    await again(second, b).append("again");
    await eventually(() => counts(second), [9, 9]);
  },

  "03.36 holes stay, and what readers are told of them": async function* (first) {
    const route = await newRoute(first, {}, { source: { cap_records: 2 } });
    const { source, dest } = route;
    await source.append(0, 1, 2, 3, 4);
    expect(await story(dest)).toEqual(["source_trim 1-3", 3, 4]);
    await dest.append("own");
    await source.append(5, 6, 7);
    const whole = ["source_trim 1-3", 3, 4, "own", "source_trim 7-7", 6, 7];
    expect(await story(dest)).toEqual(whole);
    const before = await seen(dest);

    const after = routeAgain(yield, route);
    expect(await seen(after.dest)).toEqual(before);
    await after.source.append(8);
    expect(await story(after.dest)).toEqual([...whole, 8]);
    expect(await after.router.total()).toBe(9);
  },

  "03.44 stamps stay as they were, and the source's identity with them": async function* (first) {
    const route = await newRoute(first, exactly);
    await route.source.append(1);
    const stamps = async (dest: Topic) => (await read(dest)).map(({ meta }) => meta._topics_router);
    const [before] = await stamps(route.dest);

    const { source, dest } = routeAgain(yield, route);
    await source.append(2);
    const key = before.idempotency_key.replace(/:1$/, ":2");
    expect(await stamps(dest)).toEqual([before, { ...before, source_seq: 2, idempotency_key: key }]);
  },

  "03.53 06 I63 a waiting router goes on: everything arrives, in order": async function* (first) {
    const route = await newRoute(first, {}, narrow({ cap_records: 5 }));
    await route.source.append(...range(1, 12));
    expect(await values(route.dest)).toEqual(range(1, 5));

    const { source, dest, router } = routeAgain(yield, route);
    expect(await router.total()).toBe(5);
    await source.append(...range(13, 15));
    const found: unknown[] = [];
    for (const batch of [5, 10, 15]) {
      await eventually(async () => (await dest.state()).body.head_seq, batch);
      found.push(...column(await dest.diff({ from_seq: batch - 5 }), "data"));
      await dest.erase({ before_seq: batch + 1 });
    }
    expect(found).toEqual(range(1, 15));
    expect(await router.total()).toBe(15);
  },

  "03.53 a waiting router goes on without anybody reading": async function* (first) {
    const route = await newRoute(first, exactly, narrow({ cap_bytes: 4 }));
    await route.source.append(1, 2, 3);

    const second = yield;
    const { dest } = routeAgain(second, route);
    await dest.put({});
    await eventually(() => listedCount(second, dest), 3);
    expect(await values(dest)).toEqual([1, 2, 3]);
  },

  "06 I63 what the source lost while a router waited becomes holes": async function* (first) {
    const route = await newRoute(first, {}, narrow({ cap_records: 1 }, { cap_records: 2 }));
    await route.source.append(1);
    expect(await values(route.dest)).toEqual([1]);
    await route.source.append(2, 3);
    await route.source.append(4);

    const second = yield;
    const { source, dest, router } = routeAgain(second, route);
    await source.append(5);
    await dest.put({});
    await eventually(() => listedCount(second, dest), 3);
    expect(await story(dest)).toEqual([1, "source_trim 2-3", 4, 5]);
    expect(await router.total()).toBe(5);
  },

  "03.37 03.53 what was deleted in the source while a router waited does not come": async function* (first) {
    const route = await newRoute(first, {}, narrow({ cap_records: 1 }));
    const tags = ["keep", "drop", "keep", "drop"];
    await route.source.write({ records: tags.map((tag, data) => ({ data, tag })) });
    expect(await values(route.dest)).toEqual([0]);
    await route.source.erase({ match: "drop" });

    const second = yield;
    const { dest } = routeAgain(second, route);
    await dest.put({});
    await eventually(() => listedCount(second, dest), 2);
    expect(await story(dest)).toEqual([0, 2]);
  },

  ...Object.fromEntries(
    ["fsync", "disk"].map((durability): [string, Scenario] => [
      `03.54 a dest of class ${durability} keeps direct writes, deletes and copies`,
      async function* (first) {
        const { source, dest } = await newRoute(first, {}, { dest: { durability } });
        await source.write({ records: ["a", "b", "c", "d"].map((tag) => ({ data: tag, tag })) });
        expect(await values(dest)).toEqual(["a", "b", "c", "d"]);
        expect((await dest.append("direct 1")).body.first_seq).toBe(5);
        await source.append("e");
        expect((await dest.state()).body.head_seq).toBe(6);
        // Copies whose source record is deleted stay, and what is deleted among them stays deleted.
        await source.erase({ before_seq: 4 });
        await dest.erase({ match: "b" });
        const before = await seen(dest);
        expect((await dest.append("direct 2")).body.first_seq).toBe(7);

        const after = await seen(again(yield, dest));
        expect(after.steps.slice(0, -1)).toEqual(before.steps);
        expect(after.steps.at(-1)).toMatchObject({ $seq: 7, data: "direct 2" });
        const found = after.steps.map((step) => "data" in step && step.data);
        expect(found).toEqual(["a", "c", "d", "direct 1", "e", "direct 2"]);
        expect(after.state).toMatchObject({ head_seq: 7, count: 6, earliest_seq: 1 });
      },
    ]),
  ),

  "03.54 copies stay that the source has evicted": async function* (first) {
    const { source, dest } = await newRoute(first, {}, { source: { cap_records: 1 } });
    for (let i = 1; i <= 5; i++) {
      await source.append(i);
      expect((await dest.state()).body.head_seq).toBe(i);
    }
    const before = await seen(dest);

    const second = yield;
    expect(await seen(again(second, dest))).toEqual(before);
    expect(await values(again(second, dest))).toEqual(range(1, 5));
  },

  ...Object.fromEntries(
    guarantees.map((guarantee): [string, Scenario] => [
      `03.51 what is written to an ephemeral source afterwards is forwarded, ${guarantee}`,
      async function* (first) {
        const route = await newRoute(first, { guarantee }, { source: { durability: "ephemeral" } });
        await route.source.append(1, 2, 3, 4, 5);
        expect(await values(route.dest)).toEqual(range(1, 5));
        const before = await seen(route.dest);

        const { source, dest } = routeAgain(yield, route);
        expect(await seen(dest)).toEqual(before);
        // Fewer than before: the source's seqs may begin anew, and the router must not wait for them to pass.
        await source.append(6, 7);
        expect(await values(dest)).toEqual(range(1, 7));
        await source.append(8);
        expect(await values(dest)).toEqual(range(1, 8));
      },
    ]),
  ),

  "03.51 what is written to a chain of ephemeral topics afterwards is forwarded": async function* (first) {
    const ephemeral = { durability: "ephemeral" };
    const [a, b, c] = (await newTopics(first, ephemeral, ephemeral, ephemeral)) as [Topic, Topic, Topic];
    await newRouter(first, a, b, exactly);
    await newRouter(first, b, c);
    await a.append(1, 2, 3);
    await eventually(() => listedCount(first, c), 3);

    const second = yield;
    await again(second, a).append(4, 5);
    await eventually(() => listedCount(second, again(second, c)), 2);
    expect(await Promise.all(againAll(second, [b, c]).map(values))).toEqual([
      [4, 5],
      [4, 5],
    ]);
  },

  "03.53 behind an ephemeral source whose router waits, later records come": async function* (first) {
    const route = await newRoute(first, {}, narrow({ cap_records: 1 }, { durability: "ephemeral" }));
    await route.source.append(1, 2, 3);
    expect(await values(route.dest)).toEqual([1]);

    const second = yield;
    const { source, dest } = routeAgain(second, route);
    await dest.put({});
    await source.append(4);
    await eventually(() => listedCount(second, dest), 2);
    const told = await story(dest);
    expect(told.filter((step) => typeof step === "number")).toEqual([1, 4]);
  },

  "03.51 what is on its way down a chain arrives, once and in order": async function* (first) {
    const { topics } = await newChain(first, 3, exactly);
    await topics[0]!.append(...range(1, 3000));

    const second = yield;
    const [a, d] = againAll(second, [topics[0]!, topics[3]!]) as [Topic, Topic];
    await a.append(3001);
    await eventually(() => listedCount(second, d), 3001);
    expect(await values(d)).toEqual(range(1, 3001));
  },
};

/** What holds after a clean stop only. */
const afterStop: Record<string, Scenario> = {
  "03.51 an ephemeral dest is empty with its head, and old copies are not sent again": async function* (
    first,
  ) {
    const route = await newRoute(first, {}, { dest: { durability: "ephemeral" } });
    await route.source.append(1, 2, 3);
    expect(await values(route.dest)).toEqual([1, 2, 3]);

    const { source, dest, router } = routeAgain(yield, route);
    expect((await dest.state()).body).toMatchObject({ head_seq: 3, count: 0, earliest_seq: 4 });
    expect(await router.total()).toBe(3);
    await source.append(4);
    expect(await read(dest)).toMatchObject([{ $seq: 4, data: 4 }]);
    expect(await values(source)).toEqual([1, 2, 3, 4]);
  },

  "06 s7 what is pending in an ephemeral source is forwarded before it is gone": async function* (first) {
    const { source, dest } = await newRoute(first, {}, { source: { durability: "ephemeral" } });
    await source.append(...range(1, 5000));
    expect(await values(again(yield, dest))).toEqual(range(1, 5000));
  },
};

/** What a kill is allowed to leave behind. */
const afterKill: Record<string, Scenario> = Object.fromEntries(
  guarantees.map((guarantee) => [
    `03.51 to an ephemeral dest later records come, behind some sent again or none, ${guarantee}`,
    async function* (first) {
      const route = await newRoute(first, { guarantee }, { dest: { durability: "ephemeral" } });
      await route.source.append(1, 2, 3);
      expect(await values(route.dest)).toEqual([1, 2, 3]);

      const { source, dest } = routeAgain(yield, route);
      await source.append(4, 5);
      const found = (await values(dest)) as number[];
      expect(found).toEqual(range(found[0]!, 5));
      expect(found.length).toBeGreaterThanOrEqual(2);
    },
  ]),
);

describe("a clean stop", () => acrossRestart("SIGTERM", { ...always, ...afterStop }));
describe("a kill", () => acrossRestart("SIGKILL", { ...afterKill, ...always }));

test("01.55 03.51 routers that wait do not delay a stop", async () => {
  await using server = await spawnServer();
  const { source, dest, router } = await newRoute(server, {}, narrow({ cap_records: 1 }));
  await newRouter(server, dest, source, { allow_cycle: true });
  await source.append(...range(1, 100));
  expect(await router.total()).toBe(1);
  const { ms, answer } = await timed(() => server.stop("SIGTERM"));
  expect(answer).toBe(0);
  expect(ms).toBeLessThan(2000);
});

describe("an immediate kill", () => {
  test("03.52 06.15 right behind a PUT, a change or a DELETE finds it done", async () => {
    await using dir = await temporaryDirectory();
    const expected = new Map<string, object>();
    for (let round = 0; round < 4; round++) {
      await using server = await spawnServer({ dir: dir.path });
      const { body } = await server.send("GET", "/v0/routers");
      const found = body.routers.map(({ router }: { router: string }) => router);
      expect(found).toEqual([...expected.keys()].toSorted());
      for (const [name, router] of expected) expect(await shown(server, name)).toEqual(router);
      if (round === 3) break;
      const name = `r${round}`;
      const ends = { source: `s${round}`, dest: `d${round}` };
      const made = { router: name, ...ends, ...plain, forwarded_total: 0 };
      const replies = await Promise.all([
        routerNamed(server, name).put(ends),
        routerNamed(server, `gone${round}`).put({ source: "s", dest: `gone${round}` }),
      ]);
      expect(replies.map(({ status }) => status)).toEqual([201, 201]);
      expected.set(name, made);
      const previous = `r${round - 1}`;
      const changed = { filter: ["tag", "Eq", `${round}`], guarantee: "exactly_once" };
      const last = await Promise.all([
        routerNamed(server, `gone${round}`).drop(),
        ...(round === 0
          ? []
          : [routerNamed(server, previous).put({ ...expected.get(previous), ...changed })]),
      ]);
      expect(last.map(({ status }) => status)).toEqual(last.map(() => 200));
      if (round > 0) expected.set(previous, { ...expected.get(previous), ...changed });
      await server.stop("SIGKILL");
    }
  });

  test("06.15 06 I64 right behind a PUT: the router starts where it was made", async () => {
    await using dir = await temporaryDirectory();
    await using first = await spawnServer({ dir: dir.path });
    await absentTopic(first, "source").append("old");
    await putRouter(first, "source", "dest");
    await using second = await restart(first, "SIGKILL");
    await absentTopic(second, "source").append("new 1", "new 2");
    await second.stop("SIGKILL");
    await using third = await spawnServer({ dir: dir.path });
    const dest = absentTopic(third, "dest");
    await eventually(() => listedCount(third, dest), 2);
    expect(await values(dest)).toEqual(["new 1", "new 2"]);
  });

  test("06.14 right behind the deletion of a topic: it and its routers stay gone, copies stay", async () => {
    await using dir = await temporaryDirectory();
    await using first = await spawnServer({ dir: dir.path });
    for (const [from, to] of ["ab", "bc", "ad"]) await putRouter(first, from!, to!);
    await absentTopic(first, "a").append(1);
    await eventually(() => listedCount(first, absentTopic(first, "c")), 1);
    const { body } = await absentTopic(first, "b").drop();
    expect(body.routers_removed).toEqual(["a->b", "b->c"]);

    await using second = await restart(first, "SIGKILL");
    const routers = (await second.send("GET", "/v0/routers")).body.routers;
    expect(routers.map(({ router }: { router: string }) => router)).toEqual(["a->d"]);
    const [a, b, c, d] = topicsNamed(second, "a", "b", "c", "d");
    expect((await b!.state()).status).toBe(404);
    await b!.append("unrelated");
    await a!.append(2);
    expect([await values(b!), await values(c!), await values(d!)]).toEqual([["unrelated"], [1], [1, 2]]);
  });

  test("03.40 06.15 right behind a DELETE and a PUT of one name finds the new router", async () => {
    await using dir = await temporaryDirectory();
    await using first = await spawnServer({ dir: dir.path });
    await putRouter(first, "source", "dest");
    await absentTopic(first, "source").append(1);
    expect((await shown(first, "source->dest")).forwarded_total).toBe(1);
    await routerNamed(first, "source->dest").drop();
    await absentTopic(first, "source").append(2);
    await putRouter(first, "source", "dest");

    await using second = await restart(first, "SIGKILL");
    expect((await shown(second, "source->dest")).forwarded_total).toBe(0);
    await absentTopic(second, "source").append(3);
    expect(await values(absentTopic(second, "dest"))).toEqual([1, 3]);
  });

  test("06 F48 under a storm of PUTs leaves each that was answered, and never one too many", async () => {
    await using dir = await temporaryDirectory();
    const env = { TOPICS_MAX_ROUTERS: "40" };
    await using first = await spawnServer({ dir: dir.path, env });
    const acked: string[] = [];
    let killed: Promise<number> | undefined;
    await together(60, async (i) => {
      const reply = await routerNamed(first, `r${i}`)
        .put({ source: `s${i % 7}`, dest: `d${i}` })
        .catch(() => undefined);
      if (reply?.status === 201) acked.push(`r${i}`);
      if (acked.length >= 15) killed ??= first.stop("SIGKILL");
    });
    await killed;
    await using second = await spawnServer({ dir: dir.path, env });
    const { routers } = (await second.send("GET", "/v0/routers?page_size=1000")).body;
    const found = routers.map(({ router }: { router: string }) => router);
    expect(found).toEqual(expect.arrayContaining(acked));
    expect(found.length).toBeLessThanOrEqual(40);
    for (const { source, dest } of routers) {
      expect((await absentTopic(second, source).state()).status).toBe(200);
      expect((await absentTopic(second, dest).state()).status).toBe(200);
    }
  });

  test("06.26 twice without traffic changes nothing more", async () => {
    await using dir = await temporaryDirectory();
    await using first = await spawnServer({ dir: dir.path });
    await putRouter(first, "a", "b");
    await putRouter(first, "b", "c", exactly);
    await absentTopic(first, "a").append(1, 2, 3);
    await first.stop("SIGKILL");
    const lookAt = async () => {
      await using server = await spawnServer({ dir: dir.path });
      await eventually(() => listedCount(server, absentTopic(server, "c")), 3);
      const found = {
        topics: await Promise.all(topicsNamed(server, "a", "b", "c").map(seen)),
        routers: [await shown(server, "a->b"), await shown(server, "b->c")],
      };
      await server.stop("SIGKILL");
      return found;
    };
    const once = await lookAt();
    expect(once.routers.map(({ forwarded_total }) => forwarded_total)).toEqual([3, 3]);
    expect(await lookAt()).toEqual(once);
  });
});

describe("many kills under load", () => {
  const KILLS = 5;
  const WRITERS = 3;

  /** Copies as a reader saw them, by seq. They may never change. */
  type Seen = Map<number, string>;

  const keep = (seen: Seen, records: Entry[]): string[] =>
    records.flatMap((record) => {
      const text = JSON.stringify(record);
      const known = seen.get(record.$seq);
      seen.set(record.$seq, text);
      return known === undefined || known === text ? [] : [`seq ${record.$seq}: ${known} became ${text}`];
    });

  /** Writers and a reader of each copy at work until the server is dead; gives what was acknowledged. */
  async function load(server: SpawnedServer, round: number, copies: [string, Seen][]) {
    const acked: string[] = [];
    let killed: Promise<number> | undefined;
    const problems: string[] = [];
    const write = async (writer: number) => {
      for (let n = 0; !killed; n++) {
        const data = range(0, (n * 7 + writer) % 23).map((i) => `${round}.${writer}.${n}.${i}`);
        const records = data.map((text) => ({ data: text, tag: "t" }));
        const reply = await absentTopic(server, "a")
          .write({ records })
          .catch(() => undefined);
        if (reply?.status !== 200) continue;
        acked.push(...data);
        if (acked.length > 300 + 100 * round) killed ??= server.stop("SIGKILL");
      }
    };
    const follow = async ([name, seen]: [string, Seen]) => {
      while (!killed) {
        const from = Math.max(0, ...seen.keys());
        const reply = await absentTopic(server, name)
          .diff({ from_seq: from, limit: 1000, include_tags: true, wait_ms: 50 })
          .catch(() => undefined);
        if (reply?.status === 200) problems.push(...keep(seen, reply.body.records));
      }
    };
    await Promise.all([...range(1, WRITERS).map(write), ...copies.map(follow)]);
    await killed;
    expect(problems).toEqual([]);
    return acked;
  }

  test("03.54 06.26 06.27 lose nothing, keep every copy where it was seen, and repeat nothing for exactly_once", async () => {
    await using dir = await temporaryDirectory();
    const seen = new Map<string, Seen>(["b", "c", "d", "e"].map((name) => [name, new Map()]));
    const acked: string[] = [];
    for (let round = 0; round <= KILLS; round++) {
      await using server = await spawnServer({ dir: dir.path });
      if (round === 0) {
        // a -> b -> c, all exactly_once, and a -> d -> e, all at_least_once; b and e are synced.
        for (const name of ["b", "e"]) await absentTopic(server, name).put({ durability: "fsync" });
        await putRouter(server, "a", "b", exactly);
        await putRouter(server, "b", "c", exactly);
        await putRouter(server, "a", "d");
        await putRouter(server, "d", "e");
      } else {
        const sent = (await values(absentTopic(server, "a"))) as string[];
        expect(new Set(sent).size).toBe(sent.length);
        expect(new Set(sent).isSupersetOf(new Set(acked))).toBe(true);
        for (const [name, copies] of seen) {
          const topic = absentTopic(server, name);
          const distinct = async () => new Set(await values(topic)).size;
          await eventually(distinct, sent.length);
          const found = await read(topic);
          expect(keep(copies, found)).toEqual([]);
          expect([...copies.keys()].filter((seq) => seq > found.length)).toEqual([]);
          const data = found.map((record) => record.data as string);
          // A repeated copy is allowed where nothing else was promised, but behind its first one.
          const told = name < "d" ? data : [...new Set(data)];
          expect(told).toEqual(sent);
        }
      }
      if (round < KILLS) acked.push(...(await load(server, round, [...seen])));
    }
    expect(acked.length).toBeGreaterThan(300 * KILLS);
  }, 60_000);

  test("03.53 03.33 06 I63 with a dest that is full now and then: nothing lost, in order", async () => {
    await using dir = await temporaryDirectory();
    const taken: string[] = [];
    let from = 0;
    let written = 0;
    for (let round = 0; round < 4; round++) {
      await using server = await spawnServer({ dir: dir.path });
      const [source, dest] = topicsNamed(server, "source", "dest");
      if (round === 0) {
        await dest!.put({ cap_records: 20, discard: "reject", durability: "fsync" });
        await putRouter(server, "source", "dest", exactly);
      }
      const last = round === 3;
      for (let step = 0; last ? taken.length < written : step < 8; step++) {
        if (!last) {
          const data = range(written, written + 9).map((i) => `record ${i}`);
          expect((await source!.append(...data)).status).toBeLessThan(300);
          written += 10;
        }
        if (step % 2 === 0 && !last) continue;
        const { body } = await dest!.diff({ from_seq: from, limit: 7 });
        expect(body.tombstone).toBeNull();
        taken.push(...body.records.map(({ data }: { data: string }) => data));
        from = body.next_from_seq;
        const reply = await dest!.erase({ before_seq: from + 1 });
        expect(reply.status).toBe(200);
      }
      await server.stop("SIGKILL");
    }
    expect(taken).toEqual(range(0, written - 1).map((i) => `record ${i}`));
  });
});
