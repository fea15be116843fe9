UPDATE job SET
    lease_until = CAST(unixepoch('subsec') * 1000 AS INTEGER) + $3,
    stage = $4, stage_index = $5, stages = $6, bytes_done = $7, bytes_total = $8, bytes_per_second = $9,
    peak_memory_bytes = $10
WHERE id = $1 AND fence = $2 AND state = 'running'
RETURNING cancel_requested_at
