/** A log that cannot be written: the server goes on, and whoever started it is told why it ended. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { command, spawnServer, temporaryDirectory } from "../support/spawn.ts";
import { absentTopic } from "../support/topics.ts";

setDefaultTimeout(30_000);

const full = "/dev/full";

describe.skipIf(!existsSync(full)).concurrent("a log that cannot be written", () => {
  test("is told once on stderr, and the server serves and stops as ever", async () => {
    await using server = await spawnServer({ stdout: full, env: { RUST_LOG: "trace" } });
    expect((await absentTopic(server, "t").append(1)).status).toBe(201);
    expect(await server.stop()).toBe(0);
    expect(server.output()).toMatch(/^topics: Cannot write the log: ENOSPC[^\n]*\n$/);
  });

  test("does not hide why there was no start", async () => {
    await using dir = await temporaryDirectory();
    const file = join(dir.path, "file");
    await writeFile(file, "");
    const env = { PATH: process.env.PATH ?? "", TOPICS_PORT: "0", TOPICS_DATA_DIR: file };
    const child = Bun.spawn(command, { env, stdout: Bun.file(full), stderr: "pipe" });
    const stderr = await new Response(child.stderr).text();
    expect(await child.exited).toBe(1);
    expect(stderr).toContain(`topics: Cannot use the data directory ${file}`);
  });
});
