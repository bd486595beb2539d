CREATE TABLE IF NOT EXISTS failure_log (
  run_id     VARCHAR(100) NOT NULL,
  task       VARCHAR(250) NOT NULL,
  try_number INTEGER NOT NULL,
  error      VARCHAR(2000) NOT NULL,
  file       VARCHAR(250),
  line       INTEGER,
  PRIMARY KEY (run_id, task)
);
