-- Takes numbers for events: the counter is in the job's row, so numbers have no gaps and one writer at a time.
UPDATE job SET event_seq = event_seq + $3
WHERE id = $1 AND fence = $2 AND state = 'running'
RETURNING event_seq
