-- The whole script commits at once, or not at all. Values such as :day are bound, never pasted.
DELETE FROM sales WHERE day = :day AND region = :region;

INSERT INTO sales (day, region, quantity, price)
VALUES (:day, :region, 3, 9.99),
       (:day, :region, 1, 24.50),
       (:day, :region, 7, 1.25);
