/** The fixed sizes of the wire contract. Inclusive: the number itself is allowed. Bytes are UTF-8. */

export const TOPIC_NAME = /^[A-Za-z0-9][A-Za-z0-9._:-]{0,254}$/;
export const ROUTER_NAME = /^[A-Za-z0-9][A-Za-z0-9._:>-]{0,254}$/;

export const BODY_BYTES_DEFAULT = 64 * 1024 * 1024;
export const JSON_DEPTH_MAX = 127;

export const BATCH_RECORDS_MAX = 10_000;
export const RECORD_BYTES_MAX = 1024 * 1024;
export const META_BYTES_MAX = 16 * 1024;
export const META_KEYS_MAX = 64;
export const TAG_BYTES_MAX = 256;
export const NODE_BYTES_MAX = 128;
export const IDEMPOTENCY_KEY_BYTES_MAX = 256;

export const DIFF_LIMIT_DEFAULT = 256;
export const DIFF_LIMIT_MAX = 1000;
export const DIFF_BYTES_DEFAULT = 1024 * 1024;
export const DIFF_BYTES_MAX = 8 * 1024 * 1024;
export const DIFF_WAIT_MS_MAX = 30_000;

export const PAGE_SIZE_DEFAULT = 100;
export const PAGE_SIZE_MAX = 1000;

export const LEASE_MS_MIN = 100;
export const LEASE_MS_MAX = 86_400_000;
export const CLAIM_JITTER_MS_MAX = 5000;
export const NACK_DELAY_MS_MAX = 86_400_000;
export const CLAIM_JOBS_MAX = 1000;
/** Jobs named by one ack, nack or extend. */
export const HELD_SEQS_MAX = 1000;
/** Payload bytes of one claim, which always gets one job. */
export const CLAIM_BYTES_MAX = 8 * 1024 * 1024;

/** A record is forwarded so often. */
export const HOPS_MAX = 8;

export const WATCH_TOPICS_MAX = 256;
/** Nodes that a stream may leave out. */
export const WATCH_NODES_MAX = 256;
export const WATCH_LIMIT_DEFAULT = 256;
export const WATCH_BYTES_DEFAULT = 256 * 1024;
export const SOCKET_LIMIT_DEFAULT = 1000;
/** A session without an open stream ends after this time. */
export const SESSION_TTL_MS = 300_000;

/** A stream that has nothing to say says so after this time. */
export const HEARTBEAT_MS = 15_000;
export const HEARTBEAT_MS_MIN = 1000;
export const HEARTBEAT_MS_MAX = 60_000;
/** A stream whose client takes nothing for this time is cut. */
export const STALL_MS = 60_000;
/** What a stream tells its client to wait before it connects again. */
export const RETRY_MS = 2000;

/** The topic that holds every event of feeds. Clients may read it, and none can make one of that name. */
export const FEED_LOG = "_feeds";
export const FEED_BODY_BYTES_MAX = 2 * 1024 * 1024;
/** One signed event, encoded. */
export const EVENT_BYTES_MAX = 128 * 1024;
/** An author's clock may be ahead of ours by so much. */
export const EVENT_AHEAD_MS_MAX = 300_000;
export const MESSAGES_LIMIT_DEFAULT = 50;
export const MESSAGES_LIMIT_MAX = 200;
/** A page of messages ends early behind so many bytes. */
export const MESSAGES_BYTES_MAX = 8 * 1024 * 1024;
export const SUBSCRIPTIONS_LIMIT_MAX = 1000;
/** Events and bytes that one instance hands to another at once, and what may surround them. */
export const PUSH_EVENTS_MAX = 256;
export const BACKFILL_EVENTS_DEFAULT = 256;
export const BACKFILL_EVENTS_MAX = 512;
export const PEER_BYTES_MAX = 8 * 1024 * 1024;
export const AROUND_EVENTS_BYTES = 64 * 1024;
export const KNOWN_EVENTS_MAX = 256;
/** The newest events of a lane that a digest names. */
export const HEAD_EVENTS_MAX = 8;
/** What asks for a page: a feed's key, however it is escaped, and the events that are known. */
export const BACKFILL_BYTES_MAX = 1024 * 1024;
/** Requests of peers that are served at a time. */
export const BACKFILLS_MAX = 16;
export const PUSHES_MAX = 64;
/** Other instances that are remembered. */
export const PEERS_MAX = 1024;
/** What a peer sends wraps content deeper than the post that it came with. */
export const PEER_JSON_DEPTH_MAX = JSON_DEPTH_MAX + 8;
/** The name of a feed log, in characters. */
export const LOG_ID_LENGTH_MAX = 128;
export const SYNC_INTERVAL_MS_DEFAULT = 15_000;
export const SYNC_INTERVAL_MS_MIN = 100;

/** One message to the server over a WebSocket. */
export const SOCKET_MESSAGE_BYTES_MAX = 16 * 1024 * 1024;
/** What a socket may send ahead of its answers. */
export const SOCKET_BYTES_WAITING_MAX = 64 * 1024 * 1024;

/** What a token is for: the name of a topic, or how names begin. */
export const TOKEN_TOPIC = /^(?:[A-Za-z0-9][A-Za-z0-9._:-]{0,254}\*?|\*)$/;
export const TOKEN_TOPICS_MAX = 256;
export const TOKEN_TTL_MS_DEFAULT = 300_000;
export const TOKEN_TTL_MS_MIN = 1000;
export const TOKEN_TTL_MS_MAX = 86_400_000;

/** So many topics have metrics of their own. */
export const METRICS_TOPICS_MAX = 1000;
/** Upper bounds of the buckets that syncs are counted in by what they took, in µs; one more has no bound. */
export const SYNC_BUCKETS_US: readonly number[] = [50, 100, 250, 500, 1000, 5000, 10_000, 50_000, 100_000];

export const TOPICS_MAX_DEFAULT = 100_000;
export const ROUTERS_MAX_DEFAULT = 10_000;
export const STREAM_BYTES_MAX_DEFAULT = 256 * 1024 * 1024;
export const WATCH_SESSIONS_MAX_DEFAULT = 10_000;
export const SSE_CONNECTIONS_MAX_DEFAULT = 10_000;
export const SSE_CONNECTIONS_PER_KEY_MAX_DEFAULT = 1000;

/** Integers above this cannot be told apart by a JavaScript number, so they are clamped or refused, never rounded. */
export const SAFE_INTEGER_MAX = Number.MAX_SAFE_INTEGER;

/** What a body may take: so long, and longer at this rate. A slower one would hold memory that others need. */
export const BODY_PATIENCE_MS = 30_000;
export const BODY_BYTES_PER_MS_MIN = 256;
