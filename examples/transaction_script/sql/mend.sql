{% if params.mend %}
INSERT INTO journal (account_id, closed_month, reason, amount_cents)
SELECT id, 'none', 'deposit', 1000 FROM accounts WHERE balance_cents < 500;
UPDATE accounts SET balance_cents = balance_cents + 1000 WHERE balance_cents < 500;
{% endif %}
