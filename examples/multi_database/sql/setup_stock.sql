CREATE TABLE IF NOT EXISTS movements (
  sale_day    DATE NOT NULL,
  product     VARCHAR(50) NOT NULL,
  quantity    BIGINT NOT NULL,
  total_cents BIGINT NOT NULL,
  PRIMARY KEY (sale_day, product)
);
