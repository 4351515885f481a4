/** The shapes of watching: sessions, what streams say, the messages of a socket, and tokens. */
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
import { TokenIssued, TokenRequest } from "../../contract/tokens.ts";
import { frames, socketCommands, Watch, Watched, WatchFrom, WatchStarted } from "../../contract/watch.ts";
import { answer, count, object } from "./naming.ts";
import { HEAD, TOPIC } from "./shapes.ts";

const from = {
  from_seq: { description: "Begin with what comes after this seq.", default: 0 },
  tail: { description: "Begin with what comes from now on, whatever `from_seq` says.", default: false },
  epoch: "The `epoch` that `from_seq` belongs to. If the topic was recreated since, a tombstone says so.",
};

export const selected = {
  node: `Leaves out records that one of these nodes wrote, at most ${WATCH_NODES_MAX} of them. Null or an empty array leaves out none.`,
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
  node: selected.node,
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

object(frames.record, "RecordFrame", "Records of a topic.", {
  topic: TOPIC,
  from_seq: count("Where the reader stood."),
  to_seq: count("Where the reader stands now: the last seq that was looked at."),
  head_seq: HEAD,
  records: "Never empty, ascending by `$seq`.",
});
object(
  frames.tombstone,
  "TombstoneFrame",
  "A gap: records that the reader has missed and can no longer get.",
  {
    topic: TOPIC,
    reason:
      "As in a tombstone of a diff. `from_seq_too_old` stands for any of them the first time on a stream.",
    gap_from: count("First seq of the gap."),
    gap_to: count("Last seq of the gap."),
    earliest_seq: count("Where reading goes on."),
    head_seq: HEAD,
  },
);
object(frames["caught-up"], "CaughtUpFrame", "There is nothing more for now.", {
  topic: TOPIC,
  head_seq: HEAD,
});
object(frames["topic-deleted"], "TopicDeletedFrame", "The topic is gone, and not followed any more.", {
  topic: TOPIC,
  head_seq: "Always 0.",
  reason: "Always `deleted`.",
});

const named = {
  topic: "One topic,",
  topics: "or several, or both.",
};
object(socketCommands.subscribe, "SubscribeCommand", "`op` is `subscribe`: follow topics from now on.", {
  topic: "One topic, with `from_seq`, `tail` and `epoch` beside it,",
  topics: "or several by name, each with where to begin, or both.",
  ...from,
  ...selection,
  limit: { description: selected.limit, default: SOCKET_LIMIT_DEFAULT },
  max_batch_bytes: { description: selected.max_batch_bytes, default: DIFF_BYTES_DEFAULT },
  lenient: { description: "Whether topics that do not exist are left out.", default: false },
});
object(
  socketCommands.unsubscribe,
  "UnsubscribeCommand",
  "`op` is `unsubscribe`: nothing more of these.",
  named,
);

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
