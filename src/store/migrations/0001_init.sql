-- A topic's name and settings. `slot` is its place in storage and may be used again after its rows are gone;
-- `epoch` names this instance and never comes back.
CREATE TABLE topics (
  slot INTEGER PRIMARY KEY,
  epoch INTEGER NOT NULL UNIQUE,
  name TEXT NOT NULL UNIQUE,
  config TEXT NOT NULL,
  checksum INTEGER NOT NULL
) STRICT;

-- The last epoch and slot given out, one row.
CREATE TABLE last_given (epoch INTEGER NOT NULL, slot INTEGER NOT NULL) STRICT;
INSERT INTO last_given VALUES (0, 0);

CREATE TABLE free_slots (slot INTEGER PRIMARY KEY) STRICT;

-- Deleted topics whose rows are still to be removed.
CREATE TABLE dropped (slot INTEGER PRIMARY KEY) STRICT;

-- What is true of a topic's log as a whole. Sums count live records only. The tail is the part of the newest
-- block that is not in blocks yet: it spares most commits a page.
CREATE TABLE logs (
  slot INTEGER PRIMARY KEY,
  head_seq INTEGER NOT NULL,
  earliest_seq INTEGER NOT NULL,
  count INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  cap_floor INTEGER NOT NULL,
  ttl_floor INTEGER NOT NULL,
  trim_floor INTEGER NOT NULL,
  reclaimed_seq INTEGER NOT NULL,
  last_ts INTEGER,
  tail_block INTEGER NOT NULL,
  tail_count INTEGER NOT NULL,
  tail_bytes INTEGER NOT NULL,
  largest_bytes INTEGER NOT NULL,
  checksum INTEGER NOT NULL
) STRICT;

-- One row per record. id = slot << 42 | seq: a plain rowid keeps the tree shallow also for large rows, and a
-- topic's records lie side by side. tag and node are JSON strings, data and meta raw JSON text. Not STRICT: that
-- costs a tenth of the insert, and the checksum says more.
CREATE TABLE records (
  id INTEGER PRIMARY KEY,
  ts INTEGER NOT NULL,
  checksum INTEGER NOT NULL,
  data TEXT NOT NULL,
  tag TEXT,
  node TEXT,
  meta TEXT,
  tagged_bytes INTEGER
);
-- Holds all that summing records by tag needs. tagged_bytes: what a record with a tag counts for.
CREATE INDEX records_by_tag ON records (id >> 42, tag, id, tagged_bytes) WHERE tag IS NOT NULL;

-- Live records per 1024 seqs, so that a range is summed without visiting its records.
CREATE TABLE blocks (
  slot INTEGER NOT NULL,
  block INTEGER NOT NULL,
  count INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  PRIMARY KEY (slot, block)
) STRICT, WITHOUT ROWID;

-- Large deletes by tag that already hold for every reader; their rows are removed in slices.
-- They select the tag itself or, with is_prefix, every tag that starts with it, on seqs up to up_to_seq.
CREATE TABLE tag_deletes (
  id INTEGER PRIMARY KEY,
  slot INTEGER NOT NULL,
  tag TEXT NOT NULL,
  is_prefix INTEGER NOT NULL,
  up_to_seq INTEGER NOT NULL
) STRICT;
CREATE INDEX tag_deletes_by_slot ON tag_deletes (slot);

-- The answer to the first write under each idempotency key.
CREATE TABLE idempotency_keys (
  slot INTEGER NOT NULL,
  key TEXT NOT NULL,
  ts INTEGER NOT NULL,
  first_seq INTEGER NOT NULL,
  count INTEGER NOT NULL,
  head_seq INTEGER NOT NULL,
  PRIMARY KEY (slot, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_keys_by_ts ON idempotency_keys (slot, ts);
