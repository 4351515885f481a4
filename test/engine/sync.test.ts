/** What waits for the device: answers about `fsync` topics, and nothing else. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { append, diff, heldOpen, promptly, records, type TestEngine, turns } from "./setup.ts";

setDefaultTimeout(10_000);

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
    list: engine.topics.list({ pageSize: 100, touch: true }),
    "list by prefix": engine.topics.list({ prefix: "syn", pageSize: 100, touch: false }),
  };
}

describe("a write to an fsync topic", () => {
  test("is not told by a delete that it keeps from happening", async () => {
    using opened = await heldOpen();
    const { engine, syncs } = opened;
    const appended = append(engine, "synced", records(1, "new"));
    const deleted = engine.topics.delete("synced", true).catch((error) => error);
    await turns();
    const before = Bun.peek.status(deleted);
    while (syncs.count > 0) syncs.finish();
    await promptly(appended);

    expect(before).toBe("pending");
    expect(await promptly(deleted)).toMatchObject({ code: "topic_not_empty" });
  });

  test("is not shown or answered before it is on the device", async () => {
    using opened = await heldOpen();
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
    using opened = await heldOpen();
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
    using opened = await heldOpen();
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
        engine.topics.list({ prefix: "plain", pageSize: 100, touch: true }),
        engine.log.delete("plain", { match: "old" }),
      ]),
    );
    expect(elsewhere).toMatchObject([{ first_seq: 2 }, { seqs: [2] }, {}, {}, {}, { deleted: 1 }]);
    expect(Bun.peek.status(answers.append)).toBe("pending");
  });

  test("shares no group's fate: a disk write of the same group is answered at once", async () => {
    using opened = await heldOpen();
    const { engine } = opened;
    const synced = append(engine, "synced", records(1));
    const plain = append(engine, "plain", records(1));
    expect(await promptly(plain)).toMatchObject({ first_seq: 2 });
    expect(Bun.peek.status(synced)).toBe("pending");
  });

  test("waits for a sync that began behind it, and so do its readers", async () => {
    using opened = await heldOpen();
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
    const rest = { second, read, late: diff(engine, "synced") };
    await turns();
    const before = statuses(rest);
    syncs.finish();

    expect(answered).toMatchObject({ first_seq: 2 });
    expect(before).toEqual({ second: "pending", read: "pending", late: "pending" });
    expect(await promptly(Promise.all(Object.values(rest)))).toMatchObject([
      { first_seq: 3 },
      { seqs: [1, 2, 3] },
      { seqs: [1, 2, 3] },
    ]);
  });
});

describe("settings", () => {
  test.each(["disk", "ephemeral"] as const)("of a new %s topic wait for the device", async (durability) => {
    using opened = await heldOpen();
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
    using opened = await heldOpen();
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
