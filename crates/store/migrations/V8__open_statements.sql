-- Statements of a task that did its work in a transaction which is not committed have segment -1, and are shown without one. The commit makes
-- it 0. They are found by their tries, and are few: others are not in this index.
CREATE INDEX statements_open ON statements (run, task, map_index, try_number) WHERE segment < 0;
