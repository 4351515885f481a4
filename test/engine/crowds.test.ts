/** What a stream is told while what is on its way to it still waits for the device, and while others fail. */
import { describe, expect, test } from "bun:test";
import type { Frame } from "../../src/engine/frames.ts";
import { decodeId } from "../../src/engine/places.ts";
import type { TellResult } from "../../src/engine/told.ts";
import { type Client, short, socketOf, streamOf } from "./followers.ts";
import { append, HeldSyncs, records, TestEngine, turns } from "./setup.ts";

/** Takes whatever comes, at once. */
function listen({ follower }: Client): { readonly told: string[]; readonly lastId: () => string } {
  const told: string[] = [];
  let lastId = "";
  const take = ({ value, done }: TellResult): void => {
    if (done) return;
    for (const { frame, id } of value) {
      told.push(short(frame as Frame));
      lastId = id;
    }
    const next = follower.next(take);
    if (next) take(next);
  };
  const first = follower.next(take);
  if (first) take(first);
  return { told, lastId: () => lastId };
}

/** A stream of a synced topic that was busy when record 2 came, and asks while that waits for the device. */
async function waiting(open: TestEngine, stop: AbortSignal) {
  const { engine, store } = open;
  await append(engine, "s", records(1), { durability: "fsync" });
  const client = await streamOf(engine, "s", {}, stop);
  await client.takeTo("s at 1");
  await turns();
  const syncs = new HeldSyncs(store);
  const appended = append(engine, "s", records(1));
  await turns();
  const heard = listen(client);
  await turns();
  return { syncs, appended, heard, client };
}

describe("a stream whose next record waits for the device", () => {
  test("names no record in its id that it was not told", async () => {
    using open = new TestEngine();
    const stop = new AbortController();
    const { syncs, appended, heard, client } = await waiting(open, stop.signal);
    stop.abort();
    await turns();

    expect(heard.told).toEqual(["server_shutting_down"]);
    expect(decodeId(heard.lastId())?.get("s")?.seq).toBe(1);
    expect(client.follower.places.get("s")?.seq).toBe(1);
    while (syncs.count > 0) syncs.finish();
    await appended;
  });

  test("gets it before the next one, also if both are kept at once", async () => {
    using open = new TestEngine();
    const { syncs, appended, heard } = await waiting(open, new AbortController().signal);
    const next = append(open.engine, "s", records(1));
    await turns();
    while (syncs.count > 0) syncs.finish();
    await Promise.all([appended, next]);
    await turns();

    const seqs = heard.told.flatMap((frame) => /^s (\d+.*)/.exec(frame)?.[1]?.split(" ") ?? []);
    expect(seqs).toEqual(["2", "3"]);
  });
});

describe("a stream that cannot look at its topic", () => {
  test("ends, and the others go on", async () => {
    using open = new TestEngine();
    const { engine } = open;
    await append(engine, "a", records(1));
    const clients = [await socketOf(engine, ["a"]), await streamOf(engine, "a"), await streamOf(engine, "a")];
    for (const client of clients) await client.takeTo("a at 1");
    const heard = clients.map(listen);
    // The crowd finds out, and then one of those who were in it.
    let failures = 2;
    engine.topics.find("a")!.trimBehind = () => {
      if (failures-- > 0) throw new Error("out of order");
      return undefined;
    };
    await append(engine, "a", records(1));
    await turns();

    const told = heard.map(({ told }) => told.join(", ")).sort();
    expect(told).toEqual(["a 2, a at 2", "a 2, a at 2", "internal"]);
    expect(open.failures).toHaveLength(1);
  });
});
