UPDATE stock SET quantity = quantity + (SELECT SUM(d.quantity) FROM working_deliveries d WHERE d.product = stock.product)
WHERE product = 'lamp';
UPDATE stock SET quantity = quantity + (SELECT SUM(d.quantity) FROM working_deliveries d WHERE d.product = stock.product)
WHERE product = 'desk';
