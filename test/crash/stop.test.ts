/** An orderly stop puts everything into the main file, whatever else has the database open at that moment. */
import { Database } from "bun:sqlite";
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { type SpawnedServer, spawnServer } from "../support/spawn.ts";
import { absentTopic, together, until } from "../support/topics.ts";

setDefaultTimeout(60_000);

/** A batch of 5 MB. */
const batch = { records: Array.from({ length: 5000 }, () => ({ data: "x".repeat(1000) })) };

const logBytes = async ({ dir }: SpawnedServer) => (await stat(join(dir, "topics.db-wal"))).size;

async function load(server: SpawnedServer, batches: number): Promise<void> {
  const replies = await together(batches, () => absentTopic(server, "t").write(batch));
  expect(replies.map(({ status }) => Math.floor(status / 100))).toEqual(Array(batches).fill(2));
}

/** All of the load is there, after a stop in order. */
async function expectWhole(server: SpawnedServer, count: number): Promise<void> {
  expect((await absentTopic(server, "t").state()).body).toMatchObject({ count, head_seq: count });
  expect(server.output()).toContain('"afterCrash":false');
  const last = (await absentTopic(server, "t").diff({ from_seq: count - 1 })).body;
  expect(last.records).toMatchObject([{ $seq: count }]);
}

describe("a stop", () => {
  // A checkpoint begins 50 ms after a commit, so some of these stops come while one runs.
  test("right after load leaves an empty log, and the next start finds everything", async () => {
    await using servers = new AsyncDisposableStack();
    let server = servers.use(await spawnServer());
    const { dir } = server;
    for (let round = 1; round <= 6; round++) {
      await load(server, 4);
      await Bun.sleep(10 * (round - 1));
      const code = await server.stop();
      expect([code, await logBytes(server)]).toEqual([0, 0]);
      server = servers.use(await spawnServer({ dir }));
      await expectWhole(server, round * 20_000);
    }
  });

  test("waits for somebody who still reads the log", async () => {
    await using server = await spawnServer();
    await load(server, 1);
    using reader = new Database(join(server.dir, "topics.db"), { readonly: true });
    reader.run("BEGIN");
    reader.prepare("SELECT count(*) FROM records").values();
    const stopping = server.stop();
    await until(
      async () => server.output(),
      (output) => output.includes("signal received"),
    );
    // Long enough for a stop that does not wait to be over.
    await Promise.race([stopping, Bun.sleep(500)]);
    reader.run("COMMIT");
    expect([await stopping, await logBytes(server)]).toEqual([0, 0]);
    await using next = await spawnServer({ dir: server.dir });
    await expectWhole(next, 5000);
  });
});
