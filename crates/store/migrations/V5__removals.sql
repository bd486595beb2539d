-- Runs that were removed, and whose rows in the other tables are not all deleted yet. Their names are gone, so that nobody sees the rest.
CREATE TABLE removals (
  run INTEGER PRIMARY KEY
) STRICT;
