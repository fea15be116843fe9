-- INDEXED BY: without statistics the planner finds waiting jobs by their state, and sorts them all for each claim.
-- A job that has waited $8 for memory that is not free ($3 is, of $7) is found, and then left: nothing behind it goes first.
UPDATE job SET
    state = 'running', attempt = attempt + 1, fence = fence + 1, worker = $1, lease_until = CAST(unixepoch('subsec') * 1000 AS INTEGER) + $2, started_at = $5,
    stage = NULL, stage_index = 0, stages = 0, bytes_done = 0, bytes_total = 0, bytes_per_second = 0,
    peak_memory_bytes = 0, event_seq = event_seq + 1
WHERE need_memory_bytes <= $3 AND id = (
    SELECT id FROM job INDEXED BY job_ready
    WHERE state = 'queued' AND run_after <= CAST(unixepoch('subsec') * 1000 AS INTEGER) AND attempt < max_attempts
      AND (need_memory_bytes <= $3 OR (need_memory_bytes <= $7 AND run_after <= CAST(unixepoch('subsec') * 1000 AS INTEGER) - $8))
      AND NOT EXISTS (SELECT 1 FROM json_each(techniques) AS t WHERE t.value NOT IN (SELECT value FROM json_each($4)))
      AND ($6 = 9223372036854775807 OR (SELECT count(*) FROM job AS busy WHERE busy.state = 'running' AND busy.tenant = job.tenant) < $6)
    ORDER BY priority DESC, turn, id
    LIMIT 1
)
RETURNING id, model_id, fence, attempt, max_attempts, need_memory_bytes, traceparent, created_at, event_seq
