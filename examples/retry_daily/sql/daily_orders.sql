-- One transaction: the old summary of the day goes and the new one comes, or neither.
DELETE FROM daily_orders WHERE order_day = :day;

INSERT INTO daily_orders (order_day, orders, total_cents)
SELECT order_date, COUNT(*), SUM(amount_cents)
FROM orders_{{ ds_nodash }}
WHERE order_date = :day
GROUP BY order_date;

SELECT orders, total_cents FROM daily_orders WHERE order_day = :day;
