INSERT INTO job (id, model_id, state, priority, run_after, attempt, max_attempts, fence, need_memory_bytes, techniques,
    dedupe_key, stage_index, stages, bytes_done, bytes_total, bytes_per_second, peak_memory_bytes, event_seq, metadata,
    traceparent, created_at, tenant, turn)
VALUES ($1, $2, 'queued', $3, CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint), 0, $4, 0, $5, $6,
    $7, 0, 0, 0, 0, 0, 0, 1, $8,
    $9, $10, $11, greatest(
        coalesce((SELECT max(turn) + 1 FROM job WHERE state = 'queued' AND tenant = $11 AND priority = $3), 0),
        coalesce(
            (SELECT max(turn) FROM job WHERE state = 'running' AND priority = $3),
            (SELECT turn FROM job WHERE state = 'queued' AND priority = $3 AND run_after <= CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint) ORDER BY turn, id LIMIT 1),
            0)))
ON CONFLICT (dedupe_key) WHERE state IN ('queued', 'running') DO NOTHING
