-- Random bytes that stay the same for a data directory, such as what tokens are signed with.
CREATE TABLE secrets (
  name TEXT NOT NULL PRIMARY KEY,
  bytes BLOB NOT NULL
) STRICT, WITHOUT ROWID;
