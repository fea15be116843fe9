SELECT state, count(*) AS jobs,
    CASE WHEN state = 'queued' THEN (SELECT min(created_at) FROM job WHERE state = 'queued') END AS oldest_at
FROM job GROUP BY state
