/** `/v0/topics` and `/v0/topics/:topic`: lists and the life of a topic. */
import { Elysia } from "elysia";
import { PAGE_SIZE_DEFAULT } from "../contract/limits.ts";
import { TopicConfigInput } from "../contract/topics.ts";
import type { Topics } from "../engine/topics.ts";
import { access, authorizeName } from "./access.ts";
import type { Admission } from "./admission.ts";
import { bodyReader } from "./body.ts";
import { callOf } from "./call.ts";
import { reply } from "./reply.ts";
import { nameIn, Query } from "./target.ts";

const readConfig = bodyReader(TopicConfigInput, { optional: true });

export function topicRoutes(topics: Topics, admission: Admission) {
  const list = async ({ request }: { request: Request }) => {
    const query = new Query(request.url);
    const page = await topics.list({
      prefix: query.text("prefix", ""),
      within: callOf(request).caller.prefixes,
      cursor: query.text("cursor", ""),
      pageSize: query.integer("page_size", PAGE_SIZE_DEFAULT),
      touch: query.flag("touch", false),
    });
    return reply(request, page);
  };
  const state = async ({ request }: { request: Request }) =>
    reply(request, await topics.state(nameIn(request), new Query(request.url).flag("touch", true)));
  return new Elysia({ name: "topics" })
    .use(access)
    .get("/v0/topics", list, { scope: "read" })
    .head("/v0/topics", list, { scope: "read" })
    .get("/v0/topics/:topic", state, { scope: "read" })
    .head("/v0/topics/:topic", state, { scope: "read" })
    .put(
      "/v0/topics/:topic",
      async ({ request }) => {
        const topic = nameIn(request);
        const config = await readConfig(request, admission);
        if (config.dead_letter != null) authorizeName(request, config.dead_letter);
        const put = await topics.put(topic, config);
        return reply(request, put, { status: put.created ? 201 : 200 });
      },
      { scope: "admin" },
    )
    .delete(
      "/v0/topics/:topic",
      async ({ request }) =>
        reply(request, await topics.delete(nameIn(request), new Query(request.url).flag("if_empty", false))),
      { scope: "delete" },
    );
}
