-- The products were not touched yet: what is left to undo is the capture.
DELETE FROM batch_results;
DELETE FROM captured_changes;
