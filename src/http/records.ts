/** `POST /v0/topics/:topic` and below: append, diff, delete records. */
import { Elysia } from "elysia";
import { ApiError } from "../contract/errors.ts";
import { IDEMPOTENCY_KEY_BYTES_MAX } from "../contract/limits.ts";
import { Append, Appended, DeleteRecords, Diff, DiffPage, RecordsDeleted } from "../contract/records.ts";
import type { Log } from "../engine/log.ts";
import type { Topics } from "../engine/topics.ts";
import { access } from "./access.ts";
import type { Admission } from "./admission.ts";
import { bodyReader } from "./body.ts";
import { callOf } from "./call.ts";
import * as examples from "./docs/examples.ts";
import { because } from "./docs/failures.ts";
import { anyTopic, flag, newTopic, operation, toSameTopic } from "./docs/operation.ts";
import { reply, replyText } from "./reply.ts";
import { nameIn, Query } from "./target.ts";

const readAppend = bodyReader(Append);
const readDiff = bodyReader(Diff, { empty: "default" });
const readDelete = bodyReader(DeleteRecords);

/** What may be done with a topic that has records. */
const links = toSameTopic("readRecords", "claimJobs");

export function recordRoutes(log: Log, topics: Topics, admission: Admission) {
  return new Elysia({ name: "records" })
    .use(access)
    .post(
      "/v0/topics/:topic",
      async ({ request }) => {
        const topic = nameIn(request);
        const body = permitted(request, topic, await readAppend(request, admission), topics);
        const returnSeqs = new Query(request.url).flag("return_seqs", true);
        const { appended, cost } = await log.append(topic, body, idempotencyKey(request), returnSeqs);
        return reply(request, appended, {
          status: appended.created ? 201 : 200,
          performance: { ...cost },
        });
      },
      operation({
        id: "appendRecords",
        tag: "Records",
        scope: "write",
        summary: "Append records",
        description:
          "All records or none. An absent topic is created, unless the request says otherwise. The answer comes when " +
          "the records are kept as hard as the topic's `durability` says. `config` for a topic that this write creates " +
          "needs the scope `admin`, too.",
        parameters: [
          newTopic("Jobs"),
          flag("return_seqs", true, "Whether the answer lists `seqs`."),
          {
            name: "Idempotency-Key",
            in: "header",
            description:
              `Stands for \`idempotency_key\` where the body has none. At most ${IDEMPOTENCY_KEY_BYTES_MAX} bytes; ` +
              "one that is not ASCII is ignored.",
            schema: {
              type: "string",
              if: { pattern: "^[ -~]*$" },
              // biome-ignore lint/suspicious/noThenProperty: the keyword of JSON Schema.
              then: { maxLength: IDEMPOTENCY_KEY_BYTES_MAX },
            },
          },
        ],
        body: { schema: Append, examples: examples.append.requests },
        replies: {
          200: {
            description: "The records are there, or an earlier write is answered again.",
            schema: Appended,
            examples: examples.append.appended,
            links,
          },
          201: {
            description: "The records are there, in a new topic.",
            schema: Appended,
            examples: examples.append.created,
            links,
          },
        },
        failures: [
          because("batch_too_large", "Too many records in one write."),
          "record_too_large",
          because("topic_not_found", "There is no such topic, and the request does not let it be created."),
          "topic_full",
        ],
      }),
    )
    .post(
      "/v0/topics/:topic/diff",
      async ({ request }) => {
        const topic = nameIn(request);
        const body = await readDiff(request, admission);
        await admission.turn(request);
        const { records, page, recordsScanned, waitedMs } = await log.diff(topic, body, () => request.signal);
        // The records are JSON already, in the spelling their writers sent.
        return replyText(request, `{"records":[${records}],${JSON.stringify(page).slice(1)}`, {
          performance: { records_scanned: recordsScanned },
          waitedMs,
        });
      },
      operation({
        id: "readRecords",
        tag: "Records",
        scope: "read",
        summary: "Read records after a cursor",
        description:
          "Keep `next_from_seq` and pass it as the next `from_seq`. With `wait_ms` a reader that has caught up waits " +
          "for the next write. What was deleted is passed over silently; what a cap or a `ttl_ms` took from the " +
          "reader is told by `tombstone`.",
        parameters: [anyTopic],
        body: { schema: Diff, optional: true, examples: examples.diff.requests },
        replies: {
          200: { description: "A page of records.", schema: DiffPage, examples: examples.diff.pages },
        },
        failures: ["topic_not_found"],
      }),
    )
    .post(
      "/v0/topics/:topic/delete",
      async ({ request }) => {
        const topic = nameIn(request);
        const body = await readDelete(request, admission);
        return reply(request, await log.delete(topic, body));
      },
      operation({
        id: "deleteRecords",
        tag: "Records",
        scope: "delete",
        summary: "Delete records",
        description:
          "By position, by tag, or both. Seqs are not given out again, and readers pass over the gap. Records that are " +
          "appended later are not touched.",
        parameters: [anyTopic],
        body: { schema: DeleteRecords, examples: examples.deleteRecords.requests },
        replies: {
          200: {
            description: "They are gone.",
            schema: RecordsDeleted,
            examples: examples.deleteRecords.answers,
          },
        },
        failures: ["topic_not_found"],
      }),
    );
}

/**
 * The append that its caller may make. Settings for a topic that it creates need `admin`. On a topic that exists they
 * mean nothing, and go, so that they cannot come to mean something in between.
 */
function permitted(request: Request, topic: string, body: Append, topics: Topics): Append {
  if (body.config == null) return body;
  const { caller } = callOf(request);
  const target = caller.may("admin") ? (body.config.dead_letter ?? topic) : undefined;
  if (target !== undefined && caller.mayName(target)) return body;
  if (topics.has(topic)) return { ...body, config: null };
  throw new ApiError("forbidden", { topic: target ?? topic });
}

/** The header's key, unless it is not ASCII: then it is no key at all. */
function idempotencyKey(request: Request): string | null {
  const key = request.headers.get("idempotency-key");
  return key !== null && /^[\x20-\x7e]*$/.test(key) ? key : null;
}
