/** `POST` and `GET /api/topic/subscriptions`: what a change answers, which row it leaves, and how rows are listed. */
import { describe, expect, test } from "bun:test";
import {
  ask,
  expectRefusal,
  HEX,
  type More,
  newFeed,
  nodeOf,
  paths,
  queryOf,
  type Row,
  subscribe,
  tick,
} from "../support/feeds.ts";
import { type Reply, startServer } from "../support/server.ts";
import { absentTopic, type Sender, sharedServer, together } from "../support/topics.ts";

const server = sharedServer();
const log = absentTopic(server, "_feeds");

/** One page of the list. */
async function page(query: More = {}, of: Sender = server): Promise<Reply["body"]> {
  const reply = await ask(of, paths.subscriptions, query);
  expect(reply.status).toBe(200);
  return reply.body;
}

/** The subscriptions in the log behind a position, as [active, canonical scope]. */
async function told(from: number): Promise<[boolean, string][]> {
  const { records } = (await log.diff({ from_seq: from })).body;
  return records.map(({ data }: { data: Subscription }) => [data.payload.payload.active, data.swarm_scope]);
}

interface Subscription {
  readonly swarm_scope: string;
  readonly payload: { readonly payload: { readonly active: boolean } };
}

const headSeq = async (): Promise<number> => (await log.state()).body.head_seq;

describe("a change", () => {
  test.each([true, false])("07.23 to active %p answers with exactly these members", async (active) => {
    const feed = newFeed(server, " GROUP : a ");
    const body = { feed_key: ` ${feed.key} `, scope_hint: feed.scope, active };
    const reply = await server.send("POST", paths.subscriptions, body);
    const { performance, ...answer } = reply.body;
    const node = await nodeOf(server);
    expect(reply.status).toBe(200);
    expect(answer).toStrictEqual({
      ok: true,
      event_id: expect.stringMatching(HEX),
      network_id: `local:${node}`,
      subscriber_node_id: node,
      feed_key: feed.key,
      scope_hint: "GROUP : a",
      gossip_kinds: ["messages"],
      active,
      private_hive_key_share: null,
    });
    expect(performance.server_total_ms).toBeNumber();
  });

  test("07.23 every call is an event, also when nothing changes", async () => {
    const feed = newFeed(server);
    const before = await headSeq();
    const ids = [];
    for (const active of [true, true, false, false, true]) ids.push(await feed.subscribe({ active }));
    expect(new Set(ids).size).toBe(5);
    expect(await headSeq()).toBe(before + 5);
    expect(await feed.rows()).toMatchObject([{ event_id: ids[4] }]);
  });

  test("07 s8 two changes of a row never share their time, and the last one counts", async () => {
    const feed = newFeed(server);
    const times = new Set<number>();
    const replies = await together(20, (n) =>
      subscribe(server, { feed_key: feed.key, scope_hint: feed.scope, active: n % 2 === 0 }),
    );
    const { records } = (await log.diff({ from_seq: (await headSeq()) - 20 })).body;
    for (const { data } of records) times.add(data.created_at);
    expect(times.size).toBe(20);
    const last = records.at(-1).data;
    expect(replies.map(({ body }) => body.event_id)).toContain(last.event_id);
    expect(await feed.rows()).toMatchObject([
      { event_id: last.event_id, active: last.payload.payload.active, updated_at: last.created_at },
    ]);
  });

  test.each([
    ["null", null],
    ["blank", " \t"],
    ["empty", ""],
  ])("07.12 07 s8 optional members that are %s are absent", async (_, nothing) => {
    const feed = newFeed(server);
    const more = { network_id: nothing, subscriber_node_id: nothing, agent_envelope: null };
    const { body } = await subscribe(server, { feed_key: feed.key, scope_hint: feed.scope, ...more });
    const node = await nodeOf(server);
    expect(body).toMatchObject({ network_id: `local:${node}`, subscriber_node_id: node });
  });

  test.each(["othernet", "local:", "LOCAL"])("07.17 the network %s is refused", async (network) => {
    const feed = newFeed(server);
    const before = await headSeq();
    for (const active of [true, false]) {
      const body = { feed_key: feed.key, scope_hint: feed.scope, active, network_id: network };
      expectRefusal(
        await server.send("POST", paths.subscriptions, body),
        400,
        "invalid event: feed subscription network_id mismatch",
      );
    }
    expect(await feed.rows()).toEqual([]);
    expect(await headSeq()).toBe(before);
  });

  test.each(["", " ", "\t\r\n", "\u3000"])("07.10 07 s1 the blank %j is refused", async (blank) => {
    const send = (more: More) =>
      server.send("POST", paths.subscriptions, {
        feed_key: "k",
        scope_hint: "group:a",
        active: true,
        ...more,
      });
    expectRefusal(await send({ feed_key: blank }), 400, "feed_key is required");
    expectRefusal(await send({ scope_hint: blank }), 400, "scope_hint is required");
    expectRefusal(await send({ feed_key: blank, scope_hint: blank }), 400, "feed_key is required");
  });
});

describe("a row", () => {
  test("07 s8 has exactly these members", async () => {
    const feed = newFeed(server, "Region: eu");
    const before = Date.now();
    const event_id = await feed.subscribe();
    const node = await nodeOf(server);
    const [row, ...others] = await feed.rows();
    const expected = {
      event_id,
      network_id: `local:${node}`,
      subscriber_node_id: node,
      host_node_id: node,
      feed_key: feed.key,
      scope_hint: "region:eu",
      gossip_kinds: ["messages"],
      provider_capabilities: { live_gossip: true, history_backfill: true, local_store: true },
      active: true,
      updated_at: row!.updated_at,
    };
    expect(others).toEqual([]);
    expect(row).toStrictEqual(expected);
    expect(Math.abs(row!.updated_at - before)).toBeLessThan(2000);
    const ended = await feed.subscribe({ active: false });
    const [inactive] = await feed.rows();
    expect(inactive).toStrictEqual({
      ...expected,
      event_id: ended,
      provider_capabilities: null,
      active: false,
      updated_at: inactive!.updated_at,
    });
    expect(inactive!.updated_at).toBeGreaterThan(row!.updated_at);
  });

  test("07 s8 updated_at is the event's created_at", async () => {
    const feed = newFeed(server);
    await feed.subscribe();
    const { records } = (await log.diff({ from_seq: (await headSeq()) - 1 })).body;
    expect((await feed.rows())[0]!.updated_at).toBe(records[0].data.created_at);
  });

  test("07 s8 another scope takes the place of the first", async () => {
    const feed = newFeed(server, "group:one");
    await feed.subscribe();
    const event_id = await feed.subscribe({ scope_hint: "group:two" });
    expect(await feed.rows()).toMatchObject([{ event_id, scope_hint: "group:two", active: true }]);
    const ended = await feed.subscribe({ scope_hint: "group:one", active: false });
    expect(await feed.rows()).toMatchObject([{ event_id: ended, scope_hint: "group:one", active: false }]);
  });

  test("07 s8 there is one for each subscriber and feed", async () => {
    const [a, b] = [newFeed(server), newFeed(server)];
    for (const feed of [a, b, a]) {
      await feed.subscribe();
      await feed.subscribe({ subscriber_node_id: "agent" });
      await feed.subscribe({ subscriber_node_id: "Agent", active: false });
    }
    const node = await nodeOf(server);
    for (const feed of [a, b]) {
      const rows = await feed.rows();
      const found = Object.fromEntries(rows.map((row) => [row.subscriber_node_id, row.active]));
      expect(rows).toHaveLength(3);
      expect(found).toEqual({ [node]: true, agent: true, Agent: false });
      expect(new Set(rows.map(({ host_node_id }) => host_node_id))).toEqual(new Set([node]));
    }
  });

  test("07.23 posts make no rows", async () => {
    const feed = newFeed(server);
    await feed.post(1);
    expect(await feed.rows()).toEqual([]);
  });
});

describe("moving to another scope", () => {
  test.each([
    [
      "group:a",
      "local",
      [
        [false, "group:a"],
        [true, "local"],
      ],
    ],
    [
      "global",
      "local",
      [
        [false, "global"],
        [true, "local"],
      ],
    ],
    [
      "dm:b:a",
      "local",
      [
        [false, "dm:a:b"],
        [true, "local"],
      ],
    ],
    ["group:a", "group:b", [[true, "group:b"]]],
    ["group:a", "group:a", [[true, "group:a"]]],
    ["group:a", "global", [[true, "global"]]],
    ["local", "group:a", [[true, "group:a"]]],
    ["local", "local", [[true, "local"]]],
  ] as [string, string, [boolean, string][]][])(
    "07 P11 from %s to %s tells peers that a lane of theirs has ended: %j",
    async (from, to, events) => {
      const feed = newFeed(server, from);
      await feed.subscribe();
      const before = await headSeq();
      const event_id = await feed.subscribe({ scope_hint: to });
      expect(await told(before)).toEqual(events);
      const { records } = (await log.diff({ from_seq: (await headSeq()) - 1 })).body;
      expect(records[0].data.event_id).toBe(event_id);
      expect(await feed.rows()).toMatchObject([{ event_id, scope_hint: to, active: true }]);
    },
  );

  test("07 P11 the answer is about the second event", async () => {
    const feed = newFeed(server, "group:a");
    await feed.subscribe();
    const reply = await subscribe(server, { feed_key: feed.key, scope_hint: " LOCAL " });
    expect(reply.body).toMatchObject({ scope_hint: "LOCAL", active: true });
    const [row, ...others] = await feed.rows();
    expect(others).toEqual([]);
    expect(row).toMatchObject({ event_id: reply.body.event_id, scope_hint: "local" });
  });

  test("07 P11 of one subscriber leaves the others where they are", async () => {
    const feed = newFeed(server, "group:a");
    await feed.subscribe();
    await feed.subscribe({ subscriber_node_id: "agent" });
    await feed.subscribe({ scope_hint: "local" });
    expect((await feed.rows()).map(({ scope_hint }) => scope_hint).sort()).toEqual(["group:a", "local"]);
    const id = await feed.post(1);
    expect(await feed.cursor()).toBeNull();
    expect(await feed.cursor({ subscriber_node_id: "agent" })).toMatchObject({ last_event_id: id });
  });
});

describe("the list", () => {
  /** A server with twelve rows, each with a time of its own, on four feeds; every third is inactive. */
  async function filled() {
    const own = await startServer();
    for (let n = 0; n < 12; n++) {
      await subscribe(own, {
        feed_key: `k${n % 4}`,
        scope_hint: "group:a",
        subscriber_node_id: `s${n}`,
        active: n % 3 > 0,
      });
      await tick();
    }
    return own;
  }

  const newestFirst = (a: Row, b: Row) =>
    b.updated_at - a.updated_at || Buffer.compare(Buffer.from(b.event_id), Buffer.from(a.event_id));

  test("07 s8 of a new server is empty", async () => {
    await using own = await startServer();
    const { performance, ...answer } = await page({}, own);
    expect(answer).toStrictEqual({ ok: true, subscriptions: [], next_anchor: null });
    expect(performance.server_total_ms).toBeNumber();
  });

  test("07 s8 has every row, newest first, inactive ones too", async () => {
    await using own = await filled();
    const { subscriptions } = await page({}, own);
    expect(subscriptions.map((row: Row) => row.event_id)).toEqual(
      subscriptions.toSorted(newestFirst).map((row: Row) => row.event_id),
    );
    expect(subscriptions.map((row: Row) => row.subscriber_node_id)).toEqual(
      Array.from({ length: 12 }, (_, i) => `s${11 - i}`),
    );
    await subscribe(own, { feed_key: "k1", scope_hint: "group:a", subscriber_node_id: "s5" });
    expect((await page({}, own)).subscriptions[0]).toMatchObject({
      subscriber_node_id: "s5",
      feed_key: "k1",
    });
  });

  test("07 s8 is filtered by feed_key, active and network_id, also together", async () => {
    await using own = await filled();
    const names = async (query: More) =>
      (await page(query, own)).subscriptions.map((row: Row) => row.subscriber_node_id);
    expect(await names({ feed_key: "k1" })).toEqual(["s9", "s5", "s1"]);
    expect(await names({ feed_key: " k1 " })).toEqual(["s9", "s5", "s1"]);
    expect(await names({ active: "false" })).toEqual(["s9", "s6", "s3", "s0"]);
    expect(await names({ active: "true", feed_key: "k1" })).toEqual(["s5", "s1"]);
    expect(await names({ active: "false", feed_key: "k1" })).toEqual(["s9"]);
    const network_id = `local:${await nodeOf(own)}`;
    expect(await names({ network_id, active: "false", feed_key: "k1" })).toEqual(["s9"]);
    expect(await names({ network_id: "othernet" })).toEqual([]);
    expect(await names({ feed_key: "K1" })).toEqual([]);
    expect(await names({ feed_key: "", network_id: " " })).toHaveLength(12);
  });

  test.each([1, 5, 12])("07 s8 in pages of %d shows every row once", async (limit) => {
    await using own = await filled();
    const whole = (await page({}, own)).subscriptions;
    const found: Row[] = [];
    const sizes: number[] = [];
    let anchor: More | null = {};
    while (anchor !== null) {
      const { subscriptions, next_anchor } = await page({ limit, ...anchor }, own);
      found.push(...subscriptions);
      sizes.push(subscriptions.length);
      if (next_anchor !== null)
        expect(next_anchor).toStrictEqual({
          before_updated_at: found.at(-1)!.updated_at,
          before_event_id: found.at(-1)!.event_id,
        });
      anchor = next_anchor;
    }
    expect(found).toEqual(whole);
    expect(sizes).toHaveLength(Math.ceil(12 / limit));
  });

  test("07 s8 in pages keeps to its filters", async () => {
    await using own = await filled();
    const first = await page({ active: "true", limit: 5 }, own);
    const second = await page({ active: "true", limit: 5, ...first.next_anchor }, own);
    expect([...first.subscriptions, ...second.subscriptions]).toEqual(
      (await page({ active: "true" }, own)).subscriptions,
    );
    expect(second.next_anchor).toBeNull();
  });

  test("07 s8 before_updated_at alone gives strictly older rows, before_event_id alone nothing else", async () => {
    await using own = await filled();
    const whole: Row[] = (await page({}, own)).subscriptions;
    const { updated_at, event_id } = whole[4]!;
    expect((await page({ before_updated_at: updated_at }, own)).subscriptions).toEqual(
      whole.filter((row) => row.updated_at < updated_at),
    );
    expect(
      (await page({ before_updated_at: updated_at, before_event_id: event_id }, own)).subscriptions,
    ).toEqual(whole.slice(5));
    expect((await page({ before_event_id: event_id }, own)).subscriptions).toEqual(whole);
    expect((await page({ before_updated_at: 0 }, own)).subscriptions).toEqual([]);
  });

  test("07 s8 limit is 1000 unless asked for, and clamped to 1..1000", async () => {
    await using own = await startServer();
    const TOTAL = 1005;
    for (let n = 0; n < TOTAL; n += 67)
      await together(67, (i) =>
        subscribe(own, { feed_key: "k", scope_hint: "group:a", subscriber_node_id: `s${n + i}` }),
      );
    const counts = [];
    for (const limit of [undefined, 0, 1, 999, 1000, 1001, "9".repeat(50), "007"])
      counts.push((await page({ limit }, own)).subscriptions.length);
    expect(counts).toEqual([1000, 1, 1, 999, 1000, 1000, 1000, 7]);
    const first = await page({}, own);
    const second = await page(first.next_anchor, own);
    expect(second.next_anchor).toBeNull();
    const rows: Row[] = [...first.subscriptions, ...second.subscriptions];
    expect(new Set(rows.map(({ subscriber_node_id }) => subscriber_node_id)).size).toBe(TOTAL);
    expect(rows.map(({ event_id }) => event_id)).toEqual(
      rows.toSorted(newestFirst).map(({ event_id }) => event_id),
    );
  });

  test.each([
    ["active", ["", "TRUE", "True", "1", "0", "yes", "null", "truefalse"]],
    ["limit", ["", "x", "-1", "+1", "1.0", "1e2", " 5", "0x1"]],
    ["before_updated_at", ["", "x", "-1", "1.5", "9007199254740992", "1e3", "null"]],
  ])("07 s8 %s is refused if it is one of %j", async (name, values) => {
    for (const value of values) expectRefusal(await ask(server, paths.subscriptions, { [name]: value }), 400);
  });

  test.each(["network_id", "feed_key", "active", "limit", "before_updated_at", "before_event_id"])(
    "07 s1 %s twice is refused",
    async (name) => {
      const query = {
        network_id: "n",
        feed_key: "k",
        active: true,
        limit: 1,
        before_updated_at: 1,
        before_event_id: "x",
      };
      const at = (text: string) => server.send("GET", `${paths.subscriptions}?${text}`);
      expect((await at(queryOf(query))).status).toBe(200);
      expectRefusal(await at(`${queryOf(query)}&${name}=${query[name as keyof typeof query]}`), 400);
    },
  );

  test.each(["feed_key=%ff", "network_id=%c3%28", "before_updated_at=1&before_event_id=%80"])(
    "07 s1 %s is no UTF-8: 400",
    async (query) => {
      expectRefusal(await server.send("GET", `${paths.subscriptions}?${query}`), 400);
    },
  );

  test("07 s1 unknown parameters are ignored, also twice", async () => {
    const feed = newFeed(server);
    await feed.subscribe();
    const query = `${queryOf({ feed_key: feed.key })}&scope_hint=banana&before_created_at=x&a&a=1&a=2`;
    const reply = await server.send("GET", `${paths.subscriptions}?${query}`);
    expect(reply.status).toBe(200);
    expect(reply.body.subscriptions).toHaveLength(1);
  });
});
