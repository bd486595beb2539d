-- A run that is over may have callbacks that have not run: they follow its end, and its process may die in between. Such a run is to be
-- found among those that something is left to do of.
ALTER TABLE runs ADD COLUMN callbacks_pending INTEGER NOT NULL DEFAULT 0;

-- The first look is cheap, and spares most events being read as JSON.
UPDATE runs SET callbacks_pending = max(0, counted.pending)
FROM (
  SELECT run, sum(CASE body ->> 'type' WHEN 'callback_scheduled' THEN 1 WHEN 'callback_finished' THEN -1 ELSE 0 END) AS pending
  FROM events WHERE CASE WHEN instr(body, '"callback_') > 0 THEN json_valid(body) ELSE 0 END GROUP BY run
) AS counted
WHERE counted.run = runs.id;

DROP INDEX runs_unfinished;
CREATE INDEX runs_unfinished ON runs (id) WHERE ended_at IS NULL OR callbacks_pending > 0;
