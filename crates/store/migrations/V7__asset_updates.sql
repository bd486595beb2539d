-- Updates of assets, in the order in which the store was told of them: a projection of all logs, by which DAGs that wait for assets are
-- found. A number is never given twice. What made an update is kept by name, because the newest update of an asset outlives its run:
-- `run` and `event` are its place in the log while that is there. `map_index` is -1 for an instance that is not mapped.
CREATE TABLE asset_updates (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  asset TEXT NOT NULL,
  run INTEGER,
  event INTEGER NOT NULL,
  run_id TEXT NOT NULL,
  task TEXT NOT NULL,
  map_index INTEGER NOT NULL,
  at INTEGER NOT NULL
) STRICT;

-- With the number behind it, as every index has.
CREATE INDEX asset_updates_of ON asset_updates (asset);
CREATE INDEX asset_updates_of_run ON asset_updates (run, event);

-- What logs tell already. No DAG has waited for it: those that do begin behind it.
INSERT INTO asset_updates (asset, run, event, run_id, task, map_index, at)
SELECT told.value, events.run, events.seq, runs.run_id, events.body ->> 'task', coalesce(events.body ->> 'map', -1), events.at
FROM events JOIN runs ON runs.id = events.run, json_each(events.body, '$.assets') AS told
WHERE CASE WHEN events.body LIKE '%"assets_updated"%' AND json_valid(events.body)
  THEN events.body ->> 'type' = 'assets_updated' ELSE false END
ORDER BY events.at, events.run, events.seq, told.key;
