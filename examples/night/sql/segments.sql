-- Neither statement can be repeated without harm: a segment applied twice would leave two rows and a wrong balance.
{% for segment in range(1, params.segments + 1) %}
BEGIN;
INSERT INTO applied (segment, work)
SELECT {{ segment }}, SUM((a.d * b.d + c.d * e.d) % 7) -- something to do for a while
FROM digits a CROSS JOIN digits b CROSS JOIN digits c CROSS JOIN digits e CROSS JOIN digits f CROSS JOIN digits g
WHERE g.d < 3;
UPDATE account SET balance_cents = balance_cents + 100 WHERE id = 1;
COMMIT;
{% endfor %}
