INSERT INTO failure_log (run_id, task, try_number, error, file, line)
VALUES (:run_id, :task, :try_number, :error, :file, :line);
