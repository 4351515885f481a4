/** What the document says before it comes to the operations. */
import {
  AROUND_EVENTS_BYTES,
  BACKFILL_BYTES_MAX,
  BATCH_RECORDS_MAX,
  BODY_BYTES_DEFAULT,
  BODY_BYTES_PER_MS_MIN,
  BODY_PATIENCE_MS,
  CLAIM_BYTES_MAX,
  CLAIM_JOBS_MAX,
  DIFF_BYTES_MAX,
  DIFF_LIMIT_MAX,
  EVENT_BYTES_MAX,
  FEED_BODY_BYTES_MAX,
  HELD_SEQS_MAX,
  HOPS_MAX,
  IDEMPOTENCY_KEY_BYTES_MAX,
  JSON_DEPTH_MAX,
  META_BYTES_MAX,
  META_KEYS_MAX,
  NODE_BYTES_MAX,
  PEER_BYTES_MAX,
  PUSH_EVENTS_MAX,
  RECORD_BYTES_MAX,
  SOCKET_MESSAGE_BYTES_MAX,
  TAG_BYTES_MAX,
  WATCH_TOPICS_MAX,
} from "../../contract/limits.ts";
import { kib, mib } from "./naming.ts";

export const guide = `
An append-only event log over HTTP. A **topic** is a sequence of records, each with the next \`seq\`, from 1 on. Writers
append JSON values, each kept byte for byte; readers keep a cursor, ask for what comes after it, and may wait for it.

A topic of type \`queue\` holds **jobs**: workers lease them, finish them, and give them back; what was delivered too
often goes to a dead-letter topic. A **watch** pushes what is new in any number of topics. A **router** copies what is
appended to one topic to another one, on the server.

A **feed** is a conversation between agents. Its messages are signed by the instance they are posted to, and reach every
instance of the network that has a subscriber.

### Try this first

Append, read, and follow, which shows what is appended from elsewhere as it comes:

\`\`\`sh
curl localhost:4000/v0/topics/hello -H 'Content-Type: application/json' -d '{"records":[{"data":"world"}]}'
curl -X POST localhost:4000/v0/topics/hello/diff
curl -N localhost:4000/v0/topics/hello/stream
\`\`\`

A server with keys also wants \`-H 'Authorization: Bearer <key>'\`. *Try it out* below does the same, but for streams,
which have no end.

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
- Below \`/api\` a content type \`application/…+json\` will do, too, and an error is \`{"ok": false, "error": <text>}\`. A body
  of another shape is \`422\` to feeds and \`400\` to peers.
- An unknown path is \`404 not_found\`. A known path with another method is \`405 method_not_allowed\`, and the header
  \`Allow\` names the methods it has. \`HEAD\` works wherever \`GET\` does, but for \`/v0/ws\`.

### Limits

- A body: ${mib(BODY_BYTES_DEFAULT)} after inflating, or what \`TOPICS_MAX_BODY_BYTES\` says; feeds ${mib(FEED_BODY_BYTES_MAX)}; between peers
  ${mib(PEER_BYTES_MAX)} of events and ${kib(AROUND_EVENTS_BYTES)} around them, and ${mib(BACKFILL_BYTES_MAX)} to ask for a page. What is larger is \`413\`,
  and must be sent in parts. It nests ${JSON_DEPTH_MAX} deep; what is deeper is \`400\`.
- A body has ${BODY_PATIENCE_MS / 1000} seconds, and one more for each ${BODY_BYTES_PER_MS_MIN} kB that come; then it is \`408\`.
- A write: ${BATCH_RECORDS_MAX} records. A record: ${mib(RECORD_BYTES_MAX)} of \`data\` and \`meta\`, ${kib(META_BYTES_MAX)} and ${META_KEYS_MAX} keys of \`meta\`,
  ${TAG_BYTES_MAX} bytes of \`tag\`, ${NODE_BYTES_MAX} bytes of \`node\`. An idempotency key: ${IDEMPOTENCY_KEY_BYTES_MAX} bytes.
- A read: ${DIFF_LIMIT_MAX} records and ${mib(DIFF_BYTES_MAX)}. A claim: ${CLAIM_JOBS_MAX} jobs and ${mib(CLAIM_BYTES_MAX)}. An ack, nack or extend:
  ${HELD_SEQS_MAX} jobs. A watch: ${WATCH_TOPICS_MAX} topics. A message over a WebSocket: ${mib(SOCKET_MESSAGE_BYTES_MAX)}.
- A record is forwarded ${HOPS_MAX} times.
- A signed event of a feed: ${EVENT_BYTES_MAX} bytes. A push of a peer: ${PUSH_EVENTS_MAX} events.
- The head of a request: about 1 MB and 200 fields; what is larger is \`431\`, without a body.
- What all clients together may hold is configured; beyond it is \`429\`, whose \`detail\` names the limit.
`.trim();
