/** The rules of a vote: what counts, what it takes, and what comes of it in any order of arrival. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { isBallot, type Message } from "../../src/engine/consensus/ballots.ts";
import { decide } from "../../src/engine/consensus/decision.ts";

const us = "a".repeat(64);
const [ann, bob, cy, dan] = ["b", "c", "d", "e"].map((digit) => digit.repeat(64)) as [
  string,
  string,
  string,
  string,
];
const START = 1_700_000_000_000;

/** The messages of one lane, each a second after the one before. */
class Lane {
  readonly messages: Message[] = [];
  networkId = "crew";

  say(author: string, content: unknown, replyTo: string | null = null, createdAt?: number): string {
    const n = this.messages.length + 1;
    const id = n.toString(16).padStart(64, "0");
    this.messages.unshift({
      message_id: id,
      feed_key: "plans",
      scope_hint: "group:crew-7",
      author_node_id: author,
      content,
      reply_to_message_id: replyTo,
      created_at: createdAt ?? START + n * 1000,
      content_resolved_at: START + n * 1000,
      event_seq: n,
    });
    return id;
  }

  propose = (members: object = {}, author = us, replyTo: string | null = null): string =>
    this.say(author, { kind: "proposal", proposal_id: "p", ...members }, replyTo);

  vote = (author: string, stance: string, members: object = {}, replyTo: string | null = null): string =>
    this.say(author, { kind: "stance", proposal_id: "p", stance, ...members }, replyTo);

  decide(now = START + 1_000_000, closed: string[] = []) {
    return decide(this.messages, {
      nodeId: us,
      networkId: this.networkId,
      now,
      closed: new Set(closed),
    });
  }

  /** The contents to be published. */
  get contents(): Readonly<Record<string, unknown>>[] {
    return this.decide().publications.map(({ content }) => content);
  }
}

const threeVoters = { participants: [ann, bob, cy] };

describe("07 section 10: what is a proposal", () => {
  test("07 section 10: a result carries the defaults of a proposal", () => {
    const lane = new Lane();
    const id = lane.propose();
    lane.vote(ann, "support");
    const { publications, againAt } = lane.decide();
    expect(againAt).toBeNull();
    expect(publications.map(({ proposal: _, ...rest }) => rest)).toEqual([
      {
        feedKey: "plans.result",
        scopeHint: "group:crew-7",
        content: {
          kind: "consensus_result",
          proposal_id: "p",
          proposal_message_id: id,
          decision: "support",
          support_count: 1,
          reject_count: 0,
          abstain_count: 0,
          required_count: 1,
          observed_participant_count: 1,
          min_participants: 1,
          threshold_percent: 60,
          round_index: 1,
          max_rounds: 1,
          fallback_applied: false,
          close_reason: "threshold_met",
          participants: [],
          coordinator_node_id: us,
          source_feed_key: "plans",
          source_scope_hint: "group:crew-7",
          goal: null,
        },
      },
    ]);
  });

  test("07 section 10: what a proposal says itself is in its result", () => {
    const lane = new Lane();
    lane.propose({
      ...threeVoters,
      threshold_percent: 50,
      min_participants: 2,
      round_index: 2,
      max_rounds: 5,
      round_timeout_ms: 60_000,
      result_feed_key: "decided",
      coordinator_node_id: us,
      goal: { text: "ship it" },
    });
    lane.vote(ann, "reject");
    lane.vote(bob, "reject");
    expect(lane.decide().publications[0]).toMatchObject({
      feedKey: "decided",
      content: {
        decision: "reject",
        required_count: 2,
        min_participants: 2,
        threshold_percent: 50,
        round_index: 2,
        max_rounds: 5,
        participants: [ann, bob, cy],
        goal: { text: "ship it" },
      },
    });
  });

  test("07 section 10: min_participants is the number of different participants by default", () => {
    const lane = new Lane();
    lane.propose({ participants: [ann, bob, ann, cy, cy] });
    lane.vote(ann, "support");
    lane.vote(bob, "support");
    expect(lane.contents[0]).toMatchObject({
      min_participants: 3,
      required_count: 2,
      participants: [ann, bob, cy],
    });
  });

  test("07 section 10: members that are null are as absent", () => {
    const lane = new Lane();
    lane.propose({
      participants: null,
      threshold_percent: null,
      min_participants: null,
      round_index: null,
      max_rounds: null,
      round_timeout_ms: null,
      result_feed_key: null,
      coordinator_node_id: null,
      fallback_decision: null,
      goal: null,
    });
    lane.vote(ann, "support", { proposal_message_id: null, source_author_node_id: null });
    expect(lane.decide().publications[0]).toMatchObject({
      feedKey: "plans.result",
      content: { decision: "support", threshold_percent: 60 },
    });
  });

  test.each([
    ["another kind", { kind: "motion" }],
    ["no id", { proposal_id: undefined }],
    ["a blank id", { proposal_id: " " }],
    ["an id that is a number", { proposal_id: 7 }],
    ["participants that are a string", { participants: ann }],
    ["a participant that is a number", { participants: [ann, 1] }],
    ["a threshold of 0", { threshold_percent: 0 }],
    ["a threshold of 101", { threshold_percent: 101 }],
    ["a threshold of 60.5", { threshold_percent: 60.5 }],
    ["a threshold that is a string", { threshold_percent: "60" }],
    ["no participants needed", { min_participants: 0 }],
    ["a negative number of participants needed", { min_participants: -1 }],
    ["half a participant needed", { min_participants: 0.5 }],
    ["a round that is a string", { round_index: "1" }],
    ["a negative round", { round_index: -1 }],
    ["half a round", { max_rounds: 1.5 }],
    ["a negative timeout", { round_timeout_ms: -1 }],
    ["a timeout that is true", { round_timeout_ms: true }],
    ["a result feed that is a number", { result_feed_key: 1 }],
    ["a coordinator that is a number", { coordinator_node_id: 1 }],
    ["a fallback that is an object", { fallback_decision: {} }],
  ])("07 section 10: a content with %s is no proposal", (_, members) => {
    const lane = new Lane();
    const id = lane.propose({ min_participants: 1, ...members });
    lane.vote(ann, "support", {}, id);
    expect(lane.contents).toEqual([]);
  });

  test.each([[null], ["proposal"], [1], [true], [[{ kind: "proposal", proposal_id: "p" }]]])(
    "07 section 10: %j is no proposal",
    (content) => {
      const lane = new Lane();
      const id = lane.say(us, content);
      lane.vote(ann, "support", {}, id);
      expect(lane.contents).toEqual([]);
    },
  );

  test.each([
    ["the smallest threshold", { threshold_percent: 1 }],
    ["the largest threshold", { threshold_percent: 100 }],
    ["whole numbers with a fraction of 0", JSON.parse('{"threshold_percent":60.0,"round_index":1.0}')],
    ["members nobody knows", { colour: "red" }],
  ])("07 section 10: a content with %s is a proposal", (_, members) => {
    const lane = new Lane();
    lane.propose(members);
    lane.vote(ann, "support");
    expect(lane.contents).toHaveLength(1);
  });

  test("07 section 10: what can matter is told by the kind", () => {
    const kinds = ["proposal", "stance", "interpreted_stance", "consensus_result", "chat", 1, null];
    expect(kinds.map((kind) => isBallot({ kind }))).toEqual([true, true, true, false, false, false, false]);
    expect([null, "stance", ["stance"]].map(isBallot)).toEqual([false, false, false]);
  });
});

describe("07 section 10: who coordinates", () => {
  test("07 section 10: only the coordinator publishes", () => {
    const lane = new Lane();
    lane.propose({}, ann);
    lane.vote(bob, "support");
    expect(lane.contents).toEqual([]);
  });

  test("07 section 10: a proposal of this node that names another is the other's to close", () => {
    const lane = new Lane();
    lane.propose({ coordinator_node_id: ann });
    lane.vote(bob, "support");
    expect(lane.contents).toEqual([]);
  });

  test("07 section 10: somebody else's proposal that names this node is this node's to close", () => {
    const lane = new Lane();
    lane.propose({ coordinator_node_id: us }, ann);
    lane.vote(bob, "support");
    expect(lane.contents).toMatchObject([{ coordinator_node_id: us, decision: "support" }]);
  });
});

describe("07 section 10: what a stance is about", () => {
  /** Which of two proposals with one id a stance decides. */
  function decidedBy(vote: (lane: Lane, first: string, second: string) => void): unknown[] {
    const lane = new Lane();
    const first = lane.propose();
    const second = lane.propose();
    vote(lane, first, second);
    const names = new Map([
      [first, "first"],
      [second, "second"],
    ]);
    return lane.contents.map((content) => names.get(content.proposal_message_id as string));
  }

  test.each<[string, (lane: Lane, first: string, second: string) => void, string[]]>([
    [
      "the message it names",
      (lane, first) => lane.vote(ann, "support", { proposal_message_id: first }),
      ["first"],
    ],
    [
      "the one it names, not the one it replies to",
      (lane, first, second) => lane.vote(ann, "support", { proposal_message_id: first }, second),
      ["first"],
    ],
    ["the one it replies to", (lane, _, second) => lane.vote(ann, "support", {}, second), ["second"]],
    [
      "the one it replies to where the name is blank",
      (lane, _, second) => lane.vote(ann, "support", { proposal_message_id: "" }, second),
      ["second"],
    ],
    ["none of two if it says nothing", (lane) => lane.vote(ann, "support"), []],
    [
      "none if it names a message that is not there",
      (lane) => lane.vote(ann, "support", { proposal_message_id: "f".repeat(64) }),
      [],
    ],
    [
      "none if it replies to something else",
      (lane) => lane.vote(ann, "support", {}, lane.say(bob, "hello")),
      [],
    ],
    [
      "none if it names a proposal of another id",
      (lane, first) => lane.vote(ann, "support", { proposal_id: "q", proposal_message_id: first }),
      [],
    ],
  ])("07 section 10: a stance is about %s", (_, vote, expected) => {
    expect(decidedBy(vote)).toEqual(expected);
  });

  test("07 section 10: a stance that says nothing is about the only proposal of that id", () => {
    const lane = new Lane();
    lane.propose();
    lane.propose({ proposal_id: "q" });
    lane.vote(ann, "support");
    expect(lane.contents).toMatchObject([{ proposal_id: "p" }]);
  });

  test("07 section 10: a stance may be older than its proposal", () => {
    const lane = new Lane();
    lane.vote(ann, "support");
    lane.propose();
    expect(lane.contents).toMatchObject([{ decision: "support" }]);
  });

  test.each([
    ["a choice nobody knows", { stance: "maybe" }],
    ["a choice in capitals", { stance: "Support" }],
    ["no choice", { stance: undefined }],
    ["no id", { proposal_id: undefined }],
    ["a name that is a number", { proposal_message_id: 1 }],
    ["a source that is a number", { source_author_node_id: 1 }],
    ["another kind", { kind: "opinion" }],
  ])("07 section 10: a content with %s is no stance", (_, members) => {
    const lane = new Lane();
    const id = lane.propose();
    lane.vote(ann, "support", members, id);
    expect(lane.contents).toEqual([]);
  });
});

describe("07 section 10: whose stances count", () => {
  const outcome = (lane: Lane) => lane.contents[0] ?? {};

  test("07 section 10: the latest stance of each author counts", () => {
    const lane = new Lane();
    lane.propose({ ...threeVoters, threshold_percent: 100 });
    for (const author of [ann, bob, cy]) lane.vote(author, "reject");
    lane.vote(ann, "abstain");
    for (const author of [cy, ann, bob]) lane.vote(author, "support");
    expect(outcome(lane)).toMatchObject({ decision: "support", support_count: 3, reject_count: 0 });
  });

  test("07 section 10: of two stances of one moment that with the greater message_id counts", () => {
    const lane = new Lane();
    lane.propose();
    lane.say(ann, { kind: "stance", proposal_id: "p", stance: "reject" }, null, START);
    lane.say(ann, { kind: "stance", proposal_id: "p", stance: "support" }, null, START);
    expect(outcome(lane)).toMatchObject({ decision: "support", observed_participant_count: 1 });
  });

  test("07 section 10: what is no stance does not take back one", () => {
    const lane = new Lane();
    lane.propose();
    lane.vote(ann, "support");
    lane.vote(ann, "none");
    expect(outcome(lane)).toMatchObject({ decision: "support" });
  });

  test("07 section 10: only listed participants count", () => {
    const lane = new Lane();
    lane.propose({ participants: [ann, bob] });
    lane.vote(ann, "support");
    lane.vote(cy, "support");
    lane.vote(dan, "reject");
    expect(lane.contents).toEqual([]);
    lane.vote(bob, "support");
    expect(outcome(lane)).toMatchObject({ support_count: 2, reject_count: 0, observed_participant_count: 2 });
  });

  test.each([
    ["crew", 0],
    ["mainnet:local:1", 0],
    [`local:${us}`, 1],
  ])("07 section 10: in the network %s the coordinator has %i votes", (networkId, votes) => {
    const lane = new Lane();
    lane.networkId = networkId;
    lane.propose({ participants: [us, ann], threshold_percent: 50 });
    lane.vote(us, "support");
    expect(lane.contents).toHaveLength(votes);
  });

  test.each(["stance", "interpreted_stance"])(
    "07 section 10: the coordinator speaks for others in a message of kind %s",
    (kind) => {
      const lane = new Lane();
      lane.propose({ participants: [ann, bob] });
      lane.vote(us, "support", { kind, source_author_node_id: ann });
      lane.vote(us, "support", { kind, source_author_node_id: bob });
      expect(outcome(lane)).toMatchObject({ decision: "support", support_count: 2 });
    },
  );

  test.each(["stance", "interpreted_stance"])(
    "07 section 10: nobody else speaks for others in a message of kind %s",
    (kind) => {
      const lane = new Lane();
      lane.propose({ min_participants: 4, threshold_percent: 50 });
      for (const source of [ann, bob, cy]) lane.vote(dan, "support", { kind, source_author_node_id: source });
      expect(lane.contents).toEqual([]);
      // It is the speaker's own stance.
      lane.vote(ann, "support");
      expect(outcome(lane)).toMatchObject({ support_count: 2, observed_participant_count: 2 });
    },
  );

  test("07 section 10: the coordinator of one proposal speaks for nobody on another's", () => {
    const lane = new Lane();
    lane.propose({ participants: [bob] });
    lane.propose({ proposal_id: "q" }, ann);
    lane.vote(ann, "support", { source_author_node_id: bob });
    expect(lane.contents).toEqual([]);
  });

  test("07 section 10: the coordinator cannot get a vote by naming itself", () => {
    const lane = new Lane();
    lane.propose();
    lane.vote(us, "support", { source_author_node_id: us });
    expect(lane.contents).toEqual([]);
  });

  test("07 section 10: whoever changes a stance that was told for them has the last word", () => {
    const lane = new Lane();
    lane.propose({ participants: [ann] });
    lane.vote(us, "support", { kind: "interpreted_stance", source_author_node_id: ann });
    lane.vote(ann, "reject");
    expect(outcome(lane)).toMatchObject({ decision: "reject", support_count: 0 });
  });
});

describe("07 section 10: how many it takes", () => {
  const voters = Array.from({ length: 12 }, (_, i) => i.toString(16).padStart(64, "f"));

  test.each([
    // participants, min_participants, threshold, needed
    [3, null, 60, 2],
    [3, null, 67, 3],
    [3, null, 100, 3],
    [3, null, 1, 1],
    [4, null, 50, 2],
    [5, null, 60, 3],
    [10, null, 70, 7],
    [10, null, 71, 8],
    [3, 10, 60, 6],
    [10, 3, 60, 6],
    [1, null, 60, 1],
    [0, 5, 60, 3],
  ])(
    "07 section 10: of %i participants and at least %s, %i percent are %i",
    (listed, min, threshold, needed) => {
      const lane = new Lane();
      lane.propose({
        participants: voters.slice(0, listed),
        min_participants: min,
        threshold_percent: threshold,
      });
      const electors = voters.slice(0, listed || voters.length);
      for (const voter of electors.slice(0, needed - 1)) lane.vote(voter, "support");
      expect(lane.contents).toEqual([]);
      if (needed > electors.length) return;
      lane.vote(electors[needed - 1]!, "support");
      expect(lane.contents).toMatchObject([{ required_count: needed, support_count: needed }]);
    },
  );

  test("07 section 10: where none are listed, those who voted are all", () => {
    const lane = new Lane();
    lane.propose({ min_participants: 3 });
    lane.vote(ann, "support");
    lane.vote(bob, "reject");
    lane.vote(cy, "reject");
    expect(lane.contents).toMatchObject([{ required_count: 2, decision: "reject" }]);
    // One of four abstains, so it takes three now.
    lane.vote(dan, "abstain");
    expect(lane.contents).toEqual([]);
  });

  test("07 section 10: support comes before reject", () => {
    const lane = new Lane();
    lane.propose({ participants: [ann, bob], threshold_percent: 50 });
    lane.vote(ann, "reject");
    lane.vote(bob, "support");
    expect(lane.contents).toMatchObject([{ decision: "support", support_count: 1, reject_count: 1 }]);
  });

  test("07 section 10: abstaining decides nothing", () => {
    const lane = new Lane();
    lane.propose(threeVoters);
    for (const author of [ann, bob, cy]) lane.vote(author, "abstain");
    expect(lane.contents).toEqual([]);
  });
});

describe("07 section 10: when time is up", () => {
  const timed = { ...threeVoters, round_timeout_ms: 5000 };
  /** The proposal is the first message of the lane. */
  const endsAt = START + 1000 + 5000;

  test("07 section 10: a round lasts from its proposal's created_at, not a moment longer", () => {
    const lane = new Lane();
    lane.propose(timed);
    expect(lane.decide(endsAt - 1)).toEqual({ publications: [], againAt: endsAt });
    expect(lane.decide(endsAt)).toMatchObject({ publications: [{}], againAt: null });
  });

  test("07 section 10: without a timeout there is no end", () => {
    const lane = new Lane();
    lane.propose(threeVoters);
    expect(lane.decide(Number.MAX_SAFE_INTEGER)).toEqual({ publications: [], againAt: null });
  });

  test("07 section 10: the earliest of the ends to come is told", () => {
    const lane = new Lane();
    lane.propose({ ...timed, round_timeout_ms: 90_000 });
    lane.propose({ ...timed, proposal_id: "q" });
    lane.propose({ ...timed, proposal_id: "r", round_timeout_ms: 1 }, ann);
    expect(lane.decide(START).againAt).toBe(START + 2000 + 5000);
    expect(lane.decide(START + 2000 + 5000).againAt).toBe(START + 1000 + 90_000);
  });

  test.each<[string, string | undefined, string[], string]>([
    ["fallback_decision", "reject", ["support", "abstain"], "reject"],
    ["the larger, support", undefined, ["support", "abstain"], "support"],
    ["the larger, reject", undefined, ["abstain", "reject"], "reject"],
    ["abstain at a tie", undefined, ["support", "reject"], "abstain"],
    ["abstain without a stance", undefined, [], "abstain"],
  ])("07 section 10: after the last round it is %s", (_, fallback, stances, decision) => {
    const lane = new Lane();
    const id = lane.propose({ ...timed, threshold_percent: 100, fallback_decision: fallback });
    for (const [i, stance] of stances.entries()) lane.vote([ann, bob][i]!, stance);
    const [publication] = lane.decide(endsAt).publications;
    expect(publication).not.toHaveProperty("replyTo");
    expect(publication).toMatchObject({
      feedKey: "plans.result",
      scopeHint: "group:crew-7",
      content: {
        kind: "consensus_result",
        proposal_message_id: id,
        decision,
        required_count: 3,
        observed_participant_count: stances.length,
        fallback_applied: true,
        close_reason: "max_rounds_fallback",
      },
    });
  });

  test("07 section 10: who has reached the threshold needs no fallback", () => {
    const lane = new Lane();
    lane.propose({ ...timed, fallback_decision: "reject" });
    lane.vote(ann, "support");
    lane.vote(bob, "support");
    expect(lane.decide(endsAt + 1).publications).toMatchObject([
      { content: { decision: "support", fallback_applied: false, close_reason: "threshold_met" } },
    ]);
  });

  test("07 section 10: before the last round the next one is a reply", () => {
    const lane = new Lane();
    const members = { ...timed, round_index: 2, max_rounds: 3, goal: "ship", text: "Shall we?" };
    const id = lane.propose(members);
    const [publication] = lane.decide(endsAt).publications;
    expect(publication).toMatchObject({ feedKey: "plans", scopeHint: "group:crew-7", replyTo: id });
    expect(publication?.content).toEqual({
      kind: "proposal",
      proposal_id: "p",
      ...members,
      round_index: 3,
    });
  });

  test("07 section 10: the next round counts anew and ends the one before", () => {
    const lane = new Lane();
    const first = lane.propose({ ...timed, max_rounds: 2 });
    lane.vote(ann, "support", {}, first);
    const { content, replyTo } = lane.decide(endsAt).publications[0]!;
    const second = lane.say(us, content, replyTo ?? null);
    expect(lane.decide(endsAt)).toEqual({ publications: [], againAt: START + 3000 + 5000 });
    // What comes too late for the first round is of no use.
    lane.vote(bob, "support", {}, first);
    expect(lane.decide(endsAt).publications).toEqual([]);
    lane.vote(bob, "support", {}, second);
    lane.vote(cy, "support", {}, second);
    expect(lane.decide(endsAt).publications).toMatchObject([
      { content: { proposal_message_id: second, round_index: 2, support_count: 2 } },
    ]);
  });

  test("07 section 10: only the coordinator ends a round by a next one", () => {
    const lane = new Lane();
    const first = lane.propose({ ...timed, max_rounds: 2 });
    lane.propose({ ...timed, max_rounds: 2, round_index: 2, coordinator_node_id: us }, ann, first);
    expect(lane.decide(endsAt).publications).toMatchObject([{ replyTo: first }]);
  });

  test("07 section 10: a reply that is a proposal of another id ends nothing", () => {
    const lane = new Lane();
    const first = lane.propose(timed);
    lane.propose({ ...timed, proposal_id: "q", round_index: 2 }, us, first);
    expect(lane.decide(endsAt).publications).toMatchObject([{ content: { proposal_message_id: first } }]);
  });

  test("07 section 10: what has a result gets neither another nor a next round, nor is it waited for", () => {
    const lane = new Lane();
    const first = lane.propose({ ...timed, max_rounds: 2 });
    const second = lane.propose({ ...timed, proposal_id: "q" });
    expect(lane.decide(START, [first]).againAt).toBe(START + 2000 + 5000);
    expect(lane.decide(START + 1_000_000, [first]).publications).toMatchObject([
      { content: { proposal_message_id: second } },
    ]);
    expect(lane.decide(START + 1_000_000, [first, second])).toEqual({ publications: [], againAt: null });
  });
});

describe("07 section 10: in any order of arrival", () => {
  const nodes = [us, ann, bob, cy, dan];
  const ids = ["p", "q"];
  const proposal = fc.record({
    kind: fc.constant("proposal"),
    proposal_id: fc.constantFrom(...ids),
    participants: fc.subarray(nodes),
    threshold_percent: fc.integer({ min: 1, max: 100 }),
    max_rounds: fc.integer({ min: 1, max: 2 }),
    round_timeout_ms: fc.constantFrom(0, 1, 5000),
    coordinator_node_id: fc.constantFrom(us, us, null, ann),
  });
  const stance = fc.record({
    kind: fc.constantFrom("stance", "interpreted_stance"),
    proposal_id: fc.constantFrom(...ids),
    stance: fc.constantFrom("support", "reject", "abstain"),
    source_author_node_id: fc.constantFrom(null, ...nodes),
  });
  const message = fc.record({
    author: fc.constantFrom(...nodes),
    content: fc.oneof({ arbitrary: proposal, weight: 1 }, { arbitrary: stance, weight: 4 }),
    /** Which of the messages it replies to, if there is one. */
    replyTo: fc.integer({ min: -1, max: 8 }),
    /** Some share a moment. */
    at: fc.integer({ min: 0, max: 9 }),
  });

  test("07 section 10: the outcome is the same", () => {
    let decided = 0;
    const law = fc.property(
      fc.array(message, { maxLength: 25 }),
      fc.constantFrom("crew", `local:${us}`),
      fc.infiniteStream(fc.nat()),
      (drafts, networkId, dice) => {
        const lane = new Lane();
        lane.networkId = networkId;
        const idOf = (i: number) => (i < 0 ? null : (i + 1).toString(16).padStart(64, "0"));
        for (const { author, content, replyTo, at } of drafts)
          lane.say(author, content, idOf(replyTo), START + at * 1000);
        const before = lane.decide(START + 8000);
        decided += before.publications.length;
        const order = new Map(lane.messages.map((known) => [known, dice.next().value as number]));
        lane.messages.sort((a, b) => order.get(a)! - order.get(b)!);
        const after = lane.decide(START + 8000);
        expect(after).toEqual(before);
      },
    );
    fc.assert(law, { numRuns: 500 });
    expect(decided).toBeGreaterThan(100);
  });
});
