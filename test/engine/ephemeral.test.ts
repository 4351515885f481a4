/** What a stop and a crash leave of `ephemeral` topics. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { type Clock, OpenEngine } from "../support/engine.ts";
import { spawnServer, temporaryDirectory } from "../support/spawn.ts";
import { absentTopic } from "../support/topics.ts";
import { append, diff, diskFull, records, storeIn, TestEngine } from "./setup.ts";

setDefaultTimeout(20_000);

const clock: Clock = { now: 1_700_000_000_000 };
const ephemeral = { durability: "ephemeral" } as const;

describe("an ephemeral topic", () => {
  test("keeps its head and its epoch over an orderly stop", async () => {
    await using dir = await temporaryDirectory();
    let epoch: number;
    {
      using first = new OpenEngine(dir.path, clock);
      ({ epoch } = await append(first.engine, "t", records(5), ephemeral));
    }
    using second = new OpenEngine(dir.path, clock);
    const state = await second.engine.topics.state("t", false);
    const appended = await append(second.engine, "t", records(2));
    const page = await diff(second.engine, "t", { from_seq: 5, epoch });
    expect(state).toMatchObject({ epoch, head_seq: 5, earliest_seq: 6, count: 0, bytes: 0 });
    expect(appended).toMatchObject({ epoch, first_seq: 6, last_seq: 7 });
    expect(page).toMatchObject({ tombstone: null, seqs: [6, 7] });
  });

  test("keeps them over a stop that nobody has used it before", async () => {
    await using dir = await temporaryDirectory();
    let epoch: number;
    {
      using first = new OpenEngine(dir.path, clock);
      ({ epoch } = await append(first.engine, "t", records(5), ephemeral));
    }
    {
      using _unused = new OpenEngine(dir.path, clock);
    }
    using third = new OpenEngine(dir.path, clock);
    expect(await third.engine.topics.state("t", false)).toMatchObject({ epoch, head_seq: 5 });
  });

  test("is a new instance after a stop that could not note its head", async () => {
    await using dir = await temporaryDirectory();
    let epoch: number;
    {
      using first = new TestEngine(storeIn(dir.path));
      ({ epoch } = await append(first.engine, "t", records(5), ephemeral));
      first.store.transaction = () => {
        throw diskFull();
      };
    }
    using second = new OpenEngine(dir.path, clock);
    const appended = await append(second.engine, "t", records(5, "new"));
    const page = await diff(second.engine, "t", { from_seq: 5, epoch });
    expect(appended.epoch).toBeGreaterThan(epoch);
    expect(page).toMatchObject({ epoch: appended.epoch, tombstone: { reason: "recreated" } });
  });

  test("is a new instance after a crash, and a reader of the old one is told", async () => {
    await using first = await spawnServer();
    const before = absentTopic(first, "t");
    await before.put(ephemeral);
    await before.append(1, 2, 3, 4, 5);
    const { epoch } = (await before.state()).body;
    const stored = absentTopic(first, "stored");
    await stored.append(1);
    const storedEpoch = (await stored.state()).body.epoch;
    await first.stop("SIGKILL");

    await using second = await spawnServer({ dir: first.dir });
    const after = absentTopic(second, "t");
    await after.append(6, 7, 8, 9, 10, 11);
    const page = (await after.diff({ from_seq: 5, epoch })).body;
    expect(page.epoch).toBeGreaterThan(epoch);
    expect(page.tombstone).toMatchObject({ reason: "recreated" });
    expect(page.records.map(({ data }: { data: number }) => data)).toEqual([6, 7, 8, 9, 10, 11]);
    expect((await absentTopic(second, "stored").state()).body.epoch).toBe(storedEpoch);
  });
});
