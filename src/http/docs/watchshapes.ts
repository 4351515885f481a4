/** The shapes of watching: sessions, what streams say, the messages of a socket, and tokens. */
import { type TObject, Type } from "@sinclair/typebox";
import {
  DIFF_BYTES_DEFAULT,
  DIFF_BYTES_MAX,
  DIFF_LIMIT_DEFAULT,
  DIFF_LIMIT_MAX,
  HEARTBEAT_MS,
  HEARTBEAT_MS_MAX,
  HEARTBEAT_MS_MIN,
  SOCKET_LIMIT_DEFAULT,
  TOKEN_TOPIC,
  TOKEN_TOPICS_MAX,
  TOKEN_TTL_MS_DEFAULT,
  TOKEN_TTL_MS_MAX,
  TOKEN_TTL_MS_MIN,
  WATCH_BYTES_DEFAULT,
  WATCH_LIMIT_DEFAULT,
  WATCH_NODES_MAX,
  WATCH_TOPICS_MAX,
} from "../../contract/limits.ts";
import { RawJson } from "../../contract/schema.ts";
import { TokenIssued, TokenRequest } from "../../contract/tokens.ts";
import {
  FollowedRecord,
  type FrameEvent,
  frames,
  SocketFailure,
  type SocketOp,
  StreamFailure,
  socketAnswers,
  socketCommands,
  Watch,
  Watched,
  WatchFrom,
  WatchStarted,
} from "../../contract/watch.ts";
import { answer, count, type FieldWords, object, ref } from "./naming.ts";
import type { JsonSchema } from "./schema.ts";
import { append, appended, HEAD, record, TOPIC } from "./shapes.ts";

const from = {
  from_seq: { description: "Begin with what comes after this seq.", default: 0 },
  tail: { description: "Begin with what comes from now on, whatever `from_seq` says.", default: false },
  epoch: "The `epoch` that `from_seq` belongs to. If the topic was recreated since, a tombstone says so.",
};

export const selected = {
  node: `Leaves out records that one of these nodes wrote, at most ${WATCH_NODES_MAX} of them.`,
  limit: `Records in a frame at most; 0 is ${DIFF_LIMIT_DEFAULT}, and more than ${DIFF_LIMIT_MAX} is ${DIFF_LIMIT_MAX}.`,
  max_batch_bytes: `Bytes of records in a frame at most, but always one record; 0 is ${DIFF_BYTES_DEFAULT}, and more than ${DIFF_BYTES_MAX} is ${DIFF_BYTES_MAX}.`,
  include_meta: "Whether records come with `meta`.",
  include_tags: "Whether records come with `$tag`.",
  include_data: "Whether records come with `data`.",
  heartbeat_ms: `A comment is sent after so long a silence. Clamped to ${HEARTBEAT_MS_MIN}..${HEARTBEAT_MS_MAX}.`,
  consistency:
    "`strong` holds records of `disk` and `memory` topics back until they are on the device. `fsync` topics do so anyway.",
};

const selection = {
  node: `${selected.node} Null or an empty array leaves out none.`,
  limit: { description: selected.limit, default: WATCH_LIMIT_DEFAULT },
  max_batch_bytes: { description: selected.max_batch_bytes, default: WATCH_BYTES_DEFAULT },
  include_meta: { description: selected.include_meta, default: true },
  include_tags: { description: selected.include_tags, default: false },
  include_data: { description: selected.include_data, default: true },
};

object(WatchFrom, "WatchFrom", "Where to begin in a topic.", from);
object(Watch, "Watch", "What to follow, and how. Unknown fields are ignored.", {
  topics: {
    description: `1 to ${WATCH_TOPICS_MAX} topics by name, each with where to begin.`,
    minProperties: 1,
    maxProperties: WATCH_TOPICS_MAX,
  },
  ...selection,
  heartbeat_ms: { description: selected.heartbeat_ms, default: HEARTBEAT_MS },
  consistency: { description: selected.consistency, default: "eventual" },
});
object(Watched, "Watched", "A topic as it was then.", {
  epoch: "Names this instance of the topic.",
  from_seq: "Where the stream begins; as it was asked for, also above the head.",
  head_seq: HEAD,
  earliest_seq: count("The first live record."),
});
answer(WatchStarted, "WatchStarted", "A session.", {
  wid: {
    description: "Opens its streams. Whoever knows it needs no more, if there are no keys.",
    pattern: "^wid_",
  },
  stream_url: "The path of its streams.",
  session_ttl_ms: "It ends after so long a time without a stream.",
  topics: "Those that exist, by name.",
});

/** Messages of a socket by their `op`: commands, and what the server says. */
export const commands: Record<string, JsonSchema> = {};
export const messages: Record<string, JsonSchema> = {};

const REQUEST_ID = "Any JSON, which comes back with the answer.";

function command<O extends SocketOp>(
  op: O,
  as: string,
  words: string,
  fields: FieldWords<(typeof socketCommands)[O]>,
): void {
  const { properties } = socketCommands[op];
  const shape = Type.Object({ op: Type.Literal(op), request_id: Type.Optional(RawJson), ...properties });
  object(shape, as, words, { op: "The command.", request_id: REQUEST_ID, ...fields });
  commands[op] = ref(shape);
}

function message<T extends TObject>(
  op: string,
  as: string,
  words: string,
  { properties }: T,
  fields: FieldWords<T>,
): void {
  const shape = Type.Object({ op: Type.Literal(op), ...properties });
  object(shape, as, words, { op: "What it is.", ...fields });
  messages[op] = ref(shape);
}

/** What answers a command. */
function reply<O extends keyof typeof socketAnswers>(
  op: O,
  as: string,
  words: string,
  fields: FieldWords<(typeof socketAnswers)[O]>,
): void {
  const shape = Type.Object({ request_id: RawJson, ...socketAnswers[op].properties });
  message(op, as, words, shape, { request_id: "That of the command, or null.", ...fields });
}

/** An event of a stream, which is a message of a socket, too. */
function frame<E extends FrameEvent>(
  event: E,
  as: string,
  words: string,
  fields: FieldWords<(typeof frames)[E]>,
): void {
  object(frames[event], `${as}Frame`, words, fields);
  message(event.replace("-", "_"), `${as}Message`, words, frames[event], fields);
}

object(FollowedRecord, "FollowedRecord", "A record as it was appended.", {
  ...record,
  data: "Any JSON value, byte for byte as it was sent, unless `include_data` is false.",
});
frame("record", "Record", "Records of a topic.", {
  topic: TOPIC,
  from_seq: count("Where the reader stood."),
  to_seq: count("Where the reader stands now: the last seq that was looked at."),
  head_seq: HEAD,
  records: "Never empty, ascending by `$seq`.",
});
frame("tombstone", "Tombstone", "A gap: records that the reader has missed and can no longer get.", {
  topic: TOPIC,
  reason:
    "As in a tombstone of a diff. `from_seq_too_old` stands for any of them the first time on a stream.",
  gap_from: count("First seq of the gap."),
  gap_to: count("Last seq of the gap."),
  earliest_seq: count("Where reading goes on."),
  head_seq: HEAD,
});
frame("caught-up", "CaughtUp", "There is nothing more for now.", { topic: TOPIC, head_seq: HEAD });
frame("topic-deleted", "TopicDeleted", "The topic is gone, and not followed any more.", {
  topic: TOPIC,
  head_seq: "Always 0.",
  reason: "Always `deleted`.",
});

const code =
  "`server_shutting_down`: the server stops; reconnect. `slow_consumer`: the client took nothing for too long; reconnect. " +
  "`unauthorized`: the token has expired, or the key may do something else by now. `throttled`: a limit of the server is " +
  "reached. `internal`: the server failed.";
const failure = {
  message: "The same in words.",
  topic: "The topic that cannot be followed, or a record of it.",
  seq: "The record that is damaged; the stream goes on behind it.",
};
object(StreamFailure, "StreamFailure", "What went wrong. Without `seq` it is the end of the stream.", {
  code,
  ...failure,
});
message(
  "error",
  "FailureMessage",
  "What went wrong, with a command or with what is followed.",
  SocketFailure,
  {
    request_id: "That of the command, or null. Absent if it is about none.",
    code:
      "As in the answers to requests, and `server_shutting_down` and `unauthorized` as in StreamFailure, before the socket " +
      "closes. `invalid_json`: the message is no command. `unsupported_message`: it is no text.",
    ...failure,
  },
);

command("subscribe", "SubscribeCommand", "Follows topics from now on.", {
  topic: "One topic, with `from_seq`, `tail` and `epoch` beside it,",
  topics: "or several by name, each with where to begin, or both.",
  ...from,
  ...selection,
  limit: { description: selected.limit, default: SOCKET_LIMIT_DEFAULT },
  max_batch_bytes: { description: selected.max_batch_bytes, default: DIFF_BYTES_DEFAULT },
  lenient: { description: "Whether topics that do not exist are left out.", default: false },
});
command("unsubscribe", "UnsubscribeCommand", "Nothing more of these.", {
  topic: "One topic,",
  topics: "or several, or both.",
});
command("publish", "PublishCommand", "Appends records, as the operation does.", {
  topic: TOPIC,
  ...append,
  return_seqs: { description: "Whether the answer lists `seqs`.", default: true },
});
command("ping", "PingCommand", "Asks for a `pong`.", {});
reply("subscribed", "SubscribedMessage", "What is followed, and where it begins.", {
  topics: "Those that exist, by name.",
});
reply("unsubscribed", "UnsubscribedMessage", "What is not followed any more.", { topics: "As asked for." });
reply("ack", "AckMessage", "Where the records are.", {
  ...appended,
  seqs: "One for each record, in order; null if they were not asked for.",
  performance: "What this write cost.",
});
reply("pong", "PongMessage", "The socket lives.", {});

const topics = `Names, and prefixes with a final \`*\`: 1 to ${TOKEN_TOPICS_MAX} of them.`;
const scopes = "What it may do: `read` for streams, with `write` also for streams of work.";
object(TokenRequest, "TokenRequest", "What a token is for.", {
  topics: {
    description: topics,
    minItems: 1,
    maxItems: TOKEN_TOPICS_MAX,
    items: { type: "string", pattern: TOKEN_TOPIC.source },
  },
  scopes: { description: scopes, minItems: 1, default: ["read"] },
  ttl_ms: {
    description: "How long it is good.",
    minimum: TOKEN_TTL_MS_MIN,
    maximum: TOKEN_TTL_MS_MAX,
    default: TOKEN_TTL_MS_DEFAULT,
  },
});
answer(TokenIssued, "TokenIssued", "A token.", {
  token: "Goes into `?token=` of a stream.",
  expires_at: count("When it ends, in ms since the Unix epoch."),
  topics: "As asked for.",
  scopes: "As asked for, or the default.",
});
