/** `GET /v0/metrics`: what it shows, in which form, and that its figures follow what is done. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { newFeed } from "../support/feeds.ts";
import { type Bucket, type Kind, Metrics, parse } from "../support/prometheus.ts";
import { exchange, RawSocket } from "../support/rawsocket.ts";
import { startServer } from "../support/server.ts";
import { absentTopic, newTopic, type Sender, sharedServer, together, until } from "../support/topics.ts";

setDefaultTimeout(30_000);

const PATH = "/v0/metrics";

async function scrape(server: Sender): Promise<Metrics> {
  const { status, text } = await server.send("GET", PATH);
  if (status !== 200) throw new Error(`the scrape was answered with ${status}: ${text}`);
  return new Metrics(text);
}

const json = (server: Sender) => server.send("GET", PATH, undefined, { accept: "application/json" });

/** Live records and bytes of all topics together. */
const live = (metrics: Metrics) => ({
  records: metrics.value("topics_records_live"),
  bytes: metrics.value("topics_bytes_live"),
});

/** The four figures of one topic; undefined where there is none. */
const figuresOf = (metrics: Metrics, topic: string) =>
  ["head_seq", "earliest_seq", "records_live", "bytes_live"].map((figure) =>
    metrics.value(`topics_topic_${figure}`, { topic }),
  );

describe("the reader of the text format", () => {
  const gauge = (...lines: string[]) =>
    [`# HELP a Something.`, "# TYPE a gauge", ...lines.map((line) => `${line}\n`)].join("\n");

  test("reads labels, escapes and every form of number", () => {
    const { help, type, samples } = parse(
      `# HELP a A \\\\ and a \\n.\n# TYPE a gauge\na 1\na{b="}\\\\,\\"\\n",c="",} -2.5e-3\na{b="="} +Inf 1700000000000\n\n`,
    ).get("a")!;
    expect({ help, type }).toEqual({ help: "A \\ and a \n.", type: "gauge" });
    expect(samples).toEqual([
      { name: "a", labels: {}, value: 1 },
      { name: "a", labels: { b: '}\\,"\n', c: "" }, value: -0.0025 },
      { name: "a", labels: { b: "=" }, value: Number.POSITIVE_INFINITY },
    ]);
  });

  test("reads histograms", () => {
    const metrics = new Metrics(
      '# HELP h Times.\n# TYPE h histogram\nh_bucket{le="0.5"} 1\nh_bucket{le="+Inf"} 3\nh_sum 7.5\nh_count 3\n',
    );
    const buckets: Bucket[] = [
      { le: 0.5, count: 1 },
      { le: Number.POSITIVE_INFINITY, count: 3 },
    ];
    expect(metrics.buckets("h")).toEqual(buckets);
    expect([metrics.value("h_sum"), metrics.value("h_count"), metrics.value("h")]).toEqual([
      7.5,
      3,
      undefined,
    ]);
  });

  const histogram = (...lines: string[]) =>
    `# HELP h Times.\n# TYPE h histogram\n${lines.map((line) => `h_${line}\n`).join("")}`;

  test.each([
    ["no line feed at the end", "the last line has no line feed", gauge("a 1").slice(0, -1)],
    ["an empty text", "the last line has no line feed", ""],
    ["a carriage return", "a carriage return", gauge("a 1\r")],
    ["a sample without HELP and TYPE", "a sample without HELP and TYPE", "a 1\n"],
    ["a sample without TYPE", "a sample without HELP and TYPE", "# HELP a A.\na 1\n"],
    ["a family without TYPE", "a has no TYPE", "# HELP a A.\n# HELP b B.\n# TYPE b gauge\nb 1\n"],
    ["TYPE without HELP", "TYPE without HELP before it", "# TYPE a gauge\na 1\n"],
    ["TYPE of another family", "TYPE without HELP before it", "# HELP a A.\n# TYPE b gauge\n"],
    ["TYPE twice", "a second TYPE", gauge("# TYPE a gauge", "a 1")],
    ["an unknown type", "an unknown type", "# HELP a A.\n# TYPE a meter\na 1\n"],
    ["an empty help", "a has no help", "# HELP a \n# TYPE a gauge\na 1\n"],
    ["no help at all", "an incomplete comment", "# HELP a\n# TYPE a gauge\na 1\n"],
    ["an unknown escape in the help", "an unknown escape", "# HELP a \\q\n# TYPE a gauge\na 1\n"],
    [
      "a family in two places",
      "a family in two places",
      gauge("a 1", "# HELP b B.", "# TYPE b gauge", "b 1", "# HELP a A."),
    ],
    ["a sample of another family", "a sample that does not belong to a", gauge("b 1")],
    ["a sample like a histogram's in a gauge", "a sample that does not belong to a", gauge("a_count 1")],
    ["a series twice", "a series twice", gauge("a 1", "a 2")],
    [
      "a series twice, with its labels in another order",
      "a series twice",
      gauge('a{b="1",c="2"} 1', 'a{c="2",b="1"} 1'),
    ],
    ["a label twice", "a label twice", gauge('a{b="1",b="2"} 1')],
    ["a label without quotes", "malformed labels", gauge("a{b=1} 1")],
    ["a label that does not end", "no sample", gauge('a{b="1} 1')],
    ["labels that do not end", "no sample", gauge('a{b="1" 1')],
    ["two commas", "malformed labels", gauge('a{b="1",,c="2"} 1')],
    ["an unknown escape in a label", "an unknown escape", gauge('a{b="\\t"} 1')],
    ["a quote in a label", "no sample", gauge('a{b="""} 1')],
    ["an illegal label name", "an illegal label name", gauge('a{b-c="1"} 1')],
    ["a reserved label name", "an illegal label name", gauge('a{__b="1"} 1')],
    ["an illegal name", "an illegal metric name", gauge("a-b 1")],
    ["le outside of a histogram", "le belongs to buckets, and only there", gauge('a{le="1"} 1')],
    ["no value", "no sample", gauge("a")],
    ["a word for a value", "a value that is no number", gauge("a one")],
    ["a misspelled NaN", "a value that is no number", gauge("a Nan")],
    ["a hexadecimal value", "a value that is no number", gauge("a 0x10")],
    ["a counter below zero", "a count that is no count", "# HELP c C.\n# TYPE c counter\nc -1\n"],
    ["a counter that is NaN", "a count that is no count", "# HELP c C.\n# TYPE c counter\nc NaN\n"],
    [
      "buckets that decrease",
      "h: buckets that decrease",
      histogram('bucket{le="1"} 2', 'bucket{le="+Inf"} 1', "sum 1", "count 1"),
    ],
    [
      "bounds that do not ascend",
      "h: bucket bounds that do not ascend",
      histogram('bucket{le="2"} 1', 'bucket{le="1"} 1', 'bucket{le="+Inf"} 1', "sum 1", "count 1"),
    ],
    ["no bucket for +Inf", "h: no bucket for +Inf", histogram('bucket{le="1"} 1', "sum 1", "count 1")],
    [
      "a bucket without le",
      "le belongs to buckets, and only there",
      histogram("bucket 1", "sum 1", "count 1"),
    ],
    [
      "a count that differs from +Inf",
      "h: +Inf is not the count",
      histogram('bucket{le="+Inf"} 1', "sum 1", "count 2"),
    ],
    ["no sum", "h: no _sum", histogram('bucket{le="+Inf"} 1', "count 1")],
    ["no count", "h: no _count", histogram('bucket{le="+Inf"} 1', "sum 1")],
    [
      "a plain sample in a histogram",
      "a sample that does not belong to h",
      `${histogram('bucket{le="+Inf"} 1', "sum 1", "count 1")}h 1\n`,
    ],
  ])("refuses %s: %s", (_, message, text) => {
    expect(() => parse(text)).toThrow(message);
  });
});

describe("the text", () => {
  const server = sharedServer();

  const linuxOnly: [string, Kind, string[]][] = [
    ["process_open_fds", "gauge", []],
    ["process_max_fds", "gauge", []],
  ];
  const families: [string, Kind, string[]][] = [
    ["topics_topics", "gauge", []],
    ["topics_topics_by_class", "gauge", ["class"]],
    ["topics_routers", "gauge", []],
    ["topics_records_live", "gauge", []],
    ["topics_bytes_live", "gauge", []],
    ["topics_topic_head_seq", "gauge", ["topic"]],
    ["topics_topic_earliest_seq", "gauge", ["topic"]],
    ["topics_topic_records_live", "gauge", ["topic"]],
    ["topics_topic_bytes_live", "gauge", ["topic"]],
    ["topics_topic_queue_ready", "gauge", ["topic"]],
    ["topics_topic_queue_in_flight", "gauge", ["topic"]],
    ["topics_topic_metrics_truncated", "gauge", []],
    ["topics_queue_topics", "gauge", []],
    ["topics_queue_leases_in_flight", "gauge", []],
    ["topics_sse_connections", "gauge", []],
    ["topics_watch_sessions", "gauge", []],
    ["topics_ready", "gauge", []],
    ["topics_recovery_progress", "gauge", []],
    ["topics_uptime_ms", "counter", []],
    ["topics_wal_frames_total", "counter", []],
    ["topics_wal_batches_total", "counter", []],
    ["topics_wal_fsyncs_total", "counter", []],
    ["topics_wal_bytes_written_total", "counter", []],
    ["topics_wal_rotations_total", "counter", []],
    ["topics_wal_queue_depth", "gauge", []],
    ["topics_wal_queue_depth_peak", "gauge", []],
    ["topics_wal_submit_full_total", "counter", []],
    ["topics_wal_read_only", "gauge", []],
    ["topics_wal_fsync_latency_us", "histogram", []],
    ["topics_wal_fsync_latency_seconds", "histogram", []],
    ["topics_wal_size_bytes", "gauge", []],
    ["topics_http_responses_total", "counter", ["status"]],
    ["topics_request_body_bytes_in_flight", "gauge", []],
    ["topics_requests_in_flight", "gauge", []],
    ["process_resident_memory_bytes", "gauge", []],
    ["process_cpu_seconds_total", "counter", []],
    ["process_start_time_seconds", "gauge", []],
    ...(process.platform === "linux" ? linuxOnly : []),
    ["topics_feed_events", "gauge", []],
    ["topics_feed_records", "gauge", []],
    ["topics_feed_bytes", "gauge", []],
    ["topics_feed_subscriptions", "gauge", []],
    ["topics_feed_posted_total", "counter", []],
    ["topics_feed_received_total", "counter", ["result"]],
  ];

  test.each(families)("01.47 has %s, a %s with labels %j", async (name, type, labels) => {
    await newTopic(server, { type: "queue" });
    const family = (await scrape(server)).family(name);
    expect(family.type).toBe(type);
    expect(family.samples).not.toBeEmpty();
    for (const sample of family.samples) {
      const own = Object.keys(sample.labels).filter((label) => label !== "le");
      expect(own).toEqual(labels);
    }
  });

  test("01.47 is whole and agrees with itself while topics come, fill and go", async () => {
    const work = together(10, async (i) => {
      const durability = ["ephemeral", "memory", "disk", "fsync"][i % 4];
      for (let round = 0; round < 4; round++) {
        const topic = await newTopic(server, { durability });
        for (let n = 0; n < 5; n++) await topic.append(n);
        await topic.drop();
      }
    });
    let working = true;
    const done = work.finally(() => {
      working = false;
    });
    const counters = (metrics: Metrics) =>
      [...metrics.families.values()]
        .filter(({ name, type }) => type === "counter" && name.startsWith("topics_wal_"))
        .map(({ name }) => metrics.value(name)!);
    for (let last: number[] = []; working; ) {
      const scrapes = await together(3, () => scrape(server));
      for (const metrics of scrapes) {
        const classes = Object.values(metrics.by("class", "topics_topics_by_class"));
        expect(classes.reduce((sum, n) => sum + n)).toBe(metrics.value("topics_topics")!);
        expect(counters(metrics).map((total, i) => total >= (last[i] ?? 0))).not.toContain(false);
      }
      last = counters(scrapes[0]!);
    }
    await done;
  });

  test("01.47 tells state and uptime", async () => {
    const first = await scrape(server);
    const names = [
      "topics_ready",
      "topics_recovery_progress",
      "topics_wal_read_only",
      "topics_wal_queue_depth",
    ];
    expect(names.map((name) => first.value(name))).toEqual([1, 1, 0, 0]);
    const { uptime_ms } = (await server.send("GET", "/v0/health")).body;
    const later = await scrape(server);
    expect(first.value("topics_uptime_ms")!).toBeLessThan(uptime_ms + 100);
    expect(later.value("topics_uptime_ms")!).toBeGreaterThan(uptime_ms - 100);
    const seconds = later.value("topics_uptime_seconds")!;
    expect(Math.abs(seconds - later.value("topics_uptime_ms")! / 1000)).toBeLessThan(1);
  });

  test("tells what the process uses", async () => {
    const metrics = await scrape(server);
    expect(metrics.value("process_resident_memory_bytes")!).toBeGreaterThan(10_000_000);
    expect(metrics.value("process_cpu_seconds_total")!).toBeGreaterThan(0);
    const start = metrics.value("process_start_time_seconds")! * 1000;
    expect(start).toBeLessThan(Date.now());
    expect(start).toBeGreaterThan(Date.now() - 3_600_000);
  });

  test.skipIf(process.platform !== "linux")(
    "tells how many files are open, and how many may be",
    async () => {
      const open = async () => (await scrape(server)).value("process_open_fds")!;
      const before = await open();
      const sockets = Array.from({ length: 50 }, () => new RawSocket(server.url));
      await until(open, (count) => count >= before + 50);
      for (const socket of sockets) socket[Symbol.dispose]();
      const max = (await scrape(server)).value("process_max_fds")!;
      expect(max).toBeGreaterThanOrEqual(before + 50);
    },
  );

  test("tells of feeds: what is in their log, and the subscriptions in force", async () => {
    await using own = await startServer();
    const names = ["events", "records", "bytes", "subscriptions", "posted_total"];
    const figures = async () => {
      const metrics = await scrape(own);
      return Object.fromEntries(names.map((name) => [name, metrics.value(`topics_feed_${name}`)]));
    };
    expect(await figures()).toEqual({ events: 0, records: 0, bytes: 0, subscriptions: 0, posted_total: 0 });
    const [one, other] = [newFeed(own), newFeed(own)];
    await one.subscribe();
    await one.subscribe();
    await one.subscribe({ subscriber_node_id: "worker" });
    await other.subscribe();
    await other.subscribe({ active: false });
    await other.subscribe({ active: false });
    await one.post({ text: "hello" });
    const after = await figures();
    const state = (await own.send("GET", "/v0/topics/_feeds")).body;
    expect(after).toMatchObject({ events: state.head_seq, records: state.count, bytes: state.bytes });
    expect(after).toMatchObject({ subscriptions: 2, posted_total: state.head_seq });
    const { body } = await json(own);
    const { posted_total: posted, ...others } = after;
    const received = { accepted: 0, duplicates: 0, rejected: 0 };
    expect(body.feeds).toEqual({ ...others, posted, ...received });
  });
});

describe("negotiation", () => {
  const server = sharedServer();
  const text = "text/plain; version=0.0.4";

  test.each([
    ["application/json", "application/json"],
    ["text/html, application/json;q=0.1", "application/json"],
    ["text/plain;q=1, application/json;q=0", "application/json"],
    ["application/jsonl", "application/json"],
    ["Application/JSON", text],
    ["*/*", text],
    ["text/plain", text],
    ["application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", text],
    ["image/png", text],
  ])("01.10 Accept %s gives %s", async (accept, type) => {
    for (const method of ["GET", "HEAD"]) {
      const { status, headers } = await server.send(method, PATH, undefined, { accept });
      expect([method, status, headers.get("content-type")]).toEqual([method, 200, type]);
    }
  });

  test("01.10 no Accept gives text", async () => {
    const answer = await exchange(
      server.url,
      `GET ${PATH} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n`,
    );
    const [head, body] = answer.split("\r\n\r\n", 2) as [string, string];
    expect(head).toMatch(/^HTTP\/1\.1 200 /);
    expect(head.toLowerCase()).toContain(`\r\ncontent-type: ${text}`);
    expect(body).toContain("# TYPE topics_topics gauge\n");
  });

  test.each(["*/*", "application/json"])("01.04 HEAD for %s has no body", async (accept) => {
    const { status, text } = await server.send("HEAD", PATH, undefined, { accept });
    expect({ status, text }).toEqual({ status: 200, text: "" });
  });

  test.each(["PUT", "POST", "DELETE", "PATCH", "OPTIONS"])("01.03 %s is not allowed", async (method) => {
    const { status, headers, body } = await server.send(method, PATH);
    expect({ status, code: body.error.code }).toEqual({ status: 405, code: "method_not_allowed" });
    expect(headers.get("allow")!.split(/, */).sort()).toEqual(["GET", "HEAD"]);
  });

  test.each([`${PATH}/`, "/metrics", "/v0/Metrics", `${PATH}/topics`])(
    "01.02 %s is not found",
    async (path) => {
      expect(await server.send("GET", path)).toMatchObject({
        status: 404,
        body: { error: { code: "not_found" } },
      });
    },
  );

  test("01.13 an unknown parameter changes nothing", async () => {
    expect((await server.send("GET", `${PATH}?format=json`)).headers.get("content-type")).toBe(text);
  });
});

describe("the JSON form", () => {
  test("01.10 has these members, and performance", async () => {
    await using server = await startServer();
    const topic = await newTopic(server, { durability: "fsync" });
    await topic.append("something");
    const { body, text } = await json(server);
    const { wal, performance, uptime_ms, ...others } = body;
    expect(others).toMatchObject({
      bytes_live: 11,
      queue_leases_in_flight: 0,
      queue_topics: 0,
      ready: true,
      records_live: 1,
      replay_progress: 1,
      routers: 0,
      sse_connections: 0,
      topics: 1,
      topics_disk: 0,
      topics_ephemeral: 0,
      topics_fsync: 1,
      topics_memory: 0,
      watch_sessions: 0,
    });
    expect(Number.isInteger(uptime_ms)).toBe(true);
    expect(performance.server_total_ms).toBeNumber();
    expect(Object.keys(wal)).toEqual(
      expect.arrayContaining([
        "batches",
        "bytes_written",
        "frames",
        "fsync_count",
        "fsync_micros_total",
        "fsyncs",
        "queue_depth",
        "queue_depth_peak",
        "read_only",
        "rotations",
        "submit_full_total",
      ]),
    );
    for (const [name, value] of Object.entries(wal))
      expect([name, Number.isInteger(value)]).toEqual([name, true]);
    expect(wal).toMatchObject({ queue_depth: 0, read_only: 0, submit_full_total: 0 });
    expect(wal.fsyncs).toBe(wal.fsync_count);
    // Nothing about a single topic.
    expect(text).not.toContain(topic.name);
  });

  test("01.10 agrees with the text", async () => {
    await using server = await startServer();
    for (const durability of ["fsync", "fsync", "memory", "ephemeral", "disk"])
      await (await newTopic(server, { durability, type: "queue" })).append("x", 1);
    const figures = (metrics: Metrics) => {
      const at = (name: string) => metrics.value(`topics_${name}`);
      return {
        topics: at("topics"),
        ...Object.fromEntries(
          Object.entries(metrics.by("class", "topics_topics_by_class")).map(([name, n]) => [
            `topics_${name}`,
            n,
          ]),
        ),
        records_live: at("records_live"),
        bytes_live: at("bytes_live"),
        queue_topics: at("queue_topics"),
        wal: {
          frames: at("wal_frames_total"),
          batches: at("wal_batches_total"),
          bytes_written: at("wal_bytes_written_total"),
          fsyncs: at("wal_fsyncs_total"),
          rotations: at("wal_rotations_total"),
          queue_depth_peak: at("wal_queue_depth_peak"),
        },
      };
    };
    // The log is still being tidied up right after a write, so all is asked for until nothing moves meanwhile.
    const { before, body } = await until(
      async () => {
        const before = figures(await scrape(server));
        const { body } = await json(server);
        return { before, body, after: figures(await scrape(server)) };
      },
      ({ before, after }) => Bun.deepEquals(before, after),
    );
    expect(before).toMatchObject({ topics: 5, topics_fsync: 2, records_live: 10, queue_topics: 5 });
    expect(body).toMatchObject(before);
    const sum = (await scrape(server)).value("topics_wal_fsync_latency_us_sum")!;
    expect(Math.abs(body.wal.fsync_micros_total - sum)).toBeLessThanOrEqual(body.wal.fsyncs);
  });
});

describe("topics", () => {
  const classes = (metrics: Metrics) => metrics.by("class", "topics_topics_by_class");

  test("01.47 are counted by class, all four always", async () => {
    await using server = await startServer();
    const empty = await scrape(server);
    expect(classes(empty)).toEqual({ ephemeral: 0, memory: 0, disk: 0, fsync: 0 });
    expect([empty.value("topics_topics"), live(empty)]).toEqual([0, { records: 0, bytes: 0 }]);

    const put = (name: string, config: object) => absentTopic(server, name).put(config);
    await put("a", { durability: "ephemeral" });
    for (const name of ["b", "c"]) await put(name, { durability: "memory" });
    for (const name of ["d", "e"]) await put(name, { durability: "disk" });
    await absentTopic(server, "f").append(1);
    for (const name of ["g", "h", "i"]) await put(name, { durability: "fsync" });
    await put("j", { durable: true });
    const full = await scrape(server);
    expect(classes(full)).toEqual({ ephemeral: 1, memory: 2, disk: 3, fsync: 4 });
    expect(full.value("topics_topics")).toBe(10);

    await put("a", { durability: "fsync" });
    await absentTopic(server, "b").drop();
    await absentTopic(server, "nope").drop();
    await put("_illegal", {});
    const changed = await scrape(server);
    expect(classes(changed)).toEqual({ ephemeral: 0, memory: 1, disk: 3, fsync: 5 });
    expect(changed.value("topics_topics")).toBe(9);
  });

  test.each(["ephemeral", "memory", "disk", "fsync"])(
    "01.47 live records and bytes of class %s follow appends, deletes, caps and expiry",
    async (durability) => {
      await using server = await startServer();
      const seen: object[] = [];
      const look = async () => seen.push(live(await scrape(server)));
      const topic = absentTopic(server, "t");
      await topic.put({ durability });
      await topic.append("12345678", "é", 1);
      await look();
      const meta = { records: [{ data: 1, tag: "x", node: "n", meta: { k: "v" } }] };
      await topic.write(meta);
      await look();
      await topic.write({ records: [{ data: 1 }], idempotency_key: "k" });
      await topic.write({ records: [{ data: 1 }], idempotency_key: "k" });
      await look();
      await topic.erase({ match: "x" });
      await look();
      await topic.erase({ before_seq: 2 });
      await look();
      await topic.put({ durability, cap_records: 1 });
      await look();
      await topic.put({ durability, discard: "reject", cap_records: 1 });
      await topic.append(1).catch(() => {});
      await look();
      await absentTopic(server, "other").append("123");
      await look();
      await topic.put({ durability, ttl_ms: 1 });
      await until(
        () => topic.diff(),
        ({ body }) => body.earliest_seq === 6,
      );
      await look();
      await absentTopic(server, "other").drop();
      await look();
      expect(seen).toEqual([
        { records: 3, bytes: 15 },
        { records: 4, bytes: 25 },
        { records: 5, bytes: 26 },
        { records: 4, bytes: 16 },
        { records: 3, bytes: 6 },
        { records: 1, bytes: 1 },
        { records: 1, bytes: 1 },
        { records: 2, bytes: 6 },
        { records: 1, bytes: 5 },
        { records: 0, bytes: 0 },
      ]);
    },
  );

  test("01.47 the text as sent is what bytes count", async () => {
    await using server = await startServer();
    const [data, meta] = ['[ 1.0 , "\\u0041" ]', "{ }"];
    await absentTopic(server, "t").write(`{"records":[{"data": ${data} ,"meta":${meta}}]}`);
    expect(live(await scrape(server))).toEqual({ records: 1, bytes: data.length + meta.length });
  });

  test("01.47 each has its own series, as its state has it", async () => {
    await using server = await startServer();
    const names = ["a", "A", "orders.eu:81_x-y", "0", "constructor", "n".repeat(255)];
    for (const [i, name] of names.entries()) {
      const topic = absentTopic(server, name);
      await topic.put({ cap_records: 4 });
      for (let n = 0; n <= i; n++) await topic.append(n);
    }
    await absentTopic(server, "constructor").erase({ before_seq: 4 });
    const metrics = await scrape(server);
    for (const name of names) {
      const { head_seq, earliest_seq, count, bytes } = (await absentTopic(server, name).state()).body;
      expect([name, ...figuresOf(metrics, name)]).toEqual([name, head_seq, earliest_seq, count, bytes]);
    }
    for (const figure of ["head_seq", "earliest_seq", "records_live", "bytes_live"])
      expect(metrics.family(`topics_topic_${figure}`).samples).toHaveLength(names.length);
  });

  test("01.47 one without records has head 0, one deleted has no series, one created again starts over", async () => {
    await using server = await startServer();
    const topic = absentTopic(server, "t");
    const seen: unknown[] = [];
    const look = async () => seen.push(figuresOf(await scrape(server), "t"));
    await look();
    await topic.put();
    await look();
    await topic.append("ab", "cd");
    await look();
    await topic.drop();
    await look();
    await topic.put();
    await look();
    const none = Array(4).fill(undefined);
    expect(seen).toEqual([none, [0, 1, 0, 0], [2, 1, 2, 8], none, [0, 1, 0, 0]]);
  });

  test("01.48 only queues have queue figures", async () => {
    await using server = await startServer();
    const topic = (name: string, type: string) => absentTopic(server, name).put({ type });
    for (const name of ["log-1", "log-2"]) await topic(name, "log");
    for (const name of ["queue-1", "queue-2", "queue-3"]) await topic(name, "queue");
    for (const name of ["log-1", "queue-1"]) await absentTopic(server, name).append(1, 2, 3);
    await absentTopic(server, "queue-2").append(1);
    await absentTopic(server, "queue-1").erase({ before_seq: 2 });
    const metrics = await scrape(server);
    expect(metrics.by("topic", "topics_topic_queue_ready")).toEqual({
      "queue-1": 2,
      "queue-2": 1,
      "queue-3": 0,
    });
    expect(metrics.by("topic", "topics_topic_queue_in_flight")).toEqual({
      "queue-1": 0,
      "queue-2": 0,
      "queue-3": 0,
    });
    expect(metrics.value("topics_queue_topics")).toBe(3);
    expect(metrics.value("topics_queue_leases_in_flight")).toBe(0);
    await absentTopic(server, "queue-2").drop();
    const later = await scrape(server);
    expect(later.value("topics_queue_topics")).toBe(2);
    expect(later.value("topics_topic_queue_ready", { topic: "queue-2" })).toBeUndefined();
  });

  test("01.49 of more than 1000, 1000 have series", async () => {
    await using server = await startServer();
    await together(1000, (i) => absentTopic(server, `t${i}`).put({ durability: "ephemeral" }));
    const names = (metrics: Metrics, figure: string) =>
      Object.keys(metrics.by("topic", `topics_topic_${figure}`)).sort();
    const look = async () => {
      const metrics = await scrape(server);
      const heads = names(metrics, "head_seq");
      for (const figure of ["earliest_seq", "records_live", "bytes_live"])
        expect(names(metrics, figure)).toEqual(heads);
      return [
        metrics.value("topics_topics"),
        metrics.value("topics_topic_metrics_truncated"),
        new Set(heads).size,
      ];
    };
    expect(await look()).toEqual([1000, 0, 1000]);
    await absentTopic(server, "one-more").append(1);
    expect(await look()).toEqual([1001, 1, 1000]);
    await absentTopic(server, "t500").drop();
    expect(await look()).toEqual([1000, 0, 1000]);
    expect((await scrape(server)).value("topics_topic_head_seq", { topic: "one-more" })).toBe(1);
  });

  test("01.49 fewer than 1000 are never called too many, also not while some come and go", async () => {
    await using server = await startServer();
    const put = (i: number) => absentTopic(server, `t${i}`).put({ durability: "ephemeral" });
    await together(600, put);
    let working = true;
    const work = together(4, async (i) => {
      for (let round = 0; round < 30; round++) {
        await put(1000 + i);
        await absentTopic(server, `t${1000 + i}`).drop();
      }
    }).finally(() => {
      working = false;
    });
    const seen = new Set<number | undefined>();
    while (working) seen.add((await scrape(server)).value("topics_topic_metrics_truncated"));
    await work;
    expect([...seen]).toEqual([0]);
  });
});

describe("the log", () => {
  const total = (metrics: Metrics, name: string) => metrics.value(`topics_wal_${name}_total`)!;

  test.each(["memory", "disk", "fsync"])("01.47 counts a write of class %s", async (durability) => {
    await using server = await startServer();
    const topic = await newTopic(server, { durability });
    const before = await scrape(server);
    await topic.append("x".repeat(1000));
    const after = await scrape(server);
    for (const name of ["frames", "batches"])
      expect([name, total(after, name) > total(before, name)]).toEqual([name, true]);
    expect(total(after, "bytes_written") - total(before, "bytes_written")).toBeGreaterThan(1000);
    expect(after.value("topics_wal_size_bytes")!).toBeGreaterThan(0);
    expect(after.value("topics_wal_queue_depth_peak")!).toBeGreaterThanOrEqual(1);
    if (durability === "fsync") expect(total(after, "fsyncs")).toBeGreaterThan(total(before, "fsyncs"));
  });

  test("01.47 does not count an ephemeral write", async () => {
    await using server = await startServer();
    const topic = await newTopic(server, { durability: "ephemeral" });
    const before = await scrape(server);
    for (let i = 0; i < 10; i++) await topic.append(i);
    expect(total(await scrape(server), "frames")).toBe(total(before, "frames"));
  });

  test("01.47 holds more entries in parallel writes than in one, and none afterwards", async () => {
    await using server = await startServer();
    const topic = await newTopic(server, { durability: "fsync" });
    await topic.append(0);
    const peak = async () => (await scrape(server)).value("topics_wal_queue_depth_peak")!;
    const before = await peak();
    await together(50, (i) => topic.append(i));
    expect(await peak()).toBeGreaterThan(before);
    expect((await scrape(server)).value("topics_wal_queue_depth")).toBe(0);
  });

  const bounds = [50, 100, 250, 500, 1000, 5000, 10_000, 50_000, 100_000, Number.POSITIVE_INFINITY];

  test("01.47 shows how long its syncs took, in microseconds and in seconds", async () => {
    await using server = await startServer();
    const topic = await newTopic(server, { durability: "fsync" });
    for (let i = 0; i < 20; i++) await topic.append(i);
    const metrics = await scrape(server);
    const fsyncs = total(metrics, "fsyncs");
    expect(fsyncs).toBeGreaterThanOrEqual(20);
    const buckets = metrics.buckets("topics_wal_fsync_latency_us");
    expect(buckets.map(({ le }) => le)).toEqual(bounds);
    expect(buckets.at(-1)!.count).toBe(fsyncs);
    expect(metrics.value("topics_wal_fsync_latency_us_count")).toBe(fsyncs);
    const microseconds = metrics.value("topics_wal_fsync_latency_us_sum")!;
    expect(microseconds).toBeGreaterThan(0);
    expect(metrics.value("topics_wal_fsync_latency_seconds_count")).toBe(fsyncs);
    expect(metrics.value("topics_wal_fsync_latency_seconds_sum")! * 1e6).toBeCloseTo(microseconds, 0);
    // No sync took longer than all of them, so the sum bounds the buckets.
    const sure = bounds.findIndex((bound) => bound >= microseconds);
    expect(buckets[sure]!.count).toBe(fsyncs);
    const same = metrics
      .buckets("topics_wal_fsync_latency_seconds")
      .filter(({ le }) => bounds.includes(Math.round(le * 1e6)))
      .map(({ le, count }) => ({ le: Math.round(le * 1e6), count }));
    expect(same.at(-1)?.count).toBe(fsyncs);
    expect(buckets).toEqual(expect.arrayContaining(same));
  });
});

describe("requests", () => {
  const server = sharedServer();
  const answered = (metrics: Metrics) => metrics.by("status", "topics_http_responses_total");

  test("are counted by the status of their answer", async () => {
    const topic = await newTopic(server);
    const before = answered(await scrape(server));
    for (let i = 0; i < 3; i++) await server.send("GET", "/v0/nope");
    for (let i = 0; i < 2; i++) await server.send("POST", `${topic.path}/diff`, "{");
    await server.send("PATCH", topic.path);
    await server.send("GET", topic.path);
    const after = answered(await scrape(server));
    const grown = (status: string) => after[status]! - (before[status] ?? 0);
    expect([grown("404"), grown("400"), grown("405")]).toEqual([3, 2, 1]);
    // The state, and one of the two scrapes: which of them counts itself is left open.
    expect(grown("200")).toBe(2);
  });

  test("that run are counted", async () => {
    const topic = await newTopic(server);
    const running = async () => (await scrape(server)).value("topics_requests_in_flight")!;
    const idle = await running();
    const polls = together(5, () => topic.diff({ wait_ms: 20_000 }));
    await until(running, (n) => n === idle + 5);
    await topic.append(1);
    await polls;
    await until(running, (n) => n === idle);
  });

  test("count the bytes of their bodies while these arrive", async () => {
    const topic = await newTopic(server);
    const held = async () => (await scrape(server)).value("topics_request_body_bytes_in_flight")!;
    expect(await held()).toBe(0);
    const body = JSON.stringify({ records: [{ data: "x".repeat(200_000) }] });
    using socket = new RawSocket(server.url);
    await socket.write(
      `POST ${topic.path} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n` +
        `Content-Length: ${body.length}\r\n\r\n${body.slice(0, 100_000)}`,
    );
    const some = await until(held, (bytes) => bytes >= 100_000);
    expect(some).toBeLessThanOrEqual(body.length);
    await socket.write(body.slice(100_000));
    expect(await socket.until((received) => received.includes("\r\n\r\n"))).toStartWith("HTTP/1.1 200");
    expect(await until(held, (bytes) => bytes === 0)).toBe(0);
  });

  test("whose client has left are not counted as failures of the server", async () => {
    await using own = await startServer();
    const head =
      "POST /v0/topics/t HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: 9000\r\n\r\n";
    const statuses = async () => (await scrape(own)).by("status", "topics_http_responses_total");
    for (let i = 0; i < 20; i++) {
      using socket = new RawSocket(own.url);
      await socket.write(head + "x".repeat(i * 400));
      await until(
        async () => (await scrape(own)).value("topics_requests_in_flight")!,
        (running) => running >= 2,
      );
      await socket.reset();
    }
    const counted = await until(statuses, (counts) => counts["499"] === 20);
    expect(Object.keys(counted).filter((status) => status !== "499")).toEqual(["200"]);
  });

  test("give back what they counted when the client vanishes", async () => {
    const topic = await newTopic(server);
    const counts = async () => {
      const metrics = await scrape(server);
      const names = ["topics_requests_in_flight", "topics_request_body_bytes_in_flight"];
      return names.map((name) => metrics.value(name)!);
    };
    const idle = await counts();
    const head = "HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length:";
    using half = new RawSocket(server.url);
    await half.write(`POST ${topic.path} ${head} 200000\r\n\r\n${"x".repeat(100_000)}`);
    using poll = new RawSocket(server.url);
    await poll.write(`POST ${topic.path}/diff ${head} 17\r\n\r\n{"wait_ms":30000}`);
    await until(counts, ([running, bytes]) => running! >= idle[0]! + 1 && bytes! >= 100_000);
    await Promise.all([half.reset(), poll.reset()]);
    expect(await until(counts, (now) => Bun.deepEquals(now, idle))).toEqual(idle);
  });
});

test("01.32 01.41 the JSON form needs the scope read, too", async () => {
  await using server = await startServer({ TOPICS_API_KEYS: "some:read:mine-,none:write+delete+admin" });
  const statuses: number[] = [];
  for (const key of ["some", "none", "wrong"]) {
    const headers = { authorization: `Bearer ${key}`, accept: "application/json" };
    statuses.push((await server.send("GET", PATH, undefined, headers)).status);
  }
  expect(statuses).toEqual([200, 403, 401]);
});
