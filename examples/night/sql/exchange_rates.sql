INSERT INTO rates (currency, per_euro)
SELECT currency, per_euro FROM published_rates;
