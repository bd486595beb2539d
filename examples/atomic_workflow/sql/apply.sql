UPDATE products
SET price_cents = (SELECT new_price_cents FROM batch_results WHERE product_id = products.id)
WHERE id IN (SELECT product_id FROM batch_results);
