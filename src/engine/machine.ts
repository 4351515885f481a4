/**
 * The state machine: the one place where a command changes state.
 *
 * A command either throws an `ApiError` before it has changed anything but what time alone would (expiry), or
 * is carried out whole. Anything else that is thrown undoes the whole group.
 */
import { append } from "./append.ts";
import type { Command, Outcome } from "./commands.ts";
import { deleteBefore, deleteTagged } from "./deletion.ts";
import type { Group } from "./group.ts";
import { deleteTopic, putTopic } from "./lifecycle.ts";
import { expire } from "./retention.ts";

export function apply(group: Group, command: Command): Outcome<Command> {
  switch (command.kind) {
    case "append":
      return append(group, command);
    case "put_topic":
      return putTopic(group, command);
    case "delete_topic":
      return deleteTopic(group, command);
    case "delete_before":
      return deleteBefore(group, command);
    case "delete_tagged":
      return deleteTagged(group, command);
    case "sweep": {
      const topic = group.find(command.topic);
      if (topic) expire(topic, command.now);
      return null;
    }
  }
}
