SELECT seq, kind, level, message, data, created_at FROM job_event
WHERE job_id = (SELECT id FROM job WHERE id = $1 AND tenant = $4) AND seq > $2
ORDER BY seq
LIMIT $3
