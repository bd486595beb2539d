CREATE TABLE IF NOT EXISTS sales (
  id          INTEGER PRIMARY KEY,
  sale_date   DATE NOT NULL,
  quantity    INTEGER NOT NULL,
  price_cents BIGINT NOT NULL
);
CREATE TABLE IF NOT EXISTS digits (d INTEGER PRIMARY KEY);

DELETE FROM digits;
INSERT INTO digits (d) VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9);

-- Sales made up from their number: the same every time, on every database.
DELETE FROM sales;
INSERT INTO sales (id, sale_date, quantity, price_cents)
SELECT n, :day, 1 + n % 9, 100 + (n * 37) % 9900
FROM (
  SELECT 1 + a.d + 10 * b.d + 100 * c.d + 1000 * e.d + 10000 * f.d AS n
  FROM digits a CROSS JOIN digits b CROSS JOIN digits c CROSS JOIN digits e CROSS JOIN digits f
) numbers
WHERE n <= :sales;
