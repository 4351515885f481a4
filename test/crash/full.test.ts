/**
 * A full disk: what is refused, what goes on, and that nothing acknowledged is lost by it.
 *
 * The data directory lies on a small file system of its own, which takes the right to mount one.
 */
import { Database } from "bun:sqlite";
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import type { Reply } from "../support/server.ts";
import { type Disk, obstacle, smallDisk } from "../support/smalldisk.ts";
import { type SpawnedServer, spawnServer } from "../support/spawn.ts";
import { absentTopic, column, type Topic, until } from "../support/topics.ts";

setDefaultTimeout(30_000);

const skipped = await obstacle();
afterAll(() => {
  if (skipped !== undefined) console.warn(`skipped the tests on a full disk: ${skipped}`);
});

const stored = ["fsync", "disk", "memory"];
const internal = { status: 500, body: { error: { code: "internal" } } };

/** Repeats the attempt, with no space left before each one, until it is refused. */
async function untilRefused(disk: Disk, attempt: (n: number) => Promise<Reply>): Promise<Reply> {
  for (let n = 0; n < 1000; n++) {
    disk.fill();
    const reply = await attempt(n);
    if (reply.status >= 300) return reply;
  }
  throw new Error("1000 requests succeeded on a full disk");
}

/** Writes one record; it joins `acked` only when its write was acknowledged. */
async function write(topic: Topic, acked: unknown[], data: unknown): Promise<Reply> {
  const reply = await topic.write({ records: [{ data }] });
  if (reply.status < 300) acked.push(data);
  return reply;
}

const large = (name: string, n: number) => `${name} ${n} ${"x".repeat(100_000)}`;

/** One topic per class; then the disk fills up until each stored class has refused a large and a small write. */
async function fillDisk(disk: Disk, server: SpawnedServer) {
  const acked = new Map<string, unknown[]>();
  for (const durability of [...stored, "ephemeral"]) {
    const topic = absentTopic(server, durability);
    await topic.put({ durability });
    acked.set(durability, []);
    for (let n = 0; n < 5; n++) await write(topic, acked.get(durability)!, `${durability} before ${n}`);
  }
  const refusals: Reply[] = [];
  for (const name of stored) {
    const topic = absentTopic(server, name);
    const attempt = (data: (n: number) => unknown) => (n: number) => write(topic, acked.get(name)!, data(n));
    refusals.push(
      await untilRefused(
        disk,
        attempt((n) => large(name, n)),
      ),
    );
    refusals.push(
      await untilRefused(
        disk,
        attempt((n) => `small ${n}`),
      ),
    );
  }
  return { acked, refusals };
}

/** Everything that was acknowledged on a topic and nothing else, with dense seqs. */
async function holds(server: SpawnedServer, name: string, acked: unknown[]) {
  const topic = absentTopic(server, name);
  const found: unknown[] = [];
  for (let from = 0; ; ) {
    const page = await topic.diff({ from_seq: from, limit: 1000 });
    expect(page).toMatchObject({ status: 200, body: { tombstone: null, head_seq: acked.length } });
    found.push(...column(page, "data"));
    from = page.body.next_from_seq;
    if (page.body.caught_up) break;
  }
  expect(Bun.deepEquals(found, acked)).toBe(true);
  expect((await topic.state()).body).toMatchObject({ count: acked.length, head_seq: acked.length });
}

describe.skipIf(skipped !== undefined)("a full disk", () => {
  test("06.35 06.36 refuses writes with 500 and serves everything else", async () => {
    await using disk = await smallDisk();
    await using server = await spawnServer({ dir: disk.data });
    const { acked, refusals } = await fillDisk(disk, server);
    for (const refusal of refusals) {
      expect(refusal).toMatchObject(internal);
      expect(refusal.body.error.detail).toBeUndefined();
    }
    for (const name of stored) await holds(server, name, acked.get(name)!);
    expect(
      (await write(absentTopic(server, "ephemeral"), acked.get("ephemeral")!, "while full")).status,
    ).toBe(200);
    await holds(server, "ephemeral", acked.get("ephemeral")!);
    for (const path of ["/v0/health", "/v0/ready", "/v0/topics"]) {
      expect((await server.send("GET", path)).status).toBe(200);
    }
  });

  test("06.36 does not show a refused record to a waiting reader", async () => {
    await using disk = await smallDisk();
    await using server = await spawnServer({ dir: disk.data });
    const { acked } = await fillDisk(disk, server);
    const topic = absentTopic(server, "disk");
    const head = acked.get("disk")!.length;
    const waiting = topic.diff({ from_seq: head, wait_ms: 400 });
    disk.fill();
    expect(await topic.append("refused").catch((error: Error) => error.message)).toContain(
      "refused with 500",
    );
    expect((await waiting).body).toMatchObject({ records: [], next_from_seq: head, caught_up: true });
  });

  test("06.37 06.38 06 row 3: given space again, writes go on and all acked ones survive a kill", async () => {
    await using disk = await smallDisk();
    await using first = await spawnServer({ dir: disk.data });
    const { acked } = await fillDisk(disk, first);
    disk.free();
    for (const [name, data] of acked) {
      const reply = await write(absentTopic(first, name), data, `${name} after`);
      expect(reply).toMatchObject({ status: 200, body: { first_seq: data.length } });
    }

    await first.stop("SIGKILL");
    await using second = await spawnServer({ dir: disk.data });
    for (const name of stored) {
      const data = acked.get(name)!;
      await holds(second, name, data);
      expect((await absentTopic(second, name).append("later")).body.first_seq).toBe(data.length + 1);
    }
  });

  test("06.38 killed and started while the disk is full, it loses nothing", async () => {
    await using disk = await smallDisk();
    await using first = await spawnServer({ dir: disk.data });
    const { acked } = await fillDisk(disk, first);
    await first.stop("SIGKILL");
    disk.fill();
    // It may refuse to start or serve what it has, but not harm it.
    const started = await spawnServer({ dir: disk.data }).catch((error: Error) => error);
    if (started instanceof Error) expect(started.message).toMatch(/exited with [1-9]/);
    else await started.stop("SIGKILL");

    disk.free();
    await using last = await spawnServer({ dir: disk.data });
    for (const name of stored) {
      await holds(last, name, acked.get(name)!);
      expect((await absentTopic(last, name).write({ records: [{ data: 1 }] })).status).toBe(200);
    }
  });

  test("06.39 a refused change of topics changes nothing, now and after a kill", async () => {
    await using disk = await smallDisk();
    await using first = await spawnServer({ dir: disk.data });
    const topic = absentTopic(first, "t");
    await topic.put();
    const acked: unknown[] = [];
    // Between the attempts the log of changes fills up, so that in the end not even a small one fits.
    const squeezed = (attempt: (n: number) => Promise<Reply>) =>
      untilRefused(disk, async (n) => {
        await write(topic, acked, large("t", n));
        return attempt(n);
      });

    let { config } = (await topic.state()).body;
    const put = await squeezed(async (n) => {
      const reply = await topic.put({ priority: n });
      if (reply.status === 200) config = reply.body.config;
      return reply;
    });
    let created = "";
    const create = await squeezed((n) => {
      created = `new-${n}`;
      return absentTopic(first, created).put();
    });
    const implicit = await squeezed((n) =>
      absentTopic(first, `implicit-${n}`).write({ records: [{ data: n }] }),
    );
    expect([put, create, implicit]).toMatchObject([internal, internal, internal]);

    const names = async (server: SpawnedServer) =>
      (await server.send("GET", "/v0/topics?page_size=1000")).body.topics.map(
        ({ topic: name }: { topic: string }) => name,
      );
    const listed = await names(first);
    expect(listed).not.toContain(created);
    expect((await absentTopic(first, created).state()).status).toBe(404);
    expect((await topic.state()).body.config).toEqual(config);

    await first.stop("SIGKILL");
    disk.free();
    await using second = await spawnServer({ dir: disk.data });
    expect(await names(second)).toEqual(listed);
    expect((await absentTopic(second, "t").state()).body.config).toEqual(config);
    await holds(second, "t", acked);
  });

  test("06.39 a refused delete leaves the topic as it was", async () => {
    await using disk = await smallDisk();
    await using first = await spawnServer({ dir: disk.data });
    const { acked } = await fillDisk(disk, first);
    // The disk may still take small changes: each of these is either done or has changed nothing.
    const erased = await absentTopic(first, "fsync").erase({ before_seq: 3 });
    const dropped = await absentTopic(first, "disk").drop();
    const state = async (server: SpawnedServer) => ({
      earliest: (await absentTopic(server, "fsync").state()).body.earliest_seq,
      status: (await absentTopic(server, "disk").state()).status,
    });
    for (const reply of [erased, dropped]) if (reply.status !== 200) expect(reply).toMatchObject(internal);
    const expected = { earliest: erased.status === 200 ? 3 : 1, status: dropped.status === 200 ? 404 : 200 };
    expect(await state(first)).toEqual(expected);

    await first.stop("SIGKILL");
    disk.free();
    await using second = await spawnServer({ dir: disk.data });
    expect(await state(second)).toEqual(expected);
    if (dropped.status !== 200) await holds(second, "disk", acked.get("disk")!);
  });

  test("06.31 is no place to start", async () => {
    await using disk = await smallDisk();
    disk.fill();
    const started = spawnServer({ dir: disk.data }).then((server) => server.stop("SIGKILL"));
    await expect(started).rejects.toThrow(/exited with 1 before it listened:\n\s*\S/);
    disk.free();
    await using server = await spawnServer({ dir: disk.data });
    expect((await server.send("GET", "/v0/ready")).body.topics).toBe(0);
  });
});

describe.skipIf(skipped !== undefined)("a full disk in the log", () => {
  const lines = (log: string) =>
    log.split("\n").flatMap((line) => (line === "" ? [] : [JSON.parse(line) as Record<string, unknown>]));
  const ofSpace = (log: string) => lines(log).filter(({ msg }) => /space/.test(String(msg)));

  test("is one line when it begins and one when writes work again, whatever is refused meanwhile", async () => {
    await using disk = await smallDisk();
    await using server = await spawnServer({ dir: disk.data });
    const { acked } = await fillDisk(disk, server);
    const topic = absentTopic(server, "disk");
    for (let n = 0; n < 30; n++)
      await untilRefused(disk, () => write(topic, acked.get("disk")!, large("x", n)));
    expect(ofSpace(server.output())).toMatchObject([{ level: "error" }]);
    expect(server.output()).not.toContain("stack");

    disk.free();
    await until(
      async () => {
        await write(topic, acked.get("disk")!, "after");
        return ofSpace(server.output());
      },
      (told) => told.length > 1,
    );
    expect(ofSpace(server.output())).toMatchObject([{ level: "error" }, { level: "info" }]);
    disk.fill();
    await untilRefused(disk, (n) => write(topic, acked.get("disk")!, large("y", n)));
    await until(
      async () => ofSpace(server.output()).map(({ level }) => level),
      (levels) => Bun.deepEquals(levels, ["error", "info", "error"]),
    );
  });

  test("that cannot be written for it takes nothing along, and goes on once there is space", async () => {
    await using disk = await smallDisk();
    const log = join(disk.data, "..", "topics.log");
    await using server = await spawnServer({ dir: disk.data, stdout: log });
    const { acked, refusals } = await fillDisk(disk, server);
    for (const refusal of refusals) expect(refusal).toMatchObject(internal);
    for (const name of stored) await holds(server, name, acked.get(name)!);
    disk.free();
    const topic = absentTopic(server, "fsync");
    expect((await write(topic, acked.get("fsync")!, "after")).status).toBe(200);
    expect(await server.stop()).toBe(0);
    const told = lines(await Bun.file(log).text()).map(({ msg }) => String(msg));
    expect(told.filter((msg) => msg.startsWith("no space left"))).toHaveLength(1);
    expect(told.at(-1)).toBe("stopped");
  });

  test("01 section 10 does not make a stop a failure, and the next start finds everything", async () => {
    await using disk = await smallDisk();
    await using first = await spawnServer({ dir: disk.data });
    // An open snapshot keeps what is written out of the main file until there is no space for it there.
    using reader = new Database(join(disk.data, "topics.db"), { readonly: true });
    reader.run("BEGIN");
    reader.prepare("SELECT count(*) FROM topics").values();
    await absentTopic(first, "large").append(...Array(10).fill(large("l", 0)));
    const { acked } = await fillDisk(disk, first);
    disk.fill();
    reader.run("COMMIT");
    expect(await first.stop()).toBe(0);
    const [told] = lines(first.output()).filter(({ msg }) => /main file/.test(String(msg)));
    expect(told).toMatchObject({ level: "warn" });
    expect(first.output()).not.toContain("state saved");
    disk.free();
    await using second = await spawnServer({ dir: disk.data });
    for (const name of stored) await holds(second, name, acked.get(name)!);
  });
});

describe.skipIf(skipped !== undefined)("a read-only disk", () => {
  test("06 section 7 is refused with a message, and loses nothing", async () => {
    await using disk = await smallDisk();
    await using first = await spawnServer({ dir: disk.data });
    const topic = absentTopic(first, "kept");
    await topic.append("a", "b");
    await first.stop("SIGTERM");
    disk.remount("ro");
    const started = spawnServer({ dir: disk.data }).then((server) => server.stop("SIGKILL"));
    await expect(started).rejects.toThrow(
      /exited with 1 before it listened:[\s\S]*Cannot use the data directory .*: EROFS: read-only file system, .*data/,
    );
    disk.remount("rw");
    await using second = await spawnServer({ dir: disk.data });
    const { body } = await second.send("POST", `/v0/topics/${topic.name}/diff`, {});
    expect(body.records.map((record: { data: unknown }) => record.data)).toEqual(["a", "b"]);
  });
});
