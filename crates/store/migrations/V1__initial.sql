-- One row a run: its place in the log (version), its owner (epoch), and the fold of its own events.
-- `id` grows with every run created, so it is also the order of lists; clocks are not trusted with that.
CREATE TABLE runs (
  id INTEGER PRIMARY KEY,
  run_id TEXT NOT NULL UNIQUE,
  dag_id TEXT NOT NULL,
  version INTEGER NOT NULL,
  epoch INTEGER NOT NULL,
  state TEXT NOT NULL,
  is_cancel_requested INTEGER NOT NULL DEFAULT 0,
  started_at INTEGER,
  ended_at INTEGER
) STRICT;

CREATE INDEX runs_of_dag ON runs (dag_id, id);
CREATE INDEX runs_unfinished ON runs (id) WHERE ended_at IS NULL;

-- The log. `at` is in microseconds since 1970; `body` is a stored event, JSON with its version in it.
CREATE TABLE events (
  run INTEGER NOT NULL REFERENCES runs (id),
  seq INTEGER NOT NULL,
  at INTEGER NOT NULL,
  body TEXT NOT NULL,
  PRIMARY KEY (run, seq)
) STRICT, WITHOUT ROWID;

-- A projection. `map_index` is -1 for an instance that is not mapped; `first_seq` is the event by which it was first seen.
CREATE TABLE instances (
  run INTEGER NOT NULL REFERENCES runs (id),
  task TEXT NOT NULL,
  map_index INTEGER NOT NULL,
  first_seq INTEGER NOT NULL,
  state TEXT NOT NULL,
  try_number INTEGER NOT NULL,
  started_at INTEGER,
  ended_at INTEGER,
  error TEXT,
  PRIMARY KEY (run, task, map_index)
) STRICT, WITHOUT ROWID;

-- A projection. `seq` is the event that tells of the statement, `place` its place in that event; `notices` is a JSON array.
CREATE TABLE statements (
  run INTEGER NOT NULL REFERENCES runs (id),
  seq INTEGER NOT NULL,
  place INTEGER NOT NULL,
  task TEXT NOT NULL,
  map_index INTEGER NOT NULL,
  try_number INTEGER NOT NULL,
  segment INTEGER,
  number INTEGER NOT NULL,
  line INTEGER NOT NULL,
  summary TEXT NOT NULL,
  duration_us INTEGER NOT NULL,
  rows_affected INTEGER,
  rows_returned INTEGER NOT NULL,
  notices TEXT,
  PRIMARY KEY (run, seq, place)
) STRICT, WITHOUT ROWID;

-- The definitions that runs are pinned to.
CREATE TABLE versions (
  digest TEXT PRIMARY KEY,
  dag_id TEXT NOT NULL,
  bundle BLOB NOT NULL
) STRICT, WITHOUT ROWID;
