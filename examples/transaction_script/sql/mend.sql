INSERT INTO journal (account_id, closed_month, reason, amount_cents)
SELECT id, 'none', 'deposit', :deposit FROM accounts WHERE balance_cents < 500;
UPDATE accounts SET balance_cents = balance_cents + :deposit WHERE balance_cents < 500;
