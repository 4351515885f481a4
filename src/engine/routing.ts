/** The commands that create, configure and delete routers. */
import { ApiError, invalid } from "../contract/errors.ts";
import { ROUTER_NAME, TOPIC_NAME } from "../contract/limits.ts";
import type { RouterSettings } from "../contract/routers.ts";
import type { RouterProgress } from "../store/routers.ts";
import type { DeleteRouter, PutRouter, RouterPlaced } from "./commands.ts";
import { resolveConfig } from "./config.ts";
import type { Group } from "./group.ts";
import type { Router } from "./routerset.ts";
import type { Topic } from "./topic.ts";

/**
 * Creates a router that forwards what is appended from now on, or replaces the settings of an existing one, which
 * keeps its place. Absent topics are created with it.
 */
export function putRouter(group: Group, { router: name, settings, createDest }: PutRouter): RouterPlaced {
  const { source, dest } = settings;
  const existing = group.routers.get(name);
  allowEnds(name, settings);
  if (!createDest && group.find(dest) === undefined) throw new ApiError("topic_not_found", { topic: dest });
  allowFanIn(group, name, settings);
  allowSameEnds(existing, settings);
  if (!existing) group.allowRouter();
  if (!settings.allow_cycle) allowWay(group, name, settings);
  const absent = [source, dest].filter((topic) => group.find(topic) === undefined);
  group.allowTopics(absent.length);
  for (const topic of absent) group.create(topic, resolveConfig(topic, {}));
  const { position, lost, forwarded } = existing ?? beginning(group.existing(source));
  group.setRouter(name, { ...settings, name, position, lost, forwarded });
  return { created: existing === undefined };
}

/** Only what is appended from now on is forwarded. */
const beginning = ({ log }: Topic): RouterProgress => ({ position: log.head, lost: 0, forwarded: 0 });

export function deleteRouter(group: Group, { router: name }: DeleteRouter): { deleted: boolean } {
  if (group.routers.get(name) === undefined) return { deleted: false };
  group.setRouter(name, undefined);
  return { deleted: true };
}

function allowEnds(name: string, { source, dest }: RouterSettings): void {
  if (!ROUTER_NAME.test(name)) {
    throw invalid("a router name is 1 to 255 of A-Z a-z 0-9 . _ : - > and starts with a letter or a digit");
  }
  if (source === dest) throw invalid("source and dest must be two topics");
  for (const [field, topic] of Object.entries({ source, dest })) {
    if (!TOPIC_NAME.test(topic)) throw invalid(`${field}: not a topic name`);
  }
}

/** A topic is fed by routers from one source only. */
function allowFanIn(group: Group, name: string, { source, dest }: RouterSettings): void {
  const others = group.routers.into(dest).filter((router) => router.name !== name);
  if (others.some((router) => router.source !== source)) {
    throw new ApiError("topic_exists_incompatible", { topic: dest, reason: "router_dest_fan_in" });
  }
}

function allowSameEnds(existing: Router | undefined, { source, dest }: RouterSettings): void {
  if (!existing || (existing.source === source && existing.dest === dest)) return;
  throw new ApiError("topic_exists_incompatible", {
    router: existing.name,
    reason: "router_repoint_forbidden",
    existing_source: existing.source,
    existing_dest: existing.dest,
  });
}

/** Records must not come back to where they started. */
function allowWay(group: Group, name: string, { source, dest }: RouterSettings): void {
  const way = group.routers.way(dest, source, name);
  if (way) throw new ApiError("router_cycle", { cycle: [source, ...way] });
}
