/** The examples of the API document are true: a reader who sends them in their order to a new server gets what it says. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { ApiDocument, type Operation, type Parameter } from "../support/document.ts";
import { EventStream } from "../support/eventstream.ts";
import { type Reply, startServer } from "../support/server.ts";

setDefaultTimeout(30_000);

/** The network of the example that is signed. */
const NETWORK = "mainnet";
/** Nobody writes while an example waits for a write. */
const WAIT_MS_MAX = 20;

const json = "application/json";

/** What a parameter is where a body goes by the name of an example. */
const valueIn = ({ example, examples = {} }: Parameter, named: string): unknown =>
  example ?? (examples[named] ?? Object.values(examples)[0])?.value;

/** The path and query of an operation, by the examples of its parameters. */
function target(path: string, { parameters = [] }: Operation, named = ""): string {
  const query = new URLSearchParams();
  let filled = path;
  for (const parameter of parameters) {
    const value = String(valueIn(parameter, named));
    if (parameter.in === "path") filled = filled.replace(`{${parameter.name}}`, encodeURIComponent(value));
    else if (parameter.required) query.set(parameter.name, value);
  }
  return query.size > 0 ? `${filled}?${query}` : filled;
}

interface Example {
  readonly operation: Operation;
  readonly name: string;
  readonly method: string;
  readonly path: string;
  readonly body: object;
}

function requestsOf(document: ApiDocument): Example[] {
  return document.operations.flatMap(([method, path, operation]) =>
    Object.entries(operation.requestBody?.content[json]?.examples ?? {}).map(([name, { value }]) => {
      const body = value as { readonly wait_ms?: number };
      const shorter = body.wait_ms === undefined ? body : { ...body, wait_ms: WAIT_MS_MAX };
      return { operation, name, method, path: target(path, operation, name), body: shorter };
    }),
  );
}

function expectDocumented(document: ApiDocument, operation: Operation, reply: Reply): void {
  const answer = operation.responses[reply.status];
  expect(answer).toBeDefined();
  const type = reply.headers.get("content-type")!;
  const { schema } = document.answer(answer!).content[type]!;
  expect(document.complaints(type === json ? reply.body : reply.text, schema)).toEqual([]);
}

test("every request is answered as is told, in the order of the document", async () => {
  await using server = await startServer({ FEED_NETWORK_ID: NETWORK });
  const document = await ApiDocument.of(server);
  const said = new Map<string, unknown>();
  for (const { operation, name, method, path, body } of requestsOf(document)) {
    const reply = await server.send(method, path, body);
    expectDocumented(document, operation, reply);
    if (reply.status >= 300) throw new Error(`${operation.operationId}, ${name}: ${reply.text}`);
    said.set(`${operation.operationId} ${name}`, reply.body);
  }

  expect(said.size).toBeGreaterThan(30);
  for (const [example, answer] of [
    ["putTopic a-queue", { created: true, config: { type: "queue" } }],
    ["appendRecords two-records", { first_seq: 1, last_seq: 2 }],
    ["appendRecords jobs", { topic: "renders", count: 3 }],
    ["readRecords from-a-cursor", { caught_up: true, tombstone: null }],
    ["readRecords wait-for-what-comes", { records: [], tombstone: null }],
    ["deleteRecords everything-about-one-order", { deleted: 1 }],
    ["claimJobs two-jobs-at-most", { count: 2 }],
    ["claimJobs one-job-for-a-minute", { count: 1 }],
    ["ackJobs a-job-under-whatever-lease", { acked: 1 }],
    ["nackJobs again-in-a-second", { nacked: 1 }],
    ["extendLeases a-minute-from-now", { extended: 1 }],
    ["startWatch all-of-one-topic-and-what-is-new-in-another", { topics: { "orders.eu": { from_seq: 0 } } }],
    ["pushEvents one-event", { accepted: 1, rejected: [] }],
  ] as const) {
    expect([example, said.get(example)]).toMatchObject([example, answer]);
  }

  // What has no body finds what the bodies have made.
  for (const [method, path, operation] of document.operations) {
    const { operationId } = operation;
    if (method !== "GET" || operationId === "openSocket" || operationId === "openWatch") continue;
    if ("text/event-stream" in operation.responses[200]!.content) {
      await using stream = await EventStream.open(server.url, target(path, operation));
      await stream.block();
      continue;
    }
    const reply = await server.send(method, target(path, operation));
    expect([operationId, reply.status]).toEqual([operationId, 200]);
    expectDocumented(document, operation, reply);
  }
});
