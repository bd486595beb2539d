-- What lists are asked for by, so that none reads more than it shows, in stores with a million task instances.
-- `logical_date` is in microseconds, cut; `definition` is the digest of the version that the run is pinned to. Both are in the run's
-- first event as well: the log stays the truth.
ALTER TABLE runs ADD COLUMN logical_date INTEGER;
ALTER TABLE runs ADD COLUMN definition TEXT;

UPDATE runs SET (logical_date, definition) = (
  SELECT
    -- RFC 3339 in UTC: the seconds first, because SQLite would round the decimals.
    unixepoch(substr(first.date, 1, 19)) * 1000000
      + CASE instr(first.date, '.') WHEN 0 THEN 0
        ELSE CAST(substr(rtrim(substr(first.date, instr(first.date, '.') + 1), 'Z') || '000000', 1, 6) AS INTEGER) END,
    first.definition
  FROM (
    SELECT body ->> 'logical_date' AS date, body ->> 'version' AS definition
    FROM events WHERE run = runs.id AND seq = 1 AND json_valid(body)
  ) AS first
);

-- The order of lists is that of `id`, or that of dates where dates are asked for. `state` is there to be looked at without its row.
CREATE INDEX runs_in_state ON runs (state, id);
CREATE INDEX runs_of_dag_in_state ON runs (dag_id, state, id);
CREATE INDEX runs_by_date ON runs (logical_date, id, state);
CREATE INDEX runs_of_dag_by_date ON runs (dag_id, logical_date, id, state);
-- When a version was first and last run.
CREATE INDEX runs_of_version ON runs (dag_id, definition, id);
CREATE INDEX versions_of_dag ON versions (dag_id);

-- Most instances succeeded, and a list of those finds them everywhere; the others are few and looked for often.
CREATE INDEX instances_in_state ON instances (state, run DESC) WHERE state <> 'success';
