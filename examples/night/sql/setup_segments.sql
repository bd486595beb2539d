CREATE TABLE IF NOT EXISTS digits (d INTEGER PRIMARY KEY);
CREATE TABLE IF NOT EXISTS applied (segment INTEGER NOT NULL, work BIGINT NOT NULL);
CREATE TABLE IF NOT EXISTS account (id INTEGER PRIMARY KEY, balance_cents BIGINT NOT NULL);

DELETE FROM account;
DELETE FROM applied;
DELETE FROM digits;
INSERT INTO digits (d) VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9);
INSERT INTO account (id, balance_cents) VALUES (1, 0);
