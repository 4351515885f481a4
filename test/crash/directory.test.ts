/** What lies in a data directory before the start: a backup, somebody else's lock, a huge log, nothing that may be used. */
import { Database } from "bun:sqlite";
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { copyFile, mkdir, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { runToEnd, type SpawnedServer, spawnServer, temporaryDirectory } from "../support/spawn.ts";
import { absentTopic, column } from "../support/topics.ts";

setDefaultTimeout(30_000);

const refusal = async (dir: string) => {
  const { exitCode, stderr } = await runToEnd(["--port", "0", "--data-dir", dir]);
  return { exitCode, stderr };
};

describe.concurrent("a backup", () => {
  /** Two records, a backup, two more records, and an end without a stop. */
  async function killed(dir: string, backup: string) {
    await using server = await spawnServer({ dir });
    const topic = absentTopic(server, "t");
    await topic.append(1, 2);
    using reader = new Database(join(dir, "topics.db"), { readonly: true });
    reader.run(`VACUUM INTO '${backup}'`);
    await topic.append(3, 4);
    const { epoch } = (await topic.state()).body;
    await server.stop("SIGKILL");
    return { epoch };
  }

  /** It holds the first two records, and readers of the later ones are told. */
  async function expectRestored(server: SpawnedServer, epoch: number) {
    const topic = absentTopic(server, "t");
    expect(column(await topic.diff(), "data")).toEqual([1, 2]);
    await topic.append(5, 6, 7);
    const { body } = await topic.diff({ from_seq: 4, epoch });
    expect(body.tombstone).toMatchObject({ reason: "recreated" });
    expect(body.epoch).toBeGreaterThan(epoch);
    expect(server.output()).toContain("the data is a backup");
  }

  test("in an empty directory is the data from now on, and as new to its readers", async () => {
    await using dir = await temporaryDirectory();
    const backup = join(dir.path, "backup.db");
    const { epoch } = await killed(join(dir.path, "data"), backup);
    const restored = join(dir.path, "restored");
    await mkdir(restored);
    await copyFile(backup, join(restored, "topics.db"));
    await using server = await spawnServer({ dir: restored });
    await expectRestored(server, epoch);
    const renewed = (await absentTopic(server, "t").state()).body.epoch;
    expect(await server.stop()).toBe(0);
    await using next = await spawnServer({ dir: restored });
    expect((await absentTopic(next, "t").state()).body.epoch).toBe(renewed);
    expect(next.output()).not.toContain("backup");
  });

  test("beside the log of other data is refused, and taken once that is gone", async () => {
    await using dir = await temporaryDirectory();
    const [data, backup] = [join(dir.path, "data"), join(dir.path, "backup.db")];
    const { epoch } = await killed(data, backup);
    const db = join(data, "topics.db");
    await copyFile(backup, db);
    const { exitCode, stderr } = await refusal(data);
    expect({ exitCode, stderr }).toEqual({
      exitCode: 1,
      stderr: expect.stringContaining(`${db} is a backup, and ${db}-wal belongs to what was there before`),
    });
    expect(await readFile(db)).toEqual(await readFile(backup));
    for (const rest of ["-wal", "-shm"]) await rm(db + rest);
    await using server = await spawnServer({ dir: data });
    await expectRestored(server, epoch);
  });
});

test("data of a newer version is refused, and left as it is", async () => {
  await using first = await spawnServer();
  await absentTopic(first, "t").append(1);
  await first.stop();
  const path = join(first.dir, "topics.db");
  const setSchema = (change: (schema: number) => number) => {
    using db = new Database(path, { readwrite: true });
    const { user_version: schema } = db.query<{ user_version: number }, []>("PRAGMA user_version").get()!;
    db.run(`PRAGMA user_version = ${change(schema)}`);
    return schema;
  };
  const schema = setSchema((schema) => schema + 1);
  const { exitCode, stderr } = await refusal(first.dir);
  expect(exitCode).toBe(1);
  expect(stderr).toContain(`Cannot open ${path}: schema ${schema + 1}, and this build stops at ${schema}`);
  setSchema(() => schema);
  await using second = await spawnServer({ dir: first.dir });
  expect(column(await absentTopic(second, "t").diff(), "data")).toEqual([1]);
});

describe.concurrent("a leftover lock", () => {
  test.each([
    ["of another program", "pid=4711"],
    ["of a few bytes", "x"],
    ["of many bytes", "#".repeat(5000)],
  ])("%s does no harm", async (_, text) => {
    await using dir = await temporaryDirectory();
    await writeFile(join(dir.path, ".topics.lock"), text);
    await using server = await spawnServer({ dir: dir.path });
    await absentTopic(server, "t").append(1);
    expect((await refusal(dir.path)).stderr).toContain("another server is running on it");
    await server.stop("SIGKILL");
    await using next = await spawnServer({ dir: dir.path });
    expect(column(await absentTopic(next, "t").diff(), "data")).toEqual([1]);
  });

  test("of another program lets in one server of many", async () => {
    await using dir = await temporaryDirectory();
    await writeFile(join(dir.path, ".topics.lock"), "pid=4711");
    const servers = await Promise.allSettled(Array.from({ length: 4 }, () => spawnServer({ dir: dir.path })));
    const started = servers.flatMap((server) => (server.status === "fulfilled" ? [server.value] : []));
    const refused = servers.flatMap((server) =>
      server.status === "rejected" ? [String(server.reason)] : [],
    );
    for (const server of started) await server[Symbol.asyncDispose]();
    expect(started).toHaveLength(1);
    for (const reason of refused) expect(reason).toContain("another server is running on it");
  });
});

test.skipIf(process.platform !== "linux")("a huge log is not read into memory at once", async () => {
  await using first = await spawnServer();
  await absentTopic(first, "t").append(1);
  await first.stop("SIGKILL");
  const MIB = 1024 * 1024;
  await truncate(join(first.dir, "topics.db-wal"), 700 * MIB);
  await using second = await spawnServer({ dir: first.dir });
  const [, peakKib] = /^VmHWM:\s*(\d+) kB/m.exec(await readFile(`/proc/${second.pid}/status`, "utf8"))!;
  expect(Number(peakKib) * 1024).toBeLessThan(500 * MIB);
  expect(column(await absentTopic(second, "t").diff(), "data")).toEqual([1]);
});
