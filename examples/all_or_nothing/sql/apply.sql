UPDATE products
SET price_cents = (SELECT price_cents FROM new_prices WHERE product_id = products.id)
WHERE id IN (SELECT product_id FROM new_prices);
{% if params.fail_at == 'apply' %}
-- The key is taken: the update above is undone with all that was done before it.
INSERT INTO products (id, name, price_cents) VALUES (1, 'lamp', 0);
{% endif %}
