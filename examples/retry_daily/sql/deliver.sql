-- What the shop does when it is asked again. The table gets its name when it is complete, so nobody reads half a day.
DROP TABLE IF EXISTS orders_{{ ds_nodash }}_incoming;
CREATE TABLE orders_{{ ds_nodash }}_incoming (
  id           INTEGER PRIMARY KEY,
  order_date   DATE NOT NULL,
  amount_cents BIGINT NOT NULL
);
INSERT INTO orders_{{ ds_nodash }}_incoming (id, order_date, amount_cents)
VALUES (1, :day, 1250), (2, :day, 4999), (3, :day, 751);
ALTER TABLE orders_{{ ds_nodash }}_incoming RENAME TO orders_{{ ds_nodash }};
