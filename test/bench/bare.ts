/**
 * The least that an HTTP server in this runtime can do with the same requests: a program of its own,
 * started by `ceiling.ts`. It parses the body and answers with a constant; no rules, no storage.
 */
const appended = JSON.stringify({ topic: "events", first_seq: 1, last_seq: 1, count: 1 });
const headers = { "content-type": "application/json" };
let page = "";

const server = Bun.serve({
  hostname: "127.0.0.1",
  port: 0,
  reusePort: false,
  development: false,
  async fetch(request) {
    if (request.method === "PUT") {
      page = await request.text();
      return new Response(null, { status: 204 });
    }
    const body = (await request.json()) as { records?: unknown[] };
    return new Response(body.records ? appended : page, { headers });
  },
});

console.info(server.url.origin);
