-- Authors and peers, by their public keys.
CREATE TABLE feed_nodes (node INTEGER PRIMARY KEY, node_id TEXT NOT NULL UNIQUE) STRICT;

-- What events belong to: the messages of a feed in a scope; and, with an empty feed key, the changes of subscriptions
-- that travel (scope '') and of those that stay (scope 'local'). last_seq: the newest event.
CREATE TABLE feed_lanes (
  lane INTEGER PRIMARY KEY,
  network_id TEXT NOT NULL,
  scope TEXT NOT NULL,
  feed_key TEXT NOT NULL,
  last_seq INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX feed_lanes_by_name ON feed_lanes (network_id, feed_key, scope);

-- One row for each record of the topic _feeds. created_at is the author's clock, accepted_at ours.
CREATE TABLE feed_events (
  seq INTEGER PRIMARY KEY,
  event_id TEXT NOT NULL UNIQUE,
  lane INTEGER NOT NULL,
  author INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  accepted_at INTEGER NOT NULL
) STRICT;
CREATE INDEX feed_events_by_lane ON feed_events (lane);
CREATE INDEX feed_events_by_age ON feed_events (lane, created_at, event_id);

-- What holds for each subscription now: what its newest event says. `host` is that event's author.
CREATE TABLE feed_subscriptions (
  network_id TEXT NOT NULL,
  host INTEGER NOT NULL,
  subscriber TEXT NOT NULL,
  feed_key TEXT NOT NULL,
  lane INTEGER NOT NULL,
  active INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  event_id TEXT NOT NULL,
  PRIMARY KEY (network_id, host, subscriber, feed_key)
) STRICT, WITHOUT ROWID;
CREATE INDEX feed_subscriptions_by_age ON feed_subscriptions (created_at, event_id);
CREATE INDEX feed_subscriptions_by_state ON feed_subscriptions (active, created_at, event_id);
CREATE INDEX feed_subscriptions_by_feed ON feed_subscriptions (feed_key, created_at, event_id);

-- Subscribers hosted here. While `lane` is set they stand at its newest message behind `since_seq`, if there is one;
-- otherwise at last_seq.
CREATE TABLE feed_cursors (
  network_id TEXT NOT NULL,
  subscriber TEXT NOT NULL,
  feed_key TEXT NOT NULL,
  lane INTEGER,
  since_seq INTEGER NOT NULL,
  last_seq INTEGER,
  PRIMARY KEY (network_id, subscriber, feed_key)
) STRICT, WITHOUT ROWID;

-- Instances that events went to or came from. A peer whose log has begun anew gets another link.
CREATE TABLE feed_peers (
  node INTEGER PRIMARY KEY,
  link INTEGER NOT NULL UNIQUE,
  log_id TEXT NOT NULL,
  out_seq INTEGER NOT NULL
) STRICT;
-- The peer that a URL led to last.
CREATE TABLE feed_addresses (url TEXT PRIMARY KEY, node INTEGER NOT NULL) STRICT, WITHOUT ROWID;

-- Which peers have brought an event.
CREATE TABLE feed_links (
  seq INTEGER NOT NULL,
  link INTEGER NOT NULL,
  PRIMARY KEY (seq, link)
) STRICT, WITHOUT ROWID;

-- How it goes with a lane and a peer; link 0 is this instance. read_seq: up to where the peer's log is read, and
-- caught_seq: how far ours had come when there was nothing more to read. wishes: subscriptions in force for the lane
-- whose event the peer has brought. While there are any, stored events behind sent_seq go out up to until_seq, and later
-- ones as they come.
CREATE TABLE feed_peer_lanes (
  link INTEGER NOT NULL,
  lane INTEGER NOT NULL,
  read_seq INTEGER NOT NULL DEFAULT 0,
  caught_seq INTEGER NOT NULL DEFAULT 0,
  wishes INTEGER NOT NULL DEFAULT 0,
  sent_seq INTEGER NOT NULL DEFAULT 0,
  until_seq INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (link, lane)
) STRICT, WITHOUT ROWID;
CREATE INDEX feed_peer_lanes_wanted ON feed_peer_lanes (lane) WHERE wishes > 0;
CREATE INDEX feed_peer_lanes_unsent ON feed_peer_lanes (link, lane) WHERE wishes > 0 AND sent_seq < until_seq;

-- Links that are not used any more, until what they hold is removed: of feed_links up to seq.
CREATE TABLE feed_retired (link INTEGER PRIMARY KEY, seq INTEGER NOT NULL) STRICT;
