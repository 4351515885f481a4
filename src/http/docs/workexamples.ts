/** Examples of queues and routers for the document, in the order that the others begin. */
import { performance } from "./examples.ts";

const queue = { topic: "renders" };

export const claim = {
  requests: {
    "Two jobs at most": { node: "gpu-1", max: 2 },
    "One job for a minute": { node: "gpu-1", lease_ms: 60_000 },
  },
  answers: {
    "Two jobs": {
      ...queue,
      claimed: [
        {
          $seq: 1,
          lease_id: "lease_9f0c27a1b35de846",
          deadline: 1_795_307_715_072,
          $ts: 1_795_307_695_070,
          $tag: "shot-a",
          deliveries: 1,
          data: { frame: 1 },
          meta: { pri: "hi" },
        },
        {
          $seq: 2,
          lease_id: "lease_51d2ac90ffe3b176",
          deadline: 1_795_307_715_072,
          $ts: 1_795_307_695_070,
          deliveries: 1,
          data: { frame: 2 },
        },
      ],
      count: 2,
      ready: 1,
      performance,
    },
    "Nothing to do": { ...queue, claimed: [], count: 0, ready: 0, performance },
  },
};

export const ack = {
  requests: {
    "A job, under whatever lease": { node: "gpu-1", seqs: [1] },
    "Only under that lease": { node: "gpu-1", seqs: [1], lease_ids: ["lease_9f0c27a1b35de846"] },
  },
  answers: {
    Finished: { ...queue, acked: 1, skipped: [], ready: 0, in_flight: 2, performance },
    "That lease is over": { ...queue, acked: 0, skipped: [1], ready: 0, in_flight: 2, performance },
  },
};

export const nack = {
  requests: { "Again in a second": { node: "gpu-1", seqs: [2], delay_ms: 1000 } },
  answers: { "Given back": { ...queue, nacked: 1, skipped: [], ready: 0, in_flight: 1, performance } },
};

export const extend = {
  requests: { "A minute from now": { node: "gpu-1", seqs: [3], lease_ms: 60_000 } },
  answers: {
    Kept: { ...queue, extended: 1, skipped: [], deadlines: { "3": 1_795_307_755_074 }, performance },
  },
};

export const work = {
  "A job": [
    "retry: 2000",
    "",
    "id: 1",
    "event: job",
    'data: {"topic":"renders","$seq":1,"lease_id":"lease_9f0c27a1b35de846","deadline":1795307715072,"$ts":1795307695070,' +
      '"deliveries":1,"data":{"frame":1}}',
    "",
    "",
  ].join("\n"),
};

const router = {
  router: "orders.eu->archive",
  source: "orders.eu",
  dest: "archive",
  preserve_node: true,
  preserve_tag: true,
  filter: ["tag", "Glob", "order:*"],
  allow_cycle: false,
  guarantee: "at_least_once",
};

export const putRouter = {
  requests: {
    "Copy everything": { source: "orders.eu", dest: "archive" },
    "Copy orders, each with a stamp": {
      source: "orders.eu",
      dest: "archive",
      filter: "order:*",
      guarantee: "exactly_once",
    },
  },
  created: { "A new router": { ...router, created: true, performance } },
  configured: { "A router with other settings": { ...router, created: false, performance } },
};

export const routerState = { "After three records": { ...router, forwarded_total: 3, performance } };

export const listRouters = {
  "The only page": {
    routers: [
      {
        router: "orders.eu->archive",
        source: "orders.eu",
        dest: "archive",
        guarantee: "at_least_once",
        forwarded_total: 3,
      },
    ],
    performance,
  },
};

export const deleteRouter = {
  "There was one": { router: "orders.eu->archive", deleted: true, performance },
  "There was none": { router: "orders.eu->archive", deleted: false, performance },
};
