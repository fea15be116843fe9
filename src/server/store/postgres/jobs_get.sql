SELECT j.id, j.tenant, j.model_id, b.recipe, j.state, j.priority, j.metadata, j.attempt, j.max_attempts, j.fence,
    j.need_memory_bytes, j.stage, j.stage_index, j.stages, j.bytes_done, j.bytes_total, j.bytes_per_second,
    j.error_code, j.error_message, j.created_at, j.started_at, j.finished_at, j.cancel_requested_at,
    (SELECT string_agg(a.id, ',' ORDER BY a.id) FROM artifact a WHERE a.job_id = j.id) AS artifacts
FROM job j JOIN job_body b ON b.job_id = j.id
WHERE j.id = ANY (ARRAY(SELECT jsonb_array_elements_text(CAST($1 AS jsonb))))
