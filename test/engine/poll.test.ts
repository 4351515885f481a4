/** Long polls on topics that end, also while they wait for the device. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { append, diff, heldOpen, promptly, records, TestEngine, turns } from "./setup.ts";

setDefaultTimeout(10_000);

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
    using opened = await heldOpen();
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
      using opened = await heldOpen();
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
