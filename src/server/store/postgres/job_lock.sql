SELECT id, state, attempt, max_attempts, fence, run_after, lease_until, cancel_requested_at, cancel_reason, worker,
    event_seq, need_memory_bytes, peak_memory_bytes, CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint) AS now
FROM job
WHERE id = $1
FOR UPDATE
