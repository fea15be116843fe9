SELECT state, count(*) AS jobs, min(created_at) AS oldest_at FROM job GROUP BY state
