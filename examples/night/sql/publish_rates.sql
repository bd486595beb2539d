-- What the central bank does when it is asked again. The table gets its name when it is complete.
DROP TABLE IF EXISTS rates_to_publish;
CREATE TABLE rates_to_publish (currency VARCHAR(3) PRIMARY KEY, per_euro BIGINT NOT NULL);
INSERT INTO rates_to_publish (currency, per_euro) VALUES ('CHF', 94), ('GBP', 85), ('USD', 108);
ALTER TABLE rates_to_publish RENAME TO published_rates;
