-- Small things that a service keeps beside runs: whether a DAG is paused, the size of a pool, a variable. `body` is JSON.
CREATE TABLE entries (
  kind TEXT NOT NULL,
  key TEXT NOT NULL,
  body TEXT NOT NULL,
  PRIMARY KEY (kind, key)
) STRICT, WITHOUT ROWID;

-- What people did to other things than one run. Acts upon a run are in its log.
CREATE TABLE acts (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  at INTEGER NOT NULL,
  who TEXT NOT NULL,
  why TEXT NOT NULL,
  what TEXT NOT NULL
) STRICT;
