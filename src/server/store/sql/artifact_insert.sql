INSERT INTO artifact (id, job_id, model_id, format, digest, created_at) VALUES ($1, $2, $3, $4, $5, $6)
