/** What waits for the device: answers about `fsync` topics, and nothing else. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import type { Store } from "../../src/store/store.ts";
import { append, diff, promptly, records, TestEngine, turns } from "./setup.ts";

setDefaultTimeout(10_000);

/** Holds back every sync of the store until the test ends it. */
class HeldSyncs {
  readonly #held: PromiseWithResolvers<void>[] = [];

  constructor(store: Store) {
    store.sync = () => {
      const sync = Promise.withResolvers<void>();
      this.#held.push(sync);
      return sync.promise;
    };
  }

  get count(): number {
    return this.#held.length;
  }

  /** Ends the oldest one. */
  finish(): void {
    this.#held.shift()!.resolve();
  }

  /** Ends all of them as a failing device does. */
  fail(): void {
    for (const sync of this.#held.splice(0)) sync.reject(Object.assign(new Error("EIO"), { code: "EIO" }));
  }
}

/** An engine with one record in `synced` (class `fsync`) and in `plain` (class `disk`), and no sync from now on. */
async function open() {
  const opened = new TestEngine();
  const { engine, store } = opened;
  await append(engine, "synced", records(1, "old"), { durability: "fsync" });
  await append(engine, "plain", records(1, "old"), { durability: "disk" });
  return Object.assign(opened, { syncs: new HeldSyncs(store) });
}

const statuses = (answers: Record<string, Promise<unknown>>) =>
  Object.fromEntries(Object.entries(answers).map(([name, answer]) => [name, Bun.peek.status(answer)]));

/** An append to `synced` and all that could show its record, asked for behind it. */
async function write({ engine }: TestEngine) {
  const appended = append(engine, "synced", records(1, "new"));
  await turns();
  return {
    append: appended,
    diff: diff(engine, "synced"),
    poll: diff(engine, "synced", { from_seq: 1, wait_ms: 20_000 }),
    state: engine.topics.state("synced", true),
    list: engine.topics.list("", "", 100, true),
    "list by prefix": engine.topics.list("syn", "", 100, false),
  };
}

describe("a write to an fsync topic", () => {
  test("is not shown or answered before it is on the device", async () => {
    using opened = await open();
    const { syncs } = opened;
    const answers = await write(opened);
    await turns();
    const before = statuses(answers);
    syncs.finish();
    const after = await promptly(Promise.all(Object.values(answers)));

    expect([...new Set(Object.values(before))]).toEqual(["pending"]);
    expect(after).toMatchObject([
      { first_seq: 2 },
      { seqs: [1, 2] },
      { seqs: [2] },
      { head_seq: 2, count: 2 },
      { topics: [{ topic: "plain" }, { topic: "synced", head_seq: 2 }] },
      { topics: [{ topic: "synced", head_seq: 2 }] },
    ]);
  });

  test("does not wake a poll before it is on the device", async () => {
    using opened = await open();
    const { engine, syncs } = opened;
    const poll = diff(engine, "synced", { from_seq: 1, wait_ms: 20_000 });
    await turns();
    await write(opened);
    await turns();
    const before = Bun.peek.status(poll);
    syncs.finish();
    expect(await promptly(poll)).toMatchObject({ seqs: [2] });
    expect(before).toBe("pending");
  });

  test("lets nobody wait who writes or reads elsewhere", async () => {
    using opened = await open();
    const { engine } = opened;
    const answers = await write(opened);
    const poll = diff(engine, "plain", { from_seq: 1, wait_ms: 20_000 });
    await turns();
    const elsewhere = await promptly(
      Promise.all([
        append(engine, "plain", records(1, "new")),
        poll,
        diff(engine, "plain"),
        engine.topics.state("plain", true),
        engine.topics.list("plain", "", 100, true),
        engine.log.delete("plain", { match: "old" }),
      ]),
    );
    expect(elsewhere).toMatchObject([{ first_seq: 2 }, { seqs: [2] }, {}, {}, {}, { deleted: 1 }]);
    expect(Bun.peek.status(answers.append)).toBe("pending");
  });

  test("shares no group's fate: a disk write of the same group is answered at once", async () => {
    using opened = await open();
    const { engine } = opened;
    const synced = append(engine, "synced", records(1));
    const plain = append(engine, "plain", records(1));
    expect(await promptly(plain)).toMatchObject({ first_seq: 2 });
    expect(Bun.peek.status(synced)).toBe("pending");
  });

  test("waits for a sync that began behind it, and so do its readers", async () => {
    using opened = await open();
    const { engine, syncs } = opened;
    const first = append(engine, "synced", records(1));
    await turns();
    const second = append(engine, "synced", records(1));
    await turns();
    const read = diff(engine, "synced");
    await turns();
    syncs.finish();
    const answered = await promptly(first);
    await turns();
    const rest = [Bun.peek.status(second), Bun.peek.status(read)];
    syncs.finish();

    expect(answered).toMatchObject({ first_seq: 2 });
    expect(rest).toEqual(["pending", "pending"]);
    expect(await promptly(second)).toMatchObject({ first_seq: 3 });
    expect((await promptly(read)).seqs).toEqual([1, 2, 3]);
  });
});

describe("settings", () => {
  test.each(["disk", "ephemeral"] as const)("of a new %s topic wait for the device", async (durability) => {
    using opened = await open();
    const { engine, syncs } = opened;
    const put = engine.topics.put("put", { durability });
    const written = append(engine, "written", records(1), { durability });
    await turns();
    const before = [Bun.peek.status(put), Bun.peek.status(written)];
    while (syncs.count > 0) syncs.finish();
    await promptly(Promise.all([put, written]));
    expect(before).toEqual(["pending", "pending"]);
  });
});

describe("a sync that fails", () => {
  test("is answered with internal to all that wait, and so is every later write", async () => {
    using opened = await open();
    const { engine, syncs, failures } = opened;
    const answers = await write(opened);
    syncs.fail();
    const outcomes = await promptly(Promise.allSettled(Object.values(answers)));
    const later = await promptly(
      Promise.allSettled([
        append(engine, "synced", records(1)),
        append(engine, "plain", records(1)),
        engine.topics.put("made", {}),
        engine.topics.delete("plain", false),
        engine.log.delete("plain", { match: "old" }),
        diff(engine, "synced"),
      ]),
    );
    const internal = { status: "rejected", reason: { code: "internal" } };
    expect(outcomes).toMatchObject(Object.keys(answers).map(() => internal));
    expect(later).toMatchObject(later.map(() => internal));
    expect(failures.length).toBeGreaterThan(0);
    expect(await diff(engine, "plain")).toMatchObject({ seqs: [1], tags: ["old"] });
  });
});

describe("a long poll", () => {
  test.each(["synced", "plain"])("on %s, deleted meanwhile, is told so at once", async (topic) => {
    using opened = new TestEngine();
    const { engine } = opened;
    await append(engine, topic, records(1), { durability: topic === "synced" ? "fsync" : "disk" });
    const waiting = diff(engine, topic, { from_seq: 1, wait_ms: 20_000 });
    await turns();
    await engine.topics.delete(topic, false);
    await expect(promptly(waiting)).rejects.toMatchObject({ code: "topic_not_found" });
  });

  test.each(["synced", "plain"])("on %s, made again meanwhile, is told so at once", async (topic) => {
    using opened = new TestEngine();
    const { engine } = opened;
    const { epoch } = await append(engine, topic, records(1), {
      durability: topic === "synced" ? "fsync" : "disk",
    });
    const waiting = diff(engine, topic, { from_seq: 1, wait_ms: 20_000 });
    await turns();
    await Promise.all([engine.topics.delete(topic, false), append(engine, topic, records(2))]);
    const answer = await promptly(waiting);
    expect(answer).toMatchObject({ tombstone: { reason: "recreated" }, seqs: [1, 2] });
    expect(answer.epoch).toBeGreaterThan(epoch);
  });

  test("that waits for the device while its topic is deleted does not sleep through that", async () => {
    using opened = await open();
    const { engine, syncs } = opened;
    const written = append(engine, "synced", records(1));
    await turns();
    const waiting = diff(engine, "synced", { from_seq: 2, wait_ms: 20_000 });
    await turns();
    const deleted = engine.topics.delete("synced", false);
    await turns();
    while (syncs.count > 0) syncs.finish();
    await promptly(Promise.all([written, deleted]));
    await expect(promptly(waiting)).rejects.toMatchObject({ code: "topic_not_found" });
  });

  test.each([false, true])(
    "that waits for the device while its topic is made again is told so (epoch sent: %p)",
    async (sent) => {
      using opened = await open();
      const { engine, syncs } = opened;
      const { epoch } = await diff(engine, "synced");
      const configured = engine.topics.put("synced", { durability: "fsync" });
      await turns();
      const known = { from_seq: 1, wait_ms: 20_000 };
      const waiting = diff(engine, "synced", sent ? { ...known, epoch } : known);
      await turns();
      const replaced = Promise.all([
        engine.topics.delete("synced", false),
        append(engine, "synced", records(1, "new"), { durability: "fsync" }),
      ]);
      await turns();
      while (syncs.count > 0) syncs.finish();
      await promptly(Promise.all([configured, replaced]));
      const answer = await promptly(waiting);
      expect(answer).toMatchObject({ tombstone: { reason: "recreated" }, tags: ["new"] });
      expect(answer.epoch).toBeGreaterThan(epoch);
    },
  );
});
