INSERT INTO region_totals (region, orders, total_cents)
SELECT c.region, COUNT(*), SUM(o.amount_cents)
FROM orders o
JOIN customers c ON c.id = o.customer_id
WHERE c.region = :region
GROUP BY c.region;
