DELETE FROM sales_summary WHERE sale_day = :day;

INSERT INTO sales_summary (sale_day, sale_id, quantity, price_cents, total_cents)
SELECT :day, sale_id, quantity, price_cents, total_cents FROM sales_staging;
