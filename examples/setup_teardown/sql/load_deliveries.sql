INSERT INTO working_deliveries (product, quantity)
VALUES ('lamp', 5), ('desk', {{ 4 if params.work == 'good' else -3 }});
