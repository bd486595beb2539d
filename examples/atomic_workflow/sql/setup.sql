CREATE TABLE IF NOT EXISTS products (
  id          INTEGER PRIMARY KEY,
  name        VARCHAR(50) NOT NULL,
  price_cents BIGINT NOT NULL
);
CREATE TABLE IF NOT EXISTS price_changes (
  product_id  INTEGER PRIMARY KEY,
  price_cents BIGINT NOT NULL
);
CREATE TABLE IF NOT EXISTS captured_changes (
  product_id  INTEGER PRIMARY KEY,
  price_cents BIGINT NOT NULL
);
CREATE TABLE IF NOT EXISTS batch_results (
  product_id       INTEGER PRIMARY KEY,
  new_price_cents  BIGINT NOT NULL,
  CONSTRAINT price_is_not_negative CHECK (new_price_cents >= 0)
);

DELETE FROM batch_results;
DELETE FROM captured_changes;
DELETE FROM price_changes;
DELETE FROM products;
INSERT INTO products (id, name, price_cents) VALUES (1, 'lamp', 4500), (2, 'desk', 18900), (3, 'chair', 7250);
INSERT INTO price_changes (product_id, price_cents)
VALUES (1, 4700), (3, {{ 7500 if params.changes == 'good' else -1 }});
