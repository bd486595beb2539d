CREATE TABLE IF NOT EXISTS daily_orders (
  order_day   DATE PRIMARY KEY,
  orders      INTEGER NOT NULL,
  total_cents BIGINT NOT NULL
);
-- The shop's feed: one table a day. None has come for this day yet.
DROP TABLE IF EXISTS orders_{{ ds_nodash }};
