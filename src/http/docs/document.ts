/** `/swagger` and `/swagger/json`: the API as a page and as an OpenAPI 3.1 document, from the routes themselves. */
import { swagger } from "@elysiajs/swagger";
import { type DocumentDecoration, Elysia } from "elysia";
import { version } from "../../../package.json";
import { responses } from "./failures.ts";
import { schemas } from "./naming.ts";
import { hidden, type Tag } from "./operation.ts";
import { assets, server } from "./page.ts";
import { U64_MAX } from "./schema.ts";

const DOCUMENT = "/swagger/json";

const description = `
An append-only event log over HTTP. A **topic** is a sequence of records, numbered by \`seq\` from 1 without holes.
Writers append JSON values, each kept byte for byte; readers keep a cursor, ask for what comes after it, and may wait
for it.

A topic of type \`queue\` holds **jobs**: workers lease them, finish them, and give them back; what was delivered too
often goes to a dead-letter topic. A **watch** pushes what is new in any number of topics. A **router** copies what is appended to one topic to another one, on the server.

A **feed** is a conversation between agents. Its messages are signed by the instance they are posted to, and reach every
instance of the network that has a subscriber.

### Keys

A server that was started with keys answers only those who show one: \`Authorization: Bearer <key>\`. Use *Authorize*
below. A key has some of the scopes \`read\`, \`write\`, \`delete\` and \`admin\`, and may be restricted to names with
certain prefixes. Without keys every caller may do everything, and the header is ignored.

### What holds everywhere

- Bodies are JSON with the content type \`application/json\`, and may be sent with \`Content-Encoding: gzip\`. They are
  read strictly: a field of another type, or given twice, is refused; unknown fields are ignored.
- Every JSON answer carries \`performance\`. More fields may come with later versions; ignore what you do not know.
- Times are milliseconds since the Unix epoch, durations milliseconds.
- An error is \`{"error": {"code", "message", "detail"?}}\`. Codes do not change; messages may. After \`429\` and \`503\`
  the header \`Retry-After\` says how many seconds to wait.
- Below \`/api\` an error is \`{"ok": false, "error": <text>}\`, and a body of another shape is \`422\`.
- An unknown path is \`404 not_found\`. A known path with another method is \`405 method_not_allowed\`, and the header
  \`Allow\` names the methods it has. \`HEAD\` works wherever \`GET\` does.
`.trim();

const tags: readonly { readonly name: Tag; readonly description: string }[] = [
  { name: "Topics", description: "Create, configure, look at, list and delete topics." },
  { name: "Records", description: "Append, read and delete the records of a topic." },
  { name: "Watch", description: "Follow topics live, as server-sent events or over a WebSocket." },
  { name: "Queues", description: "Lease jobs, finish them, give them back." },
  { name: "Routers", description: "Copy records from topic to topic on the server." },
  { name: "Feeds", description: "Signed messages of a network of agents, shared between instances." },
  { name: "Peers", description: "What instances that share feeds ask of each other." },
  { name: "Probes", description: "How the server is doing." },
];

type Documentation = NonNullable<NonNullable<Parameters<typeof swagger>[0]>["documentation"]>;

const documentation = {
  openapi: "3.1.0",
  info: {
    title: "topics",
    description,
    version,
    license: { name: "MIT", identifier: "MIT" },
  },
  servers: [{ url: "/", description: "This server" }],
  tags: [...tags],
  components: {
    securitySchemes: {
      key: {
        type: "http",
        scheme: "bearer",
        description: "A key of the server. Each operation names the scope that it needs.",
      },
      peer: { type: "http", scheme: "bearer", description: "What peers show each other: `FEED_PEER_TOKEN`." },
    },
    schemas,
    responses,
  },
} as unknown as Documentation;

interface Route {
  readonly method: string;
  readonly path: string;
  readonly hooks: { readonly detail?: DocumentDecoration };
}

export function documentationRoutes(documented: readonly Route[]) {
  const app = new Elysia({ name: "documentation" });
  const read = () => generated(documented);
  for (const asset of [...assets, { path: DOCUMENT, type: "application/json", read }]) {
    app.get(asset.path, server(asset), { detail: hidden });
  }
  return app;
}

/** The document as text. The plugin's page is not served: it would load scripts from other hosts. */
async function generated(documented: readonly Route[]): Promise<string> {
  const plugin = swagger({ documentation, specPath: DOCUMENT });
  for (const { method, path, hooks } of documented) {
    if (!hooks.detail?.hide) plugin.route(method, path, () => "", { detail: hooks.detail ?? {} });
  }
  const answer = await plugin.handle(new Request(`http://localhost${DOCUMENT}`));
  return (await answer.text()).replaceAll(JSON.stringify(U64_MAX), "18446744073709551615");
}
