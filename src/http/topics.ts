/** `/v0/topics` and `/v0/topics/:topic`: lists and the life of a topic. */
import { Elysia } from "elysia";
import { PAGE_SIZE_DEFAULT } from "../contract/limits.ts";
import { TopicConfigInput, TopicDeleted, TopicList, TopicPut, TopicState } from "../contract/topics.ts";
import type { Topics } from "../engine/topics.ts";
import { access, authorizeName, usableNames } from "./access.ts";
import type { Admission } from "./admission.ts";
import { bodyReader } from "./body.ts";
import { callOf } from "./call.ts";
import * as examples from "./docs/examples.ts";
import { because } from "./docs/failures.ts";
import { anyTopic, flag, newTopic, operation, paging, text } from "./docs/operation.ts";
import { reply } from "./reply.ts";
import { nameIn, Query } from "./target.ts";

const readConfig = bodyReader(TopicConfigInput, { empty: "default" });

export function topicRoutes(topics: Topics, admission: Admission) {
  const list = async ({ request }: { request: Request }) => {
    await admission.turn(request);
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
    .get(
      "/v0/topics",
      list,
      operation({
        id: "listTopics",
        tag: "Topics",
        scope: "read",
        summary: "List topics",
        description: "A key that is restricted to prefixes sees the topics it may use.",
        parameters: [
          text("prefix", "Only names that begin so."),
          ...paging("Topics"),
          flag("touch", false, "Whether this counts as reading the topics, for their priority."),
        ],
        replies: {
          200: {
            description: "One page.",
            schema: TopicList,
            examples: examples.list,
          },
        },
        failures: ["invalid_request"],
      }),
    )
    .get(
      "/v0/topics/:topic",
      state,
      operation({
        id: "getTopic",
        tag: "Topics",
        scope: "read",
        summary: "Look at a topic",
        description: "Its settings, and how much it holds.",
        parameters: [anyTopic, flag("touch", true, "Whether this counts as reading the topic.")],
        replies: { 200: { description: "The topic.", schema: TopicState, examples: examples.state } },
        failures: ["topic_not_found"],
      }),
    )
    .put(
      "/v0/topics/:topic",
      async ({ request }) => {
        const topic = nameIn(request);
        const config = await readConfig(request, admission);
        if (config.dead_letter != null) authorizeName(request, config.dead_letter);
        const put = await topics.put(topic, config);
        return reply(request, put, { status: put.created ? 201 : 200 });
      },
      operation({
        id: "putTopic",
        tag: "Topics",
        scope: "admin",
        summary: "Create or configure a topic",
        description:
          "Replaces all settings: what is left out has its default again. Records, seqs and idempotency keys stay; " +
          "caps and `ttl_ms` apply to what is stored.",
        parameters: [newTopic("A queue")],
        body: {
          schema: TopicConfigInput,
          optional: true,
          examples: examples.putTopic.requests,
        },
        replies: {
          200: {
            description: "The topic was there.",
            schema: TopicPut,
            examples: examples.putTopic.configured,
          },
          201: { description: "The topic is new.", schema: TopicPut, examples: examples.putTopic.created },
        },
        failures: [because("topic_exists_incompatible", "The topic exists with another type.")],
      }),
    )
    .delete(
      "/v0/topics/:topic",
      async ({ request }) => {
        const isKeptFull = new Query(request.url).flag("if_empty", false);
        const { routers_removed, ...deleted } = await topics.delete(nameIn(request), isKeptFull);
        return reply(request, { ...deleted, routers_removed: usableNames(request, routers_removed) });
      },
      operation({
        id: "deleteTopic",
        tag: "Topics",
        scope: "delete",
        summary: "Delete a topic",
        description:
          "With all its records. Deleting an absent topic is no error. Recreating the name starts anew.",
        parameters: [anyTopic, flag("if_empty", false, "Whether to delete it only without live records.")],
        replies: {
          200: {
            description: "There is no such topic now.",
            schema: TopicDeleted,
            examples: examples.deleteTopic,
          },
        },
        failures: ["topic_not_empty"],
      }),
    );
}
