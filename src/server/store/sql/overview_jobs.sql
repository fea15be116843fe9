SELECT state, count(*) AS jobs, min(created_at) AS oldest_at,
    CAST(COALESCE(sum(CASE WHEN state = 'running' THEN need_memory_bytes END), 0) AS BIGINT) AS planned
FROM job WHERE tenant = $1 GROUP BY state
