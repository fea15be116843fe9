-- MATERIALIZED: as a bare sub-select the planner may run it again and lock more rows than it takes.
-- CASE: of single conditions the planner believes that hardly a job meets them all, and sorts every waiting job for each claim
-- instead of taking the first of the index.
-- A job that has waited $8 for memory that is not free ($3 is, of $7) is taken, and then left: nothing behind it goes first.
WITH next AS MATERIALIZED (
    SELECT id, need_memory_bytes FROM job
    WHERE state = 'queued' AND CASE
        WHEN attempt >= max_attempts OR run_after > CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint) THEN false
        WHEN need_memory_bytes > $3 AND (need_memory_bytes > $7 OR run_after > CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint) - $8) THEN false
        WHEN NOT CAST(techniques AS jsonb) <@ CAST($4 AS jsonb) THEN false
        WHEN CAST($6 AS bigint) = 9223372036854775807 THEN true
        ELSE (SELECT count(*) FROM job AS busy WHERE busy.state = 'running' AND busy.tenant = job.tenant) < CAST($6 AS bigint)
    END
    ORDER BY priority DESC, turn, id
    LIMIT 1
    FOR UPDATE SKIP LOCKED
)
UPDATE job SET
    state = 'running', attempt = job.attempt + 1, fence = job.fence + 1, worker = $1, lease_until = CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint) + $2, started_at = $5,
    stage = NULL, stage_index = 0, stages = 0, bytes_done = 0, bytes_total = 0, bytes_per_second = 0,
    peak_memory_bytes = 0, event_seq = job.event_seq + 1
FROM next WHERE job.id = next.id AND next.need_memory_bytes <= $3
RETURNING job.id, model_id, fence, attempt, max_attempts, job.need_memory_bytes, traceparent, created_at, event_seq
