/** `/v0/topics` and `/v0/topics/:topic`: lists and the life of a topic. */
import { Elysia } from "elysia";
import { PAGE_SIZE_DEFAULT } from "../contract/limits.ts";
import { TopicConfigInput } from "../contract/topics.ts";
import type { Topics } from "../engine/topics.ts";
import { bodyReader } from "./body.ts";
import { reply } from "./reply.ts";
import { nameIn, Query } from "./target.ts";

const readConfig = bodyReader(TopicConfigInput, { optional: true });

export function topicRoutes(topics: Topics, bodyBytesMax: number) {
  const list = async ({ request }: { request: Request }) => {
    const query = new Query(request.url);
    const page = await topics.list(
      query.text("prefix", ""),
      query.text("cursor", ""),
      query.integer("page_size", PAGE_SIZE_DEFAULT),
      query.flag("touch", false),
    );
    return reply(request, page);
  };
  const state = async ({ request }: { request: Request }) =>
    reply(request, await topics.state(nameIn(request), new Query(request.url).flag("touch", true)));
  return new Elysia({ name: "topics" })
    .get("/v0/topics", list)
    .head("/v0/topics", list)
    .get("/v0/topics/:topic", state)
    .head("/v0/topics/:topic", state)
    .put("/v0/topics/:topic", async ({ request }) => {
      const topic = nameIn(request);
      const put = await topics.put(topic, await readConfig(request, bodyBytesMax));
      return reply(request, put, { status: put.created ? 201 : 200 });
    })
    .delete("/v0/topics/:topic", async ({ request }) =>
      reply(request, await topics.delete(nameIn(request), new Query(request.url).flag("if_empty", false))),
    );
}
