INSERT INTO payments (id, order_id, amount_cents, state)
VALUES (1001, 101, 4700, 'new'), (1002, 102, 18900, 'new'), (1003, 104, 1250, 'new');
