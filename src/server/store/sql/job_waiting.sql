SELECT count(*) AS waiting FROM (SELECT 1 FROM job WHERE state = 'queued' LIMIT $1) AS ready
