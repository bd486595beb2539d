-- How running statements looked, beside the log: a bounded series an attempt. `at` is in microseconds since 1970; `body` is JSON with its
-- version in it. A session is found by its server and id, so that another process can say whose it is.
CREATE TABLE samples (
  run INTEGER NOT NULL REFERENCES runs (id),
  task TEXT NOT NULL,
  map_index INTEGER NOT NULL,
  try_number INTEGER NOT NULL,
  place INTEGER NOT NULL,
  at INTEGER NOT NULL,
  server TEXT NOT NULL,
  session TEXT NOT NULL,
  body TEXT NOT NULL,
  PRIMARY KEY (run, task, map_index, try_number, place)
) STRICT, WITHOUT ROWID;

CREATE INDEX samples_of_session ON samples (server, session, at);
