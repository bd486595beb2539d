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
CREATE TABLE IF NOT EXISTS new_prices (
  product_id  INTEGER PRIMARY KEY,
  price_cents BIGINT NOT NULL,
  CONSTRAINT new_price_is_not_negative CHECK (price_cents >= 0)
);
CREATE TABLE IF NOT EXISTS reports (
  text VARCHAR(200) NOT NULL
);

DELETE FROM reports;
DELETE FROM new_prices;
DELETE FROM captured_changes;
DELETE FROM price_changes;
DELETE FROM products;
INSERT INTO products (id, name, price_cents) VALUES (1, 'lamp', 4500), (2, 'desk', 18900), (3, 'chair', 7250);
INSERT INTO price_changes (product_id, price_cents)
VALUES (1, 4700), (3, {{ {'price': -1, 'check': 750000}.get(params.fail_at, 7500) }});
