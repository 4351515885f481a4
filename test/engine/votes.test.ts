/** How votes are carried through: what is looked at when, and that nothing is said twice. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import fc from "fast-check";
import { ApiError } from "../../src/contract/errors.ts";
import type { Message } from "../../src/engine/consensus/ballots.ts";
import { Consensus, type ConsensusOptions } from "../../src/engine/consensus/consensus.ts";
import { decide } from "../../src/engine/consensus/decision.ts";
import { Engine } from "../../src/engine/engine.ts";
import { Store } from "../../src/store/store.ts";
import { Author, encoded, messageEvent } from "../support/events.ts";
import { until } from "../support/topics.ts";

setDefaultTimeout(60_000);

const SCOPE = "group:crew";
const INTERVAL_MS = 50;
const proposal = (id: string, more: object = {}) => ({ kind: "proposal", proposal_id: id, ...more });
const stance = (id: string, choice: string, more: object = {}) => ({
  kind: "stance",
  proposal_id: id,
  stance: choice,
  ...more,
});

type Feeds = ConsensusOptions["feeds"];

/** An engine with feeds, and votes that can be started and ended on it. */
class Station implements Disposable {
  readonly unexpected: unknown[] = [];
  readonly #store = new Store();
  readonly #engine = new Engine({
    store: this.#store,
    limits: { topicsMax: 0, routersMax: 0, totalBytesMax: 0, watchSessionsMax: 0, heartbeatMsMin: 1000 },
    feeds: { nodeSeed: "", networkId: "", strict: false },
    now: Date.now,
    failed: (error) => this.unexpected.push(error),
    unexpected: (error) => this.unexpected.push(error),
  });
  readonly network = this.#engine.network;
  /** Reads of lanes, by feed. */
  readonly reads = new Map<string, number>();
  /** Posts of this are refused with an error until there are none left. */
  refusals: Error[] = [];
  /** So much longer it takes a post to be done with. */
  postMs = 0;
  #consensus: Consensus | undefined;

  get nodeId(): string {
    return this.network.feeds.nodeId;
  }

  /** By default nothing happens by time alone. */
  start(intervalMs = 3_600_000): void {
    const { network, reads } = this;
    const feeds: Feeds = {
      nodeId: network.feeds.nodeId,
      networkId: network.feeds.networkId,
      subscriptions: (query) => network.feeds.subscriptions(query),
      messages: (query) => {
        reads.set(query.feedKey, (reads.get(query.feedKey) ?? 0) + 1);
        return network.feeds.messages(query);
      },
      post: async (request) => {
        const refusal = this.refusals.pop();
        if (refusal) throw refusal;
        const posted = await network.feeds.post(request);
        await Bun.sleep(this.postMs);
        return posted;
      },
    };
    const unexpected = (error: unknown) => this.unexpected.push(error);
    this.#consensus = new Consensus({ feeds, log: network.log, now: Date.now, intervalMs, unexpected });
  }

  stop(): void {
    this.#consensus?.[Symbol.dispose]();
  }

  async post(feed_key: string, content: object, reply_to_message_id: string | null = null): Promise<string> {
    const json = JSON.stringify(content);
    const request = { feed_key, scope_hint: SCOPE, content: json, reply_to_message_id };
    return (await this.network.feeds.post(request)).message_id;
  }

  /** Messages that a peer brings. */
  async bring(feed_key: string, contents: readonly object[], created_at = Date.now()): Promise<void> {
    const [author, peer] = [new Author(), { nodeId: new Author().id, logId: "1" }];
    const { networkId: network_id } = this.network.feeds;
    const names = { network_id, feed_key, scope: SCOPE, created_at };
    const events = contents.map((content) => encoded(messageEvent(author, { ...names, content })));
    const taken = await this.network.exchange.take(
      events.map((event) => `{"scope":${JSON.stringify(SCOPE)},"event":${event}}`),
      peer,
    );
    expect(taken).toMatchObject({ accepted: contents.length, rejected: [] });
  }

  async subscribe(feed_key: string, active = true): Promise<void> {
    await this.network.feeds.subscribe({ feed_key, scope_hint: SCOPE, active });
  }

  /** Everything in a feed, newest first. */
  async messages(feedKey: string): Promise<Message[]> {
    const messages: Message[] = [];
    let before: { beforeCreatedAt: number; beforeMessageId: string } | undefined;
    for (;;) {
      const page = await this.network.feeds.messages({
        feedKey,
        scopeHint: SCOPE,
        networkId: undefined,
        limit: 200,
        beforeCreatedAt: before?.beforeCreatedAt,
        beforeMessageId: before?.beforeMessageId,
      });
      messages.push(...page.messages.map((text) => JSON.parse(text)));
      const { next_anchor: anchor } = page;
      if (anchor === null) return messages;
      before = { beforeCreatedAt: anchor.before_created_at, beforeMessageId: anchor.before_message_id };
    }
  }

  /** What the results in a feed say, newest first. */
  async results(feedKey: string): Promise<Record<string, unknown>[]> {
    const contents = (await this.messages(feedKey)).map(({ content }) => content as Record<string, unknown>);
    return contents.filter(({ kind }) => kind === "consensus_result");
  }

  /** Waits for so many results. */
  resulted = (feedKey: string, n: number) =>
    until(
      () => this.results(feedKey),
      (results) => results.length >= n,
    );

  /** Decides one more proposal of the feed: then all that came before it has been seen to. */
  async settle(feedKey: string, id = `settled-${Math.random()}`): Promise<void> {
    await this.post(feedKey, proposal(id, { result_feed_key: `${feedKey}.settled` }));
    await this.post(feedKey, stance(id, "support"));
    await until(
      () => this.results(`${feedKey}.settled`),
      (results) => results.some(({ proposal_id }) => proposal_id === id),
    );
  }

  [Symbol.dispose](): void {
    this.stop();
    this.#engine[Symbol.dispose]();
    this.#store[Symbol.dispose]();
  }
}

describe("07 section 10: once per proposal message", () => {
  test("07 section 10: also for many votes at once, with starts in between, and results far behind", async () => {
    let decided = 0;
    let restarts = 0;
    const history = fc.array(
      fc.oneof(
        { weight: 2, arbitrary: fc.constant("propose" as const) },
        { weight: 8, arbitrary: fc.constantFrom("support" as const, "reject" as const) },
        { weight: 1, arbitrary: fc.constantFrom("restart" as const, "pause" as const) },
      ),
      { minLength: 20, maxLength: 60 },
    );
    const law = fc.asyncProperty(history, fc.infiniteStream(fc.nat()), async (steps, dice) => {
      using station = new Station();
      const draw = (below: number) => dice.next().value % below;
      const voters = Array.from({ length: 4 }, (_, i) => `agent-${i}`);
      const proposals: string[] = [];
      let posts: Promise<unknown>[] = [];
      station.start();
      for (const step of steps) {
        if (step === "pause") await Promise.all(posts);
        else if (step === "restart") {
          await Promise.all(posts);
          posts = [];
          station.stop();
          // What was under way is over before a process starts again.
          await quiet(() => station.messages("decided"));
          await fill(station, "decided", 205);
          station.start();
          restarts++;
        } else if (step === "propose") {
          const id = `p${proposals.length}`;
          proposals.push(id);
          const members = { participants: voters, threshold_percent: 50, result_feed_key: "decided" };
          posts.push(station.post("plans", proposal(id, members)));
        } else if (proposals.length > 0) {
          const id = proposals[draw(proposals.length)]!;
          posts.push(station.post("plans", stance(id, step, { source_author_node_id: voters[draw(4)] })));
        }
      }
      await Promise.all(posts);
      await station.settle("plans");
      const results = await station.results("decided");
      const closed = results.map((result) => result.proposal_message_id);
      expect(new Set(closed).size).toBe(closed.length);
      // All that is to be decided has been.
      const { nodeId, networkId } = station.network.feeds;
      const messages = (await station.messages("plans")).slice(0, 500);
      const situation = { nodeId, networkId, now: Date.now(), closed: new Set(closed as string[]) };
      const open = decide(messages, situation).publications.map(({ proposal }) => proposal.resultFeedKey);
      expect(open).toEqual(open.filter((feedKey) => feedKey === "plans.settled"));
      expect(station.unexpected).toEqual([]);
      decided += results.length;
    });
    await fc.assert(law, { numRuns: 20 });
    expect(decided).toBeGreaterThan(5);
    expect(restarts).toBeGreaterThan(5);
  });

  test("07 section 10: a result by another node does not count", async () => {
    using station = new Station();
    station.start();
    const id = await station.post("plans", proposal("p"));
    const forged = { kind: "consensus_result", proposal_message_id: id, decision: "reject" };
    await station.bring("plans.result", [forged], Date.now() - 1000);
    await station.post("plans", stance("p", "support"));
    expect(await station.resulted("plans.result", 2)).toMatchObject([{ decision: "support" }, forged]);
  });

  test("07 section 10: a result that could not be stored comes with the next look", async () => {
    using station = new Station();
    station.refusals = [new ApiError("internal", {})];
    station.start();
    await station.post("plans", proposal("p"));
    await station.post("plans", stance("p", "support"));
    await until(
      async () => station.refusals.length,
      (left) => left === 0,
    );
    await station.post("plans", { text: "any news?" });
    await station.resulted("plans.result", 1);
    await station.settle("plans");
    expect(await station.results("plans.result")).toHaveLength(1);
    expect(station.unexpected).toEqual([]);
  });

  test("07 section 10: it takes no more of the feed of results than can hold the result", async () => {
    using station = new Station();
    const chat = (n: number) => Array.from({ length: n }, (_, i) => ({ n: i }));
    // Long ago; before this node's last result; and since.
    await station.bring("old", chat(1000), Date.now() - 2 * 3_600_000);
    await station.bring("busy", chat(700));
    station.start();
    await station.post("plans", proposal("first", { result_feed_key: "busy" }));
    await station.post("plans", stance("first", "support"));
    await station.resulted("busy", 1);
    await station.bring("busy", chat(250));
    station.reads.clear();
    for (const feed of ["old", "busy"]) {
      await station.post("plans", proposal(feed, { result_feed_key: feed }));
      await station.post("plans", stance(feed, "support"));
      await until(
        () => station.results(feed),
        (results) => results.some(({ proposal_id }) => proposal_id === feed),
      );
    }
    station.stop();
    // One more for the post of the result in a feed that was not looked at before.
    expect(station.reads.get("old")).toBeLessThanOrEqual(1 + 3);
    expect(station.reads.get("busy")).toBe(2);
  });

  test("07 section 10: what should not be is told to whoever runs the server", async () => {
    using station = new Station();
    const error = new TypeError("odd");
    station.refusals = [error];
    station.start();
    await station.post("plans", proposal("p"));
    await station.post("plans", stance("p", "support"));
    await until(
      async () => station.unexpected,
      (errors) => errors.length > 0,
    );
    expect(station.unexpected).toEqual([error]);
    await station.settle("plans");
    expect(await station.results("plans.result")).toHaveLength(1);
  });
});

describe("07 section 10: when lanes are looked at", () => {
  test("07 section 10: at intervals only where something matters that is new", async () => {
    using station = new Station();
    const feeds = Array.from({ length: 20 }, (_, i) => `feed-${i}`);
    for (const feed of feeds) {
      await station.subscribe(feed);
      await station.bring(feed, [proposal("p", { coordinator_node_id: station.nodeId })]);
    }
    await station.bring("elsewhere", [proposal("p", { coordinator_node_id: station.nodeId })]);
    station.start(INTERVAL_MS);
    // After a start each lane with a subscription once.
    await until(
      async () => station.reads.size,
      (size) => size === feeds.length,
    );
    await Bun.sleep(3 * INTERVAL_MS);
    expect([...station.reads].sort()).toEqual(feeds.map((feed) => [feed, 1] as [string, number]).sort());
    station.reads.clear();
    await station.bring("feed-1", [{ text: "hello" }]);
    await station.bring("feed-2", [stance("p", "reject")]);
    await station.bring("elsewhere", [stance("p", "reject")]);
    // The lane once, and the feed of results: before the post, and since it is a post.
    await until(
      async () => station.reads.get("feed-2.result"),
      (reads) => reads === 2,
    );
    await Bun.sleep(3 * INTERVAL_MS);
    expect(Object.fromEntries(station.reads)).toEqual({ "feed-2": 1, "feed-2.result": 2 });
    expect(await station.results("elsewhere.result")).toEqual([]);
  });

  test("07 section 10: what does not matter is posted without a look, once the lane is known", async () => {
    using station = new Station();
    station.start();
    await station.settle("plans");
    await station.post("plans", { text: "hello" });
    await station.settle("other");
    const reads = station.reads.get("plans");
    for (let i = 0; i < 10; i++) await station.post("plans", { text: "hello" });
    await station.settle("other");
    expect(station.reads.get("plans")).toBe(reads);
  });

  test("07 section 10: a lane is looked at for as long as somebody is subscribed", async () => {
    using station = new Station();
    station.start(INTERVAL_MS);
    await station.bring("plans", [proposal("p", { coordinator_node_id: station.nodeId })]);
    await station.bring("plans", [stance("p", "support")]);
    await station.subscribe("plans");
    expect(await station.resulted("plans.result", 1)).toMatchObject([{ proposal_id: "p" }]);
    await station.subscribe("plans", false);
    await station.bring("plans", [proposal("q", { coordinator_node_id: station.nodeId })]);
    await station.bring("plans", [stance("q", "support")]);
    await Bun.sleep(3 * INTERVAL_MS);
    expect(await station.results("plans.result")).toHaveLength(1);
  });

  test("07 section 10: where a result is to come, a timeout is waited for", async () => {
    using station = new Station();
    await station.subscribe("plans");
    const timeout = 4 * INTERVAL_MS;
    const members = { coordinator_node_id: station.nodeId, round_timeout_ms: timeout };
    await station.bring("plans", [proposal("p", members)]);
    station.start(INTERVAL_MS);
    const [result] = await station.resulted("plans.result", 1);
    expect(result).toMatchObject({ proposal_id: "p", close_reason: "max_rounds_fallback" });
    const [[asked], [answered]] = await Promise.all([
      station.messages("plans"),
      station.messages("plans.result"),
    ]);
    expect(answered!.created_at - asked!.created_at).toBeGreaterThanOrEqual(timeout);
    await Bun.sleep(3 * INTERVAL_MS);
    // Once when it came, and once when its time was up.
    expect(station.reads.get("plans")).toBe(2);
  });

  test("07 section 10: rounds do not chase each other, whatever their timeout", async () => {
    using station = new Station();
    await station.subscribe("plans");
    station.postMs = 5;
    station.start(INTERVAL_MS);
    const start = performance.now();
    await station.post("plans", proposal("p", { round_timeout_ms: 1, max_rounds: 1_000_000 }));
    const rounds = await until(
      () => station.messages("plans"),
      (messages) => messages.length > 5,
    );
    expect(performance.now() - start).toBeGreaterThan((rounds.length - 3) * INTERVAL_MS);
    const indexes = rounds.map(({ content }) => (content as { round_index?: number }).round_index ?? 1);
    expect(indexes).toEqual(rounds.map((_, i) => rounds.length - i));
    expect(rounds[0]?.reply_to_message_id).toBe(rounds[1]!.message_id);
  });
});

async function fill(station: Station, feed: string, n: number): Promise<void> {
  await Promise.all(Array.from({ length: n }, (_, i) => station.post(feed, { n: i })));
}

/** Waits until nothing comes any more. */
async function quiet(look: () => Promise<unknown[]>): Promise<void> {
  let before = -1;
  for (let now = await look(); now.length !== before; now = await look()) {
    before = now.length;
    await Bun.sleep(20);
  }
}
