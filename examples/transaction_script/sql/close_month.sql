-- Segment 1: interest.
BEGIN;
INSERT INTO journal (account_id, closed_month, reason, amount_cents)
SELECT id, :closed_month, 'interest', 100 FROM accounts;
UPDATE accounts SET balance_cents = balance_cents + 100;
COMMIT;

-- Segment 2: fees. The journal is written first, so there is something to roll back when an account cannot pay.
BEGIN;
INSERT INTO journal (account_id, closed_month, reason, amount_cents)
SELECT id, :closed_month, 'fee', -500 FROM accounts;
UPDATE accounts SET balance_cents = balance_cents - 500;
COMMIT;

-- Segment 3: the month is closed.
BEGIN;
INSERT INTO closed_months (closed_month) VALUES (:closed_month);
COMMIT;
