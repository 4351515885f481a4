/** `POST /v0/topics/:topic` and below: append, diff, delete records. */
import { Elysia } from "elysia";
import { Append, DeleteRecords, Diff } from "../contract/records.ts";
import type { Log } from "../engine/log.ts";
import { bodyReader } from "./body.ts";
import { reply, replyText } from "./reply.ts";
import { nameIn, Query } from "./target.ts";

const readAppend = bodyReader(Append);
const readDiff = bodyReader(Diff, { optional: true });
const readDelete = bodyReader(DeleteRecords);

export function recordRoutes(log: Log, bodyBytesMax: number) {
  return new Elysia({ name: "records" })
    .post("/v0/topics/:topic", async ({ request }) => {
      const topic = nameIn(request);
      const body = await readAppend(request, bodyBytesMax);
      const returnSeqs = new Query(request.url).flag("return_seqs", true);
      const { appended, cost } = await log.append(topic, body, idempotencyKey(request), returnSeqs);
      return reply(request, appended, { status: appended.created ? 201 : 200, performance: { ...cost } });
    })
    .post("/v0/topics/:topic/diff", async ({ request }) => {
      const topic = nameIn(request);
      const body = await readDiff(request, bodyBytesMax);
      const { records, page, recordsScanned, waitedMs } = await log.diff(topic, body, () => request.signal);
      // The records are JSON already, in the spelling their writers sent.
      return replyText(request, `{"records":[${records}],${JSON.stringify(page).slice(1)}`, {
        performance: { records_scanned: recordsScanned },
        waitedMs,
      });
    })
    .post("/v0/topics/:topic/delete", async ({ request }) => {
      const topic = nameIn(request);
      const body = await readDelete(request, bodyBytesMax);
      return reply(request, await log.delete(topic, body));
    });
}

/** The header's key, unless it is not ASCII: then it is no key at all. */
function idempotencyKey(request: Request): string | null {
  const key = request.headers.get("idempotency-key");
  return key !== null && /^[\x20-\x7e]*$/.test(key) ? key : null;
}
