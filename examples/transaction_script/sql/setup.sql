CREATE TABLE IF NOT EXISTS accounts (
  id            INTEGER PRIMARY KEY,
  owner         VARCHAR(50) NOT NULL,
  balance_cents BIGINT NOT NULL,
  CONSTRAINT never_overdrawn CHECK (balance_cents >= 0)
);
CREATE TABLE IF NOT EXISTS journal (
  account_id   INTEGER NOT NULL,
  closed_month VARCHAR(7) NOT NULL,
  reason       VARCHAR(20) NOT NULL,
  amount_cents BIGINT NOT NULL
);
CREATE TABLE IF NOT EXISTS closed_months (closed_month VARCHAR(7) PRIMARY KEY);

DELETE FROM closed_months;
DELETE FROM journal;
DELETE FROM accounts;
INSERT INTO accounts (id, owner, balance_cents) VALUES (1, 'Ada', 90000), (2, 'Blaise', 12000), (3, 'Cora', 300);
