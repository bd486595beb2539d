SELECT product, SUM(quantity) AS quantity, SUM(quantity * price_cents) AS total_cents
FROM sales
WHERE sale_date = :day
GROUP BY product
ORDER BY product;
