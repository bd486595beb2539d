CREATE TABLE IF NOT EXISTS stock (
  product  VARCHAR(50) PRIMARY KEY,
  quantity INTEGER NOT NULL,
  CONSTRAINT quantity_is_not_negative CHECK (quantity >= 0)
);
DELETE FROM stock;
INSERT INTO stock (product, quantity) VALUES ('lamp', 10), ('desk', 2);

DROP TABLE IF EXISTS working_deliveries;
CREATE TABLE working_deliveries (
  product  VARCHAR(50) NOT NULL,
  quantity INTEGER NOT NULL
);
