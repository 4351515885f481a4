/** Prometheus itself reads the metrics. Needs Debian's package `prometheus`. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { startServer } from "../support/server.ts";
import { freePort, temporaryDirectory } from "../support/spawn.ts";
import { newTopic, until } from "../support/topics.ts";

setDefaultTimeout(60_000);

const keys = { TOPICS_API_KEYS: "full,watcher:read" };
const authorized = { authorization: "Bearer full" };

test("promtool has nothing against the text but three names that the contract has given", async () => {
  await using server = await startServer();
  await (await newTopic(server, { type: "queue", durability: "fsync" })).append(1, 2, 3);
  const { text } = await server.send("GET", "/v0/metrics");

  const check = Bun.spawn(["promtool", "check", "metrics"], { stdin: new Blob([text]), stderr: "pipe" });
  expect((await new Response(check.stderr).text()).trimEnd().split("\n")).toEqual([
    'topics_uptime_ms counter metrics should have "_total" suffix',
    "topics_uptime_ms metric names should not contain abbreviated units",
    "topics_wal_fsync_latency_us metric names should not contain abbreviated units",
  ]);
});

test("a server with keys is scraped without errors, and what it says can be asked for", async () => {
  await using server = await startServer(keys);
  await using dir = await temporaryDirectory();
  await server.send("PUT", "/v0/topics/orders", {}, authorized);
  await server.send("POST", "/v0/topics/orders", { records: [{ data: 1 }, { data: 2 }] }, authorized);
  const config = join(dir.path, "prometheus.yml");
  await Bun.write(
    config,
    `scrape_configs:
  - job_name: topics
    scrape_interval: 1s
    metrics_path: /v0/metrics
    authorization: { credentials: watcher }
    static_configs: [{ targets: ["${new URL(server.url).host}"] }]
`,
  );
  const port = freePort();
  const prometheus = Bun.spawn(
    [
      "prometheus",
      `--config.file=${config}`,
      `--storage.tsdb.path=${join(dir.path, "data")}`,
      `--web.listen-address=127.0.0.1:${port}`,
    ],
    { stdout: "ignore", stderr: "ignore" },
  );
  try {
    const ask = async (path: string) => {
      const response = await fetch(`http://127.0.0.1:${port}/api/v1/${path}`).catch(() => undefined);
      return response?.ok ? ((await response.json()) as { data: never }).data : undefined;
    };
    const query = async (text: string) => {
      const answer = (await ask(`query?query=${encodeURIComponent(text)}`)) as
        | { result: { value: [number, string] }[] }
        | undefined;
      return answer?.result[0]?.value[1];
    };
    const head = await until(
      () => query('topics_topic_head_seq{topic="orders"}'),
      (value) => value !== undefined,
      30_000,
    );
    const [target] = ((await ask("targets")) as unknown as { activeTargets: object[] }).activeTargets;
    expect({ head, up: await query("up"), target }).toMatchObject({
      head: "2",
      up: "1",
      target: { health: "up", lastError: "" },
    });
  } finally {
    prometheus.kill();
    await prometheus.exited;
  }
});
