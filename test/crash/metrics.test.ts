/** The metrics of a large store, and that they are right again after a restart. */
import { Database } from "bun:sqlite";
import { expect, setDefaultTimeout, test } from "bun:test";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { Metrics } from "../support/prometheus.ts";
import { type SpawnedServer, spawnServer, temporaryDirectory } from "../support/spawn.ts";
import { absentTopic, timed, together } from "../support/topics.ts";

setDefaultTimeout(120_000);

/** As many as there may be. */
const TOPICS = 100_000;
const WRITERS = 64;
const SCRAPE_MS_MAX = 2000;

const classes = ["ephemeral", "memory", "disk", "fsync"];

/** Creates the topics by a write of one record each; every class gets a quarter of them, a tenth are queues. */
async function fill(server: SpawnedServer): Promise<void> {
  let next = 0;
  await together(WRITERS, async () => {
    while (next < TOPICS) {
      const i = next++;
      const config = { durability: classes[i % 4], type: i % 10 === 0 ? "queue" : "log" };
      const { status, text } = await absentTopic(server, `topic-${i}`).write({
        records: [{ data: 1 }],
        config,
      });
      if (status !== 201) throw new Error(`topic ${i} was answered with ${status}: ${text}`);
    }
  });
}

/** Scrapes both forms and expects each in time. */
async function scrape(server: SpawnedServer) {
  const get = (accept: string) => timed(() => server.send("GET", "/v0/metrics", undefined, { accept }));
  const [text, json] = [await get("text/plain"), await get("application/json")];
  expect(text.ms).toBeLessThan(SCRAPE_MS_MAX);
  expect(json.ms).toBeLessThan(SCRAPE_MS_MAX);
  return { metrics: new Metrics(text.answer.text), json: json.answer.body };
}

function expectFigures({ metrics, json }: Awaited<ReturnType<typeof scrape>>, records: number): void {
  const quarter = TOPICS / 4;
  expect(metrics.by("class", "topics_topics_by_class")).toEqual(
    Object.fromEntries(classes.map((name) => [name, quarter])),
  );
  const figures = ["topics", "queue_topics", "records_live", "bytes_live", "topic_metrics_truncated"];
  expect(figures.map((figure) => [figure, metrics.value(`topics_${figure}`)])).toEqual([
    ["topics", TOPICS],
    ["queue_topics", TOPICS / 10],
    ["records_live", records],
    ["bytes_live", records],
    ["topic_metrics_truncated", 1],
  ]);
  const heads = Object.values(metrics.by("topic", "topics_topic_head_seq"));
  expect([heads.length, heads.every((head) => head === 1)]).toEqual([1000, true]);
  expect(json).toMatchObject({
    topics: TOPICS,
    topics_fsync: quarter,
    records_live: records,
    queue_topics: TOPICS / 10,
  });
}

test("01.47 01.49 100,000 topics are scraped within 2 s, and counted again after a restart", async () => {
  await using first = await spawnServer();
  await fill(first);
  expectFigures(await scrape(first), TOPICS);
  // Scrapes do not add up: the tenth is as quick as the first.
  const scrapes = await timed(() => together(4, () => scrape(first)));
  expect(scrapes.ms).toBeLessThan(4 * SCRAPE_MS_MAX);

  expect(await first.stop()).toBe(0);
  await using second = await spawnServer({ dir: first.dir });
  // Ephemeral topics come back, their records do not.
  expectFigures(await scrape(second), (TOPICS * 3) / 4);

  await absentTopic(second, "topic-1").drop();
  await absentTopic(second, "topic-2").append("abc");
  await second.stop("SIGKILL");
  await using third = await spawnServer({ dir: first.dir });
  const { metrics } = await scrape(third);
  const figures = ["topics", "records_live", "bytes_live"].map((name) => metrics.value(`topics_${name}`));
  expect(figures).toEqual([TOPICS - 1, (TOPICS * 3) / 4, (TOPICS * 3) / 4 + 4]);
});

test("01.47 what was counted before a kill is counted after it", async () => {
  await using first = await spawnServer();
  for (const durability of ["memory", "disk", "fsync"]) {
    for (const type of ["log", "queue"]) {
      const topic = absentTopic(first, `${durability}-${type}`);
      await topic.put({ durability, type, cap_records: 6 });
      await topic.append("a", "bc", "def", "ghij");
      await topic.write({ records: [{ data: 1, meta: { k: 1 }, tag: "gone" }, { data: 2 }] });
      await topic.erase({ match: "gone" });
      await topic.append(3, 4);
      await topic.erase({ before_seq: 4 });
    }
    await absentTopic(first, `${durability}-dropped`).append(1);
    await absentTopic(first, `${durability}-dropped`).drop();
    await absentTopic(first, `${durability}-empty`).put({ durability });
  }
  await absentTopic(first, "disk-empty").put({ durability: "fsync" });

  const figures = async (server: SpawnedServer) => {
    const metrics = new Metrics((await server.send("GET", "/v0/metrics")).text);
    const families = [...metrics.families.keys()].filter((name) =>
      /^topics_(topic_.*|topics|topics_by_class|records_live|bytes_live|queue_topics)$/.test(name),
    );
    const label = (name: string) => (name === "topics_topics_by_class" ? "class" : "topic");
    return Object.fromEntries(families.map((name) => [name, metrics.by(label(name), name)]));
  };
  const before = await figures(first);
  expect(before.topics_topics).toEqual({ "": 9 });
  expect(before.topics_topics_by_class).toEqual({ ephemeral: 0, memory: 3, disk: 2, fsync: 4 });
  expect(before.topics_records_live).toEqual({ "": 24 });
  expect(before.topics_bytes_live).toEqual({ "": 54 });
  expect(Object.keys(before.topics_topic_queue_ready!)).toHaveLength(3);

  await first.stop("SIGKILL");
  await using second = await spawnServer({ dir: first.dir });
  expect(await figures(second)).toEqual(before);
});

/** The database of a version with that schema, in an empty data directory. */
async function olderDatabase(dir: string, schema: number): Promise<Database> {
  const folder = join(import.meta.dir, "../../src/store/migrations");
  const steps = (await readdir(folder)).sort().slice(0, schema);
  const db = new Database(join(dir, "topics.db"), { create: true });
  for (const step of steps) db.run(await Bun.file(join(folder, step)).text());
  db.run(`PRAGMA user_version = ${schema}`);
  return db;
}

test("subscriptions of an older version are counted once, not with every scrape", async () => {
  await using dir = await temporaryDirectory();
  {
    using db = await olderDatabase(dir.path, 5);
    db.run(`
      WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 400000)
      INSERT INTO feed_subscriptions SELECT 'net', 1, 's' || n, 'f', 1, n % 4 > 0, n, n, 'e' || n FROM numbers`);
  }
  await using server = await spawnServer({ dir: dir.path });
  using db = new Database(join(dir.path, "topics.db"), { readonly: true });
  const scrapeMs: number[] = [];
  const countMs: number[] = [];
  for (let n = 0; n < 10; n++) {
    const { ms, answer } = await timed(() => server.send("GET", "/v0/metrics"));
    expect(new Metrics(answer.text).value("topics_feed_subscriptions")).toBe(300_000);
    scrapeMs.push(ms);
    const start = performance.now();
    db.query("SELECT count(*) FROM feed_subscriptions WHERE active").get();
    countMs.push(performance.now() - start);
  }
  expect(Math.min(...scrapeMs)).toBeLessThan(Math.min(...countMs) / 2);
});
