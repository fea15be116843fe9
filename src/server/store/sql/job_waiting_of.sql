SELECT count(*) AS waiting FROM (SELECT 1 FROM job WHERE state = 'queued' AND tenant = $2 LIMIT $1) AS ready
