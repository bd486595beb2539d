CREATE TABLE IF NOT EXISTS sales (
  id          INTEGER PRIMARY KEY,
  sale_date   DATE NOT NULL,
  product     VARCHAR(50) NOT NULL,
  quantity    INTEGER NOT NULL,
  price_cents BIGINT NOT NULL
);
DELETE FROM sales;
INSERT INTO sales (id, sale_date, product, quantity, price_cents) VALUES
  (1, :day, 'lamp', 2, 4500),
  (2, :day, 'desk', 1, 18900),
  (3, :day, 'lamp', 1, 4500),
  (4, :day, 'chair', 4, 7250),
  (5, '2001-01-01', 'chair', 9, 7250);
