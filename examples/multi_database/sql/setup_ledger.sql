CREATE TABLE IF NOT EXISTS sync_log (
  run_id      VARCHAR(100) PRIMARY KEY,
  sale_day    DATE NOT NULL,
  products    INTEGER NOT NULL,
  total_cents BIGINT NOT NULL
);
