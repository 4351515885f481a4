/** Examples of watching for the document, in the order that the others begin. */
import { performance } from "./examples.ts";

const orders = { epoch: 2, from_seq: 0, head_seq: 2, earliest_seq: 1 };
const renders = { epoch: 3, from_seq: 3, head_seq: 3, earliest_seq: 2 };

export const startWatch = {
  requests: {
    "All of one topic, and what is new in another": {
      topics: { "orders.eu": { from_seq: 0 }, renders: { tail: true } },
    },
  },
  answers: {
    "A session": {
      wid: "wid_lzRu0YvxyFf1RsIMYIncEg",
      stream_url: "/v0/watch/wid_lzRu0YvxyFf1RsIMYIncEg",
      session_ttl_ms: 300_000,
      topics: { "orders.eu": orders, renders },
      performance,
    },
  },
};

export const stream = {
  "Two records": [
    "retry: 2000",
    "",
    "id: eyIkZXBvY2hzIjp7Im9yZGVycy5ldSI6Mn0sIm9yZGVycy5ldSI6Mn0",
    "event: record",
    'data: {"topic":"orders.eu","from_seq":0,"to_seq":2,"head_seq":2,"records":[' +
      '{"$seq":1,"$ts":1795306882226,"data":{"sku":"mug","qty":2}},{"$seq":2,"$ts":1795306882226,"data":"any JSON value"}]}',
    "",
    "id: eyIkZXBvY2hzIjp7Im9yZGVycy5ldSI6Mn0sIm9yZGVycy5ldSI6Mn0",
    "event: caught-up",
    'data: {"topic":"orders.eu","head_seq":2}',
    "",
    "",
  ].join("\n"),
};

export const issueToken = {
  requests: {
    "For one page for an hour": { topics: ["orders.eu", "trams.*"], ttl_ms: 3_600_000 },
    "To work on a queue": { topics: ["renders"], scopes: ["read", "write"] },
  },
  answers: {
    "A token": {
      token:
        "eyJhbGciOiJIUzI1NiJ9.eyJ0b3BpY3MiOlsib3JkZXJzLmV1Il19.x5FZ0u6Gq3v1yWm2y2Hq0q2b2c2d2e2f2g2h2i2j2k2",
      expires_at: 1_795_311_119_215,
      topics: ["orders.eu", "trams.*"],
      scopes: ["read"],
      performance,
    },
  },
};
