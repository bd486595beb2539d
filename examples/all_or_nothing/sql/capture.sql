INSERT INTO captured_changes (product_id, price_cents)
SELECT product_id, price_cents FROM {{ 'no_such_table' if params.fail_at == 'capture' else 'price_changes' }};
DELETE FROM price_changes;
SELECT COUNT(*) FROM captured_changes;
