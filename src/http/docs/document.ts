/** `/swagger` and `/swagger/json`: the API as a page and as an OpenAPI 3.1 document, from the routes themselves. */
import { swagger } from "@elysiajs/swagger";
import { type DocumentDecoration, Elysia } from "elysia";
import { version } from "../../../package.json";
import { responses } from "./failures.ts";
import { guide } from "./guide.ts";
import { schemas } from "./naming.ts";
import { hidden, type Scheme, type Tag } from "./operation.ts";
import { assets, server } from "./page.ts";
import { U64_MAX } from "./schema.ts";

const DOCUMENT = "/swagger/json";

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

const securitySchemes: Record<Scheme, object> = {
  key: {
    type: "http",
    scheme: "bearer",
    description: "A key of the server. Each operation names the scope that it needs.",
  },
  token: {
    type: "apiKey",
    in: "query",
    name: "token",
    description:
      "For streams only, where a browser cannot send headers: a key, or better a token made with one (`POST /v0/tokens`).",
  },
  peer: { type: "http", scheme: "bearer", description: "What peers show each other: `FEED_PEER_TOKEN`." },
};

type Documentation = NonNullable<NonNullable<Parameters<typeof swagger>[0]>["documentation"]>;

const documentation = {
  openapi: "3.1.0",
  info: {
    title: "topics",
    description: guide,
    version,
    license: { name: "MIT", identifier: "MIT" },
  },
  // As seen from the document, which a proxy may serve below a path of its own.
  servers: [{ url: "..", description: "This server" }],
  tags: [...tags],
  components: {
    securitySchemes,
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
