SELECT seq, kind, level, message, data, created_at FROM job_event
WHERE job_id = $1 AND seq > $2
ORDER BY seq
LIMIT $3
