-- How many routers have passed a record on to here; null where it was written directly.
ALTER TABLE records ADD COLUMN hops INTEGER;

-- Jobs that were leased at least once, of queues whose leases are durable. With a lease, `until` is its deadline;
-- without one it is the end of a delay, or 0. Times are ms since the Unix epoch.
CREATE TABLE jobs (
  slot INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  deliveries INTEGER NOT NULL,
  lease TEXT,
  node TEXT,
  until INTEGER NOT NULL,
  PRIMARY KEY (slot, seq)
) STRICT, WITHOUT ROWID;

-- How many jobs of a queue went to its dead letters.
CREATE TABLE dead_letters (slot INTEGER PRIMARY KEY, moved INTEGER NOT NULL) STRICT;

-- Seqs that stand for records which a source had lost before a router could copy them. `hops` as for records.
CREATE TABLE trims (
  slot INTEGER NOT NULL,
  from_seq INTEGER NOT NULL,
  to_seq INTEGER NOT NULL,
  hops INTEGER NOT NULL,
  PRIMARY KEY (slot, to_seq)
) STRICT, WITHOUT ROWID;

-- What a router does, as JSON, and how far it has come: the last seq of its source that is done with. Of the records
-- before that, the last `lost` were gone before they could be copied, and the destination has no holes for them yet.
CREATE TABLE routers (
  name TEXT PRIMARY KEY,
  settings TEXT NOT NULL,
  position INTEGER NOT NULL,
  lost INTEGER NOT NULL,
  forwarded INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
