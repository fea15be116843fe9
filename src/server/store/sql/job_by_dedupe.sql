SELECT id FROM job WHERE dedupe_key = $1 AND state IN ('queued', 'running')
