/** `claim_jitter_ms`: claims that arrive within one window are answered together and share evenly. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import {
  absentQueue,
  filledQueue,
  type Job,
  jobs,
  makeQueue,
  type Queue,
  range,
  seqsOf,
} from "../support/queue.ts";
import { RawSocket } from "../support/rawsocket.ts";
import { type Reply, startServer } from "../support/server.ts";
import { spawnServer } from "../support/spawn.ts";
import { newTopic, type Sender, sharedServer, timed, until } from "../support/topics.ts";

setDefaultTimeout(30_000);

const server = sharedServer();

/** What an answer may be late by on a busy machine. */
const LATE_MS = 2500;

/** An answer that waited for `ms`, and not much longer. */
function expectWaited(waited: number, ms: number): void {
  expect(waited).toBeGreaterThanOrEqual(ms - 20);
  expect(waited).toBeLessThan(ms + LATE_MS);
}

/** Claims of one window, made at the same time by nodes of their own. */
const cohort = (queue: Queue, ...requests: object[]) =>
  Promise.all(requests.map((request, i) => queue.claim({ node: `w${i}`, ...request })));

/** The seqs of each claim, dealt one per turn in order of arrival to those that still want some. */
function dealt(maxima: number[], total: number): number[][] {
  const hands: number[][] = maxima.map(() => []);
  let seq = 1;
  while (seq <= total && hands.some((hand, i) => hand.length < maxima[i]!)) {
    for (const [i, hand] of hands.entries()) if (hand.length < maxima[i]! && seq <= total) hand.push(seq++);
  }
  return hands;
}

describe.concurrent("the wait", () => {
  test.each([
    ["a queue with jobs", 3, 1],
    ["an empty queue", 0, 0],
  ])("04.37 a single claim on %s takes the whole window", async (_, n, count) => {
    const queue = await makeQueue(server, { claim_jitter_ms: 300 });
    if (n > 0) await queue.produce(n);
    const { ms, answer } = await timed(() => queue.claim());
    expect(answer).toMatchObject({ status: 200, body: { count, ready: n - count } });
    expectWaited(ms, 300);
  });

  test("04.37 the wait is not counted in server_total_ms", async () => {
    const queue = await filledQueue(server, 1, { claim_jitter_ms: 400 });
    const { ms, answer } = await timed(() => queue.claim());
    expect(ms).toBeGreaterThanOrEqual(380);
    expect(answer.body.performance).toStrictEqual({ server_total_ms: expect.any(Number) });
    expect(answer.body.performance.server_total_ms).toBeLessThan(200);
  });

  test("7 the first waits the whole window, a later one only the rest of it", async () => {
    const queue = await filledQueue(server, 2, { claim_jitter_ms: 1200 });
    const first = timed(() => queue.claim({ node: "a" }));
    await Bun.sleep(600);
    const second = await timed(() => queue.claim({ node: "b" }));
    expect(second.ms).toBeLessThan(1100);
    expectWaited((await first).ms, 1200);
    expect([...jobs((await first).answer), ...jobs(second.answer)].map(({ $seq }) => $seq)).toEqual([1, 2]);
  });

  test("7 jobs written during the window take part", async () => {
    const queue = await makeQueue(server, { claim_jitter_ms: 600 });
    const claim = timed(() => queue.claim({ max: 5 }));
    await Bun.sleep(150);
    await queue.append("early");
    await queue.append("late");
    const { ms, answer } = await claim;
    expectWaited(ms, 600);
    expect(jobs(answer).map(({ data }) => data)).toEqual(["early", "late"]);
  });

  test("7 what comes back during the window takes part", async () => {
    const queue = await filledQueue(server, 1);
    await queue.take(1);
    await queue.put({ type: "queue", claim_jitter_ms: 500 });
    const claim = queue.claim({ node: "other" });
    await Bun.sleep(100);
    await queue.nack([1]);
    expect(jobs(await claim)).toMatchObject([{ $seq: 1, deliveries: 2 }]);
  });

  test("04.40 a claim after the window opens a new one", async () => {
    const queue = await filledQueue(server, 2, { claim_jitter_ms: 250 });
    for (const seq of [1, 2]) {
      const { ms, answer } = await timed(() => queue.claim());
      expect(seqsOf(jobs(answer))).toEqual([seq]);
      expectWaited(ms, 250);
    }
  });

  test("7 with 0 each claim is served at once, also after windows, and beside another queue's", async () => {
    const waiting = await filledQueue(server, 1, { claim_jitter_ms: 1000 });
    const queue = await filledQueue(server, 30, { claim_jitter_ms: 200 });
    await queue.take(1);
    await queue.put({ type: "queue", claim_jitter_ms: 0 });
    const open = timed(() => waiting.claim());
    const { ms, answer } = await timed(() => queue.claim({ max: 20 }));
    expect(ms).toBeLessThan(700);
    expect(seqsOf(jobs(answer))).toEqual(range(2, 21));
    expectWaited((await open).ms, 1000);
  });

  test("7 other calls do not wait for it", async () => {
    const queue = await filledQueue(server, 4);
    await queue.take(3);
    await queue.put({ type: "queue", claim_jitter_ms: 1200 });
    const claim = timed(() => queue.claim({ node: "other", max: 9 }));
    await Bun.sleep(50);
    const { ms } = await timed(async () => {
      await queue.ack([1]);
      await queue.nack([2]);
      await queue.extend([3], 60000);
      await queue.append(5);
      await queue.diff();
      await queue.counters();
    });
    expect(ms).toBeLessThan(1000);
    expect(seqsOf(jobs((await claim).answer))).toEqual([2, 4, 5]);
  });
});

// Not concurrent: it also keeps the tests before and behind it apart, of which those above are about time.
describe("a log", () => {
  test("04.40 a log with a jitter is refused at once", async () => {
    const log = await newTopic(server, { claim_jitter_ms: 2000 });
    const { ms, answer } = await timed(() => absentQueue(server, log.name).claim());
    expect(answer).toMatchObject({ status: 409, body: { error: { code: "not_a_queue" } } });
    expect(ms).toBeLessThan(1000);
  });
});

describe.concurrent("the share", () => {
  test("04.38 four claims of 10 on 20 jobs: 5 each, in turns, all distinct", async () => {
    const queue = await filledQueue(server, 20, { claim_jitter_ms: 400 });
    const replies = await cohort(queue, { max: 10 }, { max: 10 }, { max: 10 }, { max: 10 });
    const shares = replies.map((reply) => seqsOf(jobs(reply))).toSorted((a, b) => a[0]! - b[0]!);
    expect(shares).toEqual([
      [1, 5, 9, 13, 17],
      [2, 6, 10, 14, 18],
      [3, 7, 11, 15, 19],
      [4, 8, 12, 16, 20],
    ]);
    for (const { body } of replies) expect(body.count).toBe(5);
    expect(await queue.counters()).toMatchObject({ ready: 0, in_flight: 20 });
  });

  test("04.39 max 1, 2 and 100 on 10 jobs: 1, 2 and 7, in turns by order of arrival", async () => {
    const queue = await filledQueue(server, 10, { claim_jitter_ms: 400 });
    const maxima = [1, 2, 100];
    const replies = await cohort(queue, ...maxima.map((max) => ({ max })));
    expect(replies.map(({ body }) => body.count)).toEqual([1, 2, 7]);
    const shares = replies.map((reply, i) => ({ max: maxima[i]!, seqs: seqsOf(jobs(reply)) }));
    // Who arrived first got the first job.
    shares.sort((a, b) => a.seqs[0]! - b.seqs[0]!);
    expect(shares.map(({ seqs }) => seqs)).toEqual(
      dealt(
        shares.map(({ max }) => max),
        10,
      ),
    );
  });

  test("7 arrivals at different times share by their order", async () => {
    const queue = await filledQueue(server, 10, { claim_jitter_ms: 900 });
    const replies: Promise<Reply>[] = [];
    for (const [i, max] of [1, 2, 100].entries()) {
      replies.push(queue.claim({ node: `w${i}`, max }));
      await Bun.sleep(200);
    }
    expect((await Promise.all(replies)).map((reply) => seqsOf(jobs(reply)))).toEqual([
      [1],
      [2, 4],
      [3, 5, 6, 7, 8, 9, 10],
    ]);
  });

  test("7 fewer jobs than claims: the others get none", async () => {
    const queue = await filledQueue(server, 2, { claim_jitter_ms: 400 });
    const replies = await cohort(queue, ...Array.from({ length: 5 }, () => ({ max: 3 })));
    expect(replies.map(({ status }) => status)).toEqual([200, 200, 200, 200, 200]);
    expect(replies.map(({ body }) => body.count).sort()).toEqual([0, 0, 0, 1, 1]);
    expect(replies.flatMap((reply) => seqsOf(jobs(reply))).sort()).toEqual([1, 2]);
  });

  test("7 returned jobs are dealt first, and each share ascends", async () => {
    const queue = await filledQueue(server, 7);
    await queue.take(4);
    await queue.nack([4, 2]);
    await queue.put({ type: "queue", claim_jitter_ms: 400 });
    const replies = await cohort(queue, { max: 2 }, { max: 2 });
    const shares = replies.map((reply) => seqsOf(jobs(reply))).toSorted((a, b) => a[0]! - b[0]!);
    expect(shares).toEqual([
      [2, 5],
      [4, 6],
    ]);
    expect((await queue.counters()).ready).toBe(1);
  });

  test("7 max counts as without a window", async () => {
    const queue = await filledQueue(server, 1010, { claim_jitter_ms: 300 });
    const [none, all] = await cohort(queue, { max: 0 }, { max: 4294967295 });
    expect([none!.body.count, all!.body.count]).toEqual([1, 1000]);
    expect(await queue.counters()).toMatchObject({ ready: 9, in_flight: 1001 });
  });

  test("7 the same node twice in one window is two claims", async () => {
    const queue = await filledQueue(server, 4, { claim_jitter_ms: 400 });
    const replies = await cohort(queue, { node: "w", max: 9 }, { node: "w", max: 9 });
    expect(replies.map(({ body }) => body.count)).toEqual([2, 2]);
    expect((await queue.ack([1, 2, 3, 4], { node: "w" })).body.acked).toBe(4);
  });

  test("7 each claim of a window has the lease it asked for, counted from the window's end", async () => {
    const queue = await filledQueue(server, 6, { claim_jitter_ms: 500, lease_ms: 20000 });
    const before = Date.now();
    const leases = [1000, 60000, undefined];
    const replies = await cohort(
      queue,
      ...leases.map((lease_ms) => ({ max: 2, ...(lease_ms && { lease_ms }) })),
    );
    const after = Date.now();
    for (const [i, reply] of replies.entries()) {
      expect(reply.body.count).toBe(2);
      for (const { deadline } of jobs(reply)) {
        expect(deadline - (leases[i] ?? 20000)).toBeGreaterThanOrEqual(before + 480);
        expect(deadline - (leases[i] ?? 20000)).toBeLessThanOrEqual(after + 1);
      }
    }
  });

  test("7 dead letters are moved by the window's pass", async () => {
    const dead = await newTopic(server);
    const config = { type: "queue", max_deliveries: 1, dead_letter: dead.name };
    const queue = await makeQueue(server, config);
    await queue.produce(2);
    await queue.nack(seqsOf(await queue.take(2)));
    await queue.append(3, 4);
    await queue.put({ ...config, claim_jitter_ms: 400 });
    const replies = await cohort(queue, { max: 1 }, { max: 1 });
    expect(replies.flatMap((reply) => seqsOf(jobs(reply))).sort()).toEqual([3, 4]);
    expect(await queue.counters()).toMatchObject({ count: 2, in_flight: 2, dead_lettered: 2 });
  });

  test("7 windows of two queues are two windows", async () => {
    const config = { claim_jitter_ms: 400 };
    const [one, other] = await Promise.all([filledQueue(server, 4, config), filledQueue(server, 6, config)]);
    const [ones, others] = await Promise.all([
      cohort(one, { max: 9 }, { max: 9 }),
      cohort(other, { max: 9 }, { max: 9 }),
    ]);
    expect(ones.map(({ body }) => [body.topic, body.count])).toEqual(Array(2).fill([one.name, 2]));
    expect(others.map(({ body }) => [body.topic, body.count])).toEqual(Array(2).fill([other.name, 3]));
  });
});

describe.concurrent("what does not wait", () => {
  test.each([
    ["a bad max", { max: -1 }, 400, "invalid_request"],
    ["a bad lease_ms", { lease_ms: "1" }, 400, "invalid_request"],
    ["an empty node", { node: "" }, 400, "invalid_request"],
    ["a long node", { node: "x".repeat(129) }, 400, "invalid_request"],
  ])("04.40 %s is refused at once, in a window and outside", async (_, request, status, code) => {
    const queue = await filledQueue(server, 1, { claim_jitter_ms: 2000 });
    const outside = await timed(() => queue.claim(request));
    const member = queue.claim();
    const inside = await timed(() => queue.claim(request));
    for (const { ms, answer } of [outside, inside]) {
      expect(answer).toMatchObject({ status, body: { error: { code } } });
      expect(ms).toBeLessThan(1000);
    }
    expect((await member).body.count).toBe(1);
  });
});

describe.concurrent("the limit of requests per key", () => {
  const as = (key: string) => ({ authorization: `Bearer ${key}` });

  test("01 s7 a claim that waits is a running request of its key, until it is answered", async () => {
    await using own = await startServer({ TOPICS_API_KEYS: "one,two", TOPICS_MAX_INFLIGHT_PER_KEY: "1" });
    const claim = (key: string) => own.send("POST", "/v0/topics/q/claim", { node: key }, as(key));
    await own.send("PUT", "/v0/topics/q", { type: "queue", claim_jitter_ms: 800 }, as("one"));
    const waiting = claim("one");
    await Bun.sleep(200);
    const other = claim("two");
    expect(await claim("one")).toMatchObject({ status: 429, body: { error: { code: "throttled" } } });
    expect((await waiting).status).toBe(200);
    expect((await other).status).toBe(200);
    expect((await own.send("GET", "/v0/topics", undefined, as("one"))).status).toBe(200);
  });

  test("01 s7 a claim whose client has left is none: its key has room long before the window ends", async () => {
    await using own = await startServer({ TOPICS_API_KEYS: "one", TOPICS_MAX_INFLIGHT_PER_KEY: "1" });
    const state = async () => (await own.send("GET", "/v0/topics/q", undefined, as("one"))).status;
    await own.send("PUT", "/v0/topics/q", { type: "queue", claim_jitter_ms: 5000 }, as("one"));
    for (let round = 0; round < 3; round++) {
      const leaving = new AbortController();
      const answer = fetch(`${own.url}/v0/topics/q/claim`, {
        method: "POST",
        headers: { "content-type": "application/json", ...as("one") },
        body: JSON.stringify({ node: "leaver" }),
        signal: leaving.signal,
      }).catch(() => "aborted");
      await until(state, (status) => status === 429);
      leaving.abort();
      expect(await answer).toBe("aborted");
      await until(state, (status) => status === 200, 1000);
    }
  });
});

describe.concurrent("a topic that goes away during the window", () => {
  test("7 its members get topic_not_found", async () => {
    const queue = await filledQueue(server, 3, { claim_jitter_ms: 700 });
    const claims = timed(() => cohort(queue, {}, { max: 5 }));
    await Bun.sleep(150);
    await queue.drop();
    const { ms, answer } = await claims;
    for (const reply of answer) {
      expect(reply).toMatchObject({ status: 404, body: { error: { code: "topic_not_found" } } });
      expect(reply.body.error.detail).toEqual({ topic: queue.name });
    }
    expect(ms).toBeLessThan(700 + LATE_MS);
  });

  test("7 a new queue of its name keeps its jobs", async () => {
    const queue = await filledQueue(server, 1, { claim_jitter_ms: 600 });
    const claim = queue.claim({ max: 5 });
    await Bun.sleep(150);
    await queue.drop();
    await queue.put({ type: "queue" });
    await queue.append("new");
    expect((await claim).status).toBe(404);
    expect(await queue.counters()).toEqual({ count: 1, ready: 1, in_flight: 0, dead_lettered: 0 });
    expect(await queue.take(1)).toMatchObject([{ $seq: 1, deliveries: 1, data: "new" }]);
  });
});

describe.concurrent("a member that disconnects", () => {
  const WINDOW_MS = 600;

  /** Ways to leave; each makes a claim and gives what ends its connection. */
  const leavers: [string, (on: Sender, queue: Queue, request: object) => Promise<() => Promise<void>>][] = [
    [
      "aborts the request",
      async (on, queue, request) => {
        const leaving = new AbortController();
        const answer = fetch(`${on.url}${queue.path}/claim`, {
          method: "POST",
          headers: { "content-type": "application/json" },
          body: JSON.stringify(request),
          signal: leaving.signal,
        }).catch(() => "aborted");
        return async () => {
          leaving.abort();
          await answer;
        };
      },
    ],
    [
      "resets the connection",
      async (on, queue, request) => {
        const socket = new RawSocket(on.url);
        const body = JSON.stringify(request);
        await socket.write(
          `POST ${queue.path}/claim HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n` +
            `Content-Length: ${body.length}\r\n\r\n${body}`,
        );
        return () => socket.reset();
      },
    ],
  ];

  /** Claims and acks until every job was worked; gives the seqs in the order they came. */
  async function workOff(queue: Queue, total: number, before: Job[] = []): Promise<number[]> {
    const worked = seqsOf(before);
    await until(
      async () => {
        const claimed = await queue.take(100, { node: "rest", lease_ms: 60000 });
        await queue.ack(seqsOf(claimed), { node: "rest" });
        worked.push(...seqsOf(claimed));
        return worked.length;
      },
      (n) => n >= total,
    );
    return worked;
  }

  const leaving = leavers.flatMap(([how, join]) => [
    [`the one who opened the window ${how}`, join, true] as const,
    [`one who joined later ${how}`, join, false] as const,
  ]);

  test.each(leaving)(
    "7 %s: the others are answered on time, its share comes back",
    async (_, join, opens) => {
      const queue = await filledQueue(server, 10, { claim_jitter_ms: WINDOW_MS, lease_ms: 60000 });
      const request = { node: "leaver", max: 5, lease_ms: 300 };
      const stays = () => timed(() => queue.claim({ node: "stayer", max: 5 }));
      const early = opens ? undefined : stays();
      if (early) await Bun.sleep(100);
      const leave = await join(server, queue, request);
      await Bun.sleep(100);
      const { ms, answer } = await (async () => {
        const stayer = early ?? stays();
        await Bun.sleep(100);
        await leave();
        return stayer;
      })();
      expect(answer).toMatchObject({ status: 200, body: { count: 5 } });
      expect(ms).toBeLessThan(WINDOW_MS + LATE_MS);
      const worked = await workOff(queue, 10, jobs(answer));
      expect(worked.toSorted((a, b) => a - b)).toEqual(range(1, 10));
      expect((await queue.ack(seqsOf(jobs(answer)), { node: "stayer" })).body.acked).toBe(5);
      expect(await queue.counters()).toEqual({ count: 0, ready: 0, in_flight: 0, dead_lettered: 0 });
    },
  );

  test.each(leavers)(
    "7 the only one %s: later claims are answered, and the jobs are theirs",
    async (_, join) => {
      const queue = await filledQueue(server, 3, { claim_jitter_ms: WINDOW_MS });
      const leave = await join(server, queue, { node: "leaver", max: 5, lease_ms: 300 });
      await Bun.sleep(100);
      await leave();
      const { ms, answer } = await timed(() => queue.claim({ node: "next", max: 1 }));
      expect(answer.status).toBe(200);
      expect(ms).toBeLessThan(WINDOW_MS + LATE_MS);
      const worked = await workOff(queue, 3, jobs(answer));
      expect(worked.toSorted((a, b) => a - b)).toEqual([1, 2, 3]);
    },
  );

  test("7 all of many members leave, window after window: nobody else waits for them", async () => {
    const queue = await filledQueue(server, 4, { claim_jitter_ms: 500 });
    for (let round = 0; round < 3; round++) {
      const leaves = await Promise.all(
        range(1, 6).map((i) =>
          leavers[i % 2]![1](server, queue, { node: `leaver${i}`, max: 1, lease_ms: 100 }),
        ),
      );
      await Bun.sleep(100);
      await Promise.all(leaves.map((leave) => leave()));
    }
    const { ms, answer } = await timed(() => queue.claim({ max: 1 }));
    expect(answer.status).toBe(200);
    expect(ms).toBeLessThan(500 + LATE_MS);
    const worked = await workOff(queue, 4, jobs(answer));
    expect(worked.toSorted((a, b) => a - b)).toEqual([1, 2, 3, 4]);
  });
});

describe.concurrent("a stop during the window", () => {
  test("01 s10 SIGTERM: the claim is answered, the server ends in time, no job is lost", async () => {
    await using spawned = await spawnServer();
    const queue = await makeQueue(spawned, { claim_jitter_ms: 1500 }, "q");
    await queue.produce(2);
    const claim = queue.claim({ max: 1 });
    await Bun.sleep(300);
    const { ms, answer: code } = await timed(() => spawned.stop("SIGTERM"));
    expect(code).toBe(0);
    expect(ms).toBeLessThan(8000);
    expect(await claim).toMatchObject({ status: 200, body: { count: 1, ready: 1 } });
    await using again = await spawnServer({ dir: spawned.dir });
    const later = absentQueue(again, "q");
    await later.put({ type: "queue" });
    expect(seqsOf(await later.take(5))).toEqual([1, 2]);
  });
});
