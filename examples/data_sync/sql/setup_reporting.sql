CREATE TABLE IF NOT EXISTS sales_staging (
  sale_id     INTEGER NOT NULL,
  quantity    INTEGER NOT NULL,
  price_cents BIGINT NOT NULL,
  total_cents BIGINT NOT NULL
);
CREATE TABLE IF NOT EXISTS sales_summary (
  sale_day    DATE NOT NULL,
  sale_id     INTEGER NOT NULL,
  quantity    INTEGER NOT NULL,
  price_cents BIGINT NOT NULL,
  total_cents BIGINT NOT NULL,
  PRIMARY KEY (sale_day, sale_id)
);
CREATE TABLE IF NOT EXISTS sync_log (
  run_id   VARCHAR(100) PRIMARY KEY,
  sale_day DATE NOT NULL,
  sales    INTEGER NOT NULL,
  message  VARCHAR(100) NOT NULL
);
