SELECT id, state, attempt, max_attempts, fence, run_after, lease_until, cancel_requested_at, cancel_reason, worker,
    event_seq, need_memory_bytes, peak_memory_bytes, CAST(unixepoch('subsec') * 1000 AS INTEGER) AS now
FROM job
WHERE id = $1
