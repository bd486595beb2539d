INSERT INTO orders (id, customer_id, amount_cents)
VALUES (101, 1, 4700), (102, 2, 18900), (103, 3, 7250), (104, 4, 1250), (105, 5, 4999), (106, 1, 751);
