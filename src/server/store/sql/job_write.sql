-- One transition, decided by domain::lease on the row as it was locked; the fence says that it is still that row.
UPDATE job SET
    state = $3,
    attempt = $4,
    run_after = $5,
    lease_until = $6,
    worker = CASE WHEN $3 = 'running' THEN worker END,
    cancel_requested_at = $7,
    cancel_reason = $8,
    finished_at = $9,
    error_code = $10,
    error_message = $11,
    event_seq = $12,
    need_memory_bytes = $13
WHERE id = $1 AND fence = $2 AND state IN ('queued', 'running')
