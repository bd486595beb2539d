-- The second statement fails: nobody has made this table.
SELECT COUNT(*) AS failures_so_far FROM failure_log;

SELECT product, total
FROM non_existing_table
ORDER BY total DESC;
