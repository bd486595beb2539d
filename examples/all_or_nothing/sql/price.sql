INSERT INTO new_prices (product_id, price_cents)
SELECT product_id, price_cents FROM captured_changes;
