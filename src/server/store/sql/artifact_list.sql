SELECT a.id, a.job_id, a.model_id, a.format, a.digest, a.created_at FROM artifact a JOIN job j ON j.id = a.job_id
WHERE a.id < $1 AND j.tenant = $3 AND ($4 = '' OR a.job_id = $4) AND ($5 = '' OR a.model_id = $5)
ORDER BY a.id DESC
LIMIT $2
