UPDATE job SET
    stage = $3, stage_index = $4, stages = $5, bytes_done = $6, bytes_total = $7, bytes_per_second = $8,
    peak_memory_bytes = $9
WHERE id = $1 AND fence = $2 AND state = 'running'
