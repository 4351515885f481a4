/** Votes, as those see them who propose and take a stance: over HTTP, across restarts and between instances. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { Author, messageEvent, Peer } from "../support/events.ts";
import { type Feed, type Message, newFeed, nodeOf } from "../support/feeds.ts";
import { heldBy, Network } from "../support/network.ts";
import { startServer, type TestServer } from "../support/server.ts";
import { temporaryDirectory } from "../support/spawn.ts";
import { type Sender, sharedServer, together, until } from "../support/topics.ts";

setDefaultTimeout(60_000);

/** What runs every 5 s has come by then, on a busy machine too. */
const SOON_MS = 15_000;

const proposal = (id: string, more: object = {}) => ({ kind: "proposal", proposal_id: id, ...more });
const stance = (id: string, choice: string, more: object = {}) => ({
  kind: "stance",
  proposal_id: id,
  stance: choice,
  ...more,
});
/** A stance that the coordinator tells for an agent. */
const spoken = (id: string, choice: string, agent: string) =>
  stance(id, choice, { kind: "interpreted_stance", source_author_node_id: agent });

const resultsOf = (server: Sender, feed: Feed): Feed => newFeed(server, feed.scope, `${feed.key}.result`);

/** The contents of a lane's results, newest first. */
const resultsIn = async (feed: Feed): Promise<Record<string, unknown>[]> =>
  contentsOfKind(await feed.list({ limit: 200 }), "consensus_result");

const contentsOfKind = (messages: readonly Message[], kind: string) =>
  messages
    .map(({ content }) => content as Record<string, unknown>)
    .filter((content) => content.kind === kind);

/** Waits for so many results of a lane. */
const results = (feed: Feed, n: number, deadlineMs?: number) =>
  until(
    () => resultsIn(feed),
    (found) => found.length >= n,
    deadlineMs,
  );

/** Decides another proposal of the lane. When its result is there, everything before it has been dealt with. */
async function settle(feed: Feed, into: Feed, id = "settled"): Promise<void> {
  await feed.post(proposal(id, { result_feed_key: into.key }));
  await feed.post(stance(id, "support"));
  await until(
    () => resultsIn(into),
    (found) => found.some(({ proposal_id }) => proposal_id === id),
  );
}

/** A network of its own, and one that others are in. */
const server = sharedServer();
const NETWORK = "net:votes";
const shared = sharedServer({ FEED_NETWORK_ID: NETWORK });

describe("07 section 10: one instance", () => {
  test("07 section 10: the stance that reaches the threshold brings the result, without a subscription", async () => {
    const feed = newFeed(server);
    const id = await feed.post(proposal("p", { participants: ["ann", "bob", "cy"], goal: "ship it" }));
    await feed.post(spoken("p", "support", "ann"));
    await feed.post(spoken("p", "reject", "bob"));
    await feed.post(spoken("p", "support", "cy"));
    const node = await nodeOf(server);
    const into = resultsOf(server, feed);
    await results(into, 1);
    const messages = await into.list();
    expect(messages).toMatchObject([
      { author_node_id: node, scope_hint: "group:crew", agent_envelope: null, reply_to_message_id: null },
    ]);
    expect(messages[0]?.content).toEqual({
      kind: "consensus_result",
      proposal_id: "p",
      proposal_message_id: id,
      decision: "support",
      support_count: 2,
      reject_count: 1,
      abstain_count: 0,
      required_count: 2,
      observed_participant_count: 3,
      min_participants: 3,
      threshold_percent: 60,
      round_index: 1,
      max_rounds: 1,
      fallback_applied: false,
      close_reason: "threshold_met",
      participants: ["ann", "bob", "cy"],
      coordinator_node_id: node,
      source_feed_key: feed.key,
      source_scope_hint: "group:crew",
      goal: "ship it",
    });
  });

  test.each(["global", "region:eu", "node:x", "network:main", "local", "dm:b:a"])(
    "07 section 10: the result stays in the scope %s",
    async (scope) => {
      const feed = newFeed(server, scope);
      await feed.post(proposal("p"));
      await feed.post(stance("p", "support"));
      const [result] = await results(resultsOf(server, feed), 1);
      expect(result?.source_scope_hint).toBe(scope === "dm:b:a" ? "dm:a:b" : scope);
    },
  );

  test("07 section 10: the result may go into another feed, or into the same", async () => {
    const feed = newFeed(server);
    const other = newFeed(server);
    await feed.post(proposal("p", { result_feed_key: other.key }));
    await feed.post(proposal("q", { result_feed_key: feed.key }));
    await feed.post(stance("p", "support"));
    await feed.post(stance("q", "reject"));
    expect(await results(other, 1)).toMatchObject([{ proposal_id: "p", decision: "support" }]);
    expect(await results(feed, 1)).toMatchObject([{ proposal_id: "q", decision: "reject" }]);
    expect(await resultsIn(resultsOf(server, feed))).toEqual([]);
  });

  test("07 section 10: many stances at once bring one result", async () => {
    const feed = newFeed(server);
    const into = resultsOf(server, feed);
    await feed.post(proposal("p", { threshold_percent: 10, min_participants: 10 }));
    await together(50, (i) => feed.post(spoken("p", "support", `agent-${i}`)));
    await settle(feed, into);
    const found = await resultsIn(into);
    expect(found.map(({ proposal_id }) => proposal_id).sort()).toEqual(["p", "settled"]);
  });

  test("07 section 10: a result stands, whatever is said later", async () => {
    const feed = newFeed(server);
    const into = resultsOf(server, feed);
    // The stance is there first, so no time is up before it counts.
    await feed.post(spoken("p", "support", "ann"));
    await feed.post(proposal("p", { participants: ["ann"], max_rounds: 2, round_timeout_ms: 1 }));
    await results(into, 1);
    for (const choice of ["reject", "abstain", "support"]) await feed.post(spoken("p", choice, "ann"));
    await settle(feed, into);
    const found = await resultsIn(into);
    expect(found.map(({ proposal_id }) => proposal_id)).toEqual(["settled", "p"]);
    expect(contentsOfKind(await feed.list(), "proposal")).toHaveLength(2);
  });

  test("07 section 10: what somebody else coordinates is left to them", async () => {
    const feed = newFeed(server);
    const into = resultsOf(server, feed);
    await feed.post(proposal("p", { coordinator_node_id: new Author().id, round_timeout_ms: 1 }));
    await feed.post(stance("p", "support"));
    await settle(feed, into);
    expect(await resultsIn(into)).toMatchObject([{ proposal_id: "settled" }]);
  });

  test("07 section 10: a content that does not fit is a message like any other", async () => {
    const feed = newFeed(server);
    const into = resultsOf(server, feed);
    await feed.post(proposal("p", { threshold_percent: 0 }));
    await feed.post(stance("p", "support"));
    await settle(feed, into);
    expect(await resultsIn(into)).toMatchObject([{ proposal_id: "settled" }]);
  });

  test("07 section 10: what keeps a result from being posted is not the poster's trouble", async () => {
    const feed = newFeed(server);
    const into = resultsOf(server, feed);
    // A result holds more than the proposal and is too large for an event.
    await feed.post(proposal("p", { goal: "x".repeat(129_600) }));
    await feed.post(stance("p", "support"));
    await settle(feed, into);
    expect(await resultsIn(into)).toMatchObject([{ proposal_id: "settled" }]);
  });

  test("07 section 10: a post after the timeout brings the next round, and after the last one the fallback", async () => {
    const feed = newFeed(server);
    const members = {
      participants: ["ann", "bob"],
      round_timeout_ms: 1,
      max_rounds: 2,
      fallback_decision: "reject",
      text: "Shall we?",
    };
    const first = await feed.post(proposal("p", members));
    const rounds = async () => (await feed.list()).filter(({ content }) => isProposal(content));
    const [second] = await until(
      // Anything that is posted will do.
      async () => {
        await feed.post({ text: "any news?" });
        return rounds();
      },
      (found) => found.length > 1,
    );
    expect(second).toMatchObject({
      author_node_id: await nodeOf(server),
      reply_to_message_id: first,
      scope_hint: "group:crew",
    });
    expect(second?.content).toEqual({ ...proposal("p", members), round_index: 2 });
    const into = resultsOf(server, feed);
    await until(
      async () => {
        await feed.post({ text: "any news?" });
        return resultsIn(into);
      },
      (found) => found.length > 0,
    );
    await settle(feed, into);
    expect(await resultsIn(into)).toMatchObject([
      { proposal_id: "settled" },
      {
        proposal_id: "p",
        proposal_message_id: second?.message_id,
        decision: "reject",
        round_index: 2,
        fallback_applied: true,
        close_reason: "max_rounds_fallback",
      },
    ]);
    expect(await rounds()).toHaveLength(3);
  });
});

/** A server that comes back as the one it was. */
const start = (dir: string): Promise<TestServer> => startServer({ TOPICS_DATA_DIR: dir });

const isProposal = (content: unknown): boolean => (content as { kind?: unknown }).kind === "proposal";

describe("07 section 10: across restarts", () => {
  test("07 section 10: neither a result nor a next round comes again", async () => {
    await using dir = await temporaryDirectory();
    const [plans, decided] = ["plans", "decided"];
    const timed = { participants: ["ann"], round_timeout_ms: 1, max_rounds: 2, result_feed_key: decided };
    {
      await using server = await start(dir.path);
      const feed = newFeed(server, "group:crew", plans);
      const into = newFeed(server, "group:crew", decided);
      await feed.post(proposal("p", { result_feed_key: decided }));
      await feed.post(stance("p", "support"));
      await results(into, 1);
      const round = await feed.post(proposal("q", timed));
      await until(
        async () => {
          await feed.post({ text: "any news?" });
          return feed.list();
        },
        (messages) => messages.some(({ reply_to_message_id }) => reply_to_message_id === round),
      );
      // The result is far behind what the feed's newest page shows.
      for (let i = 0; i < 520; i += 40) await together(40, (j) => into.post({ n: i + j }));
    }
    await using server = await start(dir.path);
    const feed = newFeed(server, "group:crew", plans);
    const into = newFeed(server, "group:crew", decided);
    await feed.post(stance("p", "support"));
    await settle(feed, into);
    const found = await resultsIn(into);
    expect(found.map(({ proposal_id }) => proposal_id)).not.toContain("p");
    const rounds = contentsOfKind(await feed.list(), "proposal").filter(
      ({ proposal_id }) => proposal_id === "q",
    );
    expect(rounds.map(({ round_index }) => round_index)).toEqual([2, undefined]);
  });
});

/** Each waits for what runs every 5 s, so they wait together. */
describe.concurrent("07 section 10: in subscribed feeds", () => {
  // Two stances of one author must not share a moment.
  let clock = Date.now() - 60_000;
  const pushed = async (feed: Feed, author: Author, content: unknown): Promise<string> => {
    const names = { network_id: NETWORK, feed_key: feed.key, scope: feed.scope };
    const event = messageEvent(author, { ...names, content, created_at: ++clock });
    const reply = await new Peer(shared, NETWORK).push(event);
    expect(reply.body).toMatchObject({ accepted: 1, rejected: [] });
    return event.event_id;
  };

  test("07 section 10: in a subscribed feed nobody need post for a timeout to come", async () => {
    const [feed, silent] = [newFeed(server), newFeed(server)];
    await feed.subscribe();
    await feed.post(proposal("p", { round_timeout_ms: 500, fallback_decision: "later" }));
    await silent.post(proposal("p", { round_timeout_ms: 500 }));
    expect(await results(resultsOf(server, feed), 1, SOON_MS)).toMatchObject([
      { decision: "later", close_reason: "max_rounds_fallback" },
    ]);
    expect(await resultsIn(resultsOf(server, silent))).toEqual([]);
  });

  test("07 section 10: a timeout comes although the instance was down", async () => {
    await using dir = await temporaryDirectory();
    {
      await using server = await start(dir.path);
      const feed = newFeed(server, "group:crew", "plans");
      await feed.subscribe();
      await feed.post(proposal("p", { round_timeout_ms: 1000 }));
    }
    await using server = await start(dir.path);
    const into = newFeed(server, "group:crew", "plans.result");
    expect(await results(into, 1, SOON_MS)).toMatchObject([{ proposal_id: "p", decision: "abstain" }]);
  });

  test("07 section 10: stances that others bring are counted in a subscribed feed", async () => {
    const feed = newFeed(shared);
    const [ann, bob, cy, mallory] = [new Author(), new Author(), new Author(), new Author()];
    await feed.subscribe();
    const participants = [ann.id, bob.id, cy.id];
    await feed.post(proposal("p", { participants }));
    // Neither the coordinator's own, nor that of somebody who is not listed, whoever they claim to be.
    await feed.post(stance("p", "reject"));
    await pushed(feed, mallory, stance("p", "reject", { source_author_node_id: ann.id }));
    await pushed(feed, mallory, spoken("p", "reject", bob.id));
    // The later one counts, and it is her own.
    await pushed(feed, ann, stance("p", "reject"));
    await pushed(feed, ann, stance("p", "support", { source_author_node_id: bob.id }));
    await feed.post(spoken("p", "support", cy.id));
    expect(await results(resultsOf(shared, feed), 1, SOON_MS)).toMatchObject([
      { decision: "support", support_count: 2, reject_count: 0, observed_participant_count: 2, participants },
    ]);
  });

  test("07 section 10: a proposal that names this instance is its to close", async () => {
    const feed = newFeed(shared);
    const [ann, bob] = [new Author(), new Author()];
    await feed.subscribe();
    const node = await nodeOf(shared);
    const id = await pushed(feed, ann, proposal("p", { coordinator_node_id: node }));
    await pushed(feed, bob, stance("p", "support"));
    const into = resultsOf(shared, feed);
    await results(into, 1, SOON_MS);
    expect(await into.list()).toMatchObject([
      { author_node_id: node, content: { proposal_message_id: id, coordinator_node_id: node } },
    ]);
  });

  test("07 section 10: of two instances the coordinator publishes, once, for both", async () => {
    await using network = await Network.of({ a: ["b"], b: ["a"] });
    const [a, b] = network.get("a", "b");
    const [plans, decided] = [
      { feed_key: "plans", scope_hint: "group:crew" },
      { feed_key: "plans.result", scope_hint: "group:crew" },
    ];
    const [nodeA, nodeB] = [await a.nodeId(), await b.nodeId()];
    for (const instance of [a, b]) {
      await instance.subscribe(plans);
      await instance.subscribe(decided);
    }
    await a.hearsOf(nodeB, "plans.result");
    await b.hearsOf(nodeA, "plans.result");
    const members = { participants: [nodeA, nodeB], threshold_percent: 50 };
    const id = await a.post(plans, proposal("p", members));
    await b.holds(plans, 1);
    await b.post(plans, stance("p", "support", { proposal_message_id: id }));
    await heldBy([a, b], decided, 1, SOON_MS);
    // Each has seen all there is when it has closed another one.
    await a.post(plans, proposal("q", { coordinator_node_id: nodeB }));
    await a.post(plans, stance("q", "support"));
    await heldBy([a, b], decided, 2, SOON_MS);
    for (const instance of [a, b]) {
      expect(await instance.messages(decided)).toMatchObject([
        { author_node_id: nodeB, content: { proposal_id: "q" } },
        { author_node_id: nodeA, content: { proposal_id: "p", proposal_message_id: id } },
      ]);
    }
  });
});

describe("07 section 10: keys", () => {
  test.each([
    ["a.votes", 200],
    ["a.votes.result", 200],
    ["b.anything", 403],
  ])("a key for a. may not have a result posted to another feed: %s", async (result_feed_key, status) => {
    await using server = await startServer({ TOPICS_API_KEYS: "secret:rw:a." });
    const content = { kind: "proposal", proposal_id: "p", result_feed_key };
    const message = { feed_key: "a.votes", scope_hint: "group:crew", content };
    const reply = await server.send("POST", "/api/topic/messages", message, {
      authorization: "Bearer secret",
    });
    expect(reply.status).toBe(status);
  });
});
