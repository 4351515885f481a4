/** Losses behind the server's back: what it refuses, what it goes on with, and what readers are told. */
import { constants, Database } from "bun:sqlite";
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { type SpawnedServer, spawnServer, temporaryDirectory } from "../support/spawn.ts";
import { absentTopic, column, seqs, together } from "../support/topics.ts";

setDefaultTimeout(30_000);

/** What a server says that does not start on the directory; undefined if it does. */
async function refusalOf(dir: string): Promise<string | undefined> {
  try {
    await using _started = await spawnServer({ dir });
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

describe("a removed log", () => {
  const names = ["disk", "fsync", "ephemeral", "empty"];

  async function epochs(server: SpawnedServer): Promise<number[]> {
    const replies = await together(names.length, (i) => absentTopic(server, names[i]!).state());
    return replies.map(({ body }) => body.epoch);
  }

  /** A directory with stored topics whose server was killed and whose log was removed then. */
  async function withoutLog(dir: string) {
    await using first = await spawnServer({ dir });
    for (const name of names) {
      await absentTopic(first, name).put({ durability: name === "empty" ? "disk" : name });
      if (name !== "empty") await absentTopic(first, name).append(1, 2, 3);
    }
    await first.stop();
    await using second = await spawnServer({ dir });
    // An open snapshot keeps what is written from now on out of the main file.
    using reader = new Database(join(dir, "topics.db"), { readonly: true });
    reader.run("BEGIN");
    reader.prepare("SELECT count(*) FROM topics").values();
    for (const name of names) if (name !== "empty") await absentTopic(second, name).append(4, 5, 6);
    await absentTopic(second, "late").append(1);
    const late = (await absentTopic(second, "late").state()).body.epoch;
    const before = await epochs(second);
    await second.stop("SIGKILL");
    const log = join(dir, "topics.db-wal");
    await rm(log);
    return { log, before, late };
  }

  test("after a kill is refused by its name, again and again", async () => {
    await using dir = await temporaryDirectory();
    const { log } = await withoutLog(dir.path);
    for (let times = 0; times < 2; times++) {
      const refusal = await refusalOf(dir.path);
      expect(refusal).toContain(log);
      expect(refusal).toContain("--accept-loss");
    }
  });

  test("is accepted with --accept-loss: every topic is a new instance, and readers are told", async () => {
    await using dir = await temporaryDirectory();
    const { log, before, late } = await withoutLog(dir.path);
    await using server = await spawnServer({ dir: dir.path, args: ["--accept-loss"] });
    const after = await epochs(server);
    expect(server.output()).toContain(log);
    for (const epoch of after) expect(epoch).toBeGreaterThan(Math.max(...before, late));
    for (const [i, name] of names.entries()) {
      const topic = absentTopic(server, name);
      const read = (await topic.diff({ from_seq: 0, epoch: before[i] })).body;
      expect(read).toMatchObject({ epoch: after[i], tombstone: { reason: "recreated" } });
    }
    // What was in the log is gone, and its seqs are given out again.
    const disk = absentTopic(server, "disk");
    await disk.append(7, 8, 9, 10);
    const read = (await disk.diff({ from_seq: 6, epoch: before[0] })).body;
    expect(read.tombstone).toMatchObject({ reason: "recreated" });
    expect(read.records).toMatchObject([{ $seq: 1, data: 1 }, {}, {}, {}, {}, {}, { $seq: 7, data: 10 }]);
    await absentTopic(server, "late").append(1);
    expect((await absentTopic(server, "late").state()).body.epoch).toBeGreaterThan(late);
  });

  test("is forgotten once accepted: the next start needs no flag and keeps the epochs", async () => {
    await using dir = await temporaryDirectory();
    await withoutLog(dir.path);
    await using accepted = await spawnServer({ dir: dir.path, args: ["--accept-loss"] });
    const before = await epochs(accepted);
    await accepted.stop();
    await using next = await spawnServer({ dir: dir.path });
    expect(await epochs(next)).toEqual(before);
  });

  test("--accept-loss changes nothing where nothing is lost", async () => {
    await using first = await spawnServer();
    const topic = absentTopic(first, "t");
    await topic.append(1, 2);
    const { epoch } = (await topic.state()).body;
    await first.stop("SIGKILL");
    await using second = await spawnServer({ dir: first.dir, args: ["--accept-loss"] });
    const read = await absentTopic(second, "t").diff({ epoch });
    expect(read.body).toMatchObject({ epoch, tombstone: null });
    expect(seqs(read)).toEqual([1, 2]);
  });
});

describe("a lost newest row", () => {
  test.each(["SIGTERM", "SIGKILL"] as const)(
    "after %s is the failure of its topic alone, until that is deleted",
    async (signal) => {
      await using dir = await temporaryDirectory();
      {
        await using first = await spawnServer({ dir: dir.path });
        await absentTopic(first, "bad").append(1, 2, 3);
        await absentTopic(first, "good").append(1, 2, 3);
        await first.stop(signal);
      }
      {
        using db = new Database(join(dir.path, "topics.db"), { readwrite: true });
        // After a kill the server expects to find its log.
        db.fileControl(constants.SQLITE_FCNTL_PERSIST_WAL, 1);
        const newest = "SELECT (slot << 42) + head_seq FROM topics JOIN logs USING (slot) WHERE name = 'bad'";
        db.run(`DELETE FROM records WHERE id = (${newest})`);
      }
      await using server = await spawnServer({ dir: dir.path });
      const [bad, good] = [absentTopic(server, "bad"), absentTopic(server, "good")];

      const list = await server.send("GET", "/v0/topics");
      expect(list.body.topics).toMatchObject([{ topic: "bad" }, { topic: "good", head_seq: 3 }]);
      await good.append(4);
      expect(column(await good.diff(), "data")).toEqual([1, 2, 3, 4]);

      const error = { code: "internal", detail: { topic: "bad", seq: 3 } };
      const refused = [
        await bad.diff(),
        await bad.state(),
        await bad.write({ records: [{ data: 4 }] }),
        await bad.put(),
        await bad.erase({ match: "*" }),
        await bad.erase({ before_seq: 2 }),
      ];
      for (const reply of refused) expect(reply).toMatchObject({ status: 500, body: { error } });

      expect(await bad.drop()).toMatchObject({ status: 200, body: { deleted: true } });
      expect(await bad.write({ records: [{ data: "new" }] })).toMatchObject({
        status: 201,
        body: { created: true, first_seq: 1 },
      });
      expect(column(await bad.diff(), "data")).toEqual(["new"]);
    },
  );
});
