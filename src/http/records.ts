/** `POST /v0/topics/:topic` and below: append, diff, delete records. */
import { Elysia } from "elysia";
import { ApiError } from "../contract/errors.ts";
import { Append, DeleteRecords, Diff } from "../contract/records.ts";
import type { Log } from "../engine/log.ts";
import type { Topics } from "../engine/topics.ts";
import { access } from "./access.ts";
import type { Admission } from "./admission.ts";
import { bodyReader } from "./body.ts";
import { callOf } from "./call.ts";
import { reply, replyText } from "./reply.ts";
import { nameIn, Query } from "./target.ts";

const readAppend = bodyReader(Append);
const readDiff = bodyReader(Diff, { optional: true });
const readDelete = bodyReader(DeleteRecords);

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
      { scope: "write" },
    )
    .post(
      "/v0/topics/:topic/diff",
      async ({ request }) => {
        const topic = nameIn(request);
        const body = await readDiff(request, admission);
        const { records, page, recordsScanned, waitedMs } = await log.diff(topic, body, () => request.signal);
        // The records are JSON already, in the spelling their writers sent.
        return replyText(request, `{"records":[${records}],${JSON.stringify(page).slice(1)}`, {
          performance: { records_scanned: recordsScanned },
          waitedMs,
        });
      },
      { scope: "read" },
    )
    .post(
      "/v0/topics/:topic/delete",
      async ({ request }) => {
        const topic = nameIn(request);
        const body = await readDelete(request, admission);
        return reply(request, await log.delete(topic, body));
      },
      { scope: "delete" },
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
