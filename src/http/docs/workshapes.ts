/** The shapes of queues and routers. */
import {
  CLAIM_JOBS_MAX,
  HELD_SEQS_MAX,
  LEASE_MS_MAX,
  LEASE_MS_MIN,
  NACK_DELAY_MS_MAX,
  NODE_BYTES_MAX,
  TOPIC_NAME,
} from "../../contract/limits.ts";
import { AckPerformance } from "../../contract/performance.ts";
import {
  Ack,
  Acked,
  Claim,
  ClaimedJob,
  Extend,
  Extended,
  JobsClaimed,
  Nack,
  Nacked,
  PushedJob,
  WorkEnded,
} from "../../contract/queues.ts";
import { FullTagFilter } from "../../contract/records.ts";
import {
  RouterDeleted,
  RouterInput,
  RouterList,
  RouterPut,
  RouterState,
  RouterSummary,
} from "../../contract/routers.ts";
import { answer, count, type FieldWords, name, object } from "./naming.ts";
import { TOPIC } from "./shapes.ts";

const LEASE = `Clamped to ${LEASE_MS_MIN}..${LEASE_MS_MAX}.`;
const READY = count("Jobs that could be leased then.");
const IN_FLIGHT = count("Jobs that were leased then.");
const SKIPPED = "Seqs that `node` did not hold, or not under that lease id, in the order of the request.";

object(Claim, "Claim", "Who asks for jobs, and how many. Unknown fields are ignored.", {
  node: {
    description: `Who will hold them: 1 to ${NODE_BYTES_MAX} bytes of UTF-8.`,
    minLength: 1,
    maxLength: NODE_BYTES_MAX,
  },
  max: {
    description: `Jobs at most; 0 is 1, and more than ${CLAIM_JOBS_MAX} is ${CLAIM_JOBS_MAX}.`,
    default: 1,
  },
  lease_ms: `How long the leases are; left out or null as the queue says. ${LEASE}`,
});
const job = {
  $seq: { description: "Its place in the queue.", minimum: 1 },
  lease_id: { description: "Names this lease, and no other one ever.", pattern: "^lease_[0-9a-f]{1,16}$" },
  deadline: count("The lease ends behind this time, in ms since the Unix epoch."),
  $ts: count("When it was appended, in ms since the Unix epoch."),
  $tag: "Its tag, if it has one.",
  deliveries: { description: "How often it was leased, with this time.", minimum: 1 },
  data: "Any JSON value, byte for byte as it was sent.",
  meta: "Any JSON value, byte for byte as it was sent; if it has one.",
} satisfies FieldWords<typeof ClaimedJob>;
object(ClaimedJob, "ClaimedJob", "A leased job.", job);
object(PushedJob, "PushedJob", "A leased job of a stream.", { topic: TOPIC, ...job });
object(WorkEnded, "WorkEnded", "Why a stream of work ends.", {
  code:
    "409: the topic was deleted. `server_shutting_down`: the server stops; reconnect. `slow_consumer`: the client took " +
    "nothing for too long. `unauthorized`: the token has expired, or the key may do something else by now. `internal`: " +
    "the server failed.",
  error: "The same in words.",
  topic: TOPIC,
});
answer(JobsClaimed, "JobsClaimed", "The jobs leased.", {
  topic: TOPIC,
  claimed: "Ascending by `$seq`.",
  count: count("How many."),
  ready: READY,
});

const held = {
  node: { description: "Who holds them, as it was said when they were leased.", minLength: 1 },
  seqs: { description: "Which jobs.", maxItems: HELD_SEQS_MAX },
  lease_ids: {
    description:
      "One for each of `seqs`, so that a lease that was lost and given out again is not meant. An empty text stands " +
      "for any; no array, or an empty one, for any of all.",
    items: { type: "string", pattern: "^(?:lease_0*[0-9A-Fa-f]{1,16})?$" },
  },
};
object(Ack, "Ack", "Jobs to finish. Unknown fields are ignored.", held);
object(Nack, "Nack", "Jobs to give back. Unknown fields are ignored.", {
  ...held,
  delay_ms: {
    description: `How long nobody gets them. More than ${NACK_DELAY_MS_MAX} is ${NACK_DELAY_MS_MAX}.`,
    default: 0,
  },
});
object(Extend, "Extend", "Jobs to keep. Unknown fields are ignored.", {
  ...held,
  lease_ms: `The new time to the deadline, from now. ${LEASE}`,
});
object(AckPerformance, "AckPerformance", "What an ack cost.", {
  server_total_ms: count("Milliseconds in the server, with fractions."),
  fsync_ms: count("Syncing to the medium: of a queue that is `fsync`, if anything was acked."),
});
answer(
  Acked,
  "Acked",
  "What was finished.",
  {
    topic: TOPIC,
    acked: count("Jobs finished."),
    skipped: SKIPPED,
    ready: READY,
    in_flight: IN_FLIGHT,
  },
  AckPerformance,
);
answer(Nacked, "Nacked", "What was given back.", {
  topic: TOPIC,
  nacked: count("Jobs given back."),
  skipped: SKIPPED,
  ready: READY,
  in_flight: IN_FLIGHT,
});
answer(Extended, "Extended", "What is kept.", {
  topic: TOPIC,
  extended: count("Leases with a new deadline."),
  skipped: SKIPPED,
  deadlines: "The new deadline of each job, by its seq, in ms since the Unix epoch.",
});

const settings = {
  source: "The topic that it reads.",
  dest: "The topic that it writes to.",
  preserve_node: "Whether copies have the `$node` of their record.",
  preserve_tag: "Whether copies have the `$tag` of their record.",
  allow_cycle: "Whether records may come back to where they started. After 8 hops they stop.",
  guarantee:
    "`exactly_once` stamps each copy's `meta` with where it comes from. Either way a restart neither loses nor repeats a " +
    "copy that is kept on disk.",
};
const end = (description: string) => ({ description, pattern: TOPIC_NAME.source });
object(RouterInput, "RouterInput", "What a router does. What is left out has its default.", {
  ...settings,
  source: end(settings.source),
  dest: end(`${settings.dest} Not \`source\`.`),
  preserve_node: { description: settings.preserve_node, default: true },
  preserve_tag: { description: settings.preserve_tag, default: true },
  create_dest: { description: "Whether an absent `dest` is created. It is a log then.", default: true },
  filter: "Which records are copied, by tag. Null is all.",
  allow_cycle: { description: settings.allow_cycle, default: false },
  guarantee: { description: settings.guarantee, default: "at_least_once" },
});
name(FullTagFilter, "FullTagFilter", "A filter without shorthand.");
const shown = { ...settings, filter: "Which records are copied, by tag; null is all." };
const ROUTER = "The router's name.";
const FORWARDED = count(
  "Records copied, and those lost before they could be, which `dest` leaves out a seq for each.",
);
answer(RouterPut, "RouterPut", "A router as it is configured now.", {
  router: ROUTER,
  created: "Whether this call created it.",
  ...shown,
});
answer(RouterState, "RouterState", "A router, seen at one moment.", {
  router: ROUTER,
  ...shown,
  forwarded_total: FORWARDED,
});
object(RouterSummary, "RouterSummary", "A router in a list.", {
  router: ROUTER,
  source: settings.source,
  dest: settings.dest,
  guarantee: "",
  forwarded_total: FORWARDED,
});
answer(RouterList, "RouterList", "One page of routers, in the byte order of their names.", {
  routers: "",
  next_cursor: "Present if more routers follow. Pass it back as `cursor`.",
});
answer(RouterDeleted, "RouterDeleted", "What a deletion did.", {
  router: ROUTER,
  deleted: "False if there was no such router.",
});
