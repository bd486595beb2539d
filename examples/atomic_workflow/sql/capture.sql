INSERT INTO captured_changes (product_id, price_cents)
SELECT product_id, price_cents FROM price_changes;
