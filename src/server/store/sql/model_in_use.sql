SELECT 1 AS one FROM job WHERE model_id = $1 AND state IN ('queued', 'running') LIMIT 1
