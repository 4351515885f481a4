/** The commands that create, configure and delete topics. */
import { ApiError } from "../contract/errors.ts";
import { emptied } from "./catalog.ts";
import type { DeleteTopic, PutTopic, TopicPlaced, TopicRemoved } from "./commands.ts";
import { resolveConfig } from "./config.ts";
import type { Group } from "./group.ts";
import { evict, expire } from "./retention.ts";
import type { Topic } from "./topic.ts";

/** Creates the topic, or replaces the settings of an existing one; tighter limits apply at once. */
export function putTopic(group: Group, { topic: name, config: input, now }: PutTopic): TopicPlaced {
  const existing = group.find(name);
  if (existing === undefined) return createTopic(group, name, input);
  const config = resolveConfig(name, input);
  if (existing.config.type !== config.type) {
    const detail = { topic: name, existing_type: existing.config.type, requested_type: config.type };
    throw new ApiError("topic_exists_incompatible", detail);
  }
  group.configure(existing, config);
  moveToShelf(group, existing);
  expire(group, existing, now);
  evict(group, existing);
  return { epoch: existing.epoch, created: false, config };
}

function createTopic(group: Group, name: string, input: PutTopic["config"]): TopicPlaced {
  group.allowName(name);
  const config = resolveConfig(name, input);
  group.allowTopics(1);
  return { epoch: group.create(name, config).epoch, created: true, config };
}

/** A change between `ephemeral` and the stored classes takes the records along. */
function moveToShelf(group: Group, topic: Topic): void {
  const shelf = group.catalog.shelfOf(topic.config);
  if (shelf === topic.shelf) return;
  topic.settle();
  group.store.moveLog(topic.slot, topic.shelf, shelf);
  // What a crash would leave of a topic that is in memory from now on.
  group.store.disk.logs.put(topic.slot, emptied(topic.log));
  topic.shelf = shelf;
  topic.tagDeletes = shelf.tagDeletes.of(topic.slot);
}

/** Deletes the topic and every router that leads to it or from it. */
export function deleteTopic(group: Group, { topic: name, ifEmpty, now }: DeleteTopic): TopicRemoved {
  const topic = group.find(name);
  if (topic === undefined) return { deleted: false, routers: [] };
  expire(group, topic, now);
  if (ifEmpty && topic.log.count > 0) {
    throw new ApiError("topic_not_empty", { topic: name, count: topic.log.count });
  }
  const touching = [...group.routers.from(name), ...group.routers.into(name)];
  const routers = [...new Set(touching.map((router) => router.name))].sort();
  for (const router of routers) group.setRouter(router, undefined);
  group.delete(topic);
  return { deleted: true, routers };
}
