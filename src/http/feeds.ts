/** `/api/topic/…`: messages, cursors and subscriptions of feeds. */
import { Elysia } from "elysia";
import { shapeDecoder } from "../contract/decode.ts";
import {
  CursorState,
  MessagePage,
  MessagePosted,
  PostMessage,
  Subscribe,
  Subscribed,
  SubscriptionList,
} from "../contract/feeds.ts";
import {
  FEED_BODY_BYTES_MAX,
  MESSAGES_LIMIT_DEFAULT,
  MESSAGES_LIMIT_MAX,
  SUBSCRIPTIONS_LIMIT_MAX,
} from "../contract/limits.ts";
import { resultFeedIn } from "../engine/consensus/ballots.ts";
import type { Feeds } from "../engine/feeds/feeds.ts";
import { access, authorizeName } from "./access.ts";
import type { Admission } from "./admission.ts";
import { anyJsonReader } from "./body.ts";
import { callOf } from "./call.ts";
import * as examples from "./docs/feedexamples.ts";
import * as parameter from "./docs/feedparameters.ts";
import { feedOperation } from "./docs/operation.ts";
import { reply, replyText } from "./reply.ts";
import { FeedQuery } from "./target.ts";

const readPost = anyJsonReader(shapeDecoder(PostMessage), FEED_BODY_BYTES_MAX);
const readSubscribe = anyJsonReader(shapeDecoder(Subscribe), FEED_BODY_BYTES_MAX);

/** The result of a vote is posted by the server, to no feed that the proposer may not post to. Throws `forbidden`. */
function authorizeResult(request: Request, content: string): void {
  if (!callOf(request).caller.isRestricted) return;
  const feedKey = resultFeedIn(JSON.parse(content));
  if (feedKey !== undefined) authorizeName(request, feedKey);
}

export function feedRoutes(feeds: Feeds, admission: Admission) {
  return new Elysia({ name: "feeds" })
    .use(access)
    .post(
      "/api/topic/messages",
      async ({ request }) => {
        const body = await readPost(request, admission);
        authorizeName(request, body.feed_key.trim());
        authorizeResult(request, body.content);
        return reply(request, await feeds.post(body));
      },
      feedOperation({
        id: "postMessage",
        scope: "write",
        summary: "Post a message",
        description:
          "Signs it with this instance's key, and answers when it is on the device. It needs no subscription. Two posts " +
          "of the same are two messages.",
        body: { schema: PostMessage, examples: examples.postMessage.requests },
        replies: {
          200: { description: "It is kept.", schema: MessagePosted, examples: examples.postMessage.answers },
        },
      }),
    )
    .get(
      "/api/topic/messages",
      async ({ request }) => {
        await admission.turn(request);
        const query = new FeedQuery(request.url);
        const asked = {
          feedKey: query.required("feed_key"),
          scopeHint: query.required("scope_hint"),
          networkId: query.text("network_id"),
          limit: query.clamped("limit", MESSAGES_LIMIT_DEFAULT, MESSAGES_LIMIT_MAX),
          beforeCreatedAt: query.natural("before_created_at"),
          beforeMessageId: query.text("before_message_id"),
        };
        authorizeName(request, asked.feedKey.trim());
        const { head, messages, next_anchor } = await feeds.messages(asked);
        // The messages are JSON already, in the spelling that was signed.
        const told = JSON.stringify({ ok: true, ...head }).slice(0, -1);
        const anchor = JSON.stringify(next_anchor);
        return replyText(request, `${told},"messages":[${messages.join(",")}],"next_anchor":${anchor}}`);
      },
      feedOperation({
        id: "readMessages",
        scope: "read",
        summary: "Read messages, newest first",
        description:
          "Pass `next_anchor` on to get the next page; a page of large messages ends early. What arrives from peers meanwhile takes its place by its author's " +
          "time, which may be behind a reader.",
        parameters: [
          parameter.feedKey,
          parameter.scopeHint,
          parameter.networkId,
          parameter.limit(MESSAGES_LIMIT_DEFAULT, MESSAGES_LIMIT_MAX),
          parameter.before("before_created_at"),
          parameter.text("before_message_id", "With it, also messages of that time with a lower id."),
        ],
        replies: {
          200: { description: "A page.", schema: MessagePage, examples: examples.readMessages },
        },
      }),
    )
    .get(
      "/api/topic/cursor",
      async ({ request }) => {
        const query = new FeedQuery(request.url);
        const asked = {
          feedKey: query.required("feed_key"),
          networkId: query.text("network_id"),
          subscriber: query.text("subscriber_node_id"),
        };
        authorizeName(request, asked.feedKey.trim());
        return reply(request, await feeds.cursor(asked));
      },
      feedOperation({
        id: "readCursor",
        scope: "read",
        summary: "See where a subscriber stands",
        description:
          "At the last message that was accepted here while the subscription was active. Reading does not move it.",
        parameters: [
          parameter.feedKey,
          parameter.networkId,
          parameter.said("subscriber_node_id", "Who; by default this instance."),
        ],
        replies: {
          200: { description: "The cursor, or null.", schema: CursorState, examples: examples.readCursor },
        },
      }),
    )
    .post(
      "/api/topic/subscriptions",
      async ({ request }) => {
        const body = await readSubscribe(request, admission);
        authorizeName(request, body.feed_key.trim());
        return reply(request, await feeds.subscribe(body));
      },
      feedOperation({
        id: "subscribe",
        scope: "write",
        summary: "Subscribe, or end a subscription",
        description:
          "While it is active, peers' messages of the feed come here, stored ones too, and the subscriber's cursor moves. " +
          "A subscriber has one scope in a feed; another one takes its place.",
        body: { schema: Subscribe, examples: examples.subscribe.requests },
        replies: {
          200: { description: "It holds.", schema: Subscribed, examples: examples.subscribe.answers },
        },
      }),
    )
    .get(
      "/api/topic/subscriptions",
      async ({ request }) => {
        await admission.turn(request);
        const query = new FeedQuery(request.url);
        const feedKey = query.text("feed_key");
        const { caller } = callOf(request);
        if (feedKey?.trim()) authorizeName(request, feedKey.trim());
        const asked = {
          feedKey,
          networkId: query.text("network_id"),
          active: query.flag("active"),
          limit: query.clamped("limit", SUBSCRIPTIONS_LIMIT_MAX, SUBSCRIPTIONS_LIMIT_MAX),
          beforeUpdatedAt: query.natural("before_updated_at"),
          beforeEventId: query.text("before_event_id"),
          within: caller.prefixes,
        };
        return reply(request, await feeds.subscriptions(asked));
      },
      feedOperation({
        id: "listSubscriptions",
        scope: "read",
        summary: "List subscriptions",
        description: "Those made here and those that peers have told of, newest first, ended ones too.",
        parameters: [
          parameter.text("feed_key", "Only of this feed."),
          parameter.text("network_id", "Only of this network."),
          parameter.active,
          parameter.limit(SUBSCRIPTIONS_LIMIT_MAX, SUBSCRIPTIONS_LIMIT_MAX),
          parameter.before("before_updated_at"),
          parameter.text("before_event_id", "With it, also changes of that time with a lower id."),
        ],
        replies: {
          200: { description: "A page.", schema: SubscriptionList, examples: examples.listSubscriptions },
        },
      }),
    );
}
