/**
 * The state machine: the one place where a command changes state.
 *
 * A command either throws an `ApiError` before it has changed anything but what time alone would (expiry), or
 * is carried out whole. Anything else that is thrown undoes the whole group.
 */
import { append } from "./append.ts";
import { claim } from "./claims.ts";
import type { Command, Outcome } from "./commands.ts";
import { deleteBefore, deleteTagged } from "./deletion.ts";
import { acceptEvents } from "./feeds/accept.ts";
import { meetPeer, noteSent } from "./feeds/acquaintance.ts";
import { forward } from "./forward.ts";
import type { Group } from "./group.ts";
import { ack, extend, nack, release } from "./leases.ts";
import { deleteTopic, putTopic } from "./lifecycle.ts";
import { expire } from "./retention.ts";
import { deleteRouter, putRouter } from "./routing.ts";

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
      if (topic) expire(group, topic, command.now);
      topic?.jobs?.settle(command.now);
      return null;
    }
    case "claim":
      return claim(group, command);
    case "ack":
      return ack(group, command);
    case "nack":
      return nack(group, command);
    case "extend":
      return extend(group, command);
    case "release":
      return release(group, command);
    case "put_router":
      return putRouter(group, command);
    case "delete_router":
      return deleteRouter(group, command);
    case "forward":
      return forward(group, command);
    case "accept_events":
      return acceptEvents(group, command);
    case "meet_peer":
      return meetPeer(group, command);
    case "note_sent":
      return noteSent(group, command);
  }
}
