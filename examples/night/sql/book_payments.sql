-- First transaction: nobody else may book these.
BEGIN;
UPDATE payments SET state = 'booking' WHERE state = 'new';
COMMIT;

-- Second transaction: the books. A column's name is wrong.
BEGIN;
INSERT INTO bookings (payment_id, amount_cents)
SELECT id, amount_cents FROM payments WHERE state = 'booking';
UPDATE payments SET state = 'booked', booked_at = CURRENT_TIMESTAMP WHERE state = 'booking';
COMMIT;
