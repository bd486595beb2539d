BEGIN;
INSERT INTO batch_results (product_id, new_price_cents)
SELECT product_id, price_cents FROM captured_changes;
COMMIT;
